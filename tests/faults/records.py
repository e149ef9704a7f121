"""Records with a right digest and a wrong content: a digest is no signature, so they are data of anybody."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

from damage import STORE, chosen, folders, readers_of
from family import Family, seeds
from readers import Hostile, read_all
from scenarios import Bench

Record = dict[str, Any]
Change = Callable[[Record], Record]

_DEEP: Any = []
for _ in range(300):
    _DEEP = [_DEEP]

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 10**30, 2**63, -(2**63), 2**31, 0.5, -0.0, 1e308, -1e308, 5e-324,
    "", " ", "0", "nan", "inf", "latest", "x" * 5000, "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x00", "a\nb\r\tc",
    "../../etc/passwd", "/dev/zero", "~nouser/x", "a/b", "-q", "\ud800", "\u202egnp.exe", "$x_{$", "\\frac{", "%s",
    "<script>alert(1)</script>", "&lt;", "🙂" * 50, [], {}, [[]], [{}], {"": ""}, [0, "0", None], _DEEP,
    [10**9, 10**9, 10**9], list(range(3000)), {"name": "v"},
)  # fmt: skip
"""What nobody put into a record."""


def changed(record: Record, chance: random.Random) -> Record:
    """The record with up to three places changed."""
    whole: Any = {"": copy.deepcopy(record)}
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        parent, key = chance.choice(list(_places(whole)))
        value = parent[key]
        match chance.choice(("set", "set", "set", "delete", "insert", "near", "near", "swap", "many", "rename")):
            case "set":
                parent[key] = copy.deepcopy(chance.choice(HOSTILE))
            case "delete" if key != "":
                del parent[key]
            case "insert":
                _insert(value, chance)
            case "near":
                parent[key] = _near(value, chance)
            case "swap":
                other, there = chance.choice(list(_places(whole)))
                parent[key], other[there] = copy.deepcopy(other[there]), copy.deepcopy(value)
            case "many" if isinstance(value, list):
                value *= chance.choice((0, 2, 100))
            case "rename" if isinstance(parent, dict) and key != "":
                parent[chance.choice((f"{key}".upper(), "", "\x1b[2J", "__class__", "name", f"{key} "))] = parent.pop(
                    key
                )
    return whole.get("", {})


def _places(value: Any) -> Any:
    """(container, key) of everything in a nested value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items)[:200]:
        yield value, key
        yield from _places(item)


def _insert(value: Any, chance: random.Random) -> None:
    hostile = copy.deepcopy(chance.choice(HOSTILE))
    if isinstance(value, dict):
        value[chance.choice(("path", "digest", "key", "threat", "parts", "\x1b[2J", "", "x" * 300))] = hostile
    elif isinstance(value, list):
        value.insert(chance.randint(0, len(value)), hostile)


def _near(value: Any, chance: random.Random) -> Any:
    """Almost the same: the next number, another type, a letter more or less."""
    match value:
        case bool():
            return not value
        case int():
            return chance.choice((value + 1, value - 1, -value, value * 1000, value * 10**12, float(value), str(value)))
        case float():
            return chance.choice((-value, value + 1, value * 1e9, int(value), str(value)))
        case str():
            at = chance.randint(0, len(value))
            letter = chance.choice("a0/.-\x1b\n é@*[")
            return chance.choice((value[:at] + letter + value[at:], value[:at], value.upper(), [value], value * 20))
        case list():
            return chance.choice((value[1:], value[::-1], [value], dict(enumerate(map(str, value[:9]))), value[:1]))
        case dict():
            return chance.choice((list(value), [value], dict(list(value.items())[1:]), {"record": value}))
    return chance.choice(HOSTILE)


# Records in files


def resealed(name: str, data: bytes, change: Change) -> bytes | None:
    """The file with a changed record under a right digest; None where it holds no record."""
    suffix = "." + name.rsplit(".", 1)[-1]
    within = {".safetensors": _in_safetensors, ".pt": _in_pt, ".json": _in_json, ".png": _in_png}
    return within[suffix](data, change) if suffix in within else None


def _seal(text: str, change: Change) -> str | None:
    """The sealed text of a changed record; None where it is none."""
    from advmix_cli.artifacts import sealed

    try:
        whole = json.loads(text)
    except ValueError:
        return None
    if not isinstance(whole, dict) or not isinstance(whole.get("record"), dict):
        return None
    return sealed(change(whole["record"]))


def _in_json(data: bytes, change: Change) -> bytes | None:
    text = _seal(data.decode(), change)
    if text is not None:
        return text.encode()
    return json.dumps(change(json.loads(data))).encode()  # one without a digest: any content is right


def _in_safetensors(data: bytes, change: Change) -> bytes | None:
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    metadata = header["__metadata__"]
    for key in metadata:
        metadata[key] = _seal(metadata[key], change) or metadata[key]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[end:]


def _in_pt(data: bytes, change: Change) -> bytes | None:
    import torch

    content = torch.load(io.BytesIO(data), weights_only=True)
    for key, value in content.items():
        if isinstance(value, str):
            content[key] = _seal(value, change) or value
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _in_png(data: bytes, change: Change) -> bytes | None:
    at, found, changed_one = 8, [data[:8]], False
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        if kind in (b"tEXt", b"iTXt"):
            begin = body.find(b'{"record"')
            text = _seal(body[begin:].decode(), change) if begin >= 0 else None
            if text is not None:
                body, changed_one = body[:begin] + text.encode(), True
        found.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
        at += size + 12
    return b"".join(found) if changed_one else None


def _prepare(bench: Bench, case: str) -> Hostile | None:
    folder, seed = case.split()
    chance = random.Random(int(seed))
    name = chosen(bench, folder, chance)
    data = (bench.stores[STORE] / name).read_bytes()
    new = resealed(name.as_posix(), data, lambda record: changed(record, chance))
    if new is None or new == data:
        return None
    path = bench.home / name
    path.write_bytes(new)
    return Hostile(path, readers_of(folder, chance))


_RECORD = re.compile(rb'\{(\\?"|&quot;)record')


def _with_records(bench: Bench) -> list[str]:
    """The folders whose files hold records, or are one."""
    store = bench.stores[STORE]
    files = [path for folder in folders(bench) for path in (store / folder).rglob("*") if path.is_file()]
    having = [path for path in files if path.suffix == ".json" or _RECORD.search(path.read_bytes())]
    return sorted({path.relative_to(store).parts[0] for path in having})


FAMILIES = (
    Family(
        "records", "records with a right digest and a wrong content, then read", seeds(_with_records),
        read_all(_prepare, STORE), few=48, batch=200,
    ),
)  # fmt: skip
