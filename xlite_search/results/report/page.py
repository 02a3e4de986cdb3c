"""HTML page of a report: one file, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import math
import re
import textwrap
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from xlite_search.console import clock
from xlite_search.reports.drawing import inline
from xlite_search.results.columns import ABSENT, p_value
from xlite_search.results.front import measure
from xlite_search.results.report.content import Report, in_words, rare
from xlite_search.results.report.figures import figures
from xlite_search.results.report.said import Claim

if TYPE_CHECKING:
    from jinja2 import Template

#: runs whose rows are shown, and those of them that stand first; a thousand would hide everything else
ROWS, LEADING = 100, 20
#: letters of a name that have room beside its figures: where these are all, and where they are as many as of settings
WIDE, WIDER = 24, 60


def page(report: Report) -> str:
    """The whole file. Every text of a study is escaped."""
    from markupsafe import Markup

    of_runs = _of_runs(report)
    drawn = {name: (Markup(inline(one.svg, name, one.label)), one.caption) for name, one in figures(report).items()}
    first, _, rest = report.question.partition("\n\n")
    return _template().render(
        report=report,
        of_runs=of_runs,
        figures=drawn,
        lead=" ".join(first.split()) or report.study,
        rest=_paragraphs(rest),
        rows=ROWS,
        leading=LEADING,
        wide=WIDE if of_runs else WIDER,
        supported=any(abs(run.supported - run.score) > 5e-5 for run in report.ranked),
        front=_data_uri(report.front),
    )


def _of_runs(report: Report) -> dict[str, Claim]:
    """The claims by the runs' keys; none where they are about settings."""
    return {one.runs[0]: one for one in report.said.claims} if report.said.about == "weights" else {}


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}" if png else ""


def _paragraphs(text: str) -> list[tuple[str, bool]]:
    """The paragraphs of a docstring, and whether each is indented, as code is, and keeps its lines."""
    found = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.splitlines()
        indented = all(line.startswith("    ") for line in lines if line.strip())
        found.append((textwrap.dedent(block) if indented else " ".join(block.split()), indented))
    return [each for each in found if each[0].strip()]


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "number": number,
        "signed": signed,
        "percent": percent,
        "count": count,
        "clock": lambda seconds: clock(seconds) if math.isfinite(seconds) else ABSENT,
        "measured": lambda value, name: measure(name).text(value),
        "word": lambda name: measure(name).word,
        "millions": lambda value: f"{value / 1e6:.2f} M" if math.isfinite(value) else ABSENT,
        "in_words": in_words,
        "p": p_value,
        "rare": rare,
        "known": math.isfinite,
    }
    return environment.from_string(resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8"))


def number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else ABSENT


def signed(value: float, digits: int = 4) -> str:
    return f"{value:+.{digits}f}" if math.isfinite(value) else ABSENT


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %" if math.isfinite(share) else ABSENT


def count(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else ABSENT
