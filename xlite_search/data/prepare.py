"""`prepare`: raw images to the packed set, preprocessed once, on all cores, and cut off at any moment without harm.

`data/preprocess.py` says what is done to an image. CLAHE's clip limit and tiles are those of the lab's EXP-001, which
does not say whether it comes before the resize or after. `data/decoding.py` does this in worker processes;
`data/unfinished.py` writes, in this one only.

A finished set remembers size and time of change of every raw file: the same command looks at those that changed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np

from xlite_search import places, storage
from xlite_search.data import integrity, packed
from xlite_search.data.decoding import Kept, decode, decoded
from xlite_search.data.index import IDENTITY, index_columns, index_text
from xlite_search.data.preprocess import Preprocess
from xlite_search.data.sources import LabelTable, Loss, Source
from xlite_search.data.unfinished import JOURNAL, LOST, SLOTS, Unfinished, journalled, on_disk, tidy
from xlite_search.errors import BadInput, Damaged

#: Images that are prepared again before older work is gone on with: do they still look the same?
SPOT_CHECKS = 8
ATTEMPTS = 3
SIZES_LISTED = 20

Progress = Callable[[int, int], None]
Say = Callable[[str], None]


def prepare(
    name: str,
    source: Source,
    preprocess: Preprocess | int,
    progress: Progress = lambda done, total: None,
    *,
    accept_losses: bool = False,
    say: Say = lambda sentence: None,
) -> packed.PackedSet:
    """Prepares a data set, unless it already is there and the same; goes on where it was cut off.

    A size alone is short for `Preprocess(size)`. How many channels there are the source says.

    Images that cannot be used are set aside and listed in the manifest: up to 0.1 % of them, or up to 5 % with
    `accept_losses` (`data/integrity.py`). The set is the same, byte for byte, however often the work was cut off.

    Raises:
        BadInput: the name is taken by another data set or another `prepare`, images look otherwise than when it was
            prepared, a setting is out of range, too many images are lost, no space.
        Damaged: the disk is full or does not keep what is written.
        XliteError: a worker process was killed.
    """
    given = Preprocess(preprocess) if isinstance(preprocess, int) else preprocess
    folder, preprocess = places.data_folder(name), replace(given, channels=source.channels)
    table = replace(source.table(), digests=())
    asked = _described(source, table, preprocess)
    if not (folder / packed.MANIFEST).exists():
        lost = source.lost()
        _expect_tolerable(folder, table, lost, accept_losses)
        _expect_space(folder, len(table) * preprocess.image_bytes)
        with ExitStack() as held:
            with on_disk(folder):
                held.enter_context(storage.alone(folder, f"`prepare {name}`"))
            if not (folder / packed.MANIFEST).exists():
                return _made(folder, source, table, preprocess, asked, lost, accept_losses, progress, say)
    return _same_or_refuse(name, asked, source, preprocess, progress, say)


def _described(source: Source, table: LabelTable, preprocess: Preprocess) -> dict[str, Any]:
    """What a set must agree on to be the one that is asked for."""
    asked = {
        "format": packed.FORMAT,
        "source": source.describe(),
        **preprocess.describe(),
        "classes": table.classes,
        "normal": table.normal,
        "expected": len(table),
        "table_sha256": hashlib.sha256(index_text(table).encode()).hexdigest(),
    }
    return dict(json.loads(json.dumps(asked)))


def _made(
    folder: Path,
    source: Source,
    table: LabelTable,
    preprocess: Preprocess,
    asked: Mapping[str, Any],
    lost: dict[int, Loss],
    accept_losses: bool,
    progress: Progress,
    say: Say,
) -> packed.PackedSet:
    plan = {**asked, "opencv": cv2.__version__}
    lost = dict(lost)
    kept_before = _begun(folder, plan, source, preprocess, lost, say)
    with Unfinished(folder, plan, preprocess.image_bytes, kept_before) as unfinished:
        sha256 = _complete(unfinished, source, table, preprocess, lost, accept_losses, progress)
    rows = [row for row in range(len(table)) if row not in lost]
    kept = [unfinished.kept[row] for row in rows]
    found = _with_what_was_seen(table.part(np.array(rows, np.int64)), kept)
    index, columns = index_text(found).encode(), index_columns(found)
    manifest = plan | {
        "images": len(rows),
        "patients": len(set(found.groups)),
        "set_aside": [[table.names[row], lost[row].reason, table.groups[row]] for row in sorted(lost)],
        "raw_sizes": _raw_sizes(kept),
        "notes": list(table.notes),
        "notice": source.notice,
        "identity_sha256": hashlib.sha256(index_text(found, IDENTITY).encode()).hexdigest(),
        "index_sha256": hashlib.sha256(index).hexdigest(),
        "columns_sha256": hashlib.sha256(columns).hexdigest(),
        "pixels_sha256": sha256,
    }
    unfinished.finish(rows, {packed.INDEX: index, packed.COLUMNS: columns}, [image.stamp for image in kept], manifest)
    if lost:
        some = integrity.some(_named(table, lost))
        say(f"{len(lost):,} of {len(table):,} images are set aside, as {folder / packed.MANIFEST} lists: {some}")
    return packed.PackedSet.open(folder.name)


def _with_what_was_seen(table: LabelTable, kept: list[Kept]) -> LabelTable:
    """The label table with what is known of its images, `[image]`, since they were prepared."""
    sizes = [[int(side) for side in reversed(image.raw_size.split("x"))] for image in kept]
    return replace(
        table,
        digests=tuple(image.digest for image in kept),
        sizes=np.array(sizes, np.int32).reshape(-1, 2),
        boxes={place: image.boxes for place, image in enumerate(kept) if image.boxes},
    )


def _begun(
    folder: Path,
    plan: Mapping[str, Any],
    source: Source,
    preprocess: Preprocess,
    lost: Mapping[int, Loss],
    say: Say,
) -> dict[int, Kept]:
    """The rows that an earlier process prepared, if it was about to make the same set from the same images."""
    before, kept = journalled(folder)
    changed = [name for name in plan if before and before.get(name) != plan[name]]
    found = {row: image for row, image in kept.items() if row not in lost}
    if not changed and kept and not _look_the_same(source, found, preprocess):
        changed = ["what its images look like"]
    if changed:
        say(f"what was begun in {folder} differs in {', '.join(changed)}: it is prepared anew")
        return {}
    stamps = source.stamps() if kept else ()
    same = {row: image for row, image in kept.items() if image.stamp == stamps[row]}
    if kept:
        anew = f"; {len(kept) - len(same):,} files have changed since" if len(same) < len(kept) else ""
        say(f"goes on: {len(same):,} of {plan['expected']:,} images were prepared before{anew}")
    return same


def _look_the_same(source: Source, kept: Mapping[int, Kept], preprocess: Preprocess) -> bool:
    """A few rows, from first to last, give the same pixels again. Those that can no longer be read say nothing."""
    rows = sorted(kept)
    again = decode(source, [rows[place] for place in _spots(len(rows))], preprocess).kept
    return all(kept[row].digest == image.digest for row, image in again.items() if kept[row].stamp == image.stamp)


def _complete(
    unfinished: Unfinished,
    source: Source,
    table: LabelTable,
    preprocess: Preprocess,
    lost: dict[int, Loss],
    accept_losses: bool,
    progress: Progress,
) -> str:
    """Fills every slot but those of `lost`, to which it adds; returns the sha256 of all pixels in order."""
    for _ in range(ATTEMPTS):
        missing = [row for row in range(len(table)) if row not in lost and row not in unfinished.kept]
        done = len(table) - len(missing)
        if missing:
            progress(done, len(table))
        with closing(decoded(source, missing, preprocess)) as chunks:
            for chunk in chunks:
                unfinished.add(chunk)
                lost.update(chunk.lost)
                _expect_tolerable(unfinished.folder, table, lost, accepted=True)
                done += len(chunk.kept) + len(chunk.lost)
                progress(done, len(table))
        _expect_tolerable(unfinished.folder, table, lost, accept_losses)
        damaged, sha256 = unfinished.check([row for row in range(len(table)) if row not in lost])
        if not damaged:
            return sha256
    raise Damaged(f"{unfinished.folder}: what is written there comes back changed; prepare on another disk")


def _expect_tolerable(folder: Path, table: LabelTable, lost: Mapping[int, Loss], accepted: bool) -> None:
    if integrity.tolerable(len(table), len(lost), accepted=accepted):
        return
    named = _named(table, lost)
    listed = storage.csv_text(("name", "reason"), [(name, loss.reason) for name, loss in named])
    with on_disk(folder):
        storage.write_atomic(folder / LOST, listed.encode())
    raise BadInput(integrity.refusal(len(table), named, folder / LOST))


def _named(table: LabelTable, lost: Mapping[int, Loss]) -> list[tuple[str, Loss]]:
    return [(table.names[row], lost[row]) for row in sorted(lost)]


def _raw_sizes(kept: list[Kept]) -> dict[str, int]:
    """How many images had which size, the commonest first; the rare ones of a motley set together as `other`."""
    counts = sorted(Counter(image.raw_size for image in kept).items(), key=lambda size: (-size[1], size[0]))
    rare = sum(count for _, count in counts[SIZES_LISTED:])
    return dict(counts[:SIZES_LISTED]) | ({"other": rare} if rare else {})


def _same_or_refuse(
    name: str, asked: Mapping[str, Any], source: Source, preprocess: Preprocess, progress: Progress, say: Say
) -> packed.PackedSet:
    there = packed.PackedSet.open(name)
    differs = [key for key in asked if there.manifest.get(key) != asked[key]]
    if differs:
        raise BadInput(
            f"data set '{name}' exists and differs in {', '.join(differs)}; take another name, or remove {there.folder}"
        )
    there.verify()
    _expect_the_same_images(there, source, preprocess, progress, say)
    if (there.folder / JOURNAL).exists():
        tidy(there.folder)
    if there.set_aside:
        share = f"{len(there.set_aside):,} of {asked['expected']:,}"
        say(f"{share} images were set aside when it was prepared; to try them again, remove {there.folder}")
    return there


def _expect_the_same_images(
    there: packed.PackedSet, source: Source, preprocess: Preprocess, progress: Progress, say: Say
) -> None:
    """Prepares again the images whose files changed, and a few others, from first to last.

    Raises:
        BadInput: one looks otherwise than in the set.
    """
    row_of = {name: row for row, name in enumerate(source.table().names)}
    stamps, rows = source.stamps(), [row_of[name] for name in there.table.names]
    now = [stamps[row] for row in rows]
    known = there.stamps
    changed = {place for place, stamp in enumerate(now) if stamp and stamp != known.get(place)}
    if changed:
        say(f"{len(changed):,} of {len(now):,} files have changed since it was prepared: they are compared")
    place_of = {rows[place]: place for place in {*changed, *_spots(len(there))}}
    done, unread = 0, dict[int, Loss]()
    with closing(decoded(source, sorted(place_of), preprocess)) as chunks:
        for chunk in chunks:
            for row, image in chunk.kept.items():
                if image.digest != there.table.digests[place_of[row]]:
                    _refuse_other_image(there, place_of[row])
            unread.update((place_of[row], loss) for row, loss in chunk.lost.items())
            done += len(chunk.kept) + len(chunk.lost)
            if changed:
                progress(done, len(place_of))
    if unread := {place: loss for place, loss in unread.items() if place in changed}:
        some = integrity.some([(there.table.names[place], unread[place]) for place in sorted(unread)])
        say(f"{len(unread):,} of them cannot be read: {some}; the data set has their images as they were")
    if changed:
        there.remember([known.get(place, "") if place in unread else stamp for place, stamp in enumerate(now)])


def _refuse_other_image(there: packed.PackedSet, place: int) -> NoReturn:
    raise BadInput(
        f"data set '{there.folder.name}' exists and was made from other images: {there.table.names[place]} looks "
        f"otherwise; take another name, or remove {there.folder}"
    )


def _spots(count: int) -> list[int]:
    """A few places of `count`, from first to last."""
    return sorted({int(place) for place in np.linspace(0, count - 1, SPOT_CHECKS)}) if count else []


def _expect_space(folder: Path, needed: int) -> None:
    slots = folder / SLOTS
    if slots.exists():
        about = slots.stat()
        needed -= min(needed, getattr(about, "st_blocks", about.st_size // 512) * 512)
    free = shutil.disk_usage(places.nearest_folder(folder)).free
    if free < needed * 1.05:
        raise BadInput(
            f"{folder.parent}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free; make room, or set XLITE_DATA"
        )
