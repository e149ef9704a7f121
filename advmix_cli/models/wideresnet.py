"""Wide residual networks for small images."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from advmix_cli.models.preactresnet import PreActBlock
from advmix_cli.models.sizes import check_size


def wrn_28_10(channels: int, classes: int, height: int, width: int) -> nn.Sequential:
    """WRN-28-10 without dropout: four stages, (N,channels,H,W) in [0,1] to logits (N,classes), sides of 8 and more.

    Source: Zagoruyko and Komodakis 2016. 36,479,194 parameters for 3 channels and 10 classes. The stages: stem and
    group 1, group 2, group 3, head: batch norm, ReLU, pool and classifier. Convolutions begin as in the authors' code,
    normal with variance 2/(9 outputs) or 2/outputs, the classifier's bias at 0; the rest as `torch.nn` draws it.
    """
    check_size("wrn_28_10", 8, height, width)
    return _wide_resnet(28, 10, channels, classes)


def _wide_resnet(depth: int, widen: int, channels: int, classes: int) -> nn.Sequential:
    """The network of `depth` layers, (depth-4)/6 blocks a group, with 16, 32 and 64 times `widen` channels."""
    blocks = (depth - 4) // 6
    stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
    groups = [
        _group(blocks, inputs, outputs * widen, stride)
        for inputs, outputs, stride in ((16, 16, 1), (16 * widen, 32, 2), (32 * widen, 64, 2))
    ]
    head: OrderedDict[str, nn.Module] = OrderedDict(
        bn=nn.BatchNorm2d(64 * widen),
        relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        linear=nn.Linear(64 * widen, classes),
    )
    first = OrderedDict([("conv", stem), *((f"block{i}", block) for i, block in enumerate(groups[0], 1))])
    model = nn.Sequential(
        OrderedDict(
            group1=nn.Sequential(first),
            group2=nn.Sequential(*groups[1]),
            group3=nn.Sequential(*groups[2]),
            head=nn.Sequential(head),
        )
    )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    return model


def _group(blocks: int, inputs: int, outputs: int, stride: int) -> list[PreActBlock]:
    return [PreActBlock(inputs, outputs, stride), *(PreActBlock(outputs, outputs, 1) for _ in range(blocks - 1))]
