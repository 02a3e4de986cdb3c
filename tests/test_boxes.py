"""Boxes around findings: read from lists, kept with the images in raw pixels, and laid onto what was prepared."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_cli import call

from xlite_search.data.boxes import Box
from xlite_search.data.packed import INDEX, PackedSet
from xlite_search.data.prepare import prepare
from xlite_search.data.preprocess import Preprocess
from xlite_search.data.sources.box_list import read_boxes
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.folder import Folder
from xlite_search.data.sources.labels import read_labels
from xlite_search.data.sources.phantom import Phantom
from xlite_search.data.stratify import balance
from xlite_search.errors import BadInput

NAMES = ("00000001_000.png", "00000001_001.png", "00000002_000.png")
NIH = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
TWO = (
    NIH + "00000001_001.png,Infiltrate,10.5,20,30,40.25\n00000001_001.png,Mass,0,0,8,9\n00000009_000.png,Mass,1,1,5,5\n"
)


def written(folder: Path, text: str, name: str = "boxes.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        TWO,
        TWO.replace("Bbox [x,y,w,h],,,", '"Bbox [x","y","w","h]"'),
        "label,height,width,y,x,image_id\nInfiltration,40.25,30,20,10.5,00000001_001\nmass,9,8,0,0,00000001_001.png\n",
        "filename;class;x;y;w;h\npng/00000001_001.png;infiltrate;10.5;20;30;40.25\npng/00000001_001.png;Mass;0;0;8;9\n",
    ],
)
@pytest.mark.parametrize("name", ["boxes.csv", "boxes.csv.gz"])
def test_each_form_gives_the_same_boxes(text: str, name: str, tmp_path: Path) -> None:
    found = read_boxes(written(tmp_path, text, name), NAMES, CHEST_FINDINGS)
    assert found == {1: (Box("Infiltration", 10.5, 20, 30, 40.25), Box("Mass", 0, 0, 8, 9))}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (NIH + "00000001_001.png,Mas,1,1,5,5\n", r"line 2, column 'Finding Label': 'Mas' is no class.*'Mass'"),
        (NIH + "00000001_001.png,Mass,1,x,5,5\n", r"line 2, column 'y': 'x'; expected y in pixels, at least 0"),
        (NIH + "00000001_001.png,Mass,1,1,0,5\n", r"column 'w': '0'; expected width in pixels, above 0"),
        (NIH + "00000001_001.png,Mass,-1,1,5,5\n", r"column 'Bbox \[x': '-1'; expected x"),
        (NIH + "00000001_001.png,Mass,1,1,5,nan\n", r"'nan'; expected height"),
        (NIH + "00000007_001.png,Mass,1,1,5,5\n", r"none of the images that have a box in it is in the label table"),
        ("image_id,label,x,y,width\na.png,Mass,1,1,5\n", r"line 1: no column for height; expected 'Bbox"),
        (
            "image_id,x,y,width,height\na.png,1,1,5,5\n",
            "no column 'Finding Label' or 'label'; expected a box list with .* width, height; found 'image_id'",
        ),
        ("", "is empty"),
    ],
)
def test_a_mistake_is_a_sentence_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said):
        read_boxes(written(tmp_path, text), NAMES, CHEST_FINDINGS)


def test_nihs_own_list_is_read_whole(shared: Path) -> None:
    folder = shared / "data" / "chestxray14"
    if not (folder / "BBox_List_2017.csv.gz").is_file():
        pytest.skip(f"no box list in {folder}")
    names = read_labels(folder / "Data_Entry_2017_v2020.csv.gz").names
    found = read_boxes(folder / "BBox_List_2017.csv.gz", names, CHEST_FINDINGS)
    boxes = [box for of in found.values() for box in of]
    assert (len(found), len(boxes)) == (880, 984)
    assert Counter(box.label for box in boxes) == {
        "Atelectasis": 180,
        "Cardiomegaly": 146,
        "Effusion": 153,
        "Infiltration": 123,
        "Mass": 85,
        "Nodule": 79,
        "Pneumonia": 120,
        "Pneumothorax": 98,
    }
    (first,) = found[names.index("00013118_008.png")]
    assert first == Box("Atelectasis", 225.084745762712, 547.019216763771, 86.7796610169491, 79.1864406779661)
    assert max(max(box.x + box.width, box.y + box.height) for box in boxes) <= 1025


# From a folder to the prepared set


def folder(home: Path, size: tuple[int, int] = (60, 100)) -> tuple[Path, Path]:
    """Three images of NIH's names, 100 px wide, each black with white where the boxes of `TWO` are; and their table."""
    (home / "png").mkdir()
    for number, name in enumerate(NAMES):
        image = np.zeros(size, np.uint8)
        image[20:60, 10:40] = 255 if number == 1 else 0
        image[-1, -1] = 9
        cv2.imwrite(str(home / "png" / name), image)
    rows = "".join(f"{name},{'Mass' if number else 'No Finding'},{number},M\n" for number, name in enumerate(NAMES))
    (home / "table.csv").write_text(f"Image Index,Finding Labels,Follow-up #,Patient Gender\n{rows}", encoding="utf-8")
    return home / "png", home / "table.csv"


