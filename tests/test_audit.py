"""`split` and `audit` as a person meets them, on a label table alone and on a prepared set."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_cli import call

from xlite_search import storage
from xlite_search.data.audit import audit_of
from xlite_search.data.integrity import expect_few_lost
from xlite_search.data.packed import PIXELS, PackedSet
from xlite_search.data.samplers import MeanRarity, Shuffled
from xlite_search.data.sources.images import read_image
from xlite_search.data.sources.labels import read_labels, write_labels
from xlite_search.data.sources.phantom import Phantom
from xlite_search.data.splits import ByPatient, Folds, deal
from xlite_search.errors import BadInput
from xlite_search.training.balance import table


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A label table of 400 phantoms, as NIH would write it."""
    table = Phantom(images=400).table()
    named = [[c for c, there in zip(table.classes, row, strict=True) if there] for row in table.labels]
    with open(tmp_path / "labels.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Image Index", "Finding Labels", "Patient ID"])
        for name, patient, found in zip(table.names, table.groups, named, strict=True):
            writer.writerow([name, "|".join(found) or "No Finding", patient])
    return tmp_path / "labels.csv"


def test_split_writes_lists_patients_and_a_report(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "split", "--labels", str(labels), "-o", str(tmp_path / "lists"))
    assert code == 0
    table = read_labels(labels)
    codes = deal(table, ByPatient())
    for number, split in enumerate(("train", "val", "test")):
        part = read_labels(tmp_path / "lists" / f"{split}.csv")
        rows = np.flatnonzero(codes == number)
        assert part.names == tuple(table.names[row] for row in rows)
        assert np.array_equal(part.labels, table.labels[rows])
        patients = (tmp_path / "lists" / f"{split}_patients.txt").read_text().split()
        assert set(patients) == set(part.groups)
        assert f"{split}: at most" in out
    about = storage.read_manifest(tmp_path / "lists" / "split.json")
    assert about["parts"]["val"]["images"] == (codes == 1).sum()
    assert about["spec"]["ratios"] == [0.7, 0.15, 0.15]


