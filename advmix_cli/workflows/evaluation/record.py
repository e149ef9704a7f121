"""An evaluation: rows of models, columns of what they met, a cell for each of both; to its record and back.

What measures it fills these in, what shows it reads them; nobody else knows how the record looks.
"""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any

from advmix_cli import artifacts, files
from advmix_cli.config import EvalSettings
from advmix_cli.errors import DamagedError
from advmix_cli.judging import Certificate
from advmix_cli.results import distinct
from advmix_cli.results import shown as printable
from advmix_cli.settings import SCHEMA, plain
from advmix_cli.statistics import wilson
from advmix_cli.threats import Threat

Bins = list[tuple[int, float, float]]


@dataclasses.dataclass(frozen=True)
class Column:
    """What models met: its `kind` is clean, samples (a cache), attack (white-box), worst (of columns), or certified.

    `bound` says how the figure bounds the true robust accuracy: "upper", "lower", or None where it does not. `source`
    names the model that a cache was made against. `joint`: an image counts only if it is right clean, too. `of` are
    the columns that a worst case is taken over. `further`: it is what follows a standard ensemble. `proved` is what a
    certificate says.
    """

    kind: str
    label: str
    threat: Threat | None = None
    bound: str | None = None
    source: str | None = None
    joint: bool = True
    of: tuple[int, ...] = ()
    further: bool = False
    proved: Certificate | None = None

    def meets(self, certificate: Certificate) -> bool:
        """Whether its figure is no less than what is true within the ball of a certificate, image by image."""
        attacked = self.kind in ("samples", "attack") and self.bound == "upper"
        return self.kind == "clean" or (attacked and self.joint and certificate.holds_against(self.threat))

    @property
    def shown(self) -> str:
        """Its label for people: what the as-run attack made says so."""
        as_run = self.threat is not None and self.threat.variant == "as-run" and "as-run" not in self.label
        return printable(self.label) + (" (as-run)" if as_run else "")


@dataclasses.dataclass(frozen=True)
class Row:
    """One model: what it is called and is, how it was trained, its calibration on clean images, and its audit.

    `proved` is what intervals prove, in percent, at each eps of the audit, on its images.
    """

    label: str
    lineage: dict[str, Any]
    run: dict[str, Any] | None
    reliability: Bins = dataclasses.field(default_factory=list)
    audit: dict[str, Any] | None = None
    proved: list[tuple[float, float]] = dataclasses.field(default_factory=list)

    @property
    def shown(self) -> str:
        """Its label for people: one trained against the as-run attack says so."""
        as_run = self.lineage.get("trained_against", {}).get("variant") == "as-run"
        return printable(self.label) + (" (as-run)" if as_run and "as-run" not in self.label else "")


