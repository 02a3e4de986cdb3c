"""Validation metrics of multi-label classifiers: one pass over logits and labels, numpy in, plain floats out.

A finding without positives (or without negatives) has no AUROC and no AP: it is absent, not 0.5, and the macro means
are over the findings that have one; `val/classes_scored` says how many. `val/auroc_supported` leaves out those with
fewer than 10 positives or negatives, whose AUROC is noise. Micro figures pool all (image, class) pairs.
Definitions are scikit-learn's wherever it has the metric.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xlite_search.errors import RunFailed

THRESHOLD = 0.5
BINS = 15
#: positives, and negatives, without which an AUROC is noise
SUPPORT = 10
Array = NDArray[np.float64]
Truth = NDArray[np.bool_]


@dataclass(frozen=True)
class Confusion:
    """Images by what was predicted and what is true, `[class]` each (or one number each, pooled).

    Precision, recall and F1 are NaN without positives. With positives they are 0 where nothing is predicted right, so
    that their means are over the same classes in every epoch.
    """

    tp: Array
    fp: Array
    fn: Array
    tn: Array

    @staticmethod
    def of(predicted: Truth, truth: Truth) -> Confusion:
        """From predictions and truth, `[image, class]`."""
        tp, said, real = ((predicted & truth).sum(axis=0), predicted.sum(axis=0), truth.sum(axis=0))
        counts = (tp, said - tp, real - tp, len(truth) - said - real + tp)
        return Confusion(*(np.asarray(count, np.float64) for count in counts))

    def pooled(self) -> Confusion:
        return Confusion(*(np.asarray(count.sum()) for count in (self.tp, self.fp, self.fn, self.tn)))

    def precision(self) -> Array:
        """TP / (TP + FP)."""
        return self._share(self.tp + self.fp)

    def recall(self) -> Array:
        """TP / (TP + FN)."""
        return self._share(self.tp + self.fn)

    def f1(self) -> Array:
        """TP / (TP + FP/2 + FN/2), the harmonic mean of precision and recall."""
        return self._share(self.tp + (self.fp + self.fn) / 2)

    def _share(self, of: Array) -> Array:
        return np.where(self.tp + self.fn > 0, self.tp / np.maximum(of, 0.5), np.nan)


def auroc(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> Array:
    """Area under the ROC curve per class (Mann-Whitney, ties count one half), `[image, class]` twice -> `[class]`."""
    return areas(scores, labels)[0]


def average_precision(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> Array:
    """Sum over thresholds of precision times the gain in recall (scikit-learn's), `[image, class]` twice -> `[class]`.

    The area under the precision-recall curve without interpolation, which would be too optimistic.
    """
    return areas(scores, labels)[1]


def areas(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> tuple[Array, Array]:
    """AUROC and AP per class from one sort of each class, `[image, class]` twice -> `[class]` twice; NaN if undefined.

    Counts above each distinct score are integers, so that ties are exact and the order within them does not matter.

    Raises:
        RunFailed: a score is NaN.
    """
    expect_numbers(scores)
    pairs = [_areas(s, y) for s, y in zip(scores.T, labels.T > 0, strict=True)]
    return np.array([a for a, _ in pairs]), np.array([p for _, p in pairs])


def _areas(scores: NDArray[np.floating], truth: Truth) -> tuple[float, float]:
    positives = int(np.count_nonzero(truth))
    negatives = len(truth) - positives
    if not positives or not negatives:
        return float("nan"), float("nan")
    order = np.argsort(scores)[::-1]
    ordered = scores[order]
    last_of_tie = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    hits = np.cumsum(truth[order])[last_of_tie]
    said = last_of_tie + 1
    gained, false = np.diff(hits, prepend=0), np.diff(said - hits, prepend=0)
    # each negative is beaten by the positives above its tie, and by half of those within
    area = (false * (2 * hits - gained)).sum() / (2 * positives * negatives)
    return float(area), float((hits / said * gained).sum() / positives)


def expect_numbers(scores: NDArray[np.floating]) -> None:
    """NaN has no place in a ranking, and sorting would give it one; infinity has. Raises RunFailed."""
    odd = int(np.count_nonzero(np.isnan(scores)))
    if odd:
        raise RunFailed(f"not_finite: {odd:,} of {scores.size:,} scores are NaN: nothing can be ranked by them")


def label_ranking(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> tuple[float, float]:
    """Label-ranking AP and coverage error, how well an image's findings come before its other labels.

    The first is the mean share of findings among the labels that score at least as high as a finding, 1 at best; the
    second how far down the list all findings are covered, in labels. As scikit-learn has it, an image without finding
    counts 1 in the one and 0 in the other. Both NaN if no image has a finding. `[image, class]` twice.

    Raises:
        RunFailed: a score is NaN.
    """
    expect_numbers(scores)
    truth = labels > 0
    image, column = np.nonzero(truth)
    if not len(image):
        return float("nan"), float("nan")
    above = scores[image] >= scores[image, column][:, None]
    rank = above.sum(axis=1)
    share = (above & truth[image]).sum(axis=1) / rank
    with_finding, first, findings = np.unique(image, return_index=True, return_counts=True)
    precision = np.add.reduceat(share, first) / findings
    images = len(truth)
    ranking_ap = (precision.sum() + images - len(with_finding)) / images
    return float(ranking_ap), float(np.maximum.reduceat(rank, first).sum() / images)


def ece(probabilities: Array, labels: NDArray[np.floating], bins: int = BINS) -> Array:
    """Expected calibration error of the finding's probability per class, `[image, class]` twice -> `[class]`.

    Mean over images of |mean probability - share of positives| of the image's bin; bins of equal width, closed on the
    right (Naeini et al. 2015, Guo et al. 2017). It is that of the probability of "yes", not of the predicted answer
    max(p, 1 - p): for rare findings the latter only sees how sure the model is of "no".
    """
    classes = probabilities.shape[1]
    number = bin_of(probabilities, bins) + bins * np.arange(classes)
    gap = np.bincount(number.ravel(), (probabilities - (labels > 0)).ravel(), minlength=bins * classes)
    return np.asarray(np.abs(gap).reshape(classes, bins).sum(axis=1) / len(probabilities))


def bin_of(probabilities: Array, bins: int = BINS) -> NDArray[np.intp]:
    """The number of each probability's bin: equal width, closed on the right."""
    return np.clip(np.ceil(probabilities * bins).astype(np.intp) - 1, 0, bins - 1)


def brier(probabilities: Array, labels: NDArray[np.floating]) -> Array:
    """Mean squared error of the probabilities per class, `[image, class]` twice -> `[class]`."""
    error = probabilities - (labels > 0)
    return np.asarray(np.einsum("ic,ic->c", error, error) / len(error))


def brier_skill(probabilities: Array, labels: NDArray[np.floating]) -> Array:
    """1 - Brier / (Brier of the prevalence in these labels), per class: 1 is perfect, below 0 worse than a constant.

    NaN without positives or without negatives. (Brier 1950; the reference forecast is the climatology of Murphy 1973.)
    """
    prevalence = (labels > 0).mean(axis=0)
    constant = prevalence * (1 - prevalence)
    return np.where(constant > 0, 1 - brier(probabilities, labels) / np.where(constant > 0, constant, 1), np.nan)


def validation_metrics(
    logits: NDArray[np.floating], labels: NDArray[np.floating], classes: tuple[str, ...]
) -> dict[str, float]:
    """All metrics of a validation pass by their slashed names; undefined ones are absent.

    Per class, as val/<name>/<class>, and as val/<name>_macro the mean over the classes that have one:
    auroc, ap, f1, precision, recall, brier_skill, ece; per class only: brier, positive_rate, counts tp, fp, fn, tn
    val/auroc_micro, val/ap_micro, val/f1_micro, val/precision_micro, val/recall_micro    over all pairs at once
    val/classes_scored    how many classes the macro AUROC is over
    val/auroc_supported   the mean AUROC over the classes with at least 10 positives and 10 negatives
    val/classes_supported how many these are
    val/positive_rate     share of (image, class) pairs predicted positive at 0.5
    val/brier             mean squared error of the probabilities
    val/hamming           share of pairs that are predicted wrong at 0.5
    val/ranking_ap, val/coverage_error    see `label_ranking`
    """
    truth = labels > 0
    probabilities = sigmoid(logits)
    predicted = probabilities >= THRESHOLD
    counts = Confusion.of(predicted, truth)
    area, ap = areas(logits, labels)
    averaged = {"auroc": area, "ap": ap, **_rates(counts)}
    averaged |= {"brier_skill": brier_skill(probabilities, labels), "ece": ece(probabilities, labels)}
    single = {"brier": brier(probabilities, labels), "positive_rate": predicted.mean(axis=0)}
    single |= {"tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "tn": counts.tn}
    supported = np.minimum(truth.sum(axis=0), (~truth).sum(axis=0)) >= SUPPORT
    metrics = {
        "auroc_supported": _mean(area[supported]),
        "classes_supported": float(supported.sum()),
        "classes_scored": float(np.isfinite(area).sum()),
        "positive_rate": float(predicted.mean()),
        "brier": float(single["brier"].mean()),
        "hamming": float((predicted ^ truth).mean()),
    }
    metrics |= {f"{name}_macro": _mean(values) for name, values in averaged.items()}
    metrics |= _pooled(logits, labels, counts)
    for name, values in (averaged | single).items():
        metrics |= {f"{name}/{c}": float(value) for c, value in zip(classes, values, strict=True)}
    return {f"val/{name}": value for name, value in metrics.items() if np.isfinite(value)}


def sigmoid(logits: NDArray[np.floating]) -> Array:
    """Probabilities in double precision; huge logits give 0 or 1, without overflow."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500, dtype=np.float64))))


def _rates(counts: Confusion) -> dict[str, Array]:
    return {"f1": counts.f1(), "precision": counts.precision(), "recall": counts.recall()}


def _pooled(logits: NDArray[np.floating], labels: NDArray[np.floating], counts: Confusion) -> dict[str, float]:
    """What is over all (image, class) pairs, and what is within an image."""
    (area,), (ap,) = areas(logits.reshape(-1, 1), labels.reshape(-1, 1))
    ranking_ap, coverage = label_ranking(logits, labels)
    rates = {f"{name}_micro": float(value) for name, value in _rates(counts.pooled()).items()}
    ranked = {"ranking_ap": ranking_ap, "coverage_error": coverage}
    return {"auroc_micro": float(area), "ap_micro": float(ap), **rates, **ranked}


def _mean(values: Array) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else float("nan")
