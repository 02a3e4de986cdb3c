"""Execution of a run: drives its trainable from the last good checkpoint on, and writes its record every epoch."""

from __future__ import annotations

import gc
import math
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from xlite_search.config import RunConfig, run_key
from xlite_search.data.dataset import open_data
from xlite_search.errors import OutOfMemory, RunFailed, cause_of
from xlite_search.machine import this_machine
from xlite_search.records import EpochState, RunRecord
from xlite_search.storage import FULL
from xlite_search.trainable import Trainable, maker
from xlite_search.training import compiling, environment
from xlite_search.training.result import EpochResult


def drive(
    record: RunRecord, trainable: Trainable, config: RunConfig, *, until: int | None = None
) -> Iterator[RunRecord]:
    """Follows a run from its last good checkpoint; what it runs on is left beside it before its first epoch.

    That happens within `follow`: it knows where the run goes on, and writes down what cannot be done.
    """

    def epochs(begun: RunRecord) -> Iterator[EpochResult]:
        key = run_key(config, maker(trainable)) if begun.kind == "final" else begun.key
        environment.write_artifacts(begun, key, config, open_data(config.data))
        fitting = config.with_settings({"micro_batch": begun.micro_batch}) if begun.micro_batch else config
        with out_of_memory_named():
            yield from trainable(fitting, begun.resume_path())

    yield from follow(record, epochs, until=until, keep_states=this_machine().keep_states)


#: what torch says, without a type of its own, where memory ran out
GPU_FULL = ("CUDA out of memory", "CUDA error: out of memory", "BLAS_STATUS_ALLOC_FAILED", "DNN_STATUS_ALLOC_FAILED")
HOST_FULL = "can't allocate memory"


@contextmanager
def out_of_memory_named() -> Iterator[None]:
    """Tells the GPU's memory from the host's: `OutOfMemory`, whatever torch or numpy call it.

    What a library takes beside torch's allocator (cuBLAS, cuDNN, the driver), and what runs out while code is compiled,
    comes as a plain RuntimeError.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise OutOfMemory("out of memory on the GPU") from None
    except MemoryError:
        raise OutOfMemory("out of memory on the host") from None
    except RuntimeError as error:
        if any(said in str(error) for said in GPU_FULL):
            raise OutOfMemory("out of memory on the GPU") from None
        if HOST_FULL not in str(error):
            raise
        raise OutOfMemory("out of memory on the host") from None


def release_memory() -> None:
    """Gives back what a run that is over held, compiled code and the GPU's memory: the process is used by the next one,
    and has neighbours on the same GPU."""
    import torch

    compiling.forget()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def follow(
    record: RunRecord,
    epochs: Callable[[RunRecord], Iterable[EpochState]],
    *,
    until: int | None = None,
    keep_states: bool = True,
) -> Iterator[RunRecord]:
    """Drives a run from its last good checkpoint to epoch `until`, or its end; yields its record after every epoch.

    An epoch that was reported is on disk. A failure is written with its cause, and then raised. Out of memory
    for the first time is none yet: the run waits to be tried with half as many images at once. One that is finished,
    by another process perhaps that held it until now, is left as it is.
    """
    if record.status == "finished":
        return
    record = record.rewound()
    record = replace(record, status="running", cause="", ended=0.0, started=record.started or time.time()).save()
    try:
        for result in epochs(record):
            _expect_finite(result)
            record = record.add(result, until, keep_states=keep_states)
            yield record
            if record.status != "running":
                return
    except OutOfMemory as error:
        record = record.starved(str(error))
        if record.over:
            raise
        yield record
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:  # not the run's fault
            raise
        (record.folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        record.close("failed", cause_of(error))
        raise


def _expect_finite(result: EpochState) -> None:
    for name, value in result.metrics.items():
        if not math.isfinite(value):
            raise RunFailed(f"not_finite: {name} is {value} at epoch {result.epoch}; what has no value is left out")
