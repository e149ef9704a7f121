"""What a device is set to, and how many images are computed at a time."""

from __future__ import annotations

import ctypes
import threading
import warnings
from pathlib import Path

import pytest
import torch
from conftest import on_cpu
from torch import nn

from advmix_cli import models, runtime
from advmix_cli.attacks import batches
from advmix_cli.attacks.common import frozen, gradient, objective


def test_on_cuda_float32_means_float32_and_what_is_not_deterministic_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_note_what_is_not", lambda: None)
    asked: dict[str, object] = {}
    monkeypatch.setattr(
        torch, "use_deterministic_algorithms", lambda on, warn_only=False: asked.update(on=on, warn_only=warn_only)
    )
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        runtime.configure(None, torch.device("cuda"))
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
    assert asked == {"on": True, "warn_only": True}


def test_what_is_not_deterministic_is_noted_for_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *more, **how: shown.append(str(message)))
    monkeypatch.setattr(runtime, "NOT_DETERMINISTIC", set())
    runtime._note_what_is_not()
    runtime._note_what_is_not()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning("adaptive_pool does not have a deterministic implementation, but", UserWarning, "f", 1)
        warnings.showwarning("something else", UserWarning, "f", 1)
    assert {"adaptive_pool"} == runtime.NOT_DETERMINISTIC
    assert len(shown) == 2


@pytest.mark.parametrize(("memory", "each", "size"), [(1000, 1, 512), (1024, 1, 1024), (5, 10, 1), (10**12, 1, 4096)])
def test_batches_are_powers_of_two_that_fit(memory: int, each: int, size: int) -> None:
    assert batches.fitting(memory, each) == size


def test_memory_is_counted_not_measured() -> None:
    """By the tensors that the forward pass keeps for the way back, whatever else runs: the same each time."""
    model, x = models.build("lenet5"), torch.rand((40, 1, 32, 32))
    counted = batches.kept_bytes(model, x)
    assert counted == batches.kept_bytes(model, torch.rand((64, 1, 32, 32)))
    conv1, conv2 = 6 * 28 * 28 * 4, 16 * 10 * 10 * 4
    assert 2 * (conv1 + conv2) < counted < 20 * (conv1 + conv2)
    twice = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 900, 10)).eval()
    wide = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 900, 10)).eval()
    assert 1.5 < batches.kept_bytes(wide, x) / batches.kept_bytes(twice, x) < 2.1


@pytest.mark.parametrize(("n", "asked", "refilled", "size"), [(1000, None, False, 125), (1000, None, True, 250),
                                                              (3000, None, True, 375), (1000, 8, False, 8),
                                                              (256, 250, False, 64), (40, None, False, 10),
                                                              (16, None, False, 8), (3, None, False, 3)])  # fmt: skip
def test_a_cpu_thread_takes_what_suits_it(
    n: int, asked: int | None, refilled: bool, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "threads", lambda: 4)
    monkeypatch.setattr(batches, "fewest", lambda model: 4)
    assert batches.on_cpu(models.build("lenet5"), n, asked, refilled=refilled) == size


@on_cpu
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [(400, 120), (120, 84), (84, 10), (1600, 100)])
def test_as_many_are_computed_as_take_the_routine_of_many(inputs: int, outputs: int, bias: bool) -> None:
    """Whatever machine this is: few rows and many are the same to the bit."""
    layer = nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs, bias=bias)).eval()
    x, y = torch.rand((40, 1, 1, inputs)), torch.zeros(40, dtype=torch.long)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with frozen(layer):
            slope, _, said = gradient(layer, x, objective("ce", y, None))
            for n in (1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 33):
                few, _, logits = gradient(layer, x[:n], objective("ce", y[:n], None))
                assert torch.equal(logits, said[:n])
                assert torch.equal(few, slope[:n])
    finally:
        torch.set_num_threads(before)


def test_where_torch_changes_the_routine_at_16_images_a_cpu_thread_takes_as_many() -> None:
    assert batches.on_cpu(nn.Sequential(nn.Conv2d(3, 8, 1)), 30, None) == 16
    assert batches.on_cpu(nn.Sequential(nn.Conv2d(3, 8, 1, stride=2)), 30, None) == 8


def test_beside_others_a_part_has_one_thread_from_its_beginning() -> None:
    """torch itself tells OpenMP so at the first large operation of a thread; small ones before would be divided."""
    maps = Path("/proc/self/maps")
    loaded = maps.read_text().splitlines() if maps.exists() else []
    library = next((line.split()[-1] for line in loaded if "torch" in line and "gomp" in line), None)
    if library is None:
        pytest.skip("torch is not built with GNU OpenMP here")
    most, before = ctypes.CDLL(library).omp_get_max_threads, torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(runtime.side_by_side(lambda _: most(), range(4), torch.device("cpu"))) == [1] * 4
    finally:
        torch.set_num_threads(before)


def test_where_the_caller_leaves_what_is_under_way_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a long attack: the other thread would go on for ever."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    ended: list[int] = []
    begun = threading.Barrier(3, timeout=60)

    def part(number: int) -> int:
        if number == 0:
            return number
        begun.wait()
        for _ in range(3_000_000):  # without end, but for a test that fails
            try:
                runtime.going_on()
            except BaseException:
                ended.append(number)
                raise
        return number

    try:
        for first in runtime.side_by_side(part, range(3), torch.device("cpu")):
            assert first == 0
            begun.wait()
            break
    finally:
        torch.set_num_threads(before)
    assert sorted(ended) == [1, 2]
    runtime.going_on()  # nothing of it is left in this thread
