from __future__ import annotations

import csv
import gzip
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from xlite_search import places
from xlite_search.data.loaders import DataSpec, open_data
from xlite_search.data.packed import INDEX, MANIFEST, PIXELS, PackedSet, index_text, read_index
from xlite_search.data.prepare import enhance, prepare
from xlite_search.data.sources import CHEST_FINDINGS
from xlite_search.data.sources.chestxray14 import ChestXray14
from xlite_search.data.sources.phantom import Phantom
from xlite_search.errors import BadInput, Damaged

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,View Position"
ROWS = (
    "00000001_000.png,Cardiomegaly|Emphysema,0,1,PA",
    "00000001_001.png,No Finding,1,1,AP",
    "00000002_000.png,Pleural_Thickening,0,2,PA",
)
GOOD = "\n".join([HEADER, *ROWS, ""])


def picture(seed: int = 0, height: int = 48, width: int = 48) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def images_in(folder: Path, *, nested: bool = False) -> Path:
    """The three images of ROWS, in one folder or as NIH's archives unpack."""
    for number, row in enumerate(ROWS):
        home = folder / f"images_{number % 2 + 1:03d}" / "images" if nested else folder
        home.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(home / row.split(",")[0]), picture(number))
    return folder


def source_of(folder: Path, table: str | bytes = GOOD) -> ChestXray14:
    folder.mkdir(exist_ok=True)
    labels = folder / "labels.csv"
    labels.write_bytes(table.encode() if isinstance(table, str) else table)
    return ChestXray14(images_in(folder / "png"), labels)


def files_of(data: PackedSet) -> dict[str, bytes]:
    return {name: (data.folder / name).read_bytes() for name in (MANIFEST, INDEX, PIXELS)}


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_table_is_read_in_its_own_order(tmp_path: Path) -> None:
    table = source_of(tmp_path).table()
    assert table.names == ("00000001_000.png", "00000001_001.png", "00000002_000.png")
    assert table.patients == ("1", "1", "2")
    assert table.views == ("PA", "AP", "PA")
    named = [{c for c, there in zip(CHEST_FINDINGS, row, strict=True) if there} for row in table.labels]
    assert named == [{"Cardiomegaly", "Emphysema"}, set(), {"Pleural_Thickening"}]


