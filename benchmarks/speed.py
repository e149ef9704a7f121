"""How fast the attacks are, side by side with what people would use instead: one table, ratios, and the bound.

    python benchmarks/speed.py --json docs/performance.json --doc docs/performance.md

The others get the network as it is usually written: standard layout, and in LeNet5 each ReLU before its pooling. `plain
loop` is the textbook's; `plain, our network` the same loop on the network as advmix builds it. Every comparison
alternates between the programs in one process, after a warm-up, and gives medians. All get the same images, weights,
eps and steps, and start at the clean image, so that results can be compared. What is not installed is
left out (`pip install foolbox adversarial-robustness-toolbox multiprocess`, `pip install --no-deps torchattacks`).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from advmix_cli import attacks, data, models, runtime
from advmix_cli.evaluation import score
from advmix_cli.threats import Threat
from advmix_cli.workflows.references import load_model, resolve_model
from advmix_cli.workflows.session import Session

warnings.filterwarnings("ignore")
Attack = Callable[[nn.Module, torch.Tensor, torch.Tensor, Threat, int], torch.Tensor]


def ours(model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, batch: int) -> torch.Tensor:
    return attacks.attack_set(model, x, y, threat, batch_size=batch, seed=0, images=True).x_adv


def in_batches(attack: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x: torch.Tensor, y: torch.Tensor,
               batch: int) -> torch.Tensor:  # fmt: skip
    return torch.cat([attack(x[i : i + batch], y[i : i + batch]).detach().cpu() for i in range(0, len(x), batch)])


def plain(model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, batch: int) -> torch.Tensor:
    """The loop of the textbooks."""

    def attack(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x_adv = x.clone().detach()
        for _ in range(threat.steps):
            x_adv.requires_grad_(True)
            loss = F.cross_entropy(model(x_adv), y, reduction="sum")
            gradient = torch.autograd.grad(loss, x_adv)[0]
            x_adv = x_adv.detach() + threat.step_size * gradient.sign()
            x_adv = (x + (x_adv - x).clamp(-threat.eps, threat.eps)).clamp(0, 1)
        return x_adv

    return in_batches(attack, x, y, batch)


def textbook(model: nn.Module) -> nn.Module:
    """The same network as people write it: standard layout, and in LeNet5 each ReLU before its pooling."""
    stages = []
    for stage in copy.deepcopy(model):  # type: ignore[attr-defined]
        layers = list(stage)
        if len(layers) > 1 and isinstance(layers[1], nn.MaxPool2d):
            layers = [layers[0], layers[2], nn.MaxPool2d(2)]
        stages.append(nn.Sequential(*layers))
    return nn.Sequential(*stages).to(memory_format=torch.contiguous_format).eval()


def foolbox(model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, batch: int) -> torch.Tensor:
    import foolbox as library

    wrapped = library.PyTorchModel(model, bounds=(0, 1), device=x.device)
    attack = library.attacks.LinfPGD(abs_stepsize=threat.step_size, steps=threat.steps, random_start=False)
    return in_batches(lambda x, y: attack(wrapped, x, y, epsilons=threat.eps)[1], x, y, batch)


def torchattacks(model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, batch: int) -> torch.Tensor:
    import torchattacks as library

    attack = library.PGD(model, threat.eps, threat.step_size, threat.steps, random_start=False)
    return in_batches(attack, x, y, batch)


def art(model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, batch: int) -> torch.Tensor:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch

    attack = ProjectedGradientDescentPyTorch(
        art_classifier(model, x),
        norm="inf",
        eps=threat.eps,
        eps_step=threat.step_size,
        max_iter=threat.steps,
        batch_size=batch,
        verbose=False,
    )
    return torch.from_numpy(attack.generate(x.cpu().numpy(), y.cpu().numpy()))


def art_classifier(model: nn.Module, x: torch.Tensor) -> Any:
    from art.estimators.classification import PyTorchClassifier

    loss = nn.CrossEntropyLoss(reduction="sum")  # with the mean, small gradients become zero
    device = "cpu" if x.device.type == "cpu" else "gpu"
    return PyTorchClassifier(model, loss, tuple(x.shape[1:]), nb_classes=10, clip_values=(0, 1), device_type=device)


PEERS: dict[str, Attack] = {"plain loop": plain, "foolbox": foolbox, "torchattacks": torchattacks, "ART": art}
OWN_NETWORK = "plain, our network"
ROWS = ("steps", "clean", "undefended", "defended", "training", "resnet", "start")
PACKAGES = {"foolbox": "foolbox", "torchattacks": "torchattacks", "ART": "adversarial-robustness-toolbox"}


def installed() -> dict[str, Attack]:
    found = {}
    for name, attack in PEERS.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(PACKAGES.get(name, "torch"))
            found[name] = attack
    return found


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def alternate(works: dict[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, float]:
    """The median seconds of each, run in turn; each once before, unmeasured."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            wait(device)
            began = time.perf_counter()
            work()
            wait(device)
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


