"""Pictures as bytes, in PNG and SVG. The only module that imports matplotlib; it draws plain arrays and knows no files.

Colours are Okabe and Ito's and cividis, which colour-blind readers can tell apart; nothing is told by colour alone.
"""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Pixels = NDArray[np.float32]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_ACCURACY_TICKS = (0, 50, 80, 90, 95, 98, 99, 99.5, 100)
_WRONG, _RIGHT = "#B34700", "#1A1A1A"
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "svg.hashsalt": "advmix",
    "svg.fonttype": "none",
}


def encode(figure: Figure) -> dict[str, bytes]:
    """The figure as `.png` and `.svg` bytes, the same for the same figure."""
    encoded = {}
    for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
        buffer = io.BytesIO()
        with mpl.rc_context(_STYLE):
            figure.savefig(buffer, format=suffix[1:], dpi=160, metadata=metadata, facecolor="white")
        encoded[suffix] = buffer.getvalue()
    return encoded


def _image(axes: Axes, pixels: Pixels) -> None:
    """An image (C,H,W) in [0,1] without axes."""
    if pixels.shape[0] == 1:
        axes.imshow(pixels[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(np.clip(pixels.transpose(1, 2, 0), 0, 1), interpolation="nearest")
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _row_title(axes: Axes, title: str) -> None:
    axes.set_ylabel(title, rotation=0, ha="right", va="center", labelpad=10, fontsize=9)


def samples(
    rows: list[tuple[str, Pixels, list[str]]], delta: Pixels, names: list[str], title: str, delta_title: str
) -> Figure:
    """Figures 7 and 8: rows of images (N,C,H,W), each with what the model says of them, and the perturbation.

    `names` are the right classes; a label that is not the right one is marked with a cross.
    """
    with mpl.rc_context(_STYLE):
        n = len(names)
        figure = Figure(figsize=(0.95 * n + 2.4, 1.22 * (len(rows) + 1) + 0.7), layout="constrained")
        grid = figure.subplots(len(rows) + 1, n, squeeze=False)
        for (row_title, images, said), line in zip(rows, grid, strict=False):
            _row_title(line[0], row_title)
            for axes, pixels, label, name in zip(line, images, said, names, strict=True):
                _image(axes, pixels)
                wrong = label != name
                axes.set_xlabel(
                    f"{label} \N{MULTIPLICATION SIGN}" if wrong else label,
                    color=_WRONG if wrong else _RIGHT,
                    fontweight="bold" if wrong else "normal",
                    labelpad=2,
                )
        largest = max(float(np.abs(delta).max()), 1e-9)
        _row_title(grid[-1][0], delta_title)
        for axes, change in zip(grid[-1], delta, strict=True):
            if change.shape[0] == 1:
                shown = axes.imshow(change[0], cmap="PuOr", vmin=-largest, vmax=largest, interpolation="nearest")
                _bare(axes)
            else:
                _image(axes, (0.5 + change / (2 * largest)).astype(np.float32))
        if delta.shape[1] == 1:
            bar = figure.colorbar(shown, ax=list(grid[-1]), fraction=0.02, pad=0.01)
            bar.set_label("pixel units", fontsize=8)
            bar.outline.set_visible(False)
        figure.suptitle(title, fontsize=10)
    return figure


def curves(runs: list[tuple[str, list[dict[str, Any]], int]], title: str) -> Figure:
    """Figures 3 to 6, 9 and 10: accuracy and loss over the epochs of several runs (label, history, chosen epoch).

    Adversarial runs also show the accuracy on attacked validation images, by which their epoch is chosen.
    """
    with mpl.rc_context(_STYLE):
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
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
        figure.suptitle(title, fontsize=10)
    return figure


def _towards_100(accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    """A scale on which 99 and 99.5 are as far apart as 90 and 95."""
    return -np.log10(100.1 - np.minimum(accuracy, 100.05))


def _from_100(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    return 100.1 - 10.0**-scaled


def mixing(images: Pixels, labels: list[str], perm: list[int], lam: float, title: str) -> Figure:
    """Figure 2: a batch (N,C,H,W), its shuffled copy, and lam times the one plus 1 - lam times the other."""
    with mpl.rc_context(_STYLE):
        n = len(labels)
        figure = Figure(figsize=(1.1 * n + 2.2, 5.0), layout="constrained")
        grid = figure.subplots(3, n, squeeze=False)
        shuffled = images[perm]
        mixed = (lam * images + (1 - lam) * shuffled).astype(np.float32)
        partners = [labels[i] for i in perm]
        rows = (
            (f"the batch\n\N{MULTIPLICATION SIGN} \u03bb = {lam:.2f}", images, labels),
            (
                f"its shuffled copy\n\N{MULTIPLICATION SIGN} (1 \u2212 \u03bb) = {1 - lam:.2f}",
                shuffled,
                partners,
            ),
            (
                "mixed",
                mixed,
                [
                    f"{lam:.2f} \N{MIDDLE DOT} {a}\n+ {1 - lam:.2f} \N{MIDDLE DOT} {b}"
                    for a, b in zip(labels, partners, strict=True)
                ],
            ),
        )
        for (row_title, pixels, said), line in zip(rows, grid, strict=True):
            _row_title(line[0], row_title)
            for axes, image, label in zip(line, pixels, said, strict=True):
                _image(axes, image)
                axes.set_xlabel(label, labelpad=3)
        figure.suptitle(title, fontsize=10)
    return figure


def matrix(models: list[str], columns: list[str], values: NDArray[np.float64], title: str) -> Figure:
    """Accuracies (models,columns) in percent as a heat map with the figures written in."""
    with mpl.rc_context(_STYLE):
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
