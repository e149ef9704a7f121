"""`advmix store remove` and `prune`, and `data remove`: what is to go is said first, and held while it goes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from advmix_cli import files, zoo
from advmix_cli.errors import AdvmixError, LockedError, NotFoundError, UsageError
from advmix_cli.names import full_name, kind_of, parted
from advmix_cli.results import Result, Table, shown
from advmix_cli.store import SINGULAR, SUFFIXES, Store
from advmix_cli.workflows import datasets
from advmix_cli.workflows.references import aliases_like
from advmix_cli.workflows.session import Session
from advmix_cli.workflows.store import read_record, readable, resolve, size_of


@dataclasses.dataclass(frozen=True)
class Doomed:
    """Files that go together, in this order, under the lock of `name`, if `still` says so then.

    An artifact goes before the aliases that name it: what was begun is seen, and can be ended, whenever it was stopped.
    """

    name: str
    files: dict[Path, str]  # and why
    still: Callable[[], bool] = lambda: True


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is to go, and of what was named what is not there."""

    doomed: list[Doomed]
    missing: list[NotFoundError] = dataclasses.field(default_factory=list)

    @property
    def files(self) -> dict[Path, str]:
        """All of them."""
        return {path: why for each in self.doomed for path, why in each.files.items()}

    def table(self) -> Table:
        """What goes, why, and how large it is."""
        rows = [(str(path), why, readable(size_of([path]))) for path, why in self.files.items()]
        return Table(("file", "why", "size"), rows, right=("size",))


Confirm = Callable[[Plan], bool]


def plan_removal(session: Session, refs: list[str]) -> Plan:
    """The files of these artifacts and the aliases that name them; what is not there, or not any more, is passed over.

    Raises UsageError for a file that is not the store's own, NotFoundError where nothing named is there.
    """
    if not refs:
        raise UsageError("nothing to remove", "name what is to go: advmix store list")
    if "latest" in refs:
        raise UsageError("latest is no name of what is to go", "name it: advmix store list")
    store = session.store
    targets, missing = dict[tuple[str, str], None](), list[NotFoundError]()
    named = [each for ref in refs for each in (aliases_like(store, ref, SINGULAR) if "*" in ref else [ref])]
    for ref in named:
        if ref.startswith(zoo.PREFIX):
            raise UsageError(f"{ref} ships with the package", "the store does not have it: advmix store list")
        stopped = _stopped(store, ref)
        if stopped:
            targets |= dict.fromkeys(stopped)
            continue
        try:
            kind, path = resolve(session, ref)
            if os.sep not in ref and not _in_full(store, ref, kind, path):
                raise NotFoundError(f"{ref!r} is no name in full", f"did you mean advmix store remove {path.stem}?")
        except NotFoundError as error:
            missing.append(error)
            continue
        own = store.owns(path)
        if own is None or own[0] != kind:
            raise UsageError(f"{path} is not in the store", "remove it yourself")
        targets[own] = None
    if not targets:
        raise missing[0]
    return Plan([_artifact(store, kind, name, SINGULAR[kind]) for kind, name in targets], missing)


def _stopped(store: Store, ref: str) -> list[tuple[str, str]]:
    """What `ref` named, by name or alias, before a removal that was stopped between it and its aliases."""
    found = []
    for path in sorted((store.root / "refs").glob("[!.]*")):
        target = store.target(path)
        if target is not None and not store.has(*target) and ref in (path.name, target[1]):
            found.append(target)
    return found


def _in_full(store: Store, ref: str, kind: str, path: Path) -> bool:
    """Whether `ref` is the name of the artifact at `path`, or an alias: when that is gone, a prefix names another."""
    named = ref.partition("@")[0]
    return named in store.refs() or named in (path.name, path.name.removesuffix(SUFFIXES[kind][0]))


def _artifact(store: Store, kind: str, name: str, why: str) -> Doomed:
    found = dict.fromkeys(store.files(kind, name), why)
    aliases = sorted((store.root / "refs").glob("[!.]*"), key=lambda path: ("@" not in path.name, path.name))
    for path in aliases:  # `latest` before the others: one of those may be what a removal is repeated by
        if store.target(path) == (kind, name):
            found[path] = f"alias of {name}"
    return Doomed(name, found)


