from __future__ import annotations

import builtins
import csv
import errno
import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save

from xlite_search import places, storage
from xlite_search.data import decoding, integrity, processes, unfinished
from xlite_search.data import prepare as preparing
from xlite_search.data.boxes import Box
from xlite_search.data.index import KEYS, index_columns, index_text, read_columns, table_of
from xlite_search.data.packed import COLUMNS, INDEX, MANIFEST, PIXELS, STAMPS, PackedSet, digest_of
from xlite_search.data.prepare import prepare
from xlite_search.data.preprocess import Preprocess
from xlite_search.data.sources import LabelTable, Loss, Unreadable, image_key
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.folder import NO_FILE, Folder
from xlite_search.data.sources.labels import write_labels
from xlite_search.data.sources.phantom import Phantom
from xlite_search.data.unfinished import JOURNAL, LOST, SLOTS
from xlite_search.errors import BadInput, Damaged, XliteError

SIZE = 32
posix = pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")


@dataclass(frozen=True)
class Noise:
    """Cheap images of random pixels. `gone` are lost before anything is read, `broken` cannot be read.

    `tried` collects the rows whose pixels were asked for, in this process.
    """

    images: int = 20
    gone: tuple[int, ...] = ()
    broken: tuple[int, ...] = ()
    look: int = 0
    finding: int = 0
    says: str = "cut off"
    notice: str = ""
    tried: list[int] = field(default_factory=list, compare=False)

    @property
    def channels(self) -> int:
        return 1

    def boxes(self, row: int) -> tuple[Box, ...]:
        return ()

    def describe(self) -> dict[str, object]:
        return {"source": "noise", "shape": (40, 36)}

    def table(self) -> LabelTable:
        labels = np.zeros((self.images, 14), np.uint8)
        labels[::3, self.finding] = 1
        rows = range(self.images)
        return LabelTable(
            tuple(f"{row:05d}.png" for row in rows), tuple(str(row // 2) for row in rows), labels, CHEST_FINDINGS
        )

    def stamp(self, row: int) -> str:
        return ""

    def stamps(self) -> tuple[str, ...]:
        return tuple(self.stamp(row) for row in range(self.images))

    def lost(self) -> dict[int, Loss]:
        return dict.fromkeys(self.gone, NO_FILE)

    def pixels(self, row: int) -> NDArray[np.uint8]:
        self.tried.append(row)
        if row in self.broken:
            raise Unreadable(self.says)
        return np.random.default_rng([row, self.look]).integers(0, 256, (40, 36), np.uint8)


class Wrong(Noise):
    """A source with a fault of its own in row 70."""

    def pixels(self, row: int) -> NDArray[np.uint8]:
        if row == 70:
            raise BadInput("install it first") if self.look else ZeroDivisionError("in the reader")
        return super().pixels(row)


class PowerCut(BaseException):
    """Nothing that this process does from here on reaches the disk."""


def files_of(data: PackedSet) -> dict[str, bytes]:
    return {name: (data.folder / name).read_bytes() for name in (MANIFEST, INDEX, COLUMNS, PIXELS)}


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def uncut(source: Any, **options: Any) -> dict[str, bytes]:
    """The files of a set that nothing disturbed."""
    return files_of(prepare("uncut", source, SIZE, **options))


def cut_off(name: str, source: Any, after: int) -> Path:
    """Begins a set and stops when so many images are there."""

    def stop(done: int, total: int) -> None:
        if done >= after:
            raise PowerCut

    with pytest.raises(PowerCut):
        prepare(name, source, SIZE, stop)
    return places.data_folder(name)


@pytest.fixture
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 images, each committed at once, all in this process."""
    monkeypatch.setattr(unfinished, "COMMIT_EVERY_S", 0)
    monkeypatch.setattr(decoding, "CHUNK", 4)
    monkeypatch.setattr(decoding, "FEW", 10**9)


# What is prepared


@pytest.mark.parametrize("shape", [(100, 100), (120, 80), (81, 119), (33, 32)])
@pytest.mark.parametrize("size", [32, 64])
def test_an_image_is_prepared_by_clahe_padding_and_resize_by_opencv(shape: tuple[int, int], size: int) -> None:
    raw = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
    image = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(raw)
    side = max(shape)
    above, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    below, right = side - shape[0] - above, side - shape[1] - left
    padded = cv2.copyMakeBorder(image, above, below, left, right, cv2.BORDER_CONSTANT, value=0)
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    assert np.array_equal(Preprocess(size)(raw)[0], cv2.resize(padded, (size, size), interpolation=how))


def test_an_image_that_is_not_square_is_padded_with_black() -> None:
    (found,) = Preprocess(64)(np.full((32, 64), 200, np.uint8))
    assert not found[:16].any()
    assert not found[48:].any()
    assert found[16:48].all()


def test_real_images_are_prepared(shared: Path) -> None:
    folder = shared / "data" / "chestxray14"
    if not (folder / "images_64").is_dir():
        pytest.skip(f"no {folder / 'images_64'}")
    source = Folder(folder / "images_64", folder / "Data_Entry_images_64.csv")
    data = prepare("real", source, 64)
    data.verify()
    assert (len(data), data.manifest["patients"], data.set_aside) == (1000, 264, {})
    assert data.manifest["raw_sizes"] == {"64x64": 1000}
    assert np.array_equal(data.table.labels, source.table().labels)
    for row in (0, 499, 999):
        assert np.array_equal(data.pixels[row], Preprocess(64)(source.pixels(row)))
        assert data.table.digests[row] == digest_of(data.pixels[row].tobytes())
    assert "CVPR 2017" in data.manifest["notice"]


def test_preparing_twice_is_the_same_set_looks_at_few_images_and_writes_nothing() -> None:
    source = Noise()
    first = prepare("a", source, SIZE)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    source.tried.clear()
    assert prepare("a", source, SIZE) == first
    assert len(source.tried) <= preparing.SPOT_CHECKS < len(first)
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before


def test_preparing_leaves_one_folder_of_four_files_and_a_lock() -> None:
    data = prepare("a", Noise(broken=(3,)), SIZE, accept_losses=True)
    assert [path.name for path in places.data_root().iterdir()] == ["a"]
    assert {path.name for path in data.folder.iterdir()} - {"lock"} == {MANIFEST, INDEX, COLUMNS, PIXELS, STAMPS}


def test_many_processes_give_the_bytes_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Phantom(images=100, size=48)
    many = files_of(prepare("many", source, SIZE))
    monkeypatch.setattr(decoding, "FEW", 101)
    monkeypatch.setattr(decoding, "_by_workers", None)
    assert files_of(prepare("one", source, SIZE)) == many
    monkeypatch.setattr(decoding, "CHUNK", 7)
    assert files_of(prepare("odd", source, SIZE)) == many


@pytest.mark.parametrize(
    ("source", "size", "differs"),
    [
        (Noise(), 40, "size"),
        (Noise(21), SIZE, "expected, table_sha256"),
        (Noise(finding=1), SIZE, "table_sha256"),
        (Phantom(images=20, size=48), SIZE, "source, table_sha256"),
    ],
)
def test_a_name_that_is_taken_by_another_set_is_refused(source: Any, size: int, differs: str) -> None:
    before = files_of(prepare("a", Noise(), SIZE))
    with pytest.raises(BadInput, match=f"'a' exists and differs in {differs}; take another name, or remove"):
        prepare("a", source, size)
    assert files_of(PackedSet.open("a")) == before


@pytest.mark.parametrize("size", [0, 31, 1025])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(BadInput, match=f"--size {size}: expected 32 to 1024"):
        prepare("a", Noise(), size)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../a", "a b", "a\\b"])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="use letters, digits"):
        prepare(name, Noise(), SIZE)


def test_a_full_disk_is_told_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(BadInput, match="make room, or set XLITE_DATA"):
        prepare("a", Noise(), SIZE)
    assert not places.data_root().exists()


@pytest.mark.usefixtures("fine")
def test_what_is_written_already_needs_no_more_space(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Noise(400)
    cut_off("a", source, 396)
    free = 40 * SIZE * SIZE
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))
    assert len(prepare("a", source, SIZE)) == 400
    with pytest.raises(BadInput, match="make room"):
        prepare("b", source, SIZE)


# The packed set


def test_a_set_that_is_not_prepared_says_how_to() -> None:
    with pytest.raises(
        BadInput, match=r"'chestxray14' is not prepared.*prepare chestxray14 --images DIR --labels CSV`$"
    ):
        PackedSet.open("chestxray14")


def test_a_misspelt_set_suggests_one_that_is_prepared() -> None:
    prepare("nih64", Noise(), SIZE)
    with pytest.raises(BadInput, match=r"'nih46' is not prepared in .*; did you mean 'nih64'\? Else prepare it with `"):
        PackedSet.open("nih46")


def test_a_set_of_another_format_is_never_read() -> None:
    data = prepare("a", Noise(), SIZE)
    for number in (None, 3, 5):
        older = data.manifest | {"format": number}
        storage.write_manifest(data.folder / MANIFEST, older)
        with pytest.raises(BadInput, match=r"'a' was prepared by another version.*remove .*prepare it again"):
            PackedSet.open("a")
        with pytest.raises(BadInput, match="prepare it again"):
            prepare("a", Noise(), SIZE)


def test_a_packed_set_pickles_as_a_path(phantom: PackedSet) -> None:
    assert phantom.pixels.any()
    assert len(phantom.table) == len(phantom)
    carried = pickle.dumps(phantom)
    assert len(carried) < 4000
    again = pickle.loads(carried)
    assert again == phantom
    assert np.array_equal(again.pixels, phantom.pixels)


def test_pixels_are_mapped_and_cannot_be_written(phantom: PackedSet) -> None:
    assert isinstance(phantom.pixels, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        phantom.pixels[0, 0, 0, 0] = 1


def test_an_undamaged_set_is_verified(phantom: PackedSet) -> None:
    phantom.verify()


@pytest.mark.parametrize("file", [PIXELS, INDEX, COLUMNS])
@pytest.mark.parametrize("place", [0, 1000, -1])
def test_verify_finds_a_flipped_bit(file: str, place: int, phantom: PackedSet) -> None:
    flip(phantom.folder / file, place)
    with pytest.raises(Damaged, match=f"{file} is missing or damaged"):
        phantom.verify()


@pytest.mark.parametrize("file", [PIXELS, INDEX, COLUMNS])
def test_verify_finds_a_missing_or_shortened_file(file: str, phantom: PackedSet) -> None:
    os.truncate(phantom.folder / file, 500)
    with pytest.raises(Damaged, match=file):
        phantom.verify()
    (phantom.folder / file).unlink()
    with pytest.raises(Damaged, match=file):
        phantom.verify()


@pytest.mark.parametrize("change", [(b"Mass", b"Edema"), (b"PA", b"AP"), (b"00000001", b"00000002")])
def test_a_changed_index_is_never_read(change: tuple[bytes, bytes], phantom: PackedSet) -> None:
    path = phantom.folder / INDEX
    before = path.read_bytes()
    path.write_bytes(before.replace(change[0], change[1], 1))
    assert path.read_bytes() != before
    with pytest.raises(Damaged, match=INDEX):
        _ = phantom.table


def test_a_damaged_manifest_is_never_used(phantom: PackedSet) -> None:
    flip(phantom.folder / MANIFEST, 200)
    with pytest.raises(Damaged, match=MANIFEST):
        PackedSet.open(phantom.folder.name)


@pytest.mark.parametrize("file", [INDEX, COLUMNS])
def test_an_index_is_not_read_if_either_of_its_forms_is_damaged(file: str, phantom: PackedSet) -> None:
    raw = (phantom.folder / file).read_bytes()
    for place in (0, len(raw) // 2, -1):
        flip(phantom.folder / file, place)
        for read in ("table", "labels", "keys"):
            with pytest.raises(Damaged, match=f"{file} is missing or damaged: remove"):
                getattr(PackedSet.open(phantom.folder.name), read)
        (phantom.folder / file).write_bytes(raw)
    (phantom.folder / file).unlink()
    with pytest.raises(Damaged, match=f"{file} is missing or damaged"):
        _ = phantom.table


def test_the_columns_say_what_the_csv_says(phantom: PackedSet) -> None:
    """Read by Python's own `csv`, and with the hash of a name as `image_key` has it."""
    lines = list(csv.DictReader((phantom.folder / INDEX).read_text().splitlines()))
    table = phantom.table
    assert [line["name"] for line in lines] == list(table.names)
    assert [line["patient"] for line in lines] == list(table.groups)
    assert [line["digest"] for line in lines] == list(table.digests)
    words = ["|".join(np.array(table.classes)[row == 1]) for row in phantom.labels]
    assert [line["findings"] for line in lines] == words
    assert phantom.keys.tolist() == [image_key(name) for name in table.names]
    assert not phantom.labels.flags.writeable


@pytest.mark.parametrize("name", [KEYS, "patient"])
def test_verify_compares_the_two_forms_of_the_index(name: str, phantom: PackedSet) -> None:
    """A file of columns that carries the right checksum, and is of another table."""
    path = phantom.folder / COLUMNS
    columns = {key: column.copy() for key, column in phantom.columns.items()}
    columns[name][[8, 9]] = columns[name][[9, 8]]
    assert not np.array_equal(columns[name], phantom.columns[name])
    storage.write_atomic(path, save(columns))
    manifest = phantom.manifest | {"columns_sha256": storage.sha256_of(path)}
    storage.write_manifest(phantom.folder / MANIFEST, manifest)
    with pytest.raises(Damaged, match=f"{COLUMNS} says something else than {INDEX} beside it"):
        PackedSet.open(phantom.folder.name).verify()


@pytest.mark.parametrize("digests", [(), tuple(f"{row:016x}" for row in range(50))])
def test_the_index_is_read_as_it_was_written(digests: tuple[str, ...]) -> None:
    table = replace(Phantom(images=50).table(), digests=digests)
    again = table_of(read_columns(index_columns(table)), table.classes)
    assert np.array_equal(again.labels, table.labels)
    assert (again.names, again.groups, again.projections) == (table.names, table.groups, table.projections)
    assert again.digests == digests
    assert index_text(again) == index_text(table)


def test_any_text_comes_back_from_the_columns() -> None:
    names = ("a,b.png", 'say "so"', "two\nlines", "nul\0", "\u00e4\u4e2d", "")
    table = LabelTable(names, tuple(reversed(names)), np.eye(6, 2, dtype=np.uint8), ("Mass", "Hernia"))
    again = table_of(read_columns(index_columns(table)), table.classes)
    assert (again.names, again.groups, again.projections) == (names, names[::-1], ())
    none = LabelTable((), (), np.zeros((0, 2), np.uint8), ("Mass", "Hernia"))
    assert len(table_of(read_columns(index_columns(none)), none.classes)) == 0


def test_the_fingerprint_follows_labels_and_pixels_and_not_the_name() -> None:
    prints = {
        "same": prepare("a", Noise(), SIZE).fingerprint,
        "again": prepare("b", Noise(notice="cite us"), SIZE).fingerprint,
        "size": prepare("c", Noise(), SIZE + 1).fingerprint,
        "labels": prepare("d", Noise(finding=1), SIZE).fingerprint,
        "pixels": prepare("e", Noise(look=1), SIZE).fingerprint,
    }
    assert prints.pop("again") == prints["same"]
    assert len(set(prints.values())) == 4


# Cut off


SCRIPT = """
import signal
from xlite_search.data import decoding, unfinished
from xlite_search.data.prepare import prepare
from xlite_search.data.sources.labels import write_labels
from xlite_search.data.sources.phantom import Phantom

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are deaf to it
    unfinished.COMMIT_EVERY_S, decoding.CHUNK = 0, 4
    prepare("a", Phantom(images=120, size=48), 32, lambda done, total: print(done, flush=True))
"""


def started(folder: Path) -> subprocess.Popen[str]:
    """A process that prepares 120 images, in 4s, and says how many are there."""
    script = folder / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, str(script)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=folder
    )


def counts(process: subprocess.Popen[str]) -> Iterator[int]:
    assert process.stdout
    yield from (int(line) for line in process.stdout)


@posix
def test_killed_at_ten_random_moments_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    first_counts = []
    for threshold in sorted([0, *(chance.randrange(120) for _ in range(8)), 120]):
        process = started(tmp_path)
        seen = -1
        for count in counts(process):
            first_counts += [count] if seen < 0 else []
            seen = count
            if count >= threshold:
                break
        with suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, 0.02))
        process.kill()
        _, complaints = process.communicate()  # ends when the last worker has left
        # a worker that was started, and not yet told what it is, says so
        assert complaints == "" or complaints.endswith("EOFError: Ran out of input\n")
    assert first_counts == sorted(first_counts)
    assert first_counts[-1] > 0
    source = Phantom(images=120, size=48)
    assert files_of(prepare("a", source, SIZE)) == uncut(source)


