"""Maps of cases: of each image with a finding its map, its probability and, if asked for, its occlusion map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from xlite_search.data.dataset import Part
from xlite_search.data.loaders import ordered_batches
from xlite_search.evaluation.calibration import Calibration
from xlite_search.evaluation.cases import Counter
from xlite_search.evaluation.correlations import Correlation, summary
from xlite_search.evaluation.localisation import Case, Guess, guess_of, judged
from xlite_search.evaluation.maps import BATCH, Method, class_maps, occlusion_maps
from xlite_search.evaluation.sanity import DEPTHS, rank_correlation, reinitialised
from xlite_search.model import Model
from xlite_search.training.metrics import sigmoid

#: a case with its image's place in the part
Placed = tuple[int, Case]
#: how often other weights are drawn
SANITY_DRAWS = 5


class Chance(NamedTuple):
    """A finding's probability: the sigmoid of its logit, and by the model's calibration, None without one."""

    uncalibrated: float
    calibrated: float | None

    @property
    def shown(self) -> float:
        return self.uncalibrated if self.calibrated is None else self.calibrated


class Made(NamedTuple):
    """An image, uint8 `[channel, size, size]`, with a finding's map and probability."""

    pixels: NDArray[np.uint8]
    map: NDArray[np.float32]
    chance: Chance


@dataclass(frozen=True)
class Shown:
    """A case with its map, as it is drawn; `occlusion` is its occlusion map, if asked for."""

    case: Case
    pixels: NDArray[np.uint8]
    map: NDArray[np.float32]
    chance: Chance
    occlusion: NDArray[np.float32] | None = None

    @property
    def guess(self) -> Guess | None:
        """The map's maximum, and the box around its region."""
        return guess_of(self.map)

    def as_json(self, constant: Guess | None) -> dict[str, Any]:
        """Without pixels and maps; figures only where there are boxes. Lengths are pixels of the prepared image."""
        of = self.case
        about: dict[str, Any] = {"image": of.image, "finding": of.finding, "probability": self.chance.shown}
        about |= {"uncalibrated": self.chance.uncalibrated}
        about |= {"boxes": [list(box[1:]) for box in of.boxes], "map": _guess_json(self.guess)}
        if of.boxes:
            about |= {"figures": judged(of, self.guess), "constant": _guess_json(constant)}
        if self.occlusion is not None:
            about["occlusion"] = _guess_json(guess_of(self.occlusion))
        return about


@dataclass(frozen=True)
class CaseMaps:
    """Makes maps by a method: of an image only those of its findings that have a case."""

    model: Model
    part: Part
    method: Method
    device: torch.device
    calibration: Calibration | None = None

    def guesses(self, cases: Sequence[Placed], counter: Counter) -> tuple[list[Guess | None], list[float]]:
        """Of every case its map's guess, and its probability."""
        found = [(guess_of(made.map), made.chance.shown) for made in self._made(cases, counter)]
        return [guess for guess, _ in found], [probability for _, probability in found]

    def shown(self, cases: Sequence[Placed], occlusion: Counter | None = None) -> Iterator[Shown]:
        """Cases as they are drawn; `occlusion` is told how many images are done, and asks for these maps too."""
        covered = self._occluded(cases, occlusion) if occlusion else {}
        for (place, case), made in zip(cases, self._made(cases), strict=True):
            yield Shown(case, made.pixels, made.map, made.chance, covered.get((place, case.finding)))

    def alike(self, cases: Sequence[Placed]) -> dict[str, Correlation]:
        """Rank correlation of the maps with those of weights drawn anew, by how deep; intervals are over other draws,
        for these cases."""
        own = [made.map for made in self._made(cases)]
        found: dict[str, Correlation] = {}
        for depth in DEPTHS:
            pairs: list[float] = []
            for seed in range(SANITY_DRAWS):
                other = replace(self, model=reinitialised(self.model, depth, seed))
                theirs = [made.map for made in other._made(cases)]
                pairs += [rank_correlation(a, b) for a, b in zip(own, theirs, strict=True)]
            found[depth] = summary(pairs, [seed for seed in range(SANITY_DRAWS) for _ in own])
        return found

    def _made(self, cases: Sequence[Placed], counter: Counter = lambda _done, _total: None) -> Iterator[Made]:
        """Of each case, in their order; an image with several findings goes through the model once."""
        by_place: dict[int, list[str]] = {}
        for place, case in cases:
            by_place.setdefault(place, []).append(case.finding)
        made: dict[tuple[int, str], Made] = {}
        order, done = sorted(by_place), 0
        waiting = iter(cases)
        following = next(waiting, None)
        for images, places in self._batches(order):
            made |= self._of_batch(images, places, by_place)
            done += len(places)
            counter(done, len(order))
            while following and (key := (following[0], following[1].finding)) in made:
                yield made.pop(key)
                following = next(waiting, None)

    def _of_batch(
        self, images: torch.Tensor, places: Sequence[int], findings: dict[int, list[str]]
    ) -> dict[tuple[int, str], Made]:
        wanted = sorted({name for place in places for name in findings[place]})
        columns = [self.model.classes.index(name) for name in wanted]
        maps = class_maps(self.model, images, columns, self.method)
        logits, pixels = self.model.logits(images).cpu().numpy()[:, columns], images.cpu().numpy()
        plain = sigmoid(logits)
        by_line = None if self.calibration is None else self.calibration.probabilities(logits, wanted)
        found = {}
        for number, place in enumerate(places):
            for name in findings[place]:
                at = number, wanted.index(name)
                chance = Chance(float(plain[at]), None if by_line is None else float(by_line[at]))
                found[place, name] = Made(pixels[number], maps[at], chance)
        return found

    def _occluded(self, cases: Sequence[Placed], counter: Counter) -> dict[tuple[int, str], NDArray[np.float32]]:
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


def against_occlusion(shown: Sequence[Shown]) -> Correlation:
    """Rank correlation of both maps, its interval by patient, and the pointing of both where there are boxes."""
    both = [(each, each.occlusion) for each in shown if each.occlusion is not None]
    pairs = [rank_correlation(each.map, covered) for each, covered in both]
    found = summary(pairs, [each.case.patient for each, _ in both])
    boxed = [(each.case, each.guess, guess_of(covered)) for each, covered in both if each.case.boxes]
    found["boxed"] = len(boxed)
    if boxed:
        found["pointing_of_maps"] = float(np.mean([judged(case, ours)["pointing"] for case, ours, _ in boxed]))
        found["pointing_of_occlusion"] = float(np.mean([judged(case, theirs)["pointing"] for case, _, theirs in boxed]))
    return found


def _guess_json(guess: Guess | None) -> dict[str, list[float]] | None:
    return None if guess is None else {"point": list(guess.point), "box": list(guess.box)}
