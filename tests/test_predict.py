"""Prediction from an exported folder: from file bytes to answers, and a sentence for each file that is of no use."""

from __future__ import annotations

import csv
import io
import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from exported import CLASSES, drawn, expected, gray, handmade
from test_cli import call

from xlite_search import storage
from xlite_search.data.preprocess import Preprocess
from xlite_search.deploy import folder as names
from xlite_search.deploy.answers import _chance, _told_apart
from xlite_search.deploy.domain import files_of, fit_domain
from xlite_search.deploy.folder import expect_own, manifest_of, read_exported
from xlite_search.deploy.predict import Predictor
from xlite_search.errors import BadInput, Damaged

THRESHOLDS = {"Mass": 0.25}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return handmade(tmp_path / "m", thresholds=THRESHOLDS)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def huge_png() -> bytes:
    """30,000 x 30,000 pixels by its header, some bytes in all."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def huge_jpeg(path: Path) -> bytes:
    cv2.imwrite(str(path), np.tile(np.arange(64, dtype=np.uint8), (64, 1)))
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", 30_000, 30_000)
    return bytes(content)


def photograph() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_answers_are_the_graphs_of_the_prepared_file(folder: Path, tmp_path: Path) -> None:
    predictor, path = Predictor.open(folder), drawn(tmp_path / "x.png", row=1)
    answer = predictor.of_file(path)
    prepared = predictor.preprocess(gray(path))
    assert np.allclose(answer.logits, expected(prepared[None])[0], rtol=0, atol=1e-4)
    assert np.allclose(answer.probabilities, 1 / (1 + np.exp(-answer.logits)), rtol=0, atol=1e-6)
    assert predictor.decisions(answer) == [bool(answer.probabilities[0] >= 0.25), None]


def test_png_jpeg_and_dicom_are_told_by_their_content(
    folder: Path, tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dicom = next(path for path in sorted((shared / "data" / "dicom").rglob("*")) if path.suffix == ".dcm")
    cv2.imwrite(str(tmp_path / "y.jpg"), gray(drawn(tmp_path / "x.png")))
    (tmp_path / "y.jpg").rename(tmp_path / "jpeg.png")
    (tmp_path / "radiograph").write_bytes(dicom.read_bytes())
    files = [str(tmp_path / name) for name in ("x.png", "jpeg.png", "radiograph")]
    code, out, err = call(capsys, "predict", str(folder), *files, "--json")
    found = json.loads(out)["images"]
    answered = [each["file"] for each in found if "findings" in each]
    assert answered[:2] == files[:2] and (len(answered) == 3 or "radiograph: " in err)
    assert code == (0 if len(answered) == 3 else 2)


def test_table_csv_and_json_say_the_same(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(drawn(tmp_path / "x.png"))
    code, table, _ = call(capsys, "predict", str(folder), path)
    _, lines, _ = call(capsys, "predict", str(folder), path, "--csv")
    _, tree, _ = call(capsys, "predict", str(folder), path, "--json")
    rows = list(csv.DictReader(io.StringIO(lines)))
    findings = json.loads(tree)["images"][0]["findings"]
    assert code == 0 and [row["finding"] for row in rows] == list(findings) == list(CLASSES)
    for row in rows:
        found = findings[row["finding"]]
        assert float(row["probability"]) == pytest.approx(found["probability"], rel=1e-8)
        assert row["decision"] == {True: "yes", False: "no", None: ""}[found["decision"]]
        assert row["file"] == path and f"{found['probability']:.4f}" in table and f"{found['logit']:.3f}" in table
    assert findings["Hernia"]["threshold"] is None and findings["Mass"]["threshold"] == 0.25
    assert table.splitlines()[0] == path and "threshold" in table.splitlines()[1]


def test_an_image_unlike_the_training_images_is_flagged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths, prepare = [drawn(tmp_path / f"{row}.png", row) for row in range(80)], Preprocess(32)
    domain = fit_domain(np.array([prepare(gray(path)) for path in paths]), [str(row) for row in range(80)])
    (tmp_path / "m").mkdir()
    for name, content in files_of(domain).items():
        (tmp_path / "m" / name).write_bytes(content)
    folder, negative = str(handmade(tmp_path / "m")), tmp_path / "negative.png"
    cv2.imwrite(str(negative), 255 - gray(paths[0]))
    _, table, _ = call(capsys, "predict", folder, str(paths[1]), str(negative))
    lines = table.splitlines()
    assert [number for number, line in enumerate(lines) if line.startswith("  unusual image: its negative is")] == [
        lines.index(str(negative)) + 1
    ]
    _, comma, _ = call(capsys, "predict", folder, str(paths[1]), str(negative), "--csv")
    assert [row["flags"] for row in csv.DictReader(io.StringIO(comma))] == [*("", ""), *("inverted", "inverted")]
    _, tree, _ = call(capsys, "predict", folder, str(paths[1]), str(negative), "--json")
    assert [[flag["code"] for flag in each["flags"]] for each in json.loads(tree)["images"]] == [[], ["inverted"]]


def test_chances_that_four_digits_do_not_tell_from_none_are_said_to_be_so() -> None:
    assert [_chance(chance) for chance in (0.0, 3e-5, 0.00016, 0.5, 0.99999)] == [
        *("<0.0001", "<0.0001", "0.0002", "0.5000", ">0.9999")
    ]


def test_a_folder_without_thresholds_decides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = handmade(tmp_path / "m")
    _, out, _ = call(capsys, "predict", str(folder), str(drawn(tmp_path / "x.png")))
    assert "threshold" not in out and "decision" not in out


def test_each_file_of_no_use_has_its_sentence_and_the_others_their_answers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = drawn(tmp_path / "good.png")
    bad = {
        "photograph.png": (cv2.imencode(".png", photograph())[1].tobytes(), "in colour"),
        "photograph.jpg": (cv2.imencode(".jpg", photograph())[1].tobytes(), "in colour"),
        "huge.png": (huge_png(), "30000 x 30000 px by its header"),
        "huge.jpg": (huge_jpeg(tmp_path / "j.jpg"), "30000 x 30000 px by its header"),
        "cut.png": (good.read_bytes()[:-200], "cut off"),
        "empty.png": (b"", "empty (0 bytes)"),
        "text.png": (b"Image Index,Finding Labels\n", "not a PNG, JPEG or DICOM file"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    files = [str(tmp_path / name) for name in [*bad, "absent.png", "good.png"]]
    code, out, err = call(capsys, "predict", str(folder), *files, "--csv")
    assert code == 2
    assert {row["file"] for row in csv.DictReader(io.StringIO(out))} == {str(good)}
    said = err.splitlines()
    assert len(said) == len(bad) + 1
    for line, (name, (_, why)) in zip(said, [*bad.items(), ("absent.png", (b"", "no such file"))], strict=True):
        assert line.startswith(f"error: {tmp_path / name}: ") and why in line
    code, out, _ = call(capsys, "predict", str(folder), *files, "--json")
    assert code == 2 and ["error" in each for each in json.loads(out)["images"]] == [True] * 8 + [False]


def test_a_dicom_file_without_pixels_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pydicom = pytest.importorskip("pydicom")
    file = pydicom.Dataset()
    file.PatientID, file.Modality = "1", "CR"
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = pydicom.uid.ComputedRadiographyImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    file.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    code, _, err = call(capsys, "predict", str(folder), str(tmp_path / "x.dcm"))
    assert code == 2 and f"{tmp_path / 'x.dcm'}: a DICOM file without pixel data" in err


def test_gray_in_colour_is_gray_and_colour_is_a_colour_models(folder: Path, tmp_path: Path) -> None:
    pixels = np.repeat(gray(drawn(tmp_path / "gray.png"))[..., None], 3, axis=2)
    cv2.imwrite(str(tmp_path / "repeated.png"), pixels)
    tinted = pixels.astype(np.int64) + np.array([0, 2, 4])
    cv2.imwrite(str(tmp_path / "tinted.png"), np.clip(tinted, 0, 255).astype(np.uint8))
    cv2.imwrite(str(tmp_path / "colour.png"), photograph())
    predictor = Predictor.open(folder)
    one, same, near = (predictor.of_file(tmp_path / f"{name}.png") for name in ("gray", "repeated", "tinted"))
    assert np.array_equal(one.logits, same.logits) and not near.error
    assert np.allclose(near.logits, one.logits, atol=0.5)
    rgb = Predictor.open(handmade(tmp_path / "rgb", channels=3))
    assert not rgb.of_file(tmp_path / "colour.png").error and not rgb.of_file(tmp_path / "gray.png").error


def test_the_known_answers_are_asked_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "predict", str(folder), "--selftest")
    assert (code, err) == (0, "") and out.startswith("1 known answers: logits differ by ")
    path = folder / names.ANSWERS
    answers = json.loads(path.read_bytes())
    answers["float"][0]["logits"][1] += 0.01
    rewritten(folder, names.ANSWERS, json.dumps(answers).encode())
    code, _, err = call(capsys, "predict", str(folder), "--selftest")
    assert code == 3 and "logits differ by 1.0e-02 at most" in err


def rewritten(folder: Path, name: str, content: bytes) -> None:
    """Another content, with the manifest's consent."""
    sha256 = storage.write_atomic(folder / name, content)
    about = manifest_of(folder)
    changed = about.model_copy(update={"files": about.files | {name: sha256}})
    storage.write_manifest(folder / names.MANIFEST, changed.model_dump(mode="json"))


