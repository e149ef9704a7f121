"""The registry of architectures, which needs no torch. A new one is a file here and one entry below.

A model maps float images in [0,1], (N,C,H,W), to logits (N,classes). It is a plain `nn.Sequential` of stages;
normalisation, where a data set wants it, is the first layer of the first stage. Mixing happens at the input of
a stage, outside the model.
"""

from __future__ import annotations

import dataclasses
import importlib
import threading
from typing import TYPE_CHECKING, Any

from advmix_cli.errors import UsageError, known_name

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True)
class ArchInfo:
    """What is known of an architecture without building it."""

    name: str
    title: str
    shape: tuple[int, int, int]
    stages: int
    source: str  # module:function, called with nothing, gives the nn.Sequential
    version: int = 1  # grows when the same weights compute something else, or the same seed gives other weights
    aliases: tuple[tuple[str, str], ...] = ()  # foreign state-dict prefixes -> ours, for `advmix import`


ARCHITECTURES = {
    info.name: info
    for info in (
        ArchInfo(
            "lenet5",
            "LeNet5 (LeCun et al. 1998), 61,706 parameters",
            (1, 32, 32),
            5,
            "advmix_cli.models.lenet:lenet5",
            aliases=tuple(
                (f"{part}.{part}.{part}.", f"{part}.{'linear' if part[0] == 'f' else 'conv'}.")
                for part in ("c1", "c2", "f3", "f4", "f5")
            ),
        ),
        ArchInfo(
            "preactresnet18",
            "PreAct-ResNet18 (He et al. 2016) as the report uses it, 11,171,146 parameters",
            (3, 32, 32),
            5,
            "advmix_cli.models.preactresnet:preactresnet18",
        ),
    )
}  # fmt: skip


_ONE_AT_A_TIME = threading.Lock()


def info(name: str) -> ArchInfo:
    """The entry of that name; UsageError, with the nearest, for an unknown one."""
    return ARCHITECTURES[known_name(name, ARCHITECTURES, "arch")]


def identity(name: str) -> dict[str, Any]:
    """What an architecture is known by in keys."""
    return {"arch": name, "version": info(name).version}


def build(name: str, seed: int = 0) -> nn.Sequential:
    """A fresh model on the CPU in eval mode, its parameters drawn from `seed`; the global generator is left alone.

    Its convolutions compute channels-last, which is up to twice as fast, on CPUs too; images may come in either layout.
    """
    import torch

    module, _, function = info(name).source.partition(":")
    # torch's layers draw from the one global generator: two threads that build at once would take each other's numbers.
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Sequential = getattr(importlib.import_module(module), function)()
    return model.to(memory_format=torch.channels_last).eval()


def check_fit(arch: str, dataset: str, shape: tuple[int, int, int]) -> None:
    """Raise UsageError when the architecture does not take images of that shape."""
    entry = info(arch)
    if entry.shape != shape:
        fitting = [name for name, other in ARCHITECTURES.items() if other.shape == shape]
        raise UsageError(
            f"{arch} takes images of shape {entry.shape}, {dataset} has {shape}",
            f"for {dataset} use --arch {' or '.join(fitting)}" if fitting else "",
        )
