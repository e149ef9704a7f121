"""What must hold of a command that was disturbed: of how it ended, of the store it left, and of the store mended."""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

from runner import Ran

Files = dict[str, bytes]
"""Paths below a folder, with their content."""

CODES = (0, 1, 2, 3, 4, 5, 130)
_NO_PART = ("locks",)
"""Folders that say nothing of what was made."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x9b]")


def snapshot(root: Path) -> Files:
    """The files below a folder."""
    found = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_file() and not path.is_symlink() and relative.parts[0] not in _NO_PART:
            found[relative.as_posix()] = path.read_bytes()
    return found


def temporary(name: str) -> bool:
    """Whether this is a file that is still being written, or never was finished."""
    return name.rsplit("/", 1)[-1].startswith(".tmp-")


def ended(ran: Ran, signals: tuple[int, ...] = ()) -> list[str]:
    """What is wrong with how a command ended, and with what it said."""
    problems = []
    if ran.hung:
        problems.append(f"hang: killed after {ran.seconds:.0f} s")
    elif ran.code not in CODES and -ran.code not in signals:
        problems.append(f"exit {ran.code}")
    problems += spoken(ran.out, ran.err)
    return problems


def spoken(out: str, err: str) -> list[str]:
    """What nobody should have to read: tracebacks, what was unexpected, control characters."""
    problems = []
    if "Traceback (most recent call last)" in err or "Exception ignored" in err:
        problems.append(f"traceback: {(err.strip().splitlines() or [''])[-1][:200]}")
    elif "unexpected" in err:
        line = next((line for line in err.splitlines() if line.startswith("error:")), err.strip())
        problems.append(f"unexpected: {line[:200]}")
    found = _CONTROL.search(out) or _CONTROL.search(err)
    if found is not None:
        problems.append(f"the control character {found[0]!r} is printed")
    return problems


def content(name: str, data: bytes) -> Any:
    """What a file holds but for how it was made."""
    try:
        if name.endswith(".safetensors"):
            end = 8 + int.from_bytes(data[:8], "little")
            header = json.loads(data[8:end])
            metadata = {key: _record(text) for key, text in header.pop("__metadata__", {}).items()}
            return metadata, header, data[end:]
        if name.endswith(".pt") and name.startswith("samples/"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = {member: archive.read(member) for member in archive.namelist()}
            members = {member: data for member, data in members.items() if not member.endswith("/serialization_id")}
            (pickled,) = [members.pop(member) for member in list(members) if member.endswith("/data.pkl")]
            said = [(op.name, arg) for op, arg, _ in pickletools.genops(pickled)]
            return [(name, _record(arg) if isinstance(arg, str) else arg) for name, arg in said], members
        if name.endswith(".json"):
            return _record(data.decode())
        if name.endswith(".png"):
            from PIL import Image

            with Image.open(io.BytesIO(data)) as image:
                return image.size, image.tobytes()
        if name.endswith(".svg"):
            return re.sub(rb"<metadata>.*?</metadata>", b"", data, flags=re.DOTALL)
        if name.endswith(".html"):
            return re.findall(rb"<[a-z0-9]+", data), data.rstrip().endswith(b"</html>")
    except Exception as error:  # half a file, or none of that kind: it is like nothing else
        return repr(error), data
    return data


def _record(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, dict) and isinstance(value.get("record"), dict):
        value = value["record"]
    return {key: item for key, item in value.items() if key != "made"} if isinstance(value, dict) else value


def same(name: str, one: bytes | None, other: bytes | None) -> bool:
    """Whether both are absent, or hold the same but for how they were made."""
    if one is None or other is None:
        return one is other
    return one == other or content(name, one) == content(name, other)


def after_fault(before: Files, undisturbed: Files, now: Files) -> list[str]:
    """What a disturbed command did to files that were no business of its, or left half done."""
    problems = []
    for name in sorted({*before, *undisturbed, *now}):
        old, new, here = before.get(name), undisturbed.get(name), now.get(name)
        if temporary(name) or here in (old, new) or (name.startswith("unfinished/") and old is None):
            continue
        if name.startswith("refs/") and here is not None and leads(here, now) and old != new:
            continue  # on its way from one artifact to another, past a third
        changed = old != new
        if not changed:
            problems.append(f"{name} is {'gone' if here is None else 'new' if old is None else 'changed'}")
        elif name.startswith("unfinished/"):
            continue
        elif not same(name, here, new) and not same(name, here, old):
            problems.append(f"{name} is neither what was nor what should be")
    return problems


def mended(undisturbed: Files, now: Files) -> list[str]:
    """What is not as it is after an undisturbed run, when the command was run again."""
    problems = []
    for name in sorted({*undisturbed, *now}):
        if temporary(name):
            if name not in undisturbed:
                problems.append(f"{name.split('/')[0]}/.tmp- is left")
        elif not same(name, now.get(name), undisturbed.get(name)):
            state = "is left" if name not in undisturbed else "is gone" if name not in now else "is another"
            problems.append(f"{name} {state}")
    for name, data in now.items():
        if name.startswith("refs/") and not temporary(name) and data != undisturbed.get(name) and not leads(data, now):
            problems.append(f"{name} leads nowhere")
    return problems


def leads(ref: bytes, now: Files) -> bool:
    """Whether there is what a reference names."""
    target = ref.decode(errors="replace").strip()
    return any(name.startswith(f"{target}.") for name in now)
