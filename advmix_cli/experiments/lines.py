"""Where in a TOML file something is said, so that an error can name the line; the parsing itself is the library's."""

from __future__ import annotations

import re

_HEADER = re.compile(r"\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")

Path = tuple[str | int, ...]


def lines_of(text: str) -> dict[Path, int]:
    """The line, from 1, of each table, and of each key that begins a line; within values nothing is looked for."""
    found: dict[Path, int] = {}
    where: Path = ()
    counts: dict[Path, int] = {}
    depth = 0
    for number, line in enumerate(text.splitlines(), 1):
        if depth <= 0 and (header := _HEADER.match(line)):
            where = _parts(header[2])
            if header[1] == "[[":
                counts[where] = counts.get(where, -1) + 1
                where = (*where, counts[where])
            for end in range(1, len(where) + 1):
                found.setdefault(where[:end], number)
        elif depth <= 0 and (key := _KEY.match(line)):
            found.setdefault((*where, *_parts(key[1])), number)
        depth += _opened(line)
    return found


def _parts(text: str) -> Path:
    return tuple(part.strip("\"'") for part in _PART.findall(text))


def _opened(line: str) -> int:
    """How many brackets of values a line leaves open."""
    if _HEADER.match(line):
        return 0
    bare = re.sub(r"""\"[^\"]*\"|'[^']*'|#.*""", "", line)
    return sum(bare.count(each) for each in "[{") - sum(bare.count(each) for each in "]}")


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of that, or of the nearest thing around it that has one."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)
