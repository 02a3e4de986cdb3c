from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError
from torch import Tensor, nn

from xlite_search.distill.losses import KD, soft
from xlite_search.distill.teacher import Teacher
from xlite_search.errors import BadInput
from xlite_search.training.losses import BCE, WeightedBCE, bce

N = 78_484
TAUS = [0.5, 1.0, 4.0, 8.0]

some_logits = hnp.arrays(np.float32, (3, 4), elements=st.floats(-8, 8, width=32))


def logits(seed: int, *, batch: int = 5, classes: int = 14, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed))


def labels(seed: int, *, batch: int = 5, classes: int = 14) -> Tensor:
    return (torch.rand(batch, classes, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


def gradient_of_soft(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    student = student.clone().requires_grad_()
    return torch.autograd.grad(soft(student, teacher, tau), student)[0]


def test_bce_by_hand() -> None:
    # softplus(-2) for the positive, softplus(-1) for the negative
    found = BCE().build(torch.tensor([1.0]), 2)(torch.tensor([[2.0], [-1.0]]), torch.tensor([[1.0], [0.0]]))
    assert found.item() == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2, rel=1e-6)


def test_bce_has_no_pos_weight() -> None:
    assert BCE().pos_weight(torch.tensor([3.0]), 10) is None


@pytest.mark.parametrize(("positives", "weight"), [(13_823, 4.68), (153, 508.64)])
def test_ratio_is_the_weight_of_the_log(positives: int, weight: float) -> None:
    found = WeightedBCE().pos_weight(torch.tensor([float(positives)]), N)
    assert found is not None
    assert round(found.item(), 2) == weight


def test_inverse_square_root_by_hand() -> None:
    # (3 + 1)^-1/2 = 0.5 and (15 + 1)^-1/2 = 0.25, mean 0.375
    found = WeightedBCE(weighting="inverse_sqrt").pos_weight(torch.tensor([3.0, 15.0]), 100)
    assert found is not None
    assert found.tolist() == pytest.approx([4 / 3, 2 / 3], rel=1e-6)


def test_weighted_bce_by_hand() -> None:
    # 4 images, 1 positive: weight (4 - 1) / (1 + 1) = 1.5; at logit 0 every term is ln 2
    loss = WeightedBCE().build(torch.tensor([1.0]), 4)
    found = loss(torch.zeros(4, 1), torch.tensor([[1.0], [0.0], [0.0], [0.0]]))
    assert found.item() == pytest.approx((1.5 + 3) * math.log(2) / 4, rel=1e-6)


def test_weights_of_one_are_plain_bce() -> None:
    # (N - n) / (n + 1) = 1 for N = 2 n + 1
    weighted = WeightedBCE().build(torch.full((14,), 10.0), 21)
    assert torch.equal(weighted(logits(0), labels(1)), bce(logits(0), labels(1)))


@pytest.mark.parametrize("spec", [BCE(), WeightedBCE()])
def test_an_image_of_whole_weight_is_that_many_images(spec: BCE | WeightedBCE) -> None:
    """Weights are a way to draw: [2, 0, 1] of three images is the sum over the first twice and the last."""
    s, y = logits(1, batch=3), labels(2, batch=3)
    loss = spec.build(torch.full((14,), 3.0), 10)
    drawn = [0, 0, 2]
    assert loss(s, y, torch.tensor([2.0, 0.0, 1.0])).item() == pytest.approx(loss(s[drawn], y[drawn]).item(), rel=1e-6)
    assert loss(s, y, torch.ones(3)).item() == loss(s, y).item()


def test_the_teachers_term_is_weighted_alike() -> None:
    s, t, weights = logits(1, batch=3), logits(2, batch=3), torch.tensor([2.0, 0.0, 1.0])
    drawn = [0, 0, 2]
    assert soft(s, t, 4.0, weights).item() == pytest.approx(soft(s[drawn], t[drawn], 4.0).item(), rel=1e-5)
    assert soft(s, s, 4.0, weights).item() == pytest.approx(0, abs=1e-6)
    half = KD(tau=4.0, alpha=0.5)(s, t, torch.tensor(3.0), weights)
    assert half.item() == pytest.approx(0.5 * soft(s, t, 4.0, weights).item() + 1.5, rel=1e-6)


def test_pos_weight_moves_the_optimal_logit_by_its_logarithm() -> None:
    # one positive in 6 images: the optimum without a weight is log(1 / 5), the ratio is 5 / 2
    guess = torch.full((6, 1), math.log(1 / 5) + math.log(5 / 2), requires_grad=True)
    truth = torch.tensor([[1.0], [0.0], [0.0], [0.0], [0.0], [0.0]])
    slope = torch.autograd.grad(WeightedBCE().build(torch.tensor([1.0]), 6)(guess, truth), guess)[0].sum()
    assert slope.item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("spec", [BCE(), WeightedBCE(), WeightedBCE(weighting="inverse_sqrt")])
def test_a_hard_loss_does_not_care_about_the_order_of_labels(spec: BCE | WeightedBCE) -> None:
    truth, order = labels(1), torch.randperm(14, generator=torch.Generator().manual_seed(2))
    one = spec.build(truth.sum(0), 5)(logits(0), truth)
    other = spec.build(truth.sum(0)[order], 5)(logits(0)[:, order], truth[:, order])
    assert one.item() == pytest.approx(other.item(), rel=1e-6)


def test_soft_by_hand() -> None:
    # tau 2: s/tau = (0, 1), t/tau = (1, -1); p = sigmoid(1), H(p) = H(1 - p) = softplus(1) - p
    p, softplus = 1 / (1 + math.exp(-1)), math.log1p(math.e)
    entropy = softplus - p
    expected = 4 * ((math.log(2) - entropy) + (softplus - (1 - p) - entropy)) / 2
    assert expected == pytest.approx(1.146123, abs=1e-6)
    found = soft(torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, -2.0]]), 2.0)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_kd_by_hand() -> None:
    found = KD(tau=2, alpha=0.7)(torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, -2.0]]), torch.tensor(0.5))
    assert found.item() == pytest.approx(0.7 * 1.1461226 + 0.3 * 0.5, rel=1e-6)


