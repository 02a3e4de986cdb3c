"""The tables at the widths that people have: rows are told apart, nothing is cut, secondary figures go first."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xlite_search import places
from xlite_search.data.dataset import Data
from xlite_search.data.packed import FORMAT
from xlite_search.errors import BadInput
from xlite_search.places import study_folder
from xlite_search.records import RunRecord, StoredFile
from xlite_search.results.arms import Arm
from xlite_search.results.claims import Claims
from xlite_search.results.compare import Comparison, compare, show, summary
from xlite_search.results.intervals import Interval
from xlite_search.results.plain import as_json
from xlite_search.results.selection import Winner
from xlite_search.results.ties import Standing
from xlite_search.storage import write_manifest
from xlite_search.study_record import StudyRecord

ROOT = Path(__file__).parents[1]
MODELS = ("efficientnet_b0_mhsa", "mobilenet_v3_small_mhsa")
CAUSE = "RuntimeError: a sentence that takes more than one line where the window is as narrow as most of them are"
SECONDARY = ["at epoch", "AP", "time", "params", "F1", "final"]


def a_grid(name: str, *, swept: bool = True, failed: int = 1) -> None:
    """2 x 2 x 2 runs; the models and taus are the study's settings, or only in its configs."""
    keys = []
    for number, (model, tau, alpha) in enumerate(itertools.product(MODELS, (4.0, 8.0), (0.5, 0.7))):
        key = f"{name}{number}"
        settings: dict[str, Any] = {"kd.tau": tau, "kd.alpha": alpha, "model": model}
        config = {"epochs": 20, "monitor": "val/auroc_macro", "data": {"name": "part"}, "model": model, "seed": 0}
        epoch = {"val/auroc_macro": 0.8 + number / 1000, "val/ap_macro": 0.2, "val/f1_macro": 0.1}
        epoch |= {"model/parameters": 11.4e6, "time/epoch_s": 500.0, "val/auroc/Hernia": 0.7}
        run = RunRecord(
            study_folder(name) / "trials" / key,
            key,
            "trial",
            f"{model} tau={tau:g} alpha={alpha:g}",
            settings if swept else {},
            config | {"kd": {"tau": tau, "alpha": alpha}},
            epochs=(epoch,) * 20,
            bests=(StoredFile("b", "", 18),),
        ).save()
        keys.append(run.close("failed", CAUSE).key if number < failed else run.close("finished", "").key)
    definition = {"data": "d", "split": "s", "trials": {}}
    StudyRecord(study_folder(name), name, "?", "t", "val/auroc_macro", definition, tuple(keys)).save()


