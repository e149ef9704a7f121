"""What is told of each epoch: a file of JSON lines, and TensorBoard's event files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Run

from advmix_cli import artifacts
from advmix_cli.store import Store

TRAIN = ("train", "--limit", "60", "--epochs", "3", "--batch-size", "30")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def history(name: str) -> list[dict[str, Any]]:
    return list(artifacts.checkpoint_record(Store().path("checkpoints", name))["history"])


def test_a_line_an_epoch_is_the_history(home: Path, advmix: Run, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    (name,) = advmix(*TRAIN, "--log", log, "-q").out.split()
    told = lines(log)
    assert [row["epoch"] for row in told] == [1, 2, 3]
    assert [row.pop("checkpoint") for row in told] == [name] * 3
    assert told == history(name)
    log.unlink()
    assert advmix(*TRAIN, "--log", log).code == 0  # from the store
    assert [row | {"checkpoint": name} for row in history(name)] == lines(log)


def test_a_run_that_goes_on_tells_all_of_it(
    home: Path, advmix: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from advmix_cli.workflows import watching

    log, tell = tmp_path / "log.jsonl", watching.Watching.tell

    def stopped(self: watching.Watching, name: str, rows: Any) -> None:
        tell(self, name, rows)
        if rows[-1]["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(watching.Watching, "tell", stopped)
        assert advmix(*TRAIN, "--log", log).code == 130
    assert [row["epoch"] for row in lines(log)] == [1, 2]
    done = advmix(*TRAIN, "--log", log)
    assert "continuing after epoch 2" in done.err
    assert [row["epoch"] for row in lines(log)] == [1, 2, 3]


def test_several_runs_share_a_log_and_have_their_own_curves(home: Path, advmix: Run, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log, folder = tmp_path / "log.jsonl", tmp_path / "curves"
    names = advmix(*TRAIN, "--seed", "0,1", "--log", log, "--tensorboard", folder, "-q").out.split()
    told = lines(log)
    for name in names:
        mine = [row for row in told if row["checkpoint"] == name]
        assert [{key: row[key] for key in row if key != "checkpoint"} for row in mine] == history(name)
        curves = events.EventAccumulator(str(folder / name)).Reload()
        points = [(each.step, each.value) for each in curves.Scalars("accuracy/test")]
        assert points == [(row["epoch"], pytest.approx(row["test_accuracy"])) for row in mine]
        assert {"loss/train", "accuracy/train", "lr"} <= set(curves.Tags()["scalars"])
    assert len(told) == 6
    assert advmix(*TRAIN, "--seed", "0,1", "--tensorboard", folder).code == 0  # told again, shown once
    again = events.EventAccumulator(str(folder / names[0])).Reload()
    assert [each.step for each in again.Scalars("accuracy/test")] == [1, 2, 3]


def test_adversarial_training_tells_what_stands(home: Path, advmix: Run, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    line = ("advtrain", "--init", "untrained", "--limit", "60", "--epochs", "1", "--steps", "1", "--log", log)
    assert advmix(*line).code == 0
    assert {"validation_robust_accuracy", "linf_max", "train_loss"} <= set(lines(log)[0])


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--log", "log.txt", "must end in .jsonl"),
        ("--log", "nowhere/log.jsonl", "there is no folder"),
        ("--tensorboard", "nowhere/curves", "there is no folder"),
        ("--tensorboard", "file", "is no folder"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything(
    home: Path, advmix: Run, tmp_path: Path, option: str, value: str, why: str
) -> None:
    (tmp_path / "file").write_text("mine")
    done = advmix(*TRAIN, option, tmp_path / value)
    assert done.code in (2, 3)
    assert why in done.err
    assert not home.exists()


def test_a_missing_package_is_said_with_how_to_get_it(
    home: Path, advmix: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    done = advmix(*TRAIN, "--tensorboard", tmp_path)
    assert done.code == 2
    assert "pip install 'advmix[tensorboard]'" in done.err
