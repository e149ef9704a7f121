"""The usual networks for small images, and where the hidden representations of any network can be mixed."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from advmix_cli.errors import UsageError
from advmix_cli.models.cnn7 import cnn7
from advmix_cli.models.convsmall import convsmall
from advmix_cli.models.preactresnet import PreActBlock
from advmix_cli.models.resnet import BasicBlock, resnet18
from advmix_cli.models.smallcnn import smallcnn
from advmix_cli.models.stages import stages
from advmix_cli.models.wideresnet import _wide_resnet, wrn_28_10

Factory = Callable[[int, int, int, int], nn.Sequential]


def wrn_10_1(channels: int, classes: int, height: int, width: int) -> nn.Sequential:
    """The narrow and short one, of the same code as WRN-28-10."""
    return _wide_resnet(10, 1, channels, classes)


SMALL: list[Factory] = [resnet18, wrn_10_1, smallcnn, convsmall, cnn7]
STAGES = {
    resnet18: ("group1", "group2", "group3", "group4", "head"),
    wrn_28_10: ("group1", "group2", "group3", "head"),
    wrn_10_1: ("group1", "group2", "group3", "head"),
    smallcnn: ("c1", "c2", "c3", "c4", "f5", "f6", "f7"),
    convsmall: ("c1", "c2", "f3", "f4"),
    cnn7: ("c1", "c2", "c3", "c4", "c5", "f6", "f7"),
}


def built(factory: Factory, *shape: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return factory(*shape).eval()


def moved(model: nn.Sequential) -> nn.Sequential:
    """The model with a last layer that is not zero, as SmallCNN's is at first."""
    with torch.no_grad():
        for parameter in model[-1].parameters():
            parameter.add_(torch.rand_like(parameter), alpha=0.1)
    return model


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("factory", "shape", "parameters"),
    [
        (resnet18, (3, 10, 32, 32), 11_173_962),
        (resnet18, (1, 10, 28, 28), 11_172_810),
        (resnet18, (3, 100, 64, 64), 11_220_132),
        (wrn_28_10, (3, 10, 32, 32), 36_479_194),
        (wrn_28_10, (3, 100, 32, 32), 36_536_884),
        (smallcnn, (1, 10, 28, 28), 312_202),
        (smallcnn, (3, 10, 32, 32), 427_978),
        (convsmall, (1, 10, 28, 28), 89_606),
        (convsmall, (3, 10, 32, 32), 125_318),
        (cnn7, (3, 10, 32, 32), 17_192_650),
        (cnn7, (1, 10, 28, 28), 13_259_338),
        (cnn7, (3, 200, 56, 56), 51_893_128),
    ],
)
def test_networks_have_as_many_parameters_as_their_definitions(
    factory: Factory, shape: tuple[int, ...], parameters: int
) -> None:
    with torch.device("meta"):
        model = factory(*shape)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert type(model) is nn.Sequential
    assert tuple(name for name, _ in model.named_children()) == STAGES[factory]
    assert stages(model) == STAGES[factory][1:]
    channels, classes, height, width = shape
    assert model.eval()(torch.empty(2, channels, height, width, device="meta")).shape == (2, classes)


@pytest.mark.parametrize("factory", SMALL, ids=lambda factory: factory.__name__)
@pytest.mark.parametrize("shape", [(1, 10, 28, 28), (3, 7, 17, 20)], ids=str)
def test_stage_by_stage_is_the_whole_and_gradients_reach_the_image(factory: Factory, shape: tuple[int, ...]) -> None:
    channels, classes, height, width = shape
    model = moved(built(factory, *shape))
    x = images(2, channels, height, width).requires_grad_()
    logits = hidden = model(x)
    assert logits.shape == (2, classes)
    hidden = x
    for stage in model:
        hidden = stage(hidden)
    assert torch.equal(hidden, logits)
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, torch.tensor([0, 1])), [x])
    assert gradient.isfinite().all()
    assert gradient.flatten(1).any(1).all()


