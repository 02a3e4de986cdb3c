"""The run that is missing for a fair comparison: one of the two again, with the factor of the other, as a command."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from xlite_search.errors import BadInput
from xlite_search.results.confounders import SET, UNKNOWN, Comparability, RunFacts
from xlite_search.results.roles import FINISHED, PROVENANCE, SETTINGS, is_below, role_of, short_name, usual_value

PROGRAM = ("python", "-m", "xlite_search")
#: stands for a study's file where nobody wrote down which it was
SPACE = "SPACE"
#: settings that are filled in when a config is resolved
FILLED = ("kd.teacher", "weights.sha256", "data.split.sha256", "data.split.of.sha256")
#: letters of a study's name that say what it is about
LONGEST = 60


@dataclass(frozen=True)
class MissingRun:
    """A run that would make a comparison fair.

    like      the run whose conditions it has
    settings  what it has of the other: the factor
    command   trains it
    beside    what no setting makes equal, and what to do about it, a sentence each
    """

    like: str
    settings: Mapping[str, Any]
    command: str
    beside: tuple[str, ...] = ()

    def words(self) -> str:
        """`EXP-000 with sampler mean_rarity`."""
        changed = ", ".join(f"{name} {_text(value)}" for name, value in self.settings.items())
        return f"{self.like} with {changed or 'what cannot be set by a command'}"

    def as_json(self) -> dict[str, Any]:
        return {
            "like": self.like,
            "settings": dict(self.settings),
            "command": self.command,
            "beside": list(self.beside),
        }


def missing(a: RunFacts, b: RunFacts, found: Comparability) -> MissingRun | None:
    """The run that has one's conditions and the other's factor; None if they compare, or no factor is named.

    The conditions are the first's, unless only the second was trained to its end, or has the teacher that is asked for.
    """
    if found.fair or not found.named:
        return None
    like, other = (b, a) if _has_more(b, a, found) else (a, b)
    factor = dict(_factor(other, found))
    conditions = _conditions(like) | dict(_held(like, found))
    fixed = {n: v for n, v in conditions.items() if not any(is_below(n, changed) for changed in factor)}
    settings = fixed | factor if like.complete else _understood(fixed | factor)
    changed = {name: settings.get(name, value) for name, value in factor.items()}
    about = {each.name: changed[each.name] for each in found.named if each.name in changed}
    strange = [] if like.complete else [n for n in _factors_of(like) if not {n, f"{n}.name"} & settings.keys()]
    return MissingRun(like.name, changed, _command(like, settings, about), tuple(_beside(like, strange, found)))


def _held(like: RunFacts, found: Comparability) -> Iterator[tuple[str, Any]]:
    """What has to stay as it is in the run whose conditions are wanted: the confounders, with what is below them where
    that is not its default."""
    for each in found.confounders:
        if _can_be_set(each.name) and like.values.get(each.name) != SET:
            yield each.name, like.values.get(each.name)
    for each in found.consequences:
        if _is_unusual(each.name, like):
            yield each.name, like.values[each.name]


def _factors_of(run: RunFacts) -> Iterator[str]:
    for name, value in run.values.items():
        if name not in PROVENANCE and role_of(name) == "factor" and value != SET:
            yield name


def _understood(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Of other people's settings those whose values are ones here too."""
    from xlite_search.config import RunConfig  # imports that comparisons without a missing run can do without

    found: dict[str, Any] = {}
    for name, value in wanted.items():
        for form, meant in ((name, value), (name, "none"), (f"{name}.name", value)):
            if meant != "none" or value is None:
                with suppress(BadInput):
                    RunConfig().with_settings(found | {form: meant})
                    found[form] = meant
                    break
    return found


def _has_more(b: RunFacts, a: RunFacts, found: Comparability) -> bool:
    """Whether the second is the one whose conditions can be had again."""
    ended = [bool(run.values.get("status", FINISHED) == FINISHED) for run in (a, b)]
    if ended[0] != ended[1]:
        return ended[1]
    kd = next((each for each in found.named if each.name == "kd"), None)
    return kd is not None and kd.a is None


def _factor(other: RunFacts, found: Comparability) -> Iterator[tuple[str, Any]]:
    """The settings of the factor as the other run has them, with what is below them where that is not its default."""
    named = [each.name for each in found.named]
    for name in named:
        value = other.values.get(name, None if other.complete else UNKNOWN)
        if _can_be_set(name) and value is not UNKNOWN and value != SET:
            yield name, value
    for each in found.consequences:
        if any(is_below(each.name, above) for above in named) and _is_unusual(each.name, other):
            yield each.name, other.values[each.name]


def _is_unusual(name: str, run: RunFacts) -> bool:
    """Whether a run has a setting that can be set, and has not its default, or a value of those that are swept."""
    value = run.values.get(name)
    if not _can_be_set(name) or value in (None, SET):
        return False
    return name in map(short_name, run.swept) or bool(value != usual_value(name, run.values))


def _can_be_set(name: str) -> bool:
    return name in SETTINGS and name not in FILLED and role_of(name) != "place"


def _conditions(like: RunFacts) -> dict[str, Any]:
    """What the command has to fix so that a study's file gives this run: what it sweeps. Of a run that no study of
    ours has trained, all that is known and has a setting here."""
    names = map(short_name, like.swept) if like.complete else (n for n in like.values if n not in PROVENANCE)
    return {name: like.values[name] for name in names if name in like.values and _is_given(name, like)}


def _is_given(name: str, like: RunFacts) -> bool:
    return like.values[name] != SET and (_can_be_set(name) or (like.complete and name in like.swept))


def _command(like: RunFacts, settings: Mapping[str, Any], factor: Mapping[str, Any]) -> str:
    """As the study of the run was begun, with these settings, and a name that says its factor."""
    words = _without(like.command or ("run", SPACE), settings)
    for name, value in settings.items():
        words += ["--set", f"{name}={_text(value)}"]
    about = "-".join([str(like.values.get("study") or like.name), *(f"{n}-{_text(v)}" for n, v in factor.items())])
    slug = re.sub(r"[^0-9A-Za-z_-]+", "-", about.replace(".", "-")).strip("-")[:LONGEST].strip("-")
    return shlex.join([*PROGRAM, *words, "--name", f"{slug or 'fair'}"])


def _without(command: tuple[str, ...], settings: Mapping[str, Any]) -> list[str]:
    """A command line less its name, and less what is set otherwise now."""
    kept, words = list[str](), iter(command)
    for word in words:
        if word not in ("--set", "--name"):
            kept.append(word)
        elif (value := next(words, "")) and word == "--set" and value.partition("=")[0].strip() not in settings:
            kept += [word, value]
    return kept


def _text(value: Any) -> str:
    """A value as `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _beside(like: RunFacts, strange: list[str], found: Comparability) -> Iterator[str]:
    if not like.command:
        study = like.values.get("study")
        yield f"{SPACE} is the file of study '{study}'" if study else f"{SPACE} is a study file with a single run"
    for each in found.confounders:
        if each.name == "chosen_from":
            yield "let both be the best of as many trials"
        elif each.name in PROVENANCE and each.name not in ("status", "epochs_done", "steps"):
            yield f"{each.words()} is no setting: train {like.name} again beside it"
    if strange:
        yield f"the command does not set {', '.join(strange)}: nothing here is called so, or has such a value"
