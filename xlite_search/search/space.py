"""What a study sweeps, in one of three forms; all of them speak in dotted settings and hold plain values only.

- a mapping: a grid, `{"kd.tau": grid_search([4.0, 8.0])}`; values may be Ray's samplers such as `tune.choice([...])`,
  or single ones
- a list of mappings: one grid after the other, for settings that exist only beside others
- a function of an Optuna trial, define-by-run (`suggest.py`): a search that learns from its results
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from xlite_search.errors import BadInput
from xlite_search.labels import labels as labels
from xlite_search.search.suggest import Suggester

Grid: TypeAlias = Mapping[str, Any]
Space: TypeAlias = "Grid | Sequence[Grid] | Suggester"
Settings: TypeAlias = dict[str, Any]


def grid_search(values: Sequence[object]) -> dict[str, list[object]]:
    """Every value, in this order: the same mapping that `ray.tune.grid_search` gives, without importing Ray."""
    return {"grid_search": list(values)}


def grids(space: Grid | Sequence[Grid]) -> list[Grid]:
    return [space] if isinstance(space, Mapping) else list(space)


def points(grid: Grid, samples: int, random: np.random.RandomState) -> list[Settings]:
    """All combinations, in order, duplicates included; `samples` times if something in it is drawn."""
    found = []
    for _ in range(samples if any(hasattr(values, "sample") for values in grid.values()) else 1):
        axes = [[(name, value) for value in _drawn(values, random)] for name, values in grid.items()]
        found += [dict(point) for point in itertools.product(*axes)]
    return found


def probes(grid: Grid) -> Iterator[Settings]:
    """Points that between them hold every value that can be known before anything is drawn.

    Raises:
        BadInput: a list of values is empty.
    """
    known = {name: _known(values) for name, values in grid.items()}
    for name, values in grid.items():
        if not known[name] and not hasattr(values, "sample"):
            raise BadInput(f"{name}: the list of values is empty")
    first = {name: values[0] for name, values in known.items() if values}
    yield first
    for name, values in known.items():
        for value in values[1:]:
            yield first | {name: value}


def without(grid: Grid, names: Sequence[str], closed: Sequence[str]) -> Grid:
    """The grid less these names, and less all below those that `closed` says."""
    return {name: values for name, values in grid.items() if name not in names and not _below(name, closed)}


@dataclass(frozen=True)
class Narrowed:
    """A function of an Optuna trial that is no longer asked about some names: they have a value, or other choices.

    base     the settings of the study's base, a tree: what a fixed name says
    fixed    names that are not the searcher's any more
    closed   those of them below which nothing is: `loss={name: focal, alpha: 0.5}` says all, `loss=focal` a choice
    choices  other choices of names that still are
    """

    space: Suggester
    base: Mapping[str, Any]
    fixed: tuple[str, ...]
    closed: tuple[str, ...]
    choices: Mapping[str, Sequence[Any]]

    def __call__(self, trial: Any) -> None:
        returned: object = self.space(_Asked(trial, self))  # type: ignore[arg-type, func-returns-value]
        if returned is not None:
            raise BadInput(f"space: it returned a {type(returned).__name__}; let it return nothing")


class _Asked:
    """An Optuna trial as the function sees it."""

    def __init__(self, trial: Any, narrowed: Narrowed) -> None:
        self._trial, self._narrowed = trial, narrowed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._ask(name, lambda: self._trial.suggest_categorical(name, choices))

    def suggest_float(self, name: str, low: float, high: float, **how: Any) -> Any:
        return self._ask(name, lambda: self._trial.suggest_float(name, low, high, **how))

    def suggest_int(self, name: str, low: int, high: int, **how: Any) -> Any:
        return self._ask(name, lambda: self._trial.suggest_int(name, low, high, **how))

    def _ask(self, name: str, suggest: Callable[[], Any]) -> Any:
        if name in self._narrowed.fixed or _below(name, self._narrowed.closed):
            return self._fixed(name)
        if name in self._narrowed.choices:
            return self._trial.suggest_categorical(name, list(self._narrowed.choices[name]))
        return suggest()

    def _fixed(self, name: str) -> Any:
        """What the base says, a choice by its name alone; None where it says nothing."""
        value: Any = self._narrowed.base
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value.get("name", value) if isinstance(value, Mapping) else value


def written(space: Suggester) -> Suggester:
    """The function as the study's file has it."""
    while isinstance(space, Narrowed):
        space = space.space
    return space


def _known(values: Any) -> list[Any]:
    if isinstance(values, Mapping) and set(values) == {"grid_search"}:
        return list(values["grid_search"])
    return list(getattr(values, "categories", [])) if hasattr(values, "sample") else [values]


def _drawn(values: Any, random: np.random.RandomState) -> list[Any]:
    return [values.sample(random_state=random)] if hasattr(values, "sample") else _known(values)


def _below(name: str, names: Sequence[str]) -> bool:
    return name.startswith(tuple(f"{above}." for above in names))
