"""A store of its own for every test, a small trained one to begin from, and a way to call the command line."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"
REAL_DATA = Path(os.environ.get("ADVMIX_DATA") or SHARED / "data")
DEVICE = torch.device(os.environ.get("ADVMIX_TEST_DEVICE", "cpu"))
"""Where attacks and training are tested: with ADVMIX_TEST_DEVICE=cuda on a GPU."""
on_cpu = pytest.mark.skipif(DEVICE.type != "cpu", reason="bits are compared on the CPU")
TINY = ("--limit", "600", "--epochs", "2", "--lr", "0.02", "--batch-size", "20")


@dataclasses.dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        """The data of the JSON envelope, which must be all of stdout."""
        envelope = json.loads(self.out)
        assert envelope["schema"] == 2
        assert envelope["status"] == ("ok" if self.code == 0 else "error")
        return envelope["data"]

    @property
    def errors(self) -> list[dict[str, str]]:
        return json.loads(self.out)["errors"]


def content_of(path: Path) -> Any:
    """What an artifact holds but for how it was made: weights and record, or a record with its digest."""
    if path.suffix == ".pt":
        from advmix_cli import artifacts

        return {name: value for name, value in (artifacts.samples_record(path) or {}).items() if name != "made"}
    if path.suffix != ".safetensors":
        return path.read_bytes()
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    record = json.loads(json.loads(content[8:end])["__metadata__"]["advmix"])["record"]
    assert set(record.pop("made")) == {
        "advmix", "torch", "python", "device", "gpu", "threads", "batch_size", "not_deterministic", "command", "date",
        "seconds",
    }  # fmt: skip
    return record, content[end:]


MADE = {
    "advmix": "0", "torch": "2", "python": "3", "device": "cpu", "gpu": None, "threads": 1, "batch_size": None,
    "not_deterministic": [], "command": "advmix", "date": "2026-01-01", "seconds": 0.5,
}  # fmt: skip
CHECKPOINT: dict[str, Any] = {
    "schema": 2, "kind": "checkpoint", "name": "n", "key": "0" * 64, "origin": "import", "source": "x.pt",
    "arch": "lenet5", "dataset": "mnist", "shape": [1, 32, 32], "classes": 10, "epochs": 0, "metrics": {}, "made": MADE,
}  # fmt: skip
"""A record that a checkpoint may have."""


def samples_record(n: int) -> dict[str, Any]:
    """A record that a cache of n images may have."""
    from advmix_cli.config import AttackSettings
    from advmix_cli.threats import Threat

    threat = Threat(eps=0.3)
    settings = AttackSettings("default", "mnist", "test", n, threat)
    return {
        "schema": 2, "kind": "samples", "name": "n", "key": "0" * 64, "preset": "default",
        "settings": settings.to_dict(), "dataset": "mnist", "fingerprint": "1" * 64, "split": "test",
        "threat": threat.to_dict(), "seed": 0, "n": n, "clean_correct": 0, "robust_correct": 0, "linf_max": 0.1,
        "l2_max": 0.1, "after": [[threat.label, 0]], "made": MADE,
        "model": {"name": "m", "weights": "untrained", "seed": 0, "arch": "lenet5"},
    }  # fmt: skip


Run = Callable[..., Outcome]

ADVMIX_THAT_HEEDS_CTRL_C = (
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from advmix_cli.__main__ import main; main()",
)
"""As started from a terminal: what a shell starts in the background, these tests perhaps, ignores it."""


def pytest_configure(config: pytest.Config) -> None:
    """On a GPU, what a command would have set: deterministic kernels, where there are any, and no TF32."""
    if DEVICE.type != "cpu":
        from advmix_cli import runtime

        runtime.configure(None, DEVICE)
        config.addinivalue_line("filterwarnings", "default:.*does not have a deterministic implementation")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store, no data sets, the CPU."""
    for name in ("ADVMIX_DATA", "ADVMIX_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "home"
    monkeypatch.setenv("ADVMIX_HOME", str(root))
    monkeypatch.setenv("ADVMIX_DEVICE", str(DEVICE))
    monkeypatch.setenv("COLUMNS", "120")
    return root


@pytest.fixture
def advmix(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call the command line in this process."""
    from advmix_cli.cli import main

    def run(*arguments: str | Path, stdin: str = "") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Outcome(int(end.value.code or 0), out, err)

    return run


def shell(command: str, *, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line as users do, with this interpreter's `advmix` first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": path, **environment},
        check=False,
    )


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two small models on glyphs, `a` and `b`, and a cache that attacks `a`, `pa`."""
    root = tmp_path_factory.mktemp("trained") / "home"
    train = "advmix train --limit 3000 --epochs 5 --batch-size 32 -q"
    line = f"{train} --name a && {train} --mix mixup --name b && advmix attack a --limit 100 --steps 10 --name pa -q"
    done = shell(line, ADVMIX_HOME=str(root), ADVMIX_DEVICE=str(DEVICE))
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def trained(trained_home: Path, home: Path) -> Path:
    """This test's own copy of that store."""
    shutil.copytree(trained_home, home)
    return home


@pytest.fixture
def certified(trained: Path, advmix: Run) -> str:
    """A model of certified training, `proved`, beside those of `trained`."""
    made = advmix("advtrain", "--method", "ibp", "--limit", "400", "--epochs", "6", "--eps", "0.05", "--name", "proved")
    assert made.code == 0, made.err
    return "proved"


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with real MNIST and CIFAR-10."""
    if not (REAL_DATA / "MNIST/raw/t10k-images-idx3-ubyte").is_file():
        pytest.skip(f"real data is not in {REAL_DATA}")
    monkeypatch.setenv("ADVMIX_DATA", str(REAL_DATA))
    return REAL_DATA


@pytest.fixture
def real_cifar(real_data: Path) -> Path:
    """The same folder, where it has CIFAR-10."""
    if not (real_data / "cifar-10-batches-py/test_batch").is_file():
        pytest.skip(f"CIFAR-10 is not in {real_data}")
    return real_data


@pytest.fixture
def published() -> Path:
    """The folder with the report's published checkpoints."""
    folder = SHARED / "paper/checkpoints"
    if not folder.is_dir():
        pytest.skip(f"the published checkpoints are not in {folder}")
    return folder
