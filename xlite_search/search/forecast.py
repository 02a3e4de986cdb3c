"""Forecast of a study: epochs, disk, and where two steps were timed, hours, memory and energy.

Epochs are the most that the rule can train (`workload.py`), and all else follows from them. Disk follows from the
number of weights. Time and memory are measured: two training steps of the largest and of the smallest model, each in a
process of its own with the run's own threads, loader and precision; models between them are placed by their
multiply-accumulates. Trials that share a GPU are forecast as a range, from "sharing costs nothing" to "they take
turns".
"""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

import torch

from xlite_search import limits, model_folder, places
from xlite_search.config import RunConfig
from xlite_search.console import duration
from xlite_search.data.dataset import Data, open_data
from xlite_search.distill.teacher_logits import online_reason
from xlite_search.errors import BadInput, OutOfMemory
from xlite_search.execution import out_of_memory_named
from xlite_search.machine import Machine, visible_gpus
from xlite_search.models.cost import macs
from xlite_search.models.hybrid import build_model
from xlite_search.records import KEPT_CHECKPOINTS
from xlite_search.search.plan import Plan
from xlite_search.search.teaching import views_of
from xlite_search.search.workload import Workload, makespan, workload
from xlite_search.trainable import config_name, config_named
from xlite_search.training.loop import configure_process
from xlite_search.training.timing import StepCost, timed_steps

#: of Ray and MLflow: to start, and for each trial (`benchmarks/orchestration.py`)
START_S, TRIAL_S = 12.0, 0.5
#: a trial's manifest, figures and predictions
BESIDE_WEIGHTS = 1_000_000


@dataclass(frozen=True)
class Timing:
    """Of what was measured: seconds at least and at most, the part of the least that ASHA saves, and bytes of memory
    that a trial of the largest model takes, on the GPU or else in its process; the energy of the GPUs in kWh, 0 where
    nobody knows."""

    seconds: tuple[float, float]
    saved_s: float
    memory: int
    kwh: float


@dataclass(frozen=True)
class Forecast:
    """Of what is left of a study.

    epochs    that the trials still train together at most; `all_epochs` without ASHA
    disk      bytes at the worst moment, beyond what is there, and `free` ones
    at_once   trials at a time
    timing    None where nothing was measured
    """

    epochs: int
    all_epochs: int
    disk: int
    free: int
    at_once: int
    device: str
    timing: Timing | None = None

    def words(self) -> Iterator[str]:
        """A line for each thing that was forecast."""
        saved = f", {1 - self.epochs / self.all_epochs:.0%} fewer than without ASHA" if self.all_epochs else ""
        yield f"{self.epochs:,} epochs at most{saved if self.epochs < self.all_epochs else ''}"
        if self.timing:
            least, most = map(duration, self.timing.seconds)
            asha = f"; ASHA saves {duration(self.timing.saved_s)} at least" if self.timing.saved_s >= 1 else ""
            yield f"{least if least == most else f'{least} to {most}'} at most, {self.at_once} at a time{asha}"
            if self.timing.kwh:
                yield f"{self.timing.kwh:.2g} kWh for the GPU"
            kind = "GPU memory" if self.device == "cuda" else "memory"
            yield f"{self.timing.memory / 1e9:.2g} GB of {kind} for a trial of the largest model"
            if self.device == "cpu" and self.at_once * self.timing.memory > (there := limits.memory()):
                yield (
                    f"{self.at_once} such trials at a time may not fit into the {there / 1e9:.2g} GB that may be used "
                    f"here: a smaller `cpus`, or a larger `cpus_per_trial`, in machine.toml has fewer at a time"
                )
        yield f"{self.disk / 1e9:.2g} GB of disk at most; {self.free / 1e9:,.1f} GB are free"

    def expect_room(self) -> None:
        """Raises BadInput if the disk cannot hold it."""
        if self.disk > self.free:
            raise BadInput(
                f"{places.runs_root()} has {self.free / 1e9:.2g} GB free, and this study takes up to "
                f"{self.disk / 1e9:.2g} GB: give some back (`clean STUDY`), name another folder with XLITE_RUNS, or "
                f"set checkpoints_gb in machine.toml"
            )


