"""What a trial costs beside its training: ours against stock Ray Tune, on trials that do nothing.

    python benchmarks/orchestration.py [--quick]

    trial_seconds_max  seconds a trial, ours: two at a time, every one with its record, checkpoint, weights and MLflow
                       run, from the first to the last
    speedup_vs_stock   stock Ray Tune's seconds a trial with its defaults, over ours. Its trial imports torch, as every
                       trial that trains does, and no more; `speedup_vs_bare` is of one that imports nothing
    speedup_vs_reuse   stock Tune's with `reuse_actors=True`, over ours
    recording_ms       ours: an epoch of 60 metrics into MLflow; `ray_recording_ms` with Ray's MLflowLoggerCallback

Stock Tune reports one figure a trial and records nothing. All in one run and one Ray, whose start is left out; the
starts of the workers are in all figures. The database is on this disk.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import recording
from recording import Limit

AT_ONCE, METRICS, EPOCHS = 2, 60, 40
#: of ours and of stock Tune's with reuse_actors, and of stock Tune's
TRIALS, STOCK, QUICK_TRIALS, QUICK_STOCK = 200, 12, 8, 2
LIMITS = {"trial_seconds_max": Limit(most=0.5), "speedup_vs_stock": Limit(least=6)}

STUDY = '''\
"""Trials that do nothing."""
import sys

sys.path.insert(0, {here!r})
from orchestration import nothing
from xlite_search.config import RunConfig
from xlite_search.data.dataset import DataSpec
from xlite_search.search.study import Study, grid_search

study = Study(
    question=__doc__,
    trainable=nothing,
    base=RunConfig(model="test_efficientnet_none", data=DataSpec(name="phantom-nothing"), epochs=1),
    space={{"seed": grid_search(list(range({trials})))}},
)
'''


@dataclass(frozen=True)
class Nothing:
    """An epoch's result with nothing in it."""

    epoch: int = 1
    improved: bool = True
    ended: str | None = "done"
    predictions: None = None
    metrics: dict[str, float] = field(default_factory=lambda: {"val/auroc_macro": 0.5, "train/loss": 0.1})

    def checkpoint_bytes(self) -> bytes:
        return b"state"

    def weights_bytes(self) -> bytes:
        return b"weights"

    def predictions_bytes(self) -> None:
        return None


def nothing(config: object, resume: Path | None = None) -> Iterator[Nothing]:
    """A trainable that is over at once."""
    yield Nothing()


def bare(config: dict[str, int]) -> None:
    from ray import tune

    tune.report({"score": 0.5})


def stock(config: dict[str, int]) -> None:
    import torch

    assert torch
    bare(config)


def seconds_of_stock(trials: int, *, reuse: bool = False, trial: Callable[[dict[str, int]], None] = stock) -> float:
    from ray import tune

    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(trial, {"CPU": 1}),
            param_space={"n": tune.grid_search(list(range(trials)))},
            tune_config=tune.TuneConfig(reuse_actors=reuse),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        started = time.perf_counter()
        tuner.fit()
        return (time.perf_counter() - started) / trials


def seconds_of_ours(trials: int, name: str) -> float:
    from xlite_search.search.plan import make_plan
    from xlite_search.search.runner import run
    from xlite_search.search.study_file import load_study

    path = Path(os.environ["XLITE_RUNS"]) / f"{name}.py"
    path.write_text(STUDY.format(here=str(Path(__file__).parent), trials=trials))
    plan = make_plan(load_study(str(path)), name)
    started = time.perf_counter()
    study = run(plan)
    seconds = time.perf_counter() - started
    assert {record.status for record in study.runs()} == {"finished"}
    return seconds / trials


class Stub:
    """What Ray's callback asks of a trial."""

    trial_id, config, evaluated_params, local_path = "t", {"lr": 0.1}, {"lr": 0.1}, ""

    def __str__(self) -> str:
        return "trial"


def epoch_into_mlflow() -> tuple[float, float]:
    """Milliseconds that an epoch of METRICS metrics takes the writer: ours, and Ray's callback; in one database."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    from xlite_search.records import RunRecord
    from xlite_search.tracking.mirror import Mirror
    from xlite_search.tracking.store import tracking_uri

    values = {f"val/m{n}": 0.5 for n in range(METRICS - 1)} | {"train/loss": 0.1}
    record = RunRecord(Path("nowhere"), "k", "trial", "k", {}, {"monitor": "val/m0"}, status="running", started=1.0)
    mirror = Mirror("ours", None)
    mirror.sync(record)
    started = time.perf_counter()
    for epoch in range(1, EPOCHS + 1):
        mirror.sync(replace(record, epochs=(values,) * epoch))
    ours = time.perf_counter() - started
    callback, trial = MLflowLoggerCallback(tracking_uri=tracking_uri(), experiment_name="ray"), Stub()
    callback.setup()
    callback.log_trial_start(trial)
    started = time.perf_counter()
    for epoch in range(1, EPOCHS + 1):
        callback.log_trial_result(epoch, trial, {**values, "training_iteration": epoch})
    theirs = time.perf_counter() - started
    callback.log_trial_end(trial)
    return ours / EPOCHS * 1000, theirs / EPOCHS * 1000


def measured(trials: int, stocks: int) -> dict[str, float]:
    from xlite_search.data.prepare import prepare
    from xlite_search.data.sources.phantom import Phantom
    from xlite_search.machine import Machine
    from xlite_search.search.engine import engine
    from xlite_search.tracking import store

    prepare("phantom-nothing", Phantom(images=60, size=32), 32)
    store.connect()
    with engine(Machine(cpus=AT_ONCE)):
        seconds_of_ours(AT_ONCE, "warm")
        ours = seconds_of_ours(trials, "nothing")
        plain, without = seconds_of_stock(stocks), seconds_of_stock(stocks, trial=bare)
        reuse = seconds_of_stock(trials, reuse=True)
    mine, theirs = epoch_into_mlflow()
    return {
        "trial_seconds_max": ours,
        "speedup_vs_stock": plain / ours,
        "speedup_vs_bare": without / ours,
        "speedup_vs_reuse": reuse / ours,
        "stock_trial_seconds": plain,
        "bare_trial_seconds": without,
        "reuse_trial_seconds": reuse,
        "recording_ms": mine,
        "ray_recording_ms": theirs,
        "recording_speedup": theirs / mine,
    }


def measure(quick: bool) -> dict[str, float]:
    trials, stocks = (QUICK_TRIALS, QUICK_STOCK) if quick else (TRIALS, STOCK)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XLITE_RUNS": f"{folder}/runs", "XLITE_DATA": f"{folder}/data"}
        figures = measured(trials, stocks)
    print(
        f"a trial that does nothing, {AT_ONCE} at a time: ours {figures['trial_seconds_max']:.3f} s, stock Tune "
        f"{figures['stock_trial_seconds']:.2f} s ({figures['bare_trial_seconds']:.2f} s without torch), with "
        f"reuse_actors {figures['reuse_trial_seconds']:.2f} s"
    )
    print(
        f"recording an epoch of {METRICS} metrics: ours {figures['recording_ms']:.1f} ms, "
        f"Ray's MLflow callback {figures['ray_recording_ms']:.1f} ms"
    )
    return figures | {"trials": trials, "stock_trials": stocks, "epoch_metrics": METRICS}


if __name__ == "__main__":
    recording.run("orchestration", __doc__, measure, LIMITS)
