"""Soft labels, mixup at the input of a stage, and losses against soft targets."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from advmix_cli.config import TrainSettings, check_sigma
from advmix_cli.runtime import generator, python_random


def soft_labels(y: torch.Tensor, classes: int, sigma: float = 0.0) -> torch.Tensor:
    """Labels (N,) as targets (N,classes): 1 - (classes-1) sigma for the right class, sigma for each other.

    With sigma 0 these are one-hot labels; with any sigma they are label smoothing of classes * sigma (the
    report's section 3.4.1). Raises UsageError when the right class would get no more than the others.
    """
    check_sigma(sigma, classes)
    targets = torch.full((len(y), classes), sigma, device=y.device)
    return targets.scatter_(1, y[:, None], 1 - (classes - 1) * sigma)


def mix(a: torch.Tensor, b: torch.Tensor, lam: float | torch.Tensor) -> torch.Tensor:
    """lam a + (1 - lam) b, exactly a or b at the ends. Source: Zhang et al. 2018 (mixup)."""
    return a * lam + b * (1 - lam)


@dataclasses.dataclass(frozen=True)
class Draw:
    """How one batch is mixed: at the input of `stage`, with its copy shuffled by `perm` (N,), in proportion `lam`."""

    lam: float | torch.Tensor
    stage: int
    perm: torch.Tensor


class Mixer:
    """Draws how the batches of one epoch are mixed: a lambda, a stage and a shuffle each. None without mixing."""

    def __init__(self, settings: TrainSettings, epoch: int, device: torch.device) -> None:
        self._settings = settings
        self._random = python_random(settings.seed, "mix", epoch)
        self._shuffle, self._device = generator("cpu", settings.seed, "shuffle", epoch), device

    def draw(self, n: int) -> Draw | None:
        """The next draw, for a batch of n: lambda ~ Beta(alpha, alpha), the stage uniform over `mix_stages`."""
        if self._settings.mix == "none":
            return None
        alpha = self._settings.mix_alpha
        return Draw(
            lam=self._random.betavariate(alpha, alpha),
            stage=self._random.choice(self._settings.mix_stages),
            perm=torch.randperm(n, generator=self._shuffle).to(self._device, non_blocking=True),
        )


def forward_mixed(
    model: nn.Sequential,
    x: torch.Tensor,
    targets: torch.Tensor,
    draw: Draw | None,
    partner: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N,classes) of the mixed batch and its mixed targets (N,classes).

    At stage 0 this is mixup of the images, at a later one manifold mixup (Verma et al. 2019); with no draw the
    plain forward pass. With a `partner`, a batch like x, the shuffled copy is the partner's instead of x's own and
    the mixing is at the input: partial PGD, where x is attacked and the partner clean.
    """
    if draw is None:
        return model(x), targets
    if partner is not None:
        return model(mix(x, partner[draw.perm], draw.lam)), mix(targets, targets[draw.perm], draw.lam)
    for stage, layer in enumerate(model):
        if stage == draw.stage:
            x = mix(x, x[draw.perm], draw.lam)
        x = layer(x)
    return x, mix(targets, targets[draw.perm], draw.lam)


def soft_loss(logits: torch.Tensor, targets: torch.Tensor, kind: str) -> torch.Tensor:
    """The mean loss in nats against soft targets (N,classes).

    `cross-entropy`, or `bce-softmax`: binary cross-entropy of the softmax output, mean over all entries, as the
    report's code has it.
    """
    if kind == "cross-entropy":
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy(logits.float().softmax(1), targets)
