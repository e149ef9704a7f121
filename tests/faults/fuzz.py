"""A coverage-guided fuzzer of what reads files of others: python tests/faults/fuzz.py PART FOLDER [its options].

PART is pickle, archive, cache or checkpoint; FOLDER holds what to begin from and gets what was found. It needs atheris
(`pip install atheris`), which no test does. Anything but an error of this project's own is a finding.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["advmix_cli"]):
    from advmix_cli.artifacts import archives, checkpoints, pickles, samples
    from advmix_cli.errors import AdvmixError

_FILE = Path(tempfile.mkdtemp()) / "file"


def _of_a_file(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        _FILE.write_bytes(data)
        return read(_FILE)

    return run


PARTS: dict[str, Callable[[bytes], object]] = {
    "pickle": pickles.read,
    "archive": lambda data: archives.of(_FILE, data),
    "cache": _of_a_file(samples.samples_record),
    "checkpoint": _of_a_file(checkpoints.checkpoint_record),
}


def main() -> None:
    """Run until the options say so."""
    part = PARTS[sys.argv.pop(1)]

    def one(data: bytes) -> None:
        with contextlib.suppress(AdvmixError, pickles.Malformed):
            part(data)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
