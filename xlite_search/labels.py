"""Display names of runs: `efficientnet_b0_mhsa tau=4 alpha=0.7`. Nothing is decided by them.

Values that differ are written differently: a number gets as many digits as that takes, a path as many of its folders.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

DIGITS, FEW_DIGITS, ALL_DIGITS = 6, 3, 17


def labels(settings: Sequence[Mapping[str, Any]], names: Sequence[str] = (), otherwise: str = "base") -> list[str]:
    """What differs, the model first, names cut where they are clear; `otherwise` where nothing does.

    `names` are all that may occur, where not all points are known yet: suggestions, whose numbers get three digits.
    """
    digits = FEW_DIGITS if names else DIGITS
    names = list(dict.fromkeys([*names, *(name for point in settings for name in point)]))
    shown = dict(zip(names, short(names), strict=True))
    columns = {n: iter(texts([point[n] for point in settings if n in point], digits)) for n in names}
    found = []
    for point in settings:
        cells = {name: next(columns[name]) for name in point}
        model = [cells.pop("model")] if "model" in cells else []
        found.append(" ".join([*model, *(f"{shown[n]}={cell}" for n, cell in cells.items())]) or otherwise)
    return told_apart(found)


def short(names: Sequence[str]) -> list[str]:
    """The last part of each dotted name, or all of it where two would be the same."""
    last = [name.rpartition(".")[2] for name in names]
    return [s if last.count(s) == 1 else name for name, s in zip(names, last, strict=True)]


def texts(values: Sequence[Any], digits: int = DIGITS) -> list[str]:
    """A text of each value: `0.001`, `bce`, `mean_rarity(apply=loss)`, `cxr/model.safetensors`.

    Values that differ have texts that do, as far as more digits and more of the folders can tell them apart.
    """
    different = len({_exact(value) for value in values})
    folders = max((len(PurePath(part).parts) for value in values for part in _strings(value)), default=1)
    best = list[str]()
    for step in range(max(ALL_DIGITS - digits, folders - 1) + 1):
        found = [_plain(value, min(digits + step, ALL_DIGITS), 1 + step) for value in values]
        if len(set(found)) > len(set(best)):
            best = found
        if len(set(best)) >= different:
            break
    return best


def told_apart(names: Sequence[str], homes: Sequence[str] = ()) -> list[str]:
    """The same names, those that occur twice with where they are from, `A: tau=4`; if that is one too, numbered."""
    found, taken = list(names), set[str]()
    if len(set(homes)) > 1:
        found = [f"{home}: {name}" if names.count(name) > 1 else name for name, home in zip(names, homes, strict=True)]
    for place, name in enumerate(found):
        number = 1
        while found[place] in taken:
            number += 1
            found[place] = f"{name} #{number}"
        taken.add(found[place])
    return found


def _plain(value: Any, digits: int, folders: int) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{name}={_plain(v, digits, folders)}" for name, v in value.items() if name != "name")
        return f"{value.get('name', '')}({inner})" if inner else str(value.get("name", ""))
    if isinstance(value, float):
        return _number(value, digits)
    parts = PurePath(str(value)).parts[-folders:]
    return PurePath(*parts).as_posix() if parts else str(value)


def _number(value: float, digits: int) -> str:
    """At least so many digits, and as many as it takes not to be written as 1 if it is just below: 0.9999."""
    written = f"{value:.{digits}g}"
    while abs(float(written)) == 1 and abs(value) != 1 and digits < ALL_DIGITS:
        digits += 1
        written = f"{value:.{digits}g}"
    return written


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        return [part for inner in value.values() for part in _strings(inner)]
    return [value] if isinstance(value, str) else []


def _exact(value: Any) -> str:
    """Equal for equal values: 1 and 1.0 are one number."""
    return json.dumps(value, sort_keys=True, default=str) if not isinstance(value, int | float) else repr(float(value))
