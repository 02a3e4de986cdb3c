"""Tables of a comparison: what each says, in the order of reading."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xlite_search import places
from xlite_search.console import clock
from xlite_search.labels import short, texts
from xlite_search.records import RunRecord
from xlite_search.results.arms import Arm
from xlite_search.results.claims import Claims
from xlite_search.results.columns import ABSENT, Column, Table, ends, number
from xlite_search.results.front import measure
from xlite_search.results.influence import Figure
from xlite_search.results.paired import fold_of
from xlite_search.study_record import homes
from xlite_search.training.metrics import SUPPORT

if TYPE_CHECKING:
    from xlite_search.results.compare import Comparison

COLUMNS_OF_CLASSES = 4
#: runs that a table shows where a study may have a thousand
ROWS = 60
#: sentences on trials that were left out
LEFT_OUT = 3
FIGURES: Mapping[Figure, str] = {"auroc": "AUROC", "ap": "AP", "f1": "F1"}
MACRO, SUPPORTED = "val/auroc_macro", "val/auroc_supported"
WHY = {
    "waiting": "not begun",
    "running": "not over",
    "paused": "waits at a rung for the others",
    "finished": "no score",
    "stopped": "",
    "failed": "failed",
}


def tables(comparison: Comparison, *, classes: bool = True) -> Iterator[Table | str]:
    """All that there is to show, tables and sentences, in the order of reading; AUROC by finding only if `classes`."""
    recipe = comparison.claims if comparison.claims and comparison.claims.about == "recipe" else None
    if comparison.ranked:
        yield ranking(comparison)
    if recipe:
        yield recipes(recipe, comparison.facts)
    if comparison.claims:
        yield comparison.claims.sentence()
    elif comparison.ranked:
        yield f"no intervals, and no claim: {comparison.unclaimed}"
    yield from comparison.confounded
    if comparison.distillation:
        yield comparison.distillation.table(comparison.facts)
    if comparison.others:
        yield others(comparison)
    if any(run.status == "stopped" for run in comparison.others):
        yield by_rung(comparison)
    if comparison.teaching:
        yield comparison.teaching.words()
    if comparison.energy_wh:
        unread = f", and what {comparison.unread} epochs without a reading took" if comparison.unread else ""
        yield f"energy of the GPUs: {comparison.energy_wh / 1000:.3g} kWh{unread}"
    if classes and (effects := comparison.effects()):
        yield _with(effects.table(), comparison.facts)
    if classes and (importances := comparison.importances()):
        yield _with(importances.table(), comparison.facts)
    if classes and comparison.ranked:
        yield by_finding(comparison)
        if reached := comparison.reached():
            yield _with(reached.table(), comparison.facts)


def _with(table: Table, facts: Sequence[str]) -> Table:
    return replace(table, notes=[*table.notes, *facts])


def ranking(comparison: Comparison) -> Table:
    """The runs that were trained to their end, with what differs between them."""
    runs, name = comparison.ranked, comparison.metric
    at_best = [run.epochs[run.best.epoch - 1] for run in runs if run.best]
    claims = comparison.claims
    of_weights = claims if claims and claims.about == "weights" else None
    arms = {arm.runs[0].key: arm for arm in of_weights.arms} if of_weights else {}
    marks = [f"{'* ' if kept else ''}{rank}" for rank, kept in enumerate(comparison.on_front(), start=1)]
    if arms:
        marks = [f"{mark} {'=' if _tied(arms.get(run.key)) else ' '}" for mark, run in zip(marks, runs, strict=True)]
    rank = [] if _in_folds(runs) else [Column("#", marks)]
    columns = [*rank, *factors(runs, comparison.labels(runs))]
    columns.append(Column("best", [number(run.best_score(name)) for run in runs]))
    if claims:
        own = [claims.own.get(run.key) for run in runs]
        columns.append(Column("95 %", [ends(each.low, each.high) if each else ABSENT for each in own]))
    if of_weights:
        columns += _gaps([arms.get(run.key) for run in runs], of_weights.arms[0])
    for extra in comparison.minimize:
        words = measure(extra)
        columns.append(Column(words.word, [words.text(run.objective(extra)) for run in runs]))
    columns.append(Column("at epoch", [f"{run.best.epoch} of {len(run.epochs)}" for run in runs if run.best], spare=1))
    columns.append(Column("final", [number(run.epochs[-1].get(name)) for run in runs], spare=6))
    if name == MACRO and any(SUPPORTED in epoch for epoch in at_best):
        columns.append(Column("supported", [number(epoch.get(SUPPORTED)) for epoch in at_best], spare=2))
    columns.append(Column("AP", [number(epoch.get("val/ap_macro")) for epoch in at_best], spare=2))
    columns.append(Column("F1", [number(epoch.get("val/f1_macro")) for epoch in at_best], spare=5))
    if "model/parameters" not in comparison.minimize:
        sizes = [epoch.get("model/parameters") for epoch in at_best]
        columns.append(Column("params", [f"{size / 1e6:.2f} M" if size else ABSENT for size in sizes], spare=4))
    columns.append(Column("time", [clock(run.seconds) for run in runs], spare=3))
    how = "each fold has other images; sorted by" if _in_folds(runs) else "ranked by"
    title = f"{', '.join(comparison.names)}: trained to the end, {how} {name}"
    notes = [*_shared(runs), *(of_weights.notes() if of_weights else ()), *_notes(comparison), *comparison.facts]
    return Table(title, columns, notes)


def _in_folds(runs: Sequence[RunRecord]) -> bool:
    return len({fold_of(run) for run in runs}) > 1


def factors(runs: Sequence[RunRecord], labels: Sequence[str]) -> list[Column]:
    """What differs between runs, a column for each setting, the model and the study first; else their labels.

    A setting that another study has swept has the value of the run's config.
    """
    names = sorted(dict.fromkeys(name for run in runs for name in run.settings), key=lambda name: name != "model")
    found = [Column("study", homes(runs), text=True)]
    for name, head in zip(names, short(names), strict=True):
        values = [_value(run, name) for run in runs]
        written = iter(texts([value for value in values if value is not None]))
        found.append(Column(head, [ABSENT if value is None else next(written) for value in values], text=True))
    found = [column for column in found if len(set(column.cells)) > 1]
    rows = set(zip(*(column.cells for column in found), strict=True))
    return found if found and len(rows) == len(runs) else [Column("trial", labels, text=True)]


def _shared(runs: Sequence[RunRecord]) -> list[str]:
    """What was swept and is the same in all of several runs, and has no column therefore: a sentence, or nothing."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    values = {name: texts([_value(run, name) for run in runs]) for name in names}
    same = [f"{name} {values[name][0]}" for name in names if len(set(values[name])) == 1]
    return [f"all of them: {', '.join(same)}"] if same and len(runs) > 1 else []


