"""What a design can tell apart, before a night is spent on it.

Two values of a factor compare cleanly if two trials differ in nothing else. Values that are joined by such pairs form
a group; where a factor has several groups, and another factor never has the same value in two of them, their effects
are aliased: whatever the table shows may be the other's doing. (Full grids have one group; so has a list of trials
that each change one thing.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from xlite_search.search.study import Trial

#: a factor of more values than this, each met once, is drawn at random: nobody compares its values in pairs
FEW = 4

#: values that compare cleanly, in the order of the study
Group = list[str]


def aliases(trials: Sequence[Trial]) -> Iterator[str]:
    """A sentence for each pair of factors that the trials cannot tell apart."""
    settings = [trial.settings for trial in trials]
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
                yield f"{_words(name, groups, other, met)}: what one does cannot be told from what the other does"


def _is_compared(name: str, settings: Sequence[dict[str, Any]]) -> bool:
    values = [str(one[name]) for one in settings if name in one]
    return len(set(values)) > 1 and not (len(set(values)) == len(values) > FEW)


def _groups(name: str, settings: Sequence[dict[str, Any]]) -> list[Group]:
    values = list(dict.fromkeys(str(one[name]) for one in settings if name in one))
    groups: list[Group] = [[value] for value in values]
    for number, one in enumerate(settings):
        for two in settings[:number]:
            if name in one and name in two and _differ_only_in(name, one, two):
                joined = [group for group in groups if str(one[name]) in group or str(two[name]) in group]
                merged = [value for group in joined for value in group]
                groups = [group for group in groups if group not in joined] + [merged]
    return sorted((sorted(group, key=values.index) for group in groups), key=lambda group: values.index(group[0]))


def _differ_only_in(name: str, one: dict[str, Any], two: dict[str, Any]) -> bool:
    """What only one of them has, such as the tau of a run with a teacher, belongs to the difference."""
    return all(one[key] == two[key] for key in one.keys() & two.keys() if key != name)


def _met(name: str, group: Group, other: str, settings: Sequence[dict[str, Any]]) -> set[str]:
    return {str(one[other]) for one in settings if name in one and other in one and str(one[name]) in group}


def _words(name: str, groups: Sequence[Group], other: str, met: Sequence[set[str]]) -> str:
    """`kd.alpha 0.5, 0.7 only ever with optimizer.lr 0.001, kd.alpha 0.0 only ever with 0.0001`."""
    parts = [
        f"{name} {', '.join(group)} only ever with {other} {', '.join(sorted(seen))}"
        for group, seen in zip(groups, met, strict=True)
    ]
    return ", ".join(parts)
