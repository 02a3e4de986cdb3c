"""The 95 % interval of one finding's AUROC where positives are few: how often it has the truth, and how wide it is.

    python benchmarks/few_positives.py [--quick]

By simulation, exact for the seed, with the standard error of each as ..._error; of 8 patients with the finding and 200
without:

    coverage_own_rare               true AUROC 0.97, binormal scores
    coverage_own_rare_wide          the same, the positives' standard deviation 3/2
    coverage_own_rare_exponential   the same, exponential scores: most positives are above all negatives, few far below
    coverage_own_rare_images        the same, binormal, 1 to 4 images of each patient
    coverage_own_rare_moderate      true AUROC 0.75, binormal scores
    width_own_rare...               the mean width of each
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import recording
from numpy.typing import NDArray
from recording import Limit
from scipy.special import log_ndtr, ndtri

from xlite_search.results.inference import joint
from xlite_search.results.influence import Array, influence
from xlite_search.results.intervals import Interval, own

POSITIVES, NEGATIVES = 8, 200
DRAWS, QUICK_DRAWS, SEED = 3000, 20, 0
#: of the variance of normal scores, a patient's
PATIENT = 0.6


@dataclass(frozen=True)
class Case:
    """One law of scores.

    spread  standard deviation of the positives' scores, that of the negatives' being 1; 0 for exponential scores
    images  of a patient, at most; at least one
    """

    name: str
    area: float
    spread: float = 1.0
    images: int = 1

    def scores(self, noise: Array, there: NDArray[np.bool_]) -> Array:
        """Of standard normal noise `[image]`."""
        if not self.spread:
            return np.asarray(-log_ndtr(-noise) * np.where(there, self.area / (1 - self.area), 1))
        shift = ndtri(self.area) * math.hypot(1, self.spread)
        return np.asarray(np.where(there, shift + self.spread * noise, noise))


CASES = (
    Case("", 0.97),
    Case("_wide", 0.97, spread=1.5),
    Case("_exponential", 0.97, spread=0.0),
    Case("_images", 0.97, images=4),
    Case("_moderate", 0.75),
)
LIMITS = {f"coverage_own_rare{case.name}": Limit(least=0.93) for case in CASES}


def intervals(case: Case, draws: int, seed: int = SEED) -> list[Interval]:
    """Of single findings, of other patients each time."""
    random, many, seen = np.random.default_rng(seed), POSITIVES + NEGATIVES, []
    for _ in range(draws):
        groups = np.repeat(np.arange(many), random.integers(1, case.images + 1, many))
        there, of_patients = groups < POSITIVES, random.normal(size=many)[groups]
        noise = PATIENT**0.5 * of_patients + (1 - PATIENT) ** 0.5 * random.normal(size=len(groups))
        one = influence(case.scores(noise, there)[:, None], there[:, None], groups)
        seen += own(one.score, joint([one]))
    return seen


def measure(quick: bool) -> dict[str, float]:
    draws, figures = QUICK_DRAWS if quick else DRAWS, dict[str, float]()
    for case in CASES:
        seen = intervals(case, draws)
        within = np.array([each.low <= case.area <= each.high for each in seen])
        figures[f"coverage_own_rare{case.name}"] = float(within.mean())
        figures[f"coverage_own_rare{case.name}_error"] = float(within.std() / math.sqrt(draws))
        figures[f"width_own_rare{case.name}"] = float(np.mean([each.high - each.low for each in seen]))
    return figures | {"draws": draws, "positives": POSITIVES, "negatives": NEGATIVES, "seed": SEED}


if __name__ == "__main__":
    recording.run("few_positives", __doc__, measure, LIMITS)
