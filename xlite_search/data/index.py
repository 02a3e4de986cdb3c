"""Index of a packed set, a row for each image: CSV for people, and the same in columns that load in milliseconds.

The columns are a safetensors file: every text column as UTF-8 JSON (`benchmarks/scale.py` has it beside `csv`),
the labels as bytes `[image, class]`, raw sizes, boxes, and what each image's views are drawn by. A column that says
nothing is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from xlite_search.data.boxes import Box
from xlite_search.data.sources import LabelTable, image_key
from xlite_search.data.sources.chest import NO_FINDING
from xlite_search.storage import csv_text

#: The columns of text: what both files call them, and what the label table does. Another one is another line here.
TEXT = {
    "name": "names",
    "patient": "groups",
    "view": "projections",
    "sex": "sexes",
    "age": "ages",
    "follow_up": "follow_ups",
    "digest": "digests",
}
LABELS, KEYS, SIZES = "labels", "keys", "sizes"
#: Boxes: the row of each, its label's place in a list of words, and x, y, width, height.
BOX_ROWS, BOX_LABELS, BOX_WORDS, BOXES = "box_rows", "box_labels", "box_words", "boxes"
#: What makes a data set another one: the columns that a fingerprint is of, whatever else is known of its images.
IDENTITY = ("name", "patient", "view", "sex", "age", "findings", "digest")

Columns = Mapping[str, NDArray[Any]]


def index_text(table: LabelTable, only: Sequence[str] = ()) -> str:
    """The index as CSV, or some of its columns: findings as words ("Mass|Nodule"), boxes as "Mass x y width height|..."
    in raw pixels, each with as many digits as it has."""
    nothing = ("",) * len(table)
    columns: dict[str, Sequence[Any]] = {name: getattr(table, field) or nothing for name, field in TEXT.items()}
    last, digests = columns.popitem()
    heights, widths = table.sizes.T.tolist() if len(table.sizes) else (nothing, nothing)
    columns |= {"height": heights, "width": widths}
    columns["findings"] = ["|".join(table.classes[c] for c in np.flatnonzero(row)) for row in table.labels]
    columns |= {"boxes": [_boxes_as_text(table.boxes.get(row, ())) for row in range(len(table))], last: digests}
    chosen = {name: column for name, column in columns.items() if not only or name in only}
    return csv_text(chosen, zip(*chosen.values(), strict=True))


def _boxes_as_text(boxes: Sequence[Box]) -> str:
    return "|".join(" ".join([box.label, *(f"{side:.15g}" for side in box[1:])]) for box in boxes)


def index_columns(table: LabelTable) -> bytes:
    """The index as columns: the same bytes for the same table."""
    columns: dict[str, NDArray[Any]] = {
        LABELS: np.ascontiguousarray(table.labels, np.uint8),
        KEYS: image_keys(table),
    }
    for name, field in TEXT.items():
        if any(values := getattr(table, field)):
            columns[name] = _packed(values)
    if len(table.sizes):
        columns[SIZES] = np.ascontiguousarray(table.sizes, np.int32)
    if table.boxes:
        columns |= _boxes_as_columns(table.boxes)
    return bytes(save(columns))


def _boxes_as_columns(boxes: Mapping[int, Sequence[Box]]) -> dict[str, NDArray[Any]]:
    every = [(row, box) for row, found in sorted(boxes.items()) for box in found]
    words = sorted({box.label for _, box in every})
    return {
        BOX_ROWS: np.array([row for row, _ in every], np.int64),
        BOX_LABELS: np.array([words.index(box.label) for _, box in every], np.int64),
        BOX_WORDS: _packed(words),
        BOXES: np.array([box[1:] for _, box in every], np.float64),
    }


def image_keys(table: LabelTable) -> NDArray[np.uint64]:
    """What each image's views are drawn by, `[image]`."""
    return np.array([image_key(name) for name in table.names], np.uint64)


def read_columns(raw: bytes) -> Columns:
    """The columns by name, read-only; those of text as they are stored."""
    columns: Columns = load(raw)
    for column in columns.values():
        column.flags.writeable = False
    return columns


def table_of(columns: Columns, classes: tuple[str, ...], normal: str = NO_FINDING) -> LabelTable:
    """The label table that was written as these columns, but for its notes."""
    text = {field: _unpacked(columns[name]) for name, field in TEXT.items() if name in columns}
    return LabelTable(
        **{"names": (), "groups": (), **text},
        labels=columns[LABELS],
        classes=classes,
        sizes=columns.get(SIZES, np.empty((0, 2), np.int32)),
        boxes=_boxes_of(columns) if BOXES in columns else {},
        normal=normal,
    )


def _boxes_of(columns: Columns) -> dict[int, tuple[Box, ...]]:
    words, found = _unpacked(columns[BOX_WORDS]), dict[int, tuple[Box, ...]]()
    each = (columns[name].tolist() for name in (BOX_ROWS, BOX_LABELS, BOXES))
    for row, label, sides in zip(*each, strict=True):
        found[row] = (*found.get(row, ()), Box(words[label], *sides))
    return found


def _packed(values: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(values, separators=(",", ":")).encode(), np.uint8)


def _unpacked(column: NDArray[Any]) -> tuple[str, ...]:
    return tuple(json.loads(column.tobytes()))
