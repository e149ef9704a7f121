"""Convolutions of few channels, with stride 2 or pooled, in the form in which a CPU computes them and their gradients.

What is pooled over 2x2 windows is four convolutions with stride 2, by shifted kernels, and the largest of the four. One
with stride 2 sees each 2x2 neighbourhood of an image as channels of one place (`pixel_unshuffle`), and channels are
what vector units want: so its gradients are computed there. That of an image of few channels is a convolution by the
flipped kernel, which gives sixteen of its values at a time. The sums are the same, in another order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.nn.grad import conv2d_weight

Tensor = torch.Tensor

_FEW = 3
"""Up to so many channels, the gradient of the images is worth a kernel of its own."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def folds(x: Tensor, *within: nn.Module) -> bool:
    """Whether images (N,C,H,W) are computed in that form: on a CPU, with nobody listening to the modules within."""
    return (
        type(x) is Tensor  # none that writes down what is called, as for bounds and exports
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()  # `vmap` and its like know no functions of our own
        and forward_ad._current_level < 0  # and derivatives forwards neither
        and x.shape[-1] % 2 == x.shape[-2] % 2 == 0
        and not any(getattr(module, hooks) for module in within for hooks in _HOOKS)
    )


class Halved:
    """A convolution with stride 2 by a kernel of even sides: images (N,C,H,W), even sides, to (N,C',H',W').

    The kernels that come of its weights are made again where these have changed, or are to have a gradient.
    """

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What comes of the images, and in `kernel` of the weights (C',C,k,k) and the bias (C',)."""
        if torch.is_grad_enabled() and weight.requires_grad:
            kernel = self.kernel(_Laid.apply(weight))
            back = _back(kernel.detach()) if x.requires_grad else kernel
        else:
            kernel, back = self._made(weight)
        if not x.requires_grad and not kernel.requires_grad:
            return F.conv2d(x, kernel, bias, 2)
        found: Tensor = _Halved.apply(x, kernel, bias, back)
        return found

    def _made(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        kept = self._kept
        if kept is None or not torch.equal(kept[0], weight):
            with torch.inference_mode(False), torch.no_grad():  # what is kept may be part of a gradient later
                kernel = self.kernel(weight)
                self._kept = kept = (weight.clone(), kernel, _back(kernel))
        return kept[1:]

    def kernel(self, weight: Tensor) -> Tensor:
        """That of the convolution."""
        return weight


class Pooled(Halved):
    """A convolution by a kernel of odd sides, and the largest of its 2x2 windows: (N,C,H,W) to (N,C',H'/2,W'/2).

    H and W are even. The gradient goes to the first that is the largest, as in `max_pool2d`.
    """

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The largest values, without a ReLU."""
        return largest(self.windows(x, weight, bias))

    def windows(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The four values of each window, (N,4C',H'/2,W'/2), each a quarter of the channels apart."""
        return super().__call__(x, weight, None if bias is None else bias.repeat(4))

    def kernel(self, weight: Tensor) -> Tensor:
        """Four kernels, for the four values of a window."""
        return _moved(weight).flatten(0, 1)


def largest(x: Tensor) -> Tensor:
    """The largest of four values each a quarter of the channels apart, (N,4C,H,W) to (N,C,H,W)."""
    found: Tensor = _Largest.apply(x)
    return found


def _moved(kernel: Tensor) -> Tensor:
    """(O,I,k,k) to (4,O,I,k+1,k+1): as it is, one to the right, one down, and both."""
    return torch.stack([F.pad(kernel, (j, 1 - j, i, 1 - i)) for i in (0, 1) for j in (0, 1)])


def _back(kernel: Tensor) -> Tensor:
    """The kernel for the gradient of images: of neighbourhoods, or of few channels for sixteen values at a time."""
    seen = F.pixel_unshuffle(kernel, 2)
    if kernel.shape[1] > _FEW:
        return seen
    moved = _moved(seen.flip(2, 3).transpose(0, 1))
    moved = moved.view(2, 2, -1, 2, 2, *moved.shape[2:])  # (a,b, c,i,j, O,k,k): row 2a+i and column 2b+j of channel c
    return moved.permute(2, 0, 3, 1, 4, 5, 6, 7).flatten(0, 4)


class _Laid(torch.autograd.Function):
    """The same. Its gradient lies in memory as it does itself, as `DistributedDataParallel` wants it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.empty_like(x).copy_(slope)


class _Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None, back: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.back = back
        return F.conv2d(x, kernel, bias, 2)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        images, weights, biases, _ = ctx.needs_input_grad
        back = _back(kernel) if torch.is_grad_enabled() else ctx.back  # where a second derivative is wanted, with one
        return (
            _of_images(x, kernel, back, slope) if images else None,
            _of_weights(x, kernel, slope) if weights else None,
            slope.sum((0, 2, 3)) if biases else None,
            None,
        )


def _of_images(x: Tensor, kernel: Tensor, back: Tensor, slope: Tensor) -> Tensor:
    few = x.shape[1] <= _FEW
    if few and x.shape[-1] % 4 == x.shape[-2] % 4 == 0:
        return F.pixel_shuffle(F.conv2d(slope, back, stride=2, padding=kernel.shape[-1] // 2 - 1), 4)
    return F.pixel_shuffle(F.conv_transpose2d(slope, F.pixel_unshuffle(kernel, 2) if few else back), 2)


def _of_weights(x: Tensor, kernel: Tensor, slope: Tensor) -> Tensor:
    # Of one channel the library has no fast gradient; of two or three it has, which beats rearranging the images.
    few = 1 < x.shape[1] <= _FEW
    x, kernel = (x, kernel) if few else (F.pixel_unshuffle(x, 2), F.pixel_unshuffle(kernel, 2))
    found: Tensor = conv2d_weight(x, kernel.shape, slope, 2 if few else 1)  # type: ignore[no-untyped-call]
    return found if few else F.pixel_shuffle(found, 2)


class _Largest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        one, two, three, four = x.chunk(4, 1)
        best = torch.maximum(torch.maximum(one, two), torch.maximum(three, four))
        ctx.save_for_backward(x, best)
        return best

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        x, best = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return _first(x, best, slope.clone())
        with torch.no_grad():  # a second derivative is wanted: for it this is a constant factor
            first = _first(x, best, torch.ones_like(slope))
        return first * slope.repeat(1, 4, 1, 1)


def _first(x: Tensor, best: Tensor, left: Tensor) -> Tensor:
    """What is `left`, which is used up, at the first of the four that is the best; else 0."""
    found = torch.empty_like(x)
    for here, there in zip(x.chunk(4, 1), found.chunk(4, 1), strict=True):
        torch.eq(here, best, out=there)
        there.mul_(left)
        left.sub_(there)
    return found
