"""Which claims runs allow: of themselves, or of their settings over seeds or folds, from their kept predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from xlite_search.errors import XliteError
from xlite_search.records import RunRecord
from xlite_search.results import seeds
from xlite_search.results.arms import Arm, by_gap, folds_in_all, over_folds, over_seeds, whole_folds
from xlite_search.results.claims import MOST, Claims, Unclaimed
from xlite_search.results.inference import Patients, joint
from xlite_search.results.influence import Array, Influence
from xlite_search.results.intervals import Interval, own
from xlite_search.results.paired import (
    FEWEST_SEEDS,
    Judge,
    Seeds,
    fold_of,
    names_of,
    pairs_of,
    recipe_of,
    seed_of,
    settings_of,
)
from xlite_search.results.selection import winner
from xlite_search.results.ties import MARGIN, among

#: runs that have intervals of single findings, the leading ones
LEADING = 4


def claims_of(
    runs: Sequence[RunRecord],
    labels: Sequence[str],
    metric: str,
    judge: Callable[[RunRecord], Judge],
    maker: Callable[[RunRecord], str],
    margin: float = MARGIN,
) -> Claims:
    """Of runs, the best first, on the same validation images, or on all folds of a split.

    Settings are told apart by the resolved configs of their runs and by who trained them (`maker`), never by labels.
    `judge` gives the validation part of a run.

    Raises:
        Unclaimed: there is no law of this metric's chance, or nothing to compare.
        XliteError: the data, a run's kept predictions or its config are not there, or not what they were.
    """
    if not runs:
        raise Unclaimed("no run was trained to its end")
    if len({fold_of(run) for run in runs}) > 1:
        return _of_folds(runs, metric, judge, maker, margin)
    settings = settings_of(runs, maker)
    groups = [group for group in settings if len(group) >= FEWEST_SEEDS]
    pairs = pairs_of(groups)
    if pairs or len(groups) == len(settings) == 1:
        kept = [groups[number] for number in (_connected(pairs, len(groups)) if pairs else [0])]
        apart = [list(group.values()) for group in settings if group not in kept]
        return _of_seeds(kept, apart, metric, judge, margin)
    called = dict(zip((run.key for run in runs), labels, strict=True))
    return _of_weights(runs, called, metric, judge, margin, single=not groups)


def _of_seeds(
    groups: Sequence[Seeds],
    apart: Sequence[Sequence[RunRecord]],
    metric: str,
    judge: Callable[[RunRecord], Judge],
    margin: float,
) -> Claims:
    """Of settings over their seeds; those apart have no seeds in common with them."""
    chosen = list({run.key: run for group in groups for run in group.values()}.values())
    on, scored, areas, patients = _scored(chosen, metric, judge)
    arms, first = over_seeds(groups, [run.key for run in chosen], areas, patients, margin)
    arms = _with_findings(arms, chosen, scored, on.names)
    alone = dict(zip((run.key for run in chosen), own(areas, patients), strict=True))
    whole, without = (on.images, on.many), tuple(names_of(apart))
    return Claims("recipe", metric, margin, *whole, arms, len(groups), alone, first, law=patients, apart=without)


def _of_weights(
    runs: Sequence[RunRecord],
    called: Mapping[str, str],
    metric: str,
    judge: Callable[[RunRecord], Judge],
    margin: float,
    *,
    single: bool,
) -> Claims:
    """Of runs alone, of which no two settings have two seeds in common."""
    chosen = list({run.key: run for run in runs}.values())[:MOST]
    on, scored, areas, patients = _scored(chosen, metric, judge)
    found = among(areas, patients, margin)
    both = joint([*scored, *(on.of_last(run) or of_best for run, of_best in zip(chosen, scored, strict=True))])
    first = winner([_curve(run, metric) for run in chosen], both.covariance)
    alone = dict(zip((run.key for run in chosen), own(areas, patients), strict=True))
    arms = [
        Arm(called[run.key], (run,), float(area), math.nan, alone[run.key], standing)
        for run, area, standing in zip(chosen, areas, found.standings, strict=True)
    ]
    told = _with_findings(by_gap(arms, found.best), chosen, scored, on.names)
    return Claims("weights", metric, margin, on.images, on.many, told, len(runs), alone, first, single, patients)


def _scored(
    runs: Sequence[RunRecord], metric: str, judge: Callable[[RunRecord], Judge]
) -> tuple[Judge, list[Influence], Array, Patients]:
    """Who judges these runs, what each patient moves them by, their scores `[run]`, and the scores' joint law."""
    on = judge(runs[0])
    if not on.findings.any():
        raise Unclaimed(f"no finding has the images that {metric} needs")
    scored = [on.of(run) for run in runs]
    return on, scored, np.array([one.score.mean() for one in scored]), joint(scored)