@pytest.mark.parametrize("factory", SMALL, ids=lambda factory: factory.__name__)
def test_the_weights_come_from_the_seed(factory: Factory) -> None:
    first, again, other = (built(factory, 1, 10, 28, 28, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not all(torch.equal(tensor, other[name]) for name, tensor in first.items())


@pytest.mark.parametrize(
    ("factory", "smallest"), [(resnet18, 8), (wrn_28_10, 8), (smallcnn, 16), (convsmall, 10), (cnn7, 8)]
)
def test_the_smallest_images_and_smaller_ones(factory: Factory, smallest: int) -> None:
    with torch.device("meta"):
        model = factory(3, 10, smallest, smallest + 1).eval()
    assert model(torch.empty(2, 3, smallest, smallest + 1, device="meta")).shape == (2, 10)
    for height, width in ((smallest - 1, 32), (32, smallest - 1)):
        with pytest.raises(UsageError, match=f"{factory.__name__} takes images of {smallest}x{smallest}") as error:
            factory(3, 10, height, width)
        assert f"{height}x{width}" in error.value.message
        assert error.value.hint


def test_resnet_is_post_activation_without_a_pool_in_the_stem() -> None:
    model = built(resnet18, 3, 10, 32, 32)
    assert [type(layer).__name__ for layer in model[0]] == ["Conv2d", "BatchNorm2d", "ReLU", "BasicBlock", "BasicBlock"]
    assert [stage(images(1, *shape)).shape[1:] for stage, shape in zip(
        model, [(3, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)], strict=True
    )] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (10,)]  # fmt: skip
    block = BasicBlock(4, 8, 2).eval()
    x = images(1, 4, 8, 8)
    assert block.shortcut is not None
    expected = torch.relu(block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x))))) + block.shortcut(x))
    assert torch.equal(block(x), expected)
    assert BasicBlock(4, 4, 1).shortcut is None


def test_wrn_has_three_groups_of_four_wide_blocks_and_a_batch_norm_before_the_pool() -> None:
    with torch.device("meta"):
        model = wrn_28_10(3, 10, 32, 32)
    blocks = [[block for block in group if isinstance(block, PreActBlock)] for group in list(model)[:3]]
    assert [[(b.conv1.in_channels, b.conv1.out_channels, b.conv1.stride[0]) for b in group] for group in blocks] == [
        [(16, 160, 1)] + [(160, 160, 1)] * 3,
        [(160, 320, 2)] + [(320, 320, 1)] * 3,
        [(320, 640, 2)] + [(640, 640, 1)] * 3,
    ]
    assert [type(layer).__name__ for layer in model[3]] == [
        "BatchNorm2d", "ReLU", "AdaptiveAvgPool2d", "Flatten", "Linear"
    ]  # fmt: skip


def test_wrn_begins_with_variances_of_the_outputs() -> None:
    model = built(wrn_10_1, 3, 10, 32, 32)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 5000:
            expected = math.sqrt(2 / (layer.kernel_size[0] ** 2 * layer.out_channels))
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.05)
            assert layer.bias is None
    assert not model[3].linear.bias.any()
    assert model[3].linear.weight.any()


def test_smallcnn_begins_with_logits_of_zero_and_drops_only_in_training() -> None:
    model = built(smallcnn, 1, 10, 28, 28)
    x = images(4, 1, 28, 28)
    assert not model(x).any()
    for conv in (model[0].conv, model[1].conv, model[2].conv, model[3].conv):
        assert not conv.bias.any()
        fan = conv.in_channels * 9
        assert float(conv.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan), rel=0.15)
    assert [type(layer).__name__ for layer in model[4]] == ["Flatten", "Linear", "ReLU", "Dropout"]
    hidden = model[:4](x)
    assert torch.equal(model[4](hidden), model[4](hidden))
    assert model.train()[4](hidden).count_nonzero() < model.eval()[4](hidden).count_nonzero()


