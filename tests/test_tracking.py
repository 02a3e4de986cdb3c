"""MLflow mirrors the records: one run a trial, every epoch once, whatever was there before."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from xlite_search.config import RunConfig
from xlite_search.errors import Damaged, Interrupted, RunFailed
from xlite_search.records import RunRecord, Status, StoredFile
from xlite_search.tracking import recorder as recording
from xlite_search.tracking import store
from xlite_search.tracking.mirror import Mirror
from xlite_search.tracking.reading import ClientReader, FileReader
from xlite_search.tracking.recorder import Recorder


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture
def client(database: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Making a database takes MLflow some ten seconds: these tests share one, each in an experiment of its own."""
    monkeypatch.setenv("XLITE_RUNS", str(database))
    return store.connect()


def a_run(key: str, epochs: int, status: Status = "running") -> RunRecord:
    scores = tuple({"train/loss": 1 / e, "val/auroc_macro": 0.5 + e / 100} for e in range(1, epochs + 1))
    record = RunRecord(
        Path("unused"), key, "trial", f"run {key}", {"kd.tau": 4.0}, {"monitor": "val/auroc_macro"}, epochs=scores
    )
    bests = (StoredFile("best.safetensors", "0", epochs),) if epochs else ()
    begun = 0.0 if status == "waiting" and not epochs else 1_700_000_000.0
    over = begun + epochs if status in ("finished", "stopped", "failed") else 0.0
    return replace(record, bests=bests, started=begun, ended=over, status=status, cause="why")


def runs_of(client: MlflowClient, experiment: str) -> dict[str, object]:
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return {run.data.tags.get(store.KEY, "parent"): run for run in client.search_runs([found.experiment_id])}


def steps(client: MlflowClient, run: object, name: str = "val/auroc_macro") -> list[int]:
    return [point.step for point in client.get_metric_history(run.info.run_id, name)]  # type: ignore[attr-defined]


def test_a_study_is_a_parent_with_one_child_a_trial(client: MlflowClient) -> None:
    with Recorder("nested", parent={"xlite.study": "nested"}) as recorder:
        recorder.sync(a_run("a", 3, "finished"))
        recorder.sync(a_run("b", 1, "stopped"))
        recorder.sync(a_run("c", 0, "failed"))
        recorder.sync(a_run("d", 0, "waiting"))
    assert recorder.failed is None
    runs = runs_of(client, "nested")
    assert set(runs) == {"parent", "a", "b", "c"}
    status = {key: run.info.status for key, run in runs.items()}  # type: ignore[attr-defined]
    assert status == {"parent": "FINISHED", "a": "FINISHED", "b": "KILLED", "c": "FAILED"}
    a = runs["a"]
    assert a.data.tags["mlflow.parentRunId"] == runs["parent"].info.run_id  # type: ignore[attr-defined]
    assert a.data.params == {"kd.tau": "4.0"}  # type: ignore[attr-defined]
    assert a.data.metrics["best/auroc_macro"] == pytest.approx(0.53)  # type: ignore[attr-defined]
    assert a.info.run_name == "run a in nested"  # type: ignore[attr-defined]
    assert steps(client, a) == [1, 2, 3]


def test_what_was_logged_before_a_kill_is_neither_lost_nor_doubled(client: MlflowClient) -> None:
    dead = Mirror("killed", {})
    dead.sync(a_run("a", 2))
    dead.sync(a_run("b", 1))
    assert {run.info.status for run in runs_of(client, "killed").values()} == {"RUNNING"}  # type: ignore[attr-defined]
    for _ in range(2):
        with Recorder("killed", parent={}) as recorder:
            recorder.sync(a_run("a", 3))
            recorder.sync(a_run("a", 5, "finished"))
            recorder.sync(a_run("b", 1, "stopped"))
    runs = runs_of(client, "killed")
    assert len(runs) == 3
    assert {run.info.status for run in runs.values()} == {"FINISHED", "KILLED"}  # type: ignore[attr-defined]
    assert steps(client, runs["a"]) == [1, 2, 3, 4, 5]
    assert steps(client, runs["a"], "best/auroc_macro") == [1, 2, 3, 4, 5]
    assert runs["a"].data.metrics["best/auroc_macro"] == pytest.approx(0.55)  # type: ignore[attr-defined]
    assert steps(client, runs["b"]) == [1]


