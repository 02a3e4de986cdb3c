"""Thresholds on calibrated probabilities, chosen by finding on the validation part.

    thresholds.json   `Thresholds`, beside the model and the calibration that it names

    f1           the best F1
    youden       the most sensitivity + specificity
    sensitivity  the highest that keeps a sensitivity of S with a confidence of 95 %

The last is a tolerance bound (Wilks 1941): of m positive patients, each with the lowest of its positive images'
scores, the k-th lowest score, k the largest with BinomCDF(k - 1; m, 1 - S) <= 0.05. With S = 0.90 it takes 29 of them.
The threshold that is merely met on these images keeps S on others in 35 to 57 % of draws.

A threshold is halfway, in log-odds, between the lowest score that it flags and the next one below, so that rounding
moves no image across.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from pydantic import Field

from xlite_search import storage
from xlite_search.errors import BadInput, did_you_mean
from xlite_search.evaluation.calibration import Calibration, read_calibration
from xlite_search.evaluation.estimates import Array, Estimate, Groups, Truth, proportion
from xlite_search.evaluation.reliability import net_benefit, upper_end
from xlite_search.results.inference import CONFIDENCE
from xlite_search.spec import Spec, parse
from xlite_search.training.metrics import sigmoid

FILE = "thresholds.json"
SENSITIVITY = 0.9
Rule = Literal["sensitivity", "youden", "f1"]
RULES: tuple[Rule, ...] = get_args(Rule)
#: points of a net benefit curve, and where it ends at the latest: at 1 a false positive costs infinitely much
POINTS, HIGHEST = 40, 0.99


class Threshold(Spec):
    """From which calibrated probability on an image is flagged, and what that does to the images it was chosen on.

    precision  the part of the flagged images that has the finding
    k          which of the positive patients, from the lowest, it is; 0 if it was not chosen so
    """

    probability: float = Field(ge=0, le=1)
    sensitivity: Estimate
    specificity: Estimate
    precision: Estimate
    flagged: float
    k: int = 0


class NetBenefit(Spec):
    """Net benefit of acting from each probability on, of out-of-fold probabilities; and of acting on every image."""

    thresholds: tuple[float, ...]
    model: tuple[Estimate, ...]
    everyone: tuple[float, ...]


class OfFinding(Spec):
    """A finding's thresholds; what there is none of is None, and `refused` says why."""

    finding: str
    positives: int
    positive_patients: int
    sensitivity: Threshold | None = None
    youden: Threshold | None = None
    f1: Threshold | None = None
    refused: str = ""
    net_benefit: NetBenefit | None = None

    def by(self, rule: Rule) -> Threshold | None:
        found: Threshold | None = getattr(self, rule)
        return found


