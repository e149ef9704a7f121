"""Numbers as people write them, presets as documented, and keys that miss nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advmix_cli import config, presets
from advmix_cli.config import Adversary, AttackSettings, EvalSettings, Threat, TrainSettings
from advmix_cli.errors import UsageError

TRAIN = presets.train_settings("default", "mnist", "lenet5")
ATTACK = AttackSettings("default", "mnist", "test", None, Threat(), 100)
EVAL = EvalSettings("mnist", "test", None, (Threat(),), 100)

OTHERS: dict[str, Any] = {
    "preset": "report", "dataset": "glyphs", "arch": "other", "optimizer": "adam", "schedule": "constant",
    "mix": "mixup", "loss": "bce-softmax", "precision": "bf16", "split": "train", "norm": "l2", "attack": "fgsm",
    "variant": "as-run", "limit": 7, "per_class": 7, "threat": Threat(eps=0.1), "threats": (Threat(eps=0.1),),
    "adversary": Adversary(Threat()), "policy": "partial-pgd", "mode": "train", "alpha": 0.07, "audited": Threat(),
}  # fmt: skip
"""Another value for every field that is no number."""

UNKEYED: tuple[str, ...] = ()
"""Fields of settings that do not change a number. None: the device, threads and paths are no settings at all."""


def other(name: str, value: Any) -> Any:
    if name == "loss" and value == "ce":
        return "cw"
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, 3)
    if name == "ramp":
        return 0.5
    return value * 2 + 0.05 if isinstance(value, float) else value + 1


@pytest.mark.parametrize(
    "settings", [TRAIN, ATTACK, EVAL, Threat(), Adversary(Threat())], ids=lambda s: type(s).__name__
)
def test_every_field_is_in_the_key(settings: Any) -> None:
    key = config.key("kind", settings)
    for field in dataclasses.fields(settings):
        if field.name in UNKEYED:
            continue
        value = getattr(settings, field.name)
        changed = dataclasses.replace(settings, **{field.name: other(field.name, value)})
        assert changed != settings, field.name
        assert config.key("kind", changed) != key, field.name


def test_the_key_depends_on_what_a_thing_is_made_from() -> None:
    keys = {
        config.key(k, ATTACK, **made)
        for k in ("a", "b")
        for made in ({}, {"data": "x"}, {"data": "y"}, {"weights": "x"})
    }
    assert len(keys) == 8


ADVTRAIN = presets.advtrain_settings("as-run", "cifar10", "preactresnet18", mix="mixup", policy="partial-pgd")


@pytest.mark.parametrize(
    "settings", [TRAIN, Threat(eps=8 / 255, alpha=2 / 255), ADVTRAIN], ids=["train", "threat", "adv"]
)
def test_settings_survive_their_record(settings: Any) -> None:
    assert type(settings).from_dict(settings.to_dict()) == settings


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_fractions(a: int, b: int) -> None:
    assert config.fraction(f"{a}/{b}") == a / b
    assert config.fraction(f" {a / b!r} ") == a / b
    assert config.fraction(f"{a} / {b}") == a / b


@pytest.mark.parametrize(
    "text", ["8/0", "nan", "inf", "-inf", "", "a", "1/2/3", "1e999", "1e99999999999", "0x3", "1/inf/"]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        config.fraction(text)


@pytest.mark.parametrize(
    ("value", "shown"), [(8 / 255, "8/255"), (0.3, "0.3"), (0.2, "0.2"), (0.0, "0"), (1 / 255, "1/255")]
)
def test_numbers_are_shown_as_people_write_them(value: float, shown: str) -> None:
    assert config.number(value) == shown


@pytest.mark.parametrize(
    "options",
    [
        {"eps": -0.1}, {"eps": float("nan")}, {"eps": 1.01}, {"steps": 0}, {"alpha": 0.0}, {"alpha": float("inf")},
        {"restarts": 0}, {"norm": "l1"}, {"attack": "cw"}, {"attack": "fgsm", "steps": 3},
        {"restarts": 2, "random_start": False},
    ],
    ids=str,
)  # fmt: skip
def test_threats_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        presets.threat("default", "mnist", **options)


def test_the_default_threats() -> None:
    mnist, cifar = presets.threat("default", "mnist"), presets.threat("default", "cifar10")
    assert (mnist.eps, mnist.steps, mnist.alpha) == (0.3, 40, 2.5 * 0.3 / 40)
    assert (cifar.eps, cifar.steps, cifar.alpha) == (8 / 255, 20, 2.5 * 8 / 255 / 20)
    assert presets.threat("default", "mnist", norm="l2").eps == 2.0
    assert presets.threat("default", "mnist", eps=0.1, steps=10).alpha == pytest.approx(0.025)
    fgsm = presets.threat("default", "mnist", attack="fgsm")
    assert (fgsm.alpha, fgsm.steps, fgsm.random_start) == (0.3, 1, False)


def test_the_reports_settings() -> None:
    text = presets.train_settings("report", "cifar10", "preactresnet18", mix="manifold")
    run = presets.train_settings("as-run", "cifar10", "preactresnet18", mix="manifold")
    assert (text.epochs, text.batch_size, text.lr, text.milestones) == (2000, 100, 0.1, (500, 1000))
    assert (text.momentum, text.weight_decay, text.flip, text.crop_padding) == (0.9, 1e-4, True, 2)
    assert (run.milestones, run.loss, run.mix_stages) == ((500, 1000, 1500), "bce-softmax", (0, 1, 2))
    mnist = presets.train_settings("as-run", "mnist", "lenet5")
    assert (mnist.epochs, mnist.milestones, mnist.per_class, mnist.nesterov) == (500, (300, 400), 5000, True)
    assert presets.threat("report", "mnist").alpha == 0.1
    as_run = presets.threat("as-run", "mnist")
    assert (as_run.alpha, as_run.steps, as_run.variant) == (0.01, 40, "as-run")
    assert "as-run" in as_run.label
    assert "as-run" in str(as_run)
    assert presets.threat("as-run", "cifar10").steps == 7


def test_the_reports_adversarial_settings() -> None:
    text = presets.advtrain_settings("report", "mnist", "lenet5")
    run = presets.advtrain_settings("as-run", "mnist", "lenet5")
    assert (text.optimizer, text.lr, text.milestones, text.gamma, text.epochs) == ("adam", 0.002, (400, 600), 0.5, 800)
    assert (run.lr, run.loss, run.per_class) == (2e-4, "bce-softmax", 5000)
    assert text.adversary is not None
    assert run.adversary is not None
    assert (text.adversary.threat.alpha, run.adversary.threat.alpha, run.adversary.threat.steps) == (0.1, 0.01, 40)
    cifar = ADVTRAIN
    assert (cifar.optimizer, cifar.lr, cifar.schedule, cifar.epochs) == ("sgd", 0.1, "constant", 500)
    assert (cifar.nesterov, cifar.weight_decay, cifar.batch_size) == (True, 1e-4, 100)
    assert cifar.adversary is not None
    assert (cifar.adversary.threat.eps, cifar.adversary.threat.alpha, cifar.adversary.threat.steps) == (
        8 / 255,
        2 / 255,
        7,
    )


def test_limits_shrink_the_validation_split() -> None:
    assert presets.train_settings("default", "mnist", "lenet5", limit=500).validation == 50
    assert TRAIN.validation == 5000


@given(st.text(max_size=20), st.integers(0, 5))
def test_canonical_json_is_canonical(text: str, n: int) -> None:
    assert config.canonical_json({"b": text, "a": n}) == config.canonical_json({"a": n, "b": text})


def test_canonical_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        config.canonical_json({"a": float("nan")})


def test_train_settings_refuse_nonsense() -> None:
    for bad in ({"epochs": 0}, {"lr": -1.0}, {"mix": "cutmix"}, {"soft_label": -1.0}, {"seed": -1}, {"limit": 0}):
        with pytest.raises(UsageError):
            TrainSettings(**{**dataclasses.asdict(TRAIN), **bad})
