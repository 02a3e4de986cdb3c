"""The tables of a study: who is best, by how much, at which findings.

Only runs that were trained to their end are ranked. A run that was stopped at a rung has had fewer epochs than its
peers: it is listed with the rung and the score it had there, never ranked against them.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from xlite_search import places
from xlite_search.console import clock, plain
from xlite_search.errors import BadInput, did_you_mean
from xlite_search.records import ARTIFACTS, TABLE, RunRecord, StudyRecord
from xlite_search.results import markdown
from xlite_search.results.front import figure, front, measure
from xlite_search.results.paired import Setting, over_seeds, table

if TYPE_CHECKING:
    from xlite_search.data.loaders import Data

CHANCE_AUROC = 0.5
COLUMNS_OF_CLASSES = 4
#: where the output is no terminal
WIDTH_OF_FILES = 200
WHY = {
    "waiting": "not begun",
    "running": "not over",
    "paused": "waits at a rung for the others",
    "finished": "no score",
    "stopped": "",
    "failed": "failed",
}


def open_study(name: str) -> StudyRecord:
    """Raises BadInput if there is no such study here, with a suggestion."""
    try:
        return StudyRecord.load(places.study_folder(name))
    except FileNotFoundError:
        known = places.studies()
        there = f"known are {', '.join(known)}" if known else "there is none yet"
        where = places.runs_root() / "studies"
        raise BadInput(f"no study '{name}' in {where}{did_you_mean(name, known) or f'; {there}'}") from None


@dataclass(frozen=True)
class Teaching:
    """What the teacher was asked, over all runs that have one.

    asked    views that it answered
    heard    views of which students heard an answer; what was heard and not asked was read from the store
    seconds  spent asking; `saved_seconds` is what asking for the rest would have taken
    size     bytes of all that is stored of its answers, for these and other studies
    """

    asked: int
    heard: int
    seconds: float
    saved_seconds: float
    size: int

    @property
    def saved(self) -> int:
        return max(self.heard - self.asked, 0)

    def words(self) -> str:
        """`teacher: 21,000 views asked in 12 s, 147,000 read instead of asked (84 s saved); store 0.6 MB`."""
        return (
            f"teacher: {self.asked:,} views asked in {clock(self.seconds)}, {self.saved:,} read instead of asked "
            f"({clock(self.saved_seconds)} saved); store {self.size / 1e6:.2g} MB"
        )


@dataclass(frozen=True)
class Comparison:
    """Runs of one or more studies that share a metric.

    minimize further objectives that all the studies have, lower is better
    ranked   trained to their end, best first
    others   stopped, failed or not over yet, in the study's order
    support  validation images, and how many of them have each finding; empty if no run has begun
    teaching what the teacher was asked; None without one
    settings what the runs of several seeds say together, the best first; empty if there is nothing to pair
    """

    names: tuple[str, ...]
    metric: str
    minimize: tuple[str, ...]
    ranked: list[RunRecord]
    others: list[RunRecord]
    images: int
    support: dict[str, int]
    teaching: Teaching | None
    settings: list[Setting]

    @property
    def energy_wh(self) -> float:
        """What the GPUs drew for all runs, in Wh; 0 where nobody knows."""
        return sum(_energy_wh(run) for run in (*self.ranked, *self.others))

    @property
    def unread(self) -> int:
        """Epochs whose energy is not known."""
        epochs = [epoch for run in (*self.ranked, *self.others) for epoch in run.epochs]
        return sum("energy/gpu_wh" not in epoch for epoch in epochs)

    @property
    def best(self) -> RunRecord:
        """Raises BadInput if no run was trained to its end."""
        if not self.ranked:
            raise BadInput(f"study '{self.names[0]}' has no run that was trained to its end; `run` it first")
        return self.ranked[0]

    def objectives(self) -> NDArray[np.float64]:
        """What the ranked runs reached, `[run, objective]`: the metric and what is to be low."""
        names = (self.metric, *self.minimize)
        return np.array([[run.objective(name) for name in names] for run in self.ranked]).reshape(-1, len(names))

    def on_front(self) -> list[bool]:
        """Which of the ranked runs no other is better than; none if there is a single objective."""
        if not self.minimize or not self.ranked:
            return [False] * len(self.ranked)
        return [bool(kept) for kept in front(self.objectives(), self._up)]

    def front_figure(self) -> bytes | None:
        """PNG of the front, or None if there is none."""
        if not any(self.on_front()):
            return None
        labels = [run.label for run in self.ranked]
        return figure(labels, self.objectives(), (self.metric, *self.minimize), self._up)

    @property
    def _up(self) -> list[bool]:
        return [True, *(False for _ in self.minimize)]

    def chance(self) -> dict[str, float]:
        """What scores that know nothing reach: AUROC 0.5 by definition, average precision the mean prevalence."""
        present = [count for count in self.support.values() if count]
        prevalence = float(np.mean(present)) / self.images if present else math.nan
        return {"val/auroc_macro": CHANCE_AUROC, "val/auroc_supported": CHANCE_AUROC, "val/ap_macro": prevalence}


def compare(names: list[str]) -> Comparison:
    """Raises BadInput if a study is not there, or the studies were ranked by different metrics."""
    studies = [open_study(name) for name in names]
    metrics = {study.metric for study in studies}
    if len(metrics) > 1:
        raise BadInput(
            f"the studies have different metrics ({', '.join(sorted(metrics))}) and cannot be ranked together"
        )
    if len({(study.definition["data"], study.definition["split"]) for study in studies}) > 1:
        raise BadInput(f"studies {', '.join(names)} were validated on other images, and cannot be ranked together")
    metric = studies[0].metric
    runs = [run for study in studies for run in study.runs()]
    ranked = [run for run in runs if run.status == "finished" and math.isfinite(run.best_score(metric))]
    ranked.sort(key=lambda run: run.best_score(metric), reverse=True)
    others = [run for run in runs if run not in ranked]
    teaching = _teaching(studies, runs)
    shared = tuple(name for name in studies[0].minimize if all(name in study.minimize for study in studies))
    images, support = _support(runs)
    makers = {study.folder: study.maker for study in studies}
    settings = over_seeds(ranked, metric, lambda: _data(runs), lambda run: makers[run.folder.parents[1]])
    return Comparison(tuple(names), metric, shared, ranked, others, images, support, teaching, settings)


def summary(study: str) -> dict[str, bytes]:
    """The files that say how a study went, by name, for its folder and its MLflow run."""
    comparison = compare([study])
    files = {"comparison.json": json.dumps(as_json(comparison), indent=1).encode()}
    files[TABLE] = markdown.ranking(comparison).encode()
    picture = comparison.front_figure()
    return files | ({"front.png": picture} if picture else {})


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The same as plain values."""

    on_front = {run.key for run, kept in zip(comparison.ranked, comparison.on_front(), strict=True) if kept}

    def entry(run: RunRecord, rank: int | None) -> dict[str, Any]:
        at_best = run.epochs[run.best.epoch - 1] if run.best else {}
        return {
            "rank": rank,
            "trial": run.key,
            "label": run.label,
            "settings": run.settings,
            "status": run.status,
            "cause": run.cause,
            "epochs": len(run.epochs),
            "best_epoch": run.best.epoch if run.best else None,
            "score": at_best.get(comparison.metric),
            "final": run.epochs[-1].get(comparison.metric) if run.epochs else None,
            "seconds": run.seconds,
            **({"gpu_wh": _energy_wh(run)} if comparison.energy_wh else {}),
            **({"micro_batch": run.micro_batch} if run.micro_batch else {}),
            "facts": run.facts,
            **({"front": run.key in on_front} if comparison.minimize else {}),
            "metrics": at_best,
        }

    ranked = [entry(run, rank) for rank, run in enumerate(comparison.ranked, start=1)]
    return {
        "studies": list(comparison.names),
        "metric": comparison.metric,
        "minimize": list(comparison.minimize),
        "chance": {name: value for name, value in comparison.chance().items() if math.isfinite(value)},
        **({"teaching": asdict(comparison.teaching)} if comparison.teaching else {}),
        **({"settings": [each.as_json() for each in comparison.settings]} if comparison.settings else {}),
        "validation": {"images": comparison.images, "positives": comparison.support},
        **({"gpu_wh": comparison.energy_wh, "epochs_unread": comparison.unread} if comparison.energy_wh else {}),
        "trials": ranked + [entry(run, None) for run in comparison.others],
    }


