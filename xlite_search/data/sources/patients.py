"""Patients of a label table: a column, or the image names where a data set is known to say it there."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from xlite_search.data.sources.names import NIH_PATIENTS, folder_patient, mangled, nih_patient
from xlite_search.data.sources.sheet import PATIENT, WORDS, Sheet, is_blank, plain, show
from xlite_search.errors import BadInput, did_you_mean

_NUMBER = re.compile(r"0*([0-9]+)(\.0*)?")
#: What is written where nobody knows; as an id it would make one patient of all of them.
_UNKNOWN = {"unknown", "anonymous", "anon", "anonymized", "anonymised", "?", "-", "--", "-1", "-1.0", "tbd", "missing"}


def read_patients(
    sheet: Sheet, names: Sequence[str], paths: Sequence[str], chosen: str = ""
) -> tuple[tuple[str, ...], list[str]]:
    """The patient of each image, and what was guessed. `chosen` is the name of the column; '' for the usual ones.

    Raises:
        BadInput: there is no such column, an image has no patient, or two columns or the names contradict each other.
    """
    column = _column(sheet, chosen)
    by_name = [nih_patient(name) for name in names]
    if column is None:
        return _by_names(sheet, names, paths, by_name)
    patients = _in_column(sheet, column, names)
    if not chosen:
        _expect_one_meaning(sheet, column, patients)
    return tuple(patients), _against_names(sheet, column, names, patients, by_name)


def _column(sheet: Sheet, chosen: str) -> int | None:
    if not chosen:
        return sheet.column(PATIENT)
    if plain(chosen) not in sheet.columns:
        hint = did_you_mean(chosen, sheet.header) or f"; {sheet.found}"
        raise BadInput(f"{sheet.path}, line {sheet.top}: no column {show(chosen)}{hint}")
    return sheet.columns[plain(chosen)]


def _in_column(sheet: Sheet, column: int, names: Sequence[str]) -> list[str]:
    cells = sheet.cells(column)
    known = {cell: _patient(cell) for cell in set(cells)}
    wrong = {cell: mangled(cell) for cell in known if mangled(cell)}
    unknown = {cell for cell, patient in known.items() if not patient or patient.casefold() in _UNKNOWN}
    if wrong or unknown:
        row = next(row for row, cell in enumerate(cells) if cell in wrong or cell in unknown)
        where, cell = sheet.at(row, column), cells[row]
        if cell in wrong:
            raise BadInput(f"{where}: {wrong[cell]}; export the table again with its ids as text")
        what = "empty" if is_blank(cell) else f"{show(cell)}, which is no patient"
        raise BadInput(f"{where}: the patient of {show(names[row])} is {what}")
    return [known[cell] for cell in cells]


def _patient(cell: str) -> str:
    """A patient's id, empty if there is none; of a number neither leading zeros nor the decimals that pandas adds.
    Accents and widths are composed (NFKC): two tables that were joined may write them differently."""
    cell = unicodedata.normalize("NFKC", cell)
    number = _NUMBER.fullmatch(cell)
    return number[1] if number else "" if is_blank(cell) else cell


def _expect_one_meaning(sheet: Sheet, column: int, patients: Sequence[str]) -> None:
    """That two columns that may both mean the patient put the same images together."""
    for other in (sheet.columns[name] for name in PATIENT if name in sheet.columns):
        if other == column:
            continue
        pairs = set(zip(patients, sheet.cells(other), strict=True))
        if not len(pairs) == len(set(patients)) == len({cell for _, cell in pairs}):
            raise BadInput(
                f"{sheet.path}, line {sheet.top}: columns {show(sheet.header[column])} and {show(sheet.header[other])} "
                "put different images together; say which one is the patient by --patient-column"
            )


def _by_names(
    sheet: Sheet, names: Sequence[str], paths: Sequence[str], by_name: list[str]
) -> tuple[tuple[str, ...], list[str]]:
    whose, found = "NIH's", by_name
    if not by_name[0]:
        whose, found = "CheXpert's or MIMIC-CXR's", [folder_patient(path) for path in paths]
    if "" not in found:
        told = f"{show(paths[0] if found is not by_name else names[0])} is of patient {found[0]}"
        return tuple(found), [f"{sheet.path}: no patient column; the images' names are taken for {whose}: {told}"]
    row = found.index("") if found[0] else 0
    raise BadInput(
        f"{sheet.path}, line {sheet.lines[row]}: no patient column, and {show(names[row])} does not tell the patient "
        f"as NIH's names do (00000013_005.png, up to {NIH_PATIENTS:08d}); add a column 'patient', or name the one that "
        "tells whose an image is by --patient-column"
    )


def _against_names(
    sheet: Sheet, column: int, names: Sequence[str], patients: Sequence[str], by_name: Sequence[str]
) -> list[str]:
    """What is told where names like NIH's and the column differ. They are NIH's beside its own columns, or if most
    agree with the column: then one of the two is wrong."""
    rows = [row for row, named in enumerate(by_name) if named]
    contradicted = [row for row in rows if by_name[row] != patients[row]]
    if not contradicted:
        return []
    row = contradicted[0]
    if 2 * len(contradicted) <= len(rows) or WORDS in sheet.columns:
        raise BadInput(
            f"{sheet.at(row, column)}: patient {patients[row]}, but {show(names[row])} is of patient {by_name[row]}"
        )
    return [
        f"{sheet.path}: the names look like NIH's, but column {show(sheet.header[column])} gives other patients and "
        f"counts: {show(names[row])} is of patient {patients[row]}"
    ]
