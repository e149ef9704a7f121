"""Artifacts elsewhere: content by its SHA-256 and names that say what it is, on any file system or in one file.

    objects/SHA256          the bytes of a file
    names/KIND/FILE.json    {"kind", "name", "file", "sha256", "bytes", "needs": [[kind, name], ...]}

Nothing is overwritten. A name is written after its object, so that what was cut off is seen by nobody.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from advmix_cli import files
from advmix_cli.errors import AdvmixError, DamagedError, NotFoundError, UsageError
from advmix_cli.store import SUFFIXES

_LARGEST_NAME = 1 << 20
_MOST_NAMES = 1_000_000
_HEX = re.compile(r"[0-9a-f]{64}")


class Entry(NamedTuple):
    """What is said of a file: which artifact it belongs to, its content, and which artifacts that was made from."""

    kind: str
    name: str
    file: str
    sha256: str
    bytes: int
    needs: tuple[tuple[str, str], ...] = ()


class Remote(Protocol):
    """A place of files by their paths, with `/` between the parts."""

    def paths(self) -> list[str]:
        """All names that are there, as paths."""

    def size(self, path: str) -> int | None:
        """How many bytes a file has, None for no such file."""

    def read(self, path: str, most: int) -> bytes:
        """The bytes of a file, of which there must be no more than that."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a file whole or not at all; False where it is there."""


