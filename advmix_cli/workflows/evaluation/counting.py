"""What is known of each image, as a cell of an evaluation: counts, flags, the mean loss."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import torch

from advmix_cli.workflows.evaluation.record import Cell

_MOST_CLASSES = 100
"""Of which each is counted alone: a record is read within bounds."""


def cell(correct: torch.Tensor, losses: torch.Tensor, labels: torch.Tensor, classes: int, **more: Any) -> Cell:
    """From flags, bool (N,), and losses (N,) on the CPU, and the images' labels (N,) of so many classes."""
    loss = float(losses.double().mean())
    packed = np.packbits(correct.numpy()).tobytes()  # the first image in the highest bit
    right, labels = base64.b64encode(packed).decode(), labels.cpu()
    counts = [kept.bincount(minlength=classes).tolist() for kept in (labels, labels[correct])]
    by_class = list(zip(*counts, strict=True)) if classes <= _MOST_CLASSES else []
    known = loss if math.isfinite(loss) else None
    return Cell(len(correct), int(correct.sum()), known, right, by_class=by_class, **more)
