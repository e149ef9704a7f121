"""`advmix store`: list, show, path, verify, remove and prune what is there."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advmix_cli import artifacts
from advmix_cli.errors import AdvmixError, DamagedError, LockedError, UsageError
from advmix_cli.results import Facts, Result, Table
from advmix_cli.store import SINGULAR, SUFFIXES
from advmix_cli.workflows.references import WEIGHTS, history, resolve_path
from advmix_cli.workflows.session import Session

KINDS = tuple(SUFFIXES)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Files that are to go, said before anything does."""

    files: list[Path]
    reasons: list[str]
    names: list[str]

    def table(self) -> Table:
        """What goes, why, and how large it is."""
        rows = [(str(f), reason, _size(_bytes([f]))) for f, reason in zip(self.files, self.reasons, strict=True)]
        return Table(("file", "why", "size"), rows, right=("size",))


Confirm = Callable[[Plan], bool]


def read_record(kind: str, path: Path) -> dict[str, Any]:
    """The verified record of any artifact ({} for figures and files of others)."""
    if kind == "checkpoints":
        return artifacts.checkpoint_record(path)
    if kind == "samples":
        return artifacts.samples_record(path) or {}
    if kind != "evaluations":
        return {}
    from advmix_cli.workflows.evaluation import record as evaluations

    return evaluations.read(path).to_record()


def listing(session: Session, kind: str | None) -> Result:
    """All artifacts, the newest first in each kind."""
    store = session.store
    aliases: dict[tuple[str, str], list[str]] = {}
    for alias, target in store.refs().items():
        aliases.setdefault(target, []).append(alias)
    entries: list[dict[str, Any]] = []
    for each in [kind] if kind else KINDS:
        for name in store.names(each):
            files = store.files(each, name)
            entries.append(
                {
                    "kind": SINGULAR[each],
                    "name": name,
                    "aliases": aliases.get((each, name), []),
                    "bytes": _bytes(files),
                    "modified": _modified(store.path(each, name)),
                    "path": str(store.path(each, name)),
                }
            )
    rows = [
        (e["kind"], e["name"], " ".join(e["aliases"]), _size(e["bytes"]), e["modified"].replace("T", " "))
        for e in entries
    ]
    note = f"{store.root}: {_size(sum(e['bytes'] for e in entries))}" + ("" if entries else ", nothing yet")
    return Result(
        data={"root": str(store.root), "artifacts": entries},
        refs=[str(e["name"]) for e in entries],
        blocks=[Table(("kind", "name", "aliases", "size", "modified"), rows, right=("size",), note=note)],
        hint=f"look into one: advmix store show {entries[0]['name']}" if entries else "make one: advmix train",
    )


def show(session: Session, ref: str) -> Result:
    """The record of one artifact."""
    kind, path = _resolve(session, ref)
    record = read_record(kind, path) or {"name": path.stem, "note": "no record"}
    record = record | {"path": str(path), "bytes": _bytes([path]), "modified": _modified(path)}
    return Result(data=record, refs=[str(record["name"])], blocks=[Facts(_flat(record))])


def where(session: Session, ref: str) -> Result:
    """The path of one artifact, and nothing else."""
    kind, path = _resolve(session, ref)
    return Result(data={"path": str(path), "kind": SINGULAR[kind]}, refs=[str(path)], blocks=[Facts([("", str(path))])])


def verify(session: Session, refs: list[str]) -> Result:
    """Read every artifact (or those named) whole and compare its digests."""
    if refs:
        todo = [_resolve(session, ref) for ref in refs]
    else:
        todo = [(kind, session.store.path(kind, name)) for kind in KINDS for name in session.store.names(kind)]
    found: list[dict[str, Any]] = []
    with session.report.progress("verifying", len(todo), "files") as progress:
        for kind, path in todo:
            problem = ""
            try:
                if kind == "samples":
                    artifacts.samples_tensors(path)
                else:
                    record = read_record(kind, path)
                    if "history_sha256" in record:
                        history(path, record)
            except AdvmixError as error:
                problem = error.message
            found.append({"kind": SINGULAR[kind], "name": path.name, "ok": not problem, "problem": problem})
            progress(1)
    bad = [entry for entry in found if not entry["ok"]]
    table = Table(
        ("kind", "file", "state"),
        [(e["kind"], e["name"], "ok" if e["ok"] else e["problem"]) for e in found],
        note=f"{len(found)} verified, {len(bad)} damaged",
    )
    return Result(
        data={"verified": found, "damaged": len(bad)},
        refs=[str(e["name"]) for e in bad],
        blocks=[table],
        problem=DamagedError(
            f"{len(bad)} of {len(found)} artifacts are damaged", "remove them: advmix store remove NAME"
        )
        if bad
        else None,
    )


