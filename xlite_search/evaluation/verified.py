"""A delivered model's files held against each other: weights, calibration, thresholds, kept logits, figures, looks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xlite_search import storage
from xlite_search.errors import XliteError
from xlite_search.evaluation.evaluate import Delivered
from xlite_search.evaluation.looks import Look, every_look, read_images
from xlite_search.evaluation.scored import FOLDER, kept_logits, key_of
from xlite_search.evaluation.unseen import VAL
from xlite_search.model_folder import read_model
from xlite_search.spec import parse

EVALUATIONS = Path("artifacts") / "evaluation"


def verify_model(folder: Path) -> list[str]:
    """What is broken about a model's folder and its looks, a sentence each."""
    checks = _failing(lambda: read_model(folder)), _failing(lambda: Delivered.of(folder))
    return [sentence for check in (*checks, _scores(folder), _figures(folder)) for sentence in check]


def _failing(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except XliteError as error:
        yield str(error)


def _scores(folder: Path) -> Iterator[str]:
    """Kept logits that are not what was written, or are another's."""
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            about: dict[str, str] = storage.read_manifest(path)
        except XliteError as error:
            yield str(error)
            continue
        of = {name: value for name, value in about.items() if name != "logits"}
        if key_of(of) != path.stem:
            yield f"{path} is called otherwise than what it says it holds"
            continue
        yield from _failing(lambda of=of: kept_logits(folder, of))  # type: ignore[misc]


def _figures(folder: Path) -> Iterator[str]:
    """Figures without a look in the ledger, or with one that the ledger tells otherwise."""
    for path in sorted((folder / EVALUATIONS).glob("*.json")):
        try:
            told: dict[str, Any] = json.loads(path.read_bytes())
            taken = parse(Look, told["look"], f"{path}: look.") if told["look"] else None
            if told.pop("checksum") != storage.digest(told):
                raise ValueError
        except (ValueError, KeyError, TypeError, XliteError):
            yield f"{path} is damaged: evaluate the model again, which takes no new look"
            continue
        if taken is None:
            if told["on"] != VAL:
                yield f"{path} has figures of '{told['on']}' and no look"
            continue
        try:
            known = every_look()
            if taken.images:
                read_images(taken.images)
        except XliteError as error:
            yield str(error)
            continue
        if taken not in known:
            yield f"{path} has figures of a look that is not in the ledger"
