"""What is known of a model: how it was trained, and what the evaluations of the store say of it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from advmix_cli import artifacts, data, models, zoo
from advmix_cli.config import Adversary, TrainSettings
from advmix_cli.errors import AdvmixError
from advmix_cli.judging import BOUNDS, Certificate, Inferring
from advmix_cli.names import parted, short_name
from advmix_cli.settings import canonical_json
from advmix_cli.threats import Threat
from advmix_cli.workflows.checkpoints import way
from advmix_cli.workflows.evaluation import record as evaluations
from advmix_cli.workflows.evaluation import statistics
from advmix_cli.workflows.evaluation.record import Cell, Column, Evaluation
from advmix_cli.workflows.references import ModelRef
from advmix_cli.workflows.session import Session

Plain = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Found:
    """An evaluation in which the model is row number `row`."""

    evaluation: Evaluation
    row: int


def evaluated(session: Session, model: ModelRef) -> list[Found]:
    """The evaluations of the store that have the model, the newest first. Those that cannot be read are named.

    None of those on what its training held out, by which its epoch was chosen.
    """
    found = []
    for name in session.store.names("evaluations"):
        try:
            evaluation = evaluations.read(session.store.path("evaluations", name))
        except AdvmixError as error:
            session.report.warn(f"left out: {error.message}")
            continue
        if evaluation.settings.held is not None:
            continue
        own = (model.name, model.digest)
        row = next((i for i, r in enumerate(evaluation.rows) if (r.lineage["name"], r.lineage["digest"]) == own), None)
        if row is not None:
            found.append(Found(evaluation, row))
    return sorted(found, key=lambda each: (each.evaluation.made["date"], each.evaluation.name), reverse=True)


def gathered(session: Session, model: ModelRef) -> Plain:
    """All of it, in plain values."""
    found, network = evaluated(session, model), model.network
    ours = model.stored or model.label.startswith(zoo.PREFIX)
    own_file = models.kind_of(network.arch) == "file"
    shipped = _shipped(model)
    figures = [figure for each in found for figure in _figures(each)] + shipped["figures"]
    brackets = [bracket for each in found for bracket in _brackets(each)] + shipped["brackets"]
    audits = [audit for each in found for audit in _audits(each)]
    kept = {"figures": _best(figures), "brackets": _best(brackets), "audits": _best(audits)}
    used = {each["evaluation"] for part in kept.values() for each in part}
    return {
        "title": model.label.removeprefix(zoo.PREFIX) if ours else model.name,
        "model": {
            "name": model.name, "weights": model.which, "digest": model.digest, "key": model.record["key"],
            "arch": network.label if own_file else network.arch, "code_sha256": network.code or None,
            "dataset": short_name(model.dataset), "shape": list(network.shape), "classes": network.classes,
            "class_names": list(model.class_names), "normalisation": model.record.get("normalisation"),
            "fingerprint": model.record.get("fingerprint"),
        },
        "license": "mit" if model.label.startswith(zoo.PREFIX) else None,
        "training": lineage(session, model),
        **{part: [_without_identity(each) for each in some] for part, some in kept.items()},
        "evaluations": [_evaluation(session, each.evaluation) for each in found if each.evaluation.name in used],
        "measured_with": shipped["commands"],
    }  # fmt: skip


def _best(found: Iterable[Plain]) -> list[Plain]:
    """Of each figure the one on most images, then the newest; in the order in which they were met first."""
    chosen: dict[str, Plain] = {}
    for each in found:
        other = chosen.setdefault(each["identity"], each)
        if (each["n"], each["date"]) > (other["n"], other["date"]):
            chosen[each["identity"]] = each
    return list(chosen.values())


def _without_identity(each: Plain) -> Plain:
    return {name: value for name, value in each.items() if name != "identity"}


def _evaluation(session: Session, evaluation: Evaluation) -> Plain:
    made = evaluation.made
    return {
        "name": evaluation.name, "key": evaluation.key, "dataset": short_name(evaluation.settings.dataset),
        "fingerprint": evaluation.fingerprint, "split": evaluation.settings.split, "seed": evaluation.settings.seed,
        "advmix": made["advmix"], "torch": made["torch"], "device": made["gpu"] or made["device"], "date": made["date"],
        "seconds": made["seconds"], "command": made["command"], "caches": list(_caches(session, evaluation)),
    }  # fmt: skip


def _caches(session: Session, evaluation: Evaluation) -> Iterator[Plain]:
    """The sample caches that it met and the store still has, with the command of each."""
    aliases = session.store.refs()
    for column in evaluation.columns:
        kind, name = aliases.get(column.label, ("samples", column.label))
        with contextlib.suppress(AdvmixError):
            record = artifacts.samples_record(session.store.path(kind, name), whole=False) or {}
            same = column.threat is not None and record.get("threat") == column.threat.to_dict()
            if column.kind == kind == "samples" and same and record["model"]["name"] == column.source:
                yield {"name": record["name"], "digest": record["digest"], "command": record["made"]["command"]}


def _source(evaluation: Evaluation) -> Plain:
    """Where a figure comes from."""
    settings = evaluation.settings
    return {
        "dataset": short_name(settings.dataset), "fingerprint": evaluation.fingerprint, "split": settings.split,
        "of": _size(settings.dataset, settings.split), "evaluation": evaluation.name, "key": evaluation.key,
        "date": evaluation.made["date"],
    }  # fmt: skip


def _size(dataset: str, split: str) -> int | None:
    """How many images a split has; of others' sets that is not known without them."""
    known = data.DATASETS.get(parted(dataset)[0])
    return known.sizes[split] if known else None


