"""FAB: the nearest misclassified image, found by linearising the boundary to one other class."""

from __future__ import annotations

import functools

import torch
from torch import nn

from advmix_cli.attacks.common import distance, gradient, logits, objective
from advmix_cli.attacks.standing import Standing, first_won
from advmix_cli.graphs import Tensors
from advmix_cli.threats import Threat

_OVERSHOOT = 1.05
_BACKWARD = 0.9
_TOWARDS_ORIGINAL = 0.1
"""The paper's eta, beta and alpha_max."""


def running_sum(x: torch.Tensor) -> torch.Tensor:
    """Sums of the first entries of each row (N,D).

    On CUDA by doubling: `cumsum` there adds in no fixed order or, told to be deterministic, in the oldest torch that is
    supported, by a detour that takes D times the memory.
    """
    if x.device.type != "cuda":
        return x.cumsum(1)
    return by_doubling(x)


def by_doubling(x: torch.Tensor) -> torch.Tensor:
    """`running_sum` in log2 D additions of whole rows."""
    shift = 1
    while shift < x.shape[1]:
        x = torch.cat([x[:, :shift], x[:, shift:] + x[:, :-shift]], 1)
        shift *= 2
    return x


def project(x: torch.Tensor, normal: torch.Tensor, value: torch.Tensor, norm: str) -> torch.Tensor:
    """The nearest points in [0,1] where a linear function of x (N,D) is zero, or as near to zero as [0,1] allows.

    The function has the slope `normal` (N,D) and the value `value` (N,) at x. Each coordinate moves at its own speed
    (1 for linf, |normal| for l2) until it meets 0 or 1: the value falls piecewise linearly with the distance gone,
    and where it vanishes follows from one sort. Source: Croce and Hein 2020 (FAB), section 2.2.
    """
    away = torch.where(value[:, None] > 0, -normal, normal).sign()
    weight = normal.abs()
    speed = (weight > 0).to(x.dtype) if norm == "linf" else weight
    room = torch.where(away > 0, 1 - x, x)
    until = torch.where(speed > 0, room / speed.clamp(min=1e-30), torch.inf)
    ordered, order = until.sort(1)
    stopped = running_sum((weight * room).gather(1, order))  # gained by all that have met their end
    rate = (weight * speed).gather(1, order)
    moving = rate.sum(1, keepdim=True) - running_sum(rate)  # of those that go on
    finite = ordered.isfinite()
    gained = torch.where(finite, stopped + torch.where(finite, ordered, 0) * moving, torch.inf)
    wanted = value.abs()[:, None]
    k = (gained < wanted).sum(1, keepdim=True)  # so many meet their end before the function vanishes
    last = k.clamp(min=1) - 1
    stopped_then = torch.where(k > 0, stopped.gather(1, last), 0)
    moving_then = torch.where(k > 0, moving.gather(1, last), rate.sum(1, keepdim=True))
    gone = (wanted - stopped_then) / moving_then.clamp(min=1e-30)
    gone = torch.where(moving_then > 1e-30, gone, torch.inf)
    return (x + away * torch.minimum(speed * gone.clamp(max=1e30), room)).clamp_(0, 1)


def fab(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    *,
    noise: torch.Tensor | None = None,
    target: torch.Tensor | None = None,
    **_: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attacked images (N,C,H,W) and which have won (N,), for images x in [0,1], labels y and classes target (N,).

    Not bound to the ball: a sample is won when a misclassified point comes within eps of it; the others are
    given back as they were. The model must be frozen. Source: Croce and Hein 2020 (FAB), Algorithm 1, in its targeted
    form, as the standard ensemble runs it.
    """
    assert target is not None
    x_adv = x.clone() if noise is None else (x + noise * threat.eps / 2).clamp_(0, 1)
    standing, step = Standing(model, x_adv, x=x, y=y, target=target), functools.partial(_step, model, threat)
    for _number in standing.steps(threat.steps, "x"):
        standing.advance(("fab", threat.norm), step, eps=threat.eps)
    return standing.finish("x")


def _step(
    model: nn.Module,
    threat: Threat,
    *,
    x: torch.Tensor,
    y: torch.Tensor,
    target: torch.Tensor,
    x_adv: torch.Tensor,
    found: torch.Tensor,
    won: torch.Tensor,
    eps: float | torch.Tensor,
) -> Tensors:
    """Over the linearised boundary, with a bias to the original; and back towards it from a misclassified point."""
    slope, ahead, _ = gradient(model, x_adv, objective("cw", y, target))
    value, normal = -ahead, -slope.flatten(1)  # the right logit minus the target's, to be brought to zero
    here, there = x_adv.flatten(1), x.flatten(1)
    onto = project(here, normal, value, threat.norm)
    at_original = value + (normal * (there - here)).sum(1)
    from_original = project(there, normal, at_original, threat.norm)
    far = distance(onto, here, threat.norm).clamp(min=1e-8)
    far_original = distance(from_original, there, threat.norm).clamp(min=1e-8)
    share = (far / (far + far_original)).clamp(max=_TOWARDS_ORIGINAL)[:, None]
    stepped = here + _OVERSHOOT * (onto - here)
    stepped_original = there + _OVERSHOOT * (from_original - there)
    moved = ((1 - share) * stepped + share * stepped_original).clamp_(0, 1).view_as(x)
    with torch.no_grad():
        fooled = logits(model, moved).argmax(1) != y
    within = fooled & (distance(moved, x, threat.norm) <= eps)
    return {
        "x_adv": torch.where(fooled.view(-1, 1, 1, 1), x + _BACKWARD * (moved - x), moved),
        **first_won(within, moved, found, won),
    }
