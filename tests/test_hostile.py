"""Files that a user is handed: none hangs a command, takes the memory, runs anything, or ends in a traceback.

Exit code 4 says that a file is damaged or unsafe, 2 that it is sound and not what is asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run
from hostile import ESCAPES, cheap, confined, held, in_json, unclean
from hostile_archives import BOMBS, deflated_images, opcodes
from hostile_objects import harmful, kinds, scripted, whole_model
from hostile_pickles import CLAIMS, NESTED, nested_dict, saved, stride_zero, usual

from advmix_cli import models

AS_LENET = ("--dataset", "glyphs", "--arch", "lenet5")
ON_MODEL = ("eval", "a", "--limit", "4", "--samples")
Command = Callable[[Path], tuple[str | Path, ...]]
COMMANDS: dict[str, Command] = {
    "verify": lambda file: ("store", "verify", file),
    "show": lambda file: ("store", "show", file),
    "eval": lambda file: (*ON_MODEL, file),
    "import": lambda file: ("import", file, *AS_LENET),
}


def state(arch: str = "lenet5") -> dict[str, torch.Tensor]:
    return models.build(arch, 5).state_dict()


@pytest.fixture(scope="module")
def stock(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for commands in processes of their own."""
    return Path(shutil.copytree(trained_home, tmp_path_factory.mktemp("stock") / "home"))


