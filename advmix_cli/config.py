"""The settings of training runs, attacks and evaluations: everything that changes their numbers, and nothing else."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

from advmix_cli.errors import known_name
from advmix_cli.judging import Certificate, HeldOut, Inferring
from advmix_cli.names import portable, short_arch, short_name
from advmix_cli.settings import Settings, check_seed, number, require, require_positive
from advmix_cli.threats import PRECISIONS, Threat
from advmix_cli.ways import AUGMENTS, METHODS, MIX_ORDERS, MIXES, Method, options_of, told

LOSSES = ("cross-entropy", "bce-softmax")
OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("constant", "steps", "one-cycle", "flat-cosine")
SPLITS = ("test", "train")
HELD_OUT = "validation"
"""The split of an evaluation that is of a run and not of a data set."""
POLICIES = ("normal", "partial-pgd")
MODES = ("eval", "train")

DEVICES = ("auto", "cpu", "cuda", "mps")
MOST_THREADS = 256

TRAINING = {"standard": 1, "adversarial": 1}
"""The versions of the ways of training: each grows when the same settings come to other weights."""

BOUNDS_VERSION = 3
"""The version of the bounds: grows when one of them proves more, or less."""

AUDIT = 2
"""The version of the audit's checks."""

VERDICTS = ("consistent", "suspicious", "masked", "at chance")
"""Of an audit, from the mildest to the gravest. At chance: nothing was learned, and its robustness means nothing."""


def check_machine(device: str, threads: int | None) -> None:
    """Raise UsageError for a device that none is called, or for a number of threads that no machine is asked for."""
    base, colon, index = device.partition(":")
    known_name(base, DEVICES, "device")
    numbered = base == "cuda" and index.isdigit() and len(index) < 4
    require(not colon or numbered, f"there is no device {device}", "devices are cpu, cuda, cuda:0, cuda:1, ..., mps")
    most = max(MOST_THREADS, os.cpu_count() or 1)
    require(
        threads is None or 1 <= threads <= most,
        f"--threads must be from 1 to {most}, not {threads}",
        "leave it out for all cores",
    )


def check_sigma(sigma: float, classes: int) -> None:
    """Raise UsageError when soft labels with `sigma` leave the right one of `classes` no more than the others."""
    require(
        0 <= sigma < 1 / classes,
        f"--soft-label {sigma:g} leaves the right class 1 - {classes - 1} x {sigma:g}, no more than each wrong one",
        f"with {classes} classes sigma must be at least 0 and below {1 / classes:g}",
    )


