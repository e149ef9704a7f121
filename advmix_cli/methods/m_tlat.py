"""Mixup with targeted labels in adversarial training. Source: Laugros, Caplier and Ospici 2020 (M-TLAT)."""

from __future__ import annotations

from typing import Any

import torch

from advmix_cli import draws
from advmix_cli.attacks.common import frozen, gradient, lengths, objective
from advmix_cli.methods.base import Adversarial, Batch, Prepared, Result, Tensor, change


class MTlat(Adversarial):
    """The loss on a mixture after one step towards a random other class, which gets a share of the label.

    x_mix, t = mix(x, x[perm], lam), mix(soft_labels(y), soft_labels(y)[perm], lam)
    target = a random class other than y
    x_adv = (x_mix - eps * grad(cross_entropy(model(x_mix), target)).sign()).clamp(0, 1)
    loss = soft_loss(model(x_adv), (1 - weight) * t + weight * one_hot(target))

    The source writes one symbol for eps and weight: 0, the default, stands for eps here.
    """

    def prepare(self, batch: Batch) -> Prepared:
        """The mixture, and the step."""
        threat, draw = self.adversary.at(batch.done), batch.draw()
        assert draw is not None
        x, targets = draw.mixed(batch.x), draw.mixed(self.targets(batch.y))
        step = 1 + (draws.uniform(batch.index, (1,), batch.seed, "target")[:, 0] * (self.classes - 1)).long()
        target = (batch.y + step) % self.classes
        with frozen(self.model):
            slope, _, _ = gradient(self.model, x, objective("ce", batch.y, target), threat.precision)
        way = slope.sign() if threat.norm == "linf" else slope / lengths(slope)
        x_adv = (x + threat.eps * way).clamp(0, 1)
        weight = self.option["label-weight"] or min(threat.eps, 1.0)
        targets = targets * (1 - weight) + weight * torch.nn.functional.one_hot(target, self.classes)
        return Prepared("m-tlat", {"x": x_adv, "targets": targets}, change(x, x_adv))

    def loss(self, key: Any, *, x: Tensor, targets: Tensor) -> Result:
        """The loss after the step."""
        return self.on(x, targets)