@pytest.fixture(scope="module")
def costs(stock: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each command takes on a valid small file."""
    file = tmp_path_factory.mktemp("valid") / "valid.pt"
    found = {}
    for name, command in COMMANDS.items():
        file.write_bytes(saved(state()) if name == "import" else usual())
        found[name] = confined(stock, *command(file))
        held(found[name], {0}, name)
    return found


# Claims, bombs and traps


@pytest.mark.parametrize("make", [*CLAIMS, *BOMBS, *NESTED], ids=lambda make: make.__name__)
def test_a_file_costs_no_more_than_its_size(
    stock: Path, costs: dict[str, Any], tmp_path: Path, make: Callable[[], bytes]
) -> None:
    file = tmp_path / "theirs.pt"
    file.write_bytes(make())
    # What is not needed for an answer need not be read: the record of a file of others, weights that do not fit.
    for name, codes in (("verify", {4}), ("show", {0, 4}), ("import", {2, 4})):
        done = confined(stock, *COMMANDS[name](file))
        held(done, codes, f"{name} {make.__name__}")
        cheap(done, costs[name], f"{name} {make.__name__}")


@pytest.mark.parametrize("make", [stride_zero, deflated_images, nested_dict, opcodes], ids=lambda make: make.__name__)
def test_nor_where_it_is_attacked_images(
    stock: Path, costs: dict[str, Any], tmp_path: Path, make: Callable[[], bytes]
) -> None:
    file = tmp_path / "theirs.pt"
    file.write_bytes(make())
    done = confined(stock, *COMMANDS["eval"](file))
    held(done, {4})
    cheap(done, costs["eval"])


@pytest.mark.parametrize("make", [stride_zero, deflated_images, nested_dict, opcodes], ids=lambda make: make.__name__)
def test_nor_in_the_store(trained: Path, costs: dict[str, Any], tmp_path: Path, make: Callable[[], bytes]) -> None:
    """All that is there is verified, listed and pruned, and what is sound is said to be."""
    (trained / "samples" / "theirs.pt").write_bytes(make())
    for line, codes in (("store verify --json", {4}), ("store list", {0}), ("store prune --dry-run", {0})):
        done = confined(trained, *line.split())
        held(done, codes, line)
        cheap(done, costs["verify"], line)
    held(confined(trained, "store", "remove", "theirs", "-y"), {0})
    assert not (trained / "samples" / "theirs.pt").exists()


# Code


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", sorted(harmful(Path("mark"))))
def test_code_in_a_cache_is_named_and_not_run(
    trained: Path, advmix: Run, tmp_path: Path, kind: str, zipped: bool
) -> None:
    mark, file = tmp_path / "mark", tmp_path / "theirs.pt"
    harm, function = harmful(mark)[kind]
    images = {"adv_inputs": torch.rand(4, 1, 32, 32), "labels": torch.arange(4)}
    for content in (harm, [harm], images | {"save_type": harm}, images | {"x": {"y": [harm]}}):
        file.write_bytes(saved(content, zipped=zipped))
        done = advmix(*ON_MODEL, file, "--json")
        held(done, {4})
        assert in_json(done)["code"] == "unsafe"
        assert function in in_json(done)["message"]
        verified = advmix("store", "verify", file, "--json")
        held(verified, {4})
        (entry,) = verified.data["verified"]
        assert function in entry["problem"]
        shutil.copy(file, trained / "samples" / "theirs.pt")
        for line, codes in (("store verify", {4}), ("store show theirs", {4}), ("store prune --dry-run", {0})):
            held(advmix(*line.split()), codes, line)
        held(advmix("visualize", "samples", file), {2, 4})
        held(advmix("visualize", "samples", "theirs"), {4})
    assert not mark.exists()


@pytest.mark.parametrize(("zipped", "suffix"), [(True, ".pt"), (False, ".pth")], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", sorted(harmful(Path("mark"))))
def test_code_in_a_file_to_import_is_named_and_not_run(
    trained: Path, advmix: Run, tmp_path: Path, kind: str, zipped: bool, suffix: str
) -> None:
    mark, file = tmp_path / "mark", tmp_path / f"theirs{suffix}"
    harm, function = harmful(mark)[kind]
    for content in (harm, {"state_dict": harm}, {"state_dict": {"c1.conv.weight": harm}}):
        file.write_bytes(saved(content, zipped=zipped))
        done = advmix("import", file, *AS_LENET, "--json")
        held(done, {4})
        assert in_json(done)["code"] == "unsafe"
        assert function in in_json(done)["message"]
    # Beside weights that are whole it may be left alone, and so it may where there can be none.
    for content, codes in (({"state_dict": state(), "x": harm}, {0, 4}), ([harm], {2, 4})):
        file.write_bytes(saved(content, zipped=zipped))
        held(advmix("import", file, *AS_LENET), codes)
    assert not mark.exists()


def test_a_harmful_pickle_under_another_name(trained: Path, advmix: Run, tmp_path: Path) -> None:
    """As a checkpoint, and as bytes that are no archive of torch at all."""
    import pickle

    mark = tmp_path / "mark"
    for harm, function in harmful(mark).values():
        for data in (pickle.dumps(harm), saved(harm), saved(harm, zipped=False)):
            for suffix in (".safetensors", ".pt"):
                file = tmp_path / f"theirs{suffix}"
                file.write_bytes(data)
                held(advmix("store", "verify", file), {4})
                held(advmix("import", file, *AS_LENET), {4})
                if suffix == ".safetensors":
                    held(advmix("eval", file, "--limit", "4"), {4})
                else:
                    done = advmix(*ON_MODEL, file, "--json")
                    held(done, {4})
                    assert in_json(done)["code"] == "unsafe"
                    assert function in in_json(done)["message"]
    assert not mark.exists()


def test_a_whole_model_and_a_script_are_unsafe(trained: Path, advmix: Run, tmp_path: Path) -> None:
    file = tmp_path / "theirs.pt"
    for make, holds in ((whole_model, "Sequential"), (scripted, "")):
        file.write_bytes(make())
        for command in (("import", file, *AS_LENET), (*ON_MODEL, file)):
            done = advmix(*command, "--json")
            held(done, {4}, make.__name__)
            assert in_json(done)["code"] == "unsafe"
            assert holds in in_json(done)["message"]
            assert "_Skipped" not in done.err


# Attacked images that are no plain arrays


def test_images_of_other_kinds_are_refused(trained: Path, advmix: Run, tmp_path: Path) -> None:
    file, labels = tmp_path / "theirs.pt", torch.arange(4)
    images = torch.rand((4, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    contents: dict[str, dict[str, Any]] = {
        **{name: {"adv_inputs": tensor, "labels": labels} for name, tensor in kinds(images).items()},
        **{
            f"{name} labels": {"adv_inputs": images, "labels": tensor}
            for name, tensor in kinds(labels.float()).items()
            if name not in ("uint16", "uint64")
        },
        "labels below 0": {"adv_inputs": images, "labels": labels - 1},
        "labels beyond the classes": {"adv_inputs": images, "labels": labels + 10**6},
        "8 bits below 0": {"adv_inputs": images.mul(255).to(torch.int8), "labels": labels, "save_type": "int"},
        "no image": {"adv_inputs": images[:, :, :0], "labels": labels},
        "other images": {"adv_inputs": torch.rand(4, 3, 32, 32), "labels": labels},
        "smaller images": {"adv_inputs": torch.rand(4, 1, 8, 8), "labels": labels},
        "a list": {"adv_inputs": [images], "labels": labels},
        "a record of numbers": {"adv_inputs": images, "labels": labels, "advmix": 5},
        "a record of bytes": {"adv_inputs": images, "labels": labels, "advmix": "x"},
        "a record that is a tensor": {"adv_inputs": images, "labels": labels, "advmix": images},
    }
    readable = {"bool", "float8", "uint16", "uint64", "bool labels", "a record of numbers"}
    for name, content in contents.items():
        file.write_bytes(saved(content))
        for command in ("verify", "eval"):
            codes = {0, 2, 4} if command == "verify" or name in readable else {2, 4}
            held(advmix(*COMMANDS[command](file)), codes, f"{command} {name}")


def test_images_of_other_widths_are_read(trained: Path, advmix: Run, tmp_path: Path) -> None:
    file, labels = tmp_path / "theirs.pt", torch.arange(4)
    images = torch.rand((4, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    for kind in (torch.float64, torch.float16, torch.bfloat16):
        file.write_bytes(saved({"adv_inputs": images.to(kind), "labels": labels}))
        held(advmix(*ON_MODEL, file), {0}, kind)
    for name, content in {
        "a gradient": {"adv_inputs": images.clone().requires_grad_(), "labels": labels},
        "narrow labels": {"adv_inputs": images, "labels": labels.to(torch.uint8)},
        "strided": {"adv_inputs": images.transpose(2, 3), "labels": labels},
        "negative": {"adv_inputs": torch._neg_view(-images), "labels": labels},
        "a word for the type": {"adv_inputs": images, "labels": labels, "save_type": images},
    }.items():
        file.write_bytes(saved(content))
        held(advmix(*ON_MODEL, file), {0, 2}, name)


# Names that do more than name


def test_names_in_a_file_reach_no_terminal(trained: Path, advmix: Run, tmp_path: Path) -> None:
    file = tmp_path / "theirs.pt"
    for odd in (ESCAPES, "../../x", "x" * 300, "a\nb", "", "a/b", "\ud800"):
        if odd != "\ud800":
            file.write_bytes(saved({odd: torch.zeros(3), odd + "c1": torch.zeros(3)}))
            held(advmix("import", file, *AS_LENET), {2, 4}, odd)
            file.write_bytes(saved({"adv_inputs": torch.rand(4, 1, 32, 32), "labels": torch.arange(4), odd: odd}))
            held(advmix(*ON_MODEL, file), {0, 2, 4}, odd)
        held(advmix("store", "show", odd), {2, 3}, odd)
        held(advmix("attack", odd, "--limit", "2", "--name", odd), {2, 3}, odd)
        held(advmix("import", tmp_path / odd, *AS_LENET, "--name", odd), {2, 3, 4}, odd)


def test_names_of_files_reach_no_terminal_or_page(trained: Path, advmix: Run, tmp_path: Path) -> None:
    clean = ESCAPES.replace("\0", "")
    (own,) = (trained / "checkpoints").glob("*-none-*.safetensors")
    model, cache, page = tmp_path / f"m{clean}.safetensors", tmp_path / f"c{clean}.pt", tmp_path / "page.html"
    shutil.copy(own, model)
    cache.write_bytes(usual())
    held(advmix("store", "show", model), {0})
    held(advmix("attack", model, "--limit", "3", "--steps", "1"), {0})
    held(advmix("eval", model, "--samples", cache, "--limit", "4", "--report", page), {0})
    assert not unclean(page.read_text())
    held(advmix("visualize", "matrix"), {0})
    held(advmix("store", "show", "latest"), {0})
