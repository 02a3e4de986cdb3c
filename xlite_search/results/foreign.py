"""Other people's runs as plain values: a table with a row for each run, or an MLflow experiment.

A table (CSV) has these columns, in any order:

    run          what to call the row
    metric.*     scores by name, higher is better: metric.auroc_macro
    predictions  optional: a file of scores per image (`prediction_files.py`), beside the table
    all others   settings, and what was done (`roles.PROVENANCE`: epochs_done, steps, device, ...), by name

An empty cell is what nobody wrote down, `none` that there is none. Names with dots are below others: of two runs with
another `schedule`, `schedule.patience` follows. Settings that are called as this program calls them get commands.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlite_search.data.sources.sheet import Sheet, is_blank, read_sheet, show
from xlite_search.errors import BadInput, did_you_mean
from xlite_search.results.confounders import RunFacts
from xlite_search.results.roles import PROVENANCE
from xlite_search.spec import flatten

RUN, METRIC, PREDICTIONS = "run", "metric.", "predictions"
#: what a table of runs is called where it is none
EXPECTED = "a table of runs with the columns run and metric.*"
WORDS: Mapping[str, Any] = {"none": None, "null": None, "true": True, "false": False}
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


def read_runs(path: Path) -> list[RunFacts]:
    """The runs of a table, in its order.

    Raises:
        BadInput: it is no such table: a column of scores or the runs' names is missing, or a score is no number.
    """
    sheet = read_sheet(path, EXPECTED)
    names, scores, predictions, settings = _columns(sheet)
    called = sheet.cells(names)
    for row, name in enumerate(called):
        if not name:
            raise BadInput(f"{sheet.at(row, names)}: the run has no name")
        if name in called[:row]:
            raise BadInput(f"{sheet.at(row, names)}: run {show(name)} is there twice; give each row a name of its own")
    return [
        RunFacts(
            name,
            *_parted({key: _value(sheet.rows[row][n]) for key, n in settings.items() if _is_told(sheet.rows[row][n])}),
            scores=dict(_scores(sheet, row, scores)),
            complete=False,
            predictions=_beside(path, sheet.rows[row][predictions]) if predictions is not None else None,
        )
        for row, name in enumerate(called)
    ]


def mlflow_runs(uri: str, experiment: str) -> list[RunFacts]:
    """The runs of an MLflow experiment: params are settings, the last value of each metric is a score. A param
    `predictions` may name a file of scores per image.

    Raises:
        BadInput: as `tracking.experiments.logged_runs`.
    """
    from xlite_search.tracking.experiments import logged_runs

    logged = logged_runs(uri, experiment)
    twice = {run.name for run in logged if sum(other.name == run.name for other in logged) > 1}
    found = []
    for run in logged:
        params = dict(run.params)
        predictions = params.pop(PREDICTIONS, "")
        settings, done = _parted({name: _value(text) for name, text in params.items() if _is_told(text)})
        ours = _with_defaults(params) if run.ours else None
        found.append(
            RunFacts(
                f"{run.name} {run.id[:8]}" if run.name in twice else run.name,
                ours or settings,
                {"status": run.status} | ({"commit": run.commit} if run.commit else {}) | done,
                run.metrics,
                complete=ours is not None,
                predictions=Path(predictions) if predictions else None,
            )
        )
    return found


def _with_defaults(params: Mapping[str, str]) -> dict[str, Any] | None:
    """The whole config of a run of ours, of which MLflow has what is not a default; None if it is none any more."""
    from xlite_search import written
    from xlite_search.config import RunConfig

    try:
        given = {name: written.value(_json(text), RunConfig, name, name) for name, text in params.items() if text}
        return flatten(RunConfig().with_settings(given).model_dump(mode="json"))
    except BadInput:
        return None


def _json(text: str) -> str:
    """Python's words for a value as JSON has them."""
    return {"None": "null", "True": "true", "False": "false"}.get(text, text)