def test_a_run_that_is_interrupted_is_not_left_running(client: MlflowClient) -> None:
    recorder = Recorder("interrupted", parent={})
    recorder.__enter__()
    recorder.sync(a_run("a", 1))
    recorder.__exit__(KeyboardInterrupt)
    assert {run.info.status for run in runs_of(client, "interrupted").values()} == {"KILLED"}  # type: ignore[attr-defined]


def test_a_run_that_waits_at_a_rung_is_not_running(client: MlflowClient) -> None:
    with Recorder("rung", parent={}) as recorder:
        recorder.sync(a_run("a", 1, "running"))
        recorder.sync(a_run("a", 1, "paused"))
        recorder.sync(a_run("b", 2, "waiting"))
    status = {key: run.info.status for key, run in runs_of(client, "rung").items()}  # type: ignore[attr-defined]
    assert status == {"parent": "FINISHED", "a": "SCHEDULED", "b": "SCHEDULED"}


def test_what_a_killed_driver_left_running_is_put_right_at_the_next_start(client: MlflowClient) -> None:
    dead = Mirror("zombies", {})
    dead.sync(a_run("a", 2))
    dead.sync(a_run("gone from the study", 1))
    with Recorder("zombies", parent={}) as recorder:
        recorder.sync(a_run("a", 2, "waiting"))
    status = {key: run.info.status for key, run in runs_of(client, "zombies").items()}  # type: ignore[attr-defined]
    assert status == {"parent": "FINISHED", "a": "SCHEDULED", "gone from the study": "SCHEDULED"}


def test_images_at_once_are_a_tag_where_memory_asked_for_fewer(client: MlflowClient) -> None:
    with Recorder("memory") as recorder:
        recorder.sync(replace(a_run("a", 1, "finished"), micro_batch=16))
    assert runs_of(client, "memory")["a"].data.tags["xlite.micro_batch"] == "16"  # type: ignore[attr-defined]


