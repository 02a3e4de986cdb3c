"""The teacher's other terms: squared difference, intra-class relation, attention transfer; how they add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from xlite_search.config import RunConfig
from xlite_search.distill.losses import KD, attention_transfer, intra_class, soft, squared
from xlite_search.errors import BadInput

BATCH, CLASSES = 6, 5
HARD = torch.tensor(0.7)


def drawn(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(*(shape or (BATCH, CLASSES)), generator=torch.Generator().manual_seed(seed))


def gradient(of: Tensor, to: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(of, to)
    return found


TERMS = {
    "soft": lambda s, t, w=None: soft(s, t, 2.0, w),
    "squared": squared,
    "intra_class": lambda s, t, w=None: intra_class(s, t, 2.0, w),
}
each_term = pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)


@each_term
def test_a_student_that_agrees_costs_nothing(term) -> None:  # type: ignore[no-untyped-def]
    assert float(term(drawn(1), drawn(1))) == pytest.approx(0, abs=1e-6)


@each_term
def test_a_term_does_not_care_about_the_order_of_labels_nor_of_images(term) -> None:  # type: ignore[no-untyped-def]
    s, t = drawn(1), drawn(2)
    labels, images = torch.randperm(CLASSES), torch.randperm(BATCH)
    assert float(term(s[:, labels][images], t[:, labels][images])) == pytest.approx(float(term(s, t)), rel=1e-5)


@each_term
def test_an_image_that_weighs_nothing_is_as_if_it_were_not_there(term) -> None:  # type: ignore[no-untyped-def]
    """The mean is over the batch, so that the others weigh as much as there are images."""
    s, t = drawn(1), drawn(2)
    weights = torch.tensor([0.0] + [BATCH / (BATCH - 1)] * (BATCH - 1))
    assert float(term(s, t, weights)) == pytest.approx(float(term(s[1:], t[1:])), rel=1e-5)
    assert float(term(s, t, torch.ones(BATCH))) == pytest.approx(float(term(s, t)), rel=1e-6)


@each_term
def test_terms_compute_in_float32_inside_autocast(term) -> None:  # type: ignore[no-untyped-def]
    s, t = drawn(1).bfloat16(), drawn(2).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        inside = term(s, t)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, term(s.float(), t.float()))


def test_squared_by_hand() -> None:
    """(1 + 4) / 8 over two labels."""
    assert float(squared(torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 1.0]]))) == pytest.approx(5 / 8 / 2)


def test_squared_is_what_soft_tends_to() -> None:
    s, t = drawn(1).double().requires_grad_(), drawn(2).double()
    limit, near = squared(s, t), soft(s, t, 500.0)
    assert near.item() == pytest.approx(limit.item(), rel=1e-2)
    expected = (s - t).detach() / (4 * BATCH * CLASSES)
    torch.testing.assert_close(gradient(squared(s, t), s), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradient(near, s), expected, rtol=2e-2, atol=2e-3)


@given(st.integers(0, 1000), st.floats(0.5, 8))
def test_intra_class_is_numpys_correlation(seed: int, tau: float) -> None:
    s, t = drawn(seed), drawn(seed + 1)
    p, q = (1 / (1 + np.exp(-x.double().numpy() / tau)) for x in (s, t))
    correlations = [np.corrcoef(p[:, label], q[:, label])[0, 1] for label in range(CLASSES)]
    assert float(intra_class(s, t, tau)) == pytest.approx(tau**2 * (1 - np.mean(correlations)), rel=1e-3, abs=1e-3)


def test_intra_class_does_not_care_about_scale_and_offset_of_the_chances() -> None:
    chances = torch.tensor([[0.1], [0.2], [0.4], [0.8]])
    teacher = torch.logit(chances)
    assert float(intra_class(torch.logit(0.3 + chances / 2), teacher, 1.0)) == pytest.approx(0, abs=1e-5)
    assert float(intra_class(torch.logit(1 - chances), teacher, 1.0)) == pytest.approx(2, abs=1e-5)


def test_a_label_that_does_not_vary_neither_helps_nor_breaks() -> None:
    student = drawn(1).requires_grad_()
    teacher = drawn(2)
    teacher[:, 0] = 1.5
    value = intra_class(student, teacher, 1.0)
    others = intra_class(student[:, 1:], teacher[:, 1:], 1.0)
    assert value.item() == pytest.approx((1 + (CLASSES - 1) * others.item()) / CLASSES, rel=1e-5)
    assert torch.isfinite(gradient(value, student)).all()
    same = torch.zeros(BATCH, CLASSES, requires_grad=True)
    assert torch.isfinite(gradient(intra_class(same, teacher, 1.0), same)).all()


def test_attention_by_hand() -> None:
    """Maps (1, 0) and (3, 4) / 5: (1 - 0.6)^2 + 0.8^2."""
    student = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    teacher = torch.tensor([3.0, 4.0]).sqrt().reshape(1, 1, 1, 2)
    assert float(attention_transfer(student, teacher)) == pytest.approx(0.8)


def test_attention_is_where_and_not_how_much_nor_by_which_channels() -> None:
    features = drawn(1, 2, 3, 4, 4)
    assert float(attention_transfer(5 * features, features)) == pytest.approx(0, abs=1e-6)
    assert float(attention_transfer(features.repeat(1, 2, 1, 1), features)) == pytest.approx(0, abs=1e-6)
    assert float(attention_transfer(-features[:, [2, 0, 1]], features)) == pytest.approx(0, abs=1e-6)


def test_a_students_map_of_another_size_is_resized() -> None:
    teacher = torch.ones(1, 2, 4, 4)
    teacher[..., :2] = 2
    student = torch.ones(1, 3, 2, 2)
    student[..., 0] = 2
    moved = float(attention_transfer(student, teacher))
    assert 0 < moved < float(attention_transfer(student.flip(3), teacher))


TERMS_OF_KD = [
    (KD(tau=2.0, alpha=0.3), lambda s, t: soft(s, t, 2.0)),
    (KD(tau=2.0, alpha=0.3, form="mse"), squared),
    (KD(tau=2.0, alpha=0.3, intra=0.5), lambda s, t: soft(s, t, 2.0) + 0.5 * intra_class(s, t, 2.0)),
    (
        KD(tau=2.0, alpha=0.3, form="mse", intra=2.0, hint=10.0),
        lambda s, t: squared(s, t) + 2 * intra_class(s, t, 2.0) + 10 * 0.2,
    ),
]


@pytest.mark.parametrize(("kd", "said"), TERMS_OF_KD, ids=lambda value: str(value) if isinstance(value, KD) else "")
def test_kd_adds_its_terms_up(kd: KD, said) -> None:  # type: ignore[no-untyped-def]
    s, t = drawn(1), drawn(2)
    found = kd(s, t, HARD, attention=torch.tensor(0.2))
    assert float(found) == pytest.approx(float(0.3 * said(s, t) + 0.7 * HARD), rel=1e-6)


def test_alpha_one_hears_the_teacher_alone_and_alpha_zero_the_labels_alone() -> None:
    s, t = drawn(1).requires_grad_(), drawn(2)
    assert KD(alpha=1.0, intra=1.0)(s, t, 3 * HARD).item() == KD(alpha=1.0, intra=1.0)(s, t, HARD).item() > 0
    assert KD(alpha=0.0, intra=1.0)(s, t, HARD).item() == HARD.item()
    assert not gradient(KD(alpha=0.0, intra=1.0)(s, t, HARD), s).any()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("kd.form", "mes", r"kd\.form.*'mes'"),
        ("kd.intra", -1, r"kd\.intra.*greater than or equal to 0"),
        ("kd.hint", -0.5, r"kd\.hint.*greater than or equal to 0"),
        ("kd.platt", "maybe", r"kd\.platt"),
        ("kd.tau", 0, r"kd\.tau.*greater than 0"),
        ("kd.alpha", 1.2, r"kd\.alpha.*less than or equal to 1"),
        ("kd.pos_weight", 3.0, r"unknown setting 'kd\.pos_weight'.*tau log w.*loss=weighted_bce"),
    ],
)
def test_what_means_nothing_is_refused_in_a_sentence(name: str, value: object, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as refusal:
        RunConfig(model="test_efficientnet_none").with_settings({"kd": {}, name: value})
    assert "\n" not in str(refusal.value)
