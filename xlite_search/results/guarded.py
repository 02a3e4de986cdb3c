"""The guard on a comparison of studies: which runs may be compared with the best one, and why the others may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xlite_search.results.confounders import Comparability, RunFacts, comparability, swept_by_both
from xlite_search.results.missing import MissingRun, missing
from xlite_search.results.roles import short_name

#: runs up to which all are looked at; of more those that scored best
MOST, LOOKED_AT = 200, 60
#: sentences that are printed
PRINTED = 3
#: the claims are for all runs at once, and corrected for the choice
COUNTED = "chosen_from"


@dataclass(frozen=True)
class Guarded:
    """Of runs, the best first.

    fair     whether each may be compared with the best
    reasons  why the others may not, a sentence for all that differ in the same settings, and what would make it fair
    """

    fair: tuple[bool, ...]
    reasons: tuple[str, ...]


def looked_at(runs: int) -> int:
    """How many of so many runs, the best first, are looked at."""
    return runs if runs <= MOST else LOOKED_AT


def guarded(facts: Sequence[RunFacts], runs: int) -> Guarded:
    """`facts` are of those that are looked at, of so many `runs`; the others are not compared."""
    if not facts:
        return Guarded((), ())
    best, *others = (replace(each, provenance=_without_choice(each)) for each in facts)
    found = [comparability(best, other, swept_by_both(best, other)) for other in others]
    fair = [True, *(each.fair for each in found), *[False] * (runs - len(facts))]
    alike: dict[tuple[str, ...], list[tuple[RunFacts, Comparability]]] = {}
    for other, each in zip(others, found, strict=True):
        if not each.fair:
            alike.setdefault(each.names, []).append((other, each))
    reasons = [_reason(best, group, (best, *others)) for group in list(alike.values())[:PRINTED]]
    if len(alike) > PRINTED:
        reasons.append(
            f"{sum(map(len, list(alike.values())[PRINTED:])):,} more are not comparable with it: --json says why"
        )
    return Guarded(tuple(fair), tuple(reasons))


def _without_choice(run: RunFacts) -> dict[str, object]:
    return {name: value for name, value in run.provenance.items() if name != COUNTED}


def _reason(best: RunFacts, group: Sequence[tuple[RunFacts, Comparability]], everyone: Sequence[RunFacts]) -> str:
    (other, first), *rest = group
    more = f" and {len(rest):,} more" if rest else ""
    said = f"no claim about {other.name}{more} against {best.name}: {first.claim('cannot tell')}"
    lacking = missing(best, other, first)
    if lacking is None or any(_is_it(each, lacking, everyone) for each in everyone):
        return said
    return f"{said}; what is missing: {lacking.command}"


def _is_it(run: RunFacts, lacking: MissingRun, everyone: Sequence[RunFacts]) -> bool:
    """Whether a run is there that has the conditions and the factor of the one that is missing."""
    like = next(each for each in everyone if each.name == lacking.like)
    factor = {short_name(name): value for name, value in lacking.settings.items()}
    has_it = all(run.values.get(name) == value for name, value in factor.items())
    return has_it and comparability(like, run, list(factor)).fair
