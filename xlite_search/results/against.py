"""Two runs finding by finding, on the same validation images: `compare STUDY --against RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xlite_search import places
from xlite_search.data.dataset import open_data
from xlite_search.errors import BadInput
from xlite_search.labels import told_apart
from xlite_search.records import RunRecord
from xlite_search.results.by_finding import FindingGap, by_finding
from xlite_search.results.columns import Column, Table, ends, number, p_value
from xlite_search.results.paired import MACRO, Judge, fold_of, seed_of
from xlite_search.results.ties import MARGIN
from xlite_search.study_record import StudyRecord, homes
from xlite_search.trainable import config_of

if TYPE_CHECKING:
    from xlite_search.results.compare import Comparison


@dataclass(frozen=True)
class Against:
    """A run's AUROCs against another's, the rarest finding first."""

    one: str
    other: str
    images: int
    patients: int
    gaps: tuple[FindingGap, ...]

    def as_json(self) -> dict[str, Any]:
        findings = [gap.as_json() for gap in self.gaps]
        about = {"run": self.one, "against": self.other, "images": self.images, "patients": self.patients}
        return about | {"findings": findings}

    def table(self) -> Table:
        gaps = self.gaps
        columns = [
            Column("finding", [gap.finding if gap.supported else f"({gap.finding})" for gap in gaps], text=True),
            Column("positives", [f"{gap.positives:,}" for gap in gaps]),
            Column("AUROC", [number(gap.auroc[0]) for gap in gaps], spare=2),
            Column("against", [number(gap.auroc[1]) for gap in gaps], spare=2),
            Column("gap", [number(gap.gap, "+") for gap in gaps]),
            Column("95 %, all at once", [ends(gap.low, gap.high, "+") for gap in gaps]),
            Column("p max-t", [p_value(gap.p_max_t) for gap in gaps]),
            Column("p Holm", [p_value(gap.p_holm) for gap in gaps], spare=1),
            Column("verdict", [gap.verdict for gap in gaps]),
        ]
        notes = [
            f"{self.images:,} validation images of {self.patients:,} patients; p: corrected for all findings, by the "
            f"step-down maximum and by Holm; verdicts are by p max-t, which finds more than intervals that hold at once"
        ]
        if not all(gap.supported for gap in gaps):
            notes.append("(finding): under 10 positives, or as few without it; its AUROC is hardly more than luck")
        return Table(f"{self.one} against {self.other}, the rarest finding first", columns, notes)


def against(one: RunRecord, other: RunRecord, names: Sequence[str], margin: float = MARGIN) -> Against:
    """Of their best epochs; `names` is what to call them.

    Raises:
        BadInput: they were validated on other images.
        XliteError: the data or a run's kept predictions are not there, or not what they were.
    """
    data, theirs = open_data(config_of(one).data), open_data(config_of(other).data)
    same = (data.packed.fingerprint, data.split.fingerprint) == (theirs.packed.fingerprint, theirs.split.fingerprint)
    if not same:
        raise BadInput(f"{names[0]} and {names[1]} were validated on other images, and cannot be compared")
    judge = Judge(data, MACRO)
    positives = judge.truth[:, judge.findings].sum(axis=0).tolist()
    gaps = by_finding(judge.of(one), judge.of(other), judge.names, positives, margin)
    return Against(names[0], names[1], judge.images, judge.many, tuple(gaps))


def against_named(comparison: Comparison, which: str, margin: float = MARGIN) -> Against:
    """The best run against another one, by finding: by its key or label in the first study, or `STUDY/RUN`, or the name
    of a setting. Of settings over seeds or folds the runs of one seed and fold are compared.

    Raises:
        BadInput: there is no such run, or it is the best itself, or was validated on other images.
    """
    arms = comparison.claims.arms if comparison.claims else ()
    named = next((arm for arm in arms if arm.label == which), None)
    other = alike(comparison.best, named.runs) if named else _run_named(comparison, which)
    one = alike(other, arms[0].runs) if arms else comparison.best
    if other.folder == one.folder or (arms and other.folder in [run.folder for run in arms[0].runs]):
        raise BadInput(f"--against {which}: that is the best run itself, or the best setting's usual one; name another")
    return against(one, other, told_apart([one.label, other.label], homes([one, other])), margin)


def _run_named(comparison: Comparison, which: str) -> RunRecord:
    study, slash, name = which.rpartition("/")
    there = slash and study in places.studies()
    home, run = (study, name) if there else (comparison.names[0], which)
    return StudyRecord.load(places.study_folder(home)).run(run)


def alike(one: RunRecord, runs: Sequence[RunRecord]) -> RunRecord:
    """Of a setting's runs the one of the same fold and seed, as far as there is one."""
    return max(runs, key=lambda run: (fold_of(run) == fold_of(one), seed_of(run) == seed_of(one)))
