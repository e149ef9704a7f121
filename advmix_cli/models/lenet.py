"""LeNet5 for 32x32 grey images."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def lenet5() -> nn.Sequential:
    """LeNet5 with ReLU and max-pooling: five stages, images (N,1,32,32) in [0,1] to logits (N,10).

    Source: LeCun, Bottou, Bengio and Haffner 1998, in the form of the report's Figure 1. The weights begin as
    `torch.nn` draws them. Pooling before the ReLU is the same function, gradients included, on a quarter of the values.
    """
    return nn.Sequential(
        OrderedDict(
            c1=nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 6, 5), pool=nn.MaxPool2d(2), relu=nn.ReLU())),
            c2=nn.Sequential(OrderedDict(conv=nn.Conv2d(6, 16, 5), pool=nn.MaxPool2d(2), relu=nn.ReLU())),
            f3=nn.Sequential(OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(400, 120), relu=nn.ReLU())),
            f4=nn.Sequential(OrderedDict(linear=nn.Linear(120, 84), relu=nn.ReLU())),
            f5=nn.Sequential(OrderedDict(linear=nn.Linear(84, 10))),
        )
    )
