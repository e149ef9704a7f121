"""Convolutions whose 2x2 windows are pooled, bounded in one step, where a CPU learns by them."""

from __future__ import annotations

import dataclasses
import itertools

from advmix_cli.bounds.layers import Affine, Interval, Layer, MaxPool, Rearranged, Shape, Tensor
from advmix_cli.bounds.trace import Traced
from advmix_cli.models import folding

_WINDOWS = (2, 2), (2, 2), (0, 0)
"""Side, stride and padding of a pool whose values come of windows of their own."""


@dataclasses.dataclass
class Pooled(Layer):
    """A convolution by a kernel of odd sides and the largest of its 2x2 windows, as one layer."""

    inputs: tuple[int, ...]
    shape: Shape
    convolution: Affine
    kernel: tuple[Tensor, Tensor | None]
    pool: MaxPool

    def __post_init__(self) -> None:
        self._middle, self._radius = folding.Pooled(), folding.Pooled()

    def interval(self, *bounds: Interval) -> Interval:
        """Bounds of the windows' largest."""
        ((low, high),) = bounds
        if not folding.folds(low):
            return self.pool.interval(self.convolution.interval(*bounds))
        weight, bias = self.kernel
        middle = self._middle.windows((low + high) / 2, weight, bias)
        radius = self._radius.windows((high - low) / 2, weight.abs(), None)
        return folding.largest(middle - radius), folding.largest(middle + radius)


def fused(network: Traced) -> Traced:
    """The same network, for its intervals: at the place of such a convolution stands what it takes."""
    layers = list(network.layers)
    for place, (one, pool) in enumerate(itertools.pairwise(network.layers), 1):
        if not isinstance(one, Affine) or not isinstance(pool, MaxPool) or not one.plain or one.weights is None:
            continue
        height, width = one.weights[0].shape[2:]
        windows = pool.kernel, pool.stride, pool.padding
        takers = [layer for layer in network.layers if place in layer.inputs]
        if height == width and width % 2 and windows == _WINDOWS and takers == [pool]:
            layers[place - 1] = Rearranged(
                one.inputs, network.before(one.inputs[0]), lambda dtype, absolute: lambda x: x, lambda dtype: None
            )
            layers[place] = Pooled((place,), pool.shape, one, one.weights, pool)
    return Traced(network.shape, tuple(layers))
