"""Imports are a budget: what a verb does not need, none of its processes loads.

Every row runs in fresh interpreters, which are asked for all that they import, workers among them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import PHANTOM
from exported import drawn, handmade

from xlite_search import places
from xlite_search.config import RunConfig, fingerprints, run_key
from xlite_search.data.dataset import DataSpec, open_data
from xlite_search.data.packed import PackedSet
from xlite_search.model_folder import ModelManifest, write_model
from xlite_search.records import RunRecord, StoredFile
from xlite_search.storage import write_atomic
from xlite_search.study_record import StudyRecord
from xlite_search.tracking.recorder import Recorder
from xlite_search.training.optim import AdamW
from xlite_search.training.predictions import Predictions

ROOT = Path(__file__).parents[1]
TENSORS = ("torch", "torchvision", "timm")
ENGINES = ("ray", "mlflow", "optuna")
BESIDE_TENSORS = (*ENGINES, "albumentations", "matplotlib")
HEAVY = (*TENSORS, *BESIDE_TENSORS)
EVERYTHING = (*HEAVY, "pydantic", "numpy", "cv2")

MAKER = "a:b 0123"
RATES = '{"name": "FloatDistribution", "attributes": {"low": 1e-5, "high": 0.01, "log": true, "step": null}}'
TABLE, IMAGES = "labels.csv", "images"
KD_GRID = str(ROOT / "search_spaces/kd_grid.py")
#: with small networks: a plan that asks for more disk than is free is refused
SMALL = {"model": "mobilenetv3_small_050", "weights": "null", "teacher.model": "resnet10t", "teacher.weights": "null"}
ON_PHANTOMS = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
ON_PHANTOMS += ["--set", f"data.name={PHANTOM}"]
VIEWS = """
from xlite_search.data.views import Medium, Views, fingerprint
Views(Medium())
fingerprint(Medium())
"""
DRAW = f"""
from xlite_search.data.dataset import DataSpec, open_data
from xlite_search.data.views import Medium
from xlite_search.data.workers import _Images, _Workers
rows = open_data(DataSpec(name={PHANTOM!r})).train.rows[:4]
workers = _Workers(_Images(open_data(DataSpec(name={PHANTOM!r})).packed, Medium()), 4, 2)
assert [len(images) for images in workers.images([(rows, rows), (rows, rows)])] == [4, 4]
workers.close()
"""
IMPORTANCES = """
name, expected = {name!r}, {expected}
from xlite_search.results.compare import open_study
from xlite_search.results.importance import importances_of
study = open_study(name)
assert (importances_of(study.distributions, study.metric, study.runs()) is not None) == expected
"""
#: the command, asked for an answer and a map by whoever it says that it is ready to, and ended
SERVED = """
import http.client, os, pathlib, re, signal, sys, threading
from xlite_search.cli import main

def ask(port):
    body = pathlib.Path("x.png").read_bytes()
    for more in ("", "?explain=Mass"):
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        asked.request("POST", "/v1/predict" + more, body)
        answer = asked.getresponse()
        said.write(f"{answer.status} {'probability' in answer.read().decode()}\\n")
        asked.close()
    os.kill(os.getpid(), signal.SIGTERM)

class Said:
    def write(self, text):
        if found := re.search(r":(\\d+) serves", text):
            threading.Thread(target=ask, args=[int(found[1])]).start()
        return said.write(text)
    def isatty(self):
        return False

    def flush(self):
        said.flush()

if __name__ == "__main__":
    said, sys.stdout = sys.stdout, Said()
    sys.argv = ["xlite-search", "serve", "exported", "--port", "0"]
    main()
