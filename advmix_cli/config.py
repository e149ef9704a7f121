"""Settings as frozen dataclasses, their canonical JSON and the keys made from it.

A settings object holds everything that changes a number and nothing else: the device, threads, progress and
paths are passed beside it. So the key of a result is the hash of its settings and of what it was made from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from advmix_cli.errors import UsageError, known_name

SCHEMA = 1
"""The version of every record that is written, and part of every key."""

MIXES = ("none", "mixup", "manifold")
LOSSES = ("cross-entropy", "bce-softmax")
OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("constant", "steps", "one-cycle")
PRECISIONS = ("float32", "bf16")
ATTACKS: dict[str, tuple[str, ...]] = {
    "pgd": ("alpha", "steps", "restarts", "random_start", "loss", "targets", "early_stop", "precision"),
    "fgsm": (),
    "apgd-ce": ("steps", "restarts"),
    "apgd-dlr": ("steps", "restarts"),
    "apgd-t": ("steps", "restarts", "targets"),
    "fab-t": ("steps", "targets"),
    "square": ("queries", "restarts"),
    "square-pgd": ("queries", "restarts"),
    "autoattack": (),
}
"""Every attack, with the options that mean something to it beside norm and eps."""
PUBLISHED: dict[str, dict[str, Any]] = {
    "apgd-ce": {"steps": 100, "early_stop": True},
    "apgd-dlr": {"steps": 100, "loss": "dlr", "early_stop": True},
    "apgd-t": {"steps": 100, "loss": "dlr", "targets": 9, "early_stop": True},
    "fab-t": {"steps": 100, "loss": "cw", "targets": 9, "random_start": False, "early_stop": True},
    "square": {"steps": 5000, "loss": "cw", "early_stop": True},
    "square-pgd": {"steps": 2000, "loss": "cw", "early_stop": True},
    "autoattack": {"steps": 100, "early_stop": True},
}
"""Settings that are the same for every data set: those that the standard ensemble's authors published, and our own."""
ATTACK_LOSSES = ("ce", "dlr", "cw")
NORMS = ("linf", "l2")
VARIANTS = ("standard", "as-run")
SPLITS = ("test", "train")
POLICIES = ("normal", "partial-pgd")
MODES = ("eval", "train")

