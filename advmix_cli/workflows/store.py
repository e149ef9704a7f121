"""`advmix store`: list, show, path and verify what is there; its aliases."""

from __future__ import annotations

import contextlib
import datetime
import fnmatch
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from advmix_cli import artifacts
from advmix_cli.errors import AdvmixError, DamagedError, NotFoundError, UsageError, known_name, nearest
from advmix_cli.results import Facts, Result, Table, accuracy
from advmix_cli.store import SINGULAR, SUFFIXES, check_alias
from advmix_cli.workflows import datasets
from advmix_cli.workflows.references import WEIGHTS, history, is_stored, resolve_path
from advmix_cli.workflows.session import Session

KINDS = tuple(SUFFIXES)
LOCKS = ("system", "lease")

_LARGEST_FIRST = ("modified", "accuracy", "n", "bytes")
SORTS = {"age": "modified", "accuracy": "accuracy", "n": "n", "size": "bytes", "name": "name", "model": "model"}
"""What a list is sorted by: the newest, the largest and the best first, or by letters; what has none, last."""


def read_record(kind: str, path: Path, *, whole: bool = True) -> dict[str, Any]:
    """The verified record of any artifact ({} for files of others); not `whole`: what its record says of itself."""
    if kind == "checkpoints":
        return artifacts.checkpoint_record(path, whole=whole)
    if kind == "samples":
        return artifacts.samples_record(path, whole=whole) or {}
    if kind == "figures":
        return artifacts.figure_record(path)
    from advmix_cli.workflows.evaluation import record as evaluations

    return evaluations.read(path).to_record()


def listing(session: Session, kind: str | None, sort: str = "age", like: str | None = None) -> Result:
    """All artifacts, the newest first or as `sort` says; only those of which a name or the model is like a pattern."""
    store = session.store
    aliases: dict[tuple[str, str], list[str]] = {}
    for alias, target in store.refs().items():
        aliases.setdefault(target, []).append(alias)
    entries: list[dict[str, Any]] = []
    for each in [kind] if kind else KINDS:
        for name in store.names(each):
            path = store.path(each, name)
            entries.append(
                {
                    "kind": SINGULAR[each],
                    "name": name,
                    "aliases": aliases.get((each, name), []),
                    **_about(each, path),
                    "bytes": size_of(store.files(each, name)),
                    "modified": _modified(path),
                    "path": str(path),
                }
            )
    if like is not None:
        entries = [
            e for e in entries
            if any(fnmatch.fnmatchcase(word, like) for word in (e["name"], *e["aliases"], e["model"] or ""))
        ]  # fmt: skip
    by = SORTS[known_name(sort, SORTS, "order")]
    entries.sort(key=lambda e: e["modified"], reverse=True)
    entries.sort(key=lambda e: e[by] or (0 if by in _LARGEST_FIRST else ""), reverse=by in _LARGEST_FIRST)
    entries.sort(key=lambda e: e[by] is None)
    rows = [
        (e["kind"], e["name"], " ".join(e["aliases"]), _figure(e), str(e["n"] or ""), e["model"] or "",
         _age(e["modified"]), readable(e["bytes"]))
        for e in entries
    ]  # fmt: skip
    nothing = ", nothing yet" if like is None else f", nothing like {like!r}"
    note = f"{store.root}: {readable(sum(e['bytes'] for e in entries))}" + ("" if entries else nothing)
    columns = ("kind", "name", "aliases", "accuracy", "n", "model", "age", "size")
    return Result(
        data={"root": str(store.root), "artifacts": entries},
        refs=[str(e["name"]) for e in entries],
        blocks=[Table(columns, rows, right=("n", "age", "size"), note=note)],
        hint=f"look into one: advmix store show {entries[0]['name']}" if entries else "make one: advmix train",
        records=entries,
    )


def _about(kind: str, path: Path) -> dict[str, Any]:
    """What a list says of an artifact: how many of `n` images are right, `attacked` or clean, and for which model."""
    found: dict[str, Any] = {"n": None, "correct": None, "accuracy": None, "attacked": False, "model": None}
    try:
        record = read_record(kind, path, whole=False)
    except AdvmixError as error:
        return found | {"problem": error.message}
    if kind == "checkpoints" and record["origin"] != "import":
        n, percent = record["images"]["test"], record["metrics"]["test_accuracy"]
        found |= {"n": n, "correct": round(percent * n / 100)}
    elif kind == "samples" and record:
        found |= {"n": record["n"], "correct": record["robust_correct"], "attacked": True}
        found["model"] = record["model"]["name"]
    elif kind == "evaluations":
        cells, names = record["cells"], [row["lineage"]["name"] for row in record["rows"]]
        found |= {"n": cells[0][0]["n"], "model": names[0] if len(names) == 1 else f"{len(names)} models"}
        upper = [cell for column, cell in zip(record["columns"], cells[0], strict=True) if column["bound"] == "upper"]
        if len(names) == 1:
            worst = min(upper or cells[0][:1], key=lambda cell: cell["correct"] / cell["n"])
            found |= {"n": worst["n"], "correct": worst["correct"], "attacked": bool(upper)}
    if found["correct"] is not None:
        found["accuracy"] = 100 * found["correct"] / found["n"]
    return found


def _figure(entry: dict[str, Any]) -> str:
    if "problem" in entry:
        return "damaged: advmix store verify"
    if entry["correct"] is None:
        return ""
    return accuracy(entry["correct"], entry["n"]) + (" attacked" if entry["attacked"] else "")