def _connected(pairs: Sequence[tuple[int, int]], many: int) -> list[int]:
    """The settings that are compared with one another, directly or by others: the largest such group, of equal ones the
    first."""
    left, found = set(range(many)), list[set[int]]()
    while left:
        group, new = set[int](), {min(left)}
        while new:
            group |= new
            new = {other for pair in pairs for one in pair for other in pair if one in group} - group
        found.append(group)
        left -= group
    sizes = [len(group) for group in found]
    return sorted(found[sizes.index(max(sizes))])


def _with_findings(
    arms: Sequence[Arm], runs: Sequence[RunRecord], scored: Sequence[Influence], names: Sequence[str]
) -> tuple[Arm, ...]:
    """The arms with the intervals of each finding's score, as `own` makes those of the mean; of runs the leading ones
    alone. `scored` is `[run]`."""
    recipe = len(arms) < len(runs)
    shown = arms if recipe else arms[:LEADING]
    known = [run for run in runs if recipe or any(run is arm.runs[0] for arm in shown)]
    scored = [one for run, one in zip(runs, scored, strict=True) if any(run is each for each in known)]
    place_of = {run.key: place for place, run in enumerate(known)}
    places = [{seed_of(run): place_of[run.key] for run in arm.runs} for arm in shown]
    weights, found = seeds.means(places, len(known)), list[list[Interval]]()
    for finding in range(len(names)):
        chosen = np.arange(len(names)) == finding
        patients, scores = joint([one.of(chosen) for one in scored]), np.array([one.score[finding] for one in scored])
        training = seeds.of_means(places, scores, patients.covariance) if recipe else None
        found.append(own(scores, patients, weights, training))
    told = [dict(zip(names, of_arm, strict=True)) for of_arm in zip(*found, strict=True)]
    return (*(replace(arm, findings=each) for arm, each in zip(shown, told, strict=True)), *arms[len(shown) :])


def _of_folds(
    runs: Sequence[RunRecord],
    metric: str,
    judge: Callable[[RunRecord], Judge],
    maker: Callable[[RunRecord], str],
    margin: float,
) -> Claims:
    """Of runs in several folds of a split."""
    found: dict[str, dict[int, Seeds]] = {}
    for run in runs:
        fold = fold_of(run)
        if fold is not None:
            found.setdefault(recipe_of(run, maker), {}).setdefault(fold, {}).setdefault(seed_of(run), run)
    folds, groups = whole_folds(list(found.values()))
    if not groups:
        raise Unclaimed("the runs are of several folds, which have other images, and no setting was run in two of them")
    apart = [
        [run for of_fold in group.values() for run in of_fold.values()]
        for group in found.values()
        if not set(folds) <= group.keys()
    ]
    arms, first = over_folds(groups, metric, margin)
    chosen = [run for group in groups for of_fold in group.values() for run in of_fold.values()]
    parts = {fold_of(run): judge(run) for run in chosen}
    whole = sum(part.images for part in parts.values()), sum(part.many for part in parts.values())
    alone = own_intervals(chosen, judge)
    of, without = folds_in_all(groups), tuple(names_of(apart))
    return Claims(
        "recipe", metric, margin, *whole, arms, len(groups), alone, first, False, None, tuple(folds), of, without
    )


def own_intervals(runs: Iterable[RunRecord], judge: Callable[[RunRecord], Judge]) -> dict[str, Interval]:
    """Of each run's score alone, by its key; without those that cannot be read."""
    found: dict[str, Interval] = {}
    for run in runs:
        try:
            one = judge(run).of(run)
        except XliteError:
            continue
        (found[run.key],) = own(np.array([one.score.mean()]), joint([one]))
    return found


def _curve(run: RunRecord, metric: str) -> Array:
    scores: Array = np.array(run.metric(metric))
    return np.asarray(scores[np.isfinite(scores)])
