from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from xlite_search.errors import RunFailed
from xlite_search.results.influence import influence
from xlite_search.training.metrics import (
    Confusion,
    auroc,
    average_precision,
    brier,
    brier_skill,
    ece,
    label_ranking,
    sigmoid,
    validation_metrics,
)

Floats = NDArray[np.float64]
Truth = NDArray[np.bool_]

#: few distinct scores: ties within and across labels; columns and rows may be all positive or all negative
tied = hnp.arrays(np.float64, (24, 3), elements=st.integers(-3, 3).map(float))
any_truth = hnp.arrays(np.bool_, (24, 3))
truths = any_truth.filter(lambda y: bool((y.any(axis=0) & ~y.all(axis=0)).all()))
#: probabilities off the bins' edges, where the last digit decides
probabilities = hnp.arrays(np.float64, (24, 3), elements=st.integers(0, 400).map(lambda n: (n + 0.5) / 401))

CLASSES = ("Mass", "Nodule", "Hernia")
PER_CLASS = {"auroc", "ap", "f1", "precision", "recall", "brier", "brier_skill", "ece", "positive_rate"}
PER_CLASS |= {"tp", "fp", "fn", "tn"}
MACRO = {"auroc", "ap", "f1", "precision", "recall", "brier_skill", "ece"}
MICRO = {"auroc", "ap", "f1", "precision", "recall"}
OVERALL = {
    "auroc_supported",
    "classes_supported",
    "classes_scored",
    "positive_rate",
    "brier",
    "hamming",
    "ranking_ap",
    "coverage_error",
}
NAMES = {f"val/{name}/{c}" for name in PER_CLASS for c in CLASSES} | {f"val/{name}" for name in OVERALL}
NAMES |= {f"val/{name}_macro" for name in MACRO} | {f"val/{name}_micro" for name in MICRO}
SHARES = MACRO - {"brier_skill"} | {"brier", "hamming", "positive_rate", "ranking_ap"}


