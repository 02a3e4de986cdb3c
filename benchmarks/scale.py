"""What a data set of NIH's size costs: to prepare, to open, to plan on, and to hand out a first batch of.

    python benchmarks/scale.py            # all images of the label table
    python benchmarks/scale.py --quick    # the table's first 6,000

The images are a few pixels of noise each, resized, under NIH's own names, for the label table in the shared data
(XLITE_SHARED; without it the benchmark says so and ends). They are prepared at 32 px: what is measured does not depend
on the pixels.

    prepare_images_s  images a second, the whole command
    open_cold_s       a fresh process, imports done: parts, labels, names and keys of all images. References: the same
                      files read by Python's csv, as was done before, and by pandas, in fresh processes too
    open_warm_ms      the same again in that process
    plan_51_s         `plan` of kd_wide, 51 trials, the whole process. The reference is its imports alone
    plan_1000_s       `plan` of a grid of 1,000 trials
    first_batch_s     a job of a fifth of the data reaches a worker that has run one: until its first batch, the run's
                      record and model included. The reference is a worker that is fresh, imports done

Figures are medians over rounds, ours and the reference in turn.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import recording
from recording import Limit

ROOT = Path(__file__).absolute().parents[1]
TABLE = Path("data") / "chestxray14" / "Data_Entry_2017_v2020.csv.gz"
DATA, SIZE, NOISE, ROUNDS = "chestxray14", 32, 4, 5
QUICK_IMAGES, QUICK_ROUNDS = 6000, 1
LIMITS = {
    "open_cold_s": Limit(most=0.5),
    "open_warm_ms": Limit(most=20),
    "plan_51_s": Limit(most=8),
    "plan_1000_s": Limit(most=15),
    "first_batch_s": Limit(most=1),
}
WITHOUT_WEIGHTS = ["--set", "weights=null", "--set", "teacher.weights=null", "--name", "scale-51"]

THOUSAND = '''
"""A thousand trials: 4 x 5 x 5 x 10."""
from trainables.distill import distill
from xlite_search.config import RunConfig
from xlite_search.data.views import Medium
from xlite_search.search.study import Study, grid_search

study = Study(
    question=__doc__,
    trainable=distill,
    base=RunConfig(model="mobilenet_v3_small_mhsa", augment=Medium(), epochs=20),
    teacher=RunConfig(model="convnext_tiny_mhsa", augment=Medium(), epochs=20),
    space={
        "kd.tau": grid_search([1.0, 2.0, 4.0, 8.0]),
        "kd.alpha": grid_search([0.1, 0.3, 0.5, 0.7, 0.9]),
        "optimizer.lr": grid_search([1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3]),
        "seed": grid_search(list(range(10))),
    },
)
'''

OPENED = """
import json, time
from xlite_search.data.dataset import DataSpec, open_data

def opened():
    started = time.perf_counter()
    data = open_data(DataSpec())
    read = data.train.labels, data.val.labels, data.packed.keys, data.packed.table.names
    return time.perf_counter() - started

print(json.dumps([opened() for _ in range(6)]))
"""

BY_CSV = """
import csv, json, sys, time
import numpy as np

started = time.perf_counter()
with open(sys.argv[1], newline="") as file:
    rows = list(csv.DictReader(file))
with open(sys.argv[2], newline="") as file:
    homes = [row["split"] for row in csv.DictReader(file)]
classes = sorted({name for row in rows for name in row["findings"].split("|") if name})
labels = np.zeros((len(rows), len(classes)), np.uint8)
for number, row in enumerate(rows):
    for name in filter(None, row["findings"].split("|")):
        labels[number, classes.index(name)] = 1
print(json.dumps([time.perf_counter() - started]))
"""

BY_PANDAS = """
import json, sys, time
import pandas as pd

pd.read_csv
started = time.perf_counter()
table, split = pd.read_csv(sys.argv[1]), pd.read_csv(sys.argv[2])
labels = table["findings"].fillna("").str.get_dummies().to_numpy("uint8")
print(json.dumps([time.perf_counter() - started]))
"""

DEALT = """
from xlite_search.data.dataset import DataSpec, open_data

for fraction in (1.0, 0.2):
    open_data(DataSpec(fraction=fraction))
"""

IMPORTS = "import trainables.distill, xlite_search.search.forecast, xlite_search.search.plan"

FIRST_BATCH = """
import json, sys, time
from pathlib import Path
from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.records import RunRecord
from xlite_search.execution import drive
from xlite_search.training import loop

class FirstBatch(BaseException):
    pass

class Watched(loop.Loader):
    def epoch(self, epoch):
        for batch in super().epoch(epoch):
            raise FirstBatch

loop.Loader = Watched

def until_the_first_batch(number, fraction):
    config = RunConfig(model="mobilenet_v3_small_mhsa", seed=number).with_settings({"data.fraction": fraction})
    started = time.perf_counter()
    tree = config.resolved().model_dump(mode="json")
    record = RunRecord(Path(sys.argv[1]) / f"{time.time_ns()}", "0" * 12, "trial", "", {}, tree)
    try:
        next(drive(record, baseline, config.resolved()))
    except FirstBatch:
        return time.perf_counter() - started

