"""Journal of a scheduler's decisions, in order: `journal.jsonl` in the study's folder, a `storage.Ledger`.

A decision is in here before any record says so; one that is in here is never taken again.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xlite_search.search.asha import Decision
from xlite_search.storage import Ledger

FILE = "journal.jsonl"
OTHERWISE = "remove the file and the study's decisions are taken again from its records"


class Journal:
    """The decisions of a study, from the first on; `append` makes them durable."""

    def __init__(self, folder: Path) -> None:
        """Raises Damaged if an entry is not what was written."""
        self.ledger = Ledger(folder / FILE, "decision", OTHERWISE)
        self.decisions: list[Decision] = []
        for number, body in enumerate(self.ledger.entries, start=1):
            try:
                self.decisions.append(_decision(body))
            except (AttributeError, ValueError, KeyError, TypeError):
                raise self.ledger.damaged(number) from None

    def append(self, decision: Decision) -> None:
        """Returns when it is on the disk. Raises OSError if it cannot be; the journal is as before then."""
        self.ledger.append(_plain(decision))
        self.decisions.append(decision)


def _plain(decision: Decision) -> dict[str, Any]:
    """JSON has no infinity: None is a failure's score, and the cut of a rung that nobody passed."""
    body = asdict(decision)
    body["scores"] = {key: score if math.isfinite(score) else None for key, score in decision.scores.items()}
    body["cut"] = decision.cut if math.isfinite(decision.cut) else None
    body["kept"] = list(decision.kept)
    if decision.reasons is None:
        del body["reasons"]
    return body


def _decision(body: dict[str, Any]) -> Decision:
    scores = {key: -math.inf if score is None else float(score) for key, score in body["scores"].items()}
    cut = body["cut"]
    none_kept = math.inf if not body["kept"] else -math.inf
    return Decision(
        int(body["rung"]),
        scores,
        int(body["peers"]),
        tuple(body["kept"]),
        none_kept if cut is None else cut,
        dict(body["reasons"]) if "reasons" in body else None,
    )
