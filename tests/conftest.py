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

SHARED = Path(__file__).resolve().parents[2] / "shared"
REAL_DATA = Path(os.environ.get("ADVMIX_DATA") or SHARED / "data")
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
        assert envelope["schema"] == 1
        assert envelope["status"] == ("ok" if self.code == 0 else "error")
        return envelope["data"]

    @property
    def errors(self) -> list[dict[str, str]]:
        return json.loads(self.out)["errors"]


Run = Callable[..., Outcome]

ADVMIX_THAT_HEEDS_CTRL_C = (
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from advmix_cli.__main__ import main; main()",
)
"""As started from a terminal: what a shell starts in the background, these tests perhaps, ignores it."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store, no data sets, the CPU."""
    for name in ("ADVMIX_DATA", "ADVMIX_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "home"
    monkeypatch.setenv("ADVMIX_HOME", str(root))
    monkeypatch.setenv("ADVMIX_DEVICE", os.environ.get("ADVMIX_TEST_DEVICE", "cpu"))
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
    done = shell(line, ADVMIX_HOME=str(root), ADVMIX_DEVICE=os.environ.get("ADVMIX_TEST_DEVICE", "cpu"))
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def trained(trained_home: Path, home: Path) -> Path:
    """This test's own copy of that store."""
    shutil.copytree(trained_home, home)
    return home


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with real MNIST and CIFAR-10."""
    if not (REAL_DATA / "MNIST/raw/t10k-images-idx3-ubyte").is_file():
        pytest.skip(f"real data is not in {REAL_DATA}")
    monkeypatch.setenv("ADVMIX_DATA", str(REAL_DATA))
    return REAL_DATA


@pytest.fixture
def published() -> Path:
    """The folder with the report's published checkpoints."""
    folder = SHARED / "paper/checkpoints"
    if not folder.is_dir():
        pytest.skip(f"the published checkpoints are not in {folder}")
    return folder
