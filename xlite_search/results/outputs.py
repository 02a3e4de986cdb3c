"""A comparison in a file: Markdown and LaTeX as it is shown, CSV and Parquet with a row for each run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xlite_search.errors import BadInput, did_you_mean
from xlite_search.results.against import Against
from xlite_search.results.columns import Table
from xlite_search.results.compare import Comparison
from xlite_search.results.formats import latex, markdown
from xlite_search.results.tables import tables
from xlite_search.storage import write_atomic

SHOWN = {".md": markdown, ".tex": latex}
FRAMES = (".csv", ".parquet")


def expect_table_file(output: Path) -> None:
    """Before anything is computed. Raises BadInput for another kind of file, or as `expect_writable`."""
    known = (*SHOWN, *FRAMES)
    if output.suffix not in known:
        hint = did_you_mean(output.suffix, known)
        raise BadInput(f"-o {output}: expected a file that ends in {', '.join(known)}{hint}")
    expect_writable(output)


def expect_writable(output: Path) -> None:
    """Raises BadInput if there is no folder to write the file in, or a folder of its name."""
    if output.is_dir():
        raise BadInput(f"-o {output}: this is a folder; name a file")
    if not output.absolute().parent.is_dir():
        raise BadInput(f"-o {output}: there is no folder {output.absolute().parent}")


def write(comparison: Comparison, more: Sequence[Table | str], gaps: Against | None, output: Path) -> None:
    """Writes the file as its name ends: Markdown and LaTeX with `more` behind the study's tables.

    CSV and Parquet have a row for each run, or for each finding where two runs were compared.
    """
    if output.suffix in SHOWN:
        parts = [*tables(comparison, classes=not gaps), *more]
        write_atomic(output, SHOWN[output.suffix](parts).encode())
        return
    from xlite_search.results import frames

    frames.write(frames.of_gaps(gaps) if gaps else frames.of_comparison(comparison), output)
