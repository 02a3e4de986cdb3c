"""A delivered model judged: on the test part, which is looked at once; on validation; or on a data set from elsewhere.

In this order: the ledger has the look, the logits are computed and kept, figures are computed from what is kept. A
process that dies in between leaves no figure without its look; the same command goes on.

Figures are of the model as it is delivered: probabilities by its calibration, decisions by its thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xlite_search.data.dataset import Data
from xlite_search.errors import BadInput
from xlite_search.evaluation.calibration import Calibration, read_calibration
from xlite_search.evaluation.evaluated import Evaluated, Moved, OfFinding
from xlite_search.evaluation.looks import Judged, Look, images_of, look, looks, models_in
from xlite_search.evaluation.scored import PartName, Scored, part_of, scored
from xlite_search.evaluation.subgroups import subgroups
from xlite_search.evaluation.success import Baseline, baseline_of, success
from xlite_search.evaluation.thresholds import Thresholds, read_thresholds
from xlite_search.evaluation.unseen import TEST, VAL, expect_judgeable, images_for, own_data
from xlite_search.model_folder import ModelManifest, read_model
from xlite_search.results.bootstrap import Figure as Drawn
from xlite_search.results.bootstrap import bootstrap
from xlite_search.results.inference import joint
from xlite_search.results.influence import Influence, influence
from xlite_search.results.intervals import Interval, own, share
from xlite_search.training.metrics import THRESHOLD, sigmoid

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float64]
#: of a model that was judged on these images before
NO_LOOK = "no new look: the logits that were kept at its first are read"
OTHER_REASON = ", and --reason is not needed: the first one stands"
MACRO: tuple[Drawn, ...] = ("ap", "f1", "brier", "ece")


@dataclass(frozen=True)
class Delivered:
    """How a model answers: the probability of each finding, and from which probability on it decides for one.

    cuts  `[class]`, NaN where a finding has no threshold; None without any
    """

    calibration: Calibration | None = None
    thresholds: Thresholds | None = None
    cuts: Array | None = None

    @classmethod
    def of(cls, folder: Path) -> Delivered:
        """What lies in a model's folder.

        Raises:
            BadInput: its calibration or its thresholds are another model's.
            Damaged: they are not what was written.
        """
        calibration, thresholds = read_calibration(folder), read_thresholds(folder)
        return cls(calibration, thresholds, thresholds.deciding()[0] if thresholds else None)

    def probabilities(self, logits: NDArray[np.float32]) -> Array:
        """Of logits `[image, class]` of all of the model's findings."""
        return sigmoid(logits) if self.calibration is None else self.calibration.probabilities(logits)

    def judged(self, sha256: str) -> Judged:
        """By its hashes, with those of the weights."""
        chosen = self.thresholds.hash if self.thresholds else ""
        return Judged(sha256=sha256, calibration=self.calibration.hash if self.calibration else "", thresholds=chosen)


def evaluate(
    folder: Path,
    on: str,
    device: torch.device,
    *,
    reason: str = "",
    baseline: str = "",
    counter: Callable[[int, int], None] | None = None,
) -> Evaluated:
    """A model on `test`, `val`, or all images of a data set that was prepared from elsewhere.

    reason    why these images are looked at again, once another model was judged on them
    baseline  folder of a model, or a hybrid's name, whose size is the baseline's; else the teacher's

    Raises:
        BadInput: the images are not there or not the model's, it was trained on their patients, they have no finding of
            its own, or they were looked at and no reason is given; or there is no such baseline.
        Damaged: the ledger, or kept logits, are not what was written.
    """
    about, delivered = read_model(folder), Delivered.of(folder)
    data, part = images_for(about, on)
    expect_judgeable(about, data, part, on, delivered.calibration)
    size = baseline_of(folder, about, baseline)
    before = looks(images_of(data, part)) if on != VAL else []
    taken = None if on == VAL else look_at(folder, data, part, reason)
    by_now = models_in([*before, taken]) if taken else 0
    found = scored(folder, data, part, device, counter)
    judged = _evaluated(folder.name, about, on, data, found, delivered, (taken, by_now), size)
    if taken in before:
        judged = replace(judged, notes=(*judged.notes, NO_LOOK + (OTHER_REASON if reason.strip() else "")))
    return judged


def expect_ready(folder: Path, on: str, *, as_is: bool = False) -> None:
    """Before a look is taken: that the model is what will be delivered. Raises BadInput if it is not calibrated."""
    ready = Delivered.of(folder)
    bare = ready.calibration is None or ready.thresholds is None
    if as_is and not bare:
        raise BadInput(f"--as-is: '{folder.name}' is calibrated, and judged as it is delivered; leave --as-is out")
    if on != VAL and not as_is and bare:
        raise BadInput(
            f"'{folder.name}' is not calibrated, and a look is taken once: `python -m xlite_search calibrate "
            f"{folder.name}` first, or say --as-is"
        )


def look_at(folder: Path, data: Data, part: PartName, reason: str = "") -> Look:
    """The look that a model takes at a part, as it would be delivered now. Raises as `looks.look`."""
    return look(images_of(data, part), folder.name, Delivered.of(folder).judged(read_model(folder).sha256), reason)


