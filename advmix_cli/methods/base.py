"""What a way of training is, and the standard one: no attack."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import nn

from advmix_cli.attacks import adversarial_batch
from advmix_cli.config import Adversary, TrainSettings
from advmix_cli.graphs import Value
from advmix_cli.mixing import Draw, forward_mixed, mix, places, soft_labels, soft_loss
from advmix_cli.runtime import autocast
from advmix_cli.threats import Threat
from advmix_cli.ways import METHODS

Tensor = torch.Tensor
Result = tuple[Tensor, Tensor, Tensor]
"""The loss, the logits (N,classes), and the targets (N,classes) that they are compared with."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images x (N,C,H,W) in [0,1] with labels y (N,), and what random numbers of theirs follow from.

    `index` (N,) are the images' numbers in the training set, `seed` is the epoch's, `done` the share of all steps
    after this one. `draw` draws anew how to mix, None without mixing. `other` (N,) and `share` (N,1) are the labels of
    what was pasted into the images, and what is left of their own; None where nothing was.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    seed: int
    done: float
    draw: Callable[[], Draw | None]
    other: Tensor | None = None
    share: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What the loss takes: tensors and numbers by name, and a key that tells apart losses of other operations.

    `change` is the largest change of a pixel, None where nothing was attacked.
    """

    key: Hashable
    inputs: dict[str, Value]
    change: Tensor | None = None


class Method:
    """Standard training: the (mixed) loss on the images as they are.

    Equivalent: `soft_loss(*forward_mixed(model, x, soft_labels(y)))`.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings, classes: int) -> None:
        self.model, self.settings, self.classes = model, settings, classes
        self.places: Mapping[int | str, nn.Module | None] = places(model, settings.mix_stages)

    def prepare(self, batch: Batch) -> Prepared:
        """What the loss on a batch takes."""
        return self.with_draw({"x": batch.x, **self.labels(batch)}, batch.draw())

    def loss(self, key: Any, *args: Any, **inputs: Any) -> Result:
        """The loss on what was prepared; neither draws random numbers nor waits for the device."""
        return self.mixed(key, **inputs)

    def told(self) -> dict[str, Any]:
        """What it has to say of the epoch that ends, for the history."""
        return {}

    def labels(self, batch: Batch) -> dict[str, Value]:
        """The labels among the inputs."""
        return {"y": batch.y, "other": batch.other, "share": batch.share}

    def with_draw(
        self, inputs: dict[str, Value], draw: Draw | None, change: Tensor | None = None, **more: Value
    ) -> Prepared:
        """Inputs, with how they are mixed."""
        stage, lam, perm = (None, None, None) if draw is None else (draw.stage, draw.lam, draw.perm)
        return Prepared(stage, inputs | {"lam": lam, "perm": perm} | more, change)

    def targets(self, y: Tensor, other: Tensor | None = None, share: Tensor | None = None) -> Tensor:
        """Labels as targets (N,classes), softened, and shared where something was pasted in."""
        own = soft_labels(y, self.classes, self.settings.soft_label)
        if other is None or share is None:
            return own
        return mix(own, soft_labels(other, self.classes, self.settings.soft_label), share)

    def mixed(
        self,
        stage: int | str | None,
        *,
        x: Tensor,
        y: Tensor,
        lam: float | Tensor | None,
        perm: Tensor | None,
        partner: Tensor | None = None,
        other: Tensor | None = None,
        share: Tensor | None = None,
    ) -> Result:
        """The loss on a batch that is mixed at a stage, None: not at all."""
        return self.on(x, self.targets(y, other, share), self.drawn(stage, lam, perm), partner)

    def drawn(self, stage: int | str | None, lam: float | Tensor | None, perm: Tensor | None) -> Draw | None:
        """A draw from its parts."""
        return None if stage is None or lam is None or perm is None else Draw(lam, stage, perm)

    def on(self, x: Tensor, targets: Tensor, draw: Draw | None = None, partner: Tensor | None = None) -> Result:
        """The loss on images against targets (N,classes), mixed as drawn."""
        with autocast(x.device, self.settings.precision):
            logits, targets = forward_mixed(self.model, x, targets, draw, partner, self.places)
        return soft_loss(logits.float(), targets, self.settings.loss), logits, targets


class Adversarial(Method):
    """What the ways of adversarial training share."""

    def __init__(self, model: nn.Module, settings: TrainSettings, classes: int) -> None:
        super().__init__(model, settings, classes)
        assert settings.adversary is not None
        self.adversary: Adversary = settings.adversary
        self.option = dict(self.adversary.options)

    def attacked(self, batch: Batch, threat: Threat) -> Tensor:
        """The images, attacked by PGD."""
        mode = self.adversary.mode
        return adversarial_batch(self.model, batch.x, batch.y, threat, seed=batch.seed, index=batch.index, mode=mode)


def change(x: Tensor, x_adv: Tensor) -> Tensor:
    """The largest change of a pixel, ()."""
    return (x_adv - x).abs().max()


def chosen(model: nn.Module, settings: TrainSettings, classes: int) -> Method:
    """The way of training that the settings name."""
    if settings.adversary is None:
        return Method(model, settings, classes)
    module, _, name = METHODS[settings.adversary.method].source.partition(":")
    return getattr(importlib.import_module(module), name)(model, settings, classes)  # type: ignore[no-any-return]
