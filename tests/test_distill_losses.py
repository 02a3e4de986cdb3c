"""What a student learns from a teacher: every formula by hand, by a second way of computing it, and at its limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from trainables.distill import distill
from xlite_search.config import RunConfig
from xlite_search.distill.losses import KD, attention_transfer, intra_class, soft, squared
from xlite_search.errors import BadInput
from xlite_search.search.study import Study, grid_search

TAUS = [0.5, 1.0, 2.0, 4.0, 8.0]
B, C = 5, 14


class Term(Protocol):
    def __call__(self, student: Tensor, teacher: Tensor, weights: Tensor | None = None, /) -> Tensor: ...


TERMS: dict[str, Term] = {
    "soft": lambda s, t, w=None: soft(s, t, 4.0, w),
    "squared": squared,
    "intra_class": lambda s, t, w=None: intra_class(s, t, 4.0, w),
    "all of KD": lambda s, t, w=None: KD(alpha=0.7, intra=2.0)(s, t, torch.tensor(0.5), w),
}
every = pytest.mark.parametrize("term", TERMS.values(), ids=TERMS.keys())

arrays = hnp.arrays(np.float32, (4, 3), elements=st.floats(-8, 8, width=32))
taus = st.floats(0.5, 20)


def logits(seed: int, *, batch: int = B, classes: int = C, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed))


def gradient(term: Callable[[Tensor], Tensor], student: Tensor) -> Tensor:
    student = student.clone().requires_grad_()
    return torch.autograd.grad(term(student), student)[0]


# The Bernoulli KL


def test_soft_by_hand() -> None:
    # tau 2: s/tau = (0, 1), t/tau = (1, -1); p = sigmoid(1), H(p) = H(1 - p) = softplus(1) - p
    p, softplus = 1 / (1 + math.exp(-1)), math.log1p(math.e)
    entropy = softplus - p
    expected = 4 * ((math.log(2) - entropy) + (softplus - (1 - p) - entropy)) / 2
    assert expected == pytest.approx(1.146123, abs=1e-6)
    found = soft(torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, -2.0]]), 2.0)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_soft_at_three_quarters_by_hand() -> None:
    # teacher 3/4, student 1/2: KL = 3/4 log(3/2) + 1/4 log(1/2)
    found = soft(torch.zeros(1, 1), torch.full((1, 1), math.log(3)), 1.0)
    assert found.item() == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2), rel=1e-6)


@given(arrays, taus)
@settings(max_examples=60, deadline=None)
def test_soft_is_zero_for_a_student_that_agrees(t: np.ndarray, tau: float) -> None:
    same = torch.from_numpy(t)
    assert soft(same, same, tau).item() == 0.0
    assert gradient(lambda s: soft(s, same, tau), same).abs().max().item() < 1e-6


@given(arrays, arrays, taus)
@settings(max_examples=60, deadline=None)
def test_soft_is_the_divergence_in_double_precision(s: np.ndarray, t: np.ndarray, tau: float) -> None:
    p, q = (1 / (1 + np.exp(-x.astype(np.float64) / tau)) for x in (t, s))
    divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    found = soft(torch.from_numpy(s), torch.from_numpy(t), tau).item()
    assert found == pytest.approx(tau**2 * divergence.mean(), rel=1e-4, abs=2e-6 * tau**2)


@given(arrays, arrays, taus)
@settings(max_examples=60, deadline=None)
def test_the_gradient_of_soft_is_its_closed_form(s: np.ndarray, t: np.ndarray, tau: float) -> None:
    student, teacher = torch.from_numpy(s), torch.from_numpy(t)
    closed = tau * (torch.sigmoid(student / tau) - torch.sigmoid(teacher / tau)) / student.numel()
    found = gradient(lambda x: soft(x, teacher, tau), student)
    assert torch.allclose(found, closed, rtol=1e-4, atol=1e-6 * tau)


def test_the_gradient_of_soft_tends_to_a_quarter_of_the_difference() -> None:
    s, t = logits(0, scale=1.0), logits(1, scale=1.0)
    limit = (s - t) / (4 * B * C)
    off = [(gradient(lambda x, tau=tau: soft(x, t, tau), s) - limit).abs().max().item() for tau in (2.0, 8.0, 64.0)]  # type: ignore[misc]
    assert off[0] > 5 * off[1] > 5 * off[2]
    assert torch.allclose(gradient(lambda x: soft(x, t, 64.0), s), limit, rtol=5e-3, atol=1e-6)


def test_soft_is_finite_where_both_are_sure_and_disagree() -> None:
    s, t = torch.tensor([[1e4, -1e4, 1e4]]), torch.tensor([[-1e4, 1e4, 1e4]])
    assert soft(s, t, 1.0).item() == pytest.approx(2e4 / 3, rel=1e-6)
    assert gradient(lambda x: soft(x, t, 1.0), s).tolist() == [pytest.approx([1 / 3, -1 / 3, 0])]


# Its limit


def test_squared_by_hand() -> None:
    # ((1 - 3)^2 + (0 + 2)^2) / 2 / 8
    assert squared(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, -2.0]])).item() == 0.5


def test_squared_is_what_soft_tends_to() -> None:
    s, t = logits(0, scale=1.0), logits(1, scale=1.0)
    value = squared(s, t).item()
    off = [abs(soft(s, t, tau).item() - value) for tau in (2.0, 8.0, 32.0)]
    assert off[0] > 5 * off[1] > 5 * off[2]
    assert off[2] < 2e-3 * value


@given(arrays, arrays)
@settings(max_examples=60, deadline=None)
def test_the_gradient_of_squared_is_the_limit_of_that_of_soft(s: np.ndarray, t: np.ndarray) -> None:
    student, teacher = torch.from_numpy(s), torch.from_numpy(t)
    found = gradient(lambda x: squared(x, teacher), student)
    assert torch.allclose(found, (student - teacher) / (4 * student.numel()), atol=1e-6)
    assert torch.allclose(found, gradient(lambda x: soft(x, teacher, 300.0), student), rtol=1e-2, atol=1e-4)


# DIST's intra-class relation


def numpys_intra_class(s: np.ndarray, t: np.ndarray, tau: float) -> float:
    p, q = (1 / (1 + np.exp(-x.astype(np.float64) / tau)) for x in (s, t))
    found = [np.corrcoef(p[:, label], q[:, label])[0, 1] for label in range(p.shape[1])]
    return float(tau**2 * (1 - np.mean(found)))


@given(arrays, arrays, st.sampled_from(TAUS))
@settings(max_examples=60, deadline=None)
def test_intra_class_agrees_with_numpys_correlation(s: np.ndarray, t: np.ndarray, tau: float) -> None:
    assume(min(np.std(1 / (1 + np.exp(-x / tau)), axis=0).min() for x in (s, t)) > 1e-2)
    found = intra_class(torch.from_numpy(s), torch.from_numpy(t), tau).item()
    assert found == pytest.approx(numpys_intra_class(s, t, tau), rel=1e-3, abs=1e-4 * tau**2)


def tempered(tau: float, slope: float, offset: float) -> tuple[Tensor, Tensor]:
    """Student and teacher logits: the student's tempered probabilities are this line of the teacher's."""
    chance = torch.rand(6, C, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    return tau * torch.logit(slope * chance + offset), tau * torch.logit(chance)


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.5, 0.3), (0.1, 0.02)])
def test_intra_class_is_zero_for_a_student_that_ranks_alike_at_any_scale(
    tau: float, slope: float, offset: float
) -> None:
    s, t = tempered(tau, slope, offset)
    assert intra_class(s, t, tau).item() == pytest.approx(0, abs=1e-5 * tau**2)
    assert gradient(lambda x: intra_class(x, t, tau), s).abs().max().item() < 1e-4 * tau
    assert squared(s, t).item() > 0 or slope == 1.0


@pytest.mark.parametrize("tau", TAUS)
def test_intra_class_is_twice_tau_squared_for_a_student_that_ranks_the_other_way_round(tau: float) -> None:
    s, t = tempered(tau, -0.5, 0.9)
    assert intra_class(s, t, tau).item() == pytest.approx(2 * tau**2, rel=1e-5)


def test_intra_class_by_hand() -> None:
    # tempered student 0.2 0.5 0.8, teacher 0.2 0.8 0.5: deviations (-.3, 0, .3) and (-.3, .3, 0), r = 1/2
    s, t = (2.0 * torch.logit(torch.tensor([row]).T) for row in ([0.2, 0.5, 0.8], [0.2, 0.8, 0.5]))
    assert intra_class(s, t, 2.0).item() == pytest.approx(4 * (1 - 0.5), rel=1e-5)


@pytest.mark.parametrize("constant", ["student", "teacher", "both", "a single image"])
def test_intra_class_of_a_label_that_does_not_vary_is_finite(constant: str) -> None:
    s, t = logits(0, scale=1.0), logits(1, scale=1.0)
    for name, of in (("student", s), ("teacher", t)):
        if constant in (name, "both"):
            of[:, 0] = -7.0
    if constant == "a single image":
        s, t = s[:1], t[:1]
    found, slope = intra_class(s, t, 4.0), gradient(lambda x: intra_class(x, t, 4.0), s)
    assert slope.isfinite().all()
    others = 0.0 if constant == "a single image" else (16 - intra_class(s[:, 1:], t[:, 1:], 4.0).item()) * (C - 1) / C
    assert found.item() == pytest.approx(16 - others, rel=1e-4), "its correlation counts as none"


def test_intra_class_weights_are_how_often_an_image_is_there() -> None:
    s, t, drawn = logits(1, batch=4), logits(2, batch=4), [0, 0, 2, 3]
    weights = torch.tensor([2.0, 0.0, 1.0, 1.0])
    assert intra_class(s, t, 4.0, weights).item() == pytest.approx(
        intra_class(s[drawn], t[drawn], 4.0).item(), rel=1e-5
    )
    assert intra_class(s, t, 4.0, 7 * weights).item() == pytest.approx(intra_class(s, t, 4.0, weights).item(), rel=1e-5)


# Attention transfer


def test_attention_by_hand() -> None:
    # mean squares over channels: student (1, 2) of two channels, teacher (4, 1) of one; 2 - 2 * 6 / sqrt(5 * 17)
    student = torch.tensor([[[[1.0, 0.0]], [[1.0, 2.0]]]])
    teacher = torch.tensor([[[[2.0, 1.0]]]])
    assert attention_transfer(student, teacher).item() == pytest.approx(2 - 12 / math.sqrt(85), rel=1e-6)


def maps(seed: int, channels: int, size: int, *, batch: int = 3) -> Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_attention_agrees_with_numpy_for_any_number_of_channels(channels: int) -> None:
    student, teacher = maps(0, channels, 3), maps(1, 4, 3)
    s, t = ((x.double().numpy() ** 2).sum(axis=1).reshape(3, -1) for x in (student, teacher))
    s, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (s, t))
    assert attention_transfer(student, teacher).item() == pytest.approx(((s - t) ** 2).sum(axis=1).mean(), rel=1e-5)


@given(st.floats(0.01, 100), st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_attention_looks_at_where_and_not_at_how_much(one: float, other: float) -> None:
    student, teacher = maps(0, 3, 4), maps(1, 5, 4)
    found = attention_transfer(one * student, other * teacher).item()
    assert found == pytest.approx(attention_transfer(student, teacher).item(), rel=1e-4)
    assert attention_transfer(one * student, -other * student).item() == pytest.approx(0, abs=1e-6)
    assert 0 < found <= 2, "maps have no negative places: they are at right angles at most"


def test_attention_does_not_care_about_the_order_of_channels_or_images() -> None:
    student, teacher = maps(0, 3, 4), maps(1, 5, 4)
    found = attention_transfer(student.flip(1), teacher.roll(2, dims=1)).item()
    assert found == pytest.approx(attention_transfer(student, teacher).item(), rel=1e-5)
    assert attention_transfer(student.flip(0), teacher.flip(0)).item() == pytest.approx(found, rel=1e-5)
    assert attention_transfer(student.flip(3), teacher).item() != pytest.approx(found, rel=1e-2)


def test_attention_of_another_size_is_resized() -> None:
    teacher = maps(1, 5, 2)
    t = teacher.pow(2).mean(dim=1).flatten(1)
    even = (2 - 2 * t.sum(dim=1) / (2 * t.norm(dim=1))).mean()  # one place becomes an even map: (1, 1, 1, 1) / 2
    assert attention_transfer(maps(0, 3, 1), teacher).item() == pytest.approx(even.item(), rel=1e-5)
    assert attention_transfer(torch.ones(3, 2, 7, 7), torch.ones(3, 9, 4, 4)).item() == pytest.approx(0, abs=1e-6)


def test_a_students_map_of_another_size_is_laid_over_the_teachers() -> None:
    teacher, student = torch.ones(1, 2, 4, 4), torch.ones(1, 3, 2, 2)
    teacher[..., :2] = 2
    student[..., 0] = 2
    there = attention_transfer(student, teacher).item()
    assert 0 < there < attention_transfer(student.flip(3), teacher).item()


def test_attention_learns_and_a_dead_map_does_not_blow_up() -> None:
    student, teacher = maps(0, 3, 4), maps(1, 5, 4)
    slope = gradient(lambda x: attention_transfer(x, teacher), student)
    nearer = attention_transfer(student - 0.5 * slope, teacher)
    assert nearer.item() < attention_transfer(student, teacher).item()
    dead = torch.zeros_like(student)
    assert attention_transfer(dead, teacher).item() == pytest.approx(1, rel=1e-5)
    assert gradient(lambda x: attention_transfer(x, teacher), dead).isfinite().all()


# What all terms have in common


@every
@given(st.permutations(range(C)), st.permutations(range(B)))
@settings(max_examples=15, deadline=None)
def test_no_term_cares_about_the_order_of_labels_or_images(term: Term, labels: list[int], images: list[int]) -> None:
    s, t, w = logits(0), logits(1), torch.tensor([0.5, 2.0, 0.0, 1.0, 1.5])
    found = term(s[images][:, labels], t[images][:, labels], w[images])
    assert found.item() == pytest.approx(term(s, t, w).item(), rel=1e-5)
    assert term(s[:, labels], t, w).item() != pytest.approx(found.item(), rel=1e-6) or labels == sorted(labels)


@every
def test_weights_of_one_are_none_and_a_weight_of_nothing_is_no_image(term: Term) -> None:
    s, t = logits(0), logits(1)
    assert term(s, t, torch.ones(B)).item() == pytest.approx(term(s, t, None).item(), rel=1e-6)
    kept = torch.tensor([True, False, True, True, False])
    found = term(s, t, kept.float() * B / 3)
    assert found.item() == pytest.approx(term(s[kept], t[kept], None).item(), rel=1e-5)
    slope = gradient(lambda x: term(x, t, kept.float() * B / 3), s)
    assert slope[~kept].abs().max().item() == 0
    assert slope[kept].abs().min().item() > 0


@pytest.mark.parametrize("name", ["soft", "squared"])
def test_the_teachers_term_is_weighted_as_the_labels_are(name: str) -> None:
    """Weights are a way to draw: [2, 0, 1] of three images is the sum over the first twice and the last."""
    s, t, drawn, term = logits(1, batch=3), logits(2, batch=3), [0, 0, 2], TERMS[name]
    assert term(s, t, torch.tensor([2.0, 0.0, 1.0])).item() == pytest.approx(term(s[drawn], t[drawn], None).item())
    assert term(s, t, torch.full((3,), 2.0)).item() == pytest.approx(2 * term(s, t, None).item(), rel=1e-6)
    assert term(s, s, torch.tensor([2.0, 0.0, 1.0])).item() == pytest.approx(0, abs=1e-6)


@every
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_a_term_computes_in_float32_inside_autocast(term: Term, kind: torch.dtype) -> None:
    """As a student in bf16 and a store in float16 give them: what they have been rounded to, and no further."""
    s, t, w = logits(0).to(kind), logits(1).to(kind), torch.linspace(0.5, 1.5, B)
    outside = term(s.float(), t.float(), w)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = term(s, t, w)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)
    found, exact = (gradient(lambda x, of=of: term(x.to(of), t, w), s.float()) for of in (kind, torch.float32))  # type: ignore[misc]
    assert torch.allclose(found, exact, rtol=2e-2, atol=1e-5)


def test_attention_computes_in_float32_inside_autocast() -> None:
    student, teacher = maps(0, 3, 4).bfloat16(), maps(1, 5, 6).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = attention_transfer(student, teacher)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, attention_transfer(student.float(), teacher.float()))


# How KD combines them

HARD, ATTENTION = torch.tensor(0.7), torch.tensor(0.25)


def test_kd_by_hand() -> None:
    s, t = torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, -2.0]])
    assert KD(tau=2, alpha=0.7)(s, t, torch.tensor(0.5)).item() == pytest.approx(0.7 * 1.1461226 + 0.3 * 0.5, rel=1e-6)
    # squared: (4 + 16) / 2 / 8
    found = KD(form="mse", alpha=0.4)(s, t, torch.tensor(0.5))
    assert found.item() == pytest.approx(0.4 * 1.25 + 0.6 * 0.5, rel=1e-6)


@pytest.mark.parametrize("form", ["kl", "mse"])
@pytest.mark.parametrize("intra", [0.0, 1.5])
@pytest.mark.parametrize("hint", [0.0, 3.0])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 0.0, 1.0, 1.5])], ids=["plain", "weighted"])
def test_kd_is_the_sum_of_what_is_asked_for(form: Any, intra: float, hint: float, weights: Tensor | None) -> None:
    s, t = logits(0), logits(1)
    said = soft(s, t, 2.0, weights) if form == "kl" else squared(s, t, weights)
    said = said + intra * intra_class(s, t, 2.0, weights) + hint * ATTENTION
    kd = KD(tau=2, alpha=0.3, form=form, intra=intra, hint=hint)
    assert kd(s, t, HARD, weights, ATTENTION).item() == pytest.approx(0.3 * said.item() + 0.7 * 0.7, rel=1e-5)


def test_alpha_weighs_the_teacher() -> None:
    s, t = logits(0), logits(1)
    assert torch.equal(KD(tau=4, alpha=0, intra=1, hint=1)(s, t, HARD, None, ATTENTION), HARD)
    assert torch.equal(KD(tau=4, alpha=1)(s, t, HARD), soft(s, t, 4.0))
    assert torch.equal(KD(alpha=1, form="mse")(s, t, HARD), squared(s, t))
    assert gradient(lambda x: KD(alpha=0)(x, t, x.mean()), s).allclose(torch.full((B, C), 1 / (B * C)))


def test_tau_says_nothing_to_the_squared_difference() -> None:
    s, t = logits(0), logits(1)
    assert torch.equal(KD(tau=1, form="mse")(s, t, HARD), KD(tau=8, form="mse")(s, t, HARD))
    assert not torch.equal(KD(tau=1)(s, t, HARD), KD(tau=8)(s, t, HARD))


# Settings that mean nothing


@pytest.mark.parametrize(
    "kd",
    [KD(), KD(form="mse"), KD(hint=2.0), KD(alpha=1.0, tau=8.0), KD(intra=0.5), KD(intra=1.0, hint=1.0, form="mse")],
    ids=str,
)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_teachers_loss_may_be_cut_into_pieces_of_a_batch_as_it_says(kd: KD, size: int) -> None:
    """The gradients of pieces, each by its share of the batch, add up to the batch's if the loss is not `batchwise`."""
    s, t, weights = logits(0, batch=12), logits(1, batch=12), torch.linspace(0.2, 1.8, 12)
    ours, theirs = torch.rand(12, 3, 4, 4), torch.rand(12, 5, 4, 4)

    def gradient(size: int) -> Tensor:
        student = s.clone().requires_grad_()
        pieces = [torch.arange(12)[start : start + size] for start in range(0, 12, size)]
        losses = []
        for of in pieces:
            hard = (student[of] * weights[of, None]).mean()
            attention = attention_transfer(ours[of] * student[of].exp().mean(dim=1)[:, None, None, None], theirs[of])
            losses.append(kd(student[of], t[of], hard, weights[of], attention) * len(of) / 12)
        return torch.autograd.grad(torch.stack(losses).sum(), student)[0]

    assert torch.allclose(gradient(size), gradient(12), rtol=1e-3, atol=1e-7) == (not kd.batchwise)
    assert KD(alpha=0.0, intra=1.0).batchwise == ()


