"""Which images a run learns from, and which it holds out: drawn from its seed."""

from __future__ import annotations

import dataclasses

import torch

from advmix_cli.config import TrainSettings
from advmix_cli.data import ImageSet
from advmix_cli.judging import HeldOut
from advmix_cli.runtime import generator


@dataclasses.dataclass(frozen=True)
class Splits:
    """`train` is learned from, `validation` (may be empty) chooses the epoch, `test` is only watched."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet


def _order(images: ImageSet, seed: int) -> torch.Tensor:
    return torch.randperm(len(images), generator=generator("cpu", seed, "split"))


def held_out(images: ImageSet, held: HeldOut) -> ImageSet:
    """What a run held out of its data set's training images."""
    images = images.first(held.limit)
    return images.take(_order(images, held.seed)[: held.count].sort().values)


def split(images: ImageSet, test: ImageSet, settings: TrainSettings) -> Splits:
    """Hold out `validation` of the first `limit` images, drawn from the seed; `per_class` limits the rest."""
    images = images.first(settings.limit)
    order = _order(images, settings.seed)
    held, rest = order[: settings.validation], order[settings.validation :]
    if settings.per_class is not None:
        labels = images.y[rest]
        kept = [rest[labels == c][: settings.per_class] for c in range(len(images.info.classes))]
        rest = torch.cat(kept)
    return Splits(images.take(rest.sort().values), images.take(held.sort().values), test.first(settings.limit))
