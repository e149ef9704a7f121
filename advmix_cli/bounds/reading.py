"""What each call of a network is as a layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_input

from advmix_cli.bounds.layers import Affine, Layer, Map, MaxPool, Rearranged, ReLU, Shape, Tensor


@dataclasses.dataclass(frozen=True)
class Call:
    """One call: its arguments, what of the trace it takes, and the shape of what it gives, without the batch."""

    args: Sequence[Any]
    given: dict[str, Any]
    value: Tensor
    place: int
    shape: Shape

    def argument(self, number: int, name: str, usual: Any = None) -> Any:
        """By place or by name."""
        return self.args[number] if number < len(self.args) else self.given.get(name, usual)

    @property
    def before(self) -> Shape:
        """The shape of what it takes, without the batch."""
        return tuple(self.value.shape[1:])

    def affine(
        self,
        linear: Callable[[torch.dtype, bool], Map],
        shift: Callable[[torch.dtype], Tensor | None] = lambda dtype: None,
        **more: Any,
    ) -> Affine:
        """An affine layer of this call."""
        return Affine((self.place,), self.shape, linear, shift, **more)

    def moved(self, move: Map, *, apart: bool = True) -> Affine:
        """A layer that only moves values."""
        return Rearranged(
            (self.place,), self.shape, lambda dtype, absolute: move, lambda dtype: None,
            squared=lambda dtype: move, apart=apart,
        )  # fmt: skip


def _convolution(call: Call) -> Layer | None:
    weight, bias = call.argument(1, "weight"), call.argument(2, "bias")
    options = (
        call.argument(3, "stride", 1), call.argument(4, "padding", 0), call.argument(5, "dilation", 1),
        call.argument(6, "groups", 1),
    )  # fmt: skip

    def linear(dtype: torch.dtype, absolute: bool) -> Map:
        matrix = weight.to(dtype).abs() if absolute else weight.to(dtype)
        return lambda x: F.conv2d(x, matrix, None, *options)

    def squared(dtype: torch.dtype) -> Map:
        matrix = weight.to(dtype).square()
        return lambda x: F.conv2d(x, matrix, None, *options)

    def transposed(dtype: torch.dtype) -> Callable[[Tensor, Shape], Tensor]:
        return lambda a, shape: conv2d_input(shape, weight.to(dtype), a, *options)  # type: ignore[no-untyped-call]

    return call.affine(
        linear,
        lambda d: None if bias is None else bias.to(d).view(-1, 1, 1),
        transposed=None if isinstance(options[1], str) else transposed,
        squared=squared,
        weights=(weight, bias) if options[-1] == 1 else None,
        plain=_plain(*options),
    )


def _plain(stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    return _pair(stride) == _pair(dilation) == (1, 1) and padding in ("valid", 0, (0, 0), [0, 0]) and groups == 1


def _linear(call: Call) -> Layer | None:
    weight, bias = call.argument(1, "weight"), call.argument(2, "bias")

    def linear(dtype: torch.dtype, absolute: bool) -> Map:
        matrix = weight.to(dtype).abs() if absolute else weight.to(dtype)
        return lambda x: F.linear(x, matrix)

    def squared(dtype: torch.dtype) -> Map:
        matrix = weight.to(dtype).square()
        return lambda x: F.linear(x, matrix)

    return call.affine(
        linear,
        lambda d: None if bias is None else bias.to(d),
        transposed=lambda dtype: lambda a, shape: a @ weight.to(dtype),
        squared=squared,
        weights=(weight, bias) if len(call.before) == 1 else None,
    )


def _scaled(
    call: Call, scale: Callable[[torch.dtype], Any], shift: Callable[[torch.dtype], Tensor | None] = lambda d: None
) -> Affine:
    """Each value times its own number, and shifted."""

    def linear(dtype: torch.dtype, absolute: bool) -> Map:
        by = scale(dtype)
        return (lambda x: x * abs(by)) if absolute else (lambda x: x * by)

    return call.affine(
        linear,
        shift,
        transposed=lambda dtype: lambda a, shape: a * scale(dtype),
        squared=lambda dtype: lambda x: x * scale(dtype) ** 2,
        apart=True,
    )


def _batch_norm(call: Call) -> Layer | None:
    mean, variance = call.argument(1, "running_mean"), call.argument(2, "running_var")
    weight, bias = call.argument(3, "weight"), call.argument(4, "bias")
    if call.argument(5, "training", False) or mean is None:
        return None
    tiny, each = call.argument(7, "eps", 1e-5), (-1,) + (1,) * (len(call.before) - 1)

    def scale(dtype: torch.dtype) -> Tensor:
        root = (variance.to(dtype) + tiny).rsqrt()
        by: Tensor = root if weight is None else weight.to(dtype) * root
        return by.view(each)

    def shift(dtype: torch.dtype) -> Tensor:
        begin: Tensor | float = 0.0 if bias is None else bias.to(dtype).view(each)
        moved: Tensor = begin - mean.to(dtype).view(each) * scale(dtype)
        return moved

    return _scaled(call, scale, shift)


def _arithmetic(change: Callable[[Any], tuple[Any, Any]]) -> Callable[[Call], Layer | None]:
    """Of x and a constant c: `change(c)` gives what x is multiplied with, and what is added."""

    def read(call: Call) -> Layer | None:
        first, other = call.args[0], call.argument(1, "other")
        constant = other if first is call.value else first
        if call.shape != call.before or not isinstance(constant, torch.Tensor | float | int):
            return None
        if isinstance(constant, torch.Tensor) and constant.ndim > len(call.before):
            if constant.shape[0] != 1:
                return None
            constant = constant[0]

        def of(dtype: torch.dtype) -> Any:
            return constant.to(dtype) if isinstance(constant, torch.Tensor) else constant

        def shift(dtype: torch.dtype) -> Tensor:
            added = change(of(dtype))[1]
            if isinstance(added, torch.Tensor):
                return added.to(dtype)
            return torch.full((), added, dtype=dtype, device=call.value.device)  # a copy could not be recorded

        return _scaled(call, lambda dtype: change(of(dtype))[0], shift)

    return read


def _subtracted(call: Call) -> Layer | None:
    if call.args[0] is call.value:
        return _arithmetic(lambda c: (1.0, -c))(call)
    return _arithmetic(lambda c: (-1.0, c))(call)


def _divided(call: Call) -> Layer | None:
    return _arithmetic(lambda c: (1.0 / c, 0.0))(call) if call.args[0] is call.value else None


def _pair(value: Any) -> tuple[int, int]:
    one, two = value if isinstance(value, tuple | list) else (value, value)
    return int(one), int(two)


def _max_pool(call: Call) -> Layer | None:
    kernel = _pair(call.argument(1, "kernel_size"))
    stride, padding = call.argument(2, "stride"), call.argument(3, "padding", 0)
    if call.argument(4, "dilation", 1) not in (1, (1, 1)) or call.argument(5, "ceil_mode", False):
        return None
    return MaxPool((call.place,), call.shape, kernel, _pair(stride or kernel), _pair(padding))


def _average(call: Call) -> Layer | None:
    args, given = tuple(call.args[1:]), dict(call.given)

    def linear(dtype: torch.dtype, absolute: bool) -> Map:
        return lambda x: F.avg_pool2d(x, *args, **given)

    return call.affine(linear)


def _adaptive_average(call: Call) -> Layer | None:
    size = call.argument(1, "output_size")
    return call.affine(lambda dtype, absolute: lambda x: F.adaptive_avg_pool2d(x, size))


def _mean(call: Call) -> Layer | None:
    over = call.argument(1, "dim")
    over = tuple(over) if isinstance(over, tuple | list) else (over,)
    if any(each is None or each % (1 + len(call.before)) == 0 for each in over):
        return None
    keep = call.argument(2, "keepdim", False)
    return call.affine(lambda dtype, absolute: lambda x: x.mean(over, keep))


def _reshaped(call: Call) -> Layer | None:
    shape = call.shape
    return call.moved(lambda x: x.reshape(len(x), *shape))


def _expanded(call: Call) -> Layer | None:
    shape = call.shape
    return call.moved(lambda x: x.expand(len(x), *shape), apart=False)


def _padded(call: Call) -> Layer | None:
    pad, value = call.argument(1, "pad"), call.argument(3, "value")
    if call.argument(2, "mode", "constant") != "constant" or value:
        return None
    return call.moved(lambda x: F.pad(x, pad))


def _relu(call: Call) -> Layer | None:
    return ReLU((call.place,), call.shape)


READERS: dict[str, Callable[[Call], Layer | None]] = {
    "conv2d": _convolution, "linear": _linear, "batch_norm": _batch_norm, "relu": _relu, "relu_": _relu,
    "max_pool2d": _max_pool, "_max_pool2d": _max_pool, "avg_pool2d": _average,
    "adaptive_avg_pool2d": _adaptive_average, "mean": _mean, "pad": _padded, "expand": _expanded,
    "flatten": _reshaped, "view": _reshaped, "reshape": _reshaped, "squeeze": _reshaped, "unsqueeze": _reshaped,
    "sub": _subtracted, "__sub__": _subtracted, "__rsub__": _subtracted, "rsub": _subtracted,
    "div": _divided, "__truediv__": _divided, "true_divide": _divided,
    **dict.fromkeys(("add", "__add__", "__radd__"), _arithmetic(lambda c: (1.0, c))),
    **dict.fromkeys(("mul", "__mul__", "__rmul__"), _arithmetic(lambda c: (c, 0.0))),
}  # fmt: skip

SAME = ("dropout", "contiguous", "clone", "to", "float", "identity", "dropout2d", "feature_dropout")
"""What gives what it takes, in eval mode."""
