"""Charts of an evaluation: accuracies, of classes too, calibration, strength of attack, the loss around an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from advmix_cli.figures.axes import in_digits, legend, titled
from advmix_cli.figures.style import COLOURS, MARKERS, STYLE

_POINT: dict[str, Any] = {"markeredgecolor": "black", "markeredgewidth": 0.5, "markersize": 5, "linestyle": ""}
_NAME = 14
"""Letters of a class's name that are shown."""

_BOUNDARY = "#e6007e"

Interval = tuple[float, float]
Known = tuple[float, Interval] | None
"""An accuracy in percent and its 95 % interval; None where nothing is known."""
Points = Sequence[tuple[float, float, Interval]]
"""(eps or steps, an accuracy in percent, its interval)."""


def matrix(models: list[str], columns: list[str], values: Sequence[Sequence[Known]], title: str) -> Figure:
    """Accuracies (models,columns) as a heat map, the figures and their intervals written in."""
    with mpl.rc_context(STYLE):
        longest = max(len(line) for column in columns for line in column.splitlines())
        tilted = longest > 24
        figure = Figure(
            figsize=(3.4 + 1.6 * len(columns), (2.2 if tilted else 1.5) + 0.6 * len(models)),
            layout="constrained",
        )
        axes = figure.subplots()
        shares = np.array([[np.nan if one is None else one[0] for one in line] for line in values])
        shown = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100, aspect="auto")
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
        for (i, j), _ in np.ndenumerate(shares):
            one = values[i][j]
            if one is None:
                axes.text(j, i, "unknown", ha="center", va="center", color="#555555", fontsize=8)
                continue
            value, (low, high) = one
            colour = "black" if value > 55 else "white"
            axes.text(j, i - 0.08, f"{value:.2f}", ha="center", va="bottom", color=colour, fontsize=10)
            axes.text(j, i + 0.06, f"[{low:.2f}, {high:.2f}]", ha="center", va="top", color=colour, fontsize=7)
        bar = figure.colorbar(shown, ax=axes, fraction=0.05, pad=0.02)
        bar.set_label("accuracy (%)")
        bar.outline.set_visible(False)
        titled(figure, title)
    return figure


_FEW = 10


def reliability(
    models: Sequence[tuple[str, Sequence[tuple[int, float, float, Interval]], float]], title: str
) -> Figure:
    """Accuracy against confidence for models (label, bins of (images, confidence, accuracy, its interval), ECE).

    All in percent. The bars below say how many images each bin holds; those of fewer than 10 are bars alone.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 6.2 + 0.16 * len(models)), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        upper.plot([0, 100], [0, 100], color="#777777", linewidth=1, linestyle=(0, (4, 2)), label="calibrated")
        width = 100 / max(len(bins) for _, bins, _ in models)
        for i, ((label, bins, ece), colour, marker) in enumerate(zip(models, COLOURS, MARKERS, strict=False)):
            many = [each for each in bins if each[0] >= min(_FEW, max(n for n, *_ in bins))]
            upper.plot(
                [confidence for _, confidence, _, _ in many],
                [right for _, _, right, _ in many],
                marker + "-",
                color=colour,
                markersize=4,
                label=f"{label}, ECE {ece:.2f} %",
            )
            low, high = zip(*(each[3] for each in many), strict=True)
            upper.vlines(
                [confidence for _, confidence, _, _ in many], low, high, color=colour, linewidth=0.8, alpha=0.7
            )
            share = width / (len(models) + 1)
            middles = [width * (k + 0.5) - width / 2 + share * (i + 1) for k in range(len(bins))]
            lower.bar(middles, [n for n, *_ in bins], width=share, color=colour)
        upper.set_ylabel("accuracy (%)")
        upper.set_ylim(-2, 102)
        lower.set_yscale("symlog")
        in_digits(lower.yaxis)
        lower.set_ylabel("images")
        lower.set_xlabel("confidence (%)")
        legend(figure, upper.get_legend_handles_labels()[0], 1)
        titled(figure, title)
    return figure


def _against(axes: Axes, label: str, points: Points, colour: str, marker: str) -> None:
    """A line through points, with their intervals."""
    at, shares = [each[0] for each in points], [each[1] for each in points]
    axes.plot(at, shares, marker + "-", color=colour, markersize=4, label=label)
    axes.vlines(at, *zip(*(each[2] for each in points), strict=True), color=colour, linewidth=0.8)


def _band(axes: Axes, lower: Sequence[tuple[float, float]], upper: Points, colour: str) -> None:
    """What is proved at some eps, and what lies between that and what is left there, where that is known of any."""
    at, low = zip(*lower, strict=True)
    axes.plot(at, low, ":", color=colour, linewidth=1)
    if len(upper) > 1:
        high = np.interp(at, [each[0] for each in upper], [each[1] for each in upper])
        axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)


def eps(models: Sequence[tuple[str, Points, Sequence[tuple[float, float]]]], title: str) -> Figure:
    """What is left against eps, for models (label, what attacks leave, what is proved), both in order of eps.

    Both begin with the clean accuracy, at 0. Between the two is a band.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 4 + 0.16 * len(models)), layout="constrained")
        axes = figure.subplots()
        for (label, left, proved), colour, marker in zip(models, COLOURS, MARKERS, strict=False):
            _against(axes, label, left, colour, marker)
            if len(proved) > 1:
                _band(axes, proved, left, colour)
        axes.set_xlabel("eps (pixel units)")
        axes.set_ylabel("accuracy (%)")
        axes.set_ylim(-2, 102)
        legend(figure, axes.get_legend_handles_labels()[0], 2)
        titled(figure, title)
    return figure


