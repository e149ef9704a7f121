"""PGD and FGSM in pixel space, around the clean image, with every result checked before it is given out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from advmix_cli.config import Threat
from advmix_cli.errors import AdvmixError
from advmix_cli.models.preactresnet import Normalize
from advmix_cli.runtime import generator

TOLERANCE = 1e-6
"""How far float32 rounding may carry a perturbation beyond eps, for eps of at most 1; in proportion above."""


@contextlib.contextmanager
def frozen(model: nn.Module, mode: str = "eval") -> Iterator[None]:
    """The model in that mode, without gradients for its parameters; all flags are restored, also after an error."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.train(mode == "train")
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, was in modes:
            module.training = was
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


def generators(device: torch.device | str, seed: int, threat: Threat) -> list[torch.Generator]:
    """One generator for each restart, so that the first tries are the same however many follow."""
    return [generator(device, seed, "attack", restart) for restart in range(threat.restarts)]


def attack(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, random: Sequence[torch.Generator]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attacked images (N,C,H,W) in [0,1] and whether each is misclassified (N,), for images x in [0,1], labels y.

    With restarts each sample keeps the first success, else the try of the highest loss, so that the worst case
    counts. The model's modes, flags and statistics, x and y stay as they were. `random` are as many
    generators as restarts, on x's device.
    Raises AdvmixError when a result is not finite, leaves [0,1] or the budget.
    """
    with frozen(model):
        run = pgd_as_run if threat.variant == "as-run" else pgd
        best = run(model, x, y, threat, _noise(x, threat, random[0]))
        loss, success = _outcome(model, best, y)
        for again in random[1 : threat.restarts]:
            noise = _noise(x, threat, again)  # for all, so that a sample's start does not depend on the others' fate
            standing = (~success).nonzero().squeeze(1)
            if noise is None or not len(standing):
                continue
            tried = run(model, x[standing], y[standing], threat, noise[standing])
            tried_loss, tried_success = _outcome(model, tried, y[standing])
            better = tried_success | (tried_loss > loss[standing])
            taken = standing[better]
            best[taken], loss[taken], success[taken] = (
                tried[better],
                tried_loss[better],
                tried_success[better],
            )
    perturbation(x, best, threat)
    return best, success


def craft(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, random: torch.Generator, mode: str = "eval"
) -> torch.Tensor:
    """One try for training: attacked images (N,C,H,W), unchecked, and without waiting for the device.

    In the mode `train` batch norm uses and updates batch statistics, as in the report's code; in `eval` nothing of
    the model changes.
    """
    run = pgd_as_run if threat.variant == "as-run" else pgd
    with frozen(model, mode):
        return run(model, x, y, threat, _noise(x, threat, random))


def _outcome(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        logits = model(x)
        return F.cross_entropy(logits, y, reduction="none"), logits.argmax(1) != y


def _noise(x: torch.Tensor, threat: Threat, random: torch.Generator) -> torch.Tensor | None:
    """Uniform points of the unit ball, (N,C,H,W), drawn sample by sample: batch sizes do not matter."""
    if not threat.random_start:
        return None
    if threat.norm == "linf":
        return torch.empty_like(x).uniform_(-1, 1, generator=random)
    # Uniform in an L2 ball of d dimensions: the first d coordinates of a point on the sphere of d + 2.
    d = x[0].numel()
    points = torch.empty((len(x), d + 2), device=x.device).normal_(generator=random)
    return (points / points.square().sum(1, keepdim=True).sqrt())[:, :d].reshape(x.shape)


def pgd(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, noise: torch.Tensor | None = None
) -> torch.Tensor:
    """Projected gradient ascent on the cross-entropy, in the eps-ball around x and in [0,1]; with one step FGSM.

    x (N,C,H,W) in [0,1], y (N,), noise in the unit ball or None for a start at x. The loss is summed, so that a
    sample's gradient does not depend on its batch. The model must be frozen. Source: Madry et al. 2018 and, for
    FGSM, Goodfellow et al. 2015.
    """
    start = x.clone() if noise is None else (x + noise * threat.eps).clamp_(0, 1)
    return _ascend(model, start, y, threat, x, threat.eps, threat.alpha, 0.0, 1.0)


def pgd_as_run(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, noise: torch.Tensor | None = None
) -> torch.Tensor:
    """The attack that the report's published code ran; its numbers are only ever shown with its name, as-run.

    It starts at the clean image but projects into the ball around a jittered copy, so that an iterate can be up
    to 2 eps away from x. Where the model normalises its input, it works and clips to [0,1] in normalised units:
    there a pixel keeps to [mean, mean + std] of its channel, and eps and alpha count in std.
    """
    eps: float | torch.Tensor = threat.eps
    alpha: float | torch.Tensor = threat.alpha
    low: float | torch.Tensor = 0.0
    high: float | torch.Tensor = 1.0
    normalize = next((module for module in model.modules() if isinstance(module, Normalize)), None)
    if normalize is not None:
        eps, alpha = threat.eps * normalize.std, threat.alpha * normalize.std
        low, high = normalize.mean, normalize.mean + normalize.std
    centre = x if noise is None else _clamp_(x + noise * eps, low, high)
    return _ascend(model, x.clone(), y, threat, centre, eps, alpha, low, high)


def _clamp_(x: torch.Tensor, low: float | torch.Tensor, high: float | torch.Tensor) -> torch.Tensor:
    return x.clamp_(low, high)  # type: ignore[arg-type]


def _ascend(
    model: nn.Module,
    x_adv: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    centre: torch.Tensor,
    eps: float | torch.Tensor,
    alpha: float | torch.Tensor,
    low: float | torch.Tensor,
    high: float | torch.Tensor,
) -> torch.Tensor:
    for _ in range(threat.steps):
        x_adv.requires_grad_(True)
        with torch.enable_grad():
            loss = F.cross_entropy(model(x_adv), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x_adv)
        x_adv = x_adv.detach()
        if threat.norm == "linf":
            x_adv.add_(gradient.sign_().mul_(alpha))
            _clamp_(x_adv.sub_(centre), -eps, eps)
        else:
            x_adv.add_(gradient.mul_(1 / _lengths(gradient)).mul_(alpha))
            x_adv.sub_(centre)
            x_adv.mul_((eps / _lengths(x_adv)).clamp_(max=1))
        _clamp_(x_adv.add_(centre), low, high)
    return x_adv


def _lengths(x: torch.Tensor) -> torch.Tensor:
    """L2 norms (N,1,1,1), at least 1e-12."""
    return x.flatten(1).square().sum(1).sqrt().clamp_(min=1e-12).view(-1, 1, 1, 1)


def perturbation(x: torch.Tensor, x_adv: torch.Tensor, threat: Threat | None) -> float:
    """The largest |x_adv - x| of any pixel, after the checks that every attacked batch must pass.

    Raises AdvmixError when x_adv (N,C,H,W) is not finite, leaves [0,1], or leaves the ball of the threat (None: an
    unknown one; the as-run variant keeps to no ball around x and is only measured).
    """
    delta = (x_adv - x).abs_()
    largest = float(delta.max())
    length = largest
    if threat is not None and threat.norm == "l2":
        length = float(_lengths(delta if delta.device.type == "mps" else delta.double()).max())
    low, high = float(x_adv.min()), float(x_adv.max())
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise AdvmixError(
            f"attacked images leave [0,1]: {low:.6g} to {high:.6g}",
            "nothing of this attack can be believed",
            code="budget",
        )
    if (
        threat is not None
        and threat.variant == "standard"
        and not length <= threat.eps + TOLERANCE * max(1.0, threat.eps)
    ):
        raise AdvmixError(
            f"attacked images leave the budget: {threat.norm} {length:.9g} is more than eps {threat.eps:.9g}",
            "nothing of this attack can be believed",
            code="budget",
        )
    return largest


def to_float(x: torch.Tensor) -> torch.Tensor:
    """Pixels as the models take them: uint8 0..255 becomes float32 in [0,1], floats stay."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x


@dataclasses.dataclass(frozen=True)
class AttackedSet:
    """What attacking a whole set gave: `x_adv` float32 (N,C,H,W) on the CPU, and (N,) flags on the CPU.

    `clean_correct` is right before the attack, `robust` right before it and after it.
    """

    x_adv: torch.Tensor
    clean_correct: torch.Tensor
    robust: torch.Tensor
    linf_max: float


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

    `on_batch` is called with the number of images done. Raises as `attack` does.
    """
    random = generators(x.device, seed, threat)
    x_adv = torch.empty(x.shape, dtype=torch.float32)
    clean, robust = torch.empty(len(x), dtype=torch.bool), torch.empty(len(x), dtype=torch.bool)
    largest = 0.0
    for begin in range(0, len(x), batch_size):
        part = slice(begin, begin + batch_size)
        pixels, labels = to_float(x[part]), y[part]
        attacked, success = attack(model, pixels, labels, threat, random)
        with frozen(model):
            right = ~_outcome(model, pixels, labels)[1]
        x_adv[part], clean[part], robust[part] = attacked.cpu(), right.cpu(), (right & ~success).cpu()
        largest = max(largest, float((attacked - pixels).abs_().max()))
        on_batch(len(labels))
    return AttackedSet(x_adv, clean, robust, largest)
