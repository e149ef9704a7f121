"""What ships is whole, small, says how it was made, and does what is written down of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Run

from advmix_cli import artifacts, zoo

LARGEST = 400_000


def test_what_ships_is_written_down() -> None:
    assert {zoo.PREFIX + name for name in zoo.known()} == set(zoo.names())
    assert zoo.names()


@pytest.mark.parametrize("ref", zoo.names())
def test_each_is_whole_and_says_how_it_was_made(ref: str) -> None:
    path, about = zoo.path(ref), zoo.known()[ref.removeprefix(zoo.PREFIX)]
    assert path.stat().st_size <= LARGEST
    record = artifacts.checkpoint_record(path)
    assert record["origin"] in ("train", "advtrain")
    assert record["made"]["command"] == about["trained_with"]
    assert len(record["history"]) == record["epochs"]
    assert (about["arch"], about["dataset"]) == (record["arch"], record["dataset"])
    assert about["lower"] <= about["upper"] <= 100
    assert about["command"].startswith(f"advmix eval {ref} ")


@pytest.mark.parametrize("ref", zoo.names())
def test_each_does_what_is_written_down(ref: str, home: Path, advmix: Run, real_data: Path) -> None:
    about = zoo.known()[ref.removeprefix(zoo.PREFIX)]
    told = advmix("eval", ref, "--certify", "--bounds", "ibp", "--json")
    assert told.code == 0, told.err
    assert told.data["rows"][0]["accuracy"] == about["clean"]
    assert told.data["brackets"][0]["lower"] == pytest.approx(about["certified"], abs=0.02)


def test_it_is_a_model_like_any_other(home: Path, advmix: Run, real_data: Path) -> None:
    ref = zoo.names()[0]
    assert ref in advmix("models", "-q").out.split()
    listed = advmix("models", "--json").data["models"]
    assert {each["name"] for each in listed} >= set(zoo.names())
    assert advmix("store", "show", ref).code == 0
    made = advmix("attack", ref, "--limit", "20", "--steps", "2", "--name", "c", "--json")
    assert made.code == 0, made.err
    assert advmix("eval", "--samples", "c").code == 0
    assert advmix("eval", f"{ref}@last", "--limit", "20").code == 0
    wrong = advmix("eval", "zoo:nothing")
    assert (wrong.code, "the zoo has no nothing" in wrong.err) == (3, True)
    assert advmix("store", "remove", ref, "-y").code == 2
