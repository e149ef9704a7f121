"""Running an attack: on a batch, with its tries and checks; for training; and on a whole set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from advmix_cli.attacks.apgd import apgd
from advmix_cli.attacks.common import frozen, generators, outcome, perturbation, starts, to_float
from advmix_cli.attacks.fab import fab
from advmix_cli.attacks.pgd import pgd, pgd_as_run
from advmix_cli.attacks.square import square
from advmix_cli.config import Threat
from advmix_cli.runtime import side_by_side

_CRAFTED_AT_ONCE = 64
"""Images that one thread attacks at a time while training: the same for any number of threads."""

_ATTACKS: dict[str, Callable[..., torch.Tensor]] = {
    "pgd": pgd,
    "fgsm": pgd,
    "apgd-ce": apgd,
    "apgd-dlr": apgd,
    "apgd-t": apgd,
    "fab-t": fab,
    "square": square,
}


def _function(threat: Threat) -> Callable[..., torch.Tensor]:
    return pgd_as_run if threat.variant == "as-run" else _ATTACKS[threat.attack]


def attack(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, random: Sequence[torch.Generator], seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attacked images (N,C,H,W) in [0,1] and whether each is misclassified (N,), for images x in [0,1], labels y.

    With several tries each sample keeps the first success, else the one of the highest loss, so that the worst case
    counts. The model's modes, flags and statistics, x and y stay as they were. `random` are as many
    generators as the threat has tries, on x's device; `seed` is for what an attack draws once for all samples.
    Raises AdvmixError when a result is not finite, leaves [0,1] or the budget.
    """
    with frozen(model):
        return _attack(model, x, y, threat, [starts(x, threat, each) for each in random[: threat.tries]], seed)


def _attack(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    noises: Sequence[torch.Tensor | None],
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`attack` with a noise for each try, on a frozen model."""
    run = _function(threat)
    ranked = _ranked(model, x, y, threat.targets) if threat.targets else None
    best = x
    loss = torch.full((len(x),), -torch.inf, device=x.device)
    success = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for turn, noise in enumerate(noises):
        target = None if ranked is None else ranked[turn % threat.targets]
        if turn == 0:
            best = run(model, x, y, threat, noise, target, seed)
            loss, success = outcome(model, best, y)
            continue
        standing = (~success).nonzero().squeeze(1)
        if not len(standing):
            break
        tried = run(
            model,
            x[standing],
            y[standing],
            threat,
            None if noise is None else noise[standing],
            None if target is None else target[standing],
            seed + turn,
        )
        tried_loss, tried_success = outcome(model, tried, y[standing])
        better = tried_success | (tried_loss > loss[standing])
        taken = standing[better]
        best[taken], loss[taken], success[taken] = tried[better], tried_loss[better], tried_success[better]
    perturbation(x, best, threat)
    return best, success


def _ranked(model: nn.Module, x: torch.Tensor, y: torch.Tensor, targets: int) -> torch.Tensor:
    """The most likely wrong classes of each clean image, (targets,N), the likeliest first."""
    with torch.no_grad():
        order = torch.sort(model(x).scatter(1, y[:, None], -torch.inf), dim=1, descending=True, stable=True).indices
    return order[:, :targets].T.contiguous()


def craft(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, random: torch.Generator, mode: str = "eval"
) -> torch.Tensor:
    """One try for training: attacked images (N,C,H,W), unchecked, and without waiting for the device.

    In the mode `train` batch norm uses and updates batch statistics, as in the report's code; in `eval` nothing of
    the model changes.
    """
    run, noise = _function(threat), starts(x, threat, random)
    # Batch statistics are those of the whole batch; a GPU wants it whole too.
    size = _CRAFTED_AT_ONCE if x.device.type == "cpu" and mode == "eval" else len(x)

    def part(begin: int) -> torch.Tensor:
        chosen = slice(begin, begin + size)
        return run(model, x[chosen], y[chosen], threat, None if noise is None else noise[chosen])

    with frozen(model, mode):
        return torch.cat(list(side_by_side(part, range(0, len(x), size), x.device)))


@dataclasses.dataclass(frozen=True)
class AttackedSet:
    """What attacking a whole set gave: `x_adv` float32 (N,C,H,W) on the CPU, and (N,) flags on the CPU.

    `clean_correct` is right before the attack, `robust` right before it and after it.
    """

    x_adv: torch.Tensor
    clean_correct: torch.Tensor
    robust: torch.Tensor
    linf_max: float


@dataclasses.dataclass(frozen=True)
class _Batch:
    part: slice
    x: torch.Tensor
    y: torch.Tensor
    noises: list[torch.Tensor | None]


def attack_set(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    *,
    batch_size: int,
    seed: int,
    on_batch: Callable[[int], None] = lambda n: None,
) -> AttackedSet:
    """Attack a set, pixels uint8 (N,C,H,W) and labels (N,) on the model's device, batch by batch.

    On a CPU the batches are attacked side by side, one a thread. A threat that stops early leaves images alone that
    are wrong before the attack. `on_batch` is called with the number of images done. Raises as `attack` does.
    """
    random = generators(x.device, seed, threat)
    x_adv = torch.empty(x.shape, dtype=torch.float32)
    clean, robust = torch.empty(len(x), dtype=torch.bool), torch.empty(len(x), dtype=torch.bool)
    largest = 0.0

    def batches() -> Iterator[_Batch]:
        for begin in range(0, len(x), batch_size):
            part = slice(begin, begin + batch_size)
            pixels = to_float(x[part])
            yield _Batch(part, pixels, y[part], [starts(pixels, threat, each) for each in random])

    def one(batch: _Batch) -> tuple[_Batch, torch.Tensor, torch.Tensor, torch.Tensor, float]:
        pixels, labels = batch.x, batch.y
        right = ~outcome(model, pixels, labels)[1]
        if threat.early_stop and not bool(right.all()):
            attacked, success = pixels.clone(), ~right
            if bool(right.any()):
                noises = [None if noise is None else noise[right] for noise in batch.noises]
                attacked[right], success[right] = _attack(model, pixels[right], labels[right], threat, noises, seed)
        else:
            attacked, success = _attack(model, pixels, labels, threat, batch.noises, seed)
        return batch, attacked.cpu(), right.cpu(), (right & ~success).cpu(), float((attacked - pixels).abs_().max())

    with frozen(model):
        for batch, attacked, right, held, change in side_by_side(one, batches(), x.device):
            x_adv[batch.part], clean[batch.part], robust[batch.part] = attacked, right, held
            largest = max(largest, change)
            on_batch(len(batch.y))
    return AttackedSet(x_adv, clean, robust, largest)
