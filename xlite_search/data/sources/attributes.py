"""What a sheet says of an image and its patient beside the findings: projection, sex, age."""

from __future__ import annotations

import re

from xlite_search.data.sources.sheet import AGE, SEX, VIEW, Sheet, is_blank

#: Years beyond this are a slip of the pen: NIH's first table has a patient of 414.
OLDEST = 120
#: '57', '057Y', '18M' (months), '9D' (days): plain years, and DICOM's age string (PS3.5, AS).
_AGE = re.compile(r"0*(\d+(?:\.\d*)?)([YMWD]?)", re.IGNORECASE)
_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}
_SEX = {"m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "woman": "F", "w": "F"}


def read_views(sheet: Sheet) -> tuple[str, ...]:
    """Projection of each image as the table has it, in capitals; '' where it says nothing; empty without a column."""
    return tuple("" if is_blank(cell) else cell.upper() for cell in _cells(sheet, VIEW))


def read_sexes(sheet: Sheet) -> tuple[str, ...]:
    """'M', 'F', or '' where it is not known or neither; empty without a column."""
    return tuple(_SEX.get(cell.casefold(), "") for cell in _cells(sheet, SEX))


def read_ages(sheet: Sheet) -> tuple[str, ...]:
    """Age in years, as text without needless digits ('57', '1.5'); '' where it is not known; empty without a column."""
    cells = _cells(sheet, AGE)
    known = {cell: _years(cell) for cell in set(cells)}
    return tuple(known[cell] for cell in cells)


def _years(cell: str) -> str:
    found = _AGE.fullmatch(cell)
    years = float(found[1]) / _PER_YEAR[found[2].upper()] if found else OLDEST + 1.0
    return f"{years:.4g}" if years <= OLDEST else ""


def _cells(sheet: Sheet, names: tuple[str, ...]) -> list[str]:
    column = sheet.column(names)
    return [] if column is None else sheet.cells(column)