def plan_removal(session: Session, refs: list[str]) -> Plan:
    """The files of these artifacts and the aliases that name them. Raises LockedError while one is being made."""
    if not refs:
        raise UsageError("nothing to remove", "name what is to go: advmix store list")
    store = session.store
    if "latest" in refs:
        raise UsageError("latest is no name of what is to go", "name it: advmix store list")
    plan = Plan([], [], [])
    for kind, path in dict.fromkeys(_resolve(session, ref) for ref in refs):
        if store.root not in path.parents:
            raise UsageError(f"{path} is not in the store", "remove it yourself")
        name = path.name.removesuffix(SUFFIXES[kind][0])
        with store.lock(name):
            pass
        plan.names.append(name)
        for file in store.files(kind, name):
            plan.files.append(file)
            plan.reasons.append(SINGULAR[kind])
        for alias, target in store.refs().items():
            if target == (kind, name):
                plan.files.append(store.root / "refs" / alias)
                plan.reasons.append(f"alias of {name}")
    return plan


def plan_pruning(session: Session) -> Plan:
    """What nothing needs: leftovers of interrupted work, and caches, evaluations of models that are gone."""
    store = session.store
    plan = Plan([], [], [])
    for file in store.leftovers():
        if not _busy(session, file):
            plan.files.append(file)
            plan.reasons.append(
                {"unfinished": "unfinished run", "refs": "leads nowhere"}.get(file.parent.name, "leftover")
            )
    there = set(store.names("checkpoints"))
    for kind in ("samples", "evaluations"):
        for name in store.names(kind):
            path = store.path(kind, name)
            with contextlib.suppress(AdvmixError):
                record = read_record(kind, path)
                lineage = [record["model"]] if kind == "samples" else [row["lineage"] for row in record["rows"]]
                if any("digest" in model and "path" not in model and model["name"] not in there for model in lineage):
                    plan.files.append(path)
                    plan.reasons.append("its model is gone")
                    plan.names.append(name)
    return plan


def _busy(session: Session, file: Path) -> bool:
    """Whether a process is at work on what `file` belongs to."""
    for lock in (session.store.root / "locks").glob("*.lock"):
        if lock.stem in file.name:
            try:
                with session.store.lock(lock.stem):
                    pass
            except LockedError:
                return True
    return False


def carry_out(session: Session, plan: Plan, *, dry_run: bool, confirm: Confirm) -> Result:
    """Delete what the plan names, unless it is a dry run or `confirm` says no."""
    size = _bytes(plan.files)
    gone = bool(plan.files) and not dry_run and confirm(plan)
    if gone:
        for file in plan.files:
            session.store.delete(file)
    said = "removed" if gone else "would remove" if dry_run else "kept"
    return Result(
        data={"files": [str(file) for file in plan.files], "bytes": size, "removed": gone},
        refs=plan.names if gone or dry_run else [],
        blocks=[dataclasses.replace(plan.table(), note=f"{said} {len(plan.files)} files, {_size(size)}")],
    )


def _resolve(session: Session, ref: str) -> tuple[str, Path]:
    suffixes = tuple(suffix for kind in KINDS for suffix in SUFFIXES[kind])
    for which in WEIGHTS:
        ref = ref.removesuffix(f"@{which}")
    _, path = resolve_path(session, ref, KINDS, suffixes)
    kind = next((kind for kind in KINDS if path.name.endswith(SUFFIXES[kind])), None)
    if kind is None:
        raise UsageError(f"{path} is no artifact", f"artifacts end in {', '.join(suffixes)}")
    return kind, path


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, item in value.items():
        if isinstance(item, dict) and item:
            rows += _flat(item, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, item if isinstance(item, str) else json.dumps(item)))
    return rows


def _bytes(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.exists())


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def _modified(path: Path) -> str:
    return datetime.datetime.fromtimestamp(path.stat().st_mtime).isoformat(timespec="seconds")
