"""Records with a right digest and wrong content: a digest is no signature, and whoever writes a file can seal it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run
from hostile import cheap, confined, held, pipe, unclean
from hostile_records import (
    WRONG_CELLS,
    Record,
    cache_record,
    cache_with,
    disguised,
    no_records,
    sealed,
    unsealed,
    variants,
    wrong_indices,
)
from hostile_safetensors import record_of, with_record

ENDS = {0, 2, 3, 4}
TRAIN = "train --limit 3000 --epochs 5 --batch-size 32"
ATTACK = "attack a --limit 100 --steps 10"
EVALS = ("eval a b --limit 10 --attack fgsm --attack pgd --steps 2", "eval a --limit 10 --audit")


@pytest.fixture(scope="module")
def evaluated_home(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained store with two evaluations, one of two models, one with an audit."""
    home = Path(shutil.copytree(trained_home, tmp_path_factory.mktemp("evaluated") / "home"))
    for line in EVALS:
        held(confined(home, *line.split()), {0}, line)
    return home


@pytest.fixture
def stock(evaluated_home: Path, home: Path) -> Path:
    """This test's own copy of it."""
    return Path(shutil.copytree(evaluated_home, home))


def checkpoint(home: Path) -> Path:
    (found,) = (home / "checkpoints").glob("*-lenet5-none-*.safetensors")
    return found


def samples(home: Path) -> Path:
    (found,) = (home / "samples").glob("*.pt")
    return found


def evaluations(home: Path) -> list[Path]:
    """That of two models, and that with an audit."""
    found = sorted((home / "evaluations").glob("*.json"), key=lambda path: -len(unsealed(path.read_text())["rows"]))
    assert len(found) == 2
    return found


