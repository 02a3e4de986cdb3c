"""Tables as data, and their layout in a given width: secondary columns go first, then text is folded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from xlite_search.console import plain

#: instead of a value that a run does not have
ABSENT = "-"
#: wider than any table: where the output is a file, nothing is left out or folded
ENDLESS = 10_000


def number(value: float | None, sign: str = "") -> str:
    """A figure of a table, `0.8120` or with `sign` "+" `+0.0034`; `-` where a run has none."""
    return ABSENT if value is None or not math.isfinite(value) else f"{value:{sign}.4f}"


def ends(low: float, high: float, sign: str = "") -> str:
    """An interval, `0.8120 to 0.9051`, or `unknown`."""
    return f"{low:{sign}.4f} to {high:{sign}.4f}" if math.isfinite(low) else "unknown"


def p_value(value: float) -> str:
    return ABSENT if not math.isfinite(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


class Column(NamedTuple):
    """A head and its cells, `[row]`.

    text   words, which may be folded; figures may not
    spare  0 stays whatever the width; of the others the highest goes first
    """

    head: str
    cells: Sequence[str]
    text: bool = False
    spare: int = 0


@dataclass(frozen=True)
class Table:
    """A title, columns of equal length, and what a reader has to know, a sentence each."""

    title: str
    columns: Sequence[Column]
    notes: Sequence[str] = ()

    @property
    def rows(self) -> list[tuple[str, ...]]:
        return list(zip(*(column.cells for column in self.columns), strict=True))


def fitted(table: Table, console: Console) -> RenderableType:
    """A table no wider than the console, and notes below it: the last one says what was left out."""
    kept = list(table.columns)
    while (
        console.width < ENDLESS  # to measure thousands of rows takes longer than to compare the runs
        and _natural(_drawn(table.title, kept), console) > console.width
        and (spare := max(kept, key=lambda column: column.spare)).spare
    ):
        kept.remove(spare)
    gone = ", ".join(column.head for column in table.columns if column not in kept)
    told = [f"left out at this width: {gone}"] if gone else []
    return Group(_drawn(table.title, kept), *(Text(note, style="dim") for note in (*table.notes, *told)))


def show(parts: Iterable[Table | str], width: int | None = None) -> None:
    """Prints tables and sentences to stdout, as wide as the terminal is; nothing is left out where it is none."""
    console = plain(width=width)
    if width is None and not console.is_terminal:
        console = plain(width=ENDLESS)
    for part in parts:
        console.print(Text(part) if isinstance(part, str) else fitted(part, console))


def _natural(table: RichTable, console: Console) -> int:
    return Measurement.get(console, console.options.update(width=ENDLESS), table).maximum


def _drawn(title: str, columns: Sequence[Column]) -> RichTable:
    table = RichTable(title=Text(title), title_justify="left")
    for column in columns:
        how = "left" if column.text else "right"
        table.add_column(Text(column.head), justify=how, no_wrap=not column.text, overflow="fold")  # type: ignore[arg-type]
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in row))
    return table
