"""How a model does while it is trained, and how such figures are come to: of several ranks each judges a part."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from advmix_cli import world
from advmix_cli.attacks import attack_set
from advmix_cli.bounds import certify_set
from advmix_cli.config import TrainSettings
from advmix_cli.data import ImageSet
from advmix_cli.evaluation import Score, score
from advmix_cli.threats import Threat


def scored(model: nn.Module, images: ImageSet) -> Score:
    """On images as they are."""
    own, _ = _part(images)
    told = world.current().all(score(model, own.x, own.y))
    if len(told) == 1:
        return told[0]
    return Score(*(torch.cat([getattr(each, name) for each in told]) for name in ("correct", "losses", "confidence")))


def robust_accuracy(model: nn.Module, images: ImageSet, settings: TrainSettings, attack: str = "pgd") -> float:
    """The accuracy, in percent, of a model under the short attack with which adversarial training checks itself."""
    assert settings.adversary is not None
    judge = settings.adversary.judge
    threat = judge if attack == "pgd" else Threat.of(attack, judge.norm, judge.eps)

    def count(part: ImageSet, index: torch.Tensor) -> torch.Tensor:
        return attack_set(model, part.x, part.y, threat, seed=settings.seed, index=index).robust

    return _share(images, count)


def certified_accuracy(model: nn.Module, images: ImageSet, settings: TrainSettings) -> float:
    """The share of images, in percent, that intervals prove right within the threat's eps."""
    assert settings.adversary is not None
    eps = settings.adversary.threat.eps
    return _share(images, lambda part, index: certify_set(model, part.x, part.y, eps, bounds="ibp").right)


def _share(images: ImageSet, right: Callable[[ImageSet, torch.Tensor], torch.Tensor]) -> float:
    """The share of images, in percent, that are right: of those given, and their places. Each rank counts a part."""
    own, index = _part(images)
    mine = int(right(own, index).sum()) if len(own) else 0
    return 100 * sum(world.current().all(mine)) / len(images)


def _part(images: ImageSet) -> tuple[ImageSet, torch.Tensor]:
    """What of a set this rank judges, and which images these are."""
    part = world.current().range(len(images))
    index = torch.arange(part.start, part.stop)
    return (images.take(index) if world.current().joined else images), index
