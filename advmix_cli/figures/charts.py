"""Charts: curves over epochs, an evaluation as a matrix, calibration, strength of attack, the loss around an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray

from advmix_cli.figures.style import COLOURS, MARKERS, STYLE

_ACCURACY_TICKS = (0, 50, 80, 90, 95, 98, 99, 99.5, 100)


_CHARACTER, _HANDLE = 0.068, 0.55
"""Inches that a character of a legend takes, and what stands before a name and behind it."""


def curves(runs: list[tuple[str, list[dict[str, Any]], int]], title: str) -> Figure:
    """Figures 3 to 6, 9 and 10: accuracy and loss over the epochs of several runs (label, history, chosen epoch).

    Adversarial runs also show the accuracy on attacked validation images, by which their epoch is chosen.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.4 + 0.16 * len(runs)), layout="constrained")
        panels = figure.subplots(1, 2)
        for axes, quantity, unit in zip(panels, ("accuracy", "loss"), ("accuracy (%)", "loss (nats)"), strict=True):
            for (label, history, chosen), colour, marker in zip(runs, COLOURS, MARKERS, strict=False):
                epochs = [row["epoch"] for row in history]
                values = [row[f"test_{quantity}"] for row in history]
                axes.plot(epochs, values, color=colour, label=f"{label}, test")
                axes.plot(
                    epochs,
                    [row[f"train_{quantity}"] for row in history],
                    color=colour,
                    linestyle=(0, (4, 2)),
                    alpha=0.8,
                    label=f"{label}, training",
                )
                if quantity == "accuracy" and all("validation_robust_accuracy" in row for row in history):
                    axes.plot(
                        epochs,
                        [row["validation_robust_accuracy"] for row in history],
                        color=colour,
                        linestyle=(0, (1, 1.5)),
                        linewidth=2,
                        label=f"{label}, attacked validation",
                    )
                mark = {"color": colour, "markeredgecolor": "black", "markersize": 7, "zorder": 5}
                axes.plot([chosen], [values[chosen - 1]], marker, label=f"{label}, chosen epoch", **mark)
            axes.set_xlabel("epoch")
            axes.set_ylabel(unit)
            axes.xaxis.get_major_locator().set_params(integer=True)
        panels[0].set_yscale("function", functions=(_towards_100, _from_100))
        panels[0].set_yticks(_ACCURACY_TICKS, [f"{tick:g}" for tick in _ACCURACY_TICKS])
        lowest = min(v for _, history, _ in runs for row in history for name, v in row.items() if "accuracy" in name)
        panels[0].set_ylim(max(0.0, lowest - 2), 100.02)
        if all(row["test_loss"] > 0 for _, history, _ in runs for row in history):
            panels[1].set_yscale("log")
            _in_digits(panels[1].yaxis)
        _legend(figure, panels[0], 3)
        figure.suptitle(title, fontsize=10)
    return figure


def _legend(figure: Figure, panel: Axes, most: int) -> None:
    """What lines and markers are, below the picture: in so many columns at most as the names leave room for."""
    handles, labels = panel.get_legend_handles_labels()
    wide = max(map(len, labels), default=0) * _CHARACTER + _HANDLE
    fit = int(figure.get_figwidth() // wide)
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(most, fit)), frameon=False, fontsize=8)


