"""Folders of images that are not NIH's whole set: a part of it, other findings, other owners, images of no use."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from test_cli import call

from xlite_search import places, storage
from xlite_search.data import integrity
from xlite_search.data.packed import STAMPS, PackedSet
from xlite_search.data.prepare import prepare
from xlite_search.data.preprocess import STRETCH, Preprocess
from xlite_search.data.sources import Loss
from xlite_search.data.sources.chestxray14 import NOTICE
from xlite_search.data.sources.folder import EMPTY_FILE, NO_FILE, Folder
from xlite_search.data.sources.phantom import Phantom
from xlite_search.errors import BadInput

SIZE, IMAGES = 32, 40


def saved(path: Path, image: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def nih(folder: Path, there: int = IMAGES) -> Folder:
    """A label table as NIH writes it, of 40 images of 20 patients, and the first few of the images."""
    phantom = Phantom(images=IMAGES, size=48)
    names = [f"{row // 2 + 1:08d}_{row % 2:03d}.png" for row in range(IMAGES)]
    for row, name in enumerate(names[:there]):
        saved(folder / "png" / name, phantom.pixels(row))
    rows = "".join(f"{name},{'Mass' if row % 3 else 'No Finding'},{row // 2 + 1}\n" for row, name in enumerate(names))
    (folder / "table.csv").write_text(f"Image Index,Finding Labels,Patient ID\n{rows}", encoding="utf-8")
    return Folder(folder / "png", folder / "table.csv", name="some")


def lesions(folder: Path, side: int = 40, images: int = 24) -> Path:
    """Images of skin, and a table that says whose lesion each is, and what."""
    noise = np.random.default_rng(0)
    kinds = ("mel", "nv", "bcc")
    for row in range(images):
        saved(folder / "skin" / f"ISIC_{row:07d}.jpg", noise.integers(0, 256, (side, side), np.uint8))
    rows = "".join(f"HAM_{row // 2:07d},ISIC_{row:07d},{kinds[row % 3]}\n" for row in range(images))
    table = folder / "skin.csv"
    table.write_text(f"lesion_id,image_id,dx\n{rows}", encoding="utf-8")
    return table


# A part of a data set


def test_a_part_of_a_data_set_is_prepared_when_told_and_counted(tmp_path: Path) -> None:
    source = nih(tmp_path, there=10)
    with pytest.raises(BadInput, match=r"30 of 40 images cannot be used, .*: fetch them, prepare what is there"):
        prepare("part", source, SIZE)
    data = prepare("part", replace(source, incomplete=True), SIZE)
    assert (len(data), data.set_aside) == (10, {})
    assert data.table.names == source.table().names[:10]
    assert np.array_equal(data.table.labels, source.table().labels[:10])
    assert data.manifest["source"] == {"source": "chestxray14", "part_of": {"images": 40, "patients": 20}}
    assert data.incomplete == "incomplete: data set 'part' has 10 of its label table's 40 images, 5 of 20 patients"


def test_a_part_may_lack_as_few_of_its_images_as_the_whole(tmp_path: Path) -> None:
    source = replace(nih(tmp_path, there=20), incomplete=True)
    (source.images / source.table().names[7]).write_bytes(b"")
    with pytest.raises(BadInput, match=r"1 of 20 images cannot be used, which is more than 0.1 %"):
        prepare("part", replace(source), SIZE)
    data = prepare("part", replace(source), SIZE, accept_losses=True)
    assert "has 19 of its label table's 40 images" in data.incomplete


def test_a_part_that_has_grown_is_another_set(tmp_path: Path) -> None:
    source = replace(nih(tmp_path, there=10), incomplete=True)
    prepare("part", source, SIZE)
    with pytest.raises(BadInput, match=r"'part' exists and differs in .*expected"):
        prepare("part", replace(nih(tmp_path, there=12), incomplete=True), SIZE)


def test_what_is_whole_is_no_part(tmp_path: Path) -> None:
    data = prepare("whole", replace(nih(tmp_path), incomplete=True), SIZE)
    assert (data.incomplete, data.manifest["source"]) == ("", {"source": "chestxray14"})
    assert prepare("other", nih(tmp_path), SIZE).fingerprint == data.fingerprint


def test_a_folder_with_none_of_the_images_is_no_part(tmp_path: Path) -> None:
    source = nih(tmp_path, there=1)
    (source.images / source.table().names[0]).rename(source.images / "another.png")
    with pytest.raises(BadInput, match=r"none of the 40 images that .*table\.csv names is there, .*00000001_000\.png"):
        prepare("part", replace(source, incomplete=True), SIZE)


def test_a_part_is_told_by_prepare_and_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = nih(tmp_path, there=30)
    told = "incomplete: data set 'part' has 30 of its label table's 40 images, 15 of 20 patients"
    arguments = ["--images", str(source.images), "--labels", str(source.labels), "--size", str(SIZE)]
    code, out, err = call(capsys, "prepare", "part", *arguments, "--incomplete")
    assert (code, told in err, "30 images of 15 patients" in out) == (0, True, True), err
    code, out, _ = call(capsys, "audit", "part", "--set", "data.split.ratios=[0.5,0.5,0]")
    assert (code, told in out) == (0, True), out
    code, out, _ = call(capsys, "audit", "part", "--set", "data.split.ratios=[0.5,0.5,0]", "--json")
    assert told in json.loads(out)["incomplete"]


# Whose the images are, and what is learnt


def test_nihs_images_are_nihs_whatever_the_set_is_called(tmp_path: Path) -> None:
    source = nih(tmp_path)
    assert (source.describe(), source.notice) == ({"source": "chestxray14"}, NOTICE)
    assert replace(source, classes=("Mass",)).notice == NOTICE
    assert replace(source, cite="").notice == ""
    data = prepare("some", source, SIZE)
    assert data.manifest["notice"] == NOTICE


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("image_id,patient,Mass\na1.png,1,1\na2.png,2,0\n", "names that are not NIH's"),
        ("image_id,patient,Mass\n00000001_000.png,A,1\n00000002_000.png,B,0\n", "other patients than the names say"),
        ("image_id,patient,Wrist\n00000001_000.png,1,1\n00000002_000.png,2,0\n", "a finding that NIH has not"),
    ],
)
def test_others_images_have_neither_nihs_name_nor_its_notice(table: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(table, encoding="utf-8")
    classes = (table.split("\n")[0].split(",")[2],)
    source = Folder(tmp_path, tmp_path / "table.csv", "mine", classes=classes, patient_column="patient")
    assert (source.describe(), source.notice) == ({"source": "mine"}, ""), why
    assert replace(source, cite="cite us").notice == "cite us"


def test_other_classes_groups_and_owners_are_said_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = lesions(tmp_path)
    images = ["--images", str(tmp_path / "skin"), "--labels", str(table), "--size", str(SIZE)]
    code, _, err = call(capsys, "prepare", "skin", *images)
    assert (code, "Traceback" in err, err.count("\n")) == (2, False, 1)
    options = ["--classes", "mel, bcc", "--patient-column", "lesion_id", "--notice", "cite them", "--no-clahe"]
    code, out, err = call(capsys, "prepare", "skin", *images, *options)
    assert (code, "24 images of 12 patients" in out) == (0, True), err
    assert "cite them" in err and "'nv' (8)" in err and "'lesion_id' left out" not in err
    data = PackedSet.open("skin")
    assert data.classes == ("mel", "bcc")
    assert data.manifest["source"] == {"source": "skin"}
    assert (data.manifest["notice"], data.manifest["clahe"]) == ("cite them", None)
    raw = cv2.imread(str(tmp_path / "skin" / "ISIC_0000005.jpg"), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(data.pixels[5, 0], cv2.resize(raw, (SIZE, SIZE), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize(
    "option",
    [
        "--classes=a",
        "--patient-column=a",
        "--notice=a",
        "--incomplete",
        "--stretch=0",
        "--channels=3",
        "--boxes=a",
        "--normal=a",
    ],
)
def test_phantoms_take_no_option_of_a_folder(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "prepare", "phantom", option)
    assert (code, err.count("\n")) == (2, 1)
    assert option.split("=")[0] in err and "--images" in err


@pytest.mark.parametrize("option", ["--count=5", "--seed=0", "--label-noise=0.1"])
def test_a_folder_takes_no_option_of_phantoms(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = nih(tmp_path)
    given = ["--images", str(source.images), "--labels", str(source.labels)]
    code, _, err = call(capsys, "prepare", "some", *given, option)
    said = f"error: {option.split('=')[0]} is for phantoms, which are drawn: leave it out, or leave out --images"
    assert (code, err.strip()) == (2, said)


def test_without_clahe_it_is_another_set(tmp_path: Path) -> None:
    source = nih(tmp_path)
    prepare("some", source, SIZE)
    with pytest.raises(BadInput, match=r"'some' exists and differs in clahe;"):
        prepare("some", source, Preprocess(SIZE, clahe=None))
    plain = prepare("plain", source, Preprocess(SIZE, clahe=None))
    assert np.array_equal(plain.pixels[0], Preprocess(SIZE, clahe=None)(source.pixels(0)))


def shown(source: Folder, row: int = 0, stretch: float = STRETCH) -> NDArray[np.uint8]:
    """An image before CLAHE and resize."""
    return Preprocess(SIZE, stretch=stretch).shown(source.pixels(row))


def twelve_bits(folder: Path, *, hot: bool) -> Folder:
    """A folder of radiographs of 12 bits, each with a hot pixel."""
    source = nih(folder)
    for row, name in enumerate(source.table().names):
        image = np.random.default_rng(row).integers(1000, 1251, (64, 64)).astype(np.uint16)
        image[5, 7] = 4095 if hot else image[5, 7]
        saved(source.images / name, image)
    return source


@pytest.mark.parametrize("hot", [False, True])
def test_one_hot_pixel_takes_no_gray_levels(hot: bool, tmp_path: Path) -> None:
    source = twelve_bits(tmp_path, hot=hot)
    assert len(np.unique(shown(source, 0))) > 230
    assert shown(source, 0)[5, 7] == 255 or not hot
    whole = shown(source, stretch=0.0)
    assert len(np.unique(whole)) < (25 if hot else 256)
    assert (whole.min(), whole.max()) == (0, 255)


def test_how_far_is_stretched_is_part_of_the_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = twelve_bits(tmp_path, hot=True)
    arguments = ["--images", str(source.images), "--labels", str(source.labels), "--size", str(SIZE)]
    for name, option in (("a", ["--stretch", "0"]), ("b", [])):
        code, _, err = call(capsys, "prepare", name, *arguments, *option)
        assert code == 0, err
    one, other = PackedSet.open("a"), PackedSet.open("b")
    assert (one.manifest["stretch"], other.manifest["stretch"]) == (0, 0.1)
    assert one.fingerprint != other.fingerprint
    code, _, err = call(capsys, "prepare", "a", *arguments)
    assert (code, "differs in stretch" in err) == (2, True)
    code, _, err = call(capsys, "prepare", "c", *arguments, "--stretch", "50")
    assert (code, "--stretch 50: expected 0 to 10 percent" in err) == (2, True)


def test_an_image_that_is_nearly_all_background_is_stretched_whole(tmp_path: Path) -> None:
    source = nih(tmp_path)
    image = np.full((64, 64), 100, np.uint16)
    image[0, :2] = 1100, 2100
    saved(source.images / source.table().names[0], image)
    assert shown(source, 0)[0, :3].tolist() == [128, 255, 0]


def test_8_bits_stay_as_they_are(tmp_path: Path) -> None:
    source = nih(tmp_path)
    assert np.array_equal(shown(source, stretch=5.0), shown(source, stretch=0.0))


# What cannot be used, and what helps


@pytest.mark.parametrize(
    ("lost", "images", "advice"),
    [
        ([NO_FILE] * 2, 1500, "fetch them, prepare what is there with --incomplete, or go on without them with --acc"),
        ([NO_FILE] * 2, 30, "fetch them, prepare what is there with --incomplete, or take them out of the label table"),
        ([EMPTY_FILE] * 2, 1500, "fetch them again, or go on without them with --accept-losses"),
        ([Loss("28 x 28 px", "unfit")] * 30, 30, "take them out of the label table"),
        ([Loss("28 x 28 px", "unfit")] * 2, 1500, "go on without them with --accept-losses, or take them out of the"),
        (
            [EMPTY_FILE, Loss("28 x 28 px", "unfit")],
            30,
            "fetch them again, or take those that are whole and of no use here out of the label table",
        ),
    ],
)
def test_the_advice_is_one_that_helps(lost: list[Loss], images: int, advice: str) -> None:
    named = [(f"{number}.png", loss) for number, loss in enumerate(lost)]
    assert f"lists them: {advice}" in integrity.refusal(images, named, Path("lost.csv"))


def test_images_that_are_too_small_are_not_to_be_fetched_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = lesions(tmp_path, side=28)
    arguments = ["--images", str(tmp_path / "skin"), "--labels", str(table), "--size", "32"]
    code, _, err = call(
        capsys, "prepare", "small", *arguments, "--classes", "mel", "--patient-column", "lesion_id", "--notice", ""
    )
    refused = err.splitlines()[-1]
    assert code == 2
    assert "28 x 28 px; expected at least 32" in refused and "fetch" not in refused and "label table" in refused


# Raw images that change afterwards


def changed(source: Folder, row: int, image: Any) -> None:
    saved(source.images / source.table().names[row], image)
    os.utime(source.images / source.table().names[row], ns=(1, row + 1))  # at another time, however coarse the clock


def again(source: Folder) -> tuple[PackedSet, list[str]]:
    said: list[str] = []
    return prepare("some", replace(source), SIZE, say=said.append), said


@pytest.mark.parametrize("row", range(0, IMAGES, 3))
def test_any_image_that_was_replaced_is_noticed(row: int, tmp_path: Path) -> None:
    source = nih(tmp_path)
    prepare("some", source, SIZE)
    changed(source, row, 255 - shown(source, row))
    with pytest.raises(BadInput, match=f"made from other images: {source.table().names[row]} looks otherwise"):
        again(source)


def test_files_that_are_as_they_were_are_compared_once(tmp_path: Path) -> None:
    source = nih(tmp_path)
    prepare("some", source, SIZE)
    changed(source, 3, shown(source, 3))
    assert again(source)[1] == ["1 of 40 files have changed since it was prepared: they are compared"]
    assert again(source)[1] == []
    (places.data_folder("some") / STAMPS).unlink()
    assert "40 of 40 files have changed" in again(source)[1][0]
    assert again(source)[1] == []


def test_a_file_that_was_damaged_since_is_told_until_it_is_mended(tmp_path: Path) -> None:
    source = nih(tmp_path)
    data, image = prepare("some", source, SIZE), shown(source, 3)
    (source.images / source.table().names[3]).write_bytes(b"\x89PNG no more")
    for _ in range(2):
        found, said = again(source)
        assert (found.fingerprint, len(said)) == (data.fingerprint, 2)
        assert said[1].startswith(f"1 of them cannot be read: {source.table().names[3]} (")
    changed(source, 3, image)
    assert len(again(source)[1]) == 1


def test_a_set_that_cannot_be_written_to_is_compared_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = nih(tmp_path)
    prepare("some", source, SIZE)
    changed(source, 3, shown(source, 3))

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(storage, "write_manifest", refused)
    assert len(again(source)[1]) == len(again(source)[1]) == 1


@pytest.mark.parametrize(
    ("in_table", "on_disk"),
    [
        ("IM0001", "IM0001"),
        ("IM0001.dcm", "IM0001"),
        ("1.2.840.113619.2.5", "1.2.840.113619.2.5"),
        ("1.2.840.113619.2.5.dcm", "1.2.840.113619.2.5"),
        ("scan.ima", "scan.ima"),
        ("study/IM0001", "IM0001"),
        ("M\u00fcller.png", "Mu\u0308ller.png"),
        ("Mu\u0308ller", "M\u00fcller.png"),
        ("st\u00fcdy/1.png", "1.png"),
    ],
)
def test_a_file_that_is_there_is_found(in_table: str, on_disk: str, tmp_path: Path) -> None:
    """Without a suffix, with another, or with its accents written otherwise, as macOS does."""
    home = (
        tmp_path / "raw" / "stu\u0308dy" if "\u00fc" in in_table[:4] and "/" in in_table else tmp_path / "raw" / "study"
    )
    home.mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    (home / on_disk).write_bytes(cv2.imencode(".png", image)[1].tobytes())
    labels = tmp_path / "labels.csv"
    labels.write_text(f"image,patient,Mass\n{in_table},1,1\n", encoding="utf-8")
    source = Folder(tmp_path / "raw", labels, "some", classes=("Mass",))
    assert source.lost() == {}
    assert np.array_equal(shown(source, 0), image)


def test_an_image_comes_before_other_files_of_its_name(tmp_path: Path) -> None:
    """A file without suffix is no second image beside the one that is called so; two of them are."""
    image = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    for folder in ("a", "b"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        (tmp_path / "raw" / folder / "1").write_text("notes")
    cv2.imwrite(str(tmp_path / "raw" / "1.png"), image)
    labels = tmp_path / "labels.csv"
    labels.write_text("image,patient,Mass\n1,1,1\n")
    assert np.array_equal(shown(Folder(tmp_path / "raw", labels, "some", classes=("Mass",))), image)
    (tmp_path / "raw" / "1.png").unlink()
    with pytest.raises(BadInput, match="two files are image 1: "):
        Folder(tmp_path / "raw", labels, "some", classes=("Mass",)).lost()
