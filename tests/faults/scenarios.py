"""The commands that are disturbed, and the stores that they are run on."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import signal
from collections.abc import Callable, Sequence

from checks import Files, snapshot
from runner import Child, Ran, Runner
from shim import AFTER, CHANGES, Fault

Hook = Callable[[], None]
"""What is called in a child before the program."""

PREPARED = (
    "train --limit 600 --epochs 3 --lr 0.02 --batch-size 20 --name v",
    "train --limit 60 --epochs 2 --name t",
    "train --limit 60 --epochs 2 --seed 1 --name w",
    "advtrain --init t --limit 60 --epochs 2 --steps 2 --name r",
    "attack v --limit 6 --steps 3 --name c",
    "eval v --samples c",
    "eval v --attack pgd --limit 4 --steps 3 --audit",
    "visualize samples c --count 2",
    "visualize curves t",
    "visualize matrix",
    "import {files}/foreign.pt --dataset glyphs --name i",
)
"""What makes the store that most commands are run on."""

STOPPED = ("train --limit 60 --epochs 4 --seed 5", "attack v --limit 8 --steps 2 --seed 5 --batch-size 2")
"""What is killed half done in the store `stopped`."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A command line on a store; `{files}` and `{out}` are folders, of foreign files and for what it writes."""

    name: str
    line: str
    store: str = "full"
    stdin: str = ""
    again: tuple[int, ...] = (0,)
    """How it may end when it is run once more."""


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("train-first", "train --limit 60 --epochs 2", store="empty"),
        Scenario("train-named", "train --limit 60 --epochs 2 --seed 7 --name new"),
        Scenario("train-stored", "train --limit 60 --epochs 2 --name w"),
        Scenario("train-force", "train --limit 60 --epochs 2 --name t --force"),
        Scenario("train-continued", STOPPED[0], store="stopped"),
        Scenario("train-continued-force", f"{STOPPED[0]} --force", store="stopped"),
        Scenario("train-seeds", "train --limit 60 --epochs 2 --seed 11,12 --name s --threads 2"),
        Scenario("train-seeds-force", "train --limit 60 --epochs 2 --seed 0,1 --name s --force"),
        Scenario("advtrain", "advtrain --init t --limit 60 --epochs 2 --steps 2 --seed 7 --name q"),
        Scenario("advtrain-force", "advtrain --init t --limit 60 --epochs 2 --steps 2 --force"),
        Scenario("attack", "attack v --limit 8 --steps 3 --batch-size 2 --name d"),
        Scenario("attack-stdin", "attack - -q --limit 8 --steps 2", stdin="v\n"),
        Scenario("attack-continued", STOPPED[1], store="stopped"),
        Scenario("attack-force", "attack v --limit 6 --steps 3 --name c --force"),
        Scenario("autoattack", "attack v --attack autoattack --limit 3 --eps 0.01"),
        Scenario("eval-samples", "eval v w --samples c"),
        Scenario("eval-attack", "eval v --attack pgd --limit 6 --steps 3 --batch-size 2"),
        Scenario("eval-force", "eval v --samples c --force"),
        Scenario("eval-audit", "eval v --attack pgd --limit 4 --steps 2 --audit"),
        Scenario("eval-report", "eval v --samples c --report {out}/report.html"),
        Scenario("eval-json", "eval w --limit 10 --json"),
        Scenario("visualize-samples", "visualize samples c --count 3"),
        Scenario("visualize-curves", "visualize curves t w --out {out}/curves.svg"),
        Scenario("visualize-matrix", "visualize matrix --out {out}/matrix.png"),
        Scenario("visualize-force", "visualize curves t --force"),
        Scenario("import", "import {files}/other.safetensors --dataset glyphs --name j"),
        Scenario("import-force", "import {files}/foreign.pt --dataset glyphs --force"),
        Scenario("store-list", "store list"),
        Scenario("store-show", "store show v --json"),
        Scenario("store-path", "store path c"),
        Scenario("store-verify", "store verify"),
        Scenario("store-remove", "store remove t w c -y", again=(0, 3)),
        Scenario("store-remove-evaluation", "store remove {evaluation} -y", again=(0, 3)),
        Scenario("store-prune", "store prune -y", store="stopped"),
        Scenario("data-list", "data list"),
    )
}


