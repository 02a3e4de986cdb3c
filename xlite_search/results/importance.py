"""Importance of the settings that a search suggested, by Optuna's PED-ANOVA (Watanabe, Bansal and Hutter 2023).

How much the distribution of a setting's values among the best tenth of the runs differs from that among all of them
(Pearson's divergence), as a share of the sum over settings. Both are of the runs as they were suggested: it does not
matter that a search goes where scores are good. It is no main effect: it does not say which value is better, nor by how
much, and has no interval.

The shares sum to 1 whether or not any setting matters. Of five settings that do nothing, the largest has two thirds at
20 runs and 0.4 to 0.5 at 50 to 300 (medians of 40 draws): a share alone is no finding.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from xlite_search.records import RunRecord
from xlite_search.results.columns import Column, Table
from xlite_search.results.effects import scored, when
from xlite_search.results.roles import role_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

#: runs without which there is no best tenth to speak of, and runs of it below which Optuna calls it unstable
FEWEST, STABLE = 20, 5
TENTH = 0.1
CAVEAT = (
    "a share says which setting decides whether a run is among the best tenth, not which of its values is better; they "
    "sum to one even if none matters"
)


@dataclass(frozen=True)
class Importances:
    """Shares of the settings that all runs have, the largest first.

    runs      that they are from
    best      of these, the best tenth, with all that tie with its last
    rung      epochs that all of these runs were trained for, where a scheduler stopped some; None: the best epochs'
    left_out  settings that only some runs have, or whose values are not from the range that the study has on record
    """

    shares: Mapping[str, float]
    runs: int
    best: int
    rung: int | None = None
    left_out: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What a reader has to know, a sentence each."""
        found = [CAVEAT, f"PED-ANOVA; the best {self.best} of {self.runs} runs {when(self.rung)}"]
        if self.best < STABLE:
            found.append(f"{self.best} runs are few: another search may well have other shares")
        if self.left_out:
            found.append(f"left out, as not all runs have them from one range: {', '.join(self.left_out)}")
        return found

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"shares": dict(self.shares), "left_out": list(self.left_out)}

    def table(self) -> Table:
        """A row for each setting."""
        columns = [
            Column("setting", list(self.shares), text=True),
            Column("share", [f"{share:.2f}" for share in self.shares.values()]),
        ]
        return Table("importance of what was suggested", columns, self.notes)


def importances_of(ranges: Mapping[str, str], metric: str, runs: Sequence[RunRecord]) -> Importances | None:
    """Of a search's runs, for its metric alone; where a scheduler stopped some, at its first rung (`effects.scored`).

    `ranges` are what its record has of what it suggests from. None without any, and where `importances` gives none.
    """
    if not ranges:
        return None
    known = scored(runs, metric)
    return importances(ranges, known.settings, known.scores, known.rung)


def importances(
    ranges: Mapping[str, str], settings: Sequence[Mapping[str, Any]], scores: Sequence[float], rung: int | None = None
) -> Importances | None:
    """Of runs by what was suggested for them, and finite scores, higher is better, `[run]`.

    `ranges` are Optuna's distributions as JSON, by name. A seed is chance and has no share. None of fewer runs than
    `FEWEST`, where all of them tie with the best tenth, and where no setting has two values.
    """
    if len(scores) < FEWEST:
        return None
    cut = sorted(scores, reverse=True)[math.ceil(TENTH * len(scores)) - 1]
    best = sum(score >= cut for score in scores)
    names = [name for name in dict.fromkeys([*ranges, *_names(settings)]) if role_of(name) == "factor"]
    shared = [name for name in names if name in ranges and all(name in one for one in settings)]
    found = {name: range_of(ranges[name], [one[name] for one in settings]) for name in shared}
    chosen = {name: one for name, one in found.items() if one is not None and not one.single()}
    if best == len(scores) or not chosen:
        return None
    left_out = tuple(name for name in names if found.get(name) is None)
    return Importances(_shares(chosen, settings, scores), len(scores), best, rung, left_out)


def range_of(recorded: str, values: Sequence[Any]) -> BaseDistribution | None:
    """Optuna's distribution from its JSON, a range of numbers at least as wide as these values; None if it cannot hold
    them.

    The range on record is not that of all runs where the space was changed on the way (`--accept-changes`), or where a
    range depends on another suggestion. A wider one is but a wider axis: what is compared are runs. New choices are
    not added: numbers that once were of a range would each be a choice of its own.
    """
    from optuna.distributions import FloatDistribution, IntDistribution, json_to_distribution

    found = json_to_distribution(recorded)
    if isinstance(found, FloatDistribution | IntDistribution):
        if not all(isinstance(value, int | float) for value in values):
            return None
        low, high = min(found.low, *values), max(found.high, *values)
        if not _holds(found, values) and (low > 0 or not found.log):
            found = type(found)(low, high, log=found.log)
    return found if _holds(found, values) else None


def _holds(distribution: BaseDistribution, values: Sequence[Any]) -> bool:
    try:
        return all(distribution._contains(distribution.to_internal_repr(value)) for value in values)
    except ValueError:
        return False


def _shares(
    chosen: Mapping[str, BaseDistribution], settings: Sequence[Mapping[str, Any]], scores: Sequence[float]
) -> dict[str, float]:
    """By Optuna, of a study in memory that has these runs and nothing else."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    for one, score in zip(settings, scores, strict=True):
        params = {name: one[name] for name in chosen}
        study.add_trial(optuna.create_trial(params=params, distributions=dict(chosen), value=score))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=TENTH))
    return {name: float(share) for name, share in found.items()}


def _names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for one in settings for name in one))
