"""Data are opened once: what a process remembers, what lies on disk, and what is noticed when it changes."""

from __future__ import annotations

import errno
import itertools
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from trainables.baseline import baseline
from xlite_search import factors, storage
from xlite_search.config import RunConfig, run_key
from xlite_search.data import lists, split_files
from xlite_search.data.dataset import DataSpec, open_data
from xlite_search.data.packed import PackedSet
from xlite_search.data.prepare import prepare
from xlite_search.data.sources.labels import read_names
from xlite_search.data.sources.phantom import Phantom
from xlite_search.data.split_files import fraction_of, fraction_rows, split_of
from xlite_search.data.splits import ByPatient, Folds
from xlite_search.errors import Damaged
from xlite_search.models.hybrid import build_model
from xlite_search.remembered import Remembered
from xlite_search.search import plan
from xlite_search.search.study import Study, grid_search


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
    monkeypatch.setattr(split_files, "fraction_of", None)  # from here on it is read
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


# a study reads once what its trials share


def swept(tiny: RunConfig, **axes: list[Any]) -> Study:
    return Study("?", baseline, tiny, {name.replace("__", "."): grid_search(values) for name, values in axes.items()})


def test_the_keys_of_a_study_are_those_of_its_runs(tiny: RunConfig, phantom: PackedSet) -> None:
    """By the formula that they always had, and each asked for alone."""
    split = split_of(phantom, ByPatient()).fingerprint
    study = swept(tiny, optimizer__lr=[1e-3, 2e-3], data__fraction=[0.5, 1.0])
    trials = study.trials("", made_by="me 1")
    assert len(trials) == 4
    for trial in trials:
        parts = [trial.config.identity(), {"data": phantom.fingerprint, "split": split}, "me 1"]
        assert trial.key == storage.digest(parts)[:12] == run_key(trial.config, "me 1")


def test_lists_and_weights_that_all_trials_share_are_read_once(
    tiny: RunConfig, phantom: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, names = split_of(phantom, ByPatient()).rows, np.array(phantom.table.names)
    folder = tmp_path / "lists"
    folder.mkdir()
    for name, found in rows.items():
        (folder / f"{name}.txt").write_text("\n".join(names[found]), encoding="utf-8")
    weights = build_model(tiny.model, classes=1).backbone.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, tmp_path / "w.safetensors")
    given = {"weights": str(tmp_path / "w.safetensors"), "data.split": {"name": "lists", "path": str(folder)}}
    study = swept(tiny.with_settings(given), seed=list(range(20)))
    read, hashed = [], []
    sha256_of = storage.sha256_of
    monkeypatch.setattr(lists, "read_names", lambda path: read.append(path) or read_names(path))  # type: ignore[func-returns-value]
    monkeypatch.setattr(storage, "sha256_of", lambda path: hashed.append(path) or sha256_of(path))  # type: ignore[func-returns-value]
    keys = {trial.key for trial in study.trials("")}
    assert len(keys) == 20
    assert len(hashed) == 1
    assert len(read) == 6  # for their hash, and to deal the split
    assert {trial.key for trial in study.trials("")} == keys
    assert len(read) == 6
    (folder / "val.txt").write_text("\n".join(names[rows["val"]][1:]), encoding="utf-8")
    changed = study.trials("")
    assert len(read) > 6
    assert keys.isdisjoint(trial.key for trial in changed)


def test_a_plan_opens_each_kind_of_data_once(
    tiny: RunConfig, phantom: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = plan.make_plan(swept(tiny, seed=list(range(10)), data__fraction=[0.5, 1.0]), "once")
    opened = []
    monkeypatch.setattr(plan, "open_data", lambda spec: opened.append(spec) or open_data(spec))  # type: ignore[func-returns-value]
    for trial in found.trials:
        assert found.data(trial.config) is found.data(trial.config)
    assert len(found.trials) == 20
    assert len(opened) == 2
    assert len(found.balances) == 2
    assert len(opened) == 2


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"), min_size=1), max_size=12))
def test_values_that_compare_cleanly_are_found_as_pair_by_pair(settings: list[dict[str, str]]) -> None:
    """Against every pair of trials, compared by what both have."""
    for name in "abc":
        having = [one for one in settings if name in one]
        groups = {one[name]: {one[name]} for one in having}
        for one, two in itertools.combinations(having, 2):
            if all(one[key] == two[key] for key in one.keys() & two.keys() - {name}):
                joined = groups[one[name]] | groups[two[name]]
                groups |= dict.fromkeys(joined, joined)
        wanted = {frozenset(group) for group in groups.values()}
        assert {frozenset(group) for group in factors._groups(name, settings)} == wanted
