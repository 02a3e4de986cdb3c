from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from timm.loss import AsymmetricLossMultiLabel
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss  # type: ignore[import-untyped]

from xlite_search.errors import BadInput
from xlite_search.spec import Spec, parse, specs_in
from xlite_search.training.losses import BCE, Asymmetric, Focal, Loss, LossFunction, Mixed, WeightedBCE, asymmetric, bce
from xlite_search.training.weighting import EffectiveNumber

N = 78_484

EVERY: list[Loss] = [
    BCE(),
    BCE(smoothing=0.1),
    WeightedBCE(),
    WeightedBCE(weighting="inverse_sqrt"),
    WeightedBCE(weighting="effective_number", clip=1.1, smoothing=0.2),
    Focal(),
    Focal(gamma=0.5, alpha="inverse_frequency"),
    Focal(gamma=0, alpha=tuple(i / 16 for i in range(1, 15))),
    Mixed(),
    Asymmetric(),
    Asymmetric(gamma_pos=0.5, gamma_neg=0.3, clip=0),
]
every = pytest.mark.parametrize("spec", EVERY, ids=lambda spec: str(spec))

some_logits = hnp.arrays(np.float32, (3, 4), elements=st.floats(-8, 8, width=32))


def logits(seed: int, *, batch: int = 5, classes: int = 14, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed))


