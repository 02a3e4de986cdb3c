"""Other people's runs through `compare`: the lab's log, tables, MLflow, files of predictions; what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import call

from xlite_search.config import RunConfig
from xlite_search.errors import BadInput
from xlite_search.records import RunRecord, StoredFile
from xlite_search.results.foreign import read_runs, score_of
from xlite_search.results.others import Others, others_of
from xlite_search.results.prediction_files import judged, read_scores
from xlite_search.tracking.recorder import Recorder
from xlite_search.training.predictions import Predictions

LAB_LOG = Path(__file__).parent / "data" / "lab_log.csv"
#: 2 positives and 3 negatives; patient 3 has two of the negatives. AUROC 5/6, variance 1/36 + 4/81
SCORES = (0.9, 0.6, 0.7, 0.4, 0.2)
LABELS = (1, 1, 0, 0, 0)
NAMES = ("00000001_000.png", "00000002_000.png", "00000004_000.png", "00000003_000.png", "00000003_001.png")


def pairs(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(pair["a"], pair["b"]): pair for pair in found["pairs"]}


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = call(capsys, "compare", *arguments, "--json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_labs_log_is_told_what_it_compared(capsys: pytest.CaptureFixture[str]) -> None:
    found = pairs(as_json(capsys, "--csv", str(LAB_LOG)))
    ablation = found["EXP-000", "EXP-005"]
    assert ablation["confounders"] == {
        "epochs": [20, 10],
        "sampler": ["max_rarity", "mean_rarity"],
        "schedule": ["plateau", "constant"],
    }
    assert (ablation["named"], ablation["verdict"]) == ({}, "not comparable"), "the loss is the same"
    full = found["EXP-000", "EXP-007"]
    assert full["confounders"].keys() == {
        *("epochs", "batch_size", "data.fraction", "sampler", "model", "loss.weighting"),
    }
    assert full["confounders"]["epochs"] == ["14 of 20", "18 of 20"]
    same_model = found["EXP-000", "EXP-007 efficientnet_b0_mhsa"]
    assert same_model["confounders"].keys() == full["confounders"].keys() - {"model"}
    focal = found["EXP-006 baseline", "EXP-006"]
    assert focal["named"] == {"loss": ["bce", "focal"]} and focal["confounders"] == {}
    assert focal["verdict"] == "cannot tell", "a gap without an interval is no verdict"


def test_the_log_names_the_run_that_it_would_have_needed(capsys: pytest.CaptureFixture[str]) -> None:
    found = pairs(as_json(capsys, "--csv", str(LAB_LOG), "--factor", "sampler"))
    pair = found["EXP-000", "EXP-005"]
    assert pair["sentence"].endswith("not comparable: also differ in epochs (20, 10), schedule (plateau, constant)")
    missing = pair["missing"]
    assert missing["like"] == "EXP-000" and missing["settings"] == {"sampler": "mean_rarity"}
    words = missing["command"].split()
    assert words[:5] == ["python", "-m", "xlite_search", "run", "SPACE"]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    config = RunConfig().with_settings({name: float(v) if v[0].isdigit() else v for name, v in given.items()})
    assert config.sampler.name == "mean_rarity" and config.epochs == 20 and config.schedule.name == "plateau"
    assert any("loss.weighting" in each for each in missing["beside"]), "its formula has no name here"


def test_the_printed_form_says_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "compare", "--csv", str(LAB_LOG), "--factor", "sampler")
    assert code == 0
    assert "EXP-000, EXP-005: not comparable: also differ in epochs (20, 10), schedule (plateau, constant)\n" in out
    assert "missing: EXP-000 with sampler mean_rarity: python -m xlite_search run SPACE --set " in out
    assert "beats" not in out


def test_against_a_run_and_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "--csv", str(LAB_LOG), "--against", "EXP-006 baseline")
    assert {pair["a"] for pair in found["pairs"]} == {"EXP-006 baseline"} and len(found["pairs"]) == 15
    code, out, _ = call(capsys, "compare", "--csv", str(LAB_LOG), "-o", str(tmp_path / "log.md"))
    written = (tmp_path / "log.md").read_text()
    assert (code, out) == (0, "") and "| `EXP-005 baseline` | `EXP-006` | +0.0248 | - |" in written
    assert "EXP-000, EXP-005: not comparable: differ in epochs (20, 10)" in written


def predictions(path: Path, scores: tuple[float, ...] = SCORES, *, labels: bool = True, name: str = "prob_") -> Path:
    """In the form of the CheXNet reproduction's preds.csv: two findings that are alike, and one without positives."""
    findings = ("Hernia", "Mass", "Edema")
    head = ["", "Image Index", *(f"{name}{finding}" for finding in findings), *(findings if labels else ())]
    lines = [",".join(head)]
    for row, (image, score, label) in enumerate(zip(NAMES, scores, LABELS, strict=True)):
        cells = [str(row), image, str(score), str(score), "0.5", *([str(label), str(label), "0"] if labels else [])]
        lines.append(",".join(cells))
    return table(path, "\n".join(lines) + "\n")


