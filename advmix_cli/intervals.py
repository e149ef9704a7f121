"""Confidence intervals: plain arithmetic, so that a cached answer needs no torch."""

from __future__ import annotations

import math


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % confidence interval of an accuracy, in percent. Source: Wilson 1927."""
    z = 1.959963984540054
    if n == 0:
        return 0.0, 100.0
    p = correct / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 100 / (1 + z * z / n)
    low, high = scale * (centre - spread), scale * (centre + spread)
    return 0.0 if correct == 0 else low, 100.0 if correct == n else high
