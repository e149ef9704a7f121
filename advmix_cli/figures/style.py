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


def encode(figure: Figure) -> dict[str, bytes]:
    """The figure as `.png` and `.svg` bytes, the same for the same figure."""
    encoded = {}
    for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
        buffer = io.BytesIO()
        with mpl.rc_context(STYLE):
            figure.savefig(buffer, format=suffix[1:], dpi=160, metadata=metadata, facecolor="white")
        encoded[suffix] = buffer.getvalue()
    return encoded
