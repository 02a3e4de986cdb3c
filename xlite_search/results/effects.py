"""Main effects of a design's factors with 95 % intervals, from the scores of its runs: full and fractional grids.

The model is additive: score = mean + one effect for each factor + the seed's + rest, by least squares, the levels of a
factor coded to sum to zero. An effect is by how much a level is above the mean of its factor's levels, the other
factors balanced. What only some runs have, the tau of those with a teacher, is compared among these.

The rest is training's chance, and what factors do together (interactions). Where settings were run with several seeds,
the error is that of the seeds within settings: training's chance alone. Without, it is the rest of the additive model,
interactions among it, and intervals are wider. Both are of training on these images, not of other patients. What two
factors do that always change together (aliases) cannot be told, and has no figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlite_search.factors import aliased
from xlite_search.records import RunRecord
from xlite_search.results.columns import Column, Table, ends
from xlite_search.results.intervals import student
from xlite_search.results.paired import fold_of
from xlite_search.results.roles import FINISHED, REPLICATES, role_of
from xlite_search.storage import digest

Array = NDArray[np.float64]
SEED = "seed"
#: what is swept for chance, and averaged over
CHANCE = (SEED, *REPLICATES)
#: values that a factor of a grid has at most; one of more was drawn at random
MOST = 12
#: part of a contrast that the design does not tell, above which its effect is not told either
ALIASED = 1e-8


@dataclass(frozen=True)
class Effect:
    """By how much a level of a factor is above the mean of the factor's levels; NaN if the design cannot tell.

    half  of its 95 % interval, of each effect by itself; NaN if there is nothing left to estimate it from
    """

    factor: str
    level: Any
    runs: int
    effect: float
    half: float

    @property
    def ends(self) -> tuple[float, float]:
        return self.effect - self.half, self.effect + self.half


@dataclass(frozen=True)
class Effects:
    """Main effects of a study's factors.

    rung     epochs that all of these runs were trained for, where a scheduler stopped some; None: the best epochs'
    dof      degrees of freedom of the error
    by_seed  the error is that of the seeds within settings
    folds    the runs are of several folds
    aliased  what these runs cannot tell apart and the whole study can, a sentence each
    """

    effects: tuple[Effect, ...]
    runs: int
    rung: int | None
    dof: int
    by_seed: bool
    aliased: tuple[str, ...] = ()
    folds: bool = False

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        found["effects"] = [
            {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in each.items()}
            for each in found["effects"]
        ]
        return found

    def _chance(self) -> str:
        return ", corrected for the images that trainings of several folds share" if self.folds else "; on these images"

    def table(self) -> Table:
        """A row for each level of each factor."""
        columns = [
            Column("factor", [each.factor for each in self.effects], text=True),
            Column("value", [str(each.level) for each in self.effects], text=True),
            Column("runs", [str(each.runs) for each in self.effects], spare=1),
            Column("effect", [_signed(each.effect) for each in self.effects]),
            Column(
                "95 % interval", [ends(each.effect - each.half, each.effect + each.half, "+") for each in self.effects]
            ),
        ]
        error = "of seeds within settings" if self.by_seed else "of what an additive model leaves over"
        notes = [
            f"against the mean of the factor's values, others balanced; {self.runs} runs {when(self.rung)}",
            f"error {error}, {self.dof} degree{'s' * (self.dof != 1)} of freedom{self._chance()}; each interval by "
            f"itself",
        ]
        return Table("main effects", columns, [*notes, *self.aliased])


class Scored(NamedTuple):
    """Runs whose scores compare, by their swept settings, `[run]`.

    rung  the epoch whose scores these are; None: each run's best epoch
    """

    settings: list[dict[str, Any]]
    scores: list[float]
    rung: int | None


def scored(runs: Sequence[RunRecord], metric: str) -> Scored:
    """Of the runs that are over and did not fail, those with a score. Where a scheduler stopped some, the scores are
    those at its first rung, of all that came as far: later only the better ones are left."""
    rung = min((len(run.epochs) for run in runs if run.status == "stopped"), default=None)
    chosen = [run for run in runs if run.status in (FINISHED, "stopped") and len(run.epochs) >= (rung or 1)]
    scores = [run.metric(metric)[rung - 1] if rung else run.best_score(metric) for run in chosen]
    known = [(run.settings, score) for run, score in zip(chosen, scores, strict=True) if math.isfinite(score)]
    return Scored([settings for settings, _ in known], [score for _, score in known], rung)


def when(rung: int | None) -> str:
    """Of what epochs the scores are, in words."""
    return f"at epoch {rung}, the first rung, where all were" if rung else "at the best epochs"


def levels(runs: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """The values that each swept setting takes in these runs, in order; those with one alone are none."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    found = {name: _distinct([run.settings[name] for run in runs if name in run.settings]) for name in names}
    return {name: values for name, values in found.items() if len(values) > 1}


def _distinct(values: Sequence[Any]) -> list[Any]:
    by_text = {repr(float(v)) if isinstance(v, int | float) and not isinstance(v, bool) else repr(v): v for v in values}
    found = list(by_text.values())
    if all(isinstance(value, int | float) for value in found):
        return sorted(found)
    return found


def is_grid(found: dict[str, list[Any]]) -> bool:
    """Whether all factors have a few values each; what a search suggests has as many as runs, and no main effects."""
    return all(len(values) <= MOST for name, values in found.items() if name not in CHANCE)


