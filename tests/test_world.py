"""Several processes: ranks that share a training or an attack, and shards of it, and what becomes of one that dies."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run, content_of, on_cpu
from safetensors.torch import load_file

from advmix_cli import gathering, models, world
from advmix_cli.artifacts.checkpoints import checkpoint_record
from advmix_cli.errors import UsageError
from advmix_cli.store import Store
from advmix_cli.workflows.session import Session, Silent
from advmix_cli.workflows.unfinished import Unfinished
from advmix_cli.world import World

pytestmark = [on_cpu, pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch has no gloo here")]

TRAIN = ("train", "--limit", "400", "--epochs", "2", "--lr", "0.01", "--batch-size", "30")
ATTACK = ("attack", "m", "--limit", "11", "--steps", "3")
EVAL = (
    "eval",
    "m",
    "zoo:lenet5-masked",
    "--dataset",
    "glyphs",
    "--attack",
    "autoattack",
    "--certify",
    "--bounds",
    "ibp",
    "--limit",
    "7",
)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def started(size: int, home: Path, arguments: Sequence[str]) -> list[subprocess.Popen[str]]:
    """The processes of a job, as torchrun starts them."""
    port = str(free_port())
    ranks = []
    for rank in range(size):
        environment = os.environ | {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port, "ADVMIX_HOME": str(home), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        ranks.append(
            subprocess.Popen([sys.executable, *arguments], env=environment, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        )  # fmt: skip
    return ranks


def ended(ranks: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each."""
    said = [rank.communicate(timeout=240) for rank in ranks]
    return [(rank.returncode, *each) for rank, each in zip(ranks, said, strict=True)]


def job(size: int, home: Path, *arguments: str) -> list[tuple[int, str, str]]:
    return ended(started(size, home, ["-m", "advmix_cli", *arguments]))


