"""Image names in a label table, and what a path says about its patient."""

from __future__ import annotations

import re
from collections.abc import Sequence

from xlite_search.data.sources import SUFFIXES, image_id
from xlite_search.data.sources.sheet import IMAGE, Sheet, is_blank, show
from xlite_search.errors import BadInput

#: NIH's names, patient and follow-up: its patients are numbered to 30,805. A date in front is no patient.
NIH_PATIENTS = 30_805
_NIH_NAME = re.compile(rf"([0-9]{{8}})_[0-9]{{3}}(?:\.(?:{'|'.join(SUFFIXES)}))?", re.IGNORECASE)
_ENDINGS = tuple(f".{suffix}" for suffix in SUFFIXES)
#: CheXpert's `patient00001/study1/view1_frontal.jpg`, MIMIC-CXR's `p10/p10000032/s50414267/<id>.jpg`.
_PATIENT_FOLDER = re.compile(r"(?:^|/)(patient[0-9]{5}|p[0-9]{2}/p[0-9]{8})/")
#: How Excel writes a number that is too long for its cell; the digits that it left out are lost.
SCIENTIFIC = re.compile(r"[0-9](?:[.,][0-9]+)?[eE]\+[0-9]{2,3}")
SPREADSHEET_ERROR = re.compile(r"#(?:N/A|REF!|NAME\?|VALUE!|DIV/0!|NUM!|NULL!|#+)", re.IGNORECASE)


def read_paths(sheet: Sheet) -> list[str]:
    """The cells of the column of image names, folders separated by '/'. Raises BadInput if there is none."""
    column = _name_column(sheet)
    if column is None:
        alone = " among columns separated by commas, semicolons or tabs" if len(sheet.header) == 1 else ""
        raise BadInput(
            f"{sheet.path}, line {sheet.top}: no column of image names; expected 'Image Index' or 'image_id'{alone}, "
            f"{sheet.found}"
        )
    return [cell.replace("\\", "/") if "\\" in cell else cell for cell in sheet.cells(column)]


def _name_column(sheet: Sheet) -> int | None:
    """The one with the clearest name, of those with files' names in them if there is one: some number their images."""
    columns = [sheet.columns[name] for name in IMAGE if name in sheet.columns]
    files = (column for column in columns if sheet.rows[0][column].strip().lower().endswith(_ENDINGS))
    return next(files, columns[0] if columns else None)


def names_of(sheet: Sheet, paths: Sequence[str]) -> tuple[str, ...]:
    """Image names without folders, but where only the folders tell images apart (CheXpert): then below the folders that
    all share. None is empty, none is there twice, with a suffix or without."""
    names = [path.rpartition("/")[2] if "/" in path else path for path in paths]
    _expect_names(sheet, names)
    if (twice := _repeated(names)) and all("/" in path for path in paths) and not nih_patient(names[twice[0]]):
        names = _below_shared(paths)
        twice = _repeated(names)
    if twice:
        row, other = twice
        raise BadInput(
            f"{sheet.path}, line {sheet.lines[row]}: image {show(names[row])} is already in line "
            f"{sheet.lines[other]}; remove one of them"
        )
    return tuple(names)


def nih_patient(name: str) -> str:
    """'13' for '00000013_005.png', empty for what is no name of NIH's: `20200101_001.png` is a date."""
    found = _NIH_NAME.fullmatch(name)
    number = int(found[1]) if found else 0
    return str(number) if 1 <= number <= NIH_PATIENTS else ""


def folder_patient(path: str) -> str:
    """'patient00001' for CheXpert's paths, 'p10000032' for MIMIC-CXR's, empty for others."""
    found = _PATIENT_FOLDER.search(path)
    return found[1].rpartition("/")[2] if found else ""


def mangled(cell: str) -> str:
    """What a spreadsheet has made of an identifier, as a phrase; empty if nothing."""
    if SCIENTIFIC.fullmatch(cell):
        return f"{show(cell)} is a number in scientific notation, as Excel shortens one: its last digits are lost"
    if SPREADSHEET_ERROR.fullmatch(cell):
        return f"{show(cell)} is a spreadsheet's error value"
    return ""


def _expect_names(sheet: Sheet, names: Sequence[str]) -> None:
    column = _name_column(sheet)
    assert column is not None
    for row, name in enumerate(names):
        if name.endswith(_ENDINGS) and name.isprintable():
            continue
        if is_blank(name):
            raise BadInput(f"{sheet.at(row, column)}: the image's name is empty")
        if name[0] in "#0123456789" and (what := mangled(name)):
            raise BadInput(f"{sheet.at(row, column)}: {what}; export the table again with its names as text")
        if "\n" in name:
            raise BadInput(f"{sheet.at(row, column)}: {show(name)} has a line break; expected a file's name")


def _repeated(names: Sequence[str]) -> tuple[int, int] | None:
    """The first row whose image is in an earlier one, and that one."""
    ids = list(map(image_id, names))
    if len(set(ids)) == len(ids):
        return None
    first: dict[str, int] = {}
    return next((row, other) for row, one in enumerate(ids) if (other := first.setdefault(one, row)) != row)


def _below_shared(paths: Sequence[str]) -> list[str]:
    """Paths without the folders in front that are the same in all of them."""
    folders = [path.strip("/").split("/") for path in paths]
    low, high = min(folders), max(folders)
    shared = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)) - 1)
    return ["/".join(parts[shared:]) for parts in folders]
