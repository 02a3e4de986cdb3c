"""The front of a study with several objectives: who is on it, its figure, and the table that marks it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from xlite_search.errors import BadInput
from xlite_search.places import study_folder
from xlite_search.records import RunRecord, StoredFile
from xlite_search.results.compare import compare, show, summary
from xlite_search.results.front import figure, front
from xlite_search.results.plain import as_json
from xlite_search.study_record import StudyRecord

NAMES = ("val/auroc_macro", "model/latency_ms", "model/parameters")
UP = (True, False, False)
some = st.sampled_from([0.0, 1.0, 2.0, np.nan])
values = hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.just(3)), elements=some)


def is_dominated(one: NDArray[np.float64], by: NDArray[np.float64]) -> bool:
    gains = [(b - o) * (1 if up else -1) for o, b, up in zip(one, by, UP, strict=True)]
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)


@given(values)
def test_the_front_is_those_that_nobody_dominates(values: NDArray[np.float64]) -> None:
    whole = [run for run in values if not np.isnan(run).any()]
    expected = [not np.isnan(run).any() and not any(is_dominated(run, other) for other in whole) for run in values]
    assert front(values, UP).tolist() == expected


@given(values, st.randoms(use_true_random=False))
def test_the_order_of_runs_does_not_matter(values: NDArray[np.float64], random: Any) -> None:
    order = list(range(len(values)))
    random.shuffle(order)
    assert front(values[order], UP).tolist() == front(values, UP)[order].tolist()


def test_equal_runs_are_kept_together() -> None:
    assert front(np.array([[0.8, 5, 1], [0.8, 5, 1], [0.7, 5, 1]]), UP).tolist() == [True, True, False]


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_not_on_the_front_and_dominates_nobody(odd: float) -> None:
    assert front(np.array([[0.8, 5, 1], [0.9, odd, 0], [odd, 5, 1]]), UP).tolist() == [True, False, False]


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("runs", [1, 3, 40])
def test_the_figure_is_a_png_that_is_as_high_as_its_list(runs: int, objectives: int) -> None:
    random = np.random.default_rng(runs)
    found = random.uniform([0.6, 5, 1e6], [0.8, 100, 3e7], (runs, 3))[:, :objectives]
    png = figure(
        [f"model_{n} lr=0.001 loss=focal alpha=0.{n}" for n in range(runs)], found, NAMES[:objectives], UP[:objectives]
    )
    width, height = struct.unpack(">II", png[16:24])
    assert png.startswith(b"\x89PNG")
    assert (width, height >= 1000) == (1600, True)


def test_a_figure_without_a_run_is_refused() -> None:
    with pytest.raises(BadInput, match="no run has val/auroc_macro and model/latency_ms"):
        figure(["a"], np.array([[np.nan, 1.0]]), NAMES[:2], UP[:2])


def a_study(name: str, minimize: tuple[str, ...], runs: dict[str, tuple[float, float]]) -> None:
    """A study on disk whose runs have these AUROCs and latencies."""
    folder = study_folder(name)
    definition = {"data": "d", "split": "s", "trials": {}}
    StudyRecord(folder, name, "?", "t", "val/auroc_macro", definition, tuple(runs), minimize=minimize).save()
    for key, (auroc, latency) in runs.items():
        epoch = {"val/auroc_macro": auroc, "val/ap_macro": 0.2, "val/f1_macro": 0.1, "model/parameters": 1e6}
        RunRecord(
            folder / "trials" / key,
            key,
            "trial",
            f"model_{key}",
            {},
            {"epochs": 1, "monitor": "val/auroc_macro", "data": {"name": "none"}},
            facts={"model/latency_ms": latency},
            epochs=(epoch,),
            bests=(StoredFile("b", "", 1),),
        ).save().close("finished", "")


RUNS = {"a": (0.80, 50.0), "b": (0.78, 10.0), "c": (0.77, 20.0)}


def test_the_table_and_the_json_mark_the_front(capsys: pytest.CaptureFixture[str]) -> None:
    a_study("s", ("model/latency_ms", "model/parameters"), RUNS)
    comparison = compare(["s"])
    assert comparison.on_front() == [True, True, False]
    show(comparison)
    table = capsys.readouterr().out
    assert [line.split()[1:4] for line in table.splitlines() if "model_" in line] == [
        ["*", "1", "│"],
        ["*", "2", "│"],
        ["3", "│", "model_c"],
    ]
    assert "10.0 ms" in table
    assert "* on the front" in table
    page = as_json(comparison)
    assert [trial["front"] for trial in page["trials"]] == [True, True, False]
    assert page["minimize"] == ["model/latency_ms", "model/parameters"]
    files = summary("s")
    assert files["front.png"].startswith(b"\x89PNG")
    assert json.loads(files["comparison.json"]) == page
    rows = [line for line in files["comparison.md"].decode().splitlines() if "`model_" in line]
    assert [row.split(" | ")[:4] for row in rows] == [
        ["| * 1", "`model_a`", "0.8000", "50.0 ms"],
        ["| * 2", "`model_b`", "0.7800", "10.0 ms"],
        ["| 3", "`model_c`", "0.7700", "20.0 ms"],
    ]


def test_who_was_stopped_is_not_ranked_nor_on_the_front_and_has_its_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    a_study("s", ("model/latency_ms",), {**RUNS, "d": (0.95, 5.0)})
    told = "stopped at rung 1: dominated by model_b"
    RunRecord.load(study_folder("s") / "trials" / "d").close("stopped", told)
    comparison = compare(["s"])
    assert [run.key for run in comparison.ranked] == ["a", "b", "c"] and comparison.is_done
    assert comparison.on_front() == [True, True, False]
    show(comparison)
    said = " ".join(capsys.readouterr().out.split())
    assert "off the front: 1 stopped before the end, dominated at equal or lower cost" in said and told in said


def test_a_study_with_one_objective_has_no_front(capsys: pytest.CaptureFixture[str]) -> None:
    a_study("s", (), RUNS)
    comparison = compare(["s"])
    show(comparison)
    assert "*" not in capsys.readouterr().out
    files = list(summary("s"))
    assert (comparison.front_figure(), files[:2]) == (None, ["comparison.json", "comparison.md"])
    assert "front.png" not in files
    assert "front" not in as_json(comparison)["trials"][0]


def test_a_bar_in_a_label_ends_no_cell_of_the_markdown() -> None:
    a_study("s", (), {"a|b [red] *c*": (0.8, 1.0)})
    assert "| 1 | `model_a\\|b [red] *c*` | 0.8000 |" in summary("s")["comparison.md"].decode()


def test_studies_share_the_objectives_that_both_have(runs: Path) -> None:
    a_study("s", ("model/latency_ms", "model/parameters"), RUNS)
    a_study("t", ("model/latency_ms",), {"d": (0.9, 5.0)})
    both = compare(["s", "t"])
    assert both.minimize == ("model/latency_ms",)
    assert both.on_front() == [True, False, False, False]
