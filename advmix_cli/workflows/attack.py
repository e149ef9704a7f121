"""`advmix attack`: a sample cache."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from advmix_cli import artifacts, config, data, models
from advmix_cli.config import AttackSettings, Threat
from advmix_cli.results import Facts, Result, accuracy
from advmix_cli.workflows.common import (
    ModelRef,
    Progress,
    Session,
    load_model,
    made_with,
    make_once,
    quoted,
    set_alias,
)
from advmix_cli.workflows.unfinished import Unfinished

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True)
class Untrained:
    """A fresh network, as the report attacks in its Figures 7 and 8: its parameters come from the seed."""

    arch: str
    seed: int

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"untrained-{self.arch}"

    def lineage(self) -> dict[str, Any]:
        """What is written down of it in things made from it."""
        return {"name": self.label, "weights": "untrained", "seed": self.seed, "arch": self.arch}


def build(target: ModelRef | Untrained, device: Any) -> nn.Sequential:
    """The network that is meant, on the device."""
    if isinstance(target, Untrained):
        return models.build(target.arch, target.seed).to(device)
    return load_model(target, device)


def attack(
    session: Session, target: ModelRef | Untrained, settings: AttackSettings, alias: str | None = None
) -> Result:
    """Attack a split, or find the sample cache that the model and `settings` give."""
    info = data.info(settings.dataset)
    models.check_fit(target.arch, info.name, info.shape)
    fingerprint = session.fingerprint(settings.dataset)
    weights = target.digest if isinstance(target, ModelRef) else target.lineage()
    key = config.key("samples", settings, data=fingerprint, weights=weights)
    label = settings.label + ("-untrained" if isinstance(target, Untrained) else "")
    name = f"{label}-{key[:8]}"
    started = time.monotonic()
    record, cached = make_once(
        session,
        "samples",
        name,
        key,
        artifacts.samples_record,
        lambda: _attack(session, target, settings, name, key, fingerprint),
    )
    set_alias(session, alias, "samples", name)
    return _result(session, record, cached, alias, time.monotonic() - started)


def _attack(
    session: Session,
    target: ModelRef | Untrained,
    settings: AttackSettings,
    name: str,
    key: str,
    fingerprint: str,
) -> None:
    from advmix_cli import attacks

    device = session.device()
    model = build(target, device)
    images = session.images(settings.dataset, settings.split).first(settings.limit).to(device)
    unfinished = Unfinished(session, name, key)
    state = unfinished.read()
    if state is not None:
        session.report.note("continuing where the same command was stopped")
    parts = settings.threat.parts
    with session.report.progress(f"attacking {target.label}", len(images) * len(parts), "images") as progress:
        attacked = attacks.attack_set(
            model,
            images.x,
            images.y,
            settings.threat,
            batch_size=settings.batch_size,
            seed=settings.seed,
            state=state,
            on_batch=progress,
            on_standing=lambda n: progress.about(f"{n} still robust"),
            on_stage=stage_line(progress, len(images), settings.threat),
            on_state=unfinished.now_and_then,
        )
    record = {
        "schema": config.SCHEMA,
        "kind": "samples",
        "name": name,
        "key": key,
        "preset": settings.preset,
        "settings": settings.to_dict(),
        "dataset": settings.dataset,
        "fingerprint": fingerprint,
        "split": settings.split,
        "threat": settings.threat.to_dict(),
        "seed": settings.seed,
        "model": target.lineage(),
        "n": len(images),
        "clean_correct": int(attacked.clean_correct.sum()),
        "robust_correct": int(attacked.robust.sum()),
        "linf_max": attacked.linf_max,
        "stages": [list(stage) for stage in attacked.stages],
        "made_with": made_with(),
    }
    store = session.store
    store.write(store.path("samples", name), artifacts.samples_bytes(attacked.x_adv, images.y, record))
    unfinished.delete()


def stage_line(progress: Progress, n: int, threat: Threat, of: str = "") -> Callable[[str, int], None]:
    """What to do after each part of a threat: for an ensemble, say how many images still stand."""

    def say(part: str, standing: int) -> None:
        progress.about("")
        if len(threat.parts) > 1:
            progress.line(f"{of}{part}: {standing} of {n} images still robust ({100 * standing / n:.2f} %)")

    return say


def _result(session: Session, record: dict[str, Any], cached: bool, alias: str | None, seconds: float) -> Result:
    name, n, threat = record["name"], record["n"], Threat.from_dict(record["threat"])
    path = session.store.path("samples", name)
    as_run = threat.variant == "as-run"
    rows = [("samples", name + (" (from the store)" if cached else "")), ("path", str(path))]
    if alias:
        rows.append(("alias", alias))
    rows += [
        ("model", record["model"]["name"]),
        ("threat", str(threat)),
        ("images", f"{n}, {record['dataset']} {record['split']}"),
        ("clean accuracy", accuracy(record["clean_correct"], n)),
        ("robust accuracy" + (" (as-run)" if as_run else ""), accuracy(record["robust_correct"], n)),
        *(
            (f"after {part}", accuracy(standing, n))
            for part, standing in (record["stages"] if len(record["stages"]) > 1 else [])
        ),
        (
            "largest change",
            f"{record['linf_max']:.6f} of a pixel's range" + (", not bounded by eps" if as_run else ""),
        ),
    ]
    if not cached:
        rows.append(("time", f"{seconds:.1f} s, {n / max(seconds, 1e-9):.0f} images/s"))
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
            "linf_max": record["linf_max"],
            "stages": [{"attack": part, "robust_accuracy": 100 * standing / n} for part, standing in record["stages"]],
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