def _identity(source: Plain, *what: Any) -> str:
    return canonical_json([source["fingerprint"], source["split"], *what])


def _figures(found: Found) -> Iterator[Plain]:
    """The model's row, a figure a column."""
    evaluation, source = found.evaluation, _source(found.evaluation)
    own, inference = evaluation.rows[found.row].lineage["name"], evaluation.settings.inference
    for column, cell in zip(evaluation.columns, evaluation.cells[found.row], strict=True):
        yield _figure(source, column, cell, own, evaluation.columns, inference)


def _figure(
    source: Plain, column: Column, cell: Cell, own: str, columns: Sequence[Column] = (), way: Inferring | None = None
) -> Plain:
    """One of them, of the model called `own`; `columns` are all that stand beside it, `way` how verdicts came about."""
    return source | {
        "identity": _identity(source, way and way.to_dict(), _met(column, columns)), "on": column.label,
        "kind": column.kind, "what": _told(column, columns, own), "bound": column.bound,
        "threat": column.threat and column.threat.to_dict(),
        "certificate": column.proved and column.proved.to_dict(), "joint": column.joint,
        "against": column.source if column.kind == "samples" else own if column.kind == "attack" else None,
        "own": column.source == own if column.kind == "samples" else True, "inference": str(way) if way else None,
        "n": cell.n, "correct": cell.correct, "accuracy": cell.accuracy, "accuracy_ci95": list(cell.interval),
        "loss": cell.loss, "note": cell.note or None, "by_class": [list(each) for each in cell.by_class],
    }  # fmt: skip


def _met(column: Column, columns: Sequence[Column]) -> Any:
    """What tells a column from others, wherever it stands."""
    if column.kind == "worst":
        return ["worst", *sorted(canonical_json(_met(columns[i], columns)) for i in column.of)]
    threat = column.threat and column.threat.to_dict()
    label = column.label if column.kind == "samples" and threat is None else None
    return [column.kind, threat, column.further, column.source, column.joint, label,
            column.proved and column.proved.to_dict()]  # fmt: skip


def _told(column: Column, columns: Sequence[Column], own: str) -> str:
    """A column in full, its threat in it."""
    if column.kind == "worst":
        return "the worst case over: " + "; ".join(_told(columns[i], columns, own) for i in column.of)
    if column.kind == "certified":
        return str(column.proved)
    if column.kind == "samples":
        by = str(column.threat) if column.threat else "an attack that its file does not name"
        against = "against this model" if column.source == own else f"against {column.source or 'an unknown model'}"
        return f"the cache {column.label}: {by}, made {against}"
    return after(column.threat, column.further) if column.threat else "clean"


def after(threat: Threat, further: bool) -> str:
    """A threat in full, with what follows its standard parts where a figure is that of all."""
    beyond = " and ".join(part.declared.title for part in threat.parts[threat.standard :])
    return f"{threat}, then {beyond}" if further else str(threat)


def _brackets(found: Found) -> Iterator[Plain]:
    evaluation, source = found.evaluation, _source(found.evaluation)
    for each in statistics.brackets(evaluation):
        if each.pop("model") == evaluation.models[found.row]:
            yield source | each | {"identity": _identity(source, each["norm"], each["eps"], each["attacked"])}


def _audits(found: Found) -> Iterator[Plain]:
    evaluation, source = found.evaluation, _source(found.evaluation)
    audit, threat = evaluation.rows[found.row].audit, evaluation.settings.audited
    if audit is not None and threat is not None:
        kept = {part: audit[part] for part in ("n", "verdict", "chance", "robust", "checks")}
        ball = {"norm": threat.norm, "eps": threat.eps}
        yield source | kept | ball | {"identity": _identity(source, threat.norm, threat.eps)}


