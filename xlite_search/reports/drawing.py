"""SVG figures for a page and for a file: one width, text as text, marks that differ in shape and not in colour alone.

A figure is 400 CSS pixels wide (300 points): hardly less than a telephone, whose 366 leave the text its size, and two
stand side by side on a desk and on paper.
The bytes of a figure are a function of what is drawn: no date, no random names.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's blue and vermilion; grays that a printer keeps apart
BLUE, RED, BLACK, DARK, GRAY, LIGHT = "#0072B2", "#D55E00", "#1A1A1A", "#555555", "#767676", "#E4E4E4"
#: points; CSS pixels are 3/4 of them
WIDTH, POINTS = 300.0, 72.0
SMALL, TEXT, TITLE = 7.5, 8.5, 10.0
#: how the first lines of several differ: colour, dashes, marker
LINES: tuple[tuple[str, Any, str], ...] = (
    (BLUE, "-", "o"),
    (RED, (0, (5, 1.5)), "s"),
    ("#009E73", (0, (1.5, 1.2)), "^"),
    (BLACK, (0, (5, 1.2, 1.2, 1.2)), "D"),
)
#: letters of a title's line
HEAD_LETTERS = 52
#: what matplotlib writes that belongs to a page's own style sheet, or to nobody
OWN_STYLE = re.compile(r"\s*<style type=\"text/css\">.*?</style>", re.DOTALL)
COMMENT = re.compile(r"\s*<!--.*?-->", re.DOTALL)
#: where a long word may be cut, and what says so in a text: no letter that `shown` lets through
MARKS, CUT = re.compile(r"(?<=[_(=,/])(?=.)"), "\0"
ELEMENT_ID = re.compile(r" id=\"([^\"]*)\"")


def sheet(head: str, below: float) -> tuple[Figure, float]:
    """A figure with a title in as many lines as it needs and `below` points below it; where these begin, in points."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    lines = wrapped(head, HEAD_LETTERS)
    top = 13.0 * len(lines) + 8
    page = Figure(figsize=(WIDTH / POINTS, (top + below) / POINTS), dpi=POINTS, facecolor="white")
    FigureCanvasSVG(page)
    for number, line in enumerate(lines):
        write(page, 4, 11 + 13 * number, line, size=TITLE, weight="bold")
    return page, top


def panel(page: Figure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Axes with these edges, in points from the figure's left and top."""
    high = page.get_figheight() * POINTS
    return page.add_axes((left / WIDTH, 1 - bottom / high, (right - left) / WIDTH, (bottom - top) / high))


def write(page: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Text at a place in points from the left and the top; never read as mathematics."""
    high = page.get_figheight() * POINTS
    own: dict[str, Any] = {"size": TEXT, "va": "center", "parse_math": False}
    page.text(x / WIDTH, 1 - y / high, shown(text), **own | style)


def in_axes(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text at a place in the units of the axes; never read as mathematics."""
    own: dict[str, Any] = {"size": TEXT, "va": "center", "parse_math": False}
    axes.text(x, y, shown(text), **own | style)


def beside(axes: Axes, names: Sequence[Sequence[str]], middle: Sequence[float], line: float) -> None:
    """Names left of the axes, each in its lines around a height; `line` is how high a line is, in the axes' units.

    Ticks do not serve: matplotlib sets the lines of their labels by its own font's widths, and no reader has that one.
    """
    left, right = axes.get_xlim()
    points = WIDTH * axes.get_position().width
    axes.set_yticks([])
    for lines, at in zip(names, middle, strict=True):
        for down, text in enumerate(lines):
            in_axes(
                axes, left - 4 * (right - left) / points, at + line * (down - (len(lines) - 1) / 2), text, ha="right"
            )


def words(axes: Axes, across: str = "", up: str = "", size: float = TEXT) -> None:
    """What the axes are of."""
    axes.set_xlabel(shown(across), size=size, labelpad=2, parse_math=False)
    axes.set_ylabel(shown(up), size=size, labelpad=2, parse_math=False)


def plain_axes(axes: Axes) -> None:
    """No frame but left and bottom, small figures, a light grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(DARK)
    axes.tick_params(labelsize=SMALL, length=2.5, color=DARK, pad=2)
    axes.grid(color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)


def shown(text: str) -> str:
    """Text in one line, with a sign for each letter that nobody could see and no SVG may hold."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(text.split()))


class _Wrapper(textwrap.TextWrapper):
    """Cuts at blanks, and at a `CUT`, which nobody sees."""

    wordsep_simple_re = re.compile(rf"( +)|{CUT}")


def wrapped(text: str, letters: int, first: int = 0) -> list[str]:
    """Text in lines of so many letters, the first of `first`; a word that is longer is cut after one of its marks, and
    anywhere if it has none."""
    lead = " " * (letters - first if first else 0)
    text = re.sub(rf"\S{{{letters + 1},}}", lambda word: MARKS.sub(CUT, word[0]), shown(text))
    return [line.strip() for line in _Wrapper(letters, lead, break_on_hyphens=False).wrap(text)] or [""]


def svg(page: Figure) -> bytes:
    """The figure as an SVG file, text as text in whatever sans-serif the reader has."""
    import matplotlib

    out, nothing = io.BytesIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": "xlite_search"}
    with matplotlib.rc_context(options), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")  # text is measured here, and drawn by others
        page.savefig(out, format="svg", metadata=nothing)
    return out.getvalue()


def inline(figure: bytes, name: str, label: str) -> str:
    """An SVG file as an element of an HTML page that holds several: no prologue, ids of its own, `label` for those who
    cannot see it. Size and style are the page's."""
    text = OWN_STYLE.sub("", figure.decode())
    body = text[text.index("<svg") :]
    used = set(re.findall(r"#([\w.-]+)", body))
    body = ELEMENT_ID.sub(lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r"(?:xlink:)?(href=\"#|url\(#)", rf"\g<1>{name}-", COMMENT.sub("", body))
    head, rest = body.split(">", 1)
    box = re.search(r"viewBox=\"[^\"]*\"", head)
    assert box, "matplotlib says how large a figure is"
    return f'<svg {box[0]} role="img" aria-label="{escape(label)}">{rest}'


def spread(values: Sequence[float], least: float = 0.0, room: float = 0.06) -> tuple[float, float]:
    """Limits of an axis around finite values, `least` wide at least."""
    low, high = min(values), max(values)
    more = max(room * (high - low), (least - (high - low)) / 2, 1e-6)
    return low - more, high + more
