"""Work repeated on a GPU: its kernels are recorded once, as a CUDA graph, and then launched together.

A small network's kernels run for less time than a CPU takes to launch them one by one.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import warnings
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn

from advmix_cli.passes import Passes, count, counted

Value = torch.Tensor | float | None
Tensors = dict[str, torch.Tensor]

_CALLS_BEFORE = 2
"""Calls that run as they are, so that the libraries have chosen their kernels when one is recorded."""

_MOST = 8
"""Recordings that are kept of one model's work, the latest used. They share their memory, see `_pool`."""

_ONE_AT_A_TIME = threading.Lock()


def records(device: torch.device) -> bool:
    """Whether work on that device is recorded."""
    return device.type == "cuda"


def recordable(model: nn.Module) -> bool:
    """Whether each forward pass is the same sequence of kernels: true of this package's models and torch's layers.

    A network of others may draw random numbers in Python or look at its values, which a recording would freeze.
    """
    ours = ("torch.nn.modules.", "advmix_cli.models")
    return all(
        type(module).__module__.startswith(ours) and not isinstance(module, nn.modules.dropout._DropoutNd)
        for module in model.modules()
    )


class Graphs:
    """Recordings of one model's work, by key and by the shapes of its inputs; the latest `_MOST` of each thread."""

    def __init__(self) -> None:
        self._kept: dict[int, collections.OrderedDict[Hashable, _Recording]] = {}

    def __call__(self, key: Hashable, function: Callable[..., Tensors], **inputs: Value) -> Tensors:
        """`function(**inputs)`; at least one input is a tensor, none is kept, and the results are the caller's.

        On a CUDA device floats reach the function as tensors () there, so that they may differ from call to call. The
        function must do the same for equal keys: it may change what it holds in place, but neither draw random
        numbers nor wait for the device.
        """
        device = next(value.device for value in inputs.values() if isinstance(value, torch.Tensor))
        if not records(device):
            return function(**inputs)
        shapes = tuple(
            (name, tuple(value.shape) if isinstance(value, torch.Tensor) else type(value))
            for name, value in inputs.items()
        )
        kept = self._kept.setdefault(threading.get_ident(), collections.OrderedDict())  # a thread has its own stream
        recording = kept.pop((key, shapes), None) or _Recording(inputs, device)
        kept[key, shapes] = recording
        if len(kept) > _MOST:
            kept.popitem(last=False)
        return {name: result.clone() for name, result in recording(function, inputs).items()}


_OF_MODELS: weakref.WeakKeyDictionary[nn.Module, tuple[Hashable, Graphs]] = weakref.WeakKeyDictionary()


def of(model: nn.Module, device: torch.device) -> Graphs | None:
    """The recordings of a model in eval mode while its weights stay where they are; None where nothing is recorded."""
    if not records(device) or model.training or not recordable(model):
        return None
    where = tuple(tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers()))
    kept = _OF_MODELS.get(model)
    if kept is None or kept[0] != where:
        kept = _OF_MODELS[model] = (where, Graphs())
    return kept[1]


class _Recording:
    """Buffers for the inputs, and what replays the kernels that read them."""

    def __init__(self, inputs: dict[str, Value], device: torch.device) -> None:
        self._buffers = {
            name: torch.empty_like(value)
            if isinstance(value, torch.Tensor)
            else None
            if value is None
            else torch.zeros((), device=device)
            for name, value in inputs.items()
        }
        self._device, self._calls = device, 0
        self._results: Tensors = {}
        self._replay: Callable[[], None] | None = None
        self._failed = False
        self._passes = Passes()

    def __call__(self, function: Callable[..., Tensors], inputs: dict[str, Value]) -> Tensors:
        for name, buffer in self._buffers.items():
            value = inputs[name]
            if isinstance(value, torch.Tensor):
                buffer.copy_(value)  # type: ignore[union-attr]
            elif value is not None:
                buffer.fill_(value)  # type: ignore[union-attr]
        self._calls += 1
        if self._replay is None and self._calls > _CALLS_BEFORE and not self._failed:
            try:
                with counted() as self._passes:  # Python runs now, and never again
                    self._results, self._replay = _record(lambda: function(**self._buffers), self._device)
            except RuntimeError as error:
                self._failed = True
                reason = str(error).partition("\n")[0]
                warnings.warn(f"no CUDA graph, each kernel is launched on its own: {reason}", stacklevel=3)
        if self._replay is None:
            return _aside(lambda: function(**self._buffers), self._device)
        self._replay()
        count(self._passes)
        return self._results


_OF_THREAD = threading.local()


def _stream(device: torch.device) -> torch.cuda.Stream:
    """This thread's stream for recording on the device: work runs there before, as gradients remember their stream."""
    streams = _OF_THREAD.__dict__.setdefault("streams", {})
    if device not in streams:
        streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return streams[device]  # type: ignore[no-any-return]


def _pool(device: torch.device) -> Any:
    """The memory that this thread's recordings on the device share.

    They are replayed one after the other and their results copied at once, so none reads what another has overwritten.
    """
    pools = _OF_THREAD.__dict__.setdefault("pools", {})
    if device not in pools:
        pools[device] = torch.cuda.graph_pool_handle()
    return pools[device]


def _aside(function: Callable[[], Tensors], device: torch.device) -> Tensors:
    stream, current = _stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        results = function()
    current.wait_stream(stream)
    return results


def _record(function: Callable[[], Tensors], device: torch.device) -> tuple[Tensors, Callable[[], None]]:
    """The results' buffers and what fills them; recording computes nothing.

    A capture that fails leaves this thread on the recording stream: whatever happens, it ends where it was, and a
    failed one's memory is not used again.
    """
    graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
    try:
        with (
            _ONE_AT_A_TIME,
            torch.cuda.graph(graph, pool=_pool(device), stream=_stream(device), capture_error_mode="thread_local"),
        ):
            results = function()
    except BaseException:
        pool = _OF_THREAD.pools.pop(device)
        with contextlib.suppress(AttributeError, RuntimeError):  # from torch 2.12 on it has ended already
            torch._C._cuda_endAllocateToPool(device.index or 0, pool)  # else later work would get the pool's memory
        raise
    finally:
        torch.cuda.set_stream(current)
    return results, graph.replay
