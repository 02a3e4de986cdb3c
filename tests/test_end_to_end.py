"""The main job as a whole, small: a teacher, a grid with ASHA, MLflow, a kill, and the best config trained again.

Ray is started once for the module, by the first study that runs in this process; the kill has a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from trainables.baseline import baseline
from trainables.distill import distill
from xlite_search import places
from xlite_search.config import RunConfig
from xlite_search.data.packed import PackedSet
from xlite_search.errors import BadInput, Damaged, RunFailed
from xlite_search.model_folder import read_model
from xlite_search.results.best import write_best
from xlite_search.results.compare import compare
from xlite_search.results.final import train_final
from xlite_search.results.plain import as_json
from xlite_search.search.asha import ASHA
from xlite_search.search.journal import Journal
from xlite_search.search.pareto import ParetoStop
from xlite_search.search.plan import Plan, make_plan
from xlite_search.search.runner import run
from xlite_search.search.study import Study, grid_search
from xlite_search.search.study_file import load_study
from xlite_search.search.verify import verify
from xlite_search.study_record import StudyRecord
from xlite_search.tracking import store

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; making one takes some ten seconds, copying it none."""
    folder = tmp_path_factory.mktemp("database")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLITE_RUNS", str(folder))
        store.connect()
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def _has_database(database: Path, runs: Path) -> None:
    runs.mkdir(parents=True)
    shutil.copy(database, runs / "mlflow.db")


@pytest.fixture
def grid(tiny: RunConfig) -> Study:
    """Four students of one teacher; the first rung cuts."""
    return Study(
        question="small?",
        trainable=distill,
        base=tiny,
        teacher=tiny.with_settings({"epochs": 2, "seed": 7}),
        space={"optimizer.lr": grid_search([3e-3, 1e-9]), "kd.alpha": grid_search([0.3, 0.7])},
        scheduler=ASHA(grace=1, reduction=2),
    )


def steps(experiment: str) -> dict[str, tuple[str, list[int]]]:
    """Status and steps of every run of an experiment, as MLflow has them."""
    client: MlflowClient = store.connect()
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    names = [run.data.tags["mlflow.runName"] for run in runs]
    assert len(names) == len(set(names)), "two runs for one trial"
    points = {run.info.run_id: client.get_metric_history(run.info.run_id, "val/auroc_macro") for run in runs}
    return {n: (run.info.status, [p.step for p in points[run.info.run_id]]) for n, run in zip(names, runs, strict=True)}


def assert_mirrored(study: StudyRecord) -> None:
    """One parent, one run a trial, every epoch once, nothing left running."""
    assert verify(study) == []
    seen = steps(study.name)
    assert seen.pop(study.name) == ("FINISHED", [])
    expected = {
        f"{record.label} in {study.name}": (
            store.MLFLOW_STATUS[record.status],
            list(range(1, len(record.epochs) + 1)),
        )
        for record in study.runs()
    }
    assert seen == expected
    client: MlflowClient = store.connect()
    for record in study.runs():
        run_id = store.find_run(study.name, record.key)
        files = {"config.json", "balance.json", "balance.png", "environment.json"}
        assert files <= {artifact.path for artifact in client.list_artifacts(run_id)}


