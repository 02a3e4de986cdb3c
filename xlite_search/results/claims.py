"""Claims about runs or settings: their intervals, those that cannot be told from the best, and a sentence to sign.

Where settings were run with several seeds in common, the claims are about the *recipe*: the intervals have the
chance of training beside that of the patients. With one seed each they are about *these weights*, and have the
patients' chance alone. Chance comes from two sides (Bouthillier et al. 2021):

    patients   `inference.py`: DeLong's variance of a gap, a patient's images taken together
    training   `seeds.py`: the variance of a run's AUROC that neither its setting nor its seed explains, pooled over all
               settings, or that of the pair's own gaps where it is larger
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xlite_search.errors import XliteError
from xlite_search.records import RunRecord
from xlite_search.results import seeds
from xlite_search.results.columns import ends
from xlite_search.results.inference import Patients, joint
from xlite_search.results.influence import Array
from xlite_search.results.intervals import Interval, own
from xlite_search.results.paired import (
    MACRO,
    OF_FINDING,
    OF_SUPPORTED,
    Judge,
    Seeds,
    common_seeds,
    names_of,
    pairs_of,
    settings_of,
)
from xlite_search.results.selection import Winner, winner
from xlite_search.results.ties import MARGIN, Standing, among, ties

if TYPE_CHECKING:
    from xlite_search.data.dataset import Data

#: runs that are compared at most, those that scored best
MOST = 60


class Unclaimed(XliteError):
    """Why nothing can be claimed of runs: a sentence."""


@dataclass(frozen=True)
class Arm:
    """A run, or a setting over its seeds.

    score     its AUROC, or the mean over its seeds, as its kept predictions have it
    spread    standard deviation over its seeds; NaN of one
    gaps      to the best, of each common seed; empty for the best itself, and for a run
    interval  of the score alone, not of all at once
    standing  against the one that scored best
    """

    label: str
    runs: tuple[RunRecord, ...]
    score: float
    spread: float
    interval: Interval
    standing: Standing
    gaps: tuple[float, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "runs": [run.key for run in self.runs],
            "seeds": [int(run.config.get("seed", 0)) for run in self.runs],
            "score": self.score,
            "spread": self.spread if math.isfinite(self.spread) else None,
            "gaps": list(self.gaps),
            "interval": self.interval.as_json(),
            **self.standing.as_json(),
        }


@dataclass(frozen=True)
class Claims:
    """What may be said of some runs on the same images.

    about     "weights" or "recipe"
    arms      the best first, then the others by their gaps to it
    of        runs that could have been compared; more than `MOST` are not
    own       of each run's AUROC by its key, alone; what its patients make uncertain
    winner    by how much the best score is too good, for having been chosen
    single    every setting has one seed
    law       the joint law of these AUROCs, in the order of `own`, for gaps between any two
    """

    about: Literal["weights", "recipe"]
    metric: str
    margin: float
    images: int
    patients: int
    arms: tuple[Arm, ...]
    of: int
    own: dict[str, Interval]
    winner: Winner
    single: bool = True
    law: Patients | None = None

    @property
    def tied(self) -> list[Arm]:
        """Those that cannot be told from the best, which is one of them."""
        return [arm for arm in self.arms if arm.standing.may_be_best]

    @property
    def usual(self) -> RunRecord:
        """Of the best arm the run whose score is nearest to its mean."""
        arm = self.arms[0]
        return min(arm.runs, key=lambda run: abs(self.own[run.key].value - arm.score))

    def sentence(self) -> str:
        """What a careful reader could sign."""
        best, many, tied = self.arms[0], len(self.arms), len(self.tied)
        what = "settings" if self.about == "recipe" else "runs"
        told = f"{self.metric} {best.score:.4f}, 95 % {ends(best.interval.low, best.interval.high)}"
        if many == 1:
            said = f"{best.label} has {told}"
        elif tied == 1:
            said = f"{best.label} is the best of {many} {what} ({told})"
        else:
            of = f"none of the {many} {what} can" if tied == many else f"{tied} of {many} {what} cannot"
            said = f"{of} be told from the best, {best.label} ({told})"
        said = f"On {self.images:,} validation images of {self.patients:,} patients, {said}"
        if many > 1:
            said += "; 95 % for all comparisons at once"
        if self.about == "recipe":
            return said + "."
        why = "One seed each" if self.single else "No two settings have two seeds in common"
        return f"{said}. {why}: this is about these weights, not about their recipes."

    def notes(self) -> list[str]:
        """How to read the table."""
        found = [
            f"=: cannot be told from the best (95 %, all at once); the order of the others is that of their scores. "
            f"Verdicts of the gap to the best, margin {self.margin:g}: tied within it, better or worse beyond chance, "
            f"else one cannot tell"
        ]
        if self.of > len(self.arms) and self.about == "weights":
            found.append(f"claims are about the {len(self.arms)} that scored best, of {self.of:,}")
        if self.winner.scores > 1 and math.isfinite(self.winner.corrected):
            found.append(
                f"the best score {self.winner.score:.4f} was chosen from {self.winner.scores:,}; corrected for that it "
                f"is {self.winner.corrected:.4f}"
            )
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "about": self.about,
            "metric": self.metric,
            "margin": self.margin,
            "images": self.images,
            "patients": self.patients,
            "sentence": self.sentence(),
            "tied": [arm.label for arm in self.tied],
            "compared": len(self.arms),
            "of": self.of,
            "winner": self.winner.as_json(),
            "arms": [arm.as_json() for arm in self.arms],
        }


def claims_of(
    runs: Sequence[RunRecord],
    labels: Sequence[str],
    metric: str,
    data: Callable[[], Data],
    maker: Callable[[RunRecord], str],
    margin: float = MARGIN,
) -> Claims:
    """Of runs, the best first, on the same validation images.

    Settings are told apart by the resolved configs of their runs and by who trained them (`maker`), never by labels.

    Raises:
        Unclaimed: there is no law of this metric's chance, or nothing to compare.
        XliteError: the data, a run's kept predictions or its config are not there, or not what they were.
    """
    if not runs:
        raise Unclaimed("no run was trained to its end")
    if metric not in (MACRO, OF_SUPPORTED) and not metric.startswith(OF_FINDING):
        raise Unclaimed(f"intervals are of mean AUROCs alone, and this study is ranked by {metric}")
    settings = settings_of(runs, maker)
    groups = [group for group in settings if len(group) > 1]
    pairs = pairs_of(groups)
    recipe = bool(pairs) or len(groups) == len(settings) == 1
    if recipe:
        groups = [group for number, group in enumerate(groups) if not pairs or any(number in pair for pair in pairs)]
        chosen = list({run.key: run for group in groups for run in group.values()}.values())
    else:
        chosen = list({run.key: run for run in runs}.values())[:MOST]
    judge = Judge(data(), metric)
    if not judge.findings.any():
        raise Unclaimed(f"no finding has the images that {metric} needs")
    best = [judge.of(run) for run in chosen]
    areas, patients = np.array([one.score.mean() for one in best]), joint(best)
    own_of = dict(zip((run.key for run in chosen), own(areas, patients), strict=True))
    whole = judge.images, judge.many
    if recipe:
        arms, first = over_seeds(groups, [run.key for run in chosen], areas, patients, margin)
        return Claims("recipe", metric, margin, *whole, arms, len(groups), own_of, first, law=patients)
    found = among(areas, patients, margin)
    kept = joint([*best, *(judge.of_last(run) or of_best for run, of_best in zip(chosen, best, strict=True))])
    first = winner([_curve(run, metric) for run in chosen], kept.covariance)
    called = dict(zip((run.key for run in runs), labels, strict=True))
    alone = [
        Arm(called[run.key], (run,), float(area), math.nan, own_of[run.key], standing)
        for run, area, standing in zip(chosen, areas, found.standings, strict=True)
    ]
    arms = _sorted(alone, found.best)
    return Claims("weights", metric, margin, *whole, arms, len(runs), own_of, first, not groups, patients)


def over_seeds(
    groups: Sequence[Seeds], keys: Sequence[str], areas: Array, patients: Patients, margin: float = MARGIN
) -> tuple[tuple[Arm, ...], Winner]:
    """Settings as arms, the best first, and what the best mean is worth. `keys` are the runs', `[run]` as `areas`."""
    place_of = {key: place for place, key in enumerate(keys)}
    places = [{seed: place_of[run.key] for seed, run in group.items()} for group in groups]
    pairs = pairs_of(groups)
    common = [common_seeds(groups[one], groups[other]) for one, other in pairs]
    sides = [
        tuple([places[group][seed] for seed in shared] for group in pair)
        for pair, shared in zip(pairs, common, strict=True)
    ]
    contrasts, weights = seeds.contrasts(sides, len(areas)), seeds.means(places, len(areas))
    training = seeds.of_gaps(places, sides, areas, patients.covariance) if pairs else None
    found = ties(pairs, contrasts @ areas, contrasts, patients, training, margin=margin)
    of_means = seeds.of_means(places, areas, patients.covariance)
    means, of_best, arms = weights @ areas, places[found.best], []
    rows = zip(
        names_of(groups), groups, places, means, own(areas, patients, weights, of_means), found.standings, strict=True
    )
    for name, group, of, mean, interval, standing in rows:
        gaps = (
            () if of is of_best else tuple(float(areas[of[s]] - areas[of_best[s]]) for s in sorted(of) if s in of_best)
        )
        spread = _spread(areas[list(of.values())])
        runs = tuple(group[seed] for seed in sorted(group))
        arms.append(Arm(name, runs, float(mean), spread, interval, standing, gaps))
    law = weights @ patients.covariance @ weights.T + np.diag(of_means.variance - of_means.sampling)
    return _sorted(arms, found.best), winner([np.array([mean]) for mean in means], np.tile(law, (2, 2)))


def _spread(areas: Array) -> float:
    return float(areas.std(ddof=1)) if len(areas) > 1 else math.nan


def _sorted(arms: Sequence[Arm], best: int) -> tuple[Arm, ...]:
    """The best, then the others by their gaps to it; those that have none, for want of common seeds, last."""
    others = [arm for place, arm in enumerate(arms) if place != best]
    return (arms[best], *sorted(others, key=lambda arm: (math.isnan(arm.standing.gap), -arm.standing.gap)))


def _curve(run: RunRecord, metric: str) -> Array:
    scores: Array = np.array(run.metric(metric))
    return np.asarray(scores[np.isfinite(scores)])
