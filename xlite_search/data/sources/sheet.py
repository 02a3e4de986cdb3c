"""A table in a file, as cells that know where they stand: text, CSV, what its columns mean.

UTF-8, gzipped or not, with commas, semicolons, tabs or, in lists, spaces. What counts is the content, not the suffix.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xlite_search.data.sources import CHEST_FINDINGS, SUFFIXES
from xlite_search.errors import BadInput

#: How columns are called, the clearest name first; case, spaces and punctuation do not matter.
IMAGE = (
    *("imageindex", "imageid", "imagename", "imagefilename", "imagefile", "filename", "file", "imagepath", "filepath"),
    *("path", "image", "imgid", "img", "name", "id"),
)
PATIENT = ("patientid", "patient", "patientnumber", "subjectid", "subject", "pid")
VIEW = ("viewposition", "view", "projection", "appa")
SEX = ("patientsex", "patientgender", "sex", "gender")
AGE = ("patientage", "age", "ageyears")
WORDS, NORMAL = "findinglabels", "nofinding"

_BLANK = {"", "nan", "na", "n/a", "<na>", "none", "null"}
_IMAGE_FILE = re.compile(rf"[0-9]{{8}}_[0-9]{{3}}|.*\.({'|'.join(SUFFIXES)})", re.IGNORECASE)
_FORMATS = (
    (b"PK\x03\x04", "an Excel workbook or a zip archive"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it stands for"),
    (b"\xff\xfe", "text in UTF-16"),
    (b"\xfe\xff", "text in UTF-16"),
)


@dataclass(frozen=True)
class Sheet:
    """The cells of a file, as text. Without a header (`headed`), `header` is the meaning of the columns."""

    path: Path
    header: tuple[str, ...]
    headed: bool
    top: int
    rows: list[list[str]]
    lines: list[int]

    @cached_property
    def columns(self) -> dict[str, int]:
        """Number of each column by its plain name. Raises BadInput if two mean the same."""
        found: dict[str, int] = {}
        meant = {*IMAGE, *PATIENT, *VIEW, WORDS, NORMAL, *FINDINGS}
        for number, name in enumerate(self.header):
            key = plain(name)
            if key in meant and key in found:
                first = self.header[found[key]]
                raise BadInput(
                    f"{self.path}, line {self.top}: columns {found[key] + 1} and {number + 1} are both {show(first)}; "
                    "remove one"
                )
            found[key] = number
        return found

    def column(self, names: Sequence[str]) -> int | None:
        return next((self.columns[name] for name in names if name in self.columns), None)

    def cells(self, column: int) -> list[str]:
        return [row[column].strip() for row in self.rows]

    def at(self, row: int, column: int) -> str:
        """Where a cell is, as an editor or a spreadsheet shows it."""
        name = self.header[column]
        place = f"column {show(name)}" if self.headed else f"field {column + 1} ({name})"
        return f"{self.path}, line {self.lines[row]}, {place}"

    @property
    def found(self) -> str:
        more = ", ..." if len(self.header) > 6 else ""
        return f"found {', '.join(map(show, self.header[:6]))}{more}"


def plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


#: Columns that may well be 0 and 1 and are no findings, and the rest of NIH's own.
ATTRIBUTES = (
    *(*SEX, *AGE, "followup", "fold", "split", "istest"),
    *("originalimagewidth", "originalimagewidthheight", "height", "originalimagepixelspacingx", "y"),
    "originalimagepixelspacingxy",
)
FINDINGS = {plain(finding): number for number, finding in enumerate(CHEST_FINDINGS)}


def show(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else f"{cell[:40]}...")


def is_blank(cell: str) -> bool:
    return cell.strip().casefold() in _BLANK


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return is_blank(cell)
    return True


def _text(path: Path) -> str:
    """The file's text, lines ended by a line feed."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder; give the label table or name list in it")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file; give a label table or a name list") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    if raw.startswith(b"\x1f\x8b"):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error):
            raise BadInput(f"{path}: the gzip file is cut short or damaged; fetch it again") from None
    for magic, what in _FORMATS:
        if raw.startswith(magic):
            raise BadInput(f"{path} is {what}; expected a table in CSV and UTF-8: save it as 'CSV UTF-8'")
    if b"\0" in raw:
        raise BadInput(f"{path} is a binary file, not CSV; give a label table or a name list")
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line}: not text in UTF-8; save the table as 'CSV UTF-8'") from None
    if text.lstrip().startswith("<"):
        raise BadInput(f"{path} is a web page, not CSV: the download led to another page; fetch it again")
    return text


def read_sheet(path: Path) -> Sheet:
    """The cells of a file without its blank lines; every row is as wide as the header, or else as the first row."""
    numbered = list(_rows(path, _text(path)))
    if not numbered:
        raise BadInput(f"{path} is empty; expected a label table or a name list")
    top, first = numbered[0]
    headed = not _is_image_row(first)
    if headed and len(numbered) == 1:
        raise BadInput(f"{path} has a header and no rows")
    needed = max(number for number, cell in enumerate(first, start=1) if cell.strip())
    rows, lines = [], []
    for line, row in numbered[headed:]:
        if len(row) < needed or any(map(str.strip, row[len(first) :])):
            like = "the header" if headed else "the first row"
            raise BadInput(f"{path}, line {line}: {len(row)} fields; expected {needed} as in {like}, line {top}")
        rows.append(row)
        lines.append(line)
    header = [cell.strip() for cell in first] if headed else ["image"] + [""] * (needed - 1)
    return Sheet(path, tuple(header), headed, top, rows, lines)


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with something in them, each with the line that it begins on."""
    separator = _separator(text.lstrip().partition("\n")[0])
    if separator == " ":
        separator, text = ",", "\n".join(",".join(line.split()) for line in text.split("\n"))
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
    line = 1
    try:
        for row in reader:
            if any(map(str.strip, row)):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{path}, line {line}: not a CSV row ({error}); is a quotation mark missing?") from None


def _separator(first: str) -> str:
    """What separates the columns, told by the first line: a space only between numbers or findings."""
    counts = {separator: first.count(separator) for separator in ",;\t"}
    if any(counts.values()):
        return max(counts, key=lambda separator: counts[separator])
    _, *others = first.split() or [""]
    listed = all(map(is_number, others)) or any(plain(other) in FINDINGS for other in others)
    return " " if others and listed else ","


def _is_image_row(cells: list[str]) -> bool:
    """Whether a first line is no header: it begins with an image's name, or nothing but numbers follow."""
    name, others = cells[0].strip(), [cell for cell in cells[1:] if cell.strip()]
    if _IMAGE_FILE.fullmatch(name):
        return True
    return all(map(is_number, others)) if others else plain(name) not in IMAGE
