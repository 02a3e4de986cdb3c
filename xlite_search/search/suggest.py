"""Suggestions by Optuna (TPE), asked and told, as a pure function of what has been tried.

A space is a function of an Optuna trial, define-by-run; the names it suggests are the settings of the run:

    def space(trial):
        trial.suggest_float("optimizer.lr", 1e-5, 1e-2, log=True)
        if trial.suggest_categorical("loss", ["bce", "focal"]) == "focal":
            trial.suggest_float("loss.alpha", 0.25, 0.95)

A search runs in rounds: when all runs of a round are over, the next is asked for. Optuna's study is built from the
records every time and lives in memory only, so that a search that was killed goes on with the very suggestions of one
that was not.
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
from pydantic import Field

from xlite_search.errors import BadInput, cause_of
from xlite_search.spec import Spec, kind_of, unboxed
from xlite_search.syntax import bare, digest_of

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

    T = TypeVar("T", bound=BaseTrial)

Suggester: TypeAlias = "Callable[[optuna.Trial], None]"
Direction: TypeAlias = Literal["maximize", "minimize"]

#: suggestions in a row that were seen before, after which a space counts as exhausted
PATIENCE = 100
#: how Optuna says what a person may well do, and how we do
MISTAKEN = {
    "Choices for a categorical": "a choice of suggest_categorical is no plain value; expected None, True, False, text "
    "or a number of Python's own, and a loss or its like by its name",
    "dynamic value space": "one name is suggested from different choices; give it the same list wherever it is asked",
    "must contain one or more elements": "suggest_categorical was given no choices",
    "low <= high": "a range ends below where it begins",
    "The distribution is specified by": "a range is no multiple of its step; let low + n * step be high",
}
#: what Optuna only warns of, and we refuse
MISTAKES = "Choices for a categorical distribution should be|The distribution is specified by"


class TPE(Spec):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate, Optuna's.

    batch    suggestions of a round
    startup  runs that are drawn at random before the model suggests any; those that failed do not count
    """

    batch: int = Field(8, ge=1)
    startup: int = Field(10, ge=0)


@dataclass(frozen=True)
class Tried:
    """A run that is over.

    settings  what the space suggested
    values    the objectives of a run that was trained to its end
    curve    epoch to score, as far as it came: what there is of a run that was stopped at a rung
    """

    settings: dict[str, Any]
    values: tuple[float, ...] | None
    curve: dict[int, float]
    outcome: Literal["finished", "stopped", "failed"]


def suggest(
    space: Suggester,
    tried: Sequence[Tried],
    count: int,
    *,
    tpe: TPE,
    directions: Sequence[Direction],
    seed: int,
    identity: Callable[[dict[str, Any]], Hashable],
) -> list[dict[str, Any]]:
    """Up to `count` new points, none of which is the same run as another or as one that was tried.

    `tried` are all runs of the rounds before, in the study's order; the same arguments give the same points in any
    process. A point that is known stays open in Optuna's study, which its constant liar takes for a bad result, so that
    it looks elsewhere; told the good score again it would only come back. Fewer points, or none, are returned if
    `PATIENCE` suggestions in a row are known. A run that failed teaches the model nothing, and neither does one that
    the space does not contain any more.

    Raises:
        BadInput: the space raises, returns something, or suggests nothing.
    """
    study = _rebuilt(space, tried, tpe, directions, seed)
    seen = {identity(one.settings) for one in tried}
    points: list[dict[str, Any]] = []
    repeats = 0
    while len(points) < count and repeats < PATIENCE:
        point = {name: unboxed(value) for name, value in _run(space, study.ask()).params.items()}
        key = identity(point)
        if key in seen:
            repeats += 1
            continue
        seen.add(key)
        points.append(point)
        repeats = 0
    return points


def described(space: Suggester, *, seed: int = 0, draws: int = 64) -> dict[str, str]:
    """The names that random draws meet, in this order, and their ranges in words: `{"loss": "bce, focal"}`."""
    return {name: _words(one) for name, one in _met(space, seed, draws).items()}


def distributions(space: Suggester, *, seed: int = 0, draws: int = 64) -> dict[str, str]:
    """The same names, and their ranges as Optuna's JSON, for a program to read (`results/importance.py`)."""
    from optuna.distributions import distribution_to_json

    return {name: distribution_to_json(one) for name, one in _met(space, seed, draws).items()}


def _met(space: Suggester, seed: int, draws: int) -> dict[str, BaseDistribution]:
    """What random draws meet, by name; where a range depends on what was suggested before it, the first one."""
    study = _random(seed)
    found: dict[str, BaseDistribution] = {}
    for _ in range(draws):
        for name, distribution in _run(space, study.ask()).distributions.items():
            found.setdefault(name, distribution)
    return found


