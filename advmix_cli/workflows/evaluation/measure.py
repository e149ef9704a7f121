"""What an evaluation measures: every model on clean images, on sample caches and under white-box attack."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from advmix_cli.config import EvalSettings
from advmix_cli.errors import AdvmixError, DamagedError, StateError, UsageError
from advmix_cli.judging import Certificate
from advmix_cli.passes import Work
from advmix_cli.threats import Threat
from advmix_cli.workflows.attack import part_line
from advmix_cli.workflows.evaluation.counting import cell
from advmix_cli.workflows.evaluation.record import Cell, Column, Row
from advmix_cli.workflows.parts import Found, put_together
from advmix_cli.workflows.references import ModelRef, SamplesRef, load_model
from advmix_cli.workflows.session import Progress, Session
from advmix_cli.workflows.unfinished import Unfinished

if TYPE_CHECKING:
    import torch

    from advmix_cli.attacks import AttackedSet
    from advmix_cli.data import ImageSet

_BOUNDS = 4.0
"""What bounding an image costs, in forward passes: by intervals."""


@dataclasses.dataclass(frozen=True)
class Cache:
    """Attacked images, their labels, and which images of the split they are; all on the CPU."""

    x_adv: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor


class State:
    """What a stopped evaluation continues from: the pieces of each job, which is a model and what is done with it."""

    def __init__(self, session: Session, unfinished: Unfinished, pieces: list[dict[str, Any]]) -> None:
        self._unfinished = unfinished
        self._pieces: dict[str, list[dict[str, Any]]] = {}
        self.left = 0
        """How many samples are not known yet: those of other parts."""
        for piece in pieces:
            if not isinstance(piece, dict) or not isinstance(piece.get("job"), str):
                raise StateError("a piece belongs to no job", "begin again")
            self._pieces.setdefault(piece["job"], []).append(piece)
        if self._pieces and session.part.continues:
            session.report.note("continuing where the same command was stopped")

    def of(self, job: str) -> list[dict[str, Any]]:
        """The pieces of that job so far."""
        return self._pieces.get(job, [])

    def add(self, job: str, piece: dict[str, Any]) -> None:
        """Keep a piece of a job."""
        self._pieces.setdefault(job, []).append({**piece, "job": job})
        self._unfinished.add(self._pieces[job][-1])


def load_samples(session: Session, cache: SamplesRef, column: Column, limit: int | None, images: ImageSet) -> Cache:
    """The cache's images, checked against its threat and, where `images` are the clean originals, against them."""
    import torch

    from advmix_cli import artifacts, attacks

    x_adv, labels, index = artifacts.samples_tensors(cache.path, cache.record["digest"] if cache.record else None)
    shape, classes = images.info.shape, len(images.info.classes)
    if tuple(x_adv.shape[1:]) != shape or int(labels.max()) >= classes or int(labels.min()) < 0:
        raise UsageError(
            f"{cache.label} holds images of shape {tuple(x_adv.shape[1:])} with labels up to {int(labels.max())}, "
            f"which do not fit {images.info.name}",
            "give a cache of the models' data set",
        )
    originals = x_adv
    if column.joint:
        fits = int(index.min()) >= 0 and int(index.max()) < len(images) and len(torch.unique(index)) == len(index)
        if not fits or not bool((labels == images.y[index]).all()):
            raise DamagedError(
                f"{cache.path} is damaged: its labels are not those of {images.info.name}", "make it again"
            )
        originals = attacks.to_float(images.x[index])
    else:
        session.report.note(
            f"{cache.label}: the clean originals are not known, so the accuracy is on the attacked images alone"
        )
    attacks.perturbation(originals, x_adv, cache.threat)
    kept = index < limit if limit is not None and column.joint else slice(limit)
    return Cache(x_adv[kept], labels[kept], index[kept])


def measure(
    session: Session,
    models: Sequence[ModelRef],
    images: ImageSet,
    columns: Sequence[Column],
    caches: Sequence[Cache],
    settings: EvalSettings,
    state: State,
) -> tuple[list[Row], list[list[Cell]], int]:
    """A row and its cells for each model, and the largest batch; a model asked for several times is measured once."""
    from advmix_cli.attacks import foreseen

    n = len(images)
    jobs = {"clean": float(n), "samples": float(sum(len(cache.labels) for cache in caches))}
    jobs |= {threat.label: n * foreseen(threat) for threat in settings.threats}
    if settings.certified is not None:
        jobs[settings.certified.label] = n * _BOUNDS
    known, sizes = dict[str, tuple[Row, list[Cell]]](), list[int]()
    with session.report.progress("evaluating") as progress:
        work = Work(progress, {(m.function, job): cost for m in models for job, cost in jobs.items()})
        for model in models:
            if model.function not in known:
                run = _Model(session, model, images, settings, state, progress, work)
                cells = run.cells(columns, caches)
                known[model.function] = Row("", {}, None, run.clean.reliability()), cells
                sizes.append(run.size)
    rows = [dataclasses.replace(known[m.function][0], label=m.label, lineage=m.lineage(), run=m.run()) for m in models]
    return rows, [known[model.function][1] for model in models], max(sizes)