def test_a_call_that_arrived_although_it_failed_is_not_made_again(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server wrote it, and its answer was lost."""
    monkeypatch.setattr(recording, "RETRY_S", 0.01)
    real, calls = MlflowClient.log_batch, []

    def heard_late(self: MlflowClient, *arguments: object, **named: object) -> None:
        real(self, *arguments, **named)
        calls.append(1)
        if len(calls) % 2:
            raise OSError("the server does not answer")

    monkeypatch.setattr(MlflowClient, "log_batch", heard_late)
    with Recorder("late") as recorder:
        recorder.sync(a_run("a", 4, "finished"))
    assert recorder.failed is None
    run = runs_of(client, "late")["a"]
    assert steps(client, run) == [1, 2, 3, 4]
    assert steps(client, run, "best/auroc_macro") == [1, 2, 3, 4]


def test_a_thousand_metrics_and_more_go_in_several_calls(client: MlflowClient) -> None:
    many = {f"val/auroc/{n}": 0.5 for n in range(300)} | {"train/loss": 1.0}
    with Recorder("wide") as recorder:
        recorder.sync(replace(a_run("a", 5, "finished"), epochs=(many,) * 5))
    run = runs_of(client, "wide")["a"]
    assert steps(client, run, "val/auroc/299") == [1, 2, 3, 4, 5]


def test_facts_of_a_run_are_there_once_and_a_study_has_its_summary(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "front.png").write_bytes(b"a picture")
    record = replace(a_run("a", 1), facts={"model/latency_ms": 12.5})
    for status in ("running", "finished"):
        with Recorder("facts", parent={}, artifacts=tmp_path) as recorder:
            recorder.sync(replace(record, status=status))
        assert recorder.failed is None
    runs = runs_of(client, "facts")
    assert [point.value for point in client.get_metric_history(runs["a"].info.run_id, "model/latency_ms")] == [12.5]  # type: ignore[attr-defined]
    parent = runs["parent"].info.run_id  # type: ignore[attr-defined]
    assert [artifact.path for artifact in client.list_artifacts(parent)] == ["front.png"]


def test_the_figures_of_a_study_are_in_a_folder_of_its_parent(client: MlflowClient, tmp_path: Path) -> None:
    figure = tmp_path / "left" / "figures" / "forest.svg"
    figure.parent.mkdir(parents=True)
    figure.write_bytes(b"<svg/>")
    with Recorder("drawn", parent={}, artifacts=tmp_path / "left") as recorder:
        recorder.sync(a_run("a", 1, "finished"))
    assert recorder.failed is None
    parent = runs_of(client, "drawn")["parent"].info.run_id  # type: ignore[attr-defined]
    assert [artifact.path for artifact in client.list_artifacts(parent, "figures")] == ["figures/forest.svg"]


def test_what_a_run_adds_to_its_artifacts_on_the_way_is_there_when_it_is_over(
    client: MlflowClient, tmp_path: Path
) -> None:
    """A run that goes on elsewhere tells MLflow of it before it has begun there, and says where it is afterwards."""
    record, file = replace(a_run("a", 1), folder=tmp_path), tmp_path / "artifacts" / "environment.json"
    file.parent.mkdir()
    file.write_text("here")
    mirror = Mirror("elsewhere", None)
    mirror.sync(record)
    file.write_text("here, then there")
    mirror.sync(replace(record, status="finished"))
    run_id = store.find_run("elsewhere", "a")
    assert run_id is not None
    assert Path(client.download_artifacts(run_id, "environment.json")).read_text() == "here, then there"


def test_trouble_with_mlflow_is_told_and_stops_nothing(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object, **__: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(recording, "PATIENCE_S", 0.0)
    monkeypatch.setattr(recording, "RETRY_S", 0.01)
    monkeypatch.setattr(MlflowClient, "log_batch", down)
    with Recorder("down") as recorder:
        recorder.sync(a_run("a", 2, "finished"))
    assert recorder.failed == "OSError: the disk is gone"


def test_an_experiment_is_known_while_the_database_has_it(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not store.knows("known")
    with Recorder("known") as recorder:
        recorder.sync(a_run("a", 1, "finished"))
    assert store.knows("known") and not store.knows("unknown")
    found = client.get_experiment_by_name("known")
    assert found is not None
    client.delete_experiment(found.experiment_id)
    assert not store.knows("known")
    monkeypatch.setenv("XLITE_RUNS", str(tmp_path))
    assert not store.knows("known")
    store.database().write_bytes(b"no database" * 100)
    assert not store.knows("known")


@pytest.mark.parametrize(
    ("ended_by", "waits"),
    [(RunFailed("why"), True), (Damaged("full"), False), (OSError("full"), False), (Interrupted(130), False)],
)
def test_who_leaves_for_a_full_disk_or_a_signal_does_not_wait_for_mlflow(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, ended_by: BaseException, waits: bool
) -> None:
    found: list[bool] = []
    close = Recorder.close

    def watched(self: Recorder, *, done: bool, in_haste: bool) -> None:
        found.append(not in_haste)
        close(self, done=done, in_haste=in_haste)

    monkeypatch.setattr(Recorder, "close", watched)
    with pytest.raises(type(ended_by)), Recorder("left"):
        raise ended_by
    assert found == [waits]


def test_trouble_that_passes_loses_nothing(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "RETRY_S", 0.01)
    real, calls = MlflowClient.log_batch, []

    def sometimes(self: MlflowClient, *arguments: object, **named: object) -> None:
        calls.append(1)
        if len(calls) % 2:
            raise OSError("database is locked")
        real(self, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "log_batch", sometimes)
    with Recorder("locked") as recorder:
        recorder.sync(a_run("a", 4, "finished"))
    assert recorder.failed is None
    assert steps(client, runs_of(client, "locked")["a"]) == [1, 2, 3, 4]


def test_the_database_is_in_wal_mode_so_that_the_ui_can_read_beside_the_writer(
    client: MlflowClient, database: Path
) -> None:
    with Recorder("wal"):
        pass
    connection = sqlite3.connect(database / "mlflow.db")
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    connection.close()
    assert mode == "wal"


def test_signs_that_a_url_reads_are_letters_in_the_runs_folder(
    client: MlflowClient, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the database, for making one takes long."""
    home = tmp_path / "runs? 50% #1 100%3F"
    home.mkdir()
    with sqlite3.connect(database / "mlflow.db") as made, sqlite3.connect(home / "mlflow.db") as copied:
        made.backup(copied)
    monkeypatch.setenv("XLITE_RUNS", str(home))
    with Recorder("quoted", parent={}) as recorder:
        recorder.sync(a_run("a", 2, "finished"))
    assert recorder.failed is None
    assert store.knows("quoted") and store.find_run("quoted", "a")
    assert store.differences("quoted", [a_run("a", 2, "finished")]) == []
    assert len(list((home / "artifacts" / "quoted").glob("*/artifacts/config.json"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [home.name]


def test_an_address_that_is_empty_is_none(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", " ")
    assert store.tracking_uri().endswith("/mlflow.db")
    assert store.is_there() and not store.knows("unknown")
    monkeypatch.setenv("XLITE_RUNS", "elsewhere")
    assert not store.is_there()


def test_a_setting_that_is_not_a_default_is_a_param(client: MlflowClient) -> None:
    """Two runs in which nothing is swept are told apart by what their studies set."""
    settings = {"loss": {"name": "focal", "gamma": 1.5}, "batch_size": 8, "early_stopping": None, "data.name": "mine"}
    config = RunConfig().with_settings(settings).model_dump(mode="json")
    with Recorder("bases") as recorder:
        recorder.sync(replace(a_run("a", 1, "finished"), settings={}, config=config))
        recorder.sync(replace(a_run("b", 1, "finished"), settings={}, config=RunConfig().model_dump(mode="json")))
    assert recorder.failed is None
    found = runs_of(client, "bases")
    params = found["a"].data.params  # type: ignore[attr-defined]
    assert params["loss"] == "focal" and params["loss.gamma"] == "1.5" and params["batch_size"] == "8"
    assert params["early_stopping"] == "None" and params["data.name"] == "mine"
    assert "loss.name" not in params and "epochs" not in params
    assert found["b"].data.params == {}  # type: ignore[attr-defined]


def test_a_value_that_is_longer_than_mlflow_takes_is_cut(client: MlflowClient) -> None:
    with Recorder("long") as recorder:
        recorder.sync(replace(a_run("a", 1, "finished"), settings={"data.name": "x" * 7000}))
    assert recorder.failed is None
    assert len(runs_of(client, "long")["a"].data.params["data.name"]) == 6000  # type: ignore[attr-defined]


def test_the_best_epochs_figures_are_there_for_all_that_runs_are_ranked_by(client: MlflowClient) -> None:
    """MLflow compares by a metric's last value, `compare` by the best epoch's."""
    epochs = tuple(
        {"train/loss": 1.0, "val/auroc_macro": auroc, "val/ap_macro": 1 - auroc, "val/auroc/Mass": auroc / 2}
        for auroc in (0.75, 0.5)
    )
    record = replace(a_run("a", 2, "finished"), epochs=epochs, bests=(StoredFile("best.safetensors", "0", 1),))
    with Recorder("at best") as recorder:
        recorder.sync(record)
    assert recorder.failed is None
    metrics = runs_of(client, "at best")["a"].data.metrics  # type: ignore[attr-defined]
    best = {name: value for name, value in metrics.items() if name.startswith("best/")}
    assert best == {"best/auroc_macro": 0.75, "best/ap_macro": 0.25, "best/auroc/Mass": 0.375, "best/epoch": 1.0}


def test_the_best_so_far_is_heard_first_and_never_after_the_best(client: MlflowClient) -> None:
    """MLflow opens a comparison on the metric that it heard first, and shows the value of the last step."""
    epochs = tuple({"val/auroc_macro": score, "train/loss": 1.0} for score in (0.6, 0.5, 0.7, 0.65))
    record = replace(a_run("a", 4), epochs=epochs, bests=(StoredFile("best.safetensors", "0", 3),))
    with Recorder("so far") as recorder:
        recorder.sync(record)
    assert recorder.failed is None
    run = runs_of(client, "so far")["a"]
    assert next(iter(run.data.metrics)) == "best/auroc_macro"  # type: ignore[attr-defined]
    assert run.data.metrics["best/auroc_macro"] == 0.7  # type: ignore[attr-defined]
    assert steps(client, run, "best/auroc_macro") == [1, 3]


def test_the_table_of_runs_opens_on_the_best_with_what_is_swept(client: MlflowClient) -> None:
    with Recorder("viewed") as recorder:
        recorder.sync(a_run("a", 1))
        recorder.sync(replace(a_run("b", 1), settings={"kd.tau": 8.0, "loss": "focal"}))
    assert recorder.failed is None
    found = client.get_experiment_by_name("viewed")
    assert found is not None
    view = json.loads(found.tags["mlflow.sharedViewState.best-first"])
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`best/auroc_macro`", False)
    columns = ["metrics.`best/auroc_macro`", "metrics.`best/epoch`", "params.`kd.tau`", "params.`loss`"]
    assert view["selectedColumns"] == columns


def test_an_experiment_says_its_question_and_its_parent_the_table_too(client: MlflowClient, tmp_path: Path) -> None:
    """The table stands behind the question's first words: the pages cut a long note."""
    (tmp_path / "comparison.md").write_text("| # | trial |", encoding="utf-8")
    question = "Does it help?\n\nIt should."
    with Recorder("asked", parent={"mlflow.note.content": question}, artifacts=tmp_path) as recorder:
        recorder.sync(a_run("a", 1, "finished"))
    assert recorder.failed is None
    found = client.get_experiment_by_name("asked")
    assert found is not None and found.tags["mlflow.note.content"] == question
    parent = runs_of(client, "asked")["parent"]
    assert parent.data.tags["mlflow.note.content"] == "Does it help?\n\n| # | trial |\n\nIt should."  # type: ignore[attr-defined]


def test_a_model_folder_is_a_model_with_its_files_once(client: MlflowClient, tmp_path: Path) -> None:
    folder = tmp_path / "chest-1"
    folder.mkdir()
    record = replace(a_run("chest-1", 2, "finished"), folder=folder, kind="final", label="winner in grid, on train")
    with Recorder("final models") as recorder:
        recorder.sync(record)
    for name in ("model.json", "model.safetensors"):
        (folder / name).write_text(name)
    for _ in range(2):
        with Recorder("final models") as recorder:
            recorder.sync(record)
        assert recorder.failed is None
    run = runs_of(client, "final models")["chest-1"]
    assert run.info.run_name == "winner in grid, on train"  # type: ignore[attr-defined]
    found = client.search_logged_models([run.info.experiment_id])  # type: ignore[attr-defined]
    assert [(model.name, str(model.status)) for model in found] == [("chest-1", "READY")]
    files = client.list_logged_model_artifacts(found[0].model_id)
    assert sorted(file.path for file in files) == ["model.json", "model.safetensors"]
    assert {m.key: m.value for m in found[0].metrics or []}["best/auroc_macro"] == pytest.approx(0.52)
    assert steps(client, run, "best/auroc_macro") == [1, 2]


def test_a_run_is_found_by_its_key(client: MlflowClient) -> None:
    with Recorder("found") as recorder:
        recorder.sync(a_run("k", 1, "finished"))
    assert store.find_run("found", "k") == runs_of(client, "found")["k"].info.run_id  # type: ignore[attr-defined]
    assert store.find_run("found", "other") is None
    assert store.find_run("no such study", "k") is None
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_the_file_says_what_mlflow_says(client: MlflowClient, database: Path) -> None:
    """Of runs that are alone, doubled, deleted, or of a deleted experiment."""
    for experiment in ("read", "deleted"):
        with Recorder(experiment, parent={}) as recorder:
            for key, epochs in (("a", 3), ("b", 1), ("c", 2)):
                recorder.sync(a_run(key, epochs, "finished"))
    runs = runs_of(client, "read")
    home, gone = (client.get_experiment_by_name(name).experiment_id for name in ("read", "deleted"))
    twin = client.create_run(home, start_time=1, tags={store.KEY: "b"})
    client.log_metric(twin.info.run_id, "train/loss", 0.5, step=7)
    client.delete_run(runs["c"].info.run_id)  # type: ignore[attr-defined]
    client.delete_experiment(gone)
    with closing(sqlite3.connect(database / "mlflow.db")) as connection:
        file, server = FileReader(connection), ClientReader(client)
        for name in ("read", "deleted", "none"):
            assert file.experiment(name) == server.experiment(name)
        for experiment in (home, gone):
            for key in ("a", "b", "c", "none"):
                assert file.runs(experiment, store.KEY, key) == server.runs(experiment, store.KEY, key)
                for run in file.runs(experiment, store.KEY, key):
                    assert file.steps(run.id, "train/loss") == server.steps(run.id, "train/loss")
        assert [len(file.runs(home, store.KEY, key)) for key in "abc"] == [1, 2, 0]
        assert file.steps(file.runs(home, store.KEY, "a")[0].id, "train/loss") == [1, 2, 3]
    records = [a_run(key, 3, "stopped" if key == "a" else "finished") for key in "abc"]
    assert store.differences("read", records) == [
        "MLflow says that run a is FINISHED, and it is KILLED",
        "MLflow has 2 runs of run b",
        "MLflow has 0 runs of run c; `run` the study again, and it is filled in",
    ]


@pytest.mark.parametrize("content", [b"", b"no database" * 100])
def test_of_a_file_that_cannot_be_read_mlflow_is_asked(
    content: bytes, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> MlflowClient:
        raise OSError("it is another kind of file")

    runs.mkdir()
    store.database().write_bytes(content)
    monkeypatch.setattr(store, "connect", refused)
    (said,) = store.differences("s", [a_run("a", 1)])
    assert said.startswith("MLflow cannot be asked: OSError: it is another kind of file; if its database is damaged")
    assert store.find_run("s", "a") is None
