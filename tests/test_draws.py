"""Random numbers that follow from the sample's index: the same in any company, and as random as they should be."""

from __future__ import annotations

import pytest
import torch
from conftest import DEVICE

from advmix_cli import draws

SHAPE = (1, 20, 20)


def test_a_samples_numbers_are_its_own() -> None:
    index = torch.tensor([7, 0, 123456789, 2**40])
    whole = draws.uniform(index, SHAPE, 3, "start")
    assert whole.shape == (4, *SHAPE)
    assert whole.dtype == torch.float32
    for i in range(4):
        assert torch.equal(draws.uniform(index[i : i + 1], SHAPE, 3, "start")[0], whole[i])
    assert torch.equal(draws.uniform(index.flip(0), SHAPE, 3, "start"), whole.flip(0))
    assert index.tolist() == [7, 0, 123456789, 2**40], "the index is left alone"
    flat = whole.flatten(1)
    assert len(torch.unique(flat, dim=0)) == 4


def test_seed_and_purpose_tell_numbers_apart() -> None:
    index = torch.arange(50)
    first = draws.uniform(index, SHAPE, 3, "start", 0)
    for parts in ((4, "start", 0), (3, "noise", 0), (3, "start", 1)):
        other = draws.uniform(index, SHAPE, *parts)
        assert (other == first).float().mean() < 0.01
        together = torch.stack([first.flatten(), other.flatten()])
        assert abs(float(torch.corrcoef(together)[0, 1])) < 0.04


def test_the_numbers_are_those_of_every_machine() -> None:
    """Whole numbers alone are computed with: these were written down once, and every device gives them."""
    found = draws.uniform(torch.tensor([0, 1, 9999], device=DEVICE), (2,), 0, "start", 0)
    assert (found * 2**24).long().tolist() == EXPECTED


EXPECTED = [[7601199, 3309464], [15257019, 14679268], [5031043, 10729282]]


def test_they_are_uniform_and_independent() -> None:
    numbers = draws.uniform(torch.arange(1000), (1, 32, 32), 0)
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    counts = torch.histc(numbers, 64, 0, 1).double()
    expected = numbers.numel() / 64
    assert float(((counts - expected) ** 2 / expected).sum()) < 63 + 4 * (2 * 63) ** 0.5
    centred = (numbers.flatten(1) - 0.5) * 12**0.5
    many = numbers.numel() ** 0.5
    assert abs(float((centred[1:] * centred[:-1]).mean()) * many) < 4, "of neighbouring samples"
    assert abs(float((centred[:, 1:] * centred[:, :-1]).mean()) * many) < 4, "of neighbouring places"
    bits = (numbers * 2**24).long()
    for bit in range(24):
        assert abs(float(((bits >> bit) & 1).double().mean()) - 0.5) * 2 * many < 4.5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_fill_the_ball(norm: str) -> None:
    points = draws.in_ball(torch.arange(4000), (1, 2, 2), norm, 5)
    flat = points.flatten(1)
    length = flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)
    assert float(length.max()) <= 1
    assert float((length < 0.5).float().mean()) == pytest.approx(0.5**4, abs=0.02)  # volume grows with the fourth power
    assert flat.mean(0).abs().max() < 0.05
    assert torch.equal(draws.in_ball(torch.tensor([17, 3]), (1, 2, 2), norm, 5), points[[17, 3]])


def test_points_of_an_odd_number_of_dimensions() -> None:
    assert draws.in_ball(torch.arange(3), (3, 5, 5), "l2", 1).shape == (3, 3, 5, 5)


def test_signs_are_even() -> None:
    signs = draws.signs(torch.arange(4000), (3, 1, 1), 0)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.04
