"""Tables on terminals of any width: no word is broken, and nothing is lost."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import Run
from rich.cells import cell_len
from rich.console import Console

from advmix_cli import output
from advmix_cli.layout import laid_out, wrapped
from advmix_cli.results import Table

WIDTHS = (40, 60, 80, 120)
COMMANDS = (
    ("eval", "a", "b", "--attack", "fgsm,pgd", "--steps", "2", "--limit", "20", "--certify", "--bounds", "ibp"),
    ("eval", "a", "b", "--attack", "fgsm", "--eps", "0.1,0.2", "--limit", "20"),
    ("eval", "a", "--attack", "fgsm", "--audit", "--limit", "20"),
    ("store", "list"),
    ("models",),
    ("methods",),
    ("presets",),
    ("data", "list"),
)


def rendered(table: Table, width: int | None) -> str:
    written = io.StringIO()
    Console(file=written, width=10_000, soft_wrap=True, color_system=None).print(laid_out(table, width))
    return written.getvalue()


def check(table: Table, width: int) -> None:
    text = rendered(table, width)
    words = Counter(word for row in table.rows for cell in row for word in cell.split())
    assert not words - Counter(text.split()), "a word is broken, or lost"
    for line in text.splitlines():
        assert cell_len(line.rstrip()) <= width or len(line.split()) == 1, line


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_every_table_fits_without_breaking_a_word(
    trained: Path, advmix: Run, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: list[Table] = []
    monkeypatch.setattr(output.Output, "_table", lambda self, table, console: tables.append(table))
    assert advmix(*command).code == 0
    assert tables
    for table in tables:
        for width in WIDTHS:
            check(table, width)


ROWS = [("a-name-that-is-rather-long-for-a-column", "some words to be wrapped", "99.00 % [98.00, 99.50]")] * 2
TABLE = Table(("name", "what it is", "accuracy %"), ROWS, title="a title", right=("accuracy %",))


def test_what_fits_is_a_line_a_row() -> None:
    wide = rendered(TABLE, None)
    assert wide == rendered(TABLE, 200) == rendered(TABLE, max(map(cell_len, map(str.rstrip, wide.splitlines()))))
    assert len(wide.splitlines()) == 4


def test_what_hardly_fits_is_wrapped_between_words_and_numbers_stay_whole() -> None:
    lines = rendered(TABLE, 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("99.00 % [98.00, 99.50]" in line for line in lines) == 2
    assert sum("some words" in line for line in lines) == 2
    assert not any("some words to be wrapped" in line for line in lines)


def test_what_does_not_fit_is_row_under_row() -> None:
    assert rendered(TABLE, 40).splitlines() == [
        "a title",
        "",
        *(["name", "  a-name-that-is-rather-long-for-a-column", "what it is  some words to be wrapped",
           "accuracy %  99.00 % [98.00, 99.50]", ""] * 2)[:-1],
    ]  # fmt: skip


def test_notes_are_broken_between_words() -> None:
    assert wrapped("one two-three four\nfive", 9) == "one\ntwo-three\nfour\nfive"
    assert wrapped("one two", None) == "one two"


def test_a_terminal_is_asked_for_its_width(home: Path) -> None:
    """A command on a terminal of 60 columns: with a pseudo-terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "60", "TERM": "xterm"}
    done = subprocess.Popen(
        [sys.executable, "-m", "advmix_cli", "methods"], stdout=theirs, stderr=subprocess.DEVNULL, env=environment
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert done.wait() == 0
    lines = seen.decode().replace("\r", "").splitlines()
    assert len(lines) > 10
    assert max(len(line) for line in lines if len(line.split()) > 1 and "\x1b" not in line) <= 60