def patients(path: Path, *, labels: bool = True) -> Path:
    """NIH's label table of these images, and of one more."""
    rows = [
        f"{image},{'Hernia|Mass' if label else 'No Finding'},{int(image[:8])}"
        for image, label in zip((*NAMES, "00000009_000.png"), (*LABELS, 1), strict=True)
    ]
    if not labels:
        rows = [f"{row.split(',')[0]},{row.split(',')[2]}" for row in rows]
    head = "Image Index,Finding Labels,Patient ID" if labels else "Image Index,Patient ID"
    return table(path, "\n".join([head, *rows]) + "\n")


RUNS = "run,metric.auroc,predictions,loss\na,0.83,a.csv,bce\nb,0.5,b.csv,focal\n"


@pytest.mark.parametrize("where", ["in the predictions", "in the patients' table"])
def test_the_mean_auroc_and_its_standard_error_are_those_of_a_pencil(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = where == "in the predictions"
    predictions(tmp_path / "a.csv", labels=beside)
    predictions(tmp_path / "b.csv", (0.1, 0.6, 0.7, 0.4, 0.2), labels=False)
    runs, whose = table(tmp_path / "runs.csv", RUNS), patients(tmp_path / "whose.csv", labels=not beside)
    found = as_json(capsys, "--csv", str(runs), "--patients", str(whose))
    first, second = found["runs"]
    assert first["auroc"] == pytest.approx(5 / 6, abs=1e-15)
    assert first["error"] == pytest.approx(math.sqrt(1 / 36 + 4 / 81), abs=1e-15)
    assert second["auroc"] == pytest.approx(1 / 3)
    assert (found["findings"], found["images"], found["patients"]) == (["Hernia", "Mass"], 5, 4)
    assert found["notes"] == [
        "a: its auroc is 0.8300, its predictions have 0.8333: of other images?",
        "b: its auroc is 0.5000, its predictions have 0.3333: of other images?",
    ]
    (pair,) = found["pairs"]
    assert pair["gap"] == pytest.approx(1 / 2) and pair["low"] < 0 < pair["high"]
    assert (pair["verdict"], pair["named"]) == ("cannot tell", {"loss": ["bce", "focal"]})


def large(path: Path, seed: int, signal: float) -> Path:
    """600 images of 300 patients with scores of some use."""
    random = np.random.default_rng(0)
    labels = random.random(600) < 0.3
    noise = np.random.default_rng(seed).normal(size=600)
    rows = [
        f"{n // 2 + 1:08d}_{n % 2:03d}.png,{signal * label + error:.6f},{int(label)}"
        for n, (label, error) in enumerate(zip(labels, noise, strict=True))
    ]
    return table(path, "\n".join(["Image Index,prob_Mass,Mass", *rows]) + "\n")


def test_a_better_run_is_called_so_and_not_if_something_else_differs(tmp_path: Path) -> None:
    """Without a table of patients NIH's names tell them."""
    large(tmp_path / "a.csv", 1, 3.0), large(tmp_path / "b.csv", 2, 0.5)
    text = "run,metric.auroc,predictions,loss,epochs\na,0.9,a.csv,bce,20\nb,0.6,b.csv,focal,{}\n"
    clean = others_of("t", read_runs(table(tmp_path / "clean.csv", text.format(20))))
    (pair,) = clean.pairs.pairs
    assert pair.verdict == "better" and 0 < pair.low < pair.gap < pair.high
    assert pair.sentence().startswith("a beats b by 0.") and pair.sentence().endswith(": loss (bce, focal)")
    assert clean.judged.patients == 300
    confounded = others_of("t", read_runs(table(tmp_path / "other.csv", text.format(10))), factors=["loss"])
    (pair,) = confounded.pairs.pairs
    assert pair.verdict == "not comparable" and math.isnan(pair.low)
    assert pair.sentence() == "a, b: not comparable: also differ in epochs (20, 10)"


def test_equal_runs_are_tied(tmp_path: Path) -> None:
    large(tmp_path / "a.csv", 1, 3.0)
    text = "run,metric.auroc,predictions,loss\na,0.9,a.csv,bce\nb,0.9,a.csv,focal\n"
    (pair,) = others_of("t", read_runs(table(tmp_path / "r.csv", text))).pairs.pairs
    assert (pair.verdict, pair.gap, pair.low, pair.high) == ("tied", 0, 0, 0)


def test_our_own_predictions_are_read_with_a_table_of_labels(tmp_path: Path) -> None:
    logits = np.array([[score, score, 0] for score in SCORES], np.float16)
    kept = Predictions(logits, NAMES, ("Hernia", "Mass", "Edema"))
    (tmp_path / "a.npz").write_bytes(kept.to_bytes())
    runs = read_runs(table(tmp_path / "r.csv", "run,metric.x,predictions\na,1,a.npz\n"))
    found = judged(runs, patients(tmp_path / "whose.csv"))
    assert found.influences["a"].score == pytest.approx([5 / 6, 5 / 6])
    without = judged(runs)
    assert without.influences == {} and "no intervals: the predictions have no columns of labels" in without.notes[0]


def test_whoever_has_no_predictions_or_other_ones_is_named_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large(tmp_path / "a.csv", 1, 3.0), large(tmp_path / "b.csv", 2, 0.5)
    predictions(tmp_path / "few.csv")
    flipped = (tmp_path / "a.csv").read_text().replace(",1\n", ",9\n", 1).replace(",0\n", ",1\n", 1)
    table(tmp_path / "flipped.csv", flipped.replace(",9\n", ",0\n"))
    names = ("a.csv", "b.csv", "gone.csv", "few.csv", "flipped.csv", "")
    rows = [f"r{n},0.{n + 5},{name},{n}" for n, name in enumerate(names)]
    runs = table(tmp_path / "runs.csv", "\n".join(["run,metric.auroc,predictions,width", *rows]))
    found = as_json(capsys, "--csv", str(runs))
    notes = "\n".join(found["notes"])
    assert f"r2: there is no file of predictions {tmp_path / 'gone.csv'}; compared without" in notes
    assert "r3: its predictions are of other images than those of r0; compared without" in notes
    assert "r4: its predictions are of other labels than those of r0; compared without" in notes
    assert [("auroc" in run) for run in found["runs"]] == [True, True, False, False, False, False]
    assert pairs(found)["r0", "r1"]["verdict"] == "better"
    assert pairs(found)["r0", "r5"]["gap"] == pytest.approx(0.4) and pairs(found)["r0", "r5"]["low"] is None


def test_cells_are_numbers_words_none_or_unknown(tmp_path: Path) -> None:
    text = "Run;METRIC.auc;lr;on;what;left;epochs_done\na;0,5;1e-3;TRUE;none;;3\n"
    with pytest.raises(BadInput, match=r"line 2, column 'METRIC.auc': '0,5' is no number"):
        read_runs(table(tmp_path / "r.csv", text))
    (run,) = read_runs(table(tmp_path / "r.csv", text.replace("0,5", ".5")))
    assert run.settings == {"lr": 1e-3, "on": True, "what": None} and run.provenance == {"epochs_done": 3}
    assert run.scores == {"auc": 0.5} and not run.complete


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["loss", "auroc_macro", "accuracy"], "auroc_macro"),
        (["val_loss", "val_acc"], "val_acc"),
        (["final/auroc_macro", "best/auroc_Hernia", "best/auroc_macro"], "best/auroc_macro"),
    ],
)
def test_the_likeliest_score_is_taken(names: list[str], chosen: str, tmp_path: Path) -> None:
    head, row = (",".join(cells) for cells in (["run", *(f"metric.{n}" for n in names)], ["a", *["1"] * len(names)]))
    runs = read_runs(table(tmp_path / "r.csv", f"{head}\n{row}\n"))
    assert score_of(runs) == chosen
    assert score_of(runs, names[0]) == names[0]


