"""`advmix visualize`: pictures of samples, curves, mixing and evaluations, as PNG and SVG."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from advmix_cli import artifacts, files
from advmix_cli._version import __version__
from advmix_cli.errors import UsageError
from advmix_cli.names import short_name
from advmix_cli.presets import MIX_ALPHA
from advmix_cli.results import Facts, Result, accuracy
from advmix_cli.settings import SCHEMA, digest
from advmix_cli.store import Fits
from advmix_cli.threats import Threat
from advmix_cli.workflows import drawing
from advmix_cli.workflows.attack import build
from advmix_cli.workflows.evaluation import strengths
from advmix_cli.workflows.evaluation.pictures import DRAWN, NEEDS, available
from advmix_cli.workflows.evaluation.record import Evaluation, read
from advmix_cli.workflows.making import make_once, quoted, set_alias
from advmix_cli.workflows.references import (
    ModelRef,
    SamplesRef,
    Untrained,
    attacked_model,
    load_model,
    resolve_path,
)
from advmix_cli.workflows.session import Session

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from advmix_cli.data import ImageSet

_SHUFFLES = 50
_AT_A_TIME = 64


class To(NamedTuple):
    """Where a picture goes beside the store, and what it is called there."""

    out: Path | None = None
    alias: str | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which images of a cache are drawn: those of `index`, else `count`, of each class in turn.

    `only`: "broken", right when clean and wrong when attacked, or "standing", right on both. `untrained`: also a row
    of the same attack against an untrained network.
    """

    count: int = 10
    index: tuple[int, ...] = ()
    only: str | None = None
    untrained: bool = False


def samples(session: Session, cache: SamplesRef, choice: Choice, to: To) -> Result:
    """Originals, attacked against the model, and the perturbation, with what the model says and how surely."""
    model, record = _of_cache(session, cache)

    def draw() -> Figure:
        from advmix_cli import attacks, evaluation

        device = session.device()
        images, x_adv, labels, index = _met(session, cache)
        net = load_model(model, device)

        def right(pixels: torch.Tensor) -> torch.Tensor:
            scored = evaluation.score(net, pixels.to(device), labels.to(device), batch_size=session.batch_size)
            return scored.correct.cpu()

        chosen = _chosen(
            choice, cache.label, index, labels, lambda: (right(attacks.to_float(images.x[:])), right(x_adv))
        )
        clean, attacked, y = attacks.to_float(images.x[chosen]).to(device), x_adv[chosen].to(device), labels[chosen]
        threat = Threat.from_dict(record["threat"])
        further = []
        if choice.untrained:
            fresh = build(Untrained(model.network, record["seed"]), device)
            against = attacks.attack_set(
                fresh, clean, y.to(device), threat, seed=record["seed"], index=index[chosen], images=True
            ).x_adv
            assert against is not None
            further.append(("attacked against\nan untrained network", against.to(device)))
        which = "images asked for" if choice.index else _WHICH[choice.only]
        robust = accuracy(record["robust_correct"], record["n"])
        return drawing.attacked(
            net, images.info.classes, clean, attacked, y, index[chosen], threat, record["linf_max"],
            title=f"{short_name(record['dataset'])} under {threat}\n"
            f"{model.label}: robust accuracy {robust} of {record['n']}\n"
            f"{which}; above each image its number, below what {model.label} says, and how surely",
            label=model.label, further=further,
        )  # fmt: skip

    return _figure(
        session,
        "samples",
        {"samples": cache.identity(), "choice": dataclasses.asdict(choice), "model": model.label},
        draw,
        to,
        {"samples": cache.label, "model": model.label},
    )


def _of_cache(session: Session, cache: SamplesRef) -> tuple[ModelRef, dict[str, Any]]:
    """The model that a cache attacks, and the cache's record."""
    model = attacked_model(session, cache)
    assert cache.record is not None  # attacked_model refuses files of others
    return model, cache.record


