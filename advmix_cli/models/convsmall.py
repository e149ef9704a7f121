"""ConvSmall, a network small enough for verifiers."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from advmix_cli.models import folding
from advmix_cli.models.sizes import check_size


class Halving(nn.Conv2d):
    """A convolution of an even side with stride 2 and without padding; on a CPU as `folding` has it."""

    def __init__(self, channels: int, out: int, side: int) -> None:
        super().__init__(channels, out, side, stride=2)
        self._folded = folding.Halved()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N,C,H,W) to (N,C',H',W')."""
        return self._folded(x, self.weight, self.bias) if folding.folds(x) else super().forward(x)


def convsmall(channels: int, classes: int, height: int, width: int) -> nn.Sequential:
    """ConvSmall: four stages, (N,channels,H,W) in [0,1] to logits (N,classes), sides of 10 and more.

    Source: Mirman, Gehr and Vechev 2018 (DiffAI). Two 4x4 convolutions with stride 2 and without padding, two linear
    layers, ReLUs between. 89,606 parameters for (1,28,28) and 10 classes, 125,318 for (3,32,32). The weights begin as
    `torch.nn` draws them, which is how the authors' code draws them too.
    """
    check_size("convsmall", 10, height, width)
    flat = 32 * _side(height) * _side(width)
    return nn.Sequential(
        OrderedDict(
            c1=nn.Sequential(OrderedDict(conv=Halving(channels, 16, 4), relu=nn.ReLU())),
            c2=nn.Sequential(OrderedDict(conv=nn.Conv2d(16, 32, 4, stride=2), relu=nn.ReLU())),
            f3=nn.Sequential(OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(flat, 100), relu=nn.ReLU())),
            f4=nn.Sequential(OrderedDict(linear=nn.Linear(100, classes))),
        )
    )


def _side(side: int) -> int:
    """What the two convolutions leave of a side."""
    for _ in range(2):
        side = (side - 2) // 2
    return side
