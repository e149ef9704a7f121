"""A store of the first release's form is kept here: what this version makes of it is what that one made."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from conftest import Run

STORE = Path(__file__).parent / "store-schema-2.tar.xz"
COMMANDS = json.loads((Path(__file__).parent / "store-schema-2.json").read_text())
"""The commands that made it, in their order, and what each gave: see `make_store.py`."""


@pytest.fixture
def old(home: Path) -> Path:
    home.parent.mkdir(exist_ok=True)
    with tarfile.open(STORE) as archive:
        archive.extractall(home, filter="data")
    return home


def test_everything_in_it_is_still_read(old: Path, advmix: Run) -> None:
    verified = advmix("store", "verify", "--json")
    assert verified.code == 0, verified.err
    assert {entry["kind"] for entry in verified.data["verified"]} == {"checkpoint", "sample cache", "evaluation"}
    for alias in ("v", "cache"):
        assert advmix("store", "show", alias).code == 0
    assert advmix("eval", "v", "--limit", "5", "--json").code == 0


def test_the_same_commands_are_answered_from_it(old: Path, advmix: Run) -> None:
    first = advmix(*COMMANDS[0]["command"], "--json").data
    if not first["cached"]:
        record = advmix("store", "show", COMMANDS[0]["gave"], "--json").data
        now = advmix("store", "show", first["checkpoint"], "--json").data
        assert record["fingerprint"] != now["fingerprint"], "the key changed, and the data did not"
        pytest.skip("these versions of Pillow, numpy and torchvision draw other digits: it is other data")
    for entry in COMMANDS:
        data = advmix(*entry["command"], "--json").data
        assert data["cached"] is True
        assert entry["gave"] in data.values()
