"""What is left in LeNet5's input gradient on one core: as it is, as plain matrix products, and compiled.

    python benchmarks/bound.py [--images 256] [--repeats 9]

`advmix` is the network as it is built, `plain loop` as it is usually written. `products` has the images innermost:
convolutions are products of matrices with shifted copies, their own gradients are added up from shifted slices.
`compiled` is `bound.cpp`, by the C++ compiler of this machine. All give the same gradient up to rounding, which is
checked. The bound is what a product of two large matrices reaches on the same core. One program after the other,
alternating; medians.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from advmix_cli import models

Tensor = torch.Tensor
Gradient = Callable[[Tensor, Tensor], Tensor]


class Convolution(torch.autograd.Function):
    """A convolution of images (B,C,H,W) that lie in memory as (C,H,W,B)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Products with copies of what each output sees."""
        inner = x.permute(1, 2, 3, 0).contiguous()
        (c, h, w, b), k = inner.shape, weight.shape[-1]
        seen = (c, k, k, h - k + 1, w - k + 1, b)
        columns = inner.as_strided(seen, (h * w * b, w * b, b, w * b, b, 1)).reshape(c * k * k, -1)
        ctx.seen, ctx.shape = seen, inner.shape
        ctx.save_for_backward(weight)
        return torch.addmm(bias[:, None], weight.flatten(1), columns).view(-1, *seen[3:]).permute(3, 0, 1, 2)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        """A product, whose rows are added up where they came from."""
        (weight,) = ctx.saved_tensors
        flat = slope.permute(1, 2, 3, 0).contiguous().view(len(weight), -1)
        spread, found = (weight.flatten(1).t() @ flat).view(ctx.seen), flat.new_zeros(ctx.shape)
        _, k, _, h, w, _ = ctx.seen
        for i in range(k):
            for j in range(k):
                found[:, i : i + h, j : j + w] += spread[:, i, j]
        return found.permute(3, 0, 1, 2), None, None


class Products(nn.Conv2d):
    """A convolution by products."""

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) to (B,C',H',W')."""
        found: Tensor = Convolution.apply(x, self.weight, self.bias)
        return found


def by_torch(net: nn.Module) -> Gradient:
    """The gradient of the summed cross-entropy."""

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(net(x), y, reduction="sum"), x)[0]

    return gradient


def by_compiler(net: nn.Module) -> Gradient:
    """The same of `bound.cpp`; images in multiples of 16, at most 1,024."""
    where = Path(tempfile.mkdtemp()) / "bound.so"
    flags = ["-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-shared", "-fPIC"]
    subprocess.run(["g++", *flags, str(Path(__file__).with_suffix(".cpp")), "-o", str(where)], check=True)
    library = ctypes.CDLL(str(where))
    tensors = [each.detach() for each in net.parameters()]
    weights, biases = tensors[0::2], tensors[1::2]
    turned = [each.permute(1, 2, 3, 0).contiguous() for each in weights[:2]] + [w.t().contiguous() for w in weights[2:]]
    turned += [each.contiguous() for each in weights[2:]]

    def addresses(them: list[Tensor]) -> Any:
        return (ctypes.c_void_p * len(them))(*(each.data_ptr() for each in them))

    w, b = addresses(turned), addresses(biases)

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        blocks = len(x) // 16
        images = x.view(blocks, 16, -1).transpose(1, 2).contiguous()
        said, found = torch.empty(blocks, 10, 16), torch.empty_like(images)
        library.forward(blocks, ctypes.c_void_p(images.data_ptr()), w, b, ctypes.c_void_p(said.data_ptr()))
        slopes = said.softmax(1) - F.one_hot(y.view(blocks, 16), 10).transpose(1, 2)
        library.backward(blocks, ctypes.c_void_p(slopes.data_ptr()), w, ctypes.c_void_p(found.data_ptr()))
        return found.transpose(1, 2).reshape(x.shape)

    gradient.keep = turned, biases  # type: ignore[attr-defined]
    return gradient


def seconds(run: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    if arguments.images % 16 or not 0 < arguments.images <= 1024:
        parser.error("--images: a multiple of 16, at most 1024")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = models.build("lenet5", 0).requires_grad_(False).eval()
    usual, own = list(net.parameters()), [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5)]
    rest = [nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()]
    plain = nn.Sequential(*own, *rest, nn.Linear(84, 10)).requires_grad_(False)
    products = nn.Sequential(Products(1, 6, 5), *own[1:3], Products(6, 16, 5), *rest, nn.Linear(84, 10))
    for other in (plain, products.requires_grad_(False)):
        other.load_state_dict(dict(zip(other.state_dict(), usual, strict=True)))
    x, y = torch.rand(arguments.images, 1, 32, 32), torch.randint(0, 10, (arguments.images,))
    programs = {
        "plain loop": by_torch(plain), "advmix": by_torch(net.to(memory_format=torch.channels_last)),
        "products": by_torch(products), "compiled": by_compiler(plain),
    }  # fmt: skip
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        plain(x)
    operations = 2 * counter.get_total_flops()  # the gradient of the pixels costs as much again
    expected = programs["plain loop"](x, y)
    for program in programs.values():
        torch.testing.assert_close(program(x, y), expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    matrix, took = torch.rand(1024, 1024), {name: list[float]() for name in [*programs, "bound"]}
    for _ in range(arguments.repeats):
        for name, program in programs.items():
            took[name].append(seconds(lambda program=program: program(x, y)))  # type: ignore[misc]
        took["bound"].append(seconds(lambda: matrix @ matrix) / (2 * 1024**3) * operations)
    least = statistics.median(took["bound"])
    for name, each in took.items():
        median = statistics.median(each)
        print(f"{name:12}{len(x) / median:10,.0f} images/s {100 * least / median:6.1f} % of the bound")


if __name__ == "__main__":
    main()
