"""What the Python functions give back: frozen, readable, and plain where that is wanted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from advmix_cli import config, judging
from advmix_cli.results import accuracy as told
from advmix_cli.settings import plain
from advmix_cli.statistics import wilson
from advmix_cli.threats import Threat

if TYPE_CHECKING:
    import torch
    from torch import nn

    from advmix_cli.auditing import Audit


@dataclasses.dataclass(frozen=True)
class Figure:
    """An accuracy on `n` images, of which so many are `correct`; `bound` is "upper" for what an attack gave,
    "lower" for what was proved.
    """

    on: str
    n: int
    correct: int
    bound: str | None = None

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * self.correct / self.n

    @property
    def accuracy_ci95(self) -> tuple[float, float]:
        """Its 95 % interval (Wilson), in percent."""
        return wilson(self.correct, self.n)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        low, high = self.accuracy_ci95
        return dataclasses.asdict(self) | {"accuracy": self.accuracy, "accuracy_ci95": [low, high]}

    def __str__(self) -> str:
        bound = f" ({'an upper' if self.bound == 'upper' else 'a lower'} bound)" if self.bound else ""
        return f"{self.on}: {told(self.correct, self.n)} of {self.n}{bound}"


@dataclasses.dataclass(frozen=True, repr=False)
class Attacked:
    """What an attack gave: the worst images that were found, (N,C,H,W) in [0,1] on the CPU, and how the model stands.

    `clean_right` and `robust_right`, bool (N,), say of each image whether it is right before, and after as well.
    `after` are the figures after each part of an ensemble. Changes are in pixel units.
    """

    threat: Threat
    x_adv: torch.Tensor
    clean_right: torch.Tensor
    robust_right: torch.Tensor
    after: tuple[Figure, ...]
    linf_max: float
    l2_max: float

    @property
    def clean(self) -> Figure:
        """The clean accuracy."""
        return Figure("clean", len(self.clean_right), int(self.clean_right.sum()))

    @property
    def robust(self) -> Figure:
        """The robust accuracy: right before and under the attack."""
        return Figure(self.threat.label, len(self.robust_right), int(self.robust_right.sum()), "upper")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the images."""
        return {
            "threat": self.threat.to_dict(), "clean": self.clean.to_dict(), "robust": self.robust.to_dict(),
            "after": [each.to_dict() for each in self.after], "linf_max": self.linf_max, "l2_max": self.l2_max,
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"<{self.threat}\n {self.clean}\n {self.robust}\n largest change linf {self.linf_max:.6f}>"


@dataclasses.dataclass(frozen=True, repr=False)
class Proved:
    """What bounds proved: `right`, bool (N,), says of each image whether it is right everywhere in the ball.

    `margin` (N,) is the least margin that was proved, in logits, `losses` (N,) what the cross-entropy, in nats, does
    not exceed there. `undecided`, bool (N,), are those that are neither proved nor known to be wrong somewhere in it.
    """

    certificate: judging.Certificate
    right: torch.Tensor
    margin: torch.Tensor
    losses: torch.Tensor
    undecided: torch.Tensor

    @property
    def figure(self) -> Figure:
        """The certified accuracy."""
        return Figure(self.certificate.label, len(self.right), int(self.right.sum()), "lower")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"certificate": self.certificate.to_dict(), "figure": self.figure.to_dict()}

    def __repr__(self) -> str:
        return f"<{self.certificate}\n {self.figure}>"


@dataclasses.dataclass(frozen=True, repr=False)
class Evaluated:
    """How a model stands: clean, under each attack, under the worst of them, what is proved, and what an audit says."""

    figures: tuple[Figure, ...]
    loss: float
    audit: Audit | None = None

    def __getitem__(self, on: str) -> Figure:
        """The figure of that name: "clean", an attack's label, "worst case"."""
        return {each.on: each for each in self.figures}[on]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        audited = self.audit.to_dict() if self.audit else None
        return {"figures": [each.to_dict() for each in self.figures], "loss": plain(self.loss), "audit": audited}

    def __repr__(self) -> str:
        lines = [str(each) for each in self.figures] + ([f"audit: {self.audit.verdict}"] if self.audit else [])
        return "<" + "\n ".join(lines) + ">"


@dataclasses.dataclass(frozen=True, repr=False)
class Trained:
    """A trained model in eval mode, its settings, its history (a row an epoch), and the epoch that was chosen."""

    model: nn.Module
    settings: config.TrainSettings
    history: tuple[Mapping[str, Any], ...]
    best_epoch: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the model."""
        return {
            "settings": self.settings.to_dict(), "history": [dict(row) for row in self.history],
            "best_epoch": self.best_epoch,
        }  # fmt: skip

    def __repr__(self) -> str:
        row = self.history[self.best_epoch - 1]
        said = f"epoch {self.best_epoch} of {len(self.history)}, training accuracy {row['train_accuracy']:.2f} %"
        return f"<{self.settings.label}: {said}" + (
            f", test {row['test_accuracy']:.2f} %>" if "test_accuracy" in row else ">"
        )
