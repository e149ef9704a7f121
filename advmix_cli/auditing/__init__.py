"""Whether a robust accuracy is what it seems: checks for masked gradients, each with a verdict and a line of advice.

Sources: Athalye, Carlini and Wagner 2018; Carlini et al. 2019, "On Evaluating Adversarial Robustness"; the flags of
AutoAttack (Croce and Hein 2020).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from advmix_cli.attacks import batches, frozen, logits, to_float
from advmix_cli.attacks.common import margin
from advmix_cli.auditing.checks import STAGES, Checks
from advmix_cli.auditing.grades import Check
from advmix_cli.auditing.settled import settled
from advmix_cli.config import VERDICTS
from advmix_cli.data.pixels import Pixels
from advmix_cli.errors import StateError
from advmix_cli.evaluation import score
from advmix_cli.runtime import generator
from advmix_cli.settings import plain
from advmix_cli.statistics import wilson
from advmix_cli.threats import Threat

__all__ = ["IMAGES", "STAGES", "Audit", "Check", "audit", "transferable"]

_GRID = 21
Piece = dict[str, Any]
IMAGES = 500
"""How many images the audit looks at: enough to tell a few points, in a minute or two of a small network."""


@dataclasses.dataclass(frozen=True)
class Audit:
    """The checks of one model, the strongest figure found, and what its pictures show.

    `robust` holds `attack` (all that was tried within the threat, joined), `n`, `correct`, and in percent `accuracy`
    and `accuracy_ci95`; `chance` is what saying always the commonest class gives, in percent.
    """

    n: int
    robust: dict[str, Any]
    chance: float
    checks: list[Check]
    by_eps: list[tuple[float, float]]
    by_steps: list[tuple[int, float]]
    landscape: dict[str, Any]

    @property
    def verdict(self) -> str:
        """The gravest of the checks."""
        found = {check.verdict for check in self.checks}
        return next((verdict for verdict in reversed(VERDICTS) if verdict in found), VERDICTS[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into records; what is infinite is None."""
        return plain(dataclasses.asdict(self) | {"verdict": self.verdict})  # type: ignore[no-any-return]


def transferable(
    model: nn.Module, x: Pixels, y: torch.Tensor, threat: Threat, seed: int, batch_size: int | None
) -> torch.Tensor:
    """Images (N,C,H,W), on the CPU, that attack `model` within the threat, for others: PGD with all its steps."""
    return settled(model, x[:IMAGES], y[:IMAGES], threat.norm, threat.eps, seed, batch_size)


def audit(
    model: nn.Module,
    x: Pixels,
    y: torch.Tensor,
    threat: Threat,
    *,
    classes: int,
    seed: int = 0,
    batch_size: int | None = None,
    transferred: Sequence[tuple[str, torch.Tensor]] = (),
    on_check: Callable[[str], None] = lambda name: None,
    pieces: Sequence[Piece] = (),
    on_piece: Callable[[Piece], None] = lambda piece: None,
) -> Audit:
    """Look for signs that gradients of `model` are masked, on images (N,C,H,W), uint8 or in [0,1], and labels (N,).

    Of the threat norm and eps count. `transferred` are images that were attacked within it against other models, each
    with its model's name. `on_check` is called before each of `STAGES`, with its name. Uses at most the first `IMAGES`
    images. `on_piece` gets what each of its attacks left; with all those `pieces` the same call continues.
    """
    few = to_float(x[:IMAGES])
    try:
        before = [piece["left"].view(len(few)).bool().clone() for piece in pieces]
    except (KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise StateError(f"a piece of an audit does not fit: {error}", "begin again") from None
    size = batches.suitable(model, few, batch_size)
    run = Checks(model, few, y[:IMAGES], threat, classes, seed, size, before, on_piece)
    for name, stage in STAGES.items():
        on_check(name)
        run.checks += stage(run)
    for name, x_adv in transferred:
        run.checks += run.transfer(name, x_adv[:IMAGES])
    run.checks += run.overall()
    n, correct = len(run.y), int(run.standing.sum())
    robust = {
        "attack": " + ".join(run.tried), "n": n, "correct": correct, "accuracy": 100 * correct / n,
        "accuracy_ci95": list(wilson(correct, n)),
    }  # fmt: skip
    return Audit(n, robust, run.chance, run.checks, run.by_eps, run.by_steps, _landscape(run))


def _landscape(run: Checks) -> dict[str, Any]:
    """The cross-entropy around one image: along its attack and along a random sign direction, each up to eps."""
    left = run.standing.nonzero().squeeze(1)
    index = int(left[0]) if len(left) else 0
    x, y = run.x[index : index + 1], run.y[index : index + 1]
    towards = run.attacked[index : index + 1] - x
    beside = torch.empty(x.shape).normal_(generator=generator("cpu", run.seed, "beside")).to(x.device)
    beside = run.eps * beside.sign() if run.norm == "linf" else run.eps * beside / beside.norm()
    axis = torch.linspace(-1, 1, _GRID, device=x.device)
    points = (x + axis.view(-1, 1, 1, 1, 1) * towards + axis.view(1, -1, 1, 1, 1) * beside).flatten(0, 1)
    points = points.clamp_(0, 1)
    labels = y.expand(len(points))
    losses = score(run.model, points, labels, batch_size=run.size).losses
    with frozen(run.model), torch.no_grad():
        parts = zip(torch.split(points, run.size), torch.split(labels, run.size), strict=True)
        margins = torch.cat([-margin(logits(run.model, some), right) for some, right in parts])
    return {
        "image": index,
        "label": int(y),
        "axis": axis.tolist(),
        "loss": losses.view(_GRID, _GRID).tolist(),  # rows along the attack
        "margin": margins.view(_GRID, _GRID).tolist(),  # of the logits: below 0 it is misclassified
    }
