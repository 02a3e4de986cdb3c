"""Figures of a report, by name: the same for its page and for the study's artifacts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from xlite_search.labels import texts
from xlite_search.reports.bars import bars
from xlite_search.reports.curves import LearningCurve, Panel, learning, multiples
from xlite_search.reports.forest import Estimate, forest
from xlite_search.reports.heatmap import heatmap
from xlite_search.reports.shares import Share, shares
from xlite_search.results.effects import Effects, when
from xlite_search.results.importance import Importances
from xlite_search.results.report.content import Report
from xlite_search.results.report.predicted import Curve, FindingCurves

#: rows of a forest plot of runs, which a page of paper holds, those of effects, and samplers that have a figure
ROWS, EFFECTS, SAMPLERS = 20, 30, 3
#: curves with colours of their own
COLOURED = 4
#: curves in all
DRAWN = 120


class Figure(NamedTuple):
    """An SVG file, what it shows to those who cannot see it, and how to read it."""

    svg: bytes
    label: str
    caption: str


def figures(report: Report) -> dict[str, Figure]:
    """All that there is to draw, by the name of the file and of the section."""
    return dict(_figures(report))


def _figures(report: Report) -> Iterator[tuple[str, Figure]]:
    if report.ranked:
        yield "forest", _scores(report)
        if len(report.said.claims) > 1:
            yield "behind", _behind(report)
    if any(run.curve for run in report.runs):
        yield "learning", _learning(report)
    if report.matrix:
        yield "heatmap", _heatmap(report)
    if report.effects and any(math.isfinite(each.effect) for each in report.effects.effects):
        yield "effects", _effects(report, report.effects)
    if report.importances:
        yield "importances", _importances(report.importances)
    if report.gaps and report.gaps.findings:
        yield "findings", _findings(report)
    if report.curves:
        yield "roc", _multiples(report, "roc")
        yield "precision", _multiples(report, "pr")
    different = {sampler.sampler: sampler for sampler in reversed(report.samplers)}
    for number, sampler in enumerate([*different.values()][: -SAMPLERS - 1 : -1], start=1):
        rows = [Share(name, sampler.of_images[name], drawn) for name, drawn in sampler.of_draws.items()]
        what = "of draws" if sampler.apply == "draw" else "of the loss's weight"
        yield (
            f"sampler-{number}",
            Figure(
                shares(rows, f"Sampler {sampler.sampler}", what),
                f"Share of images and of draws by finding under sampler {sampler.sampler}",
                "Diamond: share of the training images. Circle: share of what an epoch draws, in expectation.",
            ),
        )


def _scores(report: Report) -> Figure:
    said = report.said
    if said.claims:
        rows = [
            Estimate(one.label, one.score, one.low, one.high, _says(one.score, one.low, one.high), one.may_be_best)
            for one in said.claims[:ROWS]
        ]
    else:
        rows = [Estimate(run.label, run.score, math.nan, math.nan, _says(run.score)) for run in report.ranked[:ROWS]]
    many, what = len(said.claims or report.ranked), "setting" if said.about == "recipe" else "run"
    more = f" The first {ROWS} of {many:,}." if many > ROWS else ""
    how = ""
    if said.claims:
        chance = "patients and training" if said.about == "recipe" else "patients alone"
        same = "folds" if said.folds else "images"
        how = (
            f" Bars: 95 % of each by itself, of the chance of {chance}; where they overlap, that is no tie: all have "
            f"the same {same}, and the gaps tell. Filled and bold: may be the best."
        )
    return Figure(
        forest(rows, f"Score of each {what}", report.metric, reference=rows[0].value),
        f"Forest plot: {report.metric} of {len(rows)} {what}s with their intervals",
        f"Dashed: the best.{how}{more}",
    )


def _behind(report: Report) -> Figure:
    margin, (best, *others) = report.said.margin, report.said.claims
    rows = [
        Estimate(one.label, one.gap, one.gap_low, one.gap_high, _gap(one.gap, one.verdict), one.may_be_best)
        for one in others[: ROWS - 1]
    ]
    return Figure(
        forest(rows, f"Gap to the best, {best.label}", f"gap in {report.metric}", 0.0, margin, ("worse", "better")),
        "Forest plot: gap of each to the best with simultaneous intervals",
        f"On the same {'folds' if report.said.folds else 'images'}; bars: 95 % for all comparisons at once. Gray band: "
        f"gaps up to {margin:g}, which matter "
        f"to nobody. Filled and bold: may be the best.",
    )


def _gap(value: float, verdict: str) -> str:
    return f"{value:+.4f}, {verdict}" if math.isfinite(value) else "unknown"


def _says(value: float, low: float = math.nan, high: float = math.nan) -> str:
    return f"{value:.4f}" + (f"  [{low:.3f}, {high:.3f}]" if math.isfinite(low) else "")


def _learning(report: Report) -> Figure:
    runs = [run for run in report.runs if run.curve][:DRAWN]
    curves = [
        LearningCurve(
            run.label, run.curve, run.best_epoch, 0 < run.rank <= COLOURED, run.status in ("stopped", "failed")
        )
        for run in runs
    ]
    left = sum(bool(run.curve) for run in report.runs) - len(runs)
    more = f" {left:,} more runs are not drawn." if left else ""
    chance = report.chance if math.isfinite(report.chance) else None
    return Figure(
        learning(curves, "Learning curves", report.metric, chance),
        f"Learning curves: {report.metric} by epoch of {len(runs)} runs",
        f"The first {COLOURED} of the ranking have colours; the mark is the best epoch. Gray: the other runs, a cross "
        f"where one was stopped or failed.{more}",
    )


def _heatmap(report: Report) -> Figure:
    cells = report.matrix
    assert cells
    when = f"after epoch {cells.epoch}, the last that all runs reached" if cells.epoch else "at the best epoch"
    over = f", mean over {', '.join(cells.others)}" if cells.others else ""
    uneven = "" if cells.even else " The cells are of different numbers of runs: they do not compare as a grid's would."
    values, counts = np.array(cells.values), np.array(cells.counts)
    rows, columns = (cells.rows, cells.row_values), (cells.columns, cells.column_values)
    return Figure(
        heatmap(values, counts, rows, columns, f"{report.metric} by {cells.rows} and {cells.columns}"),
        f"Heat map: mean {report.metric} by {cells.rows} and {cells.columns}",
        f"{report.metric} {when}{over}; n: runs in the cell.{uneven}",
    )


def _effects(report: Report, found: Effects) -> Figure:
    rows = [
        Estimate(
            f"{each.factor} = {texts([each.level])[0]}",
            each.effect,
            each.effect - each.half,
            each.effect + each.half,
            f"{each.effect:+.4f}" if math.isfinite(each.effect) else "aliased",
            abs(each.effect) > each.half,
        )
        for each in found.effects[:EFFECTS]
    ]
    error = "of seeds within settings" if found.by_seed else "of what an additive model leaves over"
    return Figure(
        forest(rows, "Main effects", f"effect on {report.metric}", 0.0, sides=("lower", "higher")),
        f"Forest plot: main effects of {len({each.factor for each in found.effects})} factors",
        f"Each value against the mean of its factor's values, the other factors balanced; {found.runs} runs "
        f"{when(found.rung)}. "
        f"Bars: 95 % of each by itself, of training's chance on these images; error {error}, {found.dof} degrees of "
        f"freedom.",
    )


def _importances(found: Importances) -> Figure:
    rows = list(found.shares.items())[:ROWS]
    return Figure(
        bars(rows, "Importance of what was suggested", "share"),
        f"Bars: importance of {len(found.shares)} settings that were suggested",
        " ".join(f"{note[0].upper()}{note[1:]}." for note in found.notes),
    )


def _findings(report: Report) -> Figure:
    gaps = report.gaps
    assert gaps
    rows = [
        Estimate(
            f"{row.finding} ({row.positives:,})",
            row.gap,
            row.low,
            row.high,
            _gap(row.gap, row.verdict),
            row.supported and row.verdict in ("better", "worse"),
            not row.supported,
        )
        for row in gaps.findings
    ]
    return Figure(
        forest(rows, f"{gaps.one} less {gaps.other}", "gap in AUROC", 0.0, report.said.margin, ("worse", "better")),
        f"Forest plot: gap in AUROC by finding between {gaps.one} and {gaps.other}",
        "The rarest finding first, its positives in brackets; bars: 95 % for all findings at once. Gray: fewer than 10 "
        "positives. Filled: better or worse, corrected for all findings.",
    )


def _multiples(report: Report, which: str) -> Figure:
    best = report.best
    panels = [_panel(one, which) for one in report.curves]
    about = "Bands: 95 % at each place, patients drawn anew. Gray: fewer than 10 positives."
    if which == "roc":
        return Figure(
            multiples(panels, f"ROC: {best}", "1 - specificity", "sensitivity"),
            f"ROC curves by finding of {best}",
            f"Below each name its positives and the AUROC with its 95 % interval. {about} Dotted: chance.",
        )
    return Figure(
        multiples(panels, f"Precision: {best}", "recall", "precision"),
        f"Precision-recall curves by finding of {best}",
        f"Below each name its positives and the average precision with its 95 % interval. {about} Dotted: prevalence.",
    )


def _panel(one: FindingCurves, which: str) -> Panel:
    if which == "roc":
        curve, says, level = one.roc, _area(one.auroc, one.auroc_low, one.auroc_high), None
    else:
        curve, says, level = one.pr, _area(one.ap, one.ap_low, one.ap_high), one.prevalence
    return Panel(one.finding, f"n {one.positives:,}:  {says}", **_arrays(curve), level=level, faded=one.faded)


def _arrays(curve: Curve) -> dict[str, Any]:
    return {name: np.array(getattr(curve, name)) for name in ("x", "y", "grid", "low", "high")}


def _area(value: float, low: float, high: float) -> str:
    return f"{value:.2f}" + (f" [{low:.2f}, {high:.2f}]" if math.isfinite(low) else "")
