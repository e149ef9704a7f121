"""Safetensors files whose headers claim what is not so, under a record and digests that fit."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile_records import canonical, sealed, unsealed

Header = dict[str, Any]
_DTYPES = {"F32": "float32", "F64": "float64", "I64": "int64", "U8": "uint8"}


def parts(path: Path) -> tuple[Header, bytes]:
    """The header and the bytes behind it."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def joined(header: Header | str | bytes, body: bytes) -> bytes:
    """A file of them."""
    text = header if isinstance(header, str | bytes) else json.dumps(header)
    encoded = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(encoded)) + encoded + body


def record_of(path: Path) -> Any:
    """The record of a checkpoint, unchecked."""
    return unsealed(parts(path)[0]["__metadata__"]["advmix"])


def with_record(path: Path, record: Any) -> bytes:
    """The checkpoint's file with another record, rightly sealed."""
    header, body = parts(path)
    header["__metadata__"]["advmix"] = sealed(record)
    return joined(header, body)


def digest_of(tensors: Header, body: bytes) -> str:
    """The digest of weights, as a record has it, however odd the header is."""
    total = hashlib.sha256()
    for name, entry in sorted(tensors.items()):
        dtype, shape = entry["dtype"], entry["shape"]
        total.update(canonical([name, _DTYPES.get(str(dtype), dtype), shape]).encode())
        try:
            begin, end = (int(each) for each in entry.get("data_offsets"))
            total.update(memoryview(body)[begin:end])
        except (TypeError, ValueError):
            pass  # it says nothing that could be hashed
    return total.hexdigest()


def resealed(header: Header, body: bytes) -> Header:
    """The header with the digests of what it now says, and a record that says so."""
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    last = {name.removeprefix("last/"): entry for name, entry in tensors.items() if name.startswith("last/")}
    best = {name: entry for name, entry in tensors.items() if not name.startswith("last/")}
    record = unsealed(header["__metadata__"]["advmix"])
    record["digests"] = {"best": digest_of(best, body), "last": digest_of(last or best, body)}
    return header | {"__metadata__": {"advmix": sealed(record)}}


# Headers


def _names(header: Header) -> list[str]:
    """The tensors in the order of their bytes."""
    tensors = (name for name in header if name != "__metadata__")
    return sorted(tensors, key=lambda name: header[name]["data_offsets"])


def as_it_was(header: Header, body: bytes) -> tuple[Header, bytes]:
    """Nothing is changed: it must be taken, or the others prove nothing."""
    return header, body


def gap(header: Header, body: bytes) -> tuple[Header, bytes]:
    """Four bytes that belong to no tensor, between the first and the second."""
    first, *others = _names(header)
    at = header[first]["data_offsets"][1]
    for name in others:
        header[name]["data_offsets"] = [each + 4 for each in header[name]["data_offsets"]]
    return header, body[:at] + b"\0" * 4 + body[at:]


def gap_before(header: Header, body: bytes) -> tuple[Header, bytes]:
    """Four bytes that belong to no tensor, before the first."""
    for name in _names(header):
        header[name]["data_offsets"] = [each + 4 for each in header[name]["data_offsets"]]
    return header, b"\0" * 4 + body


def behind(header: Header, body: bytes) -> tuple[Header, bytes]:
    """Four bytes that belong to no tensor, behind the last."""
    return header, body + b"\0" * 4


def truncated(header: Header, body: bytes) -> tuple[Header, bytes]:
    """The last tensor lacks four bytes."""
    return header, body[:-4]


def overlapping(header: Header, body: bytes) -> tuple[Header, bytes]:
    """The second tensor begins within the first."""
    first, second, *_ = _names(header)
    begin = header[first]["data_offsets"][1] - 4
    size = header[second]["data_offsets"][1] - header[second]["data_offsets"][0]
    header[second]["data_offsets"] = [begin, begin + size]
    return header, body


