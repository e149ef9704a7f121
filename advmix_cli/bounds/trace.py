"""Reading a network as layers: it is run once on a blank image, and what it calls is written down.

So it does not matter how a network is put together; only what it computes with. A call that has no bound is an error
that names it and the module that it is in.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from advmix_cli.bounds.layers import Layer, Shape, Sum, Tensor
from advmix_cli.bounds.reading import READERS, SAME, Call
from advmix_cli.errors import UsageError

_IMAGES = 7
"""Blank images in the trace: what keeps this number in its first place keeps the batch."""

_PLAIN = (int, torch.Size, torch.dtype, torch.device, torch.layout, torch.memory_format, type(None))
"""What a network may ask of a tensor without looking at its values."""


@dataclasses.dataclass(frozen=True)
class Traced:
    """A network as layers, in order; the last gives the logits. The image is 0, the first layer 1."""

    shape: Shape
    layers: tuple[Layer, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """The logits (B,classes) of images (B,C,H,W), in their precision."""
        return self.values(x)[-1]

    def values(self, x: Tensor) -> list[Tensor]:
        """The images (B,C,H,W) and what each layer makes of them, (B,...) each."""
        values = [x]
        for layer in self.layers:
            values.append(layer.forward(*(values[place] for place in layer.inputs)))
        return values

    def before(self, place: int) -> Shape:
        """The shape of what is at that place."""
        return self.layers[place - 1].shape if place else self.shape


def trace(model: nn.Module, shape: Sequence[int]) -> Traced:
    """Read a model that takes images of that shape (C,H,W), as it computes in eval mode.

    Raises UsageError, code `no-bound`, for what has no bound, and says which module it is.
    """
    blank = torch.zeros(_IMAGES, *shape).to(_first(model))
    tape = _Tape()
    modes = [(module, module.training) for module in model.modules()]
    with _paths(model, tape), torch.enable_grad():
        try:
            model.eval()
            said = model(tape.value(blank.requires_grad_(), 0))
        finally:
            for module, was in modes:
                module.training = was
    if not isinstance(said, _Value) or said.place != len(tape.layers) or said.ndim != 2:
        raise _no_bound("what it gives", "")
    network = Traced(tuple(shape), tuple(tape.layers))
    _check(model, network)
    return network


def _check(model: nn.Module, network: Traced) -> None:
    """Raise UsageError where what was read does not compute what the model does."""
    from advmix_cli.attacks import frozen

    x = torch.rand((4, *network.shape), generator=torch.Generator().manual_seed(0)).to(_first(model))
    with frozen(model), torch.no_grad():
        one, other = model(x), network(x)
    if not bool(((one - other).abs() <= 1e-4 * (1 + one.abs().max())).all()):
        raise _no_bound("a network that computes otherwise from image to image", "")


def _first(model: nn.Module) -> torch.Tensor:
    """A tensor of the device and type that a model computes with."""
    return next((each for each in model.parameters() if each.is_floating_point()), torch.zeros(()))


def _no_bound(what: str, path: str) -> UsageError:
    where = f" in {path}" if path else ""
    return UsageError(
        f"there is no bound for {what}{where}",
        "bounds know convolutions, linear layers, batch norm, ReLU, max- and average pooling, and sums",
        code="no-bound",
    )


@contextlib.contextmanager
def _paths(model: nn.Module, tape: _Tape) -> Iterator[None]:
    """Within, the tape knows which module is at work."""
    inside: list[str] = []

    def enter(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            inside.append(path)
            tape.path = path

        return hook

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        inside.pop()
        tape.path = inside[-1] if inside else ""

    handles = []
    for path, module in model.named_modules():
        handles += [module.register_forward_pre_hook(enter(path)), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Tape:
    """What was called so far."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.path = ""

    def value(self, plain: Tensor, place: int) -> _Value:
        """A tensor of the trace."""
        found = plain.as_subclass(_Value)
        found.tape, found.place = self, place
        return found

    def add(self, layer: Layer, plain: Tensor) -> _Value:
        """The next layer, and what it gives."""
        self.layers.append(layer)
        return self.value(plain, len(self.layers))


class _Value(torch.Tensor):
    """What flows through a network while it is traced: `place` is the layer that it comes from."""

    tape: _Tape
    place: int

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        values = [each for each in (*args, *given.values()) if isinstance(each, _Value)]
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **given)
        name, tape = getattr(func, "__name__", str(func)), values[0].tape if values else None
        if tape is None or isinstance(result, _PLAIN):
            return result
        if not isinstance(result, torch.Tensor):  # values that would leave the trace
            raise _no_bound(name, tape.path)
        first, plain = values[0], result.as_subclass(torch.Tensor)
        shape = tuple(plain.shape)
        if name in SAME and shape == tuple(first.shape):
            return tape.value(plain, first.place)
        if not shape or shape[0] != _IMAGES:
            raise _no_bound(name, tape.path)
        if name in ("add", "__add__", "add_", "__iadd__", "__radd__") and len(values) == 2:
            if values[0].shape != values[1].shape or given.get("alpha", 1) != 1:
                raise _no_bound("a sum of different shapes", tape.path)
            return tape.add(Sum((values[0].place, values[1].place), shape[1:]), plain)
        reader = READERS.get(name)
        if reader is None or len(values) != 1:
            raise _no_bound(name, tape.path)
        layer = reader(Call(args, given, first, first.place, shape[1:]))
        if layer is None:
            raise _no_bound(name, tape.path)
        return tape.add(layer, plain)
