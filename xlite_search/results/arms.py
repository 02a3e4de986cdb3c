"""Arms of a comparison: a run, or a setting over its seeds or folds, with its interval and its gap to the best arm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xlite_search.records import RunRecord
from xlite_search.results import folds, seeds
from xlite_search.results.inference import Patients
from xlite_search.results.influence import Array
from xlite_search.results.intervals import Interval, own
from xlite_search.results.paired import Seeds, common_seeds, fold_of, names_of, pairs_of, seed_of
from xlite_search.results.selection import Winner, winner
from xlite_search.results.ties import MARGIN, Standing, Ties, ties

#: a setting's runs by fold and seed
Folds = Mapping[int, Seeds]


@dataclass(frozen=True)
class Arm:
    """A run, or a setting over its seeds or folds.

    score     as its kept predictions have it, or the mean over its seeds; over its folds of what training recorded
    spread    standard deviation over its seeds or folds; NaN of one
    gaps      to the best, of each common seed or fold; empty for the best itself, and for a run
    interval  of the score alone, not of all at once
    standing  against the one that scored best
    findings  the same intervals of each finding's score; empty over folds
    """

    label: str
    runs: tuple[RunRecord, ...]
    score: float
    spread: float
    interval: Interval
    standing: Standing
    gaps: tuple[float, ...] = ()
    findings: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def folds(self) -> list[int]:
        """The fold of each run; empty where no split has folds."""
        return [fold for run in self.runs if (fold := fold_of(run)) is not None]

    def as_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "runs": [run.key for run in self.runs],
            "seeds": [seed_of(run) for run in self.runs],
            **({"folds": self.folds} if self.folds else {}),
            "score": self.score,
            "spread": self.spread if math.isfinite(self.spread) else None,
            "gaps": list(self.gaps),
            "interval": self.interval.as_json(),
            **self.standing.as_json(),
            "findings": {name: interval.as_json() for name, interval in self.findings.items()},
        }


def over_seeds(
    groups: Sequence[Seeds], keys: Sequence[str], areas: Array, patients: Patients, margin: float = MARGIN
) -> tuple[tuple[Arm, ...], Winner]:
    """Settings as arms, the best first, and what the best mean is worth. `keys` are the runs', `[run]` as `areas`."""
    place_of = {key: place for place, key in enumerate(keys)}
    places = [{seed: place_of[run.key] for seed, run in group.items()} for group in groups]
    pairs = pairs_of(groups)
    common = [common_seeds(groups[one], groups[other]) for one, other in pairs]
    sides = _sides(places, pairs, common)
    contrasts, weights = seeds.contrasts(sides, len(areas)), seeds.means(places, len(areas))
    training = seeds.of_gaps(places, sides, areas, patients.covariance) if pairs else None
    found = ties(pairs, contrasts @ areas, contrasts, patients, training, margin=margin)
    of_means = seeds.of_means(places, areas, patients.covariance)
    means, intervals = weights @ areas, own(areas, patients, weights, of_means)
    arms = _arms([[group[seed] for seed in sorted(group)] for group in groups], places, areas, means, intervals, found)
    law = weights @ patients.covariance @ weights.T + np.diag(of_means.variance - of_means.sampling)
    first = winner([np.array([mean]) for mean in means], np.tile(law, (2, 2)))
    if first.run != found.best:  # ahead in other seeds than the common ones
        first = replace(first, run=found.best, score=float(means[found.best]), corrected=math.nan)
    return by_gap(arms, found.best), first


def whole_folds(groups: Sequence[Folds]) -> tuple[list[int], list[Folds]]:
    """The folds that settings are compared on, and the settings that have all of them.

    Means over other folds are of other images and do not compare. Of the sets of folds that a setting has, or two have
    in common, the one that keeps most runs is chosen, of two settings at least where there is one; of several the one
    with most folds. None of fewer than two folds.
    """
    sets = {frozenset(one.keys() & other.keys()) for one in groups for other in groups}
    kept = {
        chosen: [group for group in groups if chosen <= group.keys()]
        for chosen in sets
        if len(chosen) >= folds.FEWEST_FOLDS
    }

    def worth(chosen: frozenset[int]) -> tuple[bool, int, int, list[int]]:
        many = len(kept[chosen])
        return many > 1, many * len(chosen), len(chosen), sorted(chosen)

    if not kept:
        return [], []
    best = max(kept, key=worth)
    return sorted(best), [{fold: group[fold] for fold in sorted(best)} for group in kept[best]]


def over_folds(groups: Sequence[Folds], metric: str, margin: float = MARGIN) -> tuple[tuple[Arm, ...], Winner]:
    """Settings as arms, the best first, by their scores in each fold, of several seeds the mean; all have all folds."""
    cells = [(number, fold) for number, group in enumerate(groups) for fold in group]
    scores = np.array([np.mean([run.best_score(metric) for run in groups[n][f].values()]) for n, f in cells])
    places = [{fold: cells.index((number, fold)) for fold in group} for number, group in enumerate(groups)]
    pairs = list(itertools.combinations(range(len(places)), 2))
    sides = _sides(places, pairs, [list(groups[0])] * len(pairs))
    of = folds_in_all(groups)
    contrasts, weights = seeds.contrasts(sides, len(scores)), seeds.means(places, len(scores))
    training = folds.of_gaps(places, sides, scores, of) if pairs else None
    found = ties(pairs, contrasts @ scores, contrasts, folds.no_patients(len(scores)), training, margin=margin)
    means, intervals = weights @ scores, folds.own(places, scores, of)
    runs = [[run for fold in sorted(group) for run in group[fold].values()] for group in groups]
    arms = _arms(runs, places, scores, means, intervals, found)
    law = np.diag(folds.rest(places, scores, of)) if pairs else np.zeros((len(means), len(means)))
    return by_gap(arms, found.best), winner([np.array([mean]) for mean in means], np.tile(law, (2, 2)))


def folds_in_all(groups: Sequence[Folds]) -> int:
    """Folds of the split that these runs are of, whether each was run or not."""
    run = next(run for group in groups for of_fold in group.values() for run in of_fold.values())
    return int(run.config["data"]["split"]["folds"])


def by_gap(arms: Sequence[Arm], best: int) -> tuple[Arm, ...]:
    """The best, then the others by their gaps to it; those that have none, for want of common seeds, last."""
    others = [arm for place, arm in enumerate(arms) if place != best]
    return (arms[best], *sorted(others, key=lambda arm: (math.isnan(arm.standing.gap), -arm.standing.gap)))


def _sides(
    places: seeds.Places, pairs: Sequence[tuple[int, int]], common: Sequence[Sequence[int]]
) -> list[tuple[list[int], ...]]:
    """The places of each pair's scores on their common seeds or folds, the one's and the other's."""
    return [tuple([places[of][each] for each in both] for of in pair) for pair, both in zip(pairs, common, strict=True)]


def _arms(
    runs: Sequence[Sequence[RunRecord]],
    places: seeds.Places,
    scores: Array,
    means: Array,
    intervals: Sequence[Interval],
    found: Ties,
) -> list[Arm]:
    of_best, arms = places[found.best], []
    rows = zip(names_of(runs), runs, places, means, intervals, found.standings, strict=True)
    for name, own_runs, of, mean, interval, standing in rows:
        common = [] if of is of_best else sorted(of.keys() & of_best.keys())
        gaps = tuple(float(scores[of[each]] - scores[of_best[each]]) for each in common)
        values = scores[list(of.values())]
        spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
        arms.append(Arm(name, tuple(own_runs), float(mean), spread, interval, standing, gaps))
    return arms
