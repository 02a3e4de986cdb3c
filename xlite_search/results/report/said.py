"""What a report says of a study, from its comparison: the sentence to sign, what it leaves out, who may be the best."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from xlite_search.results.arms import Arm
from xlite_search.results.compare import Comparison
from xlite_search.results.confounders import Comparability, comparability, swept_by_both
from xlite_search.results.missing import missing
from xlite_search.results.paired import seed_of
from xlite_search.results.run_facts import of_comparison
from xlite_search.results.ties import Standing, Verdict

#: runs whose differences to the best are told
MOST = 30


@dataclass(frozen=True)
class Claim:
    """Of a run, or of a setting over its seeds; NaN is what cannot be known.

    spread             standard deviation over its seeds
    low, high          95 % of its score alone
    gap                to the best
    gap_low, gap_high  95 %, for all comparisons at once
    may_be_best        it is in the set that cannot be told from the best
    """

    label: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    score: float
    spread: float
    low: float
    high: float
    gap: float
    gap_low: float
    gap_high: float
    verdict: Verdict
    may_be_best: bool


@dataclass(frozen=True)
class Said:
    """Of the whole study.

    caveats    what the sentence leaves out
    about      "weights": `claims` are of runs; "recipe": of settings over their seeds; empty without claims
    unknown    why there are none
    folds      that the scores are means over; 0 where all runs have the same validation images
    corrected  the best score without the luck of having been chosen from `chosen_from`; NaN where it is not known
    """

    sentence: str
    caveats: tuple[str, ...]
    about: Literal["weights", "recipe", ""]
    margin: float
    claims: tuple[Claim, ...] = ()
    unknown: str = ""
    patients: int = 0
    corrected: float = math.nan
    chosen_from: int = 0
    folds: int = 0


def said_of(comparison: Comparison, margin: float) -> Said:
    """What may be said of the ranked runs of a study."""
    found, caveats = comparison.claims, tuple(_caveats(comparison))
    if found is None:
        unknown = comparison.unclaimed if comparison.ranked else ""
        return Said(_without_claims(comparison), caveats, "", margin, unknown=unknown)
    claims = tuple(_claim(arm, arm is found.arms[0]) for arm in found.arms)
    winner = found.winner
    about, corrected = found.about, winner.corrected
    more = (found.patients, corrected, winner.scores, len(found.folds))
    return Said(found.sentence(), caveats, about, margin, claims, "", *more)


def _claim(arm: Arm, is_best: bool) -> Claim:
    own, gap = arm.interval, arm.standing
    gaps = (0.0, 0.0, 0.0) if is_best else (gap.gap, gap.low, gap.high)
    seeds, keys = zip(*((seed_of(run), run.key) for run in arm.runs), strict=True)
    verdict: Verdict = "tied" if is_best else gap.verdict
    return Claim(
        arm.label, keys, seeds, arm.score, arm.spread, own.low, own.high, *gaps, verdict, gap.may_be_best or is_best
    )


def _without_claims(comparison: Comparison) -> str:
    runs = comparison.ranked
    if not runs:
        return "No run was trained to its end: nothing can be said about which setting is better."
    best = f"{comparison.labels(runs[:1])[0]} ({comparison.metric} {runs[0].best_score(comparison.metric):.4f})"
    if len(runs) == 1:
        return f"One run was trained to its end, {best}: there is nothing to compare it with."
    return f"{best} has the best score of {len(runs):,} runs; without intervals none may be called better."


def _caveats(comparison: Comparison) -> Iterator[str]:
    found = comparison.claims
    if found and found.winner.scores > 1 and math.isfinite(found.winner.corrected):
        winner = found.winner
        yield (
            f"The best score was chosen from {winner.scores:,}: {winner.score:.4f} as seen, {winner.corrected:.4f} "
            f"corrected for that choice."
        )
    if found and found.about == "weights" and found.of > len(found.arms):
        yield f"Only the {len(found.arms):,} runs that scored best, of {found.of:,}, are compared."
    if comparison.confounded:
        yield "Some runs may not be compared with the best, and have no part in this: see Confounders."
    stopped = sum(run.status == "stopped" for run in comparison.others)
    if stopped:
        yield f"Stopped early, with fewer epochs, and therefore not ranked: {stopped:,} of all runs."
    if comparison.distillation and comparison.distillation.missing:
        yield "No student without a teacher was trained here: that a teacher helps at all is not shown."


@dataclass(frozen=True)
class Against:
    """What a run and the best one differ in, in words, by what it means for a claim.

    sentence  the only one that says which is better; with confounders it does not
    command   trains the run that would make it fair, if it is not
    """

    run: str
    named: tuple[str, ...]
    confounders: tuple[str, ...]
    unknown: tuple[str, ...]
    sentence: str
    command: str


def against_best(comparison: Comparison) -> Iterator[Against]:
    """The ranked runs that follow the best, through the guard; a claim is about the settings that the study sweeps."""
    if not comparison.claims or comparison.claims.about != "weights":
        return
    standings = {arm.label: arm.standing for arm in comparison.claims.arms}
    best, *others = of_comparison(comparison, MOST + 1)
    for other in others:
        found = comparability(other, best, swept_by_both(other, best))
        gap = standings.get(other.name)
        named, confounders, unknown = (_words(found, part) for part in ("named", "confounders", "unknown"))
        sentence = found.claim(gap.verdict, _figures(gap)) if gap else found.claim("cannot tell")
        lacking = missing(other, best, found)
        yield Against(other.name, named, confounders, unknown, sentence, lacking.command if lacking else "")


def _figures(gap: Standing) -> str:
    """`by 0.0120 (95 % 0.0040 to 0.0200)` where one is ahead; else the gap to the best with its sign."""
    if not math.isfinite(gap.low):
        return "(no interval)"
    if gap.verdict in ("better", "worse"):
        low, high = sorted((abs(gap.low), abs(gap.high)))
        return f"by {abs(gap.gap):.4f} (95 % {low:.4f} to {high:.4f})"
    return f"({gap.gap:+.4f}, 95 % {gap.low:+.4f} to {gap.high:+.4f})"


def _words(found: Comparability, part: str) -> tuple[str, ...]:
    return tuple(each.words() for each in getattr(found, part))
