"""Criteria of success of a delivered model: AUROC, time an image, size beside a baseline.

What is claimed of the AUROC is corrected for the number of models that were judged on these images (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from xlite_search import places
from xlite_search.errors import BadInput
from xlite_search.evaluation.named import find_model
from xlite_search.model_folder import ModelManifest, exists, manifest_of, read_model
from xlite_search.results.columns import ends, number
from xlite_search.results.inference import CONFIDENCE, joint
from xlite_search.results.influence import Influence
from xlite_search.results.intervals import own

Criterion = Literal["met", "not met", "cannot tell", "unknown"]
AUROC, MILLISECONDS, SIZE = 0.80, 500.0, 0.50


#: name and parameters of what a model is held against, 0 if there is nothing
Baseline = tuple[str, int]


@dataclass(frozen=True)
class Success:
    """A criterion of success, what was found of it, and whether it is met."""

    criterion: str
    found: str
    verdict: Criterion


def success(about: ModelManifest, macro: Influence, judged: int, baseline: Baseline) -> Iterator[Success]:
    """The three criteria; `macro` are the findings that the mean is over, `judged` how many models were judged on these
    images by now, `baseline` what its size is held against (`baseline_of`)."""
    looks = max(judged, 1)
    confidence = 1 - (1 - CONFIDENCE) / looks
    area = own(np.array([macro.score.mean()]), joint([macro]), confidence=confidence)[0]
    verdict: Criterion = "cannot tell"
    if area.low > AUROC or area.high < AUROC:
        verdict = "met" if area.low > AUROC else "not met"
    corrected = f", corrected for {looks} models judged" if looks > 1 else ""
    told = f"{number(area.value)}, {100 * confidence:.4g} % interval {ends(area.low, area.high)}{corrected}"
    yield Success(f"AUROC above {AUROC:.2f}", told, verdict)
    yield _time(about)
    yield _size(about, *baseline)


def _time(about: ModelManifest) -> Success:
    import torch

    from xlite_search.models.cost import latency_ms
    from xlite_search.models.hybrid import build_model

    criterion = f"under {MILLISECONDS:.0f} ms an image"
    size, channels = about.input.get("size"), about.input.get("channels", 1)
    if not size:
        return Success(criterion, "the size of its images is not known", "unknown")
    spent = 0.0
    for name in about.model.split(" + "):
        with torch.random.fork_rng(devices=[]):
            network = build_model(name, classes=len(about.classes)).eval()
        spent += latency_ms(network, torch.zeros(1, channels, size, size, dtype=torch.uint8))
    told = f"{spent:.1f} ms in torch, the network alone on one thread of this processor"
    return Success(criterion, told, "met" if spent < MILLISECONDS else "not met")


def _size(about: ModelManifest, name: str, theirs: int) -> Success:
    criterion = f"under {SIZE:.0%} of the baseline's parameters"
    if not theirs or not about.parameters:
        return Success(criterion, "no baseline is known: name one, --baseline MODEL", "unknown")
    ratio = about.parameters / theirs
    told = f"{about.parameters / 1e6:.2f} M, {ratio:.1%} of {name}'s {theirs / 1e6:.2f} M"
    return Success(criterion, told, "met" if ratio < SIZE else "not met")


def baseline_of(folder: Path, about: ModelManifest, baseline: str) -> Baseline:
    """Of a model folder, of a hybrid, or the teacher's, of an ensemble its first member's.

    Raises BadInput if there is no model of that name.
    """
    first = manifest_of(folder.parent / about.members[0]) if about.members else about
    teacher = (first.config.get("kd") or {}).get("teacher")
    if not baseline:
        home = places.teacher_folder(str(teacher))
        return ("the teacher", read_model(home).parameters) if teacher and exists(home) else ("", 0)
    from xlite_search.models.hybrid import build_model, full_name, parameters

    with suppress(BadInput):
        folder = find_model(baseline)
        return folder.name, read_model(folder).parameters
    import torch

    try:
        name = full_name(baseline)
    except BadInput as why:
        raise BadInput(f"--baseline {baseline}: it is no model folder, and as a hybrid: {why}") from None
    with torch.device("meta"):
        return baseline, parameters(build_model(name, classes=len(about.classes)))
