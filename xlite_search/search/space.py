"""Search spaces: what a study sweeps, in one of three forms, as dotted settings with plain values.

- a mapping: a grid, `{"kd.tau": grid_search([4.0, 8.0])}`; values may be Ray's samplers such as `tune.choice([...])`,
  or single ones
- a list of mappings: one grid after the other, for settings that exist only beside others
- a function of an Optuna trial, define-by-run (`suggest.py`): a search that learns from its results
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeAlias

import numpy as np

from xlite_search.errors import BadInput
from xlite_search.labels import labels as labels
from xlite_search.search.suggest import Suggester
from xlite_search.spec import Spec, kind_of, unboxed

Grid: TypeAlias = Mapping[str, Any]
Space: TypeAlias = "Grid | Sequence[Grid] | Suggester"
Settings: TypeAlias = dict[str, Any]

FORMS = "expected a mapping of settings, a list of mappings, or a function of a trial"


def grid_search(values: Iterable[object]) -> dict[str, Any]:
    """Every value, in this order: the same mapping that `ray.tune.grid_search` gives, without importing Ray."""
    return {"grid_search": values}


def plain_space(space: object) -> Space:
    """A space as it is kept: dotted names only, values that JSON takes; a function as it is. `{"optimizer": {"lr":
    grid_search([...])}}`, as Ray writes it, is `{"optimizer.lr": grid_search([...])}`.

    Raises:
        BadInput: it is no space, or holds what cannot be swept; the sentence names the setting.
    """
    if isinstance(space, Mapping):
        return _plain_grid(space)
    if callable(space):
        return space
    if not isinstance(space, list | tuple):
        raise BadInput(f"space: it is {kind_of(space)}; {FORMS}")
    if not space:
        raise BadInput(f"space: the list of grids is empty; {FORMS}")
    for grid in space:
        if not isinstance(grid, Mapping):
            raise BadInput(f"space: {kind_of(grid)} is in the list of grids; {FORMS}")
    return [_plain_grid(grid) for grid in space]


def _plain_grid(grid: Mapping[Any, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, values in grid.items():
        if not isinstance(name, str):
            raise BadInput(f"space: {name!r} is no setting's name; expected text such as 'optimizer.lr'")
        inner = _plain_grid(values, f"{above}{name}.") if _sweeps_below(values) else None
        for each, axis in (inner or {above + name: _axis(above + name, values)}).items():
            if each in found:
                raise BadInput(f"{each}: it is in the space twice")
            found[each] = axis
    return found


def _sweeps_below(values: object) -> bool:
    return (
        isinstance(values, Mapping)
        and not _is_grid_search(values)
        and any(_is_grid_search(v) or _is_sampler(v) or _sweeps_below(v) for v in values.values())
    )


def _axis(name: str, values: Any) -> Any:
    if _is_sampler(values):
        if hasattr(values, "func"):
            raise BadInput(f"{name}: tune.sample_from has no values of its own; let the space be a function of a trial")
        if not getattr(values, "categories", True):
            raise BadInput(f"{name}: the list of values is empty")
        for value in getattr(values, "categories", ()):
            plain(name, value)
        return values
    if not _is_grid_search(values):
        return plain(name, values)
    given = values["grid_search"]
    if isinstance(given, str | bytes | Mapping | Set) or not isinstance(given, Iterable):
        kind = "a set, which has no order" if isinstance(given, Set) else kind_of(given)
        raise BadInput(f"{name}: grid_search was given {kind}; expected a list of values")
    found = [plain(name, value) for value in given]
    if not found:
        raise BadInput(f"{name}: the list of values is empty")
    return {"grid_search": found}


def plain(name: str, value: Any) -> Any:
    """A value as JSON has it: what is validated is what is stored. numpy's numbers, paths and specs become plain ones.

    Raises:
        BadInput: it is not finite, or of a kind that JSON does not know.
    """
    value = unboxed(value.value if isinstance(value, Enum) else value)
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            if isinstance(value, float) and not math.isfinite(value):
                raise BadInput(f"{name} = {value}: input should be a finite number")
            return kind(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Spec):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain(f"{name}.{key}", inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(name, inner) for inner in value]
    raise BadInput(f"{name}: {kind_of(value)} is no value of a setting; expected a number, text, None or a list")


def grids(space: Grid | Sequence[Grid]) -> list[Grid]:
    return [space] if isinstance(space, Mapping) else list(space)


def points(grid: Grid, samples: int, random: np.random.RandomState) -> list[Settings]:
    """All combinations, in order, duplicates included; `samples` times if something in it is drawn."""
    found = []
    for _ in range(samples if any(map(_is_sampler, grid.values())) else 1):
        axes = [[(name, value) for value in _drawn(name, values, random)] for name, values in grid.items()]
        found += [dict(point) for point in itertools.product(*axes)]
    return found


def probes(grid: Grid) -> Iterator[Settings]:
    """Points that between them hold every value that can be known before anything is drawn."""
    known = {name: _known(values) for name, values in grid.items()}
    first = {name: values[0] for name, values in known.items() if values}
    yield first
    for name, values in known.items():
        for value in values[1:]:
            yield first | {name: value}


def without(grid: Grid, names: Sequence[str], closed: Sequence[str]) -> Grid:
    """The grid less these names, and less all below those that `closed` says."""
    return {name: values for name, values in grid.items() if name not in names and not _below(name, closed)}


def still_open(
    grids: list[Grid], settings: Collection[str], fixed: Collection[str], closed: Sequence[str]
) -> list[Grid]:
    """Grids without the names in `fixed`, and of those below them without the ones that are no `settings` any more."""
    left = [without(grid, list(fixed), closed) for grid in grids]
    return [
        {name: axis for name, axis in grid.items() if name.rpartition(".")[0] not in fixed or name in settings}
        for grid in left
    ]


def stored(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a flat config has them: text that was read as a number is one. A name stays as it was given."""
    found = {name: config.get(name, value) for name, value in settings.items()}
    return {name: settings[name] if isinstance(value, str) else value for name, value in found.items()}


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
        returned: object = self.space(_Intercepted(trial, self))  # type: ignore[arg-type, func-returns-value]
        if returned is not None:
            raise BadInput(f"space: it returned a {type(returned).__name__}; let it return nothing")


