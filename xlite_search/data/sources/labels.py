"""Label tables and name lists in the forms that are in circulation; each mistake with its file, line and column.

    NIH's      Image Index,Finding Labels,...,Patient ID,...   'Mass|Nodule' or 'No Finding'; 2017 and v2020
    multi-hot  image_id,patient,view,<14 findings>             0 or 1; columns in any order, by name
    list       00009232_004.png 0 0 1 ...                      no header; findings in CHEST_FINDINGS' order
    names      00009232_004.png                                for `read_names` only

UTF-8, gzipped or not, with commas, semicolons, tabs or, in lists, spaces. What counts is the content, not the suffix.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlite_search import storage
from xlite_search.data.sources import CHEST_FINDINGS, NO_FINDING, LabelTable, image_id
from xlite_search.data.sources.sheet import (
    FINDINGS,
    IMAGE,
    NORMAL,
    PATIENT,
    VIEW,
    WORDS,
    Sheet,
    is_blank,
    is_number,
    plain,
    read_sheet,
    show,
)
from xlite_search.errors import BadInput, did_you_mean

#: Images with each finding among NIH's 112,120 (Data_Entry_2017_v2020.csv), in CHEST_FINDINGS' order.
NIH_COUNTS = (11559, 2776, 13317, 19894, 5782, 6331, 1431, 5302, 4667, 2303, 2516, 1686, 3385, 227)
#: A list this long shows by its counts whether its columns are in order; below this agreement they are not
#: (`_expect_order`).
ENOUGH_ROWS, LEAST_AGREEMENT = 1000, 0.5
#: Columns that may well be 0 and 1 and are no findings.
ATTRIBUTES = (
    "followup",
    "patientsex",
    "patientgender",
    "sex",
    "gender",
    "patientage",
    "age",
    "fold",
    "split",
    "istest",
)

_NIH_NAME = re.compile(r"([0-9]{8})_[0-9]{3}")
_NUMBER = re.compile(r"0*([0-9]+)(\.0*)?")


def read_labels(path: Path) -> LabelTable:
    """The label table in a file, in the file's order.

    Patients come from the table's column, else from names like NIH's (`00000013_005.png` is patient 13); `00000013`,
    `13` and `13.0` are the same patient. `views` is empty if the file has no such column.

    Raises:
        BadInput: the file cannot be read, is no table, or says something that cannot be true.
    """
    sheet = _labelled(read_sheet(path))
    names = _names(sheet)
    patients = _patients(sheet, names)
    labels = _labels(sheet)
    if not labels.any():
        raise BadInput(
            f"{path}: none of its {len(labels):,} rows has a finding, all labels are 0; they were lost when this file "
            "was written: write it again from NIH's Data_Entry_2017*.csv"
        )
    if not sheet.headed:
        _expect_order(path, labels)
    return LabelTable(names, patients, labels, views=_views(sheet))


def read_names(path: Path) -> tuple[str, ...]:
    """The image names in a plain list, or in any file that `read_labels` takes, with patients and labels or without.

    Raises:
        BadInput: the file cannot be read, has no column of image names, or a name is missing or there twice.
    """
    return _names(read_sheet(path))


def labels_in(path: Path) -> tuple[tuple[str, ...], NDArray[np.uint8]] | None:
    """Names and labels `[image, class]` of a file, whoever the patients are; None if it is a list of names alone.

    Raises:
        BadInput: as `read_labels`.
    """
    sheet = read_sheet(path)
    labelled = WORDS in sheet.columns or any(name in sheet.columns for name in FINDINGS)
    if not labelled and (sheet.headed or len(sheet.rows[0]) == 1):
        return None
    sheet = _labelled(sheet)
    return _names(sheet), _labels(sheet)


def write_labels(path: Path, table: LabelTable) -> None:
    """Writes the multi-hot form, `image_id,patient,view,<findings>` (no `view` if the table has none); `read_labels`
    reads the same table back."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["image_id", "patient", *(["view"] if table.views else []), *table.classes])
    columns = [table.names, table.patients, *([table.views] if table.views else [])]
    for *about, row in zip(*columns, table.labels.tolist(), strict=True):
        writer.writerow([*about, *row])
    storage.write_atomic(path, out.getvalue().encode())


def _labelled(sheet: Sheet) -> Sheet:
    """The same sheet, if it is one with labels; a list without header gets the columns that it has to have."""
    if sheet.headed:
        return sheet
    where, values = f"{sheet.path}, line {sheet.top}", len(sheet.header) - 1
    if not values:
        raise BadInput(f"{sheet.path} is a list of names without labels; give the table that has their labels")
    if not all(is_number(cell) for cell in sheet.rows[0][1:]):
        raise BadInput(f"{where}: a row, not a header; add the header line 'Image Index,Finding Labels,...' above it")
    if values != len(CHEST_FINDINGS):
        raise BadInput(
            f"{where}: {values} values behind the name; a list without header has 14, from {CHEST_FINDINGS[0]} to "
            f"{CHEST_FINDINGS[-1]} in NIH's order; add a header line that names the columns"
        )
    return replace(sheet, header=("image", *CHEST_FINDINGS))