def test_many_runs_are_compared_with_the_best(tmp_path: Path) -> None:
    rows = "".join(f"r{n},{n / 100},{n}\n" for n in range(80))
    found = others_of("t", read_runs(table(tmp_path / "r.csv", f"run,metric.auc,width\n{rows}")))
    assert isinstance(found, Others) and len(found.pairs.pairs) == 79
    assert {pair.found.a for pair in found.pairs.pairs} == {"r79"}
    assert found.pairs.notes == ("80 runs: only the pairs with the best, r79, are looked at",)


GOOD = "run,metric.auroc,predictions\na,0.5,p.csv\n"
BAD = {
    "no score": (
        "run,auroc\na,0.5\n",
        "",
        "line 1: no column of scores; call it metric.NAME, such as metric.auroc_macro",
    ),
    "no run": ("name,metric.auroc\na,0.5\n", "", "line 1: no column 'run', which names the rows"),
    "nearly run": ("runs,metric.auroc\na,0.5\n", "", "did you mean 'runs'?"),
    "twice": ("run,metric.a\na,1\na,2\n", "", "line 3, column 'run': run 'a' is there twice"),
    "two columns": ("run,metric.a,x,x\na,1,1,1\n", "", "line 1: column 'x' is there twice"),
    "no name": ("run,metric.a\n,1\n", "", "line 2, column 'run': the run has no name"),
    "no number": ("run,metric.a\na,good\n", "", "line 2, column 'metric.a': 'good' is no number"),
    "endless": ("run,metric.a\na,1e999\n", "", "line 2, column 'metric.a': '1e999' is no number"),
    "empty": ("", "", "is empty; expected a table of runs with the columns run and metric.*"),
    "ragged": ("run,metric.a\na\n", "", "line 2: 1 fields; expected 2 as in the header"),
    "no prob": (
        GOOD,
        "Image Index,Hernia\nx.png,0.5\n",
        "p.csv, line 1: no column of scores; expected scores per image",
    ),
    "no image": (GOOD, "prob_Hernia,Hernia\n0.5,1\n", "p.csv, line 1: no column of image names"),
    "some labels": (GOOD, "Image Index,prob_A,prob_B,A\nx.png,1,1,1\n", "p.csv, line 1: no column 'B' beside prob_B"),
    "no score in it": (GOOD, "Image Index,prob_A,A\nx.png,high,1\n", "line 2, column 'prob_A': 'high' is no number"),
    "no label in it": (GOOD, "Image Index,prob_A,A\nx.png,0.5,2\n", "line 2, column 'A': '2'; expected 0 or 1"),
    "twice in it": (GOOD, "Image Index,prob_A,A\nx.png,1,1\nx.png,1,1\n", "image 'x.png' is already in line 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_one_sentence(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, scores, sentence = BAD[case]
    table(tmp_path / "r.csv", runs)
    if scores:
        table(tmp_path / "p.csv", scores)
    expect_sentence(call(capsys, "compare", "--csv", str(tmp_path / "r.csv")), sentence)


def expect_sentence(ended: tuple[int, str, str], sentence: str) -> None:
    code, out, err = ended
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and sentence in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name a study to compare, or other people's runs"),
        (["--csv", "nowhere.csv"], "nowhere.csv: there is no such file; give a table of runs"),
        (["s", "--csv", str(LAB_LOG)], "leave out STUDY, or --csv"),
        (["--mlflow", "x"], "--mlflow URI and --experiment NAME go together"),
        (["--experiment", "x"], "--mlflow URI and --experiment NAME go together"),
        (["--mlflow", "nowhere", "--experiment", "x"], "--mlflow nowhere: there is no MLflow database"),
        (["--mlflow", "sqlite:///no.db", "--experiment", "x"], "--mlflow sqlite:///no.db: there is no MLflow database"),
        (["--csv", str(LAB_LOG), "--metric", "val/auroc_marco"], "did you mean 'val/auroc_macro'?"),
        (["--csv", str(LAB_LOG), "--factor", "lr"], "no run has such a setting; did you mean 'optimizer.lr'?"),
        (["--csv", str(LAB_LOG), "--against", "EXP-05"], "--against EXP-05: there is no such run; did you mean"),
        (["--csv", str(LAB_LOG), "-o", "x.csv"], "-o x.csv: other people's runs are written as .md or .tex"),
        (["--csv", str(LAB_LOG), "--factor", "lear"], "--factor lear: no run has such a setting"),
    ],
)
def test_bad_options_are_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    expect_sentence(call(capsys, "compare", *arguments), sentence)