@dataclasses.dataclass(frozen=True)
class Adversary(Settings):
    """How adversarial training attacks each batch before it learns from it.

    eps and alpha grow linearly to the threat's over the first `ramp` of all steps. The policy `partial-pgd` mixes the
    attacked batch with a shuffled clean one. The model is in eval mode while attacked; `mode` "train" is what the
    report's code did. `judging_steps` are those of the PGD that judges validation and test images while training.
    `method` is the way of training, see `ways.METHODS`, and `options` all that it may be told. `mix_order` says whether
    a batch is attacked before it is mixed or after. With `awp` each update is that at weights which are perturbed by as
    much (`methods.perturbing`).
    """

    threat: Threat
    ramp: float = 0.0
    policy: str = "normal"
    mode: str = "eval"
    judging_steps: int = 10
    method: str = "pgd"
    options: tuple[tuple[str, float], ...] = ()
    mix_order: str = "attack-mix"
    awp: float = 0.0

    def __post_init__(self) -> None:
        known_name(self.policy, POLICIES, "policy")
        known_name(self.mode, MODES, "mode")
        known_name(self.method, METHODS, "method")
        known_name(self.mix_order, MIX_ORDERS, "mix order")
        object.__setattr__(self, "options", self.declared.filled(dict(self.options)))
        self.declared.check(dict(self.options))
        require(0 <= self.awp <= 1, f"--awp must be from 0 to 1, not {self.awp}", "try --awp 0.01")
        for name, value, usual in (("policy", self.policy, "normal"), ("mix-order", self.mix_order, "attack-mix")):
            require(
                self.method == "pgd" or value == usual,
                f"--{name} {value} does not apply to --method {self.method}",
                "it goes with --method pgd",
            )
        bounded = self.declared.certified
        require(
            not bounded or self.threat.norm == "linf",
            f"--method {self.method} learns bounds in linf alone",
            "leave --norm out",
        )
        require(0 <= self.ramp <= 1, f"the ramp must be a share of the steps, not {self.ramp}", "try 0.3")
        require(self.threat.restarts == 1, "training attacks each batch once", "leave out --restarts")

    def at(self, progress: float) -> Threat:
        """The threat after that share of all steps."""
        if progress >= self.ramp:
            return self.threat
        strength = progress / self.ramp
        alpha = self.threat.step_size
        return dataclasses.replace(self.threat, eps=self.threat.eps * strength, alpha=alpha * strength or alpha)

    @classmethod
    def _read(cls, name: str, value: Any) -> Any:
        if name == "options":
            return options_of(value)
        return Threat.from_dict(value) if name == "threat" else super()._read(name, value)

    def identity(self) -> dict[str, Any]:
        """What tells these settings from others."""
        return told(self.declared, super().identity(), dict(self.options))

    @property
    def against(self) -> str:
        """What it learns to withstand: an attack, or a ball alone."""
        if self.declared.attacks:
            return f"{self.threat}, policy {self.policy}"
        return f"{self.threat.norm} eps {number(self.threat.eps)}"

    @property
    def declared(self) -> Method:
        """What is known of its way of training."""
        return METHODS[self.method]

    @property
    def judge(self) -> Threat:
        """The short attack on validation and test images: the threat's ball, fewer steps, always the correct attack."""
        steps = min(self.judging_steps, self.threat.steps)
        alpha = max(self.threat.step_size, 2.5 * self.threat.eps / steps)
        return dataclasses.replace(
            self.threat, steps=steps, alpha=alpha, variant="standard", early_stop=True, precision="float32"
        )


class _OnImages(Settings):
    """Settings of work on a data set, which is known by its images and not by where they lie."""

    def identity(self) -> dict[str, Any]:
        """What tells these settings from others."""
        return super().identity() | {"dataset": portable(self.dataset)}  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class TrainSettings(_OnImages):
    """Everything that changes the weights of a training run."""

    preset: str
    dataset: str
    arch: str
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    schedule: str
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    flip: bool = False
    crop_padding: int = 0
    mix: str = "none"
    mix_alpha: float = 1.0
    mix_stages: tuple[int | str, ...] = (0,)
    soft_label: float = 0.0
    loss: str = "cross-entropy"
    limit: int | None = None
    per_class: int | None = None
    validation: int = 0
    seed: int = 0
    precision: str = "float32"
    adversary: Adversary | None = None
    augment: str = "none"
    ema: float = 0.0
    clip: float = 0.0

    def __post_init__(self) -> None:
        known_name(self.mix, MIXES, "mix")
        known_name(self.augment, AUGMENTS, "augment")
        require(0 <= self.ema < 1, f"--ema must be at least 0 and below 1, not {self.ema}", "try --ema 0.995")
        known_name(self.loss, LOSSES, "loss")
        known_name(self.optimizer, OPTIMIZERS, "optimizer")
        known_name(self.schedule, SCHEDULES, "schedule")
        known_name(self.precision, PRECISIONS, "precision")
        require_positive(self, "epochs", "batch_size", "lr", "mix_alpha", "limit")
        require(
            math.isfinite(self.soft_label) and self.soft_label >= 0,
            f"--soft-label must be at least 0, not {self.soft_label}",
            "sigma is what each wrong class gets; try 0.003",
        )
        check_seed(self.seed)

        require(
            self.adversary is None or self.adversary.policy == "normal" or self.mix == "mixup",
            f"--policy partial-pgd mixes at the input, which --mix {self.mix} does not",
            "use --mix mixup",
        )
        self._check_method()

    def _check_method(self) -> None:
        pasted = self.augment == "cutmix"
        require(
            not pasted or self.mix == "none",
            f"--augment cutmix mixes images, and so does --mix {self.mix}",
            "leave one of them out",
        )
        if self.adversary is None:
            return
        method = self.adversary.declared
        require(
            self.mix in method.mixes,
            f"--method {method.name} goes with --mix {' or '.join(method.mixes)}, not {self.mix}",
            f"add --mix {method.mixes[0]}",
        )
        require(
            not pasted or method.name == "pgd",
            f"--augment cutmix does not go with --method {method.name}",
            "it goes with --method pgd",
        )
        require(
            self.adversary.mix_order == "attack-mix" or self.mix == "mixup",
            "--mix-order mix-attack attacks mixed images",
            "use --mix mixup",
        )

    @classmethod
    def _read(cls, name: str, value: Any) -> Any:
        return Adversary.from_dict(value) if name == "adversary" and value else super()._read(name, value)

    def identity(self) -> dict[str, Any]:
        """What tells these settings from others: not where images or a network's file lie, for they are in the key."""
        return super().identity() | {"arch": short_arch(self.arch)}

    def versions(self) -> dict[str, int]:
        """Of the way of training."""
        if self.adversary is not None and self.adversary.method != "pgd":
            return {self.adversary.method: self.adversary.declared.version}
        way = "standard" if self.adversary is None else "adversarial"
        return {way: TRAINING[way]}

    @property
    def label(self) -> str:
        """The readable part of the checkpoint's name."""
        parts = [short_name(self.dataset), short_arch(self.arch), *(["adv"] if self.adversary else []), self.mix]
        if self.adversary is not None:
            parts += [self.adversary.method] if self.adversary.method != "pgd" else []
            parts += [self.adversary.policy] if self.adversary.policy != "normal" else []
        if self.preset != "default":
            parts.append(self.preset)
        return "-".join(parts)


