"""The pictures of an evaluation, drawn from its record alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from advmix_cli.config import Threat
from advmix_cli.workflows.evaluation_statistics import calibrated, shown_models
from advmix_cli.workflows.evaluation_table import source_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = dict[str, Any]
_MODELS = 8


def _of(record: Record, what: str) -> str:
    return f"{what}, {record['dataset']} {record['split']}"


def matrix(record: Record) -> Figure:
    """The accuracies, models down, columns across."""
    import numpy as np

    from advmix_cli import figures

    values = np.array([[100 * cell["correct"] / cell["n"] for cell in cells] for cells in record["grid"]])
    sizes = sorted({cell["n"] for cells in record["grid"] for cell in cells})
    n = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    # What a cache attacks belongs into its column's name: transfer is read along a row.
    columns = [
        on
        if source in (None, "itself") or str(source) == on
        else f"{on}\n(made against {source_label(record, str(source))})"
        for on, source in zip(record["columns"], record["sources"], strict=True)
    ]
    return figures.matrix(shown_models(record), columns, values, f"{_of(record, 'accuracy')}, n = {n}")


def reliability(record: Record) -> Figure:
    """Accuracy against confidence on clean images."""
    from advmix_cli import figures

    models = [(each["model"], each["bins"], each["ece"]) for each in calibrated(record)][:_MODELS]
    return figures.reliability(models, f"{_of(record, 'calibration')}, n = {record['grid'][0][0]['n']}")


def _audits(record: Record) -> list[tuple[str, Record]]:
    return list(zip(shown_models(record), record["audits"], strict=True))[:_MODELS]


def strength(record: Record) -> Figure:
    """Accuracy against eps and steps, from the audits."""
    from advmix_cli import figures

    models = [
        (name, [tuple(p) for p in audit["by_eps"]], [tuple(p) for p in audit["by_steps"]])
        for name, audit in _audits(record)
    ]
    threat = Threat.from_dict(record["settings"]["audited"])
    title = f"{_of(record, 'accuracy under PGD')}, {threat.norm}, n = {record['audits'][0]['n']}"
    return figures.strength(models, threat.eps, title)


def landscape(record: Record) -> Figure:
    """The loss around one image of each model, from the audits."""
    from advmix_cli import figures

    models = [
        (f"{name}\nimage {audit['landscape']['image']}", audit["landscape"]["axis"], audit["landscape"]["loss"])
        for name, audit in _audits(record)[:4]
    ]
    return figures.landscape(
        models, "cross-entropy between a clean image (circle), its attacked one (cross) and a random direction"
    )


DRAWN: dict[str, Callable[[Record], Figure]] = {
    "matrix": matrix,
    "reliability": reliability,
    "strength": strength,
    "landscape": landscape,
}


def available(record: Record) -> list[str]:
    """Which of them the evaluation has: the last two need an audit."""
    return [kind for kind in DRAWN if record["audits"] or kind in ("matrix", "reliability")]
