"""What pictures of models and their images show, for `visualize` and for reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from advmix_cli.names import short_name
from advmix_cli.results import beginning, distinct
from advmix_cli.settings import number
from advmix_cli.threats import Threat
from advmix_cli.workflows.references import ModelRef, history

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import nn

COLOURS = 8
Runs = list[tuple[str, list[tuple[list[dict[str, Any]], int]]]]
"""What it is called, and of each of its seeds the epochs and which of them was chosen."""


def attacked(
    net: nn.Module, classes: Sequence[str], clean: torch.Tensor, attacked: torch.Tensor, y: torch.Tensor,
    index: torch.Tensor, threat: Threat, linf_max: float, *, title: str, label: str,
    further: Sequence[tuple[str, torch.Tensor]] = (),
) -> Figure:  # fmt: skip
    """Originals (N,C,H,W), the attacked images and their change, all on the network's device, with what it says."""
    import torch

    from advmix_cli import figures

    def said(x: torch.Tensor) -> list[tuple[str, float]]:
        with torch.no_grad():
            best = net(x).double().softmax(1).max(1)
        return [(classes[i], share) for i, share in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    rows = [("original", clean), (f"attacked against\n{label}", attacked), *further]
    return figures.samples(
        [(name, x.cpu().numpy(), said(x)) for name, x in rows],
        (attacked - clean).cpu().numpy(),
        [classes[i] for i in y.tolist()],
        [str(i) for i in index.tolist()],
        title,
        f"perturbation\n(row 2 \N{MINUS SIGN} row 1)\nup to {_size(linf_max, threat)}",
    )


def _size(linf_max: float, threat: Threat) -> str:
    """The largest change as people would write it: as eps, where it is eps but for rounding."""
    return number(threat.eps) if abs(linf_max - threat.eps) < 1e-6 else f"{linf_max:.4f}"


def one_of_each(labels: torch.Tensor, count: int) -> torch.Tensor:
    """The first image of each class, then the next of each, up to `count`, ordered by class."""
    import torch

    seen: dict[int, int] = {}
    turns = []
    for index, label in enumerate(labels.tolist()):
        turns.append((seen.get(label, 0), label, index))
        seen[label] = seen.get(label, 0) + 1
    chosen = sorted(sorted(turns)[:count], key=lambda turn: (turn[1], turn[0]))
    return torch.tensor([index for _, _, index in chosen])


def runs(models: Sequence[ModelRef]) -> Runs:
    """The epochs of these models; those that differ in nothing but their seeds are one. Raises what `history` does."""
    histories = [history(model.path, model.record) for model in models]
    labels, sizes = distinct([model.label for model in models]), _sizes(models)
    if len(set(sizes)) > 1:
        labels = [f"{label} (n = {size})" for label, size in zip(labels, sizes, strict=True)]
    groups: dict[Any, dict[tuple[int, ...], int]] = {}
    for i, model in enumerate(models):
        run = model.run() or {"id": i, "seeds": []}
        groups.setdefault(run["id"], {}).setdefault(tuple(run["seeds"]), i)
    return [
        (label, [(histories[i], int(models[i].record["metrics"]["best_epoch"])) for i in group.values()])
        for label, group in zip(
            _common([[labels[i] for i in group.values()] for group in groups.values()]), groups.values(), strict=True
        )
    ]  # fmt: skip


def curves(models: Sequence[ModelRef], runs: Runs) -> Figure:
    """Accuracy and loss over the epochs of several runs of one data set, the chosen epochs marked."""
    from advmix_cli import figures

    sizes, chosen_by = _sizes(models), {str(model.record["metrics"]["chosen_by"]) for model in models}
    n = f"n = {sizes[0]}" if len(set(sizes)) == 1 else "n beside each"
    by = " or ".join(sorted(chosen_by))
    title = f"{short_name(models[0].dataset)}: training and test ({n}), epoch chosen by {by}"
    return figures.curves(runs[:COLOURS], title)


def _sizes(models: Sequence[ModelRef]) -> list[int]:
    return [int(model.record["images"]["test"]) for model in models]


def _common(groups: list[list[str]]) -> list[str]:
    """What each group of models is called: the one of it, or what begins all of them if that is of this group alone."""
    begins = [beginning(labels) for labels in groups]
    return [
        labels[0] if len(labels) == 1
        else f"{f'{begin}*'.removesuffix(', seed *')} ({len(labels)} seeds)" if begin and begins.count(begin) == 1
        else f"{labels[0]} ({len(labels)} seeds)"
        for labels, begin in zip(groups, begins, strict=True)
    ]  # fmt: skip
