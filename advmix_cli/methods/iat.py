"""Interpolated adversarial training. Source: Lamb et al. 2019."""

from __future__ import annotations

from typing import Any

from advmix_cli.methods.base import Adversarial, Batch, Prepared, Result, Tensor, change


class Iat(Adversarial):
    """Half the mixed loss on clean images, half the mixed loss on attacked ones, each with a draw of its own.

    x_adv = pgd(model, x, y)
    loss = (1 - weight) * soft_loss(*forward_mixed(model, x, soft_labels(y), draw))
         + weight * soft_loss(*forward_mixed(model, x_adv, soft_labels(y), other_draw))

    weight is 1/2. Images are attacked before they are mixed, with hard labels.
    """

    def prepare(self, batch: Batch) -> Prepared:
        """The attack, and two draws."""
        x_adv = self.attacked(batch, self.adversary.at(batch.done))
        one, other = (self.with_draw({}, batch.draw()) for _ in range(2))
        inputs = {"x": batch.x, "x_adv": x_adv, "y": batch.y, **one.inputs}
        inputs |= {"lam_adv": other.inputs["lam"], "perm_adv": other.inputs["perm"]}
        return Prepared((one.key, other.key), inputs, change(batch.x, x_adv))

    def loss(
        self, key: Any, *, x: Tensor, x_adv: Tensor, y: Tensor, lam: Any, perm: Any, lam_adv: Any, perm_adv: Any
    ) -> Result:
        """Both halves; accuracy is counted on the clean one."""
        clean, logits, targets = self.mixed(key[0], x=x, y=y, lam=lam, perm=perm)
        attacked, _, _ = self.mixed(key[1], x=x_adv, y=y, lam=lam_adv, perm=perm_adv)
        weight = self.option["weight"]
        return (1 - weight) * clean + weight * attacked, logits, targets
