"""Gaps over folds: the corrected resampled variance, by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlite_search.errors import BadInput
from xlite_search.results.folds import over_folds


def test_five_folds_by_hand() -> None:
    """Mean 3, variance 2.5, each fold a fifth: 2.5 (1/5 + 1/4) = 1.125; t of 4 degrees is 2.776."""
    found = over_folds(np.array([1.0, 2, 3, 4, 5]), train=80, test=20)
    assert (found.gap, found.folds) == (3.0, 5)
    assert found.error == pytest.approx(1.125**0.5)
    assert [found.low, found.high] == pytest.approx([3 - 2.7764451 * 1.125**0.5, 3 + 2.7764451 * 1.125**0.5])
    assert found.p == pytest.approx(2 * (0.5 - 3 / 8 * (8 / 3) ** 0.5 * (1 - 8 / 36)))
    assert json.loads(json.dumps(found.as_json()))["folds"] == 5


def test_the_plain_variance_is_less_than_half_of_it() -> None:
    gaps = np.array([0.01, 0.02, 0.00, 0.03, 0.01])
    assert over_folds(gaps, 80, 20).error ** 2 / (gaps.var(ddof=1) / 5) == pytest.approx(2.25)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9))
@settings(max_examples=40, deadline=None)
def test_the_other_way_round_is_the_same_gap_with_its_sign_turned(gaps: list[float]) -> None:
    one, other = (over_folds(sign * np.array(gaps), 4, 1) for sign in (1, -1))
    assert (one.gap, one.low, one.error, one.p) == pytest.approx((-other.gap, -other.high, other.error, other.p))


def test_equal_folds_have_no_chance() -> None:
    assert [over_folds(np.full(3, gap), 2, 1).p for gap in (0.0, 0.25)] == [1.0, 0.0]


def test_one_fold_is_refused() -> None:
    with pytest.raises(BadInput, match="two folds at least, not 1"):
        over_folds(np.array([0.1]), 4, 1)
