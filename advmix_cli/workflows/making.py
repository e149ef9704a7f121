"""Making a thing once: what the store has is given back, else it is made, under its lock; and what it was made with."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advmix_cli import files
from advmix_cli._version import __version__
from advmix_cli.errors import AdvmixError, DamagedError, NotFoundError
from advmix_cli.store import SINGULAR
from advmix_cli.workflows.session import Session


def made(session: Session, seconds: float, batch_size: int | None = None) -> dict[str, Any]:
    """How a thing was made, for its record; no key depends on it.

    `seconds` are those of computing, over all sittings.
    """
    import torch

    from advmix_cli import runtime

    device = session.device()
    return {
        "advmix": __version__,
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": runtime.threads(),
        "batch_size": batch_size,
        "not_deterministic": sorted(runtime.NOT_DETERMINISTIC),
        "command": session.command,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        **({"ranks": session.ranks.size} if session.ranks.joined else {}),
        **({"sync_bn": True} if session.sync_bn else {}),
    }


def make_once(
    session: Session,
    kind: str,
    name: str,
    key: str,
    read: Callable[[Path], dict[str, Any] | None],
    make: Callable[[], None],
) -> tuple[dict[str, Any], bool]:
    """(record, cached) of the artifact `name`: what the store has, else what `make` writes there, under its lock.

    With --force it is made in any case. A damaged artifact is an error rather than silently made again.
    """
    path = session.store.path(kind, name)

    def stored() -> dict[str, Any] | None:
        if session.force or not files.there(path):
            return None
        record = read(path)
        if record is None or record.get("key") != key:
            raise DamagedError(f"{path} is not what its name says", "remove it (advmix store remove) or use --force")
        return record

    session.check_device()
    record = session.ranks.agreed(stored)
    cached = record is not None
    if cached:
        _tidy(session, name)
    if record is None:
        check_may_make(session, name)
        waiting = f"another process is making {name}: waiting for it"
        with session.store.lock(name, on_wait=lambda: session.report.note(waiting)):
            record = session.ranks.agreed(stored)
            cached = record is not None
            if record is None:
                make()
                record = session.ranks.agreed(lambda: read(path))
    if record is None:
        raise AdvmixError(f"{path} was not written", "try again with --force")
    with contextlib.suppress(AdvmixError) if cached else contextlib.nullcontext():  # a store may be read alone
        session.store.set_latest(kind, name)
    return record, cached


def check_may_make(session: Session, name: str) -> None:
    """Raise NotFoundError where only what is stored is wanted."""
    if session.stored_only:
        raise NotFoundError(f"{name} is not in the store", "it would have to be made", code="not-stored")


def _tidy(session: Session, name: str) -> None:
    """Remove what is left of the making of a thing that is there: it was stopped after its last step."""
    if session.store.unfinished(name):
        with contextlib.suppress(AdvmixError), session.store.lock(name):
            for file in session.store.unfinished(name):
                session.store.delete(file)


def set_alias(session: Session, alias: str | None, kind: str, name: str) -> None:
    """Let `alias` (None: nothing) name the artifact, saying so when it named another."""
    if alias is None:
        return
    before = session.store.refs().get(alias)
    if before is not None and before != (kind, name):
        was = "" if before[0] == kind else f"the {SINGULAR[before[0]]} "
        session.report.warn(f"{alias} named {was}{before[1]} and now names {name}")
    if before != (kind, name):
        session.store.set_ref(alias, kind, name)


def quoted(alias: str | None, name: str) -> str:
    """How hints call an artifact."""
    return alias or name
