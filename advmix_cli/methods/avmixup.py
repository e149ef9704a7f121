"""Adversarial vertex mixup. Source: Lee, Lee and Yoon 2020."""

from __future__ import annotations

from typing import Any

from advmix_cli import draws
from advmix_cli.methods.base import Adversarial, Batch, Prepared, Result, Tensor, change
from advmix_cli.mixing import mix, soft_labels


class AvMixup(Adversarial):
    """The loss on a point between the clean image and a vertex beyond the attacked one, with labels between theirs.

    x_adv = pgd(model, x, y)
    vertex = (x + gamma * (x_adv - x)).clamp(0, 1)
    a = uniform(0, 1)  # for each image
    x_mix = a * x + (1 - a) * vertex
    t = a * smoothed(y, 1.0) + (1 - a) * smoothed(y, 0.1)  # the right class's share; the others have the rest
    loss = soft_loss(model(x_mix), t)

    It looks good under PGD and falls under stronger attacks: its labels flatten the loss around the images.
    """

    def prepare(self, batch: Batch) -> Prepared:
        """The attack, and where between."""
        x = batch.x
        x_adv = self.attacked(batch, self.adversary.at(batch.done))
        vertex = (x + self.option["gamma"] * (x_adv - x)).clamp(0, 1)
        a = draws.uniform(batch.index, (1,), batch.seed, "vertex")
        between = mix(x, vertex, a.view(-1, 1, 1, 1))
        return self.with_draw({"x": between, "y": batch.y, "a": a}, batch.draw(), change(x, x_adv))

    def loss(self, key: Any, *, x: Tensor, y: Tensor, a: Tensor, lam: Any, perm: Any) -> Result:
        """The loss between."""
        wrong = self.classes - 1
        clean, vertex = (
            soft_labels(y, self.classes).mul(share - (1 - share) / wrong).add((1 - share) / wrong)
            for share in (self.option["clean-label"], self.option["vertex-label"])
        )
        return self.on(x, mix(clean, vertex, a), self.drawn(key, lam, perm))
