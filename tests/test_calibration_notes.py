"""Sentences on a calibration: where it made nothing better, and which findings have no threshold, and why."""

from __future__ import annotations

from xlite_search.evaluation.calibration import Calibration, FittedOn, Line
from xlite_search.evaluation.calibration import OfFinding as Calibrated
from xlite_search.evaluation.calibration_notes import not_better, refusals, worse
from xlite_search.evaluation.estimates import Estimate
from xlite_search.evaluation.reliability import Figures
from xlite_search.evaluation.thresholds import OfFinding, Threshold, Thresholds, needed, too_few


def figures(brier: float, ece: float) -> Figures:
    of = Estimate.of
    parts = {"reliability": 0.0, "resolution": 0.0, "uncertainty": 0.1}
    return Figures(ece=of(ece), brier=of(brier), skill=of(0), slope=of(1), intercept=of(0), **parts)


def row(name: str, before: tuple[float, float] | None, after: tuple[float, float] | None) -> Calibrated:
    judged = {"before": figures(*before) if before else None, "after": figures(*after) if after else None}
    return Calibrated(finding=name, line=Line(), positives=200, positive_patients=200, calibrated=True, **judged)


def calibration(*rows: Calibrated, together: Calibrated | None = None) -> Calibration:
    everything = together or row("all findings", (0.2, 0.1), (0.1, 0.05))
    on = FittedOn(data="d", fingerprint="f", split="s", images=400, patients=300)
    return Calibration(sha256="s", method="platt", on=on, folds=5, pooled=Line(), findings=rows, together=everything)


def test_a_calibration_that_helped_has_no_note() -> None:
    found = calibration(row("Mass", (0.2, 0.1), (0.1, 0.05)), row("Hernia", None, None))
    assert not_better(found) == {"brier": [], "ece": []} and worse(found) == ""


def test_what_it_did_not_make_better_is_named_by_figure() -> None:
    rows = row("Mass", (0.1, 0.05), (0.11, 0.04)), row("Edema", (0.1, 0.05), (0.1, 0.06)), row("Hernia", None, None)
    found = calibration(*rows, together=row("all findings", (0.1, 0.02), (0.09, 0.03)))
    assert not_better(found) == {"brier": ["Mass", "Edema"], "ece": ["Edema", "all findings"]}
    assert worse(found) == (
        "warning: calibration made these no better, by other patients' images: Brier score of Mass, Edema; "
        "ECE of Edema, all findings"
    )


def cut() -> Threshold:
    rates = {name: Estimate.of(0.9) for name in ("sensitivity", "specificity", "precision")}
    return Threshold(probability=0.1, flagged=0.5, **rates)


def test_findings_without_a_threshold_are_one_sentence() -> None:
    def few(name: str, patients: int) -> OfFinding:
        said = too_few(name, patients, 0.9)
        return OfFinding(finding=name, positives=patients, positive_patients=patients, f1=cut(), refused=said)

    def bare(name: str, why: str) -> OfFinding:
        return OfFinding(finding=name, positives=0, positive_patients=0, refused=f"{name}: no threshold, {why}")

    rows = [few("Mass", 12), few("Edema", 1), bare("Hernia", "every validation image is without it")]
    rows += [bare("Nodule", "every validation image is without it"), bare("Pus", "the data do not have this finding")]
    kept = OfFinding(finding="Effusion", positives=50, positive_patients=40, sensitivity=cut(), f1=cut())
    found = Thresholds(sha256="s", calibration="c", at_least=0.9, findings=(kept, *rows))
    assert refusals(found) == (
        f"no threshold keeps a sensitivity of 0.9 with 95 % confidence, which takes {needed(0.9)} positive patients, "
        "for Mass (12), Edema (1); no threshold, every validation image is without it: Hernia, Nodule; "
        "no threshold, the data do not have this finding: Pus"
    )
    assert refusals(found.model_copy(update={"findings": (kept,)})) == ""