def strength(
    models: Sequence[tuple[str, Points, Points]],
    proved: list[list[tuple[float, float]]],
    eps: float,
    title: str,
) -> Figure:
    """Accuracy and its interval against eps and against PGD's steps, for models (label, by eps, by steps).

    `eps` is marked.

    Between what is `proved` of a model at the same values of eps and what PGD leaves there is a band; [] for none.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.9 + 0.16 * len(models)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for (label, *both), colour, marker in zip(models, COLOURS, MARKERS, strict=False):
            for axes, points in zip(panels, both, strict=True):
                _against(axes, label, points, colour, marker)
        for (_, by_eps, _), lower, colour in zip(models, proved, COLOURS, strict=False):
            if lower:
                _band(panels[0], lower, by_eps, colour)
        panels[0].axvline(eps, color="#777777", linewidth=1, linestyle=(0, (4, 2)))
        panels[0].annotate(" the threat's eps", (eps, 98), fontsize=8, color="#555555")
        panels[0].set_xlabel("eps (pixel units)")
        panels[0].set_ylabel("accuracy (%)")
        panels[0].set_ylim(-2, 102)
        panels[1].set_xscale("log")
        ticks = [steps for steps, *_ in models[0][2]]
        panels[1].set_xticks(ticks, [f"{steps:g}" for steps in ticks])
        panels[1].minorticks_off()
        panels[1].set_xlabel("steps")
        legend(figure, panels[0].get_legend_handles_labels()[0], 2)
        titled(figure, title)
    return figure


def compare(models: list[str], columns: list[str], values: Sequence[Sequence[Known]], title: str) -> Figure:
    """Accuracies (models,columns) as points with their intervals, a line a model, a colour and a mark a column."""
    with mpl.rc_context(STYLE):
        height = 1.4 + 0.17 * len(columns) + len(models) * (0.2 + 0.09 * len(columns))
        figure = Figure(figsize=(7.5, height), layout="constrained")
        axes = figure.subplots()
        for place, (column, colour, marker) in enumerate(zip(columns, COLOURS, MARKERS, strict=False)):
            known = [(i, line[place]) for i, line in enumerate(values)]
            apart = 0.7 * ((place + 0.5) / min(len(columns), len(COLOURS)) - 0.5)
            held = [(i + apart, *one) for i, one in known if one is not None]
            axes.hlines([y for y, _, _ in held], [low for _, _, (low, _) in held], [high for *_, (_, high) in held],
                        color=colour, linewidth=1.4)  # fmt: skip
            axes.plot([value for _, value, _ in held], [y for y, _, _ in held], marker, color=colour,
                      label=column, **_POINT)  # fmt: skip
        axes.set_yticks(range(len(models)), models)
        axes.set_ylim(len(models) - 0.5, -0.5)
        axes.set_xlim(-1, 101)
        axes.set_xlabel("accuracy (%), with its 95 % interval")
        legend(figure, axes.get_legend_handles_labels()[0], 3)
        titled(figure, title)
    return figure


def classes(
    models: Sequence[tuple[str, Sequence[tuple[str, Sequence[Known]]]]], names: Sequence[str], title: str
) -> Figure:
    """Accuracy of each class with its interval, a panel for each of models (label, columns of (name, a class each))."""
    with mpl.rc_context(STYLE):
        wide = max(4.5, 0.42 * len(names) + 1.5)
        figure = Figure(figsize=(wide, 0.9 + 2.3 * len(models)), layout="constrained")
        panels = figure.subplots(len(models), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (label, columns) in zip(panels, models, strict=True):
            for place, ((column, shares), colour, marker) in enumerate(zip(columns, COLOURS, MARKERS, strict=False)):
                apart = 0.6 * ((place + 0.5) / min(len(columns), len(COLOURS)) - 0.5)
                held = [(i + apart, *one) for i, one in enumerate(shares) if one is not None]
                axes.vlines([x for x, _, _ in held], [low for _, _, (low, _) in held],
                            [high for *_, (_, high) in held], color=colour, linewidth=1.4)  # fmt: skip
                axes.plot([x for x, _, _ in held], [value for _, value, _ in held], marker, color=colour,
                          label=column, **_POINT)  # fmt: skip
            axes.set_ylim(-2, 102)
            axes.set_ylabel("accuracy (%)")
            axes.set_title(label, fontsize=9)
        short, slanted = _named(names)
        panels[-1].set_xticks(range(len(names)), short, **slanted)
        panels[-1].set_xlabel("class")
        legend(figure, panels[0].get_legend_handles_labels()[0], 3)
        titled(figure, title)
    return figure


class Around(NamedTuple):
    """What a model makes of the points around an image: rows along its attack, columns along a random direction.

    `axis` is in units of the whole perturbation, the clean image in the middle, the attacked one at the end. `loss` is
    in nats, None where it is infinite; `margin` that of the logits, below 0 where it is wrong, None: not known.
    """

    label: str
    axis: list[float]
    loss: list[list[float | None]]
    margin: list[list[float | None]] | None = None


def confusion(panels: Sequence[tuple[str, Sequence[Sequence[int]]]], names: Sequence[str], title: str) -> Figure:
    """What images of each class (row) are taken for (column), counts for panels (label, counts): shares of the row."""
    with mpl.rc_context(STYLE):
        side = max(3.2, 0.42 * min(len(names), 30) + 1.2)
        figure = Figure(figsize=(side * len(panels) + 0.8, side + 0.7), layout="constrained")
        drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        short, slanted = _named(names)
        for axes, (label, counts) in zip(drawn, panels, strict=True):
            held = np.array(counts, dtype=float)
            shares = 100 * held / np.maximum(held.sum(1, keepdims=True), 1)
            shown = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
            if len(names) <= _FEW:
                for (i, j), share in np.ndenumerate(shares):
                    if held[i, j]:
                        axes.text(j, i, f"{share:.0f}", ha="center", va="center", fontsize=7,
                                  color="black" if share > 55 else "white")  # fmt: skip
            if len(names) <= 30:
                axes.set_xticks(range(len(names)), short, **slanted)
                axes.set_yticks(range(len(names)), short)
            axes.tick_params(length=0)
            axes.grid(False)
            axes.set_title(label, fontsize=9)
            axes.set_xlabel("taken for")
        drawn[0].set_ylabel("class")
        bar = figure.colorbar(shown, ax=list(drawn), fraction=0.04, pad=0.02)
        bar.set_label("% of the class")
        bar.outline.set_visible(False)
        titled(figure, title)
    return figure


def _named(names: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The names of classes at an axis, and how they lie there."""
    short = [name if len(name) <= _NAME else name[: _NAME - 1] + "\N{HORIZONTAL ELLIPSIS}" for name in names]
    return short, {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, short)) > 3 else {}