def _value(run: RunRecord, name: str) -> Any:
    """None where there is no such setting."""
    if name in run.settings:
        return run.settings[name]
    value: Any = run.config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value.get("name", value) if isinstance(value, Mapping) else value


def _notes(comparison: Comparison) -> list[str]:
    """What a reader of the ranking must know: chance, who has had other conditions, and what a star means."""
    chance = comparison.chance()
    reached = [
        f"{word} {number(chance.get(name))}" for word, name in (("best", comparison.metric), ("AP", "val/ap_macro"))
    ]
    notes = [f"chance, scores that know nothing: {', '.join(reached)}"]
    if len({run.config["epochs"] for run in comparison.ranked}) > 1:
        notes.append("unequal epochs: compare only those that were asked for the same number")
    labels = zip(comparison.labels(comparison.ranked), comparison.ranked, strict=True)
    smaller = [f"{label} ({run.micro_batch})" for label, run in labels if run.micro_batch]
    if smaller:
        notes.append(f"fewer images at once than asked for, so that batch norm saw others: {', '.join(smaller)}")
    if comparison.minimize:
        words = ", ".join(measure(extra).word for extra in comparison.minimize)
        notes.append(f"* on the front: no run is better in one of best, {words}, and as good in the others")
        stopped = sum(run.status == "stopped" for run in comparison.others)
        if stopped:
            notes.append(
                f"off the front: {stopped} stopped before the end, dominated at equal or lower cost, see below"
            )
    notes += comparison.left_out[:LEFT_OUT]
    if len(comparison.left_out) > LEFT_OUT:
        notes.append(f"and so are {len(comparison.left_out) - LEFT_OUT:,} more: --json says which")
    return notes


