"""The error tree. Every error says what is wrong, what to do, and which exit code it ends with.

    AdvmixError              1  failed
    ├── UsageError           2  options or files that do not fit together
    ├── NotFoundError        3  a reference, file or name that is unknown or ambiguous
    ├── DamagedError         4  a damaged file, or one of an unknown schema
    │   ├── UnsafeError      4  a file that would have to be executed to be read
    │   └── StateError       4  what an interrupted run left is not what it should be: it begins again
    ├── LockedError          5  another process holds it
    └── StoppedError       130  Ctrl-C (SIGTERM: 143)

Tracebacks appear only with ADVMIX_DEBUG=1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AdvmixError(Exception):
    """Something failed that a user can understand and act upon.

    `message` is one line on what is wrong, `hint` one line on what to do, `code` a word for scripts.
    """

    exit_code = 1
    code = "failed"

    def __init__(self, message: str, hint: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class UsageError(AdvmixError):
    """Options, values or files that do not fit together."""

    exit_code = 2
    code = "usage"


class NotFoundError(AdvmixError):
    """A reference or file that is unknown or ambiguous."""

    exit_code = 3
    code = "not-found"


class DamagedError(AdvmixError):
    """A file whose content is not what was written, or that this version cannot read."""

    exit_code = 4
    code = "damaged"


class UnsafeError(DamagedError):
    """A file that would have to be executed to be read."""

    code = "unsafe"


class StateError(DamagedError):
    """What an interrupted run left does not fit its job."""


class LockedError(AdvmixError):
    """Another process holds what this one wants to change."""

    exit_code = 5
    code = "locked"


class StoppedError(AdvmixError):
    """The user pressed Ctrl-C, or the process was told to end."""

    exit_code = 130
    code = "interrupted"


_MOST_NAMED = 16


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint for a mistyped `name`: the nearest of `known`, else what there is."""
    choices = sorted(known)
    close = difflib.get_close_matches(name.lower(), choices, n=3, cutoff=0.65)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if len(choices) > _MOST_NAMED:
        return f"known: {', '.join(choices[:_MOST_NAMED])} and {len(choices) - _MOST_NAMED} others"
    return f"known: {', '.join(choices)}" if choices else ""


def known_name(name: str, known: Iterable[str], what: str) -> str:
    """`name` if it is one of `known`, else a UsageError that names the nearest."""
    choices = list(known)
    if name not in choices:
        raise UsageError(f"unknown {what} {name!r}", nearest(name, choices), code=f"unknown-{what.replace(' ', '-')}")
    return name
