"""Claims about runs or settings: their intervals, those that cannot be told from the best, and a sentence to sign.

Where settings were run with several seeds in common, the claims are about the *recipe*: the intervals have the
chance of training beside that of the patients. With one seed each they are about *these weights*, and have the
patients' chance alone. Chance comes from two sides (Bouthillier et al. 2021):

    patients   `influence.py`: DeLong's variance of a gap, a patient's images taken together
    training   `seeds.py`: the variance of a run's score that neither its setting nor its seed explains, pooled over all
               settings, or that of the pair's own gaps where it is larger

Where a study sweeps the folds of a split, the claims are about the recipe too, and both chances are in the variance
over folds (`folds.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from xlite_search.errors import XliteError
from xlite_search.records import RunRecord
from xlite_search.results.arms import Arm
from xlite_search.results.columns import ends
from xlite_search.results.inference import Patients
from xlite_search.results.intervals import Interval
from xlite_search.results.selection import Winner

#: runs that are compared at most, those that scored best
MOST = 60


class Unclaimed(XliteError):
    """Why nothing can be claimed of runs: a sentence."""


@dataclass(frozen=True)
class Claims:
    """What may be said of some runs on the same images.

    about     "weights" or "recipe"
    arms      the best first, then the others by their gaps to it
    of        runs that could have been compared; more than `MOST` are not
    own       of each run's score by its key, alone; what its patients make uncertain. Those that are compared, in the
              order of `law`, then those that may not be
    winner    by how much the best score is too good, for having been chosen
    single    every setting has one seed
    law       the joint law of these scores, for gaps between any two; None over folds
    folds     that the scores are means over, of so many; none where all runs have the same validation images
    apart     settings that have no part in the claims, for want of common seeds or folds
    """

    about: Literal["weights", "recipe"]
    metric: str
    margin: float
    images: int
    patients: int
    arms: tuple[Arm, ...]
    of: int
    own: dict[str, Interval]
    winner: Winner
    single: bool = True
    law: Patients | None = None
    folds: tuple[int, ...] = ()
    of_folds: int = 0
    apart: tuple[str, ...] = ()

    @property
    def tied(self) -> list[Arm]:
        """Those that cannot be told from the best, which is one of them."""
        return [arm for arm in self.arms if arm.standing.may_be_best]

    @property
    def usual(self) -> RunRecord:
        """Of the best arm the run whose score is nearest to its mean."""
        arm = self.arms[0]
        return min(arm.runs, key=lambda run: abs(self._score(run) - arm.score))

    def _score(self, run: RunRecord) -> float:
        kept = self.own.get(run.key)
        return run.best_score(self.metric) if self.folds or kept is None else kept.value

    def sentence(self) -> str:
        """What a careful reader could sign."""
        best, many, tied = self.arms[0], len(self.arms), len(self.tied)
        what = "settings" if self.about == "recipe" else "runs"
        told = f"{self.metric} {best.score:.4f}, 95 % {ends(best.interval.low, best.interval.high)}"
        if many == 1:
            said = f"{best.label} has {told}"
        elif tied == 1:
            said = f"of {many} {what} {best.label} alone may be the best ({told})"
        else:
            of = f"none of the {many} {what} can" if tied == many else f"{tied} of {many} {what} cannot"
            said = f"{of} be told from the best, {best.label} ({told})"
        said = f"{self._where()} {self.images:,} validation images of {self.patients:,} patients, {said}"
        if many > 1:
            said += "; 95 % for all comparisons at once"
        if self.apart:
            of = "folds" if self.folds else "seeds"
            said += f"; without {_listed(self.apart)}, for want of common {of}"
        if self.about == "recipe":
            return said + "."
        why = "One seed each" if self.single else "No two settings have two seeds in common"
        return f"{said}. {why}: this is about these weights, not about their recipes."

    def _where(self) -> str:
        """`In 5 folds,`, or of some of them `In folds 0, 1 of 5,`."""
        if not self.folds:
            return "On"
        if len(self.folds) == self.of_folds:
            return f"In {self.of_folds} folds,"
        return f"In folds {', '.join(map(str, self.folds))} of {self.of_folds},"

    def notes(self) -> list[str]:
        """How to read the table."""
        found = [
            f"=: cannot be told from the best (95 %, one-sided, all at once); the order of the others is that of their "
            f"scores. Verdicts of the gap to the best, margin {self.margin:g}: tied within it, better or worse beyond "
            f"chance, else one cannot tell; they are two-sided, for all pairs, and more careful than ="
        ]
        if self.of > len(self.arms) and self.about == "weights":
            found.append(f"claims are about the {len(self.arms)} that scored best, of {self.of:,}")
        if self.winner.scores > 1 and math.isfinite(self.winner.corrected):
            found.append(
                f"the best score {self.winner.score:.4f} was chosen from {self.winner.scores:,}"
                f"{' means, whose epochs were chosen too' if self.about == 'recipe' else ''}; corrected for that "
                f"{'choice of means ' if self.about == 'recipe' else ''}it is {self.winner.corrected:.4f}"
            )
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "about": self.about,
            **({"folds": list(self.folds), "of_folds": self.of_folds} if self.folds else {}),
            **({"apart": list(self.apart)} if self.apart else {}),
            "metric": self.metric,
            "margin": self.margin,
            "images": self.images,
            "patients": self.patients,
            "sentence": self.sentence(),
            "tied": [arm.label for arm in self.tied],
            "compared": len(self.arms),
            "of": self.of,
            "winner": self.winner.as_json(),
            "arms": [arm.as_json() for arm in self.arms],
        }


def _listed(names: Sequence[str]) -> str:
    """The first three, and how many more."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
