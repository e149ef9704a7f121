"""What to attack, evaluate, audit and prove."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advmix_cli import files, models, presets
from advmix_cli.config import HELD_OUT, AttackSettings, EvalSettings
from advmix_cli.data import DATASETS, DatasetInfo
from advmix_cli.errors import AdvmixError, UsageError, known_name
from advmix_cli.judging import Certificate, HeldOut, Inferring, Shown
from advmix_cli.names import full_name, parted, short_name
from advmix_cli.requests.limits import at_most
from advmix_cli.results import Result
from advmix_cli.settings import require
from advmix_cli.threats import NORMS, OPTIONS, Threat
from advmix_cli.ways import INFERENCES
from advmix_cli.workflows.choosing import Asked
from advmix_cli.workflows.references import (
    ModelRef,
    SamplesRef,
    Untrained,
    attacked_model,
    resolve_model,
    resolve_models,
    resolve_samples,
)
from advmix_cli.workflows.session import Session


def met_by(model: ModelRef, dataset: str | None, image_size: int | None) -> str:
    """The set that a model is to meet: its own, or another at the size that the model takes."""
    if dataset is None and image_size is None:
        return model.dataset
    name = full_name(dataset or parted(model.dataset)[0], image_size)
    known, side = DATASETS.get(name), model.network.shape[1]
    if parted(name)[1] is None and (known is None or known.shape[1] != side):
        own = parted(model.dataset)
        return model.dataset if name == own[0] else full_name(name, side)
    return name


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
    image_size: int | None = None
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
    arch_arg: Sequence[str] = ()
    normalize: str | None = None
    split: str = "test"
    name: str | None = None

    def resolve(self, session: Session) -> Attacking:
        """The target and the settings."""
        target, info = self._target(session)
        settings = AttackSettings(
            preset=self.preset,
            dataset=info.name,
            split=self.split,
            limit=at_most(self.limit, info.sizes.get(self.split, 0)),
            threat=self.threat(info),
            seed=self.seed,
        )
        return Attacking(target, settings, self.name)

    def threat(self, info: DatasetInfo) -> Threat:
        """What the attacker may do to such images."""
        options = self._options() | {"early_stop": self.early_stop or None}
        return presets.threat(self.preset, info, attack=self.attack, norm=self.norm, **options)

    def _target(self, session: Session) -> tuple[ModelRef | Untrained, DatasetInfo]:
        described = self.arch or self.arch_arg or self.normalize
        if self.untrained and (self.dataset or described):
            if self.model is not None:
                raise UsageError("a model and --dataset or --arch name two networks", "give one or the other")
            asked = Asked(self.dataset, self.image_size, self.arch, tuple(self.arch_arg or ()), self.normalize)
            entry = models.ARCHITECTURES.get(self.arch or "")
            fitting = [each.name for each in DATASETS.values() if entry and each.shape == entry.shape]
            info, network = asked.resolve(session, usual=(fitting or ["glyphs"])[0])
            return Untrained(network, self.seed), info
        if described:
            raise UsageError("--arch goes with --untrained", "a checkpoint knows its own architecture")
        model = resolve_model(session, "latest" if self.model is None else self.model)
        info = session.dataset(met_by(model, self.dataset, self.image_size))
        return (Untrained(model.network, self.seed) if self.untrained else model), info


@dataclasses.dataclass(frozen=True)
class Evaluating:
    """What to evaluate."""

    models: list[ModelRef]
    samples: list[SamplesRef]
    settings: EvalSettings
    shown: Shown

    def carry_out(self, session: Session) -> Result:
        """Evaluate."""
        from advmix_cli.workflows.evaluation import evaluate

        return evaluate(session, self.models, self.samples, self.settings, self.shown)


@dataclasses.dataclass(frozen=True)
class EvaluatingEach:
    """What to evaluate at one eps after the other."""

    each: list[tuple[float, Evaluating]]

    def carry_out(self, session: Session) -> Result:
        """Evaluate at each eps: accuracy against eps."""
        from advmix_cli.workflows.evaluation.strengths import together

        return together([(eps, evaluating.carry_out(session)) for eps, evaluating in self.each])


@dataclasses.dataclass(frozen=True)
class Evaluate(_Attacked):
    """`advmix eval`: with caches and no model, the models that the caches were made against."""

    models: Sequence[str] = ()
    samples: Sequence[str] = ()
    attack: Sequence[str] = ()
    split: str | None = None
    audit: bool = False
    certify: bool = False
    bounds: str | None = None
    inference: str | None = None
    inference_arg: Sequence[str] = ()
    fail_on: str | None = None
    report: Path | None = None
    baseline: str | None = None
    pairwise: bool = False
    name: str | None = None

    def resolve(self, session: Session) -> Evaluating:
        """The models, the caches and the settings."""
        self._check()
        caches = [resolve_samples(session, ref) for ref in self.samples]
        if self.models or not caches:
            chosen = resolve_models(session, list(self.models or ["latest"]))
        else:
            chosen = list({m.function: m for m in (attacked_model(session, cache) for cache in caches)}.values())
        base = None if self.baseline is None else resolve_model(session, self.baseline)
        if base is not None:
            base = next((model for model in chosen if model.function == base.function), base)
            chosen = chosen if base in chosen else [base, *chosen]
        known = [cache.record for cache in caches if cache.record is not None]
        of = self.dataset or (known[0]["dataset"] if known and not self.models else None)
        info = session.dataset(met_by(chosen[0], of, self.image_size))
        if self.dataset is None and len({each.dataset for each in chosen}) > 1:
            raise UsageError("these models learned different data sets", "say on which to evaluate them: --dataset")
        part = self.split or (known[0]["split"] if known else "test")
        settings = self.settings(info, part, _held_out(chosen, info) if part == HELD_OUT else None)
        return Evaluating(
            chosen, caches, settings, Shown(self._pairs(chosen, base), self.report, self.fail_on, self.name)
        )

    def _pairs(self, chosen: Sequence[ModelRef], base: ModelRef | None) -> list[tuple[int, int]]:
        """Which models are compared, by their places."""
        require(base is None or len(chosen) > 1, "--baseline is the only model", "name others to compare with it")
        require(not self.pairwise or len(chosen) > 1, "--pairwise compares models, and there is one", "name more")
        if base is not None:
            return [(place, chosen.index(base)) for place, model in enumerate(chosen) if model != base]
        return list(itertools.combinations(range(len(chosen)), 2)) if self.pairwise or len(chosen) == 2 else []

    def settings(self, info: DatasetInfo, split: str, held: HeldOut | None = None) -> EvalSettings:
        """What is measured on such images."""
        usual = {"early_stop": True} if self.preset != "as-run" else {}
        return EvalSettings(
            dataset=info.name,
            split=split,
            limit=at_most(self.limit, held.count if held else info.sizes.get(split, 0)),
            threats=presets.threats(self.preset, info, self.attack, usual=usual, norm=self.norm, **self._options()),
            seed=self.seed,
            audited=presets.threat("default", info, norm=self.norm, eps=self.eps) if self.audit else None,
            certified=self.certificate(info) if self.certify else None,
            inference=self._inferring(),
            held=held,
        )

    def certificate(self, info: DatasetInfo) -> Certificate:
        """What is to be proved of such images. Raises AdvmixError where what that needs is not installed."""
        if self.bounds == "exact" and importlib.util.find_spec("scipy") is None:
            raise AdvmixError("--bounds exact needs SciPy", "pip install 'advmix[exact]'", code="missing-library")
        eps = presets.usual_eps(info, known_name(self.norm, NORMS, "norm")) if self.eps is None else self.eps
        return Certificate(eps, self.norm, self.bounds or "best")

    def _inferring(self) -> Inferring | None:
        if self.inference is None:
            require(not self.inference_arg, "--inference-arg goes with --inference", "add --inference mi-pl")
            return None
        way = INFERENCES[known_name(self.inference, INFERENCES, "inference")]
        return Inferring(way.name, way.read(self.inference_arg))

    def _check(self) -> None:
        known_name(self.preset, presets.PRESETS, "preset")
        require(self.baseline is None or not self.pairwise, "--baseline and --pairwise are two wishes", "give one")
        said = {name for name, value in self._options().items() if value is not None}
        if self.bounds is not None and not self.certify:
            raise UsageError("--bounds says how to prove something, and nothing is to be proved", "add --certify")
        if not self.attack and said - ({"eps"} if self.audit or self.certify else set()):
            raise UsageError("these options describe an attack, and none is asked for", "add --attack pgd")
        if self.fail_on is not None:
            known_name(self.fail_on, ("suspicious", "masked"), "verdict")
            if not self.audit:
                raise UsageError("--fail-on judges an audit, and none is asked for", "add --audit")
        path = self.report
        if path is not None and path.suffix not in (".html", ".htm"):
            raise UsageError(f"--report {path} must end in .html", "it is one HTML file with tables and pictures")
        if path is not None:
            files.check_folder(path)


def _held_out(models: Sequence[ModelRef], info: DatasetInfo) -> HeldOut:
    """The images that the runs of all these models held out. Raises UsageError where those are not the same."""
    found = set()
    for model in models:
        run = model.record.get("settings") or {}
        if run.get("dataset") != info.name or not run.get("validation"):
            raise UsageError(
                f"{model.label} held out no images of {short_name(info.name)}",
                "--split validation is for models that advmix trained on that set; leave it out",
            )
        found.add(HeldOut(run["validation"], run["limit"], run["seed"]))
    if len(found) > 1:
        raise UsageError(
            "these models held out different images: their runs differ in --seed, in --limit or in how many they held",
            "evaluate those together that held out the same",
        )
    return found.pop()


@dataclasses.dataclass(frozen=True)
class EvaluateEach:
    """`advmix eval --eps A,B,C`: the same at each eps."""

    evaluate: Evaluate
    eps: Sequence[float]

    def resolve(self, session: Session) -> EvaluatingEach:
        """The models and the settings of each, all checked before the first begins."""
        one = self.evaluate
        alone = {"--samples": one.samples, "--audit": one.audit, "--report": one.report, "--name": one.name,
                 "--baseline": one.baseline, "--pairwise": one.pairwise}  # fmt: skip
        for option, said in alone.items():
            require(not said, f"{option} is for one eps, not {len(self.eps)}", "give one eps, or leave it out")
        each = [(eps, dataclasses.replace(one, eps=eps).resolve(session)) for eps in self.eps]
        return EvaluatingEach([
            (eps, dataclasses.replace(found, shown=dataclasses.replace(found.shown, pairs=()))) for eps, found in each
        ])  # fmt: skip
