"""Images that PGD has brought as far as it goes: a check looks at the way to them, and others' models at them."""

from __future__ import annotations

import torch
from torch import nn

from advmix_cli.attacks import attack_set
from advmix_cli.threats import Threat


def settled(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, norm: str, eps: float, seed: int, batch_size: int | None
) -> torch.Tensor:
    """Images (N,C,H,W), on the CPU, where PGD has come to after all its steps."""
    threat = Threat.of("pgd", norm, eps)
    found = attack_set(model, x, y, threat, seed=seed, images=True, batch_size=batch_size).x_adv
    assert found is not None
    return found
