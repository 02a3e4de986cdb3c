"""Distillation in a comparison: teacher, best student without one and best with one; and what its logits cost."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from xlite_search import model_folder, places
from xlite_search.console import clock
from xlite_search.errors import XliteError
from xlite_search.records import RunRecord
from xlite_search.results.columns import Column, Table, number
from xlite_search.study_record import StudyRecord

TEACHER, ALONE, TAUGHT = "teacher", "without a teacher", "with a teacher"


@dataclass(frozen=True)
class Row:
    """A teacher, or the best student of a kind; its score is NaN where it is not known."""

    kind: str
    label: str
    score: float


@dataclass(frozen=True)
class Distillation:
    """Rows to compare, and the command of the student without a teacher where none was trained."""

    metric: str
    rows: tuple[Row, ...]
    missing: str = ""

    def as_json(self) -> dict[str, Any]:
        """With null for a score that is not known."""
        rows = [asdict(row) | {"score": None if math.isnan(row.score) else row.score} for row in self.rows]
        return asdict(self) | {"rows": rows}

    def table(self, facts: Sequence[str]) -> Table:
        """`facts` belong under every table."""
        columns = [
            Column("", [row.kind for row in self.rows], text=True),
            Column("trial", [row.label for row in self.rows], text=True),
            Column("best", [number(row.score) for row in self.rows]),
        ]
        notes = list(facts)
        if self.missing:
            told = "no student without a teacher was trained here, against which the others would count"
            notes.insert(0, f"{told}: {self.missing}")
        return Table(f"with and without a teacher: {self.metric}", columns, notes)


def distillation(studies: Sequence[StudyRecord], ranked: Sequence[RunRecord], metric: str) -> Distillation | None:
    """Of runs, the best first; None where none has a teacher."""
    taught = [run for run in ranked if run.config.get("kd")]
    if not taught:
        return None
    rows = [_teacher(key, metric) for key in dict.fromkeys(study.teacher for study in studies if study.teacher)]
    alone = [run for run in ranked if not run.config.get("kd")]
    for kind, runs in ((ALONE, alone), (TAUGHT, taught)):
        rows += [Row(kind, run.label, run.best_score(metric)) for run in runs[:1]]
    study = next(study for study in studies if study.folder == taught[0].folder.parents[1])
    return Distillation(metric, tuple(rows), "" if alone else _command(study))


def _teacher(key: str, metric: str) -> Row:
    folder = places.teacher_folder(key)
    try:
        about = model_folder.read_model(folder)
    except (XliteError, OSError):
        return Row(TEACHER, key, math.nan)
    return Row(TEACHER, f"{about.model} {key}", about.metrics.get(metric, math.nan))


def _command(study: StudyRecord) -> str:
    words = [*(study.command or ("run", "SPACE")), "--set", "kd.alpha=0", "--name", f"{study.name}-alone"]
    return f"python -m xlite_search {shlex.join(words)}"


@dataclass(frozen=True)
class TeacherCost:
    """What the teacher's logits cost, over all runs that have one.

    computed  views that it was run on
    used      views whose logits students were given; those that were not computed were read from the cache
    seconds   spent computing; `saved_seconds` is what the rest would have taken
    size      bytes of its cached logits, for these and other studies
    """

    computed: int
    used: int
    seconds: float
    saved_seconds: float
    size: int

    @property
    def saved(self) -> int:
        return max(self.used - self.computed, 0)

    def words(self) -> str:
        """`teacher logits: 21,000 views computed in 12 s, 147,000 read from the cache (84 s saved); cache 0.6 MB`."""
        return (
            f"teacher logits: {self.computed:,} views computed in {clock(self.seconds)}, {self.saved:,} read from the "
            f"cache ({clock(self.saved_seconds)} saved); cache {self.size / 1e6:.2g} MB"
        )


def cost_of(studies: Sequence[StudyRecord], runs: Sequence[RunRecord]) -> TeacherCost | None:
    """Of all runs together; None where no teacher's logits were used."""

    def total(name: str) -> float:
        return sum(epoch.get(name, 0.0) for run in runs for epoch in run.epochs)

    if not total("kd/used"):
        return None
    homes = {places.teacher_folder(study.teacher) for study in studies if study.teacher}
    size = sum(path.stat().st_size for home in homes for path in home.glob("logits/*/*.f16"))
    computed, used = int(total("kd/computed")), int(total("kd/used"))
    return TeacherCost(computed, used, total("time/teacher_s"), total("time/teacher_saved_s"), size)
