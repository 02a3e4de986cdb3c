"""The README's command on real radiographs: minutes on two cores, and what was learnt is worth something."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.data.loaders import ordered_batches
from xlite_search.models.hybrid import build_model
from xlite_search.results.compare import open_study
from xlite_search.training.metrics import validation_metrics

ROOT = Path(__file__).parents[1]


def xlite(*arguments: str) -> str:
    command = [sys.executable, "-m", "xlite_search", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.ray
def test_the_readmes_command_learns_from_real_radiographs_within_six_minutes(shared: Path) -> None:
    folder, weights = shared / "data" / "chestxray14", shared / "weights" / "tf_efficientnet_lite0.safetensors"
    table, started = str(folder / "Data_Entry_images_224.csv"), time.monotonic()
    xlite("prepare", "nih-1000", "--images", str(folder / "images_224"), "--labels", table, "--size", "112")
    xlite("run", "search_spaces/real_radiographs.py", "--name", "real", "--set", f"weights=[{weights}, null]", "--cpu")
    seconds = time.monotonic() - started
    page = json.loads(xlite("compare", "real", "--json"))
    pretrained, scratch = sorted(page["trials"], key=lambda trial: trial["settings"]["weights"] is None)
    config = RunConfig.model_validate(open_study("real").runs()[0].config)
    untrained = untrained_score(config)
    print(f"{seconds:.0f} s; pretrained {pretrained['score']}, scratch {scratch['score']}, untrained {untrained}")
    assert seconds < 360
    assert pretrained["score"] >= 0.65
    assert pretrained["score"] > untrained + 0.15
    assert pretrained["metrics"]["val/classes_supported"] == 7


def untrained_score(config: RunConfig) -> float:
    """What the same backbone with the same weights answers before its head has learnt anything."""
    data = open_data(config.data)
    torch.manual_seed(config.seed)
    model = build_model(config.model, classes=len(data.classes), weights=config.weights).eval()
    with torch.inference_mode():
        logits = torch.cat([model(batch.images) for batch in ordered_batches(data.val, 32, torch.device("cpu"))])
    return validation_metrics(logits.numpy(), data.val.labels, data.classes)["val/auroc_supported"]