def rows(printed: str, title: str) -> list[list[str]]:
    """The cells of the lines of the table below a title, its head first."""
    lines = itertools.takewhile(lambda line: line.strip() != "" and line[0] in "┏┃┡│", _after(printed, title))
    return [
        [cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in lines if line[0] in "┃│"
    ]


def _after(printed: str, title: str) -> list[str]:
    lines = printed.splitlines()
    return lines[next(place for place, line in enumerate(lines) if title in line) + 1 :]


@pytest.mark.parametrize(
    ("width", "left_out"),
    [(80, ["final", "F1", "params", "time"]), (120, []), (200, []), (None, [])],
)
def test_settings_are_columns_and_secondary_figures_go_first(
    width: int | None, left_out: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    a_grid("s")
    show(compare(["s"]), width=width)
    printed = capsys.readouterr().out
    head, *runs = rows(printed, "ranked by")
    assert head[:5] == ["#", "model", "tau", "alpha", "best"]
    assert set(head[5:]) == set(SECONDARY) - set(left_out)
    assert len({tuple(run[1:4]) for run in runs}) == len(runs) == 7
    assert "…" not in printed
    drawn = printed if width else "\n".join(line for line in printed.splitlines() if line[:1] in "┏┃┡│└")
    assert max(map(len, drawn.splitlines())) <= (width or 200)
    assert ("left out at this width: " + ", ".join(left_out) in printed) == bool(left_out)
    assert sum("chance" in line for line in printed.splitlines()) == 1
    whole = " ".join(" ".join(cells[-1] for cells in rows(printed, "not ranked")).split())
    assert whole == f"why failed: {CAUSE}", "folded, and all there"


def test_what_all_ranked_runs_share_of_the_swept_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    a_grid("s", failed=4)
    show(compare(["s"]))
    printed = capsys.readouterr().out
    assert rows(printed, "ranked by")[0][:4] == ["#", "tau", "alpha", "best"]
    assert f"all of them: model {MODELS[1]}" in printed


def test_the_least_is_left_out_first(capsys: pytest.CaptureFixture[str]) -> None:
    a_grid("s")
    comparison = compare(["s"])
    for width in range(130, 55, -1):
        show(comparison, width=width, classes=False)
        printed = capsys.readouterr().out
        there = [name for name in rows(printed, "ranked by")[0] if name in SECONDARY]
        assert set(there) == set(SECONDARY[: len(there)])
        assert max(map(len, printed.splitlines())) <= width


def test_a_pipe_has_all_in_single_lines(runs: Path) -> None:
    a_grid("s")
    environment = os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(ROOT), "COLUMNS": "40"}
    command = [sys.executable, "-m", "xlite_search", "compare", "s"]
    done = subprocess.run(command, cwd=runs.parent, env=environment, capture_output=True, check=True)
    printed = done.stdout.decode()
    assert set(SECONDARY) < set(rows(printed, "ranked by")[0])
    assert len(rows(printed, "not ranked")) == 2, "a head, and one line for one run"
    assert CAUSE in printed


def test_what_settings_do_not_tell_apart_is_called_by_its_label(capsys: pytest.CaptureFixture[str]) -> None:
    a_grid("s", swept=False)
    show(compare(["s"]), width=80)
    head, first, *_ = rows(capsys.readouterr().out, "ranked by")
    assert head[:2] == ["#", "trial"]
    assert first[1].startswith(MODELS[1])


def test_runs_of_two_studies_say_whose_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    a_grid("old", failed=1)
    a_grid("new", failed=1)
    both = compare(["old", "new", "old"])
    show(both, width=80)
    printed = capsys.readouterr().out
    head, *ranked = rows(printed, "ranked by")
    assert head[:5] == ["#", "study", "model", "tau", "alpha"]
    assert len({tuple(run[1:5]) for run in ranked}) == len(ranked) == 14
    assert both.labels(both.others) == [f"{n}: {MODELS[0]} tau=4 alpha=0.5" for n in ("old", "new")]
    assert [trial["study"] for trial in as_json(both)["trials"][-2:]] == ["old", "new"]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_settings_over_seeds_keep_interval_and_verdict(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    labels = [f"{model} tau={tau} alpha=0.5" for model in MODELS for tau in (4, 8)]
    a_grid("s")
    show(replace(compare(["s"]), claims=over_five_seeds(labels)), width=width, classes=False)
    printed = capsys.readouterr().out
    head, *found = rows(printed, "over the seeds")
    assert {"setting", "mean", "95 %"} <= set(head)
    assert ("of each seed" in head) == (width > 120)
    assert sum("cannot tell" in cells for cells in found) == 3
    assert " ".join(" ".join(cells[1] for cells in found).split()) == " ".join(labels)
    assert "…" not in printed


def over_five_seeds(labels: list[str]) -> Claims:
    gaps, interval = (-0.01, -0.02, -0.015, -0.01, -0.02), Interval(0.8, 0.75, 0.84, 0.02)
    runs = tuple(RunRecord(Path(str(seed)), str(seed), "trial", "", {}, {"seed": seed}) for seed in range(5))
    best, near = Standing(0.0, 0.0, 0.0, "tied", True), Standing(-0.015, -0.035, 0.005, "cannot tell", True)
    arms = tuple(
        Arm(label, runs, 0.8, 0.01, interval, near if n else best, gaps if n else ()) for n, label in enumerate(labels)
    )
    return Claims("recipe", "val/auroc_macro", 0.002, 100, 50, arms, len(labels), {}, Winner(0, 0.8, 0.79, 4, 4))


def test_an_incomplete_data_set_is_told_under_every_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: object) -> Data:
        raise BadInput("its images are not here")

    monkeypatch.setattr("xlite_search.results.compare.open_data", lost)
    a_grid("s")
    where = places.data_folder("part") / "manifest.json"
    about = {"format": FORMAT, "source": {}, "expected": 112_120}
    write_manifest(where, about | {"images": 4_999})
    comparison = compare(["s"])
    comparison = replace(comparison, claims=over_five_seeds(["a"]))
    show(comparison, width=120)
    told = "incomplete: data set 'part' has 4,999 of its label table's 112,120 images"
    printed = capsys.readouterr().out
    assert printed.count(told) == printed.count("┏") == 6
    assert as_json(comparison)["facts"] == [told]
    assert any(told in content.decode() for name, content in summary("s").items() if name.endswith(".md"))
    write_manifest(where, about | {"images": 112_120})
    assert compare(["s"]).facts == ()


def test_what_chance_reaches_is_known_of_a_single_finding() -> None:
    def chance(metric: str) -> dict[str, float]:
        return Comparison(("s",), metric, (), [], [], 100, {"Hernia": 2, "Mass": 10}, None).chance()

    assert chance("val/auroc/Hernia")["val/auroc/Hernia"] == 0.5
    assert chance("val/ap/Hernia")["val/ap/Hernia"] == 0.02
    assert chance("val/auroc_macro")["val/ap_macro"] == pytest.approx(0.06)
