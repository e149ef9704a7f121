"""TRADES: a clean loss and the divergence between clean and attacked. Source: Zhang et al. 2019."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from advmix_cli import draws
from advmix_cli.attacks.common import frozen
from advmix_cli.graphs import Value
from advmix_cli.methods.base import Adversarial, Batch, Prepared, Result, Tensor, change
from advmix_cli.methods.climbing import ascend
from advmix_cli.runtime import autocast

_JITTER = 1e-3


class Trades(Adversarial):
    """The (mixed) clean loss, plus beta times the divergence of the attacked images' distribution from the clean ones'.

    p = softmax(model(x))
    x_adv climbs kl_div(log_softmax(model(x_adv)), p), from x + 0.001 * normal noise
    loss = soft_loss(*forward_mixed(model, x, soft_labels(y), draw))
         + beta * kl_div(log_softmax(model(x_adv)), softmax(model(x)), reduction="batchmean")

    The divergence is of the images as they are; only the clean loss is mixed.
    """

    def prepare(self, batch: Batch) -> Prepared:
        """The attack on the divergence, in eval mode."""
        threat, x = self.adversary.at(batch.done), batch.x
        with frozen(self.model), torch.no_grad():
            clean = self.model(x).float().softmax(1)
        noise = draws.normal(batch.index, tuple(x.shape[1:]), batch.seed, "jitter")
        start = x + (_JITTER * noise).clamp(-threat.eps, threat.eps)
        x_adv = ascend(self.model, x, threat, "kl", divergence, clean, batch, start=start.clamp(0, 1))
        inputs: dict[str, Value] = {"x": x, "x_adv": x_adv, **self.labels(batch)}
        return self.with_draw(inputs, batch.draw(), change(x, x_adv))

    def loss(self, key: Any, *, x_adv: Tensor, x: Tensor, **inputs: Any) -> Result:
        """Both parts."""
        loss, logits, targets = self.mixed(key, x=x, **inputs)
        with autocast(x.device, self.settings.precision):
            clean = logits if key is None else self.model(x)
            attacked = self.model(x_adv)
        apart = divergence(attacked.float(), clean.float().softmax(1)).mean()
        return loss + self.option["beta"] * apart, logits, targets


def divergence(logits: Tensor, clean: Tensor) -> Tensor:
    """KL(clean || softmax(logits)) in nats, (N,), for clean probabilities (N,classes)."""
    return F.kl_div(logits.log_softmax(1), clean, reduction="none").sum(1)