@pytest.mark.parametrize("tau", [*TAUS, 100.0])
def test_soft_is_zero_for_a_student_that_agrees(tau: float) -> None:
    assert soft(logits(0), logits(0), tau).item() == 0.0
    assert gradient_of_soft(logits(0), logits(0), tau).abs().max().item() < 1e-7


@given(some_logits, some_logits, st.sampled_from(TAUS))
@settings(max_examples=60, deadline=None)
def test_soft_is_the_divergence_in_double_precision(s: np.ndarray, t: np.ndarray, tau: float) -> None:
    p, q = (1 / (1 + np.exp(-x.astype(np.float64) / tau)) for x in (t, s))
    divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    found = soft(torch.from_numpy(s), torch.from_numpy(t), tau).item()
    assert found == pytest.approx(tau**2 * divergence.mean(), rel=1e-4, abs=2e-6 * tau**2)


@pytest.mark.parametrize("tau", TAUS)
def test_the_gradient_of_soft_is_its_closed_form(tau: float) -> None:
    s, t = logits(0), logits(1)
    closed = tau * (torch.sigmoid(s / tau) - torch.sigmoid(t / tau)) / s.numel()
    assert torch.allclose(gradient_of_soft(s, t, tau), closed, rtol=1e-4, atol=1e-7)


def test_the_gradient_of_soft_tends_to_a_quarter_of_the_difference() -> None:
    s, t = logits(0, scale=1.0), logits(1, scale=1.0)
    limit = (s - t) / (4 * 5 * 14)
    off = [(gradient_of_soft(s, t, tau) - limit).abs().max().item() for tau in (2.0, 8.0, 64.0)]
    assert off[0] > 5 * off[1] > 5 * off[2]
    assert torch.allclose(gradient_of_soft(s, t, 64.0), limit, rtol=5e-3, atol=1e-6)


def test_soft_does_not_care_about_the_order_of_labels() -> None:
    order = torch.randperm(14, generator=torch.Generator().manual_seed(2))
    one, other = soft(logits(0), logits(1), 4.0), soft(logits(0)[:, order], logits(1)[:, order], 4.0)
    assert one.item() == pytest.approx(other.item(), rel=1e-6)


def test_alpha_weighs_the_teacher() -> None:
    s, t, hard = logits(0), logits(1), torch.tensor(0.7)
    assert torch.equal(KD(tau=4, alpha=0)(s, t, hard), hard)
    assert torch.equal(KD(tau=4, alpha=1)(s, t, hard), soft(s, t, 4.0))


@pytest.mark.parametrize("setting", [{"alpha": -0.1}, {"alpha": 1.1}, {"tau": 0}, {"tau": float("nan")}])
def test_kd_refuses_what_means_nothing(setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        KD.model_validate(setting)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_losses_compute_in_float32_inside_autocast(kind: torch.dtype) -> None:
    s, t, truth = logits(0).to(kind), logits(1).to(kind), labels(2)
    weighted = WeightedBCE().build(truth.sum(0), 5)
    outside = [soft(s.float(), t.float(), 8.0), bce(s.float(), truth), weighted(s.float(), truth)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = [soft(s, t, 8.0), bce(s, truth), weighted(s, truth)]
    assert all(value.dtype == torch.float32 for value in inside)
    assert torch.equal(torch.stack(inside), torch.stack(outside))


@pytest.mark.parametrize(
    ("student", "teacher", "shift"),
    [
        (None, None, 0.0),
        ([8.0, 1.0], None, [math.log(8), 0.0]),
        (None, [2.0, 1.0], [-math.log(2), 0.0]),
        ([8.0, 3.0], [2.0, 3.0], [math.log(4), 0.0]),
    ],
)
def test_a_teacher_speaks_with_the_pos_weight_of_its_student(
    student: list[float] | None, teacher: list[float] | None, shift: float | list[float]
) -> None:
    speaker = Teacher(nn.Linear(2, 2), None if teacher is None else torch.tensor(teacher))
    found = speaker.speaking_like(None if student is None else torch.tensor(student))
    assert (found.tolist() if isinstance(found, Tensor) else found) == pytest.approx(shift, abs=1e-6)


def test_a_finding_in_every_image_cannot_be_balanced_by_its_ratio() -> None:
    with pytest.raises(BadInput, match="positive in every training image"):
        WeightedBCE().pos_weight(torch.tensor([3.0, 10.0]), 10)