def example(seed: int = 0, images: int = 60) -> tuple[Floats, NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return random.normal(size=(images, 3)).round(1), (random.random((images, 3)) < 0.3).astype(np.float32)


@given(tied, truths)
@settings(max_examples=40, deadline=None)
def test_auroc_is_that_of_scikit_learn(scores: Floats, truth: Truth) -> None:
    expected = [reference.roc_auc_score(truth[:, c], scores[:, c]) for c in range(3)]
    assert auroc(scores, truth.astype(float)).tolist() == pytest.approx(expected, abs=1e-12)


@given(tied, truths)
@settings(max_examples=40, deadline=None)
def test_average_precision_is_that_of_scikit_learn(scores: Floats, truth: Truth) -> None:
    expected = [reference.average_precision_score(truth[:, c], scores[:, c]) for c in range(3)]
    assert average_precision(scores, truth.astype(float)).tolist() == pytest.approx(expected, abs=1e-12)


@given(tied, truths)
@settings(max_examples=40, deadline=None)
def test_micro_figures_are_those_of_scikit_learn(scores: Floats, truth: Truth) -> None:
    found = validation_metrics(scores, truth.astype(float), CLASSES)
    predicted = scores >= 0
    options = {"average": "micro", "zero_division": 0.0}
    assert found["val/auroc_micro"] == pytest.approx(reference.roc_auc_score(truth, scores, average="micro"), abs=1e-12)
    expected = reference.average_precision_score(truth, scores, average="micro")
    assert found["val/ap_micro"] == pytest.approx(expected, abs=1e-12)
    for name in ("f1", "precision", "recall"):
        score = getattr(reference, f"{name}_score")(truth, predicted, **options)
        assert found[f"val/{name}_micro"] == pytest.approx(score, abs=1e-12)


@given(any_truth, any_truth)
@settings(max_examples=40, deadline=None)
def test_rates_at_a_threshold_are_those_of_scikit_learn(predicted: Truth, truth: Truth) -> None:
    counts = Confusion.of(predicted, truth)
    real = truth.any(axis=0)
    for name in ("f1", "precision", "recall"):
        ours = getattr(counts, name)()
        expected = getattr(reference, f"{name}_score")(truth, predicted, average=None, zero_division=0.0)
        assert ours[real].tolist() == pytest.approx(list(expected[real]), abs=1e-12)
        assert np.isnan(ours[~real]).all()
    table = np.array([[counts.tn, counts.fp], [counts.fn, counts.tp]]).transpose(2, 0, 1)
    assert np.array_equal(table, reference.multilabel_confusion_matrix(truth, predicted))


@given(tied, any_truth.filter(lambda y: bool(y.any())))
@settings(max_examples=40, deadline=None)
def test_ranking_of_labels_is_that_of_scikit_learn(scores: Floats, truth: Truth) -> None:
    expected = (
        reference.label_ranking_average_precision_score(truth, scores),
        reference.coverage_error(truth, scores),
    )
    assert label_ranking(scores, truth.astype(float)) == pytest.approx(expected, abs=1e-12)


@given(probabilities, truths)
@settings(max_examples=40, deadline=None)
def test_calibration_is_that_of_scikit_learn(chance: Floats, truth: Truth) -> None:
    labels = truth.astype(float)
    for c in range(3):
        positive, predicted = calibration_curve(truth[:, c], chance[:, c], n_bins=15)
        images = np.bincount(np.searchsorted(np.linspace(0, 1, 16)[1:-1], chance[:, c]), minlength=15)
        expected = np.sum(np.abs(positive - predicted) * images[images > 0]) / 24
        assert ece(chance, labels)[c] == pytest.approx(expected, abs=1e-12)
        squared = reference.brier_score_loss(truth[:, c], chance[:, c])
        assert brier(chance, labels)[c] == pytest.approx(squared, abs=1e-12)
        constant = reference.brier_score_loss(truth[:, c], np.full(24, truth[:, c].mean()))
        assert brier_skill(chance, labels)[c] == pytest.approx(1 - squared / constant, abs=1e-12)


@given(tied, any_truth)
@settings(max_examples=40, deadline=None)
def test_hamming_is_that_of_scikit_learn(scores: Floats, truth: Truth) -> None:
    found = validation_metrics(scores, truth.astype(float), CLASSES)
    assert found["val/hamming"] == pytest.approx(reference.hamming_loss(truth, scores >= 0), abs=1e-12)


@given(tied, any_truth)
@settings(max_examples=40, deadline=None)
def test_whatever_the_labels_every_metric_is_finite_and_in_its_range(scores: Floats, truth: Truth) -> None:
    found = validation_metrics(scores, truth.astype(float), CLASSES)
    assert set(found) <= NAMES
    assert all(type(value) is float and np.isfinite(value) for value in found.values())
    shares = (v for n, v in found.items() if n.split("/")[1].removesuffix("_macro").removesuffix("_micro") in SHARES)
    assert all(-1e-12 <= value <= 1 + 1e-12 for value in shares)
    assert 0 <= found.get("val/coverage_error", 0) <= 3
    assert found.get("val/brier_skill_macro", 0) <= 1


def test_auroc_by_hand() -> None:
    # positives 3 and 1, negatives 2, 1, 0: 3 beats three, 1 beats one and ties one -> 4.5 of 6 pairs
    scores, truth = np.array([[3.0], [1.0], [2.0], [1.0], [0.0]]), np.array([[1.0], [1.0], [0.0], [0.0], [0.0]])
    assert auroc(scores, truth).tolist() == [0.75]


def test_average_precision_by_hand() -> None:
    # by falling score: 1 of 1 at recall 1/2, then 2 of 4 (a tie) at recall 1
    scores, truth = np.array([[3.0], [1.0], [2.0], [1.0], [0.0]]), np.array([[1.0], [1.0], [0.0], [0.0], [0.0]])
    assert average_precision(scores, truth).tolist() == [0.5 * 1 + 0.5 * 0.5]


def test_infinite_scores_tie_too() -> None:
    scores, truth = np.array([[np.inf], [np.inf], [-np.inf]]), np.array([[1.0], [0.0], [0.0]])
    assert auroc(scores, truth).tolist() == [0.75]
    assert average_precision(scores, truth).tolist() == [0.5]


def test_rates_by_hand() -> None:
    # first class TP 1, FP 2, FN 1; second: nothing is predicted, one missed; third: no positives
    predicted = np.array([[1, 0, 1], [1, 0, 0], [1, 0, 0], [0, 0, 0]]).astype(bool)
    counts = Confusion.of(predicted, np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]).astype(bool))
    assert [counts.tp.tolist(), counts.fp.tolist()] == [[1, 0, 0], [2, 0, 1]]
    assert [counts.fn.tolist(), counts.tn.tolist()] == [[1, 1, 0], [0, 3, 3]]
    assert counts.precision()[:2].tolist() == [1 / 3, 0.0]
    assert counts.recall()[:2].tolist() == [0.5, 0.0]
    assert counts.f1()[:2].tolist() == [0.4, 0.0]
    assert np.isnan([counts.precision()[2], counts.recall()[2], counts.f1()[2]]).all()
    assert [float(counts.pooled().precision()), float(counts.pooled().recall())] == [1 / 4, 1 / 3]


