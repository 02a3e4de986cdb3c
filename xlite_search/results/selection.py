"""The winner's optimism: by how much the best of many scores is better than the model that has it.

Whoever is picked as the best on some patients was also lucky with them. Bootstrap bias-corrected selection (BBC;
Tsamardinos, Greasidou and Borboudakis 2018) repeats the pick on patients drawn anew, and judges each pick by the
patients that were not drawn; the mean of these is what the picked model is worth.

It is done here in the limit of many patients, by the joint normal law of all scores. Drawn patients move the scores by
D, of covariance S, the law of the scores' own errors. Those left out move them by -D on average: a patient is left out
with probability 1/e and then weighs -1 in D, so that the covariance of D with the mean of those left out is -S. The
corrected score is therefore the mean over draws of the picked one's score less its D, where the best score plus D is
picked.

A run's epochs are scores to pick from as well. Of a run only two epochs' predictions are kept, the best's and the
last's; the others are taken to differ from them as much as these two differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from xlite_search.results.inference import DRAWS, ROUNDING, draws_of
from xlite_search.results.influence import Array

#: numbers in memory at once
AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Winner:
    """The run with the best score of its best epoch.

    run        its place
    score      as it was seen
    corrected  what it is worth on other patients; NaN where the law of the scores' errors cannot be known
    runs       that it was chosen from
    scores     that it was chosen from, all epochs of all runs
    """

    run: int
    score: float
    corrected: float
    runs: int
    scores: int

    @property
    def optimism(self) -> float:
        return self.score - self.corrected

    def as_json(self) -> dict[str, Any]:
        """With null for what cannot be known."""
        known = asdict(self) | {"optimism": self.optimism}
        return {name: None if value != value else value for name, value in known.items()}


def winner(curves: Sequence[Array], covariance: Array, draws: int = DRAWS) -> Winner:
    """Of runs whose scores by epoch are `curves` `[run][epoch]`; a setting's mean over seeds is a curve of one.

    covariance  `[2 run, 2 run]` of the errors of the best epochs' scores, then of the last epochs' (the same again
                where the last is the best): `joint([*best, *last]).covariance`. For means over seeds it may have the
                variance of training on its diagonal, and the correction is of its chance too.

    Raises ValueError for a score that is not finite.
    """
    if not all(np.isfinite(curve).all() for curve in curves):
        raise ValueError("scores must be finite")
    runs, sizes = len(curves), [len(curve) for curve in curves]
    scores = np.concatenate(curves)
    bests = np.array([curve.max() for curve in curves])
    run = int(bests.argmax())
    found = Winner(run, float(bests[run]), float(bests[run]), runs, len(scores))
    if len(scores) == 1:
        return found
    if not np.isfinite(covariance).all():
        return replace(found, corrected=math.nan)
    common, own = _model(covariance)
    random, total, run_of = np.random.default_rng(0), 0.0, np.repeat(np.arange(runs), sizes)
    for some in np.array_split(np.arange(draws), -(-draws * len(scores) // AT_ONCE)):
        shared = draws_of(random, common, len(some))
        shared -= shared.mean(axis=1, keepdims=True)  # what all runs share is 0 on average and chooses none of them
        moved = shared[:, run_of]
        moved += random.standard_normal(moved.shape) * own[run_of]
        picked = (scores + moved).argmax(axis=1)
        total += float((scores[picked] - moved[np.arange(len(some)), picked]).sum())
    return replace(found, corrected=total / draws)


def _model(covariance: Array) -> tuple[Array, Array]:
    """The errors of a run's epochs as a part that they share and one of each epoch's own.

    Returns the covariance of the first, `[run, run]`, and the standard deviation of the second, `[run]`, which is taken
    from other runs where a run's last epoch is its best.
    """
    runs = len(covariance) // 2
    (best, between), (_, last) = ((side[:, :runs], side[:, runs:]) for side in (covariance[:runs], covariance[runs:]))
    own = (best.diagonal() + last.diagonal() - 2 * between.diagonal()).clip(min=0) / 2
    known = own > ROUNDING * best.diagonal()
    own = np.where(known, own, np.median(own[known]) if known.any() else 0.0)
    common = (best + last + between + between.T) / 4
    np.fill_diagonal(common, ((best + last).diagonal() / 2 - own).clip(min=0))
    return common, np.sqrt(own)
