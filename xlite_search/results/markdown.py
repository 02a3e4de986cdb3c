"""Ranking of a study as Markdown, for the note of its MLflow run and beside its records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xlite_search.console import clock

if TYPE_CHECKING:
    from xlite_search.records import RunRecord
    from xlite_search.results.compare import Comparison

HEADS = ("#", "trial", "best", "at epoch", "final", "AP", "F1", "time")


def ranking(comparison: Comparison) -> str:
    """The figures of `compare`'s table, then who is not ranked and why."""
    lines = [f"Trained to the end, ranked by `{comparison.metric}` at each trial's best epoch:", ""]
    lines += _table(HEADS, [_ranked(rank, run, comparison) for rank, run in enumerate(comparison.ranked, start=1)])
    if comparison.others:
        lines += ["", "Not ranked:", ""]
        others = [(_code(run.label), run.status, str(len(run.epochs)), _plain(run.cause)) for run in comparison.others]
        lines += _table(("trial", "status", "epochs", "why"), others)
    lines += [line for fact in comparison.facts for line in ("", fact)]
    return "\n".join(lines) + "\n"


def _ranked(rank: int, run: RunRecord, comparison: Comparison) -> tuple[str, ...]:
    assert run.best is not None
    at_best, last = run.epochs[run.best.epoch - 1], run.epochs[-1]
    return (
        str(rank),
        _code(run.label),
        _number(at_best.get(comparison.metric)),
        f"{run.best.epoch} of {len(run.epochs)}",
        _number(last.get(comparison.metric)),
        _number(at_best.get("val/ap_macro")),
        _number(at_best.get("val/f1_macro")),
        clock(run.seconds),
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def _code(text: str) -> str:
    """As it is, whatever signs it has; a bar would end the cell, a backtick the code."""
    return f"`{_plain(text)}`"


def _plain(text: str) -> str:
    return " ".join(text.replace("`", "'").replace("|", "\\|").split())


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"