def landscape(models: Sequence[Around], title: str) -> Figure:
    """The loss around an image of each model, up along the attack, and where its decision changes."""
    with mpl.rc_context(STYLE):
        figure, bounded = Figure(figsize=(1.2 + 3.1 * len(models), 3.9), layout="constrained"), False
        panels = figure.subplots(1, len(models), squeeze=False)[0]
        for axes, (label, axis, loss, margin) in zip(panels, models, strict=True):
            values = np.array(loss, dtype=float)  # None is nan there
            values = np.ma.masked_invalid(values) if np.isfinite(values).any() else np.zeros(values.shape)
            shown = axes.contourf(axis, axis, values, levels=20, cmap="cividis")
            shown.set_edgecolor("face")  # no seams between the levels in SVG
            margins = np.array([] if margin is None else margin, dtype=float)
            if margins.size and np.nanmin(margins) < 0 < np.nanmax(margins):
                axes.contour(axis, axis, margins, levels=[0], colors=[_BOUNDARY], linewidths=2)
                bounded = True
            axes.plot([0, 0], [0, 1], color="white", linewidth=1)
            axes.plot([0], [0], "o", color="white", markeredgecolor="black")
            axes.plot([0], [1], "X", color="white", markeredgecolor="black", clip_on=False)
            axes.set_title(label, fontsize=9)
            axes.set_xlabel("random direction")
            axes.grid(False)
            figure.colorbar(shown, ax=axes, fraction=0.05, pad=0.02).set_label("loss (nats)", fontsize=8)
        panels[0].set_ylabel("along the attack")
        if bounded:
            line = Line2D([], [], color=_BOUNDARY, linewidth=2, label="where the decision changes")
            legend(figure, [line], 1)
        titled(figure, title)
    return figure
