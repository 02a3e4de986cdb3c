from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from xlite_search import records
from xlite_search.data.loaders import DataSpec, open_data
from xlite_search.data.packed import PackedSet
from xlite_search.data.sources import CHEST_FINDINGS, LabelTable
from xlite_search.data.sources.phantom import Phantom
from xlite_search.data.splits import SPLITS, ByPatient, deal, split_of
from xlite_search.errors import Damaged

ROOT = Path(__file__).parents[1]
RATIOS = [(0.7, 0.15, 0.15), (0.8, 0.2, 0.0), (0.5, 0.25, 0.25), (1.0, 0.0, 0.0)]


def table_of(patients: NDArray[np.int64], labels: NDArray[np.uint8]) -> LabelTable:
    names = tuple(f"{number:05d}.png" for number in range(len(patients)))
    return LabelTable(names, tuple(str(patient) for patient in patients), labels)


@st.composite
def tables(draw: st.DrawFn) -> LabelTable:
    """Few or many patients with one to some images each, rare and common findings."""
    images, per_patient = draw(st.integers(1, 250)), draw(st.integers(1, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    patients = random.integers(0, images // per_patient + 1, images)
    prevalence = random.random(14) * draw(st.sampled_from([0.02, 0.2, 1.0]))
    return table_of(patients, (random.random((images, 14)) < prevalence).astype(np.uint8))


def nih_table(folder: Path) -> LabelTable:
    path = folder / "data" / "chestxray14" / "Data_Entry_2017_v2020.csv.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))
    labels = np.zeros((len(rows), 14), np.uint8)
    for number, row in enumerate(rows):
        for finding in set(row["Finding Labels"].split("|")) - {"No Finding"}:
            labels[number, CHEST_FINDINGS.index(finding)] = 1
    return LabelTable(tuple(r["Image Index"] for r in rows), tuple(r["Patient ID"] for r in rows), labels)


@given(tables(), st.sampled_from(RATIOS), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_no_patient_is_in_two_splits(table: LabelTable, ratios: tuple[float, float, float], seed: int) -> None:
    codes = deal(table, ByPatient(ratios=ratios, seed=seed))
    assert codes.shape == (len(table),)
    assert len({(p, int(code)) for p, code in zip(table.patients, codes, strict=True)}) == len(set(table.patients))


@given(tables(), st.sampled_from(RATIOS), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_shares_are_met_but_for_a_few_patients(
    table: LabelTable, ratios: tuple[float, float, float], seed: int
) -> None:
    codes = deal(table, ByPatient(ratios=ratios, seed=seed))
    largest = np.unique(np.array(table.patients), return_counts=True)[1].max()
    for number, ratio in enumerate(ratios):
        assert abs((codes == number).sum() - ratio * len(table)) <= 3 * largest
        if ratio == 0:
            assert not (codes == number).any()


@given(st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_every_finding_is_dealt_by_its_share(seed: int) -> None:
    table = Phantom(images=1500, seed=seed).table()
    codes = deal(table, ByPatient())
    for number, ratio in enumerate((0.7, 0.15, 0.15)):
        found = table.labels[codes == number].sum(axis=0)
        assert np.abs(found - ratio * table.labels.sum(axis=0)).max() <= 6


@given(tables(), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_the_same_table_is_dealt_the_same_way(table: LabelTable, seed: int) -> None:
    assert np.array_equal(deal(table, ByPatient(seed=seed)), deal(table, ByPatient(seed=seed)))


def test_a_split_stays_what_it_was() -> None:
    """A change here moves patients between the splits of every study that was ever run."""
    numbers = np.arange(200)
    labels = np.stack([numbers % (3 + finding) == 0 for finding in range(14)], axis=1).astype(np.uint8)
    codes = deal(table_of(numbers // 3, labels), ByPatient())
    assert records.digest(codes.tolist())[:16] == "536df99dd5b468ab"


def test_another_seed_deals_otherwise() -> None:
    table = Phantom(images=300).table()
    assert not np.array_equal(deal(table, ByPatient(seed=0)), deal(table, ByPatient(seed=1)))


def test_random_state_outside_does_not_matter() -> None:
    table = Phantom(images=300).table()
    np.random.seed(1)
    one = deal(table, ByPatient())
    np.random.seed(2)
    assert np.array_equal(one, deal(table, ByPatient()))


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_deals_the_same_way(hash_seed: str) -> None:
    code = (
        "from xlite_search.data.sources.phantom import Phantom\n"
        "from xlite_search.data.splits import ByPatient, deal\n"
        "print(deal(Phantom(images=300).table(), ByPatient()).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == deal(Phantom(images=300).table(), ByPatient()).tolist()


def test_the_full_nih_table_is_dealt_evenly(shared: Path) -> None:
    table = nih_table(shared)
    assert (len(table), len(set(table.patients))) == (112_120, 30_805)
    codes = deal(table, ByPatient())
    patients = np.array(table.patients)
    homes = [set(patients[codes == number]) for number in range(3)]
    assert sum(map(len, homes)) == 30_805
    for number, ratio in enumerate((0.7, 0.15, 0.15)):
        part = table.labels[codes == number]
        assert len(part) == pytest.approx(ratio * len(table), rel=0.005)
        assert np.abs(part.mean(axis=0) - table.labels.mean(axis=0)).max() < 0.002
        assert abs(part.any(axis=1).mean() - table.labels.any(axis=1).mean()) < 0.002
        assert len(homes[number]) == pytest.approx(ratio * 30_805, rel=0.05)


def test_a_split_is_written_once_and_read_again(phantom: PackedSet) -> None:
    first = split_of(phantom, ByPatient())
    (path,) = (phantom.folder / "splits").glob("*.csv")
    written = path.stat().st_mtime_ns
    again = split_of(phantom, ByPatient())
    assert path.stat().st_mtime_ns == written
    assert again.fingerprint == first.fingerprint
    assert all(np.array_equal(first.rows[name], again.rows[name]) for name in SPLITS)


def test_a_split_holds_every_row_once_in_order(phantom: PackedSet) -> None:
    rows = split_of(phantom, ByPatient()).rows
    assert sorted(np.concatenate([rows[name] for name in SPLITS]).tolist()) == list(range(len(phantom)))
    assert all((np.diff(rows[name]) > 0).all() for name in SPLITS)
    codes = deal(phantom.table, ByPatient())
    assert all((codes[rows[name]] == number).all() for number, name in enumerate(SPLITS))


def test_the_written_split_names_images_and_patients(phantom: PackedSet) -> None:
    split = split_of(phantom, ByPatient())
    (path,) = (phantom.folder / "splits").glob("*.csv")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(phantom.table.names)
    assert [row["patient"] for row in rows] == list(phantom.table.patients)
    assert [n for n, row in enumerate(rows) if row["split"] == "test"] == split.rows["test"].tolist()


def test_other_specs_have_other_splits_side_by_side(phantom: PackedSet) -> None:
    specs = [ByPatient(), ByPatient(seed=1), ByPatient(ratios=(0.8, 0.1, 0.1))]
    prints = [split_of(phantom, spec).fingerprint for spec in specs]
    assert len(set(prints)) == 3
    assert [split_of(phantom, spec).fingerprint for spec in specs] == prints


@pytest.mark.parametrize("change", ["moved", "cut", "not text"])
@pytest.mark.parametrize("extension", [".csv", ".json"])
def test_a_tampered_split_is_damaged(change: str, extension: str, phantom: PackedSet) -> None:
    split_of(phantom, ByPatient())
    (path,) = (phantom.folder / "splits").glob(f"*{extension}")
    data = path.read_bytes()
    match change:
        case "moved":
            path.write_bytes(data.replace(b",test\n", b",train\n", 1).replace(b'"sha256": "', b'"sha256": "0', 1))
        case "cut":
            path.write_bytes(data[:-20])
        case "not text":
            path.write_bytes(data[:50] + b"\xff" + data[51:])
    with pytest.raises(Damaged, match=path.name):
        split_of(phantom, ByPatient())


@pytest.mark.parametrize("files", [1, 2])
def test_an_interruption_between_its_files_does_not_spoil_a_split(
    files: int, phantom: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = records.write_atomic, []

    def cut_short(path: Path, data: bytes) -> str:
        written.append(path)
        if len(written) == files:
            raise KeyboardInterrupt
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_atomic", cut_short)
        with pytest.raises(KeyboardInterrupt):
            split_of(phantom, ByPatient())
    rows = split_of(phantom, ByPatient()).rows
    codes = deal(phantom.table, ByPatient())
    assert all(np.array_equal(rows[name], np.flatnonzero(codes == number)) for number, name in enumerate(SPLITS))


def test_train_and_validation_together_leave_the_test_part_alone(phantom: PackedSet) -> None:
    spec = DataSpec(name=phantom.folder.name, fit="train+val")
    data, rows = open_data(spec), split_of(phantom, ByPatient()).rows
    assert set(data.train.rows) == set(rows["train"]) | set(rows["val"])
    assert not set(data.train.rows) & set(rows["test"])
    assert (np.diff(data.train.rows) > 0).all()


@pytest.mark.parametrize("ratios", [(0.7, 0.2, 0.2), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1), (0.5, 0.5)])
def test_shares_that_are_none_are_refused(ratios: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        ByPatient.model_validate({"ratios": ratios})