def test_smallcnn_pools_before_the_relu_without_changing_a_bit() -> None:
    model = moved(built(smallcnn, 1, 10, 28, 28))
    textbook = [
        nn.Sequential(stage.conv, stage.relu, stage.pool) if "pool" in dict(stage.named_children()) else stage
        for stage in model
    ]
    x = images(4, 1, 28, 28).requires_grad_()
    ours, theirs = model(x), nn.Sequential(*textbook)(x)
    assert torch.equal(ours, theirs)
    inputs = [x, *model.parameters()]
    pairs = zip(torch.autograd.grad(ours.sum(), inputs), torch.autograd.grad(theirs.sum(), inputs), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_cnn7_normalises_after_all_layers_but_the_last() -> None:
    with torch.device("meta"):
        model = cnn7(3, 10, 32, 32)
    convolution = ["Conv2d", "BatchNorm2d", "ReLU"]
    dense = ["Flatten", "Linear", "BatchNorm1d", "ReLU"]
    assert [[type(layer).__name__ for layer in stage] for stage in model] == [convolution] * 5 + [dense, ["Linear"]]
    assert [(stage.conv.out_channels, stage.conv.stride[0]) for stage in list(model)[:5]] == [
        (64, 1), (64, 1), (128, 2), (128, 1), (128, 1)
    ]  # fmt: skip


class Patches(nn.Module):
    """A vision transformer as timm builds it: patches, blocks in an `nn.Sequential`, norm, head."""

    def __init__(self, depth: int, container: type[nn.Sequential] | type[nn.ModuleList] = nn.Sequential) -> None:
        super().__init__()
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, 8, 4, 4), flatten=nn.Flatten(2)))
        blocks = [nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 64)) for _ in range(depth)]
        self.blocks = container(*blocks) if container is nn.Sequential else container(blocks)
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class Flat(nn.Module):
    """A network of layers only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(x).mean((2, 3)))


class Around(nn.Module):
    """Another network behind a normalisation that has buffers alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.normalize = nn.BatchNorm2d(3, affine=False)
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(self.normalize(x))


LAYERS = ("layer1", "layer2", "layer3", "layer4")


def vit() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: torchvision.models.resnet18(weights=None), LAYERS),
        (
            lambda: torchvision.models.mobilenet_v3_small(weights=None),
            (*(f"features.{i}" for i in range(1, 13)), "classifier"),
        ),
        (vit, (*(f"encoder.layers.encoder_layer_{i}" for i in range(3)), "heads")),
        (lambda: Patches(4), ("blocks.0", "blocks.1", "blocks.2", "blocks.3")),
        (lambda: Patches(2, nn.ModuleList), ("blocks.0", "blocks.1")),
        (lambda: Around(Patches(2)), ("model.blocks.0", "model.blocks.1")),
        (lambda: Around(Flat()), ()),
        (lambda: nn.Sequential(nn.Identity(), Patches(2)), ("1.blocks.0", "1.blocks.1")),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3600, 10)), ("1", "2", "3")),
        (lambda: nn.Sequential(OrderedDict(body=nn.Flatten(), head=nn.Linear(3072, 10))), ("head",)),
        (lambda: nn.Sequential(nn.Flatten()), ()),
        (nn.Sequential, ()),
        (Flat, ()),
        (nn.Identity, ()),
    ],
)
def test_stages_are_where_hidden_representations_enter(
    make: Callable[[], nn.Module], expected: tuple[str, ...]
) -> None:
    with torch.device("meta"):
        model = make().eval()
    assert stages(model) == expected
    assert stages(model) == expected
    entered: list[str] = []
    for path in expected:
        model.get_submodule(path).register_forward_pre_hook(lambda *_, path=path: entered.append(path))
    if any(True for _ in model.parameters()):
        model(torch.empty(2, 3, 32, 32, device="meta"))
        assert tuple(entered) == expected


def test_of_two_lists_the_larger_gives_way() -> None:
    def block(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, width))

    model = nn.Module()
    model.stem = nn.Conv2d(3, 4, 3)
    model.neck = nn.Sequential(block(4), block(4), block(4))
    model.trunk = nn.ModuleList([block(8), nn.ReLU(), block(8)])
    assert stages(model) == ("neck", "trunk.0", "trunk.2")
    model.head = block(4)
    assert stages(model) == ("neck", "trunk", "head")