def same_bytes(header: Header, body: bytes) -> tuple[Header, bytes]:
    """20,000 more tensors over all of the bytes: 5 GB to hash in a file of 1.7 MB."""
    whole = {"dtype": "U8", "shape": [len(body)], "data_offsets": [0, len(body)]}
    return header | {f"x{number}": whole for number in range(20_000)}, body


def negative(header: Header, body: bytes) -> tuple[Header, bytes]:
    """A tensor that begins before the bytes."""
    return header | {"x": {"dtype": "U8", "shape": [4], "data_offsets": [-4, 0]}}, body


def negative_end(header: Header, body: bytes) -> tuple[Header, bytes]:
    """A tensor that ends so many bytes before the end."""
    return header | {"x": {"dtype": "U8", "shape": [4], "data_offsets": [len(body) - 8, -4]}}, body


def backwards(header: Header, body: bytes) -> tuple[Header, bytes]:
    """A tensor that ends before it begins."""
    return header | {"x": {"dtype": "U8", "shape": [0], "data_offsets": [8, 4]}}, body


def far(header: Header, body: bytes) -> tuple[Header, bytes]:
    """An empty tensor far behind the bytes."""
    return header | {"x": {"dtype": "U8", "shape": [0], "data_offsets": [1 << 62, 1 << 62]}}, body


def _one(**changes: Any) -> Callable[[Header, bytes], tuple[Header, bytes]]:
    def change(header: Header, body: bytes) -> tuple[Header, bytes]:
        name = _names(header)[-1]
        begin, end = header[name]["data_offsets"]
        said = {key: value(begin, end, header[name]) if callable(value) else value for key, value in changes.items()}
        header[name] = {key: value for key, value in (header[name] | said).items() if value is not None}
        return header, body

    return change


def _entries(value: Any) -> Callable[[Header, bytes], tuple[Header, bytes]]:
    return lambda header, body: (header | {"x": value}, body)


_EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}

