"""Calibration: lines against scikit-learn, their ridge, what is shipped and what belongs to another model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PHANTOM
from finished import finished_study
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from test_scored import folder as folder  # a model of the tiny data set that nobody trained

from xlite_search.cli import main
from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.errors import BadInput, Damaged
from xlite_search.evaluation.calibrated import calibrated
from xlite_search.evaluation.calibration import (
    FILE,
    FittedOn,
    Line,
    apply,
    calibrate,
    fit,
    out_of_fold,
    platt,
    read_calibration,
    temperature,
    write_calibration,
)
from xlite_search.evaluation.scored import data_of, scored
from xlite_search.evaluation.thresholds import choose, read_thresholds, write_thresholds
from xlite_search.evaluation.validation import validation_of
from xlite_search.model_folder import (
    WEIGHTS,
    ModelManifest,
    copy_model,
    input_of,
    read_model,
    trained_on,
    write_ensemble,
    write_model,
)
from xlite_search.trainable import config_of
from xlite_search.training.metrics import sigmoid
from xlite_search.training.predictions import Predictions

ON = FittedOn(data="d", fingerprint="f", split="s", images=3000, patients=1000)


def drawn(
    images: int = 3000, prevalences: tuple[float, ...] = (0.01, 0.05, 0.2), seed: int = 0
) -> tuple[np.ndarray, ...]:
    """Logits that are off: their true log-odds are 0.8 z - 1; truth, and three images a patient."""
    random = np.random.default_rng(seed)
    shape, rates = (images, len(prevalences)), np.array(prevalences)
    z = np.log(rates / (1 - rates)) + 1 + 1.2 * random.normal(size=shape)
    truth = random.random(shape) < sigmoid(0.8 * z - 1)
    return z, truth, np.repeat(np.arange(images // 3), 3)


@pytest.mark.parametrize("seed", range(5))
def test_without_ridge_a_line_is_scikit_learns(seed: int) -> None:
    z, truth, _ = drawn(seed=seed)
    for column in range(3):
        found = platt(z[:, column], truth[:, column])
        oracle = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(z[:, [column]], truth[:, column])
        assert found.slope == pytest.approx(oracle.coef_[0, 0], abs=1e-6)
        assert found.offset == pytest.approx(oracle.intercept_[0], abs=1e-6)


def test_a_ridge_is_the_prior_by_hand() -> None:
    """At the line that is found, the loss and the prior pull against each other."""
    z, truth, _ = drawn()
    towards = Line(slope=2.0, offset=1.0)
    found = platt(z[:, 0], truth[:, 0], towards)
    missed = sigmoid(found.slope * z[:, 0] + found.offset) - truth[:, 0]
    assert missed.sum() == pytest.approx(-(found.offset - 1.0), abs=1e-6)
    assert found.slope * (missed @ z[:, 0]) == pytest.approx(-np.log(found.slope / 2.0) / 0.09, abs=1e-6)
    tight = platt(z[:, 0], truth[:, 0], towards, (1e-6, 1e-6))
    assert tight.slope == pytest.approx(2.0, abs=1e-4) and tight.offset == pytest.approx(1.0, abs=1e-4)
    loose = platt(z[:, 0], truth[:, 0], towards, (1e6, 1e6))
    assert loose.slope == pytest.approx(platt(z[:, 0], truth[:, 0]).slope, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(10, 200), st.integers(0, 2**32 - 1))
def test_no_two_images_change_places(images: int, seed: int) -> None:
    """Whatever the logits are, even ones that tell the contrary of the truth or all of it."""
    random = np.random.default_rng(seed)
    truth = random.random((images, 2)) < 0.3
    truth[0], truth[1] = True, False
    z = random.normal(size=(images, 2)) + np.array([-3, 30]) * truth
    _, lines = fit(z, truth)
    for column, line in enumerate(lines):
        assert line.slope > 0 and np.isfinite([line.slope, line.offset]).all()
        before, after = (roc_auc_score(truth[:, column], each[:, column]) for each in (z, apply(lines, z)))
        assert abs(before - after) <= 1e-12


def test_a_finding_without_positives_has_the_pooled_line() -> None:
    z, truth, groups = drawn()
    truth[:, 0] = False
    pooled, lines = fit(z, truth)
    assert lines[0] == pooled != lines[1]
    found, _ = calibrate("0", ("a", "b", "c", "d"), z, truth, groups, ("a", "b", "c"), ON)
    assert [each.calibrated for each in found.findings] == [False, True, True, False]
    assert found.findings[0].line == found.findings[3].line == found.pooled
    assert found.findings[0].after is None and not found.findings[0].assessable
    with pytest.raises(BadInput, match="no finding has both positive and negative images in the validation part"):
        fit(z, np.zeros_like(truth))


def test_temperature_has_one_slope_and_no_offset() -> None:
    z, truth, _ = drawn()
    z = 3 * (0.8 * z - 1)
    pooled, lines = fit(z, truth, "temperature")
    assert lines == [pooled] * 3 and pooled.offset == 0 and pooled.slope == pytest.approx(1 / 3, rel=0.1)
    flat = temperature(z.ravel(), truth.ravel())
    assert flat == pooled
    missed = sigmoid(flat.slope * z) - truth
    assert flat.slope * (missed * z).sum() == pytest.approx(-np.log(flat.slope), abs=1e-6)


def test_few_positives_are_calibrated_better_with_the_ridge() -> None:
    """Distance of the probabilities from the true ones (KL), at 10 to 20 positives, on average over 20 draws."""
    far: dict[str, list[float]] = {"none": [], "own": [], "ridge": []}
    for seed in range(20):
        z, truth, _ = drawn(2000, (0.007, 0.05, 0.2), seed)
        if truth[:, 0].sum() < 2:
            continue
        true = sigmoid(0.8 * z[:, 0] - 1)
        lines = {"none": Line(), "own": platt(z[:, 0], truth[:, 0]), "ridge": fit(z, truth)[1][0]}
        for name, line in lines.items():
            chance = np.clip(sigmoid(line.slope * z[:, 0] + line.offset), 1e-12, 1 - 1e-12)
            far[name].append(
                float((true * np.log(true / chance) + (1 - true) * np.log((1 - true) / (1 - chance))).mean())
            )
    assert np.mean(far["ridge"]) < np.mean(far["own"]) < np.mean(far["none"])


def test_figures_are_of_lines_of_other_patients() -> None:
    z, truth, groups = drawn()
    crossed = out_of_fold(z, truth, groups)
    assert np.array_equal(crossed, out_of_fold(z, truth, groups))
    again = out_of_fold(z, np.where(groups[:, None] == 17, ~truth, truth), groups)
    assert np.array_equal(crossed[groups == 17], again[groups == 17])
    assert not np.array_equal(crossed, again)
    with pytest.raises(BadInput, match="the validation part has one patient"):
        out_of_fold(z, truth, np.zeros(3000, np.int64))


def test_a_calibration_says_what_it_is_of_and_how_well_it_does() -> None:
    z, truth, groups = drawn()
    found, crossed = calibrate("ab", ("a", "b", "c"), z, truth, groups, ("a", "b", "c"), ON)
    few, enough = found.findings[0], found.findings[2]
    assert (few.positives, enough.positives) == (int(truth[:, 0].sum()), int(truth[:, 2].sum()))
    assert not few.assessable and few.before is None
    assert enough.before and enough.after
    assert enough.after.brier.value == pytest.approx(((sigmoid(crossed[:, 2]) - truth[:, 2]) ** 2).mean())
    assert enough.after.ece.value < enough.before.ece.value  # type: ignore[operator]
    assert enough.after.slope.low < 1 < enough.after.slope.high  # type: ignore[operator]
    assert found.together.after and found.folds == 5
    shipped = found.logits(z)
    assert np.array_equal(shipped, apply([each.line for each in found.findings], z))
    assert np.array_equal(found.probabilities(z[:, [2, 0]], ("c", "a")), sigmoid(shipped[:, [2, 0]]))
    assert shipped.dtype == np.float64
    with pytest.raises(BadInput, match="no finding 'x'; its own are a, b, c"):
        found.logits(z, ("a", "b", "x"))
    with pytest.raises(BadInput, match="of 3 findings, and these logits of 2"):
        found.logits(z[:, :2])


def test_its_hash_is_of_weights_and_lines() -> None:
    z, truth, groups = drawn()
    found, _ = calibrate("ab", ("a", "b", "c"), z, truth, groups, ("a", "b", "c"), ON)
    assert found.hash == found.model_copy(update={"caveat": "x", "together": found.findings[0]}).hash
    assert found.hash != found.model_copy(update={"sha256": "cd"}).hash
    one = found.findings[0].model_copy(update={"line": Line(slope=2)})
    assert found.hash != found.model_copy(update={"findings": (one, *found.findings[1:])}).hash


def a_model(folder: Path, tiny: RunConfig, weights: bytes) -> str:
    data = open_data(tiny.data)
    about = ModelManifest(config=tiny.model_dump(mode="json"), classes=data.classes[:3], input=input_of(data))
    return write_model(folder, weights, about)


def test_what_belongs_to_another_model_or_calibration_is_refused(tmp_path: Path, tiny: RunConfig) -> None:
    z, truth, groups = drawn()
    folder = tmp_path / "m"
    sha256 = a_model(folder, tiny, b"one")
    names = read_model(folder).classes
    assert read_calibration(folder) is None and read_thresholds(folder) is None
    found, crossed = calibrate(sha256, names, z, truth, groups, names, ON)
    cuts = choose(found, z, crossed, truth, groups, names)
    write_calibration(folder, found)
    write_thresholds(folder, cuts)
    assert read_calibration(folder) == found and read_thresholds(folder) == cuts
    assert read_calibration(folder).hash == found.hash == cuts.calibration  # type: ignore[union-attr]
    assert np.isnan(cuts.probabilities("sensitivity")).tolist() == [each.sensitivity is None for each in cuts.findings]

    other, _ = calibrate(sha256, names, z, truth, groups, names, ON, "temperature")
    write_calibration(folder, other)
    with pytest.raises(BadInput, match=r"thresholds\.json belongs to another calibration"):
        read_thresholds(folder)
    a_model(folder, tiny, b"two")
    with pytest.raises(BadInput, match=r"thresholds\.json belongs to another model"):
        read_thresholds(folder)
    with pytest.raises(BadInput, match=r"calibration\.json belongs to another model \(weights .*\); make one of this"):
        read_calibration(folder)
    (folder / FILE).write_text("{}")
    with pytest.raises(Damaged):
        read_calibration(folder)


def test_probabilities_need_no_torch() -> None:
    code = (
        "import sys; from xlite_search.evaluation import calibration, thresholds, reliability; "
        "assert not {'torch', 'ray', 'mlflow', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a verb that ends with this code prints; MLflow is not asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["xlite_search", *arguments])
        patch.setattr("xlite_search.tracking.models.log_files", lambda *_: "")
        with pytest.raises(SystemExit) as ended:
            main()
    said = capsys.readouterr()
    assert ended.value.code == code, said.err
    return said.err if code else said.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence of a verb that takes none of it."""
    error = told(capsys, *arguments, code=2)
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_calibrate_from_a_model_folder_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, "calibrate", "m", "--cpu", "--sensitivity", "0.3")
    assert "calibration of m by Platt's line" in out and "not assessable, under 100 positives or negatives: " in out
    assert "thresholds that keep a sensitivity of 0.3 with 95 % confidence" in out
    assert out.count("no threshold keeps a sensitivity of 0.3 with 95 % confidence, which takes 3 positive") == 1
    assert "Fibrosis (1)" in out
    assert out.rstrip().splitlines()[-1] == "next: python -m xlite_search evaluate m --on test"
    kept, cuts = read_calibration(folder), read_thresholds(folder)
    assert kept and cuts and kept.sha256 == read_model(folder).sha256 and cuts.calibration == kept.hash
    assert cuts.at_least == 0.3
    data = data_of(read_model(folder))
    found = scored(folder, data, "val", torch.device("cpu"))
    assert kept.on.images == len(found.rows) and kept.on.fingerprint == data.packed.fingerprint
    positives = {each.finding: each.positives for each in kept.findings}
    assert positives == found.positives
    chance = kept.probabilities(found.logits)
    for row, column in zip(cuts.findings, chance.T, strict=True):
        if cut := row.youden:
            assert (column >= cut.probability).mean() == cut.flagged
    figures = folder / "artifacts" / "calibration"
    assert {each.name for each in figures.iterdir()} == {"reliability.svg", "net_benefit.svg", "reliability.json"}


