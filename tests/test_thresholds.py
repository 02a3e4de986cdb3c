"""Thresholds: the rule of facts' figures, its coverage by simulation, best F1 and Youden against scikit-learn."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import bdtr, ndtr
from sklearn.metrics import precision_recall_curve, roc_curve

from xlite_search.errors import BadInput
from xlite_search.evaluation.estimates import Estimate
from xlite_search.evaluation.thresholds import (
    OfFinding,
    Threshold,
    Thresholds,
    between,
    by_counts,
    by_sensitivity,
    expect_sensitivity,
    lowest,
    needed,
    of_finding,
    rule_of,
    threshold,
    tolerance,
    too_few,
)
from xlite_search.training.metrics import sigmoid


@pytest.mark.parametrize(
    ("patients", "k"), [(28, 0), (29, 1), (45, 1), (46, 2), (60, 2), (61, 3), (106, 6), (168, 11), (500, 39), (0, 0)]
)
def test_which_of_the_positive_patients_it_is(patients: int, k: int) -> None:
    assert tolerance(patients, 0.9) == k


def test_how_many_it_takes() -> None:
    assert [needed(each) for each in (0.5, 0.8, 0.9, 0.95, 0.99)] == [5, 14, 29, 59, 299]
    assert all(tolerance(needed(s), s) == 1 and tolerance(needed(s) - 1, s) == 0 for s in (0.5, 0.8, 0.9, 0.95, 0.99))
    assert too_few("Hernia", 12, 0.9) == (
        "Hernia: no threshold keeps a sensitivity of 0.9 with 95 % confidence: 12 positive patients, and it takes 29"
    )


def test_the_rule_keeps_its_sensitivity_in_95_percent_of_draws() -> None:
    """2,000 draws of positive patients from a normal law, for each number of them and each sensitivity: the true
    sensitivity at the k-th lowest is its upper tail."""
    kept, plain = [], []
    for patients, sensitivity in product([29, 46, 61, 106, 168, 500], [0.7, 0.8, 0.9]):
        drawn = np.random.default_rng(patients).normal(size=(2000, patients))
        k = tolerance(patients, sensitivity)
        assert 1 - bdtr(k - 1, patients, 1 - sensitivity) >= 0.95 > 1 - bdtr(k, patients, 1 - sensitivity)
        chosen = np.partition(drawn, k - 1, axis=1)[:, k - 1]
        kept.append((1 - ndtr(chosen) >= sensitivity).mean())
        met = np.quantile(drawn, 1 - sensitivity, axis=1, method="lower")
        plain.append((1 - ndtr(met) >= sensitivity).mean())
    assert np.mean(kept) >= 0.95 and min(kept) >= 0.95 - 2.33 * np.sqrt(0.95 * 0.05 / 2000)
    assert max(plain) < 0.75  # what is merely met on these images


def test_a_patient_counts_by_the_lowest_of_its_positive_images() -> None:
    scores = np.array([3.0, 1.0, 2.0, -5.0, 0.5])
    truth, groups = np.array([True, True, True, False, True]), np.array([0, 0, 1, 1, 2])
    assert lowest(scores, truth, groups).tolist() == [0.5, 1.0, 2.0]
    assert by_sensitivity(scores, truth, groups, 0.9) is None
    assert by_sensitivity(scores, truth, groups, 0.3) == (0.5, 1)
    assert by_sensitivity(scores, truth, groups, 0.1) == (1.0, 2)


def test_several_images_a_patient_keep_the_promise_too() -> None:
    """2,000 draws of 61 patients with three images, alike within a patient: of other patients 0.9 have all flagged."""
    random = np.random.default_rng(1)
    often = 0
    others = (random.normal(size=(20_000, 1)) + 0.5 * random.normal(size=(20_000, 3))).min(axis=1)
    for _ in range(2000):
        scores = random.normal(size=(61, 1)) + 0.5 * random.normal(size=(61, 3))
        found = by_sensitivity(scores.ravel(), np.ones(183, bool), np.repeat(np.arange(61), 3), 0.9)
        assert found is not None
        often += int((others >= found[0]).mean() >= 0.9)
    assert often / 2000 >= 0.94


@settings(deadline=None, max_examples=60)
@given(st.integers(4, 60), st.integers(0, 2**32 - 1))
def test_best_f1_and_youden_are_scikit_learns(images: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, truth = np.round(random.normal(size=images), 1), random.random(images) < 0.4
    truth[:2] = True, False
    precision, recall, _ = precision_recall_curve(truth, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    false, hit, _ = roc_curve(truth, scores, drop_intermediate=False)
    at = scores >= by_counts(scores, truth, "f1")
    assert 2 * (at & truth).sum() / (at.sum() + truth.sum()) == pytest.approx(f1.max())
    at = scores >= by_counts(scores, truth, "youden")
    assert at[truth].mean() - at[~truth].mean() == pytest.approx((hit - false)[1:].max())


def test_a_threshold_is_between_what_it_flags_and_what_it_does_not() -> None:
    scores, truth = np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True])
    assert between(scores, 1.0) == 0 and between(scores, -2.0) == -2.0
    found = threshold(scores, truth, np.arange(4), 1.0)
    assert found.probability == 0.5 and found.flagged == 0.5
    assert (found.sensitivity.value, found.specificity.value, found.precision.value) == (1, 1, 1)
    assert np.array_equal(sigmoid(scores) >= found.probability, scores >= 1.0)


def test_thresholds_of_a_finding() -> None:
    random = np.random.default_rng(0)
    truth = np.arange(1000) < 100
    scores = random.normal(size=1000) + 2 * truth - 3
    found = of_finding("Mass", scores, scores, truth, np.arange(1000))
    assert found.refused == "" and found.sensitivity and found.sensitivity.k == 5
    assert found.sensitivity.sensitivity.value == 0.96
    assert (sigmoid(scores[truth]) >= found.sensitivity.probability).mean() == 0.96
    assert found.net_benefit and len(found.net_benefit.model) == len(found.net_benefit.thresholds) == 40


def test_what_there_is_no_threshold_of_is_said() -> None:
    scores, truth = np.linspace(-1, 1, 40), np.arange(40) >= 30
    few = of_finding("Hernia", scores, scores, truth, np.arange(40))
    assert few.sensitivity is None and few.f1 and few.youden
    assert few.refused == too_few("Hernia", 10, 0.9)
    none = of_finding("Hernia", scores, scores, np.zeros(40, bool), np.arange(40))
    assert none.refused == "Hernia: no threshold, every validation image is without it" and none.f1 is None
    every = of_finding("Hernia", scores, scores, np.ones(40, bool), np.arange(40))
    assert every.refused == "Hernia: no threshold, every validation image is with it"


@pytest.mark.parametrize("wrong", [0.0, 1.0, -1.0, 90.0, float("nan")])
def test_a_sensitivity_is_a_part(wrong: float) -> None:
    with pytest.raises(BadInput, match=r"expected a part between 0 and 1, such as 0\.9"):
        expect_sensitivity(wrong)


def test_a_finding_without_the_deciding_rule_is_decided_by_its_best_f1() -> None:
    def by(probability: float) -> Threshold:
        return Threshold(
            probability=probability,
            sensitivity=Estimate.of(0.9),
            specificity=Estimate.of(0.5),
            precision=Estimate.of(0.5),
            flagged=0.5,
        )

    rows = (
        OfFinding(finding="Mass", positives=50, positive_patients=40, sensitivity=by(0.1), f1=by(0.4)),
        OfFinding(finding="Edema", positives=9, positive_patients=9, f1=by(0.3), refused="too few"),
        OfFinding(finding="Hernia", positives=0, positive_patients=0, refused="none"),
    )
    found = Thresholds(sha256="s", calibration="c", at_least=0.9, findings=rows)
    cuts, rules = found.deciding()
    assert cuts[:2].tolist() == [0.1, 0.3] and np.isnan(cuts[2]) and rules == ("sensitivity", "f1", "")
    assert found.model_copy(update={"decides": "f1"}).deciding(("Mass",))[0].tolist() == [0.4]
    with pytest.raises(BadInput, match=r"--rule youdn: expected sensitivity, youden, f1; did you mean 'youden'\?"):
        rule_of("youdn")
