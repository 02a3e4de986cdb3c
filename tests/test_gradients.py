"""Cosines of losses' gradients, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from xlite_search.distill.gradients import directions, least_cosines, stages
from xlite_search.distill.losses import KD

ZERO, ONE = torch.zeros(1, 2), torch.tensor([[1.0, -3.0]])


def test_stages_are_zero_the_log_odds_and_two_on_the_way_to_the_teacher() -> None:
    teacher = torch.tensor([[2.0, -2.0], [0.0, 4.0]])
    zero, odds, halfway, later = stages(teacher, torch.tensor([4.5, 0.5]), 9)
    assert torch.equal(zero, torch.zeros(2, 2))
    expected = torch.tensor([0.0, math.log(0.1 / 0.9)]).expand(2, 2)  # of (4.5 + 0.5) / 10 and (0.5 + 0.5) / 10
    torch.testing.assert_close(odds, expected)
    torch.testing.assert_close(halfway, (expected + teacher) / 2)
    torch.testing.assert_close(later, expected / 4 + teacher * 3 / 4)


def test_directions_are_gradients_of_length_one_in_the_order_of_the_stages() -> None:
    found = directions(lambda s: (s * torch.tensor([[3.0, 4.0]])).sum() + (s**2).sum() / 2, [ZERO, ONE])
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [4 / math.sqrt(17), 1 / math.sqrt(17)]]).double())
    assert torch.equal(directions(lambda s: 0 * s.sum(), [ONE]), torch.zeros(1, 2).double()), (
        "no gradient, no direction"
    )


def test_two_losses_are_as_near_as_where_they_are_farthest_apart() -> None:
    one = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    other = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    torch.testing.assert_close(least_cosines([one, other]), torch.tensor([[1.0, 0.6], [0.6, 1.0]]))


@pytest.mark.parametrize(("tau", "other"), [(1.0, 4.0), (4.0, 8.0)])
def test_temperatures_are_as_near_as_their_gradients_by_hand(tau: float, other: float) -> None:
    """Before the first step the gradient of the soft term is tau (1/2 - sigmoid(t / tau)) / (images * classes)."""
    teacher = torch.tensor([[-1.0, -6.0]])

    def pulled(tau: float) -> list[float]:
        return [tau * (0.5 - 1 / (1 + math.exp(-t / tau))) for t in (-1.0, -6.0)]

    a, b = pulled(tau), pulled(other)
    expected = (a[0] * b[0] + a[1] * b[1]) / math.hypot(*a) / math.hypot(*b)

    def soft(tau: float) -> Tensor:
        return directions(lambda s: KD(tau=tau, alpha=1)(s, teacher, torch.tensor(0.0)), [torch.zeros(1, 2)])

    assert float(least_cosines([soft(tau), soft(other)])[0, 1]) == pytest.approx(expected, abs=1e-6)
    assert (expected > 0.98) == (tau == 4.0)


def test_a_shared_factor_changes_no_direction() -> None:
    """alpha 1 at half the loss is the same run under AdamW; a squared difference is the limit of high temperatures."""
    teacher = torch.tensor([[-1.0, -6.0], [2.0, -4.0]])
    student = [torch.zeros(2, 2), teacher / 2]
    soft = directions(lambda s: KD(tau=100, alpha=1)(s, teacher, torch.tensor(0.0)), student)
    half = directions(lambda s: KD(tau=100, alpha=0.5)(s, teacher, torch.tensor(0.0)), student)
    mse = directions(lambda s: KD(form="mse", alpha=1)(s, teacher, torch.tensor(0.0)), student)
    assert float(least_cosines([soft, half])[0, 1]) == pytest.approx(1, abs=1e-6)
    assert float(least_cosines([soft, mse])[0, 1]) > 0.999
