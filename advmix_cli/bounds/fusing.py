"""Convolutions whose 2x2 windows are pooled, bounded in one step, where a CPU learns by them."""

from __future__ import annotations

import dataclasses

from advmix_cli.bounds.layers import Affine, Interval, Layer, MaxPool, Rearranged, Shape
from advmix_cli.bounds.trace import Traced
from advmix_cli.models import folding


@dataclasses.dataclass
class Pooled(Layer):
    """A convolution by a kernel of odd sides and the largest of its 2x2 windows, as one layer."""

    inputs: tuple[int, ...]
    shape: Shape
    convolution: Affine
    pool: MaxPool

    def __post_init__(self) -> None:
        self._middle, self._radius = folding.Pooled(), folding.Pooled()

    def interval(self, *bounds: Interval) -> Interval:
        """Bounds of the windows' largest."""
        ((low, high),) = bounds
        kernel = self.convolution.kernel
        if kernel is None or not folding.folds(low):
            return self.pool.interval(self.convolution.interval(*bounds))
        weight, bias = kernel
        middle = self._middle.windows((low + high) / 2, weight, bias)
        radius = self._radius.windows((high - low) / 2, weight.abs(), None)
        return folding.largest(middle - radius), folding.largest(middle + radius)


def fused(network: Traced) -> Traced:
    """The same network, for its intervals: at the place of such a convolution stands what it takes."""
    layers = list(network.layers)
    for place, (one, pool) in enumerate(zip(network.layers, network.layers[1:], strict=False), 1):
        if (
            isinstance(one, Affine)
            and isinstance(pool, MaxPool)
            and one.kernel is not None
            and one.kernel[0].shape[2] == one.kernel[0].shape[3]
            and one.kernel[0].shape[3] % 2 == 1
            and (pool.kernel, pool.stride, pool.padding) == ((2, 2), (2, 2), (0, 0))
            and pool.inputs == (place,)
            and [place in layer.inputs for layer in network.layers].count(True) == 1
        ):
            layers[place - 1] = Rearranged(
                one.inputs, network.before(one.inputs[0]), lambda dtype, absolute: lambda x: x, lambda dtype: None
            )
            layers[place] = Pooled((place,), pool.shape, one, pool)
    return Traced(network.shape, tuple(layers))