def test_label_ranking_by_hand() -> None:
    # first image: its finding is second of three; second image: first and third -> (1/1 + 2/3) / 2; third: normal
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    labels = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert label_ranking(scores, labels) == pytest.approx(((1 / 2 + 5 / 6 + 1) / 3, (2 + 3 + 0) / 3))


def test_ece_by_hand() -> None:
    # bin (6/15, 7/15]: 0.42 and 0.46 with one positive, off by |0.44 - 0.5|; bin (14/15, 1]: 0.95 and 1, both negative
    chance = np.array([[0.42], [0.46], [0.95], [1.0]])
    labels = np.array([[1.0], [0.0], [0.0], [0.0]])
    assert ece(chance, labels).tolist() == pytest.approx([(2 * 0.06 + 2 * 0.975) / 4])


@pytest.mark.parametrize(("edge", "of_its_bin"), [(0.0, 0.01), (0.2, 0.19), (1.0, 0.95)])
def test_a_bin_is_closed_on_the_right(edge: float, of_its_bin: float) -> None:
    # one positive, one negative: errors cancel in one bin only
    labels = np.array([[1.0], [0.0]])
    together = abs(edge + of_its_bin - 1) / 2
    assert ece(np.array([[edge], [of_its_bin]]), labels).tolist() == pytest.approx([together])


def test_calibrated_probabilities_have_no_ece_and_the_prevalence_has_no_skill() -> None:
    labels = np.repeat([[1.0], [0.0], [0.0], [0.0], [1.0]], 40, axis=0)
    assert ece(np.full((200, 1), 0.4), labels).tolist() == pytest.approx([0], abs=1e-12)
    assert brier_skill(np.full((200, 1), 0.4), labels).tolist() == pytest.approx([0], abs=1e-12)
    assert brier_skill(labels, labels).tolist() == [1.0]
    assert brier_skill(np.full((200, 1), 0.9), labels)[0] < 0


def test_all_scores_equal_is_chance() -> None:
    truth = np.array([[1.0], [0.0], [0.0], [0.0]])
    assert auroc(np.zeros((4, 1)), truth).tolist() == [0.5]
    assert average_precision(np.zeros((4, 1)), truth).tolist() == [0.25]


def test_names() -> None:
    found = validation_metrics(*example(), CLASSES)
    assert set(found) == NAMES
    assert found["val/classes_scored"] == 3.0


