"""The data sets are what they say, wherever they come from."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from advmix_cli import data
from advmix_cli.errors import AdvmixError, DamagedError, UsageError
from advmix_cli.workflows.session import Session


def test_glyphs_are_the_same_for_everyone_and_balanced() -> None:
    train, test = (data.load("glyphs", split, Path("nowhere")) for split in ("train", "test"))
    assert (len(train), len(test)) == (10_000, 2_000)
    assert train.x.dtype == torch.uint8
    assert train.x.shape[1:] == (1, 32, 32)
    assert torch.bincount(train.y).tolist() == [1000] * 10
    assert torch.bincount(test.y).tolist() == [200] * 10
    again = data.load("glyphs", "test", Path("elsewhere"))
    assert torch.equal(test.x, again.x)
    assert not (train.x[:2000] == test.x).flatten(1).all(1).any()
    assert len(torch.unique(train.x.flatten(1)[:200], dim=0)) == 200


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UsageError) as error:
        data.info("minst")
    assert "mnist" in error.value.hint


def test_a_fingerprint_is_computed_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session.open()
    value = session.fingerprint("glyphs")
    assert json.loads((home / "datasets/glyphs.json").read_text())["record"]["fingerprint"] == value

    def again(name: str, root: Path) -> str:
        raise AssertionError("computed again")

    monkeypatch.setattr(data, "fingerprint", again)
    assert Session.open().fingerprint("glyphs") == value
    (home / "datasets/glyphs.json").write_text("{")
    assert session.fingerprint("glyphs") == value  # a session reads it once
    with pytest.raises(AssertionError, match="computed again"):
        Session.open().fingerprint("glyphs")


def test_a_fingerprint_is_computed_anew_when_what_it_depends_on_changes(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of drawn digits the libraries that draw, resize and draw at random, and the version of the drawing."""
    stamp = data.stamp("glyphs", home)
    assert set(stamp) == {"pillow", "numpy", "torchvision", "version"}
    key = data.identity(data.info("glyphs"), "x")
    monkeypatch.setitem(data.DATASETS, "glyphs", dataclasses.replace(data.info("glyphs"), version=2))
    assert data.stamp("glyphs", home) != stamp
    assert data.identity(data.info("glyphs"), "x") != key


def test_without_network_one_error_names_files_folder_and_alternative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.error
    import urllib.request

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    for name, folder in (("mnist", "MNIST/raw"), ("cifar10", "cifar-10-batches-py")):
        with pytest.raises(AdvmixError) as error:
            data.load(name, "train", tmp_path)
        assert error.value.code == "data-unavailable"
        assert str(tmp_path / folder) in error.value.message
        assert "ADVMIX_DATA" in error.value.hint
        assert "glyphs" in error.value.hint


def test_mnist_is_resized_on_uint8(real_data: Path) -> None:
    from PIL import Image
    from torchvision import datasets

    images = data.load("mnist", "test", real_data)
    raw = datasets.MNIST(str(real_data), train=False)
    assert images.x.shape == (10_000, 1, 32, 32)
    for i in (0, 17, 9_999):
        pil = Image.fromarray(raw.data[i].numpy()).resize((32, 32), Image.Resampling.BILINEAR)
        expected = torch.frombuffer(bytearray(pil.tobytes()), dtype=torch.uint8).view(32, 32)
        assert torch.equal(images.x[i, 0], expected)
    assert torch.equal(images.y, raw.targets)


def test_cifar_is_read_from_a_folder_that_cannot_be_written(real_cifar: Path) -> None:
    images = data.load("cifar10", "test", real_cifar)
    assert images.x.shape == (10_000, 3, 32, 32)
    assert images.x.dtype == torch.uint8
    assert torch.bincount(images.y).tolist() == [1000] * 10


def test_a_changed_label_of_mnist_is_found(real_data: Path, tmp_path: Path) -> None:
    shutil.copytree(real_data / "MNIST", tmp_path / "MNIST")
    labels = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte"
    labels.chmod(0o644)
    content = bytearray(labels.read_bytes())
    content[100] = (content[100] + 1) % 10
    labels.write_bytes(content)
    with pytest.raises(DamagedError, match="t10k-labels"):
        data.fingerprint("mnist", tmp_path)


def test_a_damaged_data_set_is_not_taken(real_cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.error
    import urllib.request

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    shutil.copytree(real_cifar / "cifar-10-batches-py", tmp_path / "cifar-10-batches-py")
    batch = tmp_path / "cifar-10-batches-py/test_batch"
    batch.chmod(0o644)
    content = bytearray(batch.read_bytes())
    content[5000] ^= 1
    batch.write_bytes(content)
    with pytest.raises(AdvmixError) as error:
        data.load("cifar10", "test", tmp_path)
    assert error.value.code == "data-unavailable"
