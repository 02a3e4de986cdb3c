"""The pages of documentation with measured figures, made from what the benchmarks wrote.

    python benchmarks/figures.py     # or `make figures`

makes docs/measured.md, and in README.md the block between `<!-- measured -->` and `<!-- /measured -->`, from the
template benchmarks/measured.md and docs/benchmarks/*.json. The template is markdown with placeholders of str.format:

    {data.read_speedup:,.1f}      a figure in docs/benchmarks/data.json
    {data.read_speedup.limit}     `at least 50`
    {data.read_speedup.held}      `held` or `**not held**`
    {data.provenance}             date, commit, machine, load and duration

A paragraph, table or list item with a figure of a benchmark that has written nothing becomes `not measured yet`, with
the reason where it wants more than any machine has (`recording.WANTING`). A placeholder without figure is an error that
names it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import recording
from recording import ROOT, Limit, Provenance

from xlite_search import storage
from xlite_search.errors import BadInput

TEMPLATE, PAGE, README = recording.HERE / "measured.md", ROOT / "docs" / "measured.md", ROOT / "README.md"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
MADE = "<!-- Made by `make figures` from benchmarks/measured.md and docs/benchmarks/*.json: change those. -->\n\n"
#: what separates the parts that are filled in, or not, as one: paragraphs, tables and list items
BETWEEN = re.compile(r"(\n\n|\n(?=- ))")


class Figure(float):
    """A figure as a template sees it: a number with its limit and whether that was held."""

    limit, held = "none", ""


class Record:
    """A benchmark's JSON as a template sees it: each figure is an attribute."""

    def __init__(self, name: str, body: Mapping[str, Any]) -> None:
        self._name = name
        self.provenance = str(Provenance(**body["provenance"]))
        self._figures = {each: Figure(body[each]) for each in body if each not in ("limits", "provenance")}
        for each, limit in body["limits"].items():
            figure = self._figures[each]
            figure.limit = str(Limit(**{end: value for end, value in limit.items() if end != "held"}))
            figure.held = "held" if limit["held"] else "**not held**"

    def __getattr__(self, figure: str) -> Figure:
        found: Figure | None = self.__dict__.get("_figures", {}).get(figure)
        if found is None:
            raise AttributeError(f"docs/benchmarks/{self.__dict__.get('_name')}.json has no figure {figure}")
        return found


class NotMeasured(Exception):
    """A benchmark that has written nothing; its name."""


class _Records(dict[str, Record | None]):
    def __getitem__(self, name: str) -> Record:
        if name not in self:
            raise AttributeError(f"there is no benchmark {name!r}")
        found = super().__getitem__(name)
        if found is None:
            raise NotMeasured(name)
        return found


def records() -> dict[str, Record | None]:
    """Of each benchmark what it wrote, or None."""
    files = {name: recording.RECORDS / f"{name}.json" for name in recording.names()}
    return {name: _read(file) if file.is_file() else None for name, file in files.items()}


def _read(file: Path) -> Record:
    try:
        return Record(file.stem, json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        why = f"{type(error).__name__}: {error}"
        raise BadInput(f"docs/benchmarks/{file.name} is not what a benchmark writes ({why}); measure again") from None


def filled(template: str, found: Mapping[str, Record | None]) -> str:
    """A template with its figures. Raises BadInput for a placeholder without figure, by its name."""
    return "".join(_parts(template.rstrip("\n"), _Records(found))) + "\n"


def _parts(template: str, found: _Records) -> Iterator[str]:
    between, before = "", ""
    for number, part in enumerate(BETWEEN.split(template)):
        if number % 2:
            between = part
            continue
        text, measured = _filled(part, found)
        if measured or text != before:  # `not measured yet` is said once
            yield between + text
        before = text


def _filled(part: str, found: _Records) -> tuple[str, bool]:
    """A part, and whether its figures were measured."""
    try:
        return part.format_map(found), True
    except NotMeasured as missing:
        dash = "- " if part.startswith("- ") else ""
        why = recording.WANTING.get(str(missing), "")
        return f"{dash}`python benchmarks/{missing}.py`: not measured yet{f': {why}' if why else ''}.", False
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"benchmarks/{TEMPLATE.name}, at {part.strip()[:60]!r}: {error}") from None


def block(text: str, of: str) -> tuple[int, int]:
    """Where what is between the two markers begins and ends. Raises BadInput if they are not there, once each."""
    begin, end = text.find(BEGIN), text.find(END)
    if not 0 <= begin < end or text.count(BEGIN) + text.count(END) != 2:
        raise BadInput(f"{of} needs one {BEGIN} and, behind it, one {END}")
    return begin + len(BEGIN), end


def pages(template: str, readme: str, found: Mapping[str, Record | None]) -> tuple[str, str]:
    """docs/measured.md, and README.md with the page's block between its markers."""
    page = filled(template, found)
    first, last = block(page, f"benchmarks/{TEMPLATE.name}")
    begin, end = block(readme, README.name)
    return MADE + page, readme[:begin] + page[first:last] + readme[end:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    try:
        made = pages(TEMPLATE.read_text(encoding="utf-8"), README.read_text(encoding="utf-8"), records())
    except BadInput as wrong:
        print(wrong, file=sys.stderr)
        sys.exit(wrong.exit_code)
    for path, text in zip((PAGE, README), made, strict=True):
        storage.write_atomic(path, text.encode())
        print(f"wrote {path.relative_to(ROOT).as_posix()}")


if __name__ == "__main__":
    main()
