"""Finished studies that nobody trained: records with scores and predictions, for tests of what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xlite_search.config import RunConfig, fingerprints, run_key
from xlite_search.data.dataset import open_data
from xlite_search.labels import labels
from xlite_search.places import study_folder
from xlite_search.records import RunRecord, StoredFile
from xlite_search.storage import write_atomic
from xlite_search.study_record import StudyRecord
from xlite_search.training.metrics import validation_metrics
from xlite_search.training.predictions import Predictions

MAKER = "trainables.baseline:baseline 0123"


def finished_study(
    name: str, base: RunConfig, points: Sequence[dict[str, Any]], strengths: Sequence[float], epochs: int = 2
) -> StudyRecord:
    """A run for each point, whose logits tell a finding by `strengths` (0: not at all); the last epoch less."""
    base = base.with_settings({"epochs": epochs}).resolved()
    keys = []
    names = labels(points, list(points[0]), base.model)
    for label, point, strength in zip(names, points, strengths, strict=True):
        config = base.with_settings(point).canonical()
        data = open_data(config.data)
        images, truth = tuple(data.packed.table.names[row] for row in data.val.rows), data.val.labels
        key = run_key(config, MAKER)
        folder = study_folder(name) / "trials" / key
        noise = np.random.default_rng(int(key[:6], 16)).normal(size=truth.shape)
        files, metrics = [], []
        for epoch, told in enumerate((strength, 0.9 * strength), start=1):
            logits = (noise + told * truth - 2).astype(np.float32)
            found = validation_metrics(logits, truth, data.classes)
            metrics.append(
                found | {"train/loss": 0.5 / epoch, "train/lr": 1e-3, "time/epoch_s": 1.5, "model/parameters": 1e6}
            )
            kept = Predictions.of(logits, images, data.classes).to_bytes()
            file = f"checkpoints/{epoch}.npz"
            files.append(StoredFile(file, write_atomic(folder / file, kept), epoch))
        weights = StoredFile("checkpoints/1.safetensors", write_atomic(folder / "checkpoints/1.safetensors", b"w"), 1)
        run = RunRecord(folder, key, "trial", label, point, config.model_dump(mode="json"), epochs=tuple(metrics))
        run = replace(run, bests=(weights,), predictions=(files[0],), last=files[-1], started=1.0)
        keys.append(run.close("finished", "").key)
    definition = fingerprints(base) | {"trials": {}, "code": "0123"}
    return StudyRecord(
        study_folder(name), name, "Which?", MAKER.split()[0], base.monitor, definition, tuple(keys), maker=MAKER
    ).save()
