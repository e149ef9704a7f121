"""Things in a store that are no files, references that lead astray, and names that nobody would give."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from damage import READERS, STORE
from family import Family, listed
from readers import Hostile, read_all
from scenarios import Bench

_ALWAYS = ("store list", "store show {path}", "store verify", "store prune --dry-run")
_PLACES = (
    "checkpoints/*.safetensors", "samples/*.pt", "evaluations/*.json", "figures/*.png", "figures/*.svg", "refs/v",
    "refs/latest@checkpoints", "refs/latest@samples", "datasets/glyphs.json", "unfinished/*.pt", "schema",
    "locks/*.lock", "checkpoints", "samples", "evaluations", "figures", "refs", "datasets", "unfinished", "locks",
)  # fmt: skip
"""What is replaced: the first file of each pattern, or a whole folder."""


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(20 << 30)


def _listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        kept = os.open(".", os.O_RDONLY)
        os.chdir(path.parent)  # a socket's path must be short
        one.bind(path.name)
        os.fchdir(kept)
        os.close(kept)


_INSTEAD: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "empty": Path.touch,
    "folder": Path.mkdir,
    "full-folder": lambda path: (path / "x" / "y").mkdir(parents=True),
    "fifo": os.mkfifo,
    "socket": _listening,
    "zeros": lambda path: path.symlink_to("/dev/zero"),
    "null": lambda path: path.symlink_to("/dev/null"),
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "foreign-link": lambda path: path.symlink_to("/etc/passwd"),
    "folder-link": lambda path: path.symlink_to(".."),
    "sparse": _sparse,
}

_REFS: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n",
    "no-name": b"checkpoints/\n",
    "no-kind": b"/x\n",
    "another-kind": b"locks/x\n",
    "outside": b"checkpoints/../../outside/stolen\n",
    "absolute": b"checkpoints//etc/passwd\n",
    "up": b"checkpoints/..\n",
    "dot": b"checkpoints/.\n",
    "nul": b"checkpoints/a\x00b\n",
    "not-text": b"checkpoints/\xff\xfe\n",
    "escape": b"checkpoints/\x1b[31mred\n",
    "lines": b"checkpoints/a\ncheckpoints/b\n",
    "long": b"checkpoints/" + b"x" * 300,
    "huge": b"checkpoints/" + b"x" * (10 << 20),
    "itself": b"refs/v\n",
}
"""What a file in refs/ may say."""

_NAMES: dict[str, bytes] = {
    "escape": b"\x1b[31mred", "newline": b"a\nb", "not-text": b"\xff\xfe", "dash": b"-rf", "long": b"x" * 255,
    "blank": b" ", "markup": b"[bold]x", "mathtext": b"$x_{$", "at": b"a@b@c", "dots": b"...", "star": b"*",
}  # fmt: skip
"""What a file in the store may be called."""

_REFERENCES = (
    "~nouser/x", "x" * 300, "/" + "y" * 5000, "a/" * 2000, "\udcff\udcfe", "@best", "@", "v@", "v@last@best",
    "v@nothing", "..", ".", "/", "//", "-", "*", "[", "/dev/zero", "/dev/null", "/dev/stdin", "/etc/passwd",
    "/proc/self/mem", "refs/v", "latest@best", "%s", "\x1b[31mred", "a\x00b", "checkpoints/../schema", "🙂",
    "$x_{$", "~", "~/x", "NUL", " ", "\n", "v\n",
)  # fmt: skip
"""What may be given as a reference or a path."""

_TAKING = (
    "eval {path} --limit 2", "eval v --samples {path}", "attack {path} --limit 2 --steps 1", "store show {path}",
    "store path {path}", "store verify {path}", "store remove {path} --dry-run", "visualize samples {path}",
    "visualize curves {path}", "visualize matrix {path}", "advtrain --init {path} --limit 60 --epochs 1",
    "import {path}", "train --limit 60 --epochs 2 --name {path}", "visualize matrix --out {path}.png",
    "eval v --limit 2 --report {path}/r.html", "eval v --limit 2 --report {path}",
)  # fmt: skip
"""Where a reference or a path can be given."""

_NOT_TO_READ = ("/dev/stdin", "-")
"""References that wait for a terminal, which a test has not."""


def _replaced(bench: Bench, place: str, instead: str) -> Hostile | None:
    found = sorted(path for path in bench.home.glob(place) if not path.name.startswith("."))
    if not found:
        return None
    path = found[0]
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    _INSTEAD[instead](path)
    folder = place.split("/")[0]
    return Hostile(path, [*_ALWAYS, *READERS.get(folder, ())[:5], "train --limit 60 --epochs 1 --seed 3 -q"])


def _reference(bench: Bench, alias: str, text: str) -> Hostile:
    """A ref with that text, and a good checkpoint outside the store that it must not lead to."""
    outside = bench.work / "outside"
    if not outside.exists():
        outside.mkdir()
        model = next(bench.home.glob("checkpoints/[!.]*.safetensors"))
        shutil.copy(model, outside / "stolen.safetensors")
    (bench.home / "refs" / alias).write_bytes(_REFS[text])

    def judge(reader: str, code: int, out: str, err: str) -> list[str]:
        return ["a ref leads out of the store"] if "stolen" in out else []

    name = "latest" if alias.startswith("latest") else alias
    readers = [f"{line} {name}" for line in ("store path", "store show", "eval --limit 2", "store remove --dry-run")]
    return Hostile(bench.home / "refs" / alias, ["store list", *readers, *_ALWAYS[3:]], judge)


def _called(bench: Bench, folder: str, name: str) -> Hostile:
    """A file with that name, a good one where the folder has any."""
    good = sorted(path for path in (bench.home / folder).iterdir() if path.is_file() and path.name[0] != ".")
    suffix = os.fsencode(good[0].suffix) if good and folder != "refs" else b""
    raw = os.path.join(os.fsencode(bench.home / folder), _NAMES[name][: 255 - len(suffix)] + suffix)
    with open(raw, "wb") as file:
        file.write(good[0].read_bytes() if good else b"")
    path = Path(os.fsdecode(raw))
    return Hostile(path, [*_ALWAYS, "store verify --json", "store list --json", *READERS.get(folder, ())[:3]])


def _copied(bench: Bench, folder: str, how: str) -> Hostile:
    """A copy of an artifact in another folder, or a link to it: to remove that is not to remove the artifact."""
    files = sorted(path for path in (bench.home / folder).iterdir() if path.name[0] != ".")
    own = next(path for path in files if path.suffix != ".jsonl")
    elsewhere = (bench.home / "backup" if how == "within" else bench.out) / own.name
    elsewhere.parent.mkdir(exist_ok=True)
    elsewhere.unlink(missing_ok=True)
    if how == "link":
        elsewhere.symlink_to(own)
    else:
        shutil.copy2(own, elsewhere)

    def judge(reader: str, code: int, out: str, err: str) -> list[str]:
        return [] if own.exists() else ["what is removed is not the file that was named"]

    return Hostile(elsewhere, ["store show {path}", "store remove {path} --dry-run", "store remove {path} -y"], judge)


def _prepare(bench: Bench, case: str) -> Hostile | None:
    sort, *parts = case.split()
    if sort == "elsewhere":
        return _copied(bench, *parts)
    if sort == "instead":
        return _replaced(bench, *parts)
    if sort == "ref":
        return _reference(bench, *parts)
    if sort == "called":
        return _called(bench, *parts)
    return Hostile(Path(), [_TAKING[int(parts[0])]], given=_REFERENCES[int(parts[1])])


def _cases(bench: Bench) -> list[str]:
    return [
        *(f"instead {place} {instead}" for place in _PLACES for instead in _INSTEAD),
        *(
            f"elsewhere {folder} {how}"
            for folder in ("checkpoints", "samples", "evaluations", "figures")
            for how in ("copy", "within", "link")
        ),
        *(f"ref {alias} {text}" for alias in ("v", "new", "latest@checkpoints") for text in _REFS),
        *(
            f"called {folder} {name}"
            for folder in ("checkpoints", "samples", "evaluations", "figures", "refs", "unfinished")
            for name in _NAMES
        ),
        *(
            f"given {taking} {number}"
            for taking in range(len(_TAKING))
            for number, reference in enumerate(_REFERENCES)
            if reference not in _NOT_TO_READ
        ),
    ]


FAMILIES = (
    Family(
        "hostile", "folders, pipes, devices and links in the store; refs that lead astray; odd names and references",
        listed(_cases), read_all(_prepare, STORE), few=20, batch=50,
    ),
)  # fmt: skip