def test_patients_that_are_not_told_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions(tmp_path / "a.csv"), predictions(tmp_path / "b.csv")
    runs = str(table(tmp_path / "runs.csv", RUNS))
    whose = table(tmp_path / "whose.csv", "Image Index,Patient ID\n00000001_000.png,1\n")
    ended = call(capsys, "compare", "--csv", runs, "--patients", str(whose))
    expect_sentence(ended, "image '00000002_000' of the predictions is not in it")
    no_such = call(capsys, "compare", "--csv", runs, "--patients", str(tmp_path / "none.csv"))
    expect_sentence(no_such, "there is no such file; give a table of images and patients")


def test_images_of_nobody_give_no_interval(tmp_path: Path) -> None:
    table(tmp_path / "a.csv", "image,prob_A,A\nx.png,0.9,1\ny.png,0.1,0\n")
    found = judged(read_runs(table(tmp_path / "r.csv", "run,metric.x,predictions\na,1,a.csv\n")))
    assert found.influences == {} and found.notes[0].startswith("no intervals: nothing tells whose each image is")
    told = table(tmp_path / "b.csv", "image,patient,prob_A,A\nx.png,1,0.9,1\ny.png,2,0.1,0\n")
    assert read_scores(told).patients == ("1", "2")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database of MLflow's with an experiment that somebody logged: a parent, and runs of two losses."""
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('theirs')}/theirs.db"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("ablation")
    client.create_run(experiment, run_name="parent")
    for name, params, auroc in (
        ("first", {"loss": "bce", "lr": "0.001", "epochs": "20", "random_state": "1"}, 0.8),
        ("second", {"loss": "focal", "lr": "1e-3", "epochs": "20", "random_state": "2"}, 0.7),
        ("second", {"loss": "focal", "lr": "0.01", "epochs": "10", "random_state": "2"}, 0.6),
    ):
        run = client.create_run(experiment, run_name=name, tags={"mlflow.source.git.commit": "0123"}).info.run_id
        for key, value in params.items():
            client.log_param(run, key, value)
        client.log_metric(run, "val_loss", 0.3)
        client.log_metric(run, "val_auc", 0.1)
        client.log_metric(run, "val_auc", auroc, step=1)
        client.set_terminated(run)
    return uri


