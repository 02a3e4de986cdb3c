"""Measured cost of a study's models: training steps, inference, epoch's ends and starts, in processes like its trials'.

On a CPU as many processes are timed at a time as trials will run there, one model after the other: trials share caches
and the memory's bandwidth, and each is slower than it would be alone. On a GPU one is timed, and what sharing costs is
not known.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np

from xlite_search import places
from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.errors import BadInput, OutOfMemory
from xlite_search.execution import out_of_memory_named, release_memory
from xlite_search.records import RunRecord
from xlite_search.trainable import config_name, config_named
from xlite_search.training.loop import configure_process
from xlite_search.training.timing import StepCost, timed_steps

#: processes that are timed at a time, at most
TOGETHER = 8


@dataclass(frozen=True)
class Costs:
    """Of each model by its name; and how long a process takes until it has made its first step."""

    of: dict[str, StepCost]
    worker_s: float


def costs_of(configs: Sequence[RunConfig], at_once: int = 1) -> Costs:
    """Of configs' models, timed `at_once` at a time.

    Raises:
        BadInput: a model does not fit into memory.
    """
    by_name = {config.model: config for config in configs}
    together = min(at_once, TOGETHER)
    spawn = multiprocessing.get_context("spawn")
    begun, found = time.time(), dict[str, list[tuple[StepCost, float]]]()
    with ProcessPoolExecutor(
        together, mp_context=spawn, initializer=_begin, initargs=(spawn.Barrier(together),)
    ) as pool:
        for name, config in by_name.items():
            found[name] = _measured(pool, config, together)
    first = next(iter(found.values()))
    worker_s = max(ready for _, ready in first) - begun
    return Costs({name: mean_of([cost for cost, _ in costs]) for name, costs in found.items()}, worker_s)


def mean_of(costs: Sequence[StepCost]) -> StepCost:
    """Of processes that were timed together; of memory the most."""
    names = ("train_s", "inference_s", "watts", "epoch_s", "build_s")
    means = {name: float(np.mean([getattr(cost, name) for cost in costs])) for name in names}
    return StepCost(memory=max(cost.memory for cost in costs), **means)


def _measured(pool: ProcessPoolExecutor, config: RunConfig, together: int) -> list[tuple[StepCost, float]]:
    given = config.model_dump_json(), config_name(type(config))
    timed = [pool.submit(measured, *given) for _ in range(together)]
    try:
        return [each.result() for each in timed]
    except (BrokenProcessPool, OutOfMemory):
        smaller = "batch_size" if config.batchwise else "micro_batch, which keeps the batch"
        raise BadInput(
            f"a step of {config.model} with {config.micro_batch or config.batch_size} images at once does not fit "
            f"into memory here; set a smaller {smaller}"
        ) from None


_barrier: Barrier | None = None


def _begin(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def measured(given: str, named: str) -> tuple[StepCost, float]:
    """In a process of the pool: the cost of a config, JSON of the class `named`, and when its first step was over."""
    config = config_named(named).model_validate_json(given)
    configure_process(config)
    data = open_data(config.data)
    started = time.perf_counter()
    model, hard = config.build(data)
    build_s, ready = time.perf_counter() - started, list[float]()

    def together() -> None:
        ready.append(time.time())
        if _barrier is not None:
            _barrier.wait()

    try:
        with tempfile.TemporaryDirectory(dir=places.nearest_folder(places.runs_root())) as folder:
            record = RunRecord(Path(folder), "timed", "trial", config.model, {}, config.model_dump(mode="json"))
            with out_of_memory_named():
                cost = timed_steps(
                    config,
                    model,
                    data,
                    lambda logits, batch: hard(logits, batch.labels, batch.weights),
                    keep=record.add,
                    together=together,
                )
    except threading.BrokenBarrierError:
        raise OutOfMemory("out of memory in a process beside this one") from None
    except BaseException:
        if _barrier is not None:
            _barrier.abort()  # the others wait for this one
        raise
    release_memory()
    return replace(cost, build_s=build_s), ready[0]
