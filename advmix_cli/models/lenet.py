"""LeNet5 for 32x32 images."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from advmix_cli.models import folding


class Pooled(nn.Sequential):
    """A convolution of an odd side without padding, pooled over 2x2 windows, and a ReLU: (N,C,H,W) to (N,C',H',W').

    On a CPU all at once, see `folding`, which is equal up to rounding. Pooling before the ReLU is the same function,
    gradients included, on a quarter of the values.
    """

    conv: nn.Conv2d

    def __init__(self, channels: int, out: int, side: int) -> None:
        super().__init__(OrderedDict(conv=nn.Conv2d(channels, out, side), pool=nn.MaxPool2d(2), relu=nn.ReLU()))
        self._folded = folding.Pooled()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What is left of the largest value of each window."""
        as_built = [type(module) for module in self] == [nn.Conv2d, nn.MaxPool2d, nn.ReLU]
        if not as_built or not folding.folds(x, *self):
            return super().forward(x)  # type: ignore[no-any-return, no-untyped-call, unused-ignore]
        return torch.relu(self._folded(x, self.conv.weight, self.conv.bias))


def lenet5(channels: int, classes: int, height: int, width: int) -> nn.Sequential:
    """LeNet5 with ReLU and max-pooling: five stages, images (N,channels,32,32) in [0,1] to logits (N,classes).

    Source: LeCun, Bottou, Bengio and Haffner 1998, in the form of the report's Figure 1. The weights begin as
    `torch.nn` draws them.
    """
    return nn.Sequential(
        OrderedDict(
            c1=Pooled(channels, 6, 5),
            c2=Pooled(6, 16, 5),
            f3=nn.Sequential(OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(400, 120), relu=nn.ReLU())),
            f4=nn.Sequential(OrderedDict(linear=nn.Linear(120, 84), relu=nn.ReLU())),
            f5=nn.Sequential(OrderedDict(linear=nn.Linear(84, classes))),
        )
    )
