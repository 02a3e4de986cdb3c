from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xlite_search.data import integrity
from xlite_search.data.packed import PackedSet
from xlite_search.data.sources import LabelTable, Loss
from xlite_search.data.sources.folder import EMPTY_FILE
from xlite_search.errors import BadInput


def table_of(labels: list[list[int]], digests: str = "", patients: str = "") -> LabelTable:
    """Images a, b, ...; one patient and one digest a letter."""
    names = tuple("abcdefgh"[: len(labels)])
    found = np.array(labels, np.uint8).reshape(len(labels), 2)
    return LabelTable(names, tuple(patients) or names, found, ("Mass", "Hernia"), digests=tuple(digests))


def rows(**parts: list[int]) -> dict[str, NDArray[np.int64]]:
    return {name: np.array(part, np.int64) for name, part in parts.items()}


@settings(deadline=None)
@given(st.integers(1, 200_000), st.floats(0, 0.1), st.booleans())
def test_what_is_tolerable_is_a_share(expected: int, share: float, accepted: bool) -> None:
    lost = int(share * expected)
    bound = 0.05 if accepted else 0.001
    assert integrity.tolerable(expected, lost, accepted=accepted) == (lost / expected <= bound)


def test_a_refusal_says_how_many_which_why_where_and_what_to_do() -> None:
    lost = [("a.png", EMPTY_FILE), ("b.png", Loss("cut off", "damaged"))]
    assert integrity.refusal(1500, lost, Path("lost.csv")) == (
        "2 of 1,500 images cannot be used, which is more than 0.1 %: a.png (the file is empty), b.png (cut off); "
        "lost.csv lists them: fetch them again, or go on without them with --accept-losses"
    )
    assert integrity.refusal(39, lost, Path("lost.csv")) == (
        "2 of 39 images cannot be used, which is more than 5 %: a.png (the file is empty), b.png (cut off); "
        "lost.csv lists them: fetch them again, or take them out of the label table"
    )


def test_duplicates_are_groups_in_the_tables_order() -> None:
    assert integrity.duplicates("xyxzy", "abcde") == [("a", "c"), ("b", "e")]
    assert integrity.duplicates("xyz", "abc") == []


def test_duplicates_across_splits_are_those_that_two_splits_share() -> None:
    table = table_of([[0, 0]] * 6, digests="xxyyzz")
    parts = rows(train=[0, 1, 2], val=[3, 4])
    assert integrity.duplicates_across(table, parts) == [("c", "d")]  # f, e's copy, is in no split
    assert integrity.duplicates_across(replace(table, digests=()), parts) == []


def test_a_leak_names_patients_and_splits() -> None:
    patients = ("1", "1", "2", "3", "3", "4")
    parts = rows(train=[0, 2, 3], val=[1], test=[4, 5])
    assert integrity.leaks(patients, parts) == {"1": ("train", "val"), "3": ("train", "test")}
    with pytest.raises(BadInput, match=r"^2 patients .*: patient 1 \(train and val\), 3 \(train and test\); give"):
        integrity.expect_no_leak(patients, parts)
    integrity.expect_no_leak(patients, rows(train=[0, 1, 2], val=[3, 4]))


def test_lists_may_name_one_in_a_thousand_images_that_are_not_there() -> None:
    train = [str(n) for n in range(2000)]
    integrity.expect_listed("lists", {"train": train[:2], "val": []}, {"train": train, "val": ["x"]})
    with pytest.raises(
        BadInput, match=r"^lists: 3 of the 2,000 images in the list train .*: 0, 1, 2; .*incomplete=true"
    ):
        integrity.expect_listed("lists", {"train": train[:3]}, {"train": train})
    with pytest.raises(BadInput, match=r"1 of the 1 images in the list val"):
        integrity.expect_listed("lists", {"train": [], "val": ["x"]}, {"train": train, "val": ["x"]})


def test_labels_that_teach_nothing_are_named() -> None:
    assert integrity.label_warnings(table_of([[0, 1], [1, 0]])) == []
    assert integrity.label_warnings(table_of([[1, 0], [0, 0]])) == ["no image has Hernia: its AUROC is undefined"]
    assert integrity.label_warnings(table_of([[1, 1], [1, 0]])) == ["all 2 images have Mass: its AUROC is undefined"]
    (sentence,) = integrity.label_warnings(table_of([[0, 0], [0, 0]]))
    assert sentence.startswith("none of 2 images has any finding")


def test_a_report_counts_per_split_and_lost_images_where_their_patients_are() -> None:
    table = table_of([[1, 0], [0, 1], [0, 0], [1, 0], [0, 0]], digests="xyzxw", patients="11223")
    manifest = {
        "set_aside": [["f", "cut off", "1"], ["g", "no such file", "2"], ["h", "no such file", "9"]],
        "raw_sizes": {"1024x1024": 5},
    }
    packed = PackedSet(Path("nowhere"), manifest)
    packed.__dict__["table"] = table
    found = integrity.report(packed, rows(train=[0, 1], val=[2, 3], test=[]))
    assert (found["expected"], found["found"], found["lost"]) == (8, 5, 3)
    assert found["splits"] == {
        "train": {"expected": 3, "found": 2, "lost": 1},
        "val": {"expected": 3, "found": 2, "lost": 1},
        "test": {"expected": 0, "found": 0, "lost": 0},
        "none": {"expected": 2, "found": 1, "lost": 1},
    }
    assert found["set_aside"] == {"f": "cut off", "g": "no such file", "h": "no such file"}
    assert found["duplicates"] == found["duplicates_across_splits"] == [("a", "d")]
    assert found["warnings"] == ["no image of val has Hernia"]
    assert found["raw_sizes"] == {"1024x1024": 5}


def test_a_sound_set_has_nothing_to_report(phantom: PackedSet) -> None:
    found = integrity.report(phantom, rows(train=list(range(len(phantom)))))
    assert found["splits"] == {"train": {"expected": 240, "found": 240, "lost": 0}}
    assert (found["set_aside"], found["duplicates"], found["warnings"]) == ({}, [], [])
