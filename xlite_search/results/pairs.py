"""Pairs of runs: the gap between them with its interval, and what the guard lets be said of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xlite_search.errors import BadInput, did_you_mean
from xlite_search.results.columns import ABSENT, Column, Table, ends, number
from xlite_search.results.confounders import Comparability, RunFacts, comparability, swept_by_both
from xlite_search.results.inference import Patients, half_widths
from xlite_search.results.influence import Array
from xlite_search.results.missing import MissingRun, missing
from xlite_search.results.roles import is_below, short_name
from xlite_search.results.ties import MARGIN, Verdict, verdict

#: runs of which every pair is looked at; of more, each with the best
EVERY_PAIR = 60
#: sentences, and commands, that are printed
PRINTED, COMMANDS = 40, 3


@dataclass(frozen=True)
class Pair:
    """Two runs, what they differ in, and by how much the first is ahead.

    gap        the first's score less the second's; NaN if one has none
    low, high  its 95 % interval, for all comparable pairs at once; NaN without predictions of both
    missing    the run that would make it fair, if it is not, and none of these runs is it
    instead    two of these runs that differ so in the factor, and in nothing else; empty if there are none
    margin     gaps up to which are a tie
    """

    found: Comparability
    gap: float = math.nan
    low: float = math.nan
    high: float = math.nan
    missing: MissingRun | None = None
    instead: tuple[str, ...] = ()
    margin: float = MARGIN

    @property
    def says(self) -> Verdict:
        """Of the first run, as far as the interval goes; the guard has the last word (`verdict`)."""
        return verdict(self.low, self.high, self.margin)

    @property
    def verdict(self) -> Verdict | Literal["not comparable"]:
        return self.says if self.found.fair else "not comparable"

    def sentence(self) -> str:
        """`a beats b by 0.0123 (95 %: 0.0040 to 0.0206): loss (focal, bce)`, or why there is no such sentence."""
        said = self.found.claim(self.says, self._figures())
        return said if self.found.fair else f"{self.found.a}, {self.found.b}: {said}"

    def _figures(self) -> str:
        if math.isnan(self.gap):
            return "(no common score)"
        if math.isnan(self.low):
            return f"({self.gap:+.4f}, no interval: no predictions of both on the same images)"
        if self.says in ("better", "worse"):
            ends = sorted((abs(self.low), abs(self.high)))
            return f"by {abs(self.gap):.4f} (95 %: {ends[0]:.4f} to {ends[1]:.4f})"
        return f"({self.gap:+.4f}, 95 %: {self.low:+.4f} to {self.high:+.4f})"

    def as_json(self) -> dict[str, Any]:
        figures = {name: _known(getattr(self, name)) for name in ("gap", "low", "high")}
        about = {"verdict": self.verdict, "sentence": self.sentence()}
        lacking = {"missing": self.missing and self.missing.as_json(), "instead": list(self.instead)}
        return self.found.as_json() | figures | about | lacking


@dataclass(frozen=True)
class Law:
    """Mean AUROCs of runs on the same images, `[run]`, and their joint law; `place` of each run by its name."""

    place: Mapping[str, int]
    areas: Array
    patients: Patients

    def gap(self, a: str, b: str) -> float:
        return float(self.areas[self.place[a]] - self.areas[self.place[b]])


@dataclass(frozen=True)
class Pairs:
    """Pairs of some runs, in the runs' order.

    metric   the score that they are compared by
    notes    what a reader has to know, a sentence each
    asked    somebody named the factor
    """

    runs: Sequence[RunFacts]
    metric: str
    pairs: Sequence[Pair]
    notes: Sequence[str] = ()
    asked: bool = False

    def as_json(self) -> list[dict[str, Any]]:
        return [pair.as_json() for pair in self.pairs]


def pairs_of(
    runs: Sequence[RunFacts],
    metric: str,
    *,
    factors: Sequence[str] = (),
    against: str | None = None,
    law: Law | None = None,
    margin: float = MARGIN,
) -> Pairs:
    """Every pair of these runs; of more than `EVERY_PAIR`, or where a run is named (`against`), each with that one.

    `factors` are what a claim may be about. Without, they are the settings that the studies of both runs sweep; where
    these are none, the only setting that differs. Runs that `law` knows have gaps and intervals from it.

    Raises:
        BadInput: no run has the name `against`, or one of the factors.
    """
    _expect_factors(runs, factors)
    chosen, notes = _chosen(runs, metric, against)
    found = [comparability(a, b, list(factors) or swept_by_both(a, b)) for a, b in chosen]
    known = law.place.keys() if law else ()
    halves = _halves([(each.a, each.b) for each in found if each.fair and {each.a, each.b} <= set(known)], law)
    partners = _partners(found)
    pairs = []
    for each, (a, b) in zip(found, chosen, strict=True):
        gap = a.scores.get(metric, math.nan) - b.scores.get(metric, math.nan)
        if law and {a.name, b.name} <= law.place.keys():
            gap = law.gap(a.name, b.name)
        half = halves.get((a.name, b.name), math.nan)
        half = math.nan if gap and not half else half  # a gap without variance, as of two AUROCs of 0 and 1
        instead = partners.get((each.a, _values(each, "b"))) or partners.get((each.b, _values(each, "a"))) or ()
        lacking = None if instead else missing(a, b, each)
        pairs.append(Pair(each, gap, gap - half, gap + half, lacking, () if each.fair else instead, margin))
    return Pairs(runs, metric, pairs, notes, bool(factors))


def _expect_factors(runs: Sequence[RunFacts], factors: Sequence[str]) -> None:
    known = {name for run in runs for name in run.values}
    for factor in factors:
        if not any(is_below(name, short_name(factor)) for name in known):
            hint = did_you_mean(factor, known) or f"; there are {', '.join(sorted(known)[:12])}"
            raise BadInput(f"--factor {factor}: no run has such a setting{hint}")


def _chosen(
    runs: Sequence[RunFacts], metric: str, against: str | None
) -> tuple[list[tuple[RunFacts, RunFacts]], tuple[str, ...]]:
    if against is None and len(runs) <= EVERY_PAIR:
        return list(itertools.combinations(runs, 2)), ()
    if against is None:
        one = max(runs, key=lambda run: run.scores.get(metric, -math.inf))
        note = f"{len(runs):,} runs: only the pairs with the best, {one.name}, are looked at"
        return [(one, other) for other in runs if other is not one], (note,)
    named = {run.name: run for run in runs}
    if against not in named:
        raise BadInput(f"--against {against}: there is no such run{did_you_mean(against, named)}")
    return [(named[against], other) for other in runs if other.name != against], ()


def _partners(found: Sequence[Comparability]) -> dict[tuple[str, frozenset[str]], tuple[str, str]]:
    """The pairs that compare, each by a run of it and by what the other has of the factor."""
    partners = {}
    for each in found:
        if each.fair and each.named:
            partners[each.a, _values(each, "b")] = partners[each.b, _values(each, "a")] = each.a, each.b
    return partners


def _values(found: Comparability, of: Literal["a", "b"]) -> frozenset[str]:
    """What a run has of the named factors."""
    return frozenset(f"{each.name} {getattr(each, of)!r}" for each in found.named)


def _halves(pairs: Sequence[tuple[str, str]], law: Law | None) -> dict[tuple[str, str], float]:
    """Half of each gap's 95 % interval, for all of them at once; without those that cannot be known."""
    if not pairs or law is None:
        return {}
    runs = np.eye(len(law.areas))
    contrasts = np.array([runs[law.place[a]] - runs[law.place[b]] for a, b in pairs])
    halves = half_widths(contrasts, law.patients)
    return {pair: float(half) for pair, half in zip(pairs, halves, strict=True) if math.isfinite(half)}