def _energy_wh(run: RunRecord) -> float:
    return sum(epoch.get("energy/gpu_wh", 0.0) for epoch in run.epochs)


def show(comparison: Comparison, *, classes: bool = True) -> None:
    """Prints the tables to stdout."""
    console = plain()
    if not console.is_terminal:
        console = plain(width=WIDTH_OF_FILES)
    parts: list[RenderableType] = [_ranking(comparison)] if comparison.ranked else []
    if comparison.settings:
        parts.append(table(comparison.settings))
    if comparison.others:
        parts.append(_others(comparison))
    if comparison.teaching:
        parts.append(Text(comparison.teaching.words()))
    if comparison.energy_wh:
        unread = f", and what {comparison.unread} epochs without a reading took" if comparison.unread else ""
        parts.append(Text(f"energy of the GPUs: {comparison.energy_wh / 1000:.3g} kWh{unread}"))
    if classes and comparison.ranked:
        parts.append(_per_class(comparison))
    console.print(Group(*parts))


def _ranking(comparison: Comparison) -> Table:
    name = comparison.metric
    table = Table(title=f"{', '.join(comparison.names)}: trained to the end, ranked by {name}", title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("trial")
    measures = [measure(extra) for extra in comparison.minimize]
    params = () if "model/parameters" in comparison.minimize else ("params",)
    for column in ("best", *(each.word for each in measures), "at epoch", "final", "AP", "F1", *params, "time"):
        table.add_column(column, justify="right", no_wrap=True)
    ranks = zip(range(1, len(comparison.ranked) + 1), comparison.ranked, comparison.on_front(), strict=True)
    for rank, run, kept in ranks:
        assert run.best is not None
        at_best = run.epochs[run.best.epoch - 1]
        table.add_row(
            f"* {rank}" if kept else str(rank),
            run.label,
            f"{run.best_score(name):.4f}",
            *(each.text(run.objective(extra)) for each, extra in zip(measures, comparison.minimize, strict=True)),
            f"{run.best.epoch} of {len(run.epochs)}",
            _number(run.epochs[-1].get(name)),
            _number(at_best.get("val/ap_macro")),
            _number(at_best.get("val/f1_macro")),
            *(f"{at_best['model/parameters'] / 1e6:.2f} M" if "model/parameters" in at_best else "" for _ in params),
            clock(run.seconds),
        )
    table.caption = "\n".join(_notes(comparison)) or None
    chance = comparison.chance()
    table.add_section()
    cells = [_number(chance.get(name)), *("" for _ in measures), "", "", _number(chance["val/ap_macro"])]
    table.add_row("", "chance: untrained, scores that know nothing", *cells, style="dim")
    return table


def _notes(comparison: Comparison) -> list[str]:
    """What a reader of the ranking must know: who has had other conditions, and what a star means."""
    notes = []
    if len({run.config["epochs"] for run in comparison.ranked}) > 1:
        notes.append("unequal epochs: compare only those that were asked for the same number")
    smaller = [f"{run.label} ({run.micro_batch})" for run in comparison.ranked if run.micro_batch]
    if smaller:
        notes.append(f"fewer images at once than asked for, so that batch norm saw others: {', '.join(smaller)}")
    if comparison.minimize:
        others = ", ".join(measure(extra).word for extra in comparison.minimize)
        notes.append(f"* on the front: no run is better in one of best, {others}, and as good in the others")
    return notes


def _others(comparison: Comparison) -> Table:
    table = Table(title="not ranked: not trained to the end", title_justify="left")
    table.add_column("trial")
    for column in ("best", "epochs"):
        table.add_column(column, justify="right")
    table.add_column("why")
    for run in comparison.others:
        why = run.cause if run.status == "stopped" else f"{run.status}: {run.cause}" if run.cause else WHY[run.status]
        score = run.best_score(comparison.metric)
        table.add_row(run.label, _number(score), f"{len(run.epochs)} of {run.config['epochs']}", why)
    return table


def _per_class(comparison: Comparison) -> RenderableType:
    """AUROC by finding, the rarest first, of the leading runs."""
    shown = comparison.ranked[:COLUMNS_OF_CLASSES]
    table = Table(title="validation AUROC by finding at the best epoch, the rarest first", title_justify="left")
    table.add_column("finding")
    table.add_column("positives", justify="right")
    for rank, _ in enumerate(shown, start=1):
        table.add_column(f"#{rank}", justify="right")
    at_best = [run.epochs[run.best.epoch - 1] for run in shown if run.best]
    names = {n.removeprefix("val/auroc/") for metrics in at_best for n in metrics if n.startswith("val/auroc/")}
    for finding in sorted(names | set(comparison.support), key=lambda n: (comparison.support.get(n, 0), n)):
        positives = comparison.support.get(finding)
        scores = [_number(metrics.get(f"val/auroc/{finding}")) for metrics in at_best]
        table.add_row(finding, "?" if positives is None else f"{positives:,}", *scores)
    note = Text(
        f"{comparison.images:,} validation images; '-': no positives, so no AUROC, and not in the mean", style="dim"
    )
    return Group(table, note)


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _teaching(studies: list[StudyRecord], runs: list[RunRecord]) -> Teaching | None:
    def total(name: str) -> float:
        return sum(epoch.get(name, 0.0) for run in runs for epoch in run.epochs)

    if not total("kd/heard"):
        return None
    homes = {places.teacher_folder(study.teacher) for study in studies if study.teacher}
    size = sum(path.stat().st_size for home in homes for path in home.glob("logits/*/*.f16"))
    asked, heard = int(total("kd/asked")), int(total("kd/heard"))
    return Teaching(asked, heard, total("time/teacher_s"), total("time/teacher_saved_s"), size)


def _data(runs: list[RunRecord]) -> Data:
    """What the runs were validated on. Raises BadInput or Damaged if it is not here any more."""
    from xlite_search.config import RunConfig  # seconds of imports, which a table without seeds can do without
    from xlite_search.data.loaders import open_data
    from xlite_search.spec import parse

    return open_data(parse(RunConfig, runs[0].config).data)


def _support(runs: list[RunRecord]) -> tuple[int, dict[str, int]]:
    """Validation images, and the positives of each finding, as the first run that began wrote them down."""
    for run in runs:
        try:
            said = json.loads((run.folder / ARTIFACTS / "environment.json").read_bytes())["run"]
            return int(said["images"]["val"]), {name: int(n["val"]) for name, n in said["findings"].items()}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return 0, {}