class _Digits(LogFormatter):
    """Numbers of a logarithmic axis as digits: its own are formulas, and these are off, as names hold any character."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The text of a tick; none where there would be too many."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def _in_digits(axis: Axis) -> None:
    axis.set_major_formatter(_Digits(labelOnlyBase=False, linthresh=1))
    axis.set_minor_formatter(_Digits(labelOnlyBase=False, linthresh=1))


def _towards_100(accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    """A scale on which 99 and 99.5 are as far apart as 90 and 95."""
    return -np.log10(100.1 - np.minimum(accuracy, 100.05))


def _from_100(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    return 100.1 - 10.0**-scaled


def matrix(models: list[str], columns: list[str], values: NDArray[np.float64], title: str) -> Figure:
    """Accuracies (models,columns) in percent as a heat map with the figures written in."""
    with mpl.rc_context(STYLE):
        longest = max(len(line) for column in columns for line in column.splitlines())
        tilted = longest > 24
        figure = Figure(
            figsize=(3.4 + 1.6 * len(columns), (2.2 if tilted else 1.5) + 0.6 * len(models)),
            layout="constrained",
        )
        axes = figure.subplots()
        shown = axes.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        axes.set_xticks(
            range(len(columns)),
            columns,
            rotation=20 if tilted else 0,
            ha="right" if tilted else "center",
        )
        axes.set_yticks(range(len(models)), models)
        axes.set_ylabel("model evaluated")
        axes.tick_params(length=0)
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for (i, j), value in np.ndenumerate(values):
            axes.text(
                j,
                i,
                f"{value:.2f}",
                ha="center",
                va="center",
                color="black" if value > 55 else "white",
                fontsize=10,
            )
        bar = figure.colorbar(shown, ax=axes, fraction=0.05, pad=0.02)
        bar.set_label("accuracy (%)")
        bar.outline.set_visible(False)
        axes.set_title(title, fontsize=10)
    return figure


def reliability(models: list[tuple[str, Sequence[Sequence[float]], float]], title: str) -> Figure:
    """Accuracy against confidence for models (label, bins of (images, confidence, share right), ECE in percent).

    The bars below say how many images each bin holds.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 6.2 + 0.16 * len(models)), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        upper.plot([0, 100], [0, 100], color="#777777", linewidth=1, linestyle=(0, (4, 2)), label="calibrated")
        width = 100 / max(len(bins) for _, bins, _ in models)
        for i, ((label, bins, ece), colour, marker) in enumerate(zip(models, COLOURS, MARKERS, strict=False)):
            held = [(n, 100 * confidence, 100 * right) for n, confidence, right in bins if n]
            upper.plot(
                [confidence for _, confidence, _ in held],
                [right for _, _, right in held],
                marker + "-",
                color=colour,
                markersize=4,
                label=f"{label}, ECE {ece:.2f} %",
            )
            share = width / (len(models) + 1)
            middles = [width * (k + 0.5) - width / 2 + share * (i + 1) for k in range(len(bins))]
            lower.bar(middles, [n for n, _, _ in bins], width=share, color=colour)
        upper.set_ylabel("accuracy (%)")
        upper.set_ylim(-2, 102)
        lower.set_yscale("symlog")
        _in_digits(lower.yaxis)
        lower.set_ylabel("images")
        lower.set_xlabel("confidence (%)")
        _legend(figure, upper, 1)
        figure.suptitle(title, fontsize=10)
    return figure


def strength(
    models: list[tuple[str, list[tuple[float, float]], list[tuple[float, float]]]],
    proved: list[list[tuple[float, float]]],
    eps: float,
    title: str,
) -> Figure:
    """Accuracy against eps and against PGD's steps, for models (label, by eps, by steps); `eps` is marked.

    Between what is `proved` of a model at the same values of eps and what PGD leaves there is a band; [] for none.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.9 + 0.16 * len(models)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for (label, *both), colour, marker in zip(models, COLOURS, MARKERS, strict=False):
            for axes, points in zip(panels, both, strict=True):
                axes.plot(*zip(*points, strict=True), marker + "-", color=colour, markersize=4, label=label)
        for (_, by_eps, _), lower, colour in zip(models, proved, COLOURS, strict=False):
            if lower:
                values, low = zip(*lower, strict=True)
                panels[0].plot(values, low, ":", color=colour, linewidth=1)
                panels[0].fill_between(values, low, [high for _, high in by_eps], color=colour, alpha=0.2, linewidth=0)
        panels[0].axvline(eps, color="#777777", linewidth=1, linestyle=(0, (4, 2)))
        panels[0].annotate(" the threat's eps", (eps, 98), fontsize=8, color="#555555")
        panels[0].set_xlabel("eps (pixel units)")
        panels[0].set_ylabel("accuracy (%)")
        panels[0].set_ylim(-2, 102)
        panels[1].set_xscale("log")
        ticks = [steps for steps, _ in models[0][2]]
        panels[1].set_xticks(ticks, [f"{steps:g}" for steps in ticks])
        panels[1].minorticks_off()
        panels[1].set_xlabel("steps")
        _legend(figure, panels[0], 2)
        figure.suptitle(title, fontsize=10)
    return figure


def landscape(models: list[tuple[str, list[float], list[list[float | None]]]], title: str) -> Figure:
    """The loss around an image for models (label, axis, loss): up along its attack, across a random direction.

    `axis` is in units of the whole perturbation, the clean image in the middle, the attacked one at the top. A
    loss of None is infinite, and left blank.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 3.1 * len(models), 3.7), layout="constrained")
        panels = figure.subplots(1, len(models), squeeze=False)[0]
        for axes, (label, axis, loss) in zip(panels, models, strict=True):
            values = np.array(loss, dtype=float)  # None is nan there
            values = np.ma.masked_invalid(values) if np.isfinite(values).any() else np.zeros(values.shape)
            shown = axes.contourf(axis, axis, values, levels=20, cmap="cividis")
            axes.plot([0, 0], [0, 1], color="white", linewidth=1)
            axes.plot([0], [0], "o", color="white", markeredgecolor="black")
            axes.plot([0], [1], "X", color="white", markeredgecolor="black", clip_on=False)
            axes.set_title(label, fontsize=9)
            axes.set_xlabel("random direction")
            axes.grid(False)
            figure.colorbar(shown, ax=axes, fraction=0.05, pad=0.02).set_label("loss (nats)", fontsize=8)
        panels[0].set_ylabel("along the attack")
        figure.suptitle(title, fontsize=10)
    return figure
