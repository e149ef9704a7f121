"""What axes and legends of several charts share."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

_CHARACTER, _HANDLE, _TITLE = 0.068, 0.55, 0.085
"""Inches that a character of a legend takes, what stands before a name and behind it, and a character of a title."""


def legend(figure: Figure, handles: Sequence[Any], most: int) -> None:
    """What lines and markers are, below the picture: in so many columns at most as the names leave room for."""
    labels = [str(handle.get_label()) for handle in handles]
    wide = max(map(len, labels), default=0) * _CHARACTER + _HANDLE
    fit = int(figure.get_figwidth() // wide)
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(most, fit)), frameon=False, fontsize=8)


def titled(figure: Figure, title: str) -> None:
    """A title above the picture, its lines broken where the picture ends."""
    fit = max(int(figure.get_figwidth() / _TITLE), 20)
    lines = [piece for line in title.splitlines() for piece in textwrap.wrap(line, fit, break_on_hyphens=False) or [""]]
    figure.suptitle("\n".join(lines), fontsize=10)


class _Digits(LogFormatter):
    """Numbers of a logarithmic axis as digits: its own are formulas, and these are off, as names hold any character."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The text of a tick; none where there would be too many."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def in_digits(axis: Axis) -> None:
    """The ticks of a logarithmic axis as plain numbers."""
    axis.set_major_formatter(_Digits(labelOnlyBase=False, linthresh=1))
    axis.set_minor_formatter(_Digits(labelOnlyBase=False, linthresh=1))