INTRA = "micro_batch is 8 images, and kd.intra compares all images of a batch: in pieces it would be another loss"


def test_pieces_of_a_batch_are_refused_where_the_teacher_compares_its_images() -> None:
    """In a config, in a study's space whichever of the two is swept, and by --set."""
    both = {"kd.intra": 1.0, "micro_batch": 8}
    asks: list[Callable[[], object]] = [
        lambda: RunConfig().with_settings(both),
        lambda: Study("?", distill, RunConfig(micro_batch=8), {"kd.intra": grid_search([0.0, 1.0])}),
        lambda: Study("?", distill, RunConfig(kd=KD(intra=1.0)), {"micro_batch": grid_search([None, 8])}),
        lambda: Study("?", distill, RunConfig(kd=KD(intra=1.0)), {}).with_settings({"micro_batch": 8}),
    ]
    for ask in asks:
        with pytest.raises(BadInput, match=INTRA) as refused:
            ask()
        assert "\n" not in str(refused.value)
    whole = RunConfig().with_settings({"kd.intra": 1.0, "micro_batch": 32, "batch_size": 32})
    assert whole.batchwise == ("kd.intra",)
    assert RunConfig().with_settings(both | {"kd.alpha": 0.0}).batchwise == ()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"kd.tau": 0}, "kd.tau = 0: input should be greater than 0"),
        ({"kd.tau": math.nan}, "kd.tau = nan: input should be a finite number"),
        ({"kd.tau": math.inf}, "kd.tau = inf: input should be a finite number"),
        ({"kd.alpha": 1.2}, "kd.alpha = 1.2: input should be less than or equal to 1"),
        ({"kd.alpha": -0.1}, "kd.alpha = -0.1: input should be greater than or equal to 0"),
        ({"kd.intra": -1}, "kd.intra = -1: input should be greater than or equal to 0"),
        ({"kd.hint": -1}, "kd.hint = -1: input should be greater than or equal to 0"),
        ({"kd.platt": "perhaps"}, "kd.platt = 'perhaps': input should be a valid boolean"),
        ({"kd.form": "msee"}, "kd.form = 'msee': input should be 'kl' or 'mse'"),
        ({"kd.from": "mse"}, "unknown setting 'kd.from'; did you mean 'kd.form'?"),
        ({"kd.temperature": 4}, "unknown setting 'kd.temperature'"),
    ],
)
def test_kd_that_means_nothing_is_refused_in_one_sentence(setting: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput) as refused:
        RunConfig().with_settings(setting)
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


NO_POS_WEIGHT = r"unknown setting 'kd\.pos_weight': the soft term has none, .* tau log w; set loss=weighted_bce"


def test_a_pos_weight_in_the_soft_term_is_refused_with_why_wherever_it_is_asked_for() -> None:
    study = Study(question="?", trainable=distill, base=RunConfig(), space={"kd.tau": 4.0}, teacher=RunConfig())
    asks: list[Callable[[], object]] = [
        lambda: RunConfig().with_settings({"kd.pos_weight": 8.0}),
        lambda: RunConfig().with_settings({"kd": {"pos_weight": [1.0, 2.0]}}),
        lambda: study.with_settings({"kd.pos_weight": 8.0}),
        lambda: replace(study, space={"kd.pos_weight": grid_search([1.0, 8.0])}),
    ]
    for ask in asks:
        with pytest.raises(BadInput, match=NO_POS_WEIGHT) as refused:
            ask()
        assert "\n" not in str(refused.value)
    with pytest.raises(BadInput, match=NO_POS_WEIGHT.replace("kd", "").replace(r"\.", "")):
        KD(pos_weight=2.0)  # type: ignore[call-arg]
