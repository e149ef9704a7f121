"""Mixup inference: a verdict from mixtures of an image with others. Source: Pang et al. 2020.

It draws at random, so an attack goes through draws of its own (EOT, Athalye et al. 2018), and its figure is no claim of
robustness: such defences have fallen to attacks that know them (Tramer et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from advmix_cli.attacks import to_float
from advmix_cli.data.pixels import Pixels
from advmix_cli.errors import UsageError
from advmix_cli.runtime import generator


class MixupInference(nn.Module):
    """The mean of a network's probabilities on mixtures of an image and partners, as their logarithms.

    `partners` (classes,S,C,H,W), uint8 or float in [0,1], are the S that an image meets which `network` alone takes for
    that class, `lam` is the image's own share. For images x (N,C,H,W) in [0,1], log-probabilities (N,classes):

        c = network(x).argmax(1)
        mean(network(lam * x + (1 - lam) * partners[c, s]).softmax(1) for s in range(S)).log()
    """

    partners: torch.Tensor

    def __init__(self, network: nn.Module, partners: torch.Tensor, lam: float) -> None:
        super().__init__()
        self.network, self.lam = network, lam
        self.register_buffer("partners", partners, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (N,classes)."""
        with torch.no_grad():
            likeliest = self.network(x).argmax(1)
        said = [
            self.network(self.lam * x + (1 - self.lam) * to_float(each[likeliest])).log_softmax(1)
            for each in self.partners.unbind(1)
        ]
        return torch.stack(said).logsumexp(0) - math.log(len(said))


def partners(
    x: Pixels, y: torch.Tensor, classes: int, count: int, *, others: bool, seed: int, what: str
) -> torch.Tensor:
    """`count` images for each class, drawn with replacement from the pool x (N,C,H,W) with labels y (N,).

    They are of that class, or where `others` of all the other ones; (classes,count,C,H,W). `what` they are for is part
    of the draw. Raises UsageError for a class of which the pool has none.
    """
    random, found = generator("cpu", seed, "partners", what), []
    for label in range(classes):
        pool = ((y == label) != others).nonzero().squeeze(1).cpu()
        if not len(pool):
            raise UsageError(f"the training images have none of class {label}", "leave --inference out")
        chosen = pool[torch.randint(len(pool), (count,), generator=random)]
        found.append(x[chosen.to(x.device)])
    return torch.stack(found)


def through(
    network: nn.Module,
    x: Pixels,
    y: torch.Tensor,
    classes: int,
    options: Mapping[str, float],
    *,
    others: bool,
    seed: int,
) -> tuple[MixupInference, MixupInference]:
    """(what judges, what is attacked) of a network: the latter has as many other draws as the option `eot` says."""
    lam, samples = options["lam"], int(options["samples"])
    where = next(network.parameters()).device

    def drawn(count: int, what: str) -> MixupInference:
        found = partners(x, y, classes, count, others=others, seed=seed, what=what)
        return MixupInference(network, found.to(where), lam)

    return drawn(samples, "judged"), drawn(samples * int(options["eot"]), "attacked")
