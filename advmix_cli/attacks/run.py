"""Running an attack on one batch: with its tries, its final verdict and its checks; and for training, with neither."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from advmix_cli import draws
from advmix_cli.attacks import batches, malt
from advmix_cli.attacks.common import Change, frozen, likeliest, logits, outcome, perturbation
from advmix_cli.errors import UsageError
from advmix_cli.passes import Passes, counted
from advmix_cli.runtime import side_by_side
from advmix_cli.threats import Threat

Found = tuple[torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Attacked:
    """What an attack made of a batch: images (N,C,H,W) in [0,1], and for each (N,) success and cross-entropy in nats.

    `leads` (N,) is the least that the right class led by at the end of a try (`common.Verdicts`). `change` is how far
    the images lie from the originals, `passes` what it took: a sample that has won takes no more of them on a CPU, and
    on a GPU until that is seen.
    """

    x_adv: torch.Tensor
    success: torch.Tensor
    losses: torch.Tensor
    leads: torch.Tensor
    change: Change
    passes: Passes


def function(source: str) -> Callable[..., Any] | None:
    """What a declaration names as module:function; None where it names nothing."""
    module, _, name = source.partition(":")
    return getattr(importlib.import_module(module), name) if source else None


def _function(threat: Threat) -> Callable[..., Found]:
    run = function(threat.declared.source + ("_as_run" if threat.variant == "as-run" else ""))
    if run is None:
        raise UsageError(f"{threat.attack} is an ensemble, which attacks whole sets", "use attack_set")
    return run


def starts(index: torch.Tensor, shape: torch.Size, threat: Threat, seed: int, *turn: object) -> torch.Tensor | None:
    """Where a try begins: points of the unit ball (N,C,H,W) for the samples of index (N,); None at the images."""
    return draws.in_ball(index, tuple(shape), threat.norm, seed, "start", *turn) if threat.random_start else None


def attack(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    *,
    seed: int = 0,
    index: torch.Tensor | None = None,
) -> Attacked:
    """Attack images x (N,C,H,W) in [0,1] with labels y (N,), all on the model's device.

    With several tries each sample keeps the first success, else the one of the highest loss, so that the worst case
    counts. A sample is broken if its images, or an iterate of an attack that stops there, were ever seen to be
    misclassified in float32. The model's modes, flags and statistics, x and y stay as they were. `index` (N,) are the
    samples' numbers in their set, which with `seed` decide their random numbers (None: 0, 1, ...).
    Raises AdvmixError when a result is not finite, leaves [0,1] or the budget.
    """
    index = torch.arange(len(x), device=x.device) if index is None else index
    with frozen(model), counted() as passes:
        ranked = None
        if threat.targets or threat.loss == "dlr":
            with torch.no_grad():
                said = logits(model, x)
            threat = threat.fitted(said.shape[1])
            most = threat.declared.candidates
            if most and threat.eps:
                ranked = malt.nearest(model, x, y, said, threat.norm, max(most, threat.targets))
            else:
                ranked = likeliest(said, y)
        tries = _Tries(model, x, y, threat, seed, index)
        for turn in range(threat.tries):
            target = ranked[:, turn % threat.targets] if ranked is not None and threat.targets else None
            tries.go(turn, target)
        x_adv, losses, success = tries.best
        return Attacked(x_adv, success, losses, tries.leads, perturbation(x, x_adv, threat), passes)


class _Tries:
    """The tries of an attack on a frozen model, and the worst of them for each sample."""

    def __init__(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, seed: int, index: torch.Tensor
    ) -> None:
        self._model, self._x, self._y, self._threat, self._seed, self._index = model, x, y, threat, seed, index
        nothing = torch.full((len(x),), -torch.inf, device=x.device)
        self.best = [x, nothing, torch.zeros(len(x), dtype=torch.bool, device=x.device)]
        self.leads = -nothing

    def go(self, turn: int, target: torch.Tensor | None) -> None:
        """One more, on the samples that stand."""
        best, loss, success = self.best
        if turn == 0:
            *self.best, self.leads = self._one(slice(None), turn, target)
            return
        standing = (~success).nonzero().squeeze(1)
        if not len(standing):
            return
        tried, tried_loss, tried_success, leads = self._one(standing, turn, target)
        self.leads[standing] = leads.minimum(self.leads[standing])
        better = tried_success | (tried_loss > loss[standing])
        taken = standing[better]
        best[taken], loss[taken], success[taken] = tried[better], tried_loss[better], tried_success[better]

    def _one(
        self, which: slice | torch.Tensor, turn: int, target: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        x, y, index = self._x[which], self._y[which], self._index[which]
        if not self._threat.eps:  # there is nowhere to go
            loss, wrong, lead = outcome(self._model, x, y)
            return x.clone(), loss, wrong, lead
        tried, won = _function(self._threat)(
            self._model,
            x,
            y,
            self._threat,
            noise=starts(index, x.shape[1:], self._threat, self._seed, turn),
            target=None if target is None else target[which],
            places=batches.CPU,
            index=index,
            seed=self._seed + turn,
        )
        loss, wrong, lead = outcome(self._model, tried, y)
        return tried, loss, won | wrong, lead


def adversarial_batch(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    *,
    seed: int,
    index: torch.Tensor,
    mode: str = "eval",
) -> torch.Tensor:
    """One try for training: attacked images (N,C,H,W), unchecked, and without waiting for the device.

    Arguments as `attack` has them. In the mode `train` batch norm uses and updates batch statistics, as in the
    report's code; in `eval` nothing of the model changes.
    """
    run = _function(threat)

    def part(these: slice) -> torch.Tensor:
        noise = starts(index[these], x.shape[1:], threat, seed)
        return run(model, x[these], y[these], threat, noise=noise)[0]

    return in_parts(model, x, part, mode)


def in_parts(
    model: nn.Module, x: torch.Tensor, attacked: Callable[[slice], torch.Tensor], mode: str = "eval"
) -> torch.Tensor:
    """What `attacked` makes of parts of a batch x, side by side on a CPU, with the model frozen in that mode."""
    size = batches.on_cpu(model, len(x), None)

    def part(begin: int) -> torch.Tensor:
        return attacked(slice(begin, begin + size))

    with frozen(model, mode):
        if x.device.type != "cpu" or mode == "train":  # batch statistics are those of the whole batch
            return attacked(slice(None))
        return torch.cat(list(side_by_side(part, range(0, len(x), size), x.device)))
