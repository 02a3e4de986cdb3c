"""Looks: which models were judged on images that are looked at once, in one ledger for all of them.

    mlruns/looks/ledger.jsonl    a line a look, chained by hash, fsynced before any metric is computed
    mlruns/looks/<hash>.images   which images these were, as sorted 64-bit hashes

A look is of a model as it would be delivered: its weights, its calibration and its thresholds. The same again is no
new look; another one is, and needs a reason. Looks are at the same images if they have one in common, whatever the
split or the data set was called: by their pixels as prepared, or by name and source, at whatever size.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from xlite_search import places, provenance, storage
from xlite_search.errors import BadInput, Damaged
from xlite_search.model_folder import source_of
from xlite_search.spec import Spec, parse
from xlite_search.storage import Ledger, alone

if TYPE_CHECKING:
    from xlite_search.data.dataset import Data
    from xlite_search.evaluation.scored import PartName

#: what two preparations of the same images may describe otherwise
BESIDES = ("boxes", "part_of")


class Images(NamedTuple):
    """Images that a look is at.

    of   the fingerprints of `data` and `split`, and the `part`
    ids  sorted hashes of what they are known by, uint64
    """

    of: dict[str, str]
    ids: NDArray[np.uint64]


class Judged(Spec):
    """What is judged: hashes of a model's weights, calibration and thresholds; empty where it has none."""

    sha256: str
    calibration: str = ""
    thresholds: str = ""


class Look(Spec):
    """A line of the ledger.

    number  which model it was that was judged on these images, or on some of them, from 1
    of      the images: `data` and `split` fingerprints, `part`
    images  hash of which these are; empty in a ledger of an earlier version, one for each part
    model   name of the model's folder
    code    commit of the program, where it is known
    date    UTC, `2026-11-28T06:21:17Z`
    reason  why another model was judged; empty for the first
    """

    number: int = Field(ge=1)
    of: dict[str, str]
    images: str = ""
    model: str
    judged: Judged
    code: str = ""
    date: str = ""
    reason: str = ""

    def words(self, by_now: int = 0) -> str:
        """`3rd model judged on these images`, with how many they are by now where there are more."""
        more = f", of {by_now} by now" if by_now > self.number else ""
        return f"{ordinal(self.number)} model judged on these images{more}"


def images_of(data: Data, part: PartName) -> Images:
    """A part of a data set. Raises BadInput if it has no images."""
    from xlite_search.evaluation.scored import part_of

    table, rows = data.packed.table, part_of(data, part).rows.tolist()
    source = source_of(data.packed.manifest["source"])
    home = storage.digest({name: value for name, value in source.items() if name not in BESIDES})
    known = [f"{home} {table.names[row]}" for row in rows]
    known += [table.digests[row] for row in rows] if table.digests else []
    of = {"data": data.packed.fingerprint, "split": data.split.fingerprint, "part": part}
    return Images(of, _hashed(known))


def look(images: Images, model: str, judged: Judged, reason: str = "") -> Look:
    """The look at some images that judges a model: the one that was taken already, or a new one, which is on the disk
    when this returns.

    Raises:
        BadInput: others were judged on these images, and no reason is given.
        Damaged: the ledger is not what was written.
    """
    with alone(_home(), "the ledger of looks", wait=True):
        taken, images_hash = looks(images), _digest(images.ids)
        for each in taken:
            if each.judged == judged and each.images == images_hash:
                return each
        others = [each for each in taken if each.judged != judged]
        if others and not reason.strip():
            raise _unreasoned(others, judged)
        date, code = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), provenance.git_commit() or ""
        about = {"of": images.of, "images": images_hash, "model": model, "judged": judged}
        known = {"code": code, "date": date, "reason": reason.strip()}
        found = parse(Look, {"number": 1 + models_in(others), **about, **known}, "look: ")
        storage.write_atomic(_images_path(images_hash), images.ids.tobytes())
        Ledger(ledger_path()).append(found.model_dump(mode="json"))
        return found


def _unreasoned(others: list[Look], judged: Judged) -> BadInput:
    many = models_in(others)
    what = f"{'one model was' if many == 1 else f'{many} models were'} judged on these images already, {_names(others)}"
    if judged.sha256 in [each.judged.sha256 for each in others]:
        what = "this model was judged on these images already, with another calibration or other thresholds"
    return BadInput(
        f"{what}: every look at them makes what they say of the next weaker; say why you look again, --reason TEXT"
    )


def looks(images: Images) -> list[Look]:
    """All looks at these images, or at some of them, the first first.

    Raises Damaged if the ledger is not what was written.
    """
    taken, same = every_look(), dict[str, bool]()
    for each in taken:
        if each.images and each.images not in same:
            same[each.images] = bool(np.isin(read_images(each.images), images.ids, assume_unique=True).any())
    return [each for each in taken if (same[each.images] if each.images else each.of == images.of)]


def looks_of(of: Mapping[str, str]) -> list[Look]:
    """All looks at a part, or at some of its images, as far as it was looked at: by the fingerprints of data and split,
    and the part."""
    own = {each.images for each in every_look() if each.images and each.of == dict(of)}
    ids = [np.empty(0, np.uint64), *(read_images(images) for images in sorted(own))]
    return looks(Images(dict(of), np.unique(np.concatenate(ids))))


def every_look() -> list[Look]:
    """All that is in the ledger, the first first. Raises Damaged if it is not what was written."""
    last = ledger_path()
    paths = [*sorted(path for path in _home().glob("*.jsonl") if path != last), last]
    return [parse(Look, entry, f"{path}: ") for path in paths for entry in Ledger(path).entries]


def models_in(taken: Iterable[Look]) -> int:
    """How many models were judged, each as it would be delivered."""
    return len({each.judged.model_dump_json() for each in taken})


def read_images(digest: str) -> NDArray[np.uint64]:
    """Which images a look was at. Raises Damaged if that is not what was written."""
    path = _images_path(digest)
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise Damaged(f"{path} is missing or is not what was written: it says which images were looked at; restore it")
    return np.frombuffer(content, "<u8")


def ledger_path() -> Path:
    return _home() / "ledger.jsonl"


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `11th`."""
    last = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{last}"


def _images_path(digest: str) -> Path:
    return _home() / f"{digest[:16]}.images"


def _home() -> Path:
    return places.runs_root() / "looks"


def _digest(ids: NDArray[np.uint64]) -> str:
    return hashlib.sha256(ids.tobytes()).hexdigest()


def _hashed(known: Iterable[str]) -> NDArray[np.uint64]:
    words = (hashlib.blake2b(each.encode(), digest_size=8).digest() for each in known)
    return np.unique(np.frombuffer(b"".join(words), "<u8"))


def _names(taken: list[Look]) -> str:
    return ", ".join(dict.fromkeys(each.model for each in taken))
