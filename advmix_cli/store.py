"""The local artifact store: bytes, names, locks and references. It knows nothing of tensors.

    checkpoints/NAME.safetensors   NAME.history.jsonl     refs/ALIAS            one line: KIND/NAME
    samples/NAME.pt                evaluations/NAME.json  unfinished/NAME.N.pt  pieces of a job that can continue
    figures/NAME.png  NAME.svg     datasets/              locks/NAME.lock       empty, kept: see `lock`
    schema                         the number of this form

A file appears under its name complete or not at all: it is written beside it, synced and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from advmix_cli.errors import AdvmixError, DamagedError, LockedError, NotFoundError, UsageError, nearest
from advmix_cli.settings import SCHEMA

SUFFIXES = {
    "checkpoints": (".safetensors", ".history.jsonl"),
    "samples": (".pt",),
    "evaluations": (".json",),
    "figures": (".png", ".svg"),
}
"""The kinds of artifact; the first suffix is the artifact itself, the others go with it."""

SINGULAR = {
    "checkpoints": "checkpoint",
    "samples": "sample cache",
    "evaluations": "evaluation",
    "figures": "figure",
}
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TEMPORARY = ".tmp-"
_RESERVED = ("latest", "untrained")


def default_root() -> Path:
    """`$ADVMIX_HOME`, else the user's data folder."""
    home = os.environ.get("ADVMIX_HOME", "").strip()
    if home:
        return Path(home).expanduser().absolute()
    import platformdirs

    return platformdirs.user_data_path("advmix", appauthor=False)


