"""Intervals of mean AUROCs: by hand, against scikit-learn and the bootstrap, and over seeds."""

from __future__ import annotations

import json
import math

import claims
import few_positives
import numpy as np
import pytest
import simulated
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binomtest, norm
from scipy.stats import t as student_t
from sklearn.metrics import roc_auc_score

from xlite_search.results import seeds
from xlite_search.results.inference import Patients, Training, joint
from xlite_search.results.influence import Figure, Influence, influence
from xlite_search.results.intervals import Interval, own, share


def drawn(seed: int, images: int = 200, classes: int = 3) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Many of the scores tie, and some are -0."""
    random = np.random.default_rng(seed)
    truth = random.random((images, classes)) < 0.2
    truth[:2] = [[True], [False]]
    scores = (random.normal(size=truth.shape) + truth).round(1).astype(np.float16)
    scores[random.random(scores.shape) < 0.05] = -0.0
    return scores, truth


def alone(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> Influence:
    return influence(scores, truth, np.arange(len(truth)))


@given(st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_of_half_precision_every_bit_is_that_of_double_precision(seed: int) -> None:
    scores, truth = drawn(seed)
    half, double = alone(scores, truth), alone(scores.astype(np.float64), truth)
    assert half.score.tolist() == double.score.tolist()
    assert half.values.tolist() == double.values.tolist()
    assert half.score == pytest.approx(roc_auc_score(truth, scores.astype(np.float64), average=None), abs=1e-12)


def test_an_interval_by_hand() -> None:
    """AUROC 3/4 of two positives and two negatives: both kinds have a variance of 1/16, with one degree of freedom."""
    found = alone(np.array([[3.0], [1.0], [2.0], [0.0]]), np.array([[True], [True], [False], [False]]))
    (interval,) = own(found.score, joint([found]))
    assert interval.error == pytest.approx(0.125**0.5)
    reach = 4.302653 * 0.125**0.5 / (0.75 * 0.25)  # Student's quantile for (1/8)^2 / (2 (1/16)^2) = 2 degrees
    ends = [1 / (1 + np.exp(-(np.log(3) + side * reach))) for side in (-1, 1)]
    assert [interval.low, interval.high] == pytest.approx(ends, rel=1e-5)


@given(st.integers(0, 1000), st.floats(0.5, 0.999))
@settings(max_examples=40, deadline=None)
def test_an_interval_has_its_value_within_and_stays_between_0_and_1(seed: int, area: float) -> None:
    parts = np.random.default_rng(seed).chisquare(1, size=(2, 1, 1))
    patients = Patients(parts.sum(axis=0), parts, np.array([4.0, 5.0]))
    (interval,) = own(np.array([area]), patients)
    assert 0 <= interval.low <= area <= interval.high <= 1


def of_finding(area: float, positives: int, negatives: int, findings: int = 1, variance: float = 1e-12) -> Interval:
    """What is said of a mean AUROC whose estimated variance is so small; of so many patients for each finding."""
    parts = np.full((2 * findings, 1, 1), variance / (2 * findings))
    dof = np.tile([positives - 1.0, negatives - 1.0], findings)
    return own(np.array([area]), Patients(parts.sum(axis=0), parts, dof))[0]


@pytest.mark.parametrize("shift", [9.0, -9.0])
def test_what_ranks_all_right_or_all_wrong_has_one_end_by_hand(shift: float) -> None:
    """Wilson's lower end for n of n is n / (n + z^2), here of three times the patients' harmonic sum."""
    scores, truth = drawn(1, classes=1)
    found = alone(scores + shift * truth, truth)
    (interval,) = own(found.score, joint([found]))
    many = 3 / (1 / truth.sum() + 1 / (~truth).sum())
    low = many / (many + norm.ppf(0.975) ** 2)
    ends = (low, 1.0) if shift > 0 else (0.0, 1 - low)
    assert (interval.low, interval.high) == pytest.approx(ends)
    assert interval.value == float(shift > 0) and np.isnan(interval.error)
    json.dumps(interval.as_json(), allow_nan=False)


@pytest.mark.parametrize("runs", [3, 6, 7, 49])
def test_a_setting_whose_runs_rank_all_right_has_a_lower_end(runs: int) -> None:
    nothing = Patients(np.zeros((runs, runs)), np.zeros((2, runs, runs)), np.array([7.0, 199.0]))
    (interval,) = own(np.ones(runs), nothing, np.full((1, runs), 1 / runs))
    assert 0.8 < interval.low < interval.value <= interval.high + 1e-12


def test_where_nearly_all_are_ranked_right_the_ends_are_of_the_patients_numbers_by_hand() -> None:
    """(A - L)^2 = z^2 L (1 - L) / (3 m (1 + m A (1 - A))), m of 8 and 200; training's variance beside it."""
    many = 1 / (1 / 8 + 1 / 200)
    parts = np.full((2, 1, 1), 1e-9)
    patients, training = (
        Patients(parts.sum(axis=0), parts, np.array([7.0, 199.0])),
        Training(np.full(1, 1e-4), np.zeros(1), 9.0),
    )
    for beside, trained in ((0.0, None), (1e-4, training)):
        (interval,) = own(np.array([0.97]), patients, training=trained)

        def off(end: float, beside: float = beside) -> float:
            of_patients = end * (1 - end) / (3 * many * (1 + many * 0.97 * 0.03))
            return float((0.97 - end) ** 2 - norm.ppf(0.975) ** 2 * (of_patients + beside))

        assert interval.low == pytest.approx(brentq(off, 0.1, 0.97))
        assert interval.high == pytest.approx(min(1.0, brentq(off, 0.97, 1.5)))


