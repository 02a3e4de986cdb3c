"""Lists of bounding boxes: NIH's `BBox_List_2017.csv`, and any other with a box a line.

    NIH's   Image Index,Finding Label,Bbox [x,y,w,h],,,          'Infiltrate' is Infiltration
    others  image_id,label,x,y,width,height                      columns in any order, by name

Boxes are in pixels of the images that are prepared: those of NIH are in images of 1,024 px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from xlite_search.data.boxes import Box
from xlite_search.data.sources import image_id
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.names import read_paths
from xlite_search.data.sources.sheet import WORDS, Sheet, plain, read_sheet, show
from xlite_search.errors import BadInput, did_you_mean

LABEL = ("findinglabel", WORDS, "label", "finding", "class", "classname")
#: How the columns of a box are called; NIH's header has a comma in `Bbox [x,y,w,h]`, which makes four columns of it.
SIDES = {"x": ("x", "bboxx", "left"), "y": ("y", "top"), "width": ("width", "w"), "height": ("height", "h")}
COLUMNS = "Image Index, Finding Label, Bbox [x,y,w,h], or image_id, label, x, y, width, height"
EXPECTED = f"a box list with the columns {COLUMNS}"
#: A finding under the name that NIH's list has for it.
ALIASES = {"infiltrate": "Infiltration"}


def read_boxes(path: Path, names: Sequence[str], classes: Sequence[str]) -> dict[int, tuple[Box, ...]]:
    """Boxes in raw pixels by the row of their image among `names`; those of other images are left out.

    A label is one of the classes, or of the 14 chest findings.

    Raises:
        BadInput: the file cannot be read or lacks a column, a cell is no number, a label is unknown, or none of the
            images is among the names.
    """
    sheet = read_sheet(path, EXPECTED)
    label, sides = _columns(sheet)
    known = {plain(name): name for name in (*CHEST_FINDINGS, *classes)} | ALIASES
    row_of = {image_id(name): row for row, name in enumerate(names)}
    found: dict[int, list[Box]] = {}
    for line, image in enumerate(read_paths(sheet)):
        box = Box(_label(sheet, line, label, known), *(_number(sheet, line, sides[side], side) for side in SIDES))
        row = row_of.get(image_id(image.rpartition("/")[2]))
        if row is not None:
            found.setdefault(row, []).append(box)
    if not found:
        raise BadInput(
            f"{path}: none of the images that have a box in it is in the label table; give the boxes of these images"
        )
    return {row: tuple(found[row]) for row in sorted(found)}


def _columns(sheet: Sheet) -> tuple[int, dict[str, int]]:
    where = f"{sheet.path}, line {sheet.top}"
    label = sheet.column(LABEL)
    if label is None:
        raise BadInput(f"{where}: no column 'Finding Label' or 'label'; expected {EXPECTED}; {sheet.found}")
    sides = {side: sheet.column(names) for side, names in SIDES.items()}
    missing = [side for side, column in sides.items() if column is None]
    if missing:
        raise BadInput(f"{where}: no column for {', '.join(missing)}; expected 'Bbox [x,y,w,h]' or x, y, width, height")
    return label, {side: column for side, column in sides.items() if column is not None}


def _label(sheet: Sheet, row: int, column: int, known: dict[str, str]) -> str:
    cell = sheet.rows[row][column].strip()
    if plain(cell) not in known:
        raise BadInput(f"{sheet.at(row, column)}: {show(cell)} is no class{did_you_mean(cell, known.values())}")
    return known[plain(cell)]


def _number(sheet: Sheet, row: int, column: int, side: str) -> float:
    cell = sheet.rows[row][column].strip()
    try:
        value = float(cell) if "_" not in cell else math.nan
    except ValueError:
        value = math.nan
    least = "at least 0" if side in ("x", "y") else "above 0"
    if not math.isfinite(value) or value < 0 or (value == 0 and least == "above 0"):
        raise BadInput(f"{sheet.at(row, column)}: {show(cell)}; expected {side} in pixels, {least}")
    return value
