"""The command line as a person meets it: exit codes, sentences, and what works without anything prepared."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from xlite_search import __version__, cli
from xlite_search.config import RunConfig
from xlite_search.tracking import store

ROOT = Path(__file__).parents[1]
KD_GRID = str(ROOT / "search_spaces" / "kd_grid.py")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["xlite_search", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def bare_study(folder: Path, body: str) -> str:
    path = folder / "mine.py"
    imports = (
        "from trainables.baseline import baseline\nfrom xlite_search.config import RunConfig\n"
        "from xlite_search.search.study import Study, grid_search\n"
    )
    path.write_text(imports + body)
    return str(path)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 3, "error: No space left on device\n"),
        (OSError(errno.ENOSPC, "No space left on device", "run.json"), 3, "error: run.json: No space left on device\n"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 2, "error: runs: Permission denied\n"),
    ],
)
def test_what_the_disk_refuses_is_a_sentence(
    error: OSError, code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise error

    monkeypatch.setattr(cli, "app", refused)
    found, _, err = call(capsys)
    assert (found, err) == (code, said)


BAD_INPUT = [
    (["run", "search_spaces/kd_gird.py"], "there is no such study file"),
    (["run", KD_GRID, "--set", "kd.tua=4", "--name", "x"], "unknown setting 'kd.tua'; did you mean 'kd.tau'?"),
    (["run", KD_GRID, "--set", "kd.alpha=2", "--name", "x"], "kd.alpha = 2: input should be less than or equal to 1"),
    (["run", KD_GRID, "--set", "loss=focul", "--name", "x"], "loss = 'focul' is not known; expected one of bce"),
    (["run", KD_GRID, "--set", "model=efficientnet_bo", "--name", "x"], "did you mean 'efficientnet_b0'?"),
    (["run", KD_GRID, "--set", "weights=null", "--set", "teacher.weights=null", "--name", "x"], "is not prepared"),
    (["run", KD_GRID, "--set", "epochs=3"], "wants a name of its own"),
    (["run", KD_GRID, "--set", "epochs", "--name", "x"], "expected NAME=VALUE"),
    (["run", KD_GRID, "--demo", "--name", "../x"], "use letters, digits"),
    (["run", KD_GRID, "--set", "weights=no.safetensors", "--name", "x"], "there is no such file"),
    (["prepare", "chestxray14", "--images", "nowhere", "--labels", "x.csv"], "there is no such folder"),
    (["prepare", "chestxray14"], "--images is missing"),
    (["prepare", "phantom", "--size", "7"], "--size 7: expected 32 to 1024 pixels"),
    (["run", KD_GRID, "--demo", "--address", "127.0.0.1:1"], "--address 127.0.0.1:1: no Ray cluster answers there"),
    (["run", KD_GRID, "--demo", "--address", "there"], "--address there: no Ray cluster answers there (expected HOST"),
    (["compare", "nothing"], "no study 'nothing'"),
    (["best", "nothing"], "no study 'nothing'"),
    (["status", "nothing"], "no study 'nothing'"),
    (["verify", "nothing"], "no study 'nothing'"),
    (["clean", "nothing"], "no study 'nothing'"),
    (["train", "none.yaml"], "export one with"),
    (["ui"], "there is nothing to show yet"),
]


@pytest.mark.parametrize(
    ("arguments", "sentence"), BAD_INPUT, ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else ""
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""


def test_a_table_without_the_label_column_names_file_and_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("Image Index,Patient ID\na.png,1\n")
    code, _, err = call(capsys, "prepare", "x", "--images", str(tmp_path), "--labels", str(labels))
    assert code == 2
    assert f"{labels}, line 1: no column 'Finding Labels'" in err


def test_an_unprepared_data_set_says_how_to_prepare_it_and_that_the_demo_needs_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = call(capsys, "plan", bare_study(tmp_path, "study = Study('?', baseline, RunConfig(), {})\n"))
    assert code == 2
    assert "prepare chestxray14 --images DIR --labels CSV" in err
    assert "--demo" in err


@pytest.mark.parametrize("verb", [["audit", "chestxray14"], ["card", "chestxray14"], ["plan", "mine.py", "--demo"]])
def test_the_demo_is_named_where_it_is_an_option(
    verb: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = "RunConfig()"
    bare_study(tmp_path, f"study = Study('?', baseline, {base}, {{}}, demo={{'data.name': 'chestxray14'}})\n")
    code, _, err = call(capsys, *verb)
    assert code == 2 and "--demo" not in err, err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "x.py"], "interrupted: the same command goes on where it stopped\n"),
        (
            ["predict", "DIR", "--watch", "in", "--into", "out"],
            "interrupted: the same command goes on where it stopped\n",
        ),
        (["predict", "DIR", "x.png"], "interrupted; run the command again\n"),
    ],
)
def test_ctrl_c_says_whether_the_command_goes_on(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise SystemExit(130)

    monkeypatch.setattr(cli, "app", interrupted)
    code, _, err = call(capsys, *arguments)
    assert (code, err) == (130, said)


WRITES = """
import sys
from xlite_search import cli
def verb():
    for line in range({lines}):
        print("a line")
