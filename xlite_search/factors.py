"""Confounded factors of a design: which settings the trials cannot tell apart.

Two values of a factor compare cleanly if two trials differ in nothing else. Values that are joined by such pairs form
a group; where a factor has several groups, and another factor never has the same value in two of them, their effects
are aliased: whatever the table shows may be the other's doing. (Full grids have one group; so has a list of trials
that each change one thing.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

from xlite_search.storage import digest

#: swept for chance, as a seed is: which fold of a split judges
FOLD = "data.split.fold"
#: a factor of more values than this, each met once, is drawn at random: nobody compares its values in pairs
FEW = 4

#: a trial's settings, each as a hash of its value: two that read alike, 1 and "1", are two
Levels = dict[str, str]
#: levels that compare cleanly, in the order of the study
Group = list[str]


class Alias(NamedTuple):
    """Two factors that trials cannot tell apart, and a sentence about them."""

    factors: frozenset[str]
    sentence: str


def aliases(trials: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each pair of factors that the trials, each as its swept settings, cannot tell apart."""
    yield from (alias.sentence for alias in aliased(trials))


def aliased(trials: Sequence[Mapping[str, Any]]) -> Iterator[Alias]:
    """Each pair of factors that the trials, each as its swept settings, cannot tell apart."""
    settings = [_levels(trial) for trial in trials]
    said = {level: str(trial[n]) for trial, one in zip(trials, settings, strict=True) for n, level in one.items()}
    names = [name for name in dict.fromkeys(name for one in settings for name in one) if _is_compared(name, settings)]
    told: set[frozenset[str]] = set()
    for name in names:
        groups = _groups(name, settings)
        for other in names:
            pair = frozenset((name, other))
            if other == name or pair in told or len(groups) < 2:
                continue
            met = [_met(name, group, other, settings) for group in groups]
            if all(met) and sum(map(len, met)) == len(set().union(*met)):
                told.add(pair)
                words = _words(name, groups, other, met, said)
                yield Alias(pair, f"{words}: what one does cannot be told from what the other does")


def _levels(trial: Mapping[str, Any]) -> Levels:
    return {name: digest([name, value]) for name, value in trial.items()}


def _is_compared(name: str, settings: Sequence[Levels]) -> bool:
    values = [one[name] for one in settings if name in one]
    return len(set(values)) > 1 and not (len(set(values)) == len(values) > FEW)


def _groups(name: str, settings: Sequence[Levels]) -> list[Group]:
    place = {value: n for n, value in enumerate(dict.fromkeys(one[name] for one in settings if name in one))}
    groups: dict[str, set[str]] = {value: {value} for value in place}
    for alike in _alike_but_for(name, settings):
        joined = set[str]().union(*(groups[value] for value in alike))
        groups |= dict.fromkeys(joined, joined)
    found = {id(group): sorted(group, key=place.__getitem__) for group in groups.values()}
    return sorted(found.values(), key=lambda group: place[group[0]])


def _alike_but_for(name: str, settings: Sequence[Levels]) -> Iterator[set[str]]:
    """Values of a setting that trials have which differ in nothing else.

    What only one of two trials has, such as the tau of a run with a teacher, belongs to the difference: trials are
    compared by the settings that both have, kind with kind, which takes as many steps as there are trials and kinds.
    """
    kinds: dict[frozenset[str], list[Levels]] = {}
    for one in settings:
        if name in one:
            kinds.setdefault(frozenset(one), []).append(one)
    for first, second in combinations_with_replacement(kinds, 2):
        shared = sorted((first & second) - {name})
        sides: list[dict[tuple[str, ...], set[str]]] = []
        for kind in (first, second):
            side: dict[tuple[str, ...], set[str]] = {}
            for one in kinds[kind]:
                side.setdefault(tuple(one[key] for key in shared), set()).add(one[name])
            sides.append(side)
        yield from (sides[0][rest] | sides[1][rest] for rest in sides[0] if rest in sides[1])


def _met(name: str, group: Group, other: str, settings: Sequence[Levels]) -> set[str]:
    return {one[other] for one in settings if name in one and other in one and one[name] in group}


def _words(name: str, groups: Sequence[Group], other: str, met: Sequence[set[str]], said: dict[str, str]) -> str:
    """`kd.alpha 0.5, 0.7 only ever with optimizer.lr 0.001, kd.alpha 0.0 only ever with 0.0001`."""
    parts = [
        f"{name} {', '.join(said[level] for level in group)} only ever with {other} "
        f"{', '.join(sorted(said[level] for level in seen))}"
        for group, seen in zip(groups, met, strict=True)
    ]
    return ", ".join(parts)
