from __future__ import annotations

import csv
import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.figure import Figure
from numpy.typing import NDArray

from xlite_search.data.audit import Audit
from xlite_search.data.audit import audit_of as audit
from xlite_search.data.samplers import (
    Draws,
    Labels,
    MaxRarity,
    MeanRarity,
    OfLargest,
    Sampler,
    Shuffled,
    Unscaled,
    occurrence,
)
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.errors import BadInput
from xlite_search.spec import Spec, parse
from xlite_search.training import balance
from xlite_search.training.balance import combined, figure, odds, pos_weights, table, warnings
from xlite_search.training.losses import BCE, Loss, WeightedBCE

AnySampler = Shuffled | MaxRarity | MeanRarity

#: A in images 0 and 1, B in 1; image 2 has neither. Counts 2, 1 and 1: rarities 1/3 and 1/2, No Finding as a class 1/2.
TINY = np.array([[1, 0], [1, 1], [0, 0]], np.uint8)
UNEVEN = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]], np.uint8)

RARITY = [
    kind(no_finding=choice) for kind in (MaxRarity, MeanRarity) for choice in ("as_class", "of_largest", "unscaled")
]
IN_LOSS: list[AnySampler] = [MaxRarity(apply="loss"), MeanRarity(apply="loss", no_finding=OfLargest())]
ALL: list[AnySampler] = [Shuffled(), *RARITY, *IN_LOSS]
BATCHES, BATCH = 500, 32

some_labels = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=st.integers(0, 1))


class Holder(Spec):
    """As a run's config will hold a sampler."""

    sampler: Sampler = Shuffled()


@pytest.fixture(scope="module")
def nih(shared: Path) -> Labels:
    """The whole NIH table, read here and not by the package."""
    path = shared / "data" / "chestxray14" / "Data_Entry_2017_v2020.csv.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        named = [set(row["Finding Labels"].split("|")) for row in csv.DictReader(file)]
    return np.array([[finding in there for finding in CHEST_FINDINGS] for there in named], np.uint8)


def named(labels: Labels) -> list[str]:
    return [f"F{column}" for column in range(labels.shape[1])]


