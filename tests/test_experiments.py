"""Experiments as files: what they may say, what is said of mistakes, what they come to, and how claims are judged."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import math
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run

from advmix_cli import experiments, requests
from advmix_cli.cli import main
from advmix_cli.errors import UsageError
from advmix_cli.experiments import claims, plan, reading, writing
from advmix_cli.experiments.commands import command_of, part_of_file
from advmix_cli.experiments.lines import lines_of
from advmix_cli.experiments.shape import Cell, Of
from advmix_cli.statistics import t_tail
from advmix_cli.workflows.evaluation.record import Cell as Cell_

SMALL = """
title = "two ways"

[scale.smoke]
train = { limit = 400, epochs = 2 }
attack = { limit = 20, steps = 2 }
eval = { limit = 20 }

[scale.more]
seeds = 3

[runs.plain]
command = "train"
dataset = "glyphs"
grid.mix = ["none", "mixup"]

[runs.defended]
command = "advtrain"
init = { run = "plain", at = { mix = "none" } }
limit = 60
epochs = 1
steps = 1

[attacks.attacked]
of = "plain"

[evaluations.all]
of = ["plain", "defended"]
attack = ["fgsm"]
samples = ["attacked"]
certify = true
bounds = "ibp"

[tables.one]
title = "accuracy"

[tables.one.columns]
clean = { evaluation = "all" }
loss = { evaluation = "all", figure = "loss" }
fgsm = { evaluation = "all", on = "fgsm" }
"from none" = { evaluation = "all", on = "attacked", at = { mix = "none" } }
proved = { evaluation = "all", on = "certified" }

[[tables.one.rows]]
row = "plain"
of = { run = "plain", at = { mix = "none" } }
reference = { clean = 99.5 }

[[tables.one.rows]]
row = "defended"
of = "defended"

[tables.two]
columns.clean = { evaluation = "all" }

[[tables.two.rows]]
row = "mixup"
of = { run = "plain", at = { mix = "mixup" } }

[figures.learning]
kind = "curves"
of = "plain"

[figures.digits]
kind = "samples"
attack = "attacked"
of = { run = "plain", at = { mix = "none" } }

[claims.more]
claim = "mixup is more accurate"
figure = { evaluation = "all" }
order = [{ run = "plain", at = { mix = "mixup" } }, { run = "plain", at = { mix = "none" } }]

[claims.low]
claim = "FGSM takes all"
figure = { evaluation = "all", on = "fgsm" }
order = ["defended"]
below = 100
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def without_times(path: Path) -> Any:
    data = json.loads(path.read_text()) | {"command": ""}
    data["made"] = [{**each, "seconds": 0, "date": "", "command": ""} for each in data["made"]]
    for table in data["tables"].values():
        for row in table["rows"]:
            for figure in row["figures"].values():
                figure and figure.pop("commands")
    return data


def test_a_file_is_carried_out_once(file: Path, home: Path, advmix: Run) -> None:
    made = advmix("run", file, "--out", "out", "--json")
    assert made.code == 0, made.err
    rows = made.data["tables"]["one"]["rows"]
    assert [row["row"] for row in rows] == ["plain", "defended"]
    figures = rows[0]["figures"]
    assert figures["clean"]["n"] == 20
    assert figures["clean"]["reference"] == 99.5
    assert figures["clean"]["low"] <= figures["clean"]["mean"] <= figures["clean"]["high"]
    assert figures["clean"]["within"] == (figures["clean"]["low"] <= 99.5 <= figures["clean"]["high"])
    assert figures["fgsm"]["bound"] == "upper"
    assert figures["proved"]["bound"] == "lower"
    assert figures["proved"]["mean"] <= figures["fgsm"]["mean"]
    assert {each["id"]: each["verdict"] for each in made.data["claims"]}.keys() == {"more", "low"}
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "digits.png", "learning.png", "results.html", "results.json", "results.md",
    ]  # fmt: skip
    page = Path("out/results.html").read_text()
    held = sum(each["verdict"] == "holds" for each in made.data["claims"])
    assert f"{held} of 2 hold" in page
    saved = {kind: base64.b64decode(text).decode() for kind, text in
             re.findall('<a download="[^"]+" href="data:([^;]+);base64,([^"]+)"', page)}  # fmt: skip
    assert saved["text/csv"].startswith("table,row,column,unit,")
    assert json.loads(saved["application/json"])["claims"] == json.loads(Path("out/results.json").read_text())["claims"]
    before = without_times(Path("out/results.json"))
    checkpoints = {path.name: path.read_bytes() for path in (home / "checkpoints").iterdir()}
    again = advmix("run", file, "--out", "out")
    assert again.code == 0
    assert "accuracy (smoke)" in again.out
    assert without_times(Path("out/results.json")) == before
    assert {path.name: path.read_bytes() for path in (home / "checkpoints").iterdir()} == checkpoints
    told = advmix("eval", figures["clean"]["models"][0], "--limit", "20", "--json").data["rows"][0]
    assert told["accuracy"] == figures["clean"]["mean"]


