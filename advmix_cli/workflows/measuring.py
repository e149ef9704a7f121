"""What an evaluation measures: every model on clean images, on sample caches and under white-box attack."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from advmix_cli import data
from advmix_cli.config import EvalSettings, Threat
from advmix_cli.workflows.attack import stage_line
from advmix_cli.workflows.common import ModelRef, Progress, Session, load_model
from advmix_cli.workflows.unfinished import Unfinished

if TYPE_CHECKING:
    import torch

    from advmix_cli.data import ImageSet

Cell = dict[str, Any]
Kept = dict[str, Any]
"""What a stopped evaluation continues from: `done` by model and threat or audit, which is `under_way`, its `state`."""
Cache = tuple["torch.Tensor", "torch.Tensor", bool]
"""Attacked images, their labels, and whether the clean originals are those of the data set."""


def worst_of(sizes: list[int | None], settings: EvalSettings) -> list[int]:
    """The attacked columns that a worst case is taken over: white-box threats and the caches of the same images.

    `sizes` are the numbers of images of the caches, None for one whose originals are not known. Empty for fewer
    than two threats.
    """
    n = settings.limit or data.info(settings.dataset).sizes[settings.split]
    caches = [1 + i for i, size in enumerate(sizes) if size is not None and min(size, n) == n]
    threats = [1 + len(sizes) + i for i in range(len(settings.threats))]
    return caches + threats if len(threats) > 1 else []


def begun(session: Session, unfinished: Unfinished) -> Kept:
    """What an evaluation has done before it was stopped: nothing, for a new one."""
    kept = unfinished.read()
    if kept is None:
        return {"done": {}, "under_way": "", "state": None}
    session.report.note("continuing where the same command was stopped")
    return kept


def grid(
    session: Session,
    models: list[ModelRef],
    images: ImageSet,
    caches: list[Cache],
    worst: list[int],
    settings: EvalSettings,
    unfinished: Unfinished,
    kept: Kept,
) -> tuple[list[list[Cell]], list[list[tuple[int, float, float]]]]:
    """(a row of cells for each model, the reliability of each on clean images).

    Attacks that are done, and how far the one under way is, are taken from `kept`, and go into `unfinished`.
    """
    parts = sum(len(threat.parts) for threat in settings.threats)
    per_model = len(images) * (1 + parts) + sum(len(labels) for _, labels, _ in caches)
    rows, reliability = [], []
    with session.report.progress("evaluating", len(models) * per_model, "images") as progress:
        for model in models:
            run = _Model(session, model, images, settings, progress)
            cells = [run.clean_cell(), *(run.cache_cell(*cache) for cache in caches)]
            for threat in settings.threats:
                which = f"{model.digest} {threat.label}"
                if which not in kept["done"]:
                    state = kept["state"] if kept["under_way"] == which else None
                    kept["done"][which] = run.attacked(threat, state, unfinished, kept, which)
                    kept |= {"under_way": "", "state": None}
                    unfinished.write(kept)
                else:
                    progress(len(images) * len(threat.parts))
                cells.append(run.threat_cell(kept["done"][which]))
            if worst:
                cells.append(run.worst_cell(worst))
            rows.append(cells)
            reliability.append(run.clean.reliability())
    return rows, reliability


class _Model:
    """One model of an evaluation and what is known of each image: right or not, and the loss."""

    def __init__(
        self, session: Session, model: ModelRef, images: ImageSet, settings: EvalSettings, progress: Progress
    ) -> None:
        from advmix_cli import evaluation

        self._name, self._images, self._settings, self._progress = model.label, images, settings, progress
        self._device, self._score = images.x.device, evaluation.score
        self._net = load_model(model, self._device)
        self.clean = self._score(self._net, images.x, images.y, batch_size=settings.batch_size, on_batch=progress)
        self._columns: list[tuple[torch.Tensor, torch.Tensor]] = []

    def _cell(self, correct: torch.Tensor, losses: torch.Tensor) -> Cell:
        self._columns.append((correct, losses))
        packed = base64.b64encode(_bits(correct)).decode()
        return {
            "n": len(correct),
            "correct": int(correct.sum()),
            "loss": float(losses.double().mean()),
            "right": packed,
        }

    def clean_cell(self) -> Cell:
        """On the clean images."""
        return self._cell(self.clean.correct, self.clean.losses)

    def cache_cell(self, x_adv: torch.Tensor, labels: torch.Tensor, ours: bool) -> Cell:
        """On attacked images; where the originals are known, a sample must be right on both."""
        scored = self._score(
            self._net, x_adv.to(self._device), labels.to(self._device), batch_size=self._settings.batch_size,
            on_batch=self._progress,
        )  # fmt: skip
        right = scored.correct & self.clean.correct[: len(labels)] if ours else scored.correct
        return self._cell(right, scored.losses)

    def attacked(
        self, threat: Threat, state: dict[str, Any] | None, unfinished: Unfinished, kept: Kept, which: str
    ) -> dict[str, Any]:
        """What the threat leaves: plain tensors and values, from which the cell is made."""
        from advmix_cli import attacks

        images, settings = self._images, self._settings
        result = attacks.attack_set(
            self._net,
            images.x,
            images.y,
            threat,
            batch_size=settings.batch_size,
            seed=settings.seed,
            state=state,
            on_batch=self._progress,
            on_standing=lambda n: self._progress.about(f"{n} still robust"),
            on_stage=stage_line(self._progress, len(images), threat, f"{self._name}, "),
            on_state=lambda make: unfinished.now_and_then(lambda: {**kept, "under_way": which, "state": make()}),
        )
        scored = self._score(self._net, result.x_adv.to(self._device), images.y, batch_size=settings.batch_size)
        return {
            "robust": result.robust,
            "losses": scored.losses,
            "linf_max": result.linf_max,
            "stages": [list(stage) for stage in result.stages],
        }

    def threat_cell(self, done: dict[str, Any]) -> Cell:
        """Under a white-box attack."""
        more = {"stages": done["stages"]} if len(done["stages"]) > 1 else {}
        return self._cell(done["robust"], done["losses"]) | {"linf_max": done["linf_max"], **more}

    def worst_cell(self, columns: list[int]) -> Cell:
        """Right in all those columns, with the highest loss of any."""
        correct, losses = self._columns[columns[0]]
        for column in columns[1:]:
            also, other = self._columns[column]
            correct, losses = correct & also, losses.maximum(other)
        return self._cell(correct, losses)


def audits(
    session: Session,
    models: list[ModelRef],
    images: ImageSet,
    settings: EvalSettings,
    unfinished: Unfinished,
    kept: Kept,
) -> list[dict[str, Any]]:
    """An audit of each model; transfer is tried from every other one."""
    from advmix_cli import attacks, audit

    threat = settings.audited
    assert threat is not None
    few = images.first(audit.IMAGES)
    nets = [load_model(model, images.x.device) for model in models]
    settled = Threat(norm=threat.norm, eps=threat.eps, steps=40)
    found = []
    with session.report.progress("auditing", len(models) * len(audit.STAGES), "checks") as progress:
        against = {}
        if len(models) > 1:
            for model, net in zip(models, nets, strict=True):
                attacked = attacks.attack_set(
                    net, few.x, few.y, settled, batch_size=settings.batch_size, seed=settings.seed
                )
                against[model.label] = attacked.x_adv
        for model, net in zip(models, nets, strict=True):
            which = f"{model.digest} audit"
            if which not in kept["done"]:

                def on_check(name: str, label: str = model.label) -> None:
                    progress.line(f"{label}: {name}")
                    progress(1)

                audited = audit.audit(
                    net,
                    few.x,
                    few.y,
                    threat,
                    classes=len(few.info.classes),
                    seed=settings.seed,
                    batch_size=settings.batch_size,
                    transferred={name: x_adv for name, x_adv in against.items() if name != model.label},
                    on_check=on_check,
                )
                kept["done"][which] = audited.to_dict()
                unfinished.write(kept)
            else:
                progress(len(audit.STAGES))
            found.append(kept["done"][which])
    return found


def _bits(flags: torch.Tensor) -> bytes:
    """Flags (N,) packed eight to a byte, the first in the highest bit."""
    import numpy as np

    return np.packbits(flags.numpy()).tobytes()
