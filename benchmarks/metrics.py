"""What an epoch's metrics cost: ours in one pass against the plain scikit-learn calls one by one, each in its turn.

    python benchmarks/metrics.py [--quick]

    metrics_speedup  time of the reference over ours, on logits of 16,818 images x 14 findings (a validation part of
                     NIH ChestX-ray14) whose prevalences and AUROCs are about those of the real ones

The reference is a call per metric and class as one would write it: areas, rates at 0.5, confusion counts, Brier score,
calibration curve, label ranking. Before timing, every figure that both have is compared. One thread; medians over
rounds.
"""

from __future__ import annotations

import numpy as np
import recording
from numpy.typing import NDArray
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from xlite_search.training.metrics import BINS, sigmoid, validation_metrics

IMAGES, ROUNDS, SAME = 16_818, 9, 1e-9
QUICK_IMAGES, QUICK_ROUNDS = 2_000, 1
PREVALENCE = (0.177, 0.119, 0.103, 0.056, 0.052, 0.047, 0.042, 0.030, 0.025, 0.022, 0.021, 0.015, 0.013, 0.002)
CLASSES = tuple(f"finding{number}" for number in range(len(PREVALENCE)))
SEPARATION = 1.2
LIMITS: dict[str, recording.Limit] = {}

Logits = NDArray[np.float32]
Labels = NDArray[np.float32]


def measure(quick: bool) -> dict[str, float]:
    images, rounds = (QUICK_IMAGES, QUICK_ROUNDS) if quick else (IMAGES, ROUNDS)
    logits, labels = validation_pass(images)

    def ours() -> dict[str, float]:
        return validation_metrics(logits, labels, CLASSES)

    def reference() -> dict[str, float]:
        return one_by_one(logits, labels)

    found, expected = ours(), reference()
    assert expected.keys() <= found.keys()
    off = max(abs(found[name] - value) for name, value in expected.items())
    assert off < SAME, f"off by {off}"
    times = recording.interleaved({"ours": ours, "scikit-learn": reference}, rounds)
    fast, slow = (1000 * float(np.median(times[name])) for name in ("ours", "scikit-learn"))
    print(f"{len(found)} metrics of {images:,} x {len(CLASSES)}: ours {fast:.1f} ms")
    print(f"{len(expected)} of them by scikit-learn one by one: {slow:.1f} ms, at most {off:.1g} apart")
    print(f"{slow / fast:.1f} times")
    figures = {"metrics_speedup": slow / fast, "ours_ms": fast, "sklearn_ms": slow}
    counts = {"metrics": len(found), "compared": len(expected), "images": images, "findings": len(CLASSES)}
    return figures | counts | {"rounds": rounds}


def validation_pass(images: int) -> tuple[Logits, Labels]:
    """Logits and labels of a calibrated-looking model: two normal distributions for each finding."""
    random = np.random.default_rng(0)
    prevalence = np.array(PREVALENCE)
    labels = (random.random((images, len(prevalence))) < prevalence).astype(np.float32)
    offset = np.log(prevalence / (1 - prevalence)) - SEPARATION**2 / 2
    logits = offset + SEPARATION**2 * labels + SEPARATION * random.normal(size=labels.shape)
    return logits.astype(np.float32), labels


def one_by_one(logits: Logits, labels: Labels) -> dict[str, float]:
    """What scikit-learn has of an epoch's metrics, by our names."""
    truth, chance = labels.astype(np.int64), sigmoid(logits)
    predicted = (chance >= 0.5).astype(np.int64)
    found: dict[str, float] = {}
    for column, name in enumerate(CLASSES):
        one = _of_a_class(truth[:, column], logits[:, column], chance[:, column], predicted[:, column])
        found |= {f"val/{metric}/{name}": value for metric, value in one.items()}
    for metric in ("auroc", "ap", "precision", "recall", "f1", "ece"):
        found[f"val/{metric}_macro"] = float(np.mean([found[f"val/{metric}/{name}"] for name in CLASSES]))
    found["val/auroc_micro"] = sk.roc_auc_score(truth, logits, average="micro")
    found["val/ap_micro"] = sk.average_precision_score(truth, logits, average="micro")
    found["val/precision_micro"] = sk.precision_score(truth, predicted, average="micro")
    found["val/recall_micro"] = sk.recall_score(truth, predicted, average="micro")
    found["val/f1_micro"] = sk.f1_score(truth, predicted, average="micro")
    found["val/hamming"] = sk.hamming_loss(truth, predicted)
    found["val/ranking_ap"] = sk.label_ranking_average_precision_score(truth, logits)
    found["val/coverage_error"] = sk.coverage_error(truth, logits)
    return {name: float(value) for name, value in found.items()}


def _of_a_class(
    truth: NDArray[np.int64], logits: Logits, chance: NDArray[np.float64], predicted: NDArray[np.int64]
) -> dict[str, float]:
    tn, fp, fn, tp = sk.confusion_matrix(truth, predicted, labels=[0, 1]).ravel()
    positive, mean = calibration_curve(truth, chance, n_bins=BINS)
    images = np.histogram(chance, np.linspace(0, 1, BINS + 1))[0]
    return {
        "auroc": sk.roc_auc_score(truth, logits),
        "ap": sk.average_precision_score(truth, logits),
        "precision": sk.precision_score(truth, predicted, zero_division=0.0),
        "recall": sk.recall_score(truth, predicted, zero_division=0.0),
        "f1": sk.f1_score(truth, predicted, zero_division=0.0),
        "brier": sk.brier_score_loss(truth, chance),
        "ece": float(np.sum(np.abs(positive - mean) * images[images > 0]) / len(truth)),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
    }


if __name__ == "__main__":
    recording.run("metrics", __doc__, measure, LIMITS)
