"""FAB: the nearest misclassified image, found by linearising the boundary to one other class."""

from __future__ import annotations

import functools

import torch
from torch import nn

from advmix_cli import graphs
from advmix_cli.attacks.common import distance, gradient, logits, objective
from advmix_cli.attacks.standing import Standing, first_won
from advmix_cli.graphs import Tensors
from advmix_cli.threats import Threat

_OVERSHOOT = 1.05
_BACKWARD = 0.9
_TOWARDS_ORIGINAL = 0.1
"""The paper's eta, beta and alpha_max."""
_MOST = 20
"""Turns of Newton's method at the most: 6 in linf and 14 in l2 were seen. A GPU takes all, so as not to wait."""


def project(x: torch.Tensor, normal: torch.Tensor, value: torch.Tensor, norm: str) -> torch.Tensor:
    """The nearest points in [0,1] where a linear function of x (...,N,D) is zero, or as near to zero as [0,1] allows.

    The function has the slope `normal` (N,D) and the value `value` (...,N) at x. Each coordinate moves at its own speed
    (1 for linf, |normal| for l2) until it meets 0 or 1: the value falls piecewise linearly, ever slower, with the
    distance gone, so that Newton's method comes to where it vanishes from below. Source of the problem, which is solved
    there by sorting: Croce and Hein 2020 (FAB), section 2.2.
    """
    away = -normal.sign() * value.sign().unsqueeze(-1)
    room = (away.clamp(min=0) - x).abs_()  # to 1 or to 0
    weight = normal.abs()
    largest = weight.amax(-1, keepdim=True).clamp(min=1e-30)  # the squares of slopes below 1e-22 are none
    weight, wanted = weight / largest, value.abs().unsqueeze(-1) / largest
    until, rate = (room, weight) if norm == "linf" else (room / weight.clamp(min=1e-30), weight.square())
    gone, work, waits = torch.zeros_like(wanted), torch.empty_like(room), not graphs.records(x.device)
    for _ in range(_MOST):
        fallen = torch.minimum(until, gone, out=work).mul_(rate).sum(-1, keepdim=True)
        falls = torch.gt(until, gone, out=work).mul_(rate).sum(-1, keepdim=True)
        ahead = torch.where(falls > 0, (wanted - fallen) / falls, 0)
        further = ahead > 8 * torch.finfo(x.dtype).eps * gone  # else it stays, now and in all further turns
        if waits and not bool(further.any()):
            break
        gone = torch.where(further, gone + ahead, gone)
    return (x + away * torch.minimum(room, gone if norm == "linf" else gone.clamp(max=1e30) * weight)).clamp_(0, 1)


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
    at_original = value + (normal * (there - here)).sum(1)
    both, values = torch.stack([here, there]), torch.stack([value, at_original])
    onto, from_original = project(both, normal, values, threat.norm)
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
