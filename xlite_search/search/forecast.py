"""Forecast of a study: epochs, disk, and where steps were timed, hours, memory and energy.

Epochs are the most that the rule can train (`workload.py`), and all else follows from them. Disk follows from the
number of weights. Time and memory are measured (`step_costs.py`): steps and an epoch's end of every model, with the
run's own threads, loader and precision. From a rung on nobody knows who stays: the time is said as it is if they are
as fast as the mean of all, and as it is at most, if they are the slowest. Trials that share a GPU are forecast as a
range, from "sharing costs nothing" to "they take turns".
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from xlite_search import limits, model_folder, places
from xlite_search.config import RunConfig
from xlite_search.console import duration
from xlite_search.data.dataset import Data
from xlite_search.distill.teacher_logits import online_reason
from xlite_search.errors import BadInput
from xlite_search.machine import Machine, visible_gpus
from xlite_search.models.hybrid import build_model
from xlite_search.records import KEPT_CHECKPOINTS
from xlite_search.search.makespan import Todo, cuts, makespan
from xlite_search.search.plan import Plan
from xlite_search.search.step_costs import costs_of
from xlite_search.search.teaching import views_of
from xlite_search.search.workload import Workload, workload
from xlite_search.training.timing import StepCost

#: of Ray and MLflow, imports and the closing table among it; and for a run each time that a worker goes on with it
#: (`benchmarks/forecast.py`)
START_S, TRIAL_S = 15.0, 0.2
#: a trial's manifest, figures and predictions
BESIDE_WEIGHTS = 1_000_000


@dataclass(frozen=True)
class Timing:
    """Of what was measured, each if sharing a GPU costs nothing, and if it means taking turns: seconds if those who
    stay are as fast as the mean, and seconds at most. The part of the most that ASHA saves; bytes of memory that a
    trial of the largest model takes, on the GPU or else in its process; the energy of the GPUs in kWh, 0 where nobody
    knows."""

    expected: tuple[float, float]
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
            expected, most = map(_range, (self.timing.expected, self.timing.seconds))
            asha = f"; ASHA saves {duration(self.timing.saved_s)} at least" if self.timing.saved_s >= 1 else ""
            yield f"about {expected}, {most} at most, {self.at_once} at a time{asha}"
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


def _range(seconds: tuple[float, float]) -> str:
    least, most = map(duration, seconds)
    return least if least == most else f"{least} to {most}"


def forecast(plan: Plan, machine: Machine, *, measure: bool = False) -> Forecast:
    """Of the trials that are not over. `measure` times steps of every model, which takes seconds for each.

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
    """Trials that share a GPU are somewhere between as fast as alone and taking turns; those that share a CPU were
    timed together."""
    teachers, members = _untrained(plan), _members(plan, left[0])
    answering = [member.model_copy(update={"threads": left[0].threads}) for member in members]  # in students' processes
    costs = costs_of([*answering, *left], 1 if gpus else found.at_once)
    inference_s = sum(costs.of[member.model].inference_s for member in members)
    trials = [_run(plan.data(config), config, costs.of[config.model], inference_s) for config in left]
    memory = max(cost.memory for cost in costs.of.values())
    first = START_S + costs.worker_s + _cached_logits(left, plan) * inference_s / (1 if gpus else found.at_once)
    for teacher in teachers:
        alone = costs_of([teacher])
        one = _run(plan.data(teacher), teacher, alone.of[teacher.model])
        first += alone.worker_s + one.seconds
        memory = max(memory, alone.of[teacher.model].memory)
    turns = max(1.0, found.at_once / gpus) if gpus else 1.0
    how = found.at_once, turns == 1
    expected, busy = (sum(rule(stage, trials, *how) for stage in work.stages) for rule in (_mean, _longest))
    saved = _longest(work.alone, trials, *how) - busy
    watts = sum(costs.of[config.model].watts for config in left) / len(left) * min(found.at_once, gpus)
    kwh = watts * (first + busy * (1 + turns) / 2) / 3.6e6
    within = (first + expected, first + expected * turns), (first + busy, first + busy * turns)
    return Timing(*within, max(saved, 0.0), memory, kwh)


def _longest(epochs: Sequence[int], runs: Sequence[Todo], at_once: int, cut: bool) -> float:
    """Seconds of a stage whose runs are taken to be the slowest of those that are left, for nobody knows who stays; the
    slowest trains longest. Of trials that are not known yet each is as slow as the slowest."""
    slow = sorted(runs, key=lambda run: -run.epoch_s)
    slow = slow[:1] * (len(epochs) - len(slow)) + slow
    stage = [run._replace(epochs=n) for n, run in zip(sorted(epochs, reverse=True), slow, strict=False)]
    return makespan(stage, at_once, cuts(stage, at_once) if cut and len(epochs) < len(runs) else {})


def _mean(epochs: Sequence[int], runs: Sequence[Todo], at_once: int, cut: bool) -> float:
    """Seconds of a stage: of all that are left as each of them is, in their order; where only some are, or more, as the
    mean of them."""
    if len(epochs) != len(runs):
        begin_s, epoch_s = (sum(getattr(run, name) for run in runs) / len(runs) for name in ("begin_s", "epoch_s"))
        stage = [Todo(n, epoch_s, begin_s) for n in epochs]
        return makespan(stage, at_once, cuts(stage, at_once) if cut and len(epochs) < len(runs) else {})
    todo = dict(zip(sorted(range(len(runs)), key=lambda n: -runs[n].epochs), sorted(epochs, reverse=True), strict=True))
    return makespan([run._replace(epochs=todo[n]) for n, run in enumerate(runs)], at_once, ordered=True)


def _run(data: Data, config: RunConfig, cost: StepCost, teacher_s: float = 0.0) -> Todo:
    """`teacher_s`: of the teacher's logits for an image, which are waited for where they are computed online."""
    waited = teacher_s if config.kd and online_reason(config, config.kd) else 0.0
    epoch_s = len(data.train) * (cost.train_s + waited) + len(data.val) * cost.inference_s + cost.epoch_s
    return Todo(config.stop_after or config.epochs, epoch_s, TRIAL_S + cost.build_s)
