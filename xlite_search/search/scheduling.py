"""Schedulers that a study can have: ASHA by its metric alone, ParetoStop by all its objectives."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TypeAlias

from xlite_search.errors import BadInput
from xlite_search.records import RunRecord
from xlite_search.search import asha, pareto
from xlite_search.search.asha import ASHA, Decision
from xlite_search.search.pareto import ParetoStop

Scheduler: TypeAlias = ASHA | ParetoStop
#: the settings that a run's length comes from
LENGTHS = ("epochs", "stop_after")


def expect_fitting(scheduler: Scheduler | None, minimize: Sequence[str], swept: Collection[str]) -> None:
    """ASHA knows one objective; ParetoStop needs several, and runs that reach the same rungs.

    Raises:
        BadInput: the scheduler does not fit a study that minimizes and sweeps these.
    """
    if isinstance(scheduler, ASHA) and minimize:
        raise BadInput(
            "minimize: ASHA stops trials by their metric alone; take ParetoStop() instead, or leave one of the two out"
        )
    if not isinstance(scheduler, ParetoStop):
        return
    if not minimize:
        raise BadInput(
            "scheduler: ParetoStop stops trials that others of equal or lower cost dominate, and this study has one "
            "objective; say the cost, such as minimize=('model/parameters',), or take ASHA()"
        )
    if name := next((name for name in LENGTHS if name in swept), None):
        raise BadInput(f"{name} is swept, and ParetoStop compares runs of one length; leave one of the two out")


def decisions(
    scheduler: Scheduler,
    metric: str,
    minimize: Sequence[str],
    runs: Sequence[RunRecord],
    decided: Sequence[Decision],
) -> Iterator[Decision]:
    """What can be decided now and has not been; `runs` are all of the study, in its order."""
    if isinstance(scheduler, ParetoStop):
        return pareto.decisions(scheduler, metric, minimize, runs, decided)
    return asha.decisions(scheduler, metric, runs, decided)
