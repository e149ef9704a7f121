"""Certified training: losses on bounds, which hold for every image of a ball and not only for one that was found."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from advmix_cli import world
from advmix_cli.bounds import intervals
from advmix_cli.bounds.fusing import fused
from advmix_cli.bounds.layers import Affine, Interval, ReLU
from advmix_cli.bounds.trace import Traced, trace
from advmix_cli.config import TrainSettings
from advmix_cli.gathering import whole
from advmix_cli.graphs import Value
from advmix_cli.methods.base import Adversarial, Batch, Prepared, Result, Tensor, change
from advmix_cli.methods.recycling import recycle
from advmix_cli.mixing import Draw, mix
from advmix_cli.runtime import generator

_TIGHTNESS = 0.5


def initialise(model: nn.Module, seed: int, spread: float) -> None:
    """Weights drawn so that intervals do not grow from layer to layer: normal, of deviation spread sqrt(2 pi) / fan-in.

    Source: Shi et al. 2021, with a spread of 1; with 0 the network is left as it is. Biases are left in any case. A
    network with batch norm is none this holds for, and is left.
    """
    random = generator("cpu", seed, "initialise")
    if not spread or any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            drawn = torch.randn(module.weight.shape, generator=random) * (spread * math.sqrt(2 * math.pi) / fan_in)
            with torch.no_grad():
                module.weight.copy_(drawn)


class Bounded(Adversarial):
    """What the ways of certified training share: eps grows from 0, and the loss on the bounds.

    The bounds' loss is that of the worst logits, which are minus the lower bounds of the margins:

        low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
        loss = cross_entropy(-margins(intervals of the network within low and high), soft_labels(y))

    With the option `gce`, q, that loss is the generalised cross-entropy from when eps has grown (Zhang and Sabuncu
    2018): (1 - exp(-q * cross_entropy)) / q of each image, which does not grow without bound for those that cannot be
    proved. With mixup the ball is around the mixture, and the loss the mixture of the losses with either label. Batch
    norm is bounded with its running statistics. `tight` weighs a regulariser while eps grows (Shi et al. 2021): the
    mean over ReLUs of max(0, 0.5 - the mean radius of the images, normalised, / the mean radius there) / 0.5, times
    what is missing of eps. Until the share `recycle` of all steps each epoch begins with `recycling.recycle`.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings, classes: int) -> None:
        super().__init__(model, settings, classes)
        self.network: Traced | None = None
        self._epoch: int | None = None
        self._recycled = 0

    def prepare(self, batch: Batch) -> Prepared:
        """How far eps has grown, and what `around` makes of that."""
        if self.network is None:
            self._layers = trace(self.model, tuple(batch.x.shape[1:]))
            self.network = fused(self._layers)
        if batch.seed != self._epoch:
            self._epoch = batch.seed
            due = batch.done <= self.option["recycle"]
            self._recycled = recycle(self._layers, batch.x, batch.seed) if due else 0
        grown = self.grown(batch.done)
        draw = batch.draw()
        centre = batch.x if draw is None else draw.mixed(batch.x)
        x_adv, low, high = self.around(dataclasses.replace(batch, x=centre), grown)
        inputs: dict[str, Value] = {
            "x": centre if x_adv is None else x_adv, "low": low, "high": high, "y": batch.y,
            "kappa": self.kappa(grown), "tight": self.option["tight"] * (1 - grown), "grown": grown,
        }  # fmt: skip
        return self.with_draw(inputs, draw, None if x_adv is None else change(centre, x_adv))

    def told(self) -> dict[str, Any]:
        """How many channels began anew."""
        return {"recycled": self._recycled} if self._recycled else {}

    def grown(self, done: float) -> float:
        """The share of eps after that share of all steps: a straight line between warm-up and ramp."""
        begin, end = self.option["warmup"], max(self.option["ramp"], self.option["warmup"] + 1e-6)
        return min(max((done - begin) / (end - begin), 0.0), 1.0)

    def eps(self, grown: float) -> float:
        """That of the bounds."""
        return self.option["wider"] * self.adversary.threat.eps * grown

    def kappa(self, grown: float) -> float:
        """The share of the loss that is not the bounds'."""
        raise NotImplementedError

    def around(self, batch: Batch, grown: float) -> tuple[Tensor | None, Tensor, Tensor]:
        """(attacked images or None, lower ends, upper ends of what the bounds are to hold for)."""
        return (None, *intervals.Ball(batch.x, self.eps(grown)).box)

    def loss(
        self,
        key: Any,
        *,
        x: Tensor,
        low: Tensor,
        high: Tensor,
        y: Tensor,
        kappa: Any,
        tight: Any,
        grown: Any,
        lam: Any,
        perm: Any,
    ) -> Result:
        """Both parts of the loss, and the regularisers."""
        draw = self.drawn(key, lam, perm)
        targets = self.targets(y)
        mixed = targets if draw is None else draw.mixed(targets)
        usual, logits, _ = self.on(x, mixed)
        assert self.network is not None
        values = intervals.forward(self.network, (low, high))
        bounded = self._bounded(values, y, targets, draw, grown)
        loss = kappa * usual + (1 - kappa) * bounded
        if self.option["tight"]:
            loss = loss + tight * self._loose(values)
        if self.option["l1"]:
            weights = [each for each in self.model.parameters() if each.ndim > 1]
            loss = loss + self.option["l1"] * torch.stack([each.abs().sum() for each in weights]).sum()
        return loss, logits, mixed

    def _bounded(self, values: list[Interval], y: Tensor, targets: Tensor, draw: Draw | None, grown: Any) -> Tensor:
        own = self._worst(values, y, targets, grown)
        if draw is None:
            return own
        return mix(own, self._worst(values, draw.shuffled(y), draw.shuffled(targets), grown), draw.lam)

    def _worst(self, values: list[Interval], y: Tensor, targets: Tensor, grown: Any) -> Tensor:
        """The loss of the worst logits for those labels."""
        assert self.network is not None
        worst, q = -intervals.margins(self.network, values, y), self.option["gce"]
        if not q:
            return F.cross_entropy(worst, targets)
        each = F.cross_entropy(worst, targets, reduction="none")
        bounded = (1 - torch.exp(-q * each)) / q
        return torch.where(torch.as_tensor(grown, device=each.device) < 1, each, bounded).mean()

    def _loose(self, values: list[Interval]) -> Tensor:
        assert self.network is not None
        taken = self._taken()
        places = [taken, *(layer.inputs[0] for layer in self.network.layers if isinstance(layer, ReLU))]
        radii = torch.stack([(values[place][1] - values[place][0]).mean() for place in places])
        ranks = world.current()
        radii = whole(ranks, radii[None], ranks.size).mean(0).clamp(min=1e-6)
        return (_TIGHTNESS - radii[0] / radii[1:]).clamp(min=0).mean() / _TIGHTNESS

    def _taken(self) -> int:
        """The place of the images as the network takes them: normalised, where it does that first."""
        assert self.network is not None
        taken = 0
        for place, layer in enumerate(self.network.layers, 1):
            if not (isinstance(layer, Affine) and layer.apart and layer.inputs == (taken,)):
                break
            taken = place
        return taken


