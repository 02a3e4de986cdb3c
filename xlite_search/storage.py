"""Storage: atomic files, manifests with checksums, locks, and the append-only `Ledger`.

Every file is written beside its final name, fsynced, renamed, and its folder fsynced. A manifest is JSON that carries
the sha256 of its own body. A ledger is a file of lines that is only ever appended to.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from xlite_search.errors import BadInput, Damaged

SCHEMA = 1
#: what is behind a lock's name where it is only looked at, and how long one who looks may keep it from another
SHOWN, LOOK_S = ".held", 0.005
#: what a disk says that does not take any more
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EIO, errno.EROFS)


def write_atomic(path: Path, data: bytes) -> str:
    """Replaces `path` by `data` so that a reader, or a power cut, sees the old or the new file. Returns the sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return hashlib.sha256(data).hexdigest()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Has an OSError say which file: that of a write does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable. Windows has no such call: NTFS journals its renames."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_folder(fresh: Path, home: Path) -> None:
    """Puts a whole folder in the place of another, or where none was; what fails leaves that one as it was."""
    old = fresh.with_suffix(".old")
    if home.exists():
        os.replace(home, old)
    try:
        os.replace(fresh, home)
    except OSError:
        if old.exists():
            os.replace(old, home)
        raise
    sync_folder(home.parent)
    shutil.rmtree(old, ignore_errors=True)


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: object) -> str:
    """sha256 of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def csv_text(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table as CSV, lines ending in a newline alone on every system."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def write_manifest(path: Path, body: Mapping[str, Any]) -> None:
    """Writes a JSON object with the sha256 of its body."""
    text = json.dumps({"schema": SCHEMA, "sha256": digest(body), "body": body}, indent=1)
    write_atomic(path, text.encode())


def read_manifest(path: Path) -> dict[str, Any]:
    """The body of a manifest.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it is not JSON, of another schema, or its body does not match its sha256.
    """
    try:
        document = json.loads(path.read_bytes())
        body = document["body"]
        if document["schema"] == SCHEMA and digest(body) == document["sha256"]:
            return dict(body)
    except (ValueError, KeyError, TypeError):
        pass
    raise Damaged(f"{path} is damaged: its content does not match its checksum; restore it from a backup or remove it")


class Ledger:
    """Append-only file of JSON lines, each fsynced and chained by hash to the line before (`entries`, from the first).

    A line that was lost, changed or exchanged is found. A last line that is not whole is what a power cut leaves of an
    entry that nobody acted on: it is not counted, and overwritten by the next. What was cut off behind a whole line is
    not found: nothing here says how many there were.
    """

    def __init__(self, path: Path, field: str = "body", otherwise: str = "") -> None:
        """`field` is what an entry is called in its line, `otherwise` what else than a backup would help.

        Raises:
            Damaged: a line is not what was written.
        """
        self.path, self.field, self.otherwise = path, field, otherwise
        self.entries: list[Any] = []
        self._end, self._last = 0, ""
        whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        for line in whole:
            self._read(line + b"\n")

    def append(self, entry: Any) -> None:
        """Returns when it is on the disk. Raises OSError if it cannot be; the ledger is as before then."""
        link = digest([self._last, entry])
        line = json.dumps({"sha256": link, self.field: entry}).encode() + b"\n"
        fresh = not self.path.exists()
        with naming(self.path), open(self.path, "wb" if fresh else "r+b") as file:
            file.seek(self._end)
            file.truncate()
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if fresh:
            sync_folder(self.path.parent)
        self._extend(line, link, entry)

    def damaged(self, line: int) -> Damaged:
        """What to raise of a line, counted from 1, that is not what was written there."""
        return Damaged(
            f"{self.path}, line {line} is damaged: it is not what was written there; restore it from a backup"
            f"{self.otherwise and f', or {self.otherwise}'}"
        )

    def _read(self, line: bytes) -> None:
        try:
            document = json.loads(line)
            entry, link = document[self.field], document["sha256"]
            if digest([self._last, entry]) != link:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise self.damaged(len(self.entries) + 1) from None
        self._extend(line, link, entry)

    def _extend(self, line: bytes, link: str, entry: Any) -> None:
        self.entries.append(entry)
        self._end, self._last = self._end + len(line), link


@contextmanager
def alone(folder: Path, what: str, *, wait: bool = False, lock: str = "lock", shown: bool = False) -> Iterator[None]:
    """Holds a folder against other processes; the lock goes with its process, however that ends.

    If it is `shown`, there is a second lock behind it for `held_by` to look at, which takes it for a moment: who looks
    must not keep a holder out.

    Raises:
        BadInput: another process holds it, and we do not wait; the sentence names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held, owner = FileLock(folder / lock, timeout=-1 if wait else 0), folder / f"{lock}.owner"
    try:
        held.acquire()
    except Timeout:
        raise BadInput(f"{what} is being run by {_owner(owner)}; wait for it, or stop it") from None
    try:
        with FileLock(folder / f"{lock}{SHOWN}").acquire(poll_interval=LOOK_S) if shown else nullcontext():
            with suppress(OSError):  # a name is a courtesy, which a full disk may refuse
                owner.write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": time.time()}))
            try:
                yield
            finally:
                with suppress(OSError):
                    owner.unlink(missing_ok=True)
    finally:
        held.release()


def held_by(folder: Path, lock: str = "lock") -> str:
    """Who holds a folder now and shows it, in words; empty if nobody does. Who wants to hold it does not notice."""
    held, owner = FileLock(folder / f"{lock}{SHOWN}"), folder / f"{lock}.owner"
    others = LOOK_S if owner.exists() else 20 * LOOK_S  # they look too, and have no name
    try:
        held.acquire(timeout=others, poll_interval=LOOK_S / 5)
    except Timeout:
        return _owner(owner)
    held.release()
    return ""


def _owner(path: Path) -> str:
    """`process 4711 on desk since 21:04`; it may be gone again, or not have said its name yet."""
    try:
        about = json.loads(path.read_bytes())
        since = time.strftime("%H:%M", time.localtime(about["since"]))
        return f"process {about['pid']} on {about['host']} since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process on this machine"