class Store:
    """The artifacts below one folder. Nothing is created before the first write."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else default_root()

    def check_schema(self) -> None:
        """Raise DamagedError where the folder holds a store of another schema than this version's."""
        found: int | str = SCHEMA
        try:
            text = (self.root / "schema").read_text().strip()
            found = int(text) if text.isdigit() else repr(text)
        except (FileNotFoundError, NotADirectoryError):
            if any((self.root / kind).is_dir() for kind in SUFFIXES):
                found = 1  # the only one that had no such file
        except (OSError, UnicodeDecodeError):
            found = "unreadable"
        if found != SCHEMA:
            raise DamagedError(
                f"the store {self.root} has the schema {found}, this version of advmix reads {SCHEMA}",
                f"move it away (mv {self.root} {self.root}-{found}), or set ADVMIX_HOME to another folder, and make "
                "again what you need; checkpoints can be taken over with advmix import",
                code="unknown-schema",
            )

    # Files

    def path(self, kind: str, name: str, suffix: str | None = None) -> Path:
        """Where the artifact `name` of `kind` is, or would be."""
        return self.root / kind / (name + (SUFFIXES[kind][0] if suffix is None else suffix))

    def write(self, path: Path, data: bytes) -> Path:
        """Put `data` at `path` (below the root) in one step; nothing half-written is ever seen there.

        Raises AdvmixError, with the old file untouched, when the disk is full or the folder cannot be written.
        """
        schema = self.root / "schema"
        if self.root in path.parents and path != schema and not schema.exists():
            self.write(schema, f"{SCHEMA}\n".encode())
        temporary = path.parent / f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{path.name}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            raise cannot_write(path.parent, error, ours=self.root in path.parents) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return path

    def names(self, kind: str) -> list[str]:
        """The artifacts of `kind`, the newest first."""
        suffix = SUFFIXES[kind][0]
        found = []
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.root / kind):
                if entry.name.endswith(suffix) and not entry.name.startswith(_TEMPORARY):
                    with contextlib.suppress(OSError):  # gone since
                        found.append((-entry.stat().st_mtime_ns, entry.name.removesuffix(suffix)))
        return [name for _, name in sorted(found)]

    def files(self, kind: str, name: str) -> list[Path]:
        """All files that belong to one artifact."""
        return [path for s in SUFFIXES[kind] if (path := self.path(kind, name, s)).exists()]

    def unfinished(self, name: str) -> list[Path]:
        """The pieces of the state of the job that makes `name`, in their order."""
        return sorted((self.root / "unfinished").glob(f"{glob.escape(name)}.[0-9]*.pt"))

    def unfinished_piece(self, name: str, number: int) -> Path:
        """Where one of them is, or would be."""
        return self.root / "unfinished" / f"{name}.{number:06}.pt"

    def delete(self, path: Path) -> None:
        """Remove one file; one that is gone already is fine."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path.parent, error) from error

    # Locks

    @contextlib.contextmanager
    def lock(self, name: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold `name` against other processes. Waits, after calling `on_wait`; without it raises LockedError.

        The file stays: removing it while others wait would give two of them the lock. A killed holder
        frees it at once.
        """
        import filelock  # slow to import, and help and answers from the store need no lock

        path = self.root / "locks" / f"{name}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(path)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                if on_wait is None:
                    raise LockedError(
                        f"{name} is being made by another process", "wait for it, or stop it, and try again"
                    ) from None
                on_wait()
                lock.acquire(poll_interval=0.1)
        except OSError as error:
            raise cannot_write(path.parent, error) from error
        try:
            for stray in self.root.glob(f"*/{_TEMPORARY}*-{name}.*"):  # of a killed holder: nobody else writes these
                self.delete(stray)
            yield
        finally:
            lock.release()

    # References

    def set_ref(self, alias: str, kind: str, name: str) -> None:
        """Let `alias` name an artifact from now on."""
        self.write(self.root / "refs" / check_alias(alias), f"{kind}/{name}\n".encode())

    def set_latest(self, kind: str, name: str) -> None:
        """`latest` is what a command last gave, from the cache or not: a script run twice does the same twice."""
        self.write(self.root / "refs" / f"latest@{kind}", f"{kind}/{name}\n".encode())

    def refs(self) -> dict[str, tuple[str, str]]:
        """Alias -> (kind, name), without `latest`; an unreadable ref is left out."""
        found = {}
        with contextlib.suppress(OSError):
            for entry in sorted(os.scandir(self.root / "refs"), key=lambda e: e.name):
                if "@" not in entry.name and not entry.name.startswith(_TEMPORARY):
                    target = self._target(Path(entry.path))
                    if target is not None:
                        found[entry.name] = target
        return found

    @staticmethod
    def _target(path: Path) -> tuple[str, str] | None:
        try:
            kind, _, name = path.read_text().strip().partition("/")
        except (OSError, UnicodeDecodeError):
            return None
        return (kind, name) if kind in SUFFIXES and name else None

    def latest(self, kind: str) -> str:
        """The artifact of `kind` that a command last gave. Raises NotFoundError when there is none."""
        target = self._target(self.root / "refs" / f"latest@{kind}")
        if target is not None and self.path(*target).exists():
            return target[1]
        names = self.names(kind)
        if not names:
            makes = {"checkpoints": "advmix train", "samples": "advmix attack", "evaluations": "advmix eval"}
            raise NotFoundError(
                f"there is no {SINGULAR[kind]} in the store {self.root} yet",
                f"make one: {makes.get(kind, 'advmix visualize')}",
            )
        return names[0]

    def _given_at(self, kind: str) -> int:
        """When a command last gave an artifact of `kind`."""
        with contextlib.suppress(OSError):
            return (self.root / "refs" / f"latest@{kind}").stat().st_mtime_ns
        return 0

    def resolve(self, ref: str, kinds: tuple[str, ...]) -> tuple[str, str]:
        """(kind, name) of what `ref` names among `kinds`: `latest`, an alias, a name, or a unique prefix of one.

        Raises NotFoundError, with the candidates, for an unknown, empty or ambiguous reference.
        """
        what = " or ".join(SINGULAR[kind] for kind in kinds)
        if ref == "latest":
            kind = max(kinds, key=self._given_at)
            return kind, self.latest(kind)
        refs = self.refs()
        everything = [(kind, name) for kind in kinds for name in self.names(kind)]
        if ref in refs and refs[ref] in everything:
            return refs[ref]
        exact = [(kind, name) for kind, name in everything if name == ref]
        found = exact or [(kind, name) for kind, name in everything if ref and name.startswith(ref)]
        if len(found) == 1:
            return found[0]
        if found:
            names = [name for _, name in found]
            raise NotFoundError(
                f"{ref!r} is ambiguous: it begins {len(names)} names",
                f"one of: {', '.join(sorted(names)[:8])}",
                code="ambiguous",
            )
        if not ref:
            raise NotFoundError(f"the reference of a {what} is empty", "give a name, or latest", code="empty")
        if ref in refs:
            kind, name = refs[ref]
            gone = f"the {SINGULAR[kind]} {name}, " + (
                "not a " + what if self.path(kind, name).exists() else "which is gone"
            )
            raise NotFoundError(f"{ref!r} names {gone}", "see advmix store list")
        known = [alias for alias, (kind, _) in refs.items() if kind in kinds] + [name for _, name in everything]
        raise NotFoundError(
            f"no {what} is called {ref!r}",
            nearest(ref, known) if known else f"there is none in {self.root}; see advmix store list",
        )

    # Housekeeping

    def leftovers(self) -> list[Path]:
        """What interrupted processes left: temporary files, unfinished runs, and refs that lead nowhere."""
        found = [path for path in self.root.glob(f"*/{_TEMPORARY}*") if path.is_file()]
        found += sorted((self.root / "unfinished").glob("*.pt"))
        for path in sorted((self.root / "refs").glob("*")):
            target = self._target(path)
            if not path.name.startswith(_TEMPORARY) and (target is None or not self.path(*target).exists()):
                found.append(path)
        return found

    def free_bytes(self) -> int | None:
        """Free space on the store's disk, None where there is no such folder yet."""
        with contextlib.suppress(OSError):
            return shutil.disk_usage(self.root).free
        return None


def check_alias(alias: str) -> str:
    """`alias` if it can name an artifact, else a UsageError."""
    suffixes = tuple(suffix for each in SUFFIXES.values() for suffix in each)
    if not _ALIAS.fullmatch(alias) or alias in _RESERVED or alias.endswith(suffixes):
        raise UsageError(
            f"{alias!r} cannot be a name",
            "use letters, digits, '.', '_' and '-', begin with a letter or digit, end in no file's suffix; "
            f"not {' or '.join(_RESERVED)}",
        )
    return alias


def cannot_write(folder: Path, error: OSError, *, ours: bool = True) -> AdvmixError:
    """What to say when the system refused a write below `folder`, the store's (`ours`) or one that was asked for."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return AdvmixError(
        f"cannot write to {folder}: {error.strerror or error}",
        "nothing half-written is left; free some space (advmix store prune) or set ADVMIX_HOME to another disk"
        if full
        else "set ADVMIX_HOME to a folder that you can write"
        if ours
        else "choose another --out",
        code="disk-full" if full else "not-writable",
    )