@pytest.mark.usefixtures("ray_here")
def test_the_main_job(grid: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(grid, "small")
    study = run(plan)

    records = study.runs()
    assert {record.status for record in records} == {"finished", "stopped"}
    stopped = next(record for record in records if record.status == "stopped")
    assert re.match(r"stopped at rung \d: val/auroc_macro 0\.\d+ is behind the cut of 0\.\d+ among \d", stopped.cause)
    assert stopped.cause in capsys.readouterr().err
    assert_mirrored(study)
    assert list(steps(places.TEACHERS).values()) == [("FINISHED", [1, 2])]
    assert study.teacher_sha256

    before = {record.key: (record.folder / "run.json").read_bytes() for record in records}
    again = run(plan)
    assert {record.key: (record.folder / "run.json").read_bytes() for record in again.runs()} == before

    comparison = compare(["small"])
    winner = comparison.best
    table = as_json(comparison)
    assert [trial["rank"] for trial in table["trials"]].count(None) == len(comparison.others)
    assert table["chance"]["val/auroc_macro"] == 0.5
    assert set(table["validation"]["positives"]) == set(PackedSet.open(winner.config["data"]["name"]).classes)

    path = tmp_path / "best.yaml"
    exported = write_best("small", path)
    assert exported["trial"] == winner.key
    assert exported["mlflow_run"]
    final = train_final(path, split="train", settings={})
    assert final.metric(study.metric) == winner.metric(study.metric)
    assert final.metric("train/loss") == winner.metric("train/loss")
    assert (final.folder / "model.safetensors").is_file()
    everything = train_final(path, split="train+val", settings={}, name="everything")
    assert len(everything.epochs) == exported["best_epoch"]
    assert study.metric not in everything.epochs[-1]
    renamed = train_final(path, split="train", settings={}, name="renamed")
    assert renamed.metric(study.metric) == winner.metric(study.metric)
    for folder in (final.folder, everything.folder, places.teacher_folder(plan.teacher)):
        assert (folder / "artifacts" / "environment.json").is_file()
    left = json.loads((renamed.folder / "artifacts" / "environment.json").read_bytes())["run"]
    assert (left["key"], left["config_hash"]) == ("renamed", winner.key)
    client = store.connect()
    final_id = client.get_experiment_by_name(places.FINAL).experiment_id
    assert [run.info.status for run in client.search_runs([final_id])] == ["FINISHED"] * 3
    with pytest.raises(BadInput, match=r"it was trained on \d+ of the patients that its students are judged by"):
        make_plan(grid.with_settings({"teacher": str(everything.folder)}), "leaking")
    assert_what_is_deleted_comes_back(plan)
    assert_final_training_refuses_other_data(path, exported)


def assert_what_is_deleted_comes_back(plan: Plan) -> None:
    """The database from the records; a trial by being trained anew."""
    for path in store.database().parent.glob("mlflow.db*"):
        path.unlink()
    assert_mirrored(run(plan))
    assert list(steps(places.TEACHERS).values()) == [("FINISHED", [1, 2])]
    folder = plan.folder / "trials" / plan.trials[-1].key
    shutil.rmtree(folder)
    with pytest.raises(Damaged, match="is gone: `run` the study again"):
        compare([plan.name])
    assert_mirrored(run(plan))


def assert_final_training_refuses_other_data(path: Path, exported: dict[str, object]) -> None:
    text = path.read_text()
    path.write_text(text.replace(str(exported["data"]["fingerprint"]), "0" * 16))  # type: ignore[index]
    with pytest.raises(BadInput, match="the data of data set 'phantom-tiny' is not the one that the study had"):
        train_final(path, split="train", settings={})
    path.write_text(text.replace(str(exported["teacher_sha256"]), "0" * 64))
    with pytest.raises(BadInput, match="was trained again"):
        train_final(path, split="train", settings={})
    path.write_text("study: [")
    with pytest.raises(BadInput, match="not valid YAML"):
        train_final(path, split="train", settings={})
    path.write_text("study: x\n")
    with pytest.raises(BadInput, match="no 'trial' in it"):
        train_final(path, split="train", settings={})


@pytest.mark.usefixtures("ray_here")
def test_a_study_with_two_objectives_stops_the_dominated(tiny: RunConfig) -> None:
    """Three of a large model and the small one, which nobody may stop."""
    large = {"model": grid_search(["test_efficientnet_mhsa"]), "optimizer.lr": grid_search([1e-2, 3e-3, 1e-9])}
    study = Study(
        question="small?",
        trainable=baseline,
        base=tiny,
        space=[large, {"model": grid_search(["test_efficientnet_none"])}],
        minimize=("model/parameters",),
        scheduler=ParetoStop(confidence=0.51, slack=0),
    )
    found = run(make_plan(study, "pareto"))
    records = {record.key: record for record in found.runs()}
    assert_mirrored(found)
    (decision,) = Journal(found.folder).decisions
    assert (decision.rung, decision.peers) == (2, 4)
    assert list(records)[3] in decision.kept
    stopped = [record for record in records.values() if record.status == "stopped"]
    assert stopped and {record.key for record in stopped} == records.keys() - set(decision.kept)
    assert all(record.cause.startswith("stopped at rung 2: dominated by ") for record in stopped)
    comparison = compare(["pareto"])
    assert comparison.is_done and [record.key for record in comparison.others] == [record.key for record in stopped]
    assert make_plan(study, "pareto").is_complete()


@pytest.mark.usefixtures("ray_here")
def test_a_trial_that_fails_is_named_and_the_others_go_on(tiny: RunConfig) -> None:
    space = {"optimizer.lr": grid_search([3e-3, 1e30])}
    study = run(make_plan(Study(question="?", trainable=distill, base=tiny, space=space), "failing"))
    good, bad = study.runs()
    assert (good.status, bad.status) == ("finished", "failed")
    assert bad.cause.split(":")[0] in ("nan_loss", "not_finite", "diverged", "constant_logits")
    assert_mirrored(study)
    assert [run.label for run in compare(["failing"]).ranked] == [good.label]


FULL = """
import errno
from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.search.study import Study, grid_search

def fills_the_disk(config, resume=None):
    yield next(baseline(config, resume))
    raise OSError(errno.ENOSPC, "No space left on device", "run.json")

base = RunConfig.model_validate_json({base!r})
study = Study(question="?", trainable=fills_the_disk, base=base, space={{"seed": grid_search([1, 2, 3])}})
"""


@pytest.mark.usefixtures("ray_here")
def test_a_disk_that_is_full_ends_the_search_and_is_no_trials_fault(tiny: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "full.py").write_text(FULL.format(base=tiny.model_dump_json()))
    with pytest.raises(
        Damaged, match=r"^run\.json: No space left on device; nothing is lost, make room and run again$"
    ):
        run(make_plan(load_study(str(tmp_path / "full.py")), "full"))
    runs = StudyRecord.load(places.study_folder("full")).runs()
    assert {run.status for run in runs} == {"waiting"}


ODD = """
from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.search.study import Study, grid_search

def odd(config, resume=None):
    first = next(baseline(config, resume))
    if config.seed == 1:
        first.metrics["val/auroc_macro"] = float("nan")
    yield first

base = RunConfig.model_validate_json({base!r})
study = Study(question="?", trainable=odd, base=base, space={{"seed": grid_search([1, 2])}})
"""


@pytest.mark.usefixtures("ray_here")
def test_a_trainable_that_breaks_its_word_is_told_so(tiny: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(ODD.format(base=tiny.model_dump_json()))
    study = run(make_plan(load_study(str(tmp_path / "odd.py")), "odd"))
    assert [(run.status, run.cause) for run in study.runs()] == [
        ("failed", "not_finite: val/auroc_macro is nan at epoch 1; what has no value is left out"),
        (
            "failed",
            "its trainable ended after epoch 1 and did not say why: the last EpochResult has to have `ended`",
        ),
    ]


TELLS = """
import os
import time
from pathlib import Path
from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.search.asha import ASHA
from xlite_search.search.study import Study, grid_search

def tells_its_worker(config, resume=None):
    home = Path({workers!r})  # the first two begin together, however long a worker takes to start
    (home / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(home.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    for result in baseline(config, resume):
        result.metrics["worker/pid"] = float(os.getpid())
        yield result

base = RunConfig.model_validate_json({base!r})
study = Study(
    question="?",
    trainable=tells_its_worker,
    base=base,
    space={{"seed": grid_search([1, 2, 3, 4])}},
    scheduler=ASHA(grace=1, reduction=2),
)
"""


@pytest.mark.usefixtures("ray_here")
def test_workers_that_wait_at_a_rung_go_on_behind_it(tiny: RunConfig, tmp_path: Path) -> None:
    """Four trials, then three, then two, on two workers: none is started anew."""
    (tmp_path / "workers").mkdir()
    (tmp_path / "tells.py").write_text(TELLS.format(base=tiny.model_dump_json(), workers=str(tmp_path / "workers")))
    runs = run(make_plan(load_study(str(tmp_path / "tells.py")), "tells")).runs()
    assert sorted(len(record.epochs) for record in runs) == [1, 2, 3, 3]
    assert len({epoch["worker/pid"] for record in runs for epoch in record.epochs}) == 2


@pytest.mark.usefixtures("ray_here")
def test_a_failed_teacher_ends_the_study_with_its_cause(grid: Study) -> None:
    with pytest.raises(RunFailed, match=r"the teacher failed: (nan_loss|not_finite|diverged|constant_logits): "):
        run(make_plan(grid.with_settings({"teacher.optimizer.lr": 1e30}), "no-teacher"))


@pytest.mark.usefixtures("ray_here")
def test_a_final_model_can_teach(grid: Study, tmp_path: Path) -> None:
    run(make_plan(grid.with_settings({"optimizer.lr": 3e-3, "kd.alpha": 0.5}), "first"))
    write_best("first", tmp_path / "best.yaml")
    model = train_final(tmp_path / "best.yaml", split="train", settings={}).folder
    taught = grid.with_settings({"teacher": str(model), "optimizer.lr": 3e-3, "kd.alpha": [0.5]})
    study = run(make_plan(taught, "second"))
    key = study.runs()[0].config["kd"]["teacher"]
    assert read_model(places.teacher_folder(key)).sha256 == study.teacher_sha256


def test_a_damaged_data_set_is_found_before_anything_is_trained(grid: Study, phantom: PackedSet) -> None:
    plan = make_plan(grid, "damaged")
    path = phantom.folder / "pixels.u8"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged, match=r"pixels\.u8 is missing or damaged"):
        run(plan)


SMALL = """\
from trainables.distill import distill
from xlite_search.config import RunConfig
from xlite_search.search.asha import ASHA
from xlite_search.search.study import Study, grid_search

base = RunConfig.model_validate_json({base!r})
study = Study(
    question="?", trainable=distill, base=base, teacher=base,
    space={{"seed": grid_search([1, 2, 3, 4]), "kd.alpha": 0.5}}, scheduler=ASHA(grace=2, reduction=2),
)
"""


def test_kill_9_in_the_middle_of_the_grid_and_the_same_command_again(
    tiny: RunConfig, tmp_path: Path, runs: Path
) -> None:
    path = tmp_path / "small.py"
    path.write_text(SMALL.format(base=tiny.with_settings({"epochs": 6}).model_dump_json()))
    command = [sys.executable, "-m", "xlite_search", "run", str(path)]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    folder = runs / "studies" / "small"
    wait_until(lambda: in_the_middle(folder), driver)
    driver.kill()
    _, said = driver.communicate()
    assert driver.returncode == (-signal.SIGKILL if os.name == "posix" else 1)
    finished = {r.key: r.epochs for r in StudyRecord.load(folder).runs() if r.over}
    assert finished, said
    assert len(finished) < 4, said

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    study = StudyRecord.load(folder)
    for record in study.runs():
        assert record.over
        assert record.epochs == finished.get(record.key, record.epochs), "a finished trial was trained again"
    assert_mirrored(study)
    clean = list(distill(RunConfig.model_validate(study.runs()[-1].config), None))
    course = [result.metrics["val/auroc_macro"] for result in clean]
    assert study.runs()[-1].metric("val/auroc_macro") == course[: len(study.runs()[-1].epochs)]

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "Study 'small' is complete: nothing is left to train." in ended.stderr


def in_the_middle(folder: Path) -> bool:
    """One trial is over, and another has begun and is not."""
    try:
        records = StudyRecord.load(folder).runs()
    except FileNotFoundError:
        return False
    return any(r.over for r in records) and any(r.status == "running" and r.epochs for r in records)


def wait_until(true: object, driver: subprocess.Popen[str]) -> None:
    assert callable(true)
    deadline = time.monotonic() + 240
    while not true():
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < deadline, "the study did not get to its middle"
        time.sleep(0.05)
