"""Whether a map's maximum lies where a finding was drawn, beside the best guess that sees no image.

    python benchmarks/maps.py [--quick]

trains a small network from scratch on drawn radiographs, of which each has any of six findings, and judges its maps on
the test part, which chose nothing. Pointing is the share of cases whose map has its maximum in a box of the finding.
The constant guess is the point that is best for these very boxes. Two findings take a lobe of either lung. Of the
others the constant guess has about half or all, so that nothing can have twice as much: a heart is where hearts are,
and what lies at a dome or along a lung is in one of two places. By finding:

    pointing_Pneumonia            with ..._low and ..._high, its 95 % interval by patient
    constant_Pneumonia            the constant guess's
    ratio_Pneumonia               of the two; limited where a constant guess has less than half
    more_Pneumonia                pointing less twice the constant guess's, with ..._low and ..._high
    cases_Pneumonia               images of the test part with it
    across_Pneumonia              the median of its boxes' shorter sides, in cells of the network's last map

Maps are by Grad-CAM; by HiResCAM they are the same, for a network without attention has one slope for all cells.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import recording
import torch
from recording import ROOT, Limit

from xlite_search import places
from xlite_search.config import RunConfig
from xlite_search.data.dataset import DataSpec, open_data
from xlite_search.data.prepare import prepare
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.phantom import Phantom
from xlite_search.data.splits import ByPatient
from xlite_search.data.views import Light
from xlite_search.evaluation.case_maps import CaseMaps
from xlite_search.evaluation.cases import Asked, boxes_of, cases_of
from xlite_search.evaluation.cells import cells_of
from xlite_search.evaluation.finding_means import graded
from xlite_search.evaluation.localisation import Case, Guess, constants, judged, localisation
from xlite_search.evaluation.scored import part_of
from xlite_search.model import load_model
from xlite_search.model_folder import ModelManifest, input_of, write_model
from xlite_search.training.optim import AdamW, Cosine

#: findings that may be in one of four lobes, and those of which a constant guess has about half, or all
LOBES = ("Consolidation", "Pneumonia")
KNOWN = ("Atelectasis", "Cardiomegaly", "Effusion", "Pneumothorax")
MODEL, SIZE, IMAGES, EPOCHS, PREVALENCE, SEED = "test_resnet_none", 192, 2000, 15, 0.2, 1
QUICK_IMAGES, QUICK_EPOCHS = 120, 1
#: how many times as often as the constant guess a map has to point into a box
LEAST = 2.0
LIMITS = {f"ratio_{finding}": Limit(least=LEAST) for finding in LOBES}


def measure(quick: bool) -> dict[str, float]:
    images, epochs = (QUICK_IMAGES, QUICK_EPOCHS) if quick else (IMAGES, EPOCHS)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:  # Windows keeps a mapped file
        os.environ |= {"XLITE_RUNS": str(Path(home) / "runs"), "XLITE_DATA": str(Path(home) / "data")}
        config, auroc = trained(images, epochs)
        figures = of_maps(config)
    return figures | {"validation_auroc": auroc, "images": images, "epochs": epochs, "size": SIZE, "seed": SEED}


def trained(images: int, epochs: int) -> tuple[RunConfig, float]:
    """Draws the images and leaves the best epoch's model in `mlruns/models/m`; its validation AUROC."""
    sys.path.insert(0, str(ROOT))
    from trainables.baseline import baseline

    drawn = {finding: PREVALENCE if finding in LOBES + KNOWN else 0.0 for finding in CHEST_FINDINGS}
    prepare("drawn", Phantom(images=images, size=SIZE, seed=SEED, prevalence=drawn), SIZE)
    config = RunConfig(
        model=MODEL,
        data=DataSpec(name="drawn", split=ByPatient(ratios=(0.6, 0.1, 0.3))),
        epochs=epochs,
        batch_size=16,
        augment=Light(),
        optimizer=AdamW(lr=3e-3, weight_decay=1e-2),
        schedule=Cosine(warmup=1),
        early_stopping=None,
    )
    best = [(each.weights_bytes(), each.metrics["val/auroc_macro"]) for each in baseline(config) if each.improved][-1]
    data = open_data(config.data)
    about = ModelManifest(config=config.model_dump(mode="json"), classes=data.classes, input=input_of(data))
    write_model(places.model_folder("m"), best[0], about)
    return config, best[1]


def of_maps(config: RunConfig) -> dict[str, float]:
    model, part = load_model(places.model_folder("m")), part_of(open_data(config.data), "test")
    placed = cases_of(part, LOBES + KNOWN, boxes_of(part.packed, part, Asked(part="test")))
    maps = CaseMaps(model, part, "gradcam", torch.device("cpu"))
    guesses, _ = maps.guesses(placed, lambda _done, _total: None)
    cell = cells_of(model.models[0], SIZE).step
    return dict(by_finding([case for _, case in placed], guesses, cell))


def by_finding(cases: Sequence[Case], guesses: Sequence[Guess | None], cell: float) -> Iterator[tuple[str, float]]:
    rows = localisation(cases, guesses)[:-1]
    pairs = zip(cases, guesses, constants(cases), strict=True)
    more = [judged(case, own)["pointing"] - LEAST * judged(case, best)["pointing"] for case, own, best in pairs]
    which = np.array([[row.finding for row in rows].index(case.finding) for case in cases])
    patients = np.unique([case.patient for case in cases], return_inverse=True)[1].reshape(-1)
    for row, above in zip(rows, graded(np.array(more), which, patients, least=-LEAST), strict=False):
        found, constant = row.maps["pointing"], row.constant["pointing"].value
        for name, each in (("pointing", found), ("more", above)):
            yield f"{name}_{row.finding}", each.value
            yield f"{name}_{row.finding}_low", each.low
            yield f"{name}_{row.finding}_high", each.high
        yield f"constant_{row.finding}", constant
        yield f"ratio_{row.finding}", found.value / constant
        yield f"cases_{row.finding}", row.cases
        shorter = [min(box.width, box.height) for case in cases if case.finding == row.finding for box in case.boxes]
        yield f"across_{row.finding}", float(np.median(shorter)) / cell


if __name__ == "__main__":
    recording.run("maps", __doc__, measure, LIMITS)
