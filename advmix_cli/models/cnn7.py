"""CNN7, the usual network of certified training."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from advmix_cli.models.sizes import check_size


def cnn7(channels: int, classes: int, height: int, width: int) -> nn.Sequential:
    """CNN7: seven stages, (N,channels,H,W) in [0,1] to logits (N,classes), sides of 8 and more.

    Source: Shi et al. 2021, used by SABR and MTL-IBP. Five 3x3 convolutions with padding 1, the third with stride 2,
    and two linear layers, batch norm and ReLU after each but the last. 17,192,650 parameters for (3,32,32) and 10
    classes, 13,259,338 for (1,28,28). The weights begin as `torch.nn` draws them; certified training replaces them by
    its own, smaller ones. Because of the batch norm after a linear layer, batches in training have two images or more.
    """
    check_size("cnn7", 8, height, width)
    flat = 128 * ((height + 1) // 2) * ((width + 1) // 2)
    linear, bn = nn.Linear(flat, 512), nn.BatchNorm1d(512)
    return nn.Sequential(
        OrderedDict(
            c1=_conv(channels, 64),
            c2=_conv(64, 64),
            c3=_conv(64, 128, stride=2),
            c4=_conv(128, 128),
            c5=_conv(128, 128),
            f6=nn.Sequential(OrderedDict(flatten=nn.Flatten(), linear=linear, bn=bn, relu=nn.ReLU())),
            f7=nn.Sequential(OrderedDict(linear=nn.Linear(512, classes))),
        )
    )


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), relu=nn.ReLU()))
