"""Channels that are always off get no gradient and learn nothing more: they begin anew as copies of others, moved."""

from __future__ import annotations

import itertools

import torch

from advmix_cli import world
from advmix_cli.bounds.layers import Affine, MaxPool, Rearranged, ReLU, Tensor
from advmix_cli.bounds.trace import Traced
from advmix_cli.runtime import generator

DORMANT = 0.01
"""A channel is off whose mean is at most this share of what its layer's channels have in the mean."""

_BETWEEN = (ReLU, MaxPool, Rearranged)
_MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))


def recycle(network: Traced, x: Tensor, seed: int) -> int:
    """Let channels of convolutions that are off on images x (N,C,H,W) begin anew; how many did.

    Each gets the kernel of a channel that is on, moved by a pixel, and its bias; and nothing that comes of it goes on
    yet, so that the network computes what it did, and its bounds are what they were. Off is by the measure of Sokar et
    al. 2023 (ReDo), who draw new weights instead: of an image with a large ball around it these rarely make anything.
    A network is left alone in which values take several ways, or are scaled between two layers with weights.
    """
    if any(layer.inputs != (place,) for place, layer in enumerate(network.layers)):
        return 0
    random, anew = generator("cpu", seed, "recycle"), 0
    weighted = [
        (place, layer.weights) for place, layer in enumerate(network.layers)
        if isinstance(layer, Affine) and layer.weights is not None
    ]  # fmt: skip
    with torch.no_grad():
        values = network.values(x)
        for (here, weights), (there, (onward, _)) in itertools.pairwise(weighted):
            if all(isinstance(layer, _BETWEEN) for layer in network.layers[here + 1 : there]):
                anew += _between(weights, onward, values[there], random)
    return anew


def _between(weights: tuple[Tensor, Tensor | None], onward: Tensor, taken: Tensor, random: torch.Generator) -> int:
    """Of a layer with these weights, whose values the next one has as `taken` (N,...) and takes by `onward`."""
    weight, bias = weights
    channels = len(weight)
    if weight.ndim != 4 or max(weight.shape[2:]) == 1 or taken[0].numel() % channels or onward[0].numel() % channels:
        return 0
    inputs = onward if onward.ndim == 4 else onward.view(len(onward), channels, -1)
    mean = world.current().mean(taken.reshape(len(taken), channels, -1).mean((0, 2)))
    off = mean <= DORMANT * mean.mean()
    on, again = ((off == each).nonzero().flatten().tolist() for each in (False, True))
    for channel in again if on else ():
        like, move = (int(torch.randint(n, (1,), generator=random)) for n in (len(on), len(_MOVES)))
        weight[channel] = weight[on[like]].roll(_MOVES[move], (1, 2))
        if bias is not None:
            bias[channel] = bias[on[like]]
        inputs[:, channel] = 0
    return len(again) if on else 0
