"""Files of scores per image, other people's and ours, and intervals by patient from them.

Two forms are read:

    CSV   a row for each image: `Image Index` (or another usual name of that column), `prob_<Finding>` for each finding,
          and, if the truth stands beside them, `<Finding>`, 0 or 1. The published predictions of the CheXNet
          reproduction have this form; their truth and patients are in its label table
    .npz  a run's predictions as this program keeps them (`training.predictions`): logits

Whose each image is, a table says (`--patients`): NIH's label table, or any with a column of images and one of patients;
where it has labels they are the truth, unless the predictions have their own. Without it the names of NIH's images tell
the patient. AUROC depends on the order of the scores alone: probabilities and logits are as good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xlite_search.data.sources import image_id
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.findings import read_findings
from xlite_search.data.sources.names import names_of, nih_patient, read_paths
from xlite_search.data.sources.patients import read_patients
from xlite_search.data.sources.sheet import PATIENT, WORDS, Sheet, plain, read_sheet, show
from xlite_search.errors import BadInput, Damaged
from xlite_search.results.confounders import RunFacts
from xlite_search.results.influence import Array, Influence, influence
from xlite_search.training.predictions import Predictions

SCORE = "prob_"
FORM = f"scores per image with 'Image Index' and {SCORE}<Finding> for each finding"


@dataclass(frozen=True)
class ImageScores:
    """Scores `[image, finding]` of a run with the ids of the images; the truth, bool of the same shape, and each
    image's patient, if the file tells."""

    images: tuple[str, ...]
    findings: tuple[str, ...]
    scores: Array
    truth: NDArray[np.bool_] | None = None
    patients: tuple[str, ...] = ()


@dataclass(frozen=True)
class PatientTable:
    """The patient of each image by its id, and its labels by finding, if the table has any."""

    path: Path
    patients: Mapping[str, str]
    findings: tuple[str, ...] = ()
    labels: Mapping[str, NDArray[np.uint8]] | None = None


@dataclass(frozen=True)
class Judged:
    """Runs whose predictions are of the same images and findings, judged by one truth.

    influences  by the run's name
    findings    those that have an AUROC: positives and negatives
    images, patients  how many there are
    notes       which runs were left out, and why
    """

    influences: Mapping[str, Influence]
    findings: tuple[str, ...] = ()
    images: int = 0
    patients: int = 0
    notes: tuple[str, ...] = ()


def read_scores(path: Path) -> ImageScores:
    """The scores in a file of either form.

    Raises:
        BadInput: it cannot be read, or has another form.
    """
    if path.suffix == ".npz":
        try:
            kept = Predictions.load(path)
        except Damaged as error:
            raise BadInput(str(error)) from None
        if not np.isfinite(kept.logits).all():
            raise BadInput(f"{path}: a logit is no number")
        return ImageScores(tuple(map(image_id, kept.images)), kept.classes, kept.logits.astype(np.float64))
    sheet = read_sheet(path, FORM)
    heads = {name.removeprefix(SCORE): number for number, name in enumerate(sheet.header) if name.startswith(SCORE)}
    if not sheet.headed or not heads or "" in heads:
        raise BadInput(f"{path}, line {sheet.top}: no column of scores; expected {FORM}, {sheet.found}")
    names = names_of(sheet, read_paths(sheet))
    scores = np.stack([_numbers(sheet, column) for column in heads.values()], axis=1)
    own = {name: sheet.header.index(name) for name in heads if name in sheet.header}
    if own and len(own) < len(heads):
        lacking = next(name for name in heads if name not in own)
        raise BadInput(f"{path}, line {sheet.top}: no column {show(lacking)} beside {SCORE}{lacking}, as others have")
    truth = np.stack([_zeros_and_ones(sheet, column) for column in own.values()], axis=1) if own else None
    patients = read_patients(sheet, names, names)[0] if sheet.column(PATIENT) is not None else ()
    return ImageScores(tuple(map(image_id, names)), tuple(heads), scores, truth, patients)


def _numbers(sheet: Sheet, column: int) -> Array:
    cells = sheet.cells(column)
    try:
        found = np.array(cells, dtype=np.float64)
    except ValueError:
        found = np.array([_number(cell) for cell in cells])
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found))[0])
        raise BadInput(f"{sheet.at(row, column)}: {show(cells[row])} is no number")
    return found


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _zeros_and_ones(sheet: Sheet, column: int) -> NDArray[np.bool_]:
    found = _numbers(sheet, column)
    wrong = np.flatnonzero((found != 0) & (found != 1))
    if len(wrong):
        raise BadInput(f"{sheet.at(int(wrong[0]), column)}: {show(sheet.cells(column)[wrong[0]])}; expected 0 or 1")
    return np.asarray(found > 0)


