"""PGD on any loss of the logits, for training: what `attacks` climbs with hard labels, and what its verdicts judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from advmix_cli import draws, graphs
from advmix_cli.attacks import batches
from advmix_cli.attacks.common import frozen, gradient, lengths
from advmix_cli.graphs import Tensors
from advmix_cli.methods.base import Batch, Tensor
from advmix_cli.runtime import side_by_side
from advmix_cli.threats import Threat

Objective = Callable[[Tensor, Tensor], Tensor]
"""From logits (N,classes) and what is known of each sample (N,...) to what is climbed (N,)."""


def ascend(
    model: nn.Module,
    x: Tensor,
    threat: Threat,
    key: str,
    objective: Objective,
    known: Tensor,
    batch: Batch,
    *,
    start: Tensor | None = None,
) -> Tensor:
    """Images (N,C,H,W) in the threat's ball around x that climb `objective`, from `start`, else as the threat says.

    The model is in eval mode meanwhile. `known` (N,...) goes to the objective with each sample; `key` names it where
    steps are recorded. Equivalent, for Linf:

        for _ in range(steps):
            slope = grad(objective(model(x_adv), known).sum(), x_adv)
            x_adv = (x + (x_adv + alpha * slope.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    """
    if start is None:
        start = x
        if threat.random_start:
            noise = draws.in_ball(batch.index, tuple(x.shape[1:]), threat.norm, batch.seed, "start")
            start = (x + noise * threat.eps).clamp(0, 1)
    size = batches.on_cpu(len(x), None) if x.device.type == "cpu" else len(x)

    def step(*, x_adv: Tensor, x: Tensor, known: Tensor, eps: float | Tensor, alpha: float | Tensor) -> Tensors:
        slope, _, _ = gradient(model, x_adv, lambda logits: objective(logits, known), threat.precision)
        if threat.norm == "linf":
            moved = (x_adv + slope.sign() * alpha - x).clamp(-eps, eps)  # type: ignore[arg-type]
        else:
            moved = x_adv + slope / lengths(slope) * alpha - x
            moved = moved * (eps / lengths(moved)).clamp(max=1)
        return {"x_adv": (x + moved).clamp(0, 1)}

    size_of_steps = {"eps": threat.eps, "alpha": threat.step_size}

    def part(begin: int) -> Tensor:
        these = slice(begin, begin + size)
        x_adv, recorded = start[these], graphs.of(model, x.device)
        for _ in range(threat.steps):
            given: dict[str, Any] = {"x_adv": x_adv, "x": x[these], "known": known[these], **size_of_steps}
            found = step(**given) if recorded is None else recorded(("ascend", key, threat.norm), step, **given)
            x_adv = found["x_adv"]
        return x_adv

    with frozen(model):
        return torch.cat(list(side_by_side(part, range(0, len(x), size), x.device)))
