"""Builds a report of a study from its records, and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from xlite_search import storage
from xlite_search.console import say
from xlite_search.data.dataset import open_data
from xlite_search.errors import XliteError, cause_of
from xlite_search.records import RunRecord
from xlite_search.results import compare as comparing
from xlite_search.results.against import against as gaps_of
from xlite_search.results.against import against_named, alike
from xlite_search.results.compare import Comparison, open_study
from xlite_search.results.effects import levels
from xlite_search.results.importance import FEWEST, Importances
from xlite_search.results.outputs import expect_writable
from xlite_search.results.paired import fold_of
from xlite_search.results.report.content import Gaps, Report
from xlite_search.results.report.gather import of_records
from xlite_search.results.report.matrix import choose, matrix
from xlite_search.results.report.methods import REFERENCES, methods
from xlite_search.results.report.predicted import FindingCurves, curves
from xlite_search.results.report.said import against_best, said_of
from xlite_search.results.ties import MARGIN
from xlite_search.study_record import StudyRecord
from xlite_search.trainable import config_of


def report(name: str, *, margin: float = MARGIN, against: str = "", factors: Sequence[str] = ()) -> Report:
    """What there is to say of a study.

    margin   gaps in AUROC that matter to nobody
    against  the run that the best one is compared with, finding by finding; default: the one without a teacher, or the
             next best
    factors  two swept settings for the heat map; default: those with most values

    Raises:
        BadInput: there is no such study, run or factor.
        Damaged: a record is not what was written.
    """
    return report_of(open_study(name), comparing.compare([name], margin), margin, against, factors)


def report_of(
    study: StudyRecord, comparison: Comparison, margin: float = MARGIN, against: str = "", factors: Sequence[str] = ()
) -> Report:
    """The same of a study that was compared already."""
    everyone, missing = [*comparison.ranked, *comparison.others], dict[str, str]()
    swept = levels(everyone)
    pair = choose(swept, factors)
    cells = matrix(everyone, comparison.metric, pair, swept) if pair else None
    if cells is None:
        missing["matrix"] = "no run has a score" if pair else "the study has no two factors with a few values each"
    found = replace(
        of_records(study, comparison, said_of(comparison, margin)),
        matrix=cells,
        effects=comparison.effects(),
        importances=_importances(study, comparison, missing),
        gaps=_gaps(comparison, margin, against, missing),
        curves=_curves(comparison, missing),
        reached=comparison.reached(),
        against_best=tuple(against_best(comparison)),
        missing=missing,
    )
    written = methods(study, everyone, found, swept)
    return replace(found, methods=written, references=_cited(written))


def write(found: Report, path: Path) -> int:
    """Writes the page of a report, or replaces it, at once; its size in bytes.

    Raises:
        BadInput: the folder is not there, or `path` is a folder itself.
    """
    from xlite_search.results.report.page import page

    expect_writable(path)
    text = page(found).encode(errors="backslashreplace")
    storage.write_atomic(path, text)
    return len(text)


def drawn(name: str, comparison: Comparison) -> dict[str, bytes]:
    """The figures of a study's report as SVG files. None, and a line that says why, if they cannot be drawn: a search
    does not end by them."""
    from xlite_search.results.report.figures import figures

    try:
        found = report_of(open_study(name), comparison)
        return {f"figures/{file}.svg": figure.svg for file, figure in figures(found).items()}
    except Exception as error:
        say(f"the figures of the study were not drawn: {cause_of(error)}")
        return {}


def _cited(paragraphs: Sequence[str]) -> tuple[str, ...]:
    """The references whose first author the paragraphs name."""
    text = " ".join(paragraphs)
    return tuple(reference for reference in REFERENCES if reference.split()[0] in text)


def _importances(study: StudyRecord, comparison: Comparison, missing: dict[str, str]) -> Importances | None:
    found = comparison.importances()
    if found is None and study.distributions:
        missing["importances"] = f"they take {FEWEST} runs with scores that differ"
    return found


def _gaps(comparison: Comparison, margin: float, against: str, missing: dict[str, str]) -> Gaps | None:
    """The best run against another one. Raises BadInput if `against` cannot be."""
    if against:
        found = against_named(comparison, against, margin)
        return Gaps(found.one, found.other, "as asked", found.gaps)
    if not comparison.ranked:
        missing["gaps"] = "no run was trained to its end"
        return None
    one = comparison.best
    other, why = _opponent(comparison, one)
    if other is None:
        missing["gaps"] = "one run alone was trained to its end"
        return None
    try:
        found = gaps_of(one, other, comparison.labels([one, other]), margin)
    except (XliteError, OSError) as error:
        missing["gaps"] = cause_of(error)
        return None
    return Gaps(found.one, found.other, why, found.gaps)


def _opponent(comparison: Comparison, one: RunRecord) -> tuple[RunRecord | None, str]:
    """With whom the best run is compared, and why: the control of a study with a teacher, or the next in the claims."""
    if one.config.get("kd"):
        control = next((run for run in comparison.ranked if not run.config.get("kd")), None)
        if control:
            return control, "the best run without a teacher"
    if comparison.claims:
        arms = comparison.claims.arms
        return (alike(one, arms[1].runs), "the next best") if len(arms) > 1 else (None, "")
    others = [run for run in comparison.ranked if run.folder != one.folder and fold_of(run) == fold_of(one)]
    return (others[0], "the next best") if others else (None, "")


def _curves(comparison: Comparison, missing: dict[str, str]) -> tuple[FindingCurves, ...]:
    if not comparison.ranked:
        missing["curves"] = "no run was trained to its end"
        return ()
    try:
        return tuple(curves(comparison.best, open_data(config_of(comparison.best).data)))
    except (XliteError, OSError) as error:
        missing["curves"] = cause_of(error)
        return ()