def probe(space: Suggester, check: Callable[[dict[str, Any]], None], *, seed: int = 0, draws: int = 64) -> None:
    """Calls `check` on random points, and on each of them with one parameter at either end or at another choice.

    The parameters that were suggested before that one stay, those after it are drawn again: whatever branch it leads
    to, the space itself completes the point.

    Raises:
        BadInput: `check` does, or the space raises, returns something, suggests nothing, or not the same again.
    """
    study = _random(seed)
    for _ in range(draws):
        trial = _run(space, study.ask())
        check(trial.params)
        _expect_same(space, study, trial)
        before: dict[str, Any] = {}
        for name, distribution in trial.distributions.items():
            for value in _ends(distribution):
                study.enqueue_trial(before | {name: value})
                check(_run(space, study.ask()).params)
            before[name] = trial.params[name]


def _expect_same(space: Suggester, study: optuna.Study, trial: optuna.Trial) -> None:
    """A space that throws dice of its own could not be gone on with."""
    study.enqueue_trial(trial.params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = _run(space, study.ask())
    if again.distributions != trial.distributions:
        raise BadInput(
            "space: with the same values it suggests otherwise when it is called again; let it depend on nothing but "
            "what its trial suggests"
        )


def code_of(space: Suggester) -> str:
    """Hash of the function's syntax tree without docstrings, 12 hex digits: a comment or a new line changes nothing."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(space)))
    except (OSError, TypeError, SyntaxError):
        tree = ast.Module([], [])
    found = tree.body[0] if tree.body else None
    if not isinstance(found, ast.FunctionDef) or found.name != space.__name__:  # else it is another exec's text
        raise BadInput("a space has to be a function that is written with def in the study's file")
    return digest_of(bare(tree))[:12]


def _rebuilt(
    space: Suggester, tried: Sequence[Tried], tpe: TPE, directions: Sequence[Direction], seed: int
) -> optuna.Study:
    """Optuna's study of all that was tried, about to be asked."""
    import optuna

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Argument ``group``", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=int(np.random.SeedSequence([seed, len(tried)]).generate_state(1)[0]),
            n_startup_trials=tpe.startup,
            multivariate=True,
            group=True,
            constant_liar=True,
        )
    study = _study(sampler, directions)
    for one in tried:
        try:
            known = _run(space, optuna.trial.FixedTrial(one.settings))
        except BadInput:
            continue
        told = _reported(one, len(directions))
        study.add_trial(optuna.create_trial(params=known.params, distributions=known.distributions, **told))
    return study


def _reported(one: Tried, objectives: int) -> dict[str, Any]:
    """What Optuna is told of a run. It cannot rank the curves of stopped ones where there are several objectives."""
    from optuna.trial import TrialState

    if one.outcome == "stopped":
        return {"state": TrialState.PRUNED, "intermediate_values": one.curve if objectives == 1 else {}}
    if one.outcome == "finished" and one.values is not None and all(map(math.isfinite, one.values)):
        return {"state": TrialState.COMPLETE, "values": one.values}
    return {"state": TrialState.FAIL}


def _random(seed: int) -> optuna.Study:
    from optuna.samplers import RandomSampler

    return _study(RandomSampler(seed), ["maximize"])


def _study(sampler: optuna.samplers.BaseSampler, directions: Sequence[Direction]) -> optuna.Study:
    """In memory, and silent."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(sampler=sampler, directions=directions)


def _run(space: Suggester, trial: T) -> T:
    """The trial, after the space has suggested its parameters."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", MISTAKES, UserWarning)
            returned = cast("Callable[[BaseTrial], object]", space)(trial)
    except BadInput:
        raise
    except UserWarning as error:
        raise BadInput(f"space: {_mistake(error)}") from None
    except Exception as error:
        raise BadInput(f"space: {_mistake(error)}") from error
    if returned is not None:
        raise BadInput(
            f"space: it returned {kind_of(returned)}; the names it suggests are the settings, so let it return nothing"
        )
    if not trial.params:
        raise BadInput("space: it suggested nothing; it has to call trial.suggest_float, _int or _categorical")
    return trial


def _mistake(error: Exception) -> str:
    """What went wrong in a space, in our words where Optuna has words of its own for it."""
    said = " ".join(str(error).split())
    for sign, ours in MISTAKEN.items():
        if sign in said:
            return ours
    return cause_of(error)


def _ends(distribution: BaseDistribution) -> tuple[Any, ...]:
    """The ends of a range, or all choices."""
    about: dict[str, Any] = distribution._asdict()
    return about["choices"] if "choices" in about else (about["low"], about["high"])


def _words(distribution: BaseDistribution) -> str:
    """`1e-05 .. 0.01, log`, `1 .. 5 (int)`, `bce, focal`."""
    about: dict[str, Any] = distribution._asdict()
    if "choices" in about:
        return ", ".join(map(str, about["choices"]))
    low, high, step = about["low"], about["high"], about["step"]
    whole = isinstance(low, int)
    stepped = f", step {step:g}" if step != (1 if whole else None) else ""
    return f"{low:.12g} .. {high:.12g}{' (int)' if whole else ''}{stepped}{', log' if about['log'] else ''}"
