"""Auto-PGD: projected gradient ascent with momentum that chooses its own step sizes."""

from __future__ import annotations

import math

import torch
from torch import nn

from advmix_cli.attacks.common import Standing, gradient, into_ball, lengths, objective
from advmix_cli.config import Threat

_MOMENTUM = 0.75
_ENOUGH_INCREASES = 0.75


def checkpoints(steps: int) -> list[int]:
    """After which steps the step size is looked at. Source: Croce and Hein 2020, section 3.2."""
    shares, found = [0.0, 0.22], []
    while shares[-1] <= 1:
        found.append(math.ceil(round(shares[-1] * steps, 6)))
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return found


def apgd(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    noise: torch.Tensor | None = None,
    target: torch.Tensor | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """Attacked images (N,C,H,W) for images x in [0,1], labels y (N,); the model must be frozen.

    Each sample starts at the rim of the ball and climbs with momentum; its step size, 2 eps at first, is halved, and
    it goes back to its best point, where a stretch between two checkpoints brought too little. A misclassified
    iterate ends its run. target (N,) or None for any wrong class. Source: Croce and Hein 2020, Algorithm 1.
    """
    x_adv = x.clone() if noise is None else into_ball(x + _to_rim(noise, threat), x, threat)
    standing, look_after = Standing(x_adv), set(checkpoints(threat.steps))

    slope, losses, logits = gradient(model, x_adv, objective(threat.loss, y, target))
    standing.mark(logits.argmax(1) != y, x_adv)
    before, best, best_slope, best_loss = x_adv, x_adv, slope, losses
    size = torch.full((len(x), 1, 1, 1), 2 * threat.eps, device=x.device)
    increases = torch.zeros(len(x), device=x.device)
    loss_then, halved_then, since = best_loss, torch.ones(len(x), dtype=torch.bool, device=x.device), 0
    for step in range(1, threat.steps + 1):
        keep = standing.shrink(step - 1)
        if keep is not None:
            x, y, x_adv, before, best, best_slope, slope, size, best_loss, losses, increases, loss_then, halved_then = (
                kept[keep]
                for kept in (
                    x, y, x_adv, before, best, best_slope, slope, size, best_loss, losses, increases, loss_then,
                    halved_then,
                )
            )  # fmt: skip
            target = None if target is None else target[keep]
            if not len(x):
                break
        direction = slope.sign() if threat.norm == "linf" else slope / lengths(slope)
        ahead = into_ball(x_adv + size * direction, x, threat)
        if step > 1:
            ahead = into_ball(x_adv + _MOMENTUM * (ahead - x_adv) + (1 - _MOMENTUM) * (x_adv - before), x, threat)
        before, x_adv, previous = x_adv, ahead, losses
        slope, losses, logits = gradient(model, x_adv, objective(threat.loss, y, target))
        standing.mark(logits.argmax(1) != y, x_adv)
        increases += losses > previous
        better = losses > best_loss
        best_loss = torch.where(better, losses, best_loss)
        best = torch.where(better.view(-1, 1, 1, 1), x_adv, best)
        best_slope = torch.where(better.view(-1, 1, 1, 1), slope, best_slope)
        since += 1
        if step in look_after:
            stuck = ~halved_then & (best_loss <= loss_then)
            halve = (increases <= _ENOUGH_INCREASES * since) | stuck
            back = halve.view(-1, 1, 1, 1)
            size = torch.where(back, size / 2, size)
            x_adv, slope = torch.where(back, best, x_adv), torch.where(back, best_slope, slope)
            losses = torch.where(halve, best_loss, losses)
            loss_then, halved_then, since = best_loss, halve, 0
            increases = torch.zeros_like(increases)
    return standing.finish(best)


def _to_rim(noise: torch.Tensor, threat: Threat) -> torch.Tensor:
    """Noise of the unit ball, stretched to eps."""
    if threat.norm == "linf":
        return threat.eps * noise / noise.abs().amax((1, 2, 3), keepdim=True).clamp_(min=1e-12)
    return threat.eps * noise / lengths(noise)
