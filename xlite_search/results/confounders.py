"""Fair-comparison guard: what two runs differ in, and whether a gap between them may be called one factor's.

Every difference between two runs is one of four things:

    named        the factor that the claim is about
    consequence  what can but differ then: tau exists only with a teacher, the steps follow from the batch size
    nuisance     chance, such as the seed
    confounder   anything else: whatever the gap shows may be its doing

With a confounder there is no claim. `Comparability.claim` is the only place that says "A beats B", and it does not say
it then; `missing` gives the command of the run that would have to be trained. The factor is what the caller names, the
swept settings of a study for example; where nobody names one, it is the only setting that differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from xlite_search.labels import texts
from xlite_search.results.roles import (
    FINISHED,
    FOLLOWS,
    PROVENANCE,
    REPLICATES,
    backbone_of,
    is_below,
    role_of,
    short_name,
    usual_value,
)
from xlite_search.results.ties import Verdict

#: what stands for a part that is there at all, `kd`, where the other run has none
SET = "set"
#: settings that say when a run ends
RULE = ("epochs", "stop_after", "early_stopping")
#: hex digits of a hash, and of a version that holds one, that a sentence shows
SHOWN = 12

#: names, and the values of both runs
_Values = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class RunFacts:
    """A run as plain values, whoever trained it: from a study's record, a CSV or MLflow.

    name         what to call it
    settings     what it was asked for, by dotted name: a resolved config, flattened
    provenance   what was really done, and with what, by the names of `roles.PROVENANCE`
    scores       by metric's name
    complete     a setting that is not there is not set; otherwise nobody wrote it down, and it is unknown
    swept        names of the settings that its study sweeps
    predictions  file of its scores per image, if it has one
    command      the words of the command that began its study, `run SPACE ...`, if it is known
    """

    name: str
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    complete: bool = True
    swept: tuple[str, ...] = ()
    predictions: Path | None = None
    command: tuple[str, ...] = ()

    @cached_property
    def values(self) -> dict[str, Any]:
        """Settings and provenance by short names, with what is above a setting (`kd`) marked as `SET`."""
        found = {short_name(name): value for name, value in self.settings.items()} | dict(self.provenance)
        above = {part for name in self.settings for part in _above(name)}
        return dict.fromkeys(sorted(above - found.keys()), SET) | found


@dataclass(frozen=True)
class Difference:
    """What two runs differ in, with the value of each; None where one has no such thing. `cause` is what it follows
    from, if it is a consequence."""

    name: str
    a: Any
    b: Any
    cause: str = ""

    def words(self) -> str:
        """`epochs (20, 10)`."""
        pair = (self.a, self.b)
        numbers = all(isinstance(value, int | float) for value in pair)
        return f"{self.name} ({', '.join(texts(pair) if numbers else map(_text, pair))})"


class _Unknown:
    """What nobody wrote down."""

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = _Unknown()


@dataclass(frozen=True)
class Comparability:
    """What two runs differ in, by what it means for a claim; the module's docstring says what the parts are.

    unknown  factors that one of the two does not tell, or where a difference may mean nothing: they cannot be excluded
    """

    a: str
    b: str
    named: tuple[Difference, ...] = ()
    confounders: tuple[Difference, ...] = ()
    consequences: tuple[Difference, ...] = ()
    nuisances: tuple[Difference, ...] = ()
    unknown: tuple[Difference, ...] = ()

    @property
    def fair(self) -> bool:
        return not self.confounders

    @property
    def names(self) -> tuple[str, ...]:
        """What differs, chance and consequences aside."""
        return tuple(each.name for each in (*self.named, *self.confounders))

    def claim(self, says: Verdict, gap: str = "") -> str:
        """The sentence about the two, the only one that may say which is better; `gap` is its figures, in words."""
        if self.confounders:
            also = "also " if self.named else ""
            return f"not comparable: {also}differ in {', '.join(each.words() for each in self.confounders)}"
        who = {
            "better": f"{self.a} beats {self.b}",
            "worse": f"{self.b} beats {self.a}",
            "tied": f"{self.a} and {self.b} are tied",
            "cannot tell": f"cannot tell {self.a} from {self.b}",
        }[says]
        return f"{who}{f' {gap}' if gap else ''}: {self.about()}"

    def about(self) -> str:
        """What a claim would be about, `loss (focal, bce)`, with what it cannot exclude."""
        chance = ", ".join(each.words() for each in self.nuisances)
        named = ", ".join(each.words() for each in self.named)
        told = [named or f"the same settings{f' but for {chance}' if chance else ''}"]
        if len(self.named) > 1:
            told.append("changed together, so that which of them did it cannot be told")
        if self.unknown:
            told.append(f"not excluded: {', '.join(each.name for each in self.unknown)}")
        return "; ".join(told)

    def as_json(self) -> dict[str, Any]:
        """Plain values: each part as `{name: [a's, b's]}`."""
        parts = ("named", "confounders", "consequences", "nuisances", "unknown")
        return {"a": self.a, "b": self.b} | {
            part: {each.name: [_plain(each.a), _plain(each.b)] for each in getattr(self, part)} for part in parts
        }


def comparability(a: RunFacts, b: RunFacts, factors: Sequence[str] | None = None) -> Comparability:
    """What two runs differ in, and what of it is a confounder.

    `factors` are the settings that the claim is about, by dotted name; what is below them belongs to them. None: the
    only setting that differs, if it is one.
    """
    differing, unknown = _differences(a, b)
    causes = {name: _cause(name, differing, a, b) for name in differing}
    named = _named(factors, [name for name, cause in causes.items() if not cause], differing, unknown)
    parts: dict[str, list[Difference]] = {"named": [], "confounders": [], "consequences": [], "nuisances": []}
    for name, pair in differing.items():
        if name in named:
            parts["named"].append(_difference(name, pair, a, b))
        elif causes[name]:
            parts["consequences"].append(Difference(name, *pair, causes[name]))
        else:
            part = "nuisances" if role_of(name) == "nuisance" else "confounders"
            parts[part].append(_difference(name, pair, a, b))
    parts["named"] += [Difference(name, *pair) for name, pair in unknown.items() if name in named]
    parts["unknown"] = [Difference(name, *pair) for name, pair in unknown.items() if name not in named]
    return Comparability(a.name, b.name, **{part: tuple(found) for part, found in parts.items()})


def swept_by_both(a: RunFacts, b: RunFacts) -> list[str] | None:
    """The settings that the studies of two runs both sweep, chance aside: what a claim about them is about."""
    chance = {name for name in a.swept if role_of(name) == "nuisance" or name in REPLICATES}
    return [name for name in a.swept if name in b.swept and name not in chance] or None


def _named(factors: Sequence[str] | None, own: Sequence[str], differing: _Values, unknown: _Values) -> list[str]:
    """Which differences the claim is about, among those that follow from no other (`own`), and the unknown ones."""
    if factors is None:
        settings = [n for n in own if n not in PROVENANCE and n not in REPLICATES and role_of(n) == "factor"]
        return settings if len(settings) == 1 else []
    asked = [short_name(factor) for factor in factors]
    chance = all(role_of(factor) == "nuisance" for factor in asked)  # beside other factors a seed is swept for chance
    roles = ("factor", "nuisance") if chance else ("factor",)
    found = [n for n in own if role_of(n) in roles and any(_covers(factor, n, differing) for factor in asked)]
    return found + [name for name in unknown if any(is_below(name, factor) for factor in asked)]


def _differences(a: RunFacts, b: RunFacts) -> tuple[_Values, _Values]:
    """What differs, and what cannot be excluded: known of one alone, or a doubt."""
    differing, unknown = _Values(), _Values()
    for name in dict.fromkeys((*a.values, *b.values)):
        pair = one, other = _value(a, name), _value(b, name)
        if one is other or (type(one) is type(other) and one == other) or (role := role_of(name)) == "place":
            continue
        if one is UNKNOWN or other is UNKNOWN:
            if role == "factor" and SET not in pair:
                unknown[name] = pair
        elif _key(one) != _key(other):
            (unknown if role == "doubt" else differing)[name] = pair
    if "chosen_from" in differing and "study" in a.values and a.values["study"] == b.values.get("study"):
        del differing["chosen_from"]  # chosen from the same trials
    for name in list(unknown):
        if any(is_below(name, above) and name != above for above in differing):
            one, other = unknown.pop(name)
            differing[name] = None if one is UNKNOWN else one, None if other is UNKNOWN else other
    return differing, unknown


def _value(run: RunFacts, name: str) -> Any:
    """None where there is no such thing, UNKNOWN where nobody says."""
    if name in run.values:
        return run.values[name]
    return UNKNOWN if name in PROVENANCE or not run.complete else None


def _cause(name: str, differing: _Values, a: RunFacts, b: RunFacts) -> str:
    """What a difference follows from, if from another one; else nothing."""
    pair = differing[name]
    above = next((each for each in _above(name) if each in differing), "")
    if above and (
        None in pair or all(_key(v) == _key(usual_value(name, run.values)) for v, run in zip(pair, (a, b), strict=True))
    ):
        return above
    if name == "weights.sha256" and "model" in differing:
        models = differing["model"]
        return "model" if backbone_of(models[0]) != backbone_of(models[1]) else ""
    for cause in FOLLOWS.get(name, ()):
        found = next((each for each in differing if each != name and is_below(each, cause)), "")
        if found:
            return found
    return "early_stopping" if name == "epochs_done" and _one_rule(a, b) else ""


def _one_rule(a: RunFacts, b: RunFacts) -> bool:
    """Whether epochs that differ are what one and the same rule for the end made of both runs, as far as anybody knows.
    (If a part of it differs, the epochs follow from that.)"""
    same = all((_value(a, name) is UNKNOWN) == (_value(b, name) is UNKNOWN) for name in RULE)
    return same and all(run.values.get("status", FINISHED) == FINISHED for run in (a, b))


def _difference(name: str, pair: tuple[Any, Any], a: RunFacts, b: RunFacts) -> Difference:
    """Epochs that were done are called `epochs`: `14 of 20` if more were asked for."""
    if name != "epochs_done":
        return Difference(name, *pair)
    asked = _value(a, "epochs"), _value(b, "epochs")
    shown = [
        done if of in (None, UNKNOWN) or of == done else f"{done} of {of}" for done, of in zip(pair, asked, strict=True)
    ]
    return Difference("epochs", *shown)


def _covers(factor: str, name: str, differing: _Values) -> bool:
    """Whether a difference belongs to a factor: it is the factor, is below it, or is that there is such a thing at all,
    `kd` for `kd.alpha`; epochs that were done belong to `epochs`."""
    if name == "epochs_done":
        return factor in (name, "epochs")
    return is_below(name, factor) or (is_below(factor, name) and differing[name].count(None) == 1)


def _above(name: str) -> Iterator[str]:
    """`a.b`, then `a`, of `a.b.c`."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _key(value: Any) -> str:
    """Equal for equal values: 1 and 1.0 are one number, True is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(float(value))
    return json.dumps(value, sort_keys=True, default=str)


def _text(value: Any) -> str:
    """A value as a sentence has it: a hash by its first digits, None as `none`."""
    if isinstance(value, str):
        return " ".join(w[:SHOWN] if len(w) > SHOWN and set(w) <= set("0123456789abcdef") else w for w in value.split())
    return "none" if value is None else "unknown" if value is UNKNOWN else texts([value])[0]


def _plain(value: Any) -> Any:
    return "unknown" if value is UNKNOWN else value
