"""`advmix attack`: a sample cache."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from advmix_cli import artifacts, data, models
from advmix_cli.config import AttackSettings
from advmix_cli.passes import Work
from advmix_cli.results import Facts, Result, accuracy, changes, cost, costs, stages
from advmix_cli.settings import SCHEMA, key
from advmix_cli.threats import Threat
from advmix_cli.workflows.making import made, quoted, set_alias
from advmix_cli.workflows.parts import Unfound, complete, make_in_parts, part_result, put_together
from advmix_cli.workflows.references import ModelRef, Untrained, check_meets, load_model
from advmix_cli.workflows.session import Progress, Session
from advmix_cli.workflows.unfinished import Unfinished

if TYPE_CHECKING:
    from torch import nn

    from advmix_cli import attacks


def build(target: ModelRef | Untrained, device: Any) -> nn.Module:
    """The network that is meant, on the device."""
    if isinstance(target, Untrained):
        return models.build(target.network, target.seed).to(device)
    return load_model(target, device)


def attack(
    session: Session, target: ModelRef | Untrained, settings: AttackSettings, alias: str | None = None
) -> Result:
    """Attack a split, or find the sample cache that the model and `settings` give."""
    info = session.dataset(settings.dataset)
    check_meets(target, info)
    fingerprint = session.fingerprint(settings.dataset)
    own = key("samples", settings, data=data.identity(info, fingerprint), weights=target.identity())
    label = settings.label + ("-untrained" if isinstance(target, Untrained) else "")
    name = f"{label}-{own[:8]}"
    try:
        record, cached = make_in_parts(
            session,
            "samples",
            name,
            own,
            artifacts.samples_record,
            lambda part: _attack(part, target, settings, name, own, fingerprint),
        )
    except Unfound as missing:
        return part_result(session, missing)
    set_alias(session, alias, "samples", name)
    return _result(session, record, cached, alias)


def _attack(
    session: Session,
    target: ModelRef | Untrained,
    settings: AttackSettings,
    name: str,
    own: str,
    fingerprint: str,
) -> None:
    import torch

    from advmix_cli import attacks

    device = session.device()
    model = build(target, device)
    images = session.images(settings.dataset, settings.split).first(settings.limit).to(device)
    index = torch.arange(len(images))
    unfinished, threat = Unfinished(session, name, own), settings.threat

    def run(pieces: list[dict[str, Any]]) -> attacks.AttackedSet:
        if pieces and session.part.continues:
            session.report.note("continuing where the same command was stopped")
        with session.report.progress(f"attacking {target.label}") as progress:
            find = functools.partial(
                attacks.attack_set, model, images.x, images.y, threat,
                seed=settings.seed, index=index, images=True, batch_size=session.batch_size,
            )  # fmt: skip
            return put_together(
                session,
                find,
                n=len(images),
                pieces=pieces,
                on_work=functools.partial(Work(progress, {("", ""): 0.0}), "", ""),
                on_standing=lambda n: progress.about(f"{n} still robust"),
                on_part=part_line(progress, len(images), threat),
                on_piece=unfinished.add,
            )

    attacked = unfinished.resumed(run)
    complete(session, unfinished, attacked.left)
    assert attacked.x_adv is not None
    after = [[label, int(then.right.sum())] for label, then in attacked.after.items()]
    record = {
        "schema": SCHEMA,
        "kind": "samples",
        "name": name,
        "key": own,
        "preset": settings.preset,
        "settings": settings.to_dict(),
        "dataset": settings.dataset,
        "fingerprint": fingerprint,
        "split": settings.split,
        "threat": threat.to_dict(),
        "seed": settings.seed,
        "model": target.lineage(),
        "n": len(images),
        "of": images.info.sizes[settings.split],
        "class_names": list(images.info.classes),
        "clean_correct": int(attacked.clean.sum()),
        "robust_correct": after[threat.standard - 1][1],
        "linf_max": attacked.change.linf,
        "l2_max": attacked.change.l2,
        "after": after,
        "proved": int(attacked.proved.sum()),
        "passes": [dataclasses.astuple(then.passes) for then in attacked.after.values()],
        "made": made(session, unfinished.seconds, attacked.batch_size),
    }
    if session.ranks.first:
        content = artifacts.samples_writer(attacked.x_adv, images.y, index, record)
        session.store.write(session.store.path("samples", name), content)
    unfinished.delete()


def part_line(progress: Progress, n: int, threat: Threat, of: str = "") -> Callable[[str, int], None]:
    """What to do after each part of a threat: for an ensemble, say how many images still stand."""

    def say(part: str, standing: int) -> None:
        progress.about("")
        if len(threat.parts) > 1:
            progress.line(f"{of}{part}: {accuracy(standing, n)} of {n} images still robust")

    return say


def _result(session: Session, record: dict[str, Any], cached: bool, alias: str | None) -> Result:
    name, n, threat = record["name"], record["n"], Threat.from_dict(record["threat"])
    path, after = session.store.path("samples", name), record["after"]
    as_run, passes = threat.variant == "as-run", record.get("passes", ())
    rows = [("samples", name + (" (from the store)" if cached else "")), ("path", str(path))]
    if alias:
        rows.append(("alias", alias))
    rows += [
        ("model", record["model"]["name"]),
        ("threat", str(threat)),
        ("images", f"{n}, {record['dataset']} {record['split']}"),
        ("clean accuracy", accuracy(record["clean_correct"], n)),
        *((f"after {part}", accuracy(standing, n)) for part, standing in after[: threat.standard - 1]),
        ("robust accuracy" + (" (as-run)" if as_run else ""), accuracy(record["robust_correct"], n)),
    ]
    rows += [(f"then {part}", f"{accuracy(standing, n)}; its images are in the cache too")
             for part, standing in after[threat.standard :]]  # fmt: skip
    if record.get("proved"):
        rows.append(("not attacked", f"{record['proved']} images, which intervals prove"))
    rows += [
        ("largest change", changes(record) + (", not bounded by eps" if as_run else "")),
        ("cost", cost(passes, n) if passes else f"at most {cost([threat.passes], 1)}"),
    ]
    if not cached:
        seconds = record["made"]["seconds"]
        rows.append(("time", f"{seconds:.1f} s" + (f", {n / seconds:.0f} images/s" if seconds else "")))
    return Result(
        data={
            "samples": name,
            "path": str(path),
            "cached": cached,
            "model": record["model"]["name"],
            "threat": record["threat"],
            "n": n,
            "clean_accuracy": 100 * record["clean_correct"] / n,
            "robust_accuracy": 100 * record["robust_correct"] / n,
            "proved": record.get("proved", 0),
            "linf_max": record["linf_max"],
            "l2_max": record["l2_max"],
            **costs(passes, n),
            "stages": stages(after, passes, n),
            "device": record["made"]["gpu"] or record["made"]["device"],
            "seconds": record["made"]["seconds"],
            "dataset": record["dataset"],
            "split": record["split"],
            "preset": record["preset"],
        },
        refs=[name],
        blocks=[Facts(rows)],
        hint=f"see how models stand it: advmix eval MODEL --samples {quoted(alias, name)}"
        if record["model"]["weights"] == "untrained"
        else f"see how models stand it: advmix eval --samples {quoted(alias, name)}; "
        f"look at it: advmix visualize samples {quoted(alias, name)}",
    )