def study_effects(runs: Sequence[RunRecord], metric: str) -> Effects | None:
    """Of a study's runs that `scored` takes; None if they are no grid, or no factor has two values."""
    if not is_grid(levels(runs)):
        return None
    known = scored(runs, metric)
    found = main_effects(known.settings, known.scores, known.rung, _overlap(runs))
    if found is None or known.rung is None:
        return found
    return replace(found, aliased=aliased_survivors(runs))


def aliased_survivors(runs: Sequence[RunRecord]) -> tuple[str, ...]:
    """What the runs that were trained to the end cannot tell apart although the whole study could, a sentence each."""
    before = {alias.factors for alias in aliased([run.settings for run in runs])}
    left = aliased([run.settings for run in runs if run.status == FINISHED])
    told = [alias.sentence for alias in left if alias.factors not in before]
    return tuple(f"of those that were trained to the end: {sentence}" for sentence in told)


def _overlap(runs: Sequence[RunRecord]) -> float:
    """By what the variance of a mean over these runs' folds is larger than that of independent ones (`folds.py`)."""
    there = {fold_of(run) for run in runs}
    return 1 + len(there) / (runs[0].config["data"]["split"]["folds"] - 1) if len(there) > 1 else 1.0


def main_effects(
    settings: Sequence[Mapping[str, Any]], scores: Sequence[float], rung: int | None = None, overlap: float = 1.0
) -> Effects | None:
    """Of runs by their swept settings, `[run]`; None without two runs and a factor that has two values.

    overlap  by what variances are larger since the trainings of several folds share images
    """
    levels = {name: found for name in _names(settings) if len(found := _levels(name, settings)) > 1}
    if len(scores) < 2 or not any(_is_factor(name) for name in levels):
        return None
    blocks = [_coded(name, found, settings) for name, found in levels.items()]
    design = np.hstack([np.ones((len(scores), 1)), *blocks])
    values = np.array(scores, np.float64)
    inverse = np.linalg.pinv(design)
    estimates, told = inverse @ values, inverse @ design
    variance, dof, by_seed = _error(settings, values, design, estimates)
    half = math.sqrt(overlap * variance) * float(student(dof)) if dof else math.nan
    effects, first = [], 1
    for (name, found), block in zip(levels.items(), blocks, strict=True):
        width = block.shape[1]
        for number, level in enumerate(found):
            contrast = np.zeros(design.shape[1])
            contrast[first : first + width] = -1 if number == width else np.eye(width)[number]
            known = np.abs(contrast - contrast @ told).max() < ALIASED
            error = float(np.linalg.norm(contrast @ inverse))
            runs = sum(_key(one[name]) == level for one in settings if name in one)
            figures = (float(contrast @ estimates), half * error) if known else (math.nan, math.nan)
            if _is_factor(name):
                effects.append(Effect(name, found[level], runs, *figures))
        first += width
    return Effects(tuple(effects), len(scores), rung, dof, by_seed, folds=overlap > 1)


def _is_factor(name: str) -> bool:
    """Not swept for chance: a seed's or a fold's effect is taken out, and told to nobody."""
    return role_of(name) == "factor" and name not in CHANCE


def _names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for one in settings for name in one))


def _levels(name: str, settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The values of a factor by their keys, in order; sorted where they are numbers."""
    found = {_key(one[name]): one[name] for one in settings if name in one}
    numbers = all(isinstance(value, int | float) for value in found.values())
    return dict(sorted(found.items(), key=lambda item: item[1])) if numbers else found


def _key(value: Any) -> str:
    return digest([value])


def _coded(name: str, levels: Mapping[str, Any], settings: Sequence[Mapping[str, Any]]) -> Array:
    """Columns of a factor, levels less one, that sum to zero over its levels; zero where a run has no such setting."""
    place = {level: number for number, level in enumerate(levels)}
    codes = np.vstack([np.eye(len(levels) - 1), -np.ones(len(levels) - 1)])
    rows = [codes[place[_key(one[name])]] if name in one else np.zeros(len(levels) - 1) for one in settings]
    return np.array(rows)


def _error(
    settings: Sequence[Mapping[str, Any]], values: Array, design: Array, estimates: Array
) -> tuple[float, int, bool]:
    """The variance of a run's score that its settings do not explain, its degrees of freedom, and whether it is that of
    seeds within settings."""
    groups = [digest({name: value for name, value in one.items() if name != SEED}) for one in settings]
    seeds = [_key(one.get(SEED)) for one in settings]
    if len(set(groups)) < len(groups) and len(set(seeds)) > 1:
        within = np.hstack([_indicators(groups), _indicators(seeds)])
        rest = values - within @ (np.linalg.pinv(within) @ values)
        dof = len(values) - int(np.linalg.matrix_rank(within))
        if dof:
            return float(rest @ rest) / dof, dof, True
    rest, dof = values - design @ estimates, len(values) - int(np.linalg.matrix_rank(design))
    return (float(rest @ rest) / dof if dof else math.nan), dof, False


def _indicators(labels: Sequence[str]) -> Array:
    known = list(dict.fromkeys(labels))
    return np.eye(len(known))[[known.index(label) for label in labels]]


def _signed(value: float) -> str:
    return f"{value:+.4f}" if math.isfinite(value) else "aliased"
