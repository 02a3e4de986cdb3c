"""What a delivered model looks at: maps of images, how well they agree with boxes, and whether they are its own.

A map's figures are of all images of a part that have boxes. A few cases are shown: those that lie evenly along each
finding's probabilities, so that nobody chose the fine ones; without boxes the most probable positives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from xlite_search.data.dataset import Data
from xlite_search.errors import BadInput
from xlite_search.evaluation import map_notes
from xlite_search.evaluation.calibration import Calibration, read_calibration
from xlite_search.evaluation.case_maps import CaseMaps, against_occlusion
from xlite_search.evaluation.cases import (
    Asked,
    Counter,
    boxes_of,
    cases_of,
    evenly,
    findings_of,
    most_probable,
    names_of,
)
from xlite_search.evaluation.cells import grids_of
from xlite_search.evaluation.explained import Explained
from xlite_search.evaluation.localisation import SHARE, constants, localisation
from xlite_search.evaluation.scored import part_of
from xlite_search.model import Model, load_model
from xlite_search.model_folder import ModelManifest, read_model, seen_among

Progress = Callable[[str], Counter]
#: cases whose maps are compared with those of other weights
SANITY_CASES = 24


def expect_answerable(about: ModelManifest, data: Data, asked: Asked) -> None:
    """Before a look is taken: that there is something to explain.

    Raises BadInput: all parts together of data that the model was trained on, no case to show, a finding that is not
    known to both, an empty part, or a box list that has none of its images.
    """
    part, name = part_of(data, asked.part), data.packed.folder.name
    own = (about.config.get("data") or {}).get("name") == name
    if asked.part == "all" and (own or seen_among(about.trained_on, data, part.rows.tolist())):
        raise BadInput(
            f"--part all: the model was trained on images of '{name}', and maps of those look better; say train, val "
            f"or test, each of which is told apart"
        )
    if asked.images < 1:
        raise BadInput(f"--images {asked.images}: expected how many cases to show, 1 or more")
    findings_of(about, data, asked.findings)
    boxes_of(data.packed, part, asked)


def explained(
    folder: Path, data: Data, asked: Asked, device: torch.device, progress: Progress = lambda what: _quiet
) -> Explained:
    """Maps of a model folder on a part of its data. `progress` gives for a word what is told how many images are done.

    Raises BadInput as `expect_answerable`, and if the part has neither a box nor an image with a finding.
    """
    expect_answerable(read_model(folder), data, asked)
    model, part, calibration = load_model(folder, device), part_of(data, asked.part), read_calibration(folder)
    findings = findings_of(model.manifest, data, asked.findings)
    cases = cases_of(part, findings, boxes_of(data.packed, part, asked))
    maps = CaseMaps(model, part, asked.method, device, calibration)
    if cases:
        guesses, probabilities = maps.guesses(cases, progress("maps of images with boxes"))
        rows = localisation([case for _, case in cases], guesses)
        chosen = [cases[number] for number in evenly([case.finding for _, case in cases], probabilities, asked.images)]
        constant = dict(zip(names_of(cases), constants([case for _, case in cases]), strict=True))
    else:
        rows, constant = [], {}
        chosen = most_probable(folder, data, part, findings, asked, device, progress("images"))
    shown = list(maps.shown(chosen, progress("occluded images") if asked.occlusion else None))
    alike = maps.alike(chosen[:SANITY_CASES])
    occlusion = against_occlusion(shown) if asked.occlusion else None
    grids, left_out = grids_of(model.models, data.packed.size), _left_out(model.manifest, data, findings)
    notes = [
        map_notes.verdict(rows, asked.part),
        *map_notes.of_findings(findings, left_out),
        *map_notes.of_cells(grids, rows, data.packed.size),
        *map_notes.of_images(model.manifest, data, asked.part),
        *map_notes.of_probabilities(calibration),
        *map_notes.of_other_weights(alike),
        *map_notes.of_occlusion(occlusion),
    ]
    about = _about(model, data, asked, calibration) | {
        "findings": list(findings),
        "left_out": left_out,
        "images_with_boxes": len({place for place, _ in cases}),
        "cells": [grid._asdict() for grid in grids],
    }
    return Explained(about, rows, shown, alike, occlusion, notes, constant)


def _quiet(_done: int, _total: int) -> None:
    pass


def _left_out(about: ModelManifest, data: Data, findings: Sequence[str]) -> list[str]:
    """Findings that model and data know, and that were not asked for."""
    return [name for name in findings_of(about, data, ()) if name not in findings]


def _about(model: Model, data: Data, asked: Asked, calibration: Calibration | None) -> dict[str, Any]:
    return {
        "model": {"name": model.manifest.model, "sha256": model.manifest.sha256, "members": len(model.models)},
        "data": {
            "name": data.packed.folder.name,
            "fingerprint": data.packed.fingerprint,
            "split": data.split.fingerprint,
            "part": asked.part,
            "size": data.packed.size,
        },
        "method": asked.method,
        "boxes": asked.boxes.name if asked.boxes else "prepared with the images",
        "share_of_maximum": SHARE,
        "probabilities": "not calibrated" if calibration is None else "calibrated",
        "calibration": "" if calibration is None else calibration.hash,
    }
