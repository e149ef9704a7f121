"""A store in which something else stands where a file should: pipes, folders, links, devices, and refs that lead away.

Commands on the whole store say what is wrong with one file and go on with the others.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from conftest import Outcome, Run
from hostile import PLACES, cleared, confined, held, loop, newest, nowhere, pipe, zeros
from hostile_objects import harmful
from hostile_pickles import saved
from hostile_records import sealed, wrong_states

from advmix_cli.store import Store

ADVTRAIN = "advtrain --limit 60 --epochs 1 --steps 1"
KINDS = {"checkpoints": ".safetensors", "samples": ".pt", "evaluations": ".json"}
THINGS = [name for name in PLACES if name != "sparse"]


@pytest.fixture(scope="module")
def lived_in(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained store with an evaluation and a run of adversarial training from its newest checkpoint."""
    home = Path(shutil.copytree(trained_home, tmp_path_factory.mktemp("lived-in") / "home"))
    for line in ("eval a --limit 10", ADVTRAIN):
        held(confined(home, *line.split()), {0}, line)
    return home


@pytest.fixture
def stock(lived_in: Path, home: Path) -> Path:
    """This test's own copy of it."""
    return Path(shutil.copytree(lived_in, home))


def whole(run: Callable[..., Outcome], home: Path, kind: str) -> None:
    """`theirs` is no artifact of that kind: it is told of, and everything else is as it was."""
    name = f"theirs{KINDS[kind]}"
    sound = [path.name for each in KINDS for path in (home / each).glob(f"*{KINDS[each]}") if path.name != name]
    verified = run("store", "verify", "--json")
    held(verified, {4}, "verify")
    states = {entry["name"]: entry["ok"] for entry in verified.data["verified"]}
    assert states.pop(name) is False
    assert {name: states[name] for name in sound} == dict.fromkeys(sound, True)
    assert all(states.values())
    assert len(sound) >= 5
    held(run("store", "list"), {0}, "list")
    held(run("store", "list", kind, "--json"), {0}, "list")
    held(run("store", "prune", "-y"), {0}, "prune")
    assert all((home / each / path).exists() for each in KINDS for path in sound if path.endswith(KINDS[each]))
    for line in ("store show theirs", "store verify theirs"):
        held(run(*line.split()), {3, 4}, line)
    if kind == "checkpoints":
        for line in ("eval theirs --limit 5", "attack theirs --limit 5", f"{ADVTRAIN} --init theirs"):
            held(run(*line.split()), {3, 4}, line)
        # Named by `latest` and the newest: those of standard training are asked one after another.
        (home / "refs" / "latest@checkpoints").write_text("checkpoints/theirs\n")
        begun = run(*ADVTRAIN.split(), "--json")
        held(begun, {0}, "advtrain")
        assert begun.data["cached"] is True
        assert "theirs" in begun.err
    elif kind == "samples":
        for line in ("eval a --samples theirs --limit 5", "visualize samples theirs"):
            held(run(*line.split()), {3, 4}, line)
    else:
        held(run("visualize", "matrix", "theirs"), {3, 4})


def removed(run: Callable[..., Outcome], path: Path) -> None:
    """What `verify` says to remove is removed; where the system refuses, it is said."""
    done = run("store", "remove", "theirs", "-y")
    if path.is_dir() and not path.is_symlink():
        held(done, {0, 1, 3, 4})
    else:
        held(done, {0})
        assert not os.path.lexists(path)
    assert Path("/dev/zero").exists()