@pytest.mark.parametrize("nested", [False, True])
def test_images_are_found_at_any_depth(nested: bool, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(GOOD)
    source = ChestXray14(images_in(tmp_path / "png", nested=nested), tmp_path / "labels.csv")
    assert len(source.table()) == 3
    assert all(np.array_equal(source.pixels(row), picture(row)) for row in range(3))


@pytest.mark.parametrize(
    "written",
    [
        gzip.compress(GOOD.encode()),
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.rstrip().encode(),
        GOOD.replace("Image Index", '"Image Index"').encode(),
    ],
    ids=["gz", "byte order mark", "windows", "no last newline", "quoted"],
)
def test_a_table_is_the_same_however_it_was_saved(written: bytes, tmp_path: Path) -> None:
    found, expected = source_of(tmp_path / "a", written).table(), source_of(tmp_path / "b").table()
    assert (found.names, found.patients, found.views) == (expected.names, expected.patients, expected.views)
    assert np.array_equal(found.labels, expected.labels)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (GOOD.replace("Finding Labels", "Labels"), r"labels\.csv, line 1: no column 'Finding Labels'.*found 'Image"),
        (GOOD.replace("Patient ID", "patient"), r"labels\.csv, line 1: no column 'Patient ID'"),
        (GOOD.replace("Emphysema", "Emphysma"), r"line 2: 'Emphysma' .*did you mean 'Emphysema'"),
        (GOOD.replace("No Finding", "Covid"), r"line 3: 'Covid' is not one of the 14 findings"),
        (GOOD + ROWS[0], r"line 5: image '00000001_000\.png' is already in line 2"),
        (GOOD + "00000009_000.png,Mass,0,9,PA", r"4 images expected from labels\.csv, 3 found.*00000009_000\.png"),
        (GOOD + "00000009_000.png,Mass", r"line 5: .*is empty"),
        (GOOD.replace("png,No Finding", "png,"), r"line 3: .*is empty"),
        ("", r"labels\.csv, line 1: no column .*found nothing"),
        (HEADER + "\n", r"labels\.csv has a header and no rows"),
        (bytes(range(256)) * 4, r"labels\.csv cannot be read as a CSV file"),
        ("<html><body>Sign in</body></html>", r"labels\.csv, line 1: no column 'Image Index'"),
        (gzip.compress(GOOD.encode())[:-20], r"labels\.csv cannot be read as a CSV file"),
        (gzip.compress(GOOD.encode())[:12] + b"\xff" * 40, r"labels\.csv cannot be read as a CSV file"),
        (GOOD.replace("No Finding", '"No Finding') + "x" * 200_000, r"labels\.csv"),
        (GOOD.replace("\n00000002", "\n\n\n00000002").replace("Pleural_", "P_"), r"line 6: 'P_Thickening'"),
    ],
    ids=[
        "no label column",
        "no patient column",
        "misspelt finding",
        "unknown finding",
        "duplicate image",
        "missing image",
        "short row",
        "no finding named",
        "empty file",
        "header only",
        "binary",
        "a web page",
        "cut gz",
        "damaged gz",
        "a quote that never closes",
        "blank lines count",
    ],
)
def test_a_bad_table_is_refused_in_one_sentence(table: str | bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        source_of(tmp_path, table).table()
    assert "\n" not in str(caught.value)


def test_a_missing_folder_or_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(GOOD)
    with pytest.raises(BadInput, match=r"--images .*nowhere: there is no such folder"):
        ChestXray14(tmp_path / "nowhere", tmp_path / "labels.csv")
    with pytest.raises(BadInput, match=r"--labels .*nowhere\.csv: there is no such file"):
        ChestXray14(tmp_path, tmp_path / "nowhere.csv")


def test_a_broken_image_is_named_and_what_was_begun_is_not_in_the_way(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    path = tmp_path / "png" / "00000002_000.png"
    path.write_bytes(b"\x89PNG no more")
    with pytest.raises(BadInput, match=r"00000002_000\.png cannot be read as an image"):
        prepare("nih", source, 32)
    with pytest.raises(BadInput, match="not prepared"):
        PackedSet.open("nih")
    cv2.imwrite(str(path), picture(2))
    assert len(prepare("nih", ChestXray14(source.images, source.labels), 32)) == 3


def test_real_images_are_prepared(shared: Path) -> None:
    folder = shared / "data" / "chestxray14"
    if not (folder / "images_64").is_dir():
        pytest.skip(f"no {folder / 'images_64'}")
    source = ChestXray14(folder / "images_64", folder / "Data_Entry_images_64.csv")
    data = prepare("real", source, 64)
    data.verify()
    assert (len(data), data.manifest["patients"]) == (1000, 264)
    with open(source.labels, newline="") as file:
        rows = list(csv.DictReader(file))
    for column, finding in enumerate(data.classes):
        assert data.table.labels[:, column].sum() == sum(finding in row["Finding Labels"].split("|") for row in rows)
    for row in (0, 499, 999):
        assert np.array_equal(data.pixels[row], enhance(source.pixels(row), 64))
    assert "CVPR 2017" in data.manifest["notice"]


@pytest.mark.parametrize("shape", [(100, 100), (120, 80), (81, 119), (33, 32)])
@pytest.mark.parametrize("size", [32, 64])
def test_enhance_is_clahe_padding_and_resize_by_opencv(shape: tuple[int, int], size: int) -> None:
    raw = picture(3, *shape)
    image = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(raw)
    side = max(shape)
    above, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    below, right = side - shape[0] - above, side - shape[1] - left
    padded = cv2.copyMakeBorder(image, above, below, left, right, cv2.BORDER_CONSTANT, value=0)
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    assert np.array_equal(enhance(raw, size), cv2.resize(padded, (size, size), interpolation=how))


def test_an_image_that_is_not_square_is_padded_with_black() -> None:
    wide = np.full((32, 64), 200, np.uint8)
    found = enhance(wide, 64)
    assert not found[:16].any()
    assert not found[48:].any()
    assert found[16:48].all()


def test_preparing_twice_is_the_same_set_and_writes_nothing(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    first = prepare("nih", source, 32)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    again = prepare("nih", source, 32)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in again.folder.iterdir()} == before


def test_preparing_leaves_one_folder_of_three_files(tmp_path: Path) -> None:
    data = prepare("nih", source_of(tmp_path), 32)
    assert [path.name for path in places.data_root().iterdir()] == ["nih"]
    assert {path.name for path in data.folder.iterdir()} == {MANIFEST, INDEX, PIXELS}


@pytest.mark.parametrize("images", [20, 70])  # in this process, and in several
def test_the_same_source_gives_the_same_bytes(images: int) -> None:
    one, other = (prepare(name, Phantom(images=images, size=48), 32) for name in ("a", "b"))
    assert files_of(one) == files_of(other)
    assert one.fingerprint == other.fingerprint


def test_many_processes_give_the_bytes_of_one(drawn_once: Path, phantom: PackedSet) -> None:
    source = Phantom(images=len(phantom), size=64)
    for row in (0, 31, 32, 100, len(phantom) - 1):
        assert np.array_equal(phantom.pixels[row], enhance(source.pixels(row), phantom.size))


@pytest.mark.parametrize(
    ("source", "size", "differs"),
    [(Phantom(images=5, size=48), 40, "size"), (Phantom(images=6, size=48), 32, "images")],
)
def test_a_name_that_is_taken_by_another_set_is_refused(source: Phantom, size: int, differs: str) -> None:
    before = files_of(prepare("a", Phantom(images=5, size=48), 32))
    with pytest.raises(BadInput, match=f"'a' exists and differs in .*{differs}.*take another name"):
        prepare("a", source, size)
    assert files_of(PackedSet.open("a")) == before


@pytest.mark.parametrize("size", [0, 31, 1025])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(BadInput, match=f"--size {size}: expected 32 to 1024"):
        prepare("a", Phantom(images=2), size)


def test_a_full_disk_is_told_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(BadInput, match="make room, or set XLITE_DATA"):
        prepare("a", Phantom(images=2, size=32), 32)
    assert list(places.data_root().iterdir()) == []


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../a", "a b", "a\\b"])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="use letters, digits"):
        prepare(name, Phantom(images=2, size=32), 32)


def test_a_set_that_is_not_prepared_says_how_to() -> None:
    with pytest.raises(BadInput, match=r"'chestxray14' is not prepared.*prepare chestxray14 --images.*--demo"):
        PackedSet.open("chestxray14")


def test_a_packed_set_pickles_as_a_path(phantom: PackedSet) -> None:
    assert phantom.pixels.any()
    assert len(phantom.table) == len(phantom)
    carried = pickle.dumps(phantom)
    assert len(carried) < 4000
    assert len(carried) < phantom.pixels.nbytes / 50
    again = pickle.loads(carried)
    assert again == phantom
    assert np.array_equal(again.pixels, phantom.pixels)


def test_pixels_are_mapped_and_cannot_be_written(phantom: PackedSet) -> None:
    assert isinstance(phantom.pixels, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        phantom.pixels[0, 0, 0] = 1


def test_an_undamaged_set_is_verified(phantom: PackedSet) -> None:
    phantom.verify()


@pytest.mark.parametrize("file", [PIXELS, INDEX])
@pytest.mark.parametrize("place", [0, 1000, -1])
def test_verify_finds_a_flipped_bit(file: str, place: int, phantom: PackedSet) -> None:
    flip(phantom.folder / file, place)
    with pytest.raises(Damaged, match=f"{file} is missing or damaged"):
        phantom.verify()


@pytest.mark.parametrize("file", [PIXELS, INDEX])
def test_verify_finds_a_missing_or_shortened_file(file: str, phantom: PackedSet) -> None:
    os.truncate(phantom.folder / file, 500)
    with pytest.raises(Damaged, match=file):
        phantom.verify()
    (phantom.folder / file).unlink()
    with pytest.raises(Damaged, match=file):
        phantom.verify()


def relabelled(text: str) -> str:
    return text.replace("Mass", "Edema", 1)


def shortened(text: str) -> str:
    return text[: text.rindex("\n", 0, -1) + 1]


@pytest.mark.parametrize("change", [relabelled, shortened])
def test_a_changed_index_is_never_trained_on(change: Callable[[str], str], phantom: PackedSet) -> None:
    path = phantom.folder / INDEX
    path.write_text(change(path.read_text()))
    with pytest.raises(Damaged, match=INDEX):
        open_data(DataSpec(name=phantom.folder.name)).train.labels.sum()


def test_a_damaged_manifest_is_never_used(phantom: PackedSet) -> None:
    flip(phantom.folder / MANIFEST, 200)
    with pytest.raises(Damaged, match=MANIFEST):
        PackedSet.open(phantom.folder.name)


def test_the_index_is_read_as_it_was_written() -> None:
    table = Phantom(images=50).table()
    again = read_index(index_text(table), table.classes)
    assert np.array_equal(again.labels, table.labels)
    assert (again.names, again.patients, again.views) == (table.names, table.patients, table.views)


def test_the_fingerprint_follows_labels_and_pixels_and_not_the_name() -> None:
    base = Phantom(images=5, size=48)
    prints = {
        "same": prepare("a", base, 32).fingerprint,
        "again": prepare("b", base, 32).fingerprint,
        "size": prepare("c", base, 33).fingerprint,
        "labels": prepare("d", replace(base, label_noise=0.5), 32).fingerprint,
        "pixels": prepare("e", replace(base, size=64), 32).fingerprint,
    }
    assert prints.pop("again") == prints["same"]
    assert len(set(prints.values())) == 4


def test_one_name_in_two_folders_is_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    here = next(source.images.rglob("*.png"))
    (source.images / "again").mkdir()
    (source.images / "again" / here.name).write_bytes(here.read_bytes())
    with pytest.raises(BadInput, match=f"two files are named {here.name}"):
        source.table()
