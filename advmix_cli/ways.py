"""The ways of adversarial training and of inference, each declared once. Needs no torch.

A new way is a file in `methods/` and an entry in `METHODS`: its options, help, completion, label and key follow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from advmix_cli.errors import UsageError, known_name
from advmix_cli.settings import fraction, require

MIXES = ("none", "mixup", "manifold")
MIX_ORDERS = ("attack-mix", "mix-attack")
AUGMENTS = ("none", "shift", "crop-flip", "idbh", "cutmix")


@dataclasses.dataclass(frozen=True)
class Option:
    """A number that a way may be told: what it does, its range, and its value where nothing is said.

    `small_grey` is that for images like MNIST's, where the source has another; `before` is what was done before the
    option came, where that was another, for records that say nothing of it.
    """

    help: str
    usual: float
    low: float = 0.0
    high: float = 1.0
    small_grey: float | None = None
    before: float | None = None


@dataclasses.dataclass(frozen=True)
class Way:
    """What can be chosen by its name and told numbers: what it is called, and where it was published.

    `source` is its class, as module:class. `version` grows when the same settings come to another result.
    """

    option: ClassVar[str]
    """How the command line has its options."""

    name: str
    title: str
    reference: str
    source: str
    options: Mapping[str, Option] = dataclasses.field(default_factory=dict)
    version: int = 1

    def read(self, given: Sequence[str], small_grey: bool = False) -> tuple[tuple[str, float], ...]:
        """All its options, with those `given` as KEY=VALUE. Raises UsageError for what it cannot be told."""
        values = {
            name: option.usual if option.small_grey is None or not small_grey else option.small_grey
            for name, option in self.options.items()
        }
        for text in given:
            name, equals, value = text.partition("=")
            example = next(iter(self.options), "")
            hint = f"for example {self.option} {example}={self.options[example].usual:g}" if example else ""
            require(bool(self.options), f"{self.name} takes no {self.option}", "leave it out")
            require(bool(equals), f"{self.option} {text} is no KEY=VALUE", hint)
            known_name(name, self.options, "option")
            try:
                values[name] = fraction(value)
            except ValueError as error:
                raise UsageError(f"{self.option} {text}: {error}", hint) from None
        return tuple(sorted(values.items()))

    def filled(self, options: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
        """Those, and for options that came later what was done before they did."""
        before = {
            name: option.usual if option.before is None else option.before for name, option in self.options.items()
        }
        return tuple(sorted((before | dict(options)).items()))

    def unusual(self, options: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
        """Those that are not at their usual value."""
        return tuple((name, value) for name, value in sorted(options.items()) if value != self.options[name].usual)

    def check(self, options: Mapping[str, float]) -> None:
        """Raise UsageError for options that are not its own or out of their range."""
        require(set(options) == set(self.options), f"those are no options of {self.name}", f"see {self.option} in help")
        for name, option in self.options.items():
            require(
                option.low <= options[name] <= option.high,
                f"{self.option} {name} must be from {option.low:g} to {option.high:g}, not {options[name]:g}",
                option.help,
            )


def options_of(value: Any) -> tuple[tuple[str, float], ...]:
    """What a way was told, from plain values."""
    return tuple((str(option), float(number)) for option, number in value)


def told(way: Way, identity: dict[str, Any], options: Mapping[str, float]) -> dict[str, Any]:
    """An identity in which an option at its usual value leaves the key as it was."""
    told = [list(each) for each in way.unusual(options)]
    return {name: value for name, value in identity.items() if name != "options"} | ({"options": told} if told else {})


@dataclasses.dataclass(frozen=True)
class Method(Way):
    """A way of adversarial training.

    `attacks`: it runs PGD on each batch, so steps, alpha and the random start mean something. `mixes` are those it can
    be combined with, the first of them the usual one. `certified`: it learns bounds, so the middle of the bracket
    chooses its epoch. `fresh`: it begins from fresh weights where nothing is said. `guarded`: it may overfit to its one
    step, which is watched and undone. `settings` are those of the recipe that are other than PGD's.
    """

    option: ClassVar[str] = "--method-arg"

    attacks: bool = True
    mixes: tuple[str, ...] = MIXES
    certified: bool = False
    fresh: bool = False
    guarded: bool = False
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Inference(Way):
    """A way to come to a verdict. `others`: it mixes with images of other classes than the predicted one."""

    option: ClassVar[str] = "--inference-arg"

    others: bool = False


_HERE = "advmix_cli.methods"
_WARMUP = Option("share of all steps before the bounds' eps begins to grow", 0.025)
_RAMP_END = Option("share of all steps after which it has grown to the whole eps", 0.6, high=1.0)
_L1 = Option("factor of the sum of all weights' sizes in the loss", 0.0)
_WIDER = Option("eps of the bounds in training, in the threat's eps", 1.0, low=0.1, high=4.0)
_TIGHT = Option("factor of the regulariser of the bounds' tightness while eps grows", 0.0, high=100.0)
_SPREAD = Option(
    "deviation of fresh weights in sqrt(2 pi) / fan-in, with which intervals do not grow; 0: as the network draws them",
    0.0, high=10.0, before=1.0,
)  # fmt: skip
_KAPPA = Option("share of the loss without bounds once eps has grown", 0.0)
_BOUNDED_LOSS = Option(
    "q of the generalised cross-entropy once eps has grown: hopeless images count less; 0: cross-entropy",
    0.4,
    before=0.0,
)
_RECYCLE = Option("share of all steps until which channels that are always off begin anew, at each epoch's start", 0.0)
_CERTIFIED: dict[str, Any] = {
    "optimizer": "adam", "lr": 6e-3, "schedule": "one-cycle", "batch_size": 250, "epochs": 40, "validation": 1000,
    "clip": 10.0,
}  # fmt: skip
_BOUNDED = {
    "spread": _SPREAD, "warmup": _WARMUP, "ramp": _RAMP_END, "wider": _WIDER, "tight": _TIGHT, "l1": _L1,
    "gce": _BOUNDED_LOSS, "recycle": _RECYCLE,
}  # fmt: skip

METHODS = {
    method.name: method
    for method in (
        Method("pgd", "adversarial training", "Madry et al. 2018, Algorithm 1 of the report", f"{_HERE}.pgd:Pgd"),
        Method(
            "fgsm-rs", "single-step adversarial training from random starts", "Wong et al. 2020",
            f"{_HERE}.fgsm_rs:FgsmRs",
            {"alpha": Option("step size, in eps", 1.25, high=4.0)},
            attacks=False, guarded=True, version=2,
        ),
        Method(
            "trades", "TRADES", "Zhang et al. 2019", f"{_HERE}.trades:Trades",
            {"beta": Option("factor of the divergence between clean and attacked", 6.0, high=1000.0, small_grey=1.0)},
        ),
        Method(
            "iat", "interpolated adversarial training", "Lamb et al. 2019", f"{_HERE}.iat:Iat",
            {"weight": Option("share of the attacked half in the loss", 0.5)},
            mixes=("mixup", "manifold"),
        ),
        Method(
            "avmixup", "adversarial vertex mixup", "Lee et al. 2020", f"{_HERE}.avmixup:AvMixup",
            {
                "gamma": Option("how far the vertex lies beyond the attacked image", 2.0, low=1.0, high=10.0),
                "clean-label": Option("share of the right class at the clean image", 1.0),
                "vertex-label": Option("share of the right class at the vertex", 0.1),
            },
        ),
        Method(
            "m-tlat", "mixup with targeted labels in adversarial training", "Laugros et al. 2020",
            f"{_HERE}.m_tlat:MTlat",
            {"label-weight": Option("share of the target's label; 0: as much as eps", 0.0)},
            attacks=False,
            mixes=("mixup",),
        ),
        Method(
            "ibp", "interval bounds", "Gowal et al. 2018, with the beginning and regulariser of Shi et al. 2021",
            f"{_HERE}.bounded:Ibp",
            {"kappa": _KAPPA, **_BOUNDED},
            attacks=False, mixes=("none", "mixup"), certified=True, fresh=True, settings=_CERTIFIED, version=4,
        ),
        Method(
            "mtl-ibp", "PGD and interval bounds, weighted", "De Palma et al. 2024 (expressive losses)",
            f"{_HERE}.bounded:MtlIbp",
            {"weight": Option("share of the bounds' loss", 0.5), **_BOUNDED},
            mixes=("none", "mixup"), certified=True, fresh=True,
            settings=_CERTIFIED | {"steps": 3}, version=4,
        ),
        Method(
            "sabr", "interval bounds of a small box around an attacked image", "Mueller et al. 2023",
            f"{_HERE}.bounded:Sabr",
            {"box": Option("half the side of the box, in eps", 0.9), "kappa": _KAPPA, **_BOUNDED},
            mixes=("none", "mixup"), certified=True, fresh=True,
            settings=_CERTIFIED | {"steps": 3}, version=5,
        ),
    )
}  # fmt: skip

_AT = "advmix_cli.inference:MixupInference"
_SHARE = Option("share of the image itself in each mixture", 0.5, low=0.01, high=1.0)
_EOT = Option("draws of partners that the attack goes through, each of other images", 4, low=1, high=1000)

INFERENCES = {
    way.name: way
    for way in (
        Inference(
            "mi-pl", "mixup inference with the predicted label", "Pang et al. 2020", _AT,
            {"lam": _SHARE, "samples": Option("images that each is mixed with", 10, low=1, high=1000), "eot": _EOT},
        ),
        Inference(
            "mi-ol", "mixup inference with other labels", "Pang et al. 2020", _AT,
            {"lam": _SHARE, "samples": Option("images that each is mixed with", 30, low=1, high=1000), "eot": _EOT},
            others=True,
        ),
    )
}  # fmt: skip
