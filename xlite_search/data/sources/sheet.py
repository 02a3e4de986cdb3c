"""Tables in files (CSV), as cells that know their line and column.

UTF-8, gzipped or not, with commas, semicolons, tabs or, in lists, spaces. What counts is the content, not the suffix.
Excel's `sep=;` and lines that begin with `#` may stand above the table; of `="00013"` the text counts.
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

from xlite_search.data.sources import SUFFIXES
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.errors import BadInput

#: How columns are called, the clearest name first; case, spaces and punctuation do not matter.
IMAGE = (
    *("imageindex", "imageid", "imagename", "imagefilename", "imagefile", "filename", "file", "imagepath", "filepath"),
    *("path", "image", "imgid", "img", "fname", "dicomid", "sopinstanceuid", "name", "id"),
)
PATIENT = ("patientid", "patient", "patientnumber", "subjectid", "subject", "pid")
PROJECTION = ("viewposition", "view", "projection", "appa")
SEX = ("patientsex", "patientgender", "sex", "gender")
AGE = ("patientage", "age", "ageyears")
FOLLOW_UP = ("followup", "followupnumber")
WORDS, NORMAL = "findinglabels", "nofinding"

_BLANK = {"", "nan", "na", "n/a", "<na>", "none", "null"}
_IMAGE_FILE = re.compile(rf"[0-9]{{8}}_[0-9]{{3}}|.*\.({'|'.join(SUFFIXES)})", re.IGNORECASE)
_FORMATS = (
    (b"PK\x03\x04", "an Excel workbook or a zip archive"),
    (b"\x1f\x8b", "packed with gzip twice"),
    (b"BZh", "packed with bzip2"),
    (b"\xfd7zXZ", "packed with xz"),
    (b"\x28\xb5\x2f\xfd", "packed with zstandard"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"PAR1", "a Parquet file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"%PDF", "a PDF document"),
    (b"{\\rtf", "an RTF document"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it stands for"),
    (b"\xff\xfe", "text in UTF-16"),
    (b"\xfe\xff", "text in UTF-16"),
)
#: Characters that nobody sees, in cells that were copied from web pages or files that were joined: no part of an id.
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060"))
_JSON = re.compile(r'\s*(?:\{\s*"|\[\s*[\[{"])')
#: A line above the table: blank, Excel's `sep=;`, or a comment.
_ABOVE = re.compile(
    r'[^\S\n]*(?:"?sep=(?P<separator>[,;\t|])"?[,;\t |]*|#(?P<comment>[^\n]*))?(?:\n|\Z)', re.IGNORECASE
)
#: How Excel is told to leave a number as it is written.
_AS_TEXT = re.compile(r'="([^"]*)"')


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
        meant = {*IMAGE, *PATIENT, *PROJECTION, WORDS, NORMAL, *FINDINGS}
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
    *(*SEX, *AGE, *FOLLOW_UP, "fold", "split", "istest"),
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
    return "_" not in cell


def _text(path: Path, expected: str) -> str:
    """The file's text, lines ended by a line feed."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder; give {expected.replace('a ', 'the ', 1)} in it")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file; give {expected}") from None
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
        raise BadInput(f"{path} is a binary file, not CSV; give {expected}")
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line}: not text in UTF-8; save the table as 'CSV UTF-8'") from None
    if text.lstrip().startswith("<"):
        raise BadInput(f"{path} is a web page, not CSV: the download led to another page; fetch it again")
    if _JSON.match(text):
        raise BadInput(f"{path} is JSON, not CSV; write the table as CSV, a line for each image")
    return text if text.isascii() else text.translate(_INVISIBLE)


def read_sheet(path: Path, expected: str = "a label table or a name list") -> Sheet:
    """The cells of a file without its blank lines; every row is as wide as the header, or else as the first row.

    Raises BadInput if it is no such thing; `expected` says what was.
    """
    numbered = list(_rows(path, _text(path, expected)))
    if not numbered:
        raise BadInput(f"{path} is empty; expected {expected}")
    top, first = numbered[0]
    headed = not _is_image_row(first)
    if headed and len(numbered) == 1:
        raise BadInput(f"{path} has a header and no rows; expected {expected}")
    needed = max(number for number, cell in enumerate(first, start=1) if cell.strip())
    rows, lines = [], []
    for line, row in numbered[headed:]:
        if len(row) < needed or any(map(str.strip, row[len(first) :])):
            like = "the header" if headed else "the first row"
            hint = ""
            if not headed and any(plain(cell) in IMAGE for cell in row):
                hint = "; it seems to be the header: remove what is above it"
            raise BadInput(f"{path}, line {line}: {len(row)} fields; expected {needed} as in {like}, line {top}{hint}")
        if headed and row == first:
            raise BadInput(f"{path}, line {line}: the header of line {top} again, as in joined tables; remove the line")
        rows.append(row)
        lines.append(line)
    header = [cell.strip() for cell in first] if headed else ["image"] + [""] * (needed - 1)
    return Sheet(path, tuple(header), headed, top, rows, lines)


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with something in them, each with the line that it begins on."""
    declared, text = _begun(text)
    separator = declared or _separator(_first_line(text))
    if separator == " ":
        separator, text = ",", "\n".join(",".join(line.split()) for line in text.split("\n"))
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
    line, as_text = 1, '="' in text
    try:
        for row in reader:
            if any(map(str.strip, row)):
                yield line, [_AS_TEXT.sub(r"\1", cell) for cell in row] if as_text else row
            line = reader.line_num + 1
    except csv.Error:
        raise BadInput(
            f"{path}, line {line}: not a CSV row as it stands; is a quotation mark missing, or one too many?"
        ) from None


def _begun(text: str) -> tuple[str, str]:
    """The separator that a line above the table declares (else ''), and the text with such lines and comments blank.

    A comment that is the header of rows without one, as numpy.savetxt writes it, stays without its '#'.
    """
    separator, place, lines, comment = "", 0, 0, ""
    while place < len(text) and (above := _ABOVE.match(text, place)):
        said = above["comment"] or ""
        if _is_image_file(f"#{said}"):
            break
        separator, comment = above["separator"] or separator, said.strip() or comment
        place, lines = above.end(), lines + 1
    cells = comment.split(separator or _separator(comment))
    headed = (
        len(cells) > 1 and any(plain(cell) in IMAGE for cell in cells) and _is_image_file(_first_line(text[place:]))
    )
    return separator, "\n" * (lines - headed) + (f"{comment}\n" if headed else "") + text[place:]


def _first_line(text: str) -> str:
    return text.lstrip().partition("\n")[0]


def _is_image_file(line: str) -> bool:
    """Whether the first cell of a line is the name of an image file."""
    return bool(_IMAGE_FILE.fullmatch(re.split(r"[,;\t ]", line.strip(), maxsplit=1)[0]))


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
    return all(map(is_number, others)) if others else not any(plain(word) in IMAGE for word in re.split("[,;|:]", name))
