"""Single-step adversarial training from random starts. Source: Wong, Rice and Kolter 2020."""

from __future__ import annotations

import dataclasses

from advmix_cli.methods.base import Adversarial, Batch, Prepared, change


class FgsmRs(Adversarial):
    """The (mixed) loss on images after one step from a random start.

    delta = uniform(-eps, eps)
    delta = (delta + alpha * grad(cross_entropy(model(x + delta), y)).sign()).clamp(-eps, eps)
    loss = soft_loss(*forward_mixed(model, (x + delta).clamp(0, 1), soft_labels(y), draw))

    alpha is 1.25 eps. It may overfit to its one step: training compares FGSM and PGD on the validation images, and goes
    back to the best epoch where PGD's figure falls by half of its best.
    """

    def prepare(self, batch: Batch) -> Prepared:
        """The step."""
        full = self.adversary.at(batch.done)
        threat = dataclasses.replace(full, steps=1, alpha=self.option["alpha"] * full.eps or 1.0, random_start=True)
        x_adv = self.attacked(batch, threat)
        return self.with_draw({"x": x_adv, **self.labels(batch)}, batch.draw(), change(batch.x, x_adv))
