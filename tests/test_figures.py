"""Every picture is drawn, whole, in both formats, and the same for the same inputs."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run
from PIL import Image

from advmix_cli import figures, models
from advmix_cli.figures.style import COLOURS
from advmix_cli.statistics import wilson
from advmix_cli.workflows.evaluation import pictures, record

KINDS = {
    "samples": ("samples", "pa", "--count", "6"),
    "curves": ("curves", "a", "b"),
    "mixing": ("mixing", "--count", "4"),
    "matrix": ("matrix",),
    "reliability": ("reliability",),
    "compare": ("compare",),
    "classes": ("classes",),
    "confusion": ("confusion", "pa"),
}
TEXTS = {
    "samples": ["original", "perturbation", "what a says", "PGD linf eps 0.3", "robust accuracy", "each class"],
    "curves": ["accuracy (%)", "loss (nats)", "epoch", "a", "b", "training", "test", "chosen epoch"],
    "mixing": ["the batch", "its shuffled copy", "mixed", "Beta(1, 1)"],
    "reliability": ["calibrated", "confidence (%)", "images", "a, ECE"],
    "matrix": [
        "clean",
        "made against a",
        "model evaluated",
        "accuracy (%)",
        "n = 100",
        "PGD linf eps 0.3",
    ],
    "compare": ["clean", "a", "b", "95 % interval", "PGD linf eps 0.3"],
    "classes": ["clean", "class", "accuracy of each class", "9"],
    "confusion": ["clean", "attacked", "taken for", "PGD linf eps 0.3", "n = 100", "% of the class", "9"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_whole_and_say_what_they_show(trained: Path, advmix: Run, tmp_path: Path, kind: str) -> None:
    if kind not in ("samples", "curves", "mixing", "confusion"):
        assert advmix("eval", "a", "b", "--samples", "pa").code == 0
    first = advmix("visualize", *KINDS[kind], "--json", "--out", tmp_path / "picture.svg").data
    with Image.open(first["png"]) as image:
        image.load()
        pixels = np.asarray(image.convert("L"))
        assert image.width > 400
        assert image.height > 150
    assert pixels.std() > 10  # not blank
    text = " ".join(element.text or "" for element in ET.parse(first["svg"]).iter() if element.tag.endswith("text"))
    assert "$" not in text, "the numbers of an axis are formulas, and formulas are off"
    right = advmix("store", "show", "pa", "--json").data["robust_correct"]
    low, high = wilson(right, 100)
    measured = {"samples": [f"robust accuracy {right:.2f} %"], "matrix": [f"[{low:.2f}, {high:.2f}]"]}
    for expected in TEXTS[kind] + measured.get(kind, []):
        assert expected in text, (expected, text)
    assert (tmp_path / "picture.svg").read_bytes() == Path(first["svg"]).read_bytes()

    before = np.asarray(Image.open(first["png"])), Path(first["svg"]).read_bytes()
    again = advmix("visualize", *KINDS[kind], "--json").data
    assert (first["cached"], again["cached"]) == (False, True)
    forced = advmix("visualize", *KINDS[kind], "--json", "--force").data
    assert forced["figure"] == first["figure"]
    assert np.array_equal(np.asarray(Image.open(forced["png"])), before[0])
    assert Path(forced["svg"]).read_bytes() == before[1]


def test_curves_need_a_history(trained: Path, advmix: Run) -> None:
    record = advmix("store", "show", "a", "--json").data
    assert [row["epoch"] for row in record["history"]] == [1, 2, 3, 4, 5]
    torch.save(models.build("lenet5").state_dict(), trained / "w.pt")
    advmix("import", trained / "w.pt", "--name", "i", "-q")
    assert advmix("visualize", "curves", "i").code == 3
    assert advmix("visualize", "curves", "--json").code == 0, "latest is the newest with a history"


def test_a_figure_says_what_it_shows_and_damage_is_found(trained: Path, advmix: Run) -> None:
    found = advmix("visualize", "curves", "a", "--json").data
    record = advmix("store", "show", found["figure"], "--json").data
    assert (record["picture"], record["shows"]["models"][0]["name"]) == (
        "curves",
        Path(advmix("store", "path", "a").out).stem,
    )
    for path in (Path(found["png"]), Path(found["svg"])):
        whole = path.read_bytes()
        for damaged in (b"", whole[:-1], whole[:200] + b"x" + whole[201:]):
            path.write_bytes(damaged)
            assert advmix("store", "verify").code == 4
        path.write_bytes(whole)
    assert advmix("store", "verify").code == 0


def test_colour_pictures() -> None:
    random = np.random.default_rng(0)
    images = random.random((3, 3, 32, 32)).astype(np.float32)
    drawn = figures.samples(
        [("original", images, [("cat", 1.0), ("dog", 0.4), ("cat", 0.9)])], images - 0.5, ["cat"] * 3, ["1", "2", "3"],
        "t", "change",
    )  # fmt: skip
    encoded = {".svg": figures.svg(drawn), ".png": figures.png(drawn)}
    assert encoded[".png"].startswith(b"\x89PNG")
    assert "dog \N{MULTIPLICATION SIGN}" in encoded[".svg"].decode()


def test_the_colours_are_told_apart_by_colour_blind_readers() -> None:
    """Machado et al. 2009: what deuteranopes and protanopes see of the first six colours stays apart."""
    views = {
        "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    }
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in COLOURS[:6]])
    for matrix in views.values():
        seen = rgb @ np.array(matrix).T
        distances = [np.linalg.norm(seen[i] - seen[j]) for i in range(6) for j in range(i)]
        assert min(distances) > 0.1


def test_curves_of_runs_tested_on_other_numbers_of_images_say_each(trained: Path, advmix: Run, tmp_path: Path) -> None:
    assert advmix("train", "--limit", "300", "--epochs", "2", "--name", "few", "-q").code == 0
    assert advmix("visualize", "curves", "a", "few", "--out", tmp_path / "c.svg").code == 0
    text = (tmp_path / "c.svg").read_text()
    assert "a (n = 2000)" in text
    assert "few (n = 300)" in text
    assert "n beside each" in text


def test_any_character_may_be_in_a_name() -> None:
    drawn = figures.matrix(["x$\\frac{$y", "a_b^c"], ["$clean", "{on"], [[(1.0, (0.0, 2.0)), None]] * 2, "50 $ and %")
    assert "x$\\frac{$y" in figures.svg(drawn).decode()


def test_a_landscape_shows_where_the_decision_changes() -> None:
    axis, loss = [-1.0, 0.0, 1.0], [[0.1, 0.2, 0.3]] * 3
    said = "where the decision changes"

    def drawn(margin: list[list[float | None]] | None) -> str:
        return figures.svg(figures.landscape([figures.Around("m", axis, loss, margin)], "title")).decode()

    assert said in drawn([[1.0, 1.0, 1.0], [1.0, 0.5, None], [-1.0, -1.0, -2.0]])
    assert said not in drawn([[1.0] * 3] * 3), "it is right everywhere"
    assert said not in drawn(None), "an older audit does not say"


def test_infinite_losses_are_left_blank() -> None:
    around = figures.Around
    axis, rows = [-1.0, 0.0, 1.0], [[1.0, None, 2.0], [0.5, 0.1, None], [3.0, 2.0, 1.0]]
    assert figures.png(figures.landscape([around("m", axis, rows), around("all", axis, [[None] * 3] * 3)], "title"))


def test_runs_that_differ_in_their_seed_are_one_band(
    tmp_path: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADVMIX_HOME", str(tmp_path / "home"))
    train = ("train", "--limit", "60", "--epochs", "2", "--seed", "1,2", "--name", "m", "-q")
    assert advmix(*train).code == 0
    refs = [f"m-{seed}" for seed in ("s1", "s2")]
    found = advmix("visualize", "curves", *refs, "--out", tmp_path / "c.svg", "--name", "seeds", "--json").data
    assert advmix("store", "show", "seeds", "--json").data["name"] == found["figure"]
    text = (tmp_path / "c.svg").read_text()
    assert "m-s* (2 seeds)" in text
    assert "lowest to highest seed" in text
    assert len(advmix("store", "show", found["figure"], "--json").data["shows"]["models"]) == 2


def test_attacked_runs_have_a_panel_of_their_own() -> None:
    row = {"epoch": 1, "test_accuracy": 98.0, "test_loss": 0.1, "train_accuracy": 40.0, "train_loss": 1.5}
    plain = figures.curves([("m", [([row], 1)])], "t")
    attacked = figures.curves([("m", [([row | {"validation_robust_accuracy": 45.0}], 1)])], "t")
    assert [axes.get_ylabel() for axes in plain.axes] == ["accuracy (%)", "loss (nats)"]
    assert [axes.get_ylabel() for axes in attacked.axes] == [
        "accuracy (%)", "accuracy under attack (%)", "loss (nats)",
    ]  # fmt: skip
    clean, robust, _ = attacked.axes
    assert clean.get_ylim()[0] > 90, "what is attacked does not stretch the clean panel"
    assert [line.get_ydata()[0] for line in robust.get_lines() if line.get_linestyle() != "None"] == [45.0, 40.0]


def test_images_are_chosen(trained: Path, advmix: Run, tmp_path: Path) -> None:
    def said(*options: str) -> str:
        assert advmix("visualize", "samples", "pa", *options, "--out", tmp_path / "s.svg").code == 0
        return (tmp_path / "s.svg").read_text()

    assert "images asked for" in said("--index", "7,3")
    broken = said("--only", "broken", "--count", "2")
    assert "images that the attack broke" in broken
    assert broken.count("\N{MULTIPLICATION SIGN}") == 2
    assert "an untrained network" in said("--untrained", "--count", "2")
    for wrong in (("--index", "100000"), ("--index", "1", "--only", "broken"), ("--only", "nothing")):
        outcome = advmix("visualize", "samples", "pa", *wrong)
        assert outcome.code == 2
        assert "error: " in outcome.err
    assert "no image 100000" in advmix("visualize", "samples", "pa", "--index", "100000").err


def test_a_batch_is_mixed_with_other_classes(advmix: Run, tmp_path: Path) -> None:
    assert advmix("visualize", "mixing", "--count", "6", "--out", tmp_path / "m.svg").code == 0
    labels = re.findall(r"(\d\.\d\d) . (\d)<.*?(\d\.\d\d) . (\d)<", (tmp_path / "m.svg").read_text(), re.DOTALL)
    assert len(labels) == 12
    assert {share for share, *_ in labels} >= {"0.50"}
    assert all(one != other for _, one, _, other in labels)


def test_classes_are_called_by_their_names(trained: Path, advmix: Run) -> None:
    made = advmix("eval", "a", "--limit", "40", "--json").data
    found = record.read(Path(made["path"]))
    assert found.classes == list("0123456789")
    named = dataclasses.replace(found, classes=["a very long name indeed", *"bcdefghij"])
    drawn = figures.svg(pictures.classes(named)).decode()
    assert ">a very long n\N{HORIZONTAL ELLIPSIS}<" in drawn
    assert ">j<" in drawn
    older = dataclasses.replace(found, classes=[])
    assert ">9<" in figures.svg(pictures.classes(older)).decode()