Settings = TypeVar("Settings", bound="_Settings")


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN or infinity (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def fraction(text: str) -> float:
    """A number as people write it: `0.3`, `8/255`. Raises ValueError for anything else, `8/0` and `nan` included."""
    try:
        above, slash, below = text.partition("/")
        value = float(above) / float(below) if slash else float(above)
    except ZeroDivisionError:
        raise ValueError(f"{text!r} divides by zero") from None
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number or fraction such as 0.3 or 8/255")
    return value


def number(value: float) -> str:
    """A number for names and tables: 0.3, and k/255 for the eps values that are meant so."""
    k = value * 255
    if 0 < k < 128 and abs(k - round(k)) < 1e-9 and round(k) % 51:
        return f"{round(k)}/255"
    return f"{value:.6g}"


def _require(condition: bool, message: str, hint: str) -> None:
    if not condition:
        raise UsageError(message, hint)


def _positive(settings: Any, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        option = "--" + name.replace("_", "-")
        _require(
            value is None or (math.isfinite(value) and value > 0),
            f"{option} must be positive and finite, not {value}",
            f"give a value above 0, or leave {option} out for the default",
        )


def check_seed(seed: int) -> None:
    """Raise UsageError for what no generator takes."""
    _require(0 <= seed < 2**63, f"--seed must be from 0 to 2^63 - 1, not {seed}", "try --seed 0")


def check_sigma(sigma: float, classes: int) -> None:
    """Raise UsageError when soft labels with `sigma` leave the right one of `classes` no more than the others."""
    _require(
        0 <= sigma < 1 / classes,
        f"--soft-label {sigma:g} leaves the right class 1 - {classes - 1} x {sigma:g}, no more than each wrong one",
        f"with {classes} classes sigma must be at least 0 and below {1 / classes:g}",
    )


@dataclasses.dataclass(frozen=True)
class _Settings:
    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into records and keys."""
        return json.loads(canonical_json(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls: type[Settings], values: Mapping[str, Any]) -> Settings:
        """The inverse of `to_dict`. Raises TypeError on an unknown or missing field."""
        return cls(**{name: _NESTED.get(name, _plain)(value) for name, value in values.items()})


def default_alpha(eps: float, steps: int) -> float:
    """The step size of PGD where none is given: 2.5 eps / steps; with eps 0 any step is projected back."""
    return 2.5 * eps / max(steps, 1) or 1.0


@dataclasses.dataclass(frozen=True)
class Threat(_Settings):
    """What an attacker may do: always named together with a robust accuracy.

    `eps` bounds the perturbation in pixel units ([0,1]) around the clean image, in `norm`; `steps` are the iterations
    (of Square the queries), `alpha` the step size of PGD (None where the attack chooses its own), `restarts` the
    tries of which the worst counts for each sample, `loss` what is climbed. With `targets` each try drives to
    one of that many likeliest wrong classes in turn. With `early_stop` PGD leaves a sample as soon as an iterate
    is misclassified, as all the later attacks do. `precision` is what PGD computes its gradients in; verdicts are
    always float32's. `autoattack` is an ensemble, see `parts`. The variant
    `as-run` is the published code's attack, whose iterates leave the ball (see `attacks.pgd.pgd_as_run`).
    """

    attack: str = "pgd"
    norm: str = "linf"
    eps: float = 0.3
    alpha: float | None = None
    steps: int = 40
    restarts: int = 1
    random_start: bool = True
    variant: str = "standard"
    loss: str = "ce"
    targets: int = 0
    early_stop: bool = False
    precision: str = "float32"

    def __post_init__(self) -> None:
        known_name(self.attack, ATTACKS, "attack")
        known_name(self.norm, NORMS, "norm")
        known_name(self.variant, VARIANTS, "variant")
        known_name(self.loss, ATTACK_LOSSES, "loss")
        known_name(self.precision, PRECISIONS, "precision")
        _require(
            math.isfinite(self.eps) and self.eps >= 0,
            f"--eps must be a finite number of at least 0, not {self.eps}",
            "eps is in pixel units of [0,1]: try 0.3 or 8/255",
        )
        _require(
            self.norm != "linf" or self.eps <= 1,
            f"--eps {number(self.eps)} is more than the whole range of a pixel, which is [0,1]",
            f"did you mean {number(self.eps)}/255?" if self.eps <= 255 else "try 0.3 or 8/255",
        )
        _positive(self, "alpha", "restarts")
        _require(self.steps >= 1, f"--steps and --queries must be at least 1, not {self.steps}", "try --steps 40")
        _require(self.targets >= 0, f"--targets must be at least 0, not {self.targets}", "try --targets 9")
        _require(
            self.restarts == 1 or self.random_start,
            "every restart from the clean image gives the same result",
            "leave out --restarts or --no-random-start",
        )
        _require(
            self.variant == "standard" or (self.norm == "linf" and self.attack == "pgd" and self._plain),
            "the as-run variant exists for pgd and linf alone",
            "leave --preset as-run out, or leave out --norm, --attack, --loss and --targets",
        )

    @property
    def _plain(self) -> bool:
        return self.loss == "ce" and not self.targets

    @property
    def tries(self) -> int:
        """How often each sample is attacked unless it falls before."""
        return self.restarts * max(self.targets, 1)

    @property
    def parts(self) -> tuple[Threat, ...]:
        """The attacks of an ensemble in their order, each for what the ones before left standing; else this one alone.

        `autoattack` is the standard ensemble of Croce and Hein 2020 with its published settings, and then `square-pgd`,
        for the images whose gradients are masked.
        """
        if self.attack != "autoattack":
            return (self,)
        tries = (("apgd-ce", 1), ("apgd-t", 1), ("fab-t", 1), ("square", 1), ("square-pgd", 6))
        return tuple(
            Threat(attack=name, norm=self.norm, eps=self.eps, restarts=restarts, **PUBLISHED[name])
            for name, restarts in tries
        )

    @property
    def step_size(self) -> float:
        """alpha, or the default where none is set."""
        return self.alpha if self.alpha is not None else default_alpha(self.eps, self.steps)

    @property
    def label(self) -> str:
        """A short name for tables and file names, e.g. `pgd-0.3-40` or `pgd-l2-0.5-20-as-run`."""
        parts = [self.attack]
        if self.attack == "pgd":
            parts += [self.loss] if self.loss != "ce" else []
            parts += [f"t{self.targets}"] if self.targets else []
        if self.norm != "linf":
            parts.append(self.norm)
        parts.append(number(self.eps).replace("/", "_"))
        if self.attack not in ("fgsm", "autoattack"):
            parts.append(str(self.steps))
        if self.restarts > 1:
            parts.append(f"x{self.restarts}")
        if self.precision != "float32":
            parts.append(self.precision)
        if self.variant != "standard":
            parts.append(self.variant)
        return "-".join(parts)

    def __str__(self) -> str:
        text = f"{_TITLES.get(self.attack, self.attack.upper())} {self.norm} eps {number(self.eps)}"
        if self.attack == "autoattack":
            return text + ", standard (APGD-CE, APGD-T, FAB-T, Square), then Square with PGD, 6 tries"
        if self.attack == "pgd":
            loss = "" if self.loss == "ce" else f" of the {self.loss} loss"
            start = "random start" if self.random_start else "no random start"
            text += f", alpha {number(self.step_size)}, {self.steps} steps{loss}, {start}"
        elif self.attack != "fgsm":
            text += f", {self.steps} {'queries' if self.attack.startswith('square') else 'steps'}"
        if self.targets:
            text += f" for each of {self.targets} targets"
        if self.restarts > 1:
            text += f", {self.restarts} restarts"
        if self.attack == "pgd" and self.early_stop:
            text += ", until won"
        if self.precision != "float32":
            text += f", in {self.precision}"
        return text + (" (as-run variant)" if self.variant != "standard" else "")


_TITLES = {"autoattack": "AutoAttack", "square": "Square", "square-pgd": "Square and PGD,"}


@dataclasses.dataclass(frozen=True)
class Adversary(_Settings):
    """How adversarial training attacks each batch before it learns from it.

    eps and alpha grow linearly to the threat's over the first `ramp` of all steps. The policy `partial-pgd` mixes the
    attacked batch with a shuffled clean one. The model is in eval mode while attacked; `mode` "train" is what the
    report's code did. `checks` are the PGD steps with which validation and test are attacked while training.
    """

    threat: Threat
    ramp: float = 0.0
    policy: str = "normal"
    mode: str = "eval"
    checks: int = 10

    def __post_init__(self) -> None:
        known_name(self.policy, POLICIES, "policy")
        known_name(self.mode, MODES, "mode")
        _require(0 <= self.ramp <= 1, f"the ramp must be a share of the steps, not {self.ramp}", "try 0.3")
        _require(self.threat.restarts == 1, "training attacks each batch once", "leave out --restarts")

    def at(self, progress: float) -> Threat:
        """The threat after that share of all steps."""
        if progress >= self.ramp:
            return self.threat
        strength = progress / self.ramp
        alpha = self.threat.step_size
        return dataclasses.replace(self.threat, eps=self.threat.eps * strength, alpha=alpha * strength or alpha)

    @property
    def check(self) -> Threat:
        """The short attack on validation and test images: the threat's ball, fewer steps, always the correct attack."""
        steps = min(self.checks, self.threat.steps)
        alpha = max(self.threat.step_size, 2.5 * self.threat.eps / steps)
        return dataclasses.replace(
            self.threat, steps=steps, alpha=alpha, variant="standard", early_stop=True, precision="float32"
        )


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_NESTED: dict[str, Callable[[Any], Any]] = {
    "threat": lambda value: None if value is None else Threat.from_dict(value),
    "adversary": lambda value: None if value is None else Adversary.from_dict(value),
}


@dataclasses.dataclass(frozen=True)
class TrainSettings(_Settings):
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
    mix_stages: tuple[int, ...] = (0,)
    soft_label: float = 0.0
    loss: str = "cross-entropy"
    limit: int | None = None
    per_class: int | None = None
    validation: int = 0
    seed: int = 0
    precision: str = "float32"
    adversary: Adversary | None = None

    def __post_init__(self) -> None:
        known_name(self.mix, MIXES, "mix")
        known_name(self.loss, LOSSES, "loss")
        known_name(self.optimizer, OPTIMIZERS, "optimizer")
        known_name(self.schedule, SCHEDULES, "schedule")
        known_name(self.precision, PRECISIONS, "precision")
        _positive(self, "epochs", "batch_size", "lr", "mix_alpha", "limit")
        _require(
            math.isfinite(self.soft_label) and self.soft_label >= 0,
            f"--soft-label must be at least 0, not {self.soft_label}",
            "sigma is what each wrong class gets; try 0.003",
        )
        check_seed(self.seed)

        _require(
            self.adversary is None or self.adversary.policy == "normal" or self.mix == "mixup",
            f"--policy partial-pgd mixes at the input, which --mix {self.mix} does not",
            "use --mix mixup",
        )

    @property
    def label(self) -> str:
        """The readable part of the checkpoint's name."""
        parts = [self.dataset, self.arch, *(["adv"] if self.adversary else []), self.mix]
        if self.adversary is not None and self.adversary.policy != "normal":
            parts.append(self.adversary.policy)
        if self.preset != "default":
            parts.append(self.preset)
        return "-".join(parts)


@dataclasses.dataclass(frozen=True)
class AttackSettings(_Settings):
    """Everything that, beside the attacked weights and the data, changes a sample cache."""

    preset: str
    dataset: str
    split: str
    limit: int | None
    threat: Threat
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        known_name(self.split, SPLITS, "split")
        _positive(self, "batch_size", "limit")
        check_seed(self.seed)

    @property
    def label(self) -> str:
        """The readable part of the cache's name."""
        return f"{self.dataset}-{self.split}-{self.threat.label}"


@dataclasses.dataclass(frozen=True)
class EvalSettings(_Settings):
    """Everything that, beside the models and caches, changes an evaluation; `audited` the threat of an audit."""

    dataset: str
    split: str
    limit: int | None
    threats: tuple[Threat, ...]
    batch_size: int | None = None
    seed: int = 0
    audited: Threat | None = None

    def __post_init__(self) -> None:
        known_name(self.split, SPLITS, "split")
        _positive(self, "batch_size", "limit")
        check_seed(self.seed)


def key(kind: str, settings: _Settings, **made_from: Any) -> str:
    """The key (64 hex digits) of the artifact of `kind` that `settings` make from `made_from`."""
    return digest({"schema": SCHEMA, "kind": kind, "settings": settings.to_dict(), "from": made_from})
