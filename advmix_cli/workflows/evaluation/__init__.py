"""`advmix eval`: any number of models on clean images, on sample caches and under white-box attacks, in one table.

An evaluation is walked once: its columns are decided, it is measured, recorded, and then shown.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advmix_cli import artifacts, data
from advmix_cli.config import VERDICTS, EvalSettings
from advmix_cli.errors import AdvmixError, DamagedError, StateError, UsageError
from advmix_cli.judging import Shown
from advmix_cli.names import short_name
from advmix_cli.results import Result
from advmix_cli.settings import key
from advmix_cli.workflows.evaluation import columns, record, table
from advmix_cli.workflows.evaluation.record import Column, Evaluation
from advmix_cli.workflows.making import made, set_alias
from advmix_cli.workflows.parts import Unfound, complete, make_in_parts, part_result
from advmix_cli.workflows.references import ModelRef, SamplesRef, check_meets
from advmix_cli.workflows.session import Session
from advmix_cli.workflows.unfinished import Unfinished


def evaluate(
    session: Session,
    models: Sequence[ModelRef],
    samples: Sequence[SamplesRef],
    settings: EvalSettings,
    asked: Shown,
) -> Result:
    """One row for each model and each of: clean images, the caches, the white-box threats."""
    info = session.dataset(settings.dataset)
    for model in models:
        check_meets(model, info)
    _check_fit(samples, settings)
    fingerprint = session.fingerprint(settings.dataset)
    met = columns.columns(samples, settings, fingerprint, info)
    own = key(
        "evaluation",
        settings,
        data=data.identity(info, fingerprint),
        models=[model.identity() for model in models],
        samples=[cache.identity() for cache in samples],
    )
    size = f"{len(models)}x{1 + len(samples) + len(settings.threats)}"
    name = f"{short_name(settings.dataset)}-{settings.split}-{size}-{own[:8]}"
    path = session.store.path("evaluations", name)

    def make(part: Session) -> None:
        _write(path, part, _measured(part, models, samples, met, settings, name, own, fingerprint))
        Unfinished(part, name, own).delete()

    try:
        found, cached = make_in_parts(session, "evaluations", name, own, _read, make)
    except Unfound as missing:
        return part_result(session, missing)
    evaluation: Evaluation = found["evaluation"]
    called = evaluation.called([model.label for model in models], [column.label for column in met])
    if called != evaluation:  # the same numbers under other aliases; a store may be read alone
        with contextlib.suppress(AdvmixError) if cached else contextlib.nullcontext():
            _write(path, session, called)
    set_alias(session, asked.alias, "evaluations", name)
    answer = table.result(called, path, cached, asked)
    if asked.report is not None:
        from advmix_cli.workflows.evaluation import looking
        from advmix_cli.workflows.evaluation.report import html

        page = html(called, answer, looking.pictures(session, models, settings))
        session.store.write(asked.report.absolute(), page.encode())
        session.report.note(f"report written to {asked.report}")
        answer.data["report"] = str(asked.report)
    return _judged(answer, called, asked.fail_on)


def _read(path: Path) -> dict[str, Any]:
    evaluation = record.read(path)
    return {"key": evaluation.key, "evaluation": evaluation}


def _write(path: Path, session: Session, evaluation: Evaluation) -> None:
    session.store.write(path, artifacts.sealed(evaluation.to_record()).encode())


def _check_fit(samples: Sequence[SamplesRef], settings: EvalSettings) -> None:
    for cache in samples:
        if cache.record is not None and cache.record["dataset"] != settings.dataset:
            raise UsageError(
                f"{cache.label} holds attacked images of {cache.record['dataset']}, not of {settings.dataset}",
                "give caches of the models' data set",
            )
        if cache.record is not None and cache.record["split"] != settings.split:
            raise UsageError(
                f"{cache.label} holds attacked {cache.record['split']} images, not {settings.split}",
                "evaluate caches of one split at a time, and leave --split out",
            )


def _measured(
    session: Session,
    models: Sequence[ModelRef],
    samples: Sequence[SamplesRef],
    met: list[Column],
    settings: EvalSettings,
    name: str,
    own: str,
    fingerprint: str,
) -> Evaluation:
    from advmix_cli.workflows.evaluation import measure

    device = session.device()
    images = session.images(settings.dataset, settings.split, settings.held)
    of_caches = [column for column in met if column.kind == "samples"]
    caches = [
        measure.load_samples(session, cache, column, settings.limit, images)
        for cache, column in zip(samples, of_caches, strict=True)
    ]
    # With caches alone the clean images are those that the caches attack, so that the columns compare.
    limit = settings.limit
    if limit is None and caches and not settings.threats:
        limit = max(int(cache.index.max()) + 1 for cache in caches)
    images = images.first(limit).to(device)
    unfinished = Unfinished(session, name, own)

    def run(pieces: list[dict[str, Any]]) -> Evaluation:
        state = measure.State(session, unfinished, pieces)
        rows, cells, size = measure.measure(session, models, images, met, caches, settings, state)
        complete(session, unfinished, state.left)
        if settings.audited:
            found = measure.audits(session, models, images, settings, state)
            rows = [dataclasses.replace(row, audit=audit) for row, audit in zip(rows, found, strict=True)]
            if settings.certified:
                proved = measure.proved_by_eps(session, models, images, found, settings)
                rows = [dataclasses.replace(row, proved=curve) for row, curve in zip(rows, proved, strict=True)]
        how = made(session, unfinished.seconds, size)
        names = list(images.info.classes) if any(cell.by_class for row in cells for cell in row) else []
        evaluation = Evaluation(name, own, settings, fingerprint, rows, met, cells, how, names)
        try:
            record.checked(evaluation.to_record(), session.store.path("evaluations", name))
        except DamagedError as error:  # an audit that a state holds may be none
            raise StateError(error.message, error.hint) from None
        return evaluation

    return unfinished.resumed(run)


def _judged(answer: Result, evaluation: Evaluation, fail_on: str | None) -> Result:
    grave = VERDICTS[VERDICTS.index(fail_on) :] if fail_on else ()
    failed = [f"{model} is {audit['verdict']}" for model, audit in evaluation.audited if audit["verdict"] in grave]
    if not failed:
        return answer
    problem = AdvmixError(
        f"the audit fails: {', '.join(failed)}",
        "see the advice beside its checks",
        code="masked-gradients",
    )
    return dataclasses.replace(answer, problem=problem)
