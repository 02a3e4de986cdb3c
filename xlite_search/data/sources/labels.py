"""Label tables and name lists in the forms that are in circulation; each mistake with its file, line and column.

    NIH's      Image Index,Finding Labels,...,Patient ID,...   'Mass|Nodule' or 'No Finding'; 2017 and v2020
    multi-hot  image_id,patient,view,<14 findings>             0 or 1; columns in any order, by name
    list       00009232_004.png 0 0 1 ...                      no header; findings in CHEST_FINDINGS' order
    names      00009232_004.png                                for `read_names` only

Other classes than NIH's 14 are read where they are named (`classes`). What is guessed or left out is in the table's
`notes`. UTF-8, gzipped or not, with commas, semicolons, tabs or, in lists, spaces: the content counts, not the suffix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlite_search import storage
from xlite_search.data.sources import LabelTable
from xlite_search.data.sources.attributes import read_ages, read_follow_ups, read_projections, read_sexes
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.findings import expect_classes, read_findings
from xlite_search.data.sources.names import names_of, read_paths
from xlite_search.data.sources.patients import read_patients
from xlite_search.data.sources.sheet import WORDS, Sheet, is_number, plain, read_sheet
from xlite_search.errors import BadInput

#: Images with each finding among NIH's 112,120 (Data_Entry_2017_v2020.csv), in CHEST_FINDINGS' order.
NIH_COUNTS = (11559, 2776, 13317, 19894, 5782, 6331, 1431, 5302, 4667, 2303, 2516, 1686, 3385, 227)
#: A list this long shows by its counts whether its columns are in order; below this agreement they are not
#: (`_expect_order`).
ENOUGH_ROWS, LEAST_AGREEMENT = 1000, 0.5


def read_labels(path: Path, classes: Sequence[str] = (), patient_column: str = "") -> LabelTable:
    """The label table in a file, in the file's order.

    Patients come from the table's column, else from names like NIH's (`00000013_005.png` is patient 13); `00000013`,
    `13` and `13.0` are the same patient. `views` is empty if the file has no such column.

    Args:
        path: the file.
        classes: what is learnt, in this order; if empty NIH's 14 findings, and the table may have no other label.
        patient_column: the column of what a split must not cut; if empty a usual one, or what the names say.

    Raises:
        BadInput: the file cannot be read, is no table, or says something that cannot be true.
    """
    expect_classes(classes)
    asked = tuple(classes) or CHEST_FINDINGS
    sheet = _labelled(read_sheet(path), asked)
    paths = read_paths(sheet)
    names = names_of(sheet, paths)
    patients, guessed = read_patients(sheet, names, paths, patient_column)
    labels, left_out = read_findings(sheet, classes, patient_column)
    if not labels.any():
        raise BadInput(
            f"{path}: none of its {len(labels):,} rows has a finding, all labels are 0; they were lost when this file "
            "was written: write it again from NIH's Data_Entry_2017*.csv"
        )
    if not sheet.headed:
        if not classes:
            _expect_order(path, labels)
        guessed = [_read_aloud(sheet, names, labels, asked), *guessed]
    return LabelTable(
        names,
        patients,
        labels,
        asked,
        projections=read_projections(sheet),
        sexes=read_sexes(sheet),
        ages=read_ages(sheet),
        follow_ups=read_follow_ups(sheet),
        notes=(*guessed, *left_out),
    )


def read_names(path: Path) -> tuple[str, ...]:
    """The image names in a plain list, or in any file that `read_labels` takes, with patients and labels or without.

    Raises:
        BadInput: the file cannot be read, has no column of image names, or a name is missing or there twice.
    """
    sheet = read_sheet(path)
    return names_of(sheet, read_paths(sheet))


def labels_in(path: Path, classes: Sequence[str] = CHEST_FINDINGS) -> tuple[tuple[str, ...], NDArray[np.uint8]] | None:
    """Names and labels `[image, class]` of a file, whoever the patients are; None if it is a list of names alone.

    Raises:
        BadInput: as `read_labels`.
    """
    sheet = read_sheet(path)
    labelled = WORDS in sheet.columns or any(plain(name) in sheet.columns for name in classes)
    if not labelled and (sheet.headed or len(sheet.rows[0]) == 1):
        return None
    sheet = _labelled(sheet, classes)
    chosen = () if tuple(classes) == CHEST_FINDINGS else classes
    return names_of(sheet, read_paths(sheet)), read_findings(sheet, chosen)[0]


def write_labels(path: Path, table: LabelTable) -> None:
    """Writes the multi-hot form, `image_id,patient,view,sex,age,<findings>` (of view, sex and age those that the table
    has); `read_labels` reads the same table back."""
    there = {"view": table.projections, "sex": table.sexes, "age": table.ages}
    there = {name: column for name, column in there.items() if column}
    columns = [table.names, table.groups, *there.values()]
    rows = ([*about, *row] for *about, row in zip(*columns, table.labels.tolist(), strict=True))
    header = ["image_id", "patient", *there, *table.classes]
    storage.write_atomic(path, storage.csv_text(header, rows).encode())


def _labelled(sheet: Sheet, classes: Sequence[str]) -> Sheet:
    """The same sheet, if it is one with labels; a list without header gets the columns that it has to have."""
    if sheet.headed:
        return sheet
    where, values = f"{sheet.path}, line {sheet.top}", len(sheet.header) - 1
    if not values:
        raise BadInput(f"{sheet.path} is a list of names without labels; give the table that has their labels")
    if not all(is_number(cell) for cell in sheet.rows[0][1:]):
        raise BadInput(f"{where}: a row, not a header; add the header line 'Image Index,Finding Labels,...' above it")
    if values != len(classes):
        order = " in NIH's order" if tuple(classes) == CHEST_FINDINGS else ""
        raise BadInput(
            f"{where}: {values} values behind the name; a list without header has {len(classes)}, from {classes[0]} to "
            f"{classes[-1]}{order}; add a header line that names the columns"
        )
    return replace(sheet, header=("image", *classes))


def _read_aloud(sheet: Sheet, names: Sequence[str], labels: NDArray[np.uint8], classes: Sequence[str]) -> str:
    """What a list without header is taken to say: its first row, and the first one with a finding."""
    rows = sorted({0, int(labels.any(axis=1).argmax())})
    said = [
        f"{names[row]} (line {sheet.lines[row]}) has "
        f"{' and '.join(classes[number] for number in np.flatnonzero(labels[row]).tolist()) or 'none of them'}"
        for row in rows
    ]
    return (
        f"{sheet.path} has no header; its columns are taken for {', '.join(classes)}: {', '.join(said)}; if that is "
        "not so, add a header line that names the columns"
    )


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
