"""The command line: its frozen shape, its bad inputs, its streams, its caches."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from conftest import ADVMIX_THAT_HEEDS_CTRL_C, TINY, Run, content_of, shell

from advmix_cli import artifacts, training
from advmix_cli.cli import app, shape

OPTIONS = Path(__file__).parent / "options.txt"


def tree() -> list[str]:
    """Every command with its arguments and options."""
    lines: list[str] = []

    def walk(command: Any, path: str) -> None:
        names = [
            "/".join([*parameter.opts, *parameter.secondary_opts])
            if parameter.param_type_name == "option"
            else parameter.metavar
            for parameter in command.params
        ]
        lines.append(" ".join([path, *sorted(filter(None, names))]))
        for name, inner in sorted(getattr(command, "commands", {}).items()):
            walk(inner, f"{path} {name}")

    walk(typer.main.get_command(app), "advmix")
    return lines


def test_the_commands_and_options_are_those_that_were_decided() -> None:
    """To change them is a decision: write it down in options.txt and in the CHANGELOG."""
    assert tree() == OPTIONS.read_text().splitlines()


MOST_MODULES = 420
"""That help or an answer from the store may import."""

HELP = ("", "train", "attack", "eval", "import", "presets", "info", "card", "data", "data list", "store",
        "store remove",
        "visualize samples")  # fmt: skip
CALLED = """import sys; from advmix_cli import cli
try: cli.main(sys.argv[1:])
except SystemExit as end: assert not end.code
"""
"""A process that runs a command, to say afterwards what it imported."""
LIGHT = {
    "typer", "rich", "shellingham", "annotated_doc", "markdown_it", "mdurl", "pygments", "advmix_cli",
    "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection",
}  # fmt: skip
"""What help may import beside the standard library; the last five come with typer where they are installed."""


@pytest.mark.parametrize("command", HELP)
def test_help_imports_little(command: str) -> None:
    """How fast it answers is decided by what it imports; a clock would measure the machine's other work too."""
    code = CALLED + (
        "own = sys.stdlib_module_names | set(sys.builtin_module_names)\n"
        "print(len(sys.modules), *sorted({m.split('.')[0] for m in sys.modules} - own), file=sys.stderr)"
    )
    line = [sys.executable, "-c", code, *command.split(), "--help"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    count, *names = done.stderr.split()
    foreign = {name for name in names if not name.startswith("_")}
    assert foreign <= LIGHT, foreign - LIGHT
    assert int(count) < MOST_MODULES


def test_long_help_is_in_groups_as_wide_as_the_terminal(advmix: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    told = advmix("advtrain", "-h").out
    assert told == advmix("advtrain", "--help").out
    titles = [line for line in told.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Images and network:", "Training:", "Threat:", "Run:", "Output:"]
    assert 80 < max(map(len, told.splitlines())) < 110
    assert "Options:" in advmix("store", "list", "-h").out


def test_every_option_of_a_long_help_has_a_group() -> None:
    commands = [command for command in typer.main.get_command(app).commands.values() if command.name != "import"]  # type: ignore[attr-defined]
    grouped = {name for names in shape._GROUPS.values() for name in names}
    for command in commands:
        options = [each.name for each in command.params if each.param_type_name == "option"]
        if len(options) >= shape._SEVERAL:
            assert {*options} <= grouped, command.name


def test_names_in_any_case_and_lists_with_commas(advmix: Run) -> None:
    trained = advmix("train", *TINY, "--mix", "None,MIXUP", "--arch", "LeNet5", "--dataset", "Glyphs", "-q")
    assert len(trained.out.split()) == 2, trained.err
    found = advmix(
        "eval", "latest", "--attack", "PGD, fgsm", "--norm", "Linf", "--steps", "2", "--limit", "3", "--json"
    )
    assert found.code == 0, found.err
    assert {row["on"] for row in found.data["rows"]} >= {"fgsm-0.3", "pgd-0.3-2-early", "worst case"}
    assert advmix("store", "list", "Checkpoint", "-q").out == advmix("store", "list", "checkpoints", "-q").out


def test_aliases_of_a_pattern_are_removed(advmix: Run) -> None:
    for name in ("m-1", "m-2", "other"):
        assert advmix("train", *TINY, "--seed", {"m-1": 1, "m-2": 2}.get(name, 3), "--name", name).code == 0
    assert advmix("store", "remove", "m-*", "-y").code == 0
    left = advmix("store", "list", "--json").data["artifacts"]
    assert {alias for artifact in left for alias in artifact["aliases"]} == {"other"}
    nothing = advmix("store", "remove", "m-*", "-y")
    assert nothing.code == 3
    assert "no alias is like 'm-*'" in nothing.err


# Bad inputs: (command, exit code, what the error says, what the hint says)
BAD = [
    ("trian", 2, "No such command", ""),
    ("train --epoch 3", 2, "No such option", ""),
    ("train --dataset mnits", 2, "unknown dataset 'mnits'", "did you mean mnist"),
    ("train --mix mixpu", 2, "unknown mix", "did you mean mixup"),
    ("train --arch lenet", 2, "unknown arch", "did you mean lenet5"),
    ("train --preset reprot", 2, "unknown preset", "did you mean report"),
    ("train --preset as-run", 2, "says nothing about glyphs", "mnist"),
    ("train --arch preactresnet18 --image-size 28", 2, "takes images of 32x32", "--image-size 32"),
    ("train --epochs 0", 2, "--epochs", "above 0"),
    ("train --epochs many", 2, "--epochs", ""),
    ("train --lr 0", 2, "--lr", ""),
    ("train --limit 0", 2, "--limit", ""),
    ("train --seed -1", 2, "--seed", ""),
    ("train --soft-label 0.2", 2, "--soft-label", "below 0.1"),
    ("train --soft-label -1", 2, "--soft-label", ""),
    ("train --mix-alpha 0", 2, "--mix-alpha", ""),
    ("train --precision fp8", 2, "unknown precision", ""),
    ("train --name latest", 2, "cannot be a name", ""),
    ("train --name a/b", 2, "cannot be a name", ""),
    ("train --name a.safetensors", 2, "cannot be a name", "suffix"),
    ("train --seed 9999999999999999999", 2, "--seed", ""),
    ("train --soft-label 0.1", 2, "--soft-label", "below 0.1"),
    ("train --threads 0", 2, "--threads", ""),
    ("advtrain --init nothing", 3, "no checkpoint is called", ""),
    ("advtrain --init a --dataset mnist", 2, "is a lenet5 of glyphs", "untrained"),
    ("advtrain --init a --arch preactresnet18", 2, "a is a lenet5, not a preactresnet18", "--init untrained"),
    ("advtrain --dataset cifar10", 3, "no standard checkpoint of cifar10", "--init untrained"),
    ("advtrain --init a --soft-label 0.2", 2, "--soft-label", "below 0.1"),
    ("advtrain --init a --policy partial-pgd", 2, "partial-pgd mixes at the input", "--mix mixup"),
    ("advtrain --init a --policy partial-pgd --mix manifold", 2, "partial-pgd mixes at the input", "--mix mixup"),
    ("advtrain --init a --policy half", 2, "unknown policy", "normal"),
    ("advtrain --init a --eps 2", 2, "whole range", "2/255"),
    ("advtrain --init a --steps 0", 2, "--steps", ""),
    ("advtrain --init a --preset as-run", 2, "says nothing about glyphs", ""),
    ("attack a --eps -0.1", 2, "--eps", "pixel units"),
    ("attack a --eps nan", 2, "--eps", ""),
    ("attack a --eps inf", 2, "--eps", ""),
    ("attack a --eps 8", 2, "whole range", "8/255"),
    ("attack a --eps 8/0", 2, "divides by zero", ""),
    ("attack a --eps big", 2, "--eps", ""),
    ("attack a --steps 0", 2, "--steps", "--steps 40"),
    ("attack a --alpha 0", 2, "--alpha", ""),
    ("attack a --restarts 0", 2, "--restarts", ""),
    ("attack a --restarts 2 --no-random-start", 2, "same result", ""),
    ("attack a --norm l3", 2, "unknown norm", "l2"),
    ("attack a --attack pdg", 2, "unknown attack", "pgd"),
    ("attack a --attack fgsm --steps 3", 2, "fgsm is one step", "pgd"),
    ("attack a --split tset", 2, "unknown split", "test"),
    ("attack a --limit 0", 2, "--limit", ""),
    ("attack a --batch-size 0", 2, "--batch-size", ""),
    ("attack a --dataset cifar10", 2, "takes images of 1x32x32, cifar10 has 3x32x32", "its own data set"),
    ("attack a --arch lenet5", 2, "--untrained", ""),
    ("attack a --device cuda:99", 2, "no device", "cpu"),
    ("attack a --device gpu", 2, "unknown device", ""),
    ("attack a --eps 1e99999999999", 2, "--eps", ""),
    ("attack a --attack fgsm --random-start", 2, "fgsm is one step", ""),
    ("attack a --attack fgsm --preset foo", 2, "unknown preset", ""),
    ("attack --untrained --arch foo", 2, "unknown arch", ""),
    ("attack a --untrained --dataset glyphs", 2, "name two networks", ""),
    ("eval a --preset foo", 2, "unknown preset", ""),
    ("eval a --attack fgsm --steps 5", 2, "fgsm is one step", ""),
    ("eval a --samples pa --split train", 2, "attacked test images", "--split"),
    ("eval a --samples pa --split validation", 2, "attacked test images", "--split"),
    ("eval a --split tset", 2, "unknown split", "did you mean test"),
    ("attack a --split validation", 2, "unknown split", "test"),
    ("store remove latest -y", 2, "latest is no name", ""),
    ("attack a --preset as-run --dataset glyphs", 2, "says nothing about glyphs", ""),
    ("attack nothing", 3, "no checkpoint is called", ""),
    ("attack bb", 3, "no checkpoint is called", "did you mean b"),
    ("attack glyphs-lenet5", 3, "ambiguous", "glyphs-lenet5-none-"),
    ("attack pa", 3, "not a checkpoint", "store list"),
    ("attack /no/such.safetensors", 3, "there is no file", ""),
    ("attack ''", 3, "empty", ""),
    ("attack -", 3, "no reference came", ""),
    ("attack a@first", 3, "no checkpoint is called", ""),
    ("eval a --samples nothing", 3, "no sample cache is called", ""),
    ("eval a --samples a", 3, "not a sample cache", ""),
    ("eval a --eps 0.3", 2, "describe an attack", "--attack pgd"),
    ("eval - --samples -", 2, "read once", ""),
    ("eval a --dataset mnits", 2, "unknown dataset", "mnist"),
    ("import /no/such.pt --dataset mnist", 3, "there is no file", ""),
    ("visualize samples a", 3, "not a sample cache", ""),
    ("visualize samples pa --out picture.jpg", 2, ".png or .svg", ""),
    ("visualize matrix", 3, "no evaluation", "advmix eval"),
    ("visualize curves nothing", 3, "no checkpoint", ""),
    ("visualize mixing --mix-alpha -1", 2, "--mix-alpha", ""),
    ("visualize mixing --count 0", 2, "--count", ""),
    ("store show nothing", 3, "is called 'nothing'", ""),
    ("store remove", 2, "nothing to remove", ""),
    ("store remove a", 2, "needs a yes", "-y"),
    ("store list things", 2, "unknown kind", "checkpoints"),
    ("presets fast", 2, "unknown preset", ""),
    ("data fetch mnits", 2, "unknown dataset", "mnist"),
    ("data verify mnist", 1, "mnist is not in", "data fetch mnist"),
]


@pytest.mark.parametrize(("command", "code", "message", "hint"), BAD, ids=[case[0] for case in BAD])
def test_bad_inputs(trained: Path, advmix: Run, command: str, code: int, message: str, hint: str) -> None:
    before = sorted(path.name for path in trained.rglob("*"))
    arguments = [word.replace("''", "") for word in command.split()]
    plain = advmix(*arguments)
    assert plain.code == code, plain
    assert plain.out == ""
    lines = plain.err.splitlines()
    assert any(line.startswith("error: ") and message in line for line in lines), plain.err
    assert any(line.startswith("hint: ") and hint in line for line in lines), plain.err
    assert "Traceback" not in plain.err

    as_json = advmix(*arguments, "--json")
    assert as_json.code == code
    assert message in as_json.errors[0]["message"]
    assert json.loads(as_json.out)["command"] == " ".join(
        arguments[: 2 if arguments[0] in ("store", "data", "visualize") else 1]
    )
    assert sorted(path.name for path in trained.rglob("*") if path.parent.name != "locks") == [
        name for name in before if not name.endswith(".lock")
    ]


def test_tracebacks_only_on_request(advmix: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, shown in (("1", True), ("0", False)):
        monkeypatch.setenv("ADVMIX_DEBUG", value)
        outcome = advmix("attack", "nothing", "--json")
        assert ("Traceback" in outcome.err) is shown
        assert (outcome.code, outcome.errors[0]["code"]) == (3, "not-found")


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        torch.save(
            {"adv_inputs": torch.rand(2, 1, 32, 32), "labels": torch.arange(2), "x": torch.nn.Linear(1, 1)}, path
        )


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty", "pickle"])
def test_damaged_and_unsafe_files(trained: Path, advmix: Run, how: str) -> None:
    checkpoint = Path(advmix("store", "path", "a").out.strip())
    cache = Path(advmix("store", "path", "pa").out.strip())
    damage(checkpoint, how)
    damage(cache, how)
    attack = ("attack", "a", "--limit", "10", "--steps", "1")
    for command in (
        attack,
        ("eval", "a"),
        ("eval", "b", "--samples", "pa"),
        ("store", "verify"),
        ("visualize", "samples", "pa"),
    ):
        outcome = advmix(*command)
        assert outcome.code == 4, (command, outcome)
        assert "hint: " in outcome.err
    found = advmix("store", "verify", "--json")
    assert found.data["damaged"] == 2
    removed = advmix("store", "remove", "a", "pa", "-y")
    assert removed.code == 0, removed
    assert not checkpoint.exists()
    assert not cache.exists()
    assert advmix("store", "verify").code == 0


def test_a_cache_of_another_shape_or_data_set(trained: Path, advmix: Run, tmp_path: Path) -> None:
    wide = {"adv_inputs": torch.rand(4, 3, 32, 32), "labels": torch.arange(4), "save_type": "float"}
    many = {"adv_inputs": torch.rand(4, 1, 32, 32), "labels": torch.tensor([1, 2, 3, 77]), "save_type": "float"}
    outside = {"adv_inputs": torch.rand(4, 1, 32, 32) + 1, "labels": torch.arange(4), "save_type": "float"}
    for content, code, said in ((wide, 2, "do not fit"), (many, 2, "do not fit"), (outside, 2, "leave [0,1]")):
        torch.save(content, tmp_path / "x.pt")
        outcome = advmix("eval", "a", "--samples", tmp_path / "x.pt")
        assert (outcome.code, said in outcome.err) == (code, True), outcome
    path = Path(advmix("store", "path", "pa").out.strip())
    x, y, index = artifacts.samples_tensors(path)
    record = {**(artifacts.samples_record(path) or {}), "dataset": "mnist"}
    with path.open("wb") as file:
        artifacts.samples_writer(x, y, index, record)(file)
    outcome = advmix("eval", "a", "--samples", "pa")
    assert (outcome.code, "of mnist, not of glyphs" in outcome.err) == (2, True), outcome


def test_a_cache_that_leaves_its_budget_is_refused(trained: Path, advmix: Run) -> None:
    path = Path(advmix("store", "path", "pa").out.strip())
    x, y, index = artifacts.samples_tensors(path)
    x[3] = 1 - x[3]
    write = artifacts.samples_writer(x, y, index, artifacts.samples_record(path) or {})
    with path.open("wb") as file:
        write(file)
    outcome = advmix("eval", "a", "--samples", "pa", "--json")
    assert outcome.code == 1
    assert outcome.errors[0]["code"] == "budget"


def test_a_store_that_cannot_be_written(advmix: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ADVMIX_HOME", str(tmp_path / "file" / "home"))
    outcome = advmix("train", *TINY)
    assert outcome.code == 1
    assert "cannot write to" in outcome.err
    assert "ADVMIX_HOME" in outcome.err


def test_no_network(advmix: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.error
    import urllib.request

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    outcome = advmix("train", "--dataset", "mnist", *TINY)
    assert outcome.code == 1
    assert "could not be fetched" in outcome.err
    assert "--dataset glyphs" in outcome.err
    assert outcome.out == ""


def test_the_pipeline_prints_one_object_and_nothing_else(home: Path) -> None:
    line = (
        "advmix train -q --limit 500 --epochs 1 | advmix attack - -q --eps 0.3 --steps 5 --limit 50 "
        "| advmix eval --samples - --json"
    )
    done = shell(line)
    assert done.returncode == 0, done.stderr
    envelope = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert (envelope["schema"], envelope["command"], envelope["status"]) == (2, "eval", "ok")
    clean, attacked = envelope["data"]["rows"]
    assert set(clean) >= {"model", "on", "n", "accuracy", "accuracy_ci95", "loss"}
    assert (clean["on"], clean["n"], attacked["n"]) == ("clean", 50, 50)
    assert attacked["threat"]["eps"] == 0.3
    assert attacked["accuracy"] <= clean["accuracy"]


def test_a_cached_answer_needs_no_torch_and_little_else(trained: Path) -> None:
    code = CALLED + (
        "heavy = {'torch', 'torchvision', 'numpy', 'matplotlib', 'PIL', 'safetensors'}\n"
        "print(len(sys.modules), *heavy & set(sys.modules), file=sys.stderr)"
    )
    setup = shell("advmix eval a b --samples pa -q && advmix visualize matrix -q")
    assert setup.returncode == 0, setup.stderr
    for line in (
        "train --limit 3000 --epochs 5 --batch-size 32 --json",
        "attack a --limit 100 --steps 10 --json",
        "eval a b --samples pa --json",
        "visualize matrix --json",
    ):
        done = subprocess.run([sys.executable, "-c", code, *line.split()], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["data"]["cached"] is True
        count, *heavy = done.stderr.splitlines()[-1].split()
        assert heavy == []
        assert int(count) < MOST_MODULES


def test_an_attack_imports_nothing_that_it_does_not_use(trained: Path) -> None:
    """What torch compiles with, which torchvision brings with it, takes as long to import as torch."""
    code = CALLED + ("print(*{'torchvision', 'torch._dynamo', 'matplotlib'} & set(sys.modules), file=sys.stderr)")
    line = [sys.executable, "-c", code, *["eval", "a", "--attack", "pgd", "--steps", "2", "--limit", "20", "-q"]]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


def test_forced_work_replaces_with_the_same_bytes(trained: Path, advmix: Run) -> None:
    attack = ("attack", "a", "--limit", "100", "--steps", "10", "--json")
    before = advmix(*attack)
    content = content_of(Path(before.data["path"]))
    again = advmix(*attack, "--force")
    assert (before.data["cached"], again.data["cached"]) == (True, False)
    assert again.data["samples"] == before.data["samples"]
    assert content_of(Path(again.data["path"])) == content


def test_json_of_every_command(trained: Path, advmix: Run, tmp_path: Path) -> None:
    torch.save(
        {"state_dict": artifacts.checkpoint_weights(Path(advmix("store", "path", "a").out.strip()), "best")},
        tmp_path / "x.pt",
    )
    expected = {
        "train --limit 600 --epochs 2 --lr 0.02": {"checkpoint", "path", "cached", "epochs", "metrics"},
        "advtrain --init a --limit 300 --epochs 1 --steps 2": {"checkpoint", "path", "cached", "epochs", "metrics"},
        "attack a --limit 20 --steps 2 --norm l2": {
            "samples", "path", "cached", "model", "threat", "n", "clean_accuracy", "robust_accuracy", "linf_max"
        },
        "attack --untrained --limit 20 --steps 2": {"samples", "robust_accuracy"},
        "eval a b --samples pa --attack pgd --attack fgsm --eps 0.1 --limit 30": {"rows", "evaluation"},
        f"import {tmp_path / 'x.pt'} --dataset glyphs": {"checkpoint", "path"},
        "visualize samples pa": {"figure", "path", "png", "svg"},
        "visualize curves a b": {"figure"},
        "visualize mixing": {"figure"},
        "visualize matrix": {"figure"},
        "presets": {"presets", "mix_alpha"},
        "info": {"advmix", "torch", "device", "store"},
        "data list": {"datasets"},
        "data verify glyphs": {"fingerprints"},
        "data fetch glyphs": {"fingerprints"},
        "store list": {"artifacts"},
        "store show a": {"settings", "digests"},
        "store path a": {"path"},
        "store verify": {"verified"},
        "store remove pa --dry-run": {"files", "removed"},
        "store prune -y": {"files", "removed"},
    }  # fmt: skip
    for line, keys in expected.items():
        outcome = advmix(*line.split(), "--json")
        assert outcome.code == 0, (line, outcome.err)
        assert keys <= set(outcome.data), line
        assert outcome.out.count("\n") == 1, line
        assert "NaN" not in outcome.out


def test_people_and_quiet_readers_get_their_own(trained: Path, advmix: Run) -> None:
    people = advmix("eval", "a", "b", "--samples", "pa")
    assert people.out.splitlines()[0].split() == ["model", "on", "n", "accuracy", "%", "95", "%", "interval", "loss"]
    assert "PGD linf eps 0.3" in people.out
    assert "next: " in people.err
    assert "upper bound" in people.out
    quiet = advmix("eval", "a", "b", "--samples", "pa", "-q")
    assert re.fullmatch(r"glyphs-test-2x2-[0-9a-f]{8}\n", quiet.out)
    assert quiet.err == ""


def test_rows_are_in_the_order_asked_and_agree_with_the_attack(trained: Path, advmix: Run) -> None:
    attacked = advmix("attack", "a", "--limit", "100", "--steps", "10", "--json").data
    rows = advmix(
        "eval", "b", "a", "--samples", "pa", "--attack", "pgd", "--limit", "100", "--steps", "10", "--json"
    ).data["rows"]
    assert [(row["model"], row["on"]) for row in rows] == [
        (model, on) for model in ("b", "a") for on in ("clean", "pa", "pgd-0.3-10-early")
    ]
    by = {(row["model"], row["on"]): row for row in rows}
    assert by["a", "pa"]["accuracy"] == attacked["robust_accuracy"]
    assert by["a", "pgd-0.3-10-early"]["accuracy"] == attacked["robust_accuracy"]
    assert by["a", "clean"]["accuracy"] == attacked["clean_accuracy"]
    for row in rows:
        low, high = row["accuracy_ci95"]
        assert low <= row["accuracy"] <= high


def test_several_references_come_from_standard_input(trained: Path, advmix: Run) -> None:
    rows = advmix("eval", "-", "--limit", "20", "--json", stdin="a\n\nb\n").data["rows"]
    assert [row["model"] for row in rows] == ["a", "b"]
    assert advmix("attack", "-", stdin="a\nb\n").code == 2


def test_paths_and_weights_as_references(trained: Path, advmix: Run) -> None:
    path = advmix("store", "path", "a").out.strip()
    by_path = advmix("eval", path, "--limit", "50", "--json").data["rows"][0]
    by_name = advmix("eval", "a", "--limit", "50", "--json").data["rows"][0]
    assert by_path["accuracy"] == by_name["accuracy"]
    last = advmix("eval", "a@last", "--limit", "50", "--json")
    assert last.code == 0
    assert last.data["rows"][0]["model"] == "a@last"
    moved = trained.parent / "elsewhere.safetensors"
    shutil.copy(path, moved)
    assert advmix("eval", moved, "--limit", "50", "--json").data["rows"][0]["accuracy"] == by_name["accuracy"]
    shutil.copy(path, Path(path).with_name("another.safetensors"))
    assert advmix("eval", "another", "--limit", "50").code == 4, "the store holds nothing under another's name"


def test_removal_says_first_what_goes(trained: Path, advmix: Run) -> None:
    plan = advmix("store", "remove", "a", "--dry-run")
    assert "would remove" in plan.out
    assert "alias of" in plan.out
    assert advmix("store", "show", "a").code == 0
    assert advmix("store", "remove", "a", "-y").code == 0
    assert advmix("store", "show", "a").code == 3
    pruned = advmix("store", "prune", "-y", "--json").data
    assert any("samples" in file for file in pruned["files"])  # pa attacks a model that is gone
    assert advmix("store", "show", "b").code == 0


def test_an_artifact_being_made_is_not_removed(trained: Path, advmix: Run) -> None:
    from advmix_cli.store import Store

    store = Store(trained)
    with store.lock(store.resolve("a", ("checkpoints",))[1]):
        outcome = advmix("store", "remove", "a", "-y")
    assert outcome.code == 5
    assert advmix("store", "show", "a").code == 0


def test_a_closed_pipe_is_no_error(trained: Path) -> None:
    done = shell(
        "set +o pipefail; for i in 1 2 3; do advmix presets; done | head -1; advmix store list | true; echo done"
    )
    assert done.stdout.splitlines()[-1] == "done"
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr
    for command in ("presets --json", "presets", "store list"):
        assert shell(f"advmix {command} | true; echo ${{PIPESTATUS[0]}}").stdout == "0\n"
    assert shell("advmix eval nothing 2>&1 | true; echo ${PIPESTATUS[0]}").stdout == "3\n"
    assert shell("advmix store list >&-").stderr.count("Traceback") == 0


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_says_so_and_keeps_the_epochs(home: Path, stop: signal.Signals, code: int) -> None:
    command = [*ADVMIX_THAT_HEEDS_CTRL_C, "train", "--limit", "2000", "--epochs", "200", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 3/"):
            break
    process.send_signal(stop)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert json.loads(out)["errors"][0]["code"] == "interrupted"
    states = sorted((home / "unfinished").iterdir())
    assert 1 <= len(states) <= 2, "a new state is whole before the one before it goes"
    kept = [training.epochs_of(artifacts.read_state(state)["pieces"][-1]) for state in states]
    assert kept[-1] >= 2, "the state of epoch 3 is written after it is said"
    assert kept == list(range(kept[0], kept[0] + len(kept)))


KILLED = [
    "train --limit 1500 --epochs 8 --mix manifold -q",
    "advtrain --init untrained --limit 500 --epochs 8 --steps 2 --mix mixup --policy partial-pgd -q",
]


@pytest.mark.parametrize("command", KILLED, ids=["train", "advtrain"])
def test_killed_training_continues_to_the_same_bytes(tmp_path: Path, command: str) -> None:
    line = command.split()
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def start(home: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "advmix_cli", *line],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "ADVMIX_HOME": str(home)},
        )

    def kept(home: Path) -> set[int]:
        found = set()
        for path in home.glob("unfinished/[!.]*.pt"):
            with contextlib.suppress(FileNotFoundError):  # replaced since
                found.add(path.stat().st_mtime_ns)
        return found

    uninterrupted = start(whole)
    assert uninterrupted.communicate(timeout=200)[1] == ""
    kills = 0
    for _ in range(3):
        process = start(killed)
        seen = kept(killed)
        while process.poll() is None and kept(killed) <= seen:
            time.sleep(0.005)
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert kills == 3
    out, err = start(killed).communicate(timeout=200)
    assert err == ""
    first, second = (home / "checkpoints" / f"{out.strip()}.safetensors" for home in (whole, killed))
    assert content_of(first) == content_of(second)
    assert list(killed.glob("unfinished/*")) == []
    assert list(killed.glob("*/.tmp*")) == []


def test_two_processes_compute_once(home: Path) -> None:
    command = [sys.executable, "-m", "advmix_cli", "train", "--limit", "3000", "--epochs", "3", "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outcomes = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], outcomes
    cached = sorted(json.loads(out)["data"]["cached"] for out, _ in outcomes)
    assert cached == [False, True]
    assert sum("another process is making" in err for _, err in outcomes) == 1


def test_adversarial_training_says_what_it_did(trained: Path, advmix: Run) -> None:
    line = (
        "advtrain",
        "--init",
        "a",
        "--limit",
        "300",
        "--epochs",
        "2",
        "--steps",
        "3",
        "--mix",
        "mixup",
        "--name",
        "adv",
    )
    people = advmix(*line, "--verbose")
    assert people.code == 0, people.err
    for expected in ("begun from", "trained against", "PGD linf eps 0.3", "best - last", "upper bound"):
        assert expected in people.out
    assert people.err.count("of which attack") == 2
    data = advmix(*line, "--json").data
    assert data["cached"]
    assert {"validation_robust_accuracy", "test_robust_accuracy", "last_test_robust_accuracy"} <= set(data["metrics"])
    assert data["metrics"]["test_threat"]["steps"] == 3
    assert "-adv-mixup-" in data["checkpoint"]
    shown = advmix("store", "show", "adv", "--json").data
    assert shown["init"]["name"] == advmix("store", "show", "a", "--json").data["name"]
    assert advmix("visualize", "curves", "adv", "a").code == 0
    assert "trained against PGD" in advmix("eval", "adv", "--limit", "20").out
    # latest is now an adversarial checkpoint: the default beginning is still a standard one
    again = advmix("advtrain", "--limit", "300", "--epochs", "1", "--steps", "1", "--json").data
    assert advmix("store", "show", again["checkpoint"], "--json").data["init"]["name"] != data["checkpoint"]


def test_no_accuracy_without_its_n_and_an_interval(trained: Path, advmix: Run) -> None:
    """What training prints, on the way and in the end, alone and together."""
    figure = r"\d+\.\d\d % \[\d+\.\d\d, \d+\.\d\d\] of \d+"
    together = advmix("train", "--limit", "300", "--epochs", "1", "--mix", "none,mixup")
    defended = advmix("advtrain", "--init", "a", "--limit", "300", "--epochs", "1", "--steps", "1", "--seed", "0,1")
    alone = advmix("advtrain", "--init", "a", "--limit", "300", "--epochs", "2", "--steps", "1")
    for outcome in (together, defended, alone):
        assert outcome.code == 0, outcome.err
        said = outcome.out + outcome.err
        assert len(re.findall(figure, said)) >= 4
        assert "%" not in re.sub(figure, "", said), said
    assert "attacked by pgd-0.3-1" in alone.err
    assert "attacked: PGD linf eps 0.3" in defended.out


def test_a_diverging_run_keeps_the_last_good_state(trained: Path, advmix: Run) -> None:
    outcome = advmix(
        "advtrain", "--init", "a", "--limit", "300", "--epochs", "3", "--steps", "1", "--lr", "1e30", "--json"
    )
    assert outcome.code == 1
    assert outcome.errors[0]["code"] == "diverged"
    assert "epoch" in outcome.errors[0]["message"]


def test_a_damaged_state_of_an_interrupted_run_is_begun_again(home: Path, advmix: Run) -> None:
    first = advmix("train", *TINY, "--json").data
    content = content_of(Path(first["path"]))
    Path(first["path"]).unlink()
    (home / "unfinished").mkdir(exist_ok=True)
    (home / "unfinished" / f"{first['checkpoint']}.000000.pt").write_bytes(b"half a state")
    again = advmix("train", *TINY, "--json")
    assert "beginning again" in again.err
    assert content_of(Path(again.data["path"])) == content


def test_the_same_numbers_under_another_alias(trained: Path, advmix: Run) -> None:
    first = advmix("eval", "a", "--limit", "30", "--json").data
    name = Path(advmix("store", "path", "a").out.strip()).stem
    second = advmix("eval", name, "--limit", "30", "--json").data
    assert second["cached"]
    assert second["evaluation"] == first["evaluation"]
    assert (first["rows"][0]["model"], second["rows"][0]["model"]) == ("a", name)


def test_two_caches_of_the_same_images_keep_their_own_threats(trained: Path, advmix: Run) -> None:
    small = ("--eps", "0.1", "--limit", "20")
    one_step = ("--steps", "1", "--alpha", "0.1", "--no-random-start")
    assert advmix("attack", "a", "--attack", "fgsm", *small, "--name", "f").code == 0
    assert advmix("attack", "a", *one_step, *small, "--name", "p").code == 0
    for alias, attack in (("f", "fgsm"), ("p", "pgd")):
        rows = advmix("eval", "a", "--samples", alias, "--json").data["rows"]
        assert rows[1]["threat"]["attack"] == attack


def test_a_cache_of_training_images_is_judged_by_training_images(trained: Path, advmix: Run) -> None:
    attacked = advmix("attack", "a", "--split", "train", "--limit", "50", "--steps", "5", "--name", "t", "--json").data
    outcome = advmix("eval", "--samples", "t", "--json")
    assert [row["n"] for row in outcome.data["rows"]] == [50, 50]
    assert outcome.data["rows"][0]["accuracy"] == attacked["clean_accuracy"]
    assert outcome.data["rows"][1]["accuracy"] == attacked["robust_accuracy"]
    both = advmix("eval", "a", "--samples", "pa", "--samples", "t")
    assert (both.code, "one split at a time" in both.err) == (2, True)


def test_models_meet_what_their_runs_held_out(trained: Path, advmix: Run) -> None:
    brief = ("train", "--limit", "200", "--epochs", "1", "--json")
    said = advmix(*brief, "--name", "same").data["metrics"]
    assert advmix(*brief, "--seed", "1", "--name", "other").code == 0
    told = advmix("eval", "same", "--split", "validation", "--attack", "pgd", "--steps", "2", "--certify", "--json")
    assert (told.data["split"], [row["n"] for row in told.data["rows"]]) == ("validation", [20, 20, 20])
    assert told.data["rows"][0]["accuracy"] == said["validation_accuracy"]
    shown = advmix("eval", "same", "--split", "validation", "--attack", "pgd", "--steps", "2", "--certify")
    assert "not to publish" in shown.out
    few = advmix("eval", "same", "--split", "validation", "--limit", "8", "--json").data
    assert (few["rows"][0]["n"], few["path"] != told.data["path"]) == (8, True)
    assert advmix("card", "same", "--json").data["card"]["figures"] == [], "the epoch was chosen on them"
    both = advmix("eval", "same", "other", "--split", "validation")
    assert (both.code, "held out different images" in both.err) == (2, True)
    zoo = advmix("eval", "zoo:lenet5-plain", "--dataset", "glyphs", "--split", "validation")
    assert (zoo.code, "held out no images of glyphs" in zoo.err) == (2, True)


def test_an_edited_evaluation_is_refused(trained: Path, advmix: Run) -> None:
    path = Path(advmix("eval", "a", "--limit", "20", "--json").data["path"])
    for old, new in (('"correct":', '"correct":1'), ('"cells"', '"sells"')):
        content = path.read_text()
        path.write_text(content.replace(old, new, 1))
        for command in (("eval", "a", "--limit", "20"), ("visualize", "matrix"), ("store", "verify")):
            assert advmix(*command).code == 4
        path.write_text(content)


def test_hints_can_be_pasted(trained: Path, advmix: Run) -> None:
    for line in (
        "attack a --limit 20 --steps 1 --name h",
        "attack --untrained --limit 20 --steps 1 --name u",
        "attack a --limit 20 --steps 1 --split train",
        "eval a --limit 20",
        "eval a --samples pa",
        "store list",
        "presets",
        "import " + advmix("store", "path", "a").out.strip() + " --dataset glyphs --name i",
    ):
        outcome = advmix(*line.split())
        assert outcome.code == 0, outcome.err
        hints = [text.removeprefix("next: ") for text in outcome.err.splitlines() if text.startswith("next: ")]
        assert len(hints) == 1, line
        for command in re.findall(r"advmix ([^;]+)", hints[0]):
            words = command.replace("MODEL", "a").split()
            if words[0] == "attack":
                words += ["--limit", "20", "--steps", "1"]
            pasted = advmix(*words)
            assert pasted.code == 0, (line, command, pasted.err)


def test_work_on_a_model_elsewhere_is_kept(trained: Path, advmix: Run, tmp_path: Path) -> None:
    elsewhere = tmp_path / "mine.safetensors"
    shutil.copy(advmix("store", "path", "a").out.strip(), elsewhere)
    assert advmix("store", "remove", "a", "pa", "-y").code == 0
    assert advmix("attack", elsewhere, "--limit", "20", "--steps", "1", "--name", "e").code == 0
    assert advmix("eval", "--samples", "e").code == 0
    assert advmix("store", "prune", "-y", "--json").data["files"] == []
    assert advmix("store", "show", "e").code == 0


def test_models_of_several_data_sets_need_a_word(trained: Path, advmix: Run, tmp_path: Path) -> None:
    torch.save(artifacts.checkpoint_weights(Path(advmix("store", "path", "a").out.strip()), "best"), tmp_path / "m.pt")
    assert advmix("import", tmp_path / "m.pt", "--dataset", "mnist", "--name", "m").code == 0
    outcome = advmix("eval", "a", "m", "--limit", "20")
    assert (outcome.code, "different data sets" in outcome.err) == (2, True)
    assert advmix("eval", "a", "m", "--limit", "20", "--dataset", "glyphs").code == 0


def test_fgsm_beside_pgd_takes_what_applies_to_it(trained: Path, advmix: Run) -> None:
    line = (
        "eval",
        "a",
        "--attack",
        "pgd",
        "--attack",
        "fgsm",
        "--steps",
        "3",
        "--eps",
        "0.2",
        "--limit",
        "20",
        "--json",
    )
    assert [row["on"] for row in advmix(*line).data["rows"]] == ["clean", "pgd-0.2-3-early", "fgsm-0.2", "worst case"]


def test_a_limit_beyond_the_set_is_none(trained: Path, advmix: Run) -> None:
    short = ("attack", "a", "--attack", "fgsm", "--json")
    assert advmix(*short, "--limit", "999999").data["samples"] == advmix(*short).data["samples"]


def test_completion_offers_what_there_is(trained: Path) -> None:
    def offered(words: str) -> set[str]:
        done = shell(
            "advmix", _ADVMIX_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1)
        )
        return set(done.stdout.split())

    assert {"a", "b", "latest"} <= offered("advmix attack x").union(
        offered("advmix attack a"), offered("advmix attack b"), offered("advmix attack l")
    )
    assert offered("advmix train --dataset m") == {"mnist"}
    assert offered("advmix train --arch p") == {"preactresnet18"}
    assert offered("advmix train --preset as") == {"as-run"}
    assert "pa" in offered("advmix eval --samples p")


def test_version_and_help(advmix: Run) -> None:
    from advmix_cli import __version__

    assert advmix("--version").out == f"{__version__}\n"
    assert "Usage" in advmix().out
    assert "Usage" in advmix("store").out
