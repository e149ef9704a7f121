"""Several runs trained by one command: each is what it would be alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ADVMIX_THAT_HEEDS_CTRL_C, TINY, Run, content_of

from advmix_cli import training
from advmix_cli.errors import AdvmixError


def artifacts_of(home: Path) -> dict[str, Any]:
    return {path.name: content_of(path) for path in (home / "checkpoints").iterdir()}


def test_each_is_the_run_alone(advmix: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("advtrain", "--init", "untrained", "--steps", "2", *TINY)
    together = advmix(*command, "--mix", "none,manifold", "--seed", "0,1", "--name", "m", "--json").data["runs"]
    aliases = ["m-none-s0", "m-none-s1", "m-manifold-s0", "m-manifold-s1"]
    assert [advmix("store", "path", alias, "-q").out.strip() for alias in aliases] == [r["path"] for r in together]
    assert not any(run["cached"] for run in together)

    monkeypatch.setenv("ADVMIX_HOME", str(tmp_path / "alone"))
    for mix in ("none", "manifold"):
        for seed in ("0", "1"):
            advmix(*command, "--mix", mix, "--seed", seed, "--threads", "1")
    assert artifacts_of(home) == artifacts_of(tmp_path / "alone")


def test_what_the_store_has_is_not_trained_again(advmix: Run, home: Path) -> None:
    one = advmix("train", "--seed", "1", *TINY, "--threads", "1", "--json").data["checkpoint"]
    both = advmix("train", "--seed", "0,1", *TINY, "--json").data["runs"]
    assert [run["cached"] for run in both] == [False, True]
    assert both[1]["checkpoint"] == one
    again = advmix("train", "--seed", "0,1,1", *TINY, "-q")
    assert again.out.split() == [run["checkpoint"] for run in both], "a value given twice is one run"
    assert advmix("store", "path", "latest", "-q").out.strip() == both[1]["path"]
    forced = advmix("train", "--seed", "0,1", *TINY, "--force", "--json").data["runs"]
    assert [run["cached"] for run in forced] == [False, False]
    assert [run["digest"] for run in forced] == [run["digest"] for run in both]


def test_people_see_a_line_a_run_and_scripts_a_reference(advmix: Run) -> None:
    shown = advmix("train", "--soft-label", "0,0.003", *TINY)
    assert shown.code == 0
    assert [line.split()[0] for line in shown.out.splitlines()] == ["run", "0", "0.003"]
    assert "0.003: epoch 2/2: train loss" in shown.err
    assert "advmix eval" in shown.err
    assert len(advmix("train", "--soft-label", "0,0.003", *TINY, "-q").out.split()) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--mix none,foo", "unknown mix 'foo'"),
        ("--seed 0,", "'' is not a whole number"),
        ("--seed 0,1.5", "'1.5' is not a whole number"),
        ("--seed 0,-1", "--seed must be from 0"),
        ("--soft-label 0,x", "'x' is not a finite number"),
        ("--soft-label 0,0.2", "--soft-label 0.2 leaves the right class"),
    ],
)
def test_one_bad_value_ends_all_before_they_begin(advmix: Run, home: Path, options: str, message: str) -> None:
    ended = advmix("train", *options.split())
    assert ended.code == 2
    assert message in ended.err
    assert not (home / "checkpoints").exists()


def test_where_one_fails_the_others_keep_their_state(advmix: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training.train

    def fails(model: Any, splits: Any, settings: Any, **how: Any) -> training.Trained:
        if settings.seed == 1:
            time.sleep(1)
            raise AdvmixError("training diverged in epoch 1", "try a smaller --lr", code="diverged")
        return whole(model, splits, settings, **how)

    monkeypatch.setattr(training, "train", fails)
    long = ("train", "--seed", "0,1", "--limit", "2000", "--epochs", "400", "--threads", "2", "--json")
    ended = advmix(*long)
    assert ended.code == 1
    assert ended.errors[0]["code"] == "diverged"
    assert "s1 failed; the others stop" in ended.err
    assert not (home / "checkpoints").exists()
    assert len(list((home / "unfinished").iterdir())) == 1


def test_interrupted_they_go_on_to_the_same_bytes(tmp_path: Path) -> None:
    line = [*ADVMIX_THAT_HEEDS_CTRL_C, "train", "--limit", "1500", "--epochs", "12", "--seed", "0,1"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def begin(home: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env={**os.environ, "ADVMIX_HOME": str(home)})

    def finish(home: Path) -> None:
        process = begin(home)
        process.communicate(timeout=120)
        assert process.returncode == 0

    finish(whole)
    for end, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = begin(broken)
        assert process.stderr is not None
        for said in process.stderr:
            if ": epoch " in said:
                break
        process.send_signal(end)
        process.communicate(timeout=60)
        assert process.returncode == code
    finish(broken)
    assert artifacts_of(broken) == artifacts_of(whole)
