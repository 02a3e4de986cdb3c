"""What a scheduler decided, in order: `journal.jsonl` in the study's folder, appended to and fsynced, never rewritten.

Every line holds the sha256 of itself and of the line before, so that a lost, changed or exchanged line is found. A
last line that is not whole is what a power cut leaves of an entry that nobody acted on: it is not counted, and
overwritten by the next. A decision is in here before any record says so; one that is in here is never taken again.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xlite_search.errors import Damaged
from xlite_search.search.asha import Decision
from xlite_search.storage import digest, naming, sync_folder

FILE = "journal.jsonl"


class Journal:
    """The decisions of a study, from the first on; `append` makes them durable."""

    def __init__(self, folder: Path) -> None:
        """Raises Damaged if an entry is not what was written."""
        self.path = folder / FILE
        self.decisions: list[Decision] = []
        self._end, self._last = 0, ""
        for line in _whole_lines(self.path):
            self._read(line)

    def append(self, decision: Decision) -> None:
        """Returns when it is on the disk. Raises OSError if it cannot be; the journal is as before then."""
        body = _plain(decision)
        link = digest([self._last, body])
        line = json.dumps({"sha256": link, "decision": body}).encode() + b"\n"
        fresh = not self.path.exists()
        with naming(self.path), open(self.path, "r+b" if not fresh else "wb") as file:
            file.seek(self._end)
            file.truncate()
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if fresh:
            sync_folder(self.path.parent)
        self._end, self._last = self._end + len(line), link
        self.decisions.append(decision)

    def _read(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            body, link = entry["decision"], entry["sha256"]
            if digest([self._last, body]) != link:
                raise ValueError
            self.decisions.append(_decision(body))
        except (ValueError, KeyError, TypeError):
            raise Damaged(
                f"{self.path}, line {len(self.decisions) + 1} is damaged: it is not what was written there; restore it "
                f"from a backup, or remove the file and the study's decisions are taken again from its records"
            ) from None
        self._end, self._last = self._end + len(line), link


def _whole_lines(path: Path) -> list[bytes]:
    """The lines up to the last newline; none if there is no file."""
    try:
        return [line + b"\n" for line in path.read_bytes().split(b"\n")[:-1]]
    except FileNotFoundError:
        return []


def _plain(decision: Decision) -> dict[str, Any]:
    """JSON has no infinity: None is a failure's score, and the cut of a rung that nobody passed."""
    body = asdict(decision)
    body["scores"] = {key: score if math.isfinite(score) else None for key, score in decision.scores.items()}
    body["cut"] = decision.cut if math.isfinite(decision.cut) else None
    body["kept"] = list(decision.kept)
    return body


def _decision(body: dict[str, Any]) -> Decision:
    scores = {key: -math.inf if score is None else float(score) for key, score in body["scores"].items()}
    cut = body["cut"]
    none_kept = math.inf if not body["kept"] else -math.inf
    return Decision(
        int(body["rung"]), scores, int(body["peers"]), tuple(body["kept"]), none_kept if cut is None else cut
    )