def test_an_mlflow_experiment_goes_through_the_same_guard(logged: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "--mlflow", logged, "--experiment", "ablation")
    assert found["metric"] == "val_auc" and len(found["runs"]) == 3, "a parent has no scores"
    first, second, third = found["pairs"]
    assert (first["named"], first["confounders"]) == ({"loss": ["bce", "focal"]}, {})
    assert first["nuisances"] == {"random_state": [1, 2]} and first["gap"] == pytest.approx(0.1)
    assert second["confounders"].keys() == {"loss", "lr", "epochs"}
    assert third["confounders"].keys() == {"lr", "epochs"} and third["a"] != third["b"], "one name, two runs"


def test_an_experiment_that_is_not_there_is_one_sentence(logged: str, capsys: pytest.CaptureFixture[str]) -> None:
    ended = call(capsys, "compare", "--mlflow", logged, "--experiment", "ablatoin")
    expect_sentence(ended, "--experiment ablatoin: " + logged + " has none of that name; did you mean 'ablation'?")


def test_a_file_that_is_no_database_of_mlflows_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = table(tmp_path / "notes.db", "this is no database, and quite long enough to be sure of that\n" * 100)
    before = file.read_bytes()
    expect_sentence(call(capsys, "compare", "--mlflow", str(file), "--experiment", "x"), "MLflow cannot read it (")
    assert file.read_bytes() == before


