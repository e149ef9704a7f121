"""Adversarial training with PGD: Algorithm 1 of the report, and Algorithm 2, partial PGD."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from advmix_cli.methods.base import Adversarial, Batch, Prepared, Result, Tensor, change
from advmix_cli.methods.climbing import ascend
from advmix_cli.mixing import Draw
from advmix_cli.threats import Threat


class Pgd(Adversarial):
    """The (mixed) loss on attacked images. Source: Madry et al. 2018; partial PGD mixes them with shuffled clean ones.

    In the order `attack-mix` images are attacked with their labels, then mixed:

        x_adv = pgd(model, x, y)
        loss = soft_loss(*forward_mixed(model, x_adv, soft_labels(y), draw, partner=x if partial else None))

    in the order `mix-attack` the mixture is attacked with its mixed labels (Rice et al. 2020):

        x_mix, t = mix(x, x[perm], lam), mix(soft_labels(y), soft_labels(y)[perm], lam)
        loss = soft_loss(model(pgd(model, x_mix, t)), t)
    """

    def prepare(self, batch: Batch) -> Prepared:
        """The attack."""
        threat, draw = self.adversary.at(batch.done), batch.draw()
        if self.adversary.mix_order == "mix-attack" or batch.other is not None:
            return self._mixed_first(batch, threat, draw)
        x_adv = self.attacked(batch, threat)
        partner = batch.x if self.adversary.policy == "partial-pgd" else None
        inputs = {"x": x_adv, **self.labels(batch)}
        return self.with_draw(inputs, draw, change(batch.x, x_adv), partner=partner)

    def _mixed_first(self, batch: Batch, threat: Threat, draw: Draw | None) -> Prepared:
        x, targets = batch.x, self.targets(batch.y, batch.other, batch.share)
        if draw is not None:
            x, targets = draw.mixed(x), draw.mixed(targets)
        x_adv = ascend(self.model, x, threat, "soft", cross_entropy, targets, batch)
        return Prepared("soft", {"x": x_adv, "targets": targets}, change(x, x_adv))

    def loss(self, key: Any, **inputs: Any) -> Result:
        """The loss on what was prepared."""
        return self.on(**inputs) if key == "soft" else self.mixed(key, **inputs)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Each sample's, in nats (N,), against soft targets (N,classes)."""
    return F.cross_entropy(logits, targets, reduction="none")
