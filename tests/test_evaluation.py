"""Accuracies, losses and intervals are exact."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from advmix_cli import evaluation, models
from advmix_cli.statistics import wilson


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_scores_do_not_depend_on_the_batch(batch_size: int) -> None:
    model = models.build("lenet5")
    x = torch.rand((50, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    y = torch.arange(50) % 10
    scored = evaluation.score(model, x, y, batch_size=batch_size)
    with torch.no_grad():
        logits = model(x)
    assert torch.equal(scored.correct, logits.argmax(1) == y)
    assert scored.loss == pytest.approx(float(F.cross_entropy(logits, y)), rel=1e-5)
    assert scored.accuracy == 100 * int((logits.argmax(1) == y).sum()) / 50


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe 1998, table I, method 3, in percent.
    [
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0.0, 16.11),
        (1, 29, 0.61, 17.18),
        (29, 29, 88.30, 100.0),
    ],
)
def test_wilson_against_published_intervals(correct: int, n: int, low: float, high: float) -> None:
    assert wilson(correct, n) == (pytest.approx(low, abs=0.006), pytest.approx(high, abs=0.006))


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 100.0)
