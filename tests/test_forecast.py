"""What a plan says that it will take, against what was counted by hand and what it took."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from trainables.baseline import baseline
from trainables.distill import distill
from xlite_search import disk
from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.errors import BadInput, OutOfMemory
from xlite_search.execution import follow
from xlite_search.machine import Machine
from xlite_search.records import RunRecord
from xlite_search.search import forecast as forecasting
from xlite_search.search import step_costs
from xlite_search.search.asha import ASHA
from xlite_search.search.forecast import forecast, state_bytes
from xlite_search.search.plan import Plan, make_plan
from xlite_search.search.runner import begin, run
from xlite_search.search.step_costs import Costs, costs_of, mean_of
from xlite_search.search.study import Study, grid_search
from xlite_search.training.result import EpochResult
from xlite_search.training.timing import StepCost


def plan_of(tiny: RunConfig, **more: Any) -> Plan:
    space = more.pop("space", {"seed": grid_search([1, 2, 3, 4])})
    return make_plan(Study("?", more.pop("trainable", baseline), tiny, space, **more), "forecast")


def resumed(config: RunConfig, begun: RunRecord) -> Iterator[EpochResult]:
    return baseline(config, begun.resume_path())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_state_takes_what_was_said(tiny: RunConfig, tmp_path: Path, ema: float) -> None:
    config = tiny.with_settings({"ema": ema, "epochs": 2})
    record = RunRecord(tmp_path / "run", "k", "trial", "l", {}, config.model_dump(mode="json"))
    *_, record = follow(record, lambda begun: baseline(config, begun.resume_path()))
    state, weights = state_bytes(config, 14)
    sizes = [(record.folder / stored.name).stat().st_size for stored in (*record.checkpoints, *record.bests)]
    assert len(record.checkpoints) == 2
    assert sizes[0] == pytest.approx(state, rel=0.15)
    assert sizes[2] == pytest.approx(weights, rel=0.15)


def test_a_study_takes_no_more_disk_than_was_said(tiny: RunConfig) -> None:
    plan = plan_of(tiny, space={"seed": grid_search([1, 2])})
    said = forecast(plan, Machine()).disk
    study = begin(plan)
    for record, trial in zip(study.runs(), plan.trials, strict=True):
        list(follow(record, partial(resumed, trial.config)))
    assert 0 < disk.checkpoint_bytes(study.runs()) <= said
    assert forecast(plan, Machine()).epochs == 0, "what is over takes nothing more"


def test_a_budget_bounds_what_is_over_and_nothing_else(tiny: RunConfig) -> None:
    """Those that train hold two states and two bests, and a finished run keeps its best weights."""
    config = tiny.with_settings({"epochs": 8})
    state, weights = state_bytes(config, 14)
    pair, best = 2 * (state + weights), weights + forecasting.BESIDE_WEIGHTS
    freely = forecast(plan_of(config), Machine()).disk
    assert freely == 4 * (pair + forecasting.BESIDE_WEIGHTS)
    assert forecast(plan_of(config), Machine(cpus=1, checkpoints_gb=1e-4)).disk == 100_000 + pair + 4 * best
    assert forecast(plan_of(config), Machine(cpus=1, checkpoints_gb=1)).disk == freely
    # rungs 1, 2, 4 of four: 4 wait at the first with one state each, 3 at the second with two, 1 ends
    halved = forecast(plan_of(config, scheduler=ASHA(grace=1)), Machine(cpus=1, checkpoints_gb=1e-4)).disk
    assert halved == 100_000 + 3 * pair + best


def test_a_teacher_and_its_answers_take_their_part(tiny: RunConfig) -> None:
    config = tiny.with_settings({"augment": "light"})
    without = forecast(plan_of(config), Machine()).disk
    space = {"kd.alpha": 0.5, "seed": grid_search([1, 2, 3, 4])}
    taught = plan_of(config, trainable=distill, space=space, teacher=tiny)
    images = len(open_data(config.data).train)
    state, weights = state_bytes(tiny, 14)
    own = 2 * (state + weights) + forecasting.BESIDE_WEIGHTS
    assert forecast(taught, Machine()).disk == without + own + config.epochs * images * 14 * 2


def test_a_disk_without_room_is_told_before_anything_is_written(
    tiny: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tiny)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 5000, 5000))
    with pytest.raises(BadInput, match=r"has 5e-06 GB free, and this study takes up to 0\.\d+ GB: give some back"):
        run(plan)
    assert not (plan.folder / "study.json").exists()


def test_measured_steps_are_those_of_the_run(tiny: RunConfig, runs: Path) -> None:
    """Two at a time, and nothing of it stays."""
    found = costs_of([tiny, tiny.with_settings({"model": "test_resnet_none"})], 2)
    assert found.of.keys() == {"test_efficientnet_none", "test_resnet_none"} and found.worker_s > 0
    for cost in found.of.values():
        assert 0 < cost.inference_s < cost.train_s < 10
        assert 0 < cost.epoch_s < 10 and 0 < cost.build_s < 10
        assert 10**8 < cost.memory < 10**10
    assert not runs.exists() or not list(runs.iterdir())


def test_processes_timed_together_are_one_cost() -> None:
    costs = [StepCost(1.0, 0.25, 100, 3.0, 0.5, 0.5), StepCost(3.0, 0.75, 500, 5.0, 1.0, 1.0)]
    assert mean_of(costs) == StepCost(2.0, 0.5, 500, 4.0, 0.75, 0.75)


def costing(of: Callable[[RunConfig], StepCost], asked: list[int] | None = None) -> Callable[..., Costs]:
    """Takes the place of `costs_of`; what it is asked for at a time is noted."""

    def found(configs: Sequence[RunConfig], at_once: int = 1) -> Costs:
        if asked is not None:
            asked.append(at_once)
        return Costs({config.model: of(config) for config in configs}, 5.0)

    return found


def test_hours_by_hand(tiny: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[int]()
    cost = StepCost(0.1, 0.01, 3 * 10**9, epoch_s=0.3, build_s=0.7)
    monkeypatch.setattr(forecasting, "costs_of", costing(lambda config: cost, asked))
    plan = plan_of(tiny.with_settings({"epochs": 4}), scheduler=ASHA(grace=1))
    data = open_data(tiny.data)
    epoch_s, begin_s = 0.1 * len(data.train) + 0.01 * len(data.val) + 0.3, 0.7 + forecasting.TRIAL_S
    found = forecast(plan, Machine(cpus=2), measure=True)
    # rungs 1, 2 of 4 members: 4 x 1, then 3 x 1 in two turns, then 2 x 2
    assert found.timing is not None
    assert asked == [2], "timed as many at a time as trials will run"
    least = forecasting.START_S + 5.0 + (2 + 2 + 1) * begin_s + (2 + 2 + 2) * epoch_s
    assert [*found.timing.seconds, *found.timing.expected] == pytest.approx([least] * 4)
    assert found.timing.saved_s == pytest.approx((8 - 6) * epoch_s + (2 - 5) * begin_s)
    assert any("3 GB of memory for a trial" in line for line in found.words())
    assert any(line.startswith("about ") and " at most, 2 at a time" in line for line in found.words())
    monkeypatch.setattr("xlite_search.limits.memory", lambda: 6 * 10**9)
    assert not any("may not fit" in line for line in found.words())
    monkeypatch.setattr("xlite_search.limits.memory", lambda: 5 * 10**9)
    assert any("2 such trials at a time may not fit into the 5 GB" in line for line in found.words())


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, 1),  # stored, and there is one view: the image itself
        ({"augment": "light"}, 4),
        ({"augment": grid_search(["light", "medium"])}, 8),
        ({"mixup": 0.2}, 4 * 2),  # online: both trials ask in each of their epochs
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_hours_have_those_of_asking_the_teacher(
    tiny: RunConfig, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], asked: int, there: bool
) -> None:
    """A teacher that is there already need not be trained, and is asked all the same."""
    monkeypatch.setattr(forecasting, "costs_of", costing(lambda config: StepCost(0.1, 0.01, 10**9)))
    monkeypatch.setattr(forecasting, "_untrained", lambda plan: [] if there else list(plan.teaching.members.values()))
    config, data = tiny.with_settings({"epochs": 4}), open_data(tiny.data)
    space = {"kd.alpha": 0.5, "seed": grid_search([1, 2]), **settings}
    plan = plan_of(config, trainable=distill, space=space, teacher=tiny)
    timing = forecast(plan, Machine(cpus=1), measure=True).timing
    epoch_s = 0.1 * len(data.train) + 0.01 * len(data.val)
    trained = 4 * len(plan.trials) + (0 if there else tiny.epochs)
    assert timing is not None
    processes = 1 if there else 2  # the teacher has one of its own
    overhead = forecasting.START_S + 5.0 * processes + forecasting.TRIAL_S * (len(plan.trials) + processes - 1)
    assert timing.seconds[0] - overhead == pytest.approx(trained * epoch_s + asked * 0.01 * len(data.train))


@pytest.mark.parametrize(
    ("scheduler", "expected"), [(None, (4 * 5, 4 + 4 * 5)), (ASHA(grace=2), (2 * 5 + 2 * 5, 2 + 2 * 5 + 2 * 7 / 3))]
)
def test_hours_are_at_most_those_of_the_slowest(
    tiny: RunConfig, monkeypatch: pytest.MonkeyPatch, scheduler: ASHA | None, expected: tuple[int, float]
) -> None:
    """One of three takes five times as long, and may be who stays. It comes last in the study, behind one of the
    others; of three after a rung two are expected to be as fast as the mean."""
    costs = {"resnet10t_none": 0.1, "resnet10t_se": 0.1, "resnet18_none": 0.5}
    monkeypatch.setattr(forecasting, "costs_of", costing(lambda config: StepCost(costs[config.model], 0.0, 10**9)))
    monkeypatch.setattr(forecasting, "TRIAL_S", 0.0)
    plan = plan_of(tiny.with_settings({"epochs": 4}), space={"model": grid_search(list(costs))}, scheduler=scheduler)
    timing = forecast(plan, Machine(cpus=2), measure=True).timing
    assert timing is not None
    unit = 0.1 * len(open_data(tiny.data).train)
    found = [(seconds[0] - forecasting.START_S - 5.0) / unit for seconds in (timing.seconds, timing.expected)]
    assert found == pytest.approx(list(expected))


def test_trials_that_share_a_gpu_are_a_range(tiny: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[int]()
    monkeypatch.setattr(forecasting, "costs_of", costing(lambda config: StepCost(0.1, 0.01, 3 * 10**9), asked))
    monkeypatch.setattr(forecasting, "visible_gpus", lambda machine: 1)
    found = forecast(plan_of(tiny), Machine(cpus=8, gpus_per_trial=0.5), measure=True)
    assert found.timing is not None and (found.at_once, found.device, asked) == (2, "cuda", [1])
    assert found.timing.kwh == 0 and not any("kWh" in line for line in found.words())
    drawing = costing(lambda config: StepCost(0.1, 0.01, 3 * 10**9, watts=150.0))
    monkeypatch.setattr(forecasting, "costs_of", drawing)
    drawn = forecast(plan_of(tiny), Machine(cpus=8, gpus_per_trial=0.5), measure=True).timing
    assert drawn is not None
    assert drawn.kwh == pytest.approx(0.15 * sum(found.timing.seconds) / 2 / 3600)  # the one GPU, however it is shared
    least, most = (seconds - forecasting.START_S - 5.0 for seconds in found.timing.seconds)
    assert most == pytest.approx(2 * least)
    assert any(" to " in line and "2 at a time" in line for line in found.words())


@pytest.mark.parametrize(
    ("settings", "advice"),
    [({}, "set a smaller micro_batch, which keeps the batch"), ({"kd.intra": 1.0}, "set a smaller batch_size")],
)
def test_a_step_that_does_not_fit_into_memory_says_what_may_be_smaller(
    tiny: RunConfig, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], advice: str
) -> None:
    """Batches of a loss that compares their images cannot be cut."""

    class Full(ThreadPoolExecutor):
        def __init__(self, workers: int, **_: object) -> None:
            super().__init__(workers)

    def steps(config: str, named: str) -> None:
        raise OutOfMemory("out of memory on the host")

    monkeypatch.setattr(step_costs, "ProcessPoolExecutor", Full)
    monkeypatch.setattr(step_costs, "measured", steps)
    with pytest.raises(BadInput, match=f"{advice}$"):
        costs_of([tiny.with_settings(settings)])