def each_held(
    advmix: Run,
    made: Iterable[tuple[str, bytes]],
    own: Path,
    elsewhere: Path,
    always: str,
    others: tuple[str, ...],
) -> None:
    """Every file is verified; put in the place of `own`, a sound one is met by `always` and one of `others` in turn.

    Of what did not pass each seventh is met by one of these. FILE is its path, NAME its name in the store.
    """
    files: list[tuple[str, Path]] = []
    for number, (what, data) in enumerate(made):
        path = elsewhere / str(number) / own.name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        for beside in own.parent.glob(f"{own.stem}.history*"):
            shutil.copy(beside, path.parent)
        files.append((what, path))
    assert len(files) >= 30
    outcome = advmix("store", "verify", "--json", *(path for _, path in files))
    held(outcome, {0, 4}, "verify")
    states = [entry["ok"] for entry in outcome.data["verified"]]
    assert len(states) == len(files)
    assert states.count(False) > len(states) / 3
    for number, ((what, path), sound) in enumerate(zip(files, states, strict=True)):
        lines = (always, others[number % len(others)])
        if not sound:
            lines = () if number % 7 else lines[number // 7 % 2 :][:1]
        shutil.copy(path, own)
        for line in lines:
            words = [{"FILE": str(path), "NAME": own.stem}.get(word, word) for word in line.split()]
            held(advmix(*words), ENDS, f"{what}: {line}")


def test_records_of_checkpoints(stock: Path, advmix: Run, tmp_path: Path) -> None:
    own = checkpoint(stock)
    record = record_of(own)
    made = ((what, with_record(own, changed)) for what, changed in variants(record, 2))
    others = (
        "store show FILE",
        "eval FILE --limit 5",
        "attack FILE --limit 2 --steps 1",
        "visualize curves NAME",
        "eval --samples pa",
        "store prune --dry-run",
        "store list",
    )
    each_held(advmix, made, own, tmp_path / "made", TRAIN, others)


def test_records_of_caches(stock: Path, advmix: Run, tmp_path: Path) -> None:
    own = samples(stock)
    record = cache_record(own)
    made = ((what, cache_with(own, changed)) for what, changed in variants(record, 2))
    others = (
        "store show FILE",
        "eval a --samples FILE --limit 5",
        "eval --samples NAME",
        "visualize samples NAME --count 2",
        "store prune --dry-run",
        "store list",
    )
    each_held(advmix, made, own, tmp_path / "made", ATTACK, others)


@pytest.mark.parametrize("which", [0, 1], ids=["of two models", "with an audit"])
def test_records_of_evaluations(stock: Path, advmix: Run, tmp_path: Path, which: int) -> None:
    own = evaluations(stock)[which]
    record = unsealed(own.read_text())
    made = [(what, sealed(changed).encode()) for what, changed in variants(record, 3 if which else 4)]
    pictures = ("reliability", "matrix") if not which else ("strength", "landscape")
    others = (
        "store show FILE",
        *(f"visualize {picture} FILE" for picture in pictures),
        "store prune --dry-run",
        "store list",
    )
    each_held(advmix, made[:: 2 if len(made) > 400 else 1], own, tmp_path / "made", EVALS[which], others)


def test_what_is_no_record_is_damaged(stock: Path, advmix: Run) -> None:
    """A list, a word, a schema and nothing else; and the record of another kind."""
    model, cache, evaluation = checkpoint(stock), samples(stock), evaluations(stock)[0]
    kinds = [record_of(model), cache_record(cache), unsealed(evaluation.read_text())]
    for own, seal, line in (
        (model, with_record, TRAIN),
        (cache, cache_with, ATTACK),
        (evaluation, lambda path, record: sealed(record).encode(), EVALS[0]),
    ):
        before = own.read_bytes()
        foreign = [(f"the record of a {kind['kind']}", kind) for kind in kinds if own.stem != kind["name"]]
        for what, value in (*no_records(), *foreign):
            if value is None and own is cache:
                continue  # stands for its own record here
            own.write_bytes(seal(own, value))
            held(advmix("store", "show", own.stem), {4}, what)
            held(advmix(*line.split()), {4}, f"{what}: {line}")
            own.write_bytes(before)


@pytest.mark.parametrize("what", sorted(WRONG_CELLS))
def test_an_evaluation_whose_numbers_cannot_be(stock: Path, what: str) -> None:
    """In processes of their own: flags for many more images than there are took minutes to compare."""
    own = evaluations(stock)[0]
    lines = (f"store verify {own.stem}", f"store show {own.stem}", EVALS[0], f"visualize matrix {own.stem}")
    usual = {line: confined(stock, *line.split()) for line in lines[:1]}
    record = copy.deepcopy(unsealed(own.read_text()))
    WRONG_CELLS[what](record)
    own.write_text(sealed(record))
    for line in lines:
        done = confined(stock, *line.split())
        held(done, {4}, f"{what}: {line}")
        cheap(done, usual[lines[0]], f"{what}: {line}")


def test_a_cache_of_images_that_are_not_in_the_split(stock: Path, advmix: Run) -> None:
    own = samples(stock)
    before = own.read_bytes()
    own.write_bytes(cache_with(own))
    for line in ("store verify pa", "store show pa", "eval a --samples pa", "visualize samples pa"):
        held(advmix(*line.split()), {0}, f"as it was: {line}")
    n = cache_record(own)["n"]
    for what, index in wrong_indices(n).items():
        own.write_bytes(before)
        if index is None:
            content = torch.load(own, weights_only=True)
            content.pop("index")
            torch.save(content, own)
        else:
            own.write_bytes(cache_with(own, index=index))
        for line in ("eval a b --samples pa", "visualize samples pa --count 3"):
            held(advmix(*line.split()), {4}, f"{what}: {line}")
        held(advmix("store", "verify"), {0, 4}, what)
    for what, value in (("labels", torch.full((n,), 10**6)), ("labels", torch.full((n,), -1))):
        own.write_bytes(before)
        own.write_bytes(cache_with(own, **{what: value}))
        held(advmix("eval", "a", "b", "--samples", "pa"), {2, 4}, what)


def test_texts_of_records_reach_no_terminal_or_page(stock: Path, advmix: Run, tmp_path: Path) -> None:
    model, cache, (two, audited) = checkpoint(stock), samples(stock), evaluations(stock)
    page = tmp_path / "page.html"

    def seal(path: Path, record: Record) -> bytes:
        return sealed(record).encode()

    cases: tuple[tuple[Path, Callable[[Path, Any], bytes], Record, tuple[str, ...]], ...] = (
        (model, with_record, record_of(model), (TRAIN, "eval a --limit 4", "visualize curves a", "eval --samples pa")),
        (cache, cache_with, cache_record(cache), (ATTACK, "eval a --samples pa", "visualize samples pa")),
        (two, seal, unsealed(two.read_text()), (f"{EVALS[0]} --report {page}", "visualize matrix NAME")),
        (audited, seal, unsealed(audited.read_text()), (f"{EVALS[1]} --report {page}", "visualize strength NAME")),
    )
    for own, write, record, lines in cases:
        before = own.read_bytes()
        marked = disguised(record)
        for key, value in marked.items():
            changed = record | {key: value}
            if changed == record:
                continue
            own.write_bytes(write(own, changed))
            verified = advmix("store", "verify", own.stem, "--json")
            held(verified, {0, 4}, key)
            turn = (*lines, "store list", "store show NAME")
            for line in turn if not verified.code else turn[-1:]:
                page.unlink(missing_ok=True)
                done = advmix(*line.replace("NAME", own.stem).split())
                held(done, ENDS, f"{own.parent.name} {key}: {line}")
                assert not page.exists() or not unclean(page.read_text())
        own.write_bytes(before)


def test_a_cache_opens_no_file_that_it_names(stock: Path, advmix: Run, tmp_path: Path) -> None:
    """It says what it was made against; a path in it is somebody else's, and the model is asked for."""
    own = samples(stock)
    record = cache_record(own)
    elsewhere = tmp_path / "elsewhere" / "model.safetensors"
    elsewhere.parent.mkdir()
    shutil.copy(checkpoint(stock), elsewhere)
    theirs = tmp_path / "theirs.pt"
    for path in (elsewhere, "../elsewhere/model.safetensors", "~/x", "/dev/zero", "/proc/self/environ", "x\0y"):
        lineage = record["model"] | {"name": "gone", "path": str(path)}
        theirs.write_bytes(cache_with(own, record | {"model": lineage}))
        for line in ("eval --samples", "visualize samples"):
            done = confined(stock, *line.split(), theirs)
            held(done, {2, 3, 4}, f"{line} {path}")
    with pipe(tmp_path / "pipe.safetensors") as waiting:
        lineage = record["model"] | {"name": "gone", "path": str(waiting.path)}
        theirs.write_bytes(cache_with(own, record | {"model": lineage}))
        held(advmix("eval", "--samples", theirs), {2, 3, 4})
        assert not waiting.waited


def test_a_cache_that_is_handed_on_works_with_a_model_that_is_named(stock: Path, advmix: Run, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.pt"
    shutil.copy(samples(stock), theirs)
    held(advmix("eval", "--samples", theirs), {0})
    held(advmix("eval", "b", "--samples", theirs), {0})


def test_json_that_is_no_evaluation(stock: Path, advmix: Run) -> None:
    own = evaluations(stock)[0]
    text = own.read_text()
    outer = json.loads(text)
    for what, data in {
        "deep": "[" * 200_000,
        "deep inside": '{"record": ' + "[" * 200_000 + "]" * 200_000 + ', "sha256": "x"}',
        "no number": '{"record": NaN, "sha256": "x"}',
        "an endless number": '{"record": ' + "9" * 100_000 + ', "sha256": "x"}',
        "a float beyond floats": '{"record": 1e999, "sha256": "x"}',
        "no seal": json.dumps(outer["record"]),
        "a seal of words": json.dumps(outer | {"sha256": []}),
        "a list": json.dumps([outer["record"], outer["sha256"]]),
        "a word": '"record"',
        "not UTF-8": b"\xff\xfe\x00",
        "half a letter": '{"record": "\\ud800", "sha256": "x"}',
        "nothing": "",
    }.items():
        own.write_bytes(data if isinstance(data, bytes) else data.encode())
        for line in (f"store show {own.stem}", "store verify", EVALS[0], f"visualize matrix {own.stem}"):
            held(advmix(*line.split()), {4}, f"{what}: {line}")
        held(advmix("store", "prune", "--dry-run"), {0}, what)
