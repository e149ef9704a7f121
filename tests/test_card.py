"""`advmix card`: what it says is what is recorded, it is valid for the hub, and nothing in a name can break it."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MADE, Run
from hypothesis import example, given
from hypothesis import strategies as st

import advmix_cli
from advmix_cli import artifacts, models, zoo
from advmix_cli.config import EvalSettings
from advmix_cli.judging import Certificate
from advmix_cli.threats import Threat
from advmix_cli.workflows.card import folder, metadata
from advmix_cli.workflows.card.markdown import escaped, fenced, table
from advmix_cli.workflows.evaluation import statistics
from advmix_cli.workflows.evaluation.record import Cell, Column, Evaluation, Row
from advmix_cli.workflows.references import ModelRef

PLAIN = "zoo:lenet5-plain"
PGD = Threat(eps=0.3, early_stop=True)
STRANGE = "a|b\n---\n`c` <img src=x> **d** [e](f) \\ \N{SNOWMAN} \u202e \x9b \"g\" 'h' # $i$ ```"


def hub(text: str) -> Any:
    """The card as the hub's own library reads it."""
    library = pytest.importorskip("huggingface_hub", reason="the hub's library is not here (the extra test has it)")
    return library.ModelCard(text)


def cells(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown text as another parser reads them: their rows of cells."""
    from markdown_it import MarkdownIt

    found: list[list[list[str]]] = []
    for token, then in zip(*(2 * [MarkdownIt("commonmark").enable("table").parse(text)]), strict=True):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level >= 4:
            found[-1][-1].append("".join(each.content for each in then.children or ()))
    return found


def stored(home: Path, name: str = "m", **changes: Any) -> str:
    """A checkpoint in the store, with the weights of a small network that ships; gives its name."""
    path = zoo.path(PLAIN)
    record = {k: v for k, v in artifacts.checkpoint_record(path).items() if k != "digests"}
    best = artifacts.checkpoint_weights(path, "best")
    file = home / "checkpoints" / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    (home / "schema").write_text("2\n")
    file.write_bytes(artifacts.checkpoint_bytes(best, best, record | {"name": name} | changes))
    return name


def cell(n: int, correct: int, **more: Any) -> Cell:
    flags = (((1 << correct) - 1) << (-n % 8)).to_bytes((n + 7) // 8, "big")
    return Cell(n, correct, 0.5, base64.b64encode(flags).decode(), **more)


def planted(
    home: Path, number: int, found: list[tuple[Column, Cell]], *, name: str = "m", date: str = "2026-01-01", **more: Any
) -> Evaluation:
    """An evaluation of that model in the store."""
    n = found[0][1].n
    lineage = {
        "name": name, "weights": "best", "arch": "lenet5",
        "digest": artifacts.checkpoint_record(zoo.path(PLAIN))["digests"]["best"],
    }  # fmt: skip
    audit = more.pop("audit", None)
    certified = next((column.proved for column, _ in found if column.proved), None)
    threats = tuple(column.threat for column, _ in found if column.kind == "attack" and column.threat)
    settings = EvalSettings("mnist", "test", n, threats, audited=PGD if audit else None, certified=certified)
    settings = dataclasses.replace(settings, **more)
    row = Row(name, lineage, None, [(n, 0.5, 0.5)], audit)
    own, key = f"mnist-test-{number}", f"{number:x}".rjust(64, "0")
    made = MADE | {"date": date, "command": f"advmix eval {name} --seed {number}"}
    evaluation = Evaluation(
        own, key, settings, "1" * 64, [row], [c for c, _ in found], [[each for _, each in found]], made
    )
    path = home / "evaluations" / f"{own}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(artifacts.sealed(evaluation.to_record()))
    return evaluation


def clean(n: int, correct: int, **more: Any) -> tuple[Column, Cell]:
    return Column("clean", "clean"), cell(n, correct, **more)


def under(threat: Threat, n: int, correct: int, **more: Any) -> tuple[Column, Cell]:
    return Column("attack", threat.label, threat, "upper"), cell(n, correct, **more)


def proved(certificate: Certificate, n: int, correct: int) -> tuple[Column, Cell]:
    return Column("certified", certificate.label, bound="lower", proved=certificate), cell(n, correct)


AUDIT: dict[str, Any] = {
    "n": 200, "verdict": "masked", "chance": 10.0,
    "robust": {"attack": "square", "n": 200, "correct": 30, "accuracy": 15.0, "accuracy_ci95": [10.7, 20.6]},
    "checks": [
        {"name": "square takes", "verdict": "masked", "value": 50.0, "unit": "%", "advice": "do | not\nbelieve it"},
        {"name": "logits", "verdict": "ok", "value": 0.0, "unit": "", "advice": ""},
    ],
    "by_eps": [], "by_steps": [], "landscape": {"image": 0, "label": 0, "axis": [0.0], "loss": [[1.0]]},
}  # fmt: skip


# What it says


@pytest.mark.parametrize("ref", zoo.names())
def test_what_ships_is_known_without_an_evaluation(ref: str, home: Path, advmix: Run) -> None:
    about, told = zoo.known()[ref.removeprefix(zoo.PREFIX)], advmix("card", ref)
    assert told.code == 0, told.err
    assert f"**The true figure {statistics.lies(about)}**" in told.out
    for command in (about["trained_with"], about["command"]):
        assert command in told.out
    read = hub(told.out)
    assert (read.data.library_name, read.data.license, read.data.datasets) == ("advmix", "mit", ["ylecun/mnist"])
    assert {"advmix", "adversarial-robustness"} <= set(read.data.tags)
    by = {(each.metric_type, each.metric_value): each for each in read.data.eval_results}
    assert {each.task_type for each in by.values()} == {"image-classification"}
    assert "clean" in by["accuracy", about["clean"]].metric_name
    assert f"{about['norm']} eps {about['eps']}" in by["robust_accuracy", about["upper"]].metric_name
    assert f"{about['norm']} eps {about['eps']}" in by["certified_accuracy", about["certified"]].metric_name
    assert not home.exists(), "reading leaves no store behind"


def test_a_model_of_which_nothing_is_measured_says_so_and_how_to(home: Path, advmix: Run) -> None:
    told = advmix("card", stored(home))
    assert told.code == 0
    command = "advmix eval m --attack autoattack --certify --audit --limit 1000"
    assert "Nothing has been measured" in told.out
    assert command in told.out
    assert f"next: measure it: {command}" in told.err
    read = hub(told.out)
    assert read.data.eval_results is None
    assert read.data.license is None
    assert advmix("eval", *command.split()[2:], "--help").code == 0, "there is such a command"


def test_each_figure_is_that_of_the_most_images_then_the_newest(home: Path, advmix: Run) -> None:
    stored(home)
    other = dataclasses.replace(PGD, steps=20)
    planted(home, 1, [clean(100, 99), under(PGD, 100, 50)], date="2026-03-01")
    planted(home, 2, [clean(200, 190), under(PGD, 200, 80)], date="2026-01-01")
    planted(home, 3, [clean(200, 191), under(other, 200, 90)], date="2026-02-01")
    planted(home, 4, [clean(300, 1), under(PGD, 300, 2)], name="another", date="2026-09-01")
    card = advmix("card", "m", "--json").data["card"]
    found = [(each["what"], each["n"], each["correct"], each["evaluation"]) for each in card["figures"]]
    assert sorted(found) == sorted([
        ("clean", 200, 191, "mnist-test-3"),
        (str(PGD), 200, 80, "mnist-test-2"),
        (str(other), 200, 90, "mnist-test-3"),
    ])  # fmt: skip
    assert {each["name"]: each["key"] for each in card["evaluations"]} == {
        "mnist-test-2": "2".rjust(64, "0"), "mnist-test-3": "3".rjust(64, "0"),
    }  # fmt: skip
    text = advmix("card", "m").out
    assert "mnist-test-2" in text
    assert "mnist-test-1" not in text
    assert f"| mnist-test-3 | {'3'.rjust(64, '0')} |" in text
    assert "advmix eval m --seed 2\nadvmix eval m --seed 3\n" in text, "in the order in which they were made"


def test_figures_on_other_images_and_splits_stand_apart(home: Path, advmix: Run) -> None:
    stored(home)
    planted(home, 1, [clean(100, 99)])
    planted(home, 2, [clean(200, 150)], split="train")
    text = advmix("card", "m").out
    assert len(json.loads(advmix("card", "m", "--json").out)["data"]["card"]["figures"]) == 2
    assert {each.dataset_split for each in hub(text).data.eval_results} == {"test", "train"}
    assert "the first 100 of 10,000 mnist test images" in text


def test_the_bracket_the_audit_and_what_follows_from_them(home: Path, advmix: Run) -> None:
    stored(home)
    certificate = Certificate(0.3, "linf", "ibp")
    found = [clean(200, 190), under(PGD, 200, 80), proved(certificate, 200, 20)]
    planted(home, 1, found, audit=AUDIT)
    told = advmix("card", "m")
    assert "**The true figure lies between 10.00 and 15.00 %**" in told.out, "the audit's figure is an upper end, too"
    assert "**masked**" in told.out
    assert "Its gradients are masked, says the audit" in told.out
    assert "Nothing is proved in" not in told.out
    assert "No audit has looked" not in told.out
    (audit,) = [rows for rows in cells(told.out) if rows[0][0] == "check"]
    assert audit[1:] == [["square takes", "masked", "50 %", "do | not believe it"]]
    planted(home, 1, found[:2])
    without = advmix("card", "m").out
    assert "Nothing is proved in linf eps 0.3" in without
    assert "No audit has looked for masked gradients" in without
    assert "The true figure lies" not in without
    planted(home, 1, found[:1])
    assert "nothing is said of its robustness" in advmix("card", "m").out


def test_what_proves_nothing_of_the_network_itself_is_no_metric_of_the_hub(home: Path, advmix: Run) -> None:
    stored(home)
    as_run = Threat(eps=0.3, variant="as-run")
    transfer = Column("samples", "c", PGD, "upper", "another")
    strangers = Column("samples", "x.pt", joint=False)
    planted(home, 1, [clean(40, 30), under(as_run, 40, 20), (transfer, cell(40, 10)), (strangers, cell(40, 5))])
    told = advmix("card", "m").out
    assert [each.metric_value for each in hub(told).data.eval_results] == [75.0]
    (accuracies,) = [rows for rows in cells(told) if rows[0][0] == "on"]
    assert [row[3] for row in accuracies[1:]] == ["75.00", "50.00", "25.00", "12.50"]
    assert "made against another" in told
    assert "The as-run attack leaves its ball" in told


def test_the_lineage_is_said_with_the_command_of_each(home: Path, advmix: Run) -> None:
    record = artifacts.checkpoint_record(zoo.path("zoo:lenet5-masked"))
    begun = {"name": record["name"], "weights": "best", "digest": record["digests"]["best"], "arch": "lenet5"}
    own = artifacts.checkpoint_record(zoo.path(PLAIN))["made"]["command"]
    stored(home, init=begun | {"path": "zoo:lenet5-masked"})
    steps = advmix("card", "m", "--json").data["card"]["training"]
    assert [step["command"] for step in steps] == [record["made"]["command"], own]
    assert (steps[0]["method"], steps[0]["eps"], steps[0]["steps"]) == ("avmixup", 0.3, 10)
    assert steps[1]["begun_from"] == f"{record['name']}@best"
    told = advmix("card", "m").out
    assert f"{record['made']['command']}\n{own}\n" in told
    assert {"adversarial-training", "avmixup"} <= set(hub(told).data.tags)
    for gone in (begun, begun | {"digest": "0" * 64, "path": "zoo:lenet5-masked"}, begun | {"path": "zoo:nothing"}):
        stored(home, init=gone)
        assert f"What it began from, {record['name']}, is not in the store" in advmix("card", "m").out


def test_the_classes_are_counted_where_an_evaluation_recorded_them(home: Path, advmix: Run) -> None:
    told = advmix("eval", PLAIN, "--dataset", "glyphs", "--attack", "fgsm", "--limit", "60", "--json")
    assert told.code == 0, told.err
    x, y, names = advmix_cli.datasets("glyphs", limit=60)
    with torch.no_grad():
        right = advmix_cli.load(PLAIN)(x).argmax(1) == y
    card = advmix("card", PLAIN, "--json").data["card"]
    (figure,) = [each for each in card["figures"] if each["kind"] == "clean" and each["dataset"] == "glyphs"]
    assert figure["by_class"] == [[int((y == c).sum()), int(right[y == c].sum())] for c in range(len(names))]
    (rows,) = [rows for rows in cells(advmix("card", PLAIN).out) if rows[0][0] == "class"]
    n, correct = figure["by_class"][3]
    assert rows[4][:2] == ["3", f"{100 * correct / n:.1f} of {n}"]
    assert "figures on glyphs are of other images" in advmix("card", PLAIN).out


def test_an_evaluation_that_cannot_be_read_is_named_and_left_out(home: Path, advmix: Run) -> None:
    stored(home)
    planted(home, 1, [clean(100, 99)])
    (home / "evaluations/broken.json").write_text("{")
    told = advmix("card", "m", "--json")
    assert told.code == 0
    assert [each["evaluation"] for each in told.data["card"]["figures"]] == ["mnist-test-1"]
    assert "broken.json is damaged" in told.err


# Where it goes


def test_standard_output_and_a_file_say_the_same_and_json_has_it_too(home: Path, advmix: Run, tmp_path: Path) -> None:
    stored(home)
    planted(home, 1, [clean(100, 99), under(PGD, 100, 50)])
    text = advmix("card", "m").out
    assert advmix("card", "m", "--out", tmp_path / "CARD.md", "-q").out == f"{tmp_path / 'CARD.md'}\n"
    assert (tmp_path / "CARD.md").read_text() == text
    folder = tmp_path / "folder"
    folder.mkdir()
    told = advmix("card", "m", "--out", folder, "--json").data
    assert (folder / "README.md").read_text() == text
    assert (told["path"], told["files"]) == (str(folder / "README.md"), [str(folder / "README.md")])
    assert advmix("card", "m", "--out", f"{tmp_path}/new/", "-q").code == 0
    assert (tmp_path / "new/README.md").read_text() == text
    assert advmix("card", "m", "-q").out == "m\n"
    assert advmix("card").out == text, "the latest"
    assert advmix("card", "-", stdin="m\n").out == text
    assert advmix("card", "m", "--json").data["card"] == told["card"]


def test_a_file_that_is_there_is_kept_unless_told(home: Path, advmix: Run, tmp_path: Path) -> None:
    stored(home)
    for name in ("README.md", "model.safetensors", "config.json"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("mine")
        told = advmix("card", "m", "--push-ready", "--out", folder)
        assert (told.code, f"{name} is there" in told.err, "--force" in told.err) == (2, True, True)
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_text() == "mine"
        (folder / "other").write_text("kept")
        assert advmix("card", "m", "--push-ready", "--out", folder, "--force").code == 0
        assert (folder / name).read_text(errors="replace") != "mine"
        assert (folder / "other").read_text() == "kept"


def test_a_folder_for_the_hub_is_loaded_by_advmix_and_by_torch(home: Path, advmix: Run, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    stored(home)
    planted(home, 1, [clean(100, 99)])
    told = advmix("card", "m", "--push-ready", "--out", tmp_path / "hub", "--json")
    assert told.code == 0, told.err
    assert sorted(Path(path).name for path in told.data["files"]) == ["README.md", "config.json", "model.safetensors"]
    assert hub((tmp_path / "hub/README.md").read_text()).data.model_name == "m"
    config = json.loads((tmp_path / "hub/config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["input"]["shape"]) == ("lenet5", 10, [1, 32, 32])
    assert config["classes"] == list("0123456789")
    monkeypatch.chdir(tmp_path / "hub")
    x = torch.rand(3, 1, 32, 32)
    ours: dict[str, Any] = {}
    exec(config["load"]["advmix"], ours)
    theirs: dict[str, Any] = {"x": x}
    exec(config["load"]["torch"], theirs)
    assert torch.equal(ours["model"](x), advmix_cli.load("m")(x))
    torch.testing.assert_close(theirs["logits"], ours["model"](x))
    again = advmix("card", "model.safetensors", "--json").data["card"]
    assert [each["evaluation"] for each in again["figures"]] == ["mnist-test-1"], "it is the same model"
    assert again["model"] == json.loads(advmix("card", "m", "--json").out)["data"]["card"]["model"]
    assert str(tmp_path) not in Path("README.md").read_text(), "nothing of this machine"


@pytest.mark.parametrize(
    "network",
    [
        models.Network("convsmall", (1, 28, 28), 10, (), (0.1,), (0.3,)),
        models.Network("preactresnet18", (3, 32, 32), 4),
        models.Network("torchvision:squeezenet1_1", (1, 32, 32), 5, (), (0.2,), (0.4,)),
        models.Network("torchvision:squeezenet1_1", (1, 32, 32), 5, ("dropout=0.1",), (), ()),
        models.Network("timm:resnet10t", (3, 32, 32), 5),
    ],
    ids=lambda network: f"{network.arch}-{network.shape[0]}-{network.mean}",
)
def test_the_lines_for_torch_make_any_network(network: models.Network, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch, home: Path) -> None:  # fmt: skip
    if network.arch.startswith("timm:"):
        pytest.importorskip("timm")
    from safetensors.torch import save_file

    built = models.build(network, seed=3)
    monkeypatch.setattr(folder, "load_model", lambda model, device: built)
    monkeypatch.chdir(tmp_path)
    save_file({name: each.contiguous() for name, each in built.state_dict().items()}, "model.safetensors")
    found: dict[str, Any] = {"x": torch.rand(2, *network.shape)}
    record = {"network": network.to_dict()}
    with torch.no_grad():
        exec(folder.with_torch(ModelRef("m", tmp_path, "best", record)), found)
        torch.testing.assert_close(found["logits"], built(found["x"]), rtol=1e-4, atol=1e-5)


OWN = """from torch import nn


def net(num_classes, width):
    return nn.Sequential(nn.Flatten(), nn.Linear(width, num_classes))
"""


def test_other_weights_than_a_record_is_of_are_taken_in_by_the_line_that_is_said(
    home: Path, advmix: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last epoch's, and those of a network whose file is of this machine; the folder names no path of it."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    torch.save({"1.weight": torch.rand(10, 1024), "1.bias": torch.rand(10)}, "W.pt")
    line = ("--dataset", "glyphs", "--arch", "own.py:net", "--arch-arg", "width=1024", "--normalize", "0.1:0.25")
    assert advmix("import", "W.pt", *line, "--name", "own").code == 0
    stored(home)
    path = zoo.path(PLAIN)
    record = {k: v for k, v in artifacts.checkpoint_record(path).items() if k != "digests"} | {"name": "two"}
    best = artifacts.checkpoint_weights(path, "best")
    last = {name: each + 0.01 for name, each in best.items()}
    (home / "checkpoints/two.safetensors").write_bytes(artifacts.checkpoint_bytes(best, last, record))
    x = torch.rand(3, 1, 32, 32)
    for ref in ("own", "two@last"):
        told = advmix("card", ref, "--push-ready", "--out", "hub", "--force", "--json")
        assert told.code == 0, told.err
        assert str(tmp_path).encode() not in b"".join(file.read_bytes() for file in Path("hub").iterdir())
        words = told.data["card"]["load"]["advmix"].replace("FILE.py", "../own.py").split()
        wanted = advmix_cli.load(ref, run_code=True)(x)
        monkeypatch.chdir("hub")
        taken = advmix(*words[1:], "-q")
        assert taken.code == 0, taken.err
        torch.testing.assert_close(advmix_cli.load(taken.out.strip(), run_code=True)(x), wanted)
        monkeypatch.chdir("..")


# Bad inputs


@pytest.mark.parametrize(
    ("line", "code", "said", "hint"),
    [
        ("nothing", 3, "no checkpoint is called 'nothing'", ""),
        ("zoo:nothing", 3, "the zoo has no nothing", ""),
        ("", 3, "is empty", ""),
        ("m --push-ready", 2, "--push-ready writes a folder", "--out DIR"),
        ("m --push-ready --out there", 2, "there is a file", "another name"),
        ("m --out there", 2, "there is there", "--force"),
        ("m --out ''", 2, "--out is empty", ""),
        ("m --out home/checkpoints/m.safetensors --force", 2, "is in the store", "elsewhere"),
        ("m --out home --force", 2, "is in the store", "elsewhere"),
        ("m --out there/README.md", 1, "cannot write to", "another folder"),
        ("m --push-ready --out folder --force", 2, "README.md is there", ""),
        ("damaged.safetensors", 4, "is damaged", ""),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_lost(
    line: str, code: int, said: str, hint: str, home: Path, advmix: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shlex

    stored(home)
    monkeypatch.chdir(tmp_path)
    Path("there").write_text("mine")
    Path("folder/README.md").mkdir(parents=True)
    Path("damaged.safetensors").write_bytes(zoo.path(PLAIN).read_bytes()[:-1])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    told = advmix("card", *(shlex.split(line) or [""]), "--json")
    assert told.code == code, told.err
    assert said in told.errors[0]["message"]
    assert hint in told.errors[0]["hint"]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# Strange characters


def test_no_name_breaks_the_markdown_or_the_metadata(home: Path, advmix: Run, tmp_path: Path) -> None:
    classes = [*"01234567", "a|b", "`<i>|`"]
    made = artifacts.checkpoint_record(zoo.path(PLAIN))["made"] | {"command": f"advmix train --x '{STRANGE}'"}
    file = tmp_path / 'we|rd\n---\n"x" `y`.safetensors'
    stored(home, class_names=classes, made=made)
    strangers = Column("samples", STRANGE, joint=False)
    counted = [(4, 3)] * 10
    planted(home, 1, [clean(40, 30, by_class=counted), (strangers, cell(40, 20))])
    file.write_bytes((home / "checkpoints/m.safetensors").read_bytes())
    for ref in ("m", file):
        told = advmix("card", ref)
        assert told.code == 0, told.err
        read = hub(told.out)
        assert read.data.library_name == "advmix"
        assert read.data.eval_results[0].metric_value == 75.0
        tables = cells(told.out)
        assert all(len(row) == len(rows[0]) for rows in tables for row in rows)
        (accuracies,) = [rows for rows in tables if rows[0][0] == "on"]
        assert len(accuracies) == 3
        assert "a|b --- `c` <img src=x> **d** [e](f) \\" in accuracies[2][0]
        (by_class,) = [rows for rows in tables if rows[0][0] == "class"]
        assert [row[0] for row in by_class[1:]] == classes
        titles = [line for line in told.out.splitlines() if line.startswith("## ")]
        assert len(titles) == 8
        assert "<img" not in told.out.replace(fenced("sh", "\n".join([made["command"], "advmix eval m --seed 1"])), "")


WORDS = st.text(max_size=30)


@given(
    WORDS,
    st.lists(WORDS, max_size=3),
    st.dictionaries(st.just("name"), WORDS),
    st.floats(0, 100).map(lambda v: round(v, 4)),
)
def test_yaml_says_what_was_written(text: str, several: list[str], inner: dict[str, str], value: float) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not here (it comes with the hub's library)")
    from advmix_cli.results import shown

    content = {
        "a": text,
        "b": several,
        "c": [inner, {"deep": [several, value]}],
        "d": value,
        "e": None,
        "f": [],
        "g": {},
    }

    def said(each: Any) -> Any:
        if isinstance(each, dict):
            return {name: said(inner) for name, inner in each.items()}
        return (
            [said(inner) for inner in each]
            if isinstance(each, list)
            else shown(each)
            if isinstance(each, str)
            else each
        )

    assert yaml.safe_load(metadata.yaml(content)) == said(content)


@example(["a\nb", "c  d"])
@given(st.lists(WORDS, min_size=2, max_size=2))
def test_a_cell_is_one_cell_and_means_itself(texts: list[str]) -> None:
    from advmix_cli.results import shown

    ((_, row),) = cells(table(("one", "two"), [texts]))
    assert row == [" ".join(shown(text).split()) for text in texts]


@pytest.mark.parametrize(
    "text", ["- no list", "1. no list", "# no title", "> no quote", "+", "---", "===", "a  b\n\nc"]
)
def test_a_paragraph_stays_one(text: str) -> None:
    from markdown_it import MarkdownIt

    _, inline, _ = MarkdownIt("commonmark").parse(escaped(text))
    assert "".join(each.content for each in inline.children or ()) == " ".join(text.split())


@given(WORDS)
@example("a\n```\n````\nb")
def test_a_fence_holds_whatever_is_in_it(text: str) -> None:
    from markdown_it import MarkdownIt

    from advmix_cli.results import shown

    (token,) = MarkdownIt("commonmark").parse(fenced("sh", text))
    assert token.content.rstrip("\n") == shown(text).rstrip("\n")
