"""Named settings, pure data: the default recipes, the report's text, and what its published code ran.

`report` is what the text of "Adversarial Attack and Defense Based on Data Mixup" says; where it is silent the
published code's value stands. `as-run` is what that code did. Both are documented in docs/report.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from advmix_cli import data
from advmix_cli.config import Adversary, TrainSettings
from advmix_cli.data import DatasetInfo
from advmix_cli.errors import UsageError, known_name
from advmix_cli.names import parted
from advmix_cli.results import shown
from advmix_cli.threats import ATTACKS, NORMS, Threat, does_not_apply
from advmix_cli.ways import AUGMENTS, METHODS, Method

PRESETS = ("default", "report", "as-run")

Table = dict[str, dict[str, dict[str, Any]]]

_ONE_CYCLE = {
    "optimizer": "sgd", "lr": 0.1, "schedule": "one-cycle", "momentum": 0.9, "nesterov": True,
    "weight_decay": 5e-4, "batch_size": 128, "loss": "cross-entropy", "validation": 5000,
}  # fmt: skip
_REPORT_MNIST = {
    "optimizer": "sgd", "lr": 0.1, "schedule": "steps", "milestones": (300, 400), "gamma": 0.1,
    "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4, "batch_size": 100, "epochs": 500,
    "loss": "cross-entropy", "validation": 5000,
}  # fmt: skip
_REPORT_CIFAR = _REPORT_MNIST | {"epochs": 2000, "milestones": (500, 1000), "flip": True, "crop_padding": 2}
_ALL_STAGES = (0, 1, 2, 3, 4)
_FIRST_STAGES = (0, 1, 2)
"""Of any network: its image and the first two places within, as Verma et al. 2019 mix a residual network."""

TRAIN: Table = {
    "default": {
        "mnist": _ONE_CYCLE | {"epochs": 20, "mix_stages": _ALL_STAGES},
        "glyphs": _ONE_CYCLE | {"epochs": 12, "lr": 0.05, "validation": 1000, "mix_stages": _ALL_STAGES},
        "cifar10": _ONE_CYCLE | {"epochs": 30, "flip": True, "crop_padding": 4, "mix_stages": (0, 1, 2)},
    },
    "report": {
        "mnist": _REPORT_MNIST | {"mix_stages": _ALL_STAGES},
        "glyphs": _REPORT_MNIST | {"mix_stages": _ALL_STAGES, "validation": 1000},
        "cifar10": _REPORT_CIFAR | {"mix_stages": _ALL_STAGES},
    },
    "as-run": {
        "mnist": _REPORT_MNIST | {"loss": "bce-softmax", "per_class": 5000, "mix_stages": _ALL_STAGES},
        "cifar10": _REPORT_CIFAR | {
            "loss": "bce-softmax", "milestones": (500, 1000, 1500), "per_class": 5000, "validation": 0,
            "mix_stages": (0, 1, 2),
        },
    },
}  # fmt: skip
"""Training recipes: preset -> data set -> settings."""

_ADV_MNIST = {
    "optimizer": "adam", "lr": 6e-3, "schedule": "one-cycle", "batch_size": 250, "epochs": 20, "loss": "cross-entropy",
    "validation": 1000, "mix_stages": _ALL_STAGES, "steps": 10, "ramp": 0.3,
}  # fmt: skip
_ADV_CIFAR = _ONE_CYCLE | {
    "epochs": 30, "flip": True, "crop_padding": 4, "validation": 1000, "mix_stages": (0, 1, 2), "steps": 10,
}  # fmt: skip
_ADV_REPORT_MNIST = {
    "optimizer": "adam", "lr": 0.002, "schedule": "steps", "milestones": (400, 600), "gamma": 0.5, "batch_size": 100,
    "epochs": 800, "loss": "cross-entropy", "validation": 1000, "mix_stages": _ALL_STAGES, "steps": 40, "alpha": 0.1,
}  # fmt: skip
_ADV_REPORT_CIFAR = {
    "optimizer": "sgd", "lr": 0.1, "schedule": "constant", "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4,
    "batch_size": 100, "epochs": 500, "loss": "cross-entropy", "flip": True, "crop_padding": 2, "validation": 1000,
    "mix_stages": _ALL_STAGES, "steps": 7, "alpha": 2 / 255,
}  # fmt: skip
_AS_RUN = {"loss": "bce-softmax", "per_class": 5000, "variant": "as-run", "mode": "train"}

ADVTRAIN: Table = {
    "default": {
        "mnist": _ADV_MNIST,
        "glyphs": _ADV_MNIST | {"epochs": 30, "batch_size": 100, "lr": 3e-3},
        "cifar10": _ADV_CIFAR,
    },
    "report": {
        "mnist": _ADV_REPORT_MNIST,
        "glyphs": _ADV_REPORT_MNIST,
        "cifar10": _ADV_REPORT_CIFAR,
    },
    "as-run": {
        "mnist": _ADV_REPORT_MNIST | _AS_RUN | {"lr": 2e-4, "alpha": 0.01},
        "cifar10": _ADV_REPORT_CIFAR | _AS_RUN | {"validation": 0, "mix_stages": (0, 1, 2)},
    },
}
"""Adversarial training recipes: the training settings, and those of the adversary (steps, alpha, ramp, mode)."""

MIX_ALPHA = {"none": 1.0, "mixup": 1.0, "manifold": 2.0}
"""Lambda ~ Beta(a, a), one draw a batch: a for each mixing, the same in every preset."""

_EPS = {"mnist": {"linf": 0.3, "l2": 2.0}, "cifar10": {"linf": 8 / 255, "l2": 0.5}}
_EPS["glyphs"] = _EPS["mnist"]

ATTACK: Table = {
    "default": {"mnist": {"steps": 40}, "glyphs": {"steps": 40}, "cifar10": {"steps": 20}},
    "report": {
        "mnist": {"steps": 40, "alpha": 0.1},
        "glyphs": {"steps": 40, "alpha": 0.1},
        "cifar10": {"steps": 7, "alpha": 2 / 255},
    },
    "as-run": {
        "mnist": {"steps": 40, "alpha": 0.01, "variant": "as-run"},
        "cifar10": {"steps": 7, "alpha": 2 / 255, "variant": "as-run"},
    },
}
"""Attacks: preset -> data set -> settings. alpha is 2.5 eps / steps where nothing else is said."""


def like(info: DatasetInfo) -> str:
    """Whose recipes suit a set that has none of its own: MNIST's for small grey images, else CIFAR-10's."""
    return "mnist" if not info.colour and max(info.shape) <= 32 else "cifar10"


def has_recipe(info: DatasetInfo) -> bool:
    """Whether the set has recipes of its own."""
    return parted(info.name)[0] in TRAIN["default"]


def recipe(table: Table, preset: str, info: DatasetInfo) -> dict[str, Any]:
    """What a preset says for a data set, or for one like it. Raises UsageError where it says nothing.

    Only `default` speaks of sets without recipes of their own: by their shape and size.
    """
    known_name(preset, table, "preset")
    base = parted(info.name)[0]
    if base in table[preset]:
        found = table[preset][base]
        return found if info.shape == data.info(base).shape else found | _cropped(found, info)
    if preset != "default":
        raise UsageError(
            f"the preset {preset} says nothing about {shown(info.name)}",
            f"it knows {', '.join(table[preset])}; see advmix presets",
        )
    found = table[preset][like(info)]
    return found | _sized(found, info) if "epochs" in found else found


_FEWEST_STEPS = 20
_MOST_EPOCHS = 4


def _cropped(found: dict[str, Any], info: DatasetInfo) -> dict[str, Any]:
    return {"crop_padding": max(info.shape[1:]) // 8} if found.get("crop_padding") else {}


def _sized(found: dict[str, Any], info: DatasetInfo) -> dict[str, Any]:
    """What of a recipe follows the number of training images: fewer are seen more often, in smaller batches."""
    n, usual = info.sizes["train"], 50_000
    often = min(max((usual / n) ** 0.5, 0.5), _MOST_EPOCHS)
    batch = found["batch_size"]
    while batch > 16 and n < _FEWEST_STEPS * batch:
        batch //= 2
    sized = {
        "epochs": round(found["epochs"] * often),
        "batch_size": batch,
        "validation": min(found["validation"], n // 10),
    }
    return sized | _cropped(found, info) | ({"flip": info.flips} if found.get("flip") else {})


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _known(dataset: DatasetInfo | str) -> DatasetInfo:
    return data.info(dataset) if isinstance(dataset, str) else dataset


def usual_eps(info: DatasetInfo, norm: str) -> float:
    """The budget that is usual for such images."""
    base = parted(info.name)[0]
    return _EPS[base if base in _EPS else like(info)][norm]


def train_settings(preset: str, dataset: DatasetInfo | str, arch: str, **options: Any) -> TrainSettings:
    """The settings of a training run: what `options` give (None: not given), else what the preset says."""
    info = _known(dataset)
    return _train_settings(preset, info, arch, recipe(TRAIN, preset, info) | _given(options))


def _recipe_of(method: Method, preset: str, info: DatasetInfo) -> dict[str, Any]:
    """What a preset says of adversarial training with a method: where that has settings of its own, those."""
    found = recipe(ADVTRAIN, preset, info)
    if not method.settings:
        return found
    if preset != "default":
        raise UsageError(f"the preset {preset} is PGD's, not {method.name}'s", "leave --preset or --method out")
    own = dict(method.settings)
    return found | {"ramp": 0.0} | own | ({} if has_recipe(info) else _sized(own, info))


_ADVERSARY = ("ramp", "policy", "mode", "mix_order", "awp")
_THREAT = ("eps", "alpha", "steps", "random_start", "norm", "variant")


def advtrain_settings(preset: str, dataset: DatasetInfo | str, arch: str, **options: Any) -> TrainSettings:
    """The settings of adversarial training: what `options` give (None: not given), else what the preset says."""
    info = _known(dataset)
    method = METHODS[known_name(options.pop("method", "pgd"), METHODS, "method")]
    arguments = options.pop("method_arg", None) or ()
    for name in ("steps", "alpha", "random_start"):
        if not method.attacks and options.get(name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is PGD's, and {method.name} runs none", "leave it out")
    values = _recipe_of(method, preset, info) | _given(options)
    threat_values = {name: values.pop(name) for name in _THREAT if name in values}
    if "precision" in values:
        threat_values["precision"] = values["precision"]
    adversary_values = {name: values.pop(name) for name in _ADVERSARY if name in values}
    norm = threat_values.pop("norm", "linf")
    chosen = Threat.of("pgd", norm, threat_values.pop("eps", usual_eps(info, norm)), **threat_values)
    adversary_values |= {"method": method.name, "options": method.read(arguments, like(info) == "mnist")}
    adversary = Adversary(threat=_with_alpha(chosen), **adversary_values)
    return _train_settings(preset, info, arch, values | {"adversary": adversary})


def _train_settings(preset: str, info: DatasetInfo, arch: str, values: dict[str, Any]) -> TrainSettings:
    mix = values.get("mix", "none")
    augmented = values.pop("augment", None)
    if augmented is not None:
        values |= _augmented(known_name(augmented, AUGMENTS, "augment"), info)
    values.setdefault("mix_alpha", MIX_ALPHA.get(mix, 1.0))
    asked = values.pop("stages", None)
    if mix != "manifold":
        if asked is not None:
            raise UsageError("--mix-stages says where hidden representations are mixed", "use --mix manifold")
        values["mix_stages"] = (0,)
    elif asked is not None:
        values["mix_stages"] = tuple(asked)
    elif arch != info.arch or not has_recipe(info):
        values["mix_stages"] = _FIRST_STAGES
    if values.get("limit") is not None:
        values["validation"] = min(values["validation"], values["limit"] // 10)
    if not has_recipe(info):
        learning = min(values.get("limit") or info.sizes["train"], info.sizes["train"]) - values["validation"]
        values["validation"] += int(learning > 1 and learning % values["batch_size"] == 1)  # no batch of one
    return TrainSettings(preset=preset, dataset=info.name, arch=arch, **values)


_SHIFTED = {"shift": 28, "crop-flip": 8, "cutmix": 8}
"""By up to which part of a side an augmentation moves images: `shift` those like MNIST's by a pixel."""