class _Intercepted:
    """An Optuna trial as the function sees it."""

    def __init__(self, trial: Any, narrowed: Narrowed) -> None:
        self._trial, self._narrowed = trial, narrowed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._suggested(name, lambda: self._trial.suggest_categorical(name, choices))

    def suggest_float(self, name: str, low: float, high: float, **how: Any) -> Any:
        return self._suggested(name, lambda: self._trial.suggest_float(name, low, high, **how))

    def suggest_int(self, name: str, low: int, high: int, **how: Any) -> Any:
        return self._suggested(name, lambda: self._trial.suggest_int(name, low, high, **how))

    def _suggested(self, name: str, suggest: Callable[[], Any]) -> Any:
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


def _is_grid_search(values: object) -> bool:
    return isinstance(values, Mapping) and set(values) == {"grid_search"}


def _is_sampler(values: object) -> bool:
    """One of Ray's, `tune.choice([...])`."""
    return type(values).__module__.startswith("ray.tune.") and hasattr(values, "sample")


def _known(values: Any) -> list[Any]:
    if _is_grid_search(values):
        return list(values["grid_search"])
    return list(getattr(values, "categories", [])) if _is_sampler(values) else [values]


def _drawn(name: str, values: Any, random: np.random.RandomState) -> list[Any]:
    if not _is_sampler(values):
        return _known(values)
    try:
        return [plain(name, values.sample(random_state=random))]
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"{name}: nothing can be drawn from this {type(values).__name__}; look at its bounds") from None


def _below(name: str, names: Sequence[str]) -> bool:
    return name.startswith(tuple(f"{above}." for above in names))