def test_a_part_of_it(file: Path, home: Path, advmix: Run) -> None:
    made = advmix("run", file, "--only", "two", "--out", "out", "--json")
    assert made.code == 0, made.err
    assert list(made.data["tables"]) == ["two"]
    assert made.data["not_run"] == ["one"]
    assert [each["id"] for each in made.data["claims"]] == []
    assert not list(home.glob("checkpoints/*adv*"))


def test_what_would_be_done(file: Path, home: Path, advmix: Run) -> None:
    planned = advmix("run", file, "--dry-run", "--json")
    assert planned.code == 0, planned.err
    parts = planned.data["parts"]
    assert [part["kind"] for part in parts].count("eval") == 3
    assert not any(part["stored"] for part in parts)
    assert all(part["seconds"] > 0 for part in parts if part["kind"] in ("train", "advtrain"))
    assert planned.data["seconds"] == pytest.approx(sum(part["seconds"] for part in parts), abs=1)
    assert not (home / "checkpoints").exists()
    assert advmix("run", file, "--only", "two", "--out", "out").code == 0
    left = advmix("run", file, "--dry-run", "--json").data["parts"]
    assert {part["kind"] for part in left if part["stored"]} == {"train", "attack", "eval"}
    assert not next(part for part in left if part["kind"] == "advtrain")["stored"]


def test_seeds_and_scales(file: Path) -> None:
    def seeds(**asked: Any) -> set[Any]:
        experiment = reading.read(SMALL, "small.toml", **asked)
        return {cell.known.get("seed") for run in experiment.runs.values() for cell in run.cells()}

    assert seeds() == {None}
    assert seeds(scale="more") == {0, 1, 2}
    assert seeds(scale="more", seeds=2) == {0, 1}
    chosen = reading.read(SMALL, "small.toml", scale="smoke", override={"preset": "report"})
    assert chosen.runs["plain"].options["epochs"] == 2
    assert chosen.runs["plain"].options["preset"] == "report"
    assert "epochs" not in reading.read(SMALL, "small.toml", scale="more").runs["plain"].options


def test_a_scale_changes_one_part_or_all_of_a_command(file: Path) -> None:
    text = SMALL.replace("[scale.more]", '[scale.smoke.evaluations.all]\nlimit = 7\nattack = ["pgd"]\n\n[scale.more]')
    chosen = reading.read(text, "small.toml").evaluations["all"].options
    assert (chosen["limit"], chosen["attack"]) == (7, ("pgd",))
    assert reading.read(text, "small.toml", scale="more").evaluations["all"].options["attack"] == ("fgsm",)
    with pytest.raises(UsageError, match="unknown key 'al'"):
        reading.read(text.replace("evaluations.all]", "evaluations.al]", 1), "small.toml")


def test_each_begins_from_its_own(file: Path) -> None:
    text = SMALL.replace(
        'init = { run = "plain", at = { mix = "none" } }', 'init = "plain"\ngrid.mix = ["none", "mixup"]'
    )
    experiment = reading.read(text, "small.toml", seeds=2)
    for part in plan.parts(experiment):
        if part.kind == "advtrain":
            assert isinstance(part.begin, Cell)
            assert {cell.values for cell in part.cells} == {part.begin.values}
            assert part.begin.run == "plain"


def test_together_is_what_can_be(file: Path) -> None:
    experiment = reading.read(SMALL, "small.toml", seeds=3)
    trained = [part for part in plan.parts(experiment) if part.kind == "train"]
    assert [len(part.cells) for part in trained] == [6]
    text = SMALL.replace("grid.mix", "grid.epochs = [1, 2]\ngrid.mix", 1)
    apart = reading.read(
        text.replace('init = { run = "plain", at = { mix = "none" } }', ""), "small.toml", scale="more"
    )
    assert sorted(len(part.cells) for part in plan.parts(apart) if part.kind == "train") == [6, 6]