def test_older_folders_of_mlflow_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "mlruns"
    for folder in ("7/0123456789abcdef0123456789abcdef/metrics", "7/0123456789abcdef0123456789abcdef/params"):
        (store / folder).mkdir(parents=True)
    about = f"artifact_location: {store}/7\nexperiment_id: '7'\nlifecycle_stage: active\nname: old\n"
    table(store / "7" / "meta.yaml", about)
    run = store / "7" / "0123456789abcdef0123456789abcdef"
    lines = {"artifact_uri": f"{run}/artifacts", "end_time": 2, "entry_point_name": "''", "experiment_id": "'7'"}
    lines |= {"lifecycle_stage": "active", "run_id": run.name, "run_uuid": run.name, "run_name": "old one"}
    lines |= {"source_name": "''", "source_type": 4, "source_version": "''", "start_time": 1, "status": 3}
    lines |= {"tags": "[]", "user_id": "me"}
    table(run / "meta.yaml", "".join(f"{name}: {value}\n" for name, value in lines.items()))
    table(run / "metrics" / "auc", "1 0.75 0\n"), table(run / "params" / "loss", "bce")
    found = as_json(capsys, "--mlflow", str(store), "--experiment", "old")
    assert [(one["run"], one["scores"], one["settings"]) for one in found["runs"]] == [
        ("old one", {"auc": 0.75}, {"loss": "bce"})
    ]


def test_a_run_of_ours_has_the_settings_that_mlflow_was_not_given(
    tiny: RunConfig, capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    records = []
    for rate in (1e-3, 3e-3):
        config = tiny.with_settings({"optimizer.lr": rate, "loss": "focal", "augment": "light"})
        folder = runs / "studies" / "s" / "trials" / f"{rate}"
        record = RunRecord(
            folder, f"{rate}", "trial", f"lr={rate}", {"optimizer.lr": rate}, config.model_dump(mode="json")
        )
        epoch = {"train/loss": 0.3, "val/auroc_macro": 0.7}
        record = replace(record, epochs=(epoch,), bests=(StoredFile("b", "", 1),), started=1.7e9)
        records.append(record.save().close("finished", "the end"))
    with Recorder("s", parent={}) as recorder:
        for record in records:
            recorder.sync(record)
    assert recorder.failed is None
    capsys.readouterr()
    found = as_json(capsys, "--mlflow", str(runs), "--experiment", "s")
    (pair,) = found["pairs"]
    assert sorted(pair["named"].pop("optimizer.lr")) == [1e-3, 3e-3]
    assert pair["named"] == pair["confounders"] == pair["unknown"] == {}
    settings = found["runs"][0]["settings"]
    assert (settings["loss.name"], settings["mixup"], settings["augment.name"]) == ("focal", 0.0, "light")