def shares_with_normal(labels: Labels, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Draws that show each finding, and none, `[class + 1]`."""
    drawn = labels[positions]
    return np.array([*drawn.sum(axis=0), (~drawn.any(axis=1)).sum()])


# weights


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (Shuffled(), [1, 1, 1]),
        (MaxRarity(), [1 / 3, 1 / 2, 1 / 2]),
        (MaxRarity(no_finding="of_largest"), [1 / 3, 1 / 2, 0.01 / 2]),
        (MaxRarity(no_finding=OfLargest(share=0.5)), [1 / 3, 1 / 2, 1 / 4]),
        (MaxRarity(no_finding="unscaled"), [1 / 3, 1 / 2, 0.01]),
        (MeanRarity(), [1 / 3, 5 / 12, 1 / 2]),
        (MeanRarity(no_finding="of_largest"), [1 / 3, 5 / 12, 0.01 * 5 / 12]),
        (MeanRarity(no_finding=Unscaled(weight=0.2)), [1 / 3, 5 / 12, 0.2]),
    ],
)
def test_weights_by_hand(spec: AnySampler, expected: list[float]) -> None:
    assert spec.weights(TINY).tolist() == pytest.approx(expected, rel=1e-12)


def test_weights_in_the_loss_have_mean_one_and_every_image_is_drawn_once() -> None:
    draws = MaxRarity(apply="loss").build(TINY)
    assert draws.sample_weights is not None
    assert draws.sample_weights.tolist() == pytest.approx([3 / 4, 9 / 8, 9 / 8], rel=1e-12)
    assert np.array_equal(draws.epoch(3, 4), Shuffled().build(TINY).epoch(3, 4))
    assert MaxRarity().build(TINY).sample_weights is None
    assert Shuffled().build(TINY).sample_weights is None


@pytest.mark.parametrize("spec", RARITY, ids=lambda s: s.title)
def test_images_without_any_finding_are_drawn_evenly(spec: AnySampler) -> None:
    weights = spec.weights(np.zeros((4, 3), np.uint8))
    assert len(set(weights.tolist())) == 1
    assert weights[0] > 0


@settings(deadline=None)
@given(some_labels)
def test_weights_are_above_zero_and_finite(labels: Labels) -> None:
    before = labels.copy()
    for spec in ALL:
        weights = spec.weights(labels)
        assert weights.shape == (len(labels),)
        assert np.isfinite(weights).all()
        assert (weights > 0).all()
    assert np.array_equal(labels, before)


@settings(deadline=None)
@given(some_labels, st.randoms(use_true_random=False))
def test_the_order_of_images_and_findings_does_not_matter(labels: Labels, random: object) -> None:
    generator = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    images, findings = generator.permutation(len(labels)), generator.permutation(labels.shape[1])
    for spec in ALL:
        assert spec.weights(labels[images][:, findings]) == pytest.approx(spec.weights(labels)[images], rel=1e-12)
        one, other = audit(spec, labels, named(labels)), audit(spec, labels[images][:, findings], named(labels))
        assert other.prevalence == pytest.approx(np.array(one.prevalence)[findings], rel=1e-9)
        for figure_of in ("no_finding", "cv", "effective_size", "distinct", "heaviest"):
            assert getattr(other, figure_of) == pytest.approx(getattr(one, figure_of), rel=1e-9)


@settings(deadline=None)
@given(some_labels)
def test_shares_hardly_change_when_everything_is_doubled(labels: Labels) -> None:
    """1/(2c + 1) against 1/(c + 1), halved: they differ by a factor of at most (2m + 2)/(2m + 1), m the least count."""
    counts = np.array([*labels.sum(axis=0), (~labels.any(axis=1)).sum()])
    least = counts[counts > 0].min()
    factor = (2 * least + 2) / (2 * least + 1) * (1 + 1e-9)
    for spec in ALL:
        if "unscaled" in spec.title:
            continue
        once, twice = spec.weights(labels), spec.weights(np.concatenate([labels, labels]))[: len(labels)]
        change = (twice / twice.sum()) / (once / once.sum())
        assert change.max() <= factor
        assert change.min() >= 1 / factor


def test_the_unscaled_rule_drowns_findings_in_normals_as_the_data_grow() -> None:
    once = np.repeat(UNEVEN, 20, axis=0)
    shares = [audit(MeanRarity(no_finding="unscaled"), np.tile(once, (k, 1)), "ABC").no_finding for k in (1, 10, 300)]
    assert shares[0] < 0.2
    assert shares[2] > 0.9
    assert shares == sorted(shares)


# draws


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("epoch", [1, 2])
def test_none_is_the_permutation_that_recorded_losses_depend_on(seed: int, epoch: int) -> None:
    expected = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(100)
    found = Shuffled().build(np.zeros((100, 2), np.uint8)).epoch(seed, epoch)
    assert np.array_equal(found, expected)
    assert found.dtype == np.int64


@settings(deadline=None)
@given(some_labels, st.integers(0, 2**32), st.integers(0, 1000))
def test_a_draw_depends_on_seed_and_epoch_alone(labels: Labels, seed: int, epoch: int) -> None:
    for spec in ALL:
        draws = spec.build(labels)
        first = draws.epoch(seed, epoch)
        draws.epoch(seed, epoch + 1)
        assert np.array_equal(draws.epoch(seed, epoch), first)
        assert np.array_equal(spec.build(labels).epoch(seed, epoch), first)
        assert first.dtype == np.int64
        assert first.shape == (len(labels),)
        assert ((first >= 0) & (first < len(labels))).all()


@pytest.mark.parametrize("spec", ALL, ids=lambda s: s.title)
def test_epochs_and_seeds_differ(spec: AnySampler) -> None:
    draws = spec.build(np.tile(UNEVEN, (50, 1)))
    several = [draws.epoch(seed, epoch) for seed in (0, 1) for epoch in (1, 2, 3)]
    assert all(not np.array_equal(one, other) for one, other in itertools.combinations(several, 2))


def test_a_weighted_draw_is_the_inverse_of_the_cumulated_chances() -> None:
    weights = np.array([1.0, 5.0, 2.0])
    uniform = np.random.Generator(np.random.Philox(key=[5, 6])).random(3)
    expected = [0 if u < 1 / 8 else 1 if u < 6 / 8 else 2 for u in uniform]
    assert Draws.weighted(weights).epoch(5, 6).tolist() == expected


@pytest.mark.parametrize("empty", [[0], [999], [0, 1, 2, 998, 999], [*range(1, 1000)]])
def test_an_image_of_weight_zero_is_never_drawn(empty: list[int]) -> None:
    weights = np.random.default_rng(0).random(1000) + 0.1
    weights[empty] = 0
    draws = Draws.weighted(weights)
    drawn = np.concatenate([draws.epoch(0, epoch) for epoch in range(20)])
    assert not np.isin(drawn, empty).any()


class Edge:
    """A generator that only ever gives one number."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self, count: int) -> NDArray[np.float64]:
        return np.full(count, self.number)


@pytest.mark.parametrize(("number", "expected"), [(0.0, 1), (1 - 2.0**-53, 3)])
def test_the_ends_of_the_interval_draw_images_that_have_a_weight(
    number: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np.random, "Generator", lambda _: Edge(number))
    assert Draws.weighted(np.array([0, 0.1, 0.7, 0.3, 0])).epoch(0, 0).tolist() == [expected] * 5


@settings(deadline=None)
@given(hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(0, 8)))
def test_occurrence_counts_earlier_draws(positions: NDArray[np.int64]) -> None:
    drawn = positions.tolist()
    assert occurrence(positions).tolist() == [drawn[:place].count(image) for place, image in enumerate(drawn)]