@dataclasses.dataclass(frozen=True)
class Cell:
    """How a model did in a column: on `n` images, with the mean `loss` in nats; `right` are their flags, base64.

    `change` are the largest `linf_max` and `l2_max` of a white-box attack, `after` how many images still stood after
    each part of an ensemble, `passes` how many images each part sent (forward, backward) through the model. `spared` of
    them were not attacked, as intervals prove them. `undecided` of a certificate's are neither proved nor known to be
    wrong somewhere in the ball; None where nobody tried to break them. `note` is why nothing is known. `by_class` are
    (images, right) of each class. What older records do not have is empty.
    """

    n: int
    correct: int
    loss: float | None
    right: str
    change: dict[str, float] | None = None
    after: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    note: str = ""
    by_class: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    passes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    spared: int = 0
    undecided: int | None = None

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy, in percent."""
        return wilson(self.correct, self.n)

    def first(self, n: int) -> Cell:
        """How it did on the first n images alone; their loss is not known."""
        packed = base64.b64decode(self.right)
        right = int.from_bytes(packed, "big") >> (8 * len(packed) - n)
        filled = (right << -n % 8).to_bytes((n + 7) // 8, "big")
        return Cell(n, right.bit_count(), None, base64.b64encode(filled).decode(), note=self.note)

    @property
    def bits(self) -> int:
        """Which images are right, one a bit."""
        return int.from_bytes(base64.b64decode(self.right), "big")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """All of it. `cells` are rows of cells, a row a model; `classes` what they are called, where each is counted."""

    name: str
    key: str
    settings: EvalSettings
    fingerprint: str
    rows: list[Row]
    columns: list[Column]
    cells: list[list[Cell]]
    made: dict[str, Any]
    classes: list[str] = dataclasses.field(default_factory=list)

    @property
    def models(self) -> list[str]:
        """The models as people are shown them, each once."""
        return distinct([row.shown for row in self.rows])

    @property
    def met(self) -> list[str]:
        """The columns as people are shown them, each once."""
        return distinct([column.shown for column in self.columns])

    @property
    def audited(self) -> list[tuple[str, dict[str, Any]]]:
        """(model, audit) of those that were audited."""
        return [(name, row.audit) for name, row in zip(self.models, self.rows, strict=True) if row.audit is not None]

    def called(self, labels: list[str], columns: list[str]) -> Evaluation:
        """The same under other aliases of its models and caches."""
        rows = [dataclasses.replace(row, label=label) for row, label in zip(self.rows, labels, strict=True)]
        met = [dataclasses.replace(column, label=label) for column, label in zip(self.columns, columns, strict=True)]
        return dataclasses.replace(self, rows=rows, columns=met)

    def source(self, name: str) -> str:
        """What the model of that name is called here."""
        labels = zip(self.models, self.rows, strict=True)
        return next((label for label, row in labels if row.lineage["name"] == name), name)

    def to_record(self) -> dict[str, Any]:
        """Plain values."""
        body = dataclasses.asdict(self)
        body["settings"] = self.settings.to_dict()
        body["columns"] = [
            dataclasses.asdict(column)
            | {"threat": column.threat and column.threat.to_dict(), "proved": column.proved and column.proved.to_dict()}
            for column in self.columns
        ]
        return plain({"schema": SCHEMA, "kind": "evaluation", **body})  # type: ignore[no-any-return]

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Evaluation:
        """The inverse of `to_record`. Raises TypeError, KeyError or ValueError for what is none."""

        def column(values: dict[str, Any]) -> Column:
            threat, proved = values["threat"], values.get("proved")
            read = {
                "threat": None if threat is None else Threat.from_dict(threat),
                "proved": None if proved is None else Certificate.from_dict(proved),
            }
            return Column(**values | read | {"of": tuple(values["of"])})

        def cell(values: dict[str, Any]) -> Cell:
            by_class = [(n, right) for n, right in values.get("by_class", ())]
            after = [(label, int(standing)) for label, standing in values["after"]]
            passes = [(forward, backward) for forward, backward in values.get("passes", ())]
            return Cell(**values | {"after": after, "by_class": by_class, "passes": passes})

        fields = {field.name: record[field.name] for field in dataclasses.fields(cls) if field.name != "classes"}
        return cls(
            **fields
            | {
                "settings": EvalSettings.from_dict(record["settings"]),
                "rows": [Row(**row) for row in record["rows"]],
                "columns": [column(each) for each in record["columns"]],
                "cells": [[cell(each) for each in row] for row in record["cells"]],
                "classes": record.get("classes", []),
            }
        )


def read(path: Path) -> Evaluation:
    """A stored evaluation. Raises NotFoundError or DamagedError."""
    record = checked(artifacts.unseal(files.read(path, artifacts.LARGEST), path), path)
    try:
        return Evaluation.from_record(record)
    except (TypeError, KeyError, ValueError, AttributeError):
        raise DamagedError(f"{path} is damaged: its record is none of an evaluation", "make it again") from None


def checked(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """The record, if it is one of an evaluation. Raises DamagedError."""
    return artifacts.check(record, "evaluation", path)
