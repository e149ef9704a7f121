"""`advmix visualize`: pictures of samples, curves, mixing and evaluations, as PNG and SVG."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import artifacts
from advmix_cli._version import __version__
from advmix_cli.errors import NotFoundError, UsageError
from advmix_cli.names import short_name
from advmix_cli.presets import MIX_ALPHA
from advmix_cli.results import Facts, Result, distinct
from advmix_cli.settings import SCHEMA, digest, number
from advmix_cli.store import Fits
from advmix_cli.threats import Threat
from advmix_cli.workflows.attack import build
from advmix_cli.workflows.evaluation.pictures import DRAWN, WITHOUT_AUDIT, available
from advmix_cli.workflows.evaluation.record import Evaluation, read
from advmix_cli.workflows.making import make_once
from advmix_cli.workflows.references import (
    ModelRef,
    SamplesRef,
    Untrained,
    attacked_model,
    history,
    load_model,
    resolve_path,
)
from advmix_cli.workflows.session import Session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_RUNS = 8


def samples(session: Session, cache: SamplesRef, count: int, out: Path | None) -> Result:
    """Originals, attacked against the trained and against an untrained model, and the perturbation, with labels."""
    model = attacked_model(session, cache)
    record = cache.record
    assert record is not None  # attacked_model refuses files of others

    def draw() -> Figure:
        import torch

        from advmix_cli import attacks, figures

        device = session.device()
        x_adv, labels, index = artifacts.samples_tensors(cache.path)
        images = session.images(record["dataset"], record["split"]).take(index)
        if record["fingerprint"] != session.fingerprint(record["dataset"]):
            raise UsageError(f"{cache.label} was made from other images", "attack again: advmix attack")
        chosen = _one_of_each(images.y, count)
        clean, attacked, y = (
            attacks.to_float(images.x[chosen]).to(device),
            x_adv[chosen].to(device),
            labels[chosen].to(device),
        )
        threat = Threat.from_dict(record["threat"])
        fresh = build(Untrained(model.network, record["seed"]), device)
        found = attacks.attack_set(fresh, clean, y, threat, seed=record["seed"], index=index[chosen], images=True).x_adv
        assert found is not None
        against_fresh = found.to(device)
        net = load_model(model, device)
        names = images.info.classes

        def said(x: torch.Tensor) -> list[str]:
            with torch.no_grad():
                return [names[i] for i in net(x).argmax(1).tolist()]

        rows = [
            ("original", clean, said(clean)),
            (f"attacked against\n{model.label}", attacked, said(attacked)),
            ("attacked against\nan untrained network", against_fresh, said(against_fresh)),
        ]
        return figures.samples(
            [(title, x.cpu().numpy(), label) for title, x, label in rows],
            (attacked - clean).cpu().numpy(),
            [names[i] for i in y.tolist()],
            f"{short_name(record['dataset'])} under {threat}\nbelow each image: what {model.label} says "
            f"(\N{MULTIPLICATION SIGN} marks a wrong answer)",
            f"perturbation\n(row 2 \N{MINUS SIGN} row 1)\nup to {_size(record['linf_max'], threat)}",
        )

    return _figure(
        session,
        "samples",
        {"samples": cache.identity(), "count": count, "model": model.label},
        draw,
        out,
        {"samples": cache.label, "model": model.label},
    )


def _size(linf_max: float, threat: Threat) -> str:
    """The largest change as people would write it: as eps, where it is eps but for rounding."""
    return number(threat.eps) if abs(linf_max - threat.eps) < 1e-6 else f"{linf_max:.4f}"


def _one_of_each(labels: Any, count: int) -> Any:
    """The first image of each class, then the next of each, up to `count`, ordered by class."""
    import torch

    seen: dict[int, int] = {}
    turns = []
    for index, label in enumerate(labels.tolist()):
        turns.append((seen.get(label, 0), label, index))
        seen[label] = seen.get(label, 0) + 1
    chosen = sorted(sorted(turns)[:count], key=lambda turn: (turn[1], turn[0]))
    return torch.tensor([index for _, _, index in chosen])


def curves(session: Session, models: list[ModelRef], out: Path | None) -> Result:
    """Accuracy and loss over the epochs of several runs, the chosen epochs marked."""
    if len(models) > MAX_RUNS:
        raise UsageError(f"{len(models)} runs are too many for one picture", f"name at most {MAX_RUNS}")
    if len({model.dataset for model in models}) > 1:
        raise UsageError("these runs learned different data sets", "draw the runs of one data set at a time")
    histories = [history(model.path, model.record) for model in models]
    sizes = [int(model.record["images"]["test"]) for model in models]
    labels = distinct([model.label for model in models])
    if len(set(sizes)) > 1:
        labels = [f"{label} (n = {size})" for label, size in zip(labels, sizes, strict=True)]
    runs = [
        (label, rows, int(model.record["metrics"]["best_epoch"]))
        for label, rows, model in zip(labels, histories, models, strict=True)
    ]

    def draw() -> Figure:
        from advmix_cli import figures

        chosen_by = {str(model.record["metrics"]["chosen_by"]) for model in models}
        n = f"n = {sizes[0]}" if len(set(sizes)) == 1 else "n beside each"
        by = " or ".join(sorted(chosen_by))
        title = f"{short_name(models[0].dataset)}: training and test ({n}), epoch chosen by {by}"
        return figures.curves(runs, title)

    return _figure(
        session,
        "curves",
        {"runs": [[label, digest(h)] for label, h, _ in runs]},
        draw,
        out,
        {"models": [model.lineage() for model in models]},
    )


def mixing(session: Session, dataset: str, mix_alpha: float, count: int, seed: int, out: Path | None) -> Result:
    """A batch, its shuffled copy and their mix, with the lambda that was drawn."""
    info = session.dataset(dataset)
    if mix_alpha <= 0:
        raise UsageError(f"--mix-alpha must be positive, not {mix_alpha}", f"try {MIX_ALPHA['mixup']}")

    def draw() -> Figure:
        import torch

        from advmix_cli import attacks, figures, runtime

        random = runtime.generator("cpu", seed, "picture")
        images = session.images(dataset, "train")
        batch = images.take(torch.randperm(len(images), generator=random)[:count])
        perm = torch.randperm(count, generator=random).tolist()
        lam = runtime.python_random(seed, "picture").betavariate(mix_alpha, mix_alpha)
        return figures.mixing(
            attacks.to_float(batch.x[:]).numpy(),
            [info.classes[i] for i in batch.y.tolist()],
            perm,
            lam,
            f"mixup of a batch of {short_name(dataset)}: one \u03bb for the batch, "
            f"drawn from Beta({mix_alpha:g}, {mix_alpha:g})",
        )

    settings = {
        "dataset": dataset,
        "alpha": mix_alpha,
        "count": count,
        "seed": seed,
        "data": session.fingerprint(dataset),
    }
    return _figure(session, "mixing", settings, draw, out, settings)


def evaluation(session: Session, kind: str, ref: str, out: Path | None) -> Result:
    """A picture of an evaluation: one of `evaluation.pictures.DRAWN`."""
    fits = Fits(lambda path: kind in available(read(path)), "an audit") if kind not in WITHOUT_AUDIT else None
    _, path = resolve_path(session, ref, ("evaluations",), (".json",), fits)
    shown = _as_called_now(session, read(path))
    if kind not in available(shown):
        raise UsageError(f"{path.stem} has no audit to draw", "make one: advmix eval MODEL --audit")
    record = shown.to_record()
    parts = {part: record[part] for part in ("rows", "columns", "cells")}
    shows = {"evaluation": shown.name, "models": [row.lineage for row in shown.rows]}
    return _figure(session, kind, parts, lambda: DRAWN[kind](shown), out, shows)


def _as_called_now(session: Session, shown: Evaluation) -> Evaluation:
    """An evaluation with the real names of those models whose aliases have moved to others since."""
    refs, labels = session.store.refs(), []
    for row in shown.rows:
        base = row.label.removesuffix("@last")
        moved = base in refs and refs[base] != ("checkpoints", row.lineage["name"])
        labels.append(row.lineage["name"] + row.label.removeprefix(base) if moved else row.label)
    return shown.called(labels, [column.label for column in shown.columns])


def _figure(
    session: Session,
    kind: str,
    settings: dict[str, Any],
    draw: Callable[[], Figure],
    out: Path | None,
    shows: dict[str, Any],
) -> Result:
    if out is not None and out.suffix not in (".png", ".svg"):
        raise UsageError(f"--out {out} must end in .png or .svg", "both are in the store in any case")
    if out is not None and not out.absolute().parent.is_dir():
        raise NotFoundError(f"there is no folder {out.absolute().parent}", "make it first, or write elsewhere")
    key = digest({"schema": SCHEMA, "kind": kind, "version": __version__, "from": settings})
    name = f"{kind}-{key[:8]}"
    store = session.store

    def make() -> None:
        from advmix_cli import figures

        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record = {
            "schema": SCHEMA, "kind": "figure", "name": name, "key": key, "picture": kind, "shows": shows,
            "made": {"advmix": __version__, "command": session.command, "date": date},
        }  # fmt: skip
        svg = figures.svg(figure := draw())
        png = figures.png(figure, artifacts.sealed(record | {"svg_sha256": hashlib.sha256(svg).hexdigest()}))
        store.write(store.path("figures", name, ".svg"), svg)
        store.write(store.path("figures", name), png)

    def read(path: Path) -> dict[str, Any]:
        return artifacts.figure_record(path) or {"key": key}  # those of the first form have no record

    _, cached = make_once(session, "figures", name, key, read, make)
    png, svg = store.path("figures", name), store.path("figures", name, ".svg")
    if out is not None:
        store.write(out.absolute(), (png if out.suffix == ".png" else svg).read_bytes())
    shown = out if out is not None else png
    rows = [("figure", name + (" (from the store)" if cached else "")), ("png", str(png)), ("svg", str(svg))]
    return Result(
        {"figure": name, "path": str(shown), "png": str(png), "svg": str(svg), "cached": cached},
        [str(shown)],
        [Facts(rows + ([("copy", str(out))] if out is not None else []))],
        f"look at it: {shown}",
    )