@posix
@pytest.mark.parametrize("after", [0, 20])
def test_ctrl_c_ends_it_without_a_word_from_the_workers(after: int, tmp_path: Path) -> None:
    process = started(tmp_path)
    assert next(count for count in counts(process) if count >= after) < 120
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.05)  # while they are starting, if `after` is 0
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert said.count("Traceback") == 1
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert "spawn" not in said
    kept = unfinished.journalled(places.data_folder("a"))[1]
    assert after <= len(kept) < 120


class Disk:
    """Counts what reaches the disk, and fails at step `fails_at`, in the middle of a write if it is one.

    With `error` it fails once, without for ever.
    """

    def __init__(self, patch: pytest.MonkeyPatch, fails_at: int = -1, error: OSError | None = None) -> None:
        self.fails_at, self.error, self.steps = fails_at, error, list[str]()
        self.names: dict[int, str] = {}
        really = os.replace, Path.unlink

        def rename(old: Path, new: Path) -> None:
            self.step(f"replace {Path(new).name}")
            really[0](old, new)

        def unlink(path: Path, missing_ok: bool = False) -> None:
            self.step(f"unlink {path.name}")
            really[1](path, missing_ok)

        patch.setattr(os, "fsync", lambda handle: self.step(f"fsync {self.names.get(handle, 'folder')}"))
        patch.setattr(os, "replace", rename)
        patch.setattr(Path, "unlink", unlink)
        for module in (unfinished, storage):
            patch.setattr(module, "open", self.open, raising=False)

    def open(self, path: Path, mode: str, **how: int) -> Any:
        if mode == "rb":
            return builtins.open(path, mode, **how)  # type: ignore[call-overload]
        self.step(f"open {path.name}")
        file = builtins.open(path, mode, buffering=0)  # noqa: SIM115
        self.names[file.fileno()] = path.name.partition(f".{os.getpid()}")[0]
        return Written(file, self)

    def step(self, what: str) -> None:
        self.steps.append(what)
        if len(self.steps) - 1 == self.fails_at and self.error:
            raise self.error
        if 0 <= self.fails_at < len(self.steps) and not self.error:
            raise PowerCut


