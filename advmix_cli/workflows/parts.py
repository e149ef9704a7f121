"""A job in parts: each of several processes attacks its own samples, then all they found is put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from advmix_cli import files
from advmix_cli.errors import AdvmixError
from advmix_cli.results import Result
from advmix_cli.workflows.making import make_once
from advmix_cli.workflows.session import Session
from advmix_cli.workflows.unfinished import Unfinished

Piece = dict[str, Any]


class _Found(Protocol):
    @property
    def left(self) -> int: ...


Found = TypeVar("Found", bound=_Found)


class Unfound(AdvmixError):
    """Samples of other parts are not known yet."""

    code = "parts"

    def __init__(self, left: int) -> None:
        super().__init__(f"{left} samples are left to other parts")
        self.left = left


def put_together(
    session: Session,
    find: Callable[..., Found],
    *,
    pieces: Sequence[Piece],
    on_piece: Callable[[Piece], None],
    on_work: Callable[[float, float], None],
    n: int,
    **said: Any,
) -> Found:
    """What `find` finds of n samples: this process's part, and what others have found where that is known.

    `find` takes `only`, `pieces`, `on_piece`, `on_work`. Of several ranks the first gets the whole; of a shard the
    others' samples are as their pieces say. `said` are callbacks of `find` that speak of all samples.
    """
    part, own = session.part, list[Piece]()

    def keep(piece: Piece) -> None:
        if part.joined:
            own.append(piece)
        on_piece(piece)

    alone = part.size == 1
    found = find(
        only=part.range(n), pieces=pieces, on_piece=keep,
        on_work=lambda done, left: on_work(done * part.size, left * part.size), **(said if alone else {}),
    )  # fmt: skip
    if not part.joined:
        return found
    told = [piece for each in part.told(own) for piece in each]
    return find(only=range(0), pieces=[*pieces, *told], **said) if part.first else found


def complete(session: Session, unfinished: Unfinished, left: int) -> None:
    """Go on where all samples are known; raise Unfound where other parts have them, or have yet to be read."""
    part = session.part
    if not part.joined and part.size > 1 and (left or not part.idle):
        unfinished.flush()
        raise Unfound(left)


def make_in_parts(
    session: Session,
    kind: str,
    name: str,
    key: str,
    read: Callable[[Path], dict[str, Any] | None],
    make: Callable[[Session], None],
) -> tuple[dict[str, Any], bool]:
    """`make_once`; a shard makes its part, and the artifact where no other part is missing. Raises Unfound."""
    part, store = session.part, session.store

    def once(session: Session) -> tuple[dict[str, Any], bool]:
        return make_once(session, kind, name, key, read, lambda: make(session))

    if part.joined or (not session.force and files.there(store.path(kind, name))):
        return once(session)
    if part.size == 1:
        for lane in sorted({path.name[len(name) + 1 : -9] for path in store.unfinished(name)} - {""}):
            waiting = f"another process is at part {lane[:-1]} of {name}: waiting for it"
            with store.lock(f"{name}.{lane}", on_wait=lambda waiting=waiting: session.report.note(waiting)):  # type: ignore[misc]
                pass
        return once(session)
    waiting = f"another process is at this part of {name}: waiting for it"
    with store.lock(f"{name}.{part.lane}", on_wait=lambda: session.report.note(waiting)):
        try:
            make(session)
        except Unfound:
            return once(dataclasses.replace(session, part=dataclasses.replace(part, idle=True)))
    raise AssertionError("a part ends with what it lacks")


def part_result(session: Session, missing: Unfound) -> Result:
    """What a command gives back that has done its part, and no more."""
    part = f"{session.part.rank}/{session.part.size}"
    return Result(
        {"part": part, "left": missing.left}, [], [],
        f"part {part} is done; when all are, the last of them or the same command without --shard gives the result",
    )  # fmt: skip
