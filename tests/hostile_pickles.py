"""`.pt` files by hand: pickles that claim what is not so, that take for ever, or that would run something.

The pickles are put together from opcodes, so that they say what torch itself would never write.
"""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import torch

IMAGE = (1, 32, 32)
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


# Opcodes


def text(value: str) -> bytes:
    """A string."""
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    """An integer of any size."""
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def several(*items: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(items) + b"t"


def integers(values: tuple[int, ...]) -> bytes:
    """A tuple of integers."""
    return several(*map(integer, values))


def named(module: str, name: str) -> bytes:
    """A class or function."""
    return f"c{module}\n{name}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    """What a function gives."""
    return function + several(*arguments) + b"R"


def mapping(items: dict[str, bytes]) -> bytes:
    """A dict."""
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def storage(key: bytes, count: int, kind: str = "FloatStorage", *, legacy: bool = False) -> bytes:
    """What torch takes for the storage `key` of that many elements."""
    parts = [text("storage"), named("torch", kind), key, text("cpu"), integer(count)]
    return several(*parts, *([b"N"] if legacy else [])) + b"Q"


def tensor(
    key: str, count: int, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, *,
    kind: str = "FloatStorage", legacy: bool = False,
) -> bytes:  # fmt: skip
    """A view of a storage, as torch pickles tensors."""
    where = storage(text(key), count, kind, legacy=legacy)
    hooks = call(named("collections", "OrderedDict"))
    view = integer(offset), integers(shape), integers(stride), b"\x89", hooks
    return call(named("torch._utils", "_rebuild_tensor_v2"), where, *view)


def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Those of a contiguous tensor."""
    found = [1]
    for size in reversed(shape[1:]):
        found.insert(0, found[0] * max(size, 1))
    return tuple(found)


def pickled(body: bytes) -> bytes:
    """A whole pickle."""
    return b"\x80\x02" + body + b"."


# Files


def archive(body: bytes, storages: dict[str, bytes], *, method: int = STORED, name: str = "archive") -> bytes:
    """A `.pt` file as torch writes it now: a zip file with the pickle and a member for each storage."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr(f"{name}/data.pkl", body)
        file.writestr(f"{name}/byteorder", b"little")
        for key, data in storages.items():
            file.writestr(f"{name}/data/{key}", data)
        file.writestr(f"{name}/version", b"3\n")
    return buffer.getvalue()


def legacy(body: bytes, storages: dict[str, bytes], *, width: int = 4) -> bytes:
    """A `.pt` file as torch wrote it before: pickles one after another, then the storages."""
    information = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = [pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, information)]
    tail = [struct.pack("<q", len(data) // width) + data for data in storages.values()]
    return b"".join([*head, body, pickle.dumps(list(storages), 2), *tail])


def saved(content: Any, *, zipped: bool = True) -> bytes:
    """A `.pt` file by torch."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def cache(images: bytes, labels: bytes, **more: bytes) -> bytes:
    """The pickle of a sample cache of others, from the opcodes of its tensors."""
    return pickled(mapping({"adv_inputs": images, "labels": labels, "save_type": text("float"), **more}))


def tensors(n: int, *, old: bool = False) -> tuple[bytes, bytes, dict[str, bytes]]:
    """Images and labels as opcodes, and their storages."""
    shape = (n, *IMAGE)
    count = n * 1024
    images = tensor("0", count, shape, strides(shape), legacy=old)
    labels = tensor("1", n, (n,), (1,), kind="LongStorage", legacy=old)
    return images, labels, {"0": bytes(4 * count), "1": bytes(8 * n)}


def usual(n: int = 4) -> bytes:
    """A small cache of others in which all is right."""
    images, labels, storages = tensors(n)
    return archive(cache(images, labels), storages)


# Claims


def stride_zero(n: int = 500_000) -> bytes:
    """2 kB: one float that is said to be `n` images, for its strides are 0. A copy of them takes 2 GB."""
    images = tensor("0", 1, (n, *IMAGE), (0, 0, 0, 0))
    labels = tensor("1", 1, (n,), (0,), kind="LongStorage")
    weight = tensor("0", 1, (n, *IMAGE), (0, 0, 0, 0))
    return archive(cache(images, labels, **{"c1.weight": weight}), {"0": bytes(4), "1": bytes(8)})


def stride_zero_legacy(n: int = 500_000) -> bytes:
    """The same in the old format."""
    images = tensor("0", 1, (n, *IMAGE), (0, 0, 0, 0), legacy=True)
    return legacy(cache(images, images), {"0": bytes(4)})


def beyond_the_record(count: int = 4 * 1024) -> bytes:
    """A storage that is said to have `count` elements, and 16 in its member: the rest would be the process's memory."""
    shape = (count // 1024, *IMAGE)
    images = tensor("0", count, shape, strides(shape))
    labels = tensor("1", shape[0], shape[:1], (1,), kind="LongStorage")
    return archive(cache(images, labels), {"0": bytes(64), "1": bytes(8 * shape[0])})


def far_beyond_the_record() -> bytes:
    """The same with 2 GB."""
    return beyond_the_record(500_000 * 1024)


def beyond_the_record_legacy(count: int = 500_000 * 1024) -> bytes:
    """The same in the old format."""
    shape = (count // 1024, *IMAGE)
    images = tensor("0", count, shape, strides(shape), legacy=True)
    labels = tensor("0", count, shape[:1], (1,), legacy=True)
    return legacy(cache(images, labels), {"0": bytes(64)})


def beyond_the_storage() -> bytes:
    """A view that leaves its storage, which is as large as it says."""
    shape = (4, *IMAGE)
    images = tensor("0", 16, shape, strides(shape))
    labels = tensor("1", 4, (4,), (1,), kind="LongStorage")
    return archive(cache(images, labels), {"0": bytes(64), "1": bytes(32)})


def before_the_storage() -> bytes:
    """A view that begins before its storage."""
    images, labels, storages = tensors(4)
    shape = (4, *IMAGE)
    images = tensor("0", 4096, shape, strides(shape), offset=-64)
    return archive(cache(images, labels), storages)


def negative_sizes() -> bytes:
    """Shapes and counts below 0."""
    images = tensor("0", -16, (-4, 1, 32, 32), (1024, 1024, 32, 1))
    labels = tensor("1", 4, (4,), (-1,), kind="LongStorage")
    return archive(cache(images, labels), {"0": bytes(64), "1": bytes(32)})


def overflowing_sizes() -> bytes:
    """A shape whose product is 0 in 64 bits."""
    images = tensor("0", 16, (2**32, 2**32, 1, 1), (0, 0, 0, 0))
    labels = tensor("1", 4, (4,), (1,), kind="LongStorage")
    return archive(cache(images, labels), {"0": bytes(64), "1": bytes(32)})


def missing_record() -> bytes:
    """A storage without its member."""
    images, labels, storages = tensors(4)
    return archive(cache(images, labels), {"1": storages["1"]})


CLAIMS: tuple[Callable[[], bytes], ...] = (
    stride_zero, stride_zero_legacy, beyond_the_record, far_beyond_the_record, beyond_the_record_legacy,
    beyond_the_storage, before_the_storage, negative_sizes, overflowing_sizes, missing_record,
)  # fmt: skip
"""Files that say of their tensors what is not so."""


# Time


def nested_key(depth: int = 60) -> bytes:
    """A tuple of twice the same tuple, `depth` deep by memo: its hash takes 2^depth steps."""
    return b")q\x00" + b"h\x00\x86q\x00" * depth


def _beside_a_cache(trap: bytes, *, old: bool = False) -> bytes:
    images, labels, storages = tensors(4, old=old)
    made = cache(images, labels, trap=trap)
    return legacy(made, storages) if old else archive(made, storages)


def nested_dict() -> bytes:
    """It is the key of a dict."""
    return _beside_a_cache(b"}" + nested_key() + b"K\x01s")


def nested_dict_legacy() -> bytes:
    """The same in the old format."""
    return _beside_a_cache(b"}" + nested_key() + b"K\x01s", old=True)


def nested_dict_of_many() -> bytes:
    """It is one of several keys."""
    return _beside_a_cache(b"}(" + text("a") + b"K\x01" + nested_key() + b"K\x01u")


def nested_ordered_dict() -> bytes:
    """It is a key in the list that an OrderedDict is made of."""
    pairs = b"](" + nested_key() + b"K\x01\x86e"
    return _beside_a_cache(call(named("collections", "OrderedDict"), pairs))


def nested_counter() -> bytes:
    """A Counter counts it."""
    return _beside_a_cache(call(named("collections", "Counter"), b"](" + nested_key() + b"e"))


def nested_set() -> bytes:
    """It is in a set."""
    return _beside_a_cache(call(named("__builtin__", "set"), b"](" + nested_key() + b"e"))


def nested_storage() -> bytes:
    """It is the name of a storage."""
    where = storage(nested_key(), 1)
    hooks = call(named("collections", "OrderedDict"))
    trap = call(
        named("torch._utils", "_rebuild_tensor_v2"), where, integer(0), integers((1,)), integers((1,)), b"\x89", hooks
    )
    return _beside_a_cache(trap)


NESTED: tuple[Callable[[], bytes], ...] = (
    nested_dict, nested_dict_legacy, nested_dict_of_many, nested_ordered_dict, nested_counter, nested_set,
    nested_storage,
)  # fmt: skip
"""Under 1 kB of pickle each, and no end of hashing."""
