"""Unfinished packed set: may be cut off at any byte, and goes on without a wrong row.

    <XLITE_DATA>/<name>/
        slots.partial    a slot for every row of the label table; row i at i times the bytes of an image
        journal.partial  first what is being made, then which slots are filled, with the hash of each

Pixels are written and fsynced before the journal's line that names them; each line carries its own checksum, and one
that is torn or damaged says nothing. At the end every slot is read again and compared with its hash, and those that
differ are prepared anew: what the disk does between writing and reading is not believed either. The manifest comes
last; without it there is no data set. The finished files hold nothing of how often the work was cut off.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from xlite_search import storage
from xlite_search.data.boxes import Box
from xlite_search.data.decoding import Chunk, Kept
from xlite_search.data.packed import MANIFEST, PIXELS, STAMPS, digest_of
from xlite_search.errors import Damaged

SLOTS, JOURNAL, LOST = "slots.partial", "journal.partial", "lost.csv"
#: An fsync is slow on some disks; a kill costs this much work.
COMMIT_EVERY_S = 1.0


class Unfinished:
    """The open files of a set that is being made. Storage errors are raised as Damaged, in a sentence.

    kept    rows whose slots are filled
    """

    def __init__(self, folder: Path, plan: Mapping[str, object], each: int, kept: Mapping[int, Kept]) -> None:
        """`each`: bytes of an image. `kept`: what the journal vouches for and is to be used; if nothing, everything
        begins anew."""
        self.folder, self.kept = folder, dict(kept)
        self._plan, self._each = plan, each
        self._pending: dict[int, Kept] = {}
        self._committed = time.monotonic()

    def __enter__(self) -> Unfinished:
        slots, journal = self.folder / SLOTS, self.folder / JOURNAL
        with on_disk(self.folder), ExitStack() as files:
            if self.kept and not slots.exists() and (self.folder / PIXELS).exists():
                os.replace(self.folder / PIXELS, slots)  # it was cut off between these pixels and the manifest
            storage.write_atomic(journal, _line(self._plan) + (_line(_entries(self.kept)) if self.kept else b""))
            self._slots = files.enter_context(open(slots, "r+b" if self.kept and slots.exists() else "w+b"))
            self._journal = files.enter_context(open(journal, "ab"))
            storage.sync_folder(self.folder)
            self._files = files.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever ended the work: what was added is not lost."""
        with on_disk(self.folder), self._files:
            self.commit()

    def add(self, chunk: Chunk) -> None:
        """Writes a chunk's pixels into their slots; they count from the next commit, a second away at most."""
        with on_disk(self.folder):
            for row, image in zip(chunk.kept, chunk.pixels, strict=True):
                self._slots.seek(row * self._each)
                self._slots.write(image.tobytes())
        self._pending.update(chunk.kept)
        self.kept.update(chunk.kept)
        if time.monotonic() - self._committed >= COMMIT_EVERY_S:
            self.commit()

    def commit(self) -> None:
        """Makes all that was added survive a power cut."""
        if self._pending:
            with on_disk(self.folder):
                self._slots.flush()
                os.fsync(self._slots.fileno())
                self._journal.write(_line(_entries(self._pending)))
                self._journal.flush()
                os.fsync(self._journal.fileno())
            self._pending = {}
        self._committed = time.monotonic()

    def check(self, rows: list[int]) -> tuple[list[int], str]:
        """Reads the slots of these rows: those that are not what was prepared, and the sha256 of all.

        What is damaged is not `kept` any more.
        """
        self.commit()
        damaged, sha = [], hashlib.sha256()
        with on_disk(self.folder):
            for row, image in self._read(rows):
                sha.update(image)
                if digest_of(image) != self.kept[row].digest:
                    damaged.append(row)
        for row in damaged:
            del self.kept[row]
        return damaged, sha.hexdigest()

    def finish(
        self, rows: list[int], files: Mapping[str, bytes], stamps: Sequence[str], manifest: Mapping[str, Any]
    ) -> None:
        """A packed set of these rows, with these files beside the pixels, once ours are closed.

        Until the manifest is there, all can be repeated.
        """
        with on_disk(self.folder):
            if (self.folder / SLOTS).stat().st_size == len(rows) * self._each:  # no slot is empty
                os.replace(self.folder / SLOTS, self.folder / PIXELS)
            else:
                self._write_pixels(rows)
            storage.sync_folder(self.folder)
            for name, content in files.items():
                storage.write_atomic(self.folder / name, content)
            storage.write_manifest(self.folder / STAMPS, {"stamps": list(stamps)})
            storage.write_manifest(self.folder / MANIFEST, manifest)
            tidy(self.folder)

    def _read(self, rows: list[int]) -> Iterator[tuple[int, bytes]]:
        with open(self.folder / SLOTS, "rb", buffering=0) as slots:
            for row in rows:
                slots.seek(row * self._each)
                yield row, slots.read(self._each)

    def _write_pixels(self, rows: list[int]) -> None:
        """The slots of these rows, one after the other: where images were lost, slots are empty."""
        temporary = self.folder / f"{PIXELS}.tmp"
        with open(temporary, "wb") as file:
            for _, image in self._read(rows):
                file.write(image)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.folder / PIXELS)


@contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """Says in a sentence what the disk refuses.

    Raises:
        Damaged: it is full, read-only or broken.
    """
    try:
        yield
    except OSError as error:
        raise Damaged(
            f"{folder} cannot be used ({error.strerror or error}); what is prepared is kept: make room, or mend it, "
            "and start the same command again"
        ) from None


def journalled(folder: Path) -> tuple[dict[str, Any], dict[int, Kept]]:
    """What is being made in a folder, and the rows that are said to be there; both empty if nothing is."""
    path = folder / JOURNAL
    with on_disk(folder):
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    plan, *entries = map(_parsed_line, lines)
    if not isinstance(plan, dict):
        return {}, {}
    said = [image for entry in entries if isinstance(entry, list) for image in entry]
    return plan, {
        row: Kept(digest, size, stamp, tuple(Box(*box) for box in boxes)) for row, digest, size, stamp, boxes in said
    }


def tidy(folder: Path) -> None:
    """Removes what a finished set does not need, and dead processes' temporary files."""
    for pattern in ("*.partial", "*.tmp", LOST):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def _entries(kept: Mapping[int, Kept]) -> list[tuple[int, str, str, str, tuple[Box, ...]]]:
    return [(row, *image) for row, image in kept.items()]


def _line(what: object) -> bytes:
    text = json.dumps(what, separators=(",", ":")).encode()
    return digest_of(text).encode() + b" " + text + b"\n"


def _parsed_line(line: bytes) -> Any:
    """What a line says; None if it is torn or damaged."""
    check, _, text = line.partition(b" ")
    return json.loads(text) if check and check == digest_of(text).encode() else None
