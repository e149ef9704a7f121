"""Parts of an experiment as jobs: in processes of this machine, and on what looks like SLURM to submitit."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run

from advmix_cli.experiments import Experiment
from advmix_cli.store import Store
from advmix_cli.workflows.session import Session, Silent

pytest.importorskip("submitit", reason="submitit is not installed")

TWELVE = """
title = "twelve"

[runs.plain]
command = "train"
dataset = "glyphs"
limit = 100
epochs = 1
grid.lr = [0.001, 0.002, 0.003, 0.004, 0.005, 0.006]

[evaluations.all]
of = "plain"
limit = 20

[tables.one]
columns.clean = { evaluation = "all" }

[[tables.one.rows]]
row = "all"
of = "plain"
"""

FAKE = """#!{python}
import os, re, subprocess, sys
words = sys.argv[1:]
name = os.path.basename(sys.argv[0])
here = os.path.dirname(os.path.abspath(sys.argv[0]))
if name == "sbatch":
    script = open(words[-1]).read()
    number = 100 + len([each for each in os.listdir(here) if each.endswith(".script")])
    open(os.path.join(here, f"{{number}}.script"), "w").write(script)
    array = re.search(r"--array=0-(\\d+)", script)
    for task in range(int(array[1]) + 1 if array else 1):
        given = dict(os.environ, SLURM_JOB_ID=str(number), SLURM_NTASKS="1", SLURM_PROCID="0", SLURM_LOCALID="0",
                     SLURM_NODEID="0", SLURM_JOB_NUM_NODES="1", SLURM_JOB_NODELIST="here")
        if array:
            given |= dict(SLURM_ARRAY_JOB_ID=str(number), SLURM_ARRAY_TASK_ID=str(task), SLURM_ARRAY_TASK_COUNT="2")
        subprocess.Popen(["bash", words[-1]], env=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                         start_new_session=True)
    print(f"Submitted batch job {{number}}")
elif name == "srun":
    start = next(i for i, word in enumerate(words) if "python" in word)
    sys.exit(subprocess.call(words[start:]))
elif name == "sacct":
    print("JobID|State|NodeList")
