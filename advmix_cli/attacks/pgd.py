"""PGD and FGSM in pixel space, around the clean image; and PGD as the report's published code ran it."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import nn

from advmix_cli.attacks.common import Loss, gradient, lengths, objective
from advmix_cli.attacks.standing import Standing, first_won
from advmix_cli.graphs import Tensors
from advmix_cli.models.normalize import Normalize
from advmix_cli.threats import Threat

Number = float | torch.Tensor


@dataclasses.dataclass(frozen=True)
class Bounds:
    """eps and alpha, and the range of a pixel: numbers, or tensors (C,1,1) where channels differ."""

    eps: Number
    alpha: Number
    low: Number = 0.0
    high: Number = 1.0


def pgd(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    *,
    noise: torch.Tensor | None = None,
    target: torch.Tensor | None = None,
    places: int | None = None,
    **_: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Projected gradient ascent on the threat's loss, in the eps-ball around x and in [0,1]; with one step FGSM.

    Attacked images (N,C,H,W), and which of them a float32 iterate was seen to win (N,), none without early stop, for
    x in [0,1], y (N,), noise in the unit ball or None for a start at x, target (N,) or None for any wrong class. The
    loss is summed, so that a sample's gradient does not depend on its batch. The model must be frozen. But for the
    order of operations, for Linf:

        x_adv = (x + eps * noise).clamp(0, 1)
        for _ in range(steps):
            slope = grad(cross_entropy(model(x_adv), y, reduction="sum"), x_adv)
            x_adv = (x + (x_adv + alpha * slope.sign() - x).clamp(-eps, eps)).clamp(0, 1)

    Source: Madry et al. 2018 and, for FGSM, Goodfellow et al. 2015.
    """
    start = x.clone() if noise is None else (x + noise * threat.eps).clamp_(0, 1)
    return _climb(model, start, x, y, threat, Bounds(threat.eps, threat.step_size), target, places)


def pgd_as_run(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    *,
    noise: torch.Tensor | None = None,
    places: int | None = None,
    **_: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The attack that the report's published code ran; its numbers are only ever shown with its name, as-run.

    It starts at the clean image but projects into the ball around a jittered copy, so that an iterate can be up
    to 2 eps away from x. Where the model normalises its input, it works and clips to [0,1] in normalised units:
    there a pixel keeps to [mean, mean + std] of its channel, and eps and alpha count in std.
    """
    bounds = Bounds(threat.eps, threat.step_size)
    normalize = next((module for module in model.modules() if isinstance(module, Normalize)), None)
    if normalize is not None:
        std = normalize.std
        bounds = Bounds(threat.eps * std, threat.step_size * std, normalize.mean, normalize.mean + std)
    centre = x if noise is None else _clamp_(x + noise * bounds.eps, bounds.low, bounds.high)
    return _climb(model, x.clone(), centre, y, threat, bounds, None, places)


def _clamp_(x: torch.Tensor, low: Number, high: Number) -> torch.Tensor:
    return x.clamp_(low, high)  # type: ignore[arg-type]


def _climb(
    model: nn.Module,
    start: torch.Tensor,
    centre: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    bounds: Bounds,
    target: torch.Tensor | None,
    places: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """All steps from `start`, or with early stop as many as each sample needs to its first misclassified iterate."""
    taken = torch.zeros_like(y) if threat.early_stop else None
    standing = Standing(
        model, start, places=places if threat.early_stop else None, centre=centre, y=y, target=target, taken=taken
    )
    done = 0
    while len(standing):
        count = min(standing.stride, threat.steps - done) if standing.stride > 1 else 1
        key = ("pgd", count, threat.norm, threat.loss, threat.early_stop, threat.precision)
        standing.advance(key, functools.partial(_steps, model, threat, count), **vars(bounds))
        done += count
        if threat.early_stop:
            if threat.precision != "float32":
                standing.confirm()
            standing.settle(standing.rows["taken"] >= threat.steps)
        elif done == threat.steps:
            break
    return standing.finish()


def _steps(
    model: nn.Module,
    threat: Threat,
    count: int,
    *,
    x_adv: torch.Tensor,
    centre: torch.Tensor,
    y: torch.Tensor,
    target: torch.Tensor | None,
    taken: torch.Tensor | None,
    found: torch.Tensor,
    won: torch.Tensor,
    eps: Number,
    alpha: Number,
    low: Number,
    high: Number,
) -> Tensors:
    """`count` steps: the rows that they change."""
    loss, bounds, after = objective(threat.loss, y, target), Bounds(eps, alpha, low, high), {}
    for _ in range(count):
        moved, said = step(model, x_adv, centre, loss, threat, bounds)
        if taken is not None:
            after = first_won(said.argmax(1) != y, x_adv, found, won)
            found, won = after["found"], after["won"]
        x_adv = moved
    return {"x_adv": x_adv, **after} | ({} if taken is None else {"taken": taken + count})


def step(
    model: nn.Module, x_adv: torch.Tensor, centre: torch.Tensor, loss: Loss, threat: Threat, bounds: Bounds
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the next iterate, the logits at this one, which it leaves as it is), in foolbox's order of operations."""
    slope, _, said = gradient(model, x_adv, loss, threat.precision)
    if threat.norm == "linf":
        moved = slope.sign_().mul_(bounds.alpha).add_(x_adv).sub_(centre)
        moved = _clamp_(moved, -bounds.eps, bounds.eps)
    else:
        moved = slope.mul_(1 / lengths(slope)).mul_(bounds.alpha).add_(x_adv).sub_(centre)
        moved.mul_(lengths(moved).reciprocal().mul_(bounds.eps).clamp_(max=1))
    return _clamp_(moved.add_(centre), bounds.low, bounds.high), said
