"""Interval bounds: forward through the network, lower and upper ends at a time. Source: Gowal et al. 2018 (IBP)."""

from __future__ import annotations

import dataclasses

import torch

from advmix_cli.bounds.layers import Affine, Interval, Tensor
from advmix_cli.bounds.trace import Traced


@dataclasses.dataclass(frozen=True)
class Ball:
    """The images in [0,1] within `eps` of x (B,C,H,W), in `norm`."""

    x: Tensor
    eps: float
    norm: str = "linf"

    @property
    def box(self) -> Interval:
        """The smallest box around it."""
        return (self.x - self.eps).clamp(0, 1), (self.x + self.eps).clamp(0, 1)


def forward(network: Traced, bounds: Interval) -> list[Interval]:
    """Bounds of the images and of what each layer gives, for images within `bounds`, (B,...) each."""
    values = [bounds]
    for layer in network.layers:
        values.append(layer.interval(*(values[place] for place in layer.inputs)))
    return values


def around(network: Traced, ball: Ball) -> list[Interval]:
    """The same for a ball. In L2 what is affine in the image is bounded by eps times the length of its rows, too."""
    if ball.norm == "linf":
        return forward(network, ball.box)
    values, clean = [ball.box], {0: ball.x}
    squares = {0: torch.ones_like(ball.x[:1])}  # of the rows of what only scales or moves the image
    for place, layer in enumerate(network.layers, 1):
        low, high = layer.interval(*(values[before] for before in layer.inputs))
        before = layer.inputs[0]
        if isinstance(layer, Affine) and before in squares and layer.squared is not None:
            rows = layer.squared(ball.x.dtype)(squares[before])
            middle, radius = layer.forward(clean[before]), ball.eps * rows.sqrt()
            low, high = low.maximum(middle - radius), high.minimum(middle + radius)
            if layer.apart:
                squares[place], clean[place] = rows, middle
        values.append((low, high))
    return values


def margins(network: Traced, values: list[Interval], y: Tensor) -> Tensor:
    """Lower bounds (B,classes) of logit y minus each logit, 0 at y itself, from `forward` or `around`.

    The last layer is taken together with the difference where it is fully connected, which is tighter:

        W, b = W[y] - W[j], b[y] - b[j]
        W @ middle - abs(W) @ radius + b
    """
    last = network.layers[-1]
    if isinstance(last, Affine) and last.weights is not None and last.weights[0].ndim == 2:
        weight, bias = last.weights
        low, high = values[last.inputs[0]]
        weight = weight.to(low.dtype)
        rows = weight[y][:, None] - weight[None]  # (B,classes,D)
        middle, radius = (low + high) / 2, (high - low) / 2
        found = (rows @ middle[:, :, None] - rows.abs() @ radius[:, :, None])[:, :, 0]
        return found if bias is None else found + (bias[y][:, None] - bias[None]).to(low.dtype)
    low, high = values[-1]
    found = low.gather(1, y[:, None]) - high
    return found.scatter(1, y[:, None], 0.0)
