"""`load` gives a model that other libraries take as it is, and the caches are the field's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run

import advmix_cli
from advmix_cli import artifacts, data
from advmix_cli.attacks import to_float
from advmix_cli.errors import NotFoundError


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    images = data.load("glyphs", "test", Path()).first(64)
    return to_float(images.x), images.y


def test_load_gives_the_model_that_was_trained(trained: Path, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = batch
    model = advmix_cli.load("a")
    assert not model.training
    assert (model(x).argmax(1) == y).double().mean() > 0.8
    for ref in ("a@best", "latest"):
        assert torch.equal(advmix_cli.load(ref)(x), model(x)) or ref == "latest"
    with pytest.raises(NotFoundError):
        advmix_cli.load("nothing")


def test_foolbox_attacks_it(trained: Path, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    foolbox = pytest.importorskip("foolbox")
    x, y = batch
    wrapped = foolbox.PyTorchModel(advmix_cli.load("a"), bounds=(0, 1))
    _, _, success = foolbox.attacks.LinfPGD(steps=10)(wrapped, x, y, epsilons=0.3)
    assert success.double().mean() > 0.5
    assert foolbox.accuracy(wrapped, x, y) > 0.8


def test_art_attacks_it(trained: Path, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    pytest.importorskip("art")
    from art.attacks.evasion import FastGradientMethod
    from art.estimators.classification import PyTorchClassifier

    x, y = batch
    loss = torch.nn.CrossEntropyLoss()
    classifier = PyTorchClassifier(
        advmix_cli.load("a"), loss, (1, 32, 32), nb_classes=10, clip_values=(0, 1), device_type="cpu"
    )
    assert (classifier.predict(x.numpy()).argmax(1) == y.numpy()).mean() > 0.8
    attacked = FastGradientMethod(classifier, eps=0.3).generate(x.numpy(), np.asarray(y))
    assert (classifier.predict(attacked).argmax(1) == y.numpy()).mean() < 0.8


def test_torchattacks_reads_our_caches_and_we_read_theirs(trained: Path, advmix: Run, tmp_path: Path) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    path = Path(advmix("store", "path", "pa").out.strip())
    x_adv, labels, _ = artifacts.samples_tensors(path)
    (batch,) = list(torchattacks.PGD.load(str(path), batch_size=len(labels)))
    assert torch.equal(batch[0], x_adv)
    assert torch.equal(batch[1], labels)

    images = data.load("glyphs", "test", Path()).first(50)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(to_float(images.x), images.y), batch_size=25)
    model = advmix_cli.load("a")
    for kind in ("float", "int"):
        theirs = tmp_path / f"{kind}.pt"
        attack = torchattacks.PGD(model, eps=0.3, alpha=0.05, steps=5)
        attack.save(loader, save_path=str(theirs), verbose=False, save_type=kind)
        outcome = advmix("eval", "a", "--samples", theirs, "--json")
        assert outcome.code == 0, outcome.err
        assert "not made by advmix" in outcome.err
        row = outcome.data["rows"][1]
        assert row["on"] == f"{kind}.pt"
        assert row["n"] == 50
        assert "threat" not in row
        with torch.no_grad():
            content, _, _ = artifacts.samples_tensors(theirs)
            assert row["accuracy"] == 100 * float((model(content).argmax(1) == images.y).double().mean())
