"""ResNet18 for small images."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from advmix_cli.models.sizes import check_size


class BasicBlock(nn.Module):
    """Convolution and batch norm, twice, beside a shortcut; ReLUs between and after the sum. Source: He et al. 2016."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N,inputs,H,W) to (N,outputs,H/stride,W/stride), rounded up."""
        beside = x if self.shortcut is None else self.shortcut(x)
        active = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(active)) + beside)


def _group(inputs: int, outputs: int, stride: int) -> list[BasicBlock]:
    return [BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)]


def resnet18(channels: int, classes: int, height: int, width: int) -> nn.Sequential:
    """ResNet18 for small images: five stages, (N,channels,H,W) in [0,1] to logits (N,classes), sides of 8 and more.

    Source: He, Zhang, Ren and Sun 2016 (deep residual learning), in the form that is usual for CIFAR-10: the stem is
    one 3x3 convolution, without the max-pool. 11,173,962 parameters for 3 channels and 10 classes. The stages: stem and
    group 1, group 2, group 3, group 4, pool and classifier. The weights begin as `torch.nn` draws them.
    """
    check_size("resnet18", 8, height, width)
    stem: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv2d(channels, 64, 3, padding=1, bias=False)),
        ("bn", nn.BatchNorm2d(64)),
        ("relu", nn.ReLU()),
    ]
    blocks = [(f"block{i}", block) for i, block in enumerate(_group(64, 64, 1), 1)]
    pool, linear = nn.AdaptiveAvgPool2d(1), nn.Linear(512, classes)
    return nn.Sequential(
        OrderedDict(
            group1=nn.Sequential(OrderedDict([*stem, *blocks])),
            group2=nn.Sequential(*_group(64, 128, 2)),
            group3=nn.Sequential(*_group(128, 256, 2)),
            group4=nn.Sequential(*_group(256, 512, 2)),
            head=nn.Sequential(OrderedDict(pool=pool, flatten=nn.Flatten(), linear=linear)),
        )
    )