@pytest.mark.parametrize("thing", [*THINGS, "sparse"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_thing_that_is_no_artifact_stops_nothing(stock: Path, kind: str, thing: str) -> None:
    path = stock / kind / f"theirs{KINDS[kind]}"
    PLACES[thing](path)
    newest(path)

    def run(*words: str) -> Outcome:
        return confined(stock, *words)

    whole(run, stock, kind)
    removed(run, path)


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_waits_for_a_pipe(stock: Path, advmix: Run, kind: str) -> None:
    path = stock / kind / f"theirs{KINDS[kind]}"
    with pipe(path) as waiting:
        newest(path)
        whole(advmix, stock, kind)
        assert not waiting.waited
        for words in (("store", "show", path), ("store", "verify", path)):
            held(advmix(*words), {2, 3, 4})
        removed(advmix, path)
        assert not waiting.waited


@pytest.mark.parametrize("kind", KINDS)
def test_bad_content_stops_nothing(stock: Path, advmix: Run, tmp_path: Path, kind: str) -> None:
    path, mark = stock / kind / f"theirs{KINDS[kind]}", tmp_path / "mark"
    for data in (
        saved(harmful(mark)["system"][0]),
        saved(harmful(mark)["eval"][0], zipped=False),
        sealed([]).encode(),
        sealed({"schema": 2}).encode(),
        sealed({"schema": 2, "kind": "evaluation"}).encode(),
        b"\x80\x02}.",
        b"{}",
        b"[" * 100_000,
    ):
        cleared(path).write_bytes(data)
        newest(path)
        whole(advmix, stock, kind)
    removed(advmix, path)
    assert not mark.exists()


# Refs


def answers(run: Callable[..., Outcome], home: Path, more: Collection[int] = ()) -> None:
    """Whatever the refs say, everything is answered, and from the store; `more` codes may say that it cannot be."""
    for line, codes in (
        ("store list", {0}),
        ("store path latest", {0, 3, 4}),
        ("store path theirs", {3, 4}),
        ("store show theirs", {3, 4}),
        ("eval latest --limit 3", {0, 3, 4}),
        ("eval theirs --limit 3", {3, 4}),
        ("eval t* --limit 3", {3, 4}),
        ("eval a --samples theirs", {3, 4}),
        ("attack theirs --limit 3", {3, 4}),
        ("visualize matrix theirs", {3, 4}),
        ("visualize matrix latest", {0, 3, 4}),
        ("store remove theirs -y", {0, 3, 4}),
        ("store prune --dry-run", {0}),
        ("attack a --limit 100 --steps 10 --name theirs", {0, 1, 4}),
    ):
        done = run(*line.split(), "--json")
        held(done, {*codes, *more}, line)
        if done.code == 0 and line.startswith("store path"):
            assert home.resolve() in Path(done.data["path"]).resolve().parents
            assert ".." not in Path(done.data["path"]).parts


@pytest.mark.parametrize("thing", THINGS)
def test_refs_that_are_no_files(stock: Path, thing: str) -> None:
    for name in ("theirs", "latest@checkpoints", "latest@samples", "latest@evaluations"):
        PLACES[thing](stock / "refs" / name)

    def run(*words: str) -> Outcome:
        return confined(stock, *words)

    answers(run, stock, {1} if thing == "folder" else ())  # a folder in a ref's place is not written over


def test_nobody_waits_for_a_pipe_among_refs(stock: Path, advmix: Run) -> None:
    for name in ("theirs", "latest@checkpoints"):
        with pipe(cleared(stock / "refs" / name)) as waiting:
            answers(advmix, stock)
            assert not waiting.waited
        cleared(stock / "refs" / name)


def test_refs_lead_nowhere_else(stock: Path, advmix: Run) -> None:
    """Copies of artifacts beside the store, and in its other folders, are none of its artifacts."""
    (model,) = (stock / "checkpoints").glob("*-lenet5-none-*.safetensors")
    (cache,), (evaluation,) = (stock / "samples").glob("*.pt"), (stock / "evaluations").glob("*.json")
    for folder in (stock.parent, stock, stock / "checkpoints" / "deeper"):
        folder.mkdir(exist_ok=True)
        for path in (model, cache, evaluation):
            shutil.copy(path, folder / f"outside{path.suffix}")
    targets = "../../outside", "../outside", "deeper/outside", f"{stock.parent}/outside", "./outside", ".."
    for target, kind in zip(targets, itertools.cycle(KINDS)):
        refs = {"theirs": kind, **{f"latest@{each}": each for each in KINDS}}
        for name, of in refs.items():
            (stock / "refs" / name).write_text(f"{of}/{target}\n")
        answers(advmix, stock)
        held(advmix("attack", "latest", "--limit", "3", "--steps", "1"), {0, 3, 4}, target)
        for name in refs:
            cleared(stock / "refs" / name)
    assert all(path.exists() for path in (model, cache, evaluation, stock.parent / "outside.pt"))


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", "checkpoints", "checkpoints/", "/x", "checkpoints/\0", "checkpoints/x\0y", "checkpoints/" + "x" * 300,
        "checkpoints/" + "x" * 100_000, "nothing/x", "../x", "checkpoints/\x1b[31mx", "checkpoints/a\nb", "refs/theirs",
        "checkpoints/\u202ex", "checkpoints/~root", "checkpoints/*", "samples/[", "x" * 5_000_000,
    ],
    ids=lambda text: repr(text[:16]),
)  # fmt: skip
def test_refs_of_odd_content(stock: Path, advmix: Run, text: str) -> None:
    for name in ("theirs", "latest@checkpoints", "latest@samples", "latest@evaluations"):
        (stock / "refs" / name).write_text(text)
    answers(advmix, stock)


# The rest of the store


@pytest.mark.parametrize("thing", PLACES)
def test_a_schema_that_is_none(stock: Path, thing: str) -> None:
    PLACES[thing](cleared(stock / "schema"))
    codes = {0, 4} if thing == "nowhere" else {4}
    for line in ("store list", "store verify", "eval a --limit 10", "train --limit 60 --epochs 1"):
        held(confined(stock, *line.split()), codes, line)


