"""The samples of a batch that an attack has yet to break: the one place that knows who has won."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

import torch
from torch import nn

from advmix_cli import graphs
from advmix_cli.attacks.common import outcome
from advmix_cli.graphs import Tensors, Value

_STRIDE = 10
"""Steps between two looks on a GPU, where looking means waiting."""


def first_won(fooled: torch.Tensor, x: torch.Tensor, found: torch.Tensor, won: torch.Tensor) -> Tensors:
    """Which samples have won once those of `fooled` (N,) are misclassified at x, and their first winning images."""
    if not graphs.records(x.device) and not bool(fooled.any()):
        return {"found": found, "won": won}
    fresh = (fooled & ~won).view(-1, 1, 1, 1)
    return {"found": torch.where(fresh, x, found), "won": won | fooled}


class Standing:
    """Rows of a batch, a value a sample in each, of which those who have won are taken out.

    A sample that has won keeps its first winning image and costs nothing more. On a CPU the places of those that are
    done are taken by others where `places` says how many there are at a time: few samples cost almost what many do. On
    a GPU all are there at once, and their number is halved when half of them are done, so that few sizes are recorded.
    """

    def __init__(
        self, model: nn.Module, x_adv: torch.Tensor, *, places: int | None = None, **rows: torch.Tensor | None
    ) -> None:
        n, device = len(x_adv), x_adv.device
        self._cuda, self._n, self._model = self.on_gpu(device), n, model
        self._recorded = graphs.of(model, device)
        self.stride = _STRIDE if self._cuda else 1
        given = {name: row for name, row in rows.items() if row is not None}
        self._none = [name for name, row in rows.items() if row is None]
        self._all = {"x_adv": x_adv, "found": x_adv, "won": torch.zeros(n, dtype=torch.bool, device=device), **given}
        self._places = n if places is None or self._cuda else places
        self._entered = min(self._places, n)
        self._over: tuple[torch.Tensor, torch.Tensor] | None = None  # images and who has won, of those taken out
        self._index = torch.arange(self._entered, device=device)
        self.rows = {name: row[: self._entered] for name, row in self._all.items()}
        if self._cuda:
            self._fill_up()

    @staticmethod
    def on_gpu(device: torch.device) -> bool:
        """Whether looking means waiting there."""
        return device.type == "cuda"

    def __len__(self) -> int:
        return len(self._index)

    def _fill_up(self) -> None:
        """To a power of two, with copies that count as won: few sizes are recorded."""
        missing = (1 << (len(self) - 1).bit_length()) - len(self)
        if missing:
            filled = {
                name: torch.cat([row, row[:1].expand(missing, *row.shape[1:])]) for name, row in self.rows.items()
            }
            filled["won"][len(self) :] = True
            self.rows = filled
            self._index = torch.cat([self._index, self._index.new_full((missing,), self._n)])

    def advance(self, key: Hashable, function: Callable[..., Tensors], **shared: Value) -> None:
        """Replace rows by what `function` makes of all rows and of the `shared` numbers; recorded on a GPU."""
        inputs: dict[str, Value] = {**self.rows, **dict.fromkeys(self._none), **shared}
        run = self._recorded
        self.rows |= function(**inputs) if run is None else run(key, function, **inputs)

    def confirm(self) -> None:
        """Let only those have won whose images float32 calls wrong too: other precisions only propose."""
        won = self.rows["won"]
        if bool(won.any()):
            self.rows["won"] = won & outcome(self._model, self.rows["found"], self.rows["y"])[1]

    def steps(self, count: int, last: str = "x_adv") -> Iterator[int]:
        """The numbers of `count` steps, from 1, while anybody is at it; who has won is taken out where one looks."""
        for number in range(1, count + 1):
            if not len(self):
                return
            yield number
            if number % self.stride == 0:
                self.settle(last=last)

    def settle(self, ended: torch.Tensor | None = None, last: str = "x_adv") -> None:
        """Take out who has won and who has `ended` (n,), the latter with the image of the row `last`."""
        won = self.rows["won"]
        over = won if ended is None else won | ended
        at_it = int((~over).sum())
        if at_it == len(self):
            return
        gone = over.nonzero().squeeze(1)
        self._write(gone, last)
        fresh = min(self._n - self._entered, len(gone))
        if fresh:
            gone, entering = gone[:fresh], slice(self._entered, self._entered + fresh)
            self._entered += fresh
            self._index = self._index.index_copy(0, gone, torch.arange(entering.start, entering.stop))
            self.rows = {name: row.index_copy(0, gone, self._all[name][entering]) for name, row in self.rows.items()}
            over, at_it = over.index_fill(0, gone, False), at_it + fresh
            if at_it == len(self):
                return
        size = len(self) if self._cuda else at_it
        while self._cuda and 2 * at_it <= size and size:
            size //= 2
        # Those at it, then, on a GPU, some that are not: False first.
        keep = over.sort(stable=True).indices[:size] if self._cuda else (~over).nonzero().squeeze(1)
        self._index = self._index[keep]
        self.rows = {name: row.index_select(0, keep) for name, row in self.rows.items()}

    def _write(self, which: slice | torch.Tensor, last: str) -> None:
        if self._over is None:  # one more than there are: what fills up a size has that place in common
            x_adv = self._all["x_adv"]
            self._over = torch.cat([x_adv, x_adv[:1]]), torch.zeros(self._n + 1, dtype=torch.bool, device=x_adv.device)
        found, won = self._over
        index, here = self._index[which], self.rows["won"][which]
        won[index] = here
        found[index] = torch.where(here.view(-1, 1, 1, 1), self.rows["found"][which], self.rows[last][which])

    def finish(self, last: str = "x_adv") -> tuple[torch.Tensor, torch.Tensor]:
        """(images, who has won) of all samples: the winning images, and of the others those of the row `last`."""
        if self._over is None and len(self) == self._n:  # nobody was taken out
            won = self.rows["won"]
            return torch.where(won.view(-1, 1, 1, 1), self.rows["found"], self.rows[last]), won.clone()
        if len(self):
            self._write(slice(None), last)
        assert self._over is not None
        found, won = self._over
        return found[: self._n], won[: self._n]