def test_calibrate_for_a_machine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, "calibrate", str(folder), "--cpu", "--json", "--method", "temperature"))
    assert found["model"] == "m" and found["calibration"]["method"] == "temperature"
    assert found["thresholds"]["calibration"] == found["calibration"]["hash"]
    assert set(found["not_assessable"]) == {each["finding"] for each in found["calibration"]["findings"]}
    assert all(each["after"] is None for each in found["calibration"]["findings"])
    assert all(Path(each).is_file() for each in found["files"])
    assert set(found["not_better"]) == {"brier", "ece"}
    assert set(found["reliability"]) == {*read_model(folder).classes, "all findings"}


def test_calibrate_says_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no model 'n'" in refused(capsys, "calibrate", "n")
    assert "--method isotonic: expected platt or temperature" in refused(
        capsys, "calibrate", "m", "--method", "isotonic"
    )
    assert "expected a part between 0 and 1" in refused(capsys, "calibrate", "m", "--sensitivity", "90")
    assert "data set 'other' is not prepared" in refused(capsys, "calibrate", "m", "--on", "other", "--cpu")


def test_patients_that_the_model_was_trained_on_calibrate_nothing(folder: Path, tiny: RunConfig) -> None:
    about, data = read_model(folder), open_data(tiny.data)
    groups = data.packed.table.groups
    seen = trained_on(data, [groups[data.val.rows[0]], groups[data.train.rows[0]]])
    write_model(folder, (folder / WEIGHTS).read_bytes(), about.model_copy(update={"trained_on": seen}))
    with pytest.raises(BadInput, match="was trained on 1 of the patients of the validation part"):
        calibrated(folder, torch.device("cpu"))