def test_nobody_waits_for_a_schema(stock: Path, advmix: Run) -> None:
    with pipe(cleared(stock / "schema")) as waiting:
        held(advmix("store", "list"), {4})
        assert not waiting.waited


@pytest.mark.parametrize("thing", PLACES)
def test_a_fingerprint_that_is_none(stock: Path, thing: str) -> None:
    """It is computed again; only where it cannot be written is that said."""
    PLACES[thing](cleared(stock / "datasets" / "glyphs.json"))
    done = confined(stock, "eval", "a", "--limit", "10", "--json")
    held(done, {0, 1, 4} if thing == "folder" else {0})
    assert done.code or done.data["cached"] is True


def test_nobody_waits_for_a_fingerprint(stock: Path, advmix: Run) -> None:
    with pipe(cleared(stock / "datasets" / "glyphs.json")) as waiting:
        held(advmix("eval", "a", "--limit", "10"), {0})
        assert not waiting.waited


# Stopped jobs

SHORT = "train --limit 200 --epochs 2 --batch-size 20 --lr 0.02 --threads 1"
"""One thread: sums in another order come to other digests."""


@pytest.fixture
def stopped(home: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state that a run of two epochs leaves when it is stopped after one."""
    write = Store.write

    def stop(self: Store, path: Path, data: bytes) -> Path:
        written = write(self, path, data)
        if path.parent.name == "unfinished":
            raise KeyboardInterrupt
        return written

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", stop)
        held(advmix(*SHORT.split()), {130})
    (state,) = (home / "unfinished").iterdir()
    return state


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of what the run comes to."""
    done = confined(tmp_path_factory.mktemp("uninterrupted"), *SHORT.split(), "--json")
    held(done, {0})
    return str(done.data["digest"])


def begun_again(done: Outcome, digest: str, about: object = "") -> None:
    """The run says so and comes to what it does from the beginning."""
    held(done, {0}, about)
    assert "beginning again" in done.err or "continuing" not in done.err, about
    assert done.data["digest"] == digest, about


def test_a_stopped_job_continues(stopped: Path, advmix: Run, uninterrupted: str) -> None:
    done = advmix(*SHORT.split(), "--json")
    held(done, {0})
    assert "continuing after epoch 1" in done.err
    assert done.data["digest"] == uninterrupted
    assert not stopped.exists()


def test_a_state_with_wrong_parts_is_begun_again(stopped: Path, advmix: Run, home: Path, uninterrupted: str) -> None:
    for what, data in list(wrong_states(stopped))[::3]:
        cleared(stopped).write_bytes(data)
        done = advmix(*SHORT.split(), "--json")
        held(done, {0}, what)
        if "continuing" not in done.err or "beginning again" in done.err:  # else it is a state, if not the one written
            begun_again(done, uninterrupted, what)
        assert not list((home / "unfinished").iterdir()), what
        for path in (home / "checkpoints").iterdir():
            path.unlink()


@pytest.mark.parametrize("thing", PLACES)
def test_a_state_that_is_no_file(stopped: Path, home: Path, uninterrupted: str, thing: str) -> None:
    PLACES[thing](stopped)
    done = confined(home, *SHORT.split(), "--json")
    if thing == "folder":
        held(done, {0, 1, 4})
    else:
        begun_again(done, uninterrupted)
    held(confined(home, "store", "prune", "-y"), {0, 1} if thing == "folder" else {0})


def test_nobody_waits_for_a_state(stopped: Path, advmix: Run, uninterrupted: str, tmp_path: Path) -> None:
    with pipe(cleared(stopped)) as waiting:
        begun_again(advmix(*SHORT.split(), "--json"), uninterrupted)
        assert not waiting.waited


def test_a_state_is_not_executed(stopped: Path, home: Path, advmix: Run, uninterrupted: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for harm, _ in harmful(mark).values():
        for zipped in (True, False):
            cleared(stopped).write_bytes(saved({"key": "x", "pieces": [harm]}, zipped=zipped))
            begun_again(advmix(*SHORT.split(), "--json"), uninterrupted)
            for path in (home / "checkpoints").iterdir():
                path.unlink()
    assert not mark.exists()


def test_links_are_not_followed_out_of_the_store(stock: Path, advmix: Run, tmp_path: Path) -> None:
    """What is removed is the link; what it leads to stays."""
    kept = tmp_path / "kept"
    kept.write_text("dear")
    for kind, suffix in KINDS.items():
        path = stock / kind / f"theirs{suffix}"
        path.symlink_to(kept)
        held(advmix("store", "verify", "theirs"), {4})
        held(advmix("store", "remove", "theirs", "-y"), {0})
        assert not os.path.lexists(path)
    for make in (loop, nowhere, zeros):
        make(stock / "unfinished" / "theirs.000000.pt")
        held(confined(stock, "store", "prune", "-y"), {0})
    assert kept.read_text() == "dear"
