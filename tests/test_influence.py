"""Influence values of AP and F1: scikit-learn's figures, derivatives by finite differences, the bootstrap's errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from xlite_search.results.bootstrap import bootstrap
from xlite_search.results.inference import joint
from xlite_search.results.influence import DERIVED, Figure, influence

FIGURES: tuple[Figure, ...] = ("ap", "f1")


def drawn(images: int, seed: int, prevalence: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    there = random.random(images) < prevalence
    there[:2] = True, False
    return np.round(random.normal(size=images) + 1.5 * there - 0.7, 1), there


def sklearns(figure: Figure, logits: np.ndarray, there: np.ndarray, weights: np.ndarray | None = None) -> float:
    if figure == "ap":
        return float(average_precision_score(there, logits, sample_weight=weights))
    return float(f1_score(there, logits >= 0, sample_weight=weights))


@pytest.mark.parametrize("figure", FIGURES)
@given(st.integers(4, 60), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_figures_are_scikit_learns_and_derivatives_are_those_of_its_weights(
    figure: Figure, images: int, seed: int
) -> None:
    logits, there = drawn(images, seed)
    score, moves = DERIVED[figure](logits, there)
    assert score == pytest.approx(sklearns(figure, logits, there), abs=1e-12)
    assert moves.sum() == pytest.approx(0, abs=1e-12), "twice as many of each are the same figure"
    for image in range(0, images, 7):
        step = np.zeros(images)
        step[image] = 1e-4
        up, down = (sklearns(figure, logits, there, 1 + sign * step) for sign in (1, -1))
        assert moves[image] == pytest.approx((up - down) / 2e-4, abs=1e-6)


def test_average_precision_by_hand() -> None:
    """Positives first and third: AP = (1 + 2/3) / 2. A third positive at the top would make it (1 + 1 + 3/4) / 3."""
    score, moves = DERIVED["ap"](np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
    assert score == pytest.approx(5 / 6)
    # one more of the second, the negative: the precision at the third falls by 2/9, and AP by half of that
    assert moves[1] == pytest.approx(-1 / 9)


@pytest.mark.parametrize("figure", FIGURES)
def test_their_standard_errors_are_the_patient_bootstraps(figure: Figure) -> None:
    """Of a macro mean and of a gap between two models, patients with several images."""
    random = np.random.default_rng(0)
    patients = np.repeat(np.arange(500), 3)
    truth = np.repeat(random.random((500, 3)) < (0.15, 0.3, 0.5), 3, axis=0) & (random.random((1500, 3)) < 0.8)
    common = np.repeat(random.normal(size=(500, 3)), 3, axis=0)
    logits = np.stack([common + random.normal(size=truth.shape) + told * truth - 1 for told in (1.5, 1.8)])
    drawn = bootstrap(logits, truth, patients, "abc", figures=(figure,), draws=3_000)
    found = joint([influence(each, truth, patients, figure) for each in logits])
    assert found.covariance[0, 0] ** 0.5 == pytest.approx(drawn.macro(figure, 0).error, rel=0.05)
    gap = found.variance(np.array([[1.0, -1.0]]))[0]
    assert gap**0.5 == pytest.approx(drawn.macro(figure, 0, 1).error, rel=0.05)


def test_a_finding_that_nobody_has_is_unknown() -> None:
    found = influence(np.zeros((4, 2)), np.zeros((4, 2), bool), np.arange(4), "ap")
    assert np.isnan(found.score).all() and np.isnan(found.values).all()
