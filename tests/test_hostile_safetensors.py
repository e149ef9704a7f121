"""Safetensors files whose headers lie, as checkpoints and to import: exit code 4, at no cost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import Run
from hostile import Measured, cheap, confined, held
from hostile_safetensors import (
    FORGED,
    forged,
    large_header,
    many_tensors,
    raw,
    sparse_declared,
    sparse_small,
)

COMMANDS = ("store verify FILE", "store show FILE", "eval FILE --limit 3", "import FILE --dataset glyphs --arch lenet5")
COSTLY = ("same_bytes", "large header", "many tensors", "sparse", "sparse and declared")


def words(line: str, file: Path) -> list[str]:
    return [word.replace("FILE", str(file)) for word in line.split()]


@pytest.fixture
def own(trained: Path, tmp_path: Path) -> Path:
    """A checkpoint of the store; what an old one has beside it lies beside its copies, too."""
    (found,) = (trained / "checkpoints").glob("*-none-*.safetensors")
    for beside in found.parent.glob(f"{found.stem}.history*"):
        shutil.copy(beside, tmp_path)
    return found


def put(name: str, file: Path, own: Path) -> None:
    """Write the hostile file of that name, made from the checkpoint."""
    if name.startswith("sparse"):
        (sparse_small if name == "sparse" else sparse_declared)(file, own)
    else:
        made = {"large header": large_header, "many tensors": many_tensors}.get(name)
        file.write_bytes(made(own) if made else forged(own, name))


def test_what_is_put_together_here_is_taken(advmix: Run, tmp_path: Path, own: Path) -> None:
    """Else nothing below would prove anything: digests and record are written as the program does."""
    file = tmp_path / own.name
    file.write_bytes(forged(own, "as it was"))
    for line in COMMANDS:
        held(advmix(*words(line, file)), {0}, line)


@pytest.mark.parametrize("name", [name for name in FORGED if name not in COSTLY])
def test_a_header_that_lies_is_damaged(advmix: Run, tmp_path: Path, own: Path, name: str) -> None:
    file = tmp_path / own.name
    file.write_bytes(forged(own, name))
    for line in COMMANDS:
        held(advmix(*words(line, file)), {4}, f"{name}: {line}")


def test_a_header_that_is_none_is_damaged(advmix: Run, tmp_path: Path, own: Path) -> None:
    file = tmp_path / own.name
    for name, data in raw(own).items():
        file.write_bytes(data)
        for line in COMMANDS:
            # Metadata that are no record may be those of somebody else.
            codes = {0, 2, 4} if name.startswith("metadata") and "import" in line else {4}
            held(advmix(*words(line, file)), codes, f"{name}: {line}")


@pytest.fixture(scope="module")
def costs(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """What each command takes on a valid checkpoint."""
    home = Path(shutil.copytree(trained_home, tmp_path_factory.mktemp("stock") / "home"))
    (own,) = (home / "checkpoints").glob("*-none-*.safetensors")
    found = {line: confined(home, *words(line, own)) for line in (*COMMANDS, "store verify")}
    for line, done in found.items():
        held(done, {0}, line)
    return found


@pytest.mark.parametrize("name", COSTLY)
def test_a_file_costs_no_more_than_it_should(
    trained: Path, tmp_path: Path, own: Path, costs: dict[str, Measured], name: str
) -> None:
    file = tmp_path / own.name
    put(name, file, own)
    for line in COMMANDS:
        done = confined(trained, *words(line, file))
        held(done, {4}, f"{name}: {line}")
        cheap(done, costs[line], f"{name}: {line}")
    file.rename(trained / "checkpoints" / "theirs.safetensors")
    done = confined(trained, "store", "verify", "--json")
    held(done, {4}, name)
    cheap(done, costs["store verify"], name)
    states = {entry["name"]: entry["ok"] for entry in done.data["verified"]}
    assert states.pop("theirs.safetensors") is False
    assert len(states) >= 3
    assert all(states.values())
