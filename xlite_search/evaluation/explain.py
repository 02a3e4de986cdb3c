"""What a delivered model looks at: maps of images, how well they agree with boxes, and whether they are its own.

A map's figures are of all images of a part that have boxes. A few cases are shown: those that lie evenly along each
finding's probabilities, so that nobody chose the fine ones; without boxes the most probable positives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xlite_search.data.dataset import Data, Part
from xlite_search.data.loaders import ordered_batches
from xlite_search.errors import BadInput
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
from xlite_search.evaluation.localisation import SHARE, Case, Guess, Row, constants, guess_of, judged, localisation
from xlite_search.evaluation.maps import BATCH, Maps, Method, class_maps, occlusion_maps
from xlite_search.evaluation.sanity import ALIKE, DEPTHS, rank_correlation, reinitialised
from xlite_search.evaluation.scored import part_of
from xlite_search.model import Model, load_model
from xlite_search.training.metrics import sigmoid

Progress = Callable[[str], Counter]
#: cases whose maps are compared with those of other weights, and how often these are drawn
SANITY_CASES, SANITY_DRAWS = 24, 3


@dataclass(frozen=True)
class Shown:
    """A case with its map, as it is drawn.

    pixels       uint8 `[channel, size, size]`
    probability  sigmoid of the logit, not calibrated
    occlusion    its occlusion map, if asked for
    """

    case: Case
    pixels: NDArray[np.uint8]
    map: NDArray[np.float32]
    probability: float
    occlusion: NDArray[np.float32] | None = None

    @property
    def guess(self) -> Guess | None:
        """The map's maximum, and the box around its region."""
        return guess_of(self.map)

    def as_json(self, constant: Guess | None) -> dict[str, Any]:
        """Without pixels and maps; figures only where there are boxes. Lengths are pixels of the prepared image."""
        of = self.case
        about: dict[str, Any] = {"image": of.image, "finding": of.finding, "probability": self.probability}
        about |= {"boxes": [list(box[1:]) for box in of.boxes], "map": _guess_json(self.guess)}
        if of.boxes:
            about |= {"figures": judged(of, self.guess), "constant": _guess_json(constant)}
        if self.occlusion is not None:
            about["occlusion"] = _guess_json(guess_of(self.occlusion))
        return about


