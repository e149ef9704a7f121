"""The pictures of an evaluation, drawn from its record alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from advmix_cli.names import short_name
from advmix_cli.statistics import wilson
from advmix_cli.workflows.evaluation.record import Cell, Evaluation
from advmix_cli.workflows.evaluation.statistics import calibrated, sizes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODELS = 8
"""As many are drawn: there are no more colours."""


def _of(evaluation: Evaluation, what: str) -> str:
    return f"{what}, {short_name(evaluation.settings.dataset)} {evaluation.settings.split}"


def _known(cell: Cell) -> tuple[float, tuple[float, float]] | None:
    return None if cell.note or not cell.n else (cell.accuracy, cell.interval)


def _share(percent: float, n: int) -> tuple[float, tuple[float, float]]:
    """Of a share of n images, it and its interval, in percent."""
    return percent, wilson(round(percent * n / 100), n)


def _threats(evaluation: Evaluation) -> str:
    """What attacks there were, a line each."""
    threats = dict.fromkeys(f"\n{column.threat}" for column in evaluation.columns if column.threat is not None)
    return "".join(list(threats)[:MODELS])


def matrix(evaluation: Evaluation) -> Figure:
    """The accuracies, models down, columns across."""
    from advmix_cli import figures

    values = [[_known(cell) for cell in cells] for cells in evaluation.cells]
    # What a cache attacks belongs into its column's name: transfer is read along a row.
    columns = [
        f"{on}\n(made against {evaluation.source(column.source)})" if column.source else on
        for on, column in zip(evaluation.met, evaluation.columns, strict=True)
    ]
    title = f"{_of(evaluation, 'accuracy')}, n = {sizes(evaluation)}{_threats(evaluation)}"
    return figures.matrix(evaluation.models, columns, values, title)


def compare(evaluation: Evaluation) -> Figure:
    """The accuracies as points with intervals, a line a model."""
    from advmix_cli import figures

    values = [[_known(cell) for cell in cells[:MODELS]] for cells in evaluation.cells]
    title = f"{_of(evaluation, 'accuracy')}, n = {sizes(evaluation)}{_threats(evaluation)}"
    return figures.compare(evaluation.models, evaluation.met[:MODELS], values, title)


def classes(evaluation: Evaluation) -> Figure:
    """The accuracy of each class, clean and attacked, of the first four models."""
    from advmix_cli import figures

    models = [
        (label, [
            (on, [_share(100 * right / n, n) if n else None for n, right in cell.by_class])
            for on, cell in zip(evaluation.met, cells, strict=True) if cell.by_class
        ])
        for label, cells in zip(evaluation.models, evaluation.cells, strict=True)
    ][:4]  # fmt: skip
    number = max(len(shares) for _, columns in models for _, shares in columns)
    title = f"{_of(evaluation, 'accuracy of each class')}{_threats(evaluation)}"
    return figures.classes(models, evaluation.classes or [str(i) for i in range(number)], title)


def reliability(evaluation: Evaluation) -> Figure:
    """Accuracy against confidence on clean images."""
    from advmix_cli import figures

    models = [
        (each["model"], [(n, 100 * confidence, *_share(100 * right, n)) for n, confidence, right in each["bins"]],
         each["ece"])
        for each in calibrated(evaluation)
    ][:MODELS]  # fmt: skip
    return figures.reliability(models, f"{_of(evaluation, 'calibration')}, n = {evaluation.cells[0][0].n}")


def strength(evaluation: Evaluation) -> Figure:
    """Accuracy against eps and steps, from the audits."""
    from advmix_cli import figures

    audits, threat = evaluation.audited[:MODELS], evaluation.settings.audited
    assert threat is not None

    def points(audit: dict[str, Any], by: str) -> list[tuple[float, float, tuple[float, float]]]:
        return [(at, *_share(share, audit["n"])) for at, share in audit[by]]

    models = [(name, points(audit, "by_eps"), points(audit, "by_steps")) for name, audit in audits]
    proved = [[(eps, share) for eps, share in row.proved] for row in evaluation.rows if row.audit is not None]
    shaded = "\nshaded: between what intervals prove and what PGD leaves" if any(proved) else ""
    title = f"{_of(evaluation, 'accuracy under PGD')}, {threat.norm}, n = {audits[0][1]['n']}{shaded}"
    return figures.strength(models, proved[:MODELS], threat.eps, title)


def landscape(evaluation: Evaluation) -> Figure:
    """The loss around one image of each model, from the audits."""
    from advmix_cli import figures

    models = [
        figures.Around(f"{name}\nimage {audit['landscape']['image']}", *(audit["landscape"].get(part) for part in
                       ("axis", "loss", "margin")))
        for name, audit in evaluation.audited[:4]
    ]  # fmt: skip
    return figures.landscape(
        models, "cross-entropy between a clean image (circle), its attacked one (cross) and a random direction"
    )


DRAWN: dict[str, Callable[[Evaluation], Figure]] = {
    "matrix": matrix,
    "compare": compare,
    "classes": classes,
    "reliability": reliability,
    "strength": strength,
    "landscape": landscape,
}


_AUDIT = ("an audit", "make one: advmix eval MODEL --audit")
NEEDS = {
    "classes": ("accuracies of classes", "it is of an older version: evaluate again with --force"),
    "strength": _AUDIT,
    "landscape": _AUDIT,
}
"""What not every evaluation has, and how to come by it."""


def available(evaluation: Evaluation) -> list[str]:
    """Which of them the evaluation has."""
    having = {_AUDIT[0]} if evaluation.audited else set()
    if any(cell.by_class for cells in evaluation.cells for cell in cells):
        having.add(NEEDS["classes"][0])
    return [kind for kind in DRAWN if kind not in NEEDS or NEEDS[kind][0] in having]