class Report:
    """Rows of a table, and the same as data, in a file as soon as they are there."""

    def __init__(self, machine: str, path: Path | None) -> None:
        self.machine, self._path = machine, path
        self.rows: list[dict[str, Any]] = []

    def keep(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self._path:
            self._path.write_text(json.dumps({"machine": self.machine, "rows": self.rows}, indent=1) + "\n")

    def add(self, work: str, unit: str, amount: float, seconds: dict[str, float], **more: Any) -> None:
        rates = {name: amount / spent for name, spent in seconds.items()}
        peers = {name: rate for name, rate in rates.items() if name in PEERS}
        best = max(peers, key=lambda name: peers[name]) if peers else None
        ratio = rates["advmix"] / peers[best] if best else None
        self.keep({"work": work, "unit": unit, "rates": rates, "fastest_peer": best, "ratio": ratio, **more})
        print(f"{work}: " + ", ".join(f"{n} {r:,.0f}" for n, r in rates.items()) + f" {unit}"
              + (f"; {ratio:.2f} x {best}" if ratio else "") + (f"; {more}" if more else ""), flush=True)  # fmt: skip


def bound(model: nn.Module, x: torch.Tensor, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Image-steps a second that the machine allows: by arithmetic and by moving each stage's output four times."""
    moved: list[int] = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, out: moved.append(out.numel() * out.element_size()))
        for module in model.modules()
        if not list(module.children())
    ]
    with attacks.frozen(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    for hook in hooks:
        hook.remove()
    operations = 2 * counter.get_total_flops() / len(x)  # the gradient of the pixels costs as much again
    size = 2048 if x.device.type == "cpu" else 8192
    a = torch.rand((size, size), device=x.device).to(dtype)
    rate = 2 * size**3 / alternate({"mm": lambda: a @ a}, 5, x.device)["mm"]
    big = torch.rand(1 << 26, device=x.device)
    copied = torch.empty_like(big)
    bandwidth = 2 * big.numel() * 4 / alternate({"copy": lambda: copied.copy_(big)}, 5, x.device)["copy"]
    traffic = 4 * sum(moved) / len(x)  # written and read on the way forth and back
    return {
        "operations_an_image_step": operations,
        "matrix_rate": rate,
        "bytes_an_image_step": traffic,
        "bandwidth": bandwidth,
        "bound_operations": rate / operations,
        "bound_bytes": bandwidth / traffic,
    }


def full_steps(report: Report, title: str, model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat,
               batches: list[int], repeats: int) -> None:  # fmt: skip
    """The same attack by each program at the first batch size, and each at its best of all."""
    usual = textbook(model)
    programs: dict[str, tuple[Attack, nn.Module]] = {"advmix": (ours, model)}
    programs |= {name: (attack, usual) for name, attack in installed().items()}
    programs[OWN_NETWORK] = (plain, model)
    reference = ours(model, x, y, threat, batches[0])
    agree = {}
    for name, (attack, network) in programs.items():
        result = attack(network, x, y, threat, batches[0])
        same = (result - reference).abs().amax((1, 2, 3)) == 0
        agree[name] = round(float(same.double().mean()), 4)
    amount, best = len(x) * threat.steps, {}
    for batch in batches:
        seconds = alternate(
            {
                name: (lambda a=attack, m=network, b=batch: a(m, x, y, threat, b))
                for name, (attack, network) in programs.items()
            },
            repeats,
            x.device,
        )
        if batch == batches[0]:
            report.add(f"{title}, batch {batch}", "image-steps/s", amount, seconds, images_equal_to_ours=agree)
        best = {name: min(best.get(name, spent), spent) for name, spent in seconds.items()}
    if len(batches) > 1:
        limits = {key: round(value) for key, value in bound(model, x[: batches[0]]).items()}
        report.add(f"{title}, each at its best of {batches}", "image-steps/s", amount, best, bound=limits)


def clean_accuracy(report: Report, model: nn.Module, x: torch.Tensor, y: torch.Tensor, repeats: int) -> None:
    """Verdicts where no gradient is wanted, on the whole test set; ours with losses and confidences."""

    def plainly(network: nn.Module) -> None:
        with torch.no_grad():
            torch.cat([network(x[i : i + 64]).argmax(1) for i in range(0, len(x), 64)]).eq(y)

    usual = textbook(model)
    works = {"advmix": lambda: score(model, x, y, batch_size=64), "plain loop": lambda: plainly(usual)}
    works[OWN_NETWORK] = lambda: plainly(model)
    report.add(f"clean accuracy, LeNet5, {len(x)} images, batch 64", "images/s", len(x),
               alternate(works, repeats, x.device))  # fmt: skip


def in_bf16(report: Report, title: str, model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat,
            batches: list[int], repeats: int) -> None:  # fmt: skip
    """Our attack with gradients in bf16 beside float32, and how much of the bf16 matrix rate it reaches."""
    half = dataclasses.replace(threat, precision="bf16")
    works = {
        (kind, batch): (lambda t=each, b=batch: ours(model, x, y, t, b))
        for kind, each in (("advmix", half), ("advmix, float32", threat))
        for batch in batches
    }
    seconds = alternate(works, repeats, x.device)
    best = {kind: min(spent for (k, _), spent in seconds.items() if k == kind) for kind, _ in works}
    limits = bound(model, x[: batches[0]], torch.bfloat16)
    rate = len(x) * threat.steps / best["advmix"]
    report.add(f"{title}, bf16, best of {batches}", "image-steps/s", len(x) * threat.steps, best,
               share_of_matrix_rate=round(rate / limits["bound_operations"], 3))  # fmt: skip


def robust_accuracy(report: Report, title: str, model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat,
                    repeats: int) -> None:  # fmt: skip
    """Which images stand: advmix stops a sample when it is won, the others take all steps."""
    early = Threat(**{**threat.to_dict(), "early_stop": True})
    programs: dict[str, Callable[[], torch.Tensor]] = {
        "advmix": lambda: attacks.attack_set(model, x, y, early, batch_size=250, seed=0).robust
    }
    clean, usual = score(model, x, y, batch_size=500).correct, textbook(model)
    for name, attack in installed().items():
        programs[name] = lambda a=attack: (
            score(model, a(usual, x, y, threat, 250).to(x.device), y, batch_size=500).correct & clean
        )
    verdicts = {name: work() for name, work in programs.items()}
    differ = {name: int((verdict != verdicts["advmix"]).sum()) for name, verdict in verdicts.items()}
    seconds = alternate(programs, repeats, x.device)
    standing = {name: int(verdict.sum()) for name, verdict in verdicts.items()}
    report.add(title, "images/s", len(x), seconds, standing=standing, verdicts_other_than_ours=differ)


def training_epoch(report: Report, title: str, build: Callable[[], nn.Module], x: torch.Tensor, y: torch.Tensor,
                   threat: Threat, batch: int, repeats: int) -> None:  # fmt: skip
    """Attack a batch, learn from it, for all batches."""

    def epoch(attack: Attack | None) -> None:
        model = build().to(x.device)
        model = (model if attack is None else textbook(model)).train()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        samples = torch.arange(len(x), device=x.device)
        for i in range(0, len(x), batch):
            part, labels = x[i : i + batch], y[i : i + batch]
            if attack is None:
                attacked = attacks.adversarial_batch(model, part, labels, threat, seed=0, index=samples[i : i + batch])
            else:
                model.eval()
                attacked = attack(model, part, labels, threat, batch).to(x.device)
                model.train()
            optimizer.zero_grad()
            F.cross_entropy(model(attacked), labels).backward()
            optimizer.step()

    works = {"advmix": lambda: epoch(None)} | {name: (lambda a=a: epoch(a)) for name, a in installed().items()}
    report.add(title, "images/s", len(x), alternate(works, repeats, x.device))


def start_up(report: Report) -> None:
    """Whole processes: help, and an answer from the store."""
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"ADVMIX_HOME": home, "ADVMIX_DEVICE": "cpu"}
        advmix = [sys.executable, "-m", "advmix_cli"]
        train = [*advmix, "train", "--limit", "200", "--epochs", "1", "-q"]

        def call(command: list[str]) -> Callable[[], Any]:
            return lambda: subprocess.run(command, env=environment, check=True, capture_output=True)

        call(train)()
        seconds = alternate({"help": call([*advmix, "--help"]), "cached": call(train)}, 7, torch.device("cpu"))
    for name, spent in seconds.items():
        report.keep({"work": f"start-up, {name}", "unit": "s", "seconds": spent})
        print(f"start-up, {name}: {spent:.2f} s", flush=True)


