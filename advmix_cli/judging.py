"""How verdicts are come to: on which images, what is to be proved, and by which inference."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advmix_cli.errors import known_name
from advmix_cli.settings import Settings, check_seed, number, require, require_positive
from advmix_cli.threats import Threat
from advmix_cli.ways import INFERENCES, Inference, options_of, told

BOUNDS = ("best", "ibp", "crown", "exact")


@dataclasses.dataclass(frozen=True)
class Certificate(Settings):
    """What is to be proved, and by which `bounds`: that a network is right everywhere within `eps` of an image."""

    eps: float
    norm: str = "linf"
    bounds: str = "best"

    def __post_init__(self) -> None:
        known_name(self.bounds, BOUNDS, "bounds")
        Threat(norm=self.norm, eps=self.eps)  # says what is wrong with either
        require(self.bounds != "exact" or self.norm == "linf", "exact bounds are of linf alone", "try --bounds best")

    @property
    def label(self) -> str:
        """A short name for tables."""
        norm = [] if self.norm == "linf" else [self.norm]
        return "-".join(["certified", *norm, number(self.eps, exact=True).replace("/", "_")])

    def __str__(self) -> str:
        return f"proved in {self.norm} eps {number(self.eps)}, bounds {self.bounds}"

    def holds_against(self, threat: Threat | None) -> bool:
        """Whether what is proved leaves nothing to find for that threat."""
        standard = threat is not None and threat.variant == "standard"
        return standard and threat is not None and threat.norm == self.norm and threat.eps <= self.eps


@dataclasses.dataclass(frozen=True)
class HeldOut(Settings):
    """Which training images a run did not learn from: `count` of the first `limit`, drawn from the `seed`."""

    count: int
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "count", "limit")
        check_seed(self.seed)


@dataclasses.dataclass(frozen=True)
class Inferring(Settings):
    """How verdicts are come to: the `way`, see `ways.INFERENCES`, and `options` all that it may be told."""

    way: str
    options: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        known_name(self.way, INFERENCES, "inference")
        object.__setattr__(self, "options", self.declared.filled(dict(self.options)))
        self.declared.check(dict(self.options))

    def identity(self) -> dict[str, Any]:
        """What tells these settings from others."""
        return told(self.declared, super().identity(), dict(self.options))

    @classmethod
    def _read(cls, name: str, value: Any) -> Any:
        return options_of(value) if name == "options" else super()._read(name, value)

    @property
    def declared(self) -> Inference:
        """What is known of its way."""
        return INFERENCES[self.way]

    def __str__(self) -> str:
        return ", ".join([self.declared.title, *(f"{name} {number(value)}" for name, value in self.options)])


@dataclasses.dataclass(frozen=True)
class Shown:
    """What becomes of an evaluation beside its record.

    `pairs` are the models that are compared, by their places; `report` is where an HTML report goes; from the verdict
    `fail_on` on, an audit's is the result's problem; `alias` is what the evaluation is called.
    """

    pairs: Sequence[tuple[int, int]] = ()
    report: Path | None = None
    fail_on: str | None = None
    alias: str | None = None