class Bench:
    """A place to run commands: the prepared stores, the folders of a case, how commands end undisturbed."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.work = runner, runner.work
        self.home, self.out, self.files = (self.work / name for name in ("home", "out", "files"))
        self.stores = {name: self.work / "stores" / name for name in ("empty", "full", "stopped")}
        self._undisturbed: dict[str, tuple[Ran, Files, Files]] = {}

    # Preparation

    def prepare(self) -> None:
        """Make the stores, with other numbers than the commands give: so --force has something to replace."""
        self.stores["empty"].mkdir(parents=True)
        self.out.mkdir()
        self.files.mkdir()
        made = Child(self._foreign).wait()
        assert made.code == 0, made.err
        for line in PREPARED:
            arguments = shlex.split(line.format(files=self.files))
            ran = self.runner.run(arguments, self.stores["full"], first=[other_numbers])
            assert ran.code == 0, f"{line}: {ran.code}\n{ran.err}"
            self.runner.learn(ran.modules)
        shutil.copytree(self.stores["full"], self.stores["stopped"])
        for line in STOPPED:
            self._stop(line)
        (self.stores["stopped"] / "checkpoints" / ".tmp-1-0-gone.safetensors").write_bytes(b"half")
        (self.stores["stopped"] / "refs" / "nowhere").write_text("checkpoints/nowhere\n")

    def _foreign(self, _: int) -> int:
        """Files as others would hand them in."""
        import torch
        from safetensors.torch import save_file

        from advmix_cli import models

        torch.save(models.build("lenet5", 3).state_dict(), self.files / "foreign.pt")
        plain = {name: tensor.contiguous() for name, tensor in models.build("lenet5", 4).state_dict().items()}
        save_file(plain, self.files / "other.safetensors")
        return 0

    def _stop(self, line: str) -> None:
        """Kill the command in the store `stopped` when it has left something to continue from."""
        kept = self.work / "kept"
        shutil.copytree(self.stores["stopped"], kept)
        before = len(list(kept.glob("unfinished/*.pt")))
        for nth in range(1, 200):
            shutil.rmtree(self.stores["stopped"])
            shutil.copytree(kept, self.stores["stopped"])
            fault = Fault(AFTER, nth, signal.SIGKILL, CHANGES)
            ran = self.runner.run(line.split(), self.stores["stopped"], fault=fault, first=[keep_often])
            if len(list(self.stores["stopped"].glob("unfinished/*.pt"))) > before + (line.startswith("attack")):
                break
        assert ran.code == -signal.SIGKILL, f"{line} leaves nothing to continue from: {ran.err}"
        shutil.rmtree(kept)

    # Cases

    def fresh(self, store: str) -> None:
        """A copy of that store, and an empty folder for what commands write."""
        for folder in (self.home, self.out):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.stores[store], self.home, symlinks=True)
        self.out.mkdir()

    def ready(self, scenario: Scenario) -> None:
        """A fresh store for the command, after it was seen undisturbed."""
        self.undisturbed(scenario)
        self.fresh(scenario.store)

    def start(self, scenario: Scenario, fault: Fault | None = None, first: Sequence[Hook] = ()) -> Child:
        """Begin the command on the store as it is, after calling `first`."""
        return self.runner.start(
            self.arguments(scenario), self.home, stdin=scenario.stdin, fault=fault, beside=[self.out],
            first=[keep_often, *first],
        )  # fmt: skip

    def run(self, scenario: Scenario, fault: Fault | None = None, limit: float | None = None) -> Ran:
        """`start`, and wait for the end: ten seconds longer than it takes undisturbed."""
        return self.start(scenario, fault).wait(limit or self.undisturbed(scenario)[0].seconds + 10)

    def arguments(self, scenario: Scenario) -> list[str]:
        """The command line."""
        evaluation = next((self.stores["full"] / "evaluations").glob("*.json")).stem
        return shlex.split(scenario.line.format(files=self.files, out=self.out, evaluation=evaluation))

    def now(self) -> Files:
        """The files of the store and of the folder that commands write to."""
        return snapshot(self.home) | {f"out/{name}": data for name, data in snapshot(self.out).items()}

    def undisturbed(self, scenario: Scenario) -> tuple[Ran, Files, Files]:
        """How the command ends, and the files before and after it."""
        if scenario.name not in self._undisturbed:
            self.fresh(scenario.store)
            before = self.now()
            ran = self.start(scenario).wait()
            assert ran.code == 0, f"{scenario.name}: {ran.code}\n{ran.err}"
            self.runner.learn(ran.modules)
            self._undisturbed[scenario.name] = (ran, before, self.now())
        return self._undisturbed[scenario.name]


def other_numbers() -> None:
    """Draw other random numbers for the same settings: the same names, another content."""
    from advmix_cli import runtime

    derived = runtime.derived
    runtime.derived = lambda *parts: derived("other", *parts)


def keep_often() -> None:
    """Keep the state of unfinished work whenever there is something new, where the program waits a while."""
    from advmix_cli.workflows import unfinished

    assert hasattr(unfinished, "_EVERY_S")
    unfinished._EVERY_S = 0
