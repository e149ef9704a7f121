"""Checkpoints and caches: deterministic, verified, readable without torch and never executed."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import CHECKPOINT, MADE, samples_record
from hostile_pickles import CLAIMS, NESTED

from advmix_cli import artifacts, models
from advmix_cli.config import EvalSettings
from advmix_cli.errors import DamagedError, NotFoundError, UnsafeError, UsageError
from advmix_cli.settings import canonical_json


def weights(seed: int = 0, arch: str = "lenet5") -> dict[str, torch.Tensor]:
    return models.build(arch, seed).state_dict()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    path.write_bytes(artifacts.checkpoint_bytes(weights(0), weights(1), CHECKPOINT))
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "a.pt"
    x = torch.rand((6, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    with path.open("wb") as file:
        artifacts.samples_writer(x, torch.arange(6), torch.arange(6), samples_record(6))(file)
    return path


@pytest.mark.parametrize("arch", ["lenet5", "preactresnet18"])
def test_a_checkpoint_comes_back(tmp_path: Path, arch: str) -> None:
    best, last = weights(0, arch), weights(1, arch)
    path = tmp_path / "a.safetensors"
    path.write_bytes(artifacts.checkpoint_bytes(best, last, CHECKPOINT))
    record = artifacts.checkpoint_record(path)
    assert record["digests"]["best"] == artifacts.tensors_digest(best)
    for which, expected in (("best", best), ("last", last)):
        found = artifacts.checkpoint_weights(path, which)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def test_bytes_are_the_same_every_time_and_equal_weights_are_kept_once() -> None:
    first = artifacts.checkpoint_bytes(weights(0), weights(1), CHECKPOINT)
    assert first == artifacts.checkpoint_bytes(weights(0), weights(1), CHECKPOINT)
    assert len(artifacts.checkpoint_bytes(weights(0), weights(0), CHECKPOINT)) < 0.6 * len(first)


def test_one_metadata_key(checkpoint: Path) -> None:
    from safetensors import safe_open

    with safe_open(checkpoint, "pt") as file:
        assert list(file.metadata()) == ["advmix"]


def flipped(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("where", [0.0, 0.0005, 0.001, 0.004, 0.2, 0.5, 0.8, 0.999999])
def test_a_flipped_bit_in_a_checkpoint_is_found(checkpoint: Path, where: float) -> None:
    flipped(checkpoint, int(where * os.path.getsize(checkpoint)))
    with pytest.raises(DamagedError):
        artifacts.checkpoint_record(checkpoint)


def test_a_checkpoint_is_verified_once_unless_it_changes(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from advmix_cli.artifacts import checkpoints

    times: list[int] = []
    real = checkpoints.digest_of
    monkeypatch.setattr(checkpoints, "digest_of", lambda parts: (times.append(1), real(parts))[1])
    monkeypatch.setattr(checkpoints, "_SETTLED", 1 << 62)
    record = artifacts.checkpoint_record(checkpoint)
    assert artifacts.checkpoint_record(checkpoint) == record
    assert len(times) == 4, "a file of this moment may change without its times"
    monkeypatch.setattr(checkpoints, "_SETTLED", -(1 << 60))
    assert artifacts.checkpoint_record(checkpoint) == artifacts.checkpoint_record(checkpoint) == record
    assert len(times) == 6
    content = bytearray(checkpoint.read_bytes())
    content[-1] ^= 1
    checkpoint.write_bytes(content)
    os.utime(checkpoint, ns=(1, 1))
    with pytest.raises(DamagedError, match="not what was written"):
        artifacts.checkpoint_record(checkpoint)


def test_a_flipped_bit_anywhere_in_the_content_of_a_cache_is_found(samples: Path) -> None:
    size = os.path.getsize(samples)
    original = samples.read_bytes()
    found = 0
    for position in range(0, size, 37):
        flipped(samples, position)
        try:
            x, y, _ = artifacts.samples_tensors(samples)
        except (DamagedError, UsageError):
            found += 1
        else:  # padding of the archive: the content is what it was
            assert torch.equal(y, torch.arange(6))
            assert torch.equal(x, torch.rand((6, 1, 32, 32), generator=torch.Generator().manual_seed(0)))
        samples.write_bytes(original)
    assert found > 0.9 * size / 37


@pytest.mark.parametrize("part", [0, 4, 100, 0.5, 0.999])
def test_truncated_files_are_refused(checkpoint: Path, samples: Path, part: float) -> None:
    for path in (checkpoint, samples):
        data = path.read_bytes()
        path.write_bytes(data[: int(part if part >= 4 or part == 0 else part * len(data))])
    with pytest.raises(DamagedError):
        artifacts.checkpoint_record(checkpoint)
    with pytest.raises(DamagedError):
        artifacts.samples_tensors(samples)


def test_an_unknown_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(artifacts.checkpoint_bytes(weights(), weights(), CHECKPOINT | {"schema": 99}))
    with pytest.raises(DamagedError) as error:
        artifacts.checkpoint_record(path)
    assert error.value.code == "unknown-schema"


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(NotFoundError):
        artifacts.checkpoint_record(tmp_path / "none.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in weights().items()}, tmp_path / "foreign.safetensors")
    with pytest.raises(UsageError) as error:
        artifacts.checkpoint_record(tmp_path / "foreign.safetensors")
    assert "advmix import" in error.value.hint


class Harmful:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_never_executed(tmp_path: Path, zipped: bool) -> None:
    mark, path = tmp_path / "mark", tmp_path / "bad.pt"
    content = {"adv_inputs": torch.rand(2, 1, 32, 32), "labels": torch.arange(2), "x": Harmful(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeError, match=r"io\.open"):
        artifacts.samples_tensors(path)
    archive = artifacts.read_archive(path)
    with pytest.raises(UnsafeError):
        archive.plain()
    assert torch.equal(archive.loaded(archive.value["labels"]), torch.arange(2))
    path.with_suffix(".safetensors").write_bytes(path.read_bytes())
    with pytest.raises(UnsafeError):
        artifacts.checkpoint_record(path.with_suffix(".safetensors"))
    plain = tmp_path / "plain.pkl"
    plain.write_bytes(pickle.dumps(Harmful(mark)))
    with pytest.raises(UnsafeError):
        artifacts.read_archive(plain)
    assert not mark.exists()


def test_forged_headers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensor = '{"a":{"dtype":%s,"shape":%s,"data_offsets":[0,%s]}}'
    for header in (
        "[" * 100_000,
        tensor % ('"F99"', "[1]", 4),
        tensor % ('"F32"', "[7]", 4),
        tensor % ('"F32"', "[1]", "4.0"),
    ):
        path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\0" * 4)
        with pytest.raises(DamagedError):
            artifacts.safetensors(path)


def test_a_forged_header_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(DamagedError):
        artifacts.checkpoint_record(path)


def test_records_need_no_torch(checkpoint: Path, samples: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from advmix_cli import artifacts\n"
        "one, two = (Path(a) for a in sys.argv[1:])\n"
        "print(artifacts.checkpoint_record(one)['key'], artifacts.samples_record(two)['key'])\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, checkpoint, samples], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (f"{'0' * 64} {'0' * 64}\n", "")


def test_caches_have_the_fields_keys(samples: Path) -> None:
    content = torch.load(samples, weights_only=True)
    assert content["adv_inputs"].dtype == torch.float32
    assert content["labels"].dtype == torch.int64
    assert content["save_type"] == "float"
    assert set(content) == {"adv_inputs", "labels", "index", "save_type", "advmix"}


def test_8_bit_caches_of_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "theirs.pt"
    pixels = torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2)
    torch.save({"adv_inputs": pixels, "labels": torch.arange(3), "save_type": "int"}, path)
    assert artifacts.samples_record(path) is None
    x, y, _ = artifacts.samples_tensors(path)
    assert torch.equal(x, pixels.float() / 255)
    assert torch.equal(y, torch.arange(3))


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"adv_inputs": torch.rand(2, 1, 4, 4)},
        {"adv_inputs": torch.rand(2, 16), "labels": torch.arange(2)},
        {"adv_inputs": torch.rand(2, 1, 4, 4), "labels": torch.arange(3)},
        {"adv_inputs": torch.rand(2, 1, 4, 4), "labels": torch.rand(2)},
        {"adv_inputs": torch.rand(0, 1, 4, 4), "labels": torch.arange(0)},
        {"adv_inputs": torch.full((2, 1, 4, 4), float("nan")), "labels": torch.arange(2)},
        {"adv_inputs": torch.full((2, 1, 4, 4), 200, dtype=torch.uint8), "labels": torch.arange(2)},
    ],
    ids=["list", "no labels", "flat", "lengths", "float labels", "empty", "nan", "bytes"],
)
def test_files_that_are_no_caches_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UsageError):
        artifacts.samples_tensors(tmp_path / "a.pt")


def test_a_record_cannot_be_edited(checkpoint: Path) -> None:
    data = checkpoint.read_bytes()
    assert data.count(b"lenet5") == 1
    checkpoint.write_bytes(data.replace(b"lenet5", b"lenet6"))
    with pytest.raises(DamagedError, match="record"):
        artifacts.checkpoint_record(checkpoint)
    assert canonical_json(CHECKPOINT) == canonical_json(dict(reversed(CHECKPOINT.items())))


@pytest.mark.parametrize("make", [*CLAIMS, *NESTED], ids=lambda make: make.__name__)
def test_what_a_file_claims_is_checked(tmp_path: Path, make: Callable[[], bytes]) -> None:
    path = tmp_path / "theirs.pt"
    path.write_bytes(make())
    with pytest.raises(DamagedError):
        artifacts.read_archive(path).plain()


def test_a_record_is_checked_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for change in ({"name": "../a"}, {"epochs": -1}, {"arch": "lenet6"}, {"shape": "x"}, {"made": None}):
        path.write_bytes(artifacts.checkpoint_bytes(weights(), weights(), CHECKPOINT | change))
        with pytest.raises(DamagedError, match=next(iter(change))):
            artifacts.checkpoint_record(path)


def test_an_evaluations_flags_are_those_of_its_images(tmp_path: Path) -> None:
    cell = {"n": 3, "correct": 1, "loss": None, "right": "gA==", "after": [], "change": None}
    clean = {
        "kind": "clean", "label": "clean", "threat": None, "bound": None, "source": None, "joint": True, "of": [],
        "further": False,
    }  # fmt: skip
    lineage = {"name": "m", "weights": "best", "digest": "0" * 64, "arch": "lenet5"}
    row = {"label": "m", "lineage": lineage, "run": None, "reliability": [[3, 0.5, 0.5]], "audit": None}
    record = {
        "schema": 2, "kind": "evaluation", "name": "e", "key": "0" * 64, "made": MADE, "fingerprint": "1" * 64,
        "settings": EvalSettings("mnist", "test", 3, ()).to_dict(), "rows": [row], "columns": [clean],
        "cells": [[cell]],
    }  # fmt: skip
    assert artifacts.check(record, "evaluation", tmp_path) == record
    for change in ({"correct": 2}, {"right": "gAA="}, {"right": "/w==", "correct": 8}, {"n": 0}):
        with pytest.raises(DamagedError):
            artifacts.check(record | {"cells": [[cell | change]]}, "evaluation", tmp_path)
