"""The moving average of a model's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

_WARMUP = 0.025
"""The share of all steps in which the average is the model itself."""


class Average:
    """A second model that follows the first: after each step t its weights become d * theirs + (1 - d) * the model's.

    d is min(decay, (1 + t) / (10 + t)), and 0 in the first 2.5 % of all steps; buffers are the model's own. Source:
    Rebuffi et al. 2021, as in Gowal et al. 2020.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay

    def decay(self, step: int, steps: int) -> float:
        """d at that step, from 1, of so many."""
        return 0.0 if step <= _WARMUP * steps else min(self._decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def follow(self, model: nn.Module, decay: float | torch.Tensor) -> None:
        """Take one step."""
        for weight, other in zip(self.model.parameters(), model.parameters(), strict=True):
            weight.mul_(decay).add_(other * (1 - decay))
        for buffer, own in zip(self.model.buffers(), model.buffers(), strict=True):
            buffer.copy_(own)
