"""Results: comparisons, tables, exports, made from the records once the runs are over.

In a notebook: `from xlite_search.results import runs, epochs, predictions, gaps`, pandas frames (`frames.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlite_search.results.frames import epochs as epochs
    from xlite_search.results.frames import gaps as gaps
    from xlite_search.results.frames import predictions as predictions
    from xlite_search.results.frames import runs as runs

FRAMES = ("epochs", "gaps", "predictions", "runs")


def __getattr__(name: str) -> Any:
    """The frames, which import pandas: only whoever wants one waits for it."""
    if name not in FRAMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from xlite_search.results import frames

    return getattr(frames, name)
