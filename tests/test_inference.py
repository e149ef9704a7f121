"""Verdicts from mixtures: the formula written out plainly, who is drawn, and that attacks go through other draws."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Run
from torch import nn

from advmix_cli import inference
from advmix_cli.config import EvalSettings
from advmix_cli.errors import UsageError
from advmix_cli.judging import Inferring
from advmix_cli.threats import Threat
from advmix_cli.ways import INFERENCES


def _set(n: int = 30, classes: int = 3) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randint(0, 256, (n, 1, 4, 4), dtype=torch.uint8)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes)), x, torch.arange(n) % classes


def _through(way: str, **told: float) -> tuple[inference.MixupInference, inference.MixupInference]:
    net, x, y = _set()
    options = dict(INFERENCES[way].read(())) | told
    return inference.through(net, x, y, 3, options, others=INFERENCES[way].others, seed=1)


def _classes_of(partners: torch.Tensor) -> list[list[int]]:
    _, x, y = _set()
    return [[int(y[(x == one).flatten(1).all(1)][0]) for one in of] for of in partners]


def test_it_is_its_formula() -> None:
    model, _ = _through("mi-ol", samples=5, lam=0.6)
    x = torch.rand(7, 1, 4, 4)
    said = []
    for each in x:
        predicted = int(model.network(each[None]).argmax())
        mixtures = torch.stack([0.6 * each + 0.4 * other / 255 for other in model.partners[predicted]])
        said.append(model.network(mixtures).softmax(1).mean(0).log())
    torch.testing.assert_close(model(x), torch.stack(said), rtol=0, atol=1e-6)
    assert model(x).exp().sum(1).allclose(torch.ones(7))


def test_partners_are_of_the_predicted_class_or_of_all_others() -> None:
    own, _ = _through("mi-pl", samples=20)
    assert all(set(of) == {label} for label, of in enumerate(_classes_of(own.partners)))
    other, _ = _through("mi-ol", samples=40)
    assert all(set(of) == {0, 1, 2} - {label} for label, of in enumerate(_classes_of(other.partners)))


def test_an_attack_goes_through_more_draws_and_other_ones() -> None:
    judge, target = _through("mi-pl", samples=6, eot=3)
    assert judge.partners.shape[:2] == (3, 6)
    assert target.partners.shape[:2] == (3, 18)
    assert not torch.equal(target.partners[:, :6], judge.partners)
    assert _through("mi-pl", samples=6, eot=3)[1].partners.equal(target.partners)


def test_alone_it_is_the_network() -> None:
    model, _ = _through("mi-pl", lam=1.0)
    x = torch.rand(9, 1, 4, 4)
    torch.testing.assert_close(model(x), model.network(x).log_softmax(1))


def test_a_class_without_training_images_is_refused() -> None:
    net, x, y = _set()
    with pytest.raises(UsageError, match="none of class 3"):
        inference.through(net, x, y, 4, dict(INFERENCES["mi-pl"].read(())), others=False, seed=0)


def test_it_has_a_key_of_its_own() -> None:
    plain = EvalSettings("glyphs", "test", 50, (Threat(),))
    told = EvalSettings("glyphs", "test", 50, (Threat(),), inference=Inferring("mi-pl", INFERENCES["mi-pl"].read(())))
    assert "inference" not in plain.identity()
    assert told.identity() != plain.identity()
    assert EvalSettings.from_dict(told.to_dict()) == told
    assert told.versions() == {"mi-pl": 1}


def test_eval_judges_and_attacks_through_it(advmix: Run, trained: Path) -> None:
    common = ("--attack", "pgd", "--steps", "5", "--limit", "60", "--json")
    told = advmix("eval", "a", *common, "--inference", "mi-pl", "--inference-arg", "samples=3")
    assert told.code == 0, told.err
    clean, attacked = told.data["rows"]
    assert 0 <= attacked["accuracy"] <= clean["accuracy"]
    plain = advmix("eval", "a", *common)
    assert plain.data["evaluation"] != told.data["evaluation"]
    assert plain.data["rows"][0]["loss"] != clean["loss"]
    again = advmix("eval", "a", *common[:-1], "--inference", "mi-pl", "--inference-arg", "samples=3")
    assert "no claim of robustness" in again.out


WRONG = {
    "a way that is none": (("--inference", "mi-xx"), "mi-xx"),
    "an option that is none": (("--inference", "mi-pl", "--inference-arg", "beta=1"), "beta"),
    "no number": (("--inference", "mi-pl", "--inference-arg", "lam=x"), "lam=x"),
    "no value": (("--inference", "mi-pl", "--inference-arg", "lam"), "no KEY=VALUE"),
    "out of range": (("--inference", "mi-pl", "--inference-arg", "lam=0"), "lam must be from"),
    "an argument alone": (("--inference-arg", "lam=0.5"), "goes with --inference"),
    "an audit": (("--inference", "mi-pl", "--audit"), "--audit is of the network itself"),
    "a certificate": (("--inference", "mi-pl", "--certify"), "--certify is of the network itself"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_it_cannot_do_is_refused(name: str, advmix: Run, trained: Path) -> None:
    said, why = WRONG[name]
    wrong = advmix("eval", "a", "--limit", "20", *said)
    assert wrong.code == 2
    assert why in wrong.err
