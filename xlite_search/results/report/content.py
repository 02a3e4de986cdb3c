"""Content of a report: everything that is on its page, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from xlite_search.results.by_finding import FindingGap
from xlite_search.results.columns import Table
from xlite_search.results.effects import Effects
from xlite_search.results.importance import Importances
from xlite_search.results.reached import Reached
from xlite_search.results.report.matrix import Matrix
from xlite_search.results.report.predicted import FindingCurves
from xlite_search.results.report.said import Against, Said
from xlite_search.results.teachers import Distillation
from xlite_search.training.metrics import SUPPORT


@dataclass(frozen=True)
class Run:
    """A run as the tables have it; NaN is what it does not have.

    rank       0 where it was not trained to its end
    low, high  95 % of its score alone, by patient
    """

    rank: int
    key: str
    label: str
    settings: Mapping[str, Any]
    status: str
    why: str
    epochs: int
    asked: int
    best_epoch: int
    score: float
    low: float
    high: float
    final: float
    supported: float
    ap: float
    f1: float
    parameters: float
    seconds: float
    gpu_wh: float
    micro_batch: int
    curve: tuple[float, ...]
    objectives: Mapping[str, float]
    on_front: bool


@dataclass(frozen=True)
class Gaps:
    """Two runs finding by finding: `one` less `other`; `why` says why these two."""

    one: str
    other: str
    why: str
    findings: tuple[FindingGap, ...]


@dataclass(frozen=True)
class Sampler:
    """What a sampler draws of the training images (`data/audit.py`), beside which loss, and in how many runs.

    of_images, of_draws  shares by finding, the rarest first, then of what has none; where `apply` is "loss", of the
                         loss's weight instead of the draws
    """

    sampler: str
    loss: str
    runs: int
    images: int
    apply: str
    cv: float
    no_finding: float
    effective_size: float
    distinct: float
    heaviest: float
    of_images: Mapping[str, float]
    of_draws: Mapping[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """Time in seconds, energy in Wh; NaN where nobody knows. `unread` counts epochs without a reading of energy."""

    seconds: float
    epochs: int
    asked: int
    gpu_wh: float
    unread: int
    teacher: str


@dataclass(frozen=True)
class Report:
    """All of a page. What is missing has its reason in `missing`, by the section's name.

    best   the label of the run whose curves are shown
    rungs  scores at the epochs at which runs were stopped
    front  PNG of the front of several objectives, or empty
    """

    study: str
    question: str
    metric: str
    chance: float
    images: int
    trained_on: int
    positives: Mapping[str, int]
    counts: Mapping[str, int]
    said: Said
    runs: tuple[Run, ...]
    best: str
    distillation: Distillation | None
    rungs: Table | None
    facts: tuple[str, ...]
    objectives: tuple[str, ...]
    front: bytes
    samplers: tuple[Sampler, ...]
    confounders: tuple[str, ...]
    cost: Cost
    environment: Mapping[str, str]
    changed_on_the_way: tuple[str, ...]
    matrix: Matrix | None = None
    effects: Effects | None = None
    importances: Importances | None = None
    gaps: Gaps | None = None
    curves: tuple[FindingCurves, ...] = ()
    reached: Reached | None = None
    against_best: tuple[Against, ...] = ()
    methods: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def ranked(self) -> list[Run]:
        return [run for run in self.runs if run.rank]

    @property
    def others(self) -> list[Run]:
        return [run for run in self.runs if not run.rank]

    def as_json(self) -> dict[str, Any]:
        """Plain values, null for what is not known."""
        found = {name: plain(value) for name, value in asdict(self).items() if name != "front"}
        if self.rungs:
            cells = {column.head: list(column.cells) for column in self.rungs.columns}
            found["rungs"] = {"columns": cells, "notes": list(self.rungs.notes)}
        return found


def plain(value: Any) -> Any:
    """The same for JSON: null for a number that is none, lists for tuples."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def in_words(counts: Mapping[str, int]) -> str:
    """`Of 8 runs: 3 trained to their end, 5 stopped early`."""
    words = {
        "ranked": "trained to their end",
        "stopped": "stopped early",
        "failed": "failed",
        "without_score": "ended without a score",
        "unfinished": "not over",
    }
    parts = [f"{counts[name]:,} {text}" for name, text in words.items() if counts[name] or name == "ranked"]
    return f"Of {counts['runs']:,} run{'' if counts['runs'] == 1 else 's'}: {', '.join(parts)}"


def rare(positives: int) -> bool:
    """Too few images with the finding to say anything of it alone."""
    return positives < SUPPORT
