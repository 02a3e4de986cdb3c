"""Calibration of a delivered model: a line for each finding that makes its logits log-odds, and how well it does.

    calibration.json   `Calibration`, beside the model whose weights it names

Platt's line a z + b (a > 0, so that no two images change places) is fitted by finding, drawn towards the line of all
findings pooled: log a ~ N(log a pooled, 0.3), b ~ N(b pooled, 1). Without that, few positives make a steep or a flat
line; a finding without any has the pooled one. The alternative is one temperature, a slope for all findings and no
offset (Guo et al. 2017), which cannot mend a mean that is off. Isotonic regression is not offered: at these counts its
error is 5 to 17 times the line's.

The line that is shipped is of all images. The figures that describe it are of lines of the other patients' images
(5 folds), for the same images also chose the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from xlite_search import storage
from xlite_search.errors import BadInput
from xlite_search.evaluation.estimates import Array, Groups, Truth, chances, minimum, numbered
from xlite_search.evaluation.reliability import ASSESSABLE, Figures, figures
from xlite_search.spec import Spec, parse
from xlite_search.training.metrics import sigmoid

FILE = "calibration.json"
Method = Literal["platt", "temperature"]
METHODS: tuple[Method, ...] = get_args(Method)
FOLDS, DIGITS = 5, 10
FOLD_PART: Literal["folds"] = "folds"
#: spread of log slope and offset around the pooled line
RIDGE = (0.3, 1.0)
#: around the line as it is, of the pooled one: it decides only where the logits say nothing, or all
WEAK = (1.0, 10.0)


class Line(Spec):
    """a z + b."""

    slope: float = Field(1.0, gt=0)
    offset: float = 0.0


class FittedOn(Spec):
    """What a calibration was fitted on.

    data, fingerprint, split  the data set's name, and its and its split's fingerprints
    part          its validation part; of a cross-fit the folds, each by the member that has not seen it
    study, trial  whose kept predictions they are, if they are not the model's own; `caveat` says so
    """

    data: str
    fingerprint: str
    split: str
    part: Literal["val", "folds"] = "val"
    images: int
    patients: int
    study: str = ""
    trial: str = ""

    @property
    def kind(self) -> str:
        """Which images they are: validation images, or out-of-fold images."""
        return "out-of-fold" if self.part == FOLD_PART else "validation"

    @property
    def caveat(self) -> str:
        """What every page that shows the calibration has to say; empty if nothing."""
        if self.part == FOLD_PART:
            return (
                "fitted on the out-of-fold predictions of its members, each of images that it has not seen: the mean "
                "of them all, which is delivered, is another model, and mostly a better one"
            )
        if not self.trial:
            return ""
        return (
            f"fitted on the predictions of trial {self.trial} of study '{self.study}', not this model's: it was "
            f"trained on the validation part too"
        )


class OfFinding(Spec):
    """A finding's line, what it was fitted on, and its figures before and after.

    calibrated  whether it has a line of its own; without positives or negatives it has the pooled one
    before, after  None where there are fewer than 100 positives, or negatives: not assessable
    """

    finding: str
    line: Line
    positives: int = Field(ge=0)
    positive_patients: int = Field(ge=0)
    calibrated: bool
    before: Figures | None = None
    after: Figures | None = None

    @property
    def assessable(self) -> bool:
        return self.after is not None


class Calibration(Spec):
    """A calibration, and the model that it belongs to.

    sha256    of the model's weights
    caveat    of what it was fitted on; repeated wherever it is shown
    pooled    the line of all findings
    findings  one each, in the order of the model's logits
    together  figures of all images and findings in one
    """

    sha256: str
    method: Method
    on: FittedOn
    caveat: str = ""
    folds: int
    pooled: Line
    findings: tuple[OfFinding, ...]
    together: OfFinding

    @model_validator(mode="after")
    def _unique(self) -> Calibration:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a finding is named twice")
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(each.finding for each in self.findings)

    @property
    def hash(self) -> str:
        """Of the weights and the lines: what thresholds belong to."""
        lines = [[each.finding, each.line.slope, each.line.offset] for each in self.findings]
        return storage.digest({"sha256": self.sha256, "method": self.method, "lines": lines})

    def logits(self, logits: NDArray[np.floating], classes: Sequence[str] | None = None) -> Array:
        """Log-odds from `Model.logits`, float64 `[..., class]`; `classes` names the columns, if they are not all.

        Raises BadInput if they are other findings.
        """
        names = tuple(classes) if classes is not None else self.classes
        lines = {each.finding: each.line for each in self.findings}
        if unknown := [name for name in names if name not in lines]:
            raise BadInput(f"the calibration has no finding '{unknown[0]}'; its own are {', '.join(self.classes)}")
        if logits.shape[-1] != len(names):
            raise BadInput(f"the calibration is of {len(names)} findings, and these logits of {logits.shape[-1]}")
        slope, offset = (np.array([getattr(lines[name], what) for name in names]) for what in ("slope", "offset"))
        return np.asarray(slope * np.asarray(logits, np.float64) + offset)

    def probabilities(self, logits: NDArray[np.floating], classes: Sequence[str] | None = None) -> Array:
        """The chance of each finding, float64 `[..., class]`; as `logits`."""
        return sigmoid(self.logits(logits, classes))


def platt(logits: Array, truth: Truth, towards: Line | None = None, spread: tuple[float, float] = RIDGE) -> Line:
    """The likeliest line, logits and truth `[image]`; with `towards` the likeliest given that prior."""
    prior = np.array([math.log(towards.slope), towards.offset]) if towards else np.zeros(2)
    weight = 1 / np.square(spread) if towards else np.zeros(2)

    def objective(at: Array) -> tuple[float, Array, Array]:
        steep = math.exp(min(at[0], 300.0)) * logits
        scores = steep + at[1]
        chance, entropy = chances(scores, truth)
        missed, curved = chance - truth, chance * (1 - chance)
        mixed = float(curved @ steep)
        away = at - prior
        loss = entropy + float(weight @ away**2) / 2
        gradient = np.array([missed @ steep, missed.sum()]) + weight * away
        hessian = np.array([[curved @ steep**2 + missed @ steep, mixed], [mixed, curved.sum()]])
        return loss, gradient, hessian + np.diag(weight)

    log_slope, offset = minimum(objective, prior).tolist()
    return _line(math.exp(log_slope), offset)


def temperature(logits: Array, truth: Truth) -> Line:
    """The likeliest slope with no offset, given a weak prior around 1."""

    def objective(at: Array) -> tuple[float, Array, Array]:
        scores = math.exp(min(at[0], 300.0)) * logits
        chance, entropy = chances(scores, truth)
        missed, weight = chance - truth, 1 / WEAK[0] ** 2
        hessian = chance * (1 - chance) @ scores**2 + missed @ scores + weight
        loss = entropy + weight * float(at[0]) ** 2 / 2
        return loss, np.array([missed @ scores + weight * at[0]]), np.array([[hessian]])

    return _line(math.exp(float(minimum(objective, np.zeros(1))[0])), 0.0)


def _line(slope: float, offset: float) -> Line:
    """To ten digits: more are not found, and depend on the number of threads; the hash shall not."""
    return Line(slope=float(f"{slope:.{DIGITS}g}"), offset=float(f"{offset:.{DIGITS}g}"))


def fit(logits: NDArray[np.floating], truth: Truth, method: Method = "platt") -> tuple[Line, list[Line]]:
    """The pooled line and each finding's, of logits and truth `[image, finding]`.

    Raises BadInput if no finding has both positives and negatives.
    """
    z = np.asarray(logits, np.float64)
    both = np.asarray(truth.any(axis=0) & ~truth.all(axis=0))
    if not both.any():
        raise BadInput("no finding has both positive and negative images in the validation part: nothing to calibrate")
    flat, flat_truth = z[:, both].ravel(), truth[:, both].ravel()
    if method == "temperature":
        one = temperature(flat, flat_truth)
        return one, [one] * len(both)
    pooled = platt(flat, flat_truth, Line(), WEAK)
    columns = enumerate(both.tolist())
    return pooled, [platt(z[:, at], truth[:, at], pooled) if fitted else pooled for at, fitted in columns]


def apply(lines: Sequence[Line], logits: NDArray[np.floating]) -> Array:
    """Log-odds `[image, finding]`."""
    slopes, offsets = np.array([[line.slope, line.offset] for line in lines]).T
    return np.asarray(slopes * np.asarray(logits, np.float64) + offsets)


def out_of_fold(
    logits: NDArray[np.floating], truth: Truth, groups: Groups, method: Method = "platt", folds: int = FOLDS
) -> Array:
    """Log-odds of each patient's images by lines of other patients' images, `[image, finding]`.

    Raises BadInput if there are fewer patients than two, or if no finding is left in some of the folds.
    """
    whose = numbered(groups)
    many = int(whose.max()) + 1
    if many < 2:
        raise BadInput("the validation part has one patient: what is calibrated on them cannot be judged by others")
    fold = (np.random.default_rng(0).permutation(many) % min(folds, many))[whose]
    found = np.empty(logits.shape)
    for number in range(min(folds, many)):
        held = fold == number
        found[held] = apply(fit(logits[~held], truth[~held], method)[1], logits[held])
    return found


def calibrate(
    sha256: str,
    classes: Sequence[str],
    logits: NDArray[np.floating],
    truth: Truth,
    groups: Groups,
    known: Sequence[str],
    on: FittedOn,
    method: Method = "platt",
) -> tuple[Calibration, Array]:
    """A model's calibration, and the out-of-fold log-odds `[image, known finding]` that its figures are of.

    classes  the model's findings; of those that the data do not have (`known` are the columns') nothing is fitted
    """
    pooled, lines = fit(logits, truth, method)
    crossed = out_of_fold(logits, truth, groups, method)
    z, columns = np.asarray(logits, np.float64), list(known)
    both = np.asarray(truth.any(axis=0) & ~truth.all(axis=0))
    rows = []
    for name in classes:
        at = columns.index(name) if name in columns else None
        if at is None:
            rows.append(OfFinding(finding=name, line=pooled, positives=0, positive_patients=0, calibrated=False))
        else:
            row = _judged(name, lines[at], z[:, at], crossed[:, at], truth[:, at], groups)
            rows.append(row.model_copy(update={"calibrated": bool(both[at])}))
    flat = (z[:, both].ravel(), crossed[:, both].ravel(), truth[:, both].ravel(), np.repeat(groups, int(both.sum())))
    folds = min(FOLDS, len(np.unique(groups)))
    everything = _judged("all findings", pooled, *flat)
    found = Calibration(
        sha256=sha256,
        method=method,
        on=on,
        caveat=on.caveat,
        folds=folds,
        pooled=pooled,
        findings=tuple(rows),
        together=everything,
    )
    return found, crossed


def _judged(name: str, line: Line, before: Array, after: Array, truth: Truth, groups: Groups) -> OfFinding:
    positives, patients = int(truth.sum()), len(np.unique(groups[truth]))
    enough = min(positives, len(truth) - positives) >= ASSESSABLE
    return OfFinding(
        finding=name,
        line=line,
        positives=positives,
        positive_patients=patients,
        calibrated=True,
        before=figures(before, truth, groups) if enough else None,
        after=figures(after, truth, groups) if enough else None,
    )


def write_calibration(folder: Path, found: Calibration) -> None:
    storage.write_manifest(folder / FILE, found.model_dump(mode="json"))


def read_calibration(folder: Path) -> Calibration | None:
    """A model folder's calibration, or None if it has none.

    Raises:
        BadInput: it is of other weights than the folder's, or of another version of this program.
        Damaged: it is not what was written.
    """
    from xlite_search.model_folder import manifest_of

    path = folder / FILE
    try:
        body = storage.read_manifest(path)
    except FileNotFoundError:
        return None
    found = parse(Calibration, body, f"{path} is not of this version of xlite_search: ")
    about = manifest_of(folder)
    if found.sha256 != about.sha256 or found.classes != about.classes:
        raise BadInput(
            f"{path} belongs to another model (weights {found.sha256[:12]}, and here are {about.sha256[:12]}); "
            f"make one of this: `python -m xlite_search calibrate {folder.name}`"
        )
    return found
