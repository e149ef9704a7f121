"""What every attack needs: a frozen model, starts, losses, the samples still standing, and the check of a result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn

from advmix_cli.config import Threat
from advmix_cli.errors import AdvmixError
from advmix_cli.runtime import autocast, generator

TOLERANCE = 1e-6
"""How far float32 rounding may carry a perturbation beyond eps, for eps of at most 1; in proportion above."""

Loss = Callable[[torch.Tensor], torch.Tensor]
"""From logits (N,classes) to what each sample's attacker maximises (N,)."""


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
    """One generator for each try (restarts times targets), so that the first are the same however many follow."""
    return [generator(device, seed, "attack", turn) for turn in range(threat.tries)]


def starts(x: torch.Tensor, threat: Threat, random: torch.Generator) -> torch.Tensor | None:
    """Uniform points of the unit ball, (N,C,H,W), drawn sample by sample: batch sizes do not matter."""
    if not threat.random_start:
        return None
    if threat.norm == "linf":
        return torch.empty_like(x).uniform_(-1, 1, generator=random)
    # Uniform in an L2 ball of d dimensions: the first d coordinates of a point on the sphere of d + 2.
    d = x[0].numel()
    # torch draws normal numbers in groups of 16: a sample's must fill whole groups to be its own in any batch.
    points = torch.empty((len(x), -(-(d + 2) // 16) * 16), device=x.device).normal_(generator=random)[:, : d + 2]
    return (points / points.square().sum(1, keepdim=True).sqrt())[:, :d].reshape(x.shape)


def lengths(x: torch.Tensor) -> torch.Tensor:
    """L2 norms (N,1,1,1), at least 1e-12."""
    return x.flatten(1).square().sum(1).sqrt().clamp_(min=1e-12).view(-1, 1, 1, 1)


def distance(x: torch.Tensor, y: torch.Tensor, norm: str) -> torch.Tensor:
    """How far apart samples (N,C,H,W) are in `norm`, (N,)."""
    delta = (x - y).flatten(1)
    return delta.abs().amax(1) if norm == "linf" else delta.square().sum(1).sqrt()


def into_ball(x_adv: torch.Tensor, x: torch.Tensor, threat: Threat) -> torch.Tensor:
    """The nearest points within the budget around x, then within [0,1]."""
    if threat.norm == "linf":
        return (x + (x_adv - x).clamp_(-threat.eps, threat.eps)).clamp_(0, 1)
    delta = x_adv - x
    return (x + delta * (threat.eps / lengths(delta)).clamp_(max=1)).clamp_(0, 1)


def margin(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The highest wrong logit minus the right one, (N,): positive where misclassified. Source: Carlini, Wagner 2017."""
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - logits.gather(1, y[:, None])[:, 0]


def objective(kind: str, y: torch.Tensor, target: torch.Tensor | None) -> Loss:
    """What to maximise: `ce` cross-entropy, `cw` the margin, `dlr` the margin in units of the logits' own spread.

    With a target (N,) it is the one class to be driven to instead of any wrong one. DLR is invariant to a shift and
    scale of the logits. Source: Croce and Hein 2020, equations 6 and 7; it takes at least three classes, four when
    targeted.
    """
    if kind == "ce":
        if target is None:
            return lambda logits: F.cross_entropy(logits, y, reduction="none")
        return lambda logits: -F.cross_entropy(logits, target, reduction="none")

    def margin_loss(logits: torch.Tensor) -> torch.Tensor:
        if target is None:
            gap = margin(logits, y)
        else:
            gap = (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]
        if kind == "cw":
            return gap
        ordered = logits.sort(1, descending=True).values
        spread = ordered[:, 0] - (ordered[:, 2] if target is None else (ordered[:, 2] + ordered[:, 3]) / 2)
        return gap / (spread + 1e-12)

    return margin_loss


def outcome(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The cross-entropy of each sample and whether it is misclassified, (N,) both."""
    with torch.no_grad():
        logits = model(x)
        return F.cross_entropy(logits, y, reduction="none"), logits.argmax(1) != y


def gradient(
    model: nn.Module, x: torch.Tensor, loss: Loss, precision: str = "float32"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(gradient of each sample's loss by its pixels, losses, logits) at x (N,C,H,W); the model must be frozen."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        with autocast(x.device, precision):
            logits = model(x).float()
        losses = loss(logits)
        (slope,) = torch.autograd.grad(losses.sum(), x)
    return slope, losses.detach(), logits.detach()


class Standing:
    """The samples of a batch that an attack has yet to break.

    A broken one keeps its first winning image and is dropped: it costs nothing more, and its verdict is what it would
    be in the end. On a GPU, where looking means waiting, they are dropped every tenth step only.
    """

    def __init__(self, x: torch.Tensor) -> None:
        self.found, self._index = x.clone(), torch.arange(len(x), device=x.device)
        self._won = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self._every = 1 if x.device.type == "cpu" else 10

    def mark(self, fooled: torch.Tensor, x: torch.Tensor) -> None:
        """Of the samples still there these are misclassified at x."""
        fresh = fooled & ~self._won
        if self._every == 1:
            if bool(fresh.any()):
                self.found[self._index[fresh]] = x[fresh]
        else:
            kept = self.found[self._index]
            self.found[self._index] = torch.where(fresh.view(-1, 1, 1, 1), x, kept)
        self._won |= fooled

    def shrink(self, step: int) -> torch.Tensor | None:
        """After that step (from 1): which samples of those there to go on with, None for all."""
        if step % self._every or not bool(self._won.any()):
            return None
        keep = ~self._won
        self._index, self._won = self._index[keep], self._won[keep]
        return keep

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        """All images of the batch: the winning ones, and of the others where they stand now, x."""
        keep = ~self._won
        self.found[self._index[keep]] = x[keep]
        return self.found


def perturbation(x: torch.Tensor, x_adv: torch.Tensor, threat: Threat | None) -> float:
    """The largest |x_adv - x| of any pixel, after the checks that every attacked batch must pass.

    Raises AdvmixError when x_adv (N,C,H,W) is not finite, leaves [0,1], or leaves the ball of the threat (None: an
    unknown one; the as-run variant keeps to no ball around x and is only measured).
    """
    delta = (x_adv - x).abs_()
    largest = float(delta.max())
    length = largest
    if threat is not None and threat.norm == "l2":
        length = float(lengths(delta if delta.device.type == "mps" else delta.double()).max())
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
