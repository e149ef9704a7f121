"""`advmix store push|pull|sync|export|import`: artifacts, with what they were made from, elsewhere and back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from advmix_cli import remote
from advmix_cli.errors import DamagedError, NotFoundError, UsageError, nearest
from advmix_cli.remote import Entry, Remote
from advmix_cli.results import Result, Table
from advmix_cli.store import SINGULAR, SUFFIXES
from advmix_cli.workflows.session import Session
from advmix_cli.workflows.store import read_record, readable, resolve

Named = tuple[str, str]
"""(kind, name) of an artifact."""

_LONGEST = 255


def push(session: Session, refs: Sequence[str], url: str, *, dry_run: bool) -> Result:
    """Copy artifacts (all, if none is named) and what they were made from to a URL."""
    place = remote.to(url)
    return _result(session, _put(session, _local(session, refs), place, dry_run), url, dry_run)


def pull(session: Session, refs: Sequence[str], url: str, *, dry_run: bool) -> Result:
    """Copy artifacts (all, if none is named) and what they were made from out of a URL."""
    return _result(session, _get(session, refs, remote.to(url), dry_run), url, dry_run)


def sync(session: Session, refs: Sequence[str], url: str, *, dry_run: bool) -> Result:
    """Let both have all, or those that are named."""
    place = remote.to(url)
    here = [ref for ref in refs if _here(session, ref)]
    missing, wanted = [ref for ref in refs if ref not in here], here if dry_run else refs
    rows = _get(session, missing, place, dry_run) if missing or not refs else []
    if wanted or not refs:
        rows += _put(session, _local(session, wanted, some=dry_run), place, dry_run)
    return _result(session, rows, url, dry_run)


def export(session: Session, refs: Sequence[str], file: Path) -> Result:
    """Write artifacts and what they were made from into one new file."""
    wanted = _local(session, refs)
    if file.exists():
        raise UsageError(f"{file} is there", "give another name")
    session.store.folder(file.absolute().parent)
    with tempfile.TemporaryDirectory(dir=file.absolute().parent, prefix=".advmix-") as folder:
        part = Path(folder) / "export"
        archive = remote.Archive(part, new=True)
        rows = _put(session, wanted, archive, False)
        archive.close()
        part.rename(file)
    return _result(session, rows, str(file), False)


def take_in(session: Session, file: Path) -> Result:
    """Take in all artifacts of a file that `export` wrote."""
    archive = remote.Archive(file)
    try:
        return _result(session, _get(session, (), archive, False), str(file), False)
    finally:
        archive.close()


def _here(session: Session, ref: str) -> bool:
    try:
        resolve(session, ref)
    except NotFoundError:
        return False
    return True


def _local(session: Session, refs: Sequence[str], *, some: bool = False) -> dict[Named, tuple[Named, ...]]:
    """The artifacts that are meant (all, if none is named; `some`: or none), each after what it was made from."""
    store, found = session.store, dict[Named, tuple[Named, ...]]()
    aliases = store.refs()

    def add(kind: str, name: str) -> None:
        if (kind, name) in found:
            return
        said = set(_words(read_record(kind, store.path(kind, name))))
        needs = tuple(
            (other, made_from)
            for other in ("checkpoints", "samples", "evaluations")
            for made_from in sorted({*said} | {aliases[each][1] for each in said if each in aliases})
            if (other, made_from) != (kind, name) and store.has(other, made_from)
        )
        for need in needs:
            add(*need)
        found[kind, name] = needs

    if not refs:
        for kind in SUFFIXES:
            for name in store.names(kind):
                add(kind, name)
        if not found and not some:
            raise NotFoundError(f"the store {store.root} is empty", "make something: advmix train")
    for ref in refs:
        _, path = resolve(session, ref)
        owned = store.owns(path)
        if owned is None:
            raise UsageError(f"{path} is no artifact of the store", "take it in first: advmix import")
        add(*owned)
    return found


def _words(value: Any) -> Iterator[str]:
    """All short texts of a record: among them names, and the aliases that columns are called by."""
    if isinstance(value, str) and len(value) < _LONGEST:
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _words(each)


Row = tuple[Entry, str]
"""A file, and what was done with it."""


def _put(session: Session, wanted: dict[Named, tuple[Named, ...]], place: Remote, dry_run: bool) -> list[Row]:
    rows: list[Row] = []
    with session.report.progress("sending", len(wanted), "artifacts") as progress:
        for (kind, name), needs in wanted.items():
            for path in session.store.files(kind, name):
                entry, data = remote.described(kind, name, path, needs)
                there = place.size(remote.path_of(kind, path.name)) is not None
                if there:
                    same = remote.entry(place, kind, path.name).sha256 == entry.sha256
                    rows.append((entry, "there" if same else "there, made otherwise: kept"))
                elif dry_run or remote.put(place, entry, data):
                    rows.append((entry, "would be sent" if dry_run else "sent"))
                else:
                    rows.append((entry, "there"))
            progress(1)
    return rows


def _get(session: Session, refs: Sequence[str], place: Remote, dry_run: bool) -> list[Row]:
    there: dict[Named, list[Entry]] = {}
    for entry in remote.entries(place):
        there.setdefault((entry.kind, entry.name), []).append(entry)
    wanted: dict[Named, None] = {}

    def add(named: Named) -> None:
        if named in there and named not in wanted:
            for need in there[named][0].needs:
                add(need)
            wanted[named] = None

    for named in there if not refs else [_one(ref, there) for ref in refs]:
        add(named)
    rows: list[Row] = []
    with session.report.progress("fetching", len(wanted), "artifacts") as progress:
        for named in wanted:
            rows += [(entry, _fetched(session, place, entry, dry_run)) for entry in _in_order(there[named])]
            progress(1)
    return rows


def _in_order(entries: Sequence[Entry]) -> list[Entry]:
    """The artifact itself last: what lacks that one is nothing."""
    return sorted(entries, key=lambda entry: -SUFFIXES[entry.kind].index(entry.file.removeprefix(entry.name)))


def _one(ref: str, there: dict[Named, list[Entry]]) -> Named:
    found = [named for named in there if named[1] == ref] or [
        named for named in there if ref and named[1].startswith(ref)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFoundError(f"{ref!r} is ambiguous there", f"one of: {', '.join(name for _, name in found[:8])}",
                            code="ambiguous")  # fmt: skip
    raise NotFoundError(
        f"{ref!r} is not there", nearest(ref, [name for _, name in there]) if there else "push it first"
    )


def _fetched(session: Session, place: Remote, entry: Entry, dry_run: bool) -> str:
    store = session.store
    target = store.path(entry.kind, entry.name, entry.file.removeprefix(entry.name))
    if target.exists():
        return "here"
    if dry_run:
        return "would be fetched"
    data = remote.get(place, entry)
    with tempfile.TemporaryDirectory(prefix="advmix-") as folder:
        path = Path(folder) / entry.file
        path.write_bytes(data)
        if entry.file == entry.name + SUFFIXES[entry.kind][0]:
            record = read_record(entry.kind, path)
            if record and record.get("name") != entry.name:
                raise DamagedError(f"{entry.file} is another artifact, called {record.get('name')}", "push it again")
    with store.lock(entry.name, on_wait=lambda: session.report.note(f"another process is at {entry.name}: waiting")):
        if not target.exists():
            store.write(target, data)
    return "fetched"


def _result(session: Session, rows: Sequence[Row], where: str, dry_run: bool) -> Result:
    moved = sum(entry.bytes for entry, done in rows if done.startswith(("sent", "fetched", "would")))
    table = Table(
        ("kind", "file", "size", "what"),
        [(SINGULAR[entry.kind], entry.file, readable(entry.bytes), done) for entry, done in rows],
        right=("size",),
        note=f"{where}: {readable(moved)}" + (", nothing was done: --dry-run" if dry_run else ""),
    )
    data = {
        "where": where,
        "files": [{"kind": SINGULAR[entry.kind], "name": entry.name, "file": entry.file, "sha256": entry.sha256,
                   "bytes": entry.bytes, "done": done} for entry, done in rows],
    }  # fmt: skip
    return Result(data, list(dict.fromkeys(entry.name for entry, _ in rows)), [table])
