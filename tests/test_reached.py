"""What the best run reaches: the figures that training recorded, with intervals by patient, wherever it is told."""

from __future__ import annotations

import json

import pytest
from finished import finished_study
from test_cli import call

from xlite_search.config import RunConfig
from xlite_search.data.packed import PackedSet
from xlite_search.results.compare import compare, show
from xlite_search.results.plain import as_json
from xlite_search.results.report.build import report
from xlite_search.results.report.page import page

RECORDED = {"ap": "val/ap_macro", "f1": "val/f1_macro", "brier": "val/brier"}


@pytest.fixture
def study(tiny: RunConfig) -> str:
    base = tiny.with_settings({"data.split.ratios": [0.1, 0.8, 0.1]})
    finished_study("s", base, [{"seed": 1}, {"optimizer.lr": 1e-2}], (2.0, 1.0))
    return "s"


def test_the_best_runs_figures_are_those_of_training(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    comparison = compare([study])
    found = comparison.reached()
    assert found is not None and found.left_out == ()
    recorded = comparison.best.epochs[0]
    for figure, interval in found.figures.items():
        name = RECORDED.get(figure, f"val/{figure}_macro")
        assert interval.value == pytest.approx(recorded[name], abs=2e-3), "kept as float16"
        assert interval.low < interval.value < interval.high or figure == "ece"
    assert "auroc" not in found.figures, "it has one interval, by its influence values"
    show(comparison)
    assert "average precision" in capsys.readouterr().out
    told = json.loads(json.dumps(as_json(comparison), allow_nan=False))["reached"]
    assert told["figures"]["brier"]["value"] == found.figures["brier"].value
    about = report(study)
    assert about.reached == found and f"{found.figures['ap'].value:.4f}" in page(about)


def test_without_the_data_there_is_none(study: str, phantom: PackedSet, capsys: pytest.CaptureFixture[str]) -> None:
    (phantom.folder / "manifest.json").unlink()
    code, out, _ = call(capsys, "compare", study)
    assert code == 0 and "average precision" not in out
