"""Findings in a label table: a column of words, or a column of zeros and ones for each class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlite_search.data.sources.chest import CHEST_FINDINGS, NO_FINDING
from xlite_search.data.sources.sheet import (
    ATTRIBUTES,
    FINDINGS,
    IMAGE,
    NORMAL,
    PATIENT,
    PROJECTION,
    WORDS,
    Sheet,
    is_blank,
    is_number,
    plain,
    show,
)
from xlite_search.errors import BadInput, did_you_mean

NAMED_AT_ONCE = 6
#: What a class may be called: its name becomes part of a metric's name.
_CLASS = re.compile(r"\w[\w .-]*")


def expect_classes(classes: Sequence[str]) -> None:
    """Raises BadInput if a class cannot be called so, or two are the same."""
    known: dict[str, str] = {}
    for name in classes:
        if not _CLASS.fullmatch(name) or not plain(name):
            raise BadInput(f"class {show(name)}: expected a name of letters, digits, spaces, '_', '.' and '-'")
        if plain(name) == NORMAL:
            raise BadInput(f"class {show(name)}: an image is that if it is of no class; leave it out")
        if (other := known.setdefault(plain(name), name)) is not name:
            raise BadInput(f"classes {show(other)} and {show(name)} are the same; name each once")


def read_findings(
    sheet: Sheet, classes: Sequence[str] = (), patient_column: str = ""
) -> tuple[NDArray[np.uint8], list[str]]:
    """Multi-hot, `[image, class]`, and what was left out; where a table says a thing twice, both have to agree.

    Without `classes` they are the 14 of NIH and the table may have no other; with them, others are left out and told.

    Raises:
        BadInput: a class is missing, a cell is no label, or the table contradicts itself.
    """
    asked = tuple(classes) or CHEST_FINDINGS
    named = {number: sheet.columns[plain(name)] for number, name in enumerate(asked) if plain(name) in sheet.columns}
    words = _column_of_words(sheet, asked, chosen=bool(classes), named=named)
    notes = []
    if words is not None:
        labels, others = _worded(sheet, words, asked, strict=not classes)
        notes = _notes_on_words(sheet, words, labels, asked, others) if classes else []
        for number, column in named.items():
            _expect_agreement(sheet, column, labels[:, number], f"column {show(sheet.header[words])}")
    else:
        _expect_columns(sheet, named, asked, chosen=bool(classes))
        labels = _multi_hot(sheet, [named[number] for number in range(len(asked))])
    unread = _unread(sheet, (*asked, patient_column), words)
    if not classes:
        _expect_no_labels(sheet, unread)
    _expect_normal(sheet, labels, whole=not classes)
    return labels, [*notes, *_notes_on_columns(sheet, unread)]


def _column_of_words(sheet: Sheet, classes: Sequence[str], *, chosen: bool, named: dict[int, int]) -> int | None:
    """'Finding Labels', or, for classes that somebody chose and that no column is called after, the one with them."""
    column = sheet.column([WORDS])
    if column is not None or not chosen or named:
        return column
    wanted = {plain(name) for name in classes}
    for candidate in range(len(sheet.header)):
        if wanted <= {plain(word) for word in _words_in(sheet, candidate)}:
            return candidate
    return None


def _words_in(sheet: Sheet, column: int) -> set[str]:
    """Every word of a column."""
    return {word.strip() for cell in set(sheet.cells(column)) for word in _words(cell)}


def _words(cell: str) -> list[str]:
    """'Mass|Nodule', or as Python writes a list: ['Mass', 'Nodule'], [] if there is nothing."""
    if cell.startswith("[") and cell.endswith("]"):
        if not cell[1:-1].strip():
            return [NO_FINDING]
        return [word.strip().strip("'\"") for word in cell[1:-1].split(",")]
    return cell.split("|")


def _worded(
    sheet: Sheet, column: int, classes: Sequence[str], *, strict: bool
) -> tuple[NDArray[np.uint8], Counter[str]]:
    """Multi-hot, and how many images have each word that is none of the classes."""
    known = {plain(name): number for number, name in enumerate(classes)}
    cells = sheet.cells(column)
    number: dict[str, int] = {}
    rows: list[list[int]] = []
    others: dict[str, list[str]] = {}
    for row, cell in enumerate(cells):
        if cell not in number:
            number[cell] = len(rows)
            hot, others[cell] = _row(cell, known, sheet.at(row, column), strict=strict)
            rows.append(hot)
    counts = Counter(cells)
    strange: Counter[str] = Counter()
    for cell, found in others.items():
        strange.update(dict.fromkeys(found, counts[cell]))
    return np.array(rows, np.uint8)[[number[cell] for cell in cells]], strange


def _row(cell: str, known: dict[str, int], where: str, *, strict: bool) -> tuple[list[int], list[str]]:
    """'Mass|Nodule' as a multi-hot row, and its words that are no class."""
    if is_blank(cell):
        raise BadInput(f"{where}: the cell is empty; write 'No Finding' where there is none")
    row, strange, words = [0] * len(known), [], _words(cell)
    for word in words:
        if plain(word) == NORMAL and len(words) > 1:
            raise BadInput(f"{where}: {show(cell)} has '{NO_FINDING}' and something else; it is one or the other")
        if plain(word) in known:
            row[known[plain(word)]] = 1
        elif strict and plain(word) != NORMAL:
            raise BadInput(f"{where}: {show(word)} is not one of the 14 findings{_hint(word)}")
        elif plain(word) != NORMAL:
            strange.append(word.strip())
    return row, strange


def _hint(word: str) -> str:
    parts = re.split(r"\s*[;,/+]\s*", word)
    if len(parts) > 1 and all(plain(part) in FINDINGS for part in parts):
        return f"; several are separated by '|': {'|'.join(parts)}"
    return did_you_mean(word, [*CHEST_FINDINGS, NO_FINDING])


def _notes_on_words(
    sheet: Sheet, column: int, labels: NDArray[np.uint8], classes: Sequence[str], others: Counter[str]
) -> list[str]:
    name = show(sheet.header[column])
    never = [classes[number] for number in np.flatnonzero(~labels.any(axis=0)).tolist()]
    if never:
        hint = did_you_mean(never[0], others)
        raise BadInput(f"{sheet.path}, line {sheet.top}: column {name} never says {show(never[0])}{hint}")
    told = [] if plain(sheet.header[column]) == WORDS else [f"{sheet.path}: the labels are those in column {name}"]
    if others:
        words = [f"{show(word)} ({count:,})" for word, count in others.most_common(NAMED_AT_ONCE)]
        more = f" and {len(others) - len(words)} more" if len(others) > len(words) else ""
        told.append(
            f"{sheet.path}: column {name} has words that are no class and are left out: {', '.join(words)}{more}"
        )
    return told


def _expect_columns(sheet: Sheet, named: dict[int, int], classes: Sequence[str], *, chosen: bool) -> None:
    missing = [name for number, name in enumerate(classes) if number not in named]
    if not missing:
        return
    where = f"{sheet.path}, line {sheet.top}"
    if chosen:
        if not named:
            _expect_all_given(sheet, missing)
        hint = did_you_mean(missing[0], sheet.header)
        raise BadInput(f"{where}: no column for {', '.join(missing)}{hint or f'; {sheet.found}'}")
    offer = _offer(sheet)
    if not named:
        raise BadInput(
            f"{where}: no column 'Finding Labels', and none named after the 14 findings; {sheet.found}{offer}"
        )
    for column in sheet.header:
        hint = did_you_mean(plain(column).capitalize(), missing) if plain(column) not in FINDINGS else ""
        if hint:
            raise BadInput(f"{where}: column {show(column)} is not one of the 14 findings{hint}")
    raise BadInput(f"{where}: no column for {', '.join(missing)}; expected all 14 findings{offer}")


def _expect_all_given(sheet: Sheet, classes: Sequence[str]) -> None:
    """A column that says some of the classes is meant: one of the others is misspelt."""
    for column, title in enumerate(sheet.header):
        said = _words_in(sheet, column)
        never = [name for name in classes if plain(name) not in {plain(word) for word in said}]
        if len(never) < len(classes):
            hint = did_you_mean(never[0], said)
            raise BadInput(f"{sheet.path}, line {sheet.top}: column {show(title)} never says {show(never[0])}{hint}")


def _offer(sheet: Sheet) -> str:
    """How to learn other classes than the 14, said where the table has columns that look like labels."""
    found = [sheet.header[column] for column in range(len(sheet.header)) if _like_labels(sheet, column)]
    if not found:
        return ""
    some = ",".join(found[:NAMED_AT_ONCE])
    return f"; to learn other classes name them: --classes '{some}{',...' if len(found) > NAMED_AT_ONCE else ''}'"


def _unread(sheet: Sheet, used: Iterable[str], words: int | None) -> list[int]:
    """Columns with a name that mean nothing here."""
    known = {*map(plain, used), NORMAL, *IMAGE, *PATIENT, *PROJECTION, *ATTRIBUTES}
    return [
        column
        for column, name in enumerate(sheet.header)
        if column != words and plain(name) not in known and not plain(name).startswith("unnamed") and plain(name)
    ]


def _like_labels(sheet: Sheet, column: int) -> bool:
    """Zeros and ones, some of them -1 or empty: what tables of labels hold."""
    name = plain(sheet.header[column])
    if not name or name in {NORMAL, *IMAGE, *PATIENT, *PROJECTION, *ATTRIBUTES} or name.startswith("unnamed"):
        return False
    values = {_label_or_gap(cell) for cell in set(sheet.cells(column))}
    return None not in values and len(values) > 1 and bool(values & {"1", "-1"})


def _label_or_gap(cell: str) -> str | None:
    if is_blank(cell):
        return ""
    if (value := _zero_or_one(cell)) >= 0:
        return str(value)
    return "-1" if is_number(cell) and float(cell) == -1 else None


def _expect_no_labels(sheet: Sheet, columns: Sequence[int]) -> None:
    """A further column of zeros and ones is a label that nobody would learn, or another attribute: say which."""
    for column in columns:
        if _like_labels(sheet, column):
            gaps = {_label_or_gap(cell) for cell in set(sheet.cells(column))} - {"0", "1"}
            raise BadInput(
                f"{sheet.path}, line {sheet.top}: column {show(sheet.header[column])} has zeros and ones"
                f"{' or gaps' if gaps else ''} and is not one of the 14 findings; its images would count as without "
                "it: remove the column, or say what is learnt by --classes"
            )


def _notes_on_columns(sheet: Sheet, columns: Sequence[int]) -> list[str]:
    if not columns:
        return []
    some = ", ".join(show(sheet.header[column]) for column in columns[:NAMED_AT_ONCE])
    more = f" and {len(columns) - NAMED_AT_ONCE} more" if len(columns) > NAMED_AT_ONCE else ""
    return [f"{sheet.path}: {'columns' if len(columns) > 1 else 'column'} {some}{more} left out"]


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
        return {0.0: 0, 1.0: 1}.get(float(text), -1) if "_" not in text else -1
    except ValueError:
        return -1


def _why_not(cell: str) -> str:
    if is_blank(cell):
        return "the cell is empty" if not cell else f"{show(cell)} is an empty cell"
    if is_number(cell) and 0 < float(cell) < 1:
        return f"{show(cell)} looks like a probability, not a label"
    if is_number(cell) and float(cell) == -1:
        return f"{show(cell)} (uncertain, in some tables) is no label"
    if re.fullmatch(r"[01],0*", cell):
        return f"{show(cell)} has a decimal comma"
    return f"{show(cell)} is no label"


def _expect_agreement(sheet: Sheet, column: int, expected: NDArray[Any], other: str) -> None:
    said = _multi_hot(sheet, [column])[:, 0]
    wrong = np.flatnonzero(said != expected)
    if len(wrong):
        raise BadInput(f"{sheet.at(int(wrong[0]), column)}: {said[wrong[0]]} contradicts {other}; correct one of them")


def _expect_normal(sheet: Sheet, labels: NDArray[np.uint8], *, whole: bool) -> None:
    """That a column 'No Finding' is no contradiction; beside a choice of classes (not `whole`) only its ones say so."""
    column = sheet.column([NORMAL])
    if column is None:
        return
    if whole:
        return _expect_agreement(sheet, column, 1 - labels.max(axis=1), "the findings of this image")
    normal = np.array([_zero_or_one(cell) == 1 for cell in sheet.cells(column)])
    wrong = np.flatnonzero(normal & labels.any(axis=1))
    if len(wrong):
        raise BadInput(f"{sheet.at(int(wrong[0]), column)}: 1 contradicts the findings of this image; correct one")
