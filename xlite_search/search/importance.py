"""Importance of the settings that a search suggests, by Optuna's PED-ANOVA (Watanabe, Bansal and Hutter 2023).

How much of it depends on a setting whether a run is among the best tenth: shares that sum to 1. It says which settings
are worth a comparison, not by how much one value is better than another: suggestions go where scores are good, so that
no figure of a search is a claim about a factor.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

#: runs without which there is no best tenth to speak of
FEWEST = 20
RANGE = re.compile(r"(?P<low>\S+) \.\. (?P<high>[^\s,]+)(?P<whole> \(int\))?(?:, step (?P<step>\S+?))?(?P<log>, log)?")


@dataclass(frozen=True)
class Importances:
    """Shares of the settings that all runs have, the largest first.

    runs      that they are from
    left_out  settings that only some runs have
    """

    shares: Mapping[str, float]
    runs: int
    left_out: tuple[str, ...] = ()


def importances(
    ranges: Mapping[str, str], settings: Sequence[Mapping[str, Any]], scores: Sequence[float]
) -> Importances | None:
    """Of a search's runs by the settings that were suggested, and scores, higher is better; None of fewer than
    `FEWEST`. `ranges` are what was suggested, in words (`suggest.described`), as a study's record has them."""
    known = [(one, score) for one, score in zip(settings, scores, strict=True) if math.isfinite(score)]
    shared = [name for name in ranges if known and all(name in one for one, _ in known)]
    left_out = tuple(name for name in ranges if name not in shared)
    if len(known) < FEWEST or not shared:
        return None
    spaces = {name: distribution(ranges[name], [one[name] for one, _ in known]) for name in shared}
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    for one, score in known:
        params = {name: one[name] for name in shared}
        study.add_trial(optuna.create_trial(params=params, distributions=spaces, value=score))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return Importances({name: float(share) for name, share in found.items()}, len(known), left_out)


def distribution(words: str, values: Sequence[Any]) -> BaseDistribution:
    """Optuna's distribution of a range in words, `1e-05 .. 0.01, log` or `bce, focal`, wide enough for these values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found = RANGE.fullmatch(words)
    if found is None:
        seen = dict.fromkeys(values)
        told = [word for word in words.split(", ") if word not in map(str, seen)]
        return CategoricalDistribution([*seen, *told])
    low, high, log = float(found["low"]), float(found["high"]), bool(found["log"])
    low, high = min(low, *values), max(high, *values)
    if found["whole"]:
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)
