"""Platt calibration of a teacher, per label: the line a t + b that makes its logits log-odds on validation images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STEPS, RIDGE = 50, 1e-6


def fit(logits: NDArray[np.float32], labels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Slope and offset of every label, `[2, class]`, from logits and labels `[image, class]`.

    Newton's method on the cross-entropy with Platt's targets, (n+ + 1)/(n+ + 2) and 1/(n- + 2), which keep few
    positives from a vertical line (Platt 1999; Lin et al. 2007). A label without positives or negatives, and one whose
    slope would not be above zero, is left as it is: the order of a teacher's logits is never turned round.
    """
    return np.stack([_line(t, y > 0) for t, y in zip(logits.T.astype(np.float64), labels.T, strict=True)], axis=1)


def _line(logits: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    positives = int(truth.sum())
    negatives = len(truth) - positives
    as_it_is = np.array([1.0, 0.0])
    if not positives or not negatives:
        return as_it_is
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    features = np.stack([logits, np.ones_like(logits)])
    line = as_it_is.copy()
    loss = _loss(line @ features, target)
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(line @ features, -500, 500)))
        gradient = features @ (chance - target)
        curvature = (features * (chance * (1 - chance))) @ features.T + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while (better := _loss((line - step) @ features, target)) > loss and np.abs(step).max() > 1e-10:
            step = step / 2
        line, gained, loss = line - step, loss - better, better
        if gained < 1e-12 * len(truth):
            break
    return line if line[0] > 0 else as_it_is


def _loss(scores: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    return float((np.logaddexp(0, scores) - target * scores).sum())
