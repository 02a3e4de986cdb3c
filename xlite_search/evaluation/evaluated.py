"""What a delivered model reaches on some images, as tables and as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from xlite_search.evaluation.looks import Look
from xlite_search.evaluation.subgroups import Subgroups
from xlite_search.evaluation.success import Success
from xlite_search.results.bootstrap import Figure
from xlite_search.results.columns import ABSENT, Column, Table, ends, number
from xlite_search.results.intervals import Interval
from xlite_search.results.reached import WORDS
from xlite_search.training.metrics import SUPPORT


@dataclass(frozen=True)
class OfFinding:
    """What a model reaches for a finding; the rates are at its threshold, None without one."""

    finding: str
    positives: int
    patients: int
    auroc: Interval
    ap: Interval
    prevalence: Interval
    threshold: float | None = None
    sensitivity: Interval | None = None
    specificity: Interval | None = None
    precision: Interval | None = None

    def as_json(self) -> dict[str, Any]:
        plain = asdict(self)
        for name, value in plain.items():
            if isinstance(value, dict):
                plain[name] = getattr(self, name).as_json()
        return plain


@dataclass(frozen=True)
class Moved:
    """A finding that is more, or less, frequent than where the model was fitted, and what that does to probabilities.

    fitted, here       prevalence
    mean, corrected    mean probability as it is, and with log odds moved by the difference of the prevalences'
    brier, brier_corrected
    """

    finding: str
    fitted: float
    here: float
    mean: float
    corrected: float
    brier: float
    brier_corrected: float


@dataclass(frozen=True)
class Evaluated:
    """A model judged on some images.

    on          "test", "val", or a data set's name
    look        at a part that is looked at once; None on validation
    by_now      models that were judged on these images by now
    auroc       mean over findings, by patient
    figures     means over findings of AP, F1, Brier score, calibration error
    unjudged    findings of the model of which these images say nothing
    """

    model: str
    on: str
    look: Look | None
    images: int
    patients: int
    auroc: Interval
    figures: Mapping[Figure, Interval]
    findings: tuple[OfFinding, ...]
    moved: tuple[Moved, ...]
    success: tuple[Success, ...]
    subgroups: Subgroups
    unjudged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    delivered: Mapping[str, str] = field(default_factory=dict)
    by_now: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "on": self.on,
            "look": self.look.model_dump(mode="json") if self.look else None,
            "judged_by_now": self.by_now,
            "delivered": dict(self.delivered),
            "images": self.images,
            "patients": self.patients,
            "macro": {"auroc": self.auroc.as_json()} | {name: each.as_json() for name, each in self.figures.items()},
            "findings": [each.as_json() for each in self.findings],
            "unjudged": list(self.unjudged),
            "moved": [asdict(each) for each in self.moved],
            "success": [asdict(each) for each in self.success],
            **self.subgroups.as_json(),
            "notes": list(self.notes),
        }

    def tables(self) -> Iterator[Table | str]:
        """All that there is to show, in the order of reading."""
        yield self._findings()
        yield self._macro()
        if self.moved:
            yield self._moved()
        yield from self.subgroups.tables()
        if self.success:
            yield self._success()
        if self.look:
            yield self.look.words(self.by_now) + (
                f"; looked at again because: {self.look.reason}" if self.look.reason else ""
            )
        yield from self.notes

    def _findings(self) -> Table:
        rows = self.findings
        columns = [
            Column(
                "finding", [row.finding if row.positives >= SUPPORT else f"({row.finding})" for row in rows], text=True
            ),
            Column("positives", [f"{row.positives:,}" for row in rows]),
            Column("AUROC", [number(row.auroc.value) for row in rows]),
            Column("95 %", [ends(row.auroc.low, row.auroc.high) for row in rows]),
            Column("AP", [number(row.ap.value) for row in rows], spare=4),
        ]
        for place, name in enumerate(("sensitivity", "specificity", "precision"), start=1):
            found, head = [getattr(row, name) for row in rows], f"{name[:4]}."
            if any(found):
                columns.append(Column(head, [number(each.value if each else None) for each in found], spare=place))
                cells = [ends(each.low, each.high) if each else ABSENT for each in found]
                columns.append(Column(f"95 % {head}", cells, spare=place + 4))
        notes = [f"{self.images:,} images of {self.patients:,} patients, intervals by patient"]
        if any(row.positives < SUPPORT for row in rows):
            notes.append(f"(finding): under {SUPPORT} positives; its figures are hardly more than luck")
        if self.unjudged:
            notes.append(f"cannot be judged, for these images say nothing of them: {', '.join(self.unjudged)}")
        return Table(f"{self.model} on {self.on}, the rarest finding first", columns, notes)

    def _macro(self) -> Table:
        f1 = "F1 at the thresholds" if self.delivered.get("thresholds") else WORDS["f1"]
        words = {**WORDS, "f1": f1}
        rows = [("AUROC", self.auroc), *((words[name], each) for name, each in self.figures.items())]
        columns = [
            Column("", [name for name, _ in rows], text=True),
            Column("mean", [number(each.value) for _, each in rows]),
            Column("95 %", [ends(each.low, each.high) if each.low == each.low else ABSENT for _, each in rows]),
        ]
        notes = (
            [f"{words['ece']}: of 15 bins of equal width; above 0 by luck alone, it has no interval"]
            if "ece" in self.figures
            else []
        )
        return Table("means over findings", columns, notes)

    def _moved(self) -> Table:
        rows = self.moved
        columns = [
            Column("finding", [row.finding for row in rows], text=True),
            Column("fitted on", [f"{row.fitted:.1%}" for row in rows]),
            Column("here", [f"{row.here:.1%}" for row in rows]),
            Column("mean probability", [number(row.mean) for row in rows]),
            Column("corrected", [number(row.corrected) for row in rows]),
            Column("Brier", [number(row.brier) for row in rows], spare=1),
            Column("corrected", [number(row.brier_corrected) for row in rows], spare=1),
        ]
        note = "corrected: log odds moved by the difference of the prevalences'; what is delivered is not corrected"
        return Table("findings that are more or less frequent than where the model was fitted", columns, [note])

    def _success(self) -> Table:
        columns = [
            Column("criterion", [each.criterion for each in self.success], text=True),
            Column("found", [each.found for each in self.success], text=True),
            Column("", [each.verdict for each in self.success]),
        ]
        return Table("criteria of success", columns)
