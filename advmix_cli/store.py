"""The local artifact store: bytes, names, locks and references. It knows nothing of tensors.

    checkpoints/NAME.safetensors  figures/NAME.png  NAME.svg  refs/ALIAS            one line: KIND/NAME
    samples/NAME.pt               datasets/NAME.json          unfinished/NAME.N.pt  pieces of a job that can continue
    evaluations/NAME.json         schema  the form's number   locks/NAME.lock       empty, kept: see `lock`

A file appears under its name complete or not at all: it is written beside it, synced and renamed, and the folder is
synced. Stores of the first form have histories beside their checkpoints, `checkpoints/NAME.history.jsonl`.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from advmix_cli import files
from advmix_cli.errors import AdvmixError, DamagedError, NotFoundError, UsageError, nearest
from advmix_cli.locks import Locks
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
_NAME = re.compile(r"[^\x00-\x1f/\\]{1,250}")
_LONGEST_REF = 1000
JOBS = "jobs"
"""The folder by which jobs of a cluster are handed over, and where they write what they say."""
_OF_A_JOB = re.compile(r"(.+)_(?:0_log\.(?:out|err)|0_result\.pkl|submitted\.pkl)")
_RESERVED = ("latest", "untrained")


class Fits(NamedTuple):
    """Which artifacts will do, by their files, and what those have that others lack."""

    test: Callable[[Path], bool]
    having: str


def default_root() -> Path:
    """`$ADVMIX_HOME`, else the user's data folder."""
    home = os.environ.get("ADVMIX_HOME", "").strip()
    if home:
        return files.home(Path(home)).absolute()
    import platformdirs

    return platformdirs.user_data_path("advmix", appauthor=False)