def test_every_part_comes_after_what_it_needs() -> None:
    for name in (experiments.REPORT, experiments.EXAMPLE):
        experiment = reading.read(experiments.shipped(name), name)
        done: set[plan.Part] = set()
        for part in plan.parts(experiment):
            assert set(part.needs) <= done
            assert not isinstance(part.begin, Cell) or any(part.begin in each.cells for each in done)
            done.add(part)
        assert len({part.key for part in done}) == len(done)


def test_the_report_ships_whole() -> None:
    experiment = reading.read(experiments.shipped(experiments.REPORT), experiments.REPORT)
    assert {f"table{i}" for i in range(1, 9)} <= set(experiment.tables)
    assert {"figure2", "figure3", "figure7", "figure9"} <= set(experiment.pictures)
    table1 = {row.label: row.reference for row in experiment.tables["table1"].rows}
    assert table1["manifold"] == {"clean": 99.44, "loss": 0.076}
    assert experiment.dataset("table7-cifar10") == "cifar10"
    assert experiment.dataset("table7") == "mnist"


BAD = {
    "an unknown section": ("[tables.one]", "[table.one]", "unknown key 'table'"),
    "an unknown key": ('title = "accuracy"', 'titel = "accuracy"', "unknown key 'titel'"),
    "an unknown option": ("epochs = 1", "epoch = 1", "unknown key 'epoch'"),
    "an unknown option of a scale": ("train = { limit = 400,", "train = { limits = 400,", "unknown key 'limits'"),
    "a value of another kind": ("epochs = 1\n", 'epochs = "many"\n', "epochs must be int"),
    "no command": ('command = "train"', 'command = "eval"', "a run is train or advtrain"),
    "an empty grid": ('grid.mix = ["none", "mixup"]', "grid.mix = []", "must be a list with something in it"),
    "a grid that is none": ('grid.mix = ["none", "mixup"]', 'grid = "mix"', "grid must be a table"),
    "a value twice in a grid": ('grid.mix = ["none", "mixup"]', 'grid.mix = ["none", "none"]', "the same value twice"),
    "an option twice": ('grid.mix = ["none", "mixup"]', 'mix = "none"\ngrid.mix = ["mixup"]', "stands in the grid"),
    "a huge grid": (
        'grid.mix = ["none", "mixup"]',
        "\n".join(f"grid.{name} = [{', '.join(map(str, range(1, 1001)))}]" for name in ("epochs", "limit", "seed")),
        "a grid of 1,000,000,000 runs",
    ),
    "a circle": ('command = "train"', 'command = "advtrain"\ninit = "defended"', "a circle"),
    "a beginning that is a table": ('init = { run = "plain"', 'init = { run = "one"', "'one' is in tables"),
    "a beginning that is a picture": ('init = { run = "plain"', 'init = { run = "learning"', "is in figures"),
    "an unknown beginning": ('init = { run = "plain"', 'init = { run = "plane"', "there is no run 'plane'"),
    "no beginning of a train run": (
        'command = "train"', 'command = "train"\ninit = "untrained"', "unknown key 'init'",
    ),
    "no such cell": (
        'at = { mix = "none" } }\nlimit', 'at = { mix = "manifold" } }\nlimit', "no cell with mix=manifold",
    ),
    "several beginnings": ('init = { run = "plain", at = { mix = "none" } }', 'init = "plain"', "begin from 2 models"),
    "an unknown attack": ('samples = ["attacked"]', 'samples = ["attack"]', "there is no attack 'attack'"),
    "an unknown evaluation": (
        'columns.clean = { evaluation = "all" }', 'columns.clean = { evaluation = "al" }', "no evaluation 'al'",
    ),
    "an unknown figure": ('figure = "loss"', 'figure = "lose"', "figure is accuracy, loss, saturation"),
    "no evaluation": ('columns.clean = { evaluation = "all" }', "columns.clean = { evaluation = [] }", "an empty list"),
    "colours in a table": (
        'columns.clean = { evaluation = "all" }',
        'columns.clean = { on = "attacked", figure = "saturation" }', "saturation is for claims",
    ),
    "no columns": ('columns.clean = { evaluation = "all" }', "columns = {}", "columns must be"),
    "a reference without its column": (
        "reference = { clean = 99.5 }", "reference = { klean = 9 }", "unknown key 'klean'",
    ),
    "a reference that is no number": (
        "reference = { clean = 99.5 }", 'reference = { clean = "9" }', "must be numbers",
    ),
    "an unknown picture": ('kind = "curves"', 'kind = "curve"', "unknown kind 'curve'"),
    "samples of no attack": ('attack = "attacked"\nof', "of", "samples are those of an attack"),
    "an order of one": (
        'order = [{ run = "plain", at = { mix = "mixup" } }, { run = "plain", at = { mix = "none" } }]',
        'order = ["plain"]', "an order has two",
    ),
    "a path out of the folder": ('dataset = "glyphs"', 'dataset = "folder:../photos"', "outside the folder"),
    "a network out of the folder": ('dataset = "glyphs"', 'arch = "../../net.py:Net"', "outside the folder"),
    "no TOML": ('title = "two ways"', "title = two ways", "at line 2"),
    "a number of seeds that is none": ("seeds = 3", 'seeds = "3"', "seeds must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_said_with_its_line(name: str, file: Path, home: Path, advmix: Run) -> None:
    before, after, why = BAD[name]
    text = SMALL.replace(before, after, 1)
    assert text != SMALL
    file.write_text(text)
    wrong = advmix("run", file, "--dry-run")
    assert wrong.code == 2, wrong.err
    said = wrong.err.splitlines()[0]
    assert why in said
    assert said.startswith(f"error: {file}")
    if "cell" not in why and "begin from" not in why and name != "no TOML":
        line = int(said.removeprefix(f"error: {file}:").split(":")[0])
        changed = [
            i for i, (a, b) in enumerate(itertools.zip_longest(SMALL.splitlines(), text.splitlines()), 1) if a != b
        ]
        assert line in range(changed[0] - 6, changed[0] + 3)
    assert not (home / "checkpoints").exists()


def test_bad_calls(file: Path, home: Path, advmix: Run) -> None:
    for arguments, code, why in (
        (("run", "none.toml"), 3, "there is no file"),
        (("run", "."), 2, "is a folder"),
        (("run", file, "--scale", "smok"), 2, "no scale 'smok'"),
        (("run", file, "--only", "three"), 2, "unknown table or figure"),
        (("run", file, "--init"), 2, "is there"),
        (("run", file, "--seeds", "0"), 2, "seeds"),
        (("run", file, "--out", file), 2, "is a file"),
        (("reproduce", "table9"), 2, "unknown table or figure"),
        (("reproduce", "table1", "--dataset", "cifar10"), 2, "none of these is on cifar10"),
        (("reproduce", "--scale", "tiny"), 2, "no scale 'tiny'"),
    ):
        told = advmix(*arguments)
        assert told.code == code, told.err
        assert why in told.err


def test_one_that_fails_takes_only_what_needs_it(file: Path, home: Path, advmix: Run) -> None:
    file.write_text(SMALL.replace("epochs = 1\nsteps = 1", "epochs = 1\nsteps = 1\nsoft_label = 0.2"))
    alone = advmix("run", file, "--out", "out")
    assert alone.code == 2
    assert "--soft-label 0.2" in alone.err
    kept = advmix("run", file, "--out", "out", "--keep-going", "--json")
    assert kept.code == 2
    rows = json.loads(kept.out)["data"]["tables"]["one"]["rows"]
    assert rows[0]["figures"]["clean"] is not None
    assert rows[1]["figures"]["clean"] is None
    assert "not run" in Path("out/results.md").read_text()


def test_an_example_is_written_and_read(home: Path, advmix: Run, tmp_path: Path) -> None:
    assert advmix("run", tmp_path / "mine.toml", "--init").code == 0
    read = reading.read((tmp_path / "mine.toml").read_text(), "mine.toml")
    assert plan.parts(read)


def test_lines() -> None:
    text = 'a = 1\n[b.c]\nd = [\n  [1],\n  [2]\n]\n"e f" = 3\n[[g]]\nh = 1\n[[g]]\nh = 2\ni.j = 5\n'
    found = lines_of(text)
    assert found["a",] == 1
    assert found["b", "c", "d"] == 3
    assert found["b", "c", "e f"] == 7
    assert found["g", 1, "h"] == 11
    assert found["g", 1, "i", "j"] == 12
    assert ("b", "c", "x") not in found


def test_what_agrees() -> None:
    one, two = Cell("a", (("mix", "none"), ("seed", 0))), Cell("b", (("mix", "mixup"), ("seed", 1)))
    assert not one.agrees(two)
    assert one.agrees(Cell("b", (("seed", 0),)))
    assert one.agrees(Cell("b", ()))
    assert one.fits(Of("a", {"mix": "none"}))
    assert not one.fits(Of("a", {"mix": "mixup"}))


def test_students_t() -> None:
    """Against the integral of its density, by Simpson's rule."""
    for degrees in (1, 2, 3, 4, 7, 10):
        scale = math.gamma((degrees + 1) / 2) / (math.sqrt(degrees * math.pi) * math.gamma(degrees / 2))

        def density(t: float, degrees: int = degrees, scale: float = scale) -> float:
            return scale * (1 + t * t / degrees) ** (-(degrees + 1) / 2)

        for t in (0.3, 1.0, 2.5):
            steps = 2000
            weights = [1, *([4, 2] * (steps // 2 - 1)), 4, 1]
            area = sum(w * density(t * i / steps) for i, w in enumerate(weights)) * t / steps / 3
            assert t_tail(t, degrees) == pytest.approx(0.5 - area, abs=1e-9)
            assert t_tail(-t, degrees) == pytest.approx(0.5 + area, abs=1e-9)


class _Cell:
    def __init__(self, right: list[bool]) -> None:
        self.n, self.correct = len(right), sum(right)
        self.bits = sum(1 << i for i, each in enumerate(right) if each)
        self.accuracy = 100 * self.correct / self.n


def _one(right: list[bool], seed: int = 0) -> Any:
    from advmix_cli.experiments.figures import One

    measured: Any = _Cell(right)
    return One(Cell("a", (("seed", seed),)), measured.accuracy, measured, None, None)  # type: ignore[arg-type]


def test_two_are_compared_on_the_same_images() -> None:
    better, worse = [True] * 60 + [False] * 40, [True] * 40 + [False] * 60
    p, back = claims.compared([_one(better)], [_one(worse)])
    assert p == pytest.approx(0.5**20)
    assert back == pytest.approx(1 - 0.5**20)
    assert claims.compared([_one(worse)], [_one(better)]) == (back, p)
    assert claims.compared([_one(better)], [_one(better)]) == (0.5, 0.5)
    assert claims.compared([_one(worse)], [_one(better)], slack=25)[0] < 0.5


def test_colours_are_compared_image_by_image() -> None:
    draw = random.Random(0)
    greyer = [draw.gauss(-0.5, 1) for _ in range(100)]
    verdict = claims._changed(greyer, 0.0)
    assert verdict["verdict"] == "holds"
    assert verdict["p"] < 0.001
    assert claims._changed([-each for each in greyer], 0.0)["verdict"] == "does not hold"
    assert claims._changed([*greyer, *(-each for each in greyer)], 0.0)["verdict"] == "not decided at this scale"
    assert claims._changed([], 0.0)["p"] is None


COLOURS = """
[runs.grey]
command = "train"
dataset = "npz:grey.npz"
arch = "convsmall"
epochs = 1

[runs.defended]
command = "advtrain"
init = { run = "grey" }
epochs = 1
steps = 1

[attacks.attacked]
of = "grey"
steps = 2

[evaluations.plain]
of = "grey"

[evaluations.robust]
of = "defended"
attack = ["fgsm"]

[claims.greyer]
claim = "attacked images are greyer"
figure = { on = "attacked", figure = "saturation" }
order = ["grey"]
below = 0

[claims.cost]
claim = "adversarial training costs accuracy"
figure = { evaluation = ["plain", "robust"] }
order = ["grey", "defended"]
"""


def test_a_claim_may_be_of_colours_and_of_two_evaluations(home: Path, advmix: Run, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    grey = np.repeat(draw.integers(0, 256, (80, 28, 28, 1), dtype=np.uint8), 3, axis=3)
    labels = np.arange(80) % 4
    np.savez("grey.npz", x_train=grey[:60], y_train=labels[:60], x_test=grey[60:], y_test=labels[60:])
    Path("colours.toml").write_text(COLOURS)
    made = advmix("run", "colours.toml", "--out", "out", "--json")
    assert made.code == 0, made.err
    greyer, cost = made.data["claims"]
    assert greyer["verdict"] == "does not hold"
    assert greyer["n"] == 20
    x_adv = torch.load(home / "samples" / next(each.name for each in (home / "samples").glob("*.pt")))["adv_inputs"]
    assert greyer["figures"][0] == pytest.approx(100 * (x_adv.amax(1) - x_adv.amin(1)).mean().item(), rel=1e-4)
    assert None not in cost["figures"]
    assert cost["n"] == 20


def test_who_has_met_more_is_compared_on_the_images_that_both_have_met() -> None:
    def cell(right: list[bool]) -> Cell_:
        packed = np.packbits(np.array(right)).tobytes()
        return Cell_(len(right), sum(right), 0.5, base64.b64encode(packed).decode())

    many, few = [True] * 7 + [False] * 13, [False] * 5 + [True] * 6
    assert cell(many).first(11) == dataclasses.replace(cell(many[:11]), loss=None)
    assert cell(many).first(20).right == cell(many).right
    ones = [claims.One(Cell("a", ()), each.accuracy, each, None, None)  # type: ignore[arg-type]
            for each in (cell(many), cell(few))]  # fmt: skip
    (one,), (other,) = claims._on_the_same([[ones[0]], [ones[1]]])
    assert one.value == pytest.approx(700 / 11)
    assert one.measured.n == other.measured.n == 11
    assert other is ones[1]


def test_over_seeds_it_is_their_differences() -> None:
    draw = random.Random(0)

    def seeds(level: float) -> list[Any]:
        return [_one([draw.random() < level for _ in range(400)], seed) for seed in range(5)]

    high, low = seeds(0.9), seeds(0.6)
    p, back = claims.compared(high, low)
    assert p < 0.001
    assert back > 0.999
    assert claims.compared(seeds(0.6), low)[0] > 0.01


def test_an_interval_over_seeds_is_wider_than_their_spread() -> None:
    from advmix_cli.experiments import figures

    class Evaluation:
        name, made = "e", {"command": "c"}
        rows = (type("Row", (), {"lineage": {"name": "m"}}),)

    class Column:
        threat, bound = None, None

    ones = [
        figures.One(one.cell, one.value, one.measured, Evaluation, Column)  # type: ignore[arg-type]
        for one in (_one([True] * 90 + [False] * 10, 0), _one([True] * 80 + [False] * 20, 1))
    ]
    found = figures.summed(ones, 70.0)
    assert found is not None
    assert found["mean"] == 85
    assert found["low"] < 80
    assert not found["within"]
    assert figures.summed([], 1.0) is None


def test_as_markdown_nothing_breaks_a_table() -> None:
    data = {
        "title": "a|b", "summary": "", "scale": "smoke", "claims": [], "not_run": ["table2"], "made": [],
        "command": "advmix run", "figures": [{"id": "f", "title": "x", "file": "f.png"}],
        "tables": {"t": {"title": "x", "columns": {"clean": "%"}, "rows": [
            {"row": "a|b", "figures": {"clean": None}, "reference": {"clean": 1.0}}]}},
    }  # fmt: skip
    text = writing.markdown(data)
    assert "![x](f.png)" in text
    assert "| a\\|b | not run (ref 1) |" in text
    assert "- table2" in text


DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("docs", sorted(path.parent for path in DOCS.rglob("results.json")), ids=lambda path: path.name)
def test_the_results_that_are_told_are_those_that_were_measured(docs: Path) -> None:
    """Each results.md is written from the results.json beside it, and speaks of the report's tables as they ship."""
    data = json.loads((docs / "results.json").read_text())
    assert (docs / "results.md").read_text() == writing.markdown(data)
    report = reading.read(experiments.shipped(experiments.REPORT), experiments.REPORT)
    for id, table in data["tables"].items():
        assert [row["row"] for row in table["rows"]] == [row.label for row in report.tables[id].rows]
        assert [row["reference"] for row in table["rows"]] == [dict(row.reference) for row in report.tables[id].rows]
    assert {each["claim"] for each in data["claims"]} <= {claim.claim for claim in report.claims.values()}
    for figure in data["figures"]:
        assert (docs / figure["file"]).is_file()


def test_a_file_with_an_end_of_another_kind_is_read() -> None:
    assert reading.read(SMALL.replace("\n", "\r\n"), "small.toml").runs
    with pytest.raises(UsageError, match=r"small\.toml:"):
        reading.read(SMALL.replace("\n", "\r\n").replace("epochs = 1", "epoch = 1"), "small.toml")


def started(file: Path, out: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "advmix_cli", "run", str(file), "--out", out, "--threads", "1"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def test_killed_at_any_part_it_ends_as_if_it_had_not_been(
    file: Path, home: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for last in (1, 3, 5, 6):
        with started(file, "killed") as process:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith(f"part {last} of"):
                    process.kill()
    assert not Path("killed/results.json").exists()
    assert advmix("run", file, "--out", "killed", "--threads", "1").code == 0
    monkeypatch.setenv("ADVMIX_HOME", str(home.parent / "another"))
    assert advmix("run", file, "--out", "whole", "--threads", "1").code == 0
    assert without_times(Path("killed/results.json")) == without_times(Path("whole/results.json"))


def test_two_at_once_share_the_work(file: Path, home: Path) -> None:
    both = [started(file, out) for out in ("one", "two")]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    begun = sorted(line.split(":")[0] for each in said for line in each.splitlines() if "epoch 1/" in line)
    assert begun == ["epoch 1/1", "mixup", "none"], said
    assert without_times(Path("one/results.json")) == without_times(Path("two/results.json"))
    assert len(list(home.glob("evaluations/*.json"))) == 3


REQUESTS = [
    ("train", requests.Train(dataset="mnist", mix=("none", "mixup"), seed=(0, 1), epochs=3, lr=0.01)),
    ("advtrain", requests.AdvTrain(init="plain", method="trades", method_arg=["beta=2"], eps=8 / 255, mix=("mixup",))),
    ("attack", requests.Attack(model="m", attack="fgsm", eps=0.25, random_start=False, early_stop=True)),
    ("eval", requests.Evaluate(models=["m"], samples=["a", "b"], attack=["pgd", "fgsm"], certify=True, limit=20)),
]


@pytest.mark.parametrize(("kind", "request_"), REQUESTS, ids=[kind for kind, _ in REQUESTS])
def test_a_command_asks_what_a_part_asked(kind: str, request_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line reads what is written of a request as that request."""
    from advmix_cli.cli import attacking, training

    line, read = command_of(kind, request_), list[Any]()
    for module in (attacking, training):
        monkeypatch.setattr(module, "carry_out", lambda ctx, request, stopped: read.append(request()))
    with pytest.raises(SystemExit):
        main(shlex.split(line)[1:])
    (again,) = read
    for field in dataclasses.fields(request_):
        ours, theirs = getattr(request_, field.name), getattr(again, field.name)
        same = list(ours or ()) == list(theirs or ()) if isinstance(ours, list | tuple) else ours == theirs
        assert same, (field.name, line)


def test_what_a_command_says_beside_its_request_is_left_out() -> None:
    part = part_of_file("advmix eval m --report x.html -q --attack pgd --no-random-start --device cpu --json", "e")
    assert part == '[evaluations."e"]\nof = "m"\nattack = "pgd"\nrandom_start = false\n'
    with pytest.raises(UsageError, match="no part of an experiment"):
        part_of_file("advmix visualize curves", "c")


def test_an_artifact_tells_the_command_and_the_part_that_make_it(file: Path, home: Path, advmix: Run) -> None:
    made = advmix("run", file, "--only", "two", "--out", "out", "--json").data
    (model,) = made["tables"]["two"]["rows"][0]["figures"]["clean"]["models"]
    command = advmix("store", "show", model, "--command", "-q").out.strip()
    assert command.startswith("advmix train --mix none,mixup")
    again = advmix(*shlex.split(command)[1:], "--json")
    assert model in [run["checkpoint"] for run in again.data["runs"]]
    assert all(run["cached"] for run in again.data["runs"])
    part = advmix("store", "show", model, "--toml", "-q").out
    read = reading.read(part, "part.toml")
    (run,) = read.runs.values()
    assert run.grid == {"mix": ("none", "mixup")}
    assert run.options["limit"] == 400
    evaluation = advmix("store", "show", made["made"][0]["evaluation"], "--toml", "-q").out
    assert 'attack = "fgsm"' in evaluation
    assert advmix("store", "show", "nothing", "--command").code == 3
