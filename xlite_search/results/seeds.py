"""The variance of training, from settings that were run with several seeds, pooled over all of them.

Three seeds tell little of how far one setting's score would be off (t = 4.3 with two degrees of freedom). Settings
whose trainings are taken for equally uncertain tell it together: eight of them with three seeds have 14 (t = 2.14).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xlite_search.results.inference import Training
from xlite_search.results.influence import Array

#: of each setting the place of a run by its seed
Places = Sequence[Mapping[int, int]]


def contrasts(sides: Sequence[tuple[list[int], ...]], runs: int) -> Array:
    """What makes each pair's mean gap of the runs' AUROCs, `[pair, run]`: places of the one's runs and the other's."""
    found = np.zeros((len(sides), runs))
    for row, (one, other) in zip(found, sides, strict=True):
        row[one], row[other] = 1 / len(one), -1 / len(other)
    return found


def means(places: Places, runs: int) -> Array:
    """What makes each setting's mean of the runs' AUROCs, `[setting, run]`."""
    found = np.zeros((len(places), runs))
    for row, of_seeds in zip(found, places, strict=True):
        row[list(of_seeds.values())] = 1 / len(of_seeds)
    return found


def of_gaps(places: Places, sides: Sequence[tuple[list[int], ...]], areas: Array, covariance: Array) -> Training:
    """The variance of each pair's mean gap that is due to training.

    A run's AUROC is its setting's, and its seed's, and the rest: the rest's variance is pooled over all settings, whose
    trainings are taken for equally uncertain; a pair whose own gaps vary more counts by its own.
    """
    variance, by_patients, dof = unexplained(places, areas, covariance)
    pooled, found = (2 * variance, 2 * by_patients), []
    for one, other in sides:
        gaps = contrasts([([a], [b]) for a, b in zip(one, other, strict=True)], len(areas))
        own = (areas[one] - areas[other]).var(ddof=1), np.cov(np.eye(len(one)), ddof=1)
        by_chance = float(np.trace(own[1] @ gaps @ covariance @ gaps.T))
        found.append((*max(pooled, (float(own[0]), by_chance)), len(one)))
    seen, by_chance_of, many = (np.array(column) for column in zip(*found, strict=True))
    return Training(np.maximum(seen, by_chance_of) / many, by_chance_of / many, dof)


def unexplained(places: Places, areas: Array, covariance: Array) -> tuple[float, float, int]:
    """The variance of a run's AUROC that neither its setting nor its seed explains; what of it the patients' chance
    makes by `covariance`, `[run, run]`; and its degrees of freedom."""
    order, by_setting, by_seed = _designs(places)
    rest, dof = _residual(np.hstack([by_setting, by_seed]))
    values, sampling = areas[order], covariance[np.ix_(order, order)]
    return float(values @ rest @ values) / dof, float(np.trace(rest @ sampling)) / dof, dof


def of_means(places: Places, areas: Array, covariance: Array) -> Training:
    """The variance of each setting's mean over its seeds that is due to training, `[setting]`.

    It has the seed's own part too, which a gap on common seeds has not. What differs from seed to seed within the
    settings is pooled; where the settings' common seeds have a part in it, it has fewer degrees of freedom than runs
    less settings (Satterthwaite 1946).

    Raises ValueError if no setting has two seeds.
    """
    order, by_setting, by_seed = _designs(places)
    values, sampling = areas[order], covariance[np.ix_(order, order)]
    within, dof = _residual(by_setting)
    if not dof:
        raise ValueError("no setting has two seeds")
    rest, dof_of_rest = _residual(np.hstack([by_setting, by_seed]))
    of_rest, of_all = float(values @ rest @ values), float(values @ within @ values)
    of_seeds, dof_of_seeds = max(of_all - of_rest, 0.0), dof - dof_of_rest
    squares = sum(part**2 / many for part, many in ((of_rest, dof_of_rest), (of_seeds, dof_of_seeds)) if many)
    by_chance = float(np.trace(within @ sampling)) / dof
    many = np.array([len(of_setting) for of_setting in places])
    variance = max(of_all / dof, by_chance) / many
    return Training(variance, by_chance / many, of_all**2 / squares if squares else float(dof))


def _designs(places: Places) -> tuple[list[int], Array, Array]:
    """The runs' places in the order of the rows, and which setting and which seed each has, as zeros and ones."""
    runs = [(setting, seed, place) for setting, of_seeds in enumerate(places) for seed, place in of_seeds.items()]
    settings, seeds = (np.unique([run[axis] for run in runs], return_inverse=True)[1] for axis in (0, 1))
    order = [place for _, _, place in runs]
    return order, np.eye(settings.max() + 1)[settings], np.eye(seeds.max() + 1)[seeds]


def _residual(design: Array) -> tuple[Array, int]:
    """What projects onto that which a design does not explain, and its dimension."""
    return np.eye(len(design)) - design @ np.linalg.pinv(design), len(design) - int(np.linalg.matrix_rank(design))
