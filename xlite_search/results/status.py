"""Status of a study, read from its records alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from xlite_search import disk
from xlite_search.console import clock
from xlite_search.records import RunRecord
from xlite_search.results.columns import number
from xlite_search.results.compare import open_study
from xlite_search.results.tables import WHY
from xlite_search.storage import held_by


@dataclass(frozen=True)
class Standing:
    """owner is who runs it now, in words; empty if nobody does. bytes are those of its checkpoints."""

    name: str
    owner: str
    runs: list[RunRecord]
    bytes: int

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(run.status for run in self.runs))

    def line(self) -> str:
        """`kd_grid: 3 finished, 2 stopped, 3 waiting; 71 of 160 epochs; nobody runs it; 120.4 MB of checkpoints`"""
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        done, of = sum(len(run.epochs) for run in self.runs), sum(run.length for run in self.runs)
        who = f"run by {self.owner}" if self.owner else "nobody runs it"
        return f"{self.name}: {counts}; {done} of {of} epochs; {who}; {self.bytes / 1e6:,.1f} MB of checkpoints"

    def as_json(self) -> dict[str, Any]:
        trials = [
            {"trial": run.key, "label": run.label, "status": run.status, "cause": run.cause, "epochs": len(run.epochs)}
            for run in self.runs
        ]
        about = {"study": self.name, "run_by": self.owner, "counts": self.counts, "checkpoint_bytes": self.bytes}
        return about | {"trials": trials}


def standing(name: str) -> Standing:
    """Raises BadInput if there is no such study, Damaged if a record is not what was written."""
    study = open_study(name)
    runs = study.runs()
    return Standing(name, held_by(study.folder), runs, disk.checkpoint_bytes(runs))


def show(found: Standing) -> None:
    """The line, then every run: how far it is, what it has reached, why it is where it is."""
    print(found.line())
    width = max(len(run.label) for run in found.runs)
    for run in found.runs:
        best = number(run.best_score(run.config["monitor"]))
        print(
            f"  {run.label:{width}}  {run.status:8}  {len(run.epochs):>3}/{run.length:<3}  {best:>7}  "
            f"{clock(run.seconds):>8}  {run.cause or WHY[run.status]}"
        )
