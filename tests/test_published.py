"""The report's published checkpoints give its figures, and nothing in their files is executed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import Run

from advmix_cli import artifacts, models
from advmix_cli.errors import UsageError
from advmix_cli.workflows.weights import fitted

VANILLA, SIGMA = "mnist_vanilla_model_best.pth.tar", "mnist_adv_mixup_noise_0.005_final_model.pth"


def _fitted(tensors: dict[str, torch.Tensor], file: Path) -> dict[str, torch.Tensor]:
    return fitted(tensors, models.build("lenet5"), models.usual("lenet5"), file)[0]


@pytest.mark.parametrize(("file", "accuracy", "loss"), [(VANILLA, 99.30, 0.022), (SIGMA, 97.85, 0.174)])
def test_published_checkpoints_give_the_reports_figures(
    real_data: Path, published: Path, advmix: Run, file: str, accuracy: float, loss: float
) -> None:
    taken = advmix(
        "import", published / file, "--dataset", "mnist", "--arch", "lenet5", "--name", "published", "--json"
    )
    assert taken.code == 0, taken.err
    (row,) = advmix("eval", "published", "--json").data["rows"]
    assert row["accuracy"] == accuracy
    assert round(row["loss"], 3) == loss
    assert row["n"] == 10_000


def test_the_foreign_object_is_never_constructed(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were `utils.RecorderMeter` looked up, this stand-in would be found, and would fail."""

    class Trap:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"utils.{name} was looked up")

    monkeypatch.setitem(sys.modules, "utils", Trap())
    archive = artifacts.read_archive(published / VANILLA)
    assert archive.value["recorder"].name == "utils.RecorderMeter"
    assert "utils.RecorderMeter" in archive.foreign
    weights = archive.loaded(archive.value["state_dict"])
    assert _fitted(weights, Path("x")).keys() == models.build("lenet5").state_dict().keys()


def test_the_published_vanilla_model_falls_to_pgd(real_data: Path, published: Path, advmix: Run) -> None:
    advmix("import", published / VANILLA, "--name", "vanilla")
    attacked = advmix("attack", "vanilla", "--limit", "200", "--alpha", "0.01", "--json").data
    assert attacked["robust_accuracy"] <= 0.5
    assert attacked["linf_max"] <= 0.3 + 1e-6


def test_the_published_attack_leaves_the_ball_and_says_its_name(real_data: Path, published: Path, advmix: Run) -> None:
    advmix("import", published / VANILLA, "--name", "vanilla")
    attacked = advmix("attack", "vanilla", "--preset", "as-run", "--limit", "100")
    assert "robust accuracy (as-run)" in attacked.out
    assert "not bounded by eps" in attacked.out
    data = advmix("attack", "vanilla", "--preset", "as-run", "--limit", "100", "--json").data
    assert data["threat"]["variant"] == data["preset"] == "as-run"
    assert 0.39 < data["linf_max"] <= 0.4 + 1e-5
    table = advmix(
        "eval", "vanilla", "--samples", data["samples"], "--attack", "pgd", "--preset", "as-run", "--limit", "50"
    )
    attacked_rows = [line for line in table.out.splitlines() if re.match(r"vanilla +(?!clean)\S+ +50 ", line)]
    assert len(attacked_rows) == 2
    assert all("as-run" in line for line in attacked_rows)


def test_as_run_adversarial_training_runs_the_published_attack(real_data: Path, published: Path, advmix: Run) -> None:
    advmix("import", published / VANILLA, "--name", "vanilla")
    line = (
        "advtrain",
        "--preset",
        "as-run",
        "--dataset",
        "mnist",
        "--init",
        "vanilla",
        "--epochs",
        "1",
        "--limit",
        "300",
    )
    people = advmix(*line, "--name", "defended")
    assert people.code == 0, people.err
    assert "(as-run variant)" in people.out
    assert "not bounded by eps: as-run" in people.out
    data = advmix(*line, "--json").data
    assert 0.39 < data["metrics"]["linf_max"] <= 0.4 + 1e-5
    assert "as-run" in data["checkpoint"]
    table = advmix("eval", "defended", "vanilla", "--limit", "50").out
    assert "defended (as-run)" in table
    assert "(as-run variant)" in table


class TestImport:
    """Files of others: what fits is taken, what does not is refused clearly."""

    def save(self, path: Path, content: object) -> Path:
        torch.save(content, path)
        return path

    @pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
    @pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
    def test_usual_forms(self, tmp_path: Path, advmix: Run, wrap: object, prefix: str) -> None:
        state = models.build("lenet5", 5).state_dict()
        renamed = {prefix + name: tensor for name, tensor in state.items()}
        path = self.save(tmp_path / "x.pth", wrap(renamed))  # type: ignore[operator]
        taken = advmix("import", path, "--json")
        assert taken.code == 0, taken.err
        weights = artifacts.checkpoint_weights(Path(taken.data["path"]), "best")
        assert all(torch.equal(weights[name], state[name]) for name in state)

    def test_safetensors(self, tmp_path: Path, advmix: Run) -> None:
        from safetensors.torch import save_file

        weights = models.build("lenet5", 5).state_dict()
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, tmp_path / "x.safetensors")
        assert advmix("import", tmp_path / "x.safetensors").code == 0

    def test_a_residual_network_without_its_normalisation(self, tmp_path: Path, advmix: Run) -> None:
        state = models.build("preactresnet18", 5).state_dict()
        path = self.save(tmp_path / "x.pt", {n: t for n, t in state.items() if "normalize" not in n})
        assert advmix("import", path, "--dataset", "cifar10").code == 0

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ({"a": torch.rand(2)}, "lacks"),
            ({"epoch": 3}, "no state dict"),
            ([1, 2], "no state dict"),
        ],
    )
    def test_what_does_not_fit(self, tmp_path: Path, advmix: Run, content: object, said: str) -> None:
        outcome = advmix("import", self.save(tmp_path / "x.pt", content))
        assert outcome.code == 2
        assert said in outcome.err
        assert "hint: " in outcome.err

    def test_other_shapes_and_values(self, tmp_path: Path) -> None:
        state = models.build("lenet5").state_dict()
        with pytest.raises(UsageError, match=r"f5\.linear\.bias is \(7,\), not \(10,\)"):
            _fitted(state | {"f5.linear.bias": torch.zeros(7)}, tmp_path / "x.pt")
        with pytest.raises(UsageError, match="not finite"):
            _fitted(state | {"f5.linear.bias": torch.full((10,), float("nan"))}, tmp_path / "x.pt")
        with pytest.raises(UsageError, match="has extra"):
            _fitted(state | {"extra": torch.zeros(1)}, tmp_path / "x.pt")

    @pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 half a zip"])
    def test_files_that_are_none(self, tmp_path: Path, advmix: Run, content: bytes) -> None:
        for name in ("x.pt", "x.safetensors"):
            (tmp_path / name).write_bytes(content)
            assert advmix("import", tmp_path / name).code == 4
