"""Watch of a folder: each image file that comes into it is answered once, by a line of `answers.csv`.

    file, bytes, modified  which file, by its name in the folder; with another size or time it is another file. A name
                           that is not UTF-8 is escaped, one that a spreadsheet takes for a formula has a ' before it
    model                  first digits of the sha256 of the graph that answered
    flags                  why the image may be none that the model was made for
    error                  why there is no answer; what follows is empty then
    found                  findings whose probability reaches their threshold
    then a column with the probability of each finding

The table is the only record. A line is in it whole or not at all, so that whoever is ended at any moment goes on, and
answers nothing twice. A file counts as written once two looks find the same size and time: nothing but looking works on
every system and on network shares. Files are decoded in a child process with limits, as the service does it.
"""

from __future__ import annotations

import csv
import io
import os
import stat
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Self

from xlite_search import storage
from xlite_search.data.sources import Unreadable
from xlite_search.deploy.answers import cell
from xlite_search.deploy.domain import Domain
from xlite_search.deploy.folder import ONNX
from xlite_search.deploy.predict import Predictor
from xlite_search.deploy.serve.decoders import BusyError, DecoderEndedError, Decoders
from xlite_search.errors import BadInput

TABLE = "answers.csv"
INSTALL = "pip install 'xlite-search[dicom]'"
#: digits of the graph's sha256
MODEL_DIGITS = 12
#: seconds between looks, and how many times as long as a look took a rest is at least
EVERY, REST = 2.0, 10
#: bytes of a file
LARGEST = 256 << 20
#: endings of files that a program has not written whole yet, whatever their size does; names that begin with a dot too
UNFINISHED = (".tmp", ".part", ".partial", ".filepart", ".crdownload")
#: files that Windows leaves in folders
SYSTEM = ("thumbs.db", "desktop.ini")
#: times that a file is tried whose decoder ends, takes too long or is busy: the machine may be to blame
TRIES = 3
#: names of what troubles a watch, beside those of files
FOLDER, ANEW = ".", ".."


class Seen(NamedTuple):
    """A file as a look finds it."""

    file: str
    bytes: str
    modified: str


class Line(NamedTuple):
    """What is written of a file. `found` and `chances` are empty if there is an error."""

    seen: Seen
    model: str
    flags: str = ""
    error: str = ""
    found: str = ""
    chances: tuple[str, ...] = ()


@dataclass
class Table:
    """`answers.csv`, which files it has, and how many findings."""

    path: Path
    answered: set[Seen]
    findings: int

    @classmethod
    def open(cls, path: Path, classes: tuple[str, ...]) -> Self:
        """Begins it, or goes on with it; half a line, which a power cut leaves, is cut off.

        Raises BadInput if it is a table of other findings.
        """
        header = [*Seen._fields, *Line._fields[1:-1], *map(cell, classes)]
        if not path.exists():
            storage.write_atomic(path, storage.csv_text(header, []).encode())
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        first, *rows = list(csv.reader(io.StringIO(whole.decode("utf-8", "surrogateescape")))) or [[]]
        if first != header:
            raise BadInput(f"{path} is a table of other findings, or was changed; give another folder, --into FOLDER")
        if len(whole) < len(content):
            os.truncate(path, len(whole))
        return cls(path, {Seen(cell(row[0]), *row[1:3]) for row in rows}, len(classes))

    def append(self, line: Line) -> None:
        """Returns when it is on the disk. Raises FileNotFoundError if the table is gone."""
        chances = line.chances or ("",) * self.findings
        text = storage.csv_text([*line.seen, *map(cell, line[1:-1]), *chances], [])
        with storage.naming(self.path), open(self.path, "r+b", buffering=0) as file:
            file.seek(0, os.SEEK_END)
            file.write(text.encode())
            os.fsync(file.fileno())
        self.answered.add(line.seen)


