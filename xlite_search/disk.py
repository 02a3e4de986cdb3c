"""Disk space: what a study's checkpoints take, and what of it can be given back.

Nothing that somebody may go on with is ever freed: the state of a run that is not over, the best weights of one that
was trained to its end, and the predictions of its best and of its last epoch. What is freed, in this order:

    1  states of the runs that were stopped or failed, the losers
    2  their weights and predictions
    3  states of the finished, if they were kept (`keep_states` in machine.toml)
    4  the best-but-one weights and predictions of the finished, kept to fall back to
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from xlite_search.records import RunRecord, StoredFile

LOSERS = ("stopped", "failed")


class Held(NamedTuple):
    """A checkpoint file that could be freed."""

    rank: int
    key: str
    stored: StoredFile
    size: int


def checkpoint_bytes(runs: Iterable[RunRecord]) -> int:
    """Bytes of all their checkpoints."""
    return sum(path.stat().st_size for run in runs for path in (run.folder / "checkpoints").glob("*"))


def free(runs: Iterable[RunRecord], budget: int = 0) -> list[RunRecord]:
    """Frees files until the runs take no more than `budget` bytes, or nothing is left that can be freed.

    Returns the records that changed. Each is written before its files go: what is missing is known to be.
    """
    known = {run.key: run for run in runs}
    for run in known.values():
        if run.over:  # what a power cut left of it that nothing names
            run.tidy()
    excess = checkpoint_bytes(known.values()) - budget
    gone: dict[str, set[str]] = {}
    for held in sorted((held for run in known.values() for held in _freeable(run)), key=lambda held: held.rank):
        if excess <= 0:
            break
        gone.setdefault(held.key, set()).add(held.stored.name)
        excess -= held.size
    changed = []
    for key, names in gone.items():
        run = known[key]
        slimmer = replace(run, freed=(*run.freed, *sorted(names))).save()
        slimmer.tidy()
        changed.append(slimmer)
    return changed


def _freeable(run: RunRecord) -> Iterator[Held]:
    if run.status in LOSERS:
        ranked = [(1, s) for s in run.checkpoints] + [(2, s) for s in run.files() if s not in run.checkpoints]
    elif run.status == "finished":
        ranked = [(3, s) for s in run.checkpoints] + [(4, s) for s in (*run.bests[1:], *run.predictions[1:])]
    else:
        return
    for rank, stored in ranked:
        if stored.name not in run.freed:
            path = run.folder / stored.name
            yield Held(rank, run.key, stored, path.stat().st_size if path.is_file() else 0)