def show(session: Session, ref: str) -> Result:
    """The record of one artifact."""
    kind, path = resolve(session, ref)
    record = read_record(kind, path) or {"name": path.stem, "note": "no record"}
    shown = record | ({"history": f"{len(record['history'])} epochs"} if "history" in record else {})
    record = record | {"path": str(path), "bytes": size_of([path]), "modified": _modified(path)}
    return Result(data=record, refs=[str(record["name"])], blocks=[Facts(_flat(record | shown))])


def made_by(session: Session, ref: str) -> str:
    """The command that made an artifact. Raises NotFoundError where nobody knows."""
    kind, path = resolve(session, ref)
    command = ((read_record(kind, path) or {}).get("made") or {}).get("command")
    if not command:
        raise NotFoundError(f"nobody knows which command made {ref}", "see advmix store show")
    return str(command)


def where(session: Session, ref: str) -> Result:
    """The path of one artifact, and nothing else."""
    kind, path = resolve(session, ref)
    return Result(data={"path": str(path), "kind": SINGULAR[kind]}, refs=[str(path)], blocks=[Facts([("", str(path))])])


def verify(session: Session, refs: list[str]) -> Result:
    """Read every artifact (or those named) whole and compare its digests."""
    store = session.store
    if refs:
        todo = [resolve(session, ref) for ref in refs]
    else:
        todo = [(kind, store.path(kind, name)) for kind in KINDS for name in store.names(kind)]
        todo += [("datasets", path) for path in sorted((store.root / "datasets").glob("[!.]*.json"))]
    found: list[dict[str, Any]] = []
    with session.report.progress("verifying", len(todo), "files") as progress:
        for kind, path in todo:
            problem = ""
            try:
                _verify(session, kind, path)
            except AdvmixError as error:
                problem = error.message
            what = SINGULAR.get(kind, "fingerprint")
            found.append({"kind": what, "name": path.name, "ok": not problem, "problem": problem})
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


def _verify(session: Session, kind: str, path: Path) -> None:
    if kind == "datasets":
        datasets.verify(path)
        return
    if kind == "samples":
        artifacts.samples_tensors(path)
    record = read_record(kind, path)
    if record:
        is_stored(session, path, record)
    if "history_sha256" in record:
        history(path, record)


def rename(session: Session, old: str, new: str) -> Result:
    """Let another alias name what `old` names."""
    store = session.store
    refs = store.refs()
    target = refs.get(_known(session, old))
    if target is None:
        raise NotFoundError(f"{old!r} leads nowhere", f"drop it: advmix store unalias {old}")
    if refs.get(check_alias(new), target) != target:
        raise UsageError(f"{new!r} names {refs[new][1]} already", f"drop it first: advmix store unalias {new}")
    if new != old:
        store.set_ref(new, *target)
        store.delete(store.root / "refs" / old)
    return _said({"alias": new, "was": old, "name": target[1]}, [("alias", new), ("was", old), ("names", target[1])])


def unalias(session: Session, aliases: list[str]) -> Result:
    """Drop aliases; what they name stays."""
    if not aliases:
        raise UsageError("nothing to drop", "name an alias: advmix store list")
    for alias in [_known(session, alias) for alias in aliases]:
        session.store.delete(session.store.root / "refs" / alias)
    return _said({"dropped": aliases}, [("dropped", alias) for alias in aliases])


def locks(session: Session, kind: str | None) -> Result:
    """Which locks the store has; with a `kind` they are that from now on."""
    own = session.store.locks
    if kind is not None:
        leases = known_name(kind, LOCKS, "kind of lock") == "lease"
        if leases and not own.leases:
            session.store.write(own.marker, b"")
        elif not leases:
            session.store.delete(own.marker)
    found = LOCKS[own.leases]
    return Result({"locks": found}, [found], [Facts([("locks", found)])])


def _said(data: dict[str, Any], rows: list[tuple[str, str]]) -> Result:
    return Result(data=data, refs=[data["alias"]] if "alias" in data else data["dropped"], blocks=[Facts(rows)])


def _known(session: Session, alias: str) -> str:
    folder = session.store.root / "refs"
    if check_alias(alias) not in session.store.refs() and not (folder / alias).is_file():
        known = session.store.refs()
        raise NotFoundError(f"there is no alias {alias!r}", nearest(alias, known) if known else "see advmix store list")
    return alias


def resolve(session: Session, ref: str) -> tuple[str, Path]:
    """(kind, path) of what `ref` names."""
    suffixes = tuple(SUFFIXES[kind][0] for kind in KINDS)
    for which in WEIGHTS:
        ref = ref.removesuffix(f"@{which}")
    _, path = resolve_path(session, ref, KINDS, suffixes)
    kind = next((kind for kind in KINDS if path.name.endswith(SUFFIXES[kind][0])), None)
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


def size_of(paths: Iterable[Path]) -> int:
    """How many bytes these files have; those that are gone have none."""
    return sum(path.lstat().st_size for path in paths if os.path.lexists(path))


def readable(count: int) -> str:
    """A number of bytes, for people."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def _modified(path: Path) -> str:
    with contextlib.suppress(ValueError, OverflowError, OSError):  # of years beyond 9999, or gone since
        return datetime.datetime.fromtimestamp(path.lstat().st_mtime).isoformat(timespec="seconds")
    return ""


def _age(modified: str) -> str:
    if not modified:
        return ""
    minutes = (datetime.datetime.now() - datetime.datetime.fromisoformat(modified)).total_seconds() / 60
    for unit, size in (("min", 60), ("h", 24)):
        if minutes < 2 * size:
            return f"{max(minutes, 0):.0f} {unit}"
        minutes /= size
    return f"{minutes:.0f} d"
