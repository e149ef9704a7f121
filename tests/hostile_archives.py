"""Zip files that are small and become large, or that take long to look through."""

from __future__ import annotations

import bz2
import functools
import io
import struct
import zipfile
import zlib
from collections.abc import Callable

from hostile_pickles import IMAGE, archive, cache, strides, tensor, tensors, text, usual

MANY = 400_000
"""Images whose tensor takes 1.6 GB."""


@functools.cache
def zeros(size: int) -> tuple[bytes, int]:
    """So many zeros deflated, a thousandth of them, and their checksum."""
    block = 1 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    blocks, rest = divmod(size, block)
    data = first + again * (blocks - 1) + packer.compress(bytes(rest)) + packer.flush()
    checksum = 0
    for _ in range(blocks):
        checksum = zlib.crc32(bytes(block), checksum)
    return data, zlib.crc32(bytes(rest), checksum)


Member = tuple[str, int, bytes, int, int]
"""Name, method, packed bytes, size, checksum."""


def member(name: str, data: bytes) -> Member:
    """One that is as it is."""
    return name, zipfile.ZIP_STORED, data, len(data), zlib.crc32(data)


def bomb(name: str, size: int, before: bytes = b"", after: bytes = b"") -> Member:
    """One of `size` zeros, whole megabytes of them where they stand between some other bytes."""
    packed, checksum = zeros(size)
    if before or after:
        checksum = zlib.crc32(before)
        for start in range(0, size, 1 << 20):
            checksum = zlib.crc32(bytes(min(1 << 20, size - start)), checksum)
        checksum = zlib.crc32(after, checksum)
        packed = _plain(before) + packed[:-2] + _plain(after, last=True)  # without the empty block that ends it
    return name, zipfile.ZIP_DEFLATED, packed, len(before) + size + len(after), checksum


def _plain(data: bytes, *, last: bool = False) -> bytes:
    """A block of a deflated stream that is not packed."""
    return struct.pack("<BHH", last, len(data), len(data) ^ 0xFFFF) + data


def zipped(members: list[Member], *, shared: bool = False) -> bytes:
    """A zip file of these members; `shared`: those of the same packed bytes are one and the same place in it."""
    body, directory, places = bytearray(), bytearray(), {}
    for name, method, packed, size, checksum in members:
        encoded, again = name.encode(), shared and id(packed) in places
        offset = places[id(packed)] if again else len(body)
        places[id(packed)] = offset
        common = struct.pack("<HHHHHIII", 20, 0x800, method, 0, 33, checksum, len(packed), size)
        if not again:
            body += b"PK\3\4" + common + struct.pack("<HH", len(encoded), 0) + encoded + packed
        directory += b"PK\1\2" + struct.pack("<H", 20) + common
        directory += struct.pack("<HHHHHII", len(encoded), 0, 0, 0, 0, 0, offset) + encoded
    count, end = len(members), b""
    if count >= 0xFFFF:  # more than the old directory can count
        at = len(body) + len(directory)
        end += struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), len(body))
        end += struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    shown = min(count, 0xFFFF)
    end += struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, shown, shown, len(directory), len(body), 0)
    return bytes(body + directory + end)


def _large(n: int) -> bytes:
    shape = (n, *IMAGE)
    images = tensor("0", n * 1024, shape, strides(shape))
    return cache(images, tensor("1", n, (n,), (1,), kind="LongStorage"))


def _around(*members: Member, body: bytes) -> list[Member]:
    return [member("archive/data.pkl", body), member("archive/byteorder", b"little"), *members,
            member("archive/version", b"3\n")]  # fmt: skip


def deflated_images() -> bytes:
    """1.6 MB whose images are 1.6 GB of zeros: true in all it says."""
    members = bomb("archive/data/0", MANY * 4096), bomb("archive/data/1", MANY * 8)
    return zipped(_around(*members, body=_large(MANY)))


def deflated_beside() -> bytes:
    """A small cache with 1.6 GB beside it that nothing asks for."""
    return _with(bomb("archive/data/2", MANY * 4096))


def deflated_pickle() -> bytes:
    """1 MB whose data.pkl is a string of 1 GB."""
    size = 1 << 30
    head = b"\x80\x02}" + text("state_dict") + b"X" + struct.pack("<I", size)
    pickle = bomb("archive/data.pkl", size, head, b"s.")
    return zipped([pickle, member("archive/byteorder", b"little"), member("archive/version", b"3\n")])


def deflated_twice() -> bytes:
    """The same archive with the pickle in it a second time, as a bomb: which of the two is read?"""
    return _with(bomb("archive/data.pkl", MANY * 4096), bomb("other/data.pkl", MANY * 4096))


def opcodes() -> bytes:
    """20 MB of pickle, an opcode each, that amount to a tuple of nothing; deflated, 20 kB."""
    return _with_pickle(_nothings(), zipfile.ZIP_DEFLATED)


def opcodes_stored() -> bytes:
    """The same as it is."""
    return _with_pickle(_nothings(), zipfile.ZIP_STORED)


def opcodes_of_memory() -> bytes:
    """The same that remembers each of 4 million dicts, half a gigabyte."""
    many = b"".join(b"}r" + struct.pack("<I", number) for number in range(4_000_000))
    return _with_pickle(b"(" + many + b"t", zipfile.ZIP_STORED)


def _nothings() -> bytes:
    return b"(" + b"N" * 20_000_000 + b"t"


def _with_pickle(body: bytes, method: int) -> bytes:
    """A small cache with one thing more in its pickle."""
    images, labels, storages = tensors(4)
    return archive(cache(images, labels, more=body), storages, method=method)


def overlapping() -> bytes:
    """2,000 members that are all the same megabyte of zeros deflated, a kilobyte: 2 GB in 200 kB."""
    return _with(*[bomb("archive/data/2", 1 << 20)] * 2_000, shared=True)


def many_members() -> bytes:
    """A small cache with 100,000 empty members beside it."""
    return _with(*(member(f"archive/data/x{number}", b"") for number in range(100_000)))


def squeezed() -> bytes:
    """200 MB of zeros in 200 bytes, by bzip2, in place of the pickle."""
    size = 200 << 20
    packer = bz2.BZ2Compressor()
    packed = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(200)), packer.flush()])
    pickle = "archive/data.pkl", zipfile.ZIP_BZIP2, packed, size, zeros(size)[1]
    return zipped([pickle, member("archive/version", b"3\n")])


def claimed() -> bytes:
    """A member that is said to have 4 GB less one byte, and has four."""
    name, method, packed, _, checksum = member("archive/data/0", b"\0\0\0\0")
    return zipped(_around((name, method, packed, 0xFFFFFFFE, checksum), body=_large(4)))


def _with(*members: Member, shared: bool = False) -> bytes:
    """A small cache with these members after its own."""
    with zipfile.ZipFile(io.BytesIO(usual())) as file:
        own = [member(name, file.read(name)) for name in file.namelist()]
    return zipped([*own, *members], shared=shared)


BOMBS: tuple[Callable[[], bytes], ...] = (
    deflated_images, deflated_beside, deflated_pickle, deflated_twice, opcodes, opcodes_stored, opcodes_of_memory,
    overlapping, many_members, squeezed, claimed,
)  # fmt: skip