def test_occurrence_of_images_that_are_drawn_once_is_zero() -> None:
    assert not occurrence(Shuffled().build(np.zeros((50, 1), np.uint8)).epoch(0, 1)).any()


# the audit, in closed form


@pytest.mark.parametrize("spec", ALL, ids=lambda s: s.title)
@pytest.mark.parametrize("labels", [TINY, UNEVEN, UNEVEN[:, :1]])
def test_the_audit_is_the_expectation_over_every_possible_epoch(spec: AnySampler, labels: Labels) -> None:
    images = len(labels)
    draws = spec.build(labels)
    if draws.chances is None:
        epochs = dict.fromkeys(itertools.permutations(range(images)), 1.0)
    else:
        chance = np.diff(draws.chances, prepend=0)
        epochs = {order: float(chance[list(order)].prod()) for order in itertools.product(range(images), repeat=images)}
    value = np.ones(images) if draws.sample_weights is None else draws.sample_weights
    total = sum(epochs.values())
    shown = sum(p / total * (labels * value[:, None])[list(order)].mean(axis=0) for order, p in epochs.items())
    normal = sum(p / total * (~labels.any(axis=1) * value)[list(order)].mean() for order, p in epochs.items())
    times = sum(p / total * np.bincount(order, minlength=images) * value for order, p in epochs.items())
    different = sum(p / total * len(set(order)) for order, p in epochs.items())
    found = audit(spec, labels, named(labels))
    assert found.prevalence == pytest.approx(shown, rel=1e-9)
    assert found.no_finding == pytest.approx(normal, rel=1e-9)
    assert found.heaviest == pytest.approx(np.max(times), rel=1e-9)
    assert found.distinct == pytest.approx(different, rel=1e-9)


def test_the_audit_by_hand() -> None:
    # weights 1/3, 1/2, 1/2, so shares 1/4, 3/8, 3/8: A 5/8, B 3/8
    found = audit(MaxRarity(), TINY, ["A", "B"])
    assert found.prevalence == pytest.approx((5 / 8, 3 / 8), rel=1e-12)
    assert found.no_finding == pytest.approx(3 / 8, rel=1e-12)
    assert found.cv == pytest.approx((1 / 8) / (1 / 2), rel=1e-12)
    assert found.effective_size == pytest.approx((4 / 3) ** 2 / (1 / 9 + 1 / 4 + 1 / 4), rel=1e-12)
    assert found.distinct == pytest.approx(3 - (3 / 4) ** 3 - 2 * (5 / 8) ** 3, rel=1e-12)
    assert found.heaviest == pytest.approx(9 / 8, rel=1e-12)
    assert found.repeats == pytest.approx((15 / 16, 9 / 8), rel=1e-12)
    assert (found.images, found.draws, found.positives, found.normals) == (3, 3, (2, 1), 1)