def test_means_are_over_the_classes() -> None:
    found = validation_metrics(*example(), CLASSES)
    for name in MACRO:
        mean = sum(found[f"val/{name}/{c}"] for c in CLASSES) / 3
        assert found[f"val/{name}_macro"] == pytest.approx(mean, abs=1e-15)
    for name in ("brier", "positive_rate"):
        assert found[f"val/{name}"] == pytest.approx(sum(found[f"val/{name}/{c}"] for c in CLASSES) / 3, abs=1e-15)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_label_that_does_not_vary_has_no_auroc_and_is_not_in_the_mean(value: float) -> None:
    logits, labels = example()
    labels[:, 1] = value
    found = validation_metrics(logits, labels, CLASSES)
    assert found["val/classes_scored"] == 2.0
    for name in ("auroc", "ap", "brier_skill"):
        assert f"val/{name}/Nodule" not in found
        kept = [found[f"val/{name}/Mass"], found[f"val/{name}/Hernia"]]
        assert found[f"val/{name}_macro"] == pytest.approx(sum(kept) / 2, abs=1e-15)


@pytest.mark.parametrize(("positives", "supported"), [(9, False), (10, True), (50, True), (51, False)])
def test_a_label_with_few_positives_or_negatives_is_not_in_the_supported_mean(positives: int, supported: bool) -> None:
    logits, labels = example()
    labels[:, 1] = np.arange(60) < positives
    labels[:, [0, 2]] = (np.arange(60) % 3 == 0)[:, None]
    found = validation_metrics(logits, labels, CLASSES)
    among = CLASSES if supported else ("Mass", "Hernia")
    assert found["val/classes_supported"] == len(among)
    mean = sum(found[f"val/auroc/{name}"] for name in among) / len(among)
    assert found["val/auroc_supported"] == pytest.approx(mean, abs=1e-15)


def test_the_supported_mean_by_hand() -> None:
    # 10 + 10 images: five positives beat all negatives, five tie with all -> 0.75; 9 positives, all above: 1, too few
    scores, labels = np.zeros((20, 3)), np.zeros((20, 3))
    labels[:10, 0] = scores[:5, 0] = 1
    labels[:9, 1] = scores[:9, 1] = 1
    found = validation_metrics(scores, labels, CLASSES)
    assert [found["val/auroc_supported"], found["val/classes_supported"]] == [0.75, 1.0]
    assert [found["val/auroc_macro"], found["val/classes_scored"]] == [0.875, 2.0]


def test_no_supported_label_leaves_no_supported_mean() -> None:
    logits, labels = example(images=15)
    found = validation_metrics(logits, labels, CLASSES)
    assert found["val/classes_supported"] == 0
    assert "val/auroc_supported" not in found


def test_a_label_without_positives_has_no_rates_but_a_calibration() -> None:
    logits, labels = example()
    labels[:, 1] = 0
    found = validation_metrics(logits, labels, CLASSES)
    for name in ("f1", "precision", "recall"):
        assert f"val/{name}/Nodule" not in found
        kept = [found[f"val/{name}/Mass"], found[f"val/{name}/Hernia"]]
        assert found[f"val/{name}_macro"] == pytest.approx(sum(kept) / 2, abs=1e-15)
    assert found["val/fp/Nodule"] == pytest.approx(60 * found["val/positive_rate/Nodule"])
    assert {"val/ece/Nodule", "val/brier/Nodule"} <= set(found)


def test_what_is_never_predicted_has_precision_0_not_none() -> None:
    logits, labels = example()
    logits[:, 1] = -5
    found = validation_metrics(logits, labels, CLASSES)
    assert found["val/precision/Nodule"] == found["val/recall/Nodule"] == found["val/f1/Nodule"] == 0.0


def test_nothing_to_score_leaves_no_means() -> None:
    found = validation_metrics(np.zeros((4, 3)), np.zeros((4, 3), np.float32), CLASSES)
    overall = {name: found[name] for name in found if name.count("/") == 1}
    expected = {
        "classes_supported": 0.0,
        "classes_scored": 0.0,
        "positive_rate": 1.0,
        "brier": 0.25,
        "hamming": 1.0,
        "ece_macro": 0.5,
    }
    assert overall == {f"val/{name}": value for name, value in expected.items()}


