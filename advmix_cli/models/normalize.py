"""Normalisation, which is inside the model, and what goes before a network of others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Normalize(nn.Module):
    """(x - mean) / std for each channel of images (N,C,H,W) in [0,1]."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N,C,H,W) to (N,C,H,W)."""
        return (x - self.mean) / self.std


class Normalized(nn.Module):
    """A network behind its normalisation; grey images are repeated where the `network` takes three channels.

    Equivalent: `network(normalize(x.expand(-1, channels, -1, -1)))`.
    """

    def __init__(self, normalize: Normalize | None, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.normalize, self.network, self.channels = normalize, network, channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N,C,H,W) in [0,1] to logits (N,classes)."""
        if x.shape[1] != self.channels:
            x = x.expand(-1, self.channels, -1, -1)
        if self.normalize is not None:
            x = self.normalize(x)
        logits: torch.Tensor = self.network(x)
        return logits


def normalisation(model: nn.Module) -> dict[str, list[float]] | None:
    """Mean and standard deviation that images are normalised with inside the model, as far as that is told."""
    layer = next((each for each in model.modules() if isinstance(each, Normalize)), None)
    if layer is None:
        return None
    return {part: [round(value, 6) for value in getattr(layer, part).flatten().tolist()] for part in ("mean", "std")}


def inner(model: nn.Module) -> nn.Module:
    """The network itself, without what goes before it."""
    return model.network if isinstance(model, Normalized) else model
