"""What a CPU computes in another form is the same: values, gradients, and gradients of those."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad

from advmix_cli import bounds, models
from advmix_cli.bounds import intervals
from advmix_cli.bounds.fusing import Pooled, fused
from advmix_cli.bounds.intervals import Ball
from advmix_cli.models import folding

Tensor = torch.Tensor
FORMS = {
    "halved": (folding.Halved(), lambda x, w, b: F.conv2d(x, w, b, 2), 4),
    "pooled": (folding.Pooled(), lambda x, w, b: F.max_pool2d(F.conv2d(x, w, b), 2), 5),
}


def drawn(channels: int, height: int, width: int, side: int, dtype: torch.dtype) -> list[Tensor]:
    """Images and weights of few values, so that sums are exact, and many of a window's the same."""
    random = torch.Generator().manual_seed(channels + side)
    x = torch.randint(0, 3, (4, channels, height, width), generator=random) / 2
    x[:2, :, : height // 2] = 0.25
    weight = torch.randint(-8, 9, (5, channels, side, side), generator=random) / 8
    bias = torch.randint(-8, 9, (5,), generator=random) / 8
    return [x.to(dtype), weight.to(dtype).contiguous(memory_format=torch.channels_last), bias.to(dtype)]


@pytest.mark.parametrize(("height", "width"), [(12, 16), (14, 10), (8, 14)])
@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_same_up_to_rounding(form: str, channels: int, height: int, width: int) -> None:
    ours, plain, side = FORMS[form]
    given = [each.requires_grad_() for each in drawn(channels, height, width, side, torch.float64)]
    found, expected = ours(*given), plain(*given)
    torch.testing.assert_close(found, expected)
    slope = torch.randn(found.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slopes = torch.autograd.grad(found, given, slope)
    torch.testing.assert_close(slopes, torch.autograd.grad(expected, given, slope))
    assert slopes[1].stride() == given[1].stride(), "or ranks that train together warn of it"
    with torch.no_grad():
        torch.testing.assert_close(ours(*given), found, rtol=0, atol=0)


@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("form", FORMS)
def test_a_gradient_has_a_gradient(form: str, channels: int) -> None:
    ours, plain, side = FORMS[form]

    def penalty(compute: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        given = [each.requires_grad_() for each in drawn(channels, 8, 8, side, torch.float64)]
        slopes = torch.autograd.grad(compute(*given).square().sum(), given, create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in slopes), given)

    torch.testing.assert_close(penalty(ours), penalty(plain))


def test_only_plain_images_on_a_cpu_are_folded() -> None:
    x = torch.rand(2, 1, 32, 32)
    assert folding.folds(x)
    assert not folding.folds(x.double())
    assert not folding.folds(x[..., :31])
    assert not folding.folds(x.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not folding.folds(x)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch's own modules
@pytest.mark.parametrize("arch", ["lenet5", "convsmall"])
def test_transforms_of_functions_go_through_a_network(arch: str) -> None:
    model = models.build(arch, 1).requires_grad_(False)
    x = torch.rand((4, *models.info(arch).shape), generator=torch.Generator().manual_seed(0))
    slope = torch.autograd.grad(model(x.requires_grad_()).square().sum(), x)[0]
    x = x.detach()
    torch.testing.assert_close(torch.func.grad(lambda x: model(x).square().sum())(x), slope)
    torch.testing.assert_close(torch.vmap(lambda one: model(one[None])[0])(x), model(x))
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(model(forward_ad.make_dual(x, slope)).square().sum()).tangent
    torch.testing.assert_close(tangent, slope.square().sum())


def test_who_listens_to_a_convolution_hears_it() -> None:
    model = models.build("lenet5", 1)
    x, heard = torch.rand((4, 1, 32, 32), generator=torch.Generator().manual_seed(0)), []
    before = model(x)
    handle = model[0].conv.register_forward_hook(lambda module, inputs, output: heard.append(output.shape))
    torch.testing.assert_close(model(x), before)
    assert heard == [(4, 6, 28, 28)]
    handle.remove()
    assert torch.equal(model(x), before)
    assert len(heard) == 1


def test_what_is_put_in_a_layers_place_computes() -> None:
    model = models.build("lenet5", 1)
    x = torch.rand((4, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    model[0].pool = nn.AvgPool2d(2)
    torch.testing.assert_close(model[0](x), torch.relu(F.avg_pool2d(model[0].conv(x), 2)))


@pytest.mark.parametrize("arch", ["lenet5", "convsmall"])
def test_a_verdict_without_autograd_leaves_gradients_as_they_were(arch: str) -> None:
    model, other = (models.build(arch, 1).requires_grad_(False) for _ in range(2))
    x = torch.rand((4, *models.info(arch).shape), generator=torch.Generator().manual_seed(0)).requires_grad_()
    with torch.inference_mode():
        model(x)
    slopes = [torch.autograd.grad(each(x).square().sum(), x)[0] for each in (model, other)]
    assert torch.equal(*slopes)
    assert model(x[:0]).shape == (0, 10)


@pytest.mark.parametrize("form", FORMS)
def test_weights_that_have_changed_are_seen(form: str) -> None:
    """Their kernels are kept while they are the same, and also what is written past the counting of versions counts."""
    ours, plain, side = FORMS[form]
    x, weight, bias = drawn(1, 8, 8, side, torch.float32)
    ours(x, weight, bias)
    weight.data.mul_(2)
    torch.testing.assert_close(ours(x, weight, bias), plain(x, weight, bias))
    x.requires_grad_()
    slopes = [torch.autograd.grad(compute(x, weight, bias).square().sum(), x) for compute in (ours, plain)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("arch", ["lenet5", "convsmall"])
def test_an_image_has_the_same_bits_in_any_batch(arch: str) -> None:
    model = models.build(arch, 1)
    x = torch.rand((64, *models.info(arch).shape), generator=torch.Generator().manual_seed(0))

    def said(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        values = model[0](x)
        return values, torch.autograd.grad(values.square().sum(), x)[0]

    together = said(x)
    for part in (slice(0, 16), slice(16, 20), slice(41, 64)):
        assert all(torch.equal(one, whole[part]) for one, whole in zip(said(x[part]), together, strict=True))


class Twice(nn.Module):
    """A convolution that is pooled, and goes past that too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 2, 3), nn.Linear(2 * 6 * 6 + 2 * 3 * 3, 10)

    def forward(self, x: Tensor) -> Tensor:
        found = self.conv(x)
        both = F.pad(F.max_pool2d(found, 2), (0, 3, 0, 3)) + found
        return self.last(torch.relu(F.pad(both.flatten(1), (0, 18))))


NETWORKS = {
    "lenet5": (lambda: models.build("lenet5", 1), 2),
    "twice": (Twice, 0),
    "padded": (lambda: _one(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), 32), 0),
    "strided": (lambda: _one(nn.Conv2d(1, 2, 3, stride=2), nn.MaxPool2d(2), 2), 0),
    "even": (lambda: _one(nn.Conv2d(1, 2, 4), nn.MaxPool2d(2), 8), 0),
    "oblong": (lambda: _one(nn.Conv2d(1, 2, (1, 3)), nn.MaxPool2d(2), 24), 0),
    "larger windows": (lambda: _one(nn.Conv2d(1, 2, 3), nn.MaxPool2d(3), 8), 0),
    "overlapping": (lambda: _one(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, 1), 50), 0),
    "a ReLU between": (lambda: _one(nn.Conv2d(1, 2, 3), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), 18), 0),
    "no bias": (lambda: _one(nn.Conv2d(1, 2, 3, bias=False), nn.MaxPool2d(2), 18), 1),
}


def _one(conv: nn.Module, pool: nn.Module, values: int) -> nn.Sequential:
    return nn.Sequential(conv, pool, nn.Flatten(), nn.Linear(values, 10))


@pytest.mark.parametrize("name", NETWORKS)
def test_intervals_of_what_is_pooled_are_the_same_in_one_step(name: str) -> None:
    build, steps = NETWORKS[name]
    torch.manual_seed(0)
    model = build()
    side = 32 if name == "lenet5" else 8
    x = torch.rand((4, 1, side, side))
    usual = bounds.trace(model, (1, side, side))
    ours, y = fused(usual), torch.arange(4)
    assert sum(isinstance(layer, Pooled) for layer in ours.layers) == steps
    for images in (x, x.double()):
        found = [intervals.margins(each, intervals.around(each, Ball(images, 0.1)), y) for each in (ours, usual)]
        torch.testing.assert_close(*found)
        weights = list(model.parameters())
        slopes = [torch.autograd.grad(F.cross_entropy(-each, y), weights, allow_unused=True) for each in found]
        torch.testing.assert_close(*slopes)
