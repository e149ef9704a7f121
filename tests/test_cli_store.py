"""The store at the command line: what is removed is what was named, aliases, lists, and what comes back."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
from conftest import Run, content_of

from advmix_cli import models
from advmix_cli.store import Store


def everything(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes()
        for kind in ("checkpoints", "samples", "evaluations", "figures", "refs")
        for path in sorted((home / kind).glob("*"))
    }


def test_a_path_elsewhere_is_never_taken_for_the_stores_own(trained: Path, advmix: Run, tmp_path: Path) -> None:
    own = Path(advmix("store", "path", "a").out.strip())
    before = everything(trained)
    link = tmp_path / "link" / own.name
    link.parent.mkdir()
    link.symlink_to(own)
    for elsewhere in (shutil.copy(own, tmp_path / own.name), link, shutil.copy(own, trained / own.name)):
        assert advmix("store", "remove", elsewhere, "-y").code == 2
    assert everything(trained) == before
    assert advmix("store", "remove", own, "-y").code == 0


def test_a_removal_takes_names_in_full_and_can_be_repeated(trained: Path, advmix: Run) -> None:
    name = Path(advmix("store", "path", "a").out.strip()).stem
    assert advmix("store", "remove", name[:-3], "-y").code == 3, "when a name is gone, its prefix may be another's"
    done = advmix("store", "remove", "a", "nobody", "-y", "--json")
    assert (done.code, done.errors[0]["code"]) == (3, "not-found")
    assert [path.name for path in trained.glob("checkpoints/*")] == [
        Path(advmix("store", "path", "b").out.strip()).name
    ]
    assert advmix("store", "remove", "a", "-y").code == 3
    assert advmix("store", "show", "b").code == 0


def test_a_removal_that_was_stopped_between_an_artifact_and_its_alias_is_ended(trained: Path, advmix: Run) -> None:
    Path(advmix("store", "path", "a").out.strip()).unlink()
    done = advmix("store", "remove", "a", "-y")
    assert done.code == 0, done.err
    assert not (trained / "refs/a").exists()


def test_what_is_removed_says_how_large_it_was(trained: Path, advmix: Run) -> None:
    assert "0.0 kB" not in advmix("store", "remove", "pa", "-y").out


def test_an_evaluation_stays_while_one_of_its_models_does(trained: Path, advmix: Run) -> None:
    advmix("eval", "a", "b", "--limit", "10", "-q")
    advmix("store", "remove", "a", "-y")
    gone = advmix("store", "prune", "-y", "--json").data["files"]
    assert not any("evaluations" in path for path in gone)
    advmix("store", "remove", "b", "-y")
    assert any("evaluations" in path for path in advmix("store", "prune", "-y", "--json").data["files"])


def test_prune_leaves_what_is_being_written_and_takes_orphans(trained: Path, advmix: Run) -> None:
    from advmix_cli import files

    (trained / "samples/.tmp-dead.pt").write_bytes(b"half")
    (trained / "figures").mkdir(exist_ok=True)
    (trained / "figures/alone.svg").write_bytes(b"<svg/>")
    with files.replacing(trained / "samples/alive.pt") as file:
        file.write(b"half")
        gone = {Path(path).name for path in advmix("store", "prune", "-y", "--json").data["files"]}
        assert (trained / "samples/.tmp-alive.pt").exists()
    assert {".tmp-dead.pt", "alone.svg"} <= gone
    assert not (trained / "samples/.tmp-dead.pt").exists()
    assert (trained / "samples/alive.pt").read_bytes() == b"half"


def test_a_removal_holds_what_it_deletes(trained: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    name, busy = Path(advmix("store", "path", "a").out.strip()).stem, []
    delete = Store.delete

    def watched(store: Store, path: Path) -> None:
        def try_it() -> None:
            try:
                with store.lock(name):
                    pass
            except Exception as error:
                busy.append(type(error).__name__)

        other = threading.Thread(target=try_it)
        other.start()
        other.join()
        delete(store, path)

    monkeypatch.setattr(Store, "delete", watched)
    assert advmix("store", "remove", "a", "-y").code == 0
    assert set(busy) == {"LockedError"}


def test_aliases_are_renamed_and_dropped_without_what_they_name(trained: Path, advmix: Run) -> None:
    before = advmix("store", "path", "a").out
    assert advmix("store", "rename", "a", "first").code == 0
    assert advmix("store", "path", "first").out == before
    assert advmix("store", "path", "a").code == 3
    assert advmix("store", "rename", "first", "b").code == 2, "b names another"
    assert advmix("store", "rename", "first", "latest").code == 2
    assert advmix("store", "rename", "nobody", "x").code == 3
    assert advmix("store", "unalias", "first").code == 0
    assert advmix("store", "unalias", "first").code == 3
    assert advmix("store", "unalias").code == 2
    assert Path(before.strip()).exists()


def test_an_alias_that_moves_says_so_also_quietly(trained: Path, advmix: Run) -> None:
    moved = advmix("attack", "a", "--limit", "5", "--steps", "1", "--name", "b", "-q")
    assert "b named the checkpoint" in moved.err
    assert "warning" in moved.err


def test_a_list_says_what_there_is_newest_first(trained: Path, advmix: Run) -> None:
    advmix("eval", "b", "--attack", "fgsm", "--limit", "20", "-q")
    os.utime(Path(advmix("store", "path", "a").out.strip()), (2e9, 2e9))
    Path(advmix("store", "path", "pa").out.strip()).write_bytes(b"damaged")
    entries = advmix("store", "list", "--json").data["artifacts"]
    assert "a" in entries[0]["aliases"]
    by = {entry["kind"]: entry for entry in entries}
    assert entries[0]["n"] == 2000
    assert 0 < entries[0]["accuracy"] <= 100
    assert (by["evaluation"]["n"], by["evaluation"]["attacked"]) == (20, True)
    assert "damaged" in by["sample cache"]["problem"]
    shown = advmix("store", "list").out
    assert "% [" in shown
    assert "damaged: advmix store verify" in shown


def test_a_list_is_sorted_and_narrowed(trained: Path, advmix: Run) -> None:
    def names(*more: str) -> list[str]:
        return advmix("store", "list", *more, "-q").out.split()

    entries = advmix("store", "list", "--json").data["artifacts"]
    best = advmix("store", "list", "--sort", "accuracy", "--json").data["artifacts"]
    assert [entry["accuracy"] for entry in best] == sorted((entry["accuracy"] for entry in entries), reverse=True)
    assert names("--sort", "name") == sorted(names())
    sizes = {entry["name"]: entry["bytes"] for entry in entries}
    assert [sizes[name] for name in names("--sort", "size")] == sorted(sizes.values(), reverse=True)
    assert names("--sort", "model")[0] == next(entry["name"] for entry in entries if entry["model"]), "others are last"
    assert names("--like", "pa") == [next(entry["name"] for entry in entries if "pa" in entry["aliases"])]
    assert names("checkpoints", "--like", "*mixup*") == [name for name in names("checkpoints") if "mixup" in name]
    assert names("--like", "nothing*") == []
    refused = advmix("store", "list", "--sort", "acuracy")
    assert (refused.code, "did you mean accuracy" in refused.err) == (2, True)


def test_a_checkpoint_of_ours_comes_back_as_it_was(trained: Path, advmix: Run, tmp_path: Path) -> None:
    own = Path(advmix("store", "path", "a").out.strip())
    copy = Path(shutil.copy(own, tmp_path / "from a colleague.safetensors"))
    kept = content_of(own)
    assert advmix("store", "remove", "a", "-y").code == 0
    assert advmix("import", copy, "--dataset", "mnist").code == 2
    done = advmix("import", copy, "--name", "again", "--json")
    assert done.data["path"] == str(own)
    assert content_of(own) == kept
    assert advmix("visualize", "curves", "again").code == 0
    assert advmix("eval", "again@last", "--limit", "5").code == 0


def test_a_forced_run_that_fails_leaves_the_old_one_whole(
    trained: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("train", "--limit", "3000", "--epochs", "5", "--batch-size", "32", "--force")
    replace = os.replace

    def refused(source: Path, target: Path) -> None:
        if str(target).endswith(".safetensors"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    assert advmix(*line).code == 1
    monkeypatch.undo()
    monkeypatch.setenv("ADVMIX_HOME", str(trained))
    assert advmix("store", "verify").code == 0
    assert advmix("visualize", "curves", "a").code == 0


def test_a_store_that_can_only_be_read_answers(trained: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("advmix_cli.files.replacing", refused)
    done = advmix("attack", "a", "--limit", "100", "--steps", "10", "--json")
    assert done.data["cached"] is True
    assert advmix("store", "list").code == 0
    assert advmix("attack", "a", "--limit", "50", "--steps", "10").code == 1


def test_the_machine_is_checked_before_the_store_answers(trained: Path, advmix: Run) -> None:
    line = ("attack", "a", "--limit", "100", "--steps", "10")
    for wrong in (("--threads", "99999"), ("--device", "gpu"), ("--device", "cpu:3"), ("--device", "cuda:9999")):
        assert advmix(*line, *wrong).code == 2
    if not torch.cuda.is_available():
        assert advmix(*line, "--device", "cuda").code == 2


def test_latest_is_the_newest_that_fits(trained: Path, advmix: Run, tmp_path: Path) -> None:
    torch.save(models.build("lenet5").state_dict(), tmp_path / "w.pt")
    advmix("import", tmp_path / "w.pt", "-q")
    assert advmix("visualize", "curves").code == 0
    advmix("attack", "--untrained", "--dataset", "glyphs", "--limit", "5", "--steps", "1", "-q")
    assert advmix("visualize", "samples", "latest", "--count", "2").code == 0
    advmix("eval", "a", "--limit", "5", "-q")
    missing = advmix("visualize", "strength")
    assert (missing.code, "with an audit" in missing.err) == (3, True)


def test_hints_lead_somewhere(trained: Path, advmix: Run) -> None:
    name = Path(advmix("store", "path", "pa").out.strip()).stem
    assert "is a sample cache, not a checkpoint" in advmix("attack", name[:-2]).err