class Store:
    """The artifacts below one folder. Nothing is created before the first write."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else default_root()
        self.locks = Locks(self.root)

    def check_schema(self) -> None:
        """Raise DamagedError where the folder holds a store of another schema than this version's."""
        found: int | str = SCHEMA
        try:
            text = files.read(self.root / "schema", 100).decode("ascii").strip()
            found = int(text) if text.isdigit() else repr(text)
        except NotFoundError:
            if any((self.root / kind).is_dir() for kind in SUFFIXES):
                found = 1  # the only one that had no such file
        except (AdvmixError, UnicodeDecodeError):
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

    def write(self, path: Path, data: bytes | Callable[[BinaryIO], None]) -> Path:
        """Put `data`, or what it writes, at `path` (below the root) in one step; nothing half-written is seen there.

        Raises AdvmixError, with the old file untouched, when the disk is full or the folder cannot be written.
        """
        schema = self.root / "schema"
        if self.root in path.parents and path != schema and not schema.exists():
            self.write(schema, f"{SCHEMA}\n".encode())
        self.folder(path.parent)
        try:
            with files.replacing(path) as file:
                file.write(data) if isinstance(data, bytes) else data(file)
        except OSError as error:
            raise files.cannot_write(path.parent, error, ours=self.root in path.parents) from error
        return path

    def folder(self, path: Path) -> None:
        """Make a folder unless it is there. Raises AdvmixError."""
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.cannot_write(path, error, ours=self.root in (path, *path.parents)) from error

    def names(self, kind: str) -> list[str]:
        """The artifacts of `kind`, the newest first. Raises AdvmixError."""
        suffix = SUFFIXES[kind][0]
        found = []
        for entry in files.entries(self.root / kind):
            if entry.name.endswith(suffix) and not entry.name.startswith(files.TEMPORARY):
                with contextlib.suppress(FileNotFoundError):  # gone since
                    found.append((-entry.stat(follow_symlinks=False).st_mtime_ns, entry.name.removesuffix(suffix)))
        return [name for _, name in sorted(found)]

    def files(self, kind: str, name: str) -> list[Path]:
        """All files that belong to one artifact, itself the last: what lacks that one is nothing any more."""
        return [path for s in reversed(SUFFIXES[kind]) if files.there(path := self.path(kind, name, s))]

    def owns(self, path: Path) -> tuple[str, str] | None:
        """(kind, name) of the artifact that `path` is in this store, None for a file elsewhere."""
        real = Path(os.path.realpath(path.parent)) / path.name
        kind = next((kind for kind in SUFFIXES if real.name.endswith(SUFFIXES[kind][0])), None)
        if kind is None or real.parent != Path(os.path.realpath(self.root / kind)):
            return None
        return kind, real.name.removesuffix(SUFFIXES[kind][0])

    def unfinished(self, name: str) -> list[Path]:
        """The pieces of the state of the job that makes `name`, in their order."""
        return sorted((self.root / "unfinished").glob(f"{glob.escape(name)}.[0-9]*.pt"))

    def unfinished_piece(self, name: str, number: int, lane: str = "") -> Path:
        """Where one of them is, or would be; of processes that share the job each has a lane."""
        return self.root / "unfinished" / f"{name}.{lane}{number:06}.pt"

    def delete(self, path: Path) -> None:
        """Remove one file; one that is gone already is fine."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise files.cannot_write(path.parent, error) from error

    # Locks

    @contextlib.contextmanager
    def lock(self, name: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold `name` against other processes. Waits, after calling `on_wait`; without it raises LockedError."""
        with self.locks.held(name, on_wait):
            for stray in self.root.glob(f"*/{files.TEMPORARY}{glob.escape(name)}.*"):  # of a killed holder
                files.clear(stray)
            yield

    # References

    def set_ref(self, alias: str, kind: str, name: str) -> None:
        """Let `alias` name an artifact from now on."""
        self.write(self.root / "refs" / check_alias(alias), f"{kind}/{name}\n".encode())

    def set_latest(self, kind: str, name: str) -> None:
        """`latest` is what a command last gave, from the cache or not: a script run twice does the same twice."""
        self.write(self.root / "refs" / f"latest@{kind}", f"{kind}/{name}\n".encode())

    def refs(self) -> dict[str, tuple[str, str]]:
        """Alias -> (kind, name), without `latest`; a ref that names nothing is left out. Raises AdvmixError."""
        found = {}
        for entry in sorted(files.entries(self.root / "refs"), key=lambda e: e.name):
            if "@" not in entry.name and not entry.name.startswith(files.TEMPORARY):
                target = self.target(Path(entry.path))
                if target is not None:
                    found[entry.name] = target
        return found

    @staticmethod
    def target(path: Path) -> tuple[str, str] | None:
        """(kind, name) of what a ref names, None where it names nothing that could be in a store.

        Raises AdvmixError where the system does not let read it: that says nothing of what it names.
        """
        try:
            kind, _, name = files.read(path, _LONGEST_REF).decode().strip().partition("/")
        except (NotFoundError, DamagedError, UnicodeDecodeError):
            return None
        return (kind, name) if kind in SUFFIXES and _NAME.fullmatch(name) and not name.startswith(".") else None

    def has(self, kind: str, name: str) -> bool:
        """Whether there is such an artifact."""
        return files.there(self.path(kind, name))

    def newest(self, kinds: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        """(kind, name) of all artifacts of these kinds: what a command last gave first, then the newest, by kind."""

        def given_at(kind: str) -> int:
            with contextlib.suppress(OSError):
                return (self.root / "refs" / f"latest@{kind}").stat().st_mtime_ns
            return 0

        for kind in sorted(kinds, key=given_at, reverse=True):
            target = self.target(self.root / "refs" / f"latest@{kind}")
            first = [target[1]] if target is not None and target[0] == kind and self.has(*target) else []
            yield from ((kind, name) for name in dict.fromkeys((*first, *self.names(kind))))

    def latest(self, kinds: tuple[str, ...], fits: Fits | None = None) -> tuple[str, str]:
        """(kind, name) of what a command last gave, else of the newest, among those that will do.

        Raises NotFoundError when there is none.
        """
        for kind, name in self.newest(kinds):
            with contextlib.suppress(AdvmixError):  # one that cannot be read will not do
                if fits is None or fits.test(self.path(kind, name)):
                    return kind, name
        makes = {"checkpoints": "advmix train", "samples": "advmix attack", "evaluations": "advmix eval"}
        what = " or ".join(SINGULAR[kind] for kind in kinds)
        raise NotFoundError(
            f"there is no {what}{' with ' + fits.having if fits else ''} in the store {self.root} yet",
            f"make one: {makes.get(kinds[0], 'advmix visualize')}",
        )

    def resolve(self, ref: str, kinds: tuple[str, ...], fits: Fits | None = None, having: str = "") -> tuple[str, str]:
        """(kind, name) of what `ref` names among `kinds`: `latest`, an alias, a name, or a unique prefix of one.

        `latest` is the newest that will do.

        Raises NotFoundError, with the candidates, for an unknown, empty or ambiguous reference.
        """
        what = " or ".join(SINGULAR[kind] for kind in kinds)
        if ref == "latest":
            return self.latest(kinds, fits)
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
            gone = f"the {SINGULAR[kind]} {name}, " + ("not a " + what if self.has(kind, name) else "which is gone")
            raise NotFoundError(f"{ref!r} names {gone}", "see advmix store list")
        others = {kind for kind in SUFFIXES for name in self.names(kind) if name.startswith(ref)} - {*kinds}
        if others:
            raise NotFoundError(
                f"{ref!r} is a {' or '.join(SINGULAR[kind] for kind in sorted(others))}, not a {what}",
                "see advmix store list",
            )
        known = [alias for alias, (kind, _) in refs.items() if kind in kinds] + [name for _, name in everything]
        raise NotFoundError(
            f"no {what} is called {ref!r}",
            nearest(ref, known) if known else f"there is none in {self.root}; see advmix store list",
        )

    # Housekeeping

    def leftovers(self) -> dict[Path, str]:
        """What interrupted processes left, and why it is of no use: strays, unfinished runs, orphans, dead refs."""
        found = {path: self.no_use(path) for at in ("*", "*/*") for path in sorted(self.root.glob(at), reverse=True)}
        return {path: why for path, why in found.items() if why}

    def no_use(self, path: Path) -> str:
        """Why a file of the store is of no use to anybody; nothing where it may be."""
        kind, name = path.parent.name, path.name
        if name.startswith(files.TEMPORARY):
            return "leftover"
        if kind == "unfinished" and name.endswith(".pt"):
            return "unfinished run"
        job = _OF_A_JOB.fullmatch(name)
        if kind == JOBS and job is not None:
            ended = files.there(path.with_name(f"{job[1]}_0_result.pkl"))
            return "of a job that ended" if ended or not files.there(path.with_name(f"{job[1]}_submitted.pkl")) else ""
        if kind == "refs":
            target = self.target(path)
            return "" if target is not None and self.has(*target) else "leads nowhere"
        first, *others = SUFFIXES.get(kind, ("",))
        belongs = next((suffix for suffix in others if name.endswith(suffix)), None)
        alone = belongs and not files.there(path.with_name(name.removesuffix(belongs) + first))
        return f"its {SINGULAR[kind]} is gone" if alone else ""

    def free_bytes(self) -> int | None:
        """Free space on the store's disk, None where there is no such folder yet."""
        with contextlib.suppress(OSError):
            return shutil.disk_usage(self.root).free
        return None


class Follower(Store):
    """The store as ranks have it that leave writing to the first: they read."""

    def write(self, path: Path, data: bytes | Callable[[BinaryIO], None]) -> Path:
        """Nothing."""
        return path

    def delete(self, path: Path) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def lock(self, name: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """The first rank's lock is that of all."""
        yield


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
