from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from xlite_search import places, storage
from xlite_search.data import integrity, stratify
from xlite_search.data.dataset import DataSpec, open_data
from xlite_search.data.lists import SPLITS, TEST, TRAIN, VAL, Lists, Official, rows_by_split, write_lists
from xlite_search.data.packed import PackedSet
from xlite_search.data.sources import LabelTable
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.labels import read_labels
from xlite_search.data.sources.phantom import Phantom
from xlite_search.data.split_files import fraction_of, split_of
from xlite_search.data.splits import ByPatient, CrossFit, Folds, deal, identity
from xlite_search.errors import BadInput, Damaged

ROOT = Path(__file__).parents[1]
FULL_SPLIT = "caedf310d1686505"
RATIOS = [(0.7, 0.15, 0.15), (0.8, 0.2, 0.0), (0.5, 0.25, 0.25), (1.0, 0.0, 0.0)]


def table_of(patients: NDArray[np.int64], labels: NDArray[np.uint8]) -> LabelTable:
    names = tuple(f"{number:05d}.png" for number in range(len(patients)))
    return LabelTable(names, tuple(str(patient) for patient in patients), labels, CHEST_FINDINGS)


@st.composite
def tables(draw: st.DrawFn) -> LabelTable:
    """Few or many patients with one to some images each, rare and common findings."""
    images, per_patient = draw(st.integers(1, 250)), draw(st.integers(1, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    patients = random.integers(0, images // per_patient + 1, images)
    prevalence = random.random(14) * draw(st.sampled_from([0.02, 0.2, 1.0]))
    return table_of(patients, (random.random((images, 14)) < prevalence).astype(np.uint8))


@pytest.fixture(scope="session")
def nih(shared: Path) -> LabelTable:
    """The full label table: 112,120 images."""
    path = shared / "data" / "chestxray14" / "Data_Entry_2017_v2020.csv.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return read_labels(path)


@pytest.fixture
def official_lists(shared: Path) -> str:
    folder = shared / "data" / "chestxray14"
    if not (folder / "test_list.txt.gz").is_file():
        pytest.skip(f"no test_list.txt.gz in {folder}")
    return str(folder)


def expect_even(table: LabelTable, rows: NDArray[np.int64], images: float) -> None:
    """Sizes within 0.1 % of the part, every prevalence within 0.008 percentage points of the whole, No Finding too."""
    columns = np.concatenate([table.labels, ~table.labels.any(axis=1, keepdims=True)], axis=1)
    assert len(rows) == pytest.approx(images, rel=0.001)
    assert 100 * np.abs(columns[rows].mean(axis=0) - columns.mean(axis=0)).max() <= 0.008


@given(tables(), st.sampled_from(RATIOS), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_no_patient_is_in_two_splits(table: LabelTable, ratios: tuple[float, float, float], seed: int) -> None:
    codes = deal(table, ByPatient(ratios=ratios, seed=seed))
    assert codes.shape == (len(table),)
    assert len({(p, int(code)) for p, code in zip(table.groups, codes, strict=True)}) == len(set(table.groups))


@given(tables(), st.sampled_from(RATIOS), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_shares_are_met_but_for_a_few_patients(
    table: LabelTable, ratios: tuple[float, float, float], seed: int
) -> None:
    codes = deal(table, ByPatient(ratios=ratios, seed=seed))
    largest = np.unique(np.array(table.groups), return_counts=True)[1].max()
    for number, ratio in enumerate(ratios):
        assert abs((codes == number).sum() - ratio * len(table)) <= 3 * largest
        if ratio == 0:
            assert not (codes == number).any()


@given(tables(), st.integers(2, 5), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_a_cross_fit_deals_training_and_validation_anew_and_leaves_the_test_part(
    table: LabelTable, folds: int, seed: int
) -> None:
    base = deal(table, ByPatient())
    found = np.array([deal(table, CrossFit(folds=folds, fold=fold, seed=seed)) for fold in range(folds)])
    assert (found[:, base == TEST] == TEST).all()
    assert ((found == VAL).sum(axis=0) == (base != TEST)).all(), "each image validates once"
    assert ((found == TRAIN).sum(axis=0) == (folds - 1) * (base != TEST)).all()
    for codes in found:
        assert len({(p, int(code)) for p, code in zip(table.groups, codes, strict=True)}) == len(set(table.groups))


def test_a_cross_fit_of_lists_is_known_by_what_they_say(phantom: PackedSet, tmp_path: Path) -> None:
    names, dealt = phantom.table.names, rows_by_split(deal(phantom.table, ByPatient()))
    for part, rows in dealt.items():
        some = [names[row] for row in rows]
        for folder in ("here", "there"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{part}.txt").write_text("\n".join(some))
    here, there = (
        split_of(phantom, CrossFit(of=Lists(path=str(tmp_path / folder)), fold=1)) for folder in ("here", "there")
    )
    assert here is there and np.array_equal(here.rows["test"], dealt["test"])
    assert identity(CrossFit(of=Lists(path="a", sha256="b"))) == identity(CrossFit(of=Lists(path="c", sha256="b")))


def test_a_fold_that_is_not_there_is_told() -> None:
    with pytest.raises(BadInput, match="fold 5: folds count from 0, the last of 5 is 4"):
        CrossFit(fold=5)


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
    assert storage.digest(codes.tolist())[:16] == "93db13dce225afa0"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("images", "prevalence"), [(600, 0.0), (1200, 0.5)])
def test_a_heavy_patient_goes_where_there_is_room(images: int, prevalence: float, seed: int) -> None:
    """One patient has 30 or 60 % of 2,000 images, the others two each; 70 % of all are to train."""
    random = np.random.default_rng(seed)
    labels = (random.random((2000, 14)) < 0.05).astype(np.uint8)
    labels[:images] = random.random((images, 14)) < prevalence
    patients = np.concatenate([np.zeros(images, np.int64), 1 + np.arange(2000 - images) // 2])
    codes = deal(table_of(patients, labels), ByPatient(seed=seed))
    assert [(codes == number).sum() for number in range(3)] == pytest.approx([1400, 300, 300], abs=12)


def images_owed(table: LabelTable, codes: NDArray[np.int64], ratios: tuple[float, ...]) -> float:
    """Pearson's chi-square of splits by findings, No Finding and images, which the dealing minimises."""
    ones = np.ones((len(table), 1))
    columns = np.concatenate([table.labels, ~table.labels.any(axis=1, keepdims=True), ones], axis=1)
    columns = columns[:, columns.any(axis=0)]
    wanted = [ratio * columns.sum(axis=0) for ratio in ratios]
    return sum(float(((columns[codes == n].sum(axis=0) - want) ** 2 / want).sum()) for n, want in enumerate(wanted))


@given(tables(), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_no_patient_would_be_better_off_in_another_split(table: LabelTable, seed: int) -> None:
    ratios = (0.5, 0.25, 0.25)
    codes = deal(table, ByPatient(ratios=ratios, seed=seed))
    least, patients = images_owed(table, codes, ratios), np.array(table.groups)
    for patient in np.unique(patients)[:40]:
        for home in range(3):
            moved = np.where(patients == patient, home, codes)
            assert images_owed(table, moved, ratios) >= least * (1 - 1e-6) - 1e-6


@given(tables(), st.sampled_from(RATIOS), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_numbers_beyond_64_bits_deal_the_same_way(
    table: LabelTable, ratios: tuple[float, float, float], seed: int
) -> None:
    codes = deal(table, ByPatient(ratios=ratios, seed=seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stratify, "MOST", 0)
        assert np.array_equal(deal(table, ByPatient(ratios=ratios, seed=seed)), codes)


@pytest.mark.parametrize("ratios", [(0.5, 0.5 - 1e-6, 1e-6), (0.123457, 0.376543, 0.5), (1 / 3, 1 / 3, 1 / 3)])
def test_shares_of_any_fineness_are_dealt(ratios: tuple[float, float, float]) -> None:
    codes = deal(Phantom(images=300).table(), ByPatient(ratios=ratios))
    assert [(codes == number).mean() for number in range(3)] == pytest.approx(list(ratios), abs=0.02)


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_a_fraction_of_nearly_nothing_or_all_is_dealt(fraction: float) -> None:
    table = Phantom(images=60).table()
    assert len(fraction_of(table, np.arange(60), fraction)) == round(60 * fraction)


def test_a_split_that_misses_its_share_is_told() -> None:
    groups = ["7"] * 90 + [str(number) for number in range(10, 20)]
    rows = {"train": np.arange(90), "val": np.arange(90, 95), "test": np.arange(95, 100)}
    shares = {"train": 0.7, "val": 0.15, "test": 0.15}
    told = integrity.missed_shares(groups, rows, shares)
    assert [sentence.split(":")[0] for sentence in told] == [
        "the train split has 90 of 100 images where 70 were asked for",
        "the val split has 5 of 100 images where 15 were asked for",
        "the test split has 5 of 100 images where 15 were asked for",
    ]
    assert all("patient 7 has 90" in sentence for sentence in told)
    single = [str(number) for number in range(100)]
    near = {"train": np.arange(69), "val": np.arange(69, 85), "test": np.arange(85, 100)}
    assert integrity.missed_shares(single, near, shares) == []
    off = {"train": np.arange(68), "val": np.arange(68, 85), "test": np.arange(85, 100)}
    assert len(integrity.missed_shares(single, off, shares)) == 2, "by more than the largest patient has"


def test_a_table_of_one_patient_is_refused_by_that_name() -> None:
    table = table_of(np.full(50, 7), np.eye(50, 14, dtype=np.uint8))
    with pytest.raises(BadInput, match=r"all 50 images are of one patient, 7, .* val would be empty"):
        integrity.expect_parts(table, rows_by_split(deal(table, ByPatient())), ByPatient().parts, "one.csv")


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


def test_the_full_nih_table_is_dealt_evenly(nih: LabelTable) -> None:
    assert (len(nih), len(set(nih.groups))) == (112_120, 30_805)
    codes = deal(nih, ByPatient())
    patients = np.array(nih.groups)
    homes = [set(patients[codes == number]) for number in range(3)]
    assert sum(map(len, homes)) == 30_805
    for number, ratio in enumerate((0.7, 0.15, 0.15)):
        expect_even(nih, np.flatnonzero(codes == number), ratio * len(nih))
        assert len(homes[number]) == pytest.approx(ratio * 30_805, rel=0.05)
    assert storage.digest(codes.tolist())[:16] == FULL_SPLIT


@pytest.mark.parametrize("test", [0.0, 0.2])
def test_five_folds_of_the_full_table_are_even_and_cover_it_once(test: float, nih: LabelTable) -> None:
    codes = [deal(nih, Folds(fold=fold, test=test)) for fold in range(5)]
    for one in codes:
        expect_even(nih, np.flatnonzero(one == VAL), (1 - test) * len(nih) / 5)
        assert np.array_equal(one == TEST, codes[0] == TEST)
    if test:
        expect_even(nih, np.flatnonzero(codes[0] == TEST), test * len(nih))
    validated = np.sum([one == VAL for one in codes], axis=0)
    assert np.array_equal(validated, (codes[0] != TEST).astype(int))


def test_a_fifth_of_the_train_images_is_even(nih: LabelTable) -> None:
    train = np.flatnonzero(deal(nih, ByPatient()) == TRAIN)
    part = fraction_of(nih, train, 0.2)
    assert set(part) <= set(train)
    assert len(part) == pytest.approx(15_697, rel=0.001)
    expect_even(nih.part(train), np.searchsorted(train, part), 0.2 * len(train))
    rest = set(np.array(nih.groups)[np.setdiff1d(train, part)])
    assert not rest & set(np.array(nih.groups)[part])


def test_the_official_split_is_nihs_and_its_validation_part_is_by_patient(nih: LabelTable, official_lists: str) -> None:
    codes = deal(nih, Official(path=official_lists, val=0.125))
    assert ((codes != TEST).sum(), (codes == TEST).sum()) == (86_524, 25_596)
    train_val = np.flatnonzero(codes != TEST)
    expect_even(nih.part(train_val), np.flatnonzero(codes[train_val] == VAL), 0.125 * 86_524)
    homes = {patient: set(codes[rows]) for patient, rows in rows_by_patient(nih).items()}
    assert all(len(home) == 1 for home in homes.values())


def rows_by_patient(table: LabelTable) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row, patient in enumerate(table.groups):
        found.setdefault(patient, []).append(row)
    return found


def lists_in(folder: Path, **lists: list[str]) -> str:
    folder.mkdir(exist_ok=True)
    for name, names in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in names))
    return str(folder)


def test_given_lists_are_followed_with_and_without_suffixes(phantom: PackedSet, tmp_path: Path) -> None:
    dealt = split_of(phantom, ByPatient()).rows
    names = {split: [phantom.table.names[row] for row in rows] for split, rows in dealt.items()}
    names["val"] = [name.removesuffix(".png") for name in names["val"]]
    found = split_of(phantom, Lists(path=lists_in(tmp_path / "lists", **names))).rows
    assert all(np.array_equal(found[split], dealt[split]) for split in SPLITS)


def test_lists_without_a_test_part_leave_images_in_no_split(phantom: PackedSet, tmp_path: Path) -> None:
    dealt = split_of(phantom, ByPatient()).rows
    names = {split: [phantom.table.names[row] for row in dealt[split]] for split in ("train", "val")}
    rows = split_of(phantom, Lists(path=lists_in(tmp_path / "lists", **names))).rows
    assert [len(rows[split]) for split in SPLITS] == [len(dealt["train"]), len(dealt["val"]), 0]


def test_what_lists_say_counts_not_where_they_lie(phantom: PackedSet, tmp_path: Path) -> None:
    names = {"train": list(phantom.table.names[:-20]), "val": list(phantom.table.names[-20:])}
    one, other = (Lists(path=lists_in(tmp_path / where, **names)).resolved() for where in ("a", "b"))
    assert one.sha256 == other.sha256
    assert split_of(phantom, one).fingerprint == split_of(phantom, other).fingerprint
    assert len(list((phantom.folder / "splits").glob("lists-*.json"))) == 1
    shutil.rmtree(tmp_path / "a")
    assert split_of(phantom, one).fingerprint == split_of(phantom, other).fingerprint


def test_lists_that_changed_since_the_config_was_made_are_refused(phantom: PackedSet, tmp_path: Path) -> None:
    names = {"train": list(phantom.table.names[:-20]), "val": list(phantom.table.names[-20:])}
    spec = Lists(path=lists_in(tmp_path / "a", **names)).resolved()
    lists_in(tmp_path / "a", val=names["val"][1:])
    with pytest.raises(BadInput, match="changed since"):
        split_of(phantom, spec)


def test_a_patient_in_two_lists_is_refused_by_name(phantom: PackedSet, tmp_path: Path) -> None:
    patient, rows = next((p, r) for p, r in rows_by_patient(phantom.table).items() if len(r) > 1)
    names = {"train": list(phantom.table.names), "val": [phantom.table.names[rows[0]]]}
    names["train"].remove(names["val"][0])
    with pytest.raises(BadInput, match=rf"patient.*{patient}.*train and val"):
        split_of(phantom, Lists(path=lists_in(tmp_path / "lists", **names)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda names: {"train": names}, r"no list of the val images"),
        (lambda names: {"train": names, "val": names[:1]}, r"image \S+ is in the lists train and val"),
        (
            lambda names: {"train": [*names[9:], *(f"x{n}.png" for n in range(9))], "val": names[:9]},
            r"9 of the 240 .*train.*x0\.png",
        ),
        (
            lambda names: {"train": names[9:], "train_list": names[9:], "val": names[:9]},
            r"train\.txt and train_list\.txt",
        ),
        (lambda names: {"train": [], "val": names}, r"train\.txt is empty"),
    ],
    ids=["no val", "image twice", "unknown images", "two files", "empty"],
)
def test_lists_that_do_not_fit_are_refused(
    change: Callable[[list[str]], dict[str, list[str]]], says: str, phantom: PackedSet, tmp_path: Path
) -> None:
    folder = lists_in(tmp_path / "lists", **change(list(phantom.table.names)))
    with pytest.raises(BadInput, match=says):
        split_of(phantom, Lists(path=folder))


def test_lists_for_more_than_is_here_are_taken_when_told(phantom: PackedSet, tmp_path: Path) -> None:
    names = {
        "train": [*phantom.table.names[9:], *(f"x{n}.png" for n in range(99))],
        "val": list(phantom.table.names[:9]),
    }
    spec = Lists(path=lists_in(tmp_path / "lists", **names), incomplete=True)
    if {*phantom.table.groups[:9]} & {*phantom.table.groups[9:]}:
        with pytest.raises(BadInput, match="train and val"):
            split_of(phantom, spec)
    names["val"], names["train"] = (
        names["val"][:1],
        [n for n, p in zip(phantom.table.names, phantom.table.groups, strict=True) if p != phantom.table.groups[0]]
        + ["x.png"],
    )
    rows = split_of(phantom, Lists(path=lists_in(tmp_path / "other", **names), incomplete=True)).rows
    assert (len(rows["val"]), len(rows["train"])) == (1, len(names["train"]) - 1)


def test_whether_lists_may_be_incomplete_does_not_depend_on_what_was_asked_before(
    phantom: PackedSet, tmp_path: Path
) -> None:
    table = phantom.table
    late = set(table.groups[-9:])
    names = {"train": [n for n, p in zip(table.names, table.groups, strict=True) if p not in late]}
    names |= {"train": [*names["train"], "x.png"], "val": [n for n in table.names if n not in names["train"]]}
    spec = Lists(path=lists_in(tmp_path / "lists", **names))
    split_of(phantom, spec.model_copy(update={"incomplete": True}))
    with pytest.raises(BadInput, match=r"1 of the \d+ images in the list train"):
        split_of(phantom, spec)


def test_lists_whose_columns_are_in_the_wrong_order_are_refused(phantom: PackedSet, tmp_path: Path) -> None:
    table, codes = phantom.table, deal(phantom.table, ByPatient())
    turned = replace(table, labels=np.roll(table.labels, 1, axis=1))
    write_lists(tmp_path / "turned", turned, codes, {})
    with pytest.raises(BadInput, match=r"train\.csv: its columns are in the wrong order: Atelectasis holds .* Hernia"):
        split_of(phantom, Lists(path=str(tmp_path / "turned")))
    other = replace(table, labels=table.labels[::-1])
    write_lists(tmp_path / "other", other, codes, {})
    with pytest.raises(BadInput, match=r"the labels of \d+ of \d+ images are not those of the data set"):
        split_of(phantom, Lists(path=str(tmp_path / "other")))
    few = table.labels.copy()
    few[np.flatnonzero(codes == TRAIN)[:3]] ^= 1
    write_lists(tmp_path / "few", replace(table, labels=few), codes, {})
    found = split_of(phantom, Lists(path=str(tmp_path / "few"))).rows
    assert np.array_equal(found["val"], np.flatnonzero(codes == VAL))


def test_lists_as_chexnet_has_them_are_read(phantom: PackedSet, tmp_path: Path) -> None:
    table, rows = phantom.table, split_of(phantom, ByPatient()).rows
    (tmp_path / "lists").mkdir()
    for split in SPLITS:
        lines = [f"{table.names[r]} {' '.join(map(str, table.labels[r].tolist()))}\n" for r in rows[split]]
        (tmp_path / "lists" / f"{split}_list.txt").write_text("".join(lines))
    found = split_of(phantom, Lists(path=str(tmp_path / "lists"))).rows
    assert all(np.array_equal(found[split], rows[split]) for split in SPLITS)


def test_written_lists_are_not_overwritten_by_another_split(phantom: PackedSet, tmp_path: Path) -> None:
    table = phantom.table
    first = write_lists(tmp_path / "lists", table, deal(table, ByPatient()), {})
    assert write_lists(tmp_path / "lists", table, deal(table, ByPatient()), {}) == first
    before = {path.name: path.read_bytes() for path in (tmp_path / "lists").iterdir()}
    with pytest.raises(BadInput, match="is not empty and holds another split"):
        write_lists(tmp_path / "lists", table, deal(table, ByPatient(seed=1)), {})
    assert {path.name: path.read_bytes() for path in (tmp_path / "lists").iterdir()} == before


def test_patients_who_share_an_image_stay_together() -> None:
    """Pixel for pixel the same image under two patients: they are one group."""
    random = np.random.default_rng(0)
    table = table_of(np.arange(300), (random.random((300, 14)) < 0.1).astype(np.uint8))
    digests = [f"{number:016x}" for number in range(300)]
    for one, other in [(0, 299), (299, 150), (20, 21)]:
        digests[other] = digests[one]
    codes = deal(replace(table, digests=tuple(digests)), ByPatient())
    assert codes[0] == codes[299] == codes[150]
    assert codes[20] == codes[21]
    assert [(codes == number).sum() for number in range(3)] == pytest.approx([210, 45, 45], abs=3)


@given(tables(), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_folds_share_no_patient_and_cover_all(table: LabelTable, folds: int) -> None:
    codes = [deal(table, Folds(folds=folds, fold=fold)) for fold in range(folds)]
    assert (np.sum([one == VAL for one in codes], axis=0) == 1).all()
    for one in codes:
        assert len({(p, int(c)) for p, c in zip(table.groups, one, strict=True)}) == len(set(table.groups))


@given(tables(), st.permutations(range(14)))
@settings(max_examples=30, deadline=None)
def test_the_order_of_images_and_classes_does_not_matter(table: LabelTable, order: list[int]) -> None:
    codes = deal(table, ByPatient())
    turned = LabelTable(table.names[::-1], table.groups[::-1], table.labels[::-1][:, order], table.classes)
    assert np.array_equal(deal(turned, ByPatient())[::-1], codes)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "folds", "fold": 5}, r"^split = \{'name': 'folds', 'fold': 5\}: fold 5: folds count from 0"),
        ({"name": "folds", "folds": 101}, r"^split\.folds = 101: "),
        ({"name": "folds", "folds": 1}, "greater than or equal to 2"),
        ({"name": "official", "val": 1.0}, "less than 1"),
        ({"name": "official", "val": 1e-7}, "greater than or equal to 0.000001"),
        ({"name": "patient", "ratios": (0.7, 0.3 - 1e-7, 1e-7)}, "at least one in a million"),
        ({"name": "folds", "test": 1e-7}, "at least one in a million"),
        ({"name": "folds", "test": 1 - 1e-7}, "at least one in a million"),
        ({"name": "oficial"}, "official"),
    ],
)
def test_splits_that_are_none_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        DataSpec().with_settings({"split": given})


def test_splits_have_a_short_form() -> None:
    assert DataSpec().with_settings({"split": "folds"}).split == Folds()


def test_how_even_a_split_is_is_written_beside_it(phantom: PackedSet) -> None:
    rows = split_of(phantom, ByPatient()).rows
    (path,) = (phantom.folder / "splits").glob("*.json")
    about = storage.read_manifest(path)
    assert {name: part["images"] for name, part in about["parts"].items()} == {n: len(r) for n, r in rows.items()}
    share = phantom.table.labels[rows["val"]].mean(axis=0)
    assert list(about["parts"]["val"]["prevalence"].values())[:-1] == pytest.approx(share.tolist())
    off = 100 * np.abs(share - phantom.table.labels.mean(axis=0)).max()
    assert about["parts"]["val"]["largest_deviation"]["points"] >= off - 1e-9
    (patients,) = (phantom.folder / "splits").glob("*.patients.csv")
    with open(patients, newline="") as file:
        listed = {row["patient"]: row["split"] for row in csv.DictReader(file)}
    assert listed == {p: n for n in SPLITS for p in np.array(phantom.table.groups)[rows[n]].tolist()}


def test_a_split_is_written_once_and_read_again(phantom: PackedSet) -> None:
    first = split_of(phantom, ByPatient())
    (path,) = (phantom.folder / "splits").glob("*[0-9a-f].csv")
    written = path.stat().st_mtime_ns
    again = split_of(phantom, ByPatient())
    assert path.stat().st_mtime_ns == written
    assert again.fingerprint == first.fingerprint
    assert all(np.array_equal(first.rows[name], again.rows[name]) for name in SPLITS)


def test_data_that_cannot_be_written_to_have_their_splits_with_the_runs(
    phantom: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = storage.write_atomic

    def read_only(path: Path, data: bytes) -> str:
        if phantom.folder in path.parents:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real(path, data)

    monkeypatch.setattr(storage, "write_atomic", read_only)
    first = split_of(phantom, ByPatient())
    written = {path: path.stat().st_mtime_ns for path in places.runs_root().rglob("patient-*")}
    assert len(written) == 4
    assert split_of(phantom, ByPatient()).fingerprint == first.fingerprint
    assert {path: path.stat().st_mtime_ns for path in written} == written
    monkeypatch.setattr(storage, "write_atomic", real)
    shutil.rmtree(places.runs_root())
    assert split_of(phantom, ByPatient()).fingerprint == first.fingerprint


def test_a_disk_that_is_full_is_not_taken_for_one_that_cannot_be_written_to(
    phantom: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(storage, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        split_of(phantom, ByPatient())
    assert not places.runs_root().exists()


def test_a_split_holds_every_row_once_in_order(phantom: PackedSet) -> None:
    rows = split_of(phantom, ByPatient()).rows
    assert sorted(np.concatenate([rows[name] for name in SPLITS]).tolist()) == list(range(len(phantom)))
    assert all((np.diff(rows[name]) > 0).all() for name in SPLITS)
    codes = deal(phantom.table, ByPatient())
    assert all((codes[rows[name]] == number).all() for number, name in enumerate(SPLITS))


def test_the_written_split_names_images_and_patients(phantom: PackedSet) -> None:
    split = split_of(phantom, ByPatient())
    (path,) = (phantom.folder / "splits").glob("*[0-9a-f].csv")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(phantom.table.names)
    assert [row["patient"] for row in rows] == list(phantom.table.groups)
    assert [n for n, row in enumerate(rows) if row["split"] == "test"] == split.rows["test"].tolist()


def test_other_specs_have_other_splits_side_by_side(phantom: PackedSet) -> None:
    specs = [ByPatient(), ByPatient(seed=1), ByPatient(ratios=(0.8, 0.1, 0.1))]
    prints = [split_of(phantom, spec).fingerprint for spec in specs]
    assert len(set(prints)) == 3
    assert [split_of(phantom, spec).fingerprint for spec in specs] == prints


@pytest.mark.parametrize("change", ["moved", "cut", "not text"])
@pytest.mark.parametrize("extension", [".csv", ".json", ".i8"])
def test_a_tampered_split_is_damaged(change: str, extension: str, phantom: PackedSet) -> None:
    split_of(phantom, ByPatient())
    (path,) = (phantom.folder / "splits").glob(f"*[0-9a-f]{extension}")
    data = path.read_bytes()
    match change:
        case "moved":
            moved = data.replace(b",test\n", b",train\n", 1).replace(b'"sha256": "', b'"sha256": "0', 1)
            path.write_bytes(moved if extension != ".i8" else data.replace(b"\2", b"\0", 1))
        case "cut":
            path.write_bytes(data[:-20])
        case "not text":
            path.write_bytes(data[:50] + b"\xff" + data[51:])
    with pytest.raises(Damaged, match=path.name):
        split_of(phantom, ByPatient())


@pytest.mark.parametrize("files", [1, 2, 3, 4])
def test_an_interruption_between_its_files_does_not_spoil_a_split(
    files: int, phantom: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = storage.write_atomic, []

    def cut_short(path: Path, data: bytes) -> str:
        written.append(path)
        if len(written) == files:
            raise KeyboardInterrupt
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_atomic", cut_short)
        with pytest.raises(KeyboardInterrupt):
            split_of(phantom, ByPatient())
    rows = split_of(phantom, ByPatient()).rows
    codes = deal(phantom.table, ByPatient())
    assert all(np.array_equal(rows[name], np.flatnonzero(codes == number)) for number, name in enumerate(SPLITS))


def test_the_codes_beside_a_split_say_what_its_csv_says(phantom: PackedSet) -> None:
    split = split_of(phantom, ByPatient())
    with open(split.path, newline="") as file:
        homes = [row["split"] for row in csv.DictReader(file)]
    codes = np.fromfile(split.path.with_suffix(".i8"), np.int8)
    assert [SPLITS[code] if code >= 0 else "" for code in codes.tolist()] == homes
    assert split.fingerprint == storage.sha256_of(split.path)[:16]


@pytest.mark.parametrize("gone", [".csv", ".i8", ".json"])
def test_a_split_that_lacks_a_file_is_made_again(gone: str, phantom: PackedSet) -> None:
    first = split_of(phantom, ByPatient())
    was = first.path.with_suffix(gone).read_bytes()
    first.path.with_suffix(gone).unlink()
    again = split_of(phantom, ByPatient())
    assert again.fingerprint == first.fingerprint
    assert first.path.with_suffix(gone).read_bytes() == was


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
