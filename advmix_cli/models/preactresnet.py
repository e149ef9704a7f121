"""PreAct-ResNet18 for 32x32 colour images, with the normalisation of CIFAR-10 inside."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from advmix_cli.models.normalize import Normalize

_CIFAR10_MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)
_CIFAR10_STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)


class PreActBlock(nn.Module):
    """Batch norm, ReLU and convolution, twice, beside a shortcut. Source: He et al. 2016, identity mappings."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N,inputs,H,W) to (N,outputs,H/stride,W/stride)."""
        active = F.relu(self.bn1(x))
        beside = x if self.shortcut is None else self.shortcut(active)
        active = self.conv1(active)
        result: torch.Tensor = self.conv2(F.relu(self.bn2(active))) + beside
        return result


def _group(inputs: int, outputs: int, stride: int) -> list[PreActBlock]:
    return [PreActBlock(inputs, outputs, stride), PreActBlock(outputs, outputs, 1)]


def preactresnet18(channels: int, classes: int, height: int, width: int) -> nn.Sequential:
    """PreAct-ResNet18: five stages, images (N,channels,32,32) in [0,1] to logits (N,classes).

    As in the report's code, and unlike the usual definition, no batch norm and ReLU stand before the pool. The
    stages: stem and group 1, group 2, group 3, group 4, pool and classifier. Colours are normalised as CIFAR-10 is.
    """
    stem: list[tuple[str, nn.Module]] = [
        *([("normalize", Normalize(_CIFAR10_MEAN, _CIFAR10_STD))] if channels == 3 else []),
        ("conv", nn.Conv2d(channels, 64, 3, padding=1, bias=False)),
    ]
    blocks = [(f"block{i}", block) for i, block in enumerate(_group(64, 64, 1), 1)]
    return nn.Sequential(
        OrderedDict(
            group1=nn.Sequential(OrderedDict([*stem, *blocks])),
            group2=nn.Sequential(*_group(64, 128, 2)),
            group3=nn.Sequential(*_group(128, 256, 2)),
            group4=nn.Sequential(*_group(256, 512, 2)),
            head=nn.Sequential(OrderedDict(pool=nn.AvgPool2d(4), flatten=nn.Flatten(), linear=nn.Linear(512, classes))),
        )
    )
