"""The probability margin attack: projected gradient ascent on the margin of probabilities, one term of it first."""

from __future__ import annotations

import functools
import math

import torch
from torch import nn

from advmix_cli import draws
from advmix_cli.attacks.common import Loss, divisors, gradient, into_ball
from advmix_cli.attacks.standing import Standing, first_won
from advmix_cli.graphs import Tensors, Value
from advmix_cli.threats import Threat

_PASSES = ("right", "wrong")
"""The term that each pass climbs alone in its first half."""


def probability_margin(y: torch.Tensor, term: str) -> Loss:
    """To maximise: the highest wrong class's probability minus the right one's, or one term of it alone.

    `term` is "right" (minus the probability of y (N,)), "wrong" (the highest of the others), or "both".
    """

    def loss(logits: torch.Tensor) -> torch.Tensor:
        p = logits.softmax(1)
        right, wrong = p.gather(1, y[:, None])[:, 0], p.scatter(1, y[:, None], -1).amax(1)
        return {"right": -right, "wrong": wrong, "both": wrong - right}[term]

    return loss


def pma(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    *,
    noise: torch.Tensor | None,
    index: torch.Tensor,
    seed: int,
    **_: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attacked images (N,C,H,W) and which have won (N,), for images x in [0,1] and labels y (N,), of samples index.

    Two passes of `steps`, the second on what the first left, from its own point of the ball; the model is frozen. A
    misclassified iterate ends a sample's run. But for the order of operations, a pass is, for Linf:

        x_adv = (x + eps * noise).clamp(0, 1)
        for t in range(steps):
            p = model(x_adv).softmax(1)
            right, wrong = p[y], p without y .max()
            first = -right in the first pass, wrong in the second
            slope = grad(first if t < steps // 2 else wrong - right, x_adv)
            size = eps * (1 + cos(pi * t / steps))
            x_adv = (x_adv + size * slope.sign()).clamp(x - eps, x + eps).clamp(0, 1)

    Source: Xie et al., "Towards Million-Scale Adversarial Robustness Evaluation With Stronger Individual Attacks",
    CVPR 2025.
    """
    found, won = _climb(model, x, y, threat, noise, _PASSES[0])
    left = (~won).nonzero().squeeze(1)
    if len(left):
        again = draws.in_ball(index[left], tuple(x.shape[1:]), threat.norm, seed, "second pass")
        found[left], won[left] = _climb(model, x[left], y[left], threat, again, _PASSES[1])
    return found, won


def _climb(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, noise: torch.Tensor | None, term: str
) -> tuple[torch.Tensor, torch.Tensor]:
    start = x.clone() if noise is None else (x + threat.eps * noise).clamp_(0, 1)
    standing = Standing(model, start, x=x, y=y)
    for number in standing.steps(threat.steps):
        climbed = term if number <= threat.steps // 2 else "both"
        size = threat.eps * (1 + math.cos(math.pi * (number - 1) / threat.steps))
        step = functools.partial(_step, model, threat.norm, climbed)
        standing.advance(("pma", threat.norm, climbed), step, eps=threat.eps, size=size)
    return standing.finish()


def _step(
    model: nn.Module,
    norm: str,
    term: str,
    *,
    x: torch.Tensor,
    y: torch.Tensor,
    x_adv: torch.Tensor,
    found: torch.Tensor,
    won: torch.Tensor,
    eps: float | torch.Tensor,
    size: float | torch.Tensor,
    **_: Value,
) -> Tensors:
    slope, _losses, said = gradient(model, x_adv, probability_margin(y, term))
    direction = slope.sign() if norm == "linf" else slope / divisors(slope)
    ahead = into_ball(x_adv + size * direction, x, eps, norm)
    return {"x_adv": ahead, **first_won(said.argmax(1) != y, x_adv, found, won)}
