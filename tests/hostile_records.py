"""Records that are sealed rightly and are none: a digest says that nothing changed, not that it was ever right."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hostile import ESCAPES
from hostile_pickles import saved

Record = dict[str, Any]


def canonical(value: Any) -> str:
    """The one text of a value that digests are of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def sealed(record: Any) -> str:
    """Any value as if it had been written as a record."""
    return canonical({"record": record, "sha256": hashlib.sha256(canonical(record).encode()).hexdigest()})


def unsealed(text: str) -> Any:
    """The record, unchecked."""
    return json.loads(text)["record"]


# Variants

VALUES: tuple[Any, ...] = (
    None, [], {}, "", -1, 0, 10**400, 1e308, True, [[[[[]]]]], {"a": {"b": {"c": []}}}, "../../x", ESCAPES,
    [0] * 10_000, 0.5, "x" * 300,
)  # fmt: skip
"""What a value is replaced by; most are of no use as most things."""


def places(value: Any, depth: int = 3) -> Iterator[tuple[Any, ...]]:
    """Where in a record there is something: by keys and positions, of lists the first and the last."""
    if depth and isinstance(value, dict):
        keys: list[Any] = list(value)
    elif depth and isinstance(value, list):
        keys = sorted({0, len(value) - 1}) if value else []
    else:
        return
    for key in keys:
        yield (key,)
        for rest in places(value[key], depth - 1):
            yield (key, *rest)


