"""What `plan --measure` says that a study will take, against the time from the command `run` to its table.

    python benchmarks/forecast.py [--quick]

Three studies, each forecast and then run: `phantoms` is search_spaces/kd_grid.py as its demo, two models and a teacher,
two trials at once; `one` is search_spaces/focal_grid.py as its demo, a search over the loss, one trial at once and no
teacher; `real` is benchmarks/peer_study.py with lighter models, 1,000 radiographs of NIH at 96 px, two students and a
teacher, two at once.
Every process computes on one thread. Data are prepared before, and near-duplicates are not asked for. No trial can stop
early, so that the epochs that ASHA leaves are those that are trained; which trials stay is what nobody knows before.

    forecast  seconds that the plan expects, if those who stay are as fast as the mean; `most` if they are the slowest
    taken     seconds from the command to the table, the start of Python and of Ray among them
    ratio     forecast by taken; `worst` is the largest distance of a ratio from 1
    epochs    of the trials, as forecast and as trained, without the teacher's
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import recording
from recording import Limit

ROOT = Path(__file__).absolute().parents[1]
SHARED = Path(os.environ.get("XLITE_SHARED", ROOT.parent / "shared")) / "data" / "chestxray14"
SIZE, TEACHER_EPOCHS = 96, 3
LIMITS = {"worst": Limit(most=0.15)}
ONE_THREAD = ("--set", "teacher.threads=1")
LIGHT = ("--set", "model=[mobilenetv3_small_100_none,resnet10t_none]", "--set", "teacher.model=resnet18_none")


@dataclass(frozen=True)
class Case:
    """A study: its name, the command line without the verb, and how many cores the search may use."""

    name: str
    words: tuple[str, ...]
    cpus: int
    teacher: bool


CASES = (
    Case("phantoms", ("search_spaces/kd_grid.py", "--demo", *ONE_THREAD), 2, True),
    Case("one", ("search_spaces/focal_grid.py", "--demo", "--set", "loss.gamma=[0.0,2.0]"), 1, False),
    Case("real", ("benchmarks/peer_study.py", *LIGHT, *ONE_THREAD), 2, True),
)


def measure(quick: bool) -> Mapping[str, float]:
    images, table = SHARED / "images_224", SHARED / "Data_Entry_images_224.csv"
    if not images.is_dir():
        raise recording.Skipped(f"no radiographs at {images}; XLITE_SHARED names the folder above `data`")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(XLITE_RUNS=f"{home}/runs", XLITE_DATA=f"{home}/data", CUDA_VISIBLE_DEVICES="")
        os.environ |= {"PYTHONPATH": str(ROOT), "XLITE_MACHINE": f"{home}/machine.toml"}
        (Path(home) / "machine.toml").touch()
        told("prepare", "peer", "--images", str(images), "--labels", str(table), "--size", str(SIZE))
        told("plan", *CASES[0].words, "--name", "first")  # draws the phantoms
        print("study      forecast    most   taken  ratio  epochs forecast  trained")
        for case in CASES:
            (Path(home) / "machine.toml").write_text(f"cpus = {case.cpus}\n")
            figures |= {f"{case.name}_{figure}": value for figure, value in of(case, quick).items()}
    return figures | {"worst": max(abs(figures[f"{case.name}_ratio"] - 1) for case in CASES)}


def of(case: Case, quick: bool) -> dict[str, float]:
    """A study's forecast, and what it took."""
    short = ("--set", "epochs=2") if quick else ()
    teacher = ("--set", f"teacher.epochs={2 if quick else TEACHER_EPOCHS}") if case.teacher else ()
    words = (*case.words, *short, *teacher, "--name", case.name)
    planned = json.loads(told("plan", *words, "--measure", "--json"))["forecast"]
    began = time.perf_counter()
    told("run", *words, "--cpu")
    taken = time.perf_counter() - began
    found = {
        "forecast_s": planned["timing"]["expected"][0],
        "most_s": planned["timing"]["seconds"][0],
        "taken_s": taken,
        "ratio": planned["timing"]["expected"][0] / taken,
        "epochs_forecast": float(planned["epochs"]),
        "epochs": float(trained(case.name)),
    }
    print(
        f"{case.name:<10} {found['forecast_s']:>8.1f} {found['most_s']:>7.1f} {taken:>7.1f} {found['ratio']:>6.2f} "
        f"{found['epochs_forecast']:>16.0f} {found['epochs']:>8.0f}",
        flush=True,
    )
    return found


def told(*words: str) -> str:
    """What a command of the program prints; it is shown where it fails."""
    command = [sys.executable, "-m", "xlite_search", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def trained(study: str) -> int:
    from xlite_search.results.compare import open_study

    runs = open_study(study).runs()
    assert not any(run.status == "failed" for run in runs)
    return sum(len(run.epochs) for run in runs)


if __name__ == "__main__":
    recording.run("forecast", __doc__, measure, LIMITS)
