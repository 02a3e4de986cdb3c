"""The same grid on real radiographs, from command to table, as a plain script and with xlite_search.

    python benchmarks/peer.py

1,000 radiographs of NIH at 96 px, kd_grid's students and teacher without attention x tau x alpha, 4 epochs, two trials
at once on one thread each, nothing pretrained; ASHA from epoch 1 on, with Ray's own reduction of 4. `peer_plain.py` is
Ray Tune, timm, albumentations, scikit-learn and MLflow's callback; its teacher answers in every step. `peer_study.py`
is ours, by `prepare` and `run`, which the time holds. Both train a teacher first, on the same patients, and rank by
macro AUROC on the same others.

    ratio   seconds of ours by those of the plain script
    epochs  of all trials, of 32; the teacher's 4 not counted
    best    best macro AUROC of any epoch; with so few images the difference between the two says nothing
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import recording
from recording import Limit

ROOT = Path(__file__).absolute().parents[1]
SHARED = Path(os.environ.get("XLITE_SHARED", ROOT.parent / "shared")) / "data" / "chestxray14"
SIZE, EPOCHS, TRIALS = 96, 4, 8

LIMITS = {"ratio": Limit(most=0.5)}


def measure(quick: bool) -> Mapping[str, float]:
    images, table = SHARED / "images_224", SHARED / "Data_Entry_images_224.csv"
    if not images.is_dir():
        raise recording.Skipped(f"no radiographs at {images}; XLITE_SHARED names the folder above `data`")
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(XLITE_RUNS=f"{home}/runs", XLITE_DATA=f"{home}/data", CUDA_VISIBLE_DEVICES="")
        os.environ["PYTHONPATH"] = str(ROOT)
        epochs = 1 if quick else EPOCHS
        short = ["--set", f"epochs={epochs}", "--set", f"teacher.epochs={epochs}"] if quick else []
        began = time.perf_counter()
        told("-m", "xlite_search", "prepare", "peer", "--images", images, "--labels", table, "--size", SIZE)
        told("-m", "xlite_search", "run", ROOT / "benchmarks" / "peer_study.py", "--name", "peer", "--cpu", *short)
        ours = time.perf_counter() - began
        figures = {"ours_s": ours} | of_ours()
        given = Path(home) / "given.json"
        given.write_text(json.dumps({"epochs": epochs, "images": str(images)} | of_split()))
        began = time.perf_counter()
        plain = json.loads(told(ROOT / "benchmarks" / "peer_plain.py", given, home).splitlines()[-1])
        figures |= {
            "plain_s": time.perf_counter() - began,
            "plain_epochs": plain["epochs"],
            "plain_best": plain["best"],
        }
    figures |= {"ratio": figures["ours_s"] / figures["plain_s"], "all_epochs": epochs * TRIALS}
    for name in ("ours", "plain"):
        print(
            f"{name}: {figures[f'{name}_s']:.0f} s, {figures[f'{name}_epochs']:.0f} of {epochs * TRIALS} epochs, "
            f"best macro AUROC {figures[f'{name}_best']:.3f}"
        )
    return figures


def told(*command: object) -> str:
    """What a command prints; it is shown where it fails."""
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def of_ours() -> dict[str, float]:
    from xlite_search.results.compare import open_study

    runs = open_study("peer").runs()
    assert len(runs) == TRIALS
    assert not any(run.cause for run in runs if run.status == "failed")
    best = max(epoch["val/auroc_macro"] for run in runs for epoch in run.epochs)
    return {"ours_epochs": float(sum(len(run.epochs) for run in runs)), "ours_best": best}


def of_split() -> dict[str, dict[str, object]]:
    """Names and labels of the parts that our side trained and was judged on."""
    from xlite_search.data.dataset import DataSpec, open_data

    data = open_data(DataSpec(name="peer"))
    names = data.packed.table.names
    return {
        name: {"names": [names[row] for row in part.rows], "labels": part.labels.tolist()}
        for name, part in (("train", data.train), ("val", data.val))
    }


if __name__ == "__main__":
    recording.run("peer", __doc__, measure, LIMITS)