def _columns(sheet: Sheet) -> tuple[int, dict[str, int], int | None, dict[str, int]]:
    """Where the names, the scores, the files of predictions and the settings are."""
    found: dict[str, int] = {}
    for number, head in enumerate(sheet.header):
        key = head.lower() if head.lower() in (RUN, PREDICTIONS) or head.lower().startswith(METRIC) else head
        if not key and not any(cell[number].strip() for cell in sheet.rows):
            continue
        if not key and number == 0:  # the numbers of the rows, as pandas writes them
            continue
        if not key:
            raise BadInput(f"{sheet.path}, line {sheet.top}: column {number + 1} has no name")
        if key in found:
            raise BadInput(f"{sheet.path}, line {sheet.top}: column {show(key)} is there twice; remove one")
        found[key] = number
    scores = {key.removeprefix(METRIC): found.pop(key) for key in list(found) if key.startswith(METRIC)}
    if RUN not in found:
        hint = did_you_mean(RUN, sheet.header) or f"; {sheet.found}"
        raise BadInput(f"{sheet.path}, line {sheet.top}: no column '{RUN}', which names the rows{hint}")
    if not scores or "" in scores:
        raise BadInput(
            f"{sheet.path}, line {sheet.top}: no column of scores; call it {METRIC}NAME, such as {METRIC}auroc_macro; "
            f"{sheet.found}"
        )
    return found.pop(RUN), scores, found.pop(PREDICTIONS, None), found


def _is_told(cell: str) -> bool:
    """Whether a cell says anything; `none` does."""
    return cell.strip().lower() in WORDS or not is_blank(cell)


def _scores(sheet: Sheet, row: int, columns: Mapping[str, int]) -> Iterator[tuple[str, float]]:
    for name, column in columns.items():
        cell = sheet.rows[row][column].strip()
        if is_blank(cell):
            continue
        if not NUMBER.fullmatch(cell) or not math.isfinite(float(cell)):
            raise BadInput(f"{sheet.at(row, column)}: {show(cell)} is no number")
        yield name, float(cell)


def _beside(path: Path, cell: str) -> Path | None:
    """A file that a table names, from the folder of the table on."""
    return None if is_blank(cell) else path.absolute().parent / cell.strip()


def _value(text: str) -> Any:
    """A setting as people write it: a number, true, false, none, or text."""
    text = text.strip()
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if not NUMBER.fullmatch(text):
        return text
    return int(text) if re.fullmatch("[-+]?[0-9]+", text) else float(text)


def _parted(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings, and what was done."""
    done = {name: value for name, value in values.items() if name in PROVENANCE}
    return {name: value for name, value in values.items() if name not in done}, done


def score_of(runs: Sequence[RunFacts], asked: str | None = None) -> str:
    """The score that runs are compared by: the one asked for, else the likeliest of those that most of them have.

    Raises:
        BadInput: none of them has the score that is asked for.
    """
    counts: dict[str, int] = {}
    for run in runs:
        for name in run.scores:
            counts[name] = counts.get(name, 0) + 1
    if asked is not None and asked not in counts:
        raise BadInput(f"--metric {asked}: no run has it{did_you_mean(asked, counts) or _there(counts)}")
    if asked is not None or not counts:
        return asked or ""
    most = max(counts.values())
    return min((name for name, count in counts.items() if count == most), key=_likely)


def _there(counts: Mapping[str, int]) -> str:
    return f"; there are {', '.join(list(counts)[:8])}" if counts else ""


def _likely(name: str) -> tuple[bool, bool, bool, bool]:
    """Sorts AUROCs first, the best epoch's and the mean over findings before others; losses and times last."""
    plain = name.lower()
    return (
        any(word in plain for word in ("loss", "time", "epoch", "error", "lr")),
        "auroc" not in plain and "auc" not in plain,
        "best" not in plain,
        "macro" not in plain and "mean" not in plain,
    )
