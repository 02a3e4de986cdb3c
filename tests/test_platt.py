"""Platt's line through a teacher's logits, per label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from xlite_search.distill.platt import fit
from xlite_search.training.metrics import auroc

Array = NDArray[np.float32]


def drawn(seed: int, images: int = 400, slope: float = 1.0, offset: float = 0.0) -> tuple[Array, Array]:
    """Logits t of three labels whose log-odds are `slope * t + offset`."""
    random = np.random.default_rng(seed)
    logits = random.normal(-1, 2, size=(images, 3))
    chance = 1 / (1 + np.exp(-(slope * logits + offset)))
    return logits.astype(np.float32), (random.random(chance.shape) < chance).astype(np.float32)


def sklearns(logits: Array, labels: Array) -> tuple[float, float]:
    """Platt's targets as two weighted copies of each image."""
    there = labels > 0
    positives, negatives = there.sum(), (~there).sum()
    target = np.where(there, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    twice = np.concatenate([logits, logits]).astype(np.float64)[:, None]
    model = LogisticRegression(C=np.inf, tol=1e-10, solver="newton-cholesky")
    model.fit(twice, np.repeat([1, 0], len(logits)), sample_weight=np.concatenate([target, 1 - target]))
    return float(model.coef_[0, 0]), float(model.intercept_[0])


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_logistic_regression_on_platts_targets(seed: int) -> None:
    logits, labels = drawn(seed, slope=0.4, offset=-0.7)
    slopes, offsets = fit(logits, labels)
    for label in range(3):
        expected = sklearns(logits[:, label], labels[:, label])
        assert (slopes[label], offsets[label]) == pytest.approx(expected, abs=1e-4)


def test_what_is_wrong_with_the_logits_is_found() -> None:
    slopes, offsets = fit(*drawn(0, images=40_000, slope=0.5, offset=-1.0))
    assert slopes == pytest.approx([0.5] * 3, abs=0.03)
    assert offsets == pytest.approx([-1.0] * 3, abs=0.05)


def test_logits_that_are_log_odds_stay_what_they_are() -> None:
    slopes, offsets = fit(*drawn(1, images=40_000))
    assert slopes == pytest.approx([1] * 3, abs=0.04)
    assert offsets == pytest.approx([0] * 3, abs=0.06)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_label_of_one_kind_is_left_as_it_is(value: float) -> None:
    logits, labels = drawn(0)
    labels[:, 1] = value
    line = fit(logits, labels)
    assert line[:, 1].tolist() == [1, 0]
    assert line[:, 0].tolist() != [1, 0]


def test_the_order_of_answers_is_never_turned_round() -> None:
    logits, labels = drawn(0)
    assert fit(-logits, labels).tolist() == [[1] * 3, [0] * 3]


def test_separable_labels_get_a_finite_line() -> None:
    logits, _ = drawn(0, images=50)
    line = fit(logits * 20, (logits > 0).astype(np.float32))
    assert np.isfinite(line).all()
    assert (line[0] > 0).all()


def test_very_large_logits_do_not_overflow() -> None:
    logits, labels = drawn(0)
    assert np.isfinite(fit(logits * 1e4, labels)).all()


@given(st.integers(0, 100))
def test_the_ranking_is_kept_and_labels_do_not_mix(seed: int) -> None:
    logits, labels = drawn(seed, images=60, slope=0.7)
    line = fit(logits, labels)
    np.testing.assert_allclose(auroc(line[0] * logits + line[1], labels), auroc(logits, labels), atol=1e-6)
    np.testing.assert_array_equal(fit(logits[:, ::-1], labels[:, ::-1]), line[:, ::-1])
