"""Replies of the service, as JSON: what the model says of a radiograph, with what is known of every finding."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from xlite_search import storage
from xlite_search.deploy.folder import PREPROCESS, THRESHOLDS, ExportManifest
from xlite_search.deploy.serve.engine import Answered

CARD = "model_card.json"
#: how much of the heat covers the radiograph
OPAQUE = 0.5


class Ends(BaseModel):
    """A share with its 95 % interval by patient; without ends where they are not known."""

    value: float
    low: float | None = None
    high: float | None = None


class Finding(BaseModel):
    """What the model says of a finding.

    decision        whether the probability reaches the threshold; null without one
    sensitivity     of the threshold, on the images that it was chosen on
    rule            how the threshold was chosen: sensitivity, youden, f1
    cannot_be_judged  why its probability is not to be relied on; empty if nothing is known against it
    """

    finding: str
    logit: float
    probability: float
    threshold: float | None = None
    decision: bool | None = None
    rule: str = ""
    sensitivity: Ends | None = None
    cannot_be_judged: str = ""


class Flagged(BaseModel):
    """Why the image may be none that the model was made for."""

    code: str
    sentence: str


class Overlay(BaseModel):
    """A map of where the logit falls when a patch covers the image, over the image as the model sees it."""

    finding: str
    method: str = "occlusion"
    png: str = Field(description="data URI")


class Reply(BaseModel):
    """What the model says of one radiograph."""

    model: str
    sha256: str
    preprocessing: str
    calibration: str
    kind: str
    flags: list[Flagged]
    findings: list[Finding]
    overlay: Overlay | None = None
    image: str | None = Field(None, description="the image as the model sees it, a data URI, if asked for")
    notice: str = "Not for clinical use."


@dataclass(frozen=True)
class Speaker:
    """Makes replies of answers, by what an exported folder says of its model."""

    folder: Path
    manifest: ExportManifest

    @cached_property
    def preprocessing(self) -> str:
        return self.manifest.files[PREPROCESS][:16]

    @cached_property
    def known(self) -> dict[str, dict[str, Any]]:
        """Of each finding: rule, sensitivity, cannot_be_judged."""
        chosen, doubts = self._chosen(), self._doubts()
        return {name: chosen.get(name, {}) | {"cannot_be_judged": doubts.get(name, "")} for name in self.classes}

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes

    def _chosen(self) -> dict[str, dict[str, Any]]:
        path, rules = self.folder / THRESHOLDS, self.manifest.threshold_rules
        if not path.is_file():
            return {}
        found = {}
        for row in storage.read_manifest(path)["findings"]:
            cut = row.get(rules.get(row["finding"], "")) or {}
            if cut:
                found[row["finding"]] = {"rule": rules[row["finding"]], "sensitivity": cut["sensitivity"]}
        return found

    def _doubts(self) -> dict[str, str]:
        """Findings whose calibration has too few images to be assessed, by the card beside the model."""
        if not self.manifest.calibration:
            return dict.fromkeys(self.classes, "the model is not calibrated: this is no probability")
        path = self.folder / CARD
        if not path.is_file():
            return {}
        card = json.loads(path.read_bytes())
        fewest, about = card["assessable_from"], card["calibration"] or {"findings": []}
        return {
            row["finding"]: f"calibrated on {row['positives']} positive images, and it takes {fewest} to assess that"
            for row in about["findings"]
            if row["after"] is None
        }

    def reply(self, found: Answered, *, overlay: Overlay | None = None, image: bool = False) -> Reply:
        about, limits = self.manifest, self.manifest.thresholds
        rows = zip(self.classes, found.logits.tolist(), found.probabilities.tolist(), strict=True)
        return Reply(
            model=about.name,
            sha256=about.sha256,
            preprocessing=self.preprocessing,
            calibration=about.calibration,
            kind=found.kind,
            flags=[Flagged(code=flag.name, sentence=flag.says) for flag in found.flags],
            findings=[
                Finding(
                    finding=name,
                    logit=logit,
                    probability=chance,
                    threshold=limits.get(name),
                    decision=chance >= limits[name] if name in limits else None,
                    **self.known[name],
                )
                for name, logit, chance in rows
            ],
            overlay=overlay,
            image=as_uri(_shown(found.image)) if image else None,
        )


def _shown(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`[channel, size, size]` as OpenCV writes it, `[size, size, 3]`."""
    plane = np.moveaxis(image, 0, 2)
    code = cv2.COLOR_GRAY2BGR if plane.shape[2] == 1 else cv2.COLOR_RGB2BGR
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(plane), code), np.uint8)


def overlaid(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The map over the image; where it is nothing the image is as it was."""
    share = heat / heat.max() if heat.max() > 0 else heat
    colours = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS).astype(np.float32)
    cover = (share * OPAQUE)[..., None]
    return np.asarray(np.rint(_shown(image) * (1 - cover) + colours * cover), np.uint8)


def as_uri(picture: NDArray[np.uint8]) -> str:
    _, content = cv2.imencode(".png", picture)
    return f"data:image/png;base64,{base64.b64encode(content.tobytes()).decode()}"
