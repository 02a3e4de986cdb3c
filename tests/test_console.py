"""What is printed is what was given: strings that are not ours are text, and no name is too foreign for an encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from xlite_search.console import Board, Counter, plain, say
from xlite_search.places import study_folder
from xlite_search.records import RunRecord, StoredFile, StudyRecord
from xlite_search.results import status
from xlite_search.results.compare import compare, show

ROOT = Path(__file__).parents[1]
#: a closing tag, a tag, an emoji, and a link in rich's markup
TRICKY = ("cannot read [/data/nih]: stale", "[rank0]: gave up", "loss a:b:c :warning:", "[link=x]y[/link] [bold]")


def a_run(study: str, key: str, text: str, *, failed: bool) -> RunRecord:
    epoch = {"val/auroc_macro": 0.8, "val/ap_macro": 0.2, f"val/auroc/{text}": 0.7}
    run = RunRecord(
        study_folder(study) / "trials" / key,
        key,
        "trial",
        f"model {text}",
        {"note": text},
        {"epochs": 1, "monitor": "val/auroc_macro", "data": {"name": "none"}, "seed": 0},
        epochs=(epoch,),
        bests=(StoredFile("b", "", 1),),
    ).save()
    return run.close("failed", text) if failed else run.close("finished", "")


def a_study(text: str) -> list[RunRecord]:
    found = [a_run("s", "a", text, failed=False), a_run("s", "b", text, failed=True)]
    definition = {"data": "d", "split": "s", "trials": {}}
    StudyRecord(study_folder("s"), "s", text, "t", "val/auroc_macro", definition, ("a", "b")).save()
    return found


@pytest.mark.parametrize("text", TRICKY)
def test_strings_of_others_are_text_in_every_table(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    a_study(text)
    show(compare(["s"]))
    status.show(status.standing("s"))
    table, _, lines = capsys.readouterr().out.partition("s: 1 finished")
    assert table.count(text) >= 4, "as a setting, as a label, as a cause, as a finding"
    assert lines.count(text) == 3


@pytest.mark.parametrize("text", TRICKY)
def test_strings_of_others_are_text_on_the_board(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    console = plain(width=120)
    monkeypatch.setattr("xlite_search.console.stderr", console)
    running = replace(a_study(text)[0], status="running")
    board = Board([running], at_once=1, resources=text)
    with console.capture() as printed:
        console.print(board.render())
        board.update(running.close("failed", text))
        say(text)
        Counter(text)(2, 2)
    assert printed.get().count(text) >= 6


def test_consoles_are_made_in_one_place() -> None:
    made = [path.name for path in (ROOT / "xlite_search").rglob("*.py") if "Console(" in path.read_text("utf-8")]
    assert made == ["console.py"]
    assert isinstance(plain(), Console)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_name_that_the_output_cannot_encode_is_escaped(encoding: str, runs: Path) -> None:
    a_study("Пневмония \udcff 肺炎")
    environment = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict", "PYTHONPATH": str(ROOT)}
    for verb in ("compare", "status"):
        command = [sys.executable, "-m", "xlite_search", verb, "s"]
        done = subprocess.run(command, cwd=runs.parent, env=environment, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\\udcff" in done.stdout
        assert (b"\\u80ba" in done.stdout) == (encoding != "utf-8")
