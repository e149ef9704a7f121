"""Running an attack: on a batch, with its tries and checks; for training; and on a whole set."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from advmix_cli.attacks.apgd import apgd
from advmix_cli.attacks.common import frozen, generators, gradient, outcome, perturbation, starts, to_float
from advmix_cli.attacks.fab import fab
from advmix_cli.attacks.pgd import TOGETHER, pgd, pgd_as_run
from advmix_cli.attacks.refined import refined
from advmix_cli.attacks.square import square
from advmix_cli.config import Threat
from advmix_cli.errors import UsageError
from advmix_cli.runtime import side_by_side


def _at_once(n: int, threat: Threat) -> int:
    """How many of n images one CPU thread attacks at a time: the same for any number of threads, and few of a few.

    PGD that stops early takes more, of which it computes with as many as the others.
    """
    most = 4 * TOGETHER if threat.attack == "pgd" and threat.early_stop else TOGETHER
    return min(most, max(8, -(-n // 4)))


_SHARE_OF_MEMORY = 4
_MOST_AT_ONCE = 4096


def suitable_batch(model: nn.Module, x: torch.Tensor, asked: int | None) -> int:
    """How many of the images x (N,C,H,W) to compute at a time: what was asked for, else what suits the device.

    A GPU takes batches of equal size, as many images as a quarter of its memory holds by the measure of a few; that
    is the same for the same model and GPU, and so are the results.
    """
    if asked is not None:
        return asked
    if x.device.type != "cuda":
        return 100
    few, device = to_float(x[:32]), x.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    with frozen(model):
        gradient(model, few, lambda logits: logits.amax(1))
    each = max(torch.cuda.max_memory_allocated(device) - before, 1) / len(few)
    total = torch.cuda.get_device_properties(device).total_memory
    most = max(1, min(_MOST_AT_ONCE, int(total / _SHARE_OF_MEMORY / each)))
    return -(-len(x) // -(-len(x) // most))


_ATTACKS: dict[str, Callable[..., torch.Tensor]] = {
    "pgd": pgd,
    "fgsm": pgd,
    "apgd-ce": apgd,
    "apgd-dlr": apgd,
    "apgd-t": apgd,
    "fab-t": fab,
    "square": square,
    "square-pgd": refined,
}


def _function(threat: Threat) -> Callable[..., torch.Tensor]:
    if threat.attack not in _ATTACKS:
        raise UsageError(f"{threat.attack} is an ensemble, which attacks whole sets", "use attack_set")
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
        logits = model(x)
    if targets >= logits.shape[1]:
        wrong = logits.shape[1] - 1
        raise UsageError(f"--targets {targets} is more than the {wrong} wrong classes", f"try --targets {wrong}")
    order = torch.sort(logits.scatter(1, y[:, None], -torch.inf), dim=1, descending=True, stable=True).indices
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
    size = _at_once(len(x), threat) if x.device.type == "cpu" and mode == "eval" else len(x)

    def part(begin: int) -> torch.Tensor:
        chosen = slice(begin, begin + size)
        return run(model, x[chosen], y[chosen], threat, None if noise is None else noise[chosen])

    with frozen(model, mode):
        return torch.cat(list(side_by_side(part, range(0, len(x), size), x.device)))


@dataclasses.dataclass(frozen=True)
class AttackedSet:
    """What attacking a whole set gave: `x_adv` float32 (N,C,H,W) on the CPU, and (N,) flags on the CPU.

    `clean_correct` is right before the attack, `robust` right before it and after it. `stages` says after each
    part of the threat how many were still robust.
    """

    x_adv: torch.Tensor
    clean_correct: torch.Tensor
    robust: torch.Tensor
    linf_max: float
    stages: tuple[tuple[str, int], ...]


State = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Batch:
    index: torch.Tensor  # (n,) where its samples are in the set
    x: torch.Tensor
    y: torch.Tensor
    noises: list[torch.Tensor | None]  # one for each try

    def plus(self, other: _Batch) -> _Batch:
        """Both, one after the other."""
        return _Batch(
            torch.cat([self.index, other.index]),
            torch.cat([self.x, other.x]),
            torch.cat([self.y, other.y]),
            [
                None if a is None or b is None else torch.cat([a, b])
                for a, b in zip(self.noises, other.noises, strict=True)
            ],
        )

    def take(self, chosen: slice | torch.Tensor) -> _Batch:
        """Some of its samples."""
        where = chosen if isinstance(chosen, slice) else chosen.cpu()
        noises = [None if noise is None else noise[chosen] for noise in self.noises]
        return _Batch(self.index[where], self.x[chosen], self.y[chosen], noises)


def attack_set(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    *,
    batch_size: int | None = None,
    seed: int,
    state: State | None = None,
    on_batch: Callable[[int], None] = lambda n: None,
    on_standing: Callable[[int], None] = lambda n: None,
    on_stage: Callable[[str, int], None] = lambda part, standing: None,
    on_state: Callable[[Callable[[], State]], None] = lambda make: None,
) -> AttackedSet:
    """Attack a set, pixels (N,C,H,W), uint8 or float in [0,1], and labels (N,) on the model's device, in batches.

    `batch_size` None: what suits the device. On a CPU the batches are attacked side by side, one a thread. Each part
    of an ensemble attacks what the ones before left standing; a threat that stops early leaves images alone that are
    wrong before the attack. A sample's random numbers are its own: no result depends on which others stand, nor, but
    for rounding, on the batch size.

    `on_batch` is called with the number of images done, which come to N for each part, `on_standing` with how many are
    still robust, `on_stage` after each part, with its label and that number. `on_state` gets, after each batch, a
    function that makes a state of plain tensors and values; with that `state` the same call continues, and gives the
    same. Raises as `attack` does.
    """
    asked, batch_size = batch_size, suitable_batch(model, x, batch_size)
    if state is None:
        clean = _right(model, x, y, batch_size)
        state = {
            "part": 0,
            "batches": 0,
            "x_adv": to_float(x).cpu().clone(),
            "clean": clean,
            "robust": clean.clone(),
            "attacked": clean.clone() if threat.parts[0].early_stop else torch.ones(len(x), dtype=torch.bool),
            "linf_max": 0.0,
            "stages": [],
        }
    now = dict(state)
    for number, part in enumerate(threat.parts):
        if number < now["part"]:
            on_batch(len(x))
            continue
        on_batch(int((~now["attacked"]).sum()))  # they are done without an attack
        size = batch_size
        if x.device.type == "cpu":
            size = min(_at_once(len(x), part), asked or len(x))
        with frozen(model):
            for done, (batch, attacked, success, change) in enumerate(
                side_by_side(
                    functools.partial(_one, model, part, seed),
                    _batches(x, y, part, now["attacked"], size, seed, now["batches"], on_batch),
                    x.device,
                ),
                now["batches"] + 1,
            ):
                if part.early_stop and len(threat.parts) > 1:  # what did not win is not worth keeping
                    now["x_adv"][batch.index[success]] = attacked[success]
                else:
                    now["x_adv"][batch.index] = attacked
                now["robust"][batch.index] &= ~success
                now |= {"batches": done, "linf_max": max(now["linf_max"], change)}
                on_standing(int(now["robust"].sum()))
                on_batch(len(batch.index))
                on_state(functools.partial(dict, now))
        standing = int(now["robust"].sum())
        now |= {"part": number + 1, "batches": 0, "attacked": now["robust"].clone()}
        now["stages"] = [*now["stages"], [part.label, standing]]
        on_stage(part.label, standing)
    stages = tuple((str(label), int(standing)) for label, standing in now["stages"])
    return AttackedSet(now["x_adv"], now["clean"], now["robust"], now["linf_max"], stages)


def _right(model: nn.Module, x: torch.Tensor, y: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Which images (N,) are classified as they should be; on the CPU."""

    def part(begin: int) -> torch.Tensor:
        chosen = slice(begin, begin + batch_size)
        return ~outcome(model, to_float(x[chosen]), y[chosen])[1]

    with frozen(model):
        return torch.cat(list(side_by_side(part, range(0, len(x), batch_size), x.device))).cpu()