"""


@dataclass(frozen=True)
class Row:
    """What is run, a verb with its arguments or code; what none of its processes may import; what it says, how it ends,
    and how many workers it has at least."""

    run: Sequence[str] | str
    forbidden: Sequence[str] = HEAVY
    says: str = ""
    code: int = 0
    workers: int = 0

    def __str__(self) -> str:
        if isinstance(self.run, str):
            return self.run.strip().splitlines()[0]
        return " ".join(self.run)


BUDGET = [
    Row(["--help"], EVERYTHING),
    Row(["models", "--help"], (*HEAVY, "numpy", "cv2")),
    Row(["prepare", "raw", "--images", IMAGES, "--labels", TABLE, "--size", "32"], workers=1),
    Row(["prepare", "phantom-new", "--count", "100", "--size", "32"], workers=1),
    Row(["split", "--labels", TABLE, "-o", "lists"]),
    Row(["audit", "--labels", TABLE]),
    Row(["audit", PHANTOM, "--sampler", "max_rarity", "--set", "data.split=folds"]),
    Row(["status"]),
    Row(["status", "seeds"]),
    Row(["verify", "seeds"], says="nothing is lost"),
    Row(["compare", "one_seed"]),
    Row(["compare", "seeds"], says="95 % for all comparisons at once"),
    Row(["report", "seeds", "-o", "report.html"], (*TENSORS, *ENGINES, "albumentations"), says="report.html: "),
    Row(["report", "search", "-o", "report.html"], (*TENSORS, "ray", "mlflow", "albumentations"), says="report.html: "),
    Row(["best", "seeds", "-o", "best.yaml"]),
    Row(["predict", "exported", "x.png"], (*HEAVY, "pandas", "scipy", "sklearn", "onnx"), says="probability"),
    Row(["predict", "exported", "--selftest"], (*HEAVY, "pandas", "scipy", "sklearn", "onnx"), says="1 known answers"),
    Row(SERVED, (*HEAVY, "pandas", "scipy", "sklearn", "onnx"), says="200 True\n200 True", workers=2),
    Row(["plan", KD_GRID, *ON_PHANTOMS, "--name", "x"], BESIDE_TENSORS, says="forecast: "),
    Row(["run", KD_GRID, "--set", "kd.tua=4", "--name", "x"], BESIDE_TENSORS, code=2),
    Row("import xlite_search", EVERYTHING),
    Row("import xlite_search.config"),
    Row("import xlite_search.data.prepare, xlite_search.data.sources.folder", (*HEAVY, "pydantic")),
    Row("import xlite_search.data.sources.phantom", (*HEAVY, "pydantic")),
    Row("import xlite_search.results", (*HEAVY, "pandas")),
    Row("import xlite_search.results.frames"),
    Row("import xlite_search.results.importance"),
    Row(IMPORTANCES.format(name="seeds", expected=False)),
    Row(IMPORTANCES.format(name="few_suggested", expected=False)),
    Row(IMPORTANCES.format(name="search", expected=True), (*TENSORS, "ray", "mlflow", "albumentations", "matplotlib")),
    Row("from xlite_search.results.report import build, figures, page"),
    Row("import xlite_search.search.suggest"),
    Row("import trainables.distill, trainables.baseline", BESIDE_TENSORS),
    Row(VIEWS),
    Row(DRAW, (*TENSORS, *BESIDE_TENSORS), workers=2),
]


def a_finished_study(name: str, seeds: Sequence[int], rates: Sequence[float] = (1e-3, 3e-3), ranges: str = "") -> None:
    """Learning rates, trained to their end by nobody; their predictions, a teacher and MLflow's runs are there."""
    base = RunConfig(model="test_efficientnet_none", data=DataSpec(name=PHANTOM), epochs=2)
    base = base.with_settings({"data.split.ratios": [0.2, 0.7, 0.1]}).resolved()
    data, runs = open_data(base.data), list[RunRecord]()
    images = tuple(data.packed.table.names[row] for row in data.val.rows)
    for rate in rates:
        for seed in seeds:
            config = base.model_copy(update={"seed": seed, "optimizer": AdamW(lr=rate)})
            key = run_key(config, MAKER)
            folder = places.study_folder(name) / "trials" / key
            logits = np.random.default_rng(seed).normal(size=data.val.labels.shape) + 1000 * rate * data.val.labels
            answers = Predictions.of(logits.astype(np.float32), images, data.classes).to_bytes()
            best, said = (
                StoredFile(file, write_atomic(folder / file, content), 2)
                for file, content in (("best.safetensors", b"weights"), ("best.npz", answers))
            )
            epoch = {"train/loss": 1.0, "train/lr": rate, "val/auroc_macro": 0.5 + rate, "time/epoch_s": 1.0}
            run = RunRecord(
                folder,
                key,
                "trial",
                f"lr={rate:g} seed={seed}",
                {"optimizer.lr": rate, "seed": seed},
                config.model_dump(mode="json"),
                epochs=(epoch, epoch),
                bests=(best,),
                predictions=(said,),
                last=said,
                started=1.7e9,
            )
            runs.append(run.close("finished", "the end"))
    sha256 = write_model(places.teacher_folder("t"), b"weights", ModelManifest(config={}, classes=data.classes))
    definition = fingerprints(base) | {"trials": {}, "code": "0123"}
    suggested = {"optimizer.lr": ranges} if ranges else {}
    keys = tuple(run.key for run in runs)
    study = StudyRecord(places.study_folder(name), name, "?", "a:b", "val/auroc_macro", definition, keys)
    replace(study, teacher="t", teacher_sha256=sha256, maker=MAKER, tracked=True, distributions=suggested).save()
    with Recorder(name, parent={}) as recorder:
        for run in runs:
            recorder.sync(run)
    assert recorder.failed is None