@given(st.permutations(range(3)), st.integers(0, 10))
@settings(max_examples=20, deadline=None)
def test_permuted_classes_permute_the_metrics(order: list[int], seed: int) -> None:
    logits, labels = example(seed)
    labels[:, 0] = 0
    one = validation_metrics(logits, labels, CLASSES)
    other = validation_metrics(logits[:, order], labels[:, order], tuple(CLASSES[c] for c in order))
    assert one.keys() == other.keys()
    assert all(one[name] == pytest.approx(other[name], abs=1e-12) for name in one)


@given(st.integers(0, 10))
@settings(max_examples=10, deadline=None)
def test_the_order_of_images_does_not_matter(seed: int) -> None:
    logits, labels = example(seed)
    order = np.random.default_rng(seed).permutation(len(logits))
    one, other = (validation_metrics(logits[o], labels[o], CLASSES) for o in (np.arange(len(logits)), order))
    assert all(one[name] == pytest.approx(other[name], abs=1e-12) for name in one)


@given(st.integers(0, 10))
@settings(max_examples=10, deadline=None)
def test_negated_logits_of_negated_labels_are_as_good(seed: int) -> None:
    logits, labels = example(seed)
    one, other = (validation_metrics(s * (logits + 0.05), y, CLASSES) for s, y in ((1, labels), (-1, 1 - labels)))
    for name in ("auroc_macro", "auroc_micro", "hamming", "brier", "brier_skill_macro"):
        assert one[f"val/{name}"] == pytest.approx(other[f"val/{name}"], abs=1e-12)
    assert one["val/tp/Mass"] == other["val/tn/Mass"]


def test_positive_rate_and_brier_by_hand() -> None:
    # probabilities 0.5 (predicted positive: at the threshold), 0.75, 0.25
    logits = np.log(np.array([[1.0], [3.0], [1 / 3]]))
    found = validation_metrics(logits, np.array([[1.0], [0.0], [0.0]]), ("Mass",))
    assert found["val/positive_rate"] == found["val/positive_rate/Mass"] == pytest.approx(2 / 3)
    assert found["val/brier"] == found["val/brier/Mass"] == pytest.approx((0.25 + 0.5625 + 0.0625) / 3)
    assert found["val/brier_skill/Mass"] == pytest.approx(1 - 0.875 / 3 / (2 / 9))
    assert found["val/hamming"] == pytest.approx(1 / 3)


def test_huge_logits_stay_finite() -> None:
    logits, labels = example()
    found = validation_metrics(1e30 * logits, labels, CLASSES)
    assert all(np.isfinite(value) for value in found.values())
    assert sigmoid(np.array([-1e30, 0.0, 1e30], np.float32)).tolist() == pytest.approx([0, 0.5, 1], abs=1e-200)


def test_single_precision_logits_count_like_double() -> None:
    logits, labels = example()
    one, other = (validation_metrics(x, labels, CLASSES) for x in (logits.astype(np.float32), logits))
    assert all(one[name] == pytest.approx(other[name], abs=1e-6) for name in one)


def test_what_is_no_number_is_never_ranked() -> None:
    """A sort gives NaN a place, and every area a finite value."""
    logits = np.zeros((24, 3), np.float32)
    logits[5, 1] = np.nan
    labels = np.arange(72).reshape(24, 3) % 2 * 1.0
    ways: list[Callable[[], object]] = [
        lambda: auroc(logits, labels),
        lambda: average_precision(logits, labels),
        lambda: label_ranking(logits, labels),
        lambda: validation_metrics(logits, labels, CLASSES),
        lambda: influence(logits, labels > 0, np.arange(24)),
    ]
    for way in ways:
        with pytest.raises(RunFailed, match="1 of 72 scores are NaN"):
            way()
