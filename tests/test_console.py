"""What is printed is what was given: strings that are not ours are text, and no name is too foreign for an encoding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from xlite_search import progress
from xlite_search.console import Board, Counter, Wait, plain, say
from xlite_search.places import study_folder
from xlite_search.progress import Progress
from xlite_search.records import RunRecord, StoredFile
from xlite_search.results import status
from xlite_search.results.compare import compare, show
from xlite_search.study_record import StudyRecord

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
    board.watch(lambda: [running.key])
    with console.capture() as printed:
        console.print(board.render())
        board.update(running.close("failed", text))
        say(text)
        Counter(text)(2, 2)
    assert printed.get().count(text) >= 6


def a_waiting_run(key: str, label: str) -> RunRecord:
    config = {"epochs": 20, "monitor": "val/auroc_macro"}
    return RunRecord(study_folder("s") / "trials" / key, key, "trial", label, {}, config).save()


LABELS = ["tf_efficientnet_lite0_mhsa tau=4 alpha=0.5", "tf_efficientnet_lite0_mhsa tau=8 alpha=0.5"]


@pytest.mark.parametrize(("width", "left_out"), [(80, ["at", "now", "s/epoch"]), (120, [])])
def test_the_board_says_who_runs_and_how_far_within_the_first_epoch(
    width: int, left_out: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = plain(width=width)
    monkeypatch.setattr("xlite_search.console.stderr", console)
    one, two, three = (a_waiting_run(key, label) for key, label in zip("abc", [*LABELS, "never begun"], strict=True))
    board = Board([one, two, three], at_once=2, resources="2 CPU cores")
    with console.capture() as before:
        console.print(board.render())
    board.watch(lambda: ["a", "b"])
    (one.folder / progress.FILE).write_text(json.dumps(asdict(Progress(progress.TRAINING, 34, 1200, 56.4))))
    with console.capture() as printed:
        console.print(board.render())
    text = printed.get()
    assert "running" not in before.get() and "[0/3] done" in before.get()
    (head, *_), words = text.splitlines(), text.split()
    columns = ("epochs", "step", "img/s", "time", "best", "at", "now", "s/epoch")
    assert [name for name in columns if name not in head.split()] == left_out
    assert {"training", "34/1200", "56", "starting", "0/20"} <= set(words)
    assert words.count("tau=4") == words.count("tau=8") == 1, "nothing that tells them apart is cut"
    assert "never" not in words
    assert max(map(len, text.splitlines())) <= width


def test_outside_a_terminal_a_line_says_it_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("xlite_search.console.PLAIN_EVERY_S", 0.0)
    run, asked = a_waiting_run("a", "model tau=4"), threading.Event()
    (run.folder / progress.FILE).write_text(json.dumps(asdict(Progress(progress.TRAINING, 34, 1200, 56.4))))

    def at_work() -> list[str]:
        if asked.is_set():
            board.over.set()
        asked.set()
        return ["a"]

    board = Board([run], at_once=1, resources="")
    with board:
        board.watch(at_work)
        assert board.over.wait(60)
    assert (
        "[0/1] model tau=4 0/20 training, step 34 of 1,200, 56 images/s; time left unknown" in capsys.readouterr().err
    )


@pytest.mark.parametrize(("patience_s", "said"), [(0.0, "Ray ends its workers ...\n"), (3600.0, "")])
def test_what_is_waited_for_is_said_where_it_takes_longer_than_a_moment(
    patience_s: float, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("xlite_search.console.PATIENCE_S", patience_s)
    with Wait("Ray ends its workers") as wait:
        wait.begin()
        if said:
            wait.timer.join()
    wait.timer.join()
    assert capsys.readouterr().err == said


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
