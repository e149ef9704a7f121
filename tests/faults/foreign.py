"""Files that somebody hands over: common forms that must be taken, wrong ones that must be refused, and bombs."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from damage import STORE
from family import Family, listed
from readers import Hostile, read_all
from scenarios import STOPPED, Bench

TAKEN, REFUSED = (0,), (2, 3, 4)
_READERS = ("eval {path} --limit 2", "eval v --samples {path}", "store verify {path}", "store show {path}")


class _Runs:
    """Unpickling it runs a command."""

    def __init__(self, line: str) -> None:
        self.line = line

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.line,)


def _state() -> dict[str, Any]:
    from advmix_cli import models

    return models.build("lenet5", 3).state_dict()


def _renamed(prefix: str) -> Callable[[Path], None]:
    return lambda path: _save({prefix + name: tensor for name, tensor in _state().items()}, path)


def _changed(how: Callable[[Any], Any]) -> Callable[[Path], None]:
    """All weights that are floating numbers changed."""
    return lambda path: _save(
        {name: how(tensor) if tensor.is_floating_point() else tensor for name, tensor in _state().items()}, path
    )


def _save(content: Any, path: Path) -> None:
    import torch

    torch.save(content, path)


def _twice(path: Path) -> None:
    state = _state()
    _save(state | {f"module.{name}": tensor + 1 for name, tensor in state.items() if tensor.is_floating_point()}, path)


def _samples(**parts: Any) -> Callable[[Path], None]:
    """A cache as torchattacks writes them, with some parts replaced."""

    def build(path: Path) -> None:
        import torch

        good = {"adv_inputs": torch.rand(4, 1, 32, 32), "labels": torch.arange(4), "save_type": "float"}
        _save(good | {name: part(torch) if callable(part) else part for name, part in parts.items()}, path)

    return build


def _pickled(pickled: bytes, storages: dict[str, bytes] | None = None, squeeze: bool = False) -> Callable[[Path], None]:
    """A .pt archive with that pickle in it."""

    def build(path: Path) -> None:
        how = zipfile.ZIP_DEFLATED if squeeze else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", how, compresslevel=1) as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr("archive/version", b"3\n")
            archive.writestr("archive/byteorder", b"little")
            for name, data in (storages or {"0": b"\0" * 64}).items():
                archive.writestr(f"archive/data/{name}", data)

    return build


def _nested(depth: int) -> bytes:
    """A dictionary whose key is a tuple of twice the tuple before: hashing it takes 2 ** depth steps."""
    body = b"\x80\x02K\x01q\x00"
    for level in range(depth):
        body += b"h%ch%c\x86q%c" % (level, level, level + 1)
    return body + b"}(h%cK\x01u." % depth


def _tensor_bomb(path: Path) -> None:
    """A view with stride 0 of one number, forty gigabytes large to whoever makes it contiguous."""
    import torch

    one, many = torch.zeros(1), 10**7
    images = one.expand(many, 32 * 32).as_strided((many, 1, 32, 32), (0, 0, 0, 0))
    _save({"adv_inputs": images, "labels": one.long().expand(many), "save_type": "float"}, path)


def _old_form(path: Path) -> None:
    import torch

    torch.save(_state(), path, _use_new_zipfile_serialization=False)


def _quantised(tensor: Any) -> Any:
    import torch

    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


def _runs(path: Path, within: Callable[[Any], Any], protocol: int) -> bytes:
    return pickle.dumps(within(_Runs(f"touch {path.parent}/ran")), protocol)


def _nested_tensor(torch: Any) -> Any:
    return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])


def _ints(torch: Any) -> Any:
    return torch.zeros(4, 1, 32, 32).int()


def _safetensors(header: Any, body: bytes = b"", length: int | None = None) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)

    return build


def _entry(dtype: str = "F32", shape: tuple[int, ...] = (1,), begin: int = 0, end: int = 4) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def _complex(torch: Any) -> Any:
    return torch.zeros(4, 1, 32, 32, dtype=torch.complex64)


FILES: dict[str, tuple[str, tuple[int, ...], Callable[[Path], None]]] = {
    # Taken: the forms that training scripts write.
    "plain": (".pt", TAKEN, _renamed("")),
    "module": (".pth", TAKEN, _renamed("module.")),
    "compiled": (".pt", TAKEN, _renamed("_orig_mod.")),
    "compiled-module": (".pt", TAKEN, _renamed("_orig_mod.module.")),
    "model-module": (".pt", TAKEN, _renamed("model.module.")),
    "under-state-dict": (".tar", TAKEN, lambda path: _save({"epoch": 3, "state_dict": _state()}, path)),
    "under-two": (".pt", TAKEN, lambda path: _save({"model": {"state_dict": _state()}}, path)),
    "half": (".pt", TAKEN, _changed(lambda tensor: tensor.half())),
    "old-form": (".pt", TAKEN, _old_form),
    # Refused.
    "twice": (".pt", REFUSED, _twice),
    "not-finite": (".pt", REFUSED, _changed(lambda tensor: tensor / 0)),
    "overflowing": (".pt", REFUSED, _changed(lambda tensor: tensor.double() + 1e300)),
    "complex": (".pt", REFUSED, _changed(lambda tensor: tensor + 1j)),
    "sparse": (".pt", REFUSED, _changed(lambda tensor: tensor.to_sparse())),
    "meta": (".pt", REFUSED, _changed(lambda tensor: tensor.to("meta"))),
    "quantised": (".pt", REFUSED, _changed(_quantised)),
    "bool": (".pt", REFUSED, _changed(lambda tensor: tensor > 0)),
    "nothing": (".pt", REFUSED, lambda path: _save({}, path)),
    "number": (".pt", REFUSED, lambda path: _save(3, path)),
    "list": (".pt", REFUSED, lambda path: _save([1, 2], path)),
    "deep": (".pt", REFUSED, _pickled(b"\x80\x02" + b"]" * 3000 + b"a" * 2999 + b".")),
    "empty-file": (".pt", REFUSED, Path.touch),
    "text": (".pt", REFUSED, lambda path: path.write_text("hello")),
    "truncated-pickle": (".pt", REFUSED, _pickled(b"\x80\x02}(")),
    "no-pickle": (".pt", REFUSED, _pickled(b"")),
    "runs": (".pt", REFUSED, lambda path: _pickled(_runs(path, lambda it: it, 2))(path)),
    "runs-plain": (".pt", REFUSED, lambda path: path.write_bytes(_runs(path, lambda it: it, 4))),
    "runs-in-key": (".pth", REFUSED, lambda path: _pickled(_runs(path, lambda it: {"a": it}, 2))(path)),
    "pickle-as-safetensors": (".safetensors", REFUSED, _renamed("")),
    # Caches of others.
    "cache": (".pt", REFUSED, _samples()),
    "cache-sparse": (".pt", REFUSED, _samples(adv_inputs=lambda torch: torch.zeros(4, 1, 32, 32).to_sparse())),
    "cache-meta": (".pt", REFUSED, _samples(adv_inputs=lambda torch: torch.zeros(4, 1, 32, 32, device="meta"))),
    "cache-complex": (".pt", REFUSED, _samples(adv_inputs=_complex)),
    "cache-nan": (".pt", REFUSED, _samples(adv_inputs=lambda torch: torch.full((4, 1, 32, 32), float("nan")))),
    "cache-labels": (".pt", REFUSED, _samples(labels=lambda torch: torch.tensor([-1, 99, 2**40, 3]))),
    "cache-labels-bool": (".pt", REFUSED, _samples(labels=lambda torch: torch.zeros(4).bool())),
    "cache-labels-complex": (".pt", REFUSED, _samples(labels=lambda torch: torch.zeros(4, dtype=torch.complex64))),
    "cache-shape": (".pt", REFUSED, _samples(adv_inputs=lambda torch: torch.zeros(4, 3, 8, 8))),
    "cache-ints": (".pt", REFUSED, _samples(adv_inputs=_ints, save_type="int")),
    "cache-type": (".pt", REFUSED, _samples(save_type=7)),
    "cache-nested": (".pt", REFUSED, _samples(adv_inputs=_nested_tensor)),
    # Bombs.
    "tuples": (".pt", REFUSED, _pickled(_nested(60))),
    "tuples-plain": (".pt", REFUSED, lambda path: path.write_bytes(_nested(60))),
    "stride": (".pt", REFUSED, _tensor_bomb),
    "zip": (".pt", REFUSED, _pickled(b"\x80\x02." + b"\0" * (600 << 20), squeeze=True)),
    "zip-storage": (".pt", REFUSED, _pickled(b"\x80\x02}.", {"0": b"\0" * (600 << 20)}, squeeze=True)),
    "zip-many": (".pt", REFUSED, _pickled(b"\x80\x02}.", {str(i): b"" for i in range(60_000)})),
    "header-long": (".safetensors", REFUSED, _safetensors({}, length=1 << 62)),
    "header-none": (".safetensors", REFUSED, _safetensors(b"")),
    "header-list": (".safetensors", REFUSED, _safetensors([])),
    "header-deep": (".safetensors", REFUSED, _safetensors(b"[" * 200_000 + b"]" * 200_000)),
    "overlapping": (".safetensors", REFUSED, _safetensors({"a": _entry(), "b": _entry()}, b"\0" * 4)),
    "overlapping-many": (".safetensors", REFUSED, _safetensors(
        {f"t{i}": _entry("U8", (1_000_000,), 0, 1_000_000) for i in range(20_000)}, b"\0" * 1_000_000)),
    "backwards": (".safetensors", REFUSED, _safetensors({"a": _entry(begin=4, end=0)}, b"\0" * 4)),
    "negative": (".safetensors", REFUSED, _safetensors({"a": _entry(begin=-4, end=4)}, b"\0" * 4)),
    "too-long": (".safetensors", REFUSED, _safetensors({"a": _entry(end=1 << 40)}, b"\0" * 4)),
    "shape-huge": (".safetensors", REFUSED, _safetensors({"a": _entry(shape=(2**62, 2**62))}, b"\0" * 4)),
    "shape-negative": (".safetensors", REFUSED, _safetensors({"a": _entry(shape=(-1,))}, b"\0" * 4)),
    "dtype": (".safetensors", REFUSED, _safetensors({"a": _entry("F99")}, b"\0" * 4)),
    "metadata": (".safetensors", REFUSED, _safetensors({"__metadata__": {"advmix": "[1]"}, "a": _entry()}, b"\0" * 4)),
    "metadata-number": (".safetensors", REFUSED, _safetensors({"__metadata__": 7, "a": _entry()}, b"\0" * 4)),
}  # fmt: skip
"""Suffix, how import may end, and who writes it."""

UNFINISHED: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda kept: {},
    "list": lambda kept: [kept],
    "no-pieces": lambda kept: kept | {"pieces": []},
    "pieces-number": lambda kept: kept | {"pieces": 7},
    "pieces-none": lambda kept: kept | {"pieces": [None]},
    "pieces-text": lambda kept: kept | {"pieces": ["x"]},
    "pieces-empty": lambda kept: kept | {"pieces": [{}]},
    "pieces-many": lambda kept: kept | {"pieces": kept["pieces"] * 50},
    "number": lambda kept: kept | {"number": 10**12},
    "seconds": lambda kept: kept | {"seconds": float("nan")},
    "less": lambda kept: kept | {"pieces": [_only(piece, 1) for piece in kept["pieces"]]},
    "turned": lambda kept: _with(kept, lambda t: t.flatten()[:1]),
    "larger": lambda kept: _with(kept, lambda t: t.repeat(*[3] * t.ndim)),
    "lists": lambda kept: _with(kept, lambda t: t.tolist()),
    "texts": lambda kept: _with(kept, lambda t: "x"),
    "not-finite": lambda kept: _with(kept, lambda t: t / 0),
    "negative": lambda kept: _with(kept, lambda t: -t.float() - 5),
}  # fmt: skip
"""What the first file of an unfinished job says instead."""


def _only(piece: dict[str, Any], many: int) -> dict[str, Any]:
    return dict(list(piece.items())[:many])


def _with(kept: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    return kept | {"pieces": _each(kept["pieces"], change)}


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """Every tensor in it changed."""
    import torch

    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _each(item, change) for name, item in value.items()}
    return [_each(item, change) for item in value] if isinstance(value, list) else value


def _prepare(bench: Bench, case: str) -> Hostile | None:
    sort, name = case.split()
    return _handed(bench, name) if sort == "file" else _continued(bench, name)


def _handed(bench: Bench, name: str) -> Hostile:
    suffix, codes, build = FILES[name]
    path = bench.home / f"handed{suffix}"
    build(path)

    def judge(reader: str, code: int, out: str, err: str) -> list[str]:
        problems = ["what it holds was run"] if (path.parent / "ran").exists() else []
        if reader.startswith("import") and code not in codes:
            problems.append(f"{name}: import ends with {code}")
        return problems

    return Hostile(path, ["import {path} --dataset glyphs", *_READERS], judge)


def _continued(bench: Bench, name: str) -> Hostile:
    from advmix_cli import artifacts

    for first in bench.home.glob("unfinished/[!.]*.pt"):
        first.write_bytes(artifacts.state_bytes(UNFINISHED[name](artifacts.read_state(first))))
    return Hostile(bench.home / "unfinished", [*STOPPED, "store verify", "store prune --dry-run"])


FAMILIES = (
    Family(
        "foreign", "files of others: taken, refused, bombs; states of unfinished jobs with wrong parts",
        listed(lambda bench: [*(f"file {name}" for name in FILES), *(f"state {name}" for name in UNFINISHED)]),
        read_all(_prepare, STORE), few=12, batch=20,
    ),
)  # fmt: skip
