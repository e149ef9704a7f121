"""Which images and which network are meant, from what a command was asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advmix_cli import models
from advmix_cli.data import DATASETS, DatasetInfo
from advmix_cli.errors import UsageError
from advmix_cli.models import Network
from advmix_cli.names import full_name, parted
from advmix_cli.settings import fraction
from advmix_cli.workflows.session import Session


@dataclasses.dataclass(frozen=True)
class Asked:
    """What was said of images and network, None for what was not."""

    dataset: str | None = None
    image_size: int | None = None
    arch: str | None = None
    arch_arg: Sequence[str] = ()
    normalize: str | None = None

    def resolve(self, session: Session, usual: str = "glyphs") -> tuple[DatasetInfo, Network]:
        """The set and the network: of the size that was asked for, else the network's, else the data's."""
        info = session.dataset(self.dataset_name(usual))
        return info, self.network(info)

    def dataset_name(self, usual: str = "glyphs") -> str:
        """The full name of the set, its size in it where that is not its own."""
        dataset = self.dataset or usual
        name, entry = full_name(dataset, self.image_size), models.ARCHITECTURES.get(self.arch or "")
        base, size = parted(name)
        if size is None and entry is not None:
            known = DATASETS.get(base)
            as_published = known is not None and known.shape[0] == entry.shape[0] and entry.published
            another = known is None or known.shape[1:] != entry.shape[1:]
            if another and (as_published or not entry.any_size):
                name = f"{name}@{entry.shape[1]}"
        elif size is not None and base in DATASETS and DATASETS[base].shape[1:] == (size, size):
            name = base
        return name

    def network(self, info: DatasetInfo) -> Network:
        """The network for these images: what was asked for, else what suits them."""
        arch, code = models.named(self.arch or info.arch)
        entry = models.ARCHITECTURES.get(arch)
        mean, std = self._normalisation(info, entry, arch)
        return Network(arch, info.shape, len(info.classes), tuple(self.arch_arg), mean, std, code)

    def _normalisation(
        self, info: DatasetInfo, entry: models.ArchInfo | None, arch: str
    ) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
        """What was asked for, else the network's own (None), else the data's."""
        said = self.normalize
        if said is None:
            grey = not info.colour and models.kind_of(arch) == "timm"  # whose own is for colours
            return (info.mean, info.std) if (entry is not None and entry.normalized) or grey else (None, None)
        if said == "none":
            return (), ()
        if said == "data":
            return info.mean, info.std
        parts = said.split(":")
        try:
            mean, std = (tuple(fraction(each) for each in part.split(",")) for part in parts)
        except ValueError:
            raise UsageError(
                f"--normalize {said} is no mean and std",
                "write none, data, or MEAN:STD such as 0.49,0.48,0.45:0.25,0.24,0.26",
            ) from None
        repeat = info.shape[0] if len(mean) == len(std) == 1 else 1
        return mean * repeat, std * repeat

    def check_own(self, file: Path, record: dict[str, Any]) -> None:
        """Raise UsageError where a file of this project's is not what was asked for, or would run what is not."""
        of = {"dataset": self.dataset and full_name(self.dataset, self.image_size), "arch": self.arch}
        if self.arch is not None:
            of["arch"] = models.named(self.arch)[0]
        for option, value in of.items():
            if value not in (None, record[option]):
                raise UsageError(f"{file.name} has the {option} {record[option]}, not {value}", f"leave --{option} out")
        if models.kind_of(record["arch"]) == "file" and self.arch is None:
            raise UsageError(
                f"{file.name} is of a network that {record['arch'].rpartition(':')[0]} would have to be run for",
                f"name it: advmix import {file} --arch {record['arch']}",
                code="code",
            )
