"""Stored files with bytes that are not what was written: refused, or without any effect."""

from __future__ import annotations

import json
import random
from pathlib import Path

from checks import content, temporary
from family import Family, Tried, seeds
from readers import Hostile, read_all
from scenarios import PREPARED, STOPPED, Bench

STORE = "stopped"
"""The store that has files of every kind."""

_ALWAYS = ("store list", "store show {path}", "store verify --json")
_CACHED = ("eval v --samples c -q", "attack v --limit 6 --steps 3 -q")
"""What the store answers, and answers the same unless it refuses."""

READERS = {
    "checkpoints": (
        *_CACHED, "eval {path} --limit 4 -q", "attack {path} --limit 2 --steps 1 -q", "visualize curves t -q",
        "visualize samples c --count 2 -q", "import {path} --dataset glyphs -q", "train --limit 60 --epochs 2 -q",
        "advtrain --limit 60 --epochs 1 --steps 1 -q",
    ),
    "samples": (
        *_CACHED, "eval --samples {path} --limit 3 -q", "visualize samples {path} --count 2 -q",
        "store prune --dry-run", "import {path} --dataset glyphs -q",
    ),
    "evaluations": (
        *_CACHED, "visualize matrix {path} -q", "visualize strength {path} -q", "visualize landscape {path} -q",
        "visualize reliability {path} -q", "eval v --attack pgd --limit 4 --steps 3 --audit -q",
        "store prune --dry-run",
    ),
    "figures": tuple(f"{line} -q" for line in PREPARED if line.startswith("visualize")),
    "refs": (*_CACHED, "store path v", "visualize samples", "store prune --dry-run", "eval --limit 2 -q"),
    "datasets": (*_CACHED, "data list", "train --limit 60 --epochs 2 -q"),
    "unfinished": (f"{STOPPED[0]} -q", f"{STOPPED[1]} -q", "store prune --dry-run"),
    "schema": (*_CACHED, "store prune --dry-run"),
}  # fmt: skip
"""Which commands read a file of that folder; two of them are chosen for each case, beside those that always do."""

_MAY_CHANGE = ("refs",)
"""Files without a digest whose every content is one that somebody may have meant."""


def readers_of(folder: str, chance: random.Random) -> list[str]:
    """The commands that read a file of that folder, for one case."""
    known = READERS.get(folder, ())
    shown = _ALWAYS if folder in ("checkpoints", "samples", "evaluations", "figures") else _ALWAYS[::2]
    return [*shown, *chance.sample(known, min(2, len(known)))]


def folders(bench: Bench) -> list[str]:
    """The folders of the store that have files, and `schema`."""
    store = bench.stores[STORE]
    return sorted({path.relative_to(store).parts[0] for path in store.rglob("*") if path.is_file()} - {"locks"})


def chosen(bench: Bench, folder: str, chance: random.Random) -> Path:
    """A file of that folder, as a path below the store."""
    store = bench.stores[STORE]
    files = sorted(path.relative_to(store) for path in store.rglob("*") if path.is_file() and not temporary(path.name))
    return chance.choice([path for path in files if path.parts[0] == folder])


_WAYS = ("bit", "bits", "cut", "zero", "splice", "other", "insert", "delete", "append", "byte", "digit")


def damaged(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """`data` with something changed, mostly where structure is: at its beginning and end."""
    if not data:
        return chance.randbytes(8)
    size = len(data)
    where = chance.choice((lambda: chance.randrange(min(size, 4096)), lambda: chance.randrange(size),
                           lambda: size - 1 - chance.randrange(min(size, 2048))))  # fmt: skip
    at, many = where(), int(2 ** chance.uniform(0, 14))
    some = bytearray(data)
    match chance.choice(_WAYS):
        case "bit":
            some[at] ^= 1 << chance.randrange(8)
        case "bits":
            for _ in range(chance.randrange(2, 20)):
                some[where()] ^= 1 << chance.randrange(8)
        case "cut":
            del some[at:]
        case "zero":
            some[at : at + many] = bytes(len(some[at : at + many]))
        case "splice":
            begin = where()
            some[at : at + many] = data[begin : begin + many]
        case "other":
            other = chance.choice(others)
            begin = chance.randrange(len(other) + 1)
            some[at : at + many] = other[begin : begin + many]
        case "insert":
            some[at:at] = chance.randbytes(min(many, 64))
        case "delete":
            del some[at : at + many]
        case "append":
            some += chance.randbytes(min(many, 256))
        case "byte":
            some[at] = chance.choice(b'0129"{}[],:-.eE\\/\x00\x1b\xff')
        case "digit":
            digits = [i for i, byte in enumerate(data[:65536]) if byte in b"0123456789"]
            if digits:
                some[chance.choice(digits)] = chance.choice(b"0123456789")
    return bytes(some)


def _prepare(bench: Bench, case: str) -> Hostile | None:
    folder, seed = case.split()
    chance = random.Random(int(seed))
    name = chosen(bench, folder, chance)
    path, original = bench.home / name, (bench.stores[STORE] / name).read_bytes()
    others = [(bench.stores[STORE] / chosen(bench, folder, chance)).read_bytes()]
    changed = damaged(original, others, chance)
    if changed == original:
        return None
    path.write_bytes(changed)
    alike = content(name.as_posix(), changed) == content(name.as_posix(), original)

    def judge(reader: str, code: int, out: str, err: str) -> list[str]:
        if reader.startswith("store verify") and not alike and out.startswith("{"):
            found = json.loads(out)["data"].get("verified", [])
            if any(entry["ok"] and name.name.startswith(Path(entry["name"]).stem + ".") for entry in found):
                return [f"damage of a {''.join(name.suffixes[-1:])} is believed"]
        if reader.startswith("import") and folder == "checkpoints" and code == 0 and not alike:
            return ["a damaged checkpoint is taken in"]
        if reader in _USUAL and folder not in _MAY_CHANGE and code == 0 and out != _USUAL[reader]:
            return [f"damage in {folder} changes an answer"]
        return []

    return Hostile(path, readers_of(folder, chance), judge)


_USUAL: dict[str, str] = {}
"""What the readers that are answered from the store print when nothing is wrong; found out once."""


def _attempt(bench: Bench, cases: list[str]) -> Tried:
    if not _USUAL:
        for reader in _CACHED:
            bench.fresh(STORE)
            ran = bench.runner.run(reader.split(), bench.home)
            assert ran.code == 0, ran.err
            _USUAL[reader] = ran.out
    return read_all(_prepare, STORE)(bench, cases)


FAMILIES = (
    Family("damage", "any bytes of any stored file changed, then read", seeds(folders), _attempt, few=48, batch=200),
)  # fmt: skip
