"""Adversarial weight perturbation. Source: Wu, Xia and Wang 2020 (AWP)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

_TINY = 1e-20


@contextlib.contextmanager
def perturbed(model: nn.Module, gradients: Sequence[torch.Tensor], gamma: float) -> Iterator[None]:
    """Within, each weight of two dimensions or more is moved up its gradient, by gamma in proportion to its length.

    w + gamma * w.norm() / (gradient.norm() + 1e-20) * gradient

    `gradients` are those of the loss by `perturbable(model)`. Afterwards the weights are what they were, to the bit.
    """
    weights = perturbable(model)
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, slope in zip(weights, gradients, strict=True):
            weight.add_(slope * (gamma * weight.norm() / (slope.norm() + _TINY)))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, was in zip(weights, kept, strict=True):
                weight.copy_(was)


def perturbable(model: nn.Module) -> list[nn.Parameter]:
    """The weights that are perturbed: all but biases and what batch norm learns."""
    return [parameter for parameter in model.parameters() if parameter.ndim > 1 and parameter.requires_grad]


@contextlib.contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Within, a forward pass may move batch norm's statistics; afterwards they are what they were."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    yield
    for buffer, was in kept:
        buffer.copy_(was)