class Thresholds(Spec):
    """Thresholds, and the model and the calibration that they belong to.

    sha256       of the model's weights
    calibration  its hash
    at_least     the sensitivity that rule `sensitivity` keeps, with this `confidence`
    decides      the rule that the delivered model decides by; a finding that has none of it, by the best F1
    findings     one each, in the order of the model's logits
    """

    sha256: str
    calibration: str
    caveat: str = ""
    at_least: float = Field(gt=0, lt=1)
    confidence: float = CONFIDENCE
    decides: Rule = "sensitivity"
    findings: tuple[OfFinding, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(each.finding for each in self.findings)

    @property
    def hash(self) -> str:
        """Of all that they say."""
        return storage.digest(self.model_dump(mode="json"))

    def probabilities(self, rule: Rule, classes: Sequence[str] | None = None) -> Array:
        """A rule's thresholds, `[class]`, NaN where there is none; `classes` names them, if they are not all."""
        known = {each.finding: each.by(rule) for each in self.findings}
        names = self.classes if classes is None else classes
        return np.array([found.probability if (found := known[name]) else math.nan for name in names])

    def deciding(self, classes: Sequence[str] | None = None) -> tuple[Array, tuple[str, ...]]:
        """What the delivered model decides by: thresholds `[class]`, NaN where there is none, and the rule of each."""
        chosen, best = self.probabilities(self.decides, classes), self.probabilities("f1", classes)
        own = np.isfinite(chosen)
        rules = np.where(own, self.decides, np.where(np.isfinite(best), "f1", ""))
        return np.where(own, chosen, best), tuple(rules.tolist())


def tolerance(patients: int, sensitivity: float) -> int:
    """The largest k with BinomCDF(k - 1; patients, 1 - sensitivity) <= 0.05; 0 if there is none."""
    from scipy.special import bdtr

    misses = np.arange(patients)
    return int((bdtr(misses, patients, 1 - sensitivity) <= 1 - CONFIDENCE).sum())


def needed(sensitivity: float) -> int:
    """Positive patients without whom no threshold keeps this sensitivity with a confidence of 95 %."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(sensitivity))


def lowest(scores: Array, truth: Truth, groups: Groups) -> Array:
    """The lowest score of each positive patient's positive images, in order."""
    names, whose = np.unique(groups[truth], return_inverse=True)
    found = np.full(len(names), np.inf)
    np.minimum.at(found, whose.reshape(-1), scores[truth])
    return np.sort(found)


def by_sensitivity(scores: Array, truth: Truth, groups: Groups, sensitivity: float) -> tuple[float, int] | None:
    """The lowest score that is flagged, and which patient's it is; None if there are too few positive patients."""
    of_patients = lowest(scores, truth, groups)
    k = tolerance(len(of_patients), sensitivity)
    return (float(of_patients[k - 1]), k) if k else None


def by_counts(scores: Array, truth: Truth, rule: Literal["f1", "youden"]) -> float:
    """The lowest score that is flagged at the best F1, or Youden's J; of equally good ones the highest."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(truth[order])[last].astype(np.float64)
    wrong = last + 1 - hits
    positives, negatives = int(truth.sum()), int((~truth).sum())
    worth = 2 * hits / (hits + wrong + positives) if rule == "f1" else hits / positives - wrong / negatives
    return float(scores[order][last[int(np.argmax(worth))]])


def between(scores: Array, flagged: float) -> float:
    """Halfway between the lowest flagged score and the next one below; the former itself, if it is the lowest."""
    below = scores[scores < flagged]
    return (flagged + float(below.max())) / 2 if len(below) else flagged


def threshold(scores: Array, truth: Truth, groups: Groups, flagged: float, k: int = 0) -> Threshold:
    """The threshold that flags all from this score on, with what it does to these images."""
    said = scores >= flagged
    return Threshold(
        probability=float(sigmoid(np.array(between(scores, flagged)))),
        sensitivity=proportion(said[truth], groups[truth]),
        specificity=proportion(~said[~truth], groups[~truth]),
        precision=proportion(truth[said], groups[said]),
        flagged=float(said.mean()),
        k=k,
    )


def of_finding(
    name: str, scores: Array, crossed: Array, truth: Truth, groups: Groups, sensitivity: float = SENSITIVITY
) -> OfFinding:
    """Of a finding's calibrated log-odds `[image]`; `crossed` are the out-of-fold ones, for the net benefit."""
    positives, patients = int(truth.sum()), len(np.unique(groups[truth]))
    found = OfFinding(finding=name, positives=positives, positive_patients=patients)
    if not 0 < positives < len(truth):
        kind = "without" if positives == 0 else "with"
        return found.model_copy(update={"refused": f"{name}: no threshold, every validation image is {kind} it"})
    kept = by_sensitivity(scores, truth, groups, sensitivity)
    refused = "" if kept else too_few(name, patients, sensitivity)
    chosen = {rule: threshold(scores, truth, groups, by_counts(scores, truth, rule)) for rule in ("f1", "youden")}
    grid = min(upper_end(sigmoid(crossed)), HIGHEST) * np.arange(1, POINTS + 1) / POINTS
    model, everyone = net_benefit(sigmoid(crossed), truth, groups, grid)
    curve = NetBenefit(thresholds=tuple(grid.tolist()), model=tuple(model), everyone=tuple(everyone))
    update = {"refused": refused, "net_benefit": curve, **chosen}
    return found.model_copy(update=update | {"sensitivity": threshold(scores, truth, groups, *kept) if kept else None})


def too_few(name: str, patients: int, sensitivity: float) -> str:
    """The sentence on a finding whose positive patients are too few."""
    return (
        f"{name}: no threshold keeps a sensitivity of {sensitivity:g} with 95 % confidence: "
        f"{patients} positive {'patient' if patients == 1 else 'patients'}, and it takes {needed(sensitivity)}"
    )


def choose(
    calibration: Calibration,
    logits: Array,
    crossed: Array,
    truth: Truth,
    groups: Groups,
    known: Sequence[str],
    sensitivity: float = SENSITIVITY,
    decides: Rule = "sensitivity",
) -> Thresholds:
    """Thresholds of a model's findings from its raw logits `[image, known finding]`; by one rule it `decides`.

    Raises BadInput if the sensitivity is none that could be kept.
    """
    expect_sensitivity(sensitivity)
    scores, columns, rows = calibration.logits(logits, known), list(known), []
    for name in calibration.classes:
        if name in columns:
            at = columns.index(name)
            rows.append(of_finding(name, scores[:, at], crossed[:, at], truth[:, at], groups, sensitivity))
        else:
            why = f"{name}: no threshold, the data do not have this finding"
            rows.append(OfFinding(finding=name, positives=0, positive_patients=0, refused=why))
    return Thresholds(
        sha256=calibration.sha256,
        calibration=calibration.hash,
        caveat=calibration.caveat,
        at_least=sensitivity,
        decides=decides,
        findings=tuple(rows),
    )


def rule_of(name: str) -> Rule:
    """A rule by its name. Raises BadInput if there is none."""
    found = next((rule for rule in RULES if rule == name), None)
    if found is None:
        raise BadInput(f"--rule {name}: expected {', '.join(RULES)}{did_you_mean(name, RULES)}")
    return found


def expect_sensitivity(sensitivity: float) -> None:
    if not 0 < sensitivity < 1:
        raise BadInput(f"--sensitivity {sensitivity:g}: expected a part between 0 and 1, such as {SENSITIVITY}")


def write_thresholds(folder: Path, found: Thresholds) -> None:
    storage.write_manifest(folder / FILE, found.model_dump(mode="json"))


def read_thresholds(folder: Path) -> Thresholds | None:
    """A model folder's thresholds, or None if it has none.

    Raises:
        BadInput: they are of another model or calibration than the folder's, or of another version of this program.
        Damaged: they are not what was written.
    """
    from xlite_search.model_folder import manifest_of

    path = folder / FILE
    try:
        body = storage.read_manifest(path)
    except FileNotFoundError:
        return None
    found = parse(Thresholds, body, f"{path} is not of this version of xlite_search: ")
    again = f"choose them anew: `python -m xlite_search calibrate {folder.name}`"
    if found.sha256 != manifest_of(folder).sha256:
        raise BadInput(f"{path} belongs to another model than the one beside it; {again}")
    calibration = read_calibration(folder)
    if calibration is None or calibration.hash != found.calibration:
        raise BadInput(f"{path} belongs to another calibration than the one beside it; {again}")
    return found
