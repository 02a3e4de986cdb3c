"""Split of a prepared data set, written once and read from then on.

    data/<name>/splits/<kind>-<key>.csv           name, patient, split of every image (empty: in none)
    data/<name>/splits/<kind>-<key>.patients.csv  patient, split
    data/<name>/splits/<kind>-<key>.i8            split number of every image as a signed byte (-1: in none)
    data/<name>/splits/<kind>-<key>.json          the spec, the sha256 of first and third, and how even the split is
    data/<name>/splits/<kind>-<key>.<key>.rows    which images a fraction of a part is, a bit each (`fraction_rows`)

Prepared data that cannot be written to have them in `<runs>/splits/<name>/`.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlite_search import places, storage
from xlite_search.data import integrity
from xlite_search.data.lists import NOWHERE, SPLITS, FromFiles, rows_by_split
from xlite_search.data.packed import PackedSet
from xlite_search.data.sources import LabelTable
from xlite_search.data.splits import AnySplit, CrossFit, deal, identity, resolved
from xlite_search.data.stratify import balance, linked, stratify
from xlite_search.errors import Damaged
from xlite_search.remembered import Remembered, state_of

#: Raised when groups are dealt otherwise: a split that an earlier version wrote is another one.
DEALING = 2
#: What a place says that may be read and not written to.
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Split:
    """Rows of the packed set by split name, ascending, a fingerprint of who is where, and the CSV that says so."""

    rows: dict[str, NDArray[np.int64]]
    fingerprint: str
    path: Path


def split_of(data: PackedSet, spec: AnySplit) -> Split:
    """The split of a data set: read if it was written before, else made and written.

    It is read once while its files are as they were: the same object comes back.

    Raises:
        BadInput: as `deal`; or its lists cannot be read.
        Damaged: the written split is not the one that was written.
    """
    of = spec.of if isinstance(spec, CrossFit) else spec
    if isinstance(of, FromFiles) and not of.sha256:
        spec = resolved(spec)
    said = identity(spec)
    file = f"{spec.name}-{storage.digest([data.fingerprint, said, DEALING])[:12]}.csv"
    homes = data.folder / "splits", places.runs_root() / "splits" / data.folder.name
    with _WRITING:
        path = next((home / file for home in homes if _is_written(home / file)), None)
        path = path or _written(data, spec, said, [home / file for home in homes])
    state = [state_of(path.with_suffix(suffix)) for suffix in READ]
    return _OPENED.get(tuple(state), lambda: _read(path))


#: the files of a split that are read
READ = (".csv", ".i8", ".json")
_OPENED, _WRITING = Remembered[Split](8), threading.Lock()


def _is_written(path: Path) -> bool:
    return all(path.with_suffix(suffix).is_file() for suffix in READ)


def _written(data: PackedSet, spec: AnySplit, said: dict[str, Any], paths: Sequence[Path]) -> Path:
    """Deals a data set and writes who is where to the first of these places that takes it."""
    table, codes = data.table, deal(data.table, spec, data.set_aside)
    rows = rows_by_split(codes)
    integrity.expect_few_lost(rows, Counter(integrity.homes_of_lost(data, rows)))
    homes = [SPLITS[code] if code != NOWHERE else "" for code in codes.tolist()]
    header, rows_of_images = ("name", "patient", "split"), zip(table.names, table.groups, homes, strict=True)
    by_image = storage.csv_text(header, rows_of_images).encode()
    by_patient = dict.fromkeys((patient, home) for patient, home in zip(table.groups, homes, strict=True) if home)
    files = {
        ".csv": by_image,
        ".patients.csv": storage.csv_text(("patient", "split"), by_patient).encode(),
        ".i8": codes.astype(np.int8).tobytes(),
    }
    sha256 = {"sha256": hashlib.sha256(by_image).hexdigest(), "codes_sha256": hashlib.sha256(files[".i8"]).hexdigest()}
    about = {"spec": said, **sha256, **balance(table, rows)}
    *others, last = paths
    for path in others:
        try:
            return _put(path, files, about)
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
    return _put(last, files, about)


def _put(path: Path, files: Mapping[str, bytes], about: dict[str, Any]) -> Path:
    for suffix, content in files.items():
        storage.write_atomic(path.with_suffix(suffix), content)
    storage.write_manifest(path.with_suffix(".json"), about)
    return path


def _read(path: Path) -> Split:
    about = storage.read_manifest(path.with_suffix(".json"))
    raw = {}
    for suffix, sha256 in ((".csv", about["sha256"]), (".i8", about.get("codes_sha256"))):
        file = path.with_suffix(suffix)
        raw[suffix] = file.read_bytes()
        if hashlib.sha256(raw[suffix]).hexdigest() != sha256:
            raise _changed(file)
    return Split(rows_by_split(np.frombuffer(raw[".i8"], np.int8)), about["sha256"][:16], path)


def _changed(path: Path) -> Damaged:
    return Damaged(f"{path} was changed since it was written: remove it, and it is made again")


def fraction_of(table: LabelTable, rows: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """A stratified part of some rows, whole patients, ascending."""
    if fraction == 1:
        return rows
    groups = linked(table)
    part = stratify(table.labels[rows], [groups[row] for row in rows.tolist()], [fraction, 1 - fraction])
    return np.asarray(rows[part == 0], np.int64)


def fraction_rows(
    data: PackedSet, split: Split, part: str, rows: NDArray[np.int64], fraction: float
) -> NDArray[np.int64]:
    """`fraction_of` a part of a split, by its name ("train", "train+val"), whose rows these are: dealt once, and read
    from then on.

    Raises:
        Damaged: what was written is not what is there.
    """
    if fraction == 1:
        return rows
    asked = [data.fingerprint, split.fingerprint, part, fraction, DEALING]
    path = split.path.with_suffix(f".{storage.digest(asked)[:12]}.rows")
    try:
        bits = np.frombuffer(base64.b64decode(storage.read_manifest(path)["bits"]), np.uint8)
        return np.flatnonzero(np.unpackbits(bits, count=len(data)))
    except FileNotFoundError:
        found = fraction_of(data.table, rows, fraction)
    chosen = np.zeros(len(data), bool)
    chosen[found] = True
    bits = np.packbits(chosen)
    about = {
        "part": part,
        "fraction": fraction,
        "images": len(found),
        "bits": base64.b64encode(bits.tobytes()).decode(),
    }
    with suppress(OSError):  # it costs the next one its time, and nothing else
        storage.write_manifest(path, about)
    return found
