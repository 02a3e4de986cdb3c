"""pandas frames of runs, epochs, predictions and gaps, for notebooks: `from xlite_search.results import runs`.

    runs("kd_grid").sort_values("val/auroc_macro")
    epochs("kd_grid").pivot(index="epoch", columns="label", values="val/auroc_macro").plot()

Settings are columns by their dotted names (`kd.tau`), metrics by MLflow's (`val/auroc_macro`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from xlite_search.data.dataset import open_data
from xlite_search.errors import BadInput, XliteError
from xlite_search.records import RunRecord
from xlite_search.results.against import Against, against
from xlite_search.results.compare import Comparison, open_study
from xlite_search.storage import write_atomic
from xlite_search.study_record import homes
from xlite_search.trainable import config_of
from xlite_search.training.predictions import Predictions


def runs(*studies: str) -> pd.DataFrame:
    """A row for each run of these studies: its settings, how it stands, its metrics at the best epoch, what it cost.

    Columns: study, run (its key), label, status, cause, epochs, best_epoch, seconds, gpu_wh (NaN where nobody knows),
    micro_batch; then every swept setting, what was measured before it began, and every metric of its best epoch.

    Raises:
        BadInput: there is no such study.
    """
    return pd.DataFrame.from_records([_row(run) for run in _runs(studies)])


def epochs(*studies: str) -> pd.DataFrame:
    """A row for each epoch of each run, from 1: study, run, label, the swept settings, epoch, and its metrics.

    Raises:
        BadInput: there is no such study.
    """
    rows = []
    for run in _runs(studies):
        who = _name(run) | run.settings
        rows += [who | {"epoch": number} | metrics for number, metrics in enumerate(run.epochs, start=1)]
    return pd.DataFrame.from_records(rows)


def predictions(run: RunRecord | str, epoch: Literal["best", "last"] = "best") -> pd.DataFrame:
    """A row for each validation image, indexed by its name: `logit/<finding>`, float32.

    Where the data set is here, its truth stands beside: `group` (the patient) and `label/<finding>`, 0 or 1. `run` is a
    record, or text as `kd_grid/3f2a...` or `kd_grid/tau=4 alpha=0.5`.

    Raises:
        BadInput: there is no such run, or it has no predictions of its last epoch.
        Damaged: its predictions are not what was written.
    """
    if epoch not in ("best", "last"):
        raise BadInput(f"epoch = {epoch!r}: expected 'best' or 'last'; of no others are predictions kept")
    found = run if isinstance(run, RunRecord) else run_named(run)
    path = found.predictions_path() if epoch == "best" else found.last_predictions_path()
    if path is None:
        raise BadInput(f"{found.label}: the last epoch's predictions were not kept when it was trained")
    kept = Predictions.load(path)
    logits = {
        f"logit/{name}": column for name, column in zip(kept.classes, kept.logits.T.astype(np.float32), strict=True)
    }
    frame = pd.DataFrame(logits, index=pd.Index(kept.images, name="image"))
    truth = _truth(found)
    return frame if truth is None else truth.join(frame, how="right")


def run_named(where: str) -> RunRecord:
    """A run by its study and its key or label, `kd_grid/tau=4 alpha=0.5`.

    Raises:
        BadInput: there is no such study, or no such run in it.
    """
    study, slash, which = where.partition("/")
    if not slash:
        raise BadInput(f"run '{where}': expected STUDY/RUN, a study's name and a run's key or label")
    return open_study(study).run(which)


def _runs(studies: tuple[str, ...]) -> Iterator[RunRecord]:
    if not studies:
        raise BadInput("name a study, or several: runs('kd_grid')")
    for name in dict.fromkeys(studies):
        yield from open_study(name).runs()


def _name(run: RunRecord) -> dict[str, Any]:
    return {"study": homes([run])[0], "run": run.key, "label": run.label}


def _row(run: RunRecord) -> dict[str, Any]:
    drawn = [epoch["energy/gpu_wh"] for epoch in run.epochs if "energy/gpu_wh" in epoch]
    about: dict[str, Any] = {
        "status": run.status,
        "cause": run.cause,
        "epochs": len(run.epochs),
        "best_epoch": run.best.epoch if run.best else None,
        "seconds": run.seconds,
        "gpu_wh": sum(drawn) if drawn else float("nan"),
        "micro_batch": run.micro_batch,
    }
    return _name(run) | about | run.settings | run.facts | (run.epochs[run.best.epoch - 1] if run.best else {})


def _truth(run: RunRecord) -> pd.DataFrame | None:
    """Labels and groups of the validation images; None where the data are not here, or other ones by now."""
    try:
        data = open_data(config_of(run).data)
    except (XliteError, OSError):
        return None
    table, rows = data.packed.table, data.val.rows
    columns: dict[str, Any] = {"group": [table.groups[row] for row in rows]}
    columns |= {f"label/{name}": column for name, column in zip(data.classes, data.val.labels.T, strict=True)}
    return pd.DataFrame(columns, index=pd.Index([table.names[row] for row in rows], name="image"))


def gaps(one: RunRecord | str, other: RunRecord | str) -> pd.DataFrame:
    """A row for each finding, the rarest first: AUROC of one run and of another on the same images, and their gap.

    Columns: finding, positives, supported, auroc_a, auroc_b, gap, low, high (95 %, for all findings at once), p,
    p_max_t, p_holm, verdict.

    Raises:
        BadInput: there is no such run, or they were validated on other images.
    """
    a, b = (run if isinstance(run, RunRecord) else run_named(run) for run in (one, other))
    return of_gaps(against(a, b, [a.label, b.label]))


def of_gaps(found: Against) -> pd.DataFrame:
    """A row for each finding, as `gaps` has them."""
    rows = []
    for gap in found.gaps:
        row = asdict(gap)
        row["auroc_a"], row["auroc_b"] = row.pop("auroc")
        rows.append(row | {"supported": gap.supported, "verdict": gap.verdict})
    heads = ["finding", "positives", "supported", "auroc_a", "auroc_b", "gap", "low", "high", "p", "p_max_t", "p_holm"]
    return pd.DataFrame.from_records(rows, columns=[*heads, "verdict"])


def of_comparison(comparison: Comparison) -> pd.DataFrame:
    """A row for each run, as `runs` has them, with what may be claimed of it: low and high of its own 95 % interval; of
    its arm (itself, or its setting over the seeds) the gap to the best, its interval, the verdict and the tie."""
    claims, rows = comparison.claims, []
    arms = {run.key: arm for arm in (claims.arms if claims else ()) for run in arm.runs}
    for run in (*comparison.ranked, *comparison.others):
        said: dict[str, Any] = {}
        if claims and run.key in claims.own:
            said |= {"low": claims.own[run.key].low, "high": claims.own[run.key].high}
        if run.key in arms:
            standing = arms[run.key].standing
            said |= {"gap": standing.gap, "gap_low": standing.low, "gap_high": standing.high}
            said |= {"verdict": standing.verdict, "tied_with_best": standing.may_be_best}
        rows.append(_row(run) | said)
    return pd.DataFrame.from_records(rows)


def write(frame: pd.DataFrame, path: Path) -> None:
    """Writes a frame as its file's name ends: `.csv` or `.parquet`."""
    whole = frame.to_parquet(index=False) if path.suffix == ".parquet" else frame.to_csv(index=False).encode()
    write_atomic(path, whole)