@pytest.mark.parametrize(
    ("spec", "distinct", "most"),
    [(Shuffled(), 2, 2 / 3), (MaxRarity(), 3 - (3 / 4) ** 2 - 2 * (5 / 8) ** 2, 3 / 4), (IN_LOSS[0], 2, 9 / 8)],
)
def test_a_shorter_epoch(spec: AnySampler, distinct: float, most: float) -> None:
    found = audit(spec, TINY, "AB", draws=2)
    assert found.draws == 2
    assert found.distinct == pytest.approx(distinct, rel=1e-12)
    assert found.heaviest == pytest.approx(most, rel=1e-12)


@pytest.mark.parametrize("labels", [np.zeros((3, 2), np.uint8), np.ones((1, 1), np.uint8), np.ones((4, 2), np.uint8)])
@pytest.mark.parametrize("spec", ALL, ids=lambda s: s.title)
def test_odd_data_have_an_audit_of_finite_numbers(spec: AnySampler, labels: Labels) -> None:
    found = audit(spec, labels, named(labels))
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["images"] == len(labels)
    assert found.cv == 0
    assert found.effective_size == pytest.approx(len(labels))


def test_an_audit_is_plain_json_with_findings_by_name() -> None:
    found = audit(MaxRarity(no_finding="of_largest", apply="loss"), TINY, ("A", "B")).as_dict()
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert again["sampler"] == "max_rarity, no_finding = of_largest 0.01, apply = loss"
    assert again["positives"] == {"A": 2, "B": 1}
    assert list(again["prevalence"]) == ["A", "B"]


def test_labels_may_be_floats_as_in_a_batch() -> None:
    for spec in ALL:
        floats = UNEVEN.astype(np.float32)
        assert np.array_equal(spec.weights(floats), spec.weights(UNEVEN))
        assert audit(spec, floats, "ABC") == audit(spec, UNEVEN, "ABC")


# the figures of the lab's log


@pytest.mark.parametrize(
    ("spec", "cv", "no_finding", "effective"),
    [
        (Shuffled(), 0.916, 53.8, 112_120),
        (MaxRarity(), 0.420, 8.3, 18_927),
        (MaxRarity(no_finding="of_largest"), 0.420, 19.4, 24_150),
        (MaxRarity(no_finding="unscaled"), 0.420, 98.2, 62_509),
        (MeanRarity(), 0.356, 10.2, 20_724),
        (MeanRarity(no_finding="of_largest"), 0.356, 23.2, 27_702),
        (MeanRarity(no_finding="unscaled"), 0.356, 98.6, 62_081),
        (MeanRarity(no_finding="unscaled", apply="loss"), 0.356, 98.6, 62_081),
    ],
)
def test_the_whole_nih_table(spec: AnySampler, cv: float, no_finding: float, effective: int, nih: Labels) -> None:
    found = audit(spec, nih, CHEST_FINDINGS)
    assert round(found.cv, 3) == cv
    assert round(100 * found.no_finding, 1) == no_finding
    assert round(found.effective_size) == effective


def test_hernia_is_six_percent_of_draws_by_the_mean_rule(nih: Labels) -> None:
    found = audit(MeanRarity(no_finding="of_largest"), nih, CHEST_FINDINGS)
    hernia = CHEST_FINDINGS.index("Hernia")
    assert found.positives[hernia] == 227
    assert round(100 * found.prevalence[hernia], 1) == 6.2  # 6.25
    assert round(found.repeats[hernia]) == 31


def z_scores(found: Audit, labels: Labels, spec: AnySampler, seed: int) -> NDArray[np.float64]:
    """How far 500 batches of 32 lie from an audit, in standard errors: each finding, then No Finding. Draws with
    replacement are binomial; of a permutation, hypergeometric."""
    drawn = spec.build(labels).epoch(seed, epoch=1)[: BATCHES * BATCH].reshape(BATCHES, BATCH)
    seen = shares_with_normal(labels, drawn.ravel())
    expected = np.array([*found.prevalence, found.no_finding])
    left = 1.0 if spec.build(labels).chances is not None else (len(labels) - drawn.size) / (len(labels) - 1)
    error = np.sqrt(drawn.size * expected * (1 - expected) * left)
    return np.asarray((seen - drawn.size * expected) / error)