def tables(found: Pairs) -> Iterator[Table | str]:
    """The pairs that compare as a table; the others as sentences, one for all that differ in the same settings; then
    the commands of runs that are missing."""
    yield from found.notes
    fair = [pair for pair in found.pairs if pair.found.fair]
    if fair:
        yield _comparable(fair[:PRINTED], found.metric)
    alike: dict[tuple[str, ...], list[Pair]] = {}
    for pair in found.pairs:
        if not pair.found.fair:
            alike.setdefault(pair.found.names, []).append(pair)
    for first, *rest in list(alike.values())[:PRINTED]:
        more = f"; {len(rest):,} more pair{'s' if len(rest) > 1 else ''} so" if rest else ""
        instead = f"; compare {' with '.join(first.instead)} instead" if first.instead else ""
        yield first.sentence() + instead + more
    hidden = max(len(fair) - PRINTED, 0) + max(len(alike) - PRINTED, 0)
    if hidden:
        yield f"{hidden:,} more: --json has all of them"
    of_groups = [group[0].missing for group in alike.values()]
    lacking = list({each.command: each for each in of_groups if each}.values())[:COMMANDS]
    yield from (f"missing: {each.words()}: {each.command}" for each in lacking)
    yield from dict.fromkeys(beside for each in lacking for beside in each.beside)
    if not found.asked and any(not group[0].found.named for group in alike.values()) and not lacking:
        yield "--factor NAME says what is asked about; the run that is missing to answer it is then given as a command"


def _comparable(pairs: Sequence[Pair], metric: str) -> Table:
    columns = [
        Column("run", [pair.found.a for pair in pairs], text=True),
        Column("and", [pair.found.b for pair in pairs], text=True),
        Column("gap", [number(pair.gap, "+") for pair in pairs]),
        Column("95 % interval", [ABSENT if math.isnan(pair.low) else ends(pair.low, pair.high, "+") for pair in pairs]),
        Column("", [pair.verdict for pair in pairs]),
        Column("differ in", [pair.found.about() for pair in pairs], text=True),
    ]
    known = [pair for pair in pairs if not math.isnan(pair.low)]
    error = f"95 % for all pairs at once, by patient: of these weights, not recipes; tied: within {pairs[0].margin:g}"
    notes = [error] if known else []
    if len(known) < len(pairs):
        notes.append(f"-: no predictions of both on the same images; that gap is of {metric}")
    return Table("pairs that compare: by how much the first is ahead", columns, notes)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
