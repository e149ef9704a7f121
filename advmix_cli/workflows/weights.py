"""Weights of others: read without executing anything, and fitted to a network."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import artifacts, files, models
from advmix_cli.errors import AdvmixError, UnsafeError, UsageError
from advmix_cli.results import shown

if TYPE_CHECKING:
    import torch
    from torch import nn

_NESTED = ("state_dict", "model_state_dict", "model", "net", "weights")
_WRAPPERS = ("module.", "_orig_mod.", "model.", "network.")
NORMALISATION = "normalize"


@dataclasses.dataclass(frozen=True)
class Weights:
    """A file of others' weights that training begins from, known by the digest of the file."""

    file: Path
    network: models.Network
    sha256: str

    @classmethod
    def of(cls, file: Path, network: models.Network) -> Weights:
        """Those in the file. Raises NotFoundError where there is none."""
        file = files.home(file)
        return cls(file, network, hashlib.sha256(files.read(file)).hexdigest())

    def identity(self) -> dict[str, Any]:
        """What they are known by in keys."""
        return {"file": self.sha256, **self.network.identity()}

    def lineage(self) -> dict[str, Any]:
        """What is written down of them."""
        return {"file": shown(self.file.name), "sha256": self.sha256}

    def put_into(self, model: nn.Module, say: Callable[[str], None]) -> None:
        """Load them into a fresh model; a head for another number of classes stays fresh, which is said."""
        tensors = read(self.file, say)
        if not self.sha256 == hashlib.sha256(files.read(self.file)).hexdigest():
            raise AdvmixError(f"{self.file} was replaced while it was being used", "run the command again")
        weights, fresh = fitted(tensors, model, self.network, self.file, new_head=True)
        model.load_state_dict(weights)
        if fresh:
            say(f"{self.file.name} is for other classes: {', '.join(fresh)} begin afresh")


def read(file: Path, say: Callable[[str], None]) -> dict[str, torch.Tensor]:
    """The state dict in the file: the whole of it, or what lies under one of the usual names."""
    if file.suffix == ".safetensors":
        return artifacts.safetensors(file)
    archive = artifacts.read_archive(file)
    content = archive.value
    while isinstance(content, dict) and (inner := [name for name in _NESTED if isinstance(content.get(name), dict)]):
        if len(inner) > 1:
            raise UsageError(f"{file} holds several state dicts: {', '.join(inner)}", "save one of them, alone")
        content = content[inner[0]]
    found = content.items() if isinstance(content, dict) else ()
    tensors = {str(name): value for name, value in found if artifacts.is_tensor(value)}
    if not tensors and archive.foreign:
        raise UnsafeError(
            f"{file} holds no state dict but what would have to be executed: it would call "
            f"{', '.join(sorted(archive.foreign)[:4])}",
            "save model.state_dict() and import that",
        )
    if not tensors:
        raise UsageError(
            f"{file} holds no state dict but a {type(content).__name__}", "save model.state_dict() and import that"
        )
    if archive.foreign:
        say(f"left out, and not executed: {', '.join(sorted(archive.foreign))}")
    loaded: dict[str, torch.Tensor] = archive.loaded(tensors)
    return loaded


def fitted(
    tensors: dict[str, torch.Tensor], model: nn.Module, network: models.Network, file: Path, *, new_head: bool = False
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """`tensors` under the network's own names, wrappers' prefixes and the report's names mapped; and what stays fresh.

    `new_head`: what differs in the number of classes alone keeps the model's own values. Raises UsageError, naming the
    first misfits, where a weight is missing, too many, there twice, of another shape, or not finite as the network
    has it.
    """
    wanted, named, given = model.state_dict(), dict[str, Any](), dict[str, str]()
    for name, tensor in tensors.items():
        own = own_name(name, network, wanted)
        if own in named:
            raise UsageError(f"{file.name} has {given[own]} beside {name}, which are one", "save one of them, alone")
        named[own], given[own] = tensor, name
    # The normalisation is this project's own layer, and files of old versions of torch have not counted batches.
    usual = {name: each for name, each in wanted.items() if NORMALISATION in name or name.endswith("batches_tracked")}
    named = usual | named
    missing, surplus = sorted(wanted.keys() - named.keys()), sorted(named.keys() - wanted.keys())
    if missing or surplus:
        parts = [f"lacks {', '.join(missing[:3])}"] if missing else []
        parts += [f"has {', '.join(given[name] for name in surplus[:3])}"] if surplus else []
        raise _misfit(file, network, f"it {' and '.join(parts)}")
    fitting, fresh = {}, []
    for name, tensor in wanted.items():
        found = named[name]
        if found.shape != tensor.shape:
            if new_head and found.shape[1:] == tensor.shape[1:] and len(tensor) == network.classes:
                fitting[name] = tensor
                fresh.append(name)
                continue
            raise _misfit(file, network, f"{name} is {tuple(found.shape)}, not {tuple(tensor.shape)}")
        if tensor.is_floating_point() and not found.is_floating_point():
            raise UsageError(
                f"{file.name}: {name} holds whole numbers, where weights are wanted", "import what was trained"
            )
        fitting[name] = found.to(tensor.dtype).contiguous()
        if not bool(fitting[name].isfinite().all()):
            raise UsageError(
                f"{file.name}: {name} holds values that are not finite as {str(tensor.dtype).removeprefix('torch.')}",
                "import another epoch",
            )
    return fitting, fresh


def _misfit(file: Path, network: models.Network, what: str) -> UsageError:
    return UsageError(
        f"{file.name} does not fit {network.label}: {what}",
        "choose the --arch that it was saved from, and its --arch-arg",
    )


def own_name(name: str, network: models.Network, wanted: Collection[str]) -> str:
    """What the network calls the tensor that a file calls `name`."""
    while name not in wanted and any(name.startswith(wrapper) for wrapper in _WRAPPERS):
        name = name.partition(".")[2]
    entry = models.ARCHITECTURES.get(network.arch)
    for foreign, ours in entry.aliases if entry else ():
        if name.startswith(foreign):
            return ours + name.removeprefix(foreign)
    return name if name in wanted or f"network.{name}" not in wanted else f"network.{name}"