@pytest.mark.parametrize("name", [names.ONNX, names.PREPROCESS, "known_answers/phantom_1.png", names.MANIFEST])
def test_a_changed_or_missing_file_is_named_before_anything_is_answered(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code, out, err = call(capsys, "predict", str(folder), "--selftest")
    assert (code, out) == (3, "") and str(path) in err
    path.unlink()
    code, out, err = call(capsys, "predict", str(folder), "--selftest")
    assert (code, out) == (2 if name == names.MANIFEST else 3, "") and name in err


def test_a_preprocessing_of_other_images_is_damage(folder: Path) -> None:
    rewritten(folder, names.PREPROCESS, json.dumps({"size": 64, "clahe": None}).encode())
    with pytest.raises(Damaged, match=r"preprocess.json makes other images than model.onnx takes"):
        Predictor.open(folder)
    rewritten(folder, names.PREPROCESS, b"[]")
    with pytest.raises(Damaged, match="is not a preprocessing"):
        Predictor.open(folder)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no files"),
        (["x.png", "--csv", "--json"], "choose one"),
        (["x.png", "--int8"], "has no 8-bit model"),
    ],
)
def test_what_cannot_be_asked_is_bad_input(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "predict", str(folder), *arguments)
    assert code == 2 and said in err


def test_a_folder_that_is_no_export_is_said_to_be_none(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BadInput, match=r"is not an exported model .* export MODEL -o DIR"):
        read_exported(tmp_path)
    body = manifest_of(folder).model_dump(mode="json") | {"format": 2}
    storage.write_manifest(folder / names.MANIFEST, body)
    with pytest.raises(BadInput, match="of format 2; this version of xlite_search reads 1"):
        read_exported(folder)