print(json.dumps([until_the_first_batch(1, 1.0), until_the_first_batch(2, 0.2)]))
"""


def measure(quick: bool) -> dict[str, float]:
    shared, rounds = Path(os.environ.get("XLITE_SHARED") or ROOT.parent / "shared"), QUICK_ROUNDS if quick else ROUNDS
    if not (shared / TABLE).is_file():
        raise recording.Skipped(f"{shared / TABLE} is not there; name the folder of the shared data with XLITE_SHARED")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:  # Windows keeps a mapped file
        home = Path(made)
        (home / "machine.toml").write_text("checkpoints_gb = 1\n", encoding="utf-8")
        os.environ |= {
            "XLITE_DATA": str(home / "data"),
            "XLITE_RUNS": str(home / "runs"),
            "XLITE_MACHINE": str(home / "machine.toml"),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        images = raw_images(home / "raw", shared / TABLE, QUICK_IMAGES if quick else None)
        figures = preparing(home, images) | opening(home, rounds) | planning(home, rounds) | first_batch(home, rounds)
    return figures | {"images": images}


def raw_images(folder: Path, table: Path, most: int | None) -> int:
    """Noise under NIH's names, and their rows of the label table beside it. Returns how many."""
    folder.mkdir()
    with gzip.open(table, "rt", encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))[: most and most + 1]
    started, noise = time.perf_counter(), np.random.default_rng(0)
    quickly = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    for name, *_ in rows:
        image = cv2.resize(noise.integers(0, 256, (NOISE, NOISE), np.uint8), (SIZE, SIZE))
        (folder / name).write_bytes(cv2.imencode(".png", image, quickly)[1].tobytes())
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    print(f"made {len(rows):,} images in {time.perf_counter() - started:.0f} s")
    return len(rows)


def preparing(home: Path, images: int) -> dict[str, float]:
    raw = home / "raw"
    command = ["prepare", DATA, "--images", str(raw), "--labels", str(raw / "labels.csv"), "--size", str(SIZE)]
    seconds = _command(*command)
    print(f"prepare: {images / seconds:,.0f} images a second, {seconds:.0f} s")
    return {"prepare_images_s": images / seconds, "prepare_s": seconds}


def opening(home: Path, rounds: int) -> dict[str, float]:
    """The split, and the rows of a fifth, are dealt before: that is once in a data set's life."""
    print(f"split and fraction dealt, once: {_timed(lambda: _python(DEALT)):.1f} s with imports")
    (split,) = (home / "data" / DATA / "splits").glob("*[0-9a-f].csv")
    files = [str(home / "data" / DATA / "index.csv"), str(split)]
    cold, warm, by_csv, by_pandas = [list[float]() for _ in range(4)]
    for _ in range(rounds):
        first, *again = json.loads(_python(OPENED))
        cold.append(first)
        warm += again
        by_csv += json.loads(_python(BY_CSV, *files))
        by_pandas += json.loads(_python(BY_PANDAS, *files))
    cold_s, warm_s, csv_s, pandas_s = (float(np.median(times)) for times in (cold, warm, by_csv, by_pandas))
    print(_side_by_side("open, cold", cold_s, "csv", csv_s))
    print(_side_by_side("open, cold", cold_s, "pandas", pandas_s))
    print(_side_by_side("open, warm", warm_s, "csv", csv_s))
    return {"open_cold_s": cold_s, "open_csv_s": csv_s, "open_pandas_s": pandas_s, "open_warm_ms": warm_s * 1000}


def planning(home: Path, rounds: int) -> dict[str, float]:
    thousand = home / "thousand.py"
    thousand.write_text(THOUSAND.lstrip(), encoding="utf-8")
    ways: dict[str, Callable[[], object]] = {
        "plan_51_s": lambda: _command("plan", "search_spaces/kd_wide.py", *WITHOUT_WEIGHTS),
        "plan_1000_s": lambda: _command("plan", str(thousand)),
        "plan_imports_s": lambda: _python(IMPORTS),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(_timed(way))
    found = {name: float(np.median(seconds)) for name, seconds in times.items()}
    for name in ("plan_51_s", "plan_1000_s"):
        print(_side_by_side(name, found[name], "its imports", found["plan_imports_s"]))
    return found


def first_batch(home: Path, rounds: int) -> dict[str, float]:
    both = [json.loads(_python(FIRST_BATCH, str(home / "jobs"))) for _ in range(rounds)]
    fresh, warm = (float(seconds) for seconds in np.median(both, axis=0))
    print(_side_by_side("first batch", warm, "a fresh worker", fresh))
    return {"first_batch_s": warm, "first_batch_fresh_s": fresh}


def _side_by_side(what: str, ours: float, reference: str, theirs: float) -> str:
    return f"{what}: {ours:.4g} s, {reference} {theirs:.3g} s, ratio {theirs / ours:.3g}"


def _timed(way: Callable[[], object]) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def _command(*arguments: str) -> float:
    """Seconds of a whole `python -m xlite_search ...`."""
    command = [sys.executable, "-m", "xlite_search", *arguments]
    return _timed(lambda: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL))


def _python(program: str, *arguments: str) -> str:
    """The last line that a program prints, run in a fresh process."""
    command = [sys.executable, "-c", program, *arguments]
    said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return said.strip().rpartition("\n")[2]


if __name__ == "__main__":
    recording.run("scale", __doc__, measure, LIMITS)