FORGED: dict[str, Callable[[Header, bytes], tuple[Header, bytes]]] = {
    **{make.__name__: make for make in (
        gap, gap_before, behind, truncated, overlapping, same_bytes, negative, negative_end, backwards, far,
    )},
    "fractional offsets": _one(data_offsets=lambda begin, end, entry: [float(begin), float(end)]),
    "offsets in words": _one(data_offsets=lambda begin, end, entry: [str(begin), str(end)]),
    "offsets of truth": _entries(_EMPTY | {"data_offsets": [False, False]}),
    "one offset": _entries(_EMPTY | {"data_offsets": [0]}),
    "three offsets": _one(data_offsets=lambda begin, end, entry: [begin, end, end]),
    "no offsets": _entries({"dtype": "F32", "shape": [0]}),
    "offsets of nothing": _entries(_EMPTY | {"data_offsets": [None, None]}),
    "huge offsets": _entries(_EMPTY | {"data_offsets": [10**400, 10**400]}),
    "unknown dtype": _one(dtype="F99"),
    "small dtype": _one(dtype="f32"),
    "dtype of no width": _one(dtype="F4"),
    "dtype of a number": _one(dtype=5),
    "dtype of a list": _one(dtype=["F32"]),
    "no dtype": _entries({"shape": [0], "data_offsets": [0, 0]}),
    "wider dtype": _one(dtype="F64"),
    "larger shape": _one(shape=lambda begin, end, entry: [*entry["shape"], 2]),
    "smaller shape": _one(shape=[1]),
    "overflowing shape": _entries(_EMPTY | {"shape": [2**32, 2**32]}),
    "shape beyond 64 bits": _entries(_EMPTY | {"shape": [2**70, 0]}),
    "negative shape": _one(shape=lambda begin, end, entry: [-1, -((end - begin) // 4)]),
    "fractional shape": _one(shape=lambda begin, end, entry: [float(size) for size in entry["shape"]]),
    "shape of truth": _entries({"dtype": "U8", "shape": [False], "data_offsets": [0, 0]}),
    "shape in words": _one(shape="4"),
    "no shape": _entries({"dtype": "F32", "data_offsets": [0, 0]}),
    "thousands of dimensions": _entries(_EMPTY | {"shape": [0] * 100_000}),
    "a number": _entries(5),
    "a list": _entries([]),
    "nothing": _entries(None),
}  # fmt: skip
"""Each makes of a valid checkpoint's header and bytes those of a hostile one; the digests are set right afterwards."""


def forged(path: Path, name: str) -> bytes:
    """The checkpoint as that entry of FORGED has it, with digests that fit where any can."""
    header, body = parts(path)
    header, body = (as_it_was if name == "as it was" else FORGED[name])(header, body)
    tensors = [entry for key, entry in header.items() if key != "__metadata__"]
    whole = all(isinstance(entry, dict) and {"dtype", "shape"} <= entry.keys() for entry in tensors)
    return joined(resealed(header, body) if whole and len(tensors) < 10_000 else header, body)


def raw(path: Path) -> dict[str, bytes]:
    """Headers that are no dict of tensors, and those that say a thing twice."""
    header, body = parts(path)
    name = _names(header)[-1]
    text, entry = json.dumps(header), json.dumps({name: header[name]})
    other = json.dumps({name: header[name] | {"data_offsets": [0, 4], "shape": [1]}})
    metadata = json.dumps({"__metadata__": {"advmix": sealed({"schema": 2})}})
    return {
        "a tensor twice": joined(text[:-1] + ", " + entry[1:], body),
        "a tensor twice, differing": joined("{" + other[1:-1] + ", " + text[1:], body),
        "metadata twice": joined("{" + metadata[1:-1] + ", " + text[1:], body),
        "metadata of numbers": joined(header | {"__metadata__": {"advmix": 5}}, body),
        "metadata of lists": joined(header | {"__metadata__": {"advmix": []}}, body),
        "metadata as a list": joined(header | {"__metadata__": ["advmix"]}, body),
        "metadata as text": joined(header | {"__metadata__": "advmix"}, body),
        "a list": joined("[]", body),
        "text": joined('"advmix"', body),
        "a number": joined("5", body),
        "no number": joined('{"a": NaN}', body),
        "not UTF-8": joined(b'{"\xff\xfe": 1}', body),
        "no header": struct.pack("<Q", 0) + body,
        "longer than the file": struct.pack("<Q", len(body) + 9) + b"{}" + body,
        "longer than anything": struct.pack("<Q", 2**64 - 1) + b"{}" + body,
        "deep": joined("[" * 200_000, body),
        "deep inside": joined('{"__metadata__": ' + "[" * 200_000 + "]" * 200_000 + "}", body),
        "digits": joined('{"x": ' + "9" * 100_000 + "}", body),
    }


def large_header(path: Path) -> bytes:
    """A header of 110 MB: lists in a list, which take 2 GB when they are read."""
    header, body = parts(path)
    text = json.dumps(header)
    return joined('{"x": [' + "[]," * 35_000_000 + "[]], " + text[1:], body)


def many_tensors(path: Path) -> bytes:
    """A million empty tensors, 70 MB of header."""
    header, body = parts(path)
    more = ", ".join(f'"{number}": {{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for number in range(1_000_000))
    return joined("{" + more + ", " + json.dumps(header)[1:], body)


def sparse_small(path: Path, source: Path) -> None:
    """20 GB on no room: a valid checkpoint with nothing behind it."""
    path.write_bytes(source.read_bytes())
    with open(path, "r+b") as file:
        file.truncate(20 << 30)


def sparse_declared(path: Path, source: Path) -> None:
    """20 GB on no room that its header says are a tensor of zeros."""
    header, body = parts(source)
    size = (20 << 30) - len(body)
    header["x"] = {"dtype": "U8", "shape": [size], "data_offsets": [len(body), len(body) + size]}
    data = joined(header, body)
    path.write_bytes(data)
    with open(path, "r+b") as file:
        file.truncate(len(data) + size)