def read_patient_table(path: Path, findings: Sequence[str]) -> PatientTable:
    """Whose each image is, and its labels of these findings if the table has any.

    Raises:
        BadInput: it cannot be read, or does not tell whose an image is.
    """
    sheet = read_sheet(path, "a table of images and patients")
    paths = read_paths(sheet)
    names = names_of(sheet, paths)
    ids = list(map(image_id, names))
    whose = dict(zip(ids, read_patients(sheet, names, paths)[0], strict=True))
    if WORDS not in sheet.columns and not all(plain(name) in sheet.columns for name in findings):
        return PatientTable(path, whose)
    if WORDS in sheet.columns and set(findings) <= set(CHEST_FINDINGS):
        labels = read_findings(sheet)[0][:, [CHEST_FINDINGS.index(name) for name in findings]]
    else:
        labels = read_findings(sheet, tuple(findings))[0]
    return PatientTable(path, whose, tuple(findings), dict(zip(ids, labels, strict=True)))


def judged(runs: Iterable[RunFacts], patients: Path | None = None) -> Judged:
    """What each patient moves each run's AUROC by, for runs that name a file of scores.

    A run whose file is not there, or is of other images, findings or labels than the first one's, is left out, and
    named in the notes; and so are all if nobody says whose the images are, or what is true of them.

    Raises:
        BadInput: a file is there and has another form.
    """
    notes, read = list[str](), dict[str, ImageScores]()
    for run in runs:
        if run.predictions is None:
            continue
        if not run.predictions.is_file():
            notes.append(f"{run.name}: there is no file of predictions {run.predictions}; compared without")
        else:
            read[run.name] = read_scores(run.predictions)
    if not read and patients is not None and not patients.is_file():
        raise BadInput(f"--patients {patients}: there is no such file")
    if not read:
        notes += [f"--patients {patients}: not used, for no run names predictions"] if patients else []
        return Judged({}, notes=tuple(notes))
    named, first = next(iter(read.items()))
    try:
        table = read_patient_table(patients, first.findings) if patients else None
        truth, groups = _truth(read.values(), table, first), _groups(first, table)
    except _Untold as why:
        return Judged({}, notes=(*notes, str(why)))
    scored = np.asarray(truth.any(axis=0) & ~truth.all(axis=0))
    numbers = np.unique(groups, return_inverse=True)[1].reshape(-1)
    found = {}
    for name, each in read.items():
        aligned, why_not = _aligned(each, first, truth)
        if aligned is None:
            notes.append(f"{name}: its predictions are of other {why_not} than those of {named}; compared without")
        else:
            found[name] = influence(aligned[:, scored], truth[:, scored], numbers)
    told = tuple(name for name, there in zip(first.findings, scored, strict=True) if there)
    return Judged(found if told else {}, told, len(first.images), len(set(groups)), tuple(notes))


class _Untold(Exception):
    """Nobody says whose images these are, or what is true of them."""


def _truth(read: Iterable[ImageScores], table: PatientTable | None, first: ImageScores) -> NDArray[np.bool_]:
    """Of the first file's images and findings, from a file that has it, or else from the table."""
    for each in read:
        if each.truth is not None and (aligned := _places(each, first)) is not None:
            return each.truth[np.ix_(*aligned)]
    if table is None or table.labels is None:
        what = f"{table.path} has" if table else "--patients names"
        raise _Untold(f"no intervals: the predictions have no columns of labels, and {what} no table of them")
    lacking = next((name for name in first.images if name not in table.labels), None)
    if lacking is not None:
        raise BadInput(f"{table.path}: image {show(lacking)} of the predictions is not in it")
    return np.stack([table.labels[name] for name in first.images]) > 0


def _groups(first: ImageScores, table: PatientTable | None) -> list[str]:
    """The patient of each of the first file's images."""
    if table is not None:
        lacking = next((name for name in first.images if name not in table.patients), None)
        if lacking is not None:
            raise BadInput(f"{table.path}: image {show(lacking)} of the predictions is not in it")
        return [table.patients[name] for name in first.images]
    if first.patients:
        return list(first.patients)
    guessed = [nih_patient(name) for name in first.images]
    if not all(guessed):
        raise _Untold(
            "no intervals: nothing tells whose each image is; give a table of images and patients, --patients"
        )
    return guessed


def _places(each: ImageScores, first: ImageScores) -> tuple[list[int], list[int]] | None:
    """Where the first file's images and findings are in another one; None if it has others."""
    rows = {name: row for row, name in enumerate(each.images)}
    columns = {name: column for column, name in enumerate(each.findings)}
    if rows.keys() != set(first.images) or columns.keys() != set(first.findings):
        return None
    return [rows[name] for name in first.images], [columns[name] for name in first.findings]


def _aligned(each: ImageScores, first: ImageScores, truth: NDArray[np.bool_]) -> tuple[Array | None, str]:
    """Scores in the first file's order, or what they are other ones of."""
    places = _places(each, first)
    if places is None:
        return None, "images" if set(each.images) != set(first.images) else "findings"
    if each.truth is not None and not np.array_equal(each.truth[np.ix_(*places)], truth):
        return None, "labels"
    return each.scores[np.ix_(*places)], ""