"""


CHILDREN = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = tmp_path / "twelve.toml"
    path.write_text(TWELVE)
    return path


def made(home: Path) -> dict[str, int]:
    return {kind: len(list((home / kind).glob("[!.]*"))) for kind in ("checkpoints", "evaluations")}


def test_jobs_that_are_killed_and_called_again_make_each_part_once(file: Path, home: Path, advmix: Run) -> None:
    command = [sys.executable, "-m", "advmix_cli", "run", str(file), "--on", "local", "--threads", "1", "--out", "out"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for _ in range(2400):
        if made(home)["checkpoints"] >= 2:
            break
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    before = {path: path.stat().st_mtime_ns for path in (home / "checkpoints").glob("[!.]*")}
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert made(home) == {"checkpoints": 6, "evaluations": 6}
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    (row,) = json.loads(done.stdout)["data"]["tables"]["one"]["rows"]
    assert row["figures"]["clean"]["seeds"] == 6
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "job" not in again.stderr
    assert "12 were in the store" in again.stderr
    assert advmix("store", "prune", "-y").code == 0
    assert not [*(home / "jobs").iterdir()]


def until(ready: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    while not ready():
        assert running.poll() is None
        time.sleep(0.02)


@pytest.mark.skipif(not CHILDREN.exists(), reason="nothing says here whose child a process is")
def test_a_job_that_is_preempted_continues(file: Path, home: Path) -> None:
    file.write_text(TWELVE.replace("epochs = 1", "epochs = 40").replace("0.001, 0.002, 0.003, 0.004, 0.005, ", ""))
    command = [sys.executable, "-m", "advmix_cli", "run", str(file), "--on", "local", "--threads", "1", "--out", "out"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
        until(lambda: any((home / "locks").glob("part-*")), running)
        (handed,) = (home / "jobs").glob("*_submitted.pkl")
        parent = handed.name.split("_")[0]
        task = int(Path(f"/proc/{parent}/task/{parent}/children").read_text())
        os.kill(task, signal.SIGUSR2)  # as SLURM does
        log = handed.with_name(handed.name.replace("submitted.pkl", "0_log.out"))
        until(lambda: log.exists() and "Requeued" in log.read_text(), running)
        _, said = running.communicate()
    assert running.returncode == 0, said
    assert made(home) == {"checkpoints": 1, "evaluations": 1}


def test_a_look_at_the_states(file: Path, home: Path, advmix: Run) -> None:
    def states() -> dict[str, int]:
        looked = advmix("run", file, "--watch", "--json")
        assert looked.code == 0, looked.err
        found = Counter(part["state"] for part in looked.data["parts"])
        assert looked.data["states"] == {each: found[each] for each in ("running", "ready", "waiting", "done")}
        return dict(found)

    assert states() == {"ready": 6, "waiting": 6}
    session = Session(Store(home), home, Silent())
    part = Experiment(file).resolve(session).parts[0]
    with session.store.lock(f"part-{part.key}"):
        assert states() == {"running": 1, "ready": 5, "waiting": 6}
    assert made(home) == {"checkpoints": 0, "evaluations": 0}
    assert advmix("run", file, "--out", "out", "--threads", "1").code == 0
    assert states() == {"done": 12}
    shown = advmix("run", file, "--watch")
    assert shown.out.startswith("12 done\n")
    assert not Path("twelve").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_jobs_in_this_process(file: Path, home: Path, advmix: Run) -> None:
    done = advmix("run", file, "--on", "debug", "--threads", "1", "--out", "out")
    assert done.code == 0, done.err
    assert made(home) == {"checkpoints": 6, "evaluations": 6}
    assert "12 parts computed, 0 were in the store" in done.err
    gc.collect()  # submitit leaves its logs open: what is said of that belongs here


def test_a_job_that_fails_says_why_and_leaves_the_others(file: Path, home: Path, advmix: Run) -> None:
    file.write_text(TWELVE.replace(
        "grid.lr = [0.001, 0.002, 0.003, 0.004, 0.005, 0.006]", "grid.lr = [0.001, 1e30]"))  # fmt: skip
    failed = advmix("run", file, "--on", "local", "--threads", "1", "--keep-going", "--json")
    assert failed.code == 1
    assert "lr=1e+30 failed" in failed.err
    assert "diverged" in failed.err
    assert made(home) == {"checkpoints": 1, "evaluations": 1}


def test_what_slurm_is_told(
    file: Path, home: Path, advmix: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One array of six trainings, then their evaluations; each script is what sbatch takes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel", "squeue"):
        (folder / name).write_text(FAKE.format(python=sys.executable))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    done = advmix("run", file, "--on", "slurm", "--workers", "3", "--threads", "1", "--slurm", "partition=gpu",
                  "--slurm", "account=me", "--out", "out")  # fmt: skip
    assert done.code == 0, done.err
    assert made(home) == {"checkpoints": 6, "evaluations": 6}
    first = (folder / "100.script").read_text()
    lines = [re.sub(r"=/\S*/jobs/", "=JOBS/", line) for line in first.splitlines() if line.startswith("#SBATCH")]
    assert sorted(lines) == [
        "#SBATCH --account=me",
        "#SBATCH --array=0-5%3",
        "#SBATCH --cpus-per-task=1",
        "#SBATCH --error=JOBS/%A_%a_0_log.err",
        "#SBATCH --job-name=advmix",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --open-mode=append",
        "#SBATCH --output=JOBS/%A_%a_0_log.out",
        "#SBATCH --partition=gpu",
        "#SBATCH --signal=USR2@90",
        "#SBATCH --time=20",
        "#SBATCH --wckey=submitit",
    ]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--on", "here"), "unknown place"),
        (("--on", "slurm"), "there is no slurm here"),
        (("--on", "local", "--slurm", "partition=gpu"), "says nothing"),
        (("--on", "slurm", "--slurm", "partition"), "says nothing"),
        (("--on", "local", "--workers", "0"), "workers"),
        (("--on", "local", "--watch"), "--watch looks on"),
        (("--dry-run", "--watch"), "--watch looks on"),
    ],
)
def test_bad_calls(
    arguments: tuple[str, ...], why: str, file: Path, home: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    told = advmix("run", file, *arguments)
    assert told.code == 2, told.err
    assert why in told.err
