"""Attributes of image and patient in a label table: projection, sex, age, number of follow-up."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from xlite_search.data.sources.sheet import AGE, FOLLOW_UP, PROJECTION, SEX, Sheet, is_blank

#: Years beyond this are a slip of the pen: NIH's first table has a patient of 414.
OLDEST = 120
#: '57', '057Y', '18M' (months), '9D' (days): plain years, and DICOM's age string (PS3.5, AS).
_AGE = re.compile(r"0*(\d+(?:\.\d*)?)([YMWD]?)", re.IGNORECASE)
#: '7', '007', and '7.0' as pandas writes it.
_WHOLE = re.compile(r"0*([0-9]+)(?:\.0*)?")
_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}
_SEX = {"m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "woman": "F", "w": "F"}


def read_projections(sheet: Sheet) -> tuple[str, ...]:
    """Projection of each image as the table has it, in capitals; '' where it says nothing; empty without a column."""
    return _each(sheet, PROJECTION, lambda cell: "" if is_blank(cell) else cell.upper())


def read_sexes(sheet: Sheet) -> tuple[str, ...]:
    """'M', 'F', or '' where it is not known or neither; empty without a column."""
    return _each(sheet, SEX, lambda cell: _SEX.get(cell.casefold(), ""))


def read_ages(sheet: Sheet) -> tuple[str, ...]:
    """Age in years, as text without needless digits ('57', '1.5'); '' where it is not known; empty without a column."""
    return _each(sheet, AGE, _years)


def read_follow_ups(sheet: Sheet) -> tuple[str, ...]:
    """Number of the examination, '0' for the first; '' where it is no whole number; empty without a column."""
    return _each(sheet, FOLLOW_UP, lambda cell: _WHOLE.sub(r"\1", cell) if _WHOLE.fullmatch(cell) else "")


def _years(cell: str) -> str:
    found = _AGE.fullmatch(cell)
    years = float(found[1]) / _PER_YEAR[found[2].upper()] if found else OLDEST + 1.0
    return f"{years:.4g}" if years <= OLDEST else ""


def _each(sheet: Sheet, names: Sequence[str], read: Callable[[str], str]) -> tuple[str, ...]:
    """What a column's cells mean, each different one read once."""
    column = sheet.column(names)
    cells = [] if column is None else sheet.cells(column)
    meant = {cell: read(cell) for cell in set(cells)}
    return tuple(meant[cell] for cell in cells)
