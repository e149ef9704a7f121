"""Accuracy and loss."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from advmix_cli.attacks import frozen, to_float


@dataclasses.dataclass(frozen=True)
class Score:
    """`correct` (N,) on the CPU, and the mean cross-entropy `loss` in nats over all N (nan for none)."""

    correct: torch.Tensor
    loss: float

    @property
    def accuracy(self) -> float:
        """In percent (nan for no images)."""
        return 100 * int(self.correct.sum()) / len(self.correct) if len(self.correct) else math.nan


def score(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda n: None,
) -> Score:
    """How a model does on images (N,C,H,W), uint8 or float in [0,1], with labels (N,), in eval mode, in float32.

    Sums over samples: a short last batch weighs what it holds.
    """
    correct = torch.empty(len(y), dtype=torch.bool, device=y.device)
    losses = [torch.zeros((), device=y.device)]
    with frozen(model), torch.no_grad():
        for begin in range(0, len(y), batch_size):
            part = slice(begin, begin + batch_size)
            logits = model(to_float(x[part]))
            losses.append(F.cross_entropy(logits, y[part], reduction="sum"))
            correct[part] = logits.argmax(1) == y[part]
            on_batch(len(logits))
    loss = float(torch.stack(losses).cpu().double().sum())
    return Score(correct.cpu(), loss / len(y) if len(y) else math.nan)