def test_an_ensemble_is_calibrated_as_one_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy_model(folder, folder.parent / "m2")
    (folder.parent / "e").mkdir()
    write_ensemble(folder.parent / "e", ["m", "m2"])
    assert "calibration of e by Platt's line" in told(capsys, "calibrate", "e", "--cpu", "--on", PHANTOM)
    kept = read_calibration(folder.parent / "e")
    assert kept and kept.sha256 == read_model(folder.parent / "e").sha256 != read_model(folder).sha256


def on_everything(folder: Path, tiny: RunConfig, provenance: dict[str, str]) -> None:
    config = tiny.with_settings({"data.fit": "train+val"}).model_dump(mode="json")
    update = {"config": config, "provenance": provenance}
    write_model(folder, (folder / WEIGHTS).read_bytes(), read_model(folder).model_copy(update=update))


def test_a_model_of_train_and_val_has_its_trials_predictions(
    folder: Path, tiny: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    weighted = tiny.with_settings({"loss": "weighted_bce"})
    study = finished_study("s", weighted, [{"seed": 0}], [2.0])
    run = study.runs()[0]
    on_everything(folder, tiny, {"study": "s", "trial": run.key})
    with pytest.raises(
        BadInput, match=r"its own settings are others \(epochs 3, the trial's 2, loss .*say nothing of it"
    ):
        validation_of(folder, "", torch.device("cpu"))
    final = {"epochs": 2, "stop_after": 1, "schedule": {"name": "recorded", "factors": [1.0, 0.5]}}
    on_everything(folder, weighted.with_settings(final), {"study": "s", "trial": run.key})
    out = told(capsys, "calibrate", "m", "--cpu")
    caveat = f"fitted on the predictions of trial {run.key} of study 's', not this model's"
    assert out.count(caveat) == 5  # each of four tables, and a warning: no finding has a threshold that keeps 0.9
    kept, cuts = read_calibration(folder), read_thresholds(folder)
    assert kept and cuts and caveat in kept.caveat and caveat in cuts.caveat and kept.on.trial == run.key
    data = open_data(tiny.data)
    weight = config_of(run).loss.pos_weight(data.train.positives, len(data.train))
    assert weight is not None
    raw = Predictions.load(run.predictions_path()).logits
    used = validation_of(folder, "", torch.device("cpu")).scored
    assert np.allclose(used.logits, raw - np.log(weight.numpy()), atol=1e-6)
    assert np.array_equal(used.truth, data.val.labels > 0)
    assert caveat.split()[0] in (folder / "artifacts" / "calibration" / "reliability.svg").read_text()


def test_a_model_of_train_and_val_without_its_trial_says_so(folder: Path, tiny: RunConfig) -> None:
    cpu = torch.device("cpu")
    on_everything(folder, tiny, {})
    with pytest.raises(BadInput, match=r"trained on train\+val, .* does not say of which trial it is; name"):
        validation_of(folder, "", cpu)
    on_everything(folder, tiny, {"study": "gone", "trial": "0"})
    with pytest.raises(BadInput, match=r"predictions are not to be had: no study 'gone'"):
        validation_of(folder, "", cpu)
    study = finished_study("s", tiny, [{"seed": 0}], [2.0])
    on_everything(folder, tiny, {"study": "s", "trial": "0"})
    with pytest.raises(BadInput, match=r"study 's' has no trial 0"):
        validation_of(folder, "", cpu)
    run = study.runs()[0]
    run.predictions_path().unlink()
    on_everything(folder, tiny, {"study": "s", "trial": run.key})
    with pytest.raises(BadInput, match=r"predictions of .* are missing or damaged"):
        validation_of(folder, "", cpu)
