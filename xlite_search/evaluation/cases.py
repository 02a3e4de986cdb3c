"""Cases that are explained, an image and a finding each: all that have boxes, and those that are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from xlite_search.data.boxes import Box, outside
from xlite_search.data.dataset import Data, Part
from xlite_search.data.packed import PackedSet
from xlite_search.data.sources.box_list import read_boxes
from xlite_search.errors import BadInput, did_you_mean
from xlite_search.evaluation.localisation import Case
from xlite_search.evaluation.maps import Method
from xlite_search.evaluation.scored import PartName, scored
from xlite_search.model_folder import ModelManifest

Counter = Callable[[int, int], None]
Boxes = Mapping[int, tuple[Box, ...]]


@dataclass(frozen=True)
class Asked:
    """What is to be explained: `findings` (none: all that model and data know), how many cases are shown."""

    part: PartName = "val"
    findings: tuple[str, ...] = ()
    images: int = 24
    method: Method = "gradcam"
    occlusion: bool = False
    boxes: Path | None = None


def words_of(part: PartName) -> str:
    """A part as a sentence has it."""
    return "the data set" if part == "all" else f"the {part} part"


def findings_of(about: ModelManifest, data: Data, wanted: Sequence[str]) -> tuple[str, ...]:
    """Findings that model and data know, or those that are wanted. Raises BadInput if one is unknown."""
    both = [name for name in about.classes if name in data.classes]
    if not both:
        raise BadInput(
            f"'{about.model}' knows none of the findings of data set '{data.packed.folder.name}' "
            f"({', '.join(data.classes)}); its own are {', '.join(about.classes)}"
        )
    for name in wanted:
        if name not in both:
            suggestion = did_you_mean(name, both) or f"; known are {', '.join(both)}"
            raise BadInput(f"--findings {name}: no finding of this model and data set{suggestion}")
    return tuple(wanted) or tuple(both)


def boxes_of(packed: PackedSet, part: Part, asked: Asked) -> Boxes:
    """On the prepared images, by row: of the list that is given, or those that were prepared with the images."""
    if asked.boxes is None:
        return {row: packed.boxes(row) for row in part.rows.tolist() if packed.table.boxes.get(row)}
    raw = read_boxes(asked.boxes, packed.table.names, packed.classes)
    found = {}
    for row in part.rows.tolist():
        if row in raw:
            height, width = packed.table.sizes[row].tolist()
            if wrong := outside(raw[row], height, width):
                raise BadInput(
                    f"{asked.boxes}: image {packed.table.names[row]} has {width} x {height} px, and {wrong}: boxes are "
                    f"in pixels of the images that were prepared"
                )
            found[row] = tuple(map(packed.preprocess.placement(height, width).onto, raw[row]))
    if not found:
        raise BadInput(f"{asked.boxes}: none of the images that have a box in it is in {words_of(asked.part)}")
    return found


def cases_of(part: Part, findings: Sequence[str], boxes: Boxes) -> list[tuple[int, Case]]:
    """Each with its image's place in the part."""
    return [
        (place, case_of(part, place, finding, here))
        for place, row in enumerate(part.rows.tolist())
        for finding in findings
        if (here := tuple(box for box in boxes.get(row, ()) if box.label == finding))
    ]


def case_of(part: Part, place: int, finding: str, boxes: tuple[Box, ...] = ()) -> Case:
    """Of the image at a place of the part."""
    table, row = part.packed.table, int(part.rows[place])
    return Case(table.names[row], table.groups[row], finding, boxes, part.packed.size)


def names_of(cases: Sequence[tuple[int, Case]]) -> list[tuple[str, str]]:
    """Image and finding of each."""
    return [(case.image, case.finding) for _, case in cases]


def evenly(findings: Sequence[str], probabilities: Sequence[float], count: int) -> list[int]:
    """Numbers of at most `count` cases: of each finding in turn as many, evenly along its probabilities, the highest
    first. One of a finding alone is the one in the middle."""
    names = sorted(set(findings))
    each = max(1, -(-count // len(names)))
    picked: list[list[int]] = []
    for name in names:
        own = [number for number, finding in enumerate(findings) if finding == name]
        own.sort(key=lambda number: (-probabilities[number], number))
        many = min(each, len(own))
        picked.append([own[int((place + 0.5) * len(own) / many)] for place in range(many)])
    kept: list[list[int]] = [[] for _ in names]
    for turn in range(each):
        for own, some in zip(picked, kept, strict=True):
            if turn < len(own) and sum(map(len, kept)) < count:
                some.append(own[turn])
    return [number for some in kept for number in some]


def most_probable(
    folder: Path,
    data: Data,
    part: Part,
    findings: Sequence[str],
    asked: Asked,
    device: torch.device,
    counter: Counter,
) -> list[tuple[int, Case]]:
    """Images with a finding, those first that the model finds most probable, of each finding as many."""
    of = scored(folder, data, asked.part, device, counter)
    each, chosen = max(1, -(-asked.images // len(findings))), []
    for finding in findings:
        column = of.classes.index(finding)
        order = np.argsort(-of.logits[:, column], kind="stable")
        positive = [int(place) for place in order if of.truth[place, column]][:each]
        chosen += [(place, case_of(part, place, finding)) for place in positive]
    if not chosen:
        raise BadInput(
            f"{words_of(asked.part)} has neither a box nor an image with {', '.join(findings)}: name other --findings, "
            f"or another --part"
        )
    return chosen[: asked.images]
