"""Asynchronous successive halving (ASHA; Li et al. 2020), stop-only: a pure rule over what has been reported.

Rungs lie at grace, grace * reduction, grace * reduction^2, ... epochs. Who reaches a rung stays if its score is at
least the (1 - 1/reduction) quantile of the scores that were reported there before; the first at a rung has no peers and
stays. The rule reads only a table of reports, which is filled again from the records after a restart: a search that was
interrupted decides with the same memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from pydantic import Field

from xlite_search.spec import Spec


class ASHA(Spec):
    """How a study stops its weak trials: not before `grace` epochs, keeping about 1 of `reduction` at each rung."""

    grace: int = Field(1, ge=1)
    reduction: float = Field(2.0, gt=1)

    def rungs(self, epochs: int) -> list[int]:
        """Epochs at which trials of `epochs` epochs are judged, ascending; the last epoch is none: it is the end."""
        steps = (math.floor(self.grace * self.reduction**power + 1e-9) for power in range(64))
        return sorted({rung for rung in steps if rung < epochs})


@dataclass
class Halving:
    """The rule at work: `scores[rung][trial key]` are the reports, in order of arrival."""

    spec: ASHA
    metric: str
    scores: dict[int, dict[str, float]] = field(default_factory=dict)

    def judge(self, key: str, epoch: int, epochs: int, score: float) -> str | None:
        """Takes a report. None lets the trial go on; a sentence stops it, and says why.

        A score that is not a number counts as the worst. A report that was taken before changes nothing.
        """
        if epoch not in self.spec.rungs(epochs):
            return None
        score = -math.inf if math.isnan(score) else score
        reports = self.scores.setdefault(epoch, {})
        if key in reports:
            return None
        peers = list(reports.values())
        reports[key] = score
        if not peers:
            return None
        cut = float(np.quantile(peers, 1 - 1 / self.spec.reduction, method="inverted_cdf"))
        if score >= cut:
            return None
        others = f"{len(peers)} other{'s' if len(peers) > 1 else ''}"
        return f"stopped at rung {epoch}: {self.metric} {score:.4f} is below the cut of {cut:.4f} among {others}"
