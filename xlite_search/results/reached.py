"""What a run reaches beside the figure that ranks it: AP, F1, Brier score, calibration error, intervals by patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xlite_search.records import RunRecord
from xlite_search.results.bootstrap import FIGURES, Figure, bootstrap
from xlite_search.results.columns import Column, Table, ends, number
from xlite_search.results.inference import joint
from xlite_search.results.influence import influence
from xlite_search.results.intervals import Interval, own
from xlite_search.results.paired import Judge

WORDS: Mapping[Figure, str] = {
    "auroc": "AUROC",
    "ap": "average precision",
    "f1": "F1 at 0.5",
    "brier": "Brier score",
    "ece": "calibration error",
}


@dataclass(frozen=True)
class Reached:
    """Means over findings of a run's best epoch, each with its 95 % interval, by `draws` of the patients.

    left_out  findings that have lost their positives in more than 5 % of the draws; they are in the means of Brier
              score and calibration error alone
    """

    run: str
    figures: Mapping[Figure, Interval]
    draws: int
    left_out: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        figures = {figure: interval.as_json() for figure, interval in self.figures.items()}
        return {"run": self.run, "draws": self.draws, "left_out": list(self.left_out), "figures": figures}

    @property
    def notes(self) -> list[str]:
        """How to read the table."""
        found = [
            f"means over findings; {self.draws:,} draws of the patients, with all their images; a calibration error "
            f"has no interval, for by chance alone it is above 0"
        ]
        if self.left_out:
            found.append(
                f"not in these means of AP and F1, for want of positives in some draws: {', '.join(self.left_out)}"
            )
        return found

    def table(self) -> Table:
        """A row for each figure."""
        columns = [
            Column("", [WORDS[figure] for figure in self.figures], text=True),
            Column("mean", [number(each.value) for each in self.figures.values()]),
            Column("95 %", [ends(each.low, each.high) for each in self.figures.values()]),
        ]
        return Table(f"what {self.run} reaches", columns, self.notes)


def reached(run: RunRecord, name: str, judge: Judge, ranked_by: Figure) -> Reached:
    """Of a run that is called `name`, on the images and findings of its judge; without the figure that ranks it, which
    has an interval by its influence values.

    Raises Damaged as `Judge.of`.
    """
    drawn = [figure for figure in FIGURES if figure not in (ranked_by, "auroc")]
    truth, logits = judge.truth[:, judge.findings], judge.logits(run)
    found = bootstrap(logits[None], truth, judge.patients, judge.names, figures=drawn)
    figures: dict[Figure, Interval] = {figure: found.macro(figure, 0) for figure in drawn}
    if ranked_by != "auroc":
        one = influence(logits, truth, judge.patients)
        figures["auroc"] = own(np.array([one.score.mean()]), joint([one]))[0]
    return Reached(name, figures, found.size, tuple(found.left_out))
