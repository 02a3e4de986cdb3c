"""The journal, and the ledger that it is: what was decided is there after any cut, and nothing else is taken for it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from xlite_search.errors import Damaged
from xlite_search.search.asha import Decision
from xlite_search.search.journal import FILE, Journal
from xlite_search.storage import Ledger

FIRST = Decision(1, {"a": 0.5, "b": 0.7, "c": -math.inf}, 3, ("b", "a"), 0.5)
SECOND = Decision(2, {"b": -math.inf, "a": -math.inf}, 2, (), math.inf)
ALONE = Decision(1, {"d": 0.5}, 1, ("d",), -math.inf)


def written(folder: Path) -> Path:
    journal = Journal(folder)
    for decision in (FIRST, SECOND, ALONE):
        journal.append(decision)
    return folder / FILE


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    assert Journal(tmp_path).decisions == []
    written(tmp_path)
    assert Journal(tmp_path).decisions == [FIRST, SECOND, ALONE]


def test_an_entry_that_was_cut_is_overwritten_by_the_next(tmp_path: Path) -> None:
    """At every byte: what is whole counts, and the journal goes on behind it."""
    path = written(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        journal = Journal(tmp_path)
        lines = whole[:length].count(b"\n")
        assert journal.decisions == [FIRST, SECOND, ALONE][:lines]
        journal.append(ALONE)
        assert Journal(tmp_path).decisions == [*[FIRST, SECOND, ALONE][:lines], ALONE]


def test_zeros_behind_the_end_are_what_a_power_cut_leaves(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes() + bytes(500))
    assert Journal(tmp_path).decisions == [FIRST, SECOND, ALONE]


def test_no_flipped_bit_is_ever_read_as_a_decision(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            found = Journal(tmp_path).decisions
        except Damaged as error:
            refused += FILE in str(error)
            continue
        assert found == [FIRST, SECOND, ALONE][: len(found)]
    assert refused > 0.9 * len(whole)


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2), (0, 0, 1)])
def test_lines_that_are_exchanged_lost_or_doubled_are_found(tmp_path: Path, order: tuple[int, ...]) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[n] for n in order))
    with pytest.raises(Damaged, match=r"journal\.jsonl, line \d is damaged"):
        Journal(tmp_path)


@pytest.mark.parametrize("entry", [None, 7, [], {"scores": [], "cut": 0.5, "kept": []}])
def test_a_whole_line_that_is_no_decision_is_damaged(tmp_path: Path, entry: object) -> None:
    Ledger(tmp_path / FILE, "decision").append(entry)
    with pytest.raises(Damaged, match=r"journal\.jsonl, line 1 is damaged: .*, or remove the file"):
        Journal(tmp_path)


def test_a_ledger_keeps_any_json(tmp_path: Path) -> None:
    entries = [{"a": [1, None, "\u00e4\n"]}, "text", 0.1, []]
    ledger = Ledger(tmp_path / "looks.jsonl")
    for entry in entries:
        ledger.append(entry)
    assert Ledger(tmp_path / "looks.jsonl").entries == ledger.entries == entries


def test_a_ledger_of_another_name_for_its_entries_is_not_read(tmp_path: Path) -> None:
    Ledger(tmp_path / "x", "look").append(1)
    with pytest.raises(Damaged, match=r"x, line 1 is damaged: .* from a backup$"):
        Ledger(tmp_path / "x")


def test_what_cannot_be_written_leaves_the_ledger_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "x")
    ledger.append("first")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match="x"):
            ledger.append("lost")
    ledger.append("second")
    assert Ledger(tmp_path / "x").entries == ledger.entries == ["first", "second"]
