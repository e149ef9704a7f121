"""The networks: what is built in (needs no torch), what any network is known by, and building one.

A model maps float images in [0,1], (N,C,H,W), to logits (N,classes); normalisation is inside. It knows nothing of
targets or mixing: mixing happens at the input of a stage, outside the model (`mixing`). What is built in is a file here
and one entry below; `building` makes those of timm, of torchvision and of a user's own file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import files
from advmix_cli.errors import DamagedError, NotFoundError, UsageError, known_name
from advmix_cli.names import short_arch
from advmix_cli.settings import Settings, require

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class ArchInfo:
    """What is known of an architecture without building it. `shape` is (C,H,W) as its source has it."""

    name: str
    title: str
    shape: Shape
    source: str  # module:function, called with (channels, classes, height, width), gives the nn.Sequential
    any_size: bool = True
    published: bool = False  # whether its sides are those that published weights are for
    normalized: bool = True  # whether the data's normalisation goes before it; else it has its own, or wants none
    draws: bool = False  # whether it has dropout
    version: int = 1  # grows when the same weights compute something else, or the same seed gives other weights
    aliases: tuple[tuple[str, str], ...] = ()  # foreign state-dict prefixes -> ours, for `advmix import`


ARCHITECTURES = {
    info.name: info
    for info in (
        ArchInfo(
            "lenet5",
            "LeNet5 (LeCun et al. 1998), 61,706 parameters",
            (1, 32, 32),
            "advmix_cli.models.lenet:lenet5",
            any_size=False,
            normalized=False,
            aliases=tuple(
                (f"{part}.{part}.{part}.", f"{part}.{'linear' if part[0] == 'f' else 'conv'}.")
                for part in ("c1", "c2", "f3", "f4", "f5")
            ),
        ),
        ArchInfo(
            "preactresnet18",
            "PreAct-ResNet18 (He et al. 2016) as the report uses it, 11,171,146 parameters",
            (3, 32, 32),
            "advmix_cli.models.preactresnet:preactresnet18",
            any_size=False,
            normalized=False,
        ),
        ArchInfo(
            "resnet18",
            "ResNet-18 for small images (He et al. 2016), 11,173,962 parameters",
            (3, 32, 32),
            "advmix_cli.models.resnet:resnet18",
        ),
        ArchInfo(
            "wrn-28-10",
            "WRN-28-10 (Zagoruyko and Komodakis 2016), 36,479,194 parameters",
            (3, 32, 32),
            "advmix_cli.models.wideresnet:wrn_28_10",
        ),
        ArchInfo(
            "smallcnn",
            "SmallCNN (Zhang et al. 2019, TRADES), 312,202 parameters",
            (1, 28, 28),
            "advmix_cli.models.smallcnn:smallcnn",
            draws=True,
            published=True,
            normalized=False,
        ),
        ArchInfo(
            "convsmall",
            "ConvSmall (Mirman et al. 2018), 89,606 parameters",
            (1, 28, 28),
            "advmix_cli.models.convsmall:convsmall",
            published=True,
        ),
        ArchInfo(
            "cnn7",
            "CNN7 of certified training, with batch norm, 17,192,650 parameters",
            (3, 32, 32),
            "advmix_cli.models.cnn7:cnn7",
        ),
    )
}  # fmt: skip

OTHERS = ("timm", "torchvision")
"""Prefixes of networks that come from elsewhere, beside FILE.py:FACTORY."""

_MOST_TEXT = 4000


def info(name: str) -> ArchInfo:
    """The entry of that name; UsageError, with the nearest, for an unknown one."""
    return ARCHITECTURES[known_name(name, ARCHITECTURES, "arch")]


@dataclasses.dataclass(frozen=True)
class Network(Settings):
    """Everything that says which function a set of weights is.

    `arch` is a name of `ARCHITECTURES`, `timm:NAME`, `torchvision:NAME` or `/PATH/FILE.py:FACTORY`, whose `code` is
    the SHA-256 of the file; `args` are KEY=VALUE. `mean` and `std`, a value a channel, are the normalisation before
    it: None for what it has of its own, () for none.
    """

    arch: str
    shape: Shape
    classes: int
    args: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    code: str = ""

    def __post_init__(self) -> None:
        kind = kind_of(self.arch)
        channels, height, width = self.shape
        require(0 < channels <= 64 and 0 < height <= 4096 and 0 < width <= 4096, "no images are of that shape", "")
        require(1 < self.classes <= 100_000, f"{self.classes} classes are none to tell apart", "")
        require(all("=" in each for each in self.args), "--arch-arg is KEY=VALUE", "for example --arch-arg width=2")
        require((kind == "file") == bool(self.code), f"{self.arch} does not go with its code", "")
        require((self.mean is None) == (self.std is None), "a normalisation has a mean and a std", "")
        mean, std = self.mean or (), self.std or ()
        require(
            len(mean) == len(std) and len(mean) in (0, channels) and all(each > 0 for each in std),
            f"a normalisation of {channels} channels has as many means and as many stds above 0",
            "for example --normalize 0.5:0.25, or none",
        )

    @property
    def label(self) -> str:
        """The readable part of names: of a file its factory."""
        return short_arch(self.arch)

    def identity(self) -> dict[str, Any]:
        """What tells it from others in keys; a file by what is in it, not by where it lies."""
        kind, known = kind_of(self.arch), ARCHITECTURES.get(self.arch)
        found: dict[str, Any] = {
            "arch": self.label if kind == "file" else self.arch,
            "version": known.version if known else 1,
        }
        if known and self == usual(self.arch):
            return found
        given = {name: getattr(self, name) for name in ("shape", "classes", "args", "mean", "std", "code")}
        return (
            found
            | {name: value for name, value in given.items() if value not in (None, "") and value != ()}
            | ({"normalize": "none"} if self.mean == () else {})
        )


def usual(arch: str) -> Network:
    """A built-in network as its source has it, for ten classes."""
    return Network(arch, info(arch).shape, 10)


def kind_of(arch: str) -> str:
    """`built-in`, `timm`, `torchvision` or `file`. Raises UsageError, with the nearest name, for none of these."""
    prefix, colon, name = arch.partition(":")
    if colon and prefix in OTHERS and name and len(arch) < _MOST_TEXT:
        return prefix
    path, colon, factory = arch.rpartition(":")
    if colon and path.endswith(".py") and factory.isidentifier() and len(arch) < _MOST_TEXT:
        return "file"
    if colon and arch.count(":") == 1 and prefix.endswith(".py"):
        raise UsageError(f"{arch}: {factory!r} is no name of a function or class", "write FILE.py:FACTORY")
    if arch.endswith(".py"):
        raise UsageError(f"{arch} names a file and no factory in it", f"write {arch}:FACTORY")
    known_name(arch, (*ARCHITECTURES, *(f"{each}:NAME" for each in OTHERS), "FILE.py:FACTORY"), "arch")
    return "built-in"


def named(arch: str) -> tuple[str, str]:
    """(arch, code): the full name of what was asked for, and for a file its SHA-256. Raises where there is none."""
    if kind_of(arch) != "file":
        return arch, ""
    path, _, factory = arch.rpartition(":")
    full = files.home(Path(path)).absolute()
    return f"{full}:{factory}", hashlib.sha256(_code(full)).hexdigest()


def _code(path: Path) -> bytes:
    if not path.exists():
        raise NotFoundError(f"there is no file {path}", "write --arch FILE.py:FACTORY")
    return files.read(path, 4 << 20)


def unchanged_code(network: Network) -> bytes:
    """The file of a network, the very one that it is known by. Raises NotFoundError or DamagedError."""
    path = Path(network.arch.rpartition(":")[0])
    try:
        code = _code(path)
    except NotFoundError:
        raise NotFoundError(
            f"the network's file {path} is gone", "put it back; its SHA-256 is " + network.code
        ) from None
    if hashlib.sha256(code).hexdigest() != network.code:
        raise DamagedError(
            f"the network's file {path} is not what it was when the checkpoint was made",
            f"bring that back (SHA-256 {network.code[:12]}...), or import the weights anew: advmix import",
            code="changed-code",
        )
    return code


_ONE_AT_A_TIME = threading.Lock()


@contextlib.contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """The global generators begin from `seed`, and are left as they were; one network is built at a time."""
    import random

    import numpy as np
    import torch

    # Layers draw from the global generators: two threads that build at once would take each other's numbers.
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        ours, numpys = random.getstate(), np.random.get_state()
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(numpys)


def build(network: Network | str, seed: int = 0) -> nn.Module:
    """A fresh model on the CPU in eval mode, its parameters drawn from `seed`; global generators are left alone.

    A name alone is a built-in network as its source has it. Convolutions compute channels-last, which is up to twice as
    fast, on CPUs too; images may come in either layout. Raises UsageError where no network of that kind comes of it.
    """
    import torch

    from advmix_cli.models import building

    if isinstance(network, str):
        network = usual(network)
    with _drawn_from(seed):
        model = building.module(network)
    return model.to(memory_format=torch.channels_last).eval()


def draws(network: Network) -> bool:
    """Whether training it may draw from the global generator, as dropout does: such runs are not trained in threads."""
    return network.arch not in ARCHITECTURES or ARCHITECTURES[network.arch].draws


def check_fit(network: Network, dataset: str) -> None:
    """Raise UsageError when a built-in architecture does not take images of the network's shape."""
    entry = ARCHITECTURES.get(network.arch)
    if entry is None or entry.any_size or network.shape[1:] == entry.shape[1:]:
        return
    fitting = [name for name, other in ARCHITECTURES.items() if other.any_size]
    raise UsageError(
        f"{entry.name} takes images of {entry.shape[1]}x{entry.shape[2]}, {dataset} has "
        f"{network.shape[1]}x{network.shape[2]}",
        f"use --image-size {entry.shape[1]}, or --arch {' or '.join(fitting)}",
    )
