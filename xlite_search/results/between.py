"""What studies differ in beside what they sweep: whether their runs may stand in one table, as of one question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xlite_search.factors import aliased
from xlite_search.labels import texts
from xlite_search.results.confounders import UNKNOWN, RunFacts, comparability
from xlite_search.results.roles import role_of, short_name


@dataclass(frozen=True)
class Between:
    """What lies between several studies.

    differ   settings that none of them sweeps and that differ between them, `epochs 2 | 3`, in the studies' order
    aliased  what their runs together cannot tell apart and each study alone could, a sentence each
    """

    differ: tuple[str, ...] = ()
    aliased: tuple[str, ...] = ()

    @property
    def one_question(self) -> bool:
        """Whether the runs of all of them compare: they are one design."""
        return not self.differ and not self.aliased

    def sentence(self) -> str:
        """`the studies differ in: loss bce | weighted_bce; epochs 2 | 3`; empty if they are one question."""
        parts = [f"the studies differ in: {'; '.join(self.differ)}"] if self.differ else []
        return "; ".join([*parts, *self.aliased])


def between(studies: Sequence[Sequence[RunFacts]]) -> Between:
    """Of studies by their runs; one study has nothing between it."""
    groups = [runs for runs in studies if runs]
    if len(groups) < 2:
        return Between()
    swept = list(dict.fromkeys(short_name(name) for runs in groups for name in runs[0].swept))
    first = [runs[0] for runs in groups]
    found = [comparability(first[0], other, swept) for other in first[1:]]
    names = dict.fromkeys(d.name for each in found for d in each.confounders if d.name != "chosen_from")
    return Between(tuple(_differ(name, first) for name in names), _aliased(groups, swept))


def _differ(name: str, runs: Sequence[RunFacts]) -> str:
    values = [run.values.get(name, UNKNOWN if not run.complete else None) for run in runs]
    return f"{name} {' | '.join('none' if value is None else texts([value])[0] for value in values)}"


def _aliased(groups: Sequence[Sequence[RunFacts]], swept: Sequence[str]) -> tuple[str, ...]:
    """What the runs of all studies, by all that any of them sweeps, cannot tell apart."""
    factors = [name for name in swept if role_of(name) == "factor"]
    points = [
        [{name: run.values[name] for name in factors if run.values.get(name) is not None} for run in runs]
        for runs in groups
    ]
    known = {alias.factors for own in points for alias in aliased(own)}
    together = aliased([point for own in points for point in own])
    return tuple(alias.sentence for alias in together if alias.factors not in known)
