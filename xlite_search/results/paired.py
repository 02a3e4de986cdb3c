"""Runs by setting and seed, and their judge: scores by finding and influence values on the same validation images.

Two runs answer to the same images of the same patients, so that most of what chance does to one it does to the other.
The gap between two settings is the mean, over their common seeds, of the gap between their mean scores.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from xlite_search.errors import Damaged
from xlite_search.labels import told_apart
from xlite_search.records import RunRecord
from xlite_search.results.influence import Figure, Influence, influence
from xlite_search.storage import digest
from xlite_search.study_record import homes
from xlite_search.trainable import config_of
from xlite_search.training.metrics import SUPPORT
from xlite_search.training.predictions import Predictions

if TYPE_CHECKING:
    from xlite_search.data.dataset import Data

MACRO, OF_SUPPORTED = "val/auroc_macro", "val/auroc_supported"
#: a setting and another one are compared on so many common seeds at least
FEWEST_SEEDS = 2

#: a setting's runs, by their seed
Seeds = dict[int, RunRecord]


def figure_of(metric: str) -> Figure:
    """What a metric that ranks runs is the mean of, or a finding's: `ap` of `val/ap_macro` and of `val/ap/Hernia`."""
    name, _, _ = metric.removeprefix("val/").partition("/")
    return "auroc" if metric == OF_SUPPORTED else cast(Figure, name.removesuffix("_macro"))


class Judge:
    """The validation part, whose images they are and what is there; of the findings that a metric is the mean of."""

    def __init__(self, data: Data, metric: str = MACRO) -> None:
        table = data.packed.table
        self.rows = {table.names[row]: place for place, row in enumerate(data.val.rows)}
        self.truth = data.val.labels > 0
        self.patients = np.unique([table.groups[row] for row in data.val.rows], return_inverse=True)[1]
        self.figure, self.classes = figure_of(metric), data.classes
        self.findings = _findings(metric, data.classes, self.truth)

    @property
    def names(self) -> list[str]:
        """Of these findings."""
        return [name for name, there in zip(self.classes, self.findings, strict=True) if there]

    @property
    def images(self) -> int:
        return len(self.truth)

    @property
    def many(self) -> int:
        """Patients."""
        return int(self.patients.max()) + 1 if len(self.patients) else 0

    def of(self, run: RunRecord) -> Influence:
        """The metric's figure by finding of a run's best epoch, and what each patient moves it by.

        Raises Damaged if its predictions are missing or damaged, not numbers, or not of these images.
        """
        return self._of(run, run.predictions_path())

    def of_last(self, run: RunRecord) -> Influence | None:
        """Of its last epoch; None if that was the best, or was not kept. Raises as `of`."""
        path = run.last_predictions_path()
        return None if path is None or path == run.predictions_path() else self._of(run, path)

    def _of(self, run: RunRecord, path: Path) -> Influence:
        return influence(self._read(run, path), self.truth[:, self.findings], self.patients, self.figure)

    def logits(self, run: RunRecord) -> NDArray[np.floating]:
        """Of a run's best epoch, `[image, finding]`: the validation part's images, the metric's findings.

        Raises Damaged as `of`.
        """
        return self._read(run, run.predictions_path())

    def _read(self, run: RunRecord, path: Path) -> NDArray[np.floating]:
        kept = Predictions.load(path)
        if set(kept.images) != self.rows.keys() or not np.isfinite(kept.logits).all():
            raise Damaged(f"the predictions of {run.label} are not numbers, or not of these validation images")
        logits = np.empty_like(kept.logits)
        logits[[self.rows[name] for name in kept.images]] = kept.logits
        return logits[:, self.findings]


def _findings(metric: str, classes: Sequence[str], truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of one finding, or of those that have both kinds of images, enough of them for `auroc_supported`."""
    finding = metric.removeprefix("val/").partition("/")[2]
    if finding:
        return np.array([name == finding for name in classes])
    fewest = np.minimum(truth.sum(axis=0), (~truth).sum(axis=0))
    return np.asarray(fewest >= (SUPPORT if metric == OF_SUPPORTED else 1))


def seed_of(run: RunRecord) -> int:
    return int(run.config.get("seed", 0))


def fold_of(run: RunRecord) -> int | None:
    """The fold that validated it; None where its split has none."""
    fold: int | None = run.config.get("data", {}).get("split", {}).get("fold")
    return fold


def recipe_of(run: RunRecord, maker: Callable[[RunRecord], str]) -> str:
    """Hash of what a run has in common with those that differ from it by seed or fold alone."""
    config = config_of(run).identity() | {"seed": None}
    config["data"]["split"].pop("fold", None)
    return digest([config, run.micro_batch, maker(run)])


def settings_of(runs: Sequence[RunRecord], maker: Callable[[RunRecord], str]) -> list[Seeds]:
    """The runs by setting and seed; a run that several studies have counts once."""
    found: dict[str, Seeds] = {}
    for run in runs:
        found.setdefault(recipe_of(run, maker), {}).setdefault(seed_of(run), run)
    return list(found.values())


def common_seeds(one: Seeds, other: Seeds) -> list[int]:
    """Those with which both settings were run, ascending."""
    return sorted(one.keys() & other.keys())


def pairs_of(groups: Sequence[Seeds]) -> list[tuple[int, int]]:
    """Which settings are compared: the numbers of those with enough seeds in common."""
    numbers = itertools.combinations(range(len(groups)), 2)
    return [(a, b) for a, b in numbers if len(common_seeds(groups[a], groups[b])) >= FEWEST_SEEDS]


def names_of(groups: Sequence[Sequence[RunRecord]]) -> list[str]:
    """What to call each setting, `[setting][run]`, seed and fold left out; of equal ones each says its study."""
    first = [group[0] for group in groups]
    plain = [" ".join(word for word in run.label.split() if word not in _replicate(run)) for run in first]
    return told_apart([name or str(run.config["model"]) for name, run in zip(plain, first, strict=True)], homes(first))


def _replicate(run: RunRecord) -> tuple[str, str]:
    return f"seed={seed_of(run)}", f"fold={fold_of(run)}"
