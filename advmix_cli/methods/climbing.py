"""PGD on any loss of the logits, for training: what `attacks` climbs with hard labels, and what its verdicts judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from advmix_cli import graphs
from advmix_cli.attacks.pgd import Bounds, step
from advmix_cli.attacks.run import in_parts, starts
from advmix_cli.graphs import Tensors
from advmix_cli.methods.base import Batch, Tensor
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
        noise = starts(batch.index, x.shape[1:], threat, batch.seed)
        start = x if noise is None else (x + noise * threat.eps).clamp(0, 1)

    def one(*, x_adv: Tensor, x: Tensor, known: Tensor, eps: float | Tensor, alpha: float | Tensor) -> Tensors:
        return {"x_adv": step(model, x_adv, x, lambda said: objective(said, known), threat, Bounds(eps, alpha))[0]}

    size_of_steps = {"eps": threat.eps, "alpha": threat.step_size}

    def part(these: slice) -> Tensor:
        x_adv, recorded = start[these], graphs.of(model, x.device)
        for _ in range(threat.steps):
            given: dict[str, Any] = {"x_adv": x_adv, "x": x[these], "known": known[these], **size_of_steps}
            found = one(**given) if recorded is None else recorded(("ascend", key, threat.norm), one, **given)
            x_adv = found["x_adv"]
        return x_adv

    return in_parts(model, x, part)
