"""`advmix eval`: any number of models on clean images, on sample caches and under white-box attacks, in one table."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import artifacts, config, data
from advmix_cli.config import EvalSettings, Threat
from advmix_cli.errors import AdvmixError, DamagedError, NotFoundError, UsageError
from advmix_cli.results import Result
from advmix_cli.workflows.common import (
    ModelRef,
    Session,
    made_with,
    make_once,
    resolve_model,
    resolve_path,
)
from advmix_cli.workflows.evaluation_statistics import audited
from advmix_cli.workflows.evaluation_table import result
from advmix_cli.workflows.measuring import Cache, audits, begun, grid, worst_of
from advmix_cli.workflows.unfinished import Unfinished

if TYPE_CHECKING:
    from advmix_cli.data import ImageSet


@dataclasses.dataclass(frozen=True)
class SamplesRef:
    """A sample cache that a reference resolved to; `record` is None in a file made by others."""

    label: str
    path: Path
    record: dict[str, Any] | None

    @property
    def threat(self) -> Threat | None:
        """What its attacker was allowed, None where the file does not say."""
        return None if self.record is None else Threat.from_dict(self.record["threat"])

    def identity(self) -> str:
        """What its content is known by in keys."""
        if self.record is not None:
            return config.digest(self.record)
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def resolve_samples(session: Session, ref: str) -> SamplesRef:
    """The sample cache that `ref` names. A file of others is taken, with a note."""
    label, path = resolve_path(session, ref, ("samples",), (".pt",))
    record = artifacts.samples_record(path)
    if record is None and session.store.root in path.parents:
        raise DamagedError(f"{path} is not what was written: it has no record", "remove it: advmix store remove")
    if record is None:
        session.report.note(f"{path} was not made by advmix: it does not say how its images were attacked")
    return SamplesRef(label, path, record)


def attacked_model(session: Session, samples: SamplesRef) -> ModelRef:
    """The model that a cache was made against, if the store still has those very weights."""
    if samples.record is None:
        raise UsageError(
            f"{samples.path} does not say which model it attacks",
            "name a model: advmix eval MODEL --samples ...",
        )
    lineage = samples.record["model"]
    if lineage["weights"] == "untrained":
        raise UsageError(
            f"{samples.label} attacks an untrained network", "name a model: advmix eval MODEL --samples ..."
        )
    named = [alias for alias, target in session.store.refs().items() if target == ("checkpoints", lineage["name"])]
    ref = lineage.get("path") or (named or [lineage["name"]])[0]
    try:
        model = resolve_model(session, f"{ref}@{lineage['weights']}")
    except NotFoundError:
        model = None
    if model is None or model.digest != lineage["digest"]:
        raise NotFoundError(f"the model that {samples.label} attacks, {lineage['name']}, is gone", "name another model")
    return model


def check_report(path: Path | None) -> None:
    """Raise UsageError where --report cannot be meant: found before the work, not after."""
    if path is not None and path.suffix not in (".html", ".htm"):
        raise UsageError(f"--report {path} must end in .html", "it is one HTML file with tables and pictures")
    if path is not None and not path.absolute().parent.is_dir():
        raise NotFoundError(f"there is no folder {path.absolute().parent}", "make it first, or write elsewhere")


def evaluate(
    session: Session,
    models: list[ModelRef],
    samples: list[SamplesRef],
    settings: EvalSettings,
    *,
    report: Path | None = None,
    fail_on: str | None = None,
) -> Result:
    """One row for each model and each of: clean images, the caches, the white-box threats.

    `report` is where an HTML report goes too; with `fail_on` an audit's verdict as grave becomes the result's problem.
    """
    shape = data.info(settings.dataset).shape
    for model in models:
        if model.dataset != settings.dataset and data.info(model.dataset).shape != shape:
            raise UsageError(
                f"{model.label} takes {model.dataset}, not {settings.dataset}",
                "evaluate models of one data set at a time",
            )
    for cache in samples:
        if cache.record is not None and cache.record["dataset"] != settings.dataset:
            raise UsageError(
                f"{cache.label} holds attacked images of {cache.record['dataset']}, not of {settings.dataset}",
                "give caches of the models' data set",
            )
        if cache.record is not None and cache.record["split"] != settings.split:
            raise UsageError(
                f"{cache.label} holds attacked {cache.record['split']} images, not {settings.split}",
                "evaluate caches of one split at a time, and leave --split out",
            )
    fingerprint = session.fingerprint(settings.dataset)
    key = config.key(
        "evaluation",
        settings,
        data=fingerprint,
        weights=[model.digest for model in models],
        samples=[cache.identity() for cache in samples],
    )
    name = f"{settings.dataset}-{settings.split}-{len(models)}x{1 + len(samples) + len(settings.threats)}-{key[:8]}"
    path = session.store.path("evaluations", name)
    record, cached = make_once(
        session,
        "evaluations",
        name,
        key,
        read_evaluation,
        lambda: _evaluate(session, models, samples, settings, name, key, fingerprint),
    )
    labels = {"models": [m.label for m in models], "columns": _columns(samples, settings)}
    if any(record[part] != labels[part] for part in labels):  # the same numbers under other aliases
        record |= labels
        session.store.write(path, artifacts.sealed(record).encode())
    answer = result(record, path, cached)
    if report is not None:
        from advmix_cli.workflows.report import html

        session.store.write(report.absolute(), html(record, answer).encode())
        session.report.note(f"report written to {report}")
        answer.data["report"] = str(report)
    grave = {"masked": ("masked",), "suspicious": ("suspicious", "masked")}.get(fail_on or "", ())
    failed = [each["model"] for each in audited(record) if each["verdict"] in grave]
    if failed:
        problem = AdvmixError(
            f"the audit finds {fail_on} gradients{' or worse' if fail_on == 'suspicious' else ''}: {', '.join(failed)}",
            "see the advice beside its checks",
            code="masked-gradients",
        )
        return dataclasses.replace(answer, problem=problem)
    return answer


def read_evaluation(path: Path) -> dict[str, Any]:
    """A stored evaluation. Raises DamagedError."""
    try:
        record = artifacts.unseal(path.read_bytes(), path)
    except OSError as error:
        raise DamagedError(f"cannot read {path}: {error.strerror}", "check its permissions") from error
    if record.get("kind") != "evaluation":
        raise DamagedError(f"{path} is no evaluation", "remove it: advmix store remove")
    return record


def _columns(samples: list[SamplesRef], settings: EvalSettings) -> list[str]:
    columns = ["clean"]
    for cache in samples:
        as_run = cache.threat is not None and cache.threat.variant == "as-run" and "as-run" not in cache.label
        columns.append(cache.label + (" (as-run)" if as_run else ""))
    columns += [threat.label for threat in settings.threats]
    return columns + (["worst case"] if worst_of(_sizes(samples), settings) else [])


def _evaluate(
    session: Session,
    models: list[ModelRef],
    samples: list[SamplesRef],
    settings: EvalSettings,
    name: str,
    key: str,
    fingerprint: str,
) -> None:
    device = session.device()
    images = session.images(settings.dataset, settings.split)
    caches = [_load_samples(session, cache, settings, fingerprint, images) for cache in samples]
    # With caches alone the clean images are those that the caches attack, so that the columns compare.
    limit = settings.limit
    if limit is None and caches and not settings.threats:
        limit = max(len(labels) for _, labels, _ in caches)
    images = images.first(limit).to(device)
    unfinished = Unfinished(session, name, key)
    worst = worst_of(_sizes(samples), settings)
    kept = begun(session, unfinished)
    cells, reliability = grid(session, models, images, caches, worst, settings, unfinished, kept)
    found = audits(session, models, images, settings, unfinished, kept) if settings.audited else None
    none: tuple[str | None, bool, dict[str, Any] | None] = (None, True, None)
    columns = [none]  # of each: what its attack was made against, whether the clean images are known, the threat
    for cache, (_, _, ours) in zip(samples, caches, strict=True):
        source = cache.record["model"]["name"] if cache.record else None
        columns.append((source, ours, cache.threat.to_dict() if cache.threat else None))
    columns += [("itself", True, threat.to_dict()) for threat in settings.threats]
    columns += [none] if worst else []
    sources, joint, threats = (list(part) for part in zip(*columns, strict=True))
    record = {
        "schema": config.SCHEMA,
        "kind": "evaluation",
        "name": name,
        "key": key,
        "settings": settings.to_dict(),
        "dataset": settings.dataset,
        "fingerprint": fingerprint,
        "split": settings.split,
        "models": [model.label for model in models],
        "columns": _columns(samples, settings),
        "lineage": [model.lineage() for model in models],
        "sources": sources,
        "joint": joint,
        "worst_of": worst,
        "threats": threats,
        "grid": cells,
        "reliability": reliability,
        "audits": found,
        "runs": [_run_of(model) for model in models],
        "made_with": made_with(),
    }
    session.store.write(session.store.path("evaluations", name), artifacts.sealed(record).encode())
    unfinished.delete()


def _sizes(samples: list[SamplesRef]) -> list[int | None]:
    return [cache.record["n"] if cache.record is not None else None for cache in samples]


def _run_of(model: ModelRef) -> list[Any] | None:
    """[what a training run is known by but for its seed, the seed]; None for an imported model."""
    settings = model.record.get("settings")
    if not settings:
        return None
    begun_from = (model.record.get("init") or {}).get("digest")
    rest = {name: value for name, value in settings.items() if name != "seed"}
    return [config.digest([rest, begun_from, model.which])[:16], settings["seed"]]


def _load_samples(
    session: Session, cache: SamplesRef, settings: EvalSettings, fingerprint: str, images: ImageSet
) -> Cache:
    """(attacked images, labels, whether `images` are the clean originals), checked against the threat."""
    from advmix_cli import attacks

    x_adv, labels = artifacts.samples_tensors(cache.path)
    if (
        tuple(x_adv.shape[1:]) != images.info.shape
        or int(labels.max()) >= len(images.info.classes)
        or int(labels.min()) < 0
    ):
        raise UsageError(
            f"{cache.label} holds images of shape {tuple(x_adv.shape[1:])} with labels up to {int(labels.max())}, "
            f"which do not fit {settings.dataset}",
            "give a cache of the models' data set",
        )
    record = cache.record
    ours = record is not None and record["fingerprint"] == fingerprint
    n = len(labels)
    if ours and not (n <= len(images) and bool((labels == images.y[:n]).all())):
        raise DamagedError(f"{cache.path} is damaged: its labels are not those of {settings.dataset}", "make it again")
    if not ours:
        session.report.note(
            f"{cache.label}: the clean originals are not known, so the accuracy is on the attacked images alone"
        )
    attacks.perturbation(attacks.to_float(images.x[:n]) if ours else x_adv, x_adv, cache.threat)
    return (
        (x_adv, labels, ours) if settings.limit is None else (x_adv[: settings.limit], labels[: settings.limit], ours)
    )