class _Model:
    """One model of an evaluation and what is known of each image: right or not, and the loss."""

    def __init__(
        self,
        session: Session,
        model: ModelRef,
        images: ImageSet,
        settings: EvalSettings,
        state: State,
        progress: Progress,
        work: Work,
    ) -> None:
        from advmix_cli import evaluation
        from advmix_cli.attacks import batches

        self._session, self._model, self._images, self._settings = session, model, images, settings
        self._state, self._progress, self._work = state, progress, functools.partial(work, model.function)
        self._device, self._score = images.y.device, evaluation.score
        self._net = self._target = load_model(model, self._device)
        way = settings.inference
        if way is not None:
            from advmix_cli import inference

            pool = session.images(settings.dataset, "train")
            self._net, self._target = inference.through(
                self._net, pool.x, pool.y, len(pool.info.classes), dict(way.options),
                others=way.declared.others, seed=settings.seed,
            )  # fmt: skip
        self.size = batches.suitable(self._net, images.x, session.batch_size)
        self.clean = self._score(
            self._net, images.x, images.y, batch_size=self.size, on_batch=functools.partial(self._work, "clean")
        )
        self._attacked: dict[Threat, AttackedSet] = {}

    def cells(self, columns: Sequence[Column], caches: Sequence[Cache]) -> list[Cell]:
        """One for each column."""
        given, flags, cells = iter(caches), list[tuple["torch.Tensor", "torch.Tensor"]](), list[Cell]()
        for column in columns:
            more, labels = dict[str, Any](), self._images.y
            if column.kind == "clean":
                found = self.clean.correct, self.clean.losses
            elif column.kind == "samples":
                cache = next(given)
                found, labels = self._on_cache(cache, column.joint), cache.labels
            elif column.kind == "attack":
                assert column.threat is not None
                found, more = self._under(column.threat, column.further)
            elif column.kind == "certified":
                assert column.proved is not None
                found, more = self._proved(column.proved, columns, caches, flags)
            else:
                found = flags[column.of[0]]
                for other in column.of[1:]:  # right in all, with the highest loss of any
                    found = found[0] & flags[other][0], found[1].maximum(flags[other][1])
            flags.append(found)
            cells.append(cell(*found, labels, len(self._images.info.classes), **more))
        return cells

    def _on_cache(self, cache: Cache, joint: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """On attacked images; where the originals are known, a sample must be right on both."""
        scored = self._score(
            self._net, cache.x_adv.to(self._device), cache.labels.to(self._device),
            batch_size=self.size, on_batch=functools.partial(self._work, "samples"),
        )  # fmt: skip
        return scored.correct & self.clean.correct[cache.index] if joint else scored.correct, scored.losses

    def _under(self, threat: Threat, further: bool) -> tuple[tuple[torch.Tensor, torch.Tensor], dict[str, Any]]:
        """What a white-box attack leaves, once for each threat; of an ensemble its own figure, or what is left then."""
        if threat not in self._attacked:
            self._attacked[threat] = self._attack(threat)
        attacked = self._attacked[threat]
        after = [(label, int(then.right.sum())) for label, then in attacked.after.items()]
        shown = after if further else after[: threat.standard]
        change = {"linf_max": attacked.change.linf, "l2_max": attacked.change.l2}
        then = list(attacked.after.values())[: len(shown)]
        passes = [dataclasses.astuple(part.passes) for part in then]
        more = {"change": change, "after": shown if len(after) > 1 else [], "passes": passes,
                "spared": int(attacked.proved.sum())}  # fmt: skip
        return (then[-1].right, then[-1].losses), more

    def _proved(
        self,
        certificate: Certificate,
        columns: Sequence[Column],
        caches: Sequence[Cache],
        flags: Sequence[tuple[torch.Tensor, torch.Tensor]],
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], dict[str, Any]]:
        """What bounds prove; nothing, and why, where there are none. Raises AdvmixError where an attack differs."""
        import torch

        from advmix_cli.bounds import certify_set

        images, given, met = self._images, iter(caches), list[tuple[Column, Any, torch.Tensor]]()
        for column, (right, _) in zip(columns, flags, strict=False):
            of = next(given).index if column.kind == "samples" else slice(None)
            met += [(column, of, right)] if column.meets(certificate) else []
        attacked = [right for column, _, right in met if column.kind == "attack"]
        try:
            find = functools.partial(
                certify_set, self._net, images.x, images.y, certificate.eps, norm=certificate.norm,
                bounds=certificate.bounds, standing=torch.stack(attacked).all(0) if attacked else None,
            )  # fmt: skip
            proved = self._found(f"{self._model.function} {certificate.label}", find, certificate.label)
        except UsageError as error:
            if error.code != "no-bound":
                raise
            self._work(certificate.label, 0.0, 0.0)
            self._session.report.warn(f"{self._model.label}: {error.message}: nothing is proved of it")
            return (torch.zeros_like(self.clean.correct), self.clean.losses), {"note": error.message}
        for column, of, right in met:
            if bool((proved.right[of] & ~right).any()):
                raise AdvmixError(
                    f"{self._model.label}: {int((proved.right[of] & ~right).sum())} images are proved right, and wrong "
                    f"under {column.label}",
                    "one of both is a bug: please report it, with the evaluation's command",
                    code="unsound",
                )
        tried = attacked or certificate.bounds != "ibp"
        return (proved.right, proved.losses.float()), {"undecided": int(proved.undecided.sum()) if tried else None}

    def _found(self, job: str, find: Callable[..., Found], kind: str, **said: Any) -> Found:
        """What a job finds, from where it was stopped; of this process's part, or of all."""
        found = put_together(
            self._session, find, n=len(self._images), pieces=self._state.of(job),
            on_work=functools.partial(self._work, kind),
            on_piece=lambda piece: self._state.add(job, piece), **said,
        )  # fmt: skip
        self._state.left += found.left
        return found

    def _attack(self, threat: Threat) -> AttackedSet:
        from advmix_cli import attacks

        images, progress = self._images, self._progress
        job = f"{self._model.function} {threat.label}"
        find = functools.partial(
            attacks.attack_set, self._target, images.x, images.y, threat,
            batch_size=self._session.batch_size, seed=self._settings.seed, images=self._target is not self._net,
        )  # fmt: skip
        found = self._found(
            job,
            find,
            threat.label,
            on_standing=lambda n: progress.about(f"{n} still robust"),
            on_part=part_line(progress, len(images), threat, f"{self._model.label}, "),
        )
        if found.x_adv is None:
            return found
        # What was attacked drew other partners than what judges: an image stands if it is right in both.
        judged = self._score(self._net, found.x_adv.to(self._device), images.y, batch_size=self.size).correct
        after = {
            part: then._replace(right=then.right & judged & self.clean.correct) for part, then in found.after.items()
        }
        return dataclasses.replace(found, after=after)


