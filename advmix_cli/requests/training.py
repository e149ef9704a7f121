"""What to train, adversarially or not."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from advmix_cli import models, presets
from advmix_cli.config import TrainSettings
from advmix_cli.data import DatasetInfo
from advmix_cli.errors import UsageError, known_name
from advmix_cli.models import Network
from advmix_cli.requests.limits import at_most
from advmix_cli.results import Result
from advmix_cli.settings import require
from advmix_cli.ways import METHODS
from advmix_cli.workflows.choosing import Asked
from advmix_cli.workflows.references import (
    Fresh,
    ModelRef,
    resolve_model,
)
from advmix_cli.workflows.session import Session
from advmix_cli.workflows.together import Run
from advmix_cli.workflows.weights import Weights

_PARTS = {"mix": "{}", "soft_label": "{:g}", "seed": "s{}"}
"""The options of training that may have several values, and how a run is called after the one that tells it apart."""


@dataclasses.dataclass(frozen=True)
class Training:
    """What to train: one run, or several together, and what all begin from."""

    runs: list[Run]
    begin: ModelRef | Fresh | Weights
    verbose: bool = False

    def carry_out(self, session: Session) -> Result:
        """Train."""
        from advmix_cli.workflows.together import train_together
        from advmix_cli.workflows.train import train

        if len(self.runs) > 1:
            return train_together(session, self.runs, begin=self.begin, verbose=self.verbose)
        (run,) = self.runs
        return train(session, run.settings, run.alias, begin=self.begin, verbose=self.verbose)


@dataclasses.dataclass(frozen=True)
class Train:
    """`advmix train`. Of `mix`, `soft_label` and `seed` all combinations are trained."""

    dataset: str = "glyphs"
    image_size: int | None = None
    arch: str | None = None
    arch_arg: Sequence[str] = ()
    normalize: str | None = None
    weights: Path | None = None
    mix: Sequence[str] = ("none",)
    mix_alpha: float | None = None
    mix_stages: Sequence[int | str] | None = None
    soft_label: Sequence[float] | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    limit: int | None = None
    seed: Sequence[int] = (0,)
    precision: str | None = None
    augment: str | None = None
    ema: float | None = None
    preset: str = "default"
    name: str | None = None

    def resolve(self, session: Session) -> Training:
        """The settings of each run."""
        info, network = self._asked().resolve(session)
        return Training(self._runs(presets.train_settings, info, network.arch), self._begin(network))

    def _asked(self) -> Asked:
        return Asked(self.dataset, self.image_size, self.arch, tuple(self.arch_arg or ()), self.normalize)

    def _begin(self, network: Network) -> Fresh | Weights:
        return Fresh(network) if self.weights is None else Weights.of(self.weights, network)

    def settings(self, info: DatasetInfo, arch: str) -> TrainSettings:
        """Those of the one run."""
        (run,) = self._runs(presets.train_settings, info, arch)
        return run.settings

    def _runs(self, settings: Callable[..., TrainSettings], info: DatasetInfo, arch: str, **more: Any) -> list[Run]:
        values = {option: getattr(self, option) or (None,) for option in _PARTS}
        require(
            self.mix_alpha is None or set(values["mix"]) != {"none"},
            "--mix-alpha is of the shares that are mixed, and nothing is mixed",
            "add --mix mixup",
        )
        runs = []
        for combination in itertools.product(*values.values()):
            chosen = dict(zip(values, combination, strict=True))
            parts = [_PARTS[option].format(value) for option, value in chosen.items() if len(values[option]) > 1]
            made = settings(
                self.preset,
                info,
                arch,
                stages=self.mix_stages,
                mix_alpha=None if chosen["mix"] == "none" else self.mix_alpha,
                epochs=self.epochs,
                batch_size=self.batch_size,
                lr=self.lr,
                limit=at_most(self.limit, info.sizes["train"]),
                precision=self.precision,
                augment=self.augment,
                ema=self.ema,
                **chosen,
                **more,
            )
            runs.append(Run(" ".join(parts), made, self.name and "-".join([self.name, *parts])))
        return runs


@dataclasses.dataclass(frozen=True)
class AdvTrain(Train):
    """`advmix advtrain`. `init` is a model or "untrained"; `dataset` and `arch` are its own where nothing is said."""

    dataset: str | None = None  # type: ignore[assignment]
    init: str | None = None
    method: str = "pgd"
    method_arg: Sequence[str] = ()
    policy: str = "normal"
    mix_order: str = "attack-mix"
    awp: float | None = None
    eps: float | None = None
    alpha: float | None = None
    steps: int | None = None
    random_start: bool | None = None
    verbose: bool = False

    def resolve(self, session: Session) -> Training:
        """The settings of each run, and what they begin from."""
        begin, info = self._from(session)
        return Training(self._adversarial(info, begin.network.arch), begin, self.verbose)

    def settings(self, info: DatasetInfo, arch: str) -> TrainSettings:
        """Those of the one run."""
        (run,) = self._adversarial(info, arch)
        return run.settings

    def _adversarial(self, info: DatasetInfo, arch: str) -> list[Run]:
        names = ("method", "method_arg", "policy", "mix_order", "awp", "eps", "alpha", "steps", "random_start")
        attacked = {name: getattr(self, name) for name in names}
        return self._runs(presets.advtrain_settings, info, arch, **attacked)

    def _from(self, session: Session) -> tuple[ModelRef | Fresh | Weights, DatasetInfo]:
        """What it begins from, and the set that it learns."""
        from advmix_cli.workflows.train import standard_checkpoint

        asked = self._asked()
        fresh = self.init is None and METHODS[known_name(self.method, METHODS, "method")].fresh
        if self.init == "untrained" or self.weights is not None or fresh:
            if self.init not in (None, "untrained"):
                raise UsageError("--init and --weights name two beginnings", "give one of them")
            info, network = asked.resolve(session)
            return self._begin(network), info
        if self.arch_arg or self.normalize:
            raise UsageError("--arch-arg and --normalize describe a fresh network", "begin from --init untrained")
        on = self.dataset and asked.dataset_name()
        model = standard_checkpoint(session, on) if self.init is None else resolve_model(session, self.init)
        if self.arch is not None and models.named(self.arch)[0] != model.arch:
            raise UsageError(
                f"{model.label} is a {model.network.label}, not a {self.arch}", "leave --arch out, or --init untrained"
            )
        return model, session.dataset(on or model.dataset)
