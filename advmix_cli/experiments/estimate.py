"""How long parts will take: from rates that are measured on this machine and device, a moment each."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch

from advmix_cli import models, runtime, splitting, training
from advmix_cli.attacks import batches, frozen, logits
from advmix_cli.attacks.common import gradient, objective
from advmix_cli.config import TrainSettings
from advmix_cli.data import DatasetInfo
from advmix_cli.experiments.plan import Part
from advmix_cli.experiments.shape import INHERITED, TOGETHER, Cell, Experiment
from advmix_cli.experiments.values import COMMANDS
from advmix_cli.models import Network
from advmix_cli.runtime import side_by_side
from advmix_cli.workflows.choosing import Asked
from advmix_cli.workflows.session import Session

_BATCHES = 4
_TRIES = 5
_LONG_S = 1.0
_SLOW = 2e-3
"""Seconds an image of a network of which no epoch is tried."""
_STANDING = {"train": 0.02, "advtrain": 0.75}
"""The share of images that are taken to stand an attack, by how a model was trained: the rest of it cannot be known."""


class Estimate:
    """Seconds of parts; each kind of training and each network is measured once."""

    def __init__(self, session: Session, experiment: Experiment) -> None:
        self.session, self.experiment = session, experiment
        self.device = session.device()
        self._epochs: dict[Any, float] = {}
        self._passes: dict[Network, tuple[float, float]] = {}

    def seconds(self, part: Part) -> float:
        """Of one part."""
        if part.kind in ("train", "advtrain"):
            return self._training(part)
        asked, cell = COMMANDS[part.kind](**dict(part.options)), part.cells[0]
        info, network = self._network(cell)
        n = min(asked.limit or info.sizes["test"], info.sizes["test"])
        forward, both = self._measured(network)
        standing = _STANDING[self.experiment.runs[cell.run].command]
        if part.kind == "attack":
            return float(n * (forward + asked.threat(info).passes[1] * both))
        settings = asked.settings(info, "test")
        total = n * forward * (1 + len(part.caches))
        for threat in settings.threats:
            for single in threat.parts:
                share = standing if single.early_stop or len(threat.parts) > 1 else 1.0
                forwards, backwards = single.passes
                total += n * share * (backwards * both + max(forwards - backwards, 0) * forward)
        return float(total + (n * 4 * forward if settings.certified else 0.0))

    def _network(self, cell: Cell) -> tuple[DatasetInfo, Network]:
        options = self.experiment.said(cell.run, cell.known)
        return Asked(**{name: options[name] for name in INHERITED if name in options}).resolve(self.session)

    def _training(self, part: Part) -> float:
        threads = runtime.threads()
        side = min(len(part.cells), threads) if self.device.type == "cpu" else 1
        return sum(self._run(part.kind, cell, 1 if side > 1 else threads) for cell in part.cells) / side

    def _run(self, kind: str, cell: Cell, threads: int) -> float:
        """Seconds of a whole run, from an epoch of a few of its batches."""
        info, network = self._network(cell)
        options = {name: (value,) if name in TOGETHER and not isinstance(value, tuple) else value
                   for name, value in self.experiment.said(cell.run, cell.known).items()}  # fmt: skip
        settings: TrainSettings = COMMANDS[kind](**options).settings(info, network.arch)
        n = min(settings.limit or info.sizes["train"], info.sizes["train"])
        forward, both = self._measured(network)
        if both > _SLOW:  # a batch would take long, and its passes are all that counts
            steps = settings.adversary.threat.steps if settings.adversary else 0
            judged = (settings.validation + min(info.sizes["test"], settings.limit or n)) / n * forward
            return float(settings.epochs * n * ((1 + steps) * both + judged))
        known = (network, threads, dataclasses.replace(settings, seed=0, soft_label=0.0, epochs=1))
        if known not in self._epochs:
            few = max(min(_BATCHES * settings.batch_size, n), 2 * settings.batch_size)
            self._epochs[known] = self._timed(settings, network, few, n, info.sizes["test"], threads)
        return float(self._epochs[known] * settings.epochs * n)

    def _timed(self, settings: TrainSettings, network: Network, few: int, n: int, test: int, threads: int) -> float:
        """Seconds an image of an epoch, judging in proportion: of the second one, when all is warm."""
        images = self.session.images(settings.dataset, "train")
        held = max(few * settings.validation // max(n, 1), 2)
        judged = max(few * min(test, settings.limit or test) // n, 2)
        sizes = (few, held if settings.validation else 0, judged)
        parts = (images.take(torch.arange(few * (i > 0), few * (i > 0) + size) % len(images))
                 for i, size in enumerate(sizes))  # fmt: skip
        tried = splitting.Splits(*(part.to(self.device) for part in parts))
        short = dataclasses.replace(settings, epochs=2, validation=tried.validation.y.numel())
        runtime.configure(threads, self.device)
        ended: list[float] = []
        training.train(
            models.build(network).to(self.device), tried, short,
            on_epoch=lambda row, state, clock: ended.append(time.perf_counter()),
        )  # fmt: skip
        runtime.configure(self.session.threads, self.device)
        return (ended[1] - ended[0]) / few

    def _measured(self, network: Network) -> tuple[float, float]:
        """(seconds of a forward pass, of one and back) for an image, with all threads."""
        if network not in self._passes:
            model = models.build(network).to(self.device)
            size = batches.suitable(model, torch.zeros(1, *network.shape, device=self.device), None)
            n = size * (runtime.threads() if self.device.type == "cpu" else 1)
            x = torch.rand(n, *network.shape, device=self.device)
            y = torch.zeros(n, dtype=torch.long, device=self.device)

            def forward(begin: int) -> torch.Tensor:
                with torch.no_grad():
                    return logits(model, x[begin : begin + size])

            def both(begin: int) -> torch.Tensor:
                loss = objective("ce", y[begin : begin + size], None)
                return gradient(model, x[begin : begin + size], loss)[0]

            with frozen(model):
                self._passes[network] = self._rate(forward, n, size), self._rate(both, n, size)
        return self._passes[network]

    def _rate(self, work: Any, n: int, size: int) -> float:
        """Seconds an image, the least of some."""
        found = []
        for _ in range(_TRIES):
            began = time.perf_counter()
            for result in side_by_side(work, range(0, n, size), self.device):
                result.sum().item()
            found.append((time.perf_counter() - began) / n)
            if found[-1] * n > _LONG_S:
                break
        return min(found)
