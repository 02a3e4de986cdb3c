"""Reliability: bins, Brier score and its parts, calibration error and line, by hand and against scikit-learn."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from xlite_search.evaluation.estimates import Estimate, dof_of, error_of, logistic, proportion
from xlite_search.evaluation.reliability import (
    ASSESSABLE,
    bins,
    bins_of,
    brier_and_skill,
    brier_parts,
    ece,
    figures,
    line,
    net_benefit,
    upper_end,
)
from xlite_search.reports.reliability import Benefit, Diagram, reliability
from xlite_search.reports.reliability import net_benefit as net_benefit_figure
from xlite_search.results.intervals import effective
from xlite_search.training.metrics import sigmoid


def drawn(images: int, slope: float = 1.0, shift: float = 0.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Log-odds whose true ones are slope x them + shift, two images a patient or so."""
    random = np.random.default_rng(seed)
    z = random.normal(-1, 1.5, images)
    truth = random.random(images) < sigmoid(slope * z + shift)
    return z, truth, random.integers(images // 2, size=images)


def test_bins_have_equally_many_images_and_never_part_equals() -> None:
    values = np.random.default_rng(0).random(1000)
    assert np.bincount(bins_of(values)).tolist() == [100] * 10
    assert bins_of(np.array([0.2, 0.1, 0.3, 0.1]), 2).tolist() == [1, 0, 1, 0]
    assert bins_of(np.array([0.1] * 9 + [0.9]), 5).tolist() == [0] * 9 + [1]
    assert bins_of(np.full(7, 0.5)).tolist() == [0] * 7


def test_points_of_a_diagram_by_hand() -> None:
    chance, truth = np.array([0.1, 0.1, 0.9, 0.9]), np.array([False, False, True, False])
    low, high = bins(chance, truth, np.arange(4))
    assert (low.images, high.images) == (2, 2) and high.predicted == pytest.approx(0.9)
    assert (low.observed.value, high.observed.value) == (0, 0.5)
    assert low.observed.low == 0 and low.observed.high == pytest.approx(beta.ppf(0.975, 1, 2))


def test_an_interval_of_independent_images_is_clopper_and_pearsons() -> None:
    truth = np.arange(100) < 7
    found = proportion(truth, np.arange(100))
    assert found.value == 0.07
    assert found.low == pytest.approx(beta.ppf(0.025, 7, 94))
    assert found.high == pytest.approx(beta.ppf(0.975, 8, 93))
    assert proportion(truth[:0], np.arange(0)) == Estimate()


def test_images_that_are_all_alike_within_a_patient_count_once() -> None:
    truth, groups = np.repeat(np.arange(50) < 10, 4), np.repeat(np.arange(50), 4)
    assert effective(truth, groups)[2] == pytest.approx(50)  # at least (sum n)^2 / sum n^2
    assert effective(np.zeros(200, bool), groups)[2] == 50
    assert effective(np.zeros(4, bool), np.array([0, 0, 0, 1]))[2] == 16 / 10


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 60), st.integers(0, 2**32 - 1))
def test_brier_is_reliability_less_resolution_and_uncertainty(images: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    chance = np.round(random.random(images), int(random.integers(1, 8)))
    truth = random.random(images) < 0.4
    reliability, resolution, uncertainty = brier_parts(chance, truth)
    assert abs(reliability - resolution + uncertainty - np.mean((chance - truth) ** 2)) <= 1e-12
    assert reliability >= 0


def test_brier_and_skill_against_scikit_learn() -> None:
    z, truth, groups = drawn(2000)
    brier, skill = brier_and_skill(sigmoid(z), truth, groups)
    prevalence = float(truth.mean())
    assert brier.value == pytest.approx(brier_score_loss(truth, sigmoid(z)), abs=1e-12)
    assert skill.value == pytest.approx(1 - brier_score_loss(truth, sigmoid(z)) / (prevalence * (1 - prevalence)))
    constant = brier_and_skill(np.full(2000, prevalence), truth, groups)[1]
    assert constant.value == pytest.approx(0, abs=1e-12)
    assert brier.value and brier.low and brier.high and brier.low < brier.value < brier.high


def test_calibration_error_by_hand() -> None:
    chance, truth = np.repeat([0.2, 0.6], 10), np.arange(20) % 5 == 0
    found = ece(chance, truth)
    assert found.value == pytest.approx(0.5 * 0 + 0.5 * 0.4) and found.low is None


def test_slope_and_intercept_are_those_of_a_logistic_regression() -> None:
    z, truth, groups = drawn(4000, slope=0.6, shift=0.5)
    slope, intercept = line(z, truth, groups)
    oracle = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(z[:, None], truth)
    assert slope.value == pytest.approx(oracle.coef_[0, 0], abs=1e-6)
    assert slope.low is not None and slope.high is not None and slope.low < 0.6 < slope.high < 1
    moved = sigmoid(z + intercept.value)
    assert moved.mean() == pytest.approx(truth.mean(), abs=1e-9)


def test_intervals_have_the_truth() -> None:
    """Slope, intercept and Brier score of the truth in 0.92 of 300 draws, or more."""
    inside = np.zeros((300, 3))
    for draw in range(300):
        z, truth, groups = drawn(600, seed=draw)
        slope, intercept = line(z, truth, groups)
        chance = sigmoid(z)
        expected = float((chance * (1 - chance)).mean())
        brier = brier_and_skill(chance, truth, groups)[0]
        pairs = (slope, 1.0), (intercept, 0.0), (brier, expected)
        inside[draw] = [each.low <= value <= each.high for each, value in pairs]  # type: ignore[operator]
    assert (inside.mean(axis=0) >= 0.92).all()


def test_what_tells_the_kinds_apart_wholly_has_no_slope() -> None:
    z, truth = np.linspace(-3, 3, 40), np.arange(40) >= 20
    slope, intercept = line(z, truth, np.arange(40))
    assert slope == Estimate() and intercept.value == pytest.approx(0, abs=1e-9)
    assert line(np.full(40, 0.3), truth, np.arange(40))[0] == Estimate()


def test_figures_of_calibrated_log_odds() -> None:
    z, truth, groups = drawn(8000)
    found = figures(z, truth, groups)
    assert found.slope.value == pytest.approx(1, abs=0.08) and found.intercept.value == pytest.approx(0, abs=0.08)
    assert found.ece.value is not None and found.ece.value < 0.02 and truth.sum() > ASSESSABLE
    assert found.reliability - found.resolution + found.uncertainty == pytest.approx(found.brier.value, abs=1e-12)
    single = figures(z, truth, np.zeros(8000, np.int64))
    assert single.brier.low is None and single.brier.value == found.brier.value


def test_the_error_by_group_is_that_of_their_sums() -> None:
    moves, groups = np.array([1.0, -1.0, 2.0, -2.0]), np.array([7, 7, 9, 11])
    assert error_of(moves, groups) == pytest.approx(np.sqrt(3 / 2 * (0 + 4 + 4)))
    assert np.isnan(error_of(moves, np.zeros(4, np.int64)))
    assert dof_of(np.array([True, True, False, False]), np.array([0, 0, 1, 2])) == 0


def test_logistic_with_an_offset_alone_is_the_log_odds() -> None:
    truth = np.arange(10) < 3
    assert logistic(np.ones((10, 1)), truth)[0] == pytest.approx(np.log(0.3 / 0.7))


def test_net_benefit_by_hand() -> None:
    chance, truth = np.array([0.1, 0.3, 0.3, 0.8]), np.array([False, False, True, True])
    found, everyone = net_benefit(chance, truth, np.arange(4), np.array([0.2, 0.5]))
    assert [each.value for each in found] == pytest.approx([2 / 4 - 1 / 4 * 0.25, 1 / 4])
    assert everyone == pytest.approx([0.5 - 0.5 * 0.25, 0.0])


def test_an_axis_ends_at_the_99th_percentile() -> None:
    assert upper_end(np.full(100, 0.1234)) == pytest.approx(0.13)
    assert upper_end(np.full(100, 0.00201)) == pytest.approx(0.0021)
    assert upper_end(np.full(100, 0.999)) == upper_end(np.zeros(3)) == 1.0


def a_diagram(name: str, *, faded: bool = False) -> Diagram:
    z, truth, groups = drawn(400)
    points = bins(sigmoid(z), truth, groups)
    observed, low, high = (
        np.array([getattr(each.observed, what) for each in points], np.float64) for what in ("value", "low", "high")
    )
    predicted = np.array([each.predicted for each in points])
    before = (predicted, predicted)
    return Diagram(name, "ECE 0.01", predicted, observed, low, high, before, np.arange(20.0), 0.47, faded)


@pytest.mark.parametrize("many", [1, 3, 14])
def test_a_figure_has_a_panel_for_each_finding_and_the_same_bytes_again(many: int) -> None:
    names = [f"finding_{number} $x$ <&>" for number in range(many)]
    made = reliability([a_diagram(name, faded=name == names[-1]) for name in names], "Reliability", "Dotted: ideal.")
    assert made == reliability([a_diagram(n, faded=n == names[-1]) for n in names], "Reliability", "Dotted: ideal.")
    text = "".join(ElementTree.fromstring(made).itertext())
    assert all(f"finding_{number}" in text for number in range(many))
    assert "Dotted: ideal." in text and ".47" in text and "predicted" in text and "observed" in text


def test_a_net_benefit_figure_has_what_is_known() -> None:
    grid, nothing = np.linspace(0.01, 0.4, 40), np.full(40, np.nan)
    curves = [Benefit("Mass", "9 positives", grid, 0.1 - grid / 5, nothing, nothing, 0.1 - grid, True)] * 2
    text = "".join(ElementTree.fromstring(net_benefit_figure(curves, "Net benefit", "Dotted: none.")).itertext())
    assert "Mass" in text and "9 positives" in text and "threshold" in text and ".4" in text


@pytest.mark.parametrize(("patients", "mean", "spread"), [(60, -3, 0), (60, -3, 2), (300, -4, 2), (20, -2, 2)])
def test_an_interval_of_a_proportion_has_the_truth_where_patients_differ(
    patients: int, mean: float, spread: float
) -> None:
    """1 to 7 images a patient, whose own log-odds vary: in 0.92 of 400 draws or more (1,000 draws: 0.94 to 0.96)."""
    random = np.random.default_rng(0)
    share, inside = float(sigmoid(mean + spread * random.normal(size=400_000)).mean()), 0
    for _ in range(400):
        groups = np.repeat(np.arange(patients), random.integers(1, 8, size=patients))
        chance = sigmoid(mean + spread * random.normal(size=patients))[groups]
        found = proportion(random.random(len(groups)) < chance, groups)
        assert found.low is not None and found.high is not None
        inside += found.low <= share <= found.high
    assert inside / 400 >= 0.92
