"""A record as MLflow shows it: its run's name, params and metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlite_search.records import RunRecord

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param

    from xlite_search.config import RunConfig

#: what runs are ranked by: of these the best epoch's are kept, for MLflow's comparison shows a metric's last value
NOTE, VIEW = "mlflow.note.content", "mlflow.sharedViewState."
#: the view that `ui` opens
BEST_FIRST = "best-first"
RANKED = ("val/auroc", "val/ap", "val/f1")
#: characters that MLflow takes of a param
LONGEST_PARAM = 6000


def run_name(record: RunRecord, experiment: str) -> str:
    """`mobilenet_v3_small_mhsa tau=4 in kd_grid`: two studies' runs that are compared must not have one name."""
    where = {"trial": f" in {experiment}", "teacher": f" {record.key}"}
    return record.label + where.get(record.kind, "")


def params(record: RunRecord) -> list[Param]:
    """What is swept, and every other setting that is not a default, each by its dotted name."""
    from mlflow.entities import Param

    from xlite_search.trainable import config_named

    others = unusual(record.config, config_named(record.config_class))
    found = record.settings | {name: value for name, value in others if name not in record.settings}
    return [Param(name, str(value)[:LONGEST_PARAM]) for name, value in found.items()]


def unusual(config: Mapping[str, Any], own: type[RunConfig]) -> Iterator[tuple[str, Any]]:
    """The settings of a resolved config that are not its class's defaults; a choice by its short name, `loss`."""
    from xlite_search.spec import choice_names, flatten

    usual, choices = flatten(own.model_construct().model_dump(mode="json")), set(choice_names(own))
    for name, value in flatten(config).items():
        if name not in usual or usual[name] != value:
            yield name.removesuffix(".name") if name in choices else name, value


def facts(record: RunRecord) -> list[Metric]:
    """What was measured of it before it began."""
    from mlflow.entities import Metric

    return [Metric(name, value, int(record.started * 1000), 0) for name, value in record.facts.items()]


def points(record: RunRecord, epoch: int) -> list[Metric]:
    """An epoch's metrics, timed by the record and not by the clock: written twice they are one point.

    Of an epoch that was the best so far the best's come first, and of them the monitored: MLflow's comparison opens on
    what it was given first, and shall on the figure of `compare`'s table.
    """
    from mlflow.entities import Metric

    metrics, when = record.epochs[epoch - 1], _when(record, epoch)
    names = sorted(metrics, key=lambda name: name != record.config["monitor"])
    best = _bests_at(record, epoch) if _was_best(record, epoch) else []
    return best + [Metric(name, metrics[name], when, epoch) for name in names]


def bests(record: RunRecord, model: str | None = None) -> list[Metric]:
    """What it was at its best epoch, `best/auroc_macro` and its like: the figures of `compare`'s table.

    `model` is MLflow's id of the model whose figures they are too.
    """
    return _bests_at(record, record.best.epoch, model) if record.best else []


def _bests_at(record: RunRecord, epoch: int, model: str | None = None) -> list[Metric]:
    """Nothing if it has no value of what it is judged by."""
    from mlflow.entities import Metric

    metrics, monitor, when = record.epochs[epoch - 1], record.config["monitor"], _when(record, epoch)
    if monitor not in metrics:
        return []
    names = sorted((name for name in metrics if name.startswith(RANKED)), key=lambda name: name != monitor)
    found = {best_name(name): metrics[name] for name in names} | {"best/epoch": float(epoch)}
    return [Metric(name, value, when, epoch, model_id=model) for name, value in found.items()]


def _was_best(record: RunRecord, epoch: int) -> bool:
    """No epoch before it was as good, and it is not behind the best: what is logged last is the best's."""
    if record.best is None or epoch > record.best.epoch:
        return False
    curve = [metrics.get(record.config["monitor"], -math.inf) for metrics in record.epochs[:epoch]]
    return epoch == record.best.epoch or curve[-1] > max(curve[:-1], default=-math.inf)


def _when(record: RunRecord, epoch: int) -> int:
    """When an epoch ended, in milliseconds since 1970."""
    return int((record.started + sum(each.get("time/epoch_s", 0.0) for each in record.epochs[:epoch])) * 1000)


def view(monitor: str, settings: Iterable[str]) -> str:
    """The table of runs as MLflow's pages open it: the best first, with its score and what differs as columns."""
    best = f"metrics.`{best_name(monitor)}`"
    columns = [best, "metrics.`best/epoch`", *(f"params.`{name}`" for name in settings)]
    return json.dumps({"orderByKey": best, "orderByAsc": False, "selectedColumns": columns})


def best_name(metric: str) -> str:
    """`best/auroc_macro` of `val/auroc_macro`."""
    return f"best/{metric.removeprefix('val/')}"


def is_model(record: RunRecord) -> bool:
    """Whether its folder is a model folder."""
    return record.kind != "trial" and record.over and all(path.is_file() for path in model_files(record))


def model_files(record: RunRecord) -> list[Path]:
    from xlite_search.model_folder import MANIFEST, WEIGHTS

    weights = [] if record.kind == "ensemble" else [record.folder / WEIGHTS]
    return [*weights, record.folder / MANIFEST]