def _augmented(name: str, info: DatasetInfo) -> dict[str, Any]:
    """The settings that an augmentation comes to; cutmix pastes into images that are flipped and cropped."""
    padding = max(max(info.shape[1:]) // _SHIFTED[name], 1) if name in _SHIFTED else 0
    pasted = {"augment": name} if name in ("idbh", "cutmix") else {}
    return {"flip": name in ("crop-flip", "cutmix") and info.flips, "crop_padding": padding, **pasted}


def _with_alpha(threat: Threat) -> Threat:
    """The step size spelled out, so that records say it."""
    return dataclasses.replace(threat, alpha=threat.step_size)


def threat(preset: str, dataset: DatasetInfo | str, **options: Any) -> Threat:
    """The threat: what `options` give (None: not given), else what the preset says for the data set."""
    info = _known(dataset)
    known_name(preset, PRESETS, "preset")
    given = _given(options)
    attack = known_name(given.pop("attack", "pgd"), ATTACKS, "attack")
    norm = known_name(given.pop("norm", "linf"), NORMS, "norm")
    eps = given.pop("eps", usual_eps(info, norm))
    does = ATTACKS[attack].settings
    given = {name: value for name, value in given.items() if name not in does or does[name] != value}
    for name in given:
        if name not in ATTACKS[attack].options:
            raise does_not_apply(name, (attack,))
    said = recipe(ATTACK, preset, info)
    if attack != "pgd":
        if "variant" in said:
            raise UsageError(f"the preset {preset} is a pgd attack, not {attack}", "leave --preset or --attack out")
        chosen = Threat.of(attack, norm, eps, **given)
        return _with_alpha(chosen) if attack == "fgsm" else chosen
    if norm == "l2":
        said = {name: value for name, value in said.items() if name != "alpha"}  # they are meant for linf
    return _with_alpha(Threat.of(attack, norm, eps, **(said | given)))


def threats(
    preset: str, dataset: DatasetInfo | str, attacks: Sequence[str], *, usual: Mapping[str, Any], **options: Any
) -> tuple[Threat, ...]:
    """A threat for each of `attacks`, which takes of the options what applies to it; each must apply to one of them.

    `usual` are settings that nobody asked for: of them, too, each attack takes what applies to it.
    """
    for attack in attacks:
        known_name(attack, ATTACKS, "attack")
    given = _given(options)
    for name in given:
        if attacks and name not in ("norm", "eps") and not any(name in ATTACKS[each].options for each in attacks):
            raise does_not_apply(name, tuple(attacks))

    def applying(attack: str) -> dict[str, Any]:
        names = ("norm", "eps", *ATTACKS[attack].options)
        return {name: value for name, value in (dict(usual) | given).items() if name in names}

    return tuple(threat(preset, dataset, attack=attack, **applying(attack)) for attack in attacks)
