"""Linear bounds: from the margins backward to the image. Source: Zhang et al. 2018 (CROWN)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from advmix_cli.bounds import intervals
from advmix_cli.bounds.intervals import Ball
from advmix_cli.bounds.layers import Affine, Interval, Layer, MaxPool, ReLU, Tensor
from advmix_cli.bounds.trace import Traced

SLOPES = ("zero", "adaptive", "parallel")
"""Those below a ReLU that crosses 0. With all of them zero, no linear bound in Linf is looser than intervals, which
take the least of each value by itself."""

_FUNCTIONS = 64
"""Functions that go backward at a time."""


def margins(
    network: Traced, ball: Ball, y: Tensor, *, intermediate: str = "crown", slopes: Sequence[str] = SLOPES
) -> Tensor:
    """Lower bounds (B,classes) of logit y minus each logit, 0 at y itself, for all images in the ball.

    A layer between is bounded by `intermediate`: `ibp`, intervals, or `crown`, linear bounds where these are
    tighter. All of `slopes` are tried, and each margin has the best.
    """
    given = intervals.around(network, ball)
    one = torch.eye(network.layers[-1].shape[0], dtype=ball.x.dtype, device=ball.x.device)
    differences = one[y][:, None] - one[None]  # (B,classes,classes)
    found = None
    for each in slopes:
        values = refined(network, ball, given, each) if intermediate == "crown" else given
        lower = _below(network, ball, values, differences, len(network.layers), each)
        found = lower if found is None else found.maximum(lower)
    assert found is not None
    return found.scatter(1, y[:, None], 0.0)


def cost(network: Traced) -> float:
    """About what linear bounds of an image take that go through all of a network, in forward passes."""
    bent = [layer.inputs[0] for layer in network.layers if isinstance(layer, ReLU | MaxPool)]
    return 2.0 * sum(math.prod(network.before(place)) for place in bent if _bends(network, place))


def refined(network: Traced, ball: Ball, given: list[Interval], slopes: str) -> list[Interval]:
    """Intervals of what goes into each ReLU and pool, tightened by linear bounds from what lies before them."""
    values = list(given)
    for layer in network.layers:
        if not isinstance(layer, ReLU | MaxPool):
            continue
        (place,) = layer.inputs
        if not place or not _bends(network, place):  # exact already
            continue
        low, high = values[place]
        shape = low.shape[1:]
        lower, upper = low.flatten(1).clone(), high.flatten(1).clone()
        crossing = ((lower < 0) & (upper > 0)).any(0) if isinstance(layer, ReLU) else torch.ones_like(lower[0]).bool()
        which = crossing.nonzero()[:, 0]
        for some in torch.split(which, _FUNCTIONS) if len(which) else ():
            rows = torch.zeros(len(some), lower.shape[1], dtype=low.dtype, device=low.device)
            rows[torch.arange(len(some), device=low.device), some] = 1
            both = torch.cat([rows, -rows]).view(1, 2 * len(some), *shape).expand(len(low), *(-1,) * (1 + len(shape)))
            ends = _below(network, ball, values, both, place, slopes)
            lower[:, some] = lower[:, some].maximum(ends[:, : len(some)])
            upper[:, some] = upper[:, some].minimum(-ends[:, len(some) :])
        values[place] = lower.view_as(low), upper.maximum(lower).view_as(high)
    return values


def _bends(network: Traced, place: int) -> bool:
    """Whether what is at that place is not affine in the image."""
    if not place:
        return False
    layer = network.layers[place - 1]
    return not isinstance(layer, Affine) or any(_bends(network, before) for before in layer.inputs)


def _below(network: Traced, ball: Ball, values: list[Interval], functions: Tensor, place: int, slopes: str) -> Tensor:
    """Lower bounds (B,S) of linear functions (B,S,...) of what is at `place`."""
    pending: dict[int, Tensor] = {place: functions}
    constant = functions.new_zeros(functions.shape[:2])
    for at in range(place, 0, -1):
        a = pending.pop(at, None)
        if a is None:
            continue
        layer: Layer = network.layers[at - 1]
        if isinstance(layer, Affine):
            behind, more = layer.behind(a, network.before(layer.inputs[0]))
            constant = constant + more
        elif isinstance(layer, ReLU | MaxPool):
            behind, more = layer.below(a, values[layer.inputs[0]], slopes)
            constant = constant + more
        else:
            behind = a
        for before in layer.inputs:
            pending[before] = pending[before] + behind if before in pending else behind
    return constant + _least(ball, pending[0]) if pending else constant


def _least(ball: Ball, a: Tensor) -> Tensor:
    """The least value (B,S) of linear functions a (B,S,C,H,W) in the ball."""
    low, high = (end[:, None] for end in ball.box)
    found = (a.clamp(min=0) * low + a.clamp(max=0) * high).flatten(2).sum(2)
    if ball.norm == "l2":
        within = (a * ball.x[:, None]).flatten(2).sum(2) - ball.eps * a.flatten(2).square().sum(2).sqrt()
        found = found.maximum(within)
    return found
