"""Square, and then PGD from where it ended: for the images that each alone leaves over where gradients are masked."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from advmix_cli.attacks.pgd import pgd
from advmix_cli.attacks.square import square
from advmix_cli.config import Threat

_STEPS = 40
_ALPHA = 1 / 30


def refined(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    noise: torch.Tensor | None = None,
    target: torch.Tensor | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """Attacked images (N,C,H,W) for images x in [0,1] and labels y (N,): `steps` queries, then 40 steps of eps / 30.

    The random search goes around what hides the gradients, and near the boundary they point the way again. Both climb
    the margin. It is this project's own; docs/evaluation.md has what it takes beyond the standard ensemble.
    """
    near = square(model, x, y, threat, noise, None, seed + 1000)  # other squares than Square alone
    climb = dataclasses.replace(threat, attack="pgd", steps=_STEPS, alpha=threat.eps * _ALPHA or None)
    return pgd(model, x, y, climb, (near - x) / max(threat.eps, 1e-12))
