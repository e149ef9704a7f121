"""What is exported, read back by the libraries that it is for; and whole pixel values within the ball."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import DEVICE, Run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

import advmix_cli
from advmix_cli import attacks, models
from advmix_cli.errors import AdvmixError
from advmix_cli.threats import Threat
from advmix_cli.workflows.export import networks
from advmix_cli.workflows.export.grid import rounded

GREY = torch.linspace(0, 1, 256)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(7, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def _said(model: str, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return advmix_cli.load(model)(images.to(DEVICE)).cpu()


@pytest.mark.parametrize("which", ["a", "a@last"])
def test_weights_are_read_back(trained: Path, advmix: Run, tmp_path: Path, images: torch.Tensor, which: str) -> None:
    expected = _said(which, images)
    for form, read in (
        ("state-dict", lambda path: torch.load(path, weights_only=True)),
        ("safetensors", load_file),
    ):
        path = tmp_path / f"x.{form}"
        data = advmix("export", which, "--to", form, "--out", path, "--json").data
        assert (data["checked"], data["largest_difference"], data["n"]) == (True, 0, 100)
        net = models.build(models.usual("lenet5")).eval()
        net.load_state_dict(read(path))
        with torch.no_grad():
            torch.testing.assert_close(net(images), expected, rtol=0, atol=1e-5)


def test_programs_are_read_back(trained: Path, advmix: Run, tmp_path: Path, images: torch.Tensor,
                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    expected = _said("a", images)
    assert advmix("export", "a", "--to", "ONNX", "-q").out.strip() == str(tmp_path / "a.onnx")
    (said,) = runtime.InferenceSession("a.onnx").run(["logits"], {"images": images.numpy()})
    np.testing.assert_allclose(said, expected.numpy(), rtol=0, atol=1e-5)
    outcome = advmix("export", "a", "--to", "torch-export")
    assert outcome.code == 0, outcome.err
    assert "differ by at most" in outcome.out
    program = torch.export.load("a.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(program(images), expected, rtol=0, atol=1e-5)


def test_what_says_something_else_is_not_written(trained: Path, advmix: Run, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setitem(networks._READ, "state-dict", lambda path, model: lambda x: torch.zeros(len(x), 10))
    outcome = advmix("export", "a", "--to", "state-dict", "--out", tmp_path / "x.pt", "--json")
    assert (outcome.code, outcome.errors[0]["code"]) == (1, "export")
    assert not (tmp_path / "x.pt").exists()


def test_a_network_that_cannot_be_traced_is_refused(trained: Path, advmix: Run, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def refuse(*given: Any, **more: Any) -> Any:
        raise RuntimeError("it asks for values\nand more")

    monkeypatch.setattr("torch.export.export", refuse)
    outcome = advmix("export", "a", "--to", "torch-export", "--out", tmp_path / "x.pt2")
    assert outcome.code == 1
    assert "a cannot be exported: it asks for values" in outcome.err

    def missing(*given: Any, **more: Any) -> Any:
        raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")

    monkeypatch.setattr("torch.onnx.export", missing)
    outcome = advmix("export", "a", "--to", "onnx", "--out", tmp_path / "x.onnx")
    assert outcome.code == 2
    assert "advmix[onnx]" in outcome.err


def test_a_cache_is_read_back(trained: Path, advmix: Run, tmp_path: Path) -> None:
    data = advmix("export", "pa", "--to", "npz", "--out", tmp_path / "pa.npz", "--json").data
    content = torch.load(Path(advmix("store", "path", "pa", "-q").out.strip()), weights_only=True)
    with np.load(tmp_path / "pa.npz", allow_pickle=False) as arrays:
        assert {*arrays} == {"x_adv", "y", "index", "x"} == {*data["arrays"]}
        assert np.array_equal(arrays["x_adv"], content["adv_inputs"].numpy())
        assert np.array_equal(arrays["y"], content["labels"].numpy())
        assert np.abs(arrays["x_adv"] - arrays["x"]).max() <= 0.3 + 1e-6


def test_pictures_are_what_the_attack_made_rounded_within_the_ball(trained: Path, advmix: Run, tmp_path: Path) -> None:
    robust = advmix("eval", "--samples", "pa", "--json").data["rows"][-1]["accuracy"]
    data = advmix("export", "pa", "--to", "png", "--out", tmp_path / "pa", "--json").data
    content = torch.load(Path(advmix("store", "path", "pa", "-q").out.strip()), weights_only=True)
    assert data["linf_max"] <= 76 / 255 + 1e-6, "0.3 lies between 76 and 77"
    assert data["robust_accuracy"] == robust
    with (tmp_path / "pa" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"]) for row in rows] == content["labels"].tolist()
    read = np.stack([np.array(Image.open(tmp_path / "pa" / row["file"])) for row in rows])
    assert read.dtype == np.uint8
    assert np.abs(read / 255 - content["adv_inputs"].numpy()[:, 0]).max() < 1.01 / 255
    net = advmix_cli.load("a")
    with torch.no_grad():
        says = net(torch.from_numpy(read)[:, None].float().div(255).to(DEVICE)).argmax(1).cpu()
    assert int((says == content["labels"]).sum()) >= data["rounded_robust_accuracy"]  # of 100; some are wrong clean
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["pa"], "nothing is left beside"


def test_bad_inputs(trained: Path, advmix: Run, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "file").write_text("mine")
    for code, *line in (
        (2, "a", "--to", "onxx"),
        (2, "pa", "--to", "onnx"),
        (2, "a", "--to", "png"),
        (3, "nobody", "--to", "npz"),
        (2, "pa", "--to", "png", "--out", there),
        (2, "pa", "--to", "png", "--out", there, "--force"),
        (2, "pa", "--to", "npz", "--out", there / "file"),
        (2, "pa", "--to", "npz", "--out", there, "--force"),
        (2, "pa", "--to", "npz", "--out", trained / "x.npz"),
        (1, "pa", "--to", "npz", "--out", there / "file" / "x.npz"),
        (1, "pa", "--to", "png", "--out", there / "file" / "x"),
    ):
        outcome = advmix("export", *line)
        assert outcome.code in ((2, 3) if code == 2 else (code,)), (line, outcome.err)
        assert "error: " in outcome.err
    assert (there / "file").read_text() == "mine"
    assert advmix("export", "pa", "--to", "npz", "--out", there / "file", "--force").code == 0


def _near(x: torch.Tensor, eps: float, norm: str, seed: int) -> torch.Tensor:
    """Images within the ball around x, at its boundary."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    if norm == "linf":
        return (x + eps * noise.sign()).clamp(0, 1)
    return (x + eps * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(0, 1)


@given(st.sampled_from(["linf", "l2"]), st.floats(0.0005, 0.6), st.integers(0, 10_000))
def test_rounded_images_stay_within_the_ball(norm: str, eps: float, seed: int) -> None:
    drawn = torch.randint(0, 256, (2, 1, 6, 6), generator=torch.Generator().manual_seed(seed))
    x, threat = drawn.float() / 255, Threat(norm=norm, eps=eps)
    x_adv = _near(x, eps, norm, seed)
    found = rounded(x_adv, x, threat)
    attacks.perturbation(x, attacks.to_float(found), threat)  # raises beyond the ball
    assert int((found.double() - x_adv.double() * 255).abs().max()) <= 1
    if norm == "l2" and eps > 0.1:
        assert (found != drawn).any()


@pytest.mark.parametrize("k", [1, 2, 8, 77])
def test_a_value_at_the_very_boundary_is_kept(k: int) -> None:
    x = GREY.view(1, 1, 16, 16)
    found = rounded((x + k / 255).clamp(0, 1), x, Threat(eps=k / 255))
    assert torch.equal(found.int().flatten(), (torch.arange(256) + k).clamp(max=255).int())


def test_where_there_is_no_ball_the_nearest_value_is_taken() -> None:
    x_adv = torch.tensor([0.1, 0.5, 0.998]).view(1, 1, 1, 3)
    near = torch.tensor([26, 128, 254], dtype=torch.uint8)
    assert torch.equal(rounded(x_adv, None, None).flatten(), near)
    assert torch.equal(rounded(x_adv, torch.zeros_like(x_adv), Threat(eps=0.01, variant="as-run")).flatten(), near)
    between = torch.full((1, 1, 1, 1), 0.5)  # no whole value, and none within
    assert int(rounded(between + 0.001, between, Threat(eps=0.001))) in (127, 128)


def test_other_logits_are_noticed() -> None:
    with pytest.raises(AdvmixError):
        networks._compared(torch.nn.Flatten(), lambda x: x.flatten(1) + 1, torch.rand(3, 1, 2, 2), "onnx")