@given(st.floats(0.01, 0.99), st.floats(0.0001, 0.009), st.integers(2, 300), st.integers(2, 3000))
@settings(max_examples=100, deadline=None)
def test_a_higher_auroc_has_higher_ends_and_fewer_positives_wider_ones(
    area: float, more: float, positives: int, negatives: int
) -> None:
    one, higher = of_finding(area, positives, negatives), of_finding(area + more, positives, negatives)
    assert 0 <= one.low < one.value < one.high <= 1
    assert one.low < higher.low and one.high < higher.high
    more_positives = of_finding(area, positives + 1, negatives)
    assert one.low < more_positives.low and more_positives.high < one.high
    assert one.error == pytest.approx(1e-6)


def test_where_the_variance_is_known_well_the_patients_numbers_say_nothing() -> None:
    """DeLong's variance of binormal scores: of a single frequent finding, or of many rare ones."""
    for area, positives, findings in ((0.97, 200, 1), (0.9, 50, 1), (0.6, 8, 1), (0.9, 20, 14)):
        found = of_finding(area, positives, 2000, findings, 0.235 * area * (1 - area) / positives / findings)
        named = Patients(
            np.full((1, 1), found.error**2),
            np.full((2 * findings, 1, 1), found.error**2 / 2 / findings),
            np.tile([positives - 1.0, 1999.0], findings),
            "ap",
        )
        assert own(np.array([area]), named) == [found]


@pytest.mark.parametrize("figure", ["ap", "f1"])
def test_other_figures_have_no_interval_of_the_numbers_alone(figure: Figure) -> None:
    scores, truth = drawn(1, classes=1)
    found = influence(18 * truth - 9 + scores % 1, truth, np.arange(len(truth)), figure)
    assert found.score == pytest.approx(1)
    (interval,) = own(found.score, joint([found]))
    assert np.isnan([interval.low, interval.high, interval.error]).all()


def test_constant_scores_have_no_interval() -> None:
    found = alone(np.zeros((200, 1)), drawn(1, classes=1)[1])
    (interval,) = own(found.score, joint([found]))
    assert interval.value == 0.5 and np.isnan([interval.low, interval.high, interval.error]).all()


@pytest.mark.parametrize("case", few_positives.CASES, ids=lambda case: case.name)
def test_eight_positives_are_covered_too(case: few_positives.Case) -> None:
    """The benchmark's simulation, small; without what the numbers of patients say, 0.58 to 0.95."""
    seen = few_positives.intervals(case, draws=300)
    assert np.mean([each.low <= case.area <= each.high for each in seen]) >= 0.90


def test_a_finding_of_a_single_patient_has_no_interval() -> None:
    scores, truth = drawn(1, classes=1)
    truth[:] = False
    truth[3] = True
    found = alone(scores, truth)
    (interval,) = own(found.score, joint([found]))
    assert np.isnan([interval.low, interval.high, interval.error]).all()


@pytest.mark.parametrize(("positives", "area"), [(5, 0.65), (10, 0.8), (20, 0.9)])
def test_few_positives_are_covered_too(positives: int, area: float) -> None:
    """Of 400 draws; Student's quantile and the logarithmic scale lift it from 0.86, 0.89 and 0.89."""
    random, truth = np.random.default_rng(positives), (np.arange(300) < positives)[:, None]
    strength, seen = norm.ppf(area) * 2**0.5, []
    for _ in range(400):
        found = alone(random.normal(size=truth.shape) + strength * truth, truth)
        (interval,) = own(found.score, joint([found]))
        seen.append(interval.low <= area <= interval.high)
    assert np.mean(seen) >= 0.905  # 0.935 less 2.5 standard errors


def test_training_by_hand() -> None:
    """Two settings, seeds 0 and 1, runs 1, 3 and 2, 8: within them 2 + 18 with 2 degrees of freedom, pooled 10.

    Of these 20 the seeds have (-1.5 - 2.5)^2 = 16 and the rest 4, one degree each: 20^2 / (16^2 + 4^2) is what is left.
    """
    places, areas = [{0: 0, 1: 1}, {0: 2, 1: 3}], np.array([1.0, 3.0, 2.0, 8.0])
    found = seeds.of_means(places, areas, np.diag([1.0, 1.0, 2.0, 2.0]))
    assert found.variance == pytest.approx([5.0, 5.0])
    assert found.sampling == pytest.approx([0.75, 0.75])  # what is within settings of 1, 1, 2, 2: half of each
    assert found.dof == pytest.approx(400 / 272)
    assert seeds.means(places, 4).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]


