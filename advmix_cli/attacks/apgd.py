"""Auto-PGD: projected gradient ascent with momentum that chooses its own step sizes."""

from __future__ import annotations

import functools

import torch
from torch import nn

from advmix_cli.attacks.common import divisors, gradient, into_ball, objective
from advmix_cli.attacks.standing import Standing, first_won
from advmix_cli.graphs import Tensors, Value
from advmix_cli.threats import Threat

_MOMENTUM = 0.75
_ENOUGH_INCREASES = 0.75


def checkpoints(steps: int) -> list[int]:
    """After which steps the step size is looked at: the first after 22 %, then ever 3 % sooner, but after 6 % at least.

    Source: Croce and Hein 2020, section 3.2, in whole steps as their code has it.
    """
    stretch, last, found = max(int(0.22 * steps), 1), 0, list[int]()
    while last + stretch <= steps:
        last += stretch
        found.append(last)
        stretch = max(stretch - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    return found


def apgd(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    *,
    noise: torch.Tensor | None = None,
    target: torch.Tensor | None = None,
    **_: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attacked images (N,C,H,W) and which have won (N,), for images x in [0,1], labels y (N,); the model is frozen.

    Each sample starts at the rim of the ball and climbs with momentum; its step size, 2 eps at first, is halved, and
    it goes back to its best point, where a stretch between two checkpoints brought too little. A misclassified
    iterate ends its run. target (N,) or None for any wrong class. Source: Croce and Hein 2020, Algorithm 1.

    As in the authors' code, the first comparison of a stretch that begins with the first step is with a loss of 0.
    """
    x_adv = x.clone() if noise is None else (x + threat.eps * _to_rim(noise, threat.norm)).clamp_(0, 1)
    slope, losses, said = gradient(model, x_adv, objective(threat.loss, y, target))
    n, like = len(x), losses
    standing = Standing(
        model, x_adv, x=x, y=y, target=target, before=x_adv, slope=slope, losses=torch.zeros_like(losses),
        best=x_adv, best_slope=slope, best_loss=losses, size=like.new_full((n, 1, 1, 1), 2 * threat.eps),
        increases=torch.zeros_like(like), loss_then=losses, halved=torch.ones(n, dtype=torch.bool, device=x.device),
        won=said.argmax(1) != y,
    )  # fmt: skip
    standing.settle(last="best")
    look_after, since = set(checkpoints(threat.steps)), 0
    step = functools.partial(_step, model, threat)
    for number in standing.steps(threat.steps, "best"):
        momentum = _MOMENTUM if number > 1 else 1.0
        standing.advance(("apgd", threat.norm, threat.loss), step, eps=threat.eps, momentum=momentum)
        since += 1
        if number in look_after:
            standing.rows |= _looked(standing.rows, since)
            since = 0
    return standing.finish("best")


def _step(
    model: nn.Module,
    threat: Threat,
    *,
    x: torch.Tensor,
    y: torch.Tensor,
    target: torch.Tensor | None,
    x_adv: torch.Tensor,
    before: torch.Tensor,
    slope: torch.Tensor,
    size: torch.Tensor,
    losses: torch.Tensor,
    increases: torch.Tensor,
    best: torch.Tensor,
    best_slope: torch.Tensor,
    best_loss: torch.Tensor,
    found: torch.Tensor,
    won: torch.Tensor,
    eps: float | torch.Tensor,
    momentum: float | torch.Tensor,
    **_: Value,
) -> Tensors:
    """One step of ascent with momentum, and what is remembered of it; the order of operations is the authors'."""
    direction = slope.sign() if threat.norm == "linf" else slope / divisors(slope)
    ahead = into_ball(x_adv + size * direction, x, eps, threat.norm)
    ahead = x_adv + (ahead - x_adv) * momentum + (x_adv - before) * (1 - momentum)
    ahead = into_ball(ahead, x, eps, threat.norm)
    slope, after, said = gradient(model, ahead, objective(threat.loss, y, target))
    better = after > best_loss
    wide = better.view(-1, 1, 1, 1)
    return {
        "x_adv": ahead,
        "before": x_adv,
        "slope": slope,
        "losses": after,
        "increases": increases + (after > losses),
        "best": torch.where(wide, ahead, best),
        "best_slope": torch.where(wide, slope, best_slope),
        "best_loss": torch.where(better, after, best_loss),
        **first_won(said.argmax(1) != y, ahead, found, won),
    }


def _looked(rows: Tensors, since: int) -> Tensors:
    """At a checkpoint: halve the step sizes of those that gained too little in `since` steps, and take them back."""
    stuck = ~rows["halved"] & (rows["loss_then"] >= rows["best_loss"])
    halve = (rows["increases"] <= _ENOUGH_INCREASES * since) | stuck
    back = halve.view(-1, 1, 1, 1)
    return {
        "size": torch.where(back, rows["size"] / 2, rows["size"]),
        "x_adv": torch.where(back, rows["best"], rows["x_adv"]),
        "slope": torch.where(back, rows["best_slope"], rows["slope"]),
        "halved": halve,
        "loss_then": rows["best_loss"],
        "increases": torch.zeros_like(rows["increases"]),
    }


def _to_rim(noise: torch.Tensor, norm: str) -> torch.Tensor:
    """Noise of the unit ball, stretched to its surface."""
    return noise / (noise.flatten(1).abs().amax(1).view(-1, 1, 1, 1) + 1e-12 if norm == "linf" else divisors(noise))