def audits(
    session: Session,
    models: Sequence[ModelRef],
    images: ImageSet,
    settings: EvalSettings,
    state: State,
) -> list[dict[str, Any]]:
    """An audit of each model; transfer is tried from every other one. One network is in memory at a time."""
    from advmix_cli import auditing

    threat = settings.audited
    assert threat is not None
    few = images.first(auditing.IMAGES)
    each = {model.function: model for model in models}
    with session.report.progress("auditing", len(each) * len(auditing.STAGES), "checks") as progress:
        against: dict[str, torch.Tensor] = {}
        for function, model in each.items() if len(each) > 1 else ():
            against[function] = auditing.transferable(
                load_model(model, few.y.device), few.x, few.y, threat, settings.seed, session.batch_size
            )
        for function, model in each.items():
            done, part = f"{function} audit", f"{function} audit, attacked"
            if state.of(done):
                progress(len(auditing.STAGES), before=True)
                continue

            def on_check(name: str, label: str = model.label) -> None:
                progress.line(f"{label}: {name}")
                progress(1)

            audited = auditing.audit(
                load_model(model, few.y.device), few.x, few.y, threat,
                classes=len(few.info.classes), seed=settings.seed, batch_size=session.batch_size,
                transferred=[(each[other].label, x_adv) for other, x_adv in against.items() if other != function],
                on_check=on_check,
                pieces=state.of(part),
                on_piece=functools.partial(state.add, part),
            )  # fmt: skip
            state.add(done, {"audit": audited.to_dict()})
    found: list[dict[str, Any]] = [state.of(f"{model.function} audit")[0].get("audit", {}) for model in models]
    return found


def proved_by_eps(
    session: Session,
    models: Sequence[ModelRef],
    images: ImageSet,
    audited: Sequence[dict[str, Any]],
    settings: EvalSettings,
) -> list[list[tuple[float, float]]]:
    """What intervals prove of each model at each eps of its audit, on its images; nothing of one without bounds."""
    from advmix_cli import auditing
    from advmix_cli.bounds import certify_set

    certificate, found = settings.certified, list[list[tuple[float, float]]]()
    assert certificate is not None
    few = images.first(auditing.IMAGES)
    for model, audit in zip(models, audited, strict=True):
        net, curve = load_model(model, few.y.device), list[tuple[float, float]]()
        with contextlib.suppress(UsageError):  # said already
            for eps, _ in audit["by_eps"]:
                proved = certify_set(net, few.x, few.y, eps, norm=certificate.norm, bounds="ibp")
                curve.append((eps, 100 * int(proved.right.sum()) / len(few)))
        found.append(curve)
    return found