def test_boxes_follow_up_numbers_and_raw_sizes_are_kept_with_the_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = folder(tmp_path)
    boxes = written(tmp_path, TWO, "boxes.csv.gz")
    arguments = ["--images", str(images), "--labels", str(labels), "--size", "50", "--no-clahe"]
    code, _, err = call(capsys, "prepare", "some", *arguments, "--boxes", str(boxes))
    assert code == 0, err
    data = PackedSet.open("some")
    data.verify()
    assert data.table.follow_ups == ("0", "1", "2")
    assert data.table.sizes.tolist() == [[60, 100]] * 3
    assert data.table.boxes == {1: (Box("Infiltration", 10.5, 20, 30, 40.25), Box("Mass", 0, 0, 8, 9))}
    assert (data.boxes(0), data.boxes(1)[1]) == ((), Box("Mass", 0, 10, 4, 4.5))
    x, y, width, height = cv2.boundingRect((data.pixels[1, 0] > 127).astype(np.uint8))
    shown = data.boxes(1)[0]
    assert np.abs(np.array(shown[1:]) - [x, y, width, height]).max() <= 1
    with (data.folder / INDEX).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["boxes"] == "Infiltration 10.5 20 30 40.25|Mass 0 0 8 9"
    assert [rows[2][name] for name in ("follow_up", "height", "width", "boxes")] == ["2", "60", "100", ""]
    part = data.table.part(np.array([2, 1]))
    assert (list(part.boxes), part.follow_ups, part.sizes.shape) == ([1], ("2", "1"), (2, 2))
    code, _, err = call(capsys, "prepare", "some", *arguments)
    assert (code, "differs in source" in err.splitlines()[-1]) == (2, True)
    code, _, err = call(capsys, "prepare", "plain", *arguments)
    assert code == 0, err
    assert PackedSet.open("plain").fingerprint == data.fingerprint, "nothing learns from boxes"


def test_boxes_of_images_of_another_size_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = folder(tmp_path, (40, 40))
    boxes = written(tmp_path, TWO)
    arguments = ["--images", str(images), "--labels", str(labels), "--boxes", str(boxes), "--size", "32"]
    code, _, err = call(capsys, "prepare", "some", *arguments)
    assert (code, "Traceback" in err) == (2, False)
    said = (
        "image 00000001_001.png has 40 x 40 px, and the box of Infiltration reaches from (10.5, 20) to (40.5, 60.25): "
    )
    assert err.splitlines()[-1].startswith(f"error: {said}")


def test_a_file_of_boxes_that_is_not_there_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = folder(tmp_path)
    arguments = ["--images", str(images), "--labels", str(labels), "--boxes", str(tmp_path / "no.csv")]
    code, _, err = call(capsys, "prepare", "some", *arguments)
    assert (code, "no.csv: there is no such file; give" in err.splitlines()[-1]) == (2, True)


def test_phantoms_have_the_boxes_that_were_drawn() -> None:
    source = Phantom(images=30, size=96)
    data = prepare("drawn", source, 48)
    assert data.table.boxes == {row: tuple(source.boxes(row)) for row in range(30) if source.boxes(row)}
    assert data.table.follow_ups == source.table().follow_ups
    row = next(iter(data.table.boxes))
    assert data.boxes(row)[0][1:] == pytest.approx([side / 2 for side in source.boxes(row)[0][1:]])
    for row in range(30):
        assert {box.label for box in data.boxes(row)} == set(source.findings(row))


def test_an_image_set_aside_takes_its_boxes_along(tmp_path: Path) -> None:
    images, labels = folder(tmp_path)
    more = "".join(f"{number:08d}_000.png,Mass,0,M\n" for number in range(3, 40))
    labels.write_text(labels.read_text(encoding="utf-8") + more, encoding="utf-8")
    for number in range(3, 40):
        cv2.imwrite(str(images / f"{number:08d}_000.png"), np.eye(64, dtype=np.uint8) * number)
    (images / NAMES[0]).write_bytes(b"broken")
    source = Folder(images, labels, "some", box_list=written(tmp_path, TWO))
    data = prepare("some", source, Preprocess(32), accept_losses=True)
    assert data.table.names[0] == NAMES[1]
    assert list(data.table.boxes) == [0, 8] and data.table.names[8] == "00000009_000.png"


def test_what_an_image_of_no_class_is_called_comes_from_the_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = folder(tmp_path)
    arguments = ["--images", str(images), "--labels", str(labels), "--size", "32"]
    assert call(capsys, "prepare", "some", *arguments, "--normal", "healthy")[0] == 0
    data = PackedSet.open("some")
    assert data.table.normal == "healthy"
    found = balance(data.table, {"train": np.array([0, 1]), "val": np.array([2])})["parts"]
    assert (found["train"]["prevalence"]["healthy"], found["val"]["prevalence"]["healthy"]) == (0.5, 0)