def raw_images(home: Path) -> None:
    """A folder of images, and their label table."""
    (home / IMAGES).mkdir()
    packed = PackedSet.open(PHANTOM)
    lines = ["Image Index,Finding Labels,Patient ID"]
    for row, (name, group) in enumerate(zip(packed.table.names, packed.table.groups, strict=True)):
        found = [finding for finding, there in zip(packed.classes, packed.labels[row], strict=True) if there]
        lines.append(f"{name},{'|'.join(found) or 'No Finding'},{group}")
        cv2.imwrite(str(home / IMAGES / name), packed.pixels[row, 0])
    (home / TABLE).write_text("\n".join(lines))


@pytest.fixture(scope="module")
def home(drawn_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a label table, its images, prepared data, and two finished studies."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(drawn_once, home / "data" / PHANTOM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLITE_RUNS", str(home / "runs"))
        patch.setenv("XLITE_DATA", str(home / "data"))
        raw_images(home)
        handmade(home / "exported")
        drawn(home / "x.png")
        a_finished_study("one_seed", [0])
        a_finished_study("seeds", [0, 1])
        a_finished_study("few_suggested", [0], ranges=RATES)
        a_finished_study("search", [0], [1e-4 * rate for rate in range(1, 25)], ranges=RATES)
    return home


def imported(row: Row, home: Path) -> list[str]:
    """The modules that the row's processes import, `torch.nn`, once for each process."""
    command = ["-c", row.run] if isinstance(row.run, str) else ["-m", "xlite_search", *row.run]
    own = {"XLITE_RUNS": str(home / "runs"), "XLITE_DATA": str(home / "data"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=home,
        env=os.environ | own | {"PYTHONPROFILEIMPORTTIME": "1"},
        capture_output=True,
        text=True,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == row.code and row.says in done.stdout, "\n".join([done.stdout, *said])
    return [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]


@pytest.mark.parametrize("row", BUDGET, ids=str)
def test_no_process_imports_what_is_not_needed(row: Row, home: Path) -> None:
    found = imported(row, home)
    assert not row.workers or found.count("cv2") > row.workers
    assert sorted({name.partition(".")[0] for name in found} & set(row.forbidden)) == []


def test_an_import_anywhere_is_seen(home: Path) -> None:
    """In a process that another one starts, too."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import optuna.version'])"
    assert "optuna" in {name.partition(".")[0] for name in imported(Row(code), home)}
