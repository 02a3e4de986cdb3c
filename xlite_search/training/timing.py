"""Measured cost of a recipe on this device: seconds of a step, of inference and of an epoch's end; memory, watts."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from torch import nn

from xlite_search.data.dataset import Data
from xlite_search.machine import device as this_device
from xlite_search.machine import peak_memory
from xlite_search.training.evaluator import Evaluation, MultiLabel
from xlite_search.training.loop import Objective, Trainer
from xlite_search.training.recipe import Recipe
from xlite_search.training.result import EpochResult

#: of training, and of inference: at least so many steps and seconds
TIMED_STEPS, TRAINING_S, INFERENCE_S = 2, 2.0, 0.5


@dataclass(frozen=True)
class StepCost:
    """What a recipe takes on this device while nothing computes but what is timed with it.

    train_s   seconds for each training image: loading, both passes, the update
    inference_s  seconds for each image that is only answered to
    memory    bytes at the peak: of the GPU, or of this process
    watts     what the GPU draws in training; 0 where nobody knows
    epoch_s   seconds that an epoch takes beside its images: the metrics, and what is kept
    build_s   seconds until the model is there
    """

    train_s: float
    inference_s: float
    memory: int
    watts: float = 0.0
    epoch_s: float = 0.0
    build_s: float = 0.0


def timed_steps(
    recipe: Recipe,
    model: nn.Module,
    data: Data,
    objective: Objective,
    *,
    keep: Callable[[EpochResult], object] = lambda result: None,
    together: Callable[[], object] = lambda: None,
) -> StepCost:
    """Training steps after a first one, which allocates, and batches of validation images likewise; then the metrics of
    a whole epoch, and `keep`, which writes it down.

    `together` is called between the first step and the others: who is timed beside others waits for them there.
    """
    with closing(Trainer(recipe, model.to(this_device()), data, objective)) as trainer:
        trainer.model.train()
        with closing(trainer.endless()) as batches:
            float(trainer.step(next(batches))[0])  # waits for the GPU
            together()
            trainer.meter.read()
            started, images = time.perf_counter(), 0
            while images < TIMED_STEPS * recipe.batch_size or time.perf_counter() < started + TRAINING_S:
                batch = next(batches)
                float(trainer.step(batch)[0])
                images += len(batch.rows)
            train_s = (time.perf_counter() - started) / images
            watts = trainer.meter.read().get("energy/gpu_w", 0.0)
        inference_s = _inference_s(trainer) if len(data.val) else train_s / 3
        drawn = np.random.default_rng(0).standard_normal(
            data.val.labels.shape, np.float32
        )  # no model's, that none has collapsed
        started = time.perf_counter()
        judged = MultiLabel.of(data)(drawn, data.val.labels) if len(data.val) else Evaluation()
        state = trainer.checkpoint(1, {"epoch": 1.0, "score": 0.0})
        keep(EpochResult(1, judged.metrics, True, None, state, judged.predictions))
        epoch_s = time.perf_counter() - started
        return StepCost(train_s, inference_s, peak_memory(trainer.device), watts, epoch_s)


def _inference_s(trainer: Trainer) -> float:
    """Seconds for each validation image."""
    some = np.arange(min(len(trainer.data.val), TIMED_STEPS * trainer.recipe.batch_size))
    trainer.predict(some)
    started, images = time.perf_counter(), 0
    while not images or time.perf_counter() < started + INFERENCE_S:
        trainer.predict(some)
        images += len(some)
    return (time.perf_counter() - started) / images
