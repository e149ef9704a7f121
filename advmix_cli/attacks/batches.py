"""How many images are computed at a time: the one place that decides it.

No result depends on it, but for rounding on a GPU: a sample's random numbers are its own (`draws`), and on a CPU its
logits are the same to the bit in whatever batch it is (`attacks.common.logits`).
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from advmix_cli.attacks.common import fewest, frozen, logits, to_float
from advmix_cli.data.pixels import Pixels
from advmix_cli.runtime import threads

CPU = 128
"""Images that one CPU thread computes with at a time: more gain nothing."""

_LEAST = 8
"""And as few as it is given, if there are more: fewer cost too much each."""

MEMORY = Path("/proc/meminfo")
"""Where Linux says what is free."""

_SHARE_OF_MEMORY = 4
_MOST = 4096
_MEASURED = 16


def on_cpu(model: nn.Module, n: int, asked: int | None, *, refilled: bool = False) -> int:
    """How many of n images a CPU thread is given at a time, at most as many as `asked` (None: what suits).

    An attack whose places are `refilled` is given more, of which it computes with as many as the others: so few batches
    cost less. Few images are divided among the threads, and none of the batches is much smaller than the others.
    """
    most = max(1, min(CPU, asked or n))
    most *= 4 if refilled and most == CPU else 1
    beside = threads() if refilled else 4
    parts = beside * -(-n // (beside * most))
    return min(most, max(_LEAST, fewest(model), -(-n // max(parts, 1))))


def suitable(model: nn.Module, x: Pixels, asked: int | None) -> int:
    """How many of the images x (N,C,H,W) to compute at a time: what was asked for, else what suits the device.

    On a GPU a power of two, and as many images as a quarter of its memory holds by the tensors that a gradient keeps:
    the same for the same model and GPU, whatever else runs there. On a CPU `CPU`, fewer where memory is short.
    """
    if asked is not None:
        return asked
    if x.device.type != "cuda":
        return min(CPU, fitting(free_memory() // _SHARE_OF_MEMORY, kept_bytes(model, x, 1)))
    total = torch.cuda.get_device_properties(x.device).total_memory
    return fitting(total // _SHARE_OF_MEMORY, kept_bytes(model, x))


def fitting(memory: int, each: int) -> int:
    """The power of two of images, `each` so many bytes, that `memory` holds; at least one, at most `_MOST`."""
    most = max(1, min(_MOST, memory // max(each, 1)))
    return 1 << (most.bit_length() - 1)


def free_memory() -> int:
    """Bytes that each of the threads beside each other may use; much, where the system is not Linux, which says it.

    What only caches files counts: that is most of the memory of a system that has been up for a while.
    """
    try:
        said = re.search(r"^MemAvailable: *(\d+) kB$", MEMORY.read_text(), re.MULTILINE)
    except OSError:
        said = None
    return (int(said[1]) << 10 if said else 1 << 40) // threads()


def kept_bytes(model: nn.Module, x: Pixels, measured: int = _MEASURED) -> int:
    """What the gradient of one image keeps in memory: what the forward pass saves, and as much on the way back."""
    few, seen = to_float(x[:measured]).clone().requires_grad_(True), dict[int, torch.UntypedStorage]()
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            seen[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor)
    with frozen(model), torch.enable_grad(), hooks:
        logits(model, few)
    there = max(len(few), fewest(model) if x.device.type == "cpu" else 1)  # as many it computes at the least
    return 2 * sum(storage.nbytes() for storage in seen.values()) // there