def _names(sheet: Sheet) -> tuple[str, ...]:
    """Image names without folders; none is empty, none is there twice, with a suffix or without."""
    column = sheet.column(IMAGE)
    if column is None:
        raise BadInput(
            f"{sheet.path}, line {sheet.top}: no column of image names; expected 'Image Index' or 'image_id', "
            f"{sheet.found}"
        )
    names = [cell.replace("\\", "/").rpartition("/")[2] for cell in sheet.cells(column)]
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if is_blank(name):
            raise BadInput(f"{sheet.at(row, column)}: the image's name is empty")
        if (other := first.setdefault(image_id(name), row)) != row:
            where = f"{sheet.path}, line {sheet.lines[row]}"
            raise BadInput(f"{where}: image {show(name)} is already in line {sheet.lines[other]}; remove one of them")
    return tuple(names)


def _patients(sheet: Sheet, names: Sequence[str]) -> tuple[str, ...]:
    by_name = [_patient(nih[1]) if (nih := _NIH_NAME.fullmatch(image_id(name))) else "" for name in names]
    column = sheet.column(PATIENT)
    if column is None:
        if "" in by_name:
            row = by_name.index("")
            raise BadInput(
                f"{sheet.path}, line {sheet.lines[row]}: no patient column, and {show(names[row])} does not tell the "
                "patient as NIH's names do (00000013_005.png); add a column 'patient'"
            )
        return tuple(by_name)
    cells = sheet.cells(column)
    known = {cell: _patient(cell) for cell in set(cells)}
    patients = [known[cell] for cell in cells]
    for row, (patient, named) in enumerate(zip(patients, by_name, strict=True)):
        if not patient:
            raise BadInput(f"{sheet.at(row, column)}: the patient of {show(names[row])} is empty")
        if named and named != patient and patient.isdigit():
            raise BadInput(f"{sheet.at(row, column)}: patient {patient}, but {show(names[row])} is of patient {named}")
    return tuple(patients)


def _patient(cell: str) -> str:
    """A patient's id, empty if there is none; of a number neither leading zeros nor the decimals that pandas adds."""
    number = _NUMBER.fullmatch(cell)
    return number[1] if number else "" if is_blank(cell) else cell


def _views(sheet: Sheet) -> tuple[str, ...]:
    column = sheet.column(VIEW)
    return () if column is None else tuple("" if is_blank(cell) else cell.upper() for cell in sheet.cells(column))


def _labels(sheet: Sheet) -> NDArray[np.uint8]:
    """Multi-hot, `[image, class]`; where a table says a thing twice, both have to agree."""
    named = {number: sheet.columns[key] for key, number in FINDINGS.items() if key in sheet.columns}
    words = sheet.column([WORDS])
    if words is None:
        _expect_findings(sheet, named)
        labels = _multi_hot(sheet, [named[number] for number in range(len(CHEST_FINDINGS))])
    else:
        labels = _worded(sheet, words)
        for number, column in named.items():
            _expect_agreement(sheet, column, labels[:, number], f"column {show(sheet.header[words])}")
    normal = sheet.column([NORMAL])
    if normal is not None:
        _expect_agreement(sheet, normal, 1 - labels.max(axis=1), "the findings of this image")
    return labels


def _expect_findings(sheet: Sheet, named: dict[int, int]) -> None:
    missing = [finding for number, finding in enumerate(CHEST_FINDINGS) if number not in named]
    if not missing:
        return _expect_no_more_findings(sheet)
    where = f"{sheet.path}, line {sheet.top}"
    if not named:
        raise BadInput(f"{where}: no column 'Finding Labels', and none named after the 14 findings; {sheet.found}")
    for column in sheet.header:
        hint = did_you_mean(plain(column).capitalize(), missing) if plain(column) not in FINDINGS else ""
        if hint:
            raise BadInput(f"{where}: column {show(column)} is not one of the 14 findings{hint}")
    raise BadInput(f"{where}: no column for {', '.join(missing)}; expected all 14 findings")


def _expect_no_more_findings(sheet: Sheet) -> None:
    """A further column of zeros and ones is a label that nobody would learn, or another attribute: say which."""
    known = {*FINDINGS, NORMAL, *IMAGE, *PATIENT, *VIEW, *ATTRIBUTES}
    for column, name in enumerate(sheet.header):
        if plain(name) in known or plain(name).startswith("unnamed") or not plain(name):
            continue
        if {_zero_or_one(cell) for cell in sheet.cells(column)} == {0, 1}:
            raise BadInput(
                f"{sheet.path}, line {sheet.top}: column {show(name)} has zeros and ones and is not one of the 14 "
                "findings; its images would count as without it: remove the column"
            )


