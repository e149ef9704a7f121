"""LeNet5 for 32x32 images."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn


class Pool(nn.MaxPool2d):
    """Max-pooling of 2x2 windows of images (N,C,H,W) with even sides; (N,C,H/2,W/2).

    Where no gradient is wanted, on a CPU, as maxima of whole rows, then of columns: the same values, many times faster.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The largest value of each window."""
        if x.requires_grad or x.device.type != "cpu":
            return torch.nn.functional.max_pool2d(x, 2)
        rows = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
        return torch.maximum(rows[..., 0::2], rows[..., 1::2])


def lenet5(channels: int, classes: int, height: int, width: int) -> nn.Sequential:
    """LeNet5 with ReLU and max-pooling: five stages, images (N,channels,32,32) in [0,1] to logits (N,classes).

    Source: LeCun, Bottou, Bengio and Haffner 1998, in the form of the report's Figure 1. The weights begin as
    `torch.nn` draws them. Pooling before the ReLU is the same function, gradients included, on a quarter of the values.
    """
    return nn.Sequential(
        OrderedDict(
            c1=nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, 6, 5), pool=Pool(), relu=nn.ReLU())),
            c2=nn.Sequential(OrderedDict(conv=nn.Conv2d(6, 16, 5), pool=Pool(), relu=nn.ReLU())),
            f3=nn.Sequential(OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(400, 120), relu=nn.ReLU())),
            f4=nn.Sequential(OrderedDict(linear=nn.Linear(120, 84), relu=nn.ReLU())),
            f5=nn.Sequential(OrderedDict(linear=nn.Linear(84, classes))),
        )
    )