def test_only_an_export_is_written_over(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    for fine in ("new", "empty", folder.name):
        expect_own(tmp_path / fine)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"files that are of no export \(notes.txt\)"):
        expect_own(folder)
    with pytest.raises(BadInput, match="is a file; give a folder"):
        expect_own(folder / "notes.txt")


def test_without_onnxruntime_a_sentence_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(BadInput, match=r"onnxruntime is not installed; pip install 'xlite-search\[export\]'"):
        Predictor.open(folder)


def test_a_probability_and_its_threshold_are_told_apart() -> None:
    assert _told_apart(0.25004, 0.25) == ("0.25004", "0.25000")
    assert _told_apart(0.25, 0.2500000001) == ("0.2500000000", "0.2500000001")
    assert _told_apart(0.25, 0.25) == ("0.2500", "0.2500")
    assert _told_apart(0.1, 0.25) == ("0.1000", "0.2500")
    assert _told_apart(0.00001, 0.00003) == ("0.00001", "0.00003")
    assert _told_apart(0.00001, None) == ("<0.0001", "")


def test_a_folder_that_is_not_there_is_said_to_be_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = folder.parent / f"{folder.name}x"
    code, _, err = call(capsys, "predict", str(wrong), "x.png")
    assert code == 2 and err == f"error: {wrong}: there is no such folder; did you mean '{folder.name}'?\n"
    code, _, err = call(capsys, "predict", str(tmp_path / "no" / "such"), "x.png")
    assert code == 2 and "there is no such folder; `python -m xlite_search export MODEL -o DIR` makes one" in err