DRAWN = [Shuffled(), *RARITY]
SEEDS = (0, 1)
#: two-sided, one false alarm in a thousand over all scores together (Bonferroni): 4.5
Z_BOUND = NormalDist().inv_cdf(1 - 0.001 / 2 / (len(DRAWN) * len(SEEDS) * (len(CHEST_FINDINGS) + 1)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("spec", DRAWN, ids=lambda s: s.title)
def test_500_real_batches_agree_with_the_audit_for_every_finding(spec: AnySampler, seed: int, nih: Labels) -> None:
    scores = z_scores(audit(spec, nih, CHEST_FINDINGS), nih, spec, seed)
    assert np.abs(scores).max() < Z_BOUND
    # too good would be wrong as well: scores spread by 1, not by nothing
    assert scores.std() > 0.3


# but not both that hardly draw any finding
TOLD_APART = [pair for pair in itertools.combinations(DRAWN, 2) if not all("unscaled" in s.title for s in pair)]


@pytest.mark.parametrize(("one", "other"), TOLD_APART, ids=lambda s: s.title)
def test_500_batches_tell_samplers_apart(one: AnySampler, other: AnySampler, nih: Labels) -> None:
    assert np.abs(z_scores(audit(one, nih, CHEST_FINDINGS), nih, other, seed=0)).max() > Z_BOUND


@pytest.mark.parametrize("spec", RARITY, ids=lambda s: s.title)
def test_an_epoch_has_as_many_different_images_as_the_audit_says(spec: AnySampler, nih: Labels) -> None:
    """That two images stay undrawn is negatively correlated: the variance of how many do is at most sum q (1 - q)."""
    found, draws = audit(spec, nih, CHEST_FINDINGS), spec.build(nih)
    weights = spec.weights(nih)
    undrawn = (1 - weights / weights.sum()) ** len(nih)
    error = np.sqrt((undrawn * (1 - undrawn)).sum())
    epochs = [draws.epoch(seed=1, epoch=epoch) for epoch in range(1, 6)]
    different = [len(np.unique(positions)) for positions in epochs]
    assert abs(np.mean(different) - found.distinct) < 4 * error / np.sqrt(len(epochs))
    assert error < 0.003 * found.distinct
    assert (occurrence(epochs[0]) == 0).sum() == different[0]


# warnings


def crowd(normals: int, **findings: int) -> tuple[Labels, list[str]]:
    """Images with one finding each, and some with none."""
    counts = list(findings.values())
    return np.concatenate(
        [np.repeat(np.eye(len(counts), dtype=np.uint8), counts, axis=0), np.zeros((normals, len(counts)), np.uint8)]
    ), list(findings)


def test_samplers_that_do_what_they_should_are_not_warned_of() -> None:
    labels, classes = crowd(500, A=300, B=150, C=50)
    for spec in (Shuffled(), MaxRarity(), MeanRarity(no_finding="of_largest"), MeanRarity(apply="loss")):
        assert audit(spec, labels, classes).warnings == ()


def test_the_logs_mistake_is_warned_of_on_the_nih_table(nih: Labels) -> None:
    (found,) = audit(MeanRarity(no_finding="unscaled"), nih, CHEST_FINDINGS).warnings
    assert found == (
        "98.6 % of draws are No Finding (53.8 % of images are): a batch of 32 shows 0.5 images with a finding"
    )
    (found,) = audit(MeanRarity(no_finding="unscaled", apply="loss"), nih, CHEST_FINDINGS).warnings
    assert found == "No Finding has 98.6 % of the loss's weight, and is 53.8 % of images"


@pytest.mark.parametrize(
    ("normals", "spec", "warned"),
    [
        (890, Shuffled(), False),
        (910, Shuffled(), True),
        (510, MaxRarity(no_finding=Unscaled(weight=0.003)), True),  # 510 x 0.003 against 490/491: 61 %
        (510, MaxRarity(no_finding=Unscaled(weight=0.0021)), False),  # 52 %
        (100, MaxRarity(no_finding=Unscaled(weight=0.008)), False),  # 44 %: more than in the data, not most
    ],
)
def test_too_much_no_finding_is_warned_of(normals: int, spec: AnySampler, warned: bool) -> None:
    labels, classes = crowd(normals, A=1000 - normals)
    assert any("No Finding" in text for text in audit(spec, labels, classes).warnings) == warned


def test_few_images_that_rule_are_warned_of() -> None:
    # two images of 5,000 weigh 1/2 each, the others one together: 2^2 / (1/4 + 1/4 + ...) = 8 effective images
    labels, classes = crowd(0, Common=4998, Rare=1, Rarer=1)
    found = audit(MaxRarity(), labels, classes)
    narrow, by_heart = found.warnings
    assert narrow == "effective size 8 of 5,000 images (0.2 %): a few images rule draws"
    assert by_heart == (
        "expected an epoch: 1 Rarer image 1250 times each, 1 Rare image 1250 times each, the heaviest image 1250 "
        "times: may be learnt by heart"
    )
    assert "rule the loss" in audit(MaxRarity(apply="loss"), labels, classes).warnings[0]


def test_hernia_by_heart_is_warned_of(nih: Labels) -> None:
    (found,) = audit(MeanRarity(no_finding="of_largest"), nih, CHEST_FINDINGS).warnings
    assert found == (
        "expected an epoch: 227 Hernia images 31 times each, the heaviest image 43 times: may be learnt by heart"
    )
    (found,) = audit(MeanRarity(apply="loss"), nih, CHEST_FINDINGS).warnings
    assert found == (
        "counted in the loss: 227 Hernia images 36 times each, the heaviest image 50 times: may be learnt by heart"
    )


def test_many_findings_by_heart_are_not_all_named() -> None:
    labels, classes = crowd(0, Common=4900, A=3, B=4, C=5, D=6)
    (found,) = (text for text in audit(MaxRarity(), labels, classes).warnings if "heart" in text)
    assert "A images" in found and "C images" in found and "D images" not in found
    assert "and 1 more" in found


def test_findings_that_are_never_drawn_are_named() -> None:
    """But for those that no image has: that is not the sampler's doing."""
    labels, classes = crowd(10, A=10, B=0, C=1, D=0)
    for spec in (Shuffled(), MeanRarity(), MeanRarity(apply="loss")):
        assert audit(spec, labels, classes).warnings == ()
    starved = audit(MaxRarity(no_finding=Unscaled(weight=100.0)), labels, classes).warnings
    assert "C (1 image)" in starved[-1]
    assert any("C (1 image)" in text for text in audit(Shuffled(), labels, classes, draws=15).warnings)


# settings


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({}, Shuffled()),
        ({"sampler": "none"}, Shuffled()),
        ({"sampler": "mean_rarity"}, MeanRarity()),
        ({"sampler": "max_rarity", "sampler.apply": "loss"}, MaxRarity(apply="loss")),
        ({"sampler": "mean_rarity", "sampler.no_finding": "of_largest"}, MeanRarity(no_finding=OfLargest())),
        (
            {"sampler": "mean_rarity", "sampler.no_finding": "unscaled", "sampler.no_finding.weight": 0.5},
            MeanRarity(no_finding=Unscaled(weight=0.5)),
        ),
    ],
)
def test_samplers_are_set_by_dotted_names(tree: dict[str, object], expected: AnySampler) -> None:
    holder = Holder().with_settings(tree)
    assert holder.sampler == expected
    assert parse(Holder, json.loads(holder.model_dump_json())) == holder


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"sampler": "mean_rarty"}, r"sampler = 'mean_rarty' is not known.*did you mean 'mean_rarity'"),
        ({"sampler": "max_rarity", "sampler.no_finding": "as_clas"}, r"no_finding = 'as_clas' is not.*'as_class'"),
        ({"sampler.apply": "loss"}, r"'sampler.apply' is not a setting of sampler = 'none'"),
        ({"sampler": "max_rarity", "sampler.apply": "los"}, r"sampler.apply = 'los'"),
        (
            {"sampler": "max_rarity", "sampler.no_finding": "of_largest", "sampler.no_finding.share": 0.0},
            r"sampler.no_finding.share = 0.0: .*greater than 0",
        ),
        (
            {"sampler": "max_rarity", "sampler.no_finding": "as_class", "sampler.no_finding.share": 0.1},
            r"'sampler.no_finding.share' is not a setting of sampler.no_finding = 'as_class'",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(tree: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        Holder().with_settings(tree)
    assert "\n" not in str(caught.value)


# sampler and loss together


def test_what_sampler_and_loss_make_of_positives_by_hand() -> None:
    found = audit(MaxRarity(), TINY, ["A", "B"])  # A 5/8, B 3/8 of draws
    loss = WeightedBCE()  # (3 - 2)/(2 + 1) = 1/3 and (3 - 1)/(1 + 1) = 1
    assert pos_weights(found, loss) == pytest.approx([1 / 3, 1], rel=1e-6)
    assert pos_weights(found, BCE()).tolist() == [1, 1]
    assert combined(found, loss) == pytest.approx([5 / 14, 9 / 14], rel=1e-6)
    assert combined(found, BCE()) == pytest.approx([5 / 8, 3 / 8], rel=1e-6)
    assert odds(found, loss) == pytest.approx([5 / 9, 3 / 5], rel=1e-6)
    assert odds(found, BCE()) == pytest.approx([5 / 3, 3 / 5], rel=1e-6)


def test_two_corrections_of_one_imbalance_are_warned_of(nih: Labels) -> None:
    sampled, plain = (audit(spec, nih, CHEST_FINDINGS) for spec in (MeanRarity(no_finding="of_largest"), Shuffled()))
    *others, twice = warnings(sampled, WeightedBCE())
    assert tuple(others) == sampled.warnings
    assert "Hernia has 51.1 % of the positives' weight, CV 1.73; sampler alone 0.36, pos_weight alone 0.05" in twice
    assert warnings(sampled, BCE()) == sampled.warnings
    assert warnings(plain, BCE()) == warnings(plain, WeightedBCE()) == ()


def test_the_table_is_aligned_and_sorted_from_common_to_rare() -> None:
    labels, classes = crowd(40, Rare=2, Common=50, Never=0)
    text = table([audit(spec, labels, classes) for spec in (Shuffled(), MaxRarity(no_finding="unscaled"))])
    lines = text.splitlines()
    top, shares = lines[:3], lines[4:9]
    assert len({len(line) for line in top}) == 1 and len({len(line) for line in shares}) == 1
    assert [line.split("  ")[0] for line in shares] == ["finding", "Common", "Rare", "Never", "No Finding"]
    assert shares[1].split() == ["Common", "50", "54.35", "%", "47.89", "%"]  # 50/92; 50/51 of 50/51 + 2/3 + 40 x 0.01
    assert "max_rarity, no_finding = unscaled 0.01" in top[2]
    assert lines[9] == ""
    assert lines[10].startswith("[2] warning: expected an epoch: 2 Rare images 15 times each")


def reddish(png: bytes) -> int:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (1100, 1600, 3)
    blue, green, red = (image[..., channel].astype(int) for channel in range(3))
    return int(((red > 140) & (green < 60) & (blue < 80)).sum())


def test_the_figure_shows_warnings_in_red_and_nothing_else() -> None:
    labels, classes = crowd(500, A=300, B=150, C=50)
    assert reddish(figure(audit(Shuffled(), labels, classes), BCE())) == 0
    bad = audit(MaxRarity(no_finding=Unscaled(weight=1.0)), labels, classes)
    assert bad.warnings
    assert reddish(figure(bad, BCE())) > 5000


def panel(draw: Callable[..., None], sampler: AnySampler, *loss: Loss) -> list[str]:
    """The texts of one of a figure's panels."""
    axes = Figure().subplots()
    draw(axes, audit(sampler, *crowd(500, A=300, B=150, C=50)), *loss)
    return [text.get_text() for text in axes.texts]


def test_a_panel_of_nothing_but_ones_is_a_sentence() -> None:
    title, _, *said = panel(balance._loss, Shuffled(), BCE())
    assert (title, len(said)) == ("2  The loss", 1)
    assert "no pos_weight" in said[0]
    assert len(panel(balance._loss, Shuffled(), WeightedBCE())) > 4
    assert not any(" x " in text for text in panel(balance._sampler, Shuffled()))
    assert sum("%   x " in text for text in panel(balance._sampler, MaxRarity())) == 4


@pytest.mark.parametrize("labels", [np.zeros((3, 2), np.uint8), np.ones((4, 1), np.uint8), crowd(5, A=3, B=0)[0]])
def test_odd_data_have_a_figure(labels: Labels) -> None:
    found = audit(MeanRarity(apply="loss"), labels, named(labels))
    assert reddish(figure(found, WeightedBCE(weighting="inverse_sqrt"))) > 0 or not found.warnings