class Ibp(Bounded):
    """Interval bounds: kappa times the clean loss, which falls from 1 while eps grows, and the bounds' loss.

    loss = kappa * soft_loss(model(x), soft_labels(y)) + (1 - kappa) * bounds' loss
    """

    def kappa(self, grown: float) -> float:
        """From 1 to the option."""
        return 1 - (1 - self.option["kappa"]) * grown


class MtlIbp(Bounded):
    """PGD's loss and the bounds', weighted. Source: De Palma et al. 2024 (expressive losses).

    loss = (1 - weight) * soft_loss(model(pgd(model, x, y)), soft_labels(y)) + weight * bounds' loss
    """

    def kappa(self, grown: float) -> float:
        """What the bounds' weight leaves."""
        return 1 - self.option["weight"]

    def around(self, batch: Batch, grown: float) -> tuple[Tensor | None, Tensor, Tensor]:
        """The ball, and the images attacked within as much of the threat's."""
        threat = self.adversary.threat
        threat = dataclasses.replace(threat, eps=threat.eps * grown, alpha=threat.step_size * grown or 1.0)
        _, low, high = super().around(batch, grown)
        return self.attacked(batch, threat), low, high


class Sabr(Ibp):
    """Interval bounds of a small box around an attacked image, within the ball. Source: Mueller et al. 2023.

    radius = box * eps
    x_adv = pgd(model, x, y) within eps - radius
    loss = kappa * soft_loss(model(x_adv), soft_labels(y)) + (1 - kappa) * bounds' loss within
        (x_adv - radius).clamp(0, 1) and (x_adv + radius).clamp(0, 1)

    with kappa as in `Ibp`: theirs is 0 from the beginning, where a network may end with the same answer for all images.
    """

    def around(self, batch: Batch, grown: float) -> tuple[Tensor | None, Tensor, Tensor]:
        """The small box, and where it stands."""
        eps, threat = self.eps(grown), self.adversary.threat
        radius = self.option["box"] * eps
        left = max(eps - radius, 0.0)
        alpha = threat.step_size * left / threat.eps if threat.eps else 0.0
        x_adv = self.attacked(batch, dataclasses.replace(threat, eps=left, alpha=alpha or 1.0))
        return (x_adv, *intervals.Ball(x_adv, radius).box)