def test_split_is_the_same_file_every_time(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a", "b"):
        assert call(capsys, "split", "--labels", str(labels), "-o", str(tmp_path / folder), "--seed", "3")[0] == 0
    files = [{path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("a", "b")]
    assert files[0] == files[1]


def test_split_leaves_the_files_of_others_alone(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.csv").write_text("my precious list")
    code, _, err = call(capsys, "split", "--labels", str(labels), "-o", str(tmp_path / "mine"))
    assert (code, "is not empty" in err) == (2, True), err
    assert (tmp_path / "mine" / "train.csv").read_text() == "my precious list"


@pytest.mark.parametrize("where", ["labels.csv", "labels.csv/x"])
def test_a_folder_that_cannot_be_made_is_a_sentence(
    where: str, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "split", "--labels", str(labels), "-o", str(tmp_path / where))
    assert (code, "labels.csv" in err, "Traceback" in err) == (2, True, False), err


def test_a_full_disk_is_a_sentence_and_leaves_nothing_half(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "the disk")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = call(capsys, "split", "--labels", str(labels), "-o", str(tmp_path / "lists"))
    assert (code, "No space left" in err) == (3, True), err
    assert list((tmp_path / "lists").iterdir()) == []


def test_a_cut_official_list_is_noticed(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = read_labels(labels)
    (tmp_path / "nih").mkdir()
    cut = table.groups.index(table.groups[300])
    for name, some in (("train_val_list", table.names[:cut]), ("test_list", table.names[cut:-20])):
        (tmp_path / "nih" / f"{name}.txt").write_text("\n".join(some) + "\n")
    arguments = ["split", "--labels", str(labels), "--official", str(tmp_path / "nih"), "-o", str(tmp_path / "out")]
    code, _, err = call(capsys, *arguments)
    assert (code, "20 of 400 images are in no list" in err) == (2, True), err


def test_a_split_of_too_few_patients_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labels(tmp_path / "few.csv", Phantom(images=6, prevalence=0.5).table())
    arguments = ["split", "--labels", str(tmp_path / "few.csv"), "-o", str(tmp_path / "o"), "--folds", "9"]
    code, _, err = call(capsys, *arguments)
    assert (code, "would be empty" in err, (tmp_path / "o").exists()) == (2, True, False), err


def test_split_into_folds_is_a_folder_each(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["split", "--labels", str(labels), "--folds", "3", "-o", str(tmp_path / "cv"), "--json"]
    code, out, _ = call(capsys, *arguments)
    assert code == 0
    assert [Path(folder).name for folder in json.loads(out)] == ["fold_0", "fold_1", "fold_2"]
    validated = [name for k in range(3) for name in read_labels(tmp_path / "cv" / f"fold_{k}" / "val.csv").names]
    assert sorted(validated) == sorted(read_labels(labels).names)
    assert not (tmp_path / "cv" / "fold_0" / "test.csv").exists()


def test_split_follows_the_official_lists(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = read_labels(labels)
    cut = table.groups.index(table.groups[300])
    (tmp_path / "nih").mkdir()
    for name, some in (("train_val_list", table.names[:cut]), ("test_list", table.names[cut:])):
        (tmp_path / "nih" / f"{name}.txt").write_text("\n".join(some) + "\n")
    arguments = ["split", "--labels", str(labels), "--official", str(tmp_path / "nih"), "-o", str(tmp_path / "out")]
    assert call(capsys, *arguments)[0] == 0
    assert read_labels(tmp_path / "out" / "test.csv").names == table.names[cut:]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--ratios", "70/15"], "expected three numbers such as 70/15/15"),
        (["--ratios", "0.7/0.2/0.2"], "expected three shares that sum to 1"),
        (["--ratios", "a/b/c"], "expected three numbers such as 70/15/15"),
        (["--ratios", "70/15/15", "--folds", "5"], "give one of them"),
        (["--folds", "1"], "greater than or equal to 2"),
        (["--official", "nowhere"], "expected a folder"),
    ],
)
def test_a_split_that_is_none_is_refused(
    arguments: list[str], says: str, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "split", "--labels", str(labels), "-o", str(tmp_path / "out"), *arguments)
    assert (code, says in err, "Traceback" in err) == (2, True, False), err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def headerless(tmp_path: Path) -> Path:
    """A list of 40 phantoms without header: whose each column is has to be guessed."""
    table = Phantom(images=40, prevalence=0.3).table()
    named = [f"{number + 1:08d}_000.png {' '.join(map(str, row))}" for number, row in enumerate(table.labels.tolist())]
    (tmp_path / "list.txt").write_text("\n".join(named))
    return tmp_path / "list.txt"


def test_what_is_guessed_of_a_table_is_told_and_kept(
    headerless: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first row is read aloud on stderr by each verb that reads a table, for who knows what it should say."""
    table = read_labels(headerless)
    row = next(n for n, found in enumerate(table.labels) if found.any())
    first = " and ".join(c for c, there in zip(table.classes, table.labels[row], strict=True) if there)
    aloud = f"{row + 1:08d}_000.png (line {row + 1}) has {first}"
    for name in table.names:
        (tmp_path / "png").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "png" / name), np.random.default_rng(int(name[:8])).integers(0, 255, (40, 40)))
    given = ["--labels", str(headerless)]
    verbs = {
        "audit": ["audit", *given, "--json"],
        "split": ["split", *given, "-o", str(tmp_path / "lists")],
        "prepare": ["prepare", "some", "--images", str(tmp_path / "png"), *given, "--size", "32"],
    }
    said = {verb: call(capsys, *arguments) for verb, arguments in verbs.items()}
    for verb, (code, out, err) in said.items():
        assert (code, aloud in " ".join(err.split()), aloud in out) == (0, True, verb == "audit"), (verb, err)
        assert "its columns are taken for Atelectasis, Cardiomegaly" in " ".join(err.split())
        assert "00000001_000.png' is of patient 1" in " ".join(err.split())
    kept = [PackedSet.open("some").manifest, storage.read_manifest(tmp_path / "lists" / "split.json")]
    assert [about["notes"] for about in kept] == [list(table.notes)] * 2 == [json.loads(said["audit"][1])["notes"]] * 2
    assert len(table.notes) == 2


def test_other_classes_and_other_groups_are_split_and_audited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{n}.png,{n // 2},{n // 4},{n % 2},{1 - n % 2},{n}" for n in range(80)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["image,patient,ward,Covid,Fracture,note", *rows]))
    asked = ["--labels", str(path), "--classes", "Covid, Fracture", "--patient-column", "ward"]
    code, out, err = call(capsys, "audit", *asked, "--json")
    assert (code, "column 'note' left out" in err) == (0, True), err
    found = json.loads(out)
    assert (found["patients"], found["counts"]) == (20, {"Covid": 40, "Fracture": 40, "No Finding": 0})
    assert call(capsys, "split", *asked, "-o", str(tmp_path / "lists"))[0] == 0
    parts = [
        read_labels(tmp_path / "lists" / f"{name}.csv", ("Covid", "Fracture")) for name in ("train", "val", "test")
    ]
    assert sum(map(len, parts)) == 80
    assert sum(len(set(part.groups)) for part in parts) == 20


def test_audit_of_a_table_prints_what_samplers_draw(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "audit", "--labels", str(labels))
    assert code == 0
    table = read_labels(labels)
    found = audit_of(MeanRarity(), table.labels, table.classes)
    line = next(line for line in out.splitlines() if "mean_rarity, no_finding = as_class" in line)
    assert f"{found.cv:.3f}" in line and f"{100 * found.no_finding:.1f} %" in line
    assert f"{found.effective_size:,.0f}" in line and f"{found.distinct:,.0f}" in line


def test_an_image_of_no_class_is_called_as_the_data_set_calls_it(labels: Path) -> None:
    """`prepare --normal Healthy`: no sampler's table says anything else."""
    known = read_labels(labels)
    sick = known.labels.any(axis=1)
    few = np.concatenate([known.labels[sick][:2], known.labels[~sick]])
    text = table([audit_of(Shuffled(), few, known.classes, normal="Healthy")])
    assert "Healthy" in text.splitlines()[0] and "of draws are Healthy" in text
    assert "No Finding" not in text


def test_audit_as_json_says_the_same(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sampler = "{name: mean_rarity, no_finding: unscaled}"
    arguments = ["audit", "--labels", str(labels), "--sampler", sampler, "--sampler", "none", "--json"]
    code, out, _ = call(capsys, *arguments)
    assert code == 0
    found = json.loads(out)
    assert [one["sampler"] for one in found["samplers"]] == ["mean_rarity, no_finding = unscaled 0.01", "none"]
    table = read_labels(labels)
    assert found["counts"]["Hernia"] == table.labels[:, -1].sum()
    assert found["samplers"][1]["no_finding"] == pytest.approx((~table.labels.any(axis=1)).mean())


def test_audit_of_a_set_tells_integrity_split_and_samplers(
    phantom: PackedSet, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "audit", phantom.folder.name, "--set", "data.fraction=0.5")
    assert code == 0
    codes = deal(phantom.table, ByPatient())
    assert f"{len(phantom):,} images of" in out
    assert out.count("warning: the same pixels") == 0
    assert "240 of 64x64" in out
    assert f"{(codes == 2).sum()}" in out
    code, out, _ = call(capsys, "audit", phantom.folder.name, "--set", "data.split=folds", "--json")
    about = json.loads(out)
    assert about["split"]["spec"]["name"] == "folds"
    assert about["integrity"]["expected"] == about["integrity"]["found"] == 240
    val = int((deal(phantom.table, Folds()) == 1).sum())
    assert about["integrity"]["splits"]["val"] == {"expected": val, "found": val, "lost": 0}


def test_audit_finds_a_flipped_byte(phantom: PackedSet, capsys: pytest.CaptureFixture[str]) -> None:
    path = phantom.folder / PIXELS
    data = bytearray(path.read_bytes())
    data[12345] ^= 1
    path.write_bytes(data)
    code, _, err = call(capsys, "audit", phantom.folder.name)
    assert code == 3
    assert PIXELS in err


def test_a_figure_that_cannot_be_written_is_told(
    phantom: PackedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "views-light.png").mkdir()
    arguments = ["audit", phantom.folder.name, "--sampler", "none", "--figures", str(tmp_path)]
    code, _, err = call(capsys, *arguments)
    assert (code, err.count("\n"), "views-light.png" in err, "Traceback" in err) == (2, 1, True, False), err


def test_audit_draws_its_figures(phantom: PackedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["audit", phantom.folder.name, "--sampler", "mean_rarity", "--figures", str(tmp_path / "figures")]
    assert call(capsys, *arguments)[0] == 0
    drawn = {path.name: read_image(path).pixels for path in (tmp_path / "figures").iterdir()}
    assert set(drawn) == {
        "balance-1-mean_rarity-bce.png",
        "balance-1-mean_rarity-weighted_bce.png",
        "views-light.png",
        "views-medium.png",
        "views-strong.png",
    }
    assert all(image.shape == (1100, 1600) for name, image in drawn.items() if name.startswith("balance"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "one of the two"),
        (["nothing"], "is not prepared"),
        (["--labels", "nowhere.csv"], "there is no such file"),
        (["--labels", "LABELS", "--sampler", "mean"], "sampler = 'mean' is not known"),
        (["--labels", "LABELS", "--sampler", "{name: max_rarity, no_finding: lteral}"], "'lteral' is not known"),
        (["--labels", "LABELS", "--set", "data.fraction=0.5"], "has no data settings"),
        (["phantom", "--classes", "Mass"], "--classes is for a label table: give --labels"),
        (["phantom", "--patient-column", "lesion"], "--patient-column is for a label table: give --labels"),
        (["--labels", "LABELS", "--classes", ""], "class '': expected a name of letters"),
        (["--labels", "LABELS", "--classes", "Mass,,Edema"], "class '': expected a name of letters"),
        (["--labels", "LABELS", "--classes", "Mass,mass"], "classes 'Mass' and 'mass' are the same"),
        (["--labels", "LABELS", "--classes", "Masss"], "never says 'Masss'; did you mean 'Mass'?"),
        (["--labels", "LABELS", "--patient-column", "patent id"], "no column 'patent id'; did you mean 'Patient ID'?"),
        (["x", "--set", "data.fration=0.5"], "did you mean 'data.fraction'"),
        (["x", "--set", "sampler=none"], "see --sampler"),
    ],
)
def test_an_audit_that_cannot_be_made_is_refused(
    arguments: list[str], says: str, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "audit", *(str(labels) if a == "LABELS" else a for a in arguments))
    assert (code, says in err, "Traceback" in err) == (2, True, False), err


def test_figures_of_a_finding_in_every_image_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = Phantom(images=40).table()
    table.labels[:, 2] = 1
    write_labels(tmp_path / "labels.csv", table)
    arguments = ["audit", "--labels", str(tmp_path / "labels.csv"), "--sampler", "none"]
    code, out, _ = call(capsys, *arguments, "--figures", str(tmp_path / "look"))
    assert (code, "all 40 images have Effusion" in out) == (0, True)
    assert [path.name for path in (tmp_path / "look").iterdir()] == ["balance-1-none-bce.png"]


def test_prepare_goes_on_with_losses_only_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phantom = Phantom(images=40, size=48)
    table = phantom.table()
    (tmp_path / "png").mkdir()
    for row, name in enumerate(table.names):
        cv2.imwrite(str(tmp_path / "png" / name), phantom.pixels(row))
    (tmp_path / "png" / table.names[7]).write_bytes(b"\x89PNG no more")
    write_labels(tmp_path / "labels.csv", table)
    arguments = ["prepare", "some", "--images", str(tmp_path / "png"), "--labels", str(tmp_path / "labels.csv")]
    code, _, err = call(capsys, *arguments, "--size", "32")
    assert (code, "1 of 40 images cannot be used" in err, "--accept-losses" in err) == (2, True, True), err
    code, out, err = call(capsys, *arguments, "--size", "32", "--accept-losses")
    assert (code, "39 images" in out, table.names[7] in err) == (0, True, True), err
    code, out, _ = call(capsys, "audit", "some", "--set", "data.split.ratios=[0.5,0.5,0]")
    assert (code, f"set aside: {table.names[7]}" in out) == (0, True), out


def test_a_split_that_lost_too_much_is_refused() -> None:
    rows = {"train": np.arange(90), "val": np.arange(90, 99)}
    expect_few_lost(rows, {"train": 4, "val": 0})
    with pytest.raises(BadInput, match=r"the val split lacks 1 of 10 images"):
        expect_few_lost(rows, {"train": 0, "val": 1})