@dataclass(frozen=True)
class Explained:
    """All that was found. `alike`: mean rank correlation of the maps with those of weights drawn anew, by depth;
    `occlusion`: that with the occlusion maps, and both maps' pointing on the cases shown, if asked for."""

    rows: list[Row]
    shown: list[Shown]
    alike: dict[str, dict[str, float | int | None]]
    occlusion: dict[str, float | int | None] | None
    notes: list[str]
    about: dict[str, Any]
    constant: dict[tuple[str, str], Guess] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What these are maps of."""
        of, data = self.about["model"], self.about["data"]
        images = f"{self.about['images_with_boxes']:,} images with boxes" if self.rows else "no boxes"
        return f"{self.about['method']} of {of['name']} on {data['name']}, {data['part']} part: {images}"

    def as_json(self) -> dict[str, Any]:
        """Every number that is printed or drawn."""
        return self.about | {
            "localisation": [_row_json(row) for row in self.rows],
            "sanity": self.alike,
            "occlusion": self.occlusion,
            "shown": [each.as_json(self.constant.get((each.case.image, each.case.finding))) for each in self.shown],
            "notes": self.notes,
        }


def explained(
    folder: Path, data: Data, asked: Asked, device: torch.device, progress: Progress = lambda what: _quiet
) -> Explained:
    """Maps of a model folder on a part of its data. `progress` gives for a word what is told how many images are done.

    Raises BadInput: a finding is not known to both, the part is empty, or a box list has none of its images.
    """
    model, part = load_model(folder, device), part_of(data, asked.part)
    findings = findings_of(model, data, asked.findings)
    if asked.images < 1:
        raise BadInput(f"--images {asked.images}: expected how many cases to show, 1 or more")
    cases = cases_of(part, findings, boxes_of(data.packed, part, asked))
    places = [place for place, case in cases]
    maker = _Maker(model, part, asked.method, device)
    if cases:
        guesses, probabilities = maker.guesses(cases, progress("maps of images with boxes"))
        rows = localisation([case for _, case in cases], guesses)
        chosen = [cases[number] for number in evenly([case.finding for _, case in cases], probabilities, asked.images)]
        constant = dict(zip(names_of(cases), constants([case for _, case in cases]), strict=True))
    else:
        rows, constant = [], {}
        chosen = most_probable(folder, data, part, findings, asked, device, progress("images"))
    shown = list(maker.shown(chosen, progress("occluded images") if asked.occlusion else None))
    alike = maker.alike(chosen[:SANITY_CASES])
    about = _about(model, data, asked, findings, len(set(places)))
    occlusion = _against_occlusion(shown) if asked.occlusion else None
    notes = [*_verdict(rows, asked), *_notes(model, data, asked, alike), *_said_of_occlusion(occlusion)]
    return Explained(rows, shown, alike, occlusion, notes, about, constant)


def _quiet(_done: int, _total: int) -> None:
    pass


@dataclass(frozen=True)
class _Maker:
    """Makes maps of cases: only those findings of an image that have one."""

    model: Model
    part: Part
    method: Method
    device: torch.device

    def guesses(self, cases: Sequence[tuple[int, Case]], counter: Counter) -> tuple[list[Guess | None], list[float]]:
        """Of every case its map's guess, and its probability."""
        found = [(guess_of(shown), probability) for _, shown, probability in self._maps(cases, counter)]
        return [guess for guess, _ in found], [probability for _, probability in found]

    def shown(self, cases: Sequence[tuple[int, Case]], occlusion: Counter | None) -> Iterator[Shown]:
        covered = self._occluded(cases, occlusion) if occlusion else {}
        made = self._maps(cases)
        for (place, case), (pixels, shown, probability) in zip(cases, made, strict=True):
            yield Shown(case, pixels, shown, probability, covered.get((place, case.finding)))

    def alike(self, cases: Sequence[tuple[int, Case]]) -> dict[str, dict[str, float | int | None]]:
        """Rank correlation of the maps with those of weights drawn anew, by how deep; a pair of which one map is empty
        or flat has none, and is counted."""
        own = [shown for _, shown, _ in self._maps(cases)]
        found: dict[str, dict[str, float | int | None]] = {}
        for depth in DEPTHS:
            pairs: list[float] = []
            for seed in range(SANITY_DRAWS):
                other = _Maker(reinitialised(self.model, depth, seed), self.part, self.method, self.device)
                theirs = [shown for _, shown, _ in other._maps(cases)]
                pairs += [rank_correlation(a, b) for a, b in zip(own, theirs, strict=True)]
            found[depth] = _summary(pairs)
        return found

    def _maps(
        self, cases: Sequence[tuple[int, Case]], counter: Counter = _quiet
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32], float]]:
        """Pixels, map and probability of each case, in their order; an image with several findings is seen once."""
        by_place: dict[int, list[str]] = {}
        for place, case in cases:
            by_place.setdefault(place, []).append(case.finding)
        made: dict[tuple[int, str], tuple[NDArray[np.uint8], NDArray[np.float32], float]] = {}
        order, done = sorted(by_place), 0
        waiting = iter(cases)
        following = next(waiting, None)
        for images, places in self._batches(order):
            wanted = sorted({name for place in places for name in by_place[place]})
            columns = [self.model.classes.index(name) for name in wanted]
            maps: Maps = class_maps(self.model, images, columns, self.method)
            chances = sigmoid(self.model.logits(images).cpu().numpy())[:, columns]
            pixels = images.cpu().numpy()
            for number, place in enumerate(places):
                for name in by_place[place]:
                    at = wanted.index(name)
                    made[place, name] = pixels[number], maps[number, at], float(chances[number, at])
            done += len(places)
            counter(done, len(order))
            while following and (key := (following[0], following[1].finding)) in made:
                yield made.pop(key)
                following = next(waiting, None)

    def _occluded(
        self, cases: Sequence[tuple[int, Case]], counter: Counter
    ) -> dict[tuple[int, str], NDArray[np.float32]]:
        found: dict[tuple[int, str], NDArray[np.float32]] = {}
        order = sorted({place for place, _ in cases})
        for images, places in self._batches(order, 1):
            names = [case.finding for place, case in cases if place == places[0]]
            maps = occlusion_maps(self.model, images, [self.model.classes.index(name) for name in names])
            found |= {(places[0], name): maps[0, number] for number, name in enumerate(names)}
            counter(order.index(places[0]) + 1, len(order))
        return found

    def _batches(self, places: Sequence[int], size: int = BATCH) -> Iterator[tuple[torch.Tensor, list[int]]]:
        begin = 0
        for batch in ordered_batches(self.part, size, self.device, positions=np.array(places, np.int64)):
            some = list(places[begin : begin + len(batch.images)])
            begin += len(some)
            yield batch.images, some


