"""A record as MLflow shows it: its run's name, params and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlite_search.records import RunRecord

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param

#: what runs are ranked by: of these the best epoch's are kept, for MLflow's comparison shows a metric's last value
RANKED = ("val/auroc", "val/ap", "val/f1")
#: characters that MLflow takes of a param
LONGEST_PARAM = 6000


def run_name(record: RunRecord, experiment: str) -> str:
    """`mobilenet_v3_small_mhsa tau=4 in kd_grid`: two studies' runs that are compared must not have one name."""
    where = {"trial": f" in {experiment}", "teacher": f" {record.key}", "final": ""}
    return record.label + where[record.kind]


def params(record: RunRecord) -> list[Param]:
    """What is swept, and every other setting that is not a default, each by its dotted name."""
    from mlflow.entities import Param

    found = record.settings | {name: value for name, value in unusual(record.config) if name not in record.settings}
    return [Param(name, str(value)[:LONGEST_PARAM]) for name, value in found.items()]


def unusual(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings of a resolved config that are not RunConfig's defaults; a choice by its short name, `loss`."""
    from xlite_search.config import RunConfig
    from xlite_search.spec import choice_names, flatten

    usual, choices = flatten(RunConfig().model_dump(mode="json")), set(choice_names(RunConfig))
    for name, value in flatten(config).items():
        if name not in usual or usual[name] != value:
            yield name.removesuffix(".name") if name in choices else name, value


def facts(record: RunRecord) -> list[Metric]:
    """What was measured of it before it began."""
    from mlflow.entities import Metric

    return [Metric(name, value, int(record.started * 1000), 0) for name, value in record.facts.items()]


def points(record: RunRecord, epoch: int) -> list[Metric]:
    """An epoch's metrics, timed by the record and not by the clock: written twice they are one point.

    The monitored metric comes first: MLflow's comparison opens on it, not on a loss.
    """
    from mlflow.entities import Metric

    metrics = record.epochs[epoch - 1]
    spent = sum(before.get("time/epoch_s", 0.0) for before in record.epochs[:epoch])
    when = int((record.started + spent) * 1000)
    names = sorted(metrics, key=lambda name: name != record.config["monitor"])
    return [Metric(name, metrics[name], when, epoch) for name in names]


def bests(record: RunRecord, model: str | None = None) -> list[Metric]:
    """What it was at its best epoch, `best/auroc_macro` and its like: the figures of `compare`'s table.

    `model` is MLflow's id of the model whose figures they are too.
    """
    from mlflow.entities import Metric

    if record.best is None or record.config["monitor"] not in record.epochs[record.best.epoch - 1]:
        return []
    epoch, ended = record.best.epoch, int(record.ended * 1000)
    metrics = record.epochs[epoch - 1]
    names = sorted((name for name in metrics if name.startswith(RANKED)), key=lambda n: n != record.config["monitor"])
    found = {best_name(name): metrics[name] for name in names} | {"best/epoch": float(epoch)}
    return [Metric(name, value, ended, epoch, model_id=model) for name, value in found.items()]


def best_name(metric: str) -> str:
    """`best/auroc_macro` of `val/auroc_macro`."""
    return f"best/{metric.removeprefix('val/')}"


def is_model(record: RunRecord) -> bool:
    """Whether its folder is a model folder."""
    return record.kind != "trial" and record.over and all(path.is_file() for path in model_files(record))


def model_files(record: RunRecord) -> list[Path]:
    from xlite_search.distill.teacher import MANIFEST, WEIGHTS

    return [record.folder / WEIGHTS, record.folder / MANIFEST]
