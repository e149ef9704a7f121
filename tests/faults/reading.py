"""Files with anything changed, read by the functions that read them, without a command around: very many of them."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from checks import content
from damage import STORE, chosen, damaged, folders
from family import Attempt, Family, Tried, seeds
from records import changed, resealed
from scenarios import Bench

LONGEST_S = 10
Change = Callable[[Bench, Path, str, random.Random], bytes | None]


def _checkpoint(path: Path) -> None:
    from advmix_cli import artifacts

    artifacts.checkpoint_record(path)
    artifacts.checkpoint_weights(path, "last")


def _cache(path: Path) -> None:
    from advmix_cli import artifacts

    artifacts.samples_record(path, whole=False)
    artifacts.samples_tensors(path)


def _evaluation(path: Path) -> None:
    from advmix_cli.judging import Shown
    from advmix_cli.workflows.evaluation import record, table

    evaluation = record.read(path)
    pairs = [*itertools.combinations(range(len(evaluation.rows)), 2)]
    table.result(evaluation, path, cached=True, asked=Shown(pairs))


def _figure(path: Path) -> None:
    from advmix_cli import artifacts

    artifacts.figure_record(path.with_suffix(".png"))


def _fingerprint(path: Path) -> None:
    from advmix_cli.workflows import datasets

    datasets.record(path)


def _state(path: Path) -> None:
    from advmix_cli import artifacts

    artifacts.read_state(path)


def _store(path: Path) -> None:
    from advmix_cli.store import Store

    store = Store(path.parent if path.name == "schema" else path.parent.parent)
    store.check_schema()
    store.refs()
    store.leftovers()


READERS: dict[str, Callable[[Path], None]] = {
    "checkpoints": _checkpoint, "samples": _cache, "evaluations": _evaluation, "figures": _figure,
    "datasets": _fingerprint, "unfinished": _state, "refs": _store, "schema": _store,
}  # fmt: skip
_SEALED = ("checkpoints", "samples", "evaluations", "figures", "datasets")


def _bytes(bench: Bench, name: Path, folder: str, chance: random.Random) -> bytes | None:
    original = (bench.stores[STORE] / name).read_bytes()
    return damaged(original, [(bench.stores[STORE] / chosen(bench, folder, chance)).read_bytes()], chance)


def _record(bench: Bench, name: Path, folder: str, chance: random.Random) -> bytes | None:
    data = (bench.stores[STORE] / name).read_bytes()
    with contextlib.suppress(ValueError):  # infinite numbers cannot be sealed
        return resealed(name.as_posix(), data, lambda record: changed(record, chance))
    return None


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _attempt(change: Change, *, sealed: bool) -> Attempt:
    def attempt(bench: Bench, cases: list[str]) -> Tried:
        bench.fresh(STORE)
        for case in cases:
            folder, seed = case.split()
            chance = random.Random(int(seed))
            name = chosen(bench, folder, chance)
            path, original = bench.home / name, (bench.stores[STORE] / name).read_bytes()
            new = change(bench, name, folder, chance)
            path.write_bytes(original if new is None else new)
            yield case, _problems(READERS[folder], path, name, original, sealed or folder in ("refs", "schema"))
            path.write_bytes(original)

    return attempt


def _problems(reader: Callable[[Path], None], path: Path, name: Path, original: bytes, sealed: bool) -> list[str]:
    from advmix_cli.errors import AdvmixError

    try:
        with _in_time():
            reader(path)
    except AdvmixError:
        return []
    except TimeoutError:
        return ["it takes more than ten seconds"]
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        return [f"unexpected: {type(error).__name__}: {str(error)[:100]}, at {Path(at.filename).name}:{at.lineno}"]
    now: Any = path.read_bytes()
    believed = not sealed and now != original and content(name.as_posix(), now) != content(name.as_posix(), original)
    return [f"damage of a {path.suffix} is believed"] if believed else []


FAMILIES = (
    Family(
        "bytes", "any bytes of any stored file changed, then read by the function that reads it",
        seeds(folders), _attempt(_bytes, sealed=False), few=400, batch=1000,
    ),
    Family(
        "seals", "records with a right digest and a wrong content, then read by the function that reads them",
        seeds(lambda bench: [each for each in folders(bench) if each in _SEALED]), _attempt(_record, sealed=True),
        few=400, batch=1000,
    ),
)  # fmt: skip
