"""PGD and FGSM in pixel space, around the clean image; and PGD as the report's published code ran it."""

from __future__ import annotations

import functools

import torch
from torch import nn

from advmix_cli import graphs
from advmix_cli.attacks.common import Loss, gradient, lengths, objective
from advmix_cli.config import Threat
from advmix_cli.models.preactresnet import Normalize


def pgd(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    noise: torch.Tensor | None = None,
    target: torch.Tensor | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """Projected gradient ascent on the threat's loss, in the eps-ball around x and in [0,1]; with one step FGSM.

    x (N,C,H,W) in [0,1], y (N,), noise in the unit ball or None for a start at x, target (N,) or None for any wrong
    class. The loss is summed, so that a sample's gradient does not depend on its batch. The model must be frozen.
    Source: Madry et al. 2018 and, for FGSM, Goodfellow et al. 2015.
    """
    start = x.clone() if noise is None else (x + noise * threat.eps).clamp_(0, 1)
    recorded = graphs.of(model, x.device)
    if recorded is not None:
        return _recorded(recorded, model, start, y, threat, x, target)
    step = _Step(threat, threat.eps, threat.step_size, 0.0, 1.0)
    if threat.early_stop:
        return _until_won(model, start, y, threat, x, target, step)
    loss, x_adv = objective(threat.loss, y, target), start
    for _ in range(threat.steps):
        x_adv, _ = step(model, x_adv, x, loss)
    return x_adv


def pgd_as_run(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    noise: torch.Tensor | None = None,
    target: torch.Tensor | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """The attack that the report's published code ran; its numbers are only ever shown with its name, as-run.

    It starts at the clean image but projects into the ball around a jittered copy, so that an iterate can be up
    to 2 eps away from x. Where the model normalises its input, it works and clips to [0,1] in normalised units:
    there a pixel keeps to [mean, mean + std] of its channel, and eps and alpha count in std.
    """
    eps: float | torch.Tensor = threat.eps
    alpha: float | torch.Tensor = threat.step_size
    low: float | torch.Tensor = 0.0
    high: float | torch.Tensor = 1.0
    normalize = next((module for module in model.modules() if isinstance(module, Normalize)), None)
    if normalize is not None:
        eps, alpha = eps * normalize.std, alpha * normalize.std
        low, high = normalize.mean, normalize.mean + normalize.std
    centre = x if noise is None else _clamp_(x + noise * eps, low, high)
    step, loss, x_adv = _Step(threat, eps, alpha, low, high), objective("ce", y, None), x.clone()
    for _ in range(threat.steps):
        x_adv, _ = step(model, x_adv, centre, loss)
    return x_adv


def _clamp_(x: torch.Tensor, low: float | torch.Tensor, high: float | torch.Tensor) -> torch.Tensor:
    return x.clamp_(low, high)  # type: ignore[arg-type]


class _Step:
    """One step of ascent and its projection; the order of operations is foolbox's, to the bit."""

    def __init__(
        self,
        threat: Threat,
        eps: float | torch.Tensor,
        alpha: float | torch.Tensor,
        low: float | torch.Tensor,
        high: float | torch.Tensor,
    ) -> None:
        self.norm, self.precision = threat.norm, threat.precision
        self.eps, self.alpha, self.low, self.high = eps, alpha, low, high

    def __call__(
        self, model: nn.Module, x_adv: torch.Tensor, centre: torch.Tensor, loss: Loss
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(the next iterate, the logits at this one, which it leaves as it is)."""
        slope, _, logits = gradient(model, x_adv, loss, self.precision)
        if self.norm == "linf":
            moved = slope.sign_().mul_(self.alpha).add_(x_adv).sub_(centre)
            moved = _clamp_(moved, -self.eps, self.eps)
        else:
            moved = slope.mul_(1 / lengths(slope)).mul_(self.alpha).add_(x_adv).sub_(centre)
            moved.mul_(lengths(moved).reciprocal().mul_(self.eps).clamp_(max=1))
        return _clamp_(moved.add_(centre), self.low, self.high), logits


TOGETHER = 64
"""Images that one CPU thread computes with at a time."""


def _until_won(
    model: nn.Module,
    starts: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    x: torch.Tensor,
    target: torch.Tensor | None,
    step: _Step,
) -> torch.Tensor:
    """The same steps, of which each sample takes as many as it needs, to its first misclassified iterate.

    Few samples cost almost what many do: on a CPU the places of those that are done are taken by others.
    """
    most = TOGETHER if x.device.type == "cpu" else len(x)
    ended, index, taken = starts.clone(), torch.arange(0, device=x.device), 0
    x_adv, steps = starts[:0], index
    while taken < len(x) or len(index):
        if taken < len(x) and len(index) <= most // 2:
            fresh = torch.arange(taken, min(taken + most - len(index), len(x)), device=x.device)
            index, taken = torch.cat([index, fresh]), taken + len(fresh)
            x_adv, steps = torch.cat([x_adv, starts[fresh]]), torch.cat([steps, torch.zeros_like(fresh)])
            labels, centre, aims = y[index], x[index], None if target is None else target[index]
        moved, logits = step(model, x_adv, centre, objective(threat.loss, labels, aims))
        steps = steps + 1
        won = logits.argmax(1) != labels
        done = won | (steps == threat.steps)
        if not bool(done.any()):
            x_adv = moved
            continue
        ended[index[done]] = torch.where(won.view(-1, 1, 1, 1), x_adv, moved)[done]
        index, x_adv, steps, labels, centre = (each[~done] for each in (index, moved, steps, labels, centre))
        aims = None if aims is None else aims[~done]
    return ended


_RECORDED_STEPS = 10


def _recorded(
    recorded: graphs.Graphs,
    model: nn.Module,
    x_adv: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    centre: torch.Tensor,
    target: torch.Tensor | None,
) -> torch.Tensor:
    """The same steps on a GPU, several to a recording; with early stop the batch is halved where half of it is won."""
    found, won, index = x_adv, torch.zeros_like(y, dtype=torch.bool), torch.arange(len(y), device=y.device)
    ended = x_adv.clone()
    for begin in range(0, threat.steps, _RECORDED_STEPS):
        steps = min(_RECORDED_STEPS, threat.steps - begin)
        x_adv, found, won = recorded(
            (steps, threat.norm, threat.loss, threat.early_stop, threat.precision),
            functools.partial(_steps, model, threat, steps),
            x_adv=x_adv,
            y=y,
            centre=centre,
            target=target,
            eps=threat.eps,
            alpha=threat.step_size,
            found=found,
            won=won,
        )
        if not threat.early_stop:
            continue
        ended[index] = torch.where(won.view(-1, 1, 1, 1), found, x_adv)
        standing = int((~won).sum())
        if not standing:
            break
        while 2 * standing <= len(won):
            keep = won.sort(stable=True).indices[: len(won) // 2]  # False first: those that stand, and some that do not
            x_adv, y, centre, found, won, index = (each[keep] for each in (x_adv, y, centre, found, won, index))
            target = None if target is None else target[keep]
    return ended if threat.early_stop else x_adv


def _steps(
    model: nn.Module,
    threat: Threat,
    count: int,
    *,
    x_adv: torch.Tensor,
    y: torch.Tensor,
    centre: torch.Tensor,
    target: torch.Tensor | None,
    eps: torch.Tensor,
    alpha: torch.Tensor,
    found: torch.Tensor,
    won: torch.Tensor,
) -> graphs.Tensors:
    """`count` steps: (the iterates, each sample's first winning image so far, whether it has one)."""
    step, loss = _Step(threat, eps, alpha, 0.0, 1.0), objective(threat.loss, y, target)
    for _ in range(count):
        moved, logits = step(model, x_adv, centre, loss)
        if threat.early_stop:
            fooled = logits.argmax(1) != y
            found = torch.where((fooled & ~won).view(-1, 1, 1, 1), x_adv, found)
            won = won | fooled
        x_adv = moved
    return x_adv, found, won