def _batches(
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    attacked: torch.Tensor,
    batch_size: int,
    seed: int,
    skip: int,
    on_skipped: Callable[[int], None],
) -> Iterator[_Batch]:
    """The samples to attack in batches, but for the first `skip`; noise is drawn for all, so that each has its own."""
    random, held, number = generators(x.device, seed, threat), None, 0
    for begin in range(0, len(x), batch_size):
        part = slice(begin, begin + batch_size)
        pixels, index = to_float(x[part]), torch.arange(begin, min(begin + batch_size, len(x)))
        whole = _Batch(index, pixels, y[part], [starts(pixels, threat, each) for each in random])
        chosen = whole.take(attacked[part].to(x.device))
        held = chosen if held is None else held.plus(chosen)
        while len(held.index) >= batch_size or (begin + batch_size >= len(x) and len(held.index)):
            batch, held, number = held.take(slice(batch_size)), held.take(slice(batch_size, None)), number + 1
            if number > skip:
                yield batch
            else:
                on_skipped(len(batch.index))


def _one(
    model: nn.Module, threat: Threat, seed: int, batch: _Batch
) -> tuple[_Batch, torch.Tensor, torch.Tensor, float]:
    attacked, success = _attack(model, batch.x, batch.y, threat, batch.noises, seed)
    return batch, attacked.cpu(), success.cpu(), float((attacked - batch.x).abs_().max())