def _shipped(model: ModelRef) -> Plain:
    """What is written down of a network that ships, in the same form; nothing of others."""
    about = zoo.known().get(model.label.partition("@")[0].removeprefix(zoo.PREFIX))
    if about is None or not model.label.startswith(zoo.PREFIX) or model.digest != model.record["digests"]["best"]:
        return {"figures": [], "brackets": [], "commands": []}
    all_of, norm, eps = model.record["images"]["test"], about["norm"], about["eps"]
    source = {
        "dataset": short_name(model.dataset), "fingerprint": model.record["fingerprint"], "split": "test",
        "of": _size(model.dataset, "test"), "evaluation": None, "key": None, "date": "",
    }  # fmt: skip
    threat, whole = Threat.of("autoattack", norm, eps), Certificate(eps, norm, "ibp")
    some = Certificate(eps, norm, next((each for each in BOUNDS if f"--bounds {each}" in about["command"]), "best"))

    def figure(column: Column, percent: float, n: int) -> Plain:
        return _figure(source, column, Cell(n, round(percent * n / 100), None, ""), model.name)

    beyond = "+".join([threat.label, *(part.attack for part in threat.parts[threat.standard :])])
    figures = [
        figure(Column("clean", "clean"), about["clean"], all_of),
        figure(Column("attack", beyond, threat, "upper", further=True), about["upper"], about["n"]),
        figure(Column("certified", whole.label, bound="lower", proved=whole), about["certified"], all_of),
    ]
    if some != whole:
        figures.append(figure(Column("certified", some.label, bound="lower", proved=some), about["lower"], about["n"]))
    bracket = source | {part: about[part] for part in ("norm", "eps", "n", "lower", "upper")} | {"attacked": True}
    bracket["identity"] = _identity(source, norm, eps, True)
    commands = [f"advmix eval {model.label} --certify --bounds ibp", about["command"]]
    return {"figures": figures, "brackets": [bracket], "commands": commands}


def lineage(session: Session, model: ModelRef) -> list[Plain]:
    """The trainings that led to the model, the first first; one that is gone is named alone."""
    record, which = model.record, model.which
    found, seen = [_training(record, which)], {record["name"]}
    while (begun := record.get("init")) and begun["name"] not in seen:
        seen.add(begun["name"])
        which, before = begun["weights"], _begun(session, begun)
        if before is None:
            found.append({"name": begun["name"], "weights": which, "digest": begun["digest"], "origin": "gone"})
            break
        record = before
        found.append(_training(record, which))
    return found[::-1]


def _begun(session: Session, begun: Plain) -> Plain | None:
    """The record of what a training began from, if those very weights are still there; a path is not followed."""
    try:
        ref = begun.get("path", "")
        path = zoo.path(ref) if ref.startswith(zoo.PREFIX) else session.store.path("checkpoints", begun["name"])
        record = artifacts.checkpoint_record(path, whole=False)
    except AdvmixError:
        return None
    return record if record["digests"].get(begun["weights"]) == begun["digest"] else None


def _training(record: Plain, which: str) -> Plain:
    """One of them; of an imported one little is known."""
    found = {
        "name": record["name"], "weights": which, "digest": record["digests"][which], "origin": record["origin"],
        "dataset": short_name(record["dataset"]), "command": record["made"]["command"], "made": record["made"],
    }  # fmt: skip
    if record["origin"] == "import":
        return found | {"source": record["source"]}
    settings = TrainSettings.from_dict(record["settings"])
    adversary, metrics = settings.adversary, record["metrics"]
    prefix = {"best": "", "last": "last_"}.get(which)
    tested = None if prefix is None else metrics.get(f"{prefix}test_accuracy")
    attacked = None if prefix is None else metrics.get(f"{prefix}test_robust_accuracy")
    kept = ("epochs", "batch_size", "optimizer", "lr", "schedule", "weight_decay", "clip", "mix",
            "mix_alpha", "soft_label", "augment", "flip", "crop_padding", "ema", "loss", "seed", "limit", "precision",
            "preset")  # fmt: skip
    return found | {name: value for name, value in settings.to_dict().items() if name in kept} | {
        "begun_from": record["init"] and f"{record['init']['name']}@{record['init']['weights']}",
        "begun_from_file": record.get("weights"), "images": record["images"],
        "best_epoch": metrics["best_epoch"], "chosen_by": metrics["chosen_by"],
        "tested": None if tested is None else {"accuracy": tested, "n": record["images"]["test"]},
        "tested_attacked": None if attacked is None else {
            "accuracy": attacked, "n": record["images"]["test"], "threat": metrics["test_threat"],
        },
        **_adversarial(adversary),
    }  # fmt: skip


def _adversarial(adversary: Adversary | None) -> Plain:
    if adversary is None:
        return {"method": "standard", "title": "standard training", "reference": None, "against": None,
                "norm": None, "eps": None, "steps": None, "variant": None}  # fmt: skip
    threat = adversary.threat
    return {
        "method": adversary.method, "title": way(adversary), "reference": adversary.declared.reference,
        "against": adversary.against, "norm": threat.norm, "eps": threat.eps,
        "steps": threat.steps if adversary.declared.attacks else None, "variant": threat.variant,
    }  # fmt: skip
