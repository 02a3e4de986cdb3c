"""Markdown of cards: numbers, tables and text; every number is shown by one of `SHOWN`, so that a test can look for it
in the JSON beside the card."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from xlite_search.results.columns import ABSENT, number

Facts = Mapping[str, Any]
Estimate = Facts | None
#: folder of a card's images, beside it
FIGURES = "figures"


def signed(value: float | None) -> str:
    return number(value, "+")


def count(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.0f}"


def percent(value: float | None) -> str:
    return ABSENT if value is None else f"{100 * value:.2f} %"


def whole_percent(value: float) -> str:
    return f"{100 * value:g} %"


def chance(value: float) -> str:
    """Four places, or three digits: thresholds of rare findings are small."""
    return f"{value:.4f}" if value >= 0.01 else f"{value:.3g}"


def milliseconds(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}"


def millions(value: float) -> str:
    return f"{value / 1e6:.3f} M"


def mebibytes(value: float) -> str:
    return f"{value / 2**20:.2f} MiB"


def short(value: float) -> str:
    return f"{value:g}"


def power(value: float) -> str:
    return f"{value:.1e}"


def plain(value: float) -> str:
    return str(value)


#: all ways in which a card writes a number
SHOWN: tuple[Callable[[Any], str], ...] = (
    number,
    signed,
    count,
    percent,
    whole_percent,
    chance,
    milliseconds,
    millions,
    mebibytes,
    short,
    power,
    plain,
)


def value(of: Estimate, show: Callable[[float | None], str] = number) -> str:
    return ABSENT if not of else show(of["value"])


def interval(of: Estimate, show: Callable[[float | None], str] = number) -> str:
    """`0.8120 to 0.9051`, or a dash where there is none."""
    if not of or any(of[name] is None for name in ("value", "low", "high")):
        return ABSENT
    return f"{show(of['low'])} to {show(of['high'])}"


def escaped(text: object) -> str:
    """Text that is not ours, as it reads: no markup, no link, no HTML, and one line."""
    found = re.sub(r"([\\`*\[\]|~])", r"\\\1", " ".join(str(text).split()))
    return found.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: object) -> str:
    """A name as it is, in a line of its own letters."""
    found = " ".join(str(text).split()).replace("`", "'").replace("|", "/")
    return f"`{found}`" if found else ABSENT


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """The first columns are text, the others figures."""
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    marks = [*["---"] * words, *["---:"] * (len(heads) - words)]
    return "\n".join([f"| {' | '.join(heads)} |", f"| {' | '.join(marks)} |", *lines])


def bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {each}" for each in items)


def commands(lines: Iterable[str]) -> str:
    return "\n".join(f"    python -m xlite_search {line}" for line in lines)


def page(sections: Iterable[tuple[str, Iterable[str]]]) -> str:
    """Headings with their paragraphs; empty paragraphs are left out."""
    parts = []
    for heading, paragraphs in sections:
        parts += [heading, *(each for each in paragraphs if each)]
    return "\n\n".join(parts) + "\n"


def confidence(facts: Facts) -> str:
    return whole_percent(facts["confidence"])


def missing(facts: Facts, *names: str) -> Iterator[str]:
    for name in names:
        if name in facts["missing"]:
            yield f"> {sentence(facts['missing'][name])}"


def sentence(told: str) -> str:
    """One of ours with commands in it: what is between backticks stays, the rest is escaped."""
    parts = enumerate(told.split("`"))
    return "".join(f"`{part}`" if place % 2 else _spaced(part) for place, part in parts)


def _spaced(part: str) -> str:
    """Escaped, with its spaces at both ends."""
    left, right = (" " if part[at : at + 1 or None].isspace() else "" for at in (0, -1))
    return f"{left}{escaped(part)}{right}" if part.strip() else part
