"""The architectures are those of the report."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from advmix_cli import models
from advmix_cli.errors import UsageError
from advmix_cli.models import folding
from advmix_cli.models.preactresnet import Normalize, PreActBlock


@pytest.mark.parametrize(("name", "parameters"), [("lenet5", 61_706), ("preactresnet18", 11_171_146)])
def test_models_are_sequences_of_stages(name: str, parameters: int) -> None:
    info, model = models.info(name), models.build(name)
    assert isinstance(model, nn.Sequential)
    assert len(model) == 5
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert f"{parameters:,}" in info.title
    assert not model.training
    assert model(torch.rand(2, *info.shape)).shape == (2, 10)


def test_threads_that_build_at_once_get_the_weights_of_building_alone() -> None:
    """torch's layers draw from one generator: without care each thread would take numbers that are another's."""
    alone = [models.build("preactresnet18", seed).state_dict() for seed in range(4)]
    barrier = threading.Barrier(4)

    def build(seed: int) -> bool:
        barrier.wait()
        built = models.build("preactresnet18", seed).state_dict()
        return all(torch.equal(built[name], tensor) for name, tensor in alone[seed].items())

    with ThreadPoolExecutor(4) as pool:
        right = [done for _ in range(3) for done in pool.map(build, range(4))]
    assert right == [True] * 12


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    models.build("lenet5", 5)
    assert torch.equal(torch.rand(1), expected)


def test_lenet_is_convolution_pool_relu() -> None:
    kinds = [[type(layer).__name__ for layer in stage] for stage in models.build("lenet5")]
    assert kinds == [
        ["Conv2d", "MaxPool2d", "ReLU"],
        ["Conv2d", "MaxPool2d", "ReLU"],
        ["Flatten", "Linear", "ReLU"],
        ["Linear", "ReLU"],
        ["Linear"],
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lenet_computes_what_the_textbook_has(dtype: torch.dtype) -> None:
    """Which pools after the ReLU. To the bit where nothing is folded, and up to rounding where it is."""
    model = models.build("lenet5", 3).to(dtype)
    first, second = list(model[0]), list(model[1])
    textbook = nn.Sequential(first[0], first[2], first[1], second[0], second[2], second[1], *model[2:])
    x = torch.rand((8, 1, 32, 32), generator=torch.Generator().manual_seed(0)).to(dtype)
    x[:, :, :12], x[:, :, 12:20, :10], x[:, :, 12:20, 22:] = 0.0, 0.3, 1.0
    x.requires_grad_()
    folded = folding.folds(x)
    assert folded == (dtype == torch.float32)
    ours, theirs = model(x), textbook(x)
    y = torch.arange(8)
    of_ours = torch.autograd.grad(nn.functional.cross_entropy(ours, y), [x, *model.parameters()])
    of_theirs = torch.autograd.grad(nn.functional.cross_entropy(theirs, y), [x, *model.parameters()])
    for one, other in zip([ours, *of_ours], [theirs, *of_theirs], strict=True):
        torch.testing.assert_close(one, other, **({} if folded else {"rtol": 0, "atol": 0}))


def test_preactresnet_normalises_first_and_has_no_batch_norm_before_the_pool() -> None:
    model = models.build("preactresnet18")
    stem = list(model[0])
    assert isinstance(stem[0], Normalize)
    assert [round(float(m) * 255, 1) for m in stem[0].mean.flatten()] == [125.3, 123.0, 113.9]
    assert [round(float(s) * 255, 1) for s in stem[0].std.flatten()] == [63.0, 62.1, 66.7]
    assert isinstance(stem[1], nn.Conv2d)
    assert stem[1].bias is None
    blocks = [block for stage in model for block in stage if isinstance(block, PreActBlock)]
    assert [(b.conv1.out_channels, b.conv1.stride[0]) for b in blocks] == [
        (64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)
    ]  # fmt: skip
    assert [type(layer).__name__ for layer in model[4]] == ["AvgPool2d", "Flatten", "Linear"]


def test_a_block_is_pre_activation() -> None:
    block = PreActBlock(4, 8, 2).eval()
    x = torch.rand(1, 4, 8, 8)
    active = torch.relu(block.bn1(x))
    assert block.shortcut is not None
    expected = block.conv2(torch.relu(block.bn2(block.conv1(active)))) + block.shortcut(active)
    assert torch.equal(block(x), expected)


def test_building_takes_the_seed_and_leaves_the_global_generator() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, second, other = models.build("lenet5", 7), models.build("lenet5", 7), models.build("lenet5", 8)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[0].conv.weight, second[0].conv.weight)
    assert not torch.equal(first[0].conv.weight, other[0].conv.weight)


def test_unknown_and_unfitting_names() -> None:
    with pytest.raises(UsageError) as unknown:
        models.build("lenet")
    assert "lenet5" in unknown.value.hint
    with pytest.raises(UsageError, match="takes images"):
        models.check_fit(models.Network("lenet5", (1, 28, 28), 10), "mnist@28")