cli.app = cli.typer.Typer()
cli.app.command()(verb)
sys.argv = ["xlite_search"]
cli.main()
"""


@pytest.mark.parametrize("lines", [1, 100_000], ids=["at the end", "in between"])
def test_whoever_reads_the_output_may_stop(lines: int) -> None:
    """`| head -1`: no word on stderr, and no exit code that means failed trials."""
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([sys.executable, "-c", WRITES.format(lines=lines)], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_pipe_that_nobody_reads_is_told_from_failed_trials(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed() -> None:
        raise SystemExit(1)

    monkeypatch.setattr(cli, "app", failed)
    assert call(capsys)[0] == 1


def test_plan_lists_trials_and_factors(capsys: pytest.CaptureFixture[str], tiny: RunConfig, tmp_path: Path) -> None:
    base = f"RunConfig.model_validate_json({tiny.model_dump_json()!r})"
    study = bare_study(tmp_path, f"study = Study('?', baseline, {base}, {{'seed': grid_search([1, 2])}})\n")
    code, out, _ = call(capsys, "plan", study, "--json")
    assert code == 0
    plan = json.loads(out)
    assert plan["factors"] == {"seed": [1, 2]}
    assert [trial["label"] for trial in plan["trials"]] == ["seed=1", "seed=2"]
    code, out, _ = call(capsys, "plan", study)
    assert code == 0
    assert "mine: 2 trials, 3 epochs each at most; every one is trained to its end" in out


def test_prepare_draws_phantoms_and_is_idempotent(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["prepare", "phantom-small", "--count", "20", "--size", "32"]
    code, out, _ = call(capsys, *arguments)
    assert (code, out.strip().endswith("at 32 px")) == (0, True)
    assert call(capsys, *arguments)[:2] == (0, out)
    code, _, err = call(capsys, *arguments, "--seed", "1")
    assert code == 2
    assert "exists and differs in source" in err


def test_doctor_names_versions_and_finds_nothing_odd_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "doctor", "--json")
    found = {entry["what"]: entry["found"] for entry in json.loads(out)}
    assert {"torch", "ray", "mlflow", "gpu", "runs", "data"} <= set(found)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("gpus_per_trail = 0.5", "did you mean 'gpus_per_trial'?"), ("cpus = 0", "cpus = 0"), ("cpus", "not valid TOML")],
)
def test_a_wrong_machine_file_is_bad_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "machine.toml"
    path.write_text(text)
    monkeypatch.setenv("XLITE_MACHINE", str(path))
    code, _, err = call(capsys, "doctor")
    assert code == 2
    assert sentence in err
    assert str(path) in err


STUDY = """
study = Study("?", baseline, RunConfig.model_validate_json({base!r}), [
    {{"seed": grid_search([1, 2]), "optimizer.lr": 1e-3}},
    {{"seed": grid_search([1, 2]), "optimizer.lr": 1e-3}},
    {{"seed": 3, "optimizer.lr": 1e-2}},
])
"""


def test_plan_says_what_it_takes_and_what_cannot_be_told_apart(
    capsys: pytest.CaptureFixture[str], tiny: RunConfig, tmp_path: Path
) -> None:
    file = bare_study(tmp_path, STUDY.format(base=tiny.model_dump_json()))
    code, out, _ = call(capsys, "plan", file)
    assert code == 0
    assert "2 more points are the same run as one of these, and are not trained twice" in out
    assert "warning: seed 1, 2 only ever with optimizer.lr 0.001, seed 3 only ever with optimizer.lr 0.01" in out
    assert "forecast: 9 epochs at most\n" in out and " GB of disk at most; " in out
    code, out, _ = call(capsys, "plan", file, "--measure", "--json")
    found = json.loads(out)["forecast"]
    assert (
        code == 0 and found["epochs"] == 9 and found["timing"]["seconds"][0] > 12 and found["timing"]["memory"] > 10**8
    )


def test_a_study_that_the_disk_cannot_hold_is_refused_by_plan_and_run(
    capsys: pytest.CaptureFixture[str], tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = bare_study(tmp_path, STUDY.format(base=tiny.model_dump_json()))
    monkeypatch.setattr("xlite_search.search.forecast.BESIDE_WEIGHTS", 10**15)
    for verb in ("plan", "run"):
        code, _, err = call(capsys, verb, file)
        assert code == 2 and "GB free, and this study takes up to 3e+06 GB: give some back (`clean STUDY`)" in err


def test_where_no_study_is_status_says_so_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "status")
    assert code == 0 and "no study in" in out and "run SPACE" in out
    assert call(capsys, "status", "--json")[1] == "[]\n"


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--version")
    assert code == 0 and out.startswith(f"xlite_search {__version__}")


def test_a_port_that_is_taken_is_named_before_anything_is_served(capsys: pytest.CaptureFixture[str]) -> None:
    store.database().parent.mkdir(parents=True)
    store.database().write_bytes(b"")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        code, out, err = call(capsys, "ui", "--port", port)
    assert code == 2 and out == "" and f"--port {port}: cannot be had" in err


def test_a_server_that_ends_by_itself_is_an_engine_that_died(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it calls its end: MLflow's ends with 0 where it could not start."""
    store.database().parent.mkdir(parents=True)
    store.database().write_bytes(b"")
    real = subprocess.Popen

    def ends_at_once(*_: object, **__: object) -> subprocess.Popen[bytes]:
        return real([sys.executable, "-c", ""])

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    monkeypatch.setattr(subprocess, "Popen", ends_at_once)
    code, out, err = call(capsys, "ui", "--port", port)
    assert code == 4 and out == "" and f"ended with exit code 0 before it listened on port {port}" in err


def test_status_verify_and_clean_of_a_study(
    capsys: pytest.CaptureFixture[str], tiny: RunConfig, tmp_path: Path
) -> None:
    from xlite_search.search.plan import make_plan
    from xlite_search.search.runner import begin
    from xlite_search.search.study_file import load_study

    study = begin(make_plan(load_study(bare_study(tmp_path, STUDY.format(base=tiny.model_dump_json()))), "mine"))
    code, out, _ = call(capsys, "status")
    assert code == 0 and "mine" in out and "waiting" in out
    code, out, _ = call(capsys, "status", "mine", "--json")
    assert code == 0 and json.loads(out)
    code, out, _ = call(capsys, "verify", "mine")
    assert code == 0 and "3 trials, and nothing is lost" in out
    code, out, _ = call(capsys, "clean", "mine")
    assert code == 0 and "0.0 MB given back" in out
    path = study.trial_folder(study.trials[0]) / "run.json"
    path.write_text(path.read_text().replace("waiting", "stopped"))
    code, out, _ = call(capsys, "verify", "mine")
    assert code == 3 and "run.json" in out