def recipes(claims: Claims, facts: Sequence[str]) -> Table:
    """The settings over their seeds, or folds, with their gaps to the best."""
    arms, each = claims.arms, "fold" if claims.folds else "seed"
    columns = [
        Column("", ["=" if _tied(arm) else "" for arm in arms]),
        Column("setting", [arm.label for arm in arms], text=True),
        Column(f"{each}s", [str(len(set(arm.folds) or arm.runs)) for arm in arms], spare=1),
        Column("mean", [number(arm.score) for arm in arms]),
        Column("sd", [number(arm.spread) for arm in arms], spare=2),
        Column("95 %", [ends(arm.interval.low, arm.interval.high) for arm in arms]),
        *_gaps(arms, arms[0]),
        Column(f"of each {each}", ["  ".join(f"{gap:+.4f}" for gap in arm.gaps) for arm in arms], spare=4),
    ]
    where = "on the same images: the recipe, with the chance of training"
    if claims.folds:
        where = "the recipe; the variance over folds is corrected for their common training images (Nadeau and Bengio)"
    return Table(f"over the {each}s, {where}", columns, [*claims.notes(), *facts])


def _gaps(arms: Sequence[Arm | None], best: Arm) -> list[Column]:
    """Gaps to the best, with the intervals that hold for all of them at once, and what these say."""
    behind = [None if arm is None or arm is best else arm.standing for arm in arms]
    return [
        Column("gap", ["" if each is None else number(each.gap, "+") for each in behind], spare=3),
        Column("95 % of gap", ["" if each is None else ends(each.low, each.high, "+") for each in behind], spare=2),
        Column("verdict", ["" if each is None else each.verdict for each in behind]),
    ]


def _tied(arm: Arm | None) -> bool:
    return arm is not None and arm.standing.may_be_best


def others(comparison: Comparison) -> Table:
    """Who is not ranked, and why."""
    runs = comparison.others
    columns = [
        Column("trial", comparison.labels(runs), text=True),
        Column("best", [number(run.best_score(comparison.metric)) for run in runs]),
        Column("epochs", [f"{len(run.epochs)} of {run.config['epochs']}" for run in runs]),
        Column("why", [_why(run) for run in runs], text=True),
    ]
    return Table("not ranked: not trained to the end", columns, comparison.facts)


def by_rung(comparison: Comparison) -> Table:
    """Scores at the epochs at which runs were stopped: each beside all that came as far, and beside no others."""
    rungs = sorted({len(run.epochs) for run in comparison.others if run.status == "stopped"})
    runs = [run for run in (*comparison.ranked, *comparison.others) if len(run.epochs) >= rungs[0]]
    runs.sort(key=lambda run: [_at(run, rung, comparison.metric) for rung in reversed(rungs)], reverse=True)
    shown = runs[:ROWS]
    columns = [Column("trial", comparison.labels(shown), text=True)]
    for rung in rungs:
        scores = [_at(run, rung, comparison.metric) for run in shown]
        columns.append(Column(f"epoch {rung}", [number(score) for score in scores]))
    reached = (f"{sum(len(run.epochs) >= rung for run in runs):,} at epoch {rung}" for rung in rungs)
    notes = [f"runs that came as far: {', '.join(reached)}"]
    if len(runs) > ROWS:
        notes.append(f"the first {ROWS} of {len(runs):,}")
    return Table(f"at the rungs: {comparison.metric} of all that came as far", columns, [*notes, *comparison.facts])


