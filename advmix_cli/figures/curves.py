"""Curves over epochs, of runs and of their seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from advmix_cli.figures.axes import in_digits, legend, titled
from advmix_cli.figures.style import COLOURS, MARKERS, STYLE

Run = tuple[list[dict[str, Any]], int]
"""A history, a row an epoch, and the epoch that was chosen."""
_TICKS = (0, 50, 70, 80, 90, 95, 98, 99, 99.5, 100)
_LINES: dict[str, Any] = {"test": "-", "training": (0, (4, 2)), "attacked validation": (0, (1, 1.2))}
_GREY = "#555555"


def curves(models: Sequence[tuple[str, Sequence[Run]]], title: str) -> Figure:
    """Figures 3 to 6, 9 and 10: accuracy and loss over the epochs, for models (label, a run of each seed).

    A colour is a model, a line a split, a band what lies between the seeds' lowest and highest, the line in it their
    mean. What is measured on attacked images has a panel of its own: the validation images, by which the epoch is
    chosen, and in adversarial training the training images.
    """
    against = any("validation_robust_accuracy" in row for _, runs in models for rows, _ in runs for row in rows[:1])
    training = "train_accuracy"
    panels: list[tuple[str, list[tuple[str, str]]]] = [
        ("accuracy (%)", [("test", "test_accuracy")] + ([] if against else [("training", training)])),
        ("loss (nats)", [("test", "test_loss"), ("training", "train_loss")]),
    ]
    if against:
        attacked = [("attacked validation", "validation_robust_accuracy"), ("training", training)]
        panels.insert(1, ("accuracy under attack (%)", attacked))
    with mpl.rc_context(STYLE):
        keys = len(models) + 5
        figure = Figure(figsize=(5 * len(panels), 4.2 + 0.17 * -(-keys // (2 * len(panels)))), layout="constrained")
        for axes, (unit, lines) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for (_, runs), colour, marker in zip(models, COLOURS, MARKERS, strict=False):
                for place, (split, name) in enumerate(lines):
                    _line(axes, runs, name, colour, split, 0.25 / len(models) ** 0.5)
                    if place == 0:
                        _chosen(axes, runs, name, colour, marker)
            axes.set_xlabel("epoch")
            axes.set_ylabel(unit)
            axes.xaxis.get_major_locator().set_params(integer=True)
            _scaled(axes, unit, [row[name] for _, runs in models for rows, _ in runs for row in rows
                                 for _, name in lines if name in row])  # fmt: skip
        several = any(len(runs) > 1 for _, runs in models)
        _keys(figure, [label for label, _ in models], dict.fromkeys(split for _, lines in panels for split, _ in lines),
              several, 2 * len(panels))  # fmt: skip
        titled(figure, title)
    return figure


def _line(axes: Axes, runs: Sequence[Run], name: str, colour: str, split: str, opacity: float) -> None:
    """The mean over runs as long as all have it, and what lies between the lowest and the highest."""
    having = [[row[name] for row in rows] for rows, _ in runs if all(name in row for row in rows)]
    if not having:
        return
    length = min(map(len, having))
    values = np.array([each[:length] for each in having], dtype=float)
    epochs = [row["epoch"] for row in runs[0][0][:length]]
    axes.plot(epochs, values.mean(0), color=colour, linestyle=_LINES[split], linewidth=1.6)
    if len(values) > 1:
        axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=opacity, linewidth=0)


def _chosen(axes: Axes, runs: Sequence[Run], name: str, colour: str, marker: str) -> None:
    """Where each run's chosen epoch is."""
    places = [(rows[chosen - 1]["epoch"], rows[chosen - 1][name]) for rows, chosen in runs if name in rows[chosen - 1]]
    if places:
        mark: dict[str, Any] = {"color": colour, "markeredgecolor": "black", "markersize": 7, "zorder": 5}
        axes.plot(*zip(*places, strict=True), marker, linestyle="", **mark)


def _scaled(axes: Axes, unit: str, values: Sequence[float]) -> None:
    if unit == "accuracy (%)":
        axes.set_yscale("function", functions=(_towards_100, _from_100))
        axes.set_yticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
        axes.set_ylim(max(0.0, min(values) - 2), 100.02)
    elif unit == "loss (nats)" and all(value > 0 for value in values):
        axes.set_yscale("log")
        in_digits(axes.yaxis)


def _keys(figure: Figure, labels: Sequence[str], splits: Iterable[str], several: bool, most: int) -> None:
    """What colours, lines, markers and bands are, below the picture."""
    pairs = zip(labels, COLOURS, MARKERS, strict=False)
    handles: list[Any] = [
        Line2D([], [], color=colour, marker=marker, markeredgecolor="black", label=label)
        for label, colour, marker in pairs
    ]
    handles += [Line2D([], [], color=_GREY, linestyle=_LINES[split], label=split) for split in splits]
    mark = Line2D([], [], color="white", marker="o", markeredgecolor="black", linestyle="", label="chosen epoch")
    handles.append(mark)
    if several:
        handles.append(Patch(color=_GREY, alpha=0.3, linewidth=0, label="lowest to highest seed"))
    legend(figure, handles, most)


def _towards_100(accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    """A scale on which 99 and 99.5 are as far apart as 90 and 95."""
    return -np.log10(100.1 - np.minimum(accuracy, 100.05))


def _from_100(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    return 100.1 - 10.0**-scaled
