"""Two swept factors against each other: the mean score of each pair of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xlite_search.errors import BadInput, did_you_mean
from xlite_search.labels import texts
from xlite_search.records import RunRecord
from xlite_search.results.effects import CHANCE, is_grid


@dataclass(frozen=True)
class Matrix:
    """Scores by the values of two factors.

    values   `[row][column]` means, NaN without a run; `counts` of how many runs
    epoch    0 where all are at their best epochs; else the last epoch that all runs reached, and what they had there
    others   factors that are averaged over
    """

    rows: str
    columns: str
    row_values: tuple[str, ...]
    column_values: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    counts: tuple[tuple[int, ...], ...]
    epoch: int
    others: tuple[str, ...]

    @property
    def even(self) -> bool:
        """Whether every pair of values has as many runs."""
        return len({count for row in self.counts for count in row}) == 1


def choose(found: dict[str, list[Any]], wanted: Sequence[str] = ()) -> tuple[str, str] | None:
    """The two factors with most values, numbers before names, seed and fold never; None without two that make a grid.

    Raises:
        BadInput: `wanted` are not two factors of the study.
    """
    if wanted:
        for name in wanted:
            if name not in found:
                raise BadInput(
                    f"--factors: '{name}' is no factor of the study{did_you_mean(name, found) or ''}; "
                    f"its factors are {', '.join(found) or 'none'}"
                )
        if len(set(wanted)) != 2:
            raise BadInput(f"--factors {','.join(wanted)}: expected two factors, such as kd.tau,kd.alpha")
        return wanted[0], wanted[1]
    fit = {name: values for name, values in found.items() if name not in CHANCE and is_grid({name: values})}
    numbers = {name: all(isinstance(value, int | float) for value in values) for name, values in fit.items()}
    best = sorted(fit, key=lambda name: (-len(fit[name]), not numbers[name]))[:2]
    if len(best) < 2:
        return None
    first, second = (name for name in fit if name in best)
    return (second, first) if len(fit[first]) > len(fit[second]) else (first, second)


def matrix(runs: Sequence[RunRecord], metric: str, pair: tuple[str, str], found: dict[str, list[Any]]) -> Matrix | None:
    """Of all runs that have a score and both factors; None if there is none.

    Where some were stopped, all are taken at the last epoch that everyone reached: later ones have the best alone.
    """
    scored = [run for run in runs if run.epochs and run.status in ("finished", "stopped") and _has(run, pair)]
    if not scored:
        return None
    epoch = min(len(run.epochs) for run in scored) if any(run.status == "stopped" for run in scored) else 0
    (rows, row_values), (columns, column_values) = ((name, found[name]) for name in pair)
    cells: dict[tuple[int, int], list[float]] = {}
    for run in scored:
        score = run.epochs[epoch - 1].get(metric, math.nan) if epoch else run.best_score(metric)
        if math.isfinite(score):
            at = row_values.index(run.settings[rows]), column_values.index(run.settings[columns])
            cells.setdefault(at, []).append(score)
    if not cells:
        return None
    shape = [[cells.get((row, column), []) for column in range(len(column_values))] for row in range(len(row_values))]
    return Matrix(
        rows,
        columns,
        tuple(texts(row_values)),
        tuple(texts(column_values)),
        tuple(tuple(float(np.mean(cell)) if cell else math.nan for cell in row) for row in shape),
        tuple(tuple(len(cell) for cell in row) for row in shape),
        epoch,
        tuple(name for name in found if name not in pair),
    )


def _has(run: RunRecord, pair: tuple[str, str]) -> bool:
    return all(name in run.settings for name in pair)
