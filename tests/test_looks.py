"""The ledger of looks: one look a model however often it is asked, numbered, with a reason from the second on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from xlite_search.errors import BadInput, Damaged
from xlite_search.evaluation.looks import Judged, ledger_path, look, looks, ordinal

OF = {"data": "d" * 8, "split": "s" * 8, "part": "test"}
FIRST, SECOND = Judged(sha256="a" * 64), Judged(sha256="a" * 64, thresholds="t")


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
    other = OF | {"part": "val"}
    assert look(other, "m", SECOND).number == 1, "other images"


def test_an_edited_line_is_found() -> None:
    look(OF, "m", FIRST)
    look(OF, "n", SECOND, "why")
    path = ledger_path(OF)
    path.write_bytes(path.read_bytes().replace(b'"reason": "why"', b'"reason": "wry"'))
    with pytest.raises(Damaged, match="line 2 is damaged"):
        looks(OF)
    with pytest.raises(Damaged):
        look(OF, "m", FIRST)


def test_twenty_at_once_are_one_look(runs: Path) -> None:
    code = (
        "from xlite_search.evaluation.looks import Judged, look\n"
        f"print(look({OF!r}, 'm', Judged(sha256='a' * 64)).number)\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(20)]
    assert {process.communicate()[0].strip() for process in started} == {"1"}
    assert len(looks(OF)) == 1
    assert len(ledger_path(OF).read_text().splitlines()) == 1
    assert json.loads(ledger_path(OF).read_text())["body"]["number"] == 1


@pytest.mark.parametrize(
    ("number", "word"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd"), (113, "113th")]
)
def test_ordinals(number: int, word: str) -> None:
    assert ordinal(number) == word
