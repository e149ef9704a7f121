"""Files that `torch.save` wrote: their plain values and dense real tensors, and nothing that would have to be executed.

torch's own restricted unpickler would do for the pickle, but not for the rest: it believes the sizes that a file
declares, reads beyond records, and builds tensors larger than their values. Here all of that is checked first.
"""

from __future__ import annotations

import dataclasses
import io
import math
import struct
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import files
from advmix_cli.artifacts import pickles
from advmix_cli.artifacts.pickles import Malformed, Storage, Stored
from advmix_cli.errors import DamagedError, UnsafeError, UsageError

if TYPE_CHECKING:
    import torch

_MOST_MEMBERS = 100_000
_LOCAL = struct.Struct("<4s22xHH")  # the header before each member: its mark, and how long its name and extra are
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # with which files begin that torch wrote before 1.6
_SIZES = {
    "DoubleStorage": ("float64", 8), "FloatStorage": ("float32", 4), "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2), "LongStorage": ("int64", 8), "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2), "CharStorage": ("int8", 1), "ByteStorage": ("uint8", 1), "BoolStorage": ("bool", 1),
}  # fmt: skip
_NO_ZIP = (zipfile.BadZipFile, ValueError, EOFError, IndexError, NotImplementedError, RuntimeError, struct.error)
_HINT = "fetch or make it again"


@dataclasses.dataclass(frozen=True)
class Archive:
    """What a file holds: `value`, in which tensors are `Stored`, and `foreign`, what of others' modules it names."""

    path: Path
    value: Any
    foreign: frozenset[str]
    records: Mapping[str, memoryview]

    def plain(self) -> Any:
        """The value with its tensors. Raises UnsafeError where it holds objects of others."""
        if self.foreign:
            raise self.unsafe()
        return self.loaded(self.value)

    def unsafe(self) -> UnsafeError:
        """What to say of a file that would have to be executed."""
        named = ", ".join(sorted(self.foreign)[:4])
        return UnsafeError(
            f"{self.path} would have to be executed to be read whole: it would call {named}",
            "only plain tensors and values are read; ask its author for a safetensors file or a plain state dict",
        )

    def check(self, value: Any) -> None:
        """Raise DamagedError unless all tensors in `value`, of this archive, are dense and there. Needs no torch."""
        if isinstance(value, Stored):
            self._checked(value)
        elif isinstance(value, dict | list | tuple):
            for each in value.values() if isinstance(value, dict) else value:
                self.check(each)

    def loaded(self, value: Any) -> Any:
        """`value`, of this archive, with its tensors, on the CPU. Raises DamagedError for one that is not dense."""
        self.check(value)
        return self._loaded(value, {})

    def _loaded(self, value: Any, storages: dict[str, torch.Tensor]) -> Any:
        if isinstance(value, Stored):
            return self._tensor(value, storages)
        if isinstance(value, dict):
            return {key: self._loaded(each, storages) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._loaded(each, storages) for each in value)
        return value

    def _checked(self, stored: Stored) -> tuple[Storage, str]:
        """The storage of a tensor and the name of its type."""
        storage = stored.storage
        if storage is None or storage.kind not in _SIZES:
            what = stored.layout if storage is None else storage.kind.removesuffix("Storage").lower()
            raise DamagedError(
                f"{self.path} holds a tensor of the kind {what!r}", "only dense tensors of real numbers are read"
            )
        name, size = _SIZES[storage.kind]
        if len(self.records.get(storage.key, b"")) != storage.numel * size:
            raise _damaged(self.path, "a tensor's values are not all there")
        last = stored.offset + sum((n - 1) * step for n, step in zip(stored.shape, stored.stride, strict=True))
        count = math.prod(stored.shape)
        if count > storage.numel or (count and last >= storage.numel):
            raise _damaged(self.path, "a tensor is larger than its values")
        return storage, name

    def _tensor(self, stored: Stored, storages: dict[str, torch.Tensor]) -> torch.Tensor:
        import torch

        storage, name = self._checked(stored)
        dtype = getattr(torch, name)
        if storage.key not in storages:
            data = bytearray(self.records.get(storage.key, b""))
            storages[storage.key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        if storages[storage.key].dtype != dtype:
            raise _damaged(self.path, "two tensors take the same values for different types")
        return storages[storage.key].as_strided(stored.shape, stored.stride, stored.offset)


def is_tensor(value: Any) -> bool:
    """Whether a value of an archive is a tensor, of whatever kind."""
    return isinstance(value, Stored)


def read_archive(path: Path) -> Archive:
    """The file, with its checksums verified. Needs no torch.

    Raises NotFoundError, DamagedError, and UnsafeError for a program (TorchScript).
    """
    return of(path, files.read(path))


def value_of(path: Path) -> Any:
    """The value of a zipped file, its tensors `Stored`: the rest of the file is neither read nor checked."""
    with files.opened(path) as (file, size):
        try:
            with zipfile.ZipFile(file) as archive:
                inside = next(member for member in archive.infolist() if member.filename.endswith("/data.pkl"))
                if inside.compress_type != zipfile.ZIP_STORED or inside.file_size > min(size, pickles.MOST_BYTES):
                    raise Malformed("its pickle is larger than it may be")
                return pickles.read(archive.read(inside)).value
        except (*_NO_ZIP, StopIteration) as error:
            raise _damaged(path, str(error)[:60] or "not a whole .pt file") from None


def of(path: Path, data: bytes) -> Archive:
    """The same of a file's content."""
    try:
        if data[:2] == b"PK":
            return _zipped(path, data)
        return _legacy(path, data)
    except Malformed as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, why: str) -> DamagedError:
    return DamagedError(f"{path} is damaged: {why}", _HINT)


