"""The pictures of an evaluation, drawn from its record alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from advmix_cli.names import short_name
from advmix_cli.workflows.evaluation.record import Evaluation
from advmix_cli.workflows.evaluation.statistics import calibrated, sizes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MODELS = 8


def _of(evaluation: Evaluation, what: str) -> str:
    return f"{what}, {short_name(evaluation.settings.dataset)} {evaluation.settings.split}"


def matrix(evaluation: Evaluation) -> Figure:
    """The accuracies, models down, columns across."""
    import numpy as np

    from advmix_cli import figures

    values = np.array([[cell.accuracy for cell in cells] for cells in evaluation.cells])
    # What a cache attacks belongs into its column's name: transfer is read along a row.
    columns = [
        f"{on}\n(made against {evaluation.source(column.source)})" if column.source else on
        for on, column in zip(evaluation.met, evaluation.columns, strict=True)
    ]
    return figures.matrix(evaluation.models, columns, values, f"{_of(evaluation, 'accuracy')}, n = {sizes(evaluation)}")


def reliability(evaluation: Evaluation) -> Figure:
    """Accuracy against confidence on clean images."""
    from advmix_cli import figures

    models = [(each["model"], each["bins"], each["ece"]) for each in calibrated(evaluation)][:_MODELS]
    return figures.reliability(models, f"{_of(evaluation, 'calibration')}, n = {evaluation.cells[0][0].n}")


def strength(evaluation: Evaluation) -> Figure:
    """Accuracy against eps and steps, from the audits."""
    from advmix_cli import figures

    audits, threat = evaluation.audited[:_MODELS], evaluation.settings.audited
    assert threat is not None
    models = [
        (name, [tuple(p) for p in audit["by_eps"]], [tuple(p) for p in audit["by_steps"]]) for name, audit in audits
    ]
    proved = [[(eps, share) for eps, share in row.proved] for row in evaluation.rows if row.audit is not None]
    shaded = "\nshaded: between what intervals prove and what PGD leaves" if any(proved) else ""
    title = f"{_of(evaluation, 'accuracy under PGD')}, {threat.norm}, n = {audits[0][1]['n']}{shaded}"
    return figures.strength(models, proved[:_MODELS], threat.eps, title)


def landscape(evaluation: Evaluation) -> Figure:
    """The loss around one image of each model, from the audits."""
    from advmix_cli import figures

    models = [
        (f"{name}\nimage {audit['landscape']['image']}", audit["landscape"]["axis"], audit["landscape"]["loss"])
        for name, audit in evaluation.audited[:4]
    ]
    return figures.landscape(
        models, "cross-entropy between a clean image (circle), its attacked one (cross) and a random direction"
    )


DRAWN: dict[str, Callable[[Evaluation], Figure]] = {
    "matrix": matrix,
    "reliability": reliability,
    "strength": strength,
    "landscape": landscape,
}


WITHOUT_AUDIT = ("matrix", "reliability")


def available(evaluation: Evaluation) -> list[str]:
    """Which of them the evaluation has: the last two need an audit."""
    return [kind for kind in DRAWN if evaluation.audited or kind in WITHOUT_AUDIT]
