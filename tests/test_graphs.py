"""Recorded work equals the same work unrecorded: on a GPU, and on a CPU with a tape of operations for the recording.

The tape notes each operation with its arguments, as a CUDA graph does, and plays those again: a number that Python
computed is frozen, and what may not be recorded at all (a wait for the device, a random draw, a tensor made from
Python's numbers) is refused where it happens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import DEVICE
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from advmix_cli import attacks, data, graphs, mixing, models, presets, splitting, training
from advmix_cli.attacks import apgd, fab, pgd, square
from advmix_cli.models import folding
from advmix_cli.threats import Threat
from advmix_cli.ways import METHODS

THREATS = {
    "linf": Threat(eps=0.3, alpha=0.02, steps=25, random_start=False),
    "l2": Threat(norm="l2", eps=1.5, alpha=0.2, steps=20, random_start=False),
    "dlr": Threat(eps=0.2, alpha=0.02, steps=10, loss="dlr"),
    "targeted": Threat(eps=0.2, alpha=0.02, steps=10, targets=2),
    "bf16": Threat(eps=0.2, alpha=0.02, steps=20, precision="bf16"),
    "early": Threat(eps=0.2, alpha=0.01, steps=40, early_stop=True),
    "apgd": Threat.of("apgd-ce", "linf", 0.1, steps=15),
    "apgd-t-l2": Threat.of("apgd-t", "l2", 0.6, steps=12, targets=2),
    "pma": Threat.of("pma", "linf", 0.1, steps=12),
    "fab": Threat.of("fab-t", "linf", 0.1, steps=8, targets=2),
    "square": Threat.of("square", "linf", 0.2, queries=40),
}

RANDOM = {"uniform_", "normal_", "random_", "bernoulli_", "rand", "randn", "randint", "randperm", "bernoulli",
          "native_dropout", "exponential_"}  # fmt: skip
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "is_nonzero", "equal"}
FROM_PYTHON = {"lift_fresh", "lift_fresh_copy"}


class NotRecordable(RuntimeError):
    """An operation that a CUDA graph could not hold."""


class Tape(TorchDispatchMode):
    """Runs operations and notes them, so that they can be played again on the same tensors."""

    def __init__(self) -> None:
        super().__init__()
        self._noted: list[tuple[Any, Any, Any, Any]] = []
        self._own: set[int] = set()
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.name().split("::")[1].split(".")[0], kwargs or {}
        if name in RANDOM | WAITS | FROM_PYTHON:
            raise NotRecordable(f"{name} in what is recorded")
        if name in ("index", "index_put_", "_index_put_impl_"):
            flat, _ = tree_flatten(args[1])
            if any(isinstance(each, torch.Tensor) and each.dtype == torch.bool for each in flat):
                raise NotRecordable(f"{name} by flags waits for how many there are")
        given = [each for each in tree_flatten((args, kwargs))[0] if torch.is_tensor(each)]
        if func._schema.is_mutable:
            for tensor in given:
                if _storage(tensor) not in self._own:
                    self._before.setdefault(_storage(tensor), (tensor, tensor.clone()))
        result = func(*args, **kwargs)
        made = {_storage(each) for each in tree_flatten(result)[0] if torch.is_tensor(each)}
        self._own |= made - {_storage(each) for each in given}
        self._noted.append((func, args, kwargs, result))
        return result

    def undo(self) -> None:
        """What was changed in place as it was before: recording computes nothing."""
        with torch.no_grad():
            for tensor, before in self._before.values():
                tensor.copy_(before)

    def play(self) -> None:
        """All operations again, each result where it was before."""
        with torch.no_grad():
            for func, args, kwargs, result in self._noted:
                again = func(*args, **kwargs)
                for kept, new in zip(tree_flatten(result)[0], tree_flatten(again)[0], strict=True):
                    if isinstance(kept, torch.Tensor) and kept.data_ptr() != new.data_ptr():
                        kept.copy_(new)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class NoNumbersOfPython(TorchFunctionMode):
    """Refuses what copies a number of Python's to the device without an operation that a tape would see."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.as_tensor and not isinstance(args[0], torch.Tensor):
            raise NotRecordable("as_tensor of a number in what is recorded")
        return func(*args, **(kwargs or {}))