def _against_occlusion(shown: Sequence[Shown]) -> dict[str, float | int | None]:
    """Rank correlation of both maps, and the pointing of both where there are boxes."""
    pairs = [rank_correlation(each.map, each.occlusion) for each in shown if each.occlusion is not None]
    boxed = [each for each in shown if each.case.boxes and each.occlusion is not None]
    found = _summary(pairs) | {"boxed": len(boxed)}
    if boxed:
        both = [(each.guess, guess_of(each.occlusion)) for each in boxed if each.occlusion is not None]
        ours, theirs = (
            [judged(each.case, pair[k])["pointing"] for each, pair in zip(boxed, both, strict=True)] for k in (0, 1)
        )
        found |= {"pointing_of_maps": float(np.mean(ours)), "pointing_of_occlusion": float(np.mean(theirs))}
    return found


def _summary(pairs: Sequence[float]) -> dict[str, float | int | None]:
    known = [pair for pair in pairs if np.isfinite(pair)]
    mean = float(np.mean(known)) if known else None
    return {"rank_correlation": mean, "pairs": len(known), "without": len(pairs) - len(known)}


def _verdict(rows: Sequence[Row], asked: Asked) -> list[str]:
    """Whether the maps' maxima are in the boxes more often than a guess that sees no image."""
    if not rows:
        return [
            f"no image of the {asked.part} part has a box: there are maps and no figures of where they are right; "
            f"give --boxes FILE, or another --part"
        ]
    over_all = rows[-1]
    ours, theirs, gap = (each["pointing"] for each in (over_all.maps, over_all.constant, over_all.gap))
    figures = (
        f"pointing {ours.value:.2f}, that of a guess that sees no image {theirs.value:.2f}, by chance "
        f"{over_all.chance:.2f}"
    )
    if gap.low > 0:
        return [f"{figures}: the maps know more of the place than that guess"]
    worse = "know less of the place than that guess" if gap.high < 0 else "are not shown to know more than that guess"
    return [f"{figures}: the maps {worse}; do not show them as the place of a finding"]


def _said_of_occlusion(found: Mapping[str, float | int | None] | None) -> list[str]:
    if found is None:
        return []
    told = f"occlusion, which knows no layer: rank correlation with these maps {_said(found['rank_correlation'])}"
    if found["boxed"]:
        ours, theirs = (_said(found[name]) for name in ("pointing_of_maps", "pointing_of_occlusion"))
        told += f"; on the {found['boxed']} cases drawn its pointing is {theirs}, and theirs {ours}"
    return [told]


def _notes(model: Model, data: Data, asked: Asked, alike: Mapping[str, Any]) -> list[str]:
    """What else a reader has to know, a sentence each."""
    notes = []
    seen = {*(model.manifest.trained_on.patients if model.manifest.trained_on else ())}
    table = data.packed.table
    if seen & {table.groups[row] for row in part_of(data, asked.part).rows}:
        notes.append(f"the model was fitted on patients of the {asked.part} part: its maps look better there")
    if asked.part == "test":
        notes.append(
            "these maps and figures are of the test part: it has been seen, and whoever changes the model after this "
            "no longer has a test that nobody looked at"
        )
    told = ", ".join(f"{depth} {_said(each['rank_correlation'])}" for depth, each in alike.items())
    notes.append(f"rank correlation with the maps of weights drawn anew, 1 the same and 0 unrelated: {told}")
    head = alike["head"]["rank_correlation"]
    if head is not None and head > ALIKE:
        notes.append(
            f"a head with weights drawn anew gives nearly the same maps (rank correlation {head:.2f}): they show the "
            f"images and hardly what this model learned"
        )
    return notes


def _said(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _about(model: Model, data: Data, asked: Asked, findings: Sequence[str], images: int) -> dict[str, Any]:
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
        "share_of_maximum": SHARE,
        "findings": list(findings),
        "images_with_boxes": images,
    }


def _guess_json(guess: Guess | None) -> dict[str, list[float]] | None:
    return None if guess is None else {"point": list(guess.point), "box": list(guess.box)}


def _row_json(row: Row) -> dict[str, Any]:
    kinds = ("maps", "constant", "gap")
    plain = {name: value for name, value in asdict(row).items() if name not in kinds}
    return plain | {kind: {name: each.as_json() for name, each in getattr(row, kind).items()} for kind in kinds}