def labels(seed: int, *, batch: int = 5, classes: int = 14) -> Tensor:
    return (torch.rand(batch, classes, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


def mixed_labels(seed: int, *, batch: int = 5) -> Tensor:
    """Targets as MixUp makes them: 0, 1 and in between."""
    return 0.3 * labels(seed, batch=batch) + 0.7 * labels(seed + 1, batch=batch)


def built(spec: Loss) -> LossFunction:
    """With 14 findings in 20 images: one in none, others in 1 to 13."""
    return spec.build(torch.arange(14.0), 20)


class OneLoss(Spec):
    loss: Loss = BCE()


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


@every
def test_an_image_of_whole_weight_is_that_many_images(spec: Loss) -> None:
    """Weights are a way to draw: [2, 0, 1] of three images is the sum over the first twice and the last."""
    s, y = logits(1, batch=3), mixed_labels(2, batch=3)
    loss, drawn = built(spec), [0, 0, 2]
    assert loss(s, y, torch.tensor([2.0, 0.0, 1.0])).item() == pytest.approx(loss(s[drawn], y[drawn]).item(), rel=1e-5)
    assert loss(s, y, torch.ones(3)).item() == pytest.approx(loss(s, y).item(), rel=1e-6)
    assert loss(s, y, torch.full((3,), 2.0)).item() == pytest.approx(2 * loss(s, y).item(), rel=1e-6)


@given(st.lists(st.booleans(), min_size=6, max_size=6).filter(any), st.sampled_from(EVERY))
@settings(max_examples=60, deadline=None)
def test_masked_images_are_as_if_they_were_not_there(mask: list[bool], spec: Loss) -> None:
    s, y, kept = logits(1, batch=6), mixed_labels(2, batch=6), torch.tensor(mask)
    found = built(spec)(s, y, kept.float() * 6 / sum(mask))
    assert found.item() == pytest.approx(built(spec)(s[kept], y[kept]).item(), rel=1e-5)


def test_pos_weight_moves_the_optimal_logit_by_its_logarithm() -> None:
    # one positive in 6 images: the optimum without a weight is log(1 / 5), the ratio is 5 / 2
    guess = torch.full((6, 1), math.log(1 / 5) + math.log(5 / 2), requires_grad=True)
    truth = torch.tensor([[1.0], [0.0], [0.0], [0.0], [0.0], [0.0]])
    slope = torch.autograd.grad(WeightedBCE().build(torch.tensor([1.0]), 6)(guess, truth), guess)[0].sum()
    assert slope.item() == pytest.approx(0, abs=1e-7)


@every
def test_a_hard_loss_does_not_care_about_the_order_of_labels(spec: Loss) -> None:
    counts, y, order = (
        torch.arange(14.0),
        mixed_labels(1),
        torch.randperm(14, generator=torch.Generator().manual_seed(2)),
    )
    alike = spec
    if isinstance(spec, Focal) and isinstance(spec.alpha, tuple):
        alike = spec.model_copy(update={"alpha": tuple(spec.alpha[i] for i in order)})
    one = spec.build(counts, 20)(logits(0), y)
    other = alike.build(counts[order], 20)(logits(0)[:, order], y[:, order])
    assert one.item() == pytest.approx(other.item(), rel=1e-5)


@every
def test_a_batch_twice_is_the_batch_once(spec: Loss) -> None:
    s, y = logits(0), mixed_labels(1)
    found = built(spec)(torch.cat([s, s]), torch.cat([y, y]))
    assert found.item() == pytest.approx(built(spec)(s, y).item(), rel=1e-5)


@every
def test_a_target_in_between_is_that_much_of_both(spec: Loss) -> None:
    s, loss = logits(0), built(spec)
    both = 0.3 * loss(s, torch.ones(5, 14)) + 0.7 * loss(s, torch.zeros(5, 14))
    assert loss(s, torch.full((5, 14), 0.3)).item() == pytest.approx(both.item(), rel=1e-5)


@every
def test_the_gradient_is_that_of_the_value(spec: Loss) -> None:
    s, y = logits(0).double().requires_grad_(), mixed_labels(1).double()
    weights = torch.tensor([0.5, 2.0, 0.0, 1.0, 1.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: built(spec)(x, y, weights), s)


@pytest.mark.parametrize(
    "spec",
    [
        *EVERY,
        Focal(gamma=0.01),
        Focal(gamma=100, alpha=1),
        Asymmetric(gamma_pos=0, gamma_neg=0.01, clip=0),
        Asymmetric(gamma_pos=100, gamma_neg=100, clip=1e-30),
        Asymmetric(gamma_neg=0, clip=0.999),
    ],
    ids=lambda spec: str(spec),
)
def test_nothing_overflows_at_the_ends(spec: Loss) -> None:
    far = torch.tensor([0.0, 1e-30, 1e-4, 1.0, 17.0, 90.0, 1e4])
    s = torch.cat([far, -far])[:, None].repeat(1, 14).requires_grad_()
    for target in (0.0, 0.5, 1.0):
        loss = built(spec)(s, torch.full_like(s, target))
        assert math.isfinite(loss.item()) and loss.item() >= 0
        assert torch.autograd.grad(loss, s)[0].isfinite().all()


def test_a_wrong_answer_costs_its_logit_however_sure_it_is() -> None:
    wrong, yes = torch.tensor([[-1e4]]), torch.ones(1, 1)
    assert Focal().build(yes[0], 4)(wrong, yes).item() == pytest.approx(0.25 * 1e4)
    assert Focal().build(yes[0], 4)(-wrong, 0 * yes).item() == pytest.approx(0.75 * 1e4)
    assert Asymmetric(clip=0).build(yes[0], 4)(-wrong, 0 * yes).item() == pytest.approx(1e4)
    assert Asymmetric(clip=0.05).build(yes[0], 4)(-wrong, 0 * yes).item() == pytest.approx(
        0.95**4 * math.log(20), rel=1e-6
    )


P3 = math.log(3)  # the logit of 0.75


def test_smoothed_bce_by_hand() -> None:
    # s = 0.2: the positive's target is 0.9, the negative's 0.1; -log 0.75 = log(4/3), -log 0.25 = log 4
    found = BCE(smoothing=0.2).build(torch.ones(1), 2)(torch.tensor([[P3], [P3]]), torch.tensor([[1.0], [0.0]]))
    yes, no = math.log(4 / 3), math.log(4)
    assert found.item() == pytest.approx((0.9 * yes + 0.1 * no + 0.1 * yes + 0.9 * no) / 2, rel=1e-6)


def test_focal_by_hand() -> None:
    # alpha (1 - p)^2 (-log p) and (1 - alpha) p^2 (-log(1 - p)) at p = 0.75
    found = Focal().build(torch.ones(1), 2)(torch.tensor([[P3], [P3]]), torch.tensor([[1.0], [0.0]]))
    positive, negative = 0.25 * 0.25**2 * math.log(4 / 3), 0.75 * 0.75**2 * math.log(4)
    assert found.item() == pytest.approx((positive + negative) / 2, rel=1e-6)


def test_focal_with_an_alpha_for_each_finding_by_hand() -> None:
    # at p = 0.5 every term is alpha_t * 0.25 * log 2
    found = Focal(alpha=(0.1, 0.6)).build(torch.ones(2), 2)(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    assert found.item() == pytest.approx((0.1 + 0.4) * 0.25 * math.log(2) / 2, rel=1e-6)


def test_mixed_by_hand() -> None:
    found = Mixed().build(torch.ones(1), 2)(torch.tensor([[P3]]), torch.tensor([[1.0]]))
    assert found.item() == pytest.approx((0.7 + 0.3 * 0.25 * 0.25**2) * math.log(4 / 3), rel=1e-6)
    less = Mixed(share=0.2, gamma=1, alpha=0.5).build(torch.ones(1), 2)(torch.tensor([[P3]]), torch.tensor([[1.0]]))
    assert less.item() == pytest.approx((0.2 + 0.8 * 0.5 * 0.25) * math.log(4 / 3), rel=1e-6)


def test_asymmetric_by_hand() -> None:
    # p = 0.75: positive (1 - p) (-log p); negative q^4 (-log(1 - q)) with q = 0.75 - 0.05
    found = Asymmetric().build(torch.ones(1), 2)(torch.tensor([[P3], [P3]]), torch.tensor([[1.0], [0.0]]))
    assert found.item() == pytest.approx((0.25 * math.log(4 / 3) - 0.7**4 * math.log(0.3)) / 2, rel=1e-6)


def test_a_negative_below_the_clip_costs_nothing() -> None:
    s = torch.tensor([[math.log(0.04 / 0.96)]], requires_grad=True)
    loss = asymmetric(s, torch.zeros(1, 1), gammas=(1, 4), clip=0.05)
    assert loss.item() == torch.autograd.grad(loss, s)[0].item() == 0


@pytest.mark.parametrize("setting", [(4, 1, 0.05), (2, 0, 0.2), (0, 0, 0), (3, 0.5, 0)])
def test_asymmetric_agrees_with_timm(setting: tuple[float, float, float]) -> None:
    gamma_neg, gamma_pos, clip = setting
    theirs = AsymmetricLossMultiLabel(gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip)
    ours = Asymmetric(gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip)
    expected = theirs(logits(0), labels(1)).item() / 14  # theirs sums over classes
    assert built(ours)(logits(0), labels(1)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("gamma", "alpha"), [(2, 0.25), (0, 0.9), (1.5, 0.5), (5, 0.01)])
def test_focal_agrees_with_torchvision(gamma: float, alpha: float) -> None:
    expected = sigmoid_focal_loss(logits(0), labels(1), alpha=alpha, gamma=gamma, reduction="mean").item()
    assert built(Focal(gamma=gamma, alpha=alpha))(logits(0), labels(1)).item() == pytest.approx(expected, rel=1e-5)


@given(some_logits, hnp.arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)))
@settings(max_examples=60, deadline=None)
def test_the_family_meets(s: np.ndarray, y: np.ndarray) -> None:
    """Focal without focus is half of BCE, mixed with all of one is that one, asymmetric without asymmetry is focal."""
    x, targets, counts = torch.from_numpy(s), torch.from_numpy(y), torch.ones(4)

    def value(spec: Loss) -> float:
        return float(spec.build(counts, 10)(x, targets))

    plain = bce(x, targets).item()
    assert value(Focal(gamma=0, alpha=0.5)) == pytest.approx(plain / 2, rel=1e-5, abs=1e-7)  # float32 beside 1
    assert value(Mixed(share=1)) == pytest.approx(plain, rel=1e-6)
    assert value(Mixed(share=0, gamma=3, alpha=0.1)) == pytest.approx(value(Focal(gamma=3, alpha=0.1)), rel=1e-6)
    even = Asymmetric(gamma_pos=2, gamma_neg=2, clip=0)
    assert value(even) == pytest.approx(2 * value(Focal(gamma=2, alpha=0.5)), rel=1e-4, abs=1e-7)


def test_inverse_frequency_balances_as_the_ratio_does() -> None:
    # alpha / (1 - alpha) = (N - n) / (n + 1); without focus, focal is (1 - alpha) times the weighted BCE
    counts = torch.tensor([3.0])
    alpha = Focal(alpha="inverse_frequency").alphas(counts, 10)
    assert alpha.tolist() == pytest.approx([7 / 11])
    s, y = logits(0, classes=1), labels(3, classes=1)
    found = Focal(gamma=0, alpha="inverse_frequency").build(counts, 10)(s, y).item()
    assert found == pytest.approx(4 / 11 * WeightedBCE().build(counts, 10)(s, y).item(), rel=1e-5)


def test_effective_number_by_hand() -> None:
    # beta 0.5: (1 - 0.5) / (1 - 0.5^n) is 1 for n = 1 and 2/3 for n = 2, mean 5/6
    found = WeightedBCE(weighting=EffectiveNumber(beta=0.5)).pos_weight(torch.tensor([1.0, 2.0]), 10)
    assert found is not None
    assert found.tolist() == pytest.approx([6 / 5, 4 / 5], rel=1e-6)


def test_effective_number_lies_between_no_weight_and_one_over_n() -> None:
    counts = torch.tensor([227.0, 1431.0, 19_894.0])
    none = EffectiveNumber(beta=0).of(counts, 112_120)
    nearly = EffectiveNumber(beta=1 - 1e-10).of(counts, 112_120)
    assert none.tolist() == [1, 1, 1]
    assert (nearly * counts / nearly[0] / counts[0]).tolist() == pytest.approx([1, 1, 1], rel=1e-4)
    ours = EffectiveNumber().of(counts, 112_120)
    # Hernia over Infiltration: (1 - 0.9999^19894) / (1 - 0.9999^227)
    assert (ours[0] / ours[2]).item() == pytest.approx((1 - 0.9999**19_894) / (1 - 0.9999**227), rel=1e-5)


@pytest.mark.parametrize("weighting", ["inverse_sqrt", "effective_number"])
def test_scaled_weights_have_a_mean_of_one(weighting: str) -> None:
    spec = parse(WeightedBCE, {"weighting": weighting})
    found = spec.pos_weight(torch.tensor([0.0, 227.0, 19_894.0]), 112_120)
    assert found is not None and found.dtype == torch.float32
    assert found.mean().item() == pytest.approx(1, rel=1e-6)
    assert found[0] > found[1] > found[2] > 0


def test_no_weight_is_above_the_clip() -> None:
    counts = torch.tensor([1.0, 4.0, 8.0])  # ratios of 10 images: 9/2, 6/5, 2/9
    clipped = WeightedBCE(clip=2).pos_weight(counts, 10)
    assert clipped is not None
    assert clipped.tolist() == pytest.approx([2, 6 / 5, 2 / 9])
    found = WeightedBCE(clip=2).build(counts, 10)(torch.zeros(1, 3), torch.ones(1, 3))
    assert found.item() == pytest.approx((2 + 6 / 5 + 2 / 9) * math.log(2) / 3, rel=1e-6)


@every
def test_a_finding_that_nobody_has_is_weighed_and_trained(spec: Loss) -> None:
    nobody = torch.zeros(14)
    weight = spec.pos_weight(nobody, 20)
    assert weight is None or (weight.isfinite().all() and (weight > 0).all())
    s = logits(0).requires_grad_()
    slope = torch.autograd.grad(spec.build(nobody, 20)(s, torch.zeros(5, 14)), s)[0]
    assert slope.isfinite().all() and (slope.sum(0) > 0).all()


@every
def test_what_is_told_to_a_teacher_is_what_moves_the_optimum(spec: Loss) -> None:
    """A pos_weight moves it by its logarithm, label smoothing or not; where there is none, nothing is told."""
    counts, chance = torch.full((14,), 4.0), 0.2
    weight = spec.pos_weight(counts, 20)
    assert (weight is None) == (not isinstance(spec, WeightedBCE))
    if not isinstance(spec, BCE | WeightedBCE):
        return
    target = chance * (1 - spec.smoothing) + spec.smoothing / 2
    shift = torch.log(weight) if weight is not None else torch.zeros(14)
    best = (math.log(target / (1 - target)) + shift).double()[None].requires_grad_()
    loss = spec.build(counts, 20)(best, torch.full((1, 14), chance, dtype=torch.float64))
    assert torch.autograd.grad(loss, best)[0].abs().max().item() < 1e-7


def test_the_figures_in_the_docstrings() -> None:
    """The best logit at 0.2 % under smoothing of 0.1, and at 5 % under the focal loss: -2.9 and -1.5."""
    fine = torch.linspace(-8, 2, 2001, dtype=torch.float64)[:, None]

    def best(spec: Loss, chance: float) -> float:
        loss = spec.build(torch.ones(1), 10)
        target = torch.full((1, 1), chance, dtype=torch.float64)
        costs = torch.stack([loss(x[None], target) for x in fine])
        return float(fine[costs.argmin()])

    assert round(best(BCE(smoothing=0.1), 0.002), 1) == -2.9
    assert round(best(Focal(), 0.05), 1) == -1.5


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_losses_compute_in_float32_inside_autocast(kind: torch.dtype) -> None:
    s, y = logits(0).to(kind), mixed_labels(2)
    outside = [built(spec)(s.float(), y) for spec in EVERY]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = [built(spec)(s, y) for spec in EVERY]
    assert all(value.dtype == torch.float32 for value in inside)
    assert torch.equal(torch.stack(inside), torch.stack(outside))


@every
@pytest.mark.parametrize("sizes", [(2, 2, 2), (4, 2), (3, 3)])
def test_a_loss_may_be_cut_into_pieces_of_a_batch_as_it_says(spec: Loss, sizes: tuple[int, ...]) -> None:
    """The gradients of pieces, each by its share of the batch, add up to the batch's if a loss is not `batchwise`."""
    loss, x, y, weights = built(spec), logits(0, batch=6), mixed_labels(1, batch=6), torch.linspace(0.2, 1.8, 6)

    def gradient(pieces: tuple[int, ...]) -> Tensor:
        student = x.clone().requires_grad_()
        rows = torch.arange(6).tensor_split(torch.tensor(pieces).cumsum(0)[:-1])
        losses = [loss(student[of], y[of], weights[of]) * len(of) / 6 for of in rows]
        return torch.autograd.grad(torch.stack(losses).sum(), student)[0]

    assert torch.allclose(gradient(sizes), gradient((6,)), rtol=1e-4, atol=1e-7) == (not spec.batchwise)


def test_every_loss_there_is_is_tried_above() -> None:
    assert {type(spec) for spec in EVERY} == set(specs_in(OneLoss.model_fields["loss"].annotation))


def test_a_finding_in_every_image_cannot_be_balanced_by_its_ratio() -> None:
    with pytest.raises(BadInput, match="positive in every training image"):
        WeightedBCE().pos_weight(torch.tensor([3.0, 10.0]), 10)
    with pytest.raises(BadInput, match=r"loss.alpha = 'inverse_frequency': a finding is positive in every"):
        Focal(alpha="inverse_frequency").build(torch.tensor([3.0, 10.0]), 10)


def test_a_loss_reads_back_as_it_was_written() -> None:
    for spec in EVERY:
        assert parse(OneLoss, {"loss": spec.model_dump(mode="json")}).loss == spec
    assert OneLoss().with_settings({"loss": "bce_focal"}).loss == Mixed()
    settings = {"loss": "weighted_bce", "loss.weighting": "effective_number", "loss.weighting.beta": 0.99}
    assert OneLoss().with_settings(settings).loss == WeightedBCE(weighting=EffectiveNumber(beta=0.99))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"loss": "focall"}, "did you mean 'focal'?"),
        ({"loss": "weighted_bce", "loss.weighting": "ratoi"}, "did you mean 'ratio'?"),
        ({"loss": "weighted_bce", "loss.weighting": {"name": "ratio", "beta": 0.9}}, "'loss.weighting.beta' is not"),
        ({"loss": "weighted_bce", "loss.weighting": {"name": "effective_number", "beta": 1}}, "less than 1"),
        ({"loss": "weighted_bce", "loss.clip": 0}, "loss.clip = 0"),
        ({"loss": "focal", "loss.weighting": "ratio"}, "'loss.weighting' is not a setting of loss = 'focal'"),
        ({"loss": "focal", "loss.gamma": -1}, "loss.gamma = -1"),
        ({"loss": "focal", "loss.alpha": 1.5}, "loss.alpha = 1.5: expected a number from 0 to 1"),
        ({"loss": "focal", "loss.alpha": [0.1, -1]}, "loss.alpha = [0.1, -1]: expected a number from 0 to 1"),
        ({"loss": "focal", "loss.alpha": []}, "loss.alpha = []: expected a number from 0 to 1"),
        ({"loss": "focal", "loss.alpha": "inverse_freq"}, "did you mean 'inverse_frequency'?"),
        ({"loss": "asymmetric", "loss.clip": 1}, "loss.clip = 1: input should be less than 1"),
        ({"loss": "bce", "loss.smoothing": 1}, "loss.smoothing = 1: input should be less than 1"),
        ({"loss": "bce_focal", "loss.share": 2}, "loss.share = 2"),
    ],
)
def test_a_loss_that_means_nothing_is_refused_in_one_sentence(setting: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInput) as refused:
        OneLoss().with_settings(setting)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_alpha_for_each_finding_means_each() -> None:
    with pytest.raises(BadInput, match=r"loss.alpha has 3 values and the data have 14 findings; give one for each"):
        built(Focal(alpha=(0.1, 0.2, 0.3)))