def _at(run: RunRecord, epoch: int, metric: str) -> float:
    """The score at an epoch; minus infinity where the run did not come as far, or has none."""
    score = run.epochs[epoch - 1].get(metric, math.nan) if len(run.epochs) >= epoch else math.nan
    return score if math.isfinite(score) else -math.inf


def _why(run: RunRecord) -> str:
    if run.status == "stopped":
        return run.cause
    return f"{run.status}: {run.cause}" if run.cause else WHY[run.status]


def by_finding(comparison: Comparison) -> Table:
    """The score by finding, the rarest first, of the leading runs, or settings; the first one's with its interval."""
    kind, arms = comparison.figure, comparison.claims.arms if comparison.claims else ()
    by_arm = comparison.claims is not None and comparison.claims.about == "recipe"
    leading = [arm.runs for arm in arms] if by_arm else [(run,) for run in comparison.ranked]
    at_best = [[run.epochs[run.best.epoch - 1] for run in runs if run.best] for runs in leading[:COLUMNS_OF_CLASSES]]
    head, support = f"val/{kind}/", comparison.support
    there = {n.removeprefix(head) for of in at_best for metrics in of for n in metrics if n.startswith(head)}
    names = sorted(there | set(support), key=lambda name: (support.get(name, 0), name))
    columns = [
        Column("finding", [f"({n})" if support.get(n, SUPPORT) < SUPPORT else n for n in names], text=True),
        Column("positives", [f"{support[name]:,}" if name in support else "?" for name in names]),
    ]
    first = next((arm.findings for arm in arms if arm.runs == tuple(leading[0])), {})
    for place, of in enumerate(at_best):
        means = [[metrics[f"{head}{name}"] for metrics in of if f"{head}{name}" in metrics] for name in names]
        cells = [number(sum(each) / len(each)) if each else ABSENT for each in means]
        columns.append(Column(f"#{place + 1}", cells, spare=place))
        if first and not place:
            own = [first.get(name) for name in names]
            columns.append(Column("95 % of #1", [ends(each.low, each.high) if each else ABSENT for each in own]))
    what = "the settings of the table above, in its order" if by_arm else "runs as they are ranked"
    notes = [
        f"#: {what}",
        f"{comparison.images:,} validation images; '-': not known, and not in the mean",
    ]
    if any(0 < support[name] < SUPPORT for name in names if name in support):
        notes.append(f"(finding): under {SUPPORT} positives; its figure is hardly more than luck")
    title = f"validation {FIGURES[kind]} by finding at the best epoch, the rarest first"
    return Table(title, columns, [*notes, *comparison.facts])


def closing_lines(comparison: Comparison) -> Iterator[str]:
    """What is said below the table of a study that has just been run: the best config, and what to do next."""
    name, failed = comparison.names[0], [run for run in comparison.others if run.status == "failed"]
    if failed and not comparison.ranked:
        yield f"\nNo trial was trained to its end: {len(failed)} failed, the first because {failed[0].cause}"
    elif not comparison.ranked:
        yield f"\nNo trial has a value of {comparison.metric}: there is nothing to rank"
    else:
        winner, claims = comparison.best, comparison.claims
        settings = " ".join(f"{setting}={value}" for setting, value in winner.settings.items())
        score = f"{comparison.metric} {winner.best_score(comparison.metric):.4f}"
        if claims and claims.about == "recipe":
            over = f"{len(claims.folds)} folds" if claims.folds else f"{len(claims.arms[0].runs)} seeds"
            score = f"the usual run of the best mean over {over}; {score}"
        yield f"\nBest config: {settings}  ({score})"
        yield f"Export it:   python -m xlite_search best {name} -o best.yaml"
        yield f"By finding:  python -m xlite_search compare {name}"
        yield f"As a page:   python -m xlite_search report {name} -o report.html"
    yield f"Files:       {places.study_folder(name)}"
    yield "MLflow:      python -m xlite_search ui"
