"""Soft labels, mixup at the input of a stage, and losses against soft targets."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from advmix_cli import world
from advmix_cli.config import TrainSettings, check_sigma
from advmix_cli.errors import UsageError, nearest
from advmix_cli.gathering import whole
from advmix_cli.models.normalize import inner
from advmix_cli.models.stages import stages as find_stages
from advmix_cli.runtime import generator, python_random
from advmix_cli.settings import require


def soft_labels(y: torch.Tensor, classes: int, sigma: float = 0.0) -> torch.Tensor:
    """Labels (N,) as targets (N,classes): 1 - (classes-1) sigma for the right class, sigma for each other.

    With sigma 0 these are one-hot labels; with any sigma they are label smoothing of classes * sigma (the
    report's section 3.4.1). Raises UsageError when the right class would get no more than the others.
    """
    check_sigma(sigma, classes)
    targets = torch.full((len(y), classes), sigma, device=y.device)
    return targets.scatter_(1, y[:, None], 1 - (classes - 1) * sigma)


def mix(a: torch.Tensor, b: torch.Tensor, lam: float | torch.Tensor) -> torch.Tensor:
    """lam a + (1 - lam) b, exactly a or b at the ends. Source: Zhang et al. 2018 (mixup)."""
    return a * lam + b * (1 - lam)


@dataclasses.dataclass(frozen=True)
class Draw:
    """How one batch is mixed: at the input of `stage`, with its copy shuffled by `perm`, in proportion `lam`.

    `perm` (N,) is that of the whole batch, of which a rank has only some rows.
    """

    lam: float | torch.Tensor
    stage: int | str
    perm: torch.Tensor

    def shuffled(self, x: torch.Tensor) -> torch.Tensor:
        """The copy of what this process has of a batch: rows of the whole."""
        ranks = world.current()
        return whole(ranks, x, len(self.perm))[ranks.rows(self.perm)]

    def mixed(self, x: torch.Tensor) -> torch.Tensor:
        """What this process has of a batch, mixed with its copy."""
        return mix(x, self.shuffled(x), self.lam)


class Mixer:
    """Draws how the batches of one epoch are mixed: a lambda, a stage and a shuffle each. None without mixing."""

    def __init__(self, settings: TrainSettings, epoch: int, device: torch.device) -> None:
        self._settings = settings
        self._random = python_random(settings.seed, "mix", epoch)
        self._shuffle, self._device = generator("cpu", settings.seed, "shuffle", epoch), device

    def draw(self, n: int) -> Draw | None:
        """The next draw, for a batch of n: lambda ~ Beta(alpha, alpha), the stage uniform over `mix_stages`."""
        if self._settings.mix == "none":
            return None
        alpha = self._settings.mix_alpha
        return Draw(
            lam=self._random.betavariate(alpha, alpha),
            stage=self._random.choice(self._settings.mix_stages),
            perm=torch.randperm(n, generator=self._shuffle).to(self._device, non_blocking=True),
        )


def stages(model: nn.Module) -> tuple[str, ...]:
    """The places in the model where it can be mixed but for the image, which is stage 0: paths of modules within it."""
    own = inner(model)
    prefix = "" if own is model else "network."
    return tuple(prefix + path for path in find_stages(own))


def places(model: nn.Module, asked: Sequence[int | str]) -> dict[int | str, nn.Module | None]:
    """The module at whose input each of the asked stages is; None for stage 0, whose input is the image.

    A stage is a number, counted from the image over `stages(model)`, or the path of a module in the network, such as
    `layer1` or `layer2.0`. Raises UsageError for one that is not there.
    """
    own, there = inner(model), stages(model)
    found: dict[int | str, nn.Module | None] = {}
    for stage in asked:
        if stage == 0:
            found[stage] = None
        elif isinstance(stage, int):
            require(
                0 < stage <= len(there),
                f"there is no stage {stage} to mix at: the network has {len(there)} beside its image, stage 0",
                "name the module instead, for example --mix-stages 0,layer1; see advmix models",
            )
            found[stage] = model.get_submodule(there[stage - 1])
        else:
            try:
                found[stage] = own.get_submodule(stage)
            except AttributeError:
                known = [name for name, _ in own.named_modules() if name]
                raise UsageError(f"the network has no module {stage}", nearest(stage, known)) from None
            require(bool(stage), "a stage has no name", "for example --mix-stages layer1,layer2.0")
    return found


@contextlib.contextmanager
def _mixed_input(module: nn.Module, draw: Draw) -> Iterator[list[bool]]:
    """Within, what the module is first called with is mixed with its shuffled copy; gives whether it was called."""
    called: list[bool] = []

    def mixed(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if called:
            return None
        called.append(True)
        x = inputs[0] if inputs else None
        if not isinstance(x, torch.Tensor) or x.shape[:1] != world.current().rows(draw.perm).shape:
            raise UsageError("a stage's first input is no batch of representations", "mix at another: --mix-stages")
        return draw.mixed(x), *inputs[1:]

    handle = module.register_forward_pre_hook(mixed)
    try:
        yield called
    finally:
        handle.remove()


def forward_mixed(
    model: nn.Module,
    x: torch.Tensor,
    targets: torch.Tensor,
    draw: Draw | None,
    partner: torch.Tensor | None = None,
    found: Mapping[int | str, nn.Module | None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N,classes) of the mixed batch and its mixed targets (N,classes).

    At stage 0 this is mixup of the images, at a later one manifold mixup (Verma et al. 2019), at the input of whatever
    module that is; with no draw the plain forward pass. With a `partner`, a batch like x, the shuffled copy is the
    partner's instead of x's own and the mixing is at the input: partial PGD, where x is attacked and the partner clean.
    `found` are the `places` of a run, which are looked up once and not at each batch.
    """
    if draw is None:
        return model(x), targets
    if partner is not None:
        return model(mix(x, draw.shuffled(partner), draw.lam)), draw.mixed(targets)
    mixed = draw.mixed(targets)
    module = (places(model, (draw.stage,)) if found is None else found)[draw.stage]
    if module is None:
        return model(draw.mixed(x)), mixed
    with _mixed_input(module, draw) as called:
        logits = model(x)
    if not called:
        raise UsageError(f"stage {draw.stage} takes no part in the network", "mix at another: --mix-stages")
    return logits, mixed


def soft_loss(logits: torch.Tensor, targets: torch.Tensor, kind: str) -> torch.Tensor:
    """The mean loss in nats against soft targets (N,classes).

    `cross-entropy`, or `bce-softmax`: binary cross-entropy of the softmax output, mean over all entries, as the
    report's code has it.
    """
    if kind == "cross-entropy":
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy(logits.float().softmax(1), targets)