def test_without_a_part_of_the_seeds_all_degrees_of_freedom_are_there() -> None:
    """Eight settings of three seeds: 16, where the seeds' own part is as large as chance makes it."""
    random = np.random.default_rng(0)
    places = [{seed: 3 * setting + seed for seed in range(3)} for setting in range(8)]
    dofs = [seeds.of_means(places, random.normal(size=24), np.zeros((24, 24))).dof for _ in range(300)]
    assert np.median(dofs) == pytest.approx(16, rel=0.1)
    assert max(dofs) <= 16 + 1e-9


def test_one_seed_each_tells_nothing_of_training() -> None:
    with pytest.raises(ValueError, match="no setting has two seeds"):
        seeds.of_means([{0: 0}, {0: 1}], np.array([0.8, 0.7]), np.zeros((2, 2)))


def test_training_widens_a_settings_interval_by_hand() -> None:
    """Patients' variance of a mean of two 0.0001, of which 0.00002 is what the seeds' runs differ by."""
    patients = Patients(np.full((2, 2), 1e-4), np.full((2, 2, 2), 5e-5), np.array([500.0, 500.0]))
    training = Training(np.array([3e-4]), np.array([2e-5]), 14.0)
    half = np.array([[0.5, 0.5]])
    (narrow,), (wide,) = (own(np.array([0.7, 0.8]), patients, half, each) for each in (None, training))
    assert (narrow.error, wide.error) == pytest.approx((1e-2, 3.8e-4**0.5))
    dof = 3.8e-4**2 / (8e-5**2 / 1000 + 3e-4**2 / 14)
    reach = student_t.ppf(0.975, dof) * 3.8e-4**0.5 / (0.75 * 0.25)
    assert wide.low == pytest.approx(1 / (1 + np.exp(reach) / 3))
    assert wide.low < narrow.low < 0.75 < narrow.high < wide.high


def test_the_error_of_a_macro_mean_is_that_of_drawing_patients_anew() -> None:
    random = np.random.default_rng(3)
    groups = np.repeat(np.arange(150), random.integers(1, 5, 150))
    truth = random.random((len(groups), 3)) < 0.3
    scores = random.normal(size=truth.shape) + random.normal(size=(150, 3))[groups] + truth
    found = influence(scores, truth, groups)
    (interval,) = own(np.array([found.score.mean()]), joint([found]))
    images_of = [np.flatnonzero(groups == group) for group in range(150)]
    draws = []
    for _ in range(400):
        places = np.concatenate([images_of[group] for group in random.integers(150, size=150)])
        draws.append(roc_auc_score(truth[places], scores[places], average="macro"))
    assert interval.error == pytest.approx(np.std(draws), rel=0.1)
    assert isinstance(interval, Interval)


@pytest.mark.parametrize("design", simulated.EQUALS[:3], ids=lambda design: design.name)
def test_pooled_over_settings_three_seeds_cover_what_is_true(design: simulated.Design) -> None:
    """The benchmark's simulation, small: 60 studies of 8 settings; 0.95 less 3.5 standard errors."""
    gap, mean, whole = claims.pooled(design, studies=60, seed=1)
    assert min(gap.share, mean.share, whole.share) >= 0.85


def test_a_share_of_single_images_is_clopper_and_pearsons() -> None:
    chosen = np.arange(40) < 31
    found = share(chosen, np.arange(40))
    exact = binomtest(31, 40).proportion_ci(method="exact")
    assert found.value == pytest.approx(31 / 40)
    assert [found.low, found.high] == pytest.approx([exact.low, exact.high], rel=0.03), "n / (n - 1) apart"
    assert found.error == pytest.approx(math.sqrt(31 / 40 * 9 / 40 / 39))


def test_images_of_a_patient_that_say_the_same_are_one() -> None:
    chosen = np.arange(40) < 31
    single, double = share(chosen, np.arange(40)), share(np.repeat(chosen, 2), np.repeat(np.arange(40), 2))
    assert [double.low, double.high] == pytest.approx([single.low, single.high])
    whole = share(np.ones(60, bool), np.repeat(np.arange(20), 3))
    assert [whole.low, whole.high] == pytest.approx([0.025 ** (1 / 20), 1.0]), "of twenty patients"
    assert np.isnan(share(np.zeros(0, bool), np.zeros(0, np.int64)).value)


def test_a_share_has_the_truth() -> None:
    random, had = np.random.default_rng(0), 0
    groups = np.repeat(np.arange(60), 3)
    for _ in range(400):
        of_patient = random.beta(8, 2, 60)
        found = share(random.random(180) < of_patient[groups], groups)
        had += found.low <= 0.8 <= found.high
    assert had >= 0.93 * 400
