"""What each command was asked, and what that comes to: the same for the command line, a file, or Python.

A request holds what was said, None for what was not. `resolve(session)` looks up references, presets and defaults, and
gives what the workflow takes; nothing is computed, and what does not fit together is said here, before any work.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from advmix_cli import data, models, presets
from advmix_cli.config import AttackSettings, EvalSettings, TrainSettings
from advmix_cli.errors import NotFoundError, UsageError, known_name
from advmix_cli.results import Result
from advmix_cli.threats import OPTIONS
from advmix_cli.workflows.attack import Untrained
from advmix_cli.workflows.references import (
    ModelRef,
    SamplesRef,
    attacked_model,
    resolve_model,
    resolve_models,
    resolve_samples,
)
from advmix_cli.workflows.session import Session
from advmix_cli.workflows.together import Run

_PARTS = {"mix": "{}", "soft_label": "{:g}", "seed": "s{}"}
"""The options of training that may have several values, and how a run is called after the one that tells it apart."""


def at_most(limit: int | None, dataset: str, split: str) -> int | None:
    """The limit, None where it is no limit: the same images are the same work."""
    return None if limit is not None and limit >= data.info(dataset).sizes.get(split, 0) else limit


@dataclasses.dataclass(frozen=True)
class Training:
    """What to train: one run, or several together, all from `init` or from fresh weights."""

    runs: list[Run]
    init: ModelRef | None = None
    verbose: bool = False

    def carry_out(self, session: Session) -> Result:
        """Train."""
        from advmix_cli.workflows.together import train_together
        from advmix_cli.workflows.train import train

        if len(self.runs) > 1:
            return train_together(session, self.runs, init=self.init, verbose=self.verbose)
        (run,) = self.runs
        return train(session, run.settings, run.alias, init=self.init, verbose=self.verbose)


@dataclasses.dataclass(frozen=True)
class Train:
    """`advmix train`. Of `mix`, `soft_label` and `seed` all combinations are trained."""

    dataset: str = "glyphs"
    arch: str | None = None
    mix: Sequence[str] = ("none",)
    mix_alpha: float | None = None
    soft_label: Sequence[float] | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    limit: int | None = None
    seed: Sequence[int] = (0,)
    precision: str | None = None
    preset: str = "default"
    name: str | None = None

    def resolve(self, session: Session) -> Training:
        """The settings of each run."""
        arch = self.arch or data.info(self.dataset).arch
        return Training(self._runs(presets.train_settings, self.dataset, arch))

    def _runs(self, settings: Callable[..., TrainSettings], dataset: str, arch: str, **more: Any) -> list[Run]:
        values = {option: getattr(self, option) or (None,) for option in _PARTS}
        runs = []
        for combination in itertools.product(*values.values()):
            chosen = dict(zip(values, combination, strict=True))
            parts = [_PARTS[option].format(value) for option, value in chosen.items() if len(values[option]) > 1]
            made = settings(
                self.preset,
                dataset,
                arch,
                mix_alpha=self.mix_alpha,
                epochs=self.epochs,
                batch_size=self.batch_size,
                lr=self.lr,
                limit=at_most(self.limit, dataset, "train"),
                precision=self.precision,
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
    policy: str = "normal"
    eps: float | None = None
    alpha: float | None = None
    steps: int | None = None
    random_start: bool | None = None
    verbose: bool = False

    def resolve(self, session: Session) -> Training:
        """The settings of each run, and what they begin from."""
        from advmix_cli.workflows.train import standard_checkpoint

        if self.dataset is not None:
            data.info(self.dataset)
        if self.init == "untrained":
            begin = None
        elif self.init is None:
            begin = standard_checkpoint(session, self.dataset)
        else:
            begin = resolve_model(session, self.init)
        on = self.dataset or (begin.dataset if begin else "glyphs")
        arch = self.arch or (begin.arch if begin else data.info(on).arch)
        attacked = {name: getattr(self, name) for name in ("policy", "eps", "alpha", "steps", "random_start")}
        return Training(self._runs(presets.advtrain_settings, on, arch, **attacked), begin, self.verbose)


@dataclasses.dataclass(frozen=True)
class _Attacked:
    """What is said of an attack; which of it means something depends on the attack, see `threats.ATTACKS`."""

    norm: str = "linf"
    eps: float | None = None
    alpha: float | None = None
    steps: int | None = None
    queries: int | None = None
    restarts: int | None = None
    random_start: bool | None = None
    loss: str | None = None
    targets: int | None = None
    precision: str | None = None
    dataset: str | None = None
    limit: int | None = None
    seed: int = 0
    preset: str = "default"

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name, None) for name in ("eps", *OPTIONS)}


@dataclasses.dataclass(frozen=True)
class Attacking:
    """What to attack."""

    target: ModelRef | Untrained
    settings: AttackSettings
    alias: str | None = None

    def carry_out(self, session: Session) -> Result:
        """Attack."""
        from advmix_cli.workflows.attack import attack

        return attack(session, self.target, self.settings, self.alias)


@dataclasses.dataclass(frozen=True)
class Attack(_Attacked):
    """`advmix attack`: a model, or a fresh network of its kind or of `dataset` and `arch`."""

    model: str | None = None
    attack: str = "pgd"
    early_stop: bool = False
    untrained: bool = False
    arch: str | None = None
    split: str = "test"
    name: str | None = None

    def resolve(self, session: Session) -> Attacking:
        """The target and the settings."""
        target, on = self._target(session)
        data.info(on)
        options = self._options() | {"early_stop": self.early_stop or None}
        settings = AttackSettings(
            preset=self.preset,
            dataset=on,
            split=self.split,
            limit=at_most(self.limit, on, self.split),
            threat=presets.threat(self.preset, on, attack=self.attack, norm=self.norm, **options),
            seed=self.seed,
        )
        return Attacking(target, settings, self.name)

    def _target(self, session: Session) -> tuple[ModelRef | Untrained, str]:
        if self.untrained and (self.dataset or self.arch):
            if self.model is not None:
                raise UsageError("a model and --dataset or --arch name two networks", "give one or the other")
            shape = models.info(self.arch).shape if self.arch else None
            on = self.dataset or next(entry.name for entry in data.DATASETS.values() if entry.shape == shape)
            return Untrained(self.arch or data.info(on).arch, self.seed), on
        if self.arch is not None:
            raise UsageError("--arch goes with --untrained", "a checkpoint knows its own architecture")
        model = resolve_model(session, "latest" if self.model is None else self.model)
        return Untrained(model.arch, self.seed) if self.untrained else model, self.dataset or model.dataset


@dataclasses.dataclass(frozen=True)
class Evaluating:
    """What to evaluate."""

    models: list[ModelRef]
    samples: list[SamplesRef]
    settings: EvalSettings
    report: Path | None = None
    fail_on: str | None = None

    def carry_out(self, session: Session) -> Result:
        """Evaluate."""
        from advmix_cli.workflows.evaluation import evaluate

        return evaluate(session, self.models, self.samples, self.settings, report=self.report, fail_on=self.fail_on)


@dataclasses.dataclass(frozen=True)
class Evaluate(_Attacked):
    """`advmix eval`: with caches and no model, the models that the caches were made against."""

    models: Sequence[str] = ()
    samples: Sequence[str] = ()
    attack: Sequence[str] = ()
    split: str | None = None
    audit: bool = False
    fail_on: str | None = None
    report: Path | None = None

    def resolve(self, session: Session) -> Evaluating:
        """The models, the caches and the settings."""
        self._check()
        caches = [resolve_samples(session, ref) for ref in self.samples]
        if self.models or not caches:
            chosen = resolve_models(session, list(self.models or ["latest"]))
        else:
            chosen = list({m.digest: m for m in (attacked_model(session, cache) for cache in caches)}.values())
        known = [cache.record for cache in caches if cache.record is not None]
        on = self.dataset or (known[0]["dataset"] if known and not self.models else chosen[0].dataset)
        data.info(on)
        if self.dataset is None and len({each.dataset for each in chosen}) > 1:
            raise UsageError("these models learned different data sets", "say on which to evaluate them: --dataset")
        part = self.split or (known[0]["split"] if known else "test")
        usual = {"early_stop": True} if self.preset != "as-run" else {}
        settings = EvalSettings(
            dataset=on,
            split=part,
            limit=at_most(self.limit, on, part),
            threats=presets.threats(self.preset, on, self.attack, usual=usual, norm=self.norm, **self._options()),
            seed=self.seed,
            audited=presets.threat("default", on, norm=self.norm, eps=self.eps) if self.audit else None,
        )
        return Evaluating(chosen, caches, settings, self.report, self.fail_on)

    def _check(self) -> None:
        known_name(self.preset, presets.PRESETS, "preset")
        said = {name for name, value in self._options().items() if value is not None}
        if not self.attack and said - ({"eps"} if self.audit else set()):
            raise UsageError("these options describe an attack, and none is asked for", "add --attack pgd")
        if self.fail_on is not None:
            known_name(self.fail_on, ("suspicious", "masked"), "verdict")
            if not self.audit:
                raise UsageError("--fail-on judges an audit, and none is asked for", "add --audit")
        path = self.report
        if path is not None and path.suffix not in (".html", ".htm"):
            raise UsageError(f"--report {path} must end in .html", "it is one HTML file with tables and pictures")
        if path is not None and not path.absolute().parent.is_dir():
            raise NotFoundError(f"there is no folder {path.absolute().parent}", "make it first, or write elsewhere")
