"""A model calibrated: its lines and thresholds fitted, written beside it, as tables, as JSON and as figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xlite_search import storage
from xlite_search.evaluation.calibration import FILE as CALIBRATION
from xlite_search.evaluation.calibration import Calibration, Method, OfFinding, calibrate, write_calibration
from xlite_search.evaluation.calibration_notes import not_better, refusals, worse
from xlite_search.evaluation.estimates import Array, Estimate, Groups, Truth
from xlite_search.evaluation.reliability import ASSESSABLE, Bin, bins, bins_of, upper_end
from xlite_search.evaluation.scored import Scored
from xlite_search.evaluation.thresholds import FILE as THRESHOLDS
from xlite_search.evaluation.thresholds import (
    RULES,
    SENSITIVITY,
    Rule,
    Thresholds,
    choose,
    expect_sensitivity,
    write_thresholds,
)
from xlite_search.evaluation.validation import validation_of
from xlite_search.records import ARTIFACTS
from xlite_search.reports.reliability import Benefit, Diagram, net_benefit, reliability
from xlite_search.results.columns import ABSENT, Column, Table, ends, number
from xlite_search.training.metrics import sigmoid

if TYPE_CHECKING:
    import torch

FIGURES = Path(ARTIFACTS) / "calibration"
DIAGRAMS, CURVES, POINTS = (FIGURES / name for name in ("reliability.svg", "net_benefit.svg", "reliability.json"))
#: files that it writes, within the model's folder
FILES = (CALIBRATION, THRESHOLDS)
#: bars of a histogram
BARS = 20
RELIABILITY_NOTE = (
    "Points: predicted and observed after calibration, in ten bins of equally many images, with 95 % intervals by "
    "patient. Dashed: before. Dotted: ideal. Axes end at the 99th percentile. Bars: images, on a square-root scale. "
    f"Gray: not assessable, under {ASSESSABLE} positives."
)
BENEFIT_NOTE = (
    "Worth of acting on probabilities from a threshold on: true positives an image, less false ones at the threshold's "
    "odds, with 95 % bands by patient. Dashed: to act on every image. Dotted: on none. "
    f"Gray: under {ASSESSABLE} positives."
)
TITLES: dict[Rule, str] = {
    "sensitivity": "thresholds that keep a sensitivity of {at_least:g} with 95 % confidence",
    "youden": "thresholds of the most sensitivity + specificity (Youden)",
    "f1": "thresholds of the best F1",
}


@dataclass(frozen=True)
class Calibrated:
    """A model's calibration and thresholds, with the images that they were fitted on.

    crossed  out-of-fold log-odds `[image, finding]` of `scored`
    """

    folder: Path
    calibration: Calibration
    thresholds: Thresholds
    scored: Scored
    crossed: Array

    @cached_property
    def points(self) -> dict[str, list[Bin]]:
        """Of each finding's reliability diagram after calibration, and of all findings' together."""
        return {row.finding: bins(*self._images(row.finding)[1:]) for row in self._rows}

    @property
    def _rows(self) -> list[OfFinding]:
        """Of what the images tell."""
        known = [row for row in self.calibration.findings if row.finding in self.scored.classes]
        return [*known, self.calibration.together]

    def _images(self, finding: str) -> tuple[Array, Array, Truth, Groups]:
        """Probabilities before and after calibration, truth, groups, `[image]`; of all findings each image once for
        each that some have and others do not."""
        truth, groups = self.scored.truth, self.scored.groups
        if finding == self.calibration.together.finding:
            chosen = truth.any(axis=0) & ~truth.all(axis=0)
        else:
            chosen = np.array([name == finding for name in self.scored.classes])
        before, after = (sigmoid(logits[:, chosen]).ravel() for logits in (self.scored.logits, self.crossed))
        return before, after, truth[:, chosen].ravel(), np.repeat(groups, int(chosen.sum()))

    def write(self) -> None:
        """Calibration, thresholds, figures; in an order in which what belongs together is read or refused."""
        write_calibration(self.folder, self.calibration)
        write_thresholds(self.folder, self.thresholds)
        storage.write_atomic(self.folder / POINTS, json.dumps(self.points_as_json(), indent=1).encode())
        storage.write_atomic(self.folder / DIAGRAMS, self.diagrams())
        storage.write_atomic(self.folder / CURVES, self.curves())

    def points_as_json(self) -> dict[str, Any]:
        return {name: [_as_json(each) for each in found] for name, found in self.points.items()}

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.folder.name,
            "calibration": self.calibration.model_dump(mode="json")
            | {"hash": self.calibration.hash, "assessable_from": ASSESSABLE},
            "not_assessable": [each.finding for each in self.calibration.findings if not each.assessable],
            "not_better": not_better(self.calibration),
            "reliability": self.points_as_json(),
            "thresholds": self.thresholds.model_dump(mode="json") | {"hash": self.thresholds.hash},
            "files": [str(self.folder / name) for name in (*FILES, POINTS, DIAGRAMS, CURVES)],
        }

    def tables(self) -> Iterator[Table | str]:
        """All that there is to show, in the order of reading."""
        yield self._lines()
        yield self._figures()
        for rule in RULES:
            if any(row.by(rule) for row in self.thresholds.findings):
                yield self._cuts(rule)
        yield from filter(None, (refusals(self.thresholds), worse(self.calibration)))
        if self.calibration.caveat:
            yield f"warning: this calibration is {self.calibration.caveat}"

    def _lines(self) -> Table:
        on, rows = self.calibration.on, self.calibration.findings
        columns = [
            Column("finding", [row.finding for row in rows], text=True),
            Column("positives", [f"{row.positives:,}" for row in rows]),
            Column("patients", [f"{row.positive_patients:,}" for row in rows], spare=1),
            Column("slope", [number(row.line.slope) for row in rows]),
            Column("offset", [number(row.line.offset, "+") for row in rows]),
        ]
        pooled = self.calibration.pooled
        notes = [
            f"log-odds = slope x logit + offset; of all findings pooled {pooled.slope:.4f} and {pooled.offset:+.4f}",
            f"fitted on {on.images:,} {on.kind} images of {on.patients:,} patients of '{on.data}'",
        ]
        if bare := [row.finding for row in rows if not row.calibrated]:
            notes.append(f"not calibrated, without positives or without negatives: {', '.join(bare)} (the pooled line)")
        title = f"calibration of {self.folder.name} by {METHODS[self.calibration.method]}"
        return Table(title, columns, [*notes, *filter(None, [self.calibration.caveat])])

    def _figures(self) -> Table:
        rows = [*self.calibration.findings, self.calibration.together]
        ece, brier, skill, slope, intercept = (
            [getattr(row.after, name) if row.after else None for row in rows]
            for name in ("ece", "brier", "skill", "slope", "intercept")
        )
        columns = [
            Column("finding", [row.finding for row in rows], text=True),
            Column("ECE before", [_value(row.before.ece if row.before else None) for row in rows]),
            Column("ECE after", [_value(each) if each else "not assessable" for each in ece]),
            Column("Brier before", [_value(row.before.brier if row.before else None) for row in rows], spare=3),
            Column("Brier", list(map(_value, brier))),
            Column("skill", list(map(_value, skill))),
            Column("95 %", list(map(_ends, skill)), spare=3),
            Column("slope", list(map(_value, slope)), spare=1),
            Column("95 %", list(map(_ends, slope)), spare=2),
            Column("intercept", [_value(each, "+") for each in intercept], spare=2),
            Column("95 %", [_ends(each, "+") for each in intercept], spare=3),
        ]
        few = [f"{row.finding} ({row.positives:,})" for row in rows if not row.assessable]
        notes = [
            *([f"not assessable, under {ASSESSABLE} positives or negatives: {', '.join(few)}"] if few else []),
            f"after: by lines of other patients' images ({self.calibration.folds} folds); intervals by patient",
            "ECE is of ten bins of equally many images; above 0 by luck alone, it has no interval",
            "slope below 1: too extreme; intercept above 0: too low on average; skill 0: worth as much as the "
            "prevalence",
        ]
        return Table("how well it is calibrated", columns, [*notes, *filter(None, [self.calibration.caveat])])

    def _cuts(self, rule: Rule) -> Table:
        rows = [(row, row.by(rule)) for row in self.thresholds.findings]
        columns = [
            Column("finding", [row.finding for row, _ in rows], text=True),
            Column("positive patients", [f"{row.positive_patients:,}" for row, _ in rows], spare=1),
            Column("threshold", [_chance(cut.probability) if cut else ABSENT for _, cut in rows]),
        ]
        for head in ("sensitivity", "specificity", "precision"):
            found = [getattr(cut, head) if cut else None for _, cut in rows]
            columns.append(Column(head, [_value(each) for each in found]))
            columns.append(Column("95 %", [_ends(each) for each in found], spare=2 + (head == "precision")))
        columns.append(Column("flagged", [f"{cut.flagged:.1%}" if cut else ABSENT for _, cut in rows]))
        notes = ["intervals are by patient, of the threshold as it is"]
        if rule != "sensitivity":
            notes.append("chosen and judged on the same images: on others they do somewhat worse")
        if rule == "sensitivity":
            columns.insert(3, Column("k", [str(cut.k) if cut else ABSENT for _, cut in rows], spare=4))
            notes.append("a positive patient counts by the lowest of its positive images; k is which one it is")
        title = TITLES[rule].format(at_least=self.thresholds.at_least)
        return Table(title, columns, [*notes, *filter(None, [self.thresholds.caveat])])

    def _warning(self) -> str:
        return f" This calibration is {self.calibration.caveat}." if self.calibration.caveat else ""

    def diagrams(self) -> bytes:
        """Reliability diagrams as SVG, of each finding and of all together."""
        found, note = list(map(self._diagram, self._rows)), RELIABILITY_NOTE + self._warning()
        return reliability(found, f"Reliability of {self.folder.name} on {self.calibration.on.kind} images", note)

    def _diagram(self, row: OfFinding) -> Diagram:
        raw, chance, truth, _ = self._images(row.finding)
        points = self.points[row.finding]
        observed = np.array([each.observed.value for each in points], np.float64)
        inside = bins_of(raw)
        sizes = np.bincount(inside)
        before = (np.bincount(inside, weights=raw) / sizes, np.bincount(inside, weights=truth) / sizes)
        end = min(1.0, max(upper_end(chance), float(observed.max())))
        says = f"ECE {_value(row.after.ece)}" if row.after else f"{row.positives:,} positives"
        return Diagram(
            name=row.finding,
            says=says,
            predicted=np.array([each.predicted for each in points]),
            observed=observed,
            low=np.array([each.observed.low for each in points], np.float64),
            high=np.array([each.observed.high for each in points], np.float64),
            before=before,
            counts=np.histogram(chance, BARS, (0, end))[0].astype(np.float64),
            end=end,
            faded=not row.assessable,
        )

    def curves(self) -> bytes:
        """Net benefit curves as SVG, of findings that some images have."""
        found = []
        for row in self.thresholds.findings:
            if curve := row.net_benefit:
                worth, low, high = (
                    np.array([getattr(each, what) for each in curve.model], np.float64)
                    for what in ("value", "low", "high")
                )
                faded = row.positives < ASSESSABLE
                says = f"{row.positives:,} positives"
                everyone, at = np.array(curve.everyone), np.array(curve.thresholds)
                found.append(Benefit(row.finding, says, at, worth, low, high, everyone, faded))
        note = BENEFIT_NOTE + self._warning()
        return net_benefit(found, f"Net benefit of {self.folder.name} on {self.calibration.on.kind} images", note)


METHODS: dict[Method, str] = {"platt": "Platt's line", "temperature": "one temperature"}


def calibrated(
    folder: Path,
    device: torch.device,
    *,
    on: str = "",
    sensitivity: float = SENSITIVITY,
    decides: Rule = "sensitivity",
    method: Method = "platt",
    counter: Callable[[int, int], None] | None = None,
) -> Calibrated:
    """Fits a model's calibration and thresholds; writes nothing but its logits.

    Raises:
        BadInput: there is nothing that it could be calibrated on, or no such sensitivity.
    """
    expect_sensitivity(sensitivity)
    validation = validation_of(folder, on, device, counter)
    about, scored = validation.about, validation.scored
    arguments = (scored.logits, scored.truth, scored.groups, scored.classes)
    found, crossed = calibrate(about.sha256, about.classes, *arguments, validation.on, method)
    cuts = choose(found, np.asarray(scored.logits, np.float64), crossed, *arguments[1:], sensitivity, decides)
    return Calibrated(folder, found, cuts, scored, crossed)


def _chance(probability: float) -> str:
    """Four places, or three digits: thresholds of rare findings are small."""
    return f"{probability:.4f}" if probability >= 0.01 else f"{probability:.3g}"


def _value(found: Estimate | None, sign: str = "") -> str:
    return number(found.value if found else None, sign)


def _ends(found: Estimate | None, sign: str = "") -> str:
    if found is None or found.low is None or found.high is None:
        return ABSENT
    return ends(found.low, found.high, sign)


def _as_json(point: Bin) -> dict[str, Any]:
    return {
        "images": point.images,
        "predicted": point.predicted,
        "observed": point.observed.value,
        "low": point.observed.low,
        "high": point.observed.high,
    }