def forecast(plan: Plan, machine: Machine, *, measure: bool = False) -> Forecast:
    """Of the trials that are not over. `measure` times two steps of two models, which takes seconds.

    Raises:
        BadInput: a measured model does not fit into memory.
        Damaged: a record or the journal of a study that has begun is not what was written.
    """
    work = workload(plan)
    left = [trial.config for trial, run in zip(plan.trials, work.runs, strict=True) if not run.over]
    there = places.nearest_folder(plan.folder)
    gpus = visible_gpus(machine)
    at_once = max(1, min(_at_once(plan, machine, gpus), len(work.alone)))
    found = Forecast(
        epochs=sum(map(sum, work.stages)),
        all_epochs=sum(work.alone),
        disk=_disk(plan, left, work, machine, at_once),
        free=shutil.disk_usage(there).free,
        at_once=at_once,
        device="cuda" if gpus else "cpu",
    )
    return replace(found, timing=_timing(found, plan, left, work, gpus)) if measure and left else found


def state_bytes(config: RunConfig, classes: int) -> tuple[int, int]:
    """Of a checkpoint (weights, AdamW's two moments, the moving average if there is one), and of the weights alone."""
    with torch.device("meta"):
        model = build_model(config.model, classes=classes)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    moments = 2 * sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return weights + moments + (weights if config.ema else 0), weights


def _at_once(plan: Plan, machine: Machine, gpus: int) -> int:
    configs = [trial.config for trial in plan.trials]
    threads, augments = max(config.threads for config in configs), any(config.augment for config in configs)
    share = machine.resources(threads, gpus, augments=augments)
    return machine.at_once(share, {"CPU": machine.cores, "GPU": gpus})


def _disk(plan: Plan, left: Sequence[RunConfig], work: Workload, machine: Machine, at_once: int) -> int:
    """Two states and two best weights of every trial and of a missing teacher, and its logits.

    A budget caps what those that are over hold, but for the best weights of the finished; the others hold theirs.
    """
    classes = len(plan.data(plan.study.base).classes)
    sizes: dict[tuple[str, bool], tuple[int, int]] = {}
    for config in left:
        kind = config.model, bool(config.ema)
        sizes[kind] = sizes.get(kind) or state_bytes(config, classes)
    of = [sizes[config.model, bool(config.ema)] for config in left]
    pair = sum(map(sum, of)) / max(len(of), 1)
    best = sum(weights for _, weights in of) / max(len(of), 1) + BESIDE_WEIGHTS
    trials = (KEPT_CHECKPOINTS * pair + BESIDE_WEIGHTS) * len(work.alone)
    if machine.checkpoints_gb:
        live = max((_live(cohort, at_once) for cohort in work.cohorts), default=0.0)
        ends = sum(len(cohort[-1]) for cohort in work.cohorts)
        trials = min(trials, machine.checkpoints_gb * 1e9 + KEPT_CHECKPOINTS * pair * live + best * ends)
    models = sum(KEPT_CHECKPOINTS * sum(state_bytes(c, classes)) + BESIDE_WEIGHTS for c in _untrained(plan))
    return round(trials) + models + _cached_logits(left, plan) * classes * 2


def _live(cohort: Sequence[Sequence[int]], at_once: int) -> float:
    """Runs of a cohort that are not over and hold two of each, at the worst moment. Who waits at a rung after its first
    epoch has one of each: half."""
    *waiting, _ = cohort
    halved = [len(stage) / (KEPT_CHECKPOINTS if max(stage) == 1 else 1) for stage in waiting[:1]]
    return max([*halved, *(len(stage) for stage in waiting[1:]), min(at_once, len(cohort[-1]))])


def _untrained(plan: Plan) -> list[RunConfig]:
    """The teachers that are trained first."""
    members = plan.teaching.members if plan.teaching and plan.uses_teacher else {}
    return [c for key, c in members.items() if c and not model_folder.exists(places.teacher_folder(key))]


def _members(plan: Plan, like: RunConfig) -> list[RunConfig]:
    """The teacher's models; of a given one, a config `like` the students' with its model."""
    members = plan.teaching.members if plan.teaching and plan.uses_teacher else {}
    return [config or _given(key, like) for key, config in members.items()]


def _given(key: str, like: RunConfig) -> RunConfig:
    name = model_folder.read_model(places.teacher_folder(key)).model
    return like.model_copy(update={"model": name, "weights": None, "kd": None})


