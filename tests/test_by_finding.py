"""Two runs finding by finding: corrections by hand and by brute force, and how often a whole table is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import t as student_t

from xlite_search.results.by_finding import FindingGap, by_finding, holm, step_down
from xlite_search.results.inference import joint
from xlite_search.results.influence import influence


def table(
    one: NDArray[np.float64], other: NDArray[np.float64], truth: NDArray[np.bool_], margin: float = 0.002
) -> list[FindingGap]:
    images = np.arange(len(truth))
    names = [f"f{number}" for number in range(truth.shape[1])]
    runs = [influence(each, truth, images) for each in (one, other)]
    return by_finding(runs[0], runs[1], names, truth.sum(axis=0).tolist(), margin)


def drawn(seed: int, prevalences: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1), images: int = 300) -> NDArray[np.bool_]:
    truth = np.random.default_rng(seed).random((images, len(prevalences))) < prevalences
    truth[:3], truth[3:6] = True, False
    return truth


def test_holm_by_hand() -> None:
    """The least times 3, the next times 2 but not less than that, the last times 1 likewise; and never above 1."""
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.6, 0.5])).tolist() == [1, 1]


def test_step_down_by_hand() -> None:
    """Four draws. 3 is reached by one maximum of all three, 2 by two of the last two, 1 by three of the last alone."""
    by_chance = np.array([[3.5, 0.1, 0.1], [0.1, 2.5, 1.5], [0.1, 2.2, 1.1], [0.1, 0.1, 1.9]])
    assert step_down(np.array([3.0, 2.0, 1.0]), by_chance) == pytest.approx([2 / 5, 3 / 5, 4 / 5])
    turned = step_down(np.array([1.0, 3.0, 2.0]), by_chance[:, [2, 0, 1]])
    assert turned == pytest.approx([4 / 5, 2 / 5, 3 / 5])


@given(st.integers(0, 500), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_step_down_as_it_is_defined(seed: int, findings: int) -> None:
    random = np.random.default_rng(seed)
    seen, by_chance = np.abs(random.normal(size=findings)), np.abs(random.normal(size=(50, findings)))
    expected, before = np.empty(findings), 0.0
    left = sorted(range(findings), key=lambda place: -seen[place])
    while left:
        reached = sum(max(draw[place] for place in left) >= seen[left[0]] for draw in by_chance)
        before = expected[left[0]] = max(before, (1 + reached) / 51)
        left.pop(0)
    assert step_down(seen, by_chance) == pytest.approx(expected)


def test_one_finding_has_students_test_and_nothing_to_correct() -> None:
    random, truth = np.random.default_rng(2), drawn(2, (0.1,))
    one, other = (random.normal(size=truth.shape) + strength * truth for strength in (2.0, 1.0))
    (row,) = table(one, other, truth)
    runs = [influence(each, truth, np.arange(len(truth))) for each in (one, other)]
    patients, contrast = joint(runs), np.array([[1.0, -1.0]])
    error, dof = patients.variance(contrast)[0] ** 0.5, patients.dof_of(contrast)
    assert row.p == pytest.approx(2 * student_t.sf(row.gap / error, dof))
    assert row.p_holm == row.p
    assert row.p_max_t == pytest.approx(row.p, abs=0.01)
    half = student_t.ppf(0.975, dof) * error
    assert (row.low, row.high) == pytest.approx((row.gap - half, row.gap + half), rel=0.03)


@given(st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_corrections_only_make_gaps_less_sure_and_max_t_less_so_than_holm(seed: int) -> None:
    random, truth = np.random.default_rng(seed), drawn(seed)
    shared = random.normal(size=(len(truth), 1))
    one, other = (shared + random.normal(size=truth.shape) + strength * truth for strength in (1.5, 1.0))
    rows = table(one, other, truth)
    assert [row.positives for row in rows] == sorted(row.positives for row in rows)
    for row in rows:
        assert row.p <= row.p_max_t + 0.02  # ten thousand draws
        assert row.p_max_t <= row.p_holm + 0.02
        assert row.low < row.gap < row.high
    ordered = sorted(rows, key=lambda row: row.p)
    assert [row.p_max_t for row in ordered] == sorted(row.p_max_t for row in rows)


def test_the_other_way_round_better_is_worse() -> None:
    random, truth = np.random.default_rng(1), drawn(1)
    one, other = (random.normal(size=truth.shape) + strength * truth for strength in (3.0, 0.5))
    forth, back = table(one, other, truth), table(other, one, truth)
    assert {row.verdict for row in forth} == {"better"}
    assert {row.verdict for row in back} == {"worse"}
    for here, there in zip(forth, back, strict=True):
        assert (here.gap, here.low, here.p_max_t) == pytest.approx((-there.gap, -there.high, there.p_max_t))


def test_findings_that_go_together_are_corrected_less() -> None:
    """Ten times the same finding is one comparison; Holm takes it for ten."""
    random, truth = np.random.default_rng(4), np.repeat(drawn(4, (0.3,)), 10, axis=1)
    one, other = (np.repeat(random.normal(size=(len(truth), 1)), 10, axis=1) + each * truth for each in (1.5, 1.1))
    for row in table(one, other, truth):
        assert row.p_holm == pytest.approx(10 * row.p)
        assert row.p_max_t == pytest.approx(row.p, abs=0.01)


def test_a_finding_of_three_patients_widens_nobodys_interval() -> None:
    random, truth = np.random.default_rng(6), drawn(6, (0.3, 0.3, 0.0))
    one, other = (random.normal(size=truth.shape) + truth for _ in range(2))
    rows = {row.finding: row for row in table(one, other, truth)}
    without = {row.finding: row for row in table(one[:, :2], other[:, :2], truth[:, :2])}
    assert (rows["f2"].positives, rows["f2"].supported, rows["f0"].supported) == (3, False, True)
    for name, row in without.items():
        assert row.high - row.low < rows[name].high - rows[name].low < 1.15 * (row.high - row.low)


def test_what_cannot_be_known_is_no_comparison() -> None:
    """A single patient with it, none with it, and equal runs beside a finding that is told apart."""
    random, truth = np.random.default_rng(7), drawn(7, (0.3, 0.3, 0.3, 0.3))
    truth[:, 1], truth[:, 2] = np.arange(len(truth)) == 5, False
    one, other = (random.normal(size=truth.shape) + strength * truth for strength in (3.0, 0.5))
    other[:, 3] = one[:, 3]
    rows = {row.finding: row for row in table(one, other, truth)}
    assert [rows[name].verdict for name in ("f0", "f1", "f2", "f3")] == ["better", "cannot tell", "cannot tell", "tied"]
    assert rows["f0"].p_holm == rows["f0"].p
    assert rows["f1"].as_json()["p"] is None
    assert rows["f2"].as_json()["auroc"] == [None, None]
    assert (rows["f3"].gap, rows["f3"].low, rows["f3"].p) == (0, 0, 1)
    json.dumps([row.as_json() for row in rows.values()], allow_nan=False)


def test_nothing_to_compare_is_no_error() -> None:
    truth = np.zeros((6, 2), dtype=bool)
    assert [row.verdict for row in table(np.zeros((6, 2)), np.ones((6, 2)), truth)] == ["cannot tell"] * 2


def test_gaps_within_a_wide_margin_are_tied() -> None:
    random, truth = np.random.default_rng(8), drawn(8)
    one = random.normal(size=truth.shape) + truth
    other = one + 0.01 * random.normal(size=truth.shape)
    assert {row.verdict for row in table(one, other, truth, margin=0.05)} == {"tied"}
    assert all(row.as_json()["margin"] == 0.05 for row in table(one, other, truth, margin=0.05))


def test_hardly_a_table_of_equal_runs_has_a_claim() -> None:
    """Of 200 tables of four findings 10 may; 21 are 3.5 standard errors more. Without correction 37 would."""
    random, wrong = np.random.default_rng(9), 0
    for _ in range(200):
        truth = drawn(int(random.integers(10**6)), images=200)
        shared = random.normal(size=truth.shape)
        one, other = (shared + 0.5 * random.normal(size=truth.shape) + truth for _ in range(2))
        wrong += any(row.verdict in ("better", "worse") for row in table(one, other, truth))
    assert wrong <= 21