def to(url: str) -> Remote:
    """The place that a URL names, of whatever kind fsspec knows. Raises UsageError."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        protocol = url.partition("://")[0]
        hint = "pip install 'advmix[s3]'" if protocol == "s3" else "s3://, gs://, file:// and others that fsspec knows"
        raise UsageError(f"{url} cannot be reached: {error}", hint) from None
    return _Elsewhere(url, system, path.rstrip("/"))


class _Elsewhere:
    def __init__(self, url: str, system: Any, path: str) -> None:
        self._url, self._system, self._path = url, system, path
        self._local = "file" in ([system.protocol] if isinstance(system.protocol, str) else system.protocol)

    @contextlib.contextmanager
    def _reached(self, path: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, AdvmixError):
            raise
        except Exception as error:  # each kind of place has errors of its own
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise AdvmixError(f"{self._url} refuses {path}: {said}", "try again: what is there is kept",
                              code="remote") from None  # fmt: skip

    def paths(self) -> list[str]:
        with self._reached("names"):
            self._system.invalidate_cache()
            try:
                found = self._system.find(f"{self._path}/names")
            except FileNotFoundError:
                return []
        return [path[path.rindex("/names/") + 1 :] for path in found[:_MOST_NAMES] if "/.part-" not in path]

    def size(self, path: str) -> int | None:
        with self._reached(path):
            self._system.invalidate_cache()
            try:
                return int(self._system.info(f"{self._path}/{path}")["size"])
            except FileNotFoundError:
                return None

    def read(self, path: str, most: int) -> bytes:
        with self._reached(path):
            try:
                with self._system.open(f"{self._path}/{path}", "rb") as file:
                    data: bytes = file.read(most + 1)
            except FileNotFoundError:
                raise NotFoundError(f"{path} is not in {self._url}", "push it again") from None
        return _bounded(data, most, path, self._url)

    def create(self, path: str, data: bytes) -> bool:
        if self.size(path) is not None:
            return False
        whole = f"{self._path}/{path}"
        with self._reached(path):
            if not self._local:
                try:
                    self._system.pipe_file(whole, data, mode="create")
                except FileExistsError:
                    return False
                except (TypeError, NotImplementedError):  # it puts whole objects, and knows of no conditions
                    self._system.pipe_file(whole, data)
                return True
            folder, _, name = whole.rpartition("/")
            part = f"{folder}/.part-{uuid.uuid4().hex}-{name}"[:255]
            self._system.makedirs(folder, exist_ok=True)
            try:
                Path(part).write_bytes(data)
                Path(whole).hardlink_to(part)  # fails where it is there
            except FileExistsError:
                return False
            finally:
                Path(part).unlink(missing_ok=True)
        return True


class Archive:
    """One file that has it all, a zip without compression, for a colleague."""

    def __init__(self, path: Path, *, new: bool = False) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path, "x" if new else "r")
        except FileNotFoundError:
            raise NotFoundError(f"there is no file {path}", "give what advmix store export wrote") from None
        except FileExistsError:
            raise UsageError(f"{path} is there", "give another name") from None
        except (zipfile.BadZipFile, OSError) as error:
            raise DamagedError(f"{path} is no export: {error}", "ask for it again") from None

    def paths(self) -> list[str]:
        """All names that are there."""
        return [name for name in self._zip.namelist()[:_MOST_NAMES] if name.startswith("names/")]

    def size(self, path: str) -> int | None:
        """How many bytes a file has."""
        with contextlib.suppress(KeyError):
            return self._zip.getinfo(path).file_size
        return None

    def read(self, path: str, most: int) -> bytes:
        """The bytes of a file."""
        try:
            with self._zip.open(path) as file:
                return _bounded(file.read(most + 1), most, path, str(self._path))
        except (KeyError, zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise DamagedError(f"{self._path} is damaged: {path}: {error}", "ask for it again") from None

    def create(self, path: str, data: bytes) -> bool:
        """Add a file."""
        if self.size(path) is not None:
            return False
        self._zip.writestr(path, data)
        return True

    def close(self) -> None:
        """Nothing more is added."""
        self._zip.close()


def _bounded(data: bytes, most: int, path: str, where: str) -> bytes:
    if len(data) > most:
        raise DamagedError(f"{path} in {where} is larger than it says", "it is not what was pushed")
    return data


def path_of(kind: str, file: str) -> str:
    """Where the name of a file is."""
    return f"names/{kind}/{file}.json"


def entries(remote: Remote) -> list[Entry]:
    """All that is there; what is no name of an artifact is passed over."""
    found = []
    for path in remote.paths():
        parts = path.split("/")
        if len(parts) == 3 and parts[1] in SUFFIXES and parts[2].endswith(".json"):
            found.append(entry(remote, parts[1], parts[2].removesuffix(".json")))
    return found


def entry(remote: Remote, kind: str, file: str) -> Entry:
    """What is said of a file there. Raises NotFoundError, or DamagedError for what is no such thing."""
    path = path_of(kind, file)
    data = remote.read(path, _LARGEST_NAME)
    try:
        given = json.loads(data)
        found = Entry(
            given["kind"], given["name"], given["file"], given["sha256"], given["bytes"],
            tuple((str(k), str(n)) for k, n in given["needs"]),
        )  # fmt: skip
        fits = (found.kind, found.file) == (kind, file) and file in {found.name + each for each in SUFFIXES[kind]}
        if not fits or not _HEX.fullmatch(found.sha256) or type(found.bytes) is not int or found.bytes < 0:
            raise ValueError("it does not say what its name does")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: {error}", "it is not what was pushed") from None
    return found


def put(remote: Remote, entry: Entry, data: bytes) -> bool:
    """Write a file and then its name; False where that is there. Raises AdvmixError where other bytes have its name."""
    path, own = path_of(entry.kind, entry.file), f"objects/{entry.sha256}"
    if not remote.create(own, data) and remote.size(own) != entry.bytes:
        raise DamagedError(f"{own} is damaged there", "remove it by hand, and push again")
    if hashlib.sha256(remote.read(own, entry.bytes)).hexdigest() != entry.sha256:
        raise DamagedError(f"{own} is damaged there", "remove it by hand, and push again")
    name = {**entry._asdict(), "needs": [list(need) for need in entry.needs]}
    return remote.create(path, json.dumps(name, sort_keys=True).encode())


def get(remote: Remote, entry: Entry) -> bytes:
    """The bytes of a file. Raises DamagedError for others than were pushed."""
    data = remote.read(f"objects/{entry.sha256}", entry.bytes)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise DamagedError(f"{entry.file} is damaged there: not what was pushed", "push it again, under another name")
    return data


def described(kind: str, name: str, path: Path, needs: tuple[tuple[str, str], ...]) -> tuple[Entry, bytes]:
    """What is said of a file of the store, and its bytes."""
    data = files.read(path)
    return Entry(kind, name, path.name, hashlib.sha256(data).hexdigest(), len(data), needs), data