class Written:
    def __init__(self, file: Any, disk: Disk) -> None:
        self.file, self.disk = file, disk

    def write(self, data: bytes) -> None:
        name = self.disk.names[self.file.fileno()]
        try:
            self.disk.step(f"write {name}")
        except BaseException:
            if len(self.disk.steps) - 1 == self.disk.fails_at:
                self.file.write(data[: len(data) // 2])
            raise
        self.file.write(data)

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


SOURCES = [Noise(), Noise(broken=(19,)), Noise(gone=(7,))]
each_source = pytest.mark.parametrize("source", SOURCES, ids=["whole", "last broken", "one gone"])


@pytest.fixture
def coarse(fine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chunks, of 10 images each: few steps, of every kind."""
    monkeypatch.setattr(decoding, "CHUNK", 10)
    monkeypatch.setattr(preparing, "SPOT_CHECKS", 1)


@pytest.mark.usefixtures("coarse")
@each_source
def test_cut_off_at_every_step_it_goes_on_to_the_same_bytes(source: Noise) -> None:
    wanted = uncut(source, accept_losses=True)
    with pytest.MonkeyPatch.context() as patch:
        steps = Disk(patch).steps
        prepare("count", source, SIZE, accept_losses=True)
    assert len(steps) > 35
    for step in range(len(steps)):
        for again in (step % 7 + 1, 10**6):  # the work that goes on is cut off too, once
            for fails_at in (step, again):
                with pytest.MonkeyPatch.context() as patch, suppress(PowerCut):
                    Disk(patch, fails_at)
                    prepare("a", source, SIZE, accept_losses=True)
        data = prepare("a", source, SIZE, accept_losses=True)
        assert files_of(data) == wanted, steps[step]
        left = {path.name for path in data.folder.iterdir()} - {"lock", "lock.owner"}
        assert left == {MANIFEST, INDEX, COLUMNS, PIXELS, STAMPS}, steps[step]
        shutil.rmtree(data.folder)


@pytest.mark.usefixtures("coarse")
@each_source
def test_a_full_disk_at_any_step_is_told_in_a_sentence_and_it_goes_on_later(source: Noise) -> None:
    wanted = uncut(source, accept_losses=True)
    with pytest.MonkeyPatch.context() as patch:
        steps = Disk(patch).steps
        prepare("count", source, SIZE, accept_losses=True)
    end = steps.index(f"replace {MANIFEST}")
    for step in range(end):
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, step, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            with pytest.raises(Damaged, match=r"cannot be used \(No space left.*the same command again") as caught:
                prepare("a", source, SIZE, accept_losses=True)
            assert caught.value.exit_code == 3
            assert "\n" not in str(caught.value)
        assert files_of(prepare("a", source, SIZE, accept_losses=True)) == wanted, steps[step]
        shutil.rmtree(places.data_folder("a"))


@pytest.mark.usefixtures("fine")
@each_source
def test_pixels_are_synced_before_what_names_them(source: Noise, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Disk(monkeypatch).steps
    prepare("a", source, SIZE, accept_losses=True)
    unsynced: set[str] = set()
    lines = 0
    for step in steps:
        what, name = step.split()
        if what == "write" and name == JOURNAL:
            assert SLOTS not in unsynced
            lines += 1
        if what == "replace":
            assert name not in unsynced
            assert f"{name}.tmp" not in unsynced
        if what == "replace" and name == MANIFEST:
            assert unsynced == set()
        unsynced = {"write": unsynced | {name}, "fsync": unsynced - {name}}.get(what, unsynced)
    assert lines == 1 + 5


@pytest.mark.usefixtures("fine")
@settings(max_examples=40, deadline=None)
@given(
    file=st.sampled_from([SLOTS, JOURNAL]),
    place=st.floats(0, 1, exclude_max=True),
    how=st.sampled_from(["cut", "flip", "blank", "append", "remove"]),
    late=st.sampled_from([4, 12, 20]),
)
def test_whatever_happens_to_what_was_begun_it_ends_in_the_same_bytes(
    file: str, place: float, how: str, late: int
) -> None:
    source = Noise()
    folder = cut_off("a", source, late)
    path = folder / file
    data = path.read_bytes()
    at = int(place * len(data))
    changed = {
        "cut": data[:at],
        "flip": data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :],
        "blank": data[:at] + bytes(len(data) - at),
        "append": data + data[at:],
    }
    path.write_bytes(changed[how]) if how in changed else path.unlink()
    found = files_of(prepare("a", source, SIZE))
    shutil.rmtree(folder)
    assert found == uncut(source)


@pytest.mark.usefixtures("fine")
def test_only_what_is_not_there_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "SPOT_CHECKS", 1)
    source, said = Noise(), list[str]()
    folder = cut_off("a", source, 12)
    flip(folder / SLOTS, 5 * SIZE * SIZE + 100)
    source.tried.clear()
    seen: list[tuple[int, int]] = []
    prepare("a", source, SIZE, lambda done, total: seen.append((done, total)), say=said.append)
    assert source.tried == [0, *range(12, 20), 5]
    assert seen[:3] == [(12, 20), (16, 20), (20, 20)]
    assert said == ["goes on: 12 of 20 images were prepared before"]


@pytest.mark.usefixtures("coarse")
@each_source
def test_cut_off_at_the_end_nothing_is_decoded_twice(source: Noise) -> None:
    with pytest.MonkeyPatch.context() as patch:
        steps = Disk(patch).steps
        prepare("count", source, SIZE, accept_losses=True)
    with pytest.MonkeyPatch.context() as patch, suppress(PowerCut):
        Disk(patch, steps.index(f"replace {MANIFEST}"))
        prepare("a", source, SIZE, accept_losses=True)
    source.tried.clear()
    prepare("a", source, SIZE, accept_losses=True)
    assert source.tried == [0, *source.broken]


@pytest.mark.usefixtures("fine")
def test_what_is_stopped_and_not_killed_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "COMMIT_EVERY_S", 10**9)
    assert list(unfinished.journalled(cut_off("a", Noise(), 12))[1]) == list(range(12))


@pytest.mark.usefixtures("fine")
def test_a_torn_line_costs_its_chunk_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "SPOT_CHECKS", 1)
    source = Noise()
    journal = cut_off("a", source, 12) / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-20])
    source.tried.clear()
    cut_off("a", source, 12)  # another cut, after new lines were written behind the torn one
    prepare("a", source, SIZE)
    assert source.tried == [0, *range(8, 12), 0, *range(12, 20)]


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize(
    ("other", "size", "says"),
    [
        (Noise(look=1), SIZE, "what its images look like"),
        (Noise(finding=1), SIZE, "table_sha256"),
        (Noise(21), SIZE, "expected, table_sha256"),
        (Noise(), 40, "size"),
        (Phantom(images=20, size=40), SIZE, "source, table_sha256"),
    ],
)
def test_what_was_begun_from_something_else_is_not_gone_on_with(other: Any, size: int, says: str) -> None:
    said: list[str] = []
    folder = cut_off("a", Noise(), 12)
    found = prepare("a", other, size, say=said.append)
    assert said == [f"what was begun in {folder} differs in {says}: it is prepared anew"]
    assert files_of(found) == files_of(prepare("b", other, size))


@pytest.mark.usefixtures("fine")
def test_another_opencv_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off("a", Noise(), 12)
    said: list[str] = []
    monkeypatch.setattr(cv2, "__version__", "4.0")
    prepare("a", Noise(), SIZE, say=said.append)
    assert "differs in opencv" in said[0]
    monkeypatch.undo()


@pytest.mark.usefixtures("fine")
def test_a_disk_that_returns_something_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished.Unfinished, "_read", lambda self, rows: ((row, b"?") for row in rows))
    with pytest.raises(Damaged, match="comes back changed; prepare on another disk"):
        prepare("a", Noise(), SIZE)
    with pytest.raises(BadInput, match="not prepared"):
        PackedSet.open("a")


def test_a_second_prepare_of_the_same_name_is_refused_and_harmless() -> None:
    refused: list[str] = []

    def second(done: int, total: int) -> None:
        with pytest.raises(
            BadInput, match=r"`prepare a` is being run by process \d+ on \S+ since \d\d:\d\d;"
        ) as caught:
            prepare("a", Noise(), SIZE)
        refused.append(str(caught.value))
        prepare("b", Noise(), SIZE)

    data = prepare("a", Noise(), SIZE, second)
    assert refused
    assert files_of(data) == files_of(PackedSet.open("b"))


# Worker processes


def test_a_killed_worker_is_told_in_a_sentence_and_it_goes_on() -> None:
    source = Phantom(images=120, size=48)

    def kill(done: int, total: int) -> None:
        if done >= 30:
            multiprocessing.active_children()[0].kill()

    with pytest.raises(
        XliteError, match=r"ended from outside .*memory ran out.*start the same command again"
    ) as caught:
        prepare("a", source, SIZE, kill)
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []
    seen: list[int] = []
    assert files_of(prepare("a", source, SIZE, lambda done, total: seen.append(done))) == uncut(source)
    assert 30 <= seen[0] < 120


def test_a_readers_own_fault_is_shown_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError: in the reader"):
        prepare("a", Wrong(100), SIZE)
    with pytest.raises(BadInput, match=r"^install it first$"):
        prepare("a", Wrong(100, look=1), SIZE)
    assert multiprocessing.active_children() == []


def test_a_slow_writer_is_not_overrun() -> None:
    handed, workers = 0, 2

    def chunks() -> Iterator[list[int]]:
        nonlocal handed
        for start in range(0, 120, 4):
            handed += 1
            yield list(range(start, start + 4))

    rows: list[int] = []
    started = processes.start(workers, decoding._decoder, Phantom(images=120, size=32), Preprocess(SIZE))
    for got, chunk in enumerate(decoding._by_workers(started, chunks()), start=1):
        assert handed - got <= decoding.AHEAD * workers
        assert chunk.pixels.shape == (4, 1, SIZE, SIZE)
        rows += chunk.kept
    processes.stop(started)
    assert sorted(rows) == list(range(120))


@pytest.mark.parametrize(("size", "longest"), [(32, 16), (224, 16), (1024, 8)])
def test_a_chunk_is_of_few_megabytes(size: int, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def count(source: Any, rows: list[int], size: int) -> None:
        asked.append(len(rows))

    monkeypatch.setattr(decoding, "decode", count)
    list(decoding.decoded(Noise(), list(range(40)), Preprocess(size)))
    assert (max(asked), sum(asked)) == (longest, 40)


# What is lost


@pytest.mark.usefixtures("fine")
def test_one_in_a_thousand_is_set_aside_and_listed() -> None:
    said: list[str] = []
    data = prepare("a", Noise(1000, broken=(4,)), SIZE, say=said.append)
    assert data.set_aside == {"00004.png": "cut off"}
    assert data.manifest["set_aside"] == [["00004.png", "cut off", "2"]]
    assert (data.manifest["expected"], len(data), data.manifest["patients"]) == (1000, 999, 500)
    assert data.manifest["raw_sizes"] == {"36x40": 999}
    assert "00004.png" not in data.table.names
    whole = prepare("b", Noise(1000), SIZE)
    rest = np.delete(np.arange(1000), 4)
    assert data.table.digests == whole.table.part(rest).digests
    assert np.array_equal(data.pixels, whole.pixels[rest])
    assert len(said) == 1
    assert "1 of 1,000 images are set aside" in said[0]
    prepare("a", Noise(1000), SIZE, say=said.append)
    assert "1 of 1,000 images were set aside when it was prepared; to try them again, remove" in said[1]


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize("known", [True, False])
def test_more_than_one_in_a_thousand_wants_to_be_accepted(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "SPOT_CHECKS", 1)
    bad = (4, 8, 15, 16, 23)
    source = Noise(100, gone=bad) if known else Noise(100, broken=bad)
    why = "no such file" if known else "cut off"
    with pytest.raises(BadInput) as caught:
        prepare("a", source, SIZE)
    listing = places.data_folder("a") / LOST
    first = f"00004.png ({why}), 00008.png ({why}), 00015.png ({why}), ..."
    what = "fetch them, prepare what is there with --incomplete," if known else "fetch them again,"
    assert str(caught.value) == (
        f"5 of 100 images cannot be used, which is more than 0.1 %: {first}; {listing} lists them: {what} "
        "or go on without them with --accept-losses"
    )
    assert listing.read_text(encoding="utf-8").splitlines() == ["name,reason", *(f"{r:05d}.png,{why}" for r in bad)]
    assert source.tried == ([] if known else list(range(100)))
    source.tried.clear()
    data = prepare("a", source, SIZE, accept_losses=True)
    assert (len(data), list(data.set_aside.values())) == (95, [why] * 5)
    assert source.tried == ([row for row in range(100) if row not in bad] if known else [0, *bad])
    data.verify()


@pytest.mark.usefixtures("fine")
def test_what_is_fetched_again_is_taken_up() -> None:
    with pytest.raises(BadInput, match="--accept-losses"):
        prepare("a", Noise(100, broken=(50,), gone=(60,)), SIZE)
    assert files_of(prepare("a", Noise(100), SIZE)) == uncut(Noise(100))


@pytest.mark.usefixtures("fine")
def test_more_than_five_in_a_hundred_ends_it_as_soon_as_it_is_certain() -> None:
    known = Noise(100, gone=tuple(range(6)))
    found = Noise(100, broken=tuple(range(10, 90)))
    for source, tried in ((known, 0), (found, 16)):
        with pytest.raises(BadInput, match=r"6 of 100 .* more than 5 %: .*or take them out of the label table"):
            prepare("a", source, SIZE, accept_losses=True)
        assert len(source.tried) == tried
    assert len(prepare("b", Noise(100, broken=tuple(range(5))), SIZE, accept_losses=True)) == 95


def test_lost_images_are_set_aside_by_workers_too() -> None:
    source = Noise(100, broken=(64, 99))
    assert files_of(prepare("a", source, SIZE, accept_losses=True))[MANIFEST] == uncut_here(source)[MANIFEST]


def uncut_here(source: Noise) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "FEW", 10**9)
        return uncut(source, accept_losses=True)


def test_an_odd_size_is_visible_and_a_motley_set_is_not_endless() -> None:
    def sized(*counts: int) -> list[decoding.Kept]:
        return [decoding.Kept("", f"{n}x1", "") for n, count in enumerate(counts) for _ in range(count)]

    assert list(preparing._raw_sizes(sized(1, 5, 5)[::-1]).items()) == [("1x1", 5), ("2x1", 5), ("0x1", 1)]
    motley = preparing._raw_sizes(sized(*range(30, 0, -1)))
    assert len(motley) == preparing.SIZES_LISTED + 1
    assert (sum(motley.values()), motley["other"]) == (465, 55)
    assert json.dumps(motley)


def test_the_bounds_are_inclusive() -> None:
    def ok(lost: int, accepted: bool, expected: int = 112_120) -> bool:
        return integrity.tolerable(expected, lost, accepted=accepted)

    assert (ok(0, False), ok(112, False), ok(113, False)) == (True, True, False)
    assert (ok(113, True), ok(5606, True), ok(5607, True)) == (True, True, False)
    assert (ok(0, False, 1), ok(1, False, 999), ok(1, False, 1000), ok(1, True, 19), ok(1, True, 20)) == (
        *(True, False, True),
        *(False, True),
    )


def test_a_folder_that_cannot_be_made_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XLITE_DATA", str(tmp_path / "file"))
    with pytest.raises(Damaged, match="cannot be used"):
        prepare("a", Noise(), SIZE)


def test_a_set_is_vouched_for_only_if_it_is_whole(phantom: PackedSet) -> None:
    source = Phantom(images=len(phantom), size=64)
    assert prepare(phantom.folder.name, source, phantom.size) == phantom
    flip(phantom.folder / PIXELS, 999)
    with pytest.raises(Damaged, match=PIXELS):
        prepare(phantom.folder.name, source, phantom.size)


class Inverted(Noise):
    """The same table, other pictures."""

    def pixels(self, row: int) -> NDArray[np.uint8]:
        return 255 - super().pixels(row)


def test_a_set_of_other_images_is_not_the_same() -> None:
    data = prepare("a", Noise(), SIZE)
    with pytest.raises(BadInput, match=f"made from other images: {data.table.names[0]} looks otherwise"):
        prepare("a", Inverted(), SIZE)


def test_files_that_were_replaced_meanwhile_are_prepared_again(tmp_path: Path) -> None:
    phantom = Phantom(images=40, size=48)
    table = phantom.table()
    (tmp_path / "png").mkdir()
    for row, name in enumerate(table.names):
        cv2.imwrite(str(tmp_path / "png" / name), phantom.pixels(row))
    write_labels(tmp_path / "labels.csv", table)

    def stop(done: int, total: int) -> None:
        if done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("a", Folder(tmp_path / "png", tmp_path / "labels.csv"), 32, stop)
    mended = 255 - phantom.pixels(3)
    cv2.imwrite(str(tmp_path / "png" / table.names[3]), mended)
    said: list[str] = []
    data = prepare("a", Folder(tmp_path / "png", tmp_path / "labels.csv"), 32, say=said.append)
    assert "1 files have changed since" in said[0]
    assert np.array_equal(data.pixels[3], Preprocess(32)(mended))
    assert prepare("b", Folder(tmp_path / "png", tmp_path / "labels.csv"), 32).fingerprint == data.fingerprint
