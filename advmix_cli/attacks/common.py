"""What every attack needs: a frozen model, its logits and gradients, losses, and the check of a result."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from advmix_cli.errors import AdvmixError
from advmix_cli.passes import Passes, count
from advmix_cli.runtime import autocast, going_on
from advmix_cli.threats import Threat

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


def lengths(x: torch.Tensor) -> torch.Tensor:
    """L2 norms (N,1,1,1), at least 1e-12."""
    return x.flatten(1).square().sum(1).sqrt().clamp_(min=1e-12).view(-1, 1, 1, 1)


def divisors(x: torch.Tensor) -> torch.Tensor:
    """L2 norms (N,1,1,1) that can be divided by, as the standard ensemble's authors make them: plus 1e-12."""
    return x.square().flatten(1).sum(-1).sqrt().view(-1, 1, 1, 1) + 1e-12


def into_ball(x_adv: torch.Tensor, x: torch.Tensor, eps: float | torch.Tensor, norm: str) -> torch.Tensor:
    """The nearest points within the budget around x, then within [0,1]."""
    if norm == "linf":
        return torch.minimum(torch.maximum(x_adv, x - eps), x + eps).clamp_(0, 1)
    delta = x_adv - x
    length = divisors(delta)
    return (x + delta / length * (length - 1e-12).clamp(max=eps)).clamp_(0, 1)


def distance(x: torch.Tensor, y: torch.Tensor, norm: str) -> torch.Tensor:
    """How far apart samples (N,C,H,W) are in `norm`, (N,)."""
    delta = (x - y).flatten(1)
    return delta.abs().amax(1) if norm == "linf" else delta.square().sum(1).sqrt()


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


def fewest(model: nn.Module) -> int:
    """Images that a CPU thread computes at least at a time: other routines compute fewer, and round otherwise.

    Of linear layers it is seen on this machine how many take the routine of many, and torch gives a 1x1 convolution in
    steps of 1 to another library below 16. Threads within a layer would divide the images among them, and come upon too
    few however many there are.
    """
    least = 4
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride == layer.dilation == (1, 1):
            least = _ENOUGH
        if isinstance(layer, nn.Linear):
            least = max(least, _fewest_of(layer.in_features, layer.out_features, layer.bias is not None))
    return least


_ENOUGH = 16
"""Images of which no layer was seen to take the routine of few."""


@functools.cache
def _fewest_of(inputs: int, outputs: int, bias: bool) -> int:
    """The least number of rows from 4 on that a linear layer of that size computes as it does many, there and back.

    In one thread, as attacks compute.
    """
    draw = torch.Generator().manual_seed(0)
    weight, offset = torch.rand(outputs, inputs, generator=draw), torch.rand(outputs, generator=draw) if bias else None
    x = torch.rand(4 * _ENOUGH, inputs, generator=draw).requires_grad_()

    def there_and_back(n: int) -> torch.Tensor:
        with torch.enable_grad():
            said = F.linear(x[:n], weight, offset)
            (slope,) = torch.autograd.grad((said * weight[:, 0]).sum(), x)
        return torch.cat([said.detach(), slope[:n]], 1)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        many = there_and_back(len(x))
        differing = (n for n in range(_ENOUGH - 1, 3, -1) if not torch.equal(there_and_back(n), many[:n]))
        return next(differing, 3) + 1
    finally:
        torch.set_num_threads(before)


def logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The model's logits (N,classes) of x (N,C,H,W).

    On a CPU too few are filled up, so that in one thread an image's logits and gradient are the same to the bit in
    whatever batch it is.
    """
    going_on()
    n = len(x)
    count(Passes(n))
    few = x.device.type == "cpu" and 0 < n < _ENOUGH and not model.training  # training mode counts who is there
    missing = fewest(model) - n if few else 0
    if missing <= 0:
        result: torch.Tensor = model(x)
        return result
    filled = torch.cat([x, x[:1].detach().expand(missing, *x.shape[1:])])
    return model(filled)[:n]  # type: ignore[no-any-return]


class Verdicts(NamedTuple):
    """Of each sample, (N,): its cross-entropy in nats, whether it is misclassified, and by how much it is not.

    That is the logit of the right class less the highest other.
    """

    losses: torch.Tensor
    wrong: torch.Tensor
    leads: torch.Tensor


def outcome(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Verdicts:
    """What a model says of x (N,C,H,W) with labels y (N,)."""
    with torch.no_grad():
        return verdicts(logits(model, x), y)


def verdicts(said: torch.Tensor, y: torch.Tensor) -> Verdicts:
    """The same of logits (N,classes)."""
    return Verdicts(F.cross_entropy(said, y, reduction="none"), said.argmax(1) != y, -margin(said, y))


def likeliest(said: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The classes (N,classes) by logits, the likeliest wrong one first and the right one last."""
    return said.scatter(1, y[:, None], -torch.inf).sort(dim=1, descending=True, stable=True).indices


def gradient(
    model: nn.Module, x: torch.Tensor, loss: Loss, precision: str = "float32"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(gradient of each sample's loss by its pixels, losses, logits) at x (N,C,H,W); the model must be frozen."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        with autocast(x.device, precision):
            said = logits(model, x).float()
        losses = loss(said)
        (slope,) = torch.autograd.grad(losses.sum(), x)
    count(Passes(backward=len(x)))
    return slope, losses.detach(), said.detach()


@dataclasses.dataclass(frozen=True)
class Change:
    """The largest change that attacked images were given: of any pixel, and of any image in L2."""

    linf: float = 0.0
    l2: float = 0.0

    def beside(self, other: Change) -> Change:
        """The larger of both."""
        return Change(max(self.linf, other.linf), max(self.l2, other.l2))


def perturbation(x: torch.Tensor, x_adv: torch.Tensor, threat: Threat | None) -> Change:
    """How far x_adv lies from x, after the checks that every attacked batch must pass.

    Raises AdvmixError when x_adv (N,C,H,W) is not finite, leaves [0,1], or leaves the ball of the threat (None: an
    unknown one; the as-run variant keeps to no ball around x and is only measured).
    """
    delta = x_adv - x
    exact = delta.double() if threat is not None and threat.norm == "l2" and delta.device.type != "mps" else delta
    change = Change(float(delta.abs().max()), float(lengths(exact).max()) if bool((delta != 0).any()) else 0.0)
    low, high = float(x_adv.min()), float(x_adv.max())
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise AdvmixError(
            f"attacked images leave [0,1]: {low:.6g} to {high:.6g}",
            "nothing of this attack can be believed",
            code="budget",
        )
    if threat is None or threat.variant != "standard":
        return change
    length = change.linf if threat.norm == "linf" else change.l2
    if not length <= threat.eps + TOLERANCE * max(1.0, threat.eps):
        raise AdvmixError(
            f"attacked images leave the budget: {threat.norm} {length:.9g} is more than eps {threat.eps:.9g}",
            "nothing of this attack can be believed",
            code="budget",
        )
    return change


def to_float(x: torch.Tensor) -> torch.Tensor:
    """Pixels as the models take them: uint8 0..255 becomes float32 in [0,1], floats stay."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x
