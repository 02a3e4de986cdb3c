"""Tables of a comparison as Markdown and LaTeX, for notes, records and papers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from xlite_search.results.columns import Table

#: what LaTeX takes for a command, and how it is written instead
ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
SPECIAL = re.compile("|".join(map(re.escape, ESCAPED)))


def markdown(parts: Iterable[Table | str]) -> str:
    """Tables of GitHub's form, sentences as paragraphs; words in a table are code: no sign in them is markup."""
    return "\n\n".join(_markdown(part) for part in parts) + "\n"


def latex(parts: Iterable[Table | str]) -> str:
    """Tables of the package booktabs, each with its title as caption and its notes below; sentences as text."""
    return "\n\n".join(_latex(part) for part in parts) + "\n"


def _markdown(part: Table | str) -> str:
    if isinstance(part, str):
        return _plain(part)
    cells = [[_code(cell) if column.text else _plain(cell) for cell in column.cells] for column in part.columns]
    sides = ["---" if column.text else "---:" for column in part.columns]
    rows = [[_plain(column.head) for column in part.columns], sides, *zip(*cells, strict=True)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n\n".join([f"**{_plain(part.title)}**", table, *map(_plain, part.notes)])


def _latex(part: Table | str) -> str:
    if isinstance(part, str):
        return escaped(part)
    sides = "".join("l" if column.text else "r" for column in part.columns)
    lines = [
        r"\begin{table}",
        rf"\caption{{{escaped(part.title)}}}",
        rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule",
        _row([column.head for column in part.columns]),
        r"\midrule",
        *map(_row, part.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {escaped(note)}" for note in part.notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"


def escaped(text: str) -> str:
    """Text for LaTeX: none of its signs is a command."""
    return SPECIAL.sub(lambda sign: ESCAPED[sign.group()], " ".join(text.split()))


def _code(text: str) -> str:
    """As it is, whatever signs it has; a bar would end the cell, a backtick the code."""
    return f"`{_plain(text)}`" if text.strip() else ""


def _plain(text: str) -> str:
    return " ".join(text.replace("`", "'").replace("|", "\\|").split())
