"""Files: those that anybody may have written are read within bounds, ours are written whole or not at all.

A named pipe would wait for ever, a device never ends: what is no regular file is refused before a byte is read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, which does not let an open file be removed or replaced
    fcntl = None  # type: ignore[assignment]

from advmix_cli.errors import AdvmixError, DamagedError, NotFoundError

LARGEST = 8 << 30
"""Bytes of the largest file that is read: best and last weights of a billion parameters each."""

TEMPORARY = ".tmp-"
"""How the name of a file begins that is being written."""

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EILSEQ)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def opened(path: Path, most: int = LARGEST) -> Iterator[tuple[BinaryIO, int]]:
    """A file to read and its size in bytes, at most `most`.

    Raises NotFoundError where there is none, DamagedError for what is no regular file or larger, and AdvmixError for
    what the system does not let read.
    """
    if "\0" in str(path):
        raise NotFoundError(f"there is no file {path}", "see advmix store list")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DamagedError(f"{path} is no regular file", "name a file")
            if status.st_size > most:
                raise DamagedError(
                    f"{path} is too large: {status.st_size} bytes, where at most {most} are read",
                    "it is none of advmix's files",
                    code="too-large",
                )
            yield file, status.st_size
    except IsADirectoryError:
        raise DamagedError(f"{path} is a folder", "name a file") from None
    except OSError as error:
        raise cannot_read(path, error) from error


def read(path: Path, most: int = LARGEST) -> bytes:
    """The content of a file of at most `most` bytes. Raises as `opened` does."""
    with opened(path, most) as (file, size):
        return file.read(size)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when the block ends well, and is removed when it does not.

    It lies beside `path` and is held while it is written: another process that writes the same waits, what a killed
    one left is written over, and `clear` lets it be. Raises OSError.
    """
    temporary = path.with_name(TEMPORARY + path.name)
    try:
        file = _held(temporary)
    except KeyboardInterrupt:  # by then it may be there
        clear(temporary)
        raise
    try:
        with file:
            file.truncate(0)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()
            os.replace(temporary, path)
    except BaseException:
        clear(temporary)
        raise
    _sync(path.parent)


def _held(temporary: Path) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    while True:
        file = open(os.open(temporary, flags, 0o666), "r+b")  # noqa: SIM115  the caller closes it
        try:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise FileExistsError(errno.EEXIST, f"{temporary} is in the way")
            if _lock(file, wait=True) and _is_there(file, temporary):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def clear(temporary: Path) -> None:
    """Remove a file that was being written, unless somebody is at it."""
    with contextlib.suppress(OSError):
        if temporary.is_symlink() or not temporary.is_file():
            temporary.unlink()
            return
        with open(temporary, "r+b") as file:
            if _lock(file, wait=False) and _is_there(file, temporary):
                if fcntl is None:
                    file.close()
                temporary.unlink()


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Hold the file against others; where the system has no such locks, nobody is held off."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
            raise
    return True


def _is_there(file: BinaryIO, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    if fcntl is None:
        return True
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except FileNotFoundError:
        return False


def _sync(folder: Path) -> None:
    """Let what was renamed there survive a loss of power."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing where there is none. Raises AdvmixError."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise cannot_read(folder, error) from error


def there(path: Path) -> bool:
    """Whether there is anything of that name. Raises AdvmixError where the system does not say: that is no no."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno not in _MISSING:
            raise cannot_read(path, error) from error
        return False
    return True


def home(path: Path) -> Path:
    """The path with `~` replaced. Raises NotFoundError for a user who is not there."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise NotFoundError(f"there is no user {path.parts[0][1:]!r} or no home folder", "write the path out") from None


def check_folder(path: Path) -> None:
    """Raise NotFoundError where the folder is not there that `path` is to be written into."""
    if not path.absolute().parent.is_dir():
        raise NotFoundError(f"there is no folder {path.absolute().parent}", "make it first, or write elsewhere")


def cannot_read(path: Path, error: OSError) -> AdvmixError:
    """What to say when the system does not let read a file."""
    if error.errno in _MISSING:
        return NotFoundError(f"there is no file {path}", "see advmix store list")
    return AdvmixError(
        f"cannot read {path}: {error.strerror or error}", "check its permissions and its disk", code="unreadable"
    )


def cannot_write(folder: Path, error: OSError, *, ours: bool = True) -> AdvmixError:
    """What to say when the system refused a write below `folder`, the store's (`ours`) or one that was asked for."""
    full = error.errno in _FULL
    return AdvmixError(
        f"cannot write to {folder}: {error.strerror or error}",
        "nothing half-written is left; free some space (advmix store prune) or set ADVMIX_HOME to another disk"
        if full
        else "set ADVMIX_HOME to a folder that you can write"
        if ours
        else "choose another folder",
        code="disk-full" if full else "not-writable",
    )
