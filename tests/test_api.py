"""From Python: any module, tensors or arrays, the same numbers as the command line, and nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from conftest import Run
from torch import nn

import advmix_cli
from advmix_cli import attacks, models, output
from advmix_cli.errors import NotFoundError, UsageError
from advmix_cli.models.normalize import normalisation
from advmix_cli.threats import Threat


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return models.build("lenet5", 2)


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.rand((20, 1, 32, 32), generator=random), torch.randint(10, (20,), generator=random)


def test_an_attack_is_that_of_the_command_line(trained: Path, advmix: Run) -> None:
    told = advmix("attack", "a", "--limit", "30", "--steps", "5", "--json").data
    x, y, _ = advmix_cli.datasets("glyphs", limit=30)
    found = advmix_cli.attack(advmix_cli.load("a"), x, y, steps=5)
    assert found.threat.to_dict() == told["threat"]
    assert found.robust.accuracy == told["robust_accuracy"]
    assert found.clean.accuracy == told["clean_accuracy"]
    assert found.linf_max == told["linf_max"]


def test_an_evaluation_is_that_of_the_command_line(trained: Path, advmix: Run) -> None:
    told = advmix("eval", "a", "--limit", "30", "--attack", "pgd", "--attack", "fgsm", "--json").data["rows"]
    x, y, _ = advmix_cli.datasets("glyphs", limit=30)
    found = advmix_cli.evaluate(advmix_cli.load("a"), x, y, attack=("pgd", "fgsm"))
    assert [each.accuracy for each in found.figures] == [row["accuracy"] for row in told]
    assert found["worst case"].bound == "upper"
    assert found.figures[0].bound is None


def test_arrays_and_bytes_are_as_good_as_tensors(net: nn.Module, images: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = (255 * images[0]).round().byte(), images[1]
    of_bytes = advmix_cli.attack(net, x.numpy(), y.numpy(), steps=2)
    of_floats = advmix_cli.attack(net, attacks.to_float(x), y, steps=2)
    assert torch.equal(of_bytes.x_adv, of_floats.x_adv)


def test_an_attack_leaves_the_model_alone_and_keeps_the_budget(
    net: nn.Module, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = advmix_cli.attack(net, *images, eps=0.1, steps=3)
    assert net.training
    net.eval()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert float((found.x_adv - images[0]).abs().max()) <= 0.1 + 1e-6
    assert bool((found.robust_right <= found.clean_right).all())
    assert found.threat == Threat.of("pgd", "linf", 0.1, steps=3, alpha=2.5 * 0.1 / 3)


def test_results_are_readable_and_plain(net: nn.Module, images: tuple[torch.Tensor, torch.Tensor]) -> None:
    attacked = advmix_cli.attack(net, *images, steps=1)
    assert "PGD linf eps 0.3" in repr(attacked)
    assert "% [" in repr(attacked)
    assert attacked.to_dict()["robust"]["n"] == 20
    evaluated = advmix_cli.evaluate(net, *images, attack="fgsm")
    assert repr(evaluated).count("\n") == 1
    assert [each["on"] for each in evaluated.to_dict()["figures"]] == ["clean", "fgsm-0.3"]
    with pytest.raises(AttributeError):
        attacked.threat = None  # type: ignore[assignment,misc]


def test_training_learns_and_gives_the_chosen_weights() -> None:
    random = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    x = (torch.eye(3)[y][:, :, None, None] * 0.6 + 0.4 * torch.rand((90, 3, 12, 12), generator=random)).clamp(0, 1)
    found = advmix_cli.train("resnet18", x, y, test=(x, y), epochs=2, mix="manifold", mix_stages=(0, "group3"))
    assert found.settings.mix_stages == (0, "group3")
    assert len(found.history) == 2
    assert not found.model.training
    chosen = found.history[found.best_epoch - 1]
    assert advmix_cli.evaluate(found.model, x, y)["clean"].accuracy == chosen["test_accuracy"]
    assert normalisation(found.model) is not None, "as the command line has it: with the images' mean and std"
    own = nn.Sequential(nn.Flatten(), nn.Linear(432, 3))
    robust = advmix_cli.train(own, x, y, adversarial=True, epochs=1, steps=2, eps=0.01, seed=3)
    assert robust.model is own
    assert robust.settings.adversary is not None
    assert robust.settings.seed == 3


BAD = {
    "no batch": (lambda x, y: (x[0], y), "do not fit together"),
    "labels of others": (lambda x, y: (x, y[:3]), "do not fit together"),
    "nothing": (lambda x, y: (x[:0], y[:0]), "do not fit together"),
    "normalised": (lambda x, y: (x * 2 - 1, y), r"leave \[0,1\]"),
    "not a number": (lambda x, y: (x * torch.nan, y), r"leave \[0,1\]"),
    "label too large": (lambda x, y: (x, y + 5), "10 outputs"),
    "negative label": (lambda x, y: (x, y - 9), "whole numbers from 0"),
    "soft labels": (lambda x, y: (x, y.float()), "whole numbers from 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_said(name: str, net: nn.Module, images: tuple[torch.Tensor, torch.Tensor]) -> None:
    change, message = BAD[name]
    x, y = change(images[0], images[1].clone())
    with pytest.raises(UsageError, match=message):
        advmix_cli.attack(net, x, y, steps=1)


def test_unknown_options_and_names(net: nn.Module, images: tuple[torch.Tensor, torch.Tensor], home: Path) -> None:
    with pytest.raises(UsageError, match="unknown option 'step'"):
        advmix_cli.attack(net, *images, step=3)
    with pytest.raises(UsageError, match="unknown option 'limit'"):
        advmix_cli.attack(net, *images, limit=3)
    with pytest.raises(UsageError, match="unknown attack"):
        advmix_cli.attack(net, *images, attack="pdg")
    with pytest.raises(UsageError, match="no logits"):
        advmix_cli.attack(nn.Identity(), *images)
    with pytest.raises(AttributeError, match="no attribute 'atack'"):
        advmix_cli.atack  # noqa: B018
    with pytest.raises(NotFoundError):
        advmix_cli.load("nothing")


def test_another_store_is_read_where_it_is_named(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADVMIX_HOME", str(tmp_path / "nowhere"))
    assert isinstance(advmix_cli.load("a", home=trained), nn.Module)
    assert not (tmp_path / "nowhere").exists()


def test_five_lines_in_a_fresh_interpreter_write_nothing(tmp_path: Path) -> None:
    """Not even a folder for a store."""
    lines = """import torch, advmix_cli
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)).eval()
x, y = torch.rand(8, 3, 8, 8), torch.randint(3, (8,))
print(advmix_cli.attack(model, x, y, eps=8/255, steps=2))
print(advmix_cli.audit(model, x[:4], y[:4]).verdict)"""
    environment = os.environ | {"HOME": str(tmp_path / "home"), "XDG_DATA_HOME": str(tmp_path / "data")}
    environment |= {"CUDA_CACHE_DISABLE": "1", "USE_PYTORCH_KERNEL_CACHE": "0"}  # a driver's files are not ours
    environment.pop("ADVMIX_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", lines], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<PGD linf eps 8/255")
    assert not [str(path) for path in tmp_path.rglob("*")]


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, advmix_cli; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_progress_is_shown_where_it_is_asked_for(
    net: nn.Module,
    images: tuple[torch.Tensor, torch.Tensor],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output, "_PLAIN_EVERY_S", 1e-9)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # which another test may have imported
    advmix_cli.attack(net, *images, steps=1)
    assert capsys.readouterr().err == ""
    advmix_cli.attack(net, *images, steps=1, progress=True)
    assert "attacking" in capsys.readouterr().err


def test_the_time_left_counts_what_was_done_now(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an interrupted run had done took none of this one's time."""
    clock = types.SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(output, "time", clock)
    now = 0.0
    with output.Output("train").progress("training", 1000, "images") as progress:
        progress(900, before=True)
        now = 20.0
        progress(20)
    assert capsys.readouterr().err == "training: 920/1000 images, 1/s, 80 s left\n"