def taped(function: Callable[[], graphs.Tensors], device: torch.device) -> tuple[graphs.Tensors, Callable[[], None]]:
    """In the place of a CUDA graph."""
    tape = Tape()
    with tape, NoNumbersOfPython():
        results = function()
    tape.undo()
    return results, tape.play


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Turn recording on or off; on a CPU with the tape, and with networks that compute as on a GPU."""
    monkeypatch.setattr(folding, "folds", lambda x, *within: False)

    def switch(on: bool) -> None:
        monkeypatch.setattr(graphs, "records", lambda device: on)
        if DEVICE.type == "cpu":
            monkeypatch.setattr(graphs, "_record", taped)
            monkeypatch.setattr(graphs, "_aside", lambda function, device: function())

    return switch


def _attacked(model: nn.Module, threat: Threat, seed: int) -> attacks.Attacked:
    random = torch.Generator().manual_seed(seed)
    x = torch.rand((32, 1, 32, 32), generator=random).to(DEVICE)
    y = torch.randint(0, 10, (32,), generator=random).to(DEVICE)
    if threat.early_stop:
        with torch.no_grad():
            y[:20] = model(x[:20]).argmax(1)  # right before the attack, the others mostly wrong
    return attacks.attack(model, x, y, threat, seed=seed)


@pytest.mark.parametrize("name", THREATS)
def test_a_recorded_attack_is_the_attack(name: str, recording: Callable[[bool], None]) -> None:
    model, threat = models.build("lenet5", 3).to(DEVICE), THREATS[name]
    variants = [(seed, threat) for seed in range(4)]  # from the third call on recorded
    alpha = threat.alpha and threat.alpha / 3
    variants.append((4, dataclasses.replace(threat, eps=threat.eps / 2, alpha=alpha)))
    recording(False)
    expected = [_attacked(model, threat, seed) for seed, threat in variants]
    recording(True)
    found = [_attacked(model, threat, seed) for seed, threat in variants]
    for before, after in zip(expected, found, strict=True):
        assert torch.equal(before.success, after.success)
        if not threat.early_stop:  # else who has fallen is noticed later
            assert before.passes == after.passes
        if threat.early_stop and DEVICE.type != "cpu":  # halved batches round otherwise
            torch.testing.assert_close(after.x_adv, before.x_adv, rtol=0, atol=1e-5)
        else:
            assert torch.equal(after.x_adv, before.x_adv)
    assert not torch.equal(expected[3].x_adv, expected[4].x_adv)


def test_recorded_squares_are_what_they_are_one_by_one(recording: Callable[[bool], None]) -> None:
    model, threat = models.build("lenet5", 3).to(DEVICE), Threat.of("square", "linf", 0.02, queries=60)
    x = torch.rand((16, 1, 32, 32), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    y, index = attacks.logits(model, x).argmax(1), torch.arange(16, device=DEVICE)
    found = []
    for recorded, together in ((False, 1), (True, 1), (True, 64)):
        recording(recorded)
        with pytest.MonkeyPatch.context() as patch, attacks.frozen(model):
            patch.setattr(square, "_ON_CPU", together)
            patch.setattr(square, "_ON_GPU", together)
            found.append([square.square(model, x, y, threat, index=index, seed=seed) for seed in range(3)])
    for (one, won), *others in zip(*found, strict=True):
        assert int(won.sum()) < 16
        for images, also in others:
            assert torch.equal(won, also)
            torch.testing.assert_close(images, one, rtol=0, atol=0 if DEVICE.type == "cpu" else 1e-5)
    assert not torch.equal(found[1][0][0], found[1][2][0]), "each call has squares of its own"


@pytest.mark.parametrize("mix", ["none", "manifold", "partial-pgd"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_recorded_training_is_the_training(
    mix: str, optimizer: str, recording: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"mix": "mixup", "policy": "partial-pgd"} if mix == "partial-pgd" else {"mix": mix}
    settings = presets.advtrain_settings(
        "default", "glyphs", "lenet5", epochs=2, batch_size=50, limit=330, steps=3, lr=1e-3, optimizer=optimizer,
        **options,
    )  # fmt: skip
    images = [data.load("glyphs", split, root=None) for split in ("train", "test")]  # type: ignore[arg-type]
    splits = splitting.split(*images, settings)
    splits = splitting.Splits(*(part.to(DEVICE) for part in (splits.train, splits.validation, splits.test)))

    def trained() -> training.Trained:
        return training.train(models.build("lenet5", 0).to(DEVICE), splits, settings)

    recording(True)
    found = trained()
    monkeypatch.setattr(graphs, "_CALLS_BEFORE", 10**9)
    expected = trained()
    assert found.history == expected.history
    assert all(torch.equal(found.last[name], expected.last[name]) for name in expected.last)
    recording(False)  # another implementation of the same optimiser
    assert trained().history[-1]["train_loss"] == pytest.approx(found.history[-1]["train_loss"], rel=0.02)


WAYS: dict[str, dict[str, Any]] = {
    **{name: {"method": name, "mix": "mixup" if name in ("iat", "m-tlat") else "none"} for name in METHODS},
    "mixed bounds": {"method": "ibp", "mix": "mixup", "method_arg": ["gce=0.5", "l1=0.001"]},
    "awp and ema": {"awp": 0.01, "ema": 0.9},
    "cutmix": {"augment": "cutmix"},
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_training_is_recorded(
    way: str, recording: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning would say that one is not."""
    options = {"epochs": 1, "batch_size": 16, "limit": 100, "validation": 10} | WAYS[way]
    if METHODS[options.get("method", "pgd")].attacks:
        options["steps"] = 2
    settings = presets.advtrain_settings("default", "glyphs", "lenet5", **options)
    images = [data.load("glyphs", split, root=None) for split in ("train", "test")]  # type: ignore[arg-type]
    splits = splitting.split(*images, settings)
    splits = splitting.Splits(*(part.to(DEVICE) for part in (splits.train, splits.validation, splits.validation)))

    def trained() -> training.Trained:
        return training.train(models.build(network, 0).to(DEVICE), splits, settings)

    network = models.Network("lenet5", (1, 32, 32), 10, mean=(0.2,), std=(0.4,))
    recording(True)
    found = trained()
    monkeypatch.setattr(graphs, "_CALLS_BEFORE", 10**9)
    expected = trained()
    assert found.history == expected.history
    assert all(torch.equal(found.last[name], expected.last[name]) for name in expected.last)


