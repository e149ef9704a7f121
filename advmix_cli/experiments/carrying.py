"""Carrying out parts: what the store has is not computed, what another process is at is left to it, nothing is lost."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence

from advmix_cli.errors import AdvmixError, LockedError, NotFoundError
from advmix_cli.experiments.commands import command_of
from advmix_cli.experiments.plan import Part
from advmix_cli.experiments.shape import Cell
from advmix_cli.workflows.evaluation import record
from advmix_cli.workflows.evaluation.record import Evaluation
from advmix_cli.workflows.session import Session, Silent

_AGAIN_S = 0.5


@dataclasses.dataclass
class Found:
    """What was made, by name: models, caches, evaluations, and why what is missing is."""

    models: dict[Cell, str] = dataclasses.field(default_factory=dict)
    caches: dict[tuple[str, Cell], str] = dataclasses.field(default_factory=dict)
    evaluations: dict[tuple[str, Cell], Evaluation] = dataclasses.field(default_factory=dict)
    failed: dict[Part, AdvmixError] = dataclasses.field(default_factory=dict)


def carry_out(session: Session, parts: Sequence[Part], *, keep_going: bool = False) -> Found:
    """Do all parts, each after those it needs; one that another process is at comes later.

    With `keep_going` a part that fails takes with it only those that need it. Raises what the first failure raised.
    """
    found, left = Found(), dict.fromkeys(parts)
    while left:
        before = len(left)
        for part in [*left]:
            if any(need in left for need in part.needs):
                continue
            if any(need in found.failed for need in part.needs):
                found.failed[part] = AdvmixError("what it needs failed", "see above")
                del left[part]
                continue
            try:
                with session.store.lock(f"part-{part.key}"):
                    session.report.note(f"part {len(parts) - len(left) + 1} of {len(parts)}: {part.kind} {part}")
                    carry_out_part(session, part, found)
            except LockedError:
                continue
            except AdvmixError as error:
                if not keep_going:
                    raise
                session.report.warn(f"{part.kind} {part} failed: {error.message}")
                found.failed[part] = error
            del left[part]
        if len(left) == before:
            time.sleep(_AGAIN_S)
    return found


def stored(session: Session, parts: Iterable[Part], found: Found | None = None) -> Found:
    """What of the parts the store has, beside what was `found` before; nothing is computed."""
    found, alone = found or Found(), dataclasses.replace(session, stored_only=True, report=Silent())
    found.failed = {}
    for part in parts:
        if any(need in found.failed for need in part.needs):
            found.failed[part] = NotFoundError("what it needs is not there")
            continue
        try:
            carry_out_part(alone, part, found)
        except NotFoundError as error:
            found.failed[part] = error
    return found


def carry_out_part(session: Session, part: Part, found: Found) -> None:
    """Do one part, or find it in the store; what it needs is found."""
    request = part.request(found.models, found.caches)
    session = dataclasses.replace(session, command=command_of(part.kind, request))
    result = request.resolve(session).carry_out(session)
    if result.problem is not None:
        raise result.problem
    if part.kind == "attack":
        found.caches[part.id, part.cells[0]] = result.refs[0]
    elif part.kind == "eval":
        found.evaluations[part.id, part.cells[0]] = record.read(
            session.store.path("evaluations", result.data["evaluation"])
        )
    else:
        found.models |= dict(zip(part.cells, result.refs, strict=True))
