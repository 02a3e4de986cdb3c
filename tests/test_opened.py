"""Data are opened once: what a process remembers, what lies on disk, and what is noticed when it changes."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from xlite_search import storage
from xlite_search.data import splits
from xlite_search.data.dataset import DataSpec, open_data
from xlite_search.data.packed import PackedSet
from xlite_search.data.prepare import prepare
from xlite_search.data.remembered import Remembered
from xlite_search.data.sources.phantom import Phantom
from xlite_search.data.splits import ByPatient, Folds, fraction_of, fraction_rows, split_of
from xlite_search.errors import Damaged


def spec_of(phantom: PackedSet, **settings: Any) -> DataSpec:
    return DataSpec(name=phantom.folder.name, **settings)


@pytest.mark.parametrize("fit", ["train", "train+val"])
def test_a_remembered_fraction_is_the_one_that_is_dealt(
    fit: Literal["train", "train+val"], phantom: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = open_data(spec_of(phantom, fit=fit)).train.rows
    dealt = {fraction: fraction_of(phantom.table, rows, fraction) for fraction in (0.2, 0.5)}
    for fraction, found in dealt.items():
        assert np.array_equal(open_data(spec_of(phantom, fit=fit, fraction=fraction)).train.rows, found)
    monkeypatch.setattr(splits, "fraction_of", None)  # from here on it is read
    split = split_of(phantom, ByPatient())
    for fraction, found in dealt.items():
        assert np.array_equal(fraction_rows(phantom, split, fit, rows, fraction), found)


def test_a_changed_fraction_is_damaged_and_one_that_is_gone_is_dealt_again(phantom: PackedSet) -> None:
    split = split_of(phantom, ByPatient())
    found = fraction_rows(phantom, split, "train", split.rows["train"], 0.5)
    (path,) = split.path.parent.glob("*.rows")
    path.write_bytes(path.read_bytes().replace(b'"bits": "', b'"bits": "A', 1))
    with pytest.raises(Damaged, match=path.name):
        fraction_rows(phantom, split, "train", split.rows["train"], 0.5)
    path.unlink()
    assert np.array_equal(fraction_rows(phantom, split, "train", split.rows["train"], 0.5), found)


def test_a_fraction_that_cannot_be_remembered_is_dealt_all_the_same(
    phantom: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = split_of(phantom, ByPatient())

    def full(path: Path, data: bytes) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(storage, "write_atomic", full)
    found = fraction_rows(phantom, split, "train", split.rows["train"], 0.5)
    assert np.array_equal(found, fraction_of(phantom.table, split.rows["train"], 0.5))
    assert not list(split.path.parent.glob("*.rows"))


def test_data_are_opened_once_and_share_what_was_computed(phantom: PackedSet) -> None:
    one = open_data(spec_of(phantom))
    assert open_data(spec_of(phantom)) is one
    other = open_data(spec_of(phantom, fraction=0.5))
    assert other is not one
    assert other.packed.table is one.packed.table
    assert other.split is one.split
    assert open_data(spec_of(phantom, split=Folds())).split is not one.split
    assert open_data(spec_of(phantom, fit="train+val")) is not one
    assert open_data(spec_of(phantom)) is one


def test_threads_that_open_the_same_data_at_once_get_the_same(phantom: PackedSet) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(open_data, [spec_of(phantom, fraction=0.5)] * 32))
    assert len({id(data) for data in found}) == 1


@pytest.mark.parametrize("file", [".csv", ".i8", ".json"])
def test_a_split_that_changes_after_it_was_opened_is_noticed(file: str, phantom: PackedSet) -> None:
    path = open_data(spec_of(phantom)).split.path.with_suffix(file)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged, match=path.name):
        open_data(spec_of(phantom))
    path.unlink()
    assert len(open_data(spec_of(phantom)).val)


@pytest.mark.parametrize("file", ["index.csv", "index.safetensors"])
def test_an_index_that_changes_after_it_was_read_is_noticed(file: str, phantom: PackedSet) -> None:
    assert len(open_data(spec_of(phantom)).train.labels)
    (phantom.folder / file).write_bytes((phantom.folder / file).read_bytes()[:-1])
    with pytest.raises(Damaged, match=file):
        _ = open_data(spec_of(phantom)).train.labels


def test_data_that_are_prepared_anew_after_they_were_opened_are_others(phantom: PackedSet) -> None:
    was = open_data(spec_of(phantom))
    shutil.rmtree(phantom.folder)
    prepare(phantom.folder.name, Phantom(images=120, size=64), 32)
    now = open_data(spec_of(phantom))
    assert len(now.packed) == 120
    assert now.split.fingerprint != was.split.fingerprint
    storage.write_manifest(phantom.folder / "manifest.json", now.packed.manifest | {"pixels_sha256": "0" * 64})
    assert open_data(spec_of(phantom)).packed.fingerprint != now.packed.fingerprint


def test_of_what_was_opened_the_last_few_are_remembered() -> None:
    made = []

    def make(number: int) -> Callable[[], int]:
        return lambda: made.append(number) or number  # type: ignore[func-returns-value]

    known = Remembered[int](2)
    for number in (1, 2, 1, 3, 1, 2):  # 3 pushes 2 out, which was not asked for since
        assert known.get(number, make(number)) == number
    assert made == [1, 2, 3, 2]

    def fails() -> int:
        raise Damaged("not now")

    with pytest.raises(Damaged):
        known.get(4, fails)
    assert known.get(4, make(4)) == 4
