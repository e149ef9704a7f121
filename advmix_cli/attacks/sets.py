"""Attacking a whole set: sample by sample, in batches that no result depends on, with a state to continue from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from advmix_cli.attacks import batches
from advmix_cli.attacks.common import Change, Verdicts, frozen, logits, to_float, verdicts
from advmix_cli.attacks.run import attack, function
from advmix_cli.data.pixels import Pixels
from advmix_cli.errors import StateError
from advmix_cli.passes import Passes
from advmix_cli.runtime import side_by_side
from advmix_cli.threats import Part, Threat

_APART = 10_000
"""Between the seeds of parts that are the same attack."""

_STANDING = (0.5, 0.95)
"""The share of samples that is taken to stand a part of which nothing is known: the first, and one that follows."""
_RAISED, _DOUBLED = 1.1, 2.0
"""Times the loss that was found before: what a search must find for gradients to seem masked, and to be it surely."""
_DOUBTFUL = 0.1
"""The share of samples that are taken to be for a part that is for some alone."""

Piece = dict[str, Any]
"""A part of the state: what is known of some of the samples. All of them are the state."""


class After(NamedTuple):
    """How N images stand: `right` before and under all so far; cross-entropies of the worst found, in nats.

    `leads` are the least that the right class led by (`common.Verdicts`). `passes` are what this part took, of all of
    them.
    """

    right: torch.Tensor
    losses: torch.Tensor
    leads: torch.Tensor
    passes: Passes


@dataclasses.dataclass(frozen=True)
class AttackedSet:
    """What attacking a set of N gave, on the CPU.

    `clean` (N,) are the images that are right before the attack, `after` says how they stand after each part of the
    threat, by the parts' labels. `proved` (N,) are those that were not attacked, since the threat says how to prove
    nothing would come of it. `x_adv` (N,C,H,W) are the worst images that were found, None where they were not asked
    for. `change` is the largest change, `batch_size` how many images were computed at a time, `left` how many samples
    have yet to be attacked: none, unless a range was asked for.
    """

    clean: torch.Tensor
    after: dict[str, After]
    proved: torch.Tensor
    change: Change
    x_adv: torch.Tensor | None
    batch_size: int
    left: int = 0

    @property
    def robust(self) -> torch.Tensor:
        """Right before the attack and after all of it, (N,)."""
        return list(self.after.values())[-1].right


def foreseen(threat: Threat, stand: float = _STANDING[0]) -> float:
    """What attacking one image will cost if such a share stands, by `Passes.cost`: those that fall take little."""
    return Passes(*threat.passes).cost * (stand if threat.early_stop else 1.0)


def attack_set(
    model: nn.Module,
    x: Pixels,
    y: torch.Tensor,
    threat: Threat,
    *,
    seed: int,
    index: torch.Tensor | None = None,
    images: bool = False,
    batch_size: int | None = None,
    only: range | None = None,
    pieces: Sequence[Piece] = (),
    on_work: Callable[[float, float], None] = lambda done, left: None,
    on_standing: Callable[[int], None] = lambda n: None,
    on_part: Callable[[str, int], None] = lambda part, standing: None,
    on_piece: Callable[[Piece], None] = lambda piece: None,
) -> AttackedSet:
    """Attack a set, pixels (N,C,H,W), uint8 or float in [0,1], and labels (N,) on the model's device.

    Each part of an ensemble attacks what the ones before left standing; a threat that stops early leaves images alone
    that are wrong before the attack. No result depends on the batches: a sample's random numbers follow from `seed` and
    its `index` (None: its place), and on a CPU its verdicts are the same to the bit in any batch; a GPU rounds
    otherwise in batches of another size. `batch_size` None: what suits the device. On a CPU batches are attacked side
    by side, one a thread.

    `images`: keep the attacked images. `on_work` is called with what was done since, first with what was done by
    `pieces` and before the first batch, and what is left as far as it can be foreseen, both by `Passes.cost`;
    `on_standing` with how many are still robust, `on_part` after each part, with its label and that number.
    `on_piece` gets what became known with each batch, plain tensors and values; with all those `pieces` the same call,
    with whatever batches, continues, and gives the same. `only`: attack the samples of that range alone; the pieces of
    ranges that cover all, in any order, are those of the whole. Raises as `attack` does.
    """
    run = _Run(model, x, y, threat, seed, index, images, batch_size, only)
    for piece in run.in_order(pieces):
        run.take(piece)
    for piece in run.clean_pieces():
        on_piece(piece)
    on_work(*run.work())
    for part in run.parts:
        for piece in run.pieces(part):
            on_standing(run.standing)
            on_work(*run.work())
            on_piece(piece)
        on_part(part.label, run.standing_after(part))
    return AttackedSet(run.clean, run.after, run.proved, run.change, run.x_adv, run.size, run.left)


def _own(x: torch.Tensor) -> torch.Tensor:
    """Pixels as floats on the CPU, which nobody else has."""
    return to_float(x).to("cpu", copy=x.is_floating_point())


def _in_all(known: torch.Tensor, tried: int, will: float) -> float:
    """How many there will be: as many of those that a part will try as are known of those it has tried."""
    n = float(known.sum())
    return n + will * (n / tried if tried else _DOUBTFUL)


class _Run:
    def __init__(
        self,
        model: nn.Module,
        x: Pixels,
        y: torch.Tensor,
        threat: Threat,
        seed: int,
        index: torch.Tensor | None,
        images: bool,
        batch_size: int | None,
        only: range | None,
    ) -> None:
        self._model, self._x, self._y, self._seed = model, x, y, seed
        self._index = torch.arange(len(x)) if index is None else index.cpu()
        self._asked, self.size = batch_size, 0
        self.parts = threat.parts
        self._together = len(self.parts) > 1
        self._for = threat.declared.parts or (Part(threat.attack),)
        self._search = next((i for i, part in enumerate(self.parts) if "queries" in part.declared.options), 0)
        attacks = [part.attack for part in self.parts]
        self._turns = [attacks[:i].count(attack) for i, attack in enumerate(attacks)]
        self.x_adv = _own(x[:]) if images else None
        self._proof, self._threat = function(threat.declared.proof), threat
        self.clean = torch.zeros(len(x), dtype=torch.bool)
        self.proved = torch.zeros(len(x), dtype=torch.bool)
        self.change, self._known = Change(), False
        # By part, as all stand after it, if nothing is left to do.
        self._robust = torch.zeros(len(self.parts), len(x), dtype=torch.bool)
        self._losses = torch.full((len(self.parts), len(x)), -torch.inf)
        self._leads = torch.zeros(len(self.parts) + 1, len(x))  # before all parts, and after each
        self._done = torch.zeros(len(self.parts), len(x), dtype=torch.bool)
        self._passes = [Passes() for _ in self.parts]
        self._told = 0.0
        self._mine = torch.zeros(len(x), dtype=torch.bool)
        self._mine[slice(None) if only is None else slice(only.start, only.stop)] = True

    @property
    def after(self) -> dict[str, After]:
        """How all stand after each part."""
        return {
            part.label: After(
                self._robust[i].clone(), self._losses[i].clone(), self._leads[i + 1].clone(), self._passes[i]
            )
            for i, part in enumerate(self.parts)
        }

    @property
    def standing(self) -> int:
        """How many images are right before the attack and under all there was so far."""
        return int(self._robust[-1].sum())

    @property
    def left(self) -> int:
        """How many samples have yet to be attacked, by whatever part."""
        return int(torch.stack([self._wanted(i) for i in range(len(self.parts))]).any(0).sum())

    def in_order(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The pieces as one process would have made them: part by part. Raises StateError for what is none."""
        try:
            return sorted(pieces, key=lambda piece: ["clean", *(p.label for p in self.parts)].index(piece["part"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"a piece does not fit the set: {error}", "begin again") from None

    def take(self, piece: Piece) -> None:
        """Learn what a piece says. Raises StateError for one that does not fit."""
        try:
            self._take(piece)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            raise StateError(f"a piece does not fit the set: {error}", "begin again") from None

    def _take(self, piece: Piece) -> None:
        if piece["part"] == "clean":
            if not self._known:
                self.clean[:], self._known = piece["right"], True
                self._robust[:], self._losses[:], self._leads[:] = self.clean, piece["losses"], piece["leads"]
                if "proved" in piece:
                    self.proved[piece["proved"]] = True
                    self._passes[0].add(Passes(*piece["passes"]))
            return
        part = [part.label for part in self.parts].index(piece["part"])
        samples, worse = piece["samples"], piece["worse"]
        self._done[part, samples] = True
        self._robust[part:, samples] &= ~piece["success"]
        self._losses[part:, samples[worse]] = piece["losses"]
        self._leads[part + 1 :, samples] = piece["leads"].minimum(self._leads[part, samples])
        if self.x_adv is not None:
            self.x_adv[samples[worse]] = piece["x_adv"]
        self._passes[part].add(Passes(*piece["passes"]))
        self.change = self.change.beside(Change(*piece["change"]))

    def clean_pieces(self) -> Iterator[Piece]:
        """What is right before the attack; nothing where that is known. Refuses what the threat cannot be used for."""
        with frozen(self._model):
            self.size = batches.suitable(self._model, self._x, self._asked)
            if self._known:
                return
            parts = self._split(torch.arange(len(self._x)))
            found = list(side_by_side(self._clean, parts, self._x.device))
        losses, wrong, leads = (torch.cat(each).cpu() for each in zip(*found, strict=True))
        piece = {"part": "clean", "right": ~wrong, "losses": losses, "leads": leads}
        if self._proof is not None and not bool(wrong.all()):
            right = (~wrong).nonzero().squeeze(1)
            where = right.to(self._x.device)
            proved, passes = self._proof(self._model, self._x[where], self._y[where], self._threat)
            piece |= {"proved": right[proved], "passes": [passes.forward, passes.backward]}
        self.take(piece)
        yield piece

    def _clean(self, samples: torch.Tensor) -> Verdicts:
        where = samples.to(self._x.device)
        with torch.no_grad():
            said = logits(self._model, to_float(self._x[where]))
        for part in self.parts:
            part.fitted(said.shape[1])
        return verdicts(said, self._y[where])

    def _split(self, samples: torch.Tensor, *, refilled: bool = False) -> tuple[torch.Tensor, ...]:
        size = self.size
        if self._x.device.type == "cpu":
            asked = self._asked if size >= batches.CPU else size
            size = batches.on_cpu(self._model, len(samples), asked, refilled=refilled)
        return torch.split(samples, size)

    def _wanted(self, part: int) -> torch.Tensor:
        """Which samples that part has yet to attack: with early stop only the verdict counts, and some have it."""
        wanted = (self._robust[part] if self.parts[part].early_stop else torch.tensor(True)) & ~self._done[part]
        wanted &= ~self.proved
        only, search = self._for[part], self._search
        if only.near is None:
            return wanted
        doubtful = self._near(part, only.near)
        if only.masked:
            found, before = self._losses[search], self._losses[search - 1]
            doubtful |= (found > _RAISED * before) & self._near(part, only.masked)
            doubtful |= found > _DOUBLED * before
        return wanted & doubtful

    def _near(self, part: int, share: float) -> torch.Tensor:
        """Of which samples less than that share of the lead is left before a part."""
        return self._leads[part] < share * self._leads[0]

    def _todo(self, part: Threat) -> torch.Tensor:
        return (self._wanted(self.parts.index(part)) & self._mine).nonzero().squeeze(1)

    def work(self) -> tuple[float, float]:
        """What was done since the last call, and what is left: what a part takes of those it tried, it takes of all."""
        told, self._told = self._told, sum(passes.cost for passes in self._passes)
        left, falling = 0.0, 0.0
        first, last = None, (0, 0.0)  # of the parts for all: how many were tried, and will be
        for i, part in enumerate(self.parts):
            tried = int(self._done[i].sum())
            stand = int((self._robust[i] & self._done[i]).sum()) / tried if tried else _STANDING[i > 0]
            only, mine = self._for[i], self._wanted(i) & self._mine
            if first is None or only.near is None:
                todo = max(float(mine.sum()) - falling, 0.0)
                last = tried, todo
                first = first or last
            else:
                near = self._near(i, only.near)
                todo = _in_all(near & mine, *first)
                todo += _in_all(mine & ~near, *last) if only.masked else 0.0
            left += todo * (self._passes[i].cost / tried if tried else foreseen(part, stand))
            falling += todo * (1 - stand) * part.early_stop
        return self._told - told, left

    def pieces(self, part: Threat) -> Iterator[Piece]:
        """Attack what is to be attacked, batch by batch."""
        todo = self._todo(part)
        if not len(todo):
            return
        parts = self._split(todo, refilled=part.declared.refills and part.early_stop)
        with frozen(self._model):
            for piece in side_by_side(lambda samples: self._piece(part, samples), parts, self._x.device):
                self.take(piece)
                yield piece

    def _piece(self, part: Threat, samples: torch.Tensor) -> Piece:
        where = samples.to(self._x.device)
        x, y = to_float(self._x[where]), self._y[where]
        seed = self._seed + _APART * self._turns[self.parts.index(part)]
        found = attack(self._model, x, y, part, seed=seed, index=self._index[samples].to(self._x.device))
        success, losses = found.success.cpu(), found.losses.cpu()
        # In an ensemble a sample keeps the worst of all its images.
        worse = success | (losses > self._losses[-1, samples]) if self._together else torch.ones_like(success)
        piece = {
            "part": part.label, "samples": samples.clone(), "success": success, "worse": worse, "losses": losses[worse],
            "leads": found.leads.cpu(), "change": [found.change.linf, found.change.l2],
            "passes": [found.passes.forward, found.passes.backward],
        }  # fmt: skip
        if self.x_adv is not None:
            piece["x_adv"] = found.x_adv[worse.to(found.x_adv.device)].cpu()
        return piece

    def standing_after(self, part: Threat) -> int:
        """How many stand after it."""
        return int(self._robust[self.parts.index(part)].sum())
