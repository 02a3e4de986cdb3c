"""Which runs cannot be told from the best: against Dunnett's and Tukey's laws, by hand, and by simulation."""

from __future__ import annotations

import json

import claims
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm, studentized_range

from xlite_search.results.inference import Patients, Training
from xlite_search.results.ties import MARGIN, among, ties, verdict


def certain(runs: int, error: float = 1.0) -> Patients:
    """Independent runs whose standard error is known exactly."""
    covariance = error**2 * np.eye(runs)
    return Patients(covariance, covariance[None], np.array([np.inf]))


def dunnett(others: int) -> float:
    """The one-sided 5 % bound for the gaps of one of these to all others, in standard errors of a gap."""

    def kept(bound: float) -> float:
        inside, _ = quad(lambda z: norm.pdf(z) * norm.cdf(z + bound * 2**0.5) ** others, -8, 8)
        return float(inside)

    return float(brentq(lambda bound: kept(bound) - 0.95, 0, 5))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.001, 0.009, "better"),
        (0.0001, 0.0019, "tied"),  # a gap surely, and as surely one that does not matter
        (-0.0019, 0.0019, "tied"),
        (-0.002, 0.002, "tied"),
        (0.0, 0.0, "tied"),
        (0.0, 0.003, "cannot tell"),
        (-0.0001, 0.0021, "cannot tell"),
        (-0.05, 0.05, "cannot tell"),
        (-0.009, -0.001, "worse"),
        (np.nan, np.nan, "cannot tell"),
        (-np.inf, np.inf, "cannot tell"),
    ],
)
def test_what_an_interval_says(low: float, high: float, said: str) -> None:
    assert verdict(low, high) == said
    turned = {"better": "worse", "worse": "better"}
    assert verdict(-high, -low) == turned.get(said, said)


def test_without_margin_only_equal_runs_are_tied() -> None:
    assert [verdict(-0.001, 0.001, 0), verdict(0, 0, 0), verdict(0.0001, 0.001, 0)] == ["cannot tell", "tied", "better"]


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 0.1), st.floats(0, 0.1))
@settings(max_examples=40, deadline=None)
def test_a_wider_margin_never_makes_a_claim(gap: float, half: float, margin: float, more: float) -> None:
    narrow, wide = (verdict(gap - half, gap + half, each) for each in (margin, margin + more))
    assert wide in (narrow, "tied")


@pytest.mark.parametrize("runs", [2, 3, 8])
def test_a_run_is_left_out_beyond_dunnetts_bound(runs: int) -> None:
    """All runs equal but for the first, which is ahead by a little less, or more, than what may be by chance."""
    bound = dunnett(runs - 1) * 2**0.5
    for part, kept in ((0.98, True), (1.02, False)):
        areas = np.zeros(runs)
        areas[0] = part * bound
        found = among(areas, certain(runs), draws=200_000)
        assert found.best == 0
        assert [each.may_be_best for each in found.standings[1:]] == [kept] * (runs - 1)


@pytest.mark.parametrize("runs", [2, 8])
def test_verdicts_are_by_tukeys_bound(runs: int) -> None:
    areas = np.linspace(1, 0, runs)
    found = among(areas, certain(runs, 0.3), draws=200_000)
    half = 0.3 * studentized_range.ppf(0.95, runs, np.inf)
    assert [each.gap for each in found.standings] == pytest.approx((areas - 1).tolist())
    for each in found.standings[1:]:
        assert (each.low, each.high) == pytest.approx((each.gap - half, each.gap + half), abs=0.01 * half)
        assert each.verdict == ("worse" if each.gap < -half else "cannot tell")
    best = found.standings[0]
    assert (best.low, best.high, best.verdict, best.may_be_best) == (0, 0, "tied", True)


@given(st.integers(0, 300), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_the_order_of_runs_changes_no_claim(seed: int, runs: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(runs, 30)) + random.normal(size=30)
    areas, order = random.normal(size=runs), random.permutation(runs)
    whole = values @ values.T / 100
    one = among(areas, Patients(whole, whole[None], np.array([29.0])), draws=2000)
    turned = whole[np.ix_(order, order)]
    other = among(areas[order], Patients(turned, turned[None], np.array([29.0])), draws=2000)
    assert order[other.best] == one.best
    assert [each.gap for each in other.standings] == pytest.approx([one.standings[place].gap for place in order])


def test_whoever_is_called_worse_cannot_be_the_best() -> None:
    """One-sided bounds of one run's gaps are less than two-sided ones of all."""
    random = np.random.default_rng(5)
    for _ in range(20):
        values = random.normal(size=(6, 40))
        whole = values @ values.T / 400
        found = among(random.normal(size=6), Patients(whole, whole[None], np.array([39.0])), draws=4000)
        assert not any(each.may_be_best and each.verdict == "worse" for each in found.standings)


def test_equal_runs_are_tied_and_both_may_be_best() -> None:
    same = Patients(np.full((2, 2), 0.01), np.full((1, 2, 2), 0.01), np.array([9.0]))
    found = among(np.array([0.8, 0.8]), same)
    assert found.set == [0, 1]
    assert [each.verdict for each in found.standings] == ["tied", "tied"]


def test_gaps_without_a_standard_error_leave_nobody_out() -> None:
    """No variance at all, and a gap; or a variance that is not known."""
    for covariance in (np.zeros((2, 2)), np.full((2, 2), np.nan)):
        found = among(np.array([1.0, 0.5]), Patients(covariance, covariance[None], np.array([9.0])))
        assert found.set == [0, 1]
        assert found.standings[1].as_json() == {
            **{"gap": -0.5, "low": None, "high": None},
            **{"verdict": "cannot tell", "may_be_best": True},
        }
        json.dumps(found.as_json(), allow_nan=False)


def test_one_run_is_the_best() -> None:
    found = among(np.array([0.8]), certain(1))
    assert (found.best, found.set, found.margin) == (0, [0], MARGIN)


def test_settings_that_share_no_seeds_with_the_best_have_no_gap() -> None:
    contrasts = np.array([[1.0, -1.0, 0.0]])
    found = ties([(0, 1)], np.array([-9.0]), contrasts, certain(3))
    assert (found.best, found.set) == (1, [1])
    for gap, best in ((9.0, 0), (-9.0, 2)):
        found = ties([(0, 2)], np.array([gap]), np.array([[1.0, 0.0, -1.0]]), certain(3))
        assert (found.best, found.set) == (best, sorted([best, 1]))
        assert found.standings[1].as_json()["gap"] is None


def test_trainings_chance_keeps_more_in_the_set() -> None:
    pairs, contrasts = [(0, 1)], np.array([[0.5, 0.5, -0.5, -0.5]])
    training = Training(np.array([9.0]), np.array([0.0]), 14.0)
    gaps = np.array([4.0])
    assert ties(pairs, gaps, contrasts, certain(4)).set == [0]
    assert ties(pairs, gaps, contrasts, certain(4), training).set == [0, 1]


def test_a_given_best_run_is_kept() -> None:
    """The benchmark's simulation, small: of 60 studies of 8 equal runs, each of which may be the best."""
    assert claims.best_set(studies=60, seed=1).share >= 0.90


def test_hardly_ever_is_one_of_two_equal_runs_called_better() -> None:
    """Of 200 studies 10 may; 21 are 3.5 standard errors more."""
    assert claims.false_claims_of_runs(studies=200, seed=1).share * 200 <= 21