BAD: dict[str, Callable[..., graphs.Tensors]] = {
    "a wait": lambda x: {"x": x * float(x.sum())},
    "a branch": lambda x: {"x": x if bool((x > 0).any()) else -x},
    "a draw": lambda x: {"x": x + torch.rand(3)},
    "a choice by flags": lambda x: {"x": x[x > 0]},
    "a tensor of Python's": lambda x: {"x": x + torch.tensor([1.0, 2.0, 3.0])},
    "a number of Python's": lambda x: {"x": x + torch.as_tensor(1.0)},
}


@pytest.mark.skipif(DEVICE.type != "cpu", reason="a GPU refuses these itself, or freezes them")
@pytest.mark.parametrize("what", BAD)
def test_the_tape_refuses_what_a_graph_could_not_hold(what: str, recording: Callable[[bool], None]) -> None:
    recording(True)
    kept = graphs.Graphs()
    for i in (1, 2):
        kept("key", BAD[what], x=torch.ones(3) * i)
    with pytest.warns(UserWarning, match="no CUDA graph"):
        kept("key", BAD[what], x=torch.ones(3))


@pytest.mark.skipif(DEVICE.type != "cpu", reason="only the tape is asked")
def test_the_tape_freezes_a_number_as_a_graph_does(recording: Callable[[bool], None]) -> None:
    recording(True)
    kept, number = graphs.Graphs(), [1.0]
    for _ in range(3):
        kept("key", lambda x: {"x": x * number[0]}, x=torch.ones(3))
    number[0] = 2.0
    assert kept("key", lambda x: {"x": x * number[0]}, x=torch.ones(3))["x"].tolist() == [1.0] * 3


