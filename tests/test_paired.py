"""Settings over seeds: the gap to the best, and what chance there is in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from xlite_search.config import RunConfig
from xlite_search.data.loaders import Data, open_data
from xlite_search.places import study_folder
from xlite_search.records import ARTIFACTS, RunRecord, StoredFile, StudyRecord
from xlite_search.results.compare import as_json, compare, show
from xlite_search.results.paired import Judge, Setting, half_width, macro_auroc
from xlite_search.storage import write_atomic
from xlite_search.training.predictions import Predictions


def drawn(seed: int, images: int = 200, classes: int = 3) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    truth = random.random((images, classes)) < 0.2
    return np.round(random.normal(size=truth.shape) + truth, 1), truth


@given(st.integers(0, 1000))
def test_the_area_is_sklearns_and_the_images_shares_in_its_error_cancel(seed: int) -> None:
    scores, truth = drawn(seed)
    area, moved = macro_auroc(scores, truth)
    assert area == pytest.approx(roc_auc_score(truth, scores, average="macro"), abs=1e-12)
    assert moved.sum() == pytest.approx(0, abs=1e-12)


def test_delongs_shares_by_hand() -> None:
    """Positives 3 and 1, negatives 2 and 0: worth 1 and 1/2, and 1/2 and 1; AUROC 3/4."""
    scores = np.array([[3.0], [1.0], [2.0], [0.0]])
    area, moved = macro_auroc(scores, np.array([[True], [True], [False], [False]]))
    assert area == 0.75
    assert moved.tolist() == [0.125, -0.125, -0.125, 0.125]


def test_a_class_without_positives_is_left_out() -> None:
    scores, truth = drawn(0)
    truth[:, 1] = False
    assert macro_auroc(scores, truth)[0] == pytest.approx(
        roc_auc_score(truth[:, [0, 2]], scores[:, [0, 2]], average="macro")
    )


def test_half_of_the_interval_is_normal_without_training_noise_and_students_without_patients() -> None:
    assert half_width(np.array([0.1, 0.1, 0.1]), 0.01) == pytest.approx(0.0196, abs=2e-4)
    spread = np.array([-0.01, 0.0, 0.01])  # t of two degrees at 97.5 %: 4.303
    assert half_width(spread, 0.0) == pytest.approx(4.303 * 0.01 / 3**0.5, rel=0.02)


def write(folder_of: str, label: str, seed: int, config: RunConfig, data: Data, logits: NDArray[np.float32]) -> str:
    """A finished run whose best epoch answered like that."""
    key = f"{label}{seed}".replace("=", "")
    run = RunRecord(
        study_folder(folder_of) / "trials" / key,
        key,
        "trial",
        f"{label} seed={seed}",
        {},
        config.model_dump(mode="json") | {"seed": seed},
    )
    names = tuple(data.packed.table.names[row] for row in data.val.rows)
    path = f"{ARTIFACTS}/answers.npz"
    sha256 = write_atomic(run.folder / path, Predictions.of(logits, names, data.classes).to_bytes())
    area = macro_auroc(logits.astype(np.float16).astype(np.float32), data.val.labels > 0)[0]
    epoch = {"val/auroc_macro": area, "val/ap_macro": 0.2, "val/f1_macro": 0.1, "model/parameters": 1e6}
    found = replace(run, epochs=(epoch,), bests=(StoredFile("b", "", 1),), predictions=(StoredFile(path, sha256, 1),))
    found.save().close("finished", "")
    return key


@pytest.fixture
def data(tiny: RunConfig) -> Data:
    return open_data(tiny.data)


def study(
    tiny: RunConfig,
    data: Data,
    strengths: dict[str, float],
    seeds: int = 3,
    truth: NDArray[np.bool_] | None = None,
) -> list[str]:
    truth = data.val.labels > 0 if truth is None else truth
    keys = []
    for label, strength in strengths.items():
        for seed in range(seeds):
            random = np.random.default_rng(seed)  # both settings are given the same noise
            noise = random.normal(size=truth.shape)
            keys.append(write("s", label, seed, tiny, data, (noise + strength * truth).astype(np.float32)))
    definition = {"data": "d", "split": "s", "trials": {}}
    StudyRecord(study_folder("s"), "s", "?", "t", "val/auroc_macro", definition, tuple(keys)).save()
    return keys


def test_settings_are_paired_by_seed_and_ranked_by_their_mean(
    tiny: RunConfig, data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    study(tiny, data, {"alpha=0": 0.5, "alpha=0.5": 2.0, "alpha=0.6": 1.99})
    comparison = compare(["s"])
    best, near, far = comparison.settings
    assert [each.label for each in (best, near, far)] == ["alpha=0.5", "alpha=0.6", "alpha=0"]
    assert (best.gaps, best.seeds) == ((), (0, 1, 2))
    assert near.tied
    assert not far.tied
    assert far.gap == pytest.approx(far.score - best.score)
    assert near.half < far.half, "the more alike two runs are, the less chance is in their gap"
    show(comparison)
    table = capsys.readouterr().out
    assert f"{far.gap:+.4f}" in table
    assert [row.split()[-2] for row in table.splitlines() if "+0." in row or "-0." in row] == ["tied", "worse"]
    assert [each["tied"] for each in as_json(comparison)["settings"][1:]] == [True, False]


@pytest.mark.parametrize("reason", ["one seed", "one setting", "lost predictions", "other seeds", "lost data"])
def test_without_pairs_there_is_no_such_table(reason: str, tiny: RunConfig, data: Data) -> None:
    keys = study(
        tiny,
        data,
        {"a=1": 1.0} if reason == "one setting" else {"a=1": 1.0, "a=2": 2.0},
        1 + 2 * (reason != "one seed"),
    )
    trials = study_folder("s") / "trials"
    if reason == "lost predictions":
        (trials / keys[0] / ARTIFACTS / "answers.npz").unlink()
    if reason == "other seeds":
        for key in keys[:3]:
            run = RunRecord.load(trials / key)
            seed = run.config["seed"] + 10
            replace(run, config=run.config | {"seed": seed}, label=f"a=1 seed={seed}").save()
    if reason == "lost data":
        (data.packed.folder / "manifest.json").unlink()
    comparison = compare(["s"])
    assert (comparison.settings, "settings" in as_json(comparison)) == ([], False)
    assert comparison.ranked


def test_the_patients_error_is_that_of_drawing_patients_anew(tiny: RunConfig, data: Data) -> None:
    """Against the bootstrap: patients are drawn with all their images, a gap is taken each time."""
    judge = Judge(data)
    judge.truth = np.random.default_rng(4).random(judge.truth.shape) < 0.4  # as many as such few images can do with
    study(tiny, data, {"a=1": 0.8, "a=2": 1.2}, seeds=2, truth=judge.truth)
    runs: dict[str, dict[int, RunRecord]] = {"a=1": {}, "a=2": {}}
    for run in compare(["s"]).ranked:
        runs[run.label.split()[0]][run.config["seed"]] = run
    gaps, error = judge.gaps(runs["a=1"], runs["a=2"])

    random, many = np.random.default_rng(3), judge.patients.max() + 1
    images_of = [np.flatnonzero(judge.patients == patient) for patient in range(many)]
    logits = {
        label: [Predictions.load(group[seed].predictions_path()).logits.astype(np.float32) for seed in (0, 1)]
        for label, group in runs.items()
    }

    def gap(places: NDArray[np.int64]) -> float:
        ours, best = (
            np.mean([macro_auroc(each[places], judge.truth[places])[0] for each in logits[label]])
            for label in ("a=1", "a=2")
        )
        return float(ours - best)

    assert gap(np.arange(len(judge.patients))) == pytest.approx(gaps.mean())
    draws = [gap(np.concatenate([images_of[p] for p in random.integers(many, size=many)])) for _ in range(400)]
    assert error == pytest.approx(np.std(draws), rel=0.2)


def test_a_gap_of_nothing_is_a_tie() -> None:
    assert Setting("a", (1, 2), 0.8, 0.0, (0.0, 0.0), 0.0).tied