@dataclass
class Watch:
    """What comes into `folder`. `troubles` are sentences on what cannot be read, answered or written yet, by file."""

    folder: Path
    predictor: Predictor
    table: Table
    domain: Domain | None
    decoders: Decoders
    model: str
    troubles: dict[str, str] = field(default_factory=dict)
    _before: set[Seen] = field(default_factory=set)
    _tried: Counter[Seen] = field(default_factory=Counter)

    def look(self) -> Iterator[Line]:
        """Answers the files that are as they were at the last look; what cannot be read or written is tried again."""
        if not (self._folder_is_there() and self._table_is_there()):
            return
        now = {seen: path for seen, path in self._there() if seen not in self.table.answered}
        for seen in sorted(now.keys() & self._before):
            line = self._line(seen, now[seen])
            if line is None:
                continue
            try:
                self.table.append(line)
            except (PermissionError, FileNotFoundError) as why:  # a spreadsheet on Windows keeps it to itself
                self.troubles[TABLE] = f"{self.table.path}: {why.strerror}; tried again"
                return
            yield line
        self._before = set(now)

    def rest(self, looked: float) -> None:
        """Until the next look, after one of so many seconds."""
        time.sleep(max(EVERY, REST * looked))

    def _folder_is_there(self) -> bool:
        try:
            os.scandir(self.folder).close()
        except OSError as why:  # a share that is not mounted
            self.troubles[FOLDER] = f"{self.folder}: {why.strerror}; waiting for it"
            self._before = set()
            return False
        self.troubles.pop(FOLDER, None)
        return True

    def _table_is_there(self) -> bool:
        """Begins one that was taken away anew: it is the only record, so that what the folder has is answered again."""
        path = self.table.path
        self.troubles.pop(TABLE, None)
        try:
            with suppress(FileNotFoundError):
                path.stat()
                self.troubles.pop(ANEW, None)
                return True
            os.scandir(path.parent).close()  # else a share that is not mounted would be written into where it was
            self.table = Table.open(path, self.predictor.manifest.classes)
        except OSError as why:
            self.troubles[TABLE] = f"{path}: {why.strerror}; waiting for it"
            return False
        self.troubles[ANEW] = f"{path} was gone: begun anew, and what is in {self.folder} is answered again"
        return True

    def _there(self) -> Iterator[tuple[Seen, Path]]:
        for above, folders, files in os.walk(self.folder):
            own = Path(above)
            folders[:] = [name for name in folders if not _passed_over(name) and own / name != self.table.path.parent]
            for path in (own / name for name in files if not _passed_over(name)):
                seen = _seen(self.folder, path)
                if seen:
                    yield seen, path

    def _line(self, seen: Seen, path: Path) -> Line | None:
        """None of a file that cannot be read now, or is still being written."""
        if int(seen.bytes) > LARGEST:
            return Line(seen, self.model, error=f"larger than {LARGEST >> 20} MiB")
        try:
            body = path.read_bytes()
        except OSError as why:
            self.troubles[seen.file] = f"{path}: {why.strerror}; tried again"
            return None
        self.troubles.pop(seen.file, None)
        return self._answer(seen, body) if _seen(self.folder, path) == seen else None

    def _answer(self, seen: Seen, body: bytes) -> Line | None:
        """None of a file whose decoder is to be tried again."""
        try:
            image = self.decoders(body).image
        except Unreadable as why:
            return Line(seen, self.model, error=str(why))
        except (BusyError, DecoderEndedError, TimeoutError) as why:
            self._tried[seen] += 1
            if self._tried[seen] >= TRIES:
                return Line(seen, self.model, error=str(why))
            self.troubles[seen.file] = f"{seen.file}: {why}; tried {self._tried[seen]} of {TRIES} times"
            return None
        flags = "; ".join(flag.says for flag in self.domain.flags(image)) if self.domain else ""
        chances = self.predictor(image[None])[1][0].tolist()
        limits, named = self.predictor.manifest.thresholds, self.predictor.manifest.classes
        found = [name for name, chance in zip(named, chances, strict=True) if name in limits and chance >= limits[name]]
        return Line(seen, self.model, flags, "", "; ".join(found), tuple(f"{chance:.9g}" for chance in chances))


def _passed_over(name: str) -> bool:
    name = name.lower()
    return name.startswith(".") or name.endswith(UNFINISHED) or name in SYSTEM


def _seen(folder: Path, path: Path) -> Seen | None:
    """None if it is gone, or no file."""
    try:
        about = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(about.st_mode):
        return None
    name = cell(" ".join(path.relative_to(folder).as_posix().splitlines()))
    return Seen(name, str(about.st_size), f"{datetime.fromtimestamp(about.st_mtime, UTC):%Y-%m-%dT%H:%M:%S.%fZ}")


@contextmanager
def watching(folder: Path, predictor: Predictor, into: Path, graph: str = ONNX) -> Iterator[Watch]:
    """A watch of `folder` whose table is in the folder `into`, which no other may write meanwhile.

    Raises BadInput if one of them cannot be used.
    """
    folder, into = folder.resolve(), into.resolve()
    if not folder.is_dir():
        raise BadInput(f"--watch {folder} is no folder")
    if into == folder:
        raise BadInput(f"--into {into} is the watched folder; give another")
    if find_spec("pydicom") is None:
        raise BadInput(f"pydicom is not installed; {INSTALL}")
    with storage.alone(into, f"a watch whose answers go into {into}"):
        about = predictor.manifest
        table = Table.open(into / TABLE, about.classes)
        decoders = Decoders(predictor.preprocess, 1)
        try:
            yield Watch(folder, predictor, table, predictor.domain, decoders, about.files[graph][:MODEL_DIGITS])
        finally:
            decoders.close()
