from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn import metrics as reference

from xlite_search.training.metrics import auroc, average_precision, f1, validation_metrics

#: few distinct scores: ties within and across labels
tied = hnp.arrays(np.float64, (24, 3), elements=st.integers(-3, 3).map(float))
truths = hnp.arrays(np.bool_, (24, 3)).filter(lambda y: bool((y.any(axis=0) & ~y.all(axis=0)).all()))

CLASSES = ("Mass", "Nodule", "Hernia")


def example(seed: int = 0, images: int = 60) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return random.normal(size=(images, 3)).round(1), (random.random((images, 3)) < 0.3).astype(np.float32)


@given(tied, truths)
@settings(max_examples=80, deadline=None)
def test_auroc_is_that_of_scikit_learn(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> None:
    expected = [reference.roc_auc_score(truth[:, c], scores[:, c]) for c in range(3)]
    assert auroc(scores, truth.astype(float)).tolist() == pytest.approx(expected, abs=1e-12)


@given(tied, truths)
@settings(max_examples=80, deadline=None)
def test_average_precision_is_that_of_scikit_learn(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> None:
    expected = [reference.average_precision_score(truth[:, c], scores[:, c]) for c in range(3)]
    assert average_precision(scores, truth.astype(float)).tolist() == pytest.approx(expected, abs=1e-12)


@given(hnp.arrays(np.bool_, (24, 3)), truths)
@settings(max_examples=80, deadline=None)
def test_f1_is_that_of_scikit_learn(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
    expected = reference.f1_score(truth, predicted, average=None, zero_division=0.0)
    assert f1(predicted, truth.astype(float)).tolist() == pytest.approx(list(expected), abs=1e-12)


def test_auroc_by_hand() -> None:
    # positives 3 and 1, negatives 2, 1, 0: 3 beats three, 1 beats one and ties one -> 4.5 of 6 pairs
    scores, truth = np.array([[3.0], [1.0], [2.0], [1.0], [0.0]]), np.array([[1.0], [1.0], [0.0], [0.0], [0.0]])
    assert auroc(scores, truth).tolist() == [0.75]


def test_average_precision_by_hand() -> None:
    # by falling score: 1 of 1 at recall 1/2, then 2 of 4 (a tie) at recall 1
    scores, truth = np.array([[3.0], [1.0], [2.0], [1.0], [0.0]]), np.array([[1.0], [1.0], [0.0], [0.0], [0.0]])
    assert average_precision(scores, truth).tolist() == [0.5 * 1 + 0.5 * 0.5]


def test_f1_by_hand() -> None:
    # TP 1, FP 2, FN 1 -> 2 / 5; then nothing predicted, one missed -> 0
    predicted = np.array([[True, False], [True, False], [True, False], [False, False]])
    truth = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    assert f1(predicted, truth).tolist() == [0.4, 0.0]


def test_all_scores_equal_is_chance() -> None:
    truth = np.array([[1.0], [0.0], [0.0], [0.0]])
    assert auroc(np.zeros((4, 1)), truth).tolist() == [0.5]
    assert average_precision(np.zeros((4, 1)), truth).tolist() == [0.25]


def test_names_and_ranges() -> None:
    found = validation_metrics(*example(), CLASSES)
    per_class = {f"val/{name}/{c}" for name in ("auroc", "ap", "f1") for c in CLASSES}
    means = {"val/auroc_macro", "val/ap_macro", "val/f1_macro"}
    assert set(found) == per_class | means | {"val/classes_scored", "val/positive_rate", "val/brier"}
    assert found["val/classes_scored"] == 3.0
    assert all(type(value) is float for value in found.values())
    assert all(0 <= value <= 1 for name, value in found.items() if name != "val/classes_scored")


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_label_that_does_not_vary_has_no_auroc_and_is_not_in_the_mean(value: float) -> None:
    logits, labels = example()
    labels[:, 1] = value
    found = validation_metrics(logits, labels, CLASSES)
    assert "val/auroc/Nodule" not in found
    assert "val/ap/Nodule" not in found
    assert found["val/classes_scored"] == 2.0
    for name in ("auroc", "ap"):
        kept = [found[f"val/{name}/Mass"], found[f"val/{name}/Hernia"]]
        assert found[f"val/{name}_macro"] == pytest.approx(sum(kept) / 2, abs=1e-15)


def test_a_label_without_positives_has_no_f1() -> None:
    logits, labels = example()
    labels[:, 1] = 0
    found = validation_metrics(logits, labels, CLASSES)
    assert "val/f1/Nodule" not in found
    assert found["val/f1_macro"] == pytest.approx((found["val/f1/Mass"] + found["val/f1/Hernia"]) / 2, abs=1e-15)


def test_nothing_to_score_leaves_no_means() -> None:
    found = validation_metrics(np.zeros((4, 3)), np.zeros((4, 3), np.float32), CLASSES)
    assert found == {"val/classes_scored": 0.0, "val/positive_rate": 1.0, "val/brier": 0.25}


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


def test_positive_rate_and_brier_by_hand() -> None:
    # probabilities 0.5 (predicted positive: at the threshold), 0.75, 0.25
    logits = np.log(np.array([[1.0], [3.0], [1 / 3]]))
    found = validation_metrics(logits, np.array([[1.0], [0.0], [0.0]]), ("Mass",))
    assert found["val/positive_rate"] == pytest.approx(2 / 3)
    assert found["val/brier"] == pytest.approx((0.25 + 0.5625 + 0.0625) / 3)


def test_huge_logits_stay_finite() -> None:
    logits, labels = example()
    found = validation_metrics(1e30 * logits, labels, CLASSES)
    assert all(np.isfinite(value) for value in found.values())
