"""Whether a robust accuracy is what it seems: checks for masked gradients, each with a verdict and a line of advice.

Sources: Athalye, Carlini and Wagner 2018; Carlini et al. 2019, "On Evaluating Adversarial Robustness"; the flags of
AutoAttack (Croce and Hein 2020).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from advmix_cli.attacks import attack_set, frozen, perturbation, suitable_batch, to_float
from advmix_cli.attacks.common import gradient, objective
from advmix_cli.config import PUBLISHED, Threat
from advmix_cli.evaluation import score
from advmix_cli.runtime import generator

VERDICTS = ("consistent", "suspicious", "masked")
IMAGES = 500
"""How many images the audit looks at: enough to tell a few points, in a minute or two of a small network."""
EPS_GRID = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""In units of the threat's eps."""
STEPS_GRID = (1, 2, 5, 10, 20, 40, 80)
WAY = (0.25, 0.5, 0.75, 1.0)
_GRID = 21


@dataclasses.dataclass(frozen=True)
class Check:
    """What one check found: `value` in percent or points; `verdict` ok, note, suspicious or masked."""

    name: str
    verdict: str
    value: float
    advice: str


@dataclasses.dataclass(frozen=True)
class Audit:
    """The checks of one model, the accuracies behind its pictures, and its loss around one image."""

    n: int
    checks: list[Check]
    by_eps: list[tuple[float, float]]
    by_steps: list[tuple[int, float]]
    landscape: dict[str, Any]

    @property
    def verdict(self) -> str:
        """The gravest of the checks: consistent, suspicious or masked."""
        found = {check.verdict for check in self.checks}
        return next((verdict for verdict in reversed(VERDICTS) if verdict in found), VERDICTS[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into records."""
        return dataclasses.asdict(self) | {"verdict": self.verdict}


def graded(value: float, note: float, suspicious: float, masked: float = float("inf")) -> str:
    """The verdict of a value that should be small."""
    return "masked" if value > masked else "suspicious" if value > suspicious else "note" if value > note else "ok"


def audit(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    *,
    classes: int,
    seed: int = 0,
    batch_size: int | None = None,
    transferred: Mapping[str, torch.Tensor] | None = None,
    on_check: Callable[[str], None] = lambda name: None,
) -> Audit:
    """Look for signs that gradients of `model` are masked, on images (N,C,H,W), uint8 or in [0,1], and labels (N,).

    Of the threat norm and eps count. `transferred` are images that were attacked within it against other models, by
    their names. `on_check` is called before each of `STAGES`, with its name. Uses at most the first `IMAGES` images.
    """
    few = to_float(x[:IMAGES])
    run = _Audit(model, few, y[:IMAGES], threat, classes, seed, suitable_batch(model, few, batch_size))
    for name, stage in STAGES.items():
        on_check(name)
        run.checks += stage(run)
    for name, x_adv in (transferred or {}).items():
        run.checks += run.transfer(name, x_adv[:IMAGES])
    return Audit(len(run.y), run.checks, run.by_eps, run.by_steps, run.landscape())


class _Audit:
    def __init__(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, classes: int, seed: int, size: int
    ) -> None:
        self.model, self.x, self.y, self.classes, self.seed, self.size = model, x, y, classes, seed, size
        self.norm, self.eps = threat.norm, threat.eps
        self.checks: list[Check] = []
        self.by_eps: list[tuple[float, float]] = []
        self.by_steps: list[tuple[int, float]] = []
        self.clean = torch.zeros(len(y), dtype=torch.bool)
        self.standing = torch.zeros(len(y), dtype=torch.bool)  # under everything white-box
        self.attacked = self.x
        self._known: dict[Threat, torch.Tensor] = {}  # two stages ask for PGD-40 at eps

    def pgd(self, steps: int = 40, eps: float | None = None, **more: Any) -> Threat:
        eps = self.eps if eps is None else eps
        return Threat(norm=self.norm, eps=eps, steps=steps, early_stop=True, **more)

    def published(self, attack: str) -> Threat:
        return Threat(attack=attack, norm=self.norm, eps=self.eps, **PUBLISHED[attack])

    def robust(self, threat: Threat, among: torch.Tensor | None = None) -> torch.Tensor:
        """Which images (N,) are right clean and attacked; `among` only some are attacked."""
        chosen = torch.ones_like(self.clean) if among is None else among
        where = chosen.nonzero().squeeze(1)
        flags = torch.zeros_like(self.clean)
        if among is None and threat in self._known:
            return self._known[threat].clone()
        if len(where):
            x, y = self.x[where.to(self.x.device)], self.y[where.to(self.y.device)]
            flags[where] = attack_set(self.model, x, y, threat, batch_size=self.size, seed=self.seed).robust
        if among is None:
            self._known[threat] = flags.clone()
        return flags

    def percent(self, flags: torch.Tensor) -> float:
        return 100 * int(flags.sum()) / len(flags)

    def right(self, x: torch.Tensor) -> torch.Tensor:
        return score(self.model, x, self.y, batch_size=self.size).correct & self.clean

    # The checks, from the cheapest to the dearest

    def forward(self) -> Iterator[Check]:
        few = self.x[: min(self.size, len(self.x))]
        with frozen(self.model), torch.no_grad():
            kept = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
            logits = self.model(few)
            spread = max(float((self.model(few) - logits).abs().max()) for _ in range(4))
            single = torch.cat([self.model(few[i : i + 1]) for i in range(min(8, len(few)))])
            apart = float((single - logits[: len(single)]).abs().max())
            changed = any(not torch.equal(buffer, kept[name]) for name, buffer in self.model.named_buffers())
            sums = bool((logits.sum(1) - 1).abs().max() < 1e-4)
            probabilities = sums and bool(logits.min() >= 0) and bool(logits.max() <= 1)
        self.clean = score(self.model, self.x, self.y, batch_size=self.size).correct
        yield Check(
            "outputs are logits",
            "masked" if probabilities else "ok",
            100.0 * probabilities,
            "attack the logits before the softmax: its gradients vanish where it saturates" if probabilities else "",
        )
        yield Check(
            "the same twice",
            graded(spread, 1e-4, 1e-4, 1e-4),
            spread,
            "the forward pass is random: average gradients over its randomness (EOT) before believing any figure"
            if spread > 1e-4
            else "",
        )
        yield Check(
            "one by one as in a batch",
            "ok" if spread > 1e-4 else graded(apart, 1e-3, 1e-2),
            apart,
            "outputs depend on the other images of the batch: is the model in eval mode?" if apart > 1e-3 else "",
        )
        yield Check(
            "nothing is learned",
            "suspicious" if changed else "ok",
            100.0 * changed,
            "the forward pass changes the model's buffers: evaluate a frozen copy" if changed else "",
        )

    def gradients(self) -> Iterator[Check]:
        zero = {}
        with frozen(self.model):
            for loss in ("ce", "cw"):
                flags = []
                for begin in range(0, len(self.x), self.size):
                    part = slice(begin, begin + self.size)
                    slope, _, _ = gradient(self.model, self.x[part], objective(loss, self.y[part], None))
                    flags.append(slope.flatten(1).abs().amax(1) == 0)
                zero[loss] = self.percent(torch.cat(flags))
        yield Check(
            "the margin has a gradient",
            graded(zero["cw"], 0, 1, 10),
            zero["cw"],
            "a part of the model has no useful derivative: attack through a smooth stand-in (BPDA)"
            if zero["cw"] > 0
            else "",
        )
        yield Check(
            "the cross-entropy has a gradient",
            graded(zero["ce"], 5, 50),
            zero["ce"],
            "saturated: use a loss that no scale of the logits can blind, --loss dlr or cw" if zero["ce"] > 5 else "",
        )

    def steps(self) -> Iterator[Check]:
        accuracies = []
        for steps in STEPS_GRID:
            flags = self.robust(self.pgd(steps))
            accuracies.append(self.percent(flags))
            if steps == 40:
                self.standing = flags
        self.by_steps = list(zip(STEPS_GRID, accuracies, strict=True))
        rise = _rise(accuracies)
        yield Check(
            "more steps never help the model",
            graded(rise, 0.5, 2, 10),
            rise,
            "PGD loses its way: gradients point nowhere" if rise > 0.5 else "",
        )
        gained = accuracies[-2] - accuracies[-1]
        yield Check(
            "PGD has converged",
            graded(gained, 0.5, 3),
            gained,
            "twice the steps break more: give --steps, or use apgd-ce" if gained > 0.5 else "",
        )
        fgsm = self.robust(Threat(attack="fgsm", norm=self.norm, eps=self.eps, alpha=self.eps or 1.0, steps=1,
                                  random_start=False))  # fmt: skip
        stronger = self.percent(self.standing & ~fgsm)
        yield Check(
            "one step finds no more than forty",
            graded(stronger, 0.5, 2, 10),
            stronger,
            "FGSM breaks images that PGD does not: gradients are good only where they begin" if stronger > 0.5 else "",
        )

    def larger(self) -> Iterator[Check]:
        grid = [self.eps * share for share in EPS_GRID if self.norm != "linf" or self.eps * share <= 1]
        self.by_eps = [(0.0, self.percent(self.clean))]
        self.by_eps += [(eps, self.percent(self.robust(self.pgd(eps=eps)))) for eps in grid]
        rise = _rise([accuracy for _, accuracy in self.by_eps])
        yield Check(
            "a larger eps never helps the model",
            graded(rise, 0.5, 2, 10),
            rise,
            "the attack fails where it may do more: gradients are masked" if rise > 0.5 else "",
        )
        # Within 0.5 of each pixel every image can be made the same grey.
        grey = 0.5 if self.norm == "linf" else 0.5 * self.x[0].numel() ** 0.5
        left = self.robust(self.pgd(eps=grey))
        left &= self.robust(self.pgd(eps=grey, loss="cw"), left)
        accuracy, chance = self.percent(left), 100 / self.classes
        yield Check(
            "eps 0.5 brings it to chance",
            graded(accuracy, chance, 1.5 * chance, 5 * chance),
            accuracy,
            "every image can be made grey, and the attack does not find it" if accuracy > chance else "",
        )

    def noise(self) -> Iterator[Check]:
        draws = generator(self.x.device, self.seed, "noise")
        found = torch.zeros_like(self.clean)
        for _ in range(20):
            if self.norm == "linf":
                delta = torch.empty_like(self.x).uniform_(-self.eps, self.eps, generator=draws)
            else:
                delta = torch.empty_like(self.x).normal_(generator=draws)
                delta *= self.eps / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            found |= ~self.right((self.x + delta).clamp_(0, 1))
        missed = self.percent(found & self.standing)
        yield Check(
            "noise finds nothing that PGD missed",
            graded(missed, 0, 1, 10),
            missed,
            "random points of the ball beat PGD: its gradients are of no use" if missed > 0 else "",
        )

    def way(self) -> Iterator[Check]:
        self.attacked = attack_set(
            self.model, self.x, self.y, dataclasses.replace(self.pgd(), early_stop=False), batch_size=self.size,
            seed=self.seed,
        ).x_adv.to(self.x.device)  # fmt: skip
        accuracies = [self.percent(self.right(self.x + share * (self.attacked - self.x))) for share in WAY]
        rise = _rise([self.percent(self.clean), *accuracies])
        yield Check(
            "accuracy falls along the way",
            graded(rise, 1, 3, 10),
            rise,
            "points halfway are more often wrong than the attack's end" if rise > 1 else "",
        )

    def losses(self) -> Iterator[Check]:
        before = self.percent(self.standing)
        self.standing &= self.robust(self.published("apgd-ce"), self.standing)
        self.standing &= self.robust(self.published("apgd-t"), self.standing)
        gap = before - self.percent(self.standing)
        yield Check(
            "PGD is near the strongest gradient attack",
            graded(gap, 2, 25),
            gap,
            "report --attack autoattack, not pgd: APGD on other losses breaks more" if gap > 2 else "",
        )

    def black_box(self) -> Iterator[Check]:
        left = self.robust(self.published("square"), self.standing)
        taken = self.percent(self.standing) - self.percent(left)
        share = 100 * taken / max(self.percent(self.standing), 1e-9)
        advice = (
            f"a search without gradients breaks {share:.0f} % of what gradients left standing: "
            "they are masked; believe only --attack autoattack"
        )
        yield Check("white box is no weaker than black box", graded(taken, 0.2, 6, 15), taken,
                    advice if taken > 6 else "some: usual up to about 5 points" if taken > 0.2 else "")  # fmt: skip

    def transfer(self, name: str, x_adv: torch.Tensor) -> Iterator[Check]:
        perturbation(self.x, x_adv.to(self.x.device), Threat(norm=self.norm, eps=self.eps))
        missed = self.percent(~self.right(x_adv.to(self.x.device)) & self.clean & self.standing)
        yield Check(
            f"white box is no weaker than transfer from {name}",
            graded(missed, 0.5, 2, 10),
            missed,
            "images made against another model break what its own gradients did not" if missed > 0.5 else "",
        )

    def landscape(self) -> dict[str, Any]:
        """The cross-entropy around one image: along its attack and along a random sign direction, each up to eps."""
        left = self.standing.nonzero().squeeze(1)
        index = int(left[0]) if len(left) else 0
        x, y = self.x[index : index + 1], self.y[index : index + 1]
        towards = self.attacked[index : index + 1] - x
        beside = torch.empty_like(x).normal_(generator=generator(x.device, self.seed, "beside"))
        beside = self.eps * beside.sign() if self.norm == "linf" else self.eps * beside / beside.norm()
        axis = torch.linspace(-1, 1, _GRID, device=x.device)
        points = (x + axis.view(-1, 1, 1, 1, 1) * towards + axis.view(1, -1, 1, 1, 1) * beside).flatten(0, 1)
        points = points.clamp_(0, 1)
        losses = score(self.model, points, y.expand(len(points)), batch_size=self.size).losses
        return {
            "image": index,
            "label": int(y),
            "axis": axis.tolist(),
            "loss": losses.view(_GRID, _GRID).tolist(),  # rows along the attack
        }


def _rise(accuracies: list[float]) -> float:
    """The largest gain of accuracy over any value before, in points."""
    lowest, rise = accuracies[0], 0.0
    for accuracy in accuracies:
        rise, lowest = max(rise, accuracy - lowest), min(lowest, accuracy)
    return rise


STAGES: dict[str, Callable[[_Audit], Iterable[Check]]] = {
    "the forward pass": _Audit.forward,
    "gradients at the images": _Audit.gradients,
    "PGD with more steps": _Audit.steps,
    "PGD with more eps": _Audit.larger,
    "random noise": _Audit.noise,
    "points on the way": _Audit.way,
    "APGD on two losses": _Audit.losses,
    "Square": _Audit.black_box,
}
"""What the audit does, in its order."""
