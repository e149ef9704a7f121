"""SmallCNN, the network of TRADES for small grey images."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from advmix_cli.models.sizes import check_size


def smallcnn(channels: int, classes: int, height: int, width: int) -> nn.Sequential:
    """SmallCNN: seven stages, (N,channels,H,W) in [0,1] to logits (N,classes), sides of 16 and more.

    Source: Zhang et al. 2019 (TRADES). Four 3x3 convolutions without padding, 2x2 max-pooling after the second and
    fourth, three linear layers, dropout of 0.5 after the first. 312,202 parameters for (1,28,28) and 10 classes. The
    weights begin as in the authors' code: convolutions Kaiming-normal with biases 0, the last layer 0, so that at first
    all logits are 0, and their gradients too; the rest as `torch.nn` draws it. Pooling before the ReLU is the same
    function, gradients included, on a quarter of the values.
    """
    check_size("smallcnn", 16, height, width)
    flat = 64 * _side(height) * _side(width)
    drop = nn.Dropout(0.5)
    model = nn.Sequential(
        OrderedDict(
            c1=nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, 32, 3), relu=nn.ReLU())),
            c2=nn.Sequential(OrderedDict(conv=nn.Conv2d(32, 32, 3), pool=nn.MaxPool2d(2), relu=nn.ReLU())),
            c3=nn.Sequential(OrderedDict(conv=nn.Conv2d(32, 64, 3), relu=nn.ReLU())),
            c4=nn.Sequential(OrderedDict(conv=nn.Conv2d(64, 64, 3), pool=nn.MaxPool2d(2), relu=nn.ReLU())),
            f5=nn.Sequential(OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(flat, 200), relu=nn.ReLU(), drop=drop)),
            f6=nn.Sequential(OrderedDict(linear=nn.Linear(200, 200), relu=nn.ReLU())),
            f7=nn.Sequential(OrderedDict(linear=nn.Linear(200, classes))),
        )
    )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for parameter in model[-1].parameters():
        nn.init.zeros_(parameter)
    return model


def _side(side: int) -> int:
    """What two times two convolutions and a pool leave of a side."""
    for _ in range(2):
        side = (side - 4) // 2
    return side
