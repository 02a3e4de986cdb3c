"""`explain`: what it draws and writes, and where; whose probabilities it shows; what it refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import PHANTOM
from test_cli import call
from test_scored import folder

from xlite_search import places
from xlite_search.config import RunConfig
from xlite_search.data.dataset import DataSpec, open_data
from xlite_search.deploy.cards import model_card
from xlite_search.evaluation.calibration import read_calibration
from xlite_search.evaluation.explained import in_order, kept, place_of
from xlite_search.evaluation.localisation import FIGURES, OVER_ALL
from xlite_search.evaluation.maps import METHODS
from xlite_search.evaluation.scored import data_of, scored
from xlite_search.model_folder import WEIGHTS, TrainedOn, read_model, write_model
from xlite_search.reports.overlays import Overlay
from xlite_search.spec import parse
from xlite_search.training.metrics import sigmoid

__all__ = ["folder"]


def body_of(folder: Path, part: str = "val", method: str = "gradcam", data: str = PHANTOM) -> dict[str, Any]:
    """Every figure that `explain` wrote of a part by a method."""
    found: dict[str, Any] = json.loads((folder / place_of(data, part, method) / "localisation.json").read_bytes())
    return found


# The verb


def test_explain_leaves_overlays_a_sheet_and_every_figure(
    folder: Path, tiny: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "explain", "m", "--images", "5", "--cpu", "--findings", "Mass,Effusion,Cardiomegaly")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[-1] == "next: python -m xlite_search export m -o DIR"
    for word in ("pointing", "constant", "95 % of gap", "chance", OVER_ALL, "rank correlation", "Cardiomegaly"):
        assert word in out, word
    home, body = folder / place_of(PHANTOM, "val", "gradcam"), body_of(folder)
    assert home == folder / "artifacts" / "explain" / "phantom-tiny" / "val" / "gradcam"
    assert f"every figure: {home / 'localisation.json'}" in lines
    assert [row["finding"] for row in body["localisation"]] == ["Cardiomegaly", "Effusion", "Mass", OVER_ALL]
    assert set(body["localisation"][0]["gap"]) == set(FIGURES) and set(body["sanity"]) == {"head", "attention", "all"}
    assert (body["data"]["part"], body["method"], len(body["shown"])) == ("val", "gradcam", 5)
    data = open_data(tiny.data)
    rows = data.split.rows["val"].tolist()
    boxed = sum(any(b.label == "Mass" for b in data.packed.boxes(row)) for row in rows)
    assert body["localisation"][2]["cases"] == boxed > 0
    pictures = sorted(path.name for path in home.glob("*.png"))
    assert len(pictures) == 6 and "contact_sheet.png" in pictures
    sheet = cv2.imread(str(home / "contact_sheet.png"))
    assert sheet is not None and min(sheet.shape[:2]) > 200


def test_what_is_written_is_kept_apart_and_replaced_as_a_whole(
    folder: Path, tiny: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(Path(os.environ["XLITE_DATA"]) / PHANTOM, Path(os.environ["XLITE_DATA"]) / "elsewhere")
    short = ("explain", "m", "--images", "2", "--cpu", "--as-is", "--findings", "Mass")
    calls = {
        (PHANTOM, "val", "gradcam"): (),
        (PHANTOM, "val", "hirescam"): ("--method", "hirescam"),
        (PHANTOM, "test", "gradcam"): ("--part", "test"),
        ("elsewhere", "val", "gradcam"): ("--on", "elsewhere"),
        ("elsewhere", "all", "gradcam"): ("--on", "elsewhere", "--part", "all"),
    }
    for more in calls.values():
        code, _, err = call(capsys, *short, *more)
        assert code == 0, err
    assert kept(folder) == sorted(folder / place_of(*key) / "localisation.json" for key in calls)
    for data, part, method in calls:
        body = body_of(folder, part, method, data)
        assert (body["data"]["name"], body["data"]["part"], body["method"]) == (data, part, method)
        assert len(list((folder / place_of(data, part, method)).glob("*.png"))) == 3
    home, other = (folder / place_of(PHANTOM, "val", method) for method in METHODS)
    before = {path.name: path.read_bytes() for path in other.iterdir()}
    assert call(capsys, *short[:-1], "Effusion", "--images", "1")[0] == 0
    assert sorted(path.name[:11] for path in home.iterdir()) == ["01_Effusion", "contact_she", "localisatio"]
    assert {path.name: path.read_bytes() for path in other.iterdir()} == before
    assert not list(folder.glob(".explain*")), "nothing of how it is written is left"
    text, facts = model_card(folder)
    found = facts["localisation"]
    assert (found["data"]["name"], found["data"]["part"], found["method"]) == (PHANTOM, "val", "gradcam")
    assert [tuple(each.values()) for each in found["others"]] == [
        (PHANTOM, "val", "hirescam"),
        (PHANTOM, "test", "gradcam"),
        ("elsewhere", "val", "gradcam"),
        ("elsewhere", "all", "gradcam"),
    ]
    assert "Maps by Grad-CAM, on the val part of `phantom-tiny`, of 1 of 14 findings." in text
    assert "Grad-CAM on the test part of `phantom-tiny`; " in text and "Grad-CAM on all parts of `elsewhere`." in text


def test_a_card_has_the_test_parts_figures_where_validation_has_no_boxes() -> None:
    def figures(part: str, *rows: str) -> dict[str, Any]:
        return {"data": {"name": "d", "part": part}, "method": "gradcam", "localisation": rows}

    parts = [each["data"]["part"] for each in in_order([figures("val"), figures("test", "Mass")], "d")]
    assert parts == ["test", "val"]


def test_what_fails_while_it_is_written_leaves_what_was_there(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("explain", "m", "--images", "2", "--cpu", "--as-is", "--findings", "Mass")
    assert call(capsys, *short)[0] == 0
    home = folder / place_of(PHANTOM, "val", "gradcam")
    before = {path.name: path.read_bytes() for path in home.iterdir()}

    def full(*_: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device", "contact_sheet.png")

    monkeypatch.setattr("xlite_search.reports.overlays.contact_sheet", full)
    assert call(capsys, *short, "--images", "3")[0] == 3
    assert {path.name: path.read_bytes() for path in home.iterdir()} == before
    assert not list(folder.glob(".explain*"))


def test_a_calibrated_models_probabilities_are_calibrated(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_it = ("explain", "m", "--images", "4", "--cpu", "--findings", "Mass,Effusion")
    assert call(capsys, *call_it)[0] == 0
    body = body_of(folder)
    assert (body["probabilities"], body["calibration"]) == ("not calibrated", "")
    assert all(each["probability"] == each["uncalibrated"] for each in body["shown"])
    assert call(capsys, "calibrate", "m", "--cpu")[0] == 0
    assert call(capsys, *call_it)[0] == 0
    calibration, body = read_calibration(folder), body_of(folder)
    assert calibration is not None
    assert (body["probabilities"], body["calibration"]) == ("calibrated", calibration.hash)
    of = scored(folder, data_of(read_model(folder), ""), "val", torch.device("cpu"))
    for each in body["shown"]:
        at = of.images.index(each["image"]), of.classes.index(each["finding"])
        assert each["uncalibrated"] == pytest.approx(float(sigmoid(of.logits)[at]), abs=1e-5)
        assert each["probability"] == pytest.approx(float(calibration.probabilities(of.logits)[at]), abs=1e-5)
    assert any(abs(each["probability"] - each["uncalibrated"]) > 0.01 for each in body["shown"])


def test_pictures_say_whether_their_probabilities_are_calibrated(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[str] = []

    def sheet(cases: list[Overlay], head: list[str]) -> np.ndarray:
        heads.append(" ".join([*head, *cases[0].caption]))
        return np.zeros((9, 9, 3), np.uint8)

    monkeypatch.setattr("xlite_search.reports.overlays.contact_sheet", sheet)
    call_it = ("explain", "m", "--images", "1", "--cpu", "--findings", "Mass")
    assert call(capsys, *call_it)[0] == 0
    assert call(capsys, "calibrate", "m", "--cpu")[0] == 0
    assert call(capsys, *call_it)[0] == 0
    plain, calibrated = heads
    assert "probabilities, not calibrated" in plain and plain.count("not calibrated") == 2, "each overlay has it too"
    assert "calibrated probabilities" in calibrated and ", calibrated" in calibrated


def test_all_parts_together_are_of_other_data_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(Path(os.environ["XLITE_DATA"]) / PHANTOM, Path(os.environ["XLITE_DATA"]) / "elsewhere")
    said = "--part all: the model was trained on images of 'phantom-tiny', and maps of those look better; say train, "
    for more in ((), ("--on", PHANTOM)):
        code, _, err = call(capsys, "explain", "m", "--part", "all", *more, "--cpu")
        assert code == 2 and said in err.splitlines()[-1]
    assert not list(places.runs_root().glob("looks/*")), "a look is not taken by what is refused"
    about = read_model(folder)
    table = open_data(parse(DataSpec, about.config["data"], "")).packed
    seen = TrainedOn(source=table.manifest["source"], patients=table.table.groups[:3])
    write_model(folder, (folder / WEIGHTS).read_bytes(), about.model_copy(update={"trained_on": seen}))
    code, _, err = call(capsys, "explain", "m", "--part", "all", "--on", "elsewhere", "--cpu")
    assert code == 2 and "--part all: the model was trained on images of 'elsewhere'" in err.splitlines()[-1]


def test_a_model_of_unknown_training_may_have_seen_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "explain", "m", "--images", "1", "--findings", "Mass", "--cpu")
    assert code == 0, err
    assert any("may have seen these patients" in note for note in body_of(folder)["notes"])


def test_explain_compares_with_occlusion_if_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(
        capsys,
        "explain",
        "m",
        "--images",
        "2",
        "--cpu",
        "--as-is",
        "--json",
        "--occlusion",
        "--part",
        "test",
        "--findings",
        "Mass",
    )
    assert code == 0, err
    body = json.loads(out)
    assert {"rank_correlation", "pointing_of_maps", "pointing_of_occlusion"} <= set(body["occlusion"])
    assert any("are of the test part" in note for note in body["notes"])


def test_without_boxes_the_most_probable_positives_are_shown(
    folder: Path, tmp_path: Path, tiny: RunConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xlite_search.data.packed.PackedSet.boxes", lambda self, row: ())
    monkeypatch.setattr("xlite_search.evaluation.explain.boxes_of", lambda packed, part, asked: {})
    code, out, err = call(capsys, "explain", "m", "--images", "3", "--cpu", "--findings", "Mass")
    assert code == 0, err
    assert "no image of the val part has a box" in out and out.splitlines()[-1].startswith("next: ")
    body = body_of(folder)
    chances = [each["probability"] for each in body["shown"]]
    assert chances == sorted(chances, reverse=True) and body["localisation"] == []


def test_a_box_list_is_taken_in_place_of_the_prepared_boxes(
    folder: Path, tmp_path: Path, tiny: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    data = open_data(tiny.data)
    names = [data.packed.table.names[row] for row in data.split.rows["val"].tolist()]
    head = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
    path = tmp_path / "boxes.csv"
    path.write_text(head + "".join(f"{name},Infiltrate,10,20,30,20\n" for name in names[:4]), encoding="utf-8")
    code, out, err = call(capsys, "explain", "m", "--cpu", "--json", "--boxes", str(path))
    assert code == 0, err
    body = json.loads(out)
    assert [(row["finding"], row["cases"]) for row in body["localisation"]] == [("Infiltration", 4), (OVER_ALL, 4)]
    assert body["shown"][0]["boxes"] == [[5, 10, 15, 10]], "raw ones are of 64 px, and 32 px were prepared"
    path.write_text(head + f"{names[0]},Mass,10,20,60,20\n", encoding="utf-8")
    code, out, err = call(capsys, "explain", "m", "--cpu", "--boxes", str(path))
    assert code == 2 and "has 64 x 64 px, and the box of Mass reaches" in err.splitlines()[-1]
    train = data.packed.table.names[int(data.split.rows["train"][0])]
    path.write_text(head + f"{train},Mass,10,20,6,20\n", encoding="utf-8")
    code, out, err = call(capsys, "explain", "m", "--cpu", "--boxes", str(path))
    assert code == 2 and "none of the images that have a box in it is in the val part" in err.splitlines()[-1]


@pytest.mark.parametrize("text", ["a,b\n", "a,b\n1,2\n"])
def test_what_is_no_box_list_is_told_its_columns(
    text: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.csv").write_text(text)
    code, _, err = call(capsys, "explain", "m", "--cpu", "--boxes", str(tmp_path / "bad.csv"))
    assert code == 2 and "expected a box list with the columns Image Index, Finding Label, Bbox [x,y,w,h]" in err


def test_maps_say_of_how_many_cells_they_are_and_what_is_smaller(
    folder: Path, capsys: pytest.CaptureFixture[str], tiny: RunConfig
) -> None:
    code, out, err = call(capsys, "explain", "m", "--images", "2", "--cpu", "--findings", "Mass,Nodule,Cardiomegaly")
    assert code == 0, err
    body = body_of(folder)
    size, (cells,) = body["data"]["size"], body["cells"]
    assert (size, cells) == (32, {"side": 1, "pixels": 32.0})
    boxes = {row["finding"]: row["median_box"] for row in body["localisation"]}
    assert boxes["Nodule"][0] * boxes["Nodule"][1] < 32**2
    notes = [
        "maps have 1 x 1 cells of 32 px on images of 32 px",
        f"Nodule ({boxes['Nodule'][0]:.0f} x {boxes['Nodule'][1]:.0f} px)",
        "a map of 1 x 1 cells of 32 px cannot point at what is smaller than a cell, as the median box is of ",
    ]
    for told in (" ".join(out.split()), " ".join(body["notes"]), model_card(folder)[0]):
        assert all(note in told for note in notes), told


def test_a_subset_of_the_findings_is_said_to_be_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "explain", "m", "--images", "2", "--cpu")[0] == 0
    assert body_of(folder)["left_out"] == [] and "14 findings" not in body_of(folder)["notes"][1]
    code, out, err = call(capsys, "explain", "m", "--images", "2", "--cpu", "--findings", "Mass,Effusion")
    assert code == 0 and "val part, 2 of 14 findings: " in out
    assert "these figures take the place of earlier ones, which had Atelectasis, Cardiomegaly, " in err
    assert len(body_of(folder)["left_out"]) == 12
    text = model_card(folder)[0]
    assert "on the val part of `phantom-tiny`, of 2 of 14 findings." in text
    assert "Its maps were compared with boxes of 2 of 14 findings alone." in text


@pytest.mark.parametrize("wrong", [("--findings", "Mas"), ("--images", "0"), ("--boxes", "no.csv"), ("--method", "x")])
def test_what_is_refused_is_no_look(folder: Path, wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "explain", "m", "--part", "test", *wrong, "--cpu")[0] == 2
    assert not list(places.runs_root().glob("looks/*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["n"], "no model 'n'"),
        (["m", "--findings", "Mas"], "--findings Mas: no finding of this model and data set; did you mean 'Mass'?"),
        (["m", "--part", "valid"], "--part valid: expected train, val, test, and of a data set from elsewhere all"),
        (["m", "--method", "lime"], "--method lime: expected gradcam, hirescam"),
        (["m", "--images", "0"], "--images 0: expected"),
        (["m", "--on", "nowhere"], "data set 'nowhere' is not prepared"),
        (["m", "--boxes", "no.csv"], "no.csv: there is no such file; give a box list with the columns Image Index, "),
    ],
)
def test_bad_input_is_a_sentence(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "explain", *arguments, "--cpu")
    assert code == 2 and said in err.splitlines()[-1] and "Traceback" not in err, err
