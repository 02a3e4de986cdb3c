"""The ledger of looks: one look a model however often it is asked, numbered, with a reason from the second on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PHANTOM

from xlite_search.data.dataset import DataSpec, open_data
from xlite_search.data.packed import PackedSet
from xlite_search.data.prepare import prepare
from xlite_search.data.sources.phantom import Phantom
from xlite_search.data.splits import ByPatient, CrossFit
from xlite_search.errors import BadInput, Damaged
from xlite_search.evaluation.looks import (
    Images,
    Judged,
    images_of,
    ledger_path,
    look,
    looks,
    looks_of,
    models_in,
    ordinal,
)
from xlite_search.storage import Ledger

OF = Images({"data": "d" * 8, "split": "s" * 8, "part": "test"}, np.arange(8, dtype=np.uint64))
FIRST, SECOND = Judged(sha256="a" * 64), Judged(sha256="a" * 64, thresholds="t")
THIRD = Judged(sha256="c" * 64)


def test_the_same_model_again_is_no_new_look() -> None:
    one = look(OF, "m", FIRST)
    assert (one.number, one.model, one.reason) == (1, "m", "")
    assert look(OF, "m", FIRST) == one and looks(OF) == [one]
    assert one.words() == "1st model judged on these images"


def test_other_thresholds_are_another_look_and_need_a_reason() -> None:
    look(OF, "m", FIRST)
    with pytest.raises(BadInput, match=r"^this model was judged .* with another calibration .*--reason TEXT"):
        look(OF, "m", SECOND, "  ")
    with pytest.raises(BadInput, match=r"^one model was judged on these images already, m: .*--reason TEXT"):
        look(OF, "n", Judged(sha256="b" * 64))
    again = look(OF, "m", SECOND, "a bug in the thresholds")
    assert (again.number, again.reason) == (2, "a bug in the thresholds")
    other = Images(OF.of | {"part": "val"}, np.arange(8, 16, dtype=np.uint64))
    assert look(other, "m", SECOND).number == 1, "other images"


def test_images_that_were_looked_at_are_known_under_another_split_and_name() -> None:
    look(OF, "m", FIRST)
    some = Images({"data": "e" * 8, "split": "t" * 8, "part": "all"}, np.arange(7, 12, dtype=np.uint64))
    with pytest.raises(BadInput, match="one model was judged on these images already, m"):
        look(some, "n", THIRD)
    assert look(some, "m", FIRST).number == 1, "the same model, and more images"
    assert look(OF, "n", THIRD, "why").number == 2
    assert look(some, "n", THIRD, "why").number == 2
    assert [each.number for each in looks(some)] == [1, 1, 2, 2] and looks_of(some.of) == looks(OF)
    assert models_in(looks(some)) == 2


def test_looks_of_an_earlier_version_count() -> None:
    """It had a ledger for each part, and did not say which images these were."""
    before = {"number": 1, "of": OF.of, "model": "old", "judged": {"sha256": "f" * 64}}
    ledger_path().parent.mkdir(parents=True)
    Ledger(ledger_path().with_name("0123456789ab.jsonl")).append(before)
    with pytest.raises(BadInput, match="one model was judged on these images already, old"):
        look(OF, "m", FIRST)
    assert look(OF, "m", FIRST, "why").number == 2 and len(looks_of(OF.of)) == 2
    other = Images(OF.of | {"split": "t" * 8}, np.arange(50, 60, dtype=np.uint64))
    assert look(other, "m", FIRST).number == 1


def test_which_images_were_looked_at_is_held_against_its_hash() -> None:
    look(OF, "m", FIRST)
    (path,) = ledger_path().parent.glob("*.images")
    path.write_bytes(path.read_bytes()[8:])
    with pytest.raises(Damaged, match="which images were looked at"):
        look(OF, "m", FIRST)


def test_the_test_part_of_a_cross_fit_is_that_of_its_split(phantom: PackedSet) -> None:
    plain, fold = (
        images_of(open_data(DataSpec(name=PHANTOM, split=split)), "test") for split in (ByPatient(), CrossFit())
    )
    assert plain.of != fold.of and np.array_equal(plain.ids, fold.ids)
    assert len(plain.ids)


def test_images_that_were_prepared_at_another_size_are_the_same(runs: Path) -> None:
    of = []
    for size in (32, 48):
        data = prepare(f"at{size}", Phantom(images=40, size=64), size)
        of.append(images_of(open_data(DataSpec(name=f"at{size}")), "test"))
        assert data is not None
    assert of[0].of["data"] != of[1].of["data"] and len(np.intersect1d(of[0].ids, of[1].ids))
    other = prepare("other", Phantom(images=40, size=64, seed=9), 32)
    assert other is not None
    ids = images_of(open_data(DataSpec(name="other")), "test").ids
    assert not len(np.intersect1d(of[0].ids, ids)), "another source's image of the same name is another image"


def test_an_edited_line_is_found() -> None:
    look(OF, "m", FIRST)
    look(OF, "n", SECOND, "why")
    path = ledger_path()
    path.write_bytes(path.read_bytes().replace(b'"reason": "why"', b'"reason": "wry"'))
    with pytest.raises(Damaged, match="line 2 is damaged"):
        looks(OF)
    with pytest.raises(Damaged):
        look(OF, "m", FIRST)


def test_twenty_at_once_are_one_look(runs: Path) -> None:
    code = (
        "import numpy as np\n"
        "from xlite_search.evaluation.looks import Images, Judged, look\n"
        f"of = Images({OF.of!r}, np.arange(8, dtype=np.uint64))\n"
        "print(look(of, 'm', Judged(sha256='a' * 64)).number)\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(20)]
    assert {process.communicate()[0].strip() for process in started} == {"1"}
    assert len(looks(OF)) == 1
    assert len(ledger_path().read_text().splitlines()) == 1
    assert json.loads(ledger_path().read_text())["body"]["number"] == 1


@pytest.mark.parametrize(
    ("number", "word"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd"), (113, "113th")]
)
def test_ordinals(number: int, word: str) -> None:
    assert ordinal(number) == word
