"""Square, and then PGD from where it ended: for the images that each alone leaves over where gradients are masked."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from advmix_cli.attacks.pgd import pgd
from advmix_cli.attacks.square import square
from advmix_cli.threats import Threat

_ALPHA = 1 / 30


def square_pgd(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, *, index: torch.Tensor, seed: int, **_: object
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attacked images (N,C,H,W) and which have won (N,), for images x in [0,1] and labels y (N,), of samples index.

    `queries` of Square, its schedule in proportion to them, and then `steps` of PGD of eps / 30. The random search goes
    around what hides the gradients, and near the boundary they point the way again. Both climb the margin. It is this
    project's own; docs/evaluation.md has what it takes beyond the standard ensemble.
    """
    near, won = square(model, x, y, threat, index=index, seed=seed + 1000, rescaled=True)  # others than Square's own
    climb = dataclasses.replace(threat, attack="pgd", alpha=threat.eps * _ALPHA or None)
    left = (~won).nonzero().squeeze(1)
    if len(left):
        noise = (near[left] - x[left]) / max(threat.eps, 1e-12)
        near[left], won[left] = pgd(model, x[left], y[left], climb, noise=noise)
    return near, won