def test_what_cannot_be_recorded_is_computed_all_the_same(
    recording: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    recording(True)

    def fails(function: Callable[[], graphs.Tensors], device: torch.device) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(graphs, "_record", fails)
    double, x = graphs.Graphs(), torch.arange(3.0, device=DEVICE)

    def twice() -> torch.Tensor:
        return double(0, lambda x: {"twice": 2 * x}, x=x)["twice"]

    assert all(torch.equal(twice(), 2 * x) for _ in range(2))
    with pytest.warns(UserWarning, match=r"no CUDA graph, .*: operation not permitted when stream is capturing$"):
        third = twice()
    assert torch.equal(third, 2 * x)
    assert torch.equal(twice(), 2 * x)


def test_only_networks_that_do_the_same_each_time_are_recorded(recording: Callable[[bool], None]) -> None:
    class Own(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    recording(True)
    model = models.build("lenet5").to(DEVICE)
    kept = graphs.of(model, DEVICE)
    assert kept is not None
    assert graphs.of(model, DEVICE) is kept
    assert graphs.of(model.train(), DEVICE) is None
    assert graphs.of(nn.Sequential(model, Own()).eval(), DEVICE) is None
    assert graphs.of(nn.Sequential(model, nn.Dropout()).eval(), DEVICE) is None
    model.eval()[1][0].weight.data = model[1][0].weight.data.clone()
    assert graphs.of(model, DEVICE) not in (None, kept), "a recording reads weights where they were"
    gone = weakref.ref(model)
    _attacked(model, THREATS["linf"], 0)
    del model
    gc.collect()
    assert gone() is None


def test_results_are_the_callers_own(recording: Callable[[bool], None]) -> None:
    recording(True)
    double, x = graphs.Graphs(), torch.ones(3, device=DEVICE)
    results = [double("double", lambda x, by: {"x": x * by}, x=x * i, by=2.0 + i)["x"] for i in range(6)]
    assert [float(result[0]) for result in results] == [i * (2 + i) for i in range(6)]


def test_only_the_latest_recordings_are_kept(recording: Callable[[bool], None]) -> None:
    recording(True)
    double = graphs.Graphs()
    for n in range(1, 30):
        for _ in range(4):
            result = double("double", lambda x: {"x": 2 * x}, x=torch.ones(n, device=DEVICE))["x"]
            assert result.tolist() == [2.0] * n
    (kept,) = double._kept.values()
    assert len(kept) == graphs._MOST


def test_a_sets_attack_needs_few_sizes(recording: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where each size is recorded: powers of two, however many samples fall when."""
    sizes: set[int] = set()
    real = graphs.Graphs.__call__

    def noted(self: graphs.Graphs, key: Any, function: Any, **inputs: Any) -> Any:
        sizes.add(len(inputs["y"]))
        return real(self, key, function, **inputs)

    recording(True)
    monkeypatch.setattr(graphs.Graphs, "__call__", noted)
    monkeypatch.setattr(attacks.standing.Standing, "on_gpu", staticmethod(lambda device: True))
    model = models.build("lenet5", 3).to(DEVICE)
    x = torch.rand((100, 1, 32, 32), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    with torch.no_grad():
        y = model(x).argmax(1)
    threat = Threat(eps=0.01, alpha=0.001, steps=40, early_stop=True)
    plain = attacks.attack(model, x, y, threat)
    assert sizes <= {1, 2, 4, 8, 16, 32, 64, 128}
    assert len(sizes) > 1
    monkeypatch.undo()
    again = attacks.attack(model, x, y, threat)
    assert torch.equal(plain.success, again.success)
    assert 0 < int(plain.success.sum()) < 100


class FakeCuda:
    """What of `torch.cuda` a recording touches, noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
        self.current: object = "the caller's stream"
        self.ended: list[object] = []
        self.pools: list[object] = []

        @contextlib.contextmanager
        def graph(cuda_graph: object, **how: object) -> Iterator[None]:
            self.pools.append(how["pool"])
            self.current = how["stream"]
            yield
            if fails:
                raise RuntimeError("capture failed")

        monkeypatch.setattr(graphs, "_OF_THREAD", type("Local", (), {})())
        monkeypatch.setattr(torch.cuda, "graph", graph)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: type("Graph", (), {"replay": lambda self: None})())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: self.current)
        monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: setattr(self, "current", stream))
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"a stream of {device}")
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: object())
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *args: self.ended.append(args), raising=False)


