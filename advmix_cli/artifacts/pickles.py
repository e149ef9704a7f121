"""Pickles, read without doing what they say.

A pickle is a program. Here its opcodes are followed on plain values alone: no class is looked up and nothing is called.
What torch writes for a tensor becomes a `Stored`, which says where its values lie; every other object becomes a
`Foreign`, which is a name. So the worst that a file can do is to be refused, and that is bounded as well: in bytes,
in opcodes, and in what its values come to where they are shared. Needs no torch.
"""

from __future__ import annotations

import dataclasses
import io
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

MOST_BYTES = 64 << 20
MOST_OPCODES = 500_000
MOST_VALUES = 4_000_000
"""Of all values with those that are shared counted as often as they are reached: more is a trap for who walks them."""
_DEEPEST = 100


class Malformed(ValueError):
    """What is no whole pickle, or one that asks for more than is granted."""


@dataclasses.dataclass(frozen=True)
class Name:
    """Something of a module, which the pickle names and nobody looks up."""

    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """Where values lie: the record `key` of the archive, `numel` of the type that torch calls `kind`."""

    key: str
    kind: str
    numel: int


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor: a view of a storage, or, with another `layout`, none that is dense."""

    storage: Storage | None
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    layout: str = "dense"


class Foreign:
    """Stands for an object of that name, with whatever was put into it."""

    def __init__(self, name: str) -> None:
        self.name = name


_LONGEST = 200
_MARK = object()
_PLAIN = (str, bytes, int, float, bool, type(None))
_REBUILT = ("_rebuild_tensor", "_rebuild_tensor_v2")
_PARAMETERS = ("_rebuild_parameter", "_rebuild_parameter_with_state")


@dataclasses.dataclass
class Pickle:
    """What a pickle holds: its `value`, the `storages` that it speaks of, and the `names` of what it would call."""

    value: Any
    names: set[str]
    storages: list[Storage]


def read(data: bytes | BinaryIO) -> Pickle:
    """The pickle at the beginning of `data`. Raises Malformed."""
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    reader = _Reader()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count >= MOST_OPCODES:
                raise Malformed(f"it has more than {MOST_OPCODES} opcodes")
            reader.follow(opcode.name, argument)
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed(str(error)[:80] or "it is no pickle") from None
    except (IndexError, TypeError, KeyError, AttributeError, OverflowError):
        raise Malformed("it is no pickle") from None
    value = reader.stack.pop() if len(reader.stack) == 1 else None
    if reader.stack:
        raise Malformed("it leaves more than one value")
    _check_size(value, {}, 0)
    return Pickle(value, reader.names, reader.storages)


class _Reader:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.names: set[str] = set()
        self.storages: list[Storage] = []

    def follow(self, name: str, argument: Any) -> None:
        """Do what one opcode says, to plain values."""
        if name in _DO:
            _DO[name](self, argument)
        elif name in _PUSHED:
            self.stack.append(argument)
        else:
            raise Malformed(f"it uses the opcode {name}")

    def remember(self, place: int | None) -> None:
        """The value on top can be had again by that number."""
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    def join(self, count: int) -> None:
        """The last `count` values are a tuple."""
        if len(self.stack) < count:
            raise Malformed("its stack is too short")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def to_mark(self) -> list[Any]:
        """The values since the last mark."""
        items: list[Any] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def extend(self, items: list[Any]) -> None:
        """Put items into the list on top."""
        holder = self.stack[-1]
        if isinstance(holder, list):
            holder.extend(items)
        elif not isinstance(holder, Foreign):
            raise Malformed("it appends to what is no list")

    def set(self, pairs: list[Any]) -> None:
        """Set items of the dictionary on top: a key, its value, and so on."""
        holder = self.stack[-1]
        if isinstance(holder, Foreign):
            return
        if not isinstance(holder, dict) or len(pairs) % 2:
            raise Malformed("it sets items of what is no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, _PLAIN):  # to hash a tuple of tuples may take for ever
                raise Malformed(f"it has a {type(key).__name__} for a key")
            holder[key] = value

    def dictionary(self) -> None:
        """A dictionary of the values since the last mark."""
        pairs = self.to_mark()
        self.stack.append({})
        self.set(pairs)

    def named(self, module: Any, own: Any) -> None:
        """Something of a module."""
        if not isinstance(module, str) or not isinstance(own, str):
            raise Malformed("it names what is no text")
        self.stack.append(Name(f"{module}.{own}"[:_LONGEST]))

    def call(self, arguments: Any, called: Any) -> None:
        """What torch writes for a tensor is one; all else is a name."""
        self.stack.append(self._called(called, arguments))

    def store(self, identity: Any) -> None:
        """A storage, which torch writes as an identity."""
        self.storages.append(_storage(identity))
        self.stack.append(self.storages[-1])

    def _called(self, called: Any, arguments: Any) -> Any:
        if isinstance(called, Foreign):  # what came out of something that was not called
            return called
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise Malformed("it calls what has no name")
        module, _, own = called.name.rpartition(".")
        if called.name == "collections.OrderedDict":
            return _ordered(arguments)
        if module == "torch._utils":
            if own in _REBUILT:
                storage, offset, shape, stride = arguments[:4]
                return _tensor(storage, offset, shape, stride)
            if own in _PARAMETERS and isinstance(arguments[0], Stored):
                return arguments[0]
            if own.startswith("_rebuild_"):
                return Stored(None, 0, (), (), own.removeprefix("_rebuild_").removesuffix("_v2"))
        if called.name == "torch.Size":
            return tuple(arguments[0])
        if called.name == "_codecs.encode" and isinstance(arguments[0], str):
            return arguments[0].encode("latin-1")
        self.names.add(called.name)
        return Foreign(called.name)


_PUSHED = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "NONE", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "SHORT_BINUNICODE",
    "BINUNICODE", "BINUNICODE8",
}  # fmt: skip
"""The opcodes whose argument is the value."""

_DO: dict[str, Callable[[_Reader, Any], Any]] = {
    "PROTO": lambda r, a: None,
    "FRAME": lambda r, a: None,
    "STOP": lambda r, a: None,
    "NEWTRUE": lambda r, a: r.stack.append(True),
    "NEWFALSE": lambda r, a: r.stack.append(False),
    "EMPTY_TUPLE": lambda r, a: r.stack.append(()),
    "EMPTY_LIST": lambda r, a: r.stack.append([]),
    "EMPTY_DICT": lambda r, a: r.stack.append({}),
    "EMPTY_SET": lambda r, a: r.stack.append(Foreign("builtins.set")),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda r, a: r.remember(a)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda r, a: r.stack.append(r.memo[a])),
    "MARK": lambda r, a: r.stack.append(_MARK),
    "TUPLE": lambda r, a: r.stack.append(tuple(r.to_mark())),
    "TUPLE1": lambda r, a: r.join(1),
    "TUPLE2": lambda r, a: r.join(2),
    "TUPLE3": lambda r, a: r.join(3),
    "LIST": lambda r, a: r.stack.append(r.to_mark()),
    "DICT": lambda r, a: r.dictionary(),
    "APPEND": lambda r, a: r.extend([r.stack.pop()]),
    "APPENDS": lambda r, a: r.extend(r.to_mark()),
    "ADDITEMS": lambda r, a: r.extend(r.to_mark()),
    "SETITEM": lambda r, a: r.set([r.stack.pop(-2), r.stack.pop()]),
    "SETITEMS": lambda r, a: r.set(r.to_mark()),
    "FROZENSET": lambda r, a: r.call(tuple(r.to_mark()), Name("builtins.frozenset")),
    "GLOBAL": lambda r, a: r.named(*a.split(" ", 1)),
    "STACK_GLOBAL": lambda r, a: r.named(r.stack.pop(-2), r.stack.pop()),
    "REDUCE": lambda r, a: r.call(r.stack.pop(), r.stack.pop()),
    "NEWOBJ": lambda r, a: r.call(r.stack.pop(), r.stack.pop()),
    "INST": lambda r, a: r.call(tuple(r.to_mark()), Name(a.replace(" ", ".", 1)[:_LONGEST])),
    "OBJ": lambda r, a: (lambda parts: r.call(tuple(parts[1:]), parts[0]))(r.to_mark()),
    "BUILD": lambda r, a: (r.stack.pop(), r.stack[-1]),
    "BINPERSID": lambda r, a: r.store(r.stack.pop()),
    "POP": lambda r, a: r.stack.pop(),
    "POP_MARK": lambda r, a: r.to_mark(),
    "DUP": lambda r, a: r.stack.append(r.stack[-1]),
}
"""What the other opcodes do; those that are in neither are refused."""


def _ordered(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in arguments[0] if arguments else ():
        if not isinstance(key, _PLAIN):
            raise Malformed(f"it has a {type(key).__name__} for a key")
        found[key] = value
    return found


def _storage(identity: Any) -> Storage:
    word, kind, key, _, numel = identity[:5]
    plain = isinstance(key, str | int) and _count(numel)
    if word != "storage" or not isinstance(kind, Name) or not plain:
        raise Malformed("it names a storage that is none")
    if len(identity) > 5 and identity[5] is not None:
        raise Malformed("it has views of storages, which only versions of torch before 0.4 wrote")
    return Storage(str(key), kind.name.rpartition(".")[2], numel)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> Stored:
    whole = isinstance(shape, tuple) and isinstance(stride, tuple) and all(map(_count, (*shape, *stride, offset)))
    if not isinstance(storage, Storage) or not whole or len(shape) != len(stride):
        raise Malformed("it holds a tensor that is none")
    return Stored(storage, offset, shape, stride)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _check_size(value: Any, sizes: dict[int, int], depth: int) -> int:
    """How many values it comes to; Malformed where that is too many, or where it holds itself."""
    if not isinstance(value, list | tuple | dict):
        return 1
    known = sizes.get(id(value))
    if known == 0 or depth > _DEEPEST:
        raise Malformed("its values hold themselves, or nest too deep")
    if known is None:
        sizes[id(value)] = 0
        inner = value.values() if isinstance(value, dict) else value
        known = sizes[id(value)] = 1 + sum(_check_size(each, sizes, depth + 1) for each in inner)
        if known > MOST_VALUES:
            raise Malformed("its values come to too many")
    return known
