"""The audit's checks, in the order in which they are made: from the cheapest to the dearest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from advmix_cli import draws
from advmix_cli.attacks import attack_set, frozen, logits, perturbation
from advmix_cli.attacks.common import fewest, gradient, lengths, margin, objective
from advmix_cli.auditing.grades import LOGITS, POINTS, SHARE, Check, graded, graded_share
from advmix_cli.auditing.settled import settled
from advmix_cli.evaluation import score
from advmix_cli.statistics import wilson
from advmix_cli.threats import Threat

EPS_GRID = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""In units of the threat's eps."""
STEPS_GRID = (1, 2, 5, 10, 20, 40, 80)
WAY = (0.25, 0.5, 0.75, 1.0)
STRONG: dict[str, dict[str, Any]] = {"apgd-ce": {}, "apgd-t": {}, "square": {}}
"""The strong attacks, and what is other than declared of each."""
_NOISE_DRAWS = 20


class Checks:
    """One model under audit, and what is known of each image so far."""

    def __init__(
        self,
        model: nn.Module,
        x: torch.Tensor,
        y: torch.Tensor,
        threat: Threat,
        classes: int,
        seed: int,
        size: int,
        before: Iterable[torch.Tensor] = (),
        on_piece: Callable[[dict[str, Any]], None] = lambda piece: None,
    ) -> None:
        self.model, self.x, self.y, self.classes, self.seed, self.size = model, x, y, classes, seed, size
        self.norm, self.eps = threat.norm, threat.eps
        self.checks: list[Check] = []
        self.by_eps: list[tuple[float, float]] = []
        self.by_steps: list[tuple[int, float]] = []
        self.clean = torch.zeros(len(y), dtype=torch.bool)
        self.after_pgd = self.clean  # right under PGD-40 at eps
        self.standing = self.clean  # right under all that was tried within the threat
        self.tried: list[str] = []
        self.attacked = self.x
        self._known: dict[Threat, torch.Tensor] = {}  # two stages ask for PGD-40 at eps
        self._before = iter(before)  # what the same attacks, in this order, came to before
        self._on_piece = on_piece

    @property
    def chance(self) -> float:
        """What a model comes to that always says the commonest class, in percent."""
        return 100 * int(torch.bincount(self.y).max()) / len(self.y)

    def pgd(self, steps: int = 40, eps: float | None = None, **more: Any) -> Threat:
        """PGD that stops when it has won."""
        eps = self.eps if eps is None else eps
        return Threat.of("pgd", self.norm, eps, steps=steps, early_stop=True, **more)

    def robust(self, threat: Threat, among: torch.Tensor | None = None) -> torch.Tensor:
        """Which images (N,) are right clean and attacked; `among` only some are attacked."""
        if among is None and threat in self._known:
            return self._known[threat].clone()
        flags = next(self._before, None)
        if flags is None:
            flags = self._attacked(threat, torch.ones_like(self.clean) if among is None else among)
            self._on_piece({"left": flags.clone()})
        if among is None:
            self._known[threat] = flags.clone()
        return flags

    def _attacked(self, threat: Threat, among: torch.Tensor) -> torch.Tensor:
        where, flags = among.nonzero().squeeze(1), torch.zeros_like(self.clean)
        if len(where):
            here = where.to(self.x.device)
            flags[where] = attack_set(
                self.model, self.x[here], self.y[here], threat, seed=self.seed, index=where, batch_size=self.size
            ).robust
        return flags

    def percent(self, flags: torch.Tensor) -> float:
        """How many of all, in percent."""
        return 100 * int(flags.sum()) / len(flags)

    def right(self, x: torch.Tensor) -> torch.Tensor:
        """Which images (N,) are right before, and as x."""
        return score(self.model, x, self.y, batch_size=self.size).correct & self.clean

    def survive(self, name: str, flags: torch.Tensor) -> None:
        """Something within the threat was tried, and left these."""
        self.standing = self.standing & flags
        if name not in self.tried:
            self.tried.append(name)

    def share(
        self, name: str, taken: torch.Tensor, stood: torch.Tensor, limits: tuple[float, float], advice: str
    ) -> Check:
        """A check on images that were taken of those that stood, and should not have been."""
        count, of = int((taken & stood).sum()), int(stood.sum())
        verdict = graded_share(count, of, len(stood), *limits)
        return Check(name, verdict, 100 * count / max(of, 1), advice if count else "", SHARE)

    def forward(self) -> Iterator[Check]:
        """Is it a classifier, and the same function each time?"""
        few = self.x[: min(max(self.size, fewest(self.model)), len(self.x))]
        with frozen(self.model), torch.no_grad():
            kept = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
            said = self.model(few)
            spread = max(float((self.model(few) - said).abs().max()) for _ in range(4))
            with torch.enable_grad():
                other = float((self.model(few.clone().requires_grad_(True)).detach() - said).abs().max())
            single = torch.cat([self.model(few[i : i + 1]) for i in range(min(8, len(few)))])
            apart = float((single - said[: len(single)]).abs().max())
            changed = any(not torch.equal(buffer, kept[name]) for name, buffer in self.model.named_buffers())
            sums = bool((said.sum(1) - 1).abs().max() < 1e-4)
            probabilities = sums and bool(said.min() >= 0) and bool(said.max() <= 1)
        self.clean = score(self.model, self.x, self.y, batch_size=self.size).correct
        self.standing = self.clean
        guesses = wilson(int(self.clean.sum()), len(self.clean))[0] <= self.chance
        yield Check(
            "it has learned something",
            "at chance" if guesses else "ok",
            self.percent(self.clean),
            f"the commonest class alone gives {self.chance:.3g} %: its robust accuracy means nothing"
            if guesses
            else "",
        )
        yield Check(
            "outputs are one a class",
            "masked" if said.shape[1] != self.classes else "ok",
            float(said.shape[1]),
            f"{said.shape[1]} outputs for {self.classes} classes: attack what the verdict is read from"
            if said.shape[1] != self.classes
            else "",
            "outputs",
        )
        yield Check(
            "outputs are logits",
            "masked" if probabilities else "ok",
            100.0 * probabilities,
            "attack the logits before the softmax: its gradients vanish where it saturates" if probabilities else "",
        )
        yield Check.graded(
            "the same twice", spread, (1e-4, 1e-4, 1e-4),
            "the forward pass is random: average gradients over its randomness (EOT) before believing any figure",
            LOGITS,
        )  # fmt: skip
        yield Check(
            "the same with gradients as without",
            "ok" if spread > 1e-4 else graded(other, 1e-3, 1e-2, 1e-1),
            other,
            "outputs are remapped where no gradient is taken: attack what the verdict is read from"
            if other > 1e-3
            else "",
            LOGITS,
        )
        yield Check(
            "one by one as in a batch",
            "ok" if spread > 1e-4 else graded(apart, 1e-3, 1e-2),
            apart,
            "outputs depend on the other images of the batch: is the model in eval mode?" if apart > 1e-3 else "",
            LOGITS,
        )
        yield Check(
            "nothing is learned",
            "suspicious" if changed else "ok",
            100.0 * changed,
            "the forward pass changes the model's buffers: evaluate a frozen copy" if changed else "",
        )

    def gradients(self) -> Iterator[Check]:
        """Are there gradients, and are they those of the outputs?"""
        found: dict[str, list[torch.Tensor]] = {"ce": [], "cw": [], "false": []}
        with frozen(self.model):
            for begin in range(0, len(self.x), self.size):
                x, y = self.x[begin : begin + self.size], self.y[begin : begin + self.size]
                for loss in ("ce", "cw"):
                    slope, _, _ = gradient(self.model, x, objective(loss, y, None))
                    found[loss].append(slope.flatten(1).abs().amax(1) == 0)
                found["false"].append(self._is_false(x, y, slope))
        zero = {name: self.percent(torch.cat(flags)) for name, flags in found.items()}
        yield Check.graded(
            "the margin has a gradient", zero["cw"], (0, 1, 10),
            "a part of the model has no useful derivative: attack through a smooth stand-in (BPDA)",
        )  # fmt: skip
        yield Check.graded(
            "the cross-entropy has a gradient", zero["ce"], (5, 50),
            "saturated: use a loss that no scale of the logits can blind, --loss dlr or cw",
        )  # fmt: skip
        yield Check.graded(
            "gradients are those of the outputs", zero["false"], (10, 30, 60),
            "a step along the gradient changes the margin by less than half or more than twice of what it says",
        )  # fmt: skip

    def _is_false(self, x: torch.Tensor, y: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        """Where a small step both ways along the margin's gradient does not change the margin as it says, (n,)."""
        length = lengths(slope)
        step = 1e-2 * slope / length
        with torch.no_grad():
            ahead, back = (margin(logits(self.model, x + way * step), y) for way in (1, -1))
        said, seen = length.flatten(), (ahead - back) / 2e-2
        return (said > 1e-4) & ((seen < said / 2) | (seen > 2 * said))

    def steps(self) -> Iterator[Check]:
        """Do more steps break more, and one step no other images?"""
        counts = []
        for steps in STEPS_GRID:
            flags = self.robust(self.pgd(steps))
            counts.append(flags)
            self.survive("pgd", flags)
            if steps == 40:
                self.after_pgd = flags
        accuracies = [self.percent(flags) for flags in counts]
        self.by_steps = list(zip(STEPS_GRID, accuracies, strict=True))
        yield Check.graded(
            "more steps never help the model", _rise(accuracies), (0.5, 2, 10),
            "PGD loses its way: gradients point nowhere", POINTS,
        )  # fmt: skip
        yield self.share(
            "PGD has converged", ~counts[-1], self.after_pgd, (5, 20),
            "twice the steps break more: give --steps, or use apgd-ce",
        )  # fmt: skip
        fgsm = self.robust(Threat.of("fgsm", self.norm, self.eps))
        self.survive("fgsm", fgsm)
        yield self.share(
            "one step finds no more than forty", ~fgsm, self.after_pgd, (2, 10),
            "FGSM breaks images that PGD does not: gradients are good only where they begin",
        )  # fmt: skip

    def larger(self) -> Iterator[Check]:
        """Does more eps break more, and all of it everything?"""
        grid = [self.eps * share for share in EPS_GRID if self.norm != "linf" or self.eps * share <= 1]
        self.by_eps = [(0.0, self.percent(self.clean))]
        self.by_eps += [(eps, self.percent(self.robust(self.pgd(eps=eps)))) for eps in grid]
        yield Check.graded(
            "a larger eps never helps the model", _rise([accuracy for _, accuracy in self.by_eps]), (0.5, 2, 10),
            "the attack fails where it may do more: gradients are masked", POINTS,
        )  # fmt: skip
        # Within 0.5 of each pixel every image can be made the same grey.
        grey = 0.5 if self.norm == "linf" else 0.5 * self.x[0].numel() ** 0.5
        left = self.robust(self.pgd(eps=grey))
        left &= self.robust(self.pgd(eps=grey, loss="cw"), left)
        even = 100 / self.classes
        yield Check.graded(
            "eps 0.5 brings it to chance", self.percent(left), (even, 1.5 * even, 5 * even),
            "every image can be made grey, and the attack does not find it",
        )  # fmt: skip

    def noise(self) -> Iterator[Check]:
        """Do random points of the ball break what PGD does not?"""
        index, right = torch.arange(len(self.x), device=self.x.device), torch.ones_like(self.clean)
        for turn in range(_NOISE_DRAWS):
            points = draws.in_ball(index, tuple(self.x.shape[1:]), self.norm, self.seed, "noise", turn)
            right &= self.right((self.x + self.eps * points).clamp_(0, 1))
        self.survive("noise", right)
        yield self.share(
            "noise finds nothing that PGD missed", ~right, self.after_pgd, (0.5, 10),
            "random points of the ball beat PGD: its gradients are of no use",
        )  # fmt: skip

    def way(self) -> Iterator[Check]:
        """Are points on the way less often wrong than its end?"""
        found = settled(self.model, self.x, self.y, self.norm, self.eps, self.seed, self.size)
        self.attacked = found.to(self.x.device)
        accuracies = []
        for share in WAY:
            right = self.right(self.x + share * (self.attacked - self.x))
            self.survive("pgd", right)
            accuracies.append(self.percent(right))
        yield Check.graded(
            "accuracy falls along the way", _rise([self.percent(self.clean), *accuracies]), (1, 3, 10),
            "points halfway are more often wrong than the attack's end", POINTS,
        )  # fmt: skip

    def losses(self) -> Iterator[Check]:
        """How much more do APGD and other losses break?"""
        left = self.after_pgd
        for attack in ("apgd-ce", *(["apgd-t"] if self.classes > 3 else [])):
            left = left & self.robust(Threat.of(attack, self.norm, self.eps, **STRONG[attack]), left)
            self.survive(attack, left)
        yield self.share(
            "PGD is near the strongest gradient attack", ~left, self.after_pgd, (8, 25),
            "report --attack autoattack, not pgd: APGD on other losses breaks more",
        )  # fmt: skip

    def black_box(self) -> Iterator[Check]:
        """Does a search without gradients break what they left?"""
        stood = self.standing
        left = self.robust(Threat.of("square", self.norm, self.eps, **STRONG["square"]), stood)
        self.survive("square", left)
        yield self.share(
            "white box is no weaker than black box", ~left, stood, (6, 20),
            "a search without gradients breaks what they left (about 5 % is usual): believe only --attack autoattack",
        )  # fmt: skip

    def transfer(self, name: str, x_adv: torch.Tensor) -> Iterator[Check]:
        """Do images made against another model break what its own gradients did not?"""
        x_adv = x_adv.to(self.x.device)
        perturbation(self.x, x_adv, Threat(norm=self.norm, eps=self.eps))
        stood, right = self.standing, self.right(x_adv)
        self.survive("transfer", right)
        yield self.share(
            f"white box is no weaker than transfer from {name}", ~right, stood, (2, 10),
            "images made against another model break what its own gradients did not",
        )  # fmt: skip

    def overall(self) -> Iterator[Check]:
        """How far is PGD's figure from the strongest that was found?"""
        yield self.share(
            "PGD's figure is near the strongest found", ~self.standing, self.after_pgd, (10, 30),
            "believe the strongest figure, and report --attack autoattack",
        )  # fmt: skip


def _rise(accuracies: list[float]) -> float:
    """The largest gain of accuracy over any value before, in points."""
    lowest, rise = accuracies[0], 0.0
    for accuracy in accuracies:
        rise, lowest = max(rise, accuracy - lowest), min(lowest, accuracy)
    return rise


STAGES: dict[str, Callable[[Checks], Iterable[Check]]] = {
    "the forward pass": Checks.forward,
    "gradients at the images": Checks.gradients,
    "PGD with more steps": Checks.steps,
    "PGD with more eps": Checks.larger,
    "random noise": Checks.noise,
    "points on the way": Checks.way,
    "APGD on two losses": Checks.losses,
    "Square": Checks.black_box,
}
"""What the audit does, in its order."""
