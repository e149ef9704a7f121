"""Pictures of images: samples and their perturbation, and a mixed batch."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from advmix_cli.figures.axes import titled
from advmix_cli.figures.style import STYLE

Pixels = NDArray[np.float32]

_WRONG, _RIGHT = "#B34700", "#1A1A1A"


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
    rows: list[tuple[str, Pixels, list[tuple[str, float]]]],
    delta: Pixels,
    names: list[str],
    numbers: list[str],
    title: str,
    delta_title: str,
) -> Figure:
    """Figures 7 and 8: rows of images (N,C,H,W), each with what a model says of them and its share, and their change.

    `names` are the right classes, `numbers` the images'; an answer that is not the right one is marked with a cross.
    Changes are drawn around the middle of the scale beside them, which reaches to the largest: of colour images each
    channel, so that grey is no change.
    """
    with mpl.rc_context(STYLE):
        n = len(names)
        figure = Figure(figsize=(0.95 * n + 2.9, 1.3 * (len(rows) + 1) + 1.0), layout="constrained")
        grid = figure.subplots(len(rows) + 1, n, squeeze=False)
        for axes, number in zip(grid[0], numbers, strict=True):
            axes.set_title(number, fontsize=7, color="#555555", pad=2)
        for (row_title, images, said), line in zip(rows, grid, strict=False):
            _row_title(line[0], row_title)
            for axes, pixels, (label, share), name in zip(line, images, said, names, strict=True):
                _image(axes, pixels)
                wrong = label != name
                axes.set_xlabel(
                    (f"{label} \N{MULTIPLICATION SIGN}" if wrong else label) + f"\n{100 * share:.0f} %",
                    color=_WRONG if wrong else _RIGHT,
                    fontweight="bold" if wrong else "normal",
                    fontsize=8,
                    labelpad=2,
                )
        largest = max(float(np.abs(delta).max()), 1e-9)
        grey = delta.shape[1] == 1
        _row_title(grid[-1][0], delta_title)
        for axes, change in zip(grid[-1], delta, strict=True):
            if grey:
                axes.imshow(change[0], cmap="PuOr", vmin=-largest, vmax=largest, interpolation="nearest")
                _bare(axes)
            else:
                _image(axes, (0.5 + change / (2 * largest)).astype(np.float32))
        scale = ScalarMappable(Normalize(-largest, largest), "PuOr" if grey else "gray")
        bar = figure.colorbar(scale, ax=list(grid[-1]), fraction=0.02, pad=0.01, ticks=[-largest, 0, largest])
        bar.ax.set_yticklabels([f"{value:.3g}" for value in (-largest, 0, largest)], fontsize=7)
        bar.set_label("pixel units" if grey else "each channel", fontsize=7)
        bar.outline.set_visible(False)
        titled(figure, title)
    return figure


def mixing(images: Pixels, labels: list[str], perm: list[int], lam: float, title: str) -> Figure:
    """Figure 2: a batch (N,C,H,W), its shuffled copy, and their mixes: half and half, and lam of the one."""
    with mpl.rc_context(STYLE):
        n = len(labels)
        figure = Figure(figsize=(1.1 * n + 2.2, 6.4), layout="constrained")
        grid = figure.subplots(4, n, squeeze=False)
        shuffled, partners = images[perm], [labels[i] for i in perm]
        rows = [("the batch", images, labels), ("its shuffled copy", shuffled, partners)]
        for share in (0.5, lam):
            said = [
                f"{share:.2f} \N{MIDDLE DOT} {a}\n+ {1 - share:.2f} \N{MIDDLE DOT} {b}"
                for a, b in zip(labels, partners, strict=True)
            ]
            mixed = (share * images + (1 - share) * shuffled).astype(np.float32)
            rows.append((f"mixed,\n\u03bb = {share:.2f}", mixed, said))
        for (row_title, pixels, line_said), line in zip(rows, grid, strict=True):
            _row_title(line[0], row_title)
            for axes, image, label in zip(line, pixels, line_said, strict=True):
                _image(axes, image)
                axes.set_xlabel(label, labelpad=3)
        titled(figure, title)
    return figure