@dataclasses.dataclass(frozen=True)
class AttackSettings(_OnImages):
    """Everything that, beside the attacked weights and the data, changes a sample cache."""

    preset: str
    dataset: str
    split: str
    limit: int | None
    threat: Threat
    seed: int = 0

    def __post_init__(self) -> None:
        known_name(self.split, SPLITS, "split")
        require_positive(self, "limit")
        check_seed(self.seed)

    @classmethod
    def _read(cls, name: str, value: Any) -> Any:
        return Threat.from_dict(value) if name == "threat" else super()._read(name, value)

    @property
    def label(self) -> str:
        """The readable part of the cache's name."""
        return f"{short_name(self.dataset)}-{self.split}-{self.threat.label}"


@dataclasses.dataclass(frozen=True)
class EvalSettings(_OnImages):
    """Everything that, beside the models and caches, changes an evaluation.

    `audited` is the threat of an audit, `certified` what is to be proved, `inference` None the network's own verdict.
    `held` says which images the split `validation` is.
    """

    dataset: str
    split: str
    limit: int | None
    threats: tuple[Threat, ...]
    seed: int = 0
    audited: Threat | None = None
    certified: Certificate | None = None
    inference: Inferring | None = None
    held: HeldOut | None = None

    def __post_init__(self) -> None:
        known_name(self.split, (*SPLITS, HELD_OUT), "split")
        require(
            (self.split == HELD_OUT) == (self.held is not None),
            "validation images are those that a run held out",
            "evaluate models that advmix trained",
        )
        require_positive(self, "limit")
        check_seed(self.seed)
        for what, asked in (("--audit", self.audited), ("--certify", self.certified)):
            require(
                asked is None or self.inference is None,
                f"{what} is of the network itself, and --inference draws at random around it",
                "leave one of them out",
            )

    @classmethod
    def _read(cls, name: str, value: Any) -> Any:
        if name == "threats":
            return tuple(Threat.from_dict(each) for each in value)
        if name == "certified" and value is not None:
            return Certificate.from_dict(value)
        if name == "inference" and value is not None:
            return Inferring.from_dict(value)
        if name == "held" and value is not None:
            return HeldOut.from_dict(value)
        return Threat.from_dict(value) if name == "audited" and value is not None else super()._read(name, value)

    def versions(self) -> dict[str, int]:
        """Of the audit, the bounds and the inference, where there are any."""
        found = {"bounds": BOUNDS_VERSION} if self.certified else {}
        found |= {self.inference.way: self.inference.declared.version} if self.inference else {}
        return found | ({"audit": AUDIT} if self.audited else {})
