"""What an epoch's validation says: one pass over logits and labels, numpy in, plain floats out.

A finding without positives (or without negatives) has no AUROC and no AP: it is absent, not 0.5, and the macro means
are over the findings that have one; `val/classes_scored` says how many.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.5
Array = NDArray[np.float64]


def auroc(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> Array:
    """Area under the ROC curve per class (Mann-Whitney, ties count one half), `[image, class]` twice -> `[class]`."""
    return np.array([_auroc(s, y) for s, y in zip(scores.T, labels.T > 0, strict=True)])


def average_precision(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> Array:
    """Sum over thresholds of precision times the gain in recall, per class (scikit-learn's definition)."""
    return np.array([_average_precision(s, y) for s, y in zip(scores.T, labels.T > 0, strict=True)])


def f1(predicted: NDArray[np.bool_], labels: NDArray[np.floating]) -> Array:
    """2 TP / (2 TP + FP + FN) per class; 0 where nothing is predicted right, NaN without positives."""
    truth = labels > 0
    hits = (predicted & truth).sum(axis=0)
    wrong = (predicted ^ truth).sum(axis=0)
    score = np.divide(2 * hits, 2 * hits + wrong, out=np.zeros(len(hits)), where=2 * hits + wrong > 0)
    return np.where(truth.any(axis=0), score, np.nan)


def validation_metrics(
    logits: NDArray[np.floating], labels: NDArray[np.floating], classes: tuple[str, ...]
) -> dict[str, float]:
    """All metrics of a validation pass by their slashed names; undefined ones are absent.

    val/auroc/<class>, val/ap/<class>, val/f1/<class>   per class
    val/auroc_macro, val/ap_macro, val/f1_macro         means over the classes that have one
    val/classes_scored    how many classes the macro AUROC is over
    val/positive_rate     share of (image, class) pairs predicted positive at 0.5
    val/brier             mean squared error of the probabilities
    """
    scores = logits.astype(np.float64)
    probabilities = 1 / (1 + np.exp(-np.clip(scores, -500, 500)))
    predicted = probabilities >= THRESHOLD
    per_class = {
        "auroc": auroc(scores, labels),
        "ap": average_precision(scores, labels),
        "f1": f1(predicted, labels),
    }
    metrics = {
        "val/classes_scored": float(np.isfinite(per_class["auroc"]).sum()),
        "val/positive_rate": float(predicted.mean()),
        "val/brier": float(np.mean((probabilities - labels) ** 2)),
    }
    for name, values in per_class.items():
        defined = np.isfinite(values)
        if defined.any():
            metrics[f"val/{name}_macro"] = float(values[defined].mean())
        metrics |= {f"val/{name}/{c}": float(v) for c, v, ok in zip(classes, values, defined, strict=True) if ok}
    return metrics


def _auroc(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return float("nan")
    _, position, ties = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(ties) - (ties - 1) / 2
    above = mean_rank[position][truth].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def _average_precision(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    positives = int(truth.sum())
    if not positives or positives == len(truth):
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    hits = np.cumsum(truth[order])[last_of_tie]
    precision = hits / (last_of_tie + 1)
    return float(np.sum(precision * np.diff(hits, prepend=0)) / positives)
