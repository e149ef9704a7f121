"""Pictures of images: samples and their perturbation, and a mixed batch."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

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
    rows: list[tuple[str, Pixels, list[str]]], delta: Pixels, names: list[str], title: str, delta_title: str
) -> Figure:
    """Figures 7 and 8: rows of images (N,C,H,W), each with what the model says of them, and the perturbation.

    `names` are the right classes; a label that is not the right one is marked with a cross.
    """
    with mpl.rc_context(STYLE):
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


def mixing(images: Pixels, labels: list[str], perm: list[int], lam: float, title: str) -> Figure:
    """Figure 2: a batch (N,C,H,W), its shuffled copy, and lam times the one plus 1 - lam times the other."""
    with mpl.rc_context(STYLE):
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
