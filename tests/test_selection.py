"""The winner's optimism: its closed form for two runs, the bootstrap as it was published, and what is left of it."""

from __future__ import annotations

import json

import claims
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from xlite_search.results.inference import joint
from xlite_search.results.influence import influence
from xlite_search.results.selection import winner


def test_two_runs_in_closed_form() -> None:
    """With D of variance s^2 each and u = gap / (s root 2): b + gap Phi(u) - s root 2 phi(u)."""
    s, gap = 0.001, 0.0007
    u = gap / (s * 2**0.5)
    found = winner([np.array([0.8]), np.array([0.8 + gap])], np.tile(s**2 * np.eye(2), (2, 2)), draws=400_000)
    assert (found.run, found.score, found.runs, found.scores) == (1, 0.8 + gap, 2, 2)
    expected = 0.8 + gap * norm.cdf(u) - s * 2**0.5 * norm.pdf(u)
    assert found.corrected == pytest.approx(expected, abs=5e-6)
    assert found.optimism == pytest.approx(0.8 + gap - expected, abs=5e-6)


def test_one_run_of_one_epoch_was_not_chosen() -> None:
    found = winner([np.array([0.75])], np.full((2, 2), 0.01))
    assert found.as_json() == {
        **{"run": 0, "score": 0.75, "corrected": 0.75},
        **{"runs": 1, "scores": 1, "optimism": 0.0},
    }
    json.dumps(found.as_json(), allow_nan=False)


@given(st.integers(0, 300), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_what_all_runs_share_is_no_reason_to_choose(seed: int, runs: int, epochs: int) -> None:
    """Errors that are the same for all correct nothing, and no correction goes upwards."""
    random = np.random.default_rng(seed)
    curves = list(random.random((runs, epochs)))
    shared = winner(curves, np.full((2 * runs, 2 * runs), 0.04), draws=500)
    assert shared.corrected == pytest.approx(shared.score)
    own = winner(curves, 1e-4 * np.eye(2 * runs), draws=2000)
    assert own.corrected <= own.score + 0.001


def test_more_to_choose_from_is_more_to_correct() -> None:
    random = np.random.default_rng(3)
    covariance = np.tile(1e-6 * np.eye(60), (2, 2))
    scores = 0.8 + 0.001 * random.normal(size=60)
    few, many = (
        winner([np.array([score]) for score in scores[:some]], covariance[np.ix_(rows, rows)])
        for some in (4, 60)
        for rows in [[*range(some), *range(60, 60 + some)]]
    )
    assert 0 < few.optimism < many.optimism


def test_an_epoch_that_was_chosen_is_corrected() -> None:
    """The same best and last epoch, alone or among twenty; an epoch's own part is what the two do not share."""
    covariance = np.array([[1.0, 0.75], [0.75, 1.0]]) * 1e-6
    curve = 0.8 + 0.0005 * np.random.default_rng(1).normal(size=20)
    curve[4] = 0.8011
    chosen, alone = winner([curve], covariance), winner([curve[[4, -1]]], covariance)
    assert (chosen.scores, chosen.runs) == (20, 1)
    assert 0 < alone.optimism < chosen.optimism < 0.0015


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        winner([np.array([0.8]), np.array([np.nan])], np.eye(4))


def test_without_a_law_of_errors_nothing_is_corrected() -> None:
    """A finding that a single patient has: what other patients would make of it, nobody knows."""
    found = winner([np.array([0.8]), np.array([0.7])], np.full((4, 4), np.nan))
    assert (found.run, found.score, found.as_json()["corrected"], found.as_json()["optimism"]) == (0, 0.8, None, None)
    json.dumps(found.as_json(), allow_nan=False)


def published(scores: list[NDArray[np.float64]], truth: NDArray[np.bool_], draws: int) -> float:
    """Tsamardinos et al. 2018, algorithm 3: chosen on drawn images, judged by the others."""
    random, seen = np.random.default_rng(0), []
    for _ in range(draws):
        drawn = random.integers(len(truth), size=len(truth))
        out = np.setdiff1d(np.arange(len(truth)), drawn)
        inside = [roc_auc_score(truth[drawn], each[drawn]) for each in scores]
        seen.append(roc_auc_score(truth[out], scores[int(np.argmax(inside))][out]))
    return float(np.mean(seen))


def test_the_correction_is_the_published_bootstraps() -> None:
    """Ten equal runs of 400 images; 1,500 draws of the bootstrap leave a standard error of 0.0008."""
    random = np.random.default_rng(4)
    truth = random.random(400) < 0.3
    shared = random.normal(size=400)
    scores = [shared + 0.6 * random.normal(size=400) + 1.2 * truth for _ in range(10)]
    found = [influence(each[:, None], truth[:, None], np.arange(400)) for each in scores]
    corrected = winner([each.score for each in found], joint([*found, *found]).covariance)
    expected = published(scores, truth, draws=1500)
    assert corrected.optimism > 0.005
    assert corrected.corrected == pytest.approx(expected, abs=0.0025)


def test_hardly_anything_is_left_of_the_optimism() -> None:
    """The benchmark's simulation, small: 40 studies of 8 equal runs of 12 epochs; a standard error is 6 % of it."""
    seen = claims.winners(studies=40, seed=1)
    assert seen.raw > 0.01
    assert abs(seen.left) <= 0.3 * seen.raw
