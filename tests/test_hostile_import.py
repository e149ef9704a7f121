"""Weights of others that are taken in: whole, finite, real, meant, and the very ones that the file holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run
from hostile import confined, held, in_json
from hostile_objects import arguments, kinds
from hostile_pickles import saved
from safetensors.torch import save

from advmix_cli import models

AS_LENET = ("--dataset", "glyphs", "--arch", "lenet5")
State = dict[str, torch.Tensor]


@pytest.fixture
def state() -> State:
    return {name: tensor.clone() for name, tensor in models.build("lenet5", 5).state_dict().items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "theirs.pt"


def first(state: State) -> str:
    return next(iter(state))


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def name_of(advmix: Run, file: Path) -> str:
    """What the import is called: its name is that of the weights."""
    done = advmix("import", file, *AS_LENET, "--json")
    held(done, {0}, file)
    return str(done.data["checkpoint"])


def test_weights_are_found_wherever_others_put_them(advmix: Run, file: Path, state: State) -> None:
    file.write_bytes(saved(state))
    plain = name_of(advmix, file)
    optimizer = torch.optim.SGD(models.build("lenet5", 5).parameters(), lr=0.1, momentum=0.9).state_dict()
    for content in (
        {"state_dict": state},
        {"model": {"state_dict": state}},
        {"model": {"model_state_dict": state, "arch": "lenet5"}, "epoch": 3},
        {"state_dict": {"model": state}},
        {"net": {"model": {"state_dict": state}}},
        {"model": state, "optimizer": optimizer, "epoch": 3, "best_acc": 0.5, "args": arguments()},
        {"state_dict": state, "optimizer_state_dict": {"state": state}, "scaler": None},
        {name: torch.nn.Parameter(tensor) for name, tensor in state.items()},
        {name: tensor.double() for name, tensor in state.items()},
        *(under(prefix, state) for prefix in (
            "module.", "model.", "_orig_mod.", "_orig_mod.module.", "model.module.", "module._orig_mod.",
            "module.model.", "model._orig_mod.module.",
        )),
    ):  # fmt: skip
        for zipped in (True, False):
            file.write_bytes(saved(content, zipped=zipped))
            assert name_of(advmix, file) == plain


def test_narrow_weights_are_widened(advmix: Run, file: Path, state: State) -> None:
    for kind in (torch.float16, torch.bfloat16):
        narrow = {name: tensor.to(kind) for name, tensor in state.items()}
        file.write_bytes(saved(narrow))
        wide = file.with_name("wide.pt")
        wide.write_bytes(saved({name: tensor.float() for name, tensor in narrow.items()}))
        assert name_of(advmix, file) == name_of(advmix, wide)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("value", [1e300, -1e39, float("nan"), float("inf")])
def test_weights_that_no_float32_holds_are_refused(
    advmix: Run, home: Path, tmp_path: Path, state: State, value: float, suffix: str
) -> None:
    wide = {name: tensor.double().contiguous() for name, tensor in state.items()}
    wide[first(wide)].view(-1)[0] = value
    file = tmp_path / f"theirs{suffix}"
    file.write_bytes(saved(wide) if suffix == ".pt" else save(wide))
    done = advmix("import", file, *AS_LENET)
    held(done, {2})
    assert first(wide) in done.err
    assert not list(home.glob("checkpoints/*"))


def test_weights_that_are_no_real_numbers_are_refused(advmix: Run, home: Path, file: Path, state: State) -> None:
    name = next(each for each, tensor in state.items() if tensor.dim() == 2)
    for kind, tensor in kinds(state[name]).items():
        if kind in ("bool", "uint16", "uint64", "float8"):
            continue
        for content in ({**state, name: tensor}, {"model": {**state, name: tensor}}):
            file.write_bytes(saved(content))
            held(advmix("import", file, *AS_LENET), {2, 4}, kind)
    whole = {each: tensor.to(torch.complex64).contiguous() for each, tensor in state.items()}
    file = file.with_suffix(".safetensors")
    file.write_bytes(save(whole))
    held(advmix("import", file, *AS_LENET), {2, 4}, "complex")
    assert not list(home.glob("checkpoints/*"))


def test_weights_of_few_bits_end_in_words(advmix: Run, file: Path, state: State) -> None:
    for kind in (torch.int8, torch.uint8, torch.bool, torch.int64, torch.uint16, torch.uint64, torch.float8_e4m3fn):
        file.write_bytes(saved({name: tensor.to(kind) for name, tensor in state.items()}))
        held(advmix("import", file, *AS_LENET), {0, 2, 4}, kind)


def test_two_weights_of_one_name_are_refused(advmix: Run, home: Path, file: Path, state: State) -> None:
    """Which of them is meant, nothing says: not the order in the file."""
    name = first(state)
    other = torch.zeros_like(state[name])
    layer, kind = name.rsplit(".", 1)
    alias = f"{layer.split('.')[0]}.{layer.split('.')[0]}.{layer.split('.')[0]}.{kind}"
    for twice in ("module.", "_orig_mod.", "model.", "_orig_mod.module."):
        for content in ({**state, twice + name: other}, {twice + name: other, **state}):
            file.write_bytes(saved(content))
            done = advmix("import", file, *AS_LENET)
            held(done, {2}, twice)
            assert name in done.err
    file.write_bytes(saved({**state, alias: other}))
    held(advmix("import", file, *AS_LENET), {2}, alias)
    assert not list(home.glob("checkpoints/*"))


def test_what_holds_no_weights_is_refused(home: Path, file: Path, state: State) -> None:
    """In a process of its own: a dict may hold itself."""
    round_about: dict[str, Any] = {}
    round_about["model"] = round_about
    mutual: dict[str, Any] = {"state_dict": {}}
    mutual["state_dict"]["state_dict"] = mutual
    deep: dict[str, Any] = dict(state)
    for _ in range(200):
        deep = {"model": deep}
    for content in (
        round_about, mutual, [], [state], {}, {"model": []}, {"model": None}, {"model": {}}, 5, "x", None,
        torch.zeros(3), {0: torch.zeros(3)}, {None: torch.zeros(3)}, {b"c1": torch.zeros(3)}, {1.5: 2},
        {**state, 7: torch.zeros(3)}, {name: tensor.tolist() for name, tensor in state.items()},
        {name: tensor[None] for name, tensor in state.items()}, {**state, first(state): torch.tensor(1.0)},
        {"model": state, "state_dict": {"x": torch.zeros(3)}},
    ):  # fmt: skip
        for zipped in (True, False):
            file.write_bytes(saved(content, zipped=zipped))
            held(confined(home, "import", file, *AS_LENET), {2, 4}, str(content)[:60])
    file.write_bytes(saved(deep))
    held(confined(home, "import", file, *AS_LENET), {0, 2, 4}, "deep")
    assert len(list(home.glob("checkpoints/*.safetensors"))) <= 1


def test_a_damaged_file_of_our_own_is_not_taken_in_anew(trained: Path, advmix: Run, tmp_path: Path) -> None:
    """A flipped bit would get a digest of its own, and be sound ever after."""
    (own,) = (trained / "checkpoints").glob("*-none-*.safetensors")
    data = own.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    file = tmp_path / "copy.safetensors"
    for position in (end + 3, end + (len(data) - end) // 2, len(data) - 2):
        damaged = bytearray(data)
        damaged[position] ^= 1
        file.write_bytes(damaged)
        held(advmix("import", file, *AS_LENET), {4}, position)
        shutil.copy(file, own)
        held(advmix("import", own, *AS_LENET), {4}, position)
    for before, after in ((b"lenet5", b"lenet6"), (b"glyphs", b"glyph5"), (b"sha256", b"sha255")):
        file.write_bytes(data[:end].replace(before, after) + data[end:])
        held(advmix("import", file, *AS_LENET), {4}, after)
    header = json.loads(data[8:end])
    for record in ("", "x", "{}", "[]"):
        text = json.dumps(header | {"__metadata__": {"advmix": record}}).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
        held(advmix("import", file, *AS_LENET), {4}, record)
    assert not list((trained / "checkpoints").glob("*-import-*"))


def test_what_is_not_a_file_is_refused(advmix: Run, home: Path, tmp_path: Path) -> None:
    for name in ("folder.pt", "folder.safetensors"):
        (tmp_path / name).mkdir()
        held(advmix("import", tmp_path / name, *AS_LENET), {2, 3, 4})
    for suffix in ("pt", "safetensors"):
        (tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
        done = confined(home, "import", tmp_path / f"zero.{suffix}", *AS_LENET, "--json")
        held(done, {2, 3, 4})
        assert in_json(done)["hint"]
