"""The layers that bounds go through: what each does to an image, to an interval, and to a linear function behind it.

Layers hold the network's own parameters and read them at each call, so that what was traced once goes on while the
network learns. Shapes are of one image, without the batch; (B,...) is a batch, (B,S,...) are S functions of each image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F

Tensor = torch.Tensor
Shape = tuple[int, ...]
Interval = tuple[Tensor, Tensor]
"""Lower and upper ends."""

Map = Callable[[Tensor], Tensor]


class Layer:
    """One layer: `inputs` are the places of what it takes among the layers before, 0 the image."""

    inputs: tuple[int, ...]
    shape: Shape

    def forward(self, *x: Tensor) -> Tensor:
        """(B,...) to (B,...): what the network does."""
        raise NotImplementedError

    def interval(self, *bounds: Interval) -> Interval:
        """Bounds of what comes out for anything within the bounds that go in."""
        raise NotImplementedError


@dataclasses.dataclass
class Affine(Layer):
    """A x + b. `linear(dtype, absolute)` gives A, or |A|, as a function; `shift(dtype)` gives b, None for none.

    `transposed(dtype)` gives A transposed, as a function of that and of the shape (B,...) of what A takes; None: by
    automatic differentiation.
    """

    inputs: tuple[int, ...]
    shape: Shape
    linear: Callable[[torch.dtype, bool], Map]
    shift: Callable[[torch.dtype], Tensor | None]
    transposed: Callable[[torch.dtype], Callable[[Tensor, Shape], Tensor]] | None = None
    squared: Callable[[torch.dtype], Map] | None = None  # A with its entries squared, where that is at hand
    weights: tuple[Tensor, Tensor | None] | None = None  # of a fully connected one, or of a convolution not grouped
    plain: bool = False  # a convolution that is neither padded, strided nor grouped
    apart: bool = False  # whether each value that comes out is of one that goes in, and no two of the same

    def forward(self, *x: Tensor) -> Tensor:
        """A x + b."""
        (only,) = x
        return self._shifted(self.linear(only.dtype, False)(only))

    def _shifted(self, x: Tensor) -> Tensor:
        shift = self.shift(x.dtype)
        return x if shift is None else x + shift

    def interval(self, *bounds: Interval) -> Interval:
        """The middle through A, the radius through |A|. Source: Gowal et al. 2018."""
        ((low, high),) = bounds
        middle = self.forward((low + high) / 2)
        radius = self.linear(low.dtype, True)((high - low) / 2)
        return middle - radius, middle + radius

    def behind(self, a: Tensor, before: Shape) -> tuple[Tensor, Tensor]:
        """Functions a (B,S,*shape) of what comes out, as functions (B,S,*before) of what goes in, and constants."""
        flat = a.flatten(0, 1)
        if self.transposed is not None:
            back = self.transposed(a.dtype)(flat, (len(flat), *before))
        else:
            zeros = torch.zeros(len(flat), *before, dtype=a.dtype, device=a.device, requires_grad=True)
            with torch.enable_grad():
                (back,) = torch.autograd.grad(self.linear(a.dtype, False)(zeros), zeros, flat)
        shift = self.shift(a.dtype)
        constant = a.new_zeros(a.shape[:2]) if shift is None else (a * shift).flatten(2).sum(2)
        return back.view(*a.shape[:2], *before), constant


class Rearranged(Affine):
    """What moves values and computes nothing: both ends of an interval go the same way."""

    def interval(self, *bounds: Interval) -> Interval:
        """Both ends, moved."""
        ((low, high),) = bounds
        move = self.linear(low.dtype, False)
        return move(low), move(high)


@dataclasses.dataclass
class ReLU(Layer):
    """max(x, 0)."""

    inputs: tuple[int, ...]
    shape: Shape

    def forward(self, *x: Tensor) -> Tensor:
        """max(x, 0)."""
        return x[0].clamp(min=0)

    def interval(self, *bounds: Interval) -> Interval:
        """It is monotone."""
        ((low, high),) = bounds
        return low.clamp(min=0), high.clamp(min=0)

    def below(self, a: Tensor, bounds: Interval, slopes: str) -> tuple[Tensor, Tensor]:
        """A linear function and a constant below a (B,S,...) of what comes out, where the input is within `bounds`.

        Above, the line through both ends; below, a line through 0, whose slope is, by `slopes`: `zero`; `adaptive`, 1
        or 0, whichever leaves the smaller area; `parallel`, that of the line above. Source: Zhang et al. 2018 (CROWN).
        """
        low, high = bounds
        crossing = (low < 0) & (high > 0)
        slope = torch.where(crossing, high / (high - low).clamp(min=1e-300), (low >= 0).to(low.dtype))
        lower = slope
        if slopes != "parallel":
            lower = torch.where(crossing, (high >= -low).to(low.dtype) if slopes == "adaptive" else 0.0, slope)
        intercept = torch.where(crossing, -slope * low, torch.zeros_like(low))
        up, down = a.clamp(min=0), a.clamp(max=0)
        return up * lower[:, None] + down * slope[:, None], (down * intercept[:, None]).flatten(2).sum(2)


@dataclasses.dataclass
class MaxPool(Layer):
    """The largest of each window."""

    inputs: tuple[int, ...]
    shape: Shape
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def forward(self, *x: Tensor) -> Tensor:
        """(B,C,H,W) to (B,C,H',W')."""
        return F.max_pool2d(x[0], self.kernel, self.stride, self.padding)

    def interval(self, *bounds: Interval) -> Interval:
        """It is monotone."""
        ((low, high),) = bounds
        return self.forward(low), self.forward(high)

    def windows(self, x: Tensor) -> Tensor:
        """(B,C,H,W) to (B,C,K,H'W'), a window of K values for each that comes out."""
        rows, columns = self.padding
        padded = F.pad(x, (columns, columns, rows, rows), value=-torch.inf)
        found = padded.unfold(2, self.kernel[0], self.stride[0]).unfold(3, self.kernel[1], self.stride[1])
        return found.flatten(4).flatten(2, 3).transpose(2, 3)

    def below(self, a: Tensor, bounds: Interval, slopes: str) -> tuple[Tensor, Tensor]:
        """A linear function and a constant below a (B,S,C,H',W') of what comes out.

        Below the maximum lies the value whose lower end is highest; above it lie that value too, where no other can
        exceed it, else the highest upper end.
        """
        low, high = self.windows(bounds[0]), self.windows(bounds[1])
        best = low.argmax(2, keepdim=True)
        least = low.gather(2, best)
        others = high.scatter(2, best, -torch.inf).amax(2, keepdim=True)
        settled = (least >= others)[:, None, :, 0]  # (B,1,C,H'W')
        most = torch.where(settled, torch.zeros_like(settled, dtype=a.dtype), high.amax(2)[:, None])
        flat = a.flatten(3)  # (B,S,C,H'W')
        through = torch.where(settled, flat, flat.clamp(min=0))
        constant = ((flat - through) * most).flatten(2).sum(2)
        place = torch.zeros_like(low).scatter_(2, best, 1)  # (B,C,K,H'W')
        spread = through[:, :, :, None] * place[:, None]
        return self._gathered(spread, bounds[0].shape[1:]), constant

    def _gathered(self, windows: Tensor, shape: torch.Size) -> Tensor:
        """(B,S,C,K,H'W') added up where they came from: (B,S,*shape)."""
        batch, functions = windows.shape[:2]
        columns = windows.flatten(0, 1).flatten(1, 2)
        back = F.fold(columns, shape[1:], self.kernel, padding=self.padding, stride=self.stride)
        return back.view(batch, functions, *shape)


@dataclasses.dataclass
class Sum(Layer):
    """The sum of two."""

    inputs: tuple[int, ...]
    shape: Shape

    def forward(self, *x: Tensor) -> Tensor:
        """x + y."""
        return x[0] + x[1]

    def interval(self, *bounds: Interval) -> Interval:
        """Ends add up."""
        (low, high), (other_low, other_high) = bounds
        return low + other_low, high + other_high