def script(tmp_path: Path, text: str, size: int = 2) -> list[tuple[int, str, str]]:
    """A script, in several ranks."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(text))
    return ended(started(size, tmp_path / "home", [str(path)]))


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def weights(home: Path) -> dict[str, torch.Tensor]:
    return {name: each.double() for name, each in load_file(only(home, "checkpoints/*.safetensors")).items()}


def evaluation(home: Path) -> Any:
    record = json.loads(only(home, "evaluations/*.json").read_text())["record"]
    return {name: each for name, each in record.items() if name != "made"}


def test_what_ranks_are_told() -> None:
    assert world.of_environment({}) == world.ALONE
    torchrun = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}
    assert world.of_environment(torchrun) == World(2, 4, 0, True)
    assert world.of_environment({"RANK": "0", "WORLD_SIZE": "1"}) == world.ALONE
    slurm = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "3"}
    assert world.of_environment(slurm) == World(3, 8, 3, True)
    assert world.of_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == world.ALONE  # a batch script itself
    assert world._rendezvous({"SLURM_STEP_NODELIST": "gpu[07-09,12]", "SLURM_JOB_ID": "123"}) == {
        "MASTER_ADDR": "gpu07", "MASTER_PORT": "20123",
    }  # fmt: skip
    assert world._rendezvous({"SLURM_STEP_NODELIST": "a1,b2"})["MASTER_ADDR"] == "a1"


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "a/b", "1/0", "1/2/3", ""])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="is no part"):
        world.shard(text)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 250])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_parts_cover_all_once_and_weigh_as_much(n: int, size: int) -> None:
    ranks = [World(rank, size) for rank in range(size)]
    assert [i for rank in ranks for i in rank.range(n)] == list(range(n))
    if n:
        index = torch.arange(n)
        rows = [rank.rows(index) for rank in ranks]
        assert all(len(each) for each in rows)
        mean = sum(rank.weight(n) * float(each.double().mean()) for rank, each in zip(ranks, rows, strict=True)) / size
        assert mean == pytest.approx(float(index.double().mean()))


@pytest.mark.parametrize("mix", ["none", "mixup", "manifold"])
def test_two_ranks_train_what_one_process_does(mix: str, tmp_path: Path, advmix: Run, home: Path) -> None:
    """400 - 40 images in batches of 30: the rows of a batch, its mixing and its mean are those of the whole batch."""
    said = job(2, tmp_path / "two", *TRAIN, "--mix", mix, "--json")
    assert [code for code, _, _ in said] == [0, 0], said
    assert said[1][1:] == ("", "")
    alone = advmix(*TRAIN, "--mix", mix, "--threads", "1", "--json")
    assert json.loads(said[0][1])["data"]["checkpoint"] == alone.data["checkpoint"]
    made = [checkpoint_record(only(at, "checkpoints/*.safetensors"))["made"] for at in (tmp_path / "two", home)]
    assert [each.get("ranks") for each in made] == [2, None]
    mine, theirs = weights(tmp_path / "two"), weights(home)
    assert max(float((theirs[name] - each).abs().max()) for name, each in mine.items()) < 1e-5


def test_batch_norm_over_all_ranks_is_for_several_gpus(tmp_path: Path, advmix: Run) -> None:
    alone = advmix(*TRAIN, "--sync-bn")
    assert alone.code == 2
    assert "--sync-bn is for several ranks" in alone.err
    said = job(2, tmp_path, *TRAIN, "--arch", "resnet18", "--sync-bn", "--device", "cpu")
    assert [code for code, _, _ in said] == [2, 2], said
    assert "--sync-bn needs GPUs" in said[0][2]
    assert said[1][1:] == ("", "")


def test_batch_norm_over_all_ranks_keeps_its_names() -> None:
    model = models.build(models.Network("resnet18", (3, 32, 32), 10), 0)
    names = [*model.state_dict()]
    found = gathering.synchronised(model, torch.device("cuda"))
    assert [*found.state_dict()] == names
    norms = [each for each in found.modules() if isinstance(each, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(each, torch.nn.SyncBatchNorm) for each in norms)


def test_ranks_have_the_same_statistics(tmp_path: Path) -> None:
    said = script(tmp_path, """
        import torch
        from advmix_cli import data, models, presets, splitting, training, world
        ranks = world.join()
        draw = torch.Generator().manual_seed(0)
        x = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=draw)
        images = data.ImageSet(data.info("cifar10"), "train", x, torch.arange(40) % 10)
        settings = presets.train_settings("default", "cifar10", "preactresnet18", epochs=1, batch_size=16, lr=0.01,
                                          validation=0)
        model = models.build(models.Network("preactresnet18", (3, 32, 32), 10), 0)
        before = {name: each.clone() for name, each in model.state_dict().items()}
        training.train(model, splitting.Splits(images, images.first(0), images.first(10)), settings)
        told = ranks.all(model.state_dict())
        assert all(torch.equal(each, told[1][name]) for name, each in told[0].items())
        changed = [name for name, each in told[0].items() if not torch.equal(each, before[name])]
        assert any("running_var" in name for name in changed)
        print("the same")
        world.leave()
        world.end(0)
    """)  # fmt: skip
    assert [(code, out) for code, out, _ in said] == [(0, "the same\n")] * 2, said


ONE_STEP = """
    import sys
    import torch
    from advmix_cli import data, models, presets, splitting, training, world
    from advmix_cli.ways import METHODS
    ranks = world.join()
    images = data.load("glyphs", "train", None).first(41)
    found = {}
    for name, more in (
        ("pgd", {"mix": "manifold", "awp": 0.01, "ema": 0.5}), ("pgd", {"augment": "cutmix"}),
        ("pgd", {"mix": "mixup", "policy": "partial-pgd"}), ("pgd", {"mix": "mixup", "mix_order": "mix-attack"}),
        ("trades", {"mix": "mixup"}), ("iat", {"mix": "mixup"}), ("avmixup", {}), ("m-tlat", {"mix": "mixup"}),
        ("fgsm-rs", {}), ("ibp", {"mix": "mixup", "method_arg": ["gce=0"]}), ("mtl-ibp", {}),
        ("sabr", {"method_arg": ["gce=0"]}), ("ibp", {"method_arg": ["gce=0", "recycle=1"]}),
    ):
        usual = {"epochs": 1, "batch_size": 41, "lr": 0.1, "optimizer": "sgd", "limit": 41, "validation": 0}
        usual |= {"ramp": 0.0, "method": name}
        usual |= {"steps": 2} if METHODS[name].attacks else {}
        settings = presets.advtrain_settings("default", "glyphs", "lenet5", **usual, **more)
        model = models.build(models.Network("lenet5", (1, 32, 32), 10), 0)
        if "recycle=1" in more.get("method_arg", ()):
            model.c1.conv.weight.data[2] = -1  # a channel that is off begins anew in all ranks alike
        before = {key: each.clone() for key, each in model.state_dict().items()}
        training.train(model, splitting.Splits(images, images.first(0), images.first(4)), settings)
        for key, each in model.state_dict().items():
            assert not torch.equal(each, before[key]), (name, key)
            found[f"{name} {more} {key}"] = each - before[key]
    if ranks.first:
        torch.save(found, sys.argv[0] + f".{ranks.size}.pt")
    world.leave()
    world.end(0)
