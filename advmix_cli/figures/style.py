"""What all pictures share: colours, style, and how a figure becomes bytes.

Colours are Okabe and Ito's and cividis, which colour-blind readers can tell apart; nothing is told by colour alone.
"""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "text.parse_math": False,  # names may hold any character
    "svg.hashsalt": "advmix",
    "svg.fonttype": "none",
}


def svg(figure: Figure) -> bytes:
    """The figure as SVG, the same bytes for the same figure."""
    return _encoded(figure, "svg", {"Date": None})


def png(figure: Figure, record: str = "") -> bytes:
    """The figure as PNG, the same bytes for the same figure and record, which goes into a text chunk."""
    return _encoded(figure, "png", {"Software": None} | ({"advmix": record} if record else {}))


def _encoded(figure: Figure, form: str, metadata: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=form, dpi=160, metadata=metadata, facecolor="white")
    return buffer.getvalue()