def _evaluated(
    name: str,
    about: ModelManifest,
    on: str,
    data: Data,
    found: Scored,
    delivered: Delivered,
    looked: tuple[Look | None, int],
    baseline: Baseline,
) -> Evaluated:
    columns = np.array([about.classes.index(each) for each in found.classes])
    probabilities = _probabilities(about, found, delivered, columns)
    cuts = None if delivered.cuts is None else delivered.cuts[columns]
    decisions = None if cuts is None else probabilities >= cuts
    by_finding = influence(found.logits, found.truth, found.groups)
    known = np.asarray(np.isfinite(by_finding.values).all(axis=(1, 2)))
    macro = by_finding.of(known)
    auroc = own(np.array([macro.score.mean()]), joint([macro]))[0]
    rows = [_of_finding(found, place, by_finding, cuts, decisions) for place in range(len(found.classes))]
    fitted = _fitted_prevalence(about, found.classes)
    return Evaluated(
        name,
        on,
        looked[0],
        len(found.rows),
        len(np.unique(found.groups)),
        auroc,
        _figures(found, probabilities, cuts, known),
        tuple(sorted(rows, key=lambda row: row.positives)),
        tuple(_moved(found, probabilities, fitted)) if on != VAL else (),
        tuple(success(about, macro, looked[1], baseline)) if on != VAL else (),
        subgroups(found, data.packed.table, decisions),
        tuple(each for each in about.classes if each not in found.classes),
        tuple(_notes(about, on, delivered, data)),
        delivered.judged(about.sha256).model_dump(),
        looked[1],
    )


def _probabilities(about: ModelManifest, found: Scored, delivered: Delivered, columns: NDArray[np.intp]) -> Array:
    """Of the findings that are judged. A calibration has a line for each finding of the model."""
    whole = np.zeros((len(found.rows), len(about.classes)), np.float32)
    whole[:, columns] = found.logits
    return np.asarray(delivered.probabilities(whole)[:, columns], np.float64)


def _of_finding(
    found: Scored, place: int, by_finding: Influence, cuts: Array | None, decisions: NDArray[np.bool_] | None
) -> OfFinding:
    truth, groups = found.truth[:, place], found.groups
    chosen = np.arange(len(found.classes)) == place
    one = by_finding.of(chosen)
    precision = influence(found.logits[:, chosen], found.truth[:, chosen], groups, "ap")
    areas = [own(each.score, joint([each]))[0] for each in (one, precision)]
    counts = int(truth.sum()), len(np.unique(groups[truth]))
    plain = OfFinding(found.classes[place], *counts, areas[0], areas[1], share(truth, groups))
    if decisions is None or cuts is None or not math.isfinite(cuts[place]):
        return plain
    said = decisions[:, place]
    rates = share(said[truth], groups[truth]), share(~said[~truth], groups[~truth]), share(truth[said], groups[said])
    sensitivity, specificity, of_those_said = rates
    return replace(
        plain,
        threshold=float(cuts[place]),
        sensitivity=sensitivity,
        specificity=specificity,
        precision=of_those_said,
    )


def _figures(
    found: Scored, probabilities: Array, cuts: Array | None, known: NDArray[np.bool_]
) -> dict[Drawn, Interval]:
    chances = probabilities[:, known].clip(1e-12, 1 - 1e-12)
    logits = np.log(chances / (1 - chances))
    at = THRESHOLD if cuts is None else cuts[known]  # a finding without a threshold is never decided for
    names = [name for name, kept in zip(found.classes, known, strict=True) if kept]
    drawn = bootstrap(logits[None], found.truth[:, known], found.groups, names, thresholds=at, figures=MACRO)
    return {figure: drawn.macro(figure, 0) for figure in MACRO}


def _fitted_prevalence(about: ModelManifest, classes: Sequence[str]) -> dict[str, Interval]:
    """Of each finding where the model's calibration is fitted: its validation part; empty if that is not here."""
    data = own_data(about)
    if data is None or not len(data.split.rows.get("val", ())):
        return {}
    part = part_of(data, "val")
    groups = np.unique([data.packed.table.groups[row] for row in part.rows], return_inverse=True)[1].reshape(-1)
    return {
        name: share(part.labels[:, data.classes.index(name)] > 0, groups) for name in classes if name in data.classes
    }


def _moved(found: Scored, probabilities: Array, fitted: Mapping[str, Interval]) -> Iterator[Moved]:
    """Findings whose prevalence here and there have intervals apart."""
    for place, name in enumerate(found.classes):
        truth = found.truth[:, place]
        there, here = fitted.get(name), share(truth, found.groups)
        if there is None or not 0 < there.value < 1 or not 0 < here.value < 1:
            continue
        if here.low <= there.high and there.low <= here.high:
            continue
        chance = probabilities[:, place].clip(1e-12, 1 - 1e-12)
        corrected = sigmoid(np.log(chance / (1 - chance)) + _log_odds(here.value) - _log_odds(there.value))
        briers = [float(((each - truth) ** 2).mean()) for each in (chance, corrected)]
        yield Moved(name, there.value, here.value, float(chance.mean()), float(corrected.mean()), *briers)


def _log_odds(share_: float) -> float:
    return math.log(share_ / (1 - share_))


def _notes(about: ModelManifest, on: str, delivered: Delivered, data: Data) -> Iterator[str]:
    if delivered.calibration is None:
        yield "not calibrated: probabilities are the sigmoid of its logits; `calibrate` it before it is judged"
    if delivered.cuts is None:
        yield "no thresholds: sensitivity and specificity are not told; `calibrate` writes them"
    if about.trained_on is None:
        yield "whom the model was trained on is not known: it may have seen these patients"
    if on not in (TEST, VAL) and own_data(about) is None:
        yield "its own data are not here: whether it was trained on these images under other names was not looked at"
    if on == VAL:
        yield "on validation, which chose the epoch and fits calibration and thresholds: too good by that"
    if delivered.calibration is not None and delivered.calibration.caveat:
        yield delivered.calibration.caveat
    if data.packed.incomplete:
        yield data.packed.incomplete
