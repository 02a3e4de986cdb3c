"""Measured cost of a training step and of inference on this device: seconds, memory, watts."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from torch import nn

from xlite_search.data.dataset import Data
from xlite_search.machine import device as this_device
from xlite_search.machine import peak_memory
from xlite_search.training.loop import Objective, Trainer
from xlite_search.training.recipe import Recipe

TIMED_STEPS = 2


@dataclass(frozen=True)
class StepCost:
    """What a recipe takes on this device while nothing else computes.

    train_s   seconds for each training image: loading, both passes, the update
    inference_s  seconds for each image that is only answered to
    memory    bytes at the peak: of the GPU, or of this process
    watts     what the GPU draws in training; 0 where nobody knows
    """

    train_s: float
    inference_s: float
    memory: int
    watts: float = 0.0

    def towards(self, other: StepCost, share: float) -> StepCost:
        """A point on the straight line to `other`: this at 0, `other` at 1."""
        here, there = (np.array([cost.train_s, cost.inference_s, cost.memory, cost.watts]) for cost in (self, other))
        train_s, inference_s, memory, watts = here + share * (there - here)
        return StepCost(float(train_s), float(inference_s), round(memory), float(watts))


def timed_steps(recipe: Recipe, model: nn.Module, data: Data, objective: Objective) -> StepCost:
    """Two training steps after a first one, which allocates, and two batches of validation images likewise.

    On a GPU as many steps as make a second: its energy counter moves some ten times in one.
    """
    with closing(Trainer(recipe, model.to(this_device()), data, objective)) as trainer:
        trainer.model.train()
        with closing(trainer.endless()) as batches:
            float(trainer.step(next(batches))[0])  # waits for the GPU
            trainer.meter.read()
            started, images = time.perf_counter(), 0
            at_least = started + (1.0 if trainer.device.type == "cuda" else 0.0)
            while images < TIMED_STEPS * recipe.batch_size or time.perf_counter() < at_least:
                batch = next(batches)
                float(trainer.step(batch)[0])
                images += len(batch.rows)
            train_s = (time.perf_counter() - started) / images
            watts = trainer.meter.read().get("energy/gpu_w", 0.0)
        some = np.arange(min(len(data.val), TIMED_STEPS * recipe.batch_size))
        if not len(some):
            return StepCost(train_s, train_s / 3, peak_memory(trainer.device), watts)
        trainer.predict(some)
        started = time.perf_counter()
        trainer.predict(some)
        inference_s = (time.perf_counter() - started) / len(some)
        return StepCost(train_s, inference_s, peak_memory(trainer.device), watts)
