"""MALT: which wrong classes a targeted attack should try first, where there are too many to try all."""

from __future__ import annotations

import torch
from torch import nn

from advmix_cli.attacks.common import gradient, likeliest, objective


def nearest(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, said: torch.Tensor, norm: str, most: int
) -> torch.Tensor:
    """Wrong classes (N,K), the nearest first, of images x (N,C,H,W) in [0,1] with labels y (N,) and logits `said`.

    Of the K likeliest, at most `most`, each is as far as a linear network of the same slope would have it, for Linf:

        distance = (z[y] - z[target]) / grad(z[y] - z[target], x).abs().sum()

    and in L2 the length of that gradient. It takes a gradient for each of the K. Source: Melamed, Yehudai and Shamir,
    "MALT Powers Up Adversarial Attacks", NeurIPS 2024.
    """
    candidates = likeliest(said, y)[:, : min(most, said.shape[1] - 1)]
    distances = []
    for target in candidates.T:
        slope, gap, _ = gradient(model, x, objective("cw", y, target))
        length = slope.flatten(1).norm(1 if norm == "linf" else 2, dim=1)
        distances.append(-gap / length.clamp(min=1e-12))
    return candidates.gather(1, torch.stack(distances, 1).argsort(dim=1, stable=True))