def markdown(rows: list[dict[str, Any]], machine: str) -> str:
    names = ["advmix", *PEERS, OWN_NETWORK]
    lines = [
        f"Measured on: {machine}",
        "",
        f"| work | unit | {' | '.join(names)} | advmix / fastest |",
        f"|---|---|{'---:|' * (len(names) + 1)}",
    ]
    for row in rows:
        if "rates" in row:
            rates = [f"{row['rates'][name]:,.0f}" if name in row["rates"] else "" for name in names]
            ratio = f"{row['ratio']:.2f} x ({row['fastest_peer']})" if row["ratio"] else ""
            lines.append(f"| {row['work']} | {row['unit']} | {' | '.join(rates)} | {ratio} |")
        else:
            blank = " | ".join([""] * (len(names)))
            lines.append(f"| {row['work']} | {row['unit']} | {row['seconds']:.2f} | {blank} |")
    lines.append("")
    for row in rows:
        if "share_of_matrix_rate" in row:
            lines.append(f"- {row['work']}: {100 * row['share_of_matrix_rate']:.1f} % of the measured bf16 matrix "
                         f"rate; in float32 {row['rates']['advmix, float32']:,.0f} image-steps/s.")  # fmt: skip
        if "standing" in row:
            lines.append(f"- {row['work']}: left standing {row['standing']}, "
                         f"verdicts other than ours {row['verdicts_other_than_ours']}.")  # fmt: skip
        if "images_equal_to_ours" in row:
            lines.append(f"- {row['work']}: share of images equal to ours bit for bit {row['images_equal_to_ours']}.")
        if "bound" in row:
            lines.append(f"- {row['work']}: the bound is {row['bound']['bound_operations']:,} image-steps/s by "
                         f"arithmetic ({row['bound']['operations_an_image_step']:,} operations each at "
                         f"{row['bound']['matrix_rate'] / 1e9:,.0f} G/s) and {row['bound']['bound_bytes']:,} by memory "
                         f"({row['bound']['bytes_an_image_step']:,} bytes each at "
                         f"{row['bound']['bandwidth'] / 1e9:,.1f} GB/s).")  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dataset", default="mnist", help="mnist or glyphs, for LeNet5")
    parser.add_argument("--undefended", help="a checkpoint; else one is trained for a moment")
    parser.add_argument("--defended", help="a checkpoint for robust accuracy; else that is left out")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--cifar-images", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, help="these rows alone")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--doc", type=Path, help="replace what stands between the marks in this document")
    chosen = parser.parse_args()
    device = runtime.device(chosen.device)
    runtime.configure(None, device)
    session = Session.open()
    whole = session.images(chosen.dataset, "test").to(device)
    every_x, every_y = attacks.to_float(whole.x), whole.y
    x, y = every_x[: chosen.images], every_y[: chosen.images]
    repeats = chosen.repeats
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    machine = (
        f"{processor}, {torch.get_num_threads()} threads; torch {torch.__version__}"
        + "".join(f", {n} {importlib.metadata.version(PACKAGES[n])}" for n in installed() if n in PACKAGES)
        + f"; {len(x)} images of {data.info(chosen.dataset).name}, medians of {repeats}"
    )
    report = Report(machine, chosen.json)

    def model_of(ref: str) -> nn.Module:
        return load_model(resolve_model(session, ref), device)

    undefended = model_of(chosen.undefended) if chosen.undefended else models.build("lenet5").to(device)
    threat = Threat(eps=0.3, alpha=0.01, steps=40, random_start=False)
    on_gpu = device.type == "cuda"
    batches = [250, 1000, len(x)] if on_gpu else [100, 25, 50, 250, 500]
    if "steps" in chosen.only:
        full_steps(report, "PGD-40, LeNet5", undefended, x, y, threat, batches, repeats)
    if "clean" in chosen.only:
        clean_accuracy(report, undefended, every_x, every_y, repeats)
    if "undefended" in chosen.only and chosen.undefended:
        robust_accuracy(report, "robust accuracy, undefended LeNet5, PGD-40", undefended, x, y, threat, repeats)
    if "defended" in chosen.only and chosen.defended:
        robust_accuracy(report, "robust accuracy, defended LeNet5, PGD-40", model_of(chosen.defended), x, y, threat,
                        repeats)  # fmt: skip
    short = Threat(eps=0.3, alpha=0.075, steps=10, random_start=False)
    if "training" in chosen.only:
        training_epoch(report, f"adversarial training, LeNet5, PGD-10, {len(x)} images, batch 250",
                       lambda: models.build("lenet5"), x, y, short, 250, repeats)  # fmt: skip
    if "resnet" in chosen.only:
        random = runtime.generator("cpu", 0)
        colour = torch.rand((chosen.cifar_images, 3, 32, 32), generator=random).to(device)
        labels = torch.randint(0, 10, (chosen.cifar_images,), generator=random).to(device)
        ten = Threat(eps=8 / 255, alpha=2 / 255, steps=10, random_start=False)
        title = "PGD-10, PreAct-ResNet18 (random weights and images)"
        network = models.build("preactresnet18").to(device)
        sizes = sorted({min(size, chosen.cifar_images) for size in ([250, 1000] if on_gpu else [100])})
        full_steps(report, title, network, colour, labels, ten, sizes, max(repeats // 2, 1))
        in_bf16(report, title, network, colour, labels, ten, sizes, max(repeats // 2, 1))
    if "start" in chosen.only and not on_gpu:
        start_up(report)

    text = markdown(report.rows, report.machine)
    if chosen.doc:
        start, end = f"<!-- measured{' on a GPU' if on_gpu else ''} -->\n", "<!-- end -->\n"
        document = chosen.doc.read_text()
        before, _, rest = document.partition(start)
        _, _, after = rest.partition(end)
        chosen.doc.write_text(before + start + text + end + after)
    print(text)


if __name__ == "__main__":
    np.random.seed(0)  # ART and torchattacks draw from it
    main()