@pytest.mark.parametrize("fails", [True, False])
def test_a_recording_ends_on_the_callers_stream_whatever_happens(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, device = FakeCuda(monkeypatch, fails), torch.device("cuda", 0)
    for _ in range(2):
        with pytest.raises(RuntimeError) if fails else contextlib.nullcontext():
            graphs._record(dict, device)
        assert fake.current == "the caller's stream"
    assert len(fake.ended) == (2 if fails else 0), "a failed capture's memory is given back"
    assert len(set(fake.pools)) == (2 if fails else 1), "recordings share memory, but not with a failed one"


def test_a_stream_belongs_to_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda(monkeypatch, fails=False)
    streams = {graphs._stream(torch.device("cuda", i)) for i in (0, 1, 0)}
    assert streams == {"a stream of cuda:0", "a stream of cuda:1"}


def _rows(n: int, channels: int, device: str) -> dict[str, torch.Tensor]:
    x = torch.empty((n, channels, 32, 32), device=device)
    one = torch.empty(n, device=device)
    flags = torch.empty(n, dtype=torch.bool, device=device)
    labels = torch.empty(n, dtype=torch.int64, device=device)
    return {
        **dict.fromkeys(("x", "x_adv", "centre", "found", "before", "slope", "best", "best_slope"), x),
        **dict.fromkeys(("losses", "increases", "best_loss", "loss_then"), one),
        **dict.fromkeys(("won", "halved"), flags),
        **dict.fromkeys(("y", "target", "taken", "index"), labels),
        "size": one.view(-1, 1, 1, 1),
    }


@pytest.mark.parametrize("arch", models.ARCHITECTURES)
def test_nothing_of_the_forward_code_lies_on_another_device(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors with a device and no memory need no card: mixing devices is an error as it is there.

    The way back does need one: gradients are stood in for.
    """

    def gradient(model: nn.Module, x: torch.Tensor, loss: Any, precision: str = "float32") -> Any:
        said = attacks.logits(model, x)
        return torch.empty_like(x), loss(said), said

    for module in (pgd, apgd, fab):
        monkeypatch.setattr(module, "gradient", gradient)
    with FakeTensorMode(), torch.no_grad():
        home, _, function = models.info(arch).source.partition(":")
        with torch.device("cuda"):
            channels = models.info(arch).shape[0]
            model = getattr(importlib.import_module(home), function)(channels, 10, 32, 32).eval()
        rows = _rows(8, channels, "cuda")
        zero = torch.empty((), device="cuda")
        with attacks.frozen(model):
            for norm in ("linf", "l2"):
                for loss in ("ce", "dlr", "cw"):
                    threat = Threat(norm=norm, eps=0.1, loss=loss, early_stop=True)
                    bounds = dict.fromkeys(("eps", "alpha", "low", "high"), zero)
                    names = ("x_adv", "centre", "y", "target", "taken", "found", "won")
                    after = pgd._steps(model, threat, 2, **{name: rows[name] for name in names}, **bounds)
                    after |= apgd._step(model, threat, **rows, eps=zero, momentum=zero)
                    assert {value.device.type for value in after.values()} == {"cuda"}
                names = ("x", "y", "target", "x_adv", "found", "won")
                fab._step(model, threat, **{name: rows[name] for name in names}, eps=zero)
            names = ("x", "y", "x_adv", "found", "won", "best")
            given = {name: rows[name] for name in names} | {"best": rows["losses"]}
            several = {"places": torch.empty(5, 3, device="cuda"), "signs": torch.empty(5, channels, device="cuda")}
            after = square._squares(model, 2, **several, eps=zero, query=rows["y"], **given)
            assert {value.device.type for value in after.values()} == {"cuda"}
            drawn = attacks.run.starts(rows["index"], rows["x"].shape[1:], Threat(), 0)
            assert drawn is not None
            assert drawn.device.type == "cuda"
        targets = mixing.soft_labels(rows["y"], 10, 0.01)
        for stage in range(len(mixing.stages(model)) + 1):
            draw = mixing.Draw(0.4, stage, rows["index"])
            said, mixed = mixing.forward_mixed(model, rows["x"], targets, draw, rows["x"] if stage == 0 else None)
            assert mixing.soft_loss(said, mixed, "bce-softmax").device.type == "cuda"
        assert training.augment(rows["x"], rows["index"], True, 2, 0).device.type == "cuda"
