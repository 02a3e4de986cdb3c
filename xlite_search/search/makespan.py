"""Makespan: when the last of several runs ends that share some workers, and how to have that early.

Three equal runs on two workers take as long as four: one of the workers has nothing to do while the last run trains.
But a run may stop after any epoch, and go on later from its checkpoint, whoever trains it then. So the work of a stage
can be shared out evenly: worker after worker is filled up to the end that all could have at once, and the run that does
not fit is cut there; its other part is trained first by the next worker (McNaughton 1959). At most one run fewer than
there are workers is cut. Who has the most to do is trained first of the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: what a cut has to save: a run that goes on elsewhere is loaded, and where it is compiled its code is, too
CUT_S = 5.0


class Todo(NamedTuple):
    """Of a run: epochs, what each takes in seconds, and what it takes each time that a worker goes on with it."""

    epochs: int
    epoch_s: float
    begin_s: float = 0.0

    @property
    def seconds(self) -> float:
        return self.begin_s + self.epochs * self.epoch_s if self.epochs else 0.0


def cuts(runs: Sequence[Todo], workers: int) -> dict[int, int]:
    """Which runs are cut, by their place, and how many epochs of each are trained first, before all whole runs.

    None where that saves less than it costs.
    """
    found = _wrapped(runs, workers)
    if not found:
        return {}
    saved = makespan(runs, workers) - makespan(runs, workers, found)
    return found if saved >= CUT_S * len(found) else {}


def _wrapped(runs: Sequence[Todo], workers: int) -> dict[int, int]:
    """McNaughton's rule, to the epoch."""
    fair = max([sum(run.seconds for run in runs) / workers, *(run.seconds for run in runs)])
    found, filled = dict[int, int](), 0.0
    for place in _longest_first(runs):
        beyond = filled + runs[place].seconds - fair
        filled += runs[place].seconds
        if beyond >= 0:  # this worker is full; what is too much is the next one's, and comes first there
            first = round(beyond / runs[place].epoch_s) if runs[place].epoch_s else 0
            if 0 < first < runs[place].epochs:
                found[place] = first
            filled = beyond
    return found


def _longest_first(runs: Sequence[Todo]) -> list[int]:
    return sorted(range(len(runs)), key=lambda place: -runs[place].seconds)


def makespan(
    runs: Sequence[Todo], workers: int, first: Mapping[int, int] | None = None, *, ordered: bool = False
) -> float:
    """When the last run ends, in seconds: those that are cut are begun `first`, then who has the most to do, or as
    they are `ordered`."""
    left = {place: run for place, run in enumerate(runs) if run.epochs}
    order = list(left) if ordered else _longest_first(runs)
    ready = [(0.0, place) for place in order if place in left]
    pieces, free, end = dict(first or {}), [0.0] * workers, 0.0
    while ready:
        now = max(heapq.heappop(free), min(since for since, _ in ready))
        there = [item for item in ready if item[0] <= now]
        item = max(there, key=lambda each: (each[1] in pieces, 0.0 if ordered else left[each[1]].seconds))
        ready.remove(item)
        run = left[item[1]]
        piece = run._replace(epochs=pieces.pop(item[1], run.epochs))
        ended = now + piece.seconds
        if piece.epochs < run.epochs:
            left[item[1]] = run._replace(epochs=run.epochs - piece.epochs)
            ready.append((ended, item[1]))
        heapq.heappush(free, ended)
        end = max(end, ended)
    return end