def plan_forgetting(session: Session, names: list[str]) -> Plan:
    """What was prepared of these data sets; the folders and files that they were prepared from stay."""
    if not names:
        raise UsageError("nothing to remove", "name a data set: advmix data list")
    doomed, missing = list[Doomed](), list[NotFoundError]()
    for name in names:
        whole = full_name(name)
        sized = [each.name for each in datasets.prepared_sets(session) if parted(each.name)[0] == whole]
        before = len(doomed)
        for each in dict.fromkeys([whole, *sized]):
            kept = datasets.record_path(session, each)
            found = [path for path in (kept, kept.with_suffix(".images")) if path.exists()]
            if found and kind_of(each) != "named":
                doomed.append(Doomed(kept.stem, dict.fromkeys(found, f"prepared of {shown(each)}")))
        if len(doomed) == before:
            missing.append(NotFoundError(f"nothing is prepared of {shown(name)}", "see advmix data list"))
    if not doomed:
        raise missing[0]
    return Plan(doomed, missing)


def plan_pruning(session: Session) -> Plan:
    """What nothing needs: leftovers of interrupted work, and caches and evaluations whose models are all gone."""
    return Plan([each for each in _useless(session) if each.files and not _busy(session.store, each.name)])


def _useless(session: Session) -> Iterator[Doomed]:
    store = session.store
    for path, why in store.leftovers().items():
        name = path.name.removeprefix(files.TEMPORARY).partition(".history.")[0]
        name = name.rsplit(".", 2)[0] if path.parent.name == "unfinished" else name.rsplit(".", 1)[0]
        yield Doomed(name, {path: why}, functools.partial(_of_no_use, store, path))
    for kind in ("samples", "evaluations"):
        for name in store.names(kind):
            path = store.path(kind, name)
            if _orphaned(session, kind, path, warn=True):
                doomed = _artifact(store, kind, name, "its model is gone")
                yield dataclasses.replace(doomed, still=functools.partial(_orphaned, session, kind, path))


def _of_no_use(store: Store, path: Path) -> bool:
    return bool(store.no_use(path))


def _orphaned(session: Session, kind: str, path: Path, *, warn: bool = False) -> bool:
    """Whether no model is left of those that a cache or an evaluation was made from."""
    try:
        record = read_record(kind, path, whole=False)
    except AdvmixError as error:
        if warn:
            session.report.warn(f"{error.message}: left alone")
        return False
    lineage = [record["model"]] if kind == "samples" and record else [row["lineage"] for row in record.get("rows", [])]
    return bool(lineage) and all(_gone(session.store, model) for model in lineage)


def _gone(store: Store, model: dict[str, Any]) -> bool:
    return "digest" in model and "path" not in model and not store.has("checkpoints", model["name"])


def _busy(store: Store, name: str) -> bool:
    """Whether a process is at work on what is called so."""
    if not store.locks.file(name).exists():
        return False
    try:
        with store.lock(name):
            return False
    except LockedError:
        return True


def carry_out(session: Session, plan: Plan, *, dry_run: bool, confirm: Confirm) -> Result:
    """Delete what the plan names, unless it is a dry run or `confirm` says no. Raises LockedError before anything goes.

    What was named and is not there is the result's problem.
    """
    listed, size = plan.files, size_of(plan.files)
    table = plan.table()
    gone = bool(listed) and not dry_run and confirm(plan)
    if gone:
        with contextlib.ExitStack() as held:
            for name in sorted({each.name for each in plan.doomed}):
                held.enter_context(session.store.lock(name))
            for each in plan.doomed:
                if each.still():
                    _delete(session.store, each)
    said = "removed" if gone else "would remove" if dry_run else "kept"
    named = {*SUFFIXES, "datasets"}
    names = [each.name for each in plan.doomed if any(path.parent.name in named for path in each.files)]
    return Result(
        data={"files": [str(path) for path in listed], "bytes": size, "removed": gone},
        refs=names if gone or dry_run else [],
        blocks=[dataclasses.replace(table, note=f"{said} {len(listed)} files, {readable(size)}")],
        problem=plan.missing[0] if plan.missing else None,
    )


def _delete(store: Store, doomed: Doomed) -> None:
    for path in doomed.files:
        if path.name.startswith(files.TEMPORARY):
            files.clear(path)
        else:
            store.delete(path)