def _cached_logits(configs: Sequence[RunConfig], plan: Plan) -> int:
    """Cached teacher logits of these runs: runs with the same images and augmentation share them."""
    found: dict[tuple[str, float], int] = {}
    for config in configs:
        if config.kd and not online_reason(config, config.kd):
            views = config.augment.model_dump_json(exclude={"views"}) if config.augment else ""
            store = views, config.data.fraction
            found[store] = max(found.get(store, 0), views_of(config) * len(plan.data(config).train))
    return sum(found.values())


def _timing(found: Forecast, plan: Plan, left: Sequence[RunConfig], work: Workload, gpus: int) -> Timing:
    """Trials that share a GPU are somewhere between as fast as alone and taking turns."""
    teachers, members = _untrained(plan), _members(plan, left[0])
    costs = costs_of([*left, *teachers, *members])
    inference_s = sum(costs[member.model].inference_s for member in members)
    epoch_s = [_epoch_s(plan.data(config), config, costs[config.model], inference_s) for config in left]
    first = START_S + TRIAL_S * len(work.alone) / found.at_once + _cached_logits(left, plan) * inference_s
    for teacher in teachers:
        first += (teacher.stop_after or teacher.epochs) * _epoch_s(plan.data(teacher), teacher, costs[teacher.model])
    busy = sum(_longest(stage, epoch_s, found.at_once) for stage in work.stages)
    turns = max(1.0, found.at_once / gpus) if gpus else 1.0
    saved = _longest(work.alone, epoch_s, found.at_once) - busy
    memory = max(cost.memory for cost in costs.values())
    watts = sum(costs[config.model].watts for config in left) / len(left) * min(found.at_once, gpus)
    kwh = watts * (first + busy * (1 + turns) / 2) / 3.6e6
    return Timing((first + busy, first + busy * turns), max(saved, 0.0), memory, kwh)


def _longest(epochs: Sequence[int], epoch_s: Sequence[float], at_once: int) -> float:
    """Seconds of a stage whose runs are taken to be the slowest of those that are left, for nobody knows who stays; the
    slowest trains longest. Of trials that are not known yet each is as slow as the slowest."""
    slow = sorted(epoch_s, reverse=True)
    slow = slow[:1] * (len(epochs) - len(slow)) + slow
    return makespan([n * s for n, s in zip(sorted(epochs, reverse=True), slow, strict=False)], at_once)


def _epoch_s(data: Data, config: RunConfig, cost: StepCost, teacher_s: float = 0.0) -> float:
    """`teacher_s`: of the teacher's logits for an image, which are waited for where they are computed online."""
    waited = teacher_s if config.kd and online_reason(config, config.kd) else 0.0
    return len(data.train) * (cost.train_s + waited) + len(data.val) * cost.inference_s


def costs_of(configs: Sequence[RunConfig]) -> dict[str, StepCost]:
    """By model's name: measured for the one with the most and the one with the fewest multiply-accumulates, on the
    straight line between them for the others."""
    by_name = {config.model: config for config in configs}
    size = open_data(configs[0].data).packed.size
    work = {name: _macs(name, size) for name in by_name}
    small, large = min(by_name, key=lambda name: work[name]), max(by_name, key=lambda name: work[name])
    least = measured(by_name[small])
    most = measured(by_name[large]) if large != small else least
    span = max(work[large] - work[small], 1)
    return {name: least.towards(most, (work[name] - work[small]) / span) for name in by_name}


def _macs(name: str, size: int) -> int:
    with torch.random.fork_rng(devices=[]):
        return macs(build_model(name, classes=2).eval(), torch.zeros(1, 1, size, size, dtype=torch.uint8))


def measured(config: RunConfig) -> StepCost:
    """Two steps in a process of their own, as a trial has one: what it allocates goes with it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_steps, config.model_dump_json(), config_name(type(config))).result()
        except (BrokenProcessPool, OutOfMemory):
            smaller = "batch_size" if config.batchwise else "micro_batch, which keeps the batch"
            raise BadInput(
                f"a step of {config.model} with {config.micro_batch or config.batch_size} images at once does not fit "
                f"into memory here; set a smaller {smaller}"
            ) from None


def _steps(given: str, named: str) -> StepCost:
    config = config_named(named).model_validate_json(given)
    configure_process(config)
    data = open_data(config.data)
    model, hard = config.build(data)
    with out_of_memory_named():
        return timed_steps(config, model, data, lambda logits, batch: hard(logits, batch.labels, batch.weights))