def _worded(sheet: Sheet, column: int) -> NDArray[np.uint8]:
    cells = sheet.cells(column)
    number: dict[str, int] = {}
    rows: list[list[int]] = []
    for row, cell in enumerate(cells):
        if cell not in number:
            number[cell] = len(rows)
            rows.append(_findings(cell, sheet.at(row, column)))
    return np.array(rows, np.uint8)[[number[cell] for cell in cells]]


def _findings(cell: str, where: str) -> list[int]:
    """'Mass|Nodule' as a multi-hot row."""
    if is_blank(cell):
        raise BadInput(f"{where}: the cell is empty; write 'No Finding' where there is none")
    row, words = [0] * len(CHEST_FINDINGS), cell.split("|")
    for word in words:
        if plain(word) == NORMAL and len(words) > 1:
            raise BadInput(f"{where}: {show(cell)} has '{NO_FINDING}' and something else; it is one or the other")
        if plain(word) in FINDINGS:
            row[FINDINGS[plain(word)]] = 1
        elif plain(word) != NORMAL:
            hint = did_you_mean(word, [*CHEST_FINDINGS, NO_FINDING])
            raise BadInput(f"{where}: {show(word)} is not one of the 14 findings{hint}")
    return row


def _multi_hot(sheet: Sheet, columns: Sequence[int]) -> NDArray[np.uint8]:
    cells = [row[column] for row in sheet.rows for column in columns]
    values = {cell: _zero_or_one(cell) for cell in set(cells)}
    found = np.fromiter((values[cell] for cell in cells), np.int8, len(cells))
    wrong = np.flatnonzero(found < 0)
    if len(wrong):
        row, place = divmod(int(wrong[0]), len(columns))
        raise BadInput(f"{sheet.at(row, columns[place])}: {_why_not(cells[wrong[0]].strip())}; expected 0 or 1")
    return found.astype(np.uint8).reshape(-1, len(columns))


def _zero_or_one(cell: str) -> int:
    """0, 1, or -1 for anything else; also as pandas and numpy write them (1.0, True, 1.000e+00)."""
    text = {"true": "1", "false": "0"}.get(cell.strip().casefold(), cell)
    try:
        return {0.0: 0, 1.0: 1}.get(float(text), -1)
    except ValueError:
        return -1


def _why_not(cell: str) -> str:
    if is_blank(cell):
        return "the cell is empty" if not cell else f"{show(cell)} is an empty cell"
    if is_number(cell) and 0 < float(cell) < 1:
        return f"{show(cell)} looks like a probability, not a label"
    if is_number(cell) and float(cell) == -1:
        return f"{show(cell)} (uncertain, in some tables) is no label"
    return f"{show(cell)} is no label"


def _expect_agreement(sheet: Sheet, column: int, expected: NDArray[Any], other: str) -> None:
    said = _multi_hot(sheet, [column])[:, 0]
    wrong = np.flatnonzero(said != expected)
    if len(wrong):
        raise BadInput(f"{sheet.at(int(wrong[0]), column)}: {said[wrong[0]]} contradicts {other}; correct one of them")


def _expect_order(path: Path, labels: NDArray[np.uint8]) -> None:
    """Refuses a long list without header whose columns cannot be in CHEST_FINDINGS' order.

    Compared is the rank correlation (Spearman) of the columns' counts with NIH's, without the one column that disturbs
    it most, for that is what choosing images by a finding does to a list. In NIH's table the right order gives 0.97 for
    the official test list, and at least 0.53 for any thousand successive rows and for any finding's images; the
    alphabetical order 0.14 for all images, and 0.46 for those of the AP view.
    """
    if len(labels) < ENOUGH_ROWS:
        return
    counts, nih = labels.sum(axis=0), np.array(NIH_COUNTS)
    others = [np.delete(np.arange(len(nih)), column) for column in range(len(nih))]
    agreement = max(_rank_correlation(counts[columns], nih[columns]) for columns in others)
    if agreement < LEAST_AGREEMENT:
        raise BadInput(
            f"{path}: the columns do not seem to be in NIH's order, {', '.join(CHEST_FINDINGS)}: they are 1 too unlike "
            f"NIH's in number (rank correlation {agreement:.2f}); add a header line that names the columns"
        )


def _rank_correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's, with mean ranks for ties; 1 if either is constant, for that contradicts nothing."""
    ranks = np.array([np.searchsorted(np.sort(x), x, "left") + np.searchsorted(np.sort(x), x, "right") for x in (a, b)])
    return float(np.corrcoef(ranks)[0, 1]) if np.ptp(ranks, axis=1).all() else 1.0
