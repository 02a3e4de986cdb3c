"""Frames for notebooks: they say what the records say, under one name for each thing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from finished import finished_study
from sklearn.metrics import roc_auc_score

from xlite_search import results
from xlite_search.config import RunConfig
from xlite_search.data.packed import PackedSet
from xlite_search.errors import BadInput
from xlite_search.results import frames

POINTS = [{"kd.tau": tau, "seed": seed} for tau in (1.0, 4.0) for seed in (0, 1)]


@pytest.fixture
def study(tiny: RunConfig) -> list[str]:
    """Keys of four runs."""
    with_teacher = tiny.with_settings({"kd.teacher": "0123", "kd.alpha": 0.5})
    return list(finished_study("four", with_teacher, POINTS, (0.0, 1.0, 2.0, 3.0)).trials)


def test_a_row_for_each_run_with_its_settings_and_its_best_epoch(study: list[str]) -> None:
    found = results.runs("four")
    assert found["run"].tolist() == study
    assert found[["study", "status", "epochs", "best_epoch"]].drop_duplicates().values.tolist() == [
        ["four", "finished", 2, 1]
    ]
    assert found[["kd.tau", "seed"]].values.tolist() == [[1, 0], [1, 1], [4, 0], [4, 1]]
    assert found["val/auroc_macro"].is_monotonic_increasing
    assert found["gpu_wh"].isna().all() and (found["seconds"] == 3).all()


def test_a_row_for_each_epoch(study: list[str]) -> None:
    found = results.epochs("four")
    assert found["epoch"].tolist() == [1, 2] * 4
    wide = found.pivot(index="epoch", columns="run", values="val/auroc_macro")
    assert list(wide.columns) == sorted(study)
    best = results.runs("four").set_index("run")["val/auroc_macro"]
    assert (wide.loc[1] == best[wide.columns]).all()


def test_predictions_stand_beside_their_truth(study: list[str]) -> None:
    found = results.predictions("four/tau=4 seed=1")
    assert found.equals(results.predictions(f"four/{study[-1]}"))
    last = frames.predictions(f"four/{study[-1]}", epoch="last")
    assert not last.filter(like="logit/").equals(found.filter(like="logit/"))
    findings = [name.removeprefix("label/") for name in found.columns if name.startswith("label/")]
    areas = [
        roc_auc_score(found[f"label/{name}"], found[f"logit/{name}"])
        for name in findings
        if 0 < found[f"label/{name}"].sum() < len(found)
    ]
    score = results.runs("four").set_index("run")["val/auroc_macro"][study[-1]]
    assert np.mean(areas) == pytest.approx(score, abs=2e-3)  # kept as float16
    assert found["group"].nunique() < len(found) and found.index.name == "image"


def test_predictions_without_their_data_set_are_logits_alone(study: list[str], phantom: PackedSet) -> None:
    with_truth = results.predictions(f"four/{study[0]}")
    (phantom.folder / "manifest.json").unlink()
    alone = results.predictions(f"four/{study[0]}")
    pd.testing.assert_frame_equal(alone, with_truth.filter(like="logit/"))


def test_a_run_that_is_not_there_is_named_with_a_suggestion(study: list[str]) -> None:
    with pytest.raises(BadInput, match=r"study 'four' has no run 'tau=4 seed=2'; did you mean 'tau=4 seed=[01]'\?"):
        results.predictions("four/tau=4 seed=2")
    with pytest.raises(BadInput, match=r"run 'four': expected STUDY/RUN, a study's name and a run's key or label"):
        results.predictions("four")
    with pytest.raises(BadInput, match="epoch = 'first': expected 'best' or 'last'"):
        results.predictions("four/tau=4 seed=1", epoch="first")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="name a study, or several"):
        results.runs()
    with pytest.raises(BadInput, match=r"no study 'five'"):
        results.runs("five")


def test_a_name_that_is_no_frame_is_none() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'frame'"):
        results.frame  # noqa: B018
