"""Sentences on a calibration: where it made nothing better, and which findings have no threshold, and why."""

from __future__ import annotations

from xlite_search.evaluation.calibration import Calibration, OfFinding
from xlite_search.evaluation.thresholds import Thresholds, needed
from xlite_search.results.inference import CONFIDENCE

#: figures of which less is better
COMPARED = {"brier": "Brier score", "ece": "ECE"}


def not_better(found: Calibration) -> dict[str, list[str]]:
    """By figure the findings, all together the last, of which it is not less than before, out of fold. Those that are
    not assessable are left out."""
    rows = [row for row in (*found.findings, found.together) if row.before and row.after]
    return {name: [row.finding for row in rows if not _less(row, name)] for name in COMPARED}


def _less(row: OfFinding, figure: str) -> bool:
    before, after = (getattr(each, figure).value for each in (row.before, row.after))
    return bool(after < before)


def worse(found: Calibration) -> str:
    """The sentence on what it did not make better; empty if there is nothing to say."""
    told = [f"{COMPARED[name]} of {', '.join(names)}" for name, names in not_better(found).items() if names]
    if not told:
        return ""
    return f"warning: calibration made these no better, by other patients' images: {'; '.join(told)}"


def refusals(found: Thresholds) -> str:
    """One sentence on all findings without a threshold that keeps the sensitivity, by the reason; empty if none is."""
    rows = [row for row in found.findings if row.refused]
    few = [f"{row.finding} ({row.positive_patients:,})" for row in rows if row.f1]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if not row.f1:  # too few patients leave the best F1, other reasons nothing
            reasons.setdefault(row.refused.removeprefix(f"{row.finding}: "), []).append(row.finding)
    told = [
        f"no threshold keeps a sensitivity of {found.at_least:g} with {100 * CONFIDENCE:g} % confidence, which takes "
        f"{needed(found.at_least)} positive patients, for {', '.join(few)}"
    ]
    return "; ".join([*(told if few else []), *(f"{why}: {', '.join(names)}" for why, names in reasons.items())])
