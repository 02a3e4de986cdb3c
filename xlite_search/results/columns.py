"""Layout of tables in a given width: secondary columns go first, then text is folded; nothing is ever cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

#: wider than any table: where the output is a file, nothing is left out or folded
ENDLESS = 10_000


class Column(NamedTuple):
    """A head and its cells, `[row]`.

    text   words, which may be folded; figures may not
    spare  0 stays whatever the width; of the others the highest goes first
    """

    head: str
    cells: Sequence[str]
    text: bool = False
    spare: int = 0


def fitted(title: str, columns: Sequence[Column], notes: Sequence[str], console: Console) -> RenderableType:
    """A table no wider than the console, and notes below it: the last one says what was left out."""
    kept = list(columns)
    while _natural(_table(title, kept), console) > console.width and (spare := max(kept, key=lambda c: c.spare)).spare:
        kept.remove(spare)
    gone = ", ".join(column.head for column in columns if column not in kept)
    told = [f"left out at this width: {gone}"] if gone else []
    return Group(_table(title, kept), *(Text(note, style="dim") for note in (*notes, *told)))


def _natural(table: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(width=ENDLESS), table).maximum


def _table(title: str, columns: Sequence[Column]) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        how = "left" if column.text else "right"
        table.add_column(Text(column.head), justify=how, no_wrap=not column.text, overflow="fold")  # type: ignore[arg-type]
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in row))
    return table
