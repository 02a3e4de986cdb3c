"""pandas frames of runs, epochs and predictions, for notebooks: `from xlite_search.results import runs`.

    runs("kd_grid").sort_values("val/auroc_macro")
    epochs("kd_grid").pivot(index="epoch", columns="label", values="val/auroc_macro").plot()

Settings are columns by their dotted names (`kd.tau`), metrics by MLflow's (`val/auroc_macro`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from xlite_search.errors import BadInput, XliteError
from xlite_search.records import RunRecord
from xlite_search.results.compare import open_study
from xlite_search.study_record import homes
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
    for name in studies:
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
    from xlite_search.data.dataset import open_data
    from xlite_search.trainable import config_of

    try:
        data = open_data(config_of(run).data)
    except (XliteError, OSError):
        return None
    table, rows = data.packed.table, data.val.rows
    columns: dict[str, Any] = {"group": [table.groups[row] for row in rows]}
    columns |= {f"label/{name}": column for name, column in zip(data.classes, data.val.labels.T, strict=True)}
    return pd.DataFrame(columns, index=pd.Index([table.names[row] for row in rows], name="image"))


def written(frame: pd.DataFrame, path: Path) -> None:
    """Writes a frame as its file's name ends: `.csv` or `.parquet`."""
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
