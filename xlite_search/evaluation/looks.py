"""Looks: which models were judged on a part that is looked at once, in a ledger of its own.

    mlruns/looks/<key>.jsonl    a line a look, chained by hash, fsynced before any metric is computed

A look is of a model as it would be delivered: its weights, its calibration and its thresholds. The same again is no
new look; another one is, and needs a reason.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from xlite_search import places, provenance, storage
from xlite_search.errors import BadInput
from xlite_search.spec import Spec, parse
from xlite_search.storage import Ledger, alone


class Judged(Spec):
    """What is judged: hashes of a model's weights, calibration and thresholds; empty where it has none."""

    sha256: str
    calibration: str = ""
    thresholds: str = ""


class Look(Spec):
    """A line of the ledger.

    number  which look at these images it is, from 1
    of      the images: `data` and `split` fingerprints, `part`
    model   name of the model's folder
    code    commit of the program, where it is known
    date    UTC, `2026-11-28T06:21:17Z`
    reason  why another model was judged; empty for the first
    """

    number: int = Field(ge=1)
    of: dict[str, str]
    model: str
    judged: Judged
    code: str = ""
    date: str = ""
    reason: str = ""

    def words(self) -> str:
        """`3rd model judged on these images`."""
        return f"{ordinal(self.number)} model judged on these images"


def look(of: Mapping[str, str], model: str, judged: Judged, reason: str = "") -> Look:
    """The look at some images that judges a model: the one that was taken already, or a new one, which is on the disk
    when this returns.

    Raises:
        BadInput: others were judged on these images, and no reason is given.
        Damaged: the ledger is not what was written.
    """
    with alone(_home(), "the ledger of looks", wait=True):
        path = ledger_path(of)
        ledger, taken = Ledger(path), looks(of)
        for each in taken:
            if each.judged == judged:
                return each
        if taken and not reason.strip():
            what = f"{_counted(len(taken))} judged on these images already, {_names(taken)}"
            if judged.sha256 in [each.judged.sha256 for each in taken]:
                what = "this model was judged on these images already, with another calibration or other thresholds"
            raise BadInput(
                f"{what}: every look at them makes what they say of the next weaker; say why you look again, --reason "
                f"TEXT"
            )
        date, code = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), provenance.git_commit() or ""
        found = Look(
            number=len(taken) + 1, of=dict(of), model=model, judged=judged, code=code, date=date, reason=reason.strip()
        )
        ledger.append(found.model_dump(mode="json"))
        return found


def looks(of: Mapping[str, str]) -> list[Look]:
    """All looks at some images, the first first. Raises Damaged if the ledger is not what was written."""
    path = ledger_path(of)
    return [parse(Look, entry, f"{path}: ") for entry in Ledger(path).entries]


def ledger_path(of: Mapping[str, str]) -> Path:
    """`of` are the fingerprints of data and split, and the part."""
    return _home() / f"{storage.digest([of['data'], of['split'], of['part']])[:12]}.jsonl"


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `11th`."""
    last = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{last}"


def _home() -> Path:
    return places.runs_root() / "looks"


def _counted(many: int) -> str:
    return "one model was" if many == 1 else f"{many} models were"


def _names(taken: list[Look]) -> str:
    return ", ".join(dict.fromkeys(each.model for each in taken))
