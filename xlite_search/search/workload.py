"""Workload: the most epochs that a study's rule can still train, whatever the scores, stage by stage.

Of a cohort ASHA keeps a known number at every rung, and each round of a search is a cohort of its own: small rounds
keep more. Judged on arrival nobody may be stopped: each can be better than those before it; by ParetoStop neither: all
may be equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xlite_search.records import RunRecord
from xlite_search.search import asha
from xlite_search.search.asha import ASHA, Decision
from xlite_search.search.journal import Journal
from xlite_search.search.plan import Plan


class Member(NamedTuple):
    """A run: epochs that it has, and that it will have at its end."""

    done: int
    end: int


@dataclass(frozen=True)
class Workload:
    """What is left of a study.

    runs     the trials that are known, as they stand
    alone    epochs of each run that is not over, those of later rounds among them, if nobody is stopped
    cohorts  of each the stages: epochs of each run up to the next rung, or to its end; one follows the other
    """

    runs: list[RunRecord]
    alone: list[int]
    cohorts: list[list[list[int]]]

    @property
    def stages(self) -> list[list[int]]:
        return [stage for cohort in self.cohorts for stage in cohort]


def workload(plan: Plan) -> Workload:
    """Raises Damaged if a record or the journal of a study that has begun is not what was written."""
    runs, base = _runs(plan), plan.study.base
    scheduler = plan.study.scheduler if isinstance(plan.study.scheduler, ASHA) else None
    length = min(plan.study.longest, base.stop_after or plan.study.longest)
    rounds = [[Member(0, length)] * size for size in _rounds(plan)]
    alone = [member.end - member.done for member in _members(run for run in runs if not run.over)]
    begun = remaining(scheduler, runs, Journal(plan.folder).decisions)
    coming = [list(stages(scheduler, members)) for members in rounds]
    return Workload(runs, alone + [length for members in rounds for _ in members], begun + coming)


def remaining(scheduler: ASHA | None, runs: Sequence[RunRecord], decided: Sequence[Decision]) -> list[list[list[int]]]:
    """Of runs that have begun, and of what was decided of them: of each cohort the stages."""
    if scheduler is None or scheduler.asynchronous:
        return [list(stages(scheduler, _members(runs)))]
    found = asha.cohorts(scheduler, runs, decided)
    return [list(stages(scheduler if c.rung else None, _members(c.members), c.rung or 1)) for c in found]


def stages(scheduler: ASHA | None, members: Sequence[Member], first: int = 1) -> Iterator[list[int]]:
    """Epochs that each of a cohort trains at most: to its first rung from epoch `first` on, then to the next, then to
    its end.

    Who is stopped is not known: those are taken to be who have the least to do, so that the sum is a bound; there are
    scores for which it is reached.
    """
    longest = max((member.end for member in members), default=0)
    rungs = scheduler.rungs(longest) if scheduler and not scheduler.asynchronous else ()
    staying, since = len(members), 0
    for until in (*(rung for rung in rungs if rung >= first), longest):
        todo = sorted((max(0, min(end, until) - max(done, since)) for done, end in members), reverse=True)
        yield todo[:staying]
        if scheduler and until < longest:
            staying, since = min(staying, scheduler.kept(staying, until)), until


def _runs(plan: Plan) -> list[RunRecord]:
    """The trials as they stand; those that have not begun are new."""
    folders = [plan.folder / "trials" / trial.key for trial in plan.trials]
    return [
        RunRecord.load(folder)
        if (folder / "run.json").exists()
        else RunRecord(folder, trial.key, "trial", trial.label, {}, trial.config.model_dump(mode="json"))
        for folder, trial in zip(folders, plan.trials, strict=True)
    ]


def _members(runs: Iterable[RunRecord]) -> list[Member]:
    return [Member(len(run.epochs), len(run.epochs) if run.over else run.length) for run in runs]


def _rounds(plan: Plan) -> list[int]:
    """Trials of each round of a search that is not known yet."""
    batch, more = plan.study.search.batch, plan.in_all - len(plan.trials)
    return [min(batch, more - begun) for begun in range(0, more, batch)]
