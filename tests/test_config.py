"""Numbers as people write them, presets as documented, and keys that miss nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advmix_cli import config, presets, settings
from advmix_cli.config import Adversary, AttackSettings, EvalSettings, TrainSettings
from advmix_cli.errors import UsageError
from advmix_cli.judging import Certificate, HeldOut, Inferring
from advmix_cli.settings import Settings
from advmix_cli.threats import ATTACKS, LOSSES, NORMS, PRECISIONS, Threat
from advmix_cli.ways import INFERENCES, METHODS

TRAIN = presets.train_settings("default", "mnist", "lenet5")
ATTACK = AttackSettings("default", "mnist", "test", None, Threat())
EVAL = EvalSettings("mnist", "test", None, (Threat(),))

OTHERS: dict[str, Any] = {
    "preset": "report", "dataset": "glyphs", "arch": "other", "optimizer": "adam", "schedule": "constant",
    "mix": "mixup", "loss": "bce-softmax", "precision": "bf16", "split": "train", "norm": "l2", "attack": "fgsm",
    "variant": "as-run", "limit": 7, "per_class": 7, "threat": Threat(eps=0.1), "threats": (Threat(eps=0.1),),
    "adversary": Adversary(Threat()), "policy": "partial-pgd", "mode": "train", "alpha": 0.07, "audited": Threat(),
    "certified": Certificate(0.1), "augment": "idbh", "bounds": "ibp", "mix_order": "mix-attack",
    "inference": Inferring("mi-pl", INFERENCES["mi-pl"].read(())),
}  # fmt: skip
"""Another value for every field that is no number."""


def other(name: str, value: Any) -> Any:
    if name == "loss" and value == "ce":
        return "cw"
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, 3)
    if name in ("ramp", "ema"):
        return 0.5
    return value * 2 + 0.05 if isinstance(value, float) else value + 1


@pytest.mark.parametrize(
    "chosen",
    [TRAIN, ATTACK, EVAL, Threat(), Adversary(Threat()), Certificate(0.3), HeldOut(5)],
    ids=lambda s: type(s).__name__,
)
def test_every_field_is_in_the_key(chosen: Any) -> None:
    key = settings.key("kind", chosen)
    for field in dataclasses.fields(chosen):
        if isinstance(chosen, Adversary) and field.name in ("method", "options"):
            continue  # each of them goes with the other
        if field.name == "held":
            continue  # it goes with a split of its own
        value = getattr(chosen, field.name)
        changed = dataclasses.replace(chosen, **{field.name: other(field.name, value)})
        assert changed != chosen, field.name
        assert settings.key("kind", changed) != key, field.name


def test_which_images_were_held_out_is_in_the_key() -> None:
    held = [HeldOut(5), HeldOut(6), HeldOut(5, limit=9), HeldOut(5, seed=1)]
    met = [dataclasses.replace(EVAL, split="validation", held=each) for each in held]
    assert len({settings.key("kind", each) for each in met}) == len(held)
    for wrong in ({"split": "validation"}, {"held": HeldOut(5)}):
        with pytest.raises(UsageError, match="validation"):
            dataclasses.replace(EVAL, **wrong)


def test_a_method_and_what_it_is_told_are_in_the_key() -> None:
    told = [Adversary(Threat()), *(Adversary(Threat(), method=m.name, options=m.read((), True))
                                   for m in METHODS.values() if m.name != "pgd")]  # fmt: skip
    for method in METHODS.values():
        for name, option in method.options.items():
            changed = method.read([f"{name}={option.low + 0.3 * (option.high - option.low)}"], True)
            told.append(Adversary(Threat(), method=method.name, options=changed))
    assert len({settings.key("kind", dataclasses.replace(TRAIN, mix="mixup", adversary=each)) for each in told}) == len(
        told
    )


def test_a_field_at_its_default_leaves_the_key_as_it_was() -> None:
    """So a new option, whose default is what was done before, empties no store."""

    @dataclasses.dataclass(frozen=True)
    class Grown(Threat):
        momentum: float = 0.0
        early: bool = False

    assert settings.key("samples", Grown(eps=0.1)) == settings.key("samples", Threat(eps=0.1))
    assert settings.key("samples", Grown(eps=0.1, momentum=0.9)) != settings.key("samples", Threat(eps=0.1))
    assert settings.key("samples", Grown(eps=0.1, early=True)) != settings.key("samples", Grown(eps=0.1))

    @dataclasses.dataclass(frozen=True)
    class Outer(Settings):
        threat: Threat

    assert settings.key("x", Outer(Grown())) == settings.key("x", Outer(Threat())), "also within others"


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_mended_attack_does_not_answer_from_before(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    within = [name for name, other in ATTACKS.items() if attack in (name, *(part.attack for part in other.parts))]
    chosen = {name: dataclasses.replace(ATTACK, threat=Threat.of(name, "linf", 0.1)) for name in ATTACKS}
    before = {name: settings.key("samples", each) for name, each in chosen.items()}
    monkeypatch.setitem(ATTACKS, attack, dataclasses.replace(ATTACKS[attack], version=ATTACKS[attack].version + 1))
    changed = [name for name, each in chosen.items() if settings.key("samples", each) != before[name]]
    assert changed == within
    adversarial = presets.advtrain_settings("default", "mnist", "lenet5")
    assert (settings.key("x", adversarial) != settings.key("x", TRAIN)) is True


def test_ways_of_training_and_the_audit_have_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    adversarial = presets.advtrain_settings("default", "mnist", "lenet5")
    audited = dataclasses.replace(EVAL, audited=Threat())
    all_of_them = (TRAIN, adversarial, EVAL, audited)
    before = [settings.key("x", each) for each in all_of_them]
    monkeypatch.setitem(config.TRAINING, "adversarial", 2)
    monkeypatch.setattr(config, "AUDIT", 3)
    after = [settings.key("x", each) for each in all_of_them]
    assert [a != b for a, b in zip(after, before, strict=True)] == [False, True, False, True]


KEYS = {
    "train": (TRAIN, "6f4b6a9e5be2813d"),
    "advtrain": (presets.advtrain_settings("report", "mnist", "lenet5", mix="mixup"), "db2067581c49c309"),
    "attack": (ATTACK, "37bb3fc790a4f8e5"),
    "autoattack": (dataclasses.replace(ATTACK, threat=Threat.of("autoattack", "l2", 0.5)), "352e98d7292cba6f"),
    "eval": (EVAL, "9f7e8ee9593ebb8d"),
}


@pytest.mark.parametrize("name", KEYS)
def test_keys_are_those_of_the_first_release(name: str) -> None:
    """Where one differs, stores that people have answer no more: give a new field the default that keeps it.

    A version that was raised on purpose is the one reason to write down another.
    """
    chosen, key = KEYS[name]
    assert settings.key(name, chosen)[:16] == key


THREATS = st.builds(
    lambda attack, norm, eps, **more: Threat.of(attack, norm, eps, **more),
    st.sampled_from([name for name in ATTACKS if name != "autoattack"]),
    st.sampled_from(NORMS),
    st.sampled_from([0.3, 8 / 255, 0.1, 0.1 + 1e-12, 1 / 3, 0.0]) | st.floats(0, 1),
    alpha=st.none() | st.floats(1e-6, 1),
    steps=st.integers(1, 50),
    queries=st.integers(1, 50),
    restarts=st.integers(1, 3),
    random_start=st.just(True),
    loss=st.sampled_from(LOSSES),
    targets=st.integers(0, 9),
    early_stop=st.booleans(),
    precision=st.sampled_from(PRECISIONS),
)


@given(THREATS, THREATS)
def test_one_label_is_one_threat(a: Threat, b: Threat) -> None:
    spelled = [dataclasses.replace(each, alpha=each.step_size) for each in (a, b)]
    assert (a.label == b.label) == (spelled[0] == spelled[1])


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Threat)])
def test_a_label_tells_each_field_apart(field: str) -> None:
    base = Threat(eps=0.3, restarts=2)
    value = getattr(base, field)
    changed = "autoattack" if field == "attack" else other(field, value)
    if field == "random_start":
        base = dataclasses.replace(base, restarts=1)
    if field == "variant":
        base = Threat()
    assert dataclasses.replace(base, **{field: changed}).label != base.label


def test_each_attack_is_declared_once_and_says_what_it_costs() -> None:
    """Its label, text, options and passes all follow from its declaration."""
    for name, declared in ATTACKS.items():
        threat = Threat.of(name, "linf", 0.1)
        assert threat.label.startswith(f"{name}-0.1")
        assert str(threat).startswith(declared.title)
        assert threat.passes[0] >= 1
    assert Threat.of("pgd", "linf", 0.1, steps=40, restarts=5).passes == (200, 200)
    assert Threat.of("square", "linf", 0.1).passes == (5001, 0)
    assert Threat.of("apgd-t", "linf", 0.1).passes == (909, 909)
    whole = Threat.of("autoattack", "linf", 0.1)
    assert whole.passes[1] == sum(part.passes[1] for part in whole.parts)


def test_the_key_depends_on_what_a_thing_is_made_from() -> None:
    keys = {
        settings.key(k, ATTACK, **made)
        for k in ("a", "b")
        for made in ({}, {"data": "x"}, {"data": "y"}, {"weights": "x"})
    }
    assert len(keys) == 8


ADVTRAIN = presets.advtrain_settings("as-run", "cifar10", "preactresnet18", mix="mixup", policy="partial-pgd")


@pytest.mark.parametrize(
    "chosen",
    [TRAIN, Threat(eps=8 / 255, alpha=2 / 255), ADVTRAIN, ATTACK, dataclasses.replace(EVAL, audited=Threat(eps=0.1))],
    ids=["train", "threat", "adv", "attack", "eval"],
)
def test_settings_survive_their_record(chosen: Any) -> None:
    assert type(chosen).from_dict(chosen.to_dict()) == chosen


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_fractions(a: int, b: int) -> None:
    assert settings.fraction(f"{a}/{b}") == a / b
    assert settings.fraction(f" {a / b!r} ") == a / b
    assert settings.fraction(f"{a} / {b}") == a / b


@pytest.mark.parametrize(
    "text", ["8/0", "nan", "inf", "-inf", "", "a", "1/2/3", "1e999", "1e99999999999", "0x3", "1/inf/"]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        settings.fraction(text)


@pytest.mark.parametrize(
    ("value", "shown"), [(8 / 255, "8/255"), (0.3, "0.3"), (0.2, "0.2"), (0.0, "0"), (1 / 255, "1/255")]
)
def test_numbers_are_shown_as_people_write_them(value: float, shown: str) -> None:
    assert settings.number(value) == shown


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


@pytest.mark.parametrize(
    ("name", "dataset", "flip", "by"),
    [
        ("none", "cifar10", False, 0),
        ("shift", "mnist", False, 1),
        ("shift", "cifar10", False, 1),
        ("crop-flip", "mnist", False, 4),
        ("crop-flip", "cifar10", True, 4),
    ],
)
def test_how_an_augmentation_moves_images(name: str, dataset: str, flip: bool, by: int) -> None:
    settings = presets.advtrain_settings("default", dataset, "lenet5", augment=name)
    assert (settings.flip, settings.crop_padding) == (flip, by)


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
    assert settings.canonical_json({"b": text, "a": n}) == settings.canonical_json({"a": n, "b": text})


def test_canonical_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        settings.canonical_json({"a": float("nan")})


def test_train_settings_refuse_nonsense() -> None:
    for bad in ({"epochs": 0}, {"lr": -1.0}, {"mix": "cutmix"}, {"soft_label": -1.0}, {"seed": -1}, {"limit": 0}):
        with pytest.raises(UsageError):
            TrainSettings(**{**dataclasses.asdict(TRAIN), **bad})


def test_an_option_of_a_way_that_came_later_leaves_the_key_as_it_was() -> None:
    """What is stored of a way without it reads as what was done then."""
    told = Adversary(Threat(), method="sabr", options=METHODS["sabr"].read(["box=0.8"]))
    then = Adversary(Threat(), method="sabr", options=METHODS["sabr"].read(["box=0.8", "spread=1", "gce=0"]))
    assert Adversary.from_dict(told.to_dict()) == told
    assert Adversary.from_dict(told.to_dict() | {"options": [["box", 0.8]]}) == then
    assert told.identity()["options"] == [["box", 0.8]]
    assert "options" not in Adversary(Threat(), method="sabr", options=METHODS["sabr"].read(())).identity()