def changed(record: Any, place: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """A copy in which `change` was made to what holds that place."""
    copied = copy.deepcopy(record)
    holder = copied
    for key in place[:-1]:
        holder = holder[key]
    change(holder, place[-1])
    return copied


def _deleted(holder: Any, key: Any) -> None:
    del holder[key]


def _replaced(value: Any) -> Callable[[Any, Any], None]:
    def replace(holder: Any, key: Any) -> None:
        holder[key] = copy.deepcopy(value)

    return replace


def variants(record: Record, depth: int = 3) -> Iterator[tuple[str, Any]]:
    """(what was done, a record): at the top each key with every value, deeper with some of them in turn."""
    for turn, place in enumerate(places(record, depth)):
        shown = ".".join(map(str, place))
        yield f"{shown} deleted", changed(record, place, _deleted)
        some = VALUES if len(place) == 1 else tuple(VALUES[(turn + i) % len(VALUES)] for i in range(0, 15, 5))
        for value in some:
            yield f"{shown} = {str(value)[:20]!r}", changed(record, place, _replaced(value))
    for shown, other in no_records():
        yield shown, other


def no_records() -> Iterator[tuple[str, Any]]:
    """(what it is, a value) that is no record of any kind."""
    for value in (
        *VALUES,
        {"schema": 2},
        {"schema": "2"},
        {"schema": 2.0, "kind": "checkpoint"},
        ["schema", 2],
        {"": 2},
    ):
        yield f"the record is {str(value)[:20]!r}", value
    for kind in ("checkpoint", "samples", "evaluation", "figure", "", 5, ["checkpoint"]):
        yield f"nothing but the kind {kind!r}", {"schema": 2, "kind": kind, "name": "x", "key": "y"}


def disguised(record: Record) -> Record:
    """The record with escape sequences behind each text in it but those that are chosen from a list."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else _marked(value)

    return walk(record)  # type: ignore[no-any-return]


def _marked(value: Any) -> Any:
    return value + ESCAPES if isinstance(value, str) and value else value


# Evaluations


def _cells(change: Callable[[Record], None]) -> Callable[[Record], None]:
    def all_cells(record: Record) -> None:
        for row in record["cells"]:
            for cell in row:
                change(cell)

    return all_cells


def _set(**values: Any) -> Callable[[Record], None]:
    return _cells(lambda cell: cell.update(values))


WRONG_CELLS: dict[str, Callable[[Record], None]] = {
    "400,000 flags for few images": _set(right=base64.b64encode(b"\xff" * 50_000).decode()),
    "a megabyte of flags": _set(right=base64.b64encode(b"\xff" * 1_000_000).decode()),
    "no flags": _set(right=""),
    "flags in no base64": _set(right="!!!"),
    "flags beyond the images": _cells(lambda cell: cell.update(n=cell["n"] - 8)),
    "no images": _set(n=0, correct=0, right=""),
    "fewer than no images": _set(n=-10, correct=-5),
    "more right than images": _cells(lambda cell: cell.update(correct=cell["n"] + 1)),
    "fewer right than none": _set(correct=-1),
    "a count that is not that of the flags": _cells(lambda cell: cell.update(correct=cell["correct"] - 1)),
    "classes of fewer images than there are": _set(by_class=[[1, 0]] * 10),
    "a class with more right than images": _cells(
        lambda cell: cell.update(by_class=[[0, cell["correct"]], [cell["n"], 0], *[[0, 0]] * 8])
    ),
    "classes of words": _set(by_class=[["many", "few"]]),
    "names of fewer classes": lambda record: record.update(classes=["one"]),
    "numbers for names of classes": lambda record: record.update(classes=list(range(10))),
    "half an image": _set(n=10.5),
    "images beyond floats": _set(n=10**400, correct=10**399),
    "a loss of words": _set(loss="much"),
    "a loss beyond floats": _set(loss=10**400),
    "a change of words": _set(change={"linf_max": "x", "l2_max": "y"}),
    "a change of nothing": _set(change={}),
    "stages of nothing": _set(after=[[]]),
    "passes of words": _set(passes=[["many", "few"]]),
    "passes of parts that there are not": _set(passes=[[1, 1]] * 7),
    "stages beyond floats": _set(after=[["pgd", 10**400]]),
    "a cell too many": lambda record: record["cells"][0].append(record["cells"][0][0]),
    "a cell too few": lambda record: record["cells"][0].pop(),
    "a row too many": lambda record: record["cells"].append(record["cells"][0]),
    "no rows": lambda record: record.update(rows=[], cells=[]),
    "no columns": lambda record: record.update(columns=[], cells=[[] for _ in record["rows"]]),
    "100,000 columns": lambda record: record.update(
        columns=record["columns"][:1] * 100_000, cells=[row[:1] * 100_000 for row in record["cells"]]
    ),
    "the worst of what is not there": lambda record: record["columns"][-1].update(kind="worst", of=[999]),
    "the worst of all but": lambda record: record["columns"][-1].update(kind="worst", of=[-1]),
    "the worst of words": lambda record: record["columns"][-1].update(kind="worst", of=["x"]),
    "a kind of column that is none": lambda record: record["columns"][-1].update(kind=ESCAPES),
    "an attack without a threat": lambda record: record["columns"][-1].update(kind="attack", threat=None),
    "an audit of nothing": lambda record: record["rows"][0].update(audit={}),
    "an audit of words": lambda record: record["rows"][0].update(audit={"verdict": ESCAPES, "checks": "x"}),
    "bins of words": lambda record: record["rows"][0].update(reliability=[["x", "y", "z"]]),
    "bins beyond floats": lambda record: record["rows"][0].update(reliability=[[10**400, 1e308, -1e308]]),
    "bins of two": lambda record: record["rows"][0].update(reliability=[[1, 2]]),
    "a lineage of nothing": lambda record: record["rows"][0].update(lineage={}),
    "a run of words": lambda record: record["rows"][0].update(run="x"),
    "seeds of words": lambda record: record["rows"][0].update(run={"id": "x", "seeds": ESCAPES}),
}  # fmt: skip
"""Changes to an evaluation's record, each of which makes it none."""


# Caches


def cache_record(path: Path) -> Record:
    """The record of a sample cache, unchecked."""
    content = torch.load(path, weights_only=True)
    return unsealed(content["advmix"])  # type: ignore[no-any-return]


def cache_with(path: Path, record: Any = None, **tensors: Any) -> bytes:
    """The cache with another record (None: its own, with the digest of its tensors now) or other tensors."""
    content = torch.load(path, weights_only=True) | tensors
    if record is None:
        ours = {name: content[name] for name in ("adv_inputs", "labels", "index")}
        record = unsealed(content["advmix"]) | {"digest": tensors_digest(ours)}
    return saved(content | {"advmix": sealed(record)})


def tensors_digest(tensors: dict[str, torch.Tensor]) -> str:
    """The digest of tensors, as a record has it."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(canonical([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]).encode())
        total.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def wrong_indices(n: int) -> dict[str, Any]:
    """Positions in a split of `n` images that are none, for a cache of as many."""
    right = torch.arange(n)
    return {
        "beyond the split": right + 10**9,
        "before the split": right - 5,
        "fractions": right.float(),
        "too few": right[:-1],
        "a table": right[:, None],
        "none at all": None,
        "the largest": torch.full((n,), 2**63 - 1),
    }


# States of stopped jobs


def wrong_states(path: Path) -> Iterator[tuple[str, bytes]]:
    """(what was done, a piece of a stopped job's state): each part left out, or replaced."""
    whole = path.read_bytes()
    begin = whole.index(b"PK\x03\x04")
    before, archive = whole[:begin], whole[begin:]
    content = torch.load(io.BytesIO(archive), weights_only=True)

    def written(value: Any) -> bytes:
        """The file with the digest, where there is one, of what it now holds."""
        data = saved(value)
        old, new = (hashlib.sha256(each).hexdigest().encode() for each in (archive, data))
        return before.replace(old, new) + data

    for place in places(content, 4):
        shown = ".".join(map(str, place))
        yield f"{shown} deleted", written(changed(content, place, _deleted))
        value = VALUES[len(shown) % len(VALUES)]
        if value != 10**400:
            yield f"{shown} = {str(value)[:20]!r}", written(changed(content, place, _replaced(value)))
    for value in (None, [], {}, "x", 5, torch.zeros(3)):
        yield f"all of it is {value!r}", written(value)
    yield "one bit", whole[:-200] + bytes([whole[-200] ^ 1]) + whole[-199:]