"""


def test_a_step_of_every_way_is_that_of_one_process(tmp_path: Path) -> None:
    """41 images, 20 and 21 of them: attacked, mixed and learned from by two as by one.

    By SGD, for Adam's first step is a sign; compared with the largest step, for bounds begin with large ones, where the
    generalised cross-entropy would have no slope.
    """
    for size in (1, 2):
        said = script(tmp_path, ONE_STEP, size)
        assert [code for code, _, _ in said] == [0] * size, said
    one, two = (torch.load(tmp_path / f"script.py.{size}.pt") for size in (1, 2))
    for name, each in one.items():
        assert float((each - two[name]).abs().max()) < 1e-6 + 1e-5 * float(each.abs().max()), name


@pytest.fixture
def attacked(advmix: Run, home: Path, tmp_path: Path) -> Path:
    """A store with a model, its attacked images and its evaluation, by one process."""
    assert advmix(*TRAIN, "--name", "m").code == 0
    for other in ("ranks", "shards"):
        subprocess.run(["cp", "-r", home, tmp_path / other], check=True)
    assert advmix(*ATTACK, "--threads", "1").code == 0
    assert advmix(*EVAL, "--threads", "1").code == 0
    return home


def test_no_figure_depends_on_how_many_attack(attacked: Path, tmp_path: Path) -> None:
    for size in (2, 3):
        store = tmp_path / f"ranks-{size}"
        subprocess.run(["cp", "-r", tmp_path / "ranks", store], check=True)
        for command in (ATTACK, EVAL):
            said = job(size, store, *command)
            assert [code for code, _, _ in said] == [0] * size, said
        assert content_of(only(store, "samples/*.pt")) == content_of(only(attacked, "samples/*.pt"))
        assert evaluation(store) == evaluation(attacked)
        assert not list(store.glob("unfinished/*"))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_parts_come_to_the_same_in_any_order(
    order: tuple[int, ...], attacked: Path, tmp_path: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "shards"
    monkeypatch.setenv("ADVMIX_HOME", str(store))
    for command, kind in ((ATTACK, "samples"), (EVAL, "evaluations")):
        for part in order:
            assert not list(store.glob(f"{kind}/*"))
            done = advmix(*command, "--shard", f"{part}/3", "--threads", "1", "--json")
            assert done.code == 0, done.err
        assert "part" not in done.data  # the last puts all together
        assert len(list(store.glob(f"{kind}/*"))) == 1
    assert content_of(only(store, "samples/*.pt")) == content_of(only(attacked, "samples/*.pt"))
    assert evaluation(store) == evaluation(attacked)
    assert not list(store.glob("unfinished/*"))


def test_parts_that_run_at_once_keep_pieces_of_their_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept = [Unfinished(Session(store, tmp_path, Silent(), part=World(part, 2)), "name", "key") for part in (0, 1)]
    for part, unfinished in enumerate(kept):
        unfinished.add({"part": part})
        unfinished.flush()
    whole = Unfinished(Session(store, tmp_path, Silent()), "name", "key")
    assert whole.resumed(lambda pieces: [piece["part"] for piece in pieces]) == [0, 1]


def test_the_same_command_without_shard_does_what_is_left(
    attacked: Path, tmp_path: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "shards"
    monkeypatch.setenv("ADVMIX_HOME", str(store))
    part = advmix(*EVAL, "--shard", "1/3", "--threads", "1", "--json")
    assert part.data["part"] == "1/3"
    assert part.data["left"] > 0
    assert advmix(*EVAL, "--shard", "0/2", "--threads", "1").code == 0  # another division takes over what is known
    assert advmix(*EVAL, "--threads", "1").code == 0
    assert evaluation(store) == evaluation(attacked)


def test_a_shard_is_of_no_job_of_ranks(tmp_path: Path) -> None:
    said = job(2, tmp_path / "home", "eval", "zoo:lenet5-plain", "--shard", "0/2")
    assert [code for code, _, _ in said] == [2, 2]
    assert said[0][2].startswith("error: --shard is for processes that do not share a job")
    assert said[1][2] == ""


def test_a_mistake_is_said_once(tmp_path: Path) -> None:
    said = job(2, tmp_path / "home", "train", "--dataset", "nothing")
    assert [code for code, _, _ in said] == [2, 2]
    assert said[0][2].startswith("error: unknown dataset 'nothing'")
    assert said[1][2] == ""


def test_ranks_without_a_place_to_meet(home: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    told = advmix("train", "--limit", "50")
    signal.signal(signal.SIGTERM, before)
    assert told.code == 2
    assert "nowhere to meet" in told.err


def test_what_is_no_shared_job_the_first_does_alone(tmp_path: Path) -> None:
    said = job(2, tmp_path / "home", "models", "-q")
    assert [code for code, _, _ in said] == [0, 0]
    assert said[0][1]
    assert said[1][1:] == ("", "")


def test_the_error_of_another_rank_is_said_with_its_number(tmp_path: Path) -> None:
    said = script(
        tmp_path,
        """
        import os, sys
        from advmix_cli import checking
        from advmix_cli.cli import main
        from advmix_cli.errors import AdvmixError
        def scored(*given):
            if os.environ["RANK"] == "1":
                raise AdvmixError("this one fails")
            return before(*given)
        before, checking.scored = checking.scored, scored
        main(["train", "--limit", "60", "--epochs", "1"])
    """,
    )
    assert [code for code, _, _ in said] == [1, 1], said
    assert "error: rank 1: this one fails" in said[0][2]
    assert said[1][2] == ""


@pytest.mark.parametrize("killed", [0, 1])
def test_where_one_dies_the_other_ends_and_the_same_command_continues(killed: int, tmp_path: Path) -> None:
    command = ("advtrain", "--limit", "600", "--epochs", "3", "--steps", "2", "--arch", "lenet5", "--init", "untrained")
    home = tmp_path / "home"
    ranks = started(2, home, ["-m", "advmix_cli", *command])
    for _ in range(2400):
        if list(home.glob("unfinished/[!.]*.pt")):
            break
        assert all(rank.poll() is None for rank in ranks)
        time.sleep(0.05)
    ranks[killed].send_signal(signal.SIGKILL)
    other = ranks[1 - killed]
    _, err = other.communicate(timeout=60)
    assert other.returncode == 1
    assert [line for line in err.splitlines() if not line.startswith(("epoch", "training"))] == [
        "error: another of the 2 processes ended", "hint: see what it said; the same command continues",
    ]  # fmt: skip
    ranks[killed].communicate()
    said = job(3, home, *command)
    assert [code for code, _, _ in said] == [0, 0, 0], said
    assert "continuing after epoch" in said[0][2]


def test_runs_are_trained_together_by_ranks(tmp_path: Path, advmix: Run, home: Path) -> None:
    said = job(2, tmp_path / "two", *TRAIN, "--seed", "0,1", "-q")
    assert [code for code, _, _ in said] == [0, 0], said
    assert advmix(*TRAIN, "--seed", "0,1", "-q").out == said[0][1]
    for mine, theirs in itertools.product(
        *(sorted(store.glob("checkpoints/*.safetensors")) for store in (tmp_path / "two", home))
    ):
        if mine.name == theirs.name:
            one, other = load_file(mine), load_file(theirs)
            assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-5
