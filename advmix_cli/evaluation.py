"""Accuracy, loss and calibration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from advmix_cli.attacks import batches, frozen, logits, to_float
from advmix_cli.data.pixels import Pixels
from advmix_cli.runtime import side_by_side

BINS = 15
"""Of equal width, over confidences from 0 to 1. Source: Guo et al. 2017."""


@dataclasses.dataclass(frozen=True)
class Score:
    """For each of N images, on the CPU: whether it is right, its cross-entropy in nats, the winner's probability."""

    correct: torch.Tensor
    losses: torch.Tensor
    confidence: torch.Tensor

    @property
    def accuracy(self) -> float:
        """In percent (nan for no images)."""
        return 100 * int(self.correct.sum()) / len(self.correct) if len(self.correct) else math.nan

    @property
    def loss(self) -> float:
        """The mean cross-entropy over all N (nan for none)."""
        return float(self.losses.double().mean())

    def reliability(self) -> list[tuple[int, float, float]]:
        """(images, mean confidence, share right) for each of `BINS` bins of confidence: in [0,1], 0 where empty."""
        which = (self.confidence * BINS).ceil().long().sub_(1).clamp_(0, BINS - 1)
        n = torch.bincount(which, minlength=BINS)
        confidence = torch.bincount(which, self.confidence.double(), BINS) / n.clamp(min=1)
        right = torch.bincount(which, self.correct.double(), BINS) / n.clamp(min=1)
        return [(int(a), float(b), float(c)) for a, b, c in zip(n, confidence, right, strict=True)]


def score(
    model: nn.Module,
    x: Pixels,
    y: torch.Tensor,
    *,
    batch_size: int | None = None,
    on_batch: Callable[[int], None] = lambda n: None,
) -> Score:
    """How a model does on images (N,C,H,W), uint8 or float in [0,1], with labels (N,), in eval mode, in float32.

    `batch_size` None: what suits the device. On a CPU batches are scored side by side. Nothing is waited for before
    the end: the loss is that of every sample, so that a short last batch weighs what it holds.
    """

    def part(begin: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        chosen = slice(begin, begin + size)
        with torch.no_grad():
            said = logits(model, to_float(x[chosen]))
            return (
                said.argmax(1) == y[chosen],
                F.cross_entropy(said, y[chosen], reduction="none"),
                said.softmax(1).amax(1),
            )

    if not len(y):
        return Score(torch.empty(0, dtype=torch.bool), torch.empty(0), torch.empty(0))
    size, scored = batches.suitable(model, x, batch_size), []
    if y.device.type == "cpu":
        size = batches.on_cpu(model, len(y), size)
    with frozen(model):
        for done in side_by_side(part, range(0, len(y), size), y.device):
            scored.append(done)
            on_batch(len(done[0]))
    correct, losses, confidence = (torch.cat(parts).cpu() for parts in zip(*scored, strict=True))
    return Score(correct, losses, confidence)