def _met(session: Session, cache: SamplesRef) -> tuple[ImageSet, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The images that a cache attacks, the attacked ones, their labels and their numbers."""
    record = cache.record
    assert record is not None
    x_adv, labels, index = artifacts.samples_tensors(cache.path)
    images = session.images(record["dataset"], record["split"]).take(index)
    if record["fingerprint"] != session.fingerprint(record["dataset"]):
        raise UsageError(f"{cache.label} was made from other images", "attack again: advmix attack")
    return images, x_adv, labels, index


def confusion(session: Session, cache: SamplesRef, to: To) -> Result:
    """What images of each class are taken for, clean and attacked."""
    model, record = _of_cache(session, cache)

    def draw() -> Figure:
        import torch

        from advmix_cli import attacks, figures

        device, (images, x_adv, labels, _) = session.device(), _met(session, cache)
        net, names = load_model(model, device), images.info.classes

        def counted(pixels: torch.Tensor) -> list[list[int]]:
            with attacks.frozen(net), torch.no_grad():
                said = [
                    attacks.logits(net, part.to(device)).argmax(1).cpu() for part in torch.split(pixels, _AT_A_TIME)
                ]
            which = labels * len(names) + torch.cat(said)
            return which.bincount(minlength=len(names) ** 2).view(len(names), -1).tolist()

        return figures.confusion(
            [("clean", counted(attacks.to_float(images.x[:]))), ("attacked", counted(x_adv))],
            names,
            f"{short_name(record['dataset'])} under {Threat.from_dict(record['threat'])}\n"
            f"what {model.label} takes images of each class for, in percent of the class, n = {record['n']}",
        )

    return _figure(
        session,
        "confusion",
        {"samples": cache.identity(), "model": model.label},
        draw,
        to,
        {"samples": cache.label, "model": model.label},
    )


_WHICH = {
    None: "images of each class in turn", "broken": "images that the attack broke", "standing": "images that stand",
}  # fmt: skip


def _chosen(
    choice: Choice, label: str, index: torch.Tensor, labels: torch.Tensor, right: Callable[[], tuple[Any, Any]]
) -> torch.Tensor:
    """The places in a cache of the images that are drawn; `right` says of which, clean and attacked, the model is."""
    import torch

    if choice.index:
        place = {number: i for i, number in enumerate(index.tolist())}
        lacking = [number for number in choice.index if number not in place]
        if lacking:
            raise UsageError(f"{label} has no image {lacking[0]}", f"it has {len(place)} images, up to {max(place)}")
        return torch.tensor([place[number] for number in choice.index])
    among = torch.arange(len(labels))
    if choice.only is not None:
        clean, attacked = right()
        among = (clean & (attacked if choice.only == "standing" else ~attacked)).nonzero()[:, 0]
        if not len(among):
            raise UsageError(f"{label} has no image that is {choice.only}", "leave out --only")
    return among[drawing.one_of_each(labels[among], choice.count)]


def curves(session: Session, models: list[ModelRef], to: To) -> Result:
    """Accuracy and loss over the epochs of several runs, the chosen epochs marked."""
    if len({model.dataset for model in models}) > 1:
        raise UsageError("these runs learned different data sets", "draw the runs of one data set at a time")
    runs = drawing.runs(models)
    if len(runs) > drawing.COLOURS:
        session.report.warn(f"of {len(runs)} models the first {drawing.COLOURS} are drawn: there are no more colours")
    return _figure(
        session,
        "curves",
        {"runs": [[label, [digest(rows) for rows, _ in seeds]] for label, seeds in runs[: drawing.COLOURS]]},
        lambda: drawing.curves(models, runs),
        to,
        {"models": [model.lineage() for model in models]},
    )


def mixing(session: Session, dataset: str, mix_alpha: float, count: int, seed: int, to: To) -> Result:
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
        # Of some shuffles the one that pairs the fewest images with their own class: that is what mixing is for.
        tries = [torch.randperm(count, generator=random) for _ in range(_SHUFFLES)]
        perm = min(tries, key=lambda perm: int((batch.y == batch.y[perm]).sum())).tolist()
        lam = runtime.python_random(seed, "picture").betavariate(mix_alpha, mix_alpha)
        return figures.mixing(
            attacks.to_float(batch.x[:]).numpy(),
            [info.classes[i] for i in batch.y.tolist()],
            perm,
            lam,
            f"mixup of a batch of {short_name(dataset)}: one \u03bb for the batch, here 0.5 and one "
            f"drawn from Beta({mix_alpha:g}, {mix_alpha:g})",
        )

    settings = {
        "dataset": dataset,
        "alpha": mix_alpha,
        "count": count,
        "seed": seed,
        "data": session.fingerprint(dataset),
    }
    return _figure(session, "mixing", settings, draw, to, settings)


def evaluation(session: Session, kind: str, ref: str, to: To) -> Result:
    """A picture of an evaluation: one of `evaluation.pictures.DRAWN`."""
    what, how = NEEDS.get(kind, ("", ""))
    fits = Fits(lambda path: kind in available(read(path)), what) if what else None
    _, path = resolve_path(session, ref, ("evaluations",), (".json",), fits)
    shown = _as_called_now(session, read(path))
    if kind not in available(shown):
        raise UsageError(f"{path.stem} has not {what} to draw", how)
    record = shown.to_record()
    parts = {part: record[part] for part in ("rows", "columns", "cells")}
    shows = {"evaluation": shown.name, "models": [row.lineage for row in shown.rows]}
    return _figure(session, kind, parts, lambda: DRAWN[kind](shown), to, shows)


def eps(session: Session, refs: list[str], to: To) -> Result:
    """What attacks leave and bounds prove, against eps, of evaluations that differ in it."""
    paths = [resolve_path(session, ref, ("evaluations",), (".json",))[1] for ref in refs]
    shown = [_as_called_now(session, read(path)) for path in dict.fromkeys(paths)]
    if not strengths.lines(shown):
        raise UsageError("nothing was attacked or bounded there", "advmix eval MODEL --attack pgd --eps 0.1,0.2,0.3")
    parts = [{part: each.to_record()[part] for part in ("rows", "columns", "cells")} for each in shown]
    shows = {"evaluations": [each.name for each in shown]}
    return _figure(session, "eps", {"evaluations": parts}, lambda: strengths.picture(shown), to, shows)


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
    to: To,
    shows: dict[str, Any],
) -> Result:
    out = to.out
    if out is not None and out.suffix not in (".png", ".svg"):
        raise UsageError(f"--out {out} must end in .png or .svg", "both are in the store in any case")
    if out is not None:
        files.check_folder(out)
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
    set_alias(session, to.alias, "figures", name)
    png, svg = store.path("figures", name), store.path("figures", name, ".svg")
    if out is not None:
        store.write(out.absolute(), (png if out.suffix == ".png" else svg).read_bytes())
    shown = out if out is not None else png
    rows = [
        ("figure", quoted(to.alias, name) + (" (from the store)" if cached else "")),
        ("png", str(png)),
        ("svg", str(svg)),
    ]
    return Result(
        {"figure": name, "path": str(shown), "png": str(png), "svg": str(svg), "cached": cached},
        [str(shown)],
        [Facts(rows + ([("copy", str(out))] if out is not None else []))],
        f"look at it: {shown}",
    )
