"""Accuracies, losses and intervals are exact."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from advmix_cli import evaluation, models
from advmix_cli.statistics import calibration_error, mcnemar, wilson


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


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    # The two-sided binomial test at one half, by hand: 2 (1 + 10) / 2^10, 2 (1 + 5 + 10) / 2^5, and no discord at all.
    [(1, 9, 22 / 1024), (3, 2, 1.0), (0, 0, 1.0), (0, 6, 2 / 64)],
)
def test_mcnemar(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p)
    assert mcnemar(only_b, only_a) == pytest.approx(p)
    assert 0 <= mcnemar(3000, 3100) <= 1


def test_calibration_is_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    draws = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn((400, 10), generator=draws)
    y = torch.randint(0, 10, (400,), generator=draws)
    confidence, said = logits.softmax(1).max(1)
    scored = evaluation.Score(said == y, torch.zeros(400), confidence)
    theirs = torchmetrics.multiclass_calibration_error(logits.softmax(1), y, 10, n_bins=evaluation.BINS)
    assert calibration_error(scored.reliability()) == pytest.approx(100 * float(theirs), abs=1e-3)
    assert sum(n for n, _, _ in scored.reliability()) == 400