def _zipped(path: Path, data: bytes) -> Archive:
    listed = _listed(data)
    if any("/code/" in each.filename or each.filename.endswith("/constants.pkl") for each in listed):
        raise UnsafeError(
            f"{path} is a program (TorchScript), which would have to be executed",
            "save the model's state_dict() and give that",
        )
    members = _members(data, listed)
    folder = next((name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")), None)
    if folder is None:
        raise Malformed("it is no file of torch.save")
    if members.get(folder + "byteorder", b"little") != sys.byteorder.encode():
        raise UsageError(f"{path} was written on a machine of another byte order", "save it on one like this")
    pickled = members[folder + "data.pkl"]
    if len(pickled) > pickles.MOST_BYTES:
        raise Malformed(f"its pickle has more than {pickles.MOST_BYTES} bytes")
    found = pickles.read(bytes(pickled))
    inside = folder + "data/"
    records = {name.removeprefix(inside): part for name, part in members.items() if name.startswith(inside)}
    return Archive(path, found.value, frozenset(found.names), records)


def _listed(data: bytes) -> list[zipfile.ZipInfo]:
    """What a zip archive says that it holds."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.infolist()
    except _NO_ZIP as error:
        raise Malformed(f"not a whole .pt file ({str(error)[:60]})") from None


def _members(data: bytes, listed: list[zipfile.ZipInfo]) -> dict[str, memoryview]:
    """The members of a zip archive: stored as they are, as torch does, each once and with its checksum right."""
    if len(listed) > _MOST_MEMBERS or sum(member.file_size for member in listed) > len(data):
        raise Malformed("it declares more than it holds")
    found, view = dict[str, memoryview](), memoryview(data)
    for member in listed:
        begin = member.header_offset
        head = data[begin : begin + _LOCAL.size]
        if member.compress_type != zipfile.ZIP_STORED or member.filename in found or len(head) < _LOCAL.size:
            raise Malformed(f"its member {member.filename!r} is not as torch writes them")
        mark, name, extra = _LOCAL.unpack(head)
        called = view[begin + _LOCAL.size :][:name]
        part = view[begin + _LOCAL.size + name + extra :][: member.file_size]
        named = mark == b"PK\3\4" and called == member.orig_filename.encode() and not member.flag_bits & 0x61
        whole = len(part) == member.file_size == member.compress_size
        if not named or not whole or zlib.crc32(part) != member.CRC:
            raise Malformed(f"its member {member.filename!r} is not what was written")
        found[member.filename] = part
    return found


def _legacy(path: Path, data: bytes) -> Archive:
    """The form before torch 1.6: five pickles, then the values of the storages, each after their number."""
    file = io.BytesIO(data)
    if data[257:262] == b"ustar":
        raise UsageError(f"{path} is of a form that torch left in 2017", "load it in torch and save it again")
    first = pickles.read(file)
    if first.value != _MAGIC:
        if first.names:
            raise Archive(path, first.value, frozenset(first.names), {}).unsafe()
        raise Malformed("it is no file of torch.save")
    protocol, system, content, keys = (pickles.read(file) for _ in range(4))
    if protocol.value != _PROTOCOL or not isinstance(keys.value, list) or not isinstance(system.value, dict):
        raise Malformed("it is no file of torch.save")
    if system.value.get("little_endian") is not (sys.byteorder == "little"):
        raise UsageError(f"{path} was written on a machine of another byte order", "save it on one like this")
    kinds = {storage.key: storage for storage in content.storages}
    records, begin, view = dict[str, memoryview](), file.tell(), memoryview(data)
    for key in map(str, keys.value):
        if key not in kinds or key in records:
            raise Malformed("it lists storages that it does not use")
        size = kinds[key].numel * _SIZES.get(kinds[key].kind, ("", 16))[1]
        if data[begin : begin + 8] != struct.pack("<q", kinds[key].numel) or begin + 8 + size > len(data):
            raise Malformed("a tensor's values are not all there")
        records[key] = view[begin + 8 : begin + 8 + size]
        begin += 8 + size
    return Archive(path, content.value, frozenset(content.names), records)
