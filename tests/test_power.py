"""NVML, played by a module of ours: no GPU is here."""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from xlite_search import power
from xlite_search.power import Meter, _Sampler
from xlite_search.records import RunRecord
from xlite_search.results.compare import Comparison, show
from xlite_search.results.plain import as_json

CUDA = torch.device("cuda")


class NVMLError(Exception):
    pass


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(power, "time", clock)
    return clock


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Any:
    """A GPU with a counter, which the test moves: `.energy` in mJ, `.power` in mW. It is known by its UUID only."""
    module: Any = types.ModuleType("pynvml")
    module.NVMLError, module.energy, module.power, module.asked = NVMLError, 1e9, 250_000, []

    def by_uuid(uuid: str) -> str:
        if uuid != "GPU-1234":
            raise NVMLError(uuid)
        return "handle"

    def of(name: str, handle: str) -> float:
        assert handle == "handle"
        value = getattr(module, name)
        if value is None:
            raise NVMLError("not supported")
        return float(value)

    module.nvmlInit, module.sliced = lambda: None, None
    module.nvmlDeviceGetHandleByUUID = by_uuid
    module.nvmlDeviceGetTotalEnergyConsumption = lambda handle: of("energy", handle)
    module.nvmlDeviceGetPowerUsage = lambda handle: of("power", handle)
    module.nvmlDeviceGetMigMode = lambda handle: [int(of("sliced", handle)), 0]
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="1234"))
    return module


def test_energy_is_the_counters_difference(nvml: Any, clock: Clock) -> None:
    meter = Meter(CUDA)
    nvml.energy += 3.6e6 * 2  # 2 Wh
    clock.now = 60.0
    assert meter.read() == pytest.approx({"energy/gpu_wh": 2.0, "energy/gpu_w": 120.0})
    nvml.energy += 3.6e6
    clock.now = 90.0
    assert meter.read() == pytest.approx({"energy/gpu_wh": 1.0, "energy/gpu_w": 120.0})


def test_a_run_is_charged_its_share(nvml: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "_share", 1.0)
    power.charge(0.25)
    meter = Meter(CUDA)
    nvml.energy += 3.6e6
    clock.now = 36.0
    assert meter.read() == pytest.approx({"energy/gpu_wh": 0.25, "energy/gpu_w": 25.0})


@pytest.fixture
def sampled(nvml: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Meter:
    """A meter of a GPU without a counter, whose thread takes no samples: the test does, by moving the clock."""
    nvml.energy = None
    monkeypatch.setattr(_Sampler, "_work", lambda self: None)
    return Meter(CUDA)


def sample(nvml: Any, clock: Clock, meter: Meter, *points: tuple[float, int | None]) -> None:
    assert isinstance(meter._source, _Sampler)
    for clock.now, nvml.power in points:
        meter._source.add()


def test_without_a_counter_power_is_added_up(nvml: Any, clock: Clock, sampled: Meter) -> None:
    sample(nvml, clock, sampled, (10.0, 100_000), (20.0, 200_000))
    clock.now, nvml.power = 40.0, 300_000  # the reading takes a sample as well: epochs may be shorter than its pace
    # 100 W x 10 s + 200 W x 10 s + 300 W x 20 s
    assert sampled.read() == pytest.approx({"energy/gpu_wh": 9000 / 3600, "energy/gpu_w": 9000 / 40})
    clock.now = 50.0
    assert sampled.read() == pytest.approx({"energy/gpu_wh": 3000 / 3600, "energy/gpu_w": 300.0})


def test_a_sample_that_fails_costs_its_reading_alone(nvml: Any, clock: Clock, sampled: Meter) -> None:
    sample(nvml, clock, sampled, (10.0, 100_000), (20.0, None), (30.0, 300_000))
    assert sampled.read() == {}, "an epoch that is half known would look like a thrifty one"
    clock.now = 40.0
    assert sampled.read() == pytest.approx({"energy/gpu_wh": 3000 / 3600, "energy/gpu_w": 300.0})


def test_the_thread_samples_until_it_is_closed(nvml: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "SAMPLE_S", 0.001)
    nvml.energy = None
    enough, samples = threading.Event(), list[float]()

    def add(self: _Sampler) -> None:
        samples.append(clock.now)
        if len(samples) == 3:
            enough.set()

    monkeypatch.setattr(_Sampler, "add", add)
    meter = Meter(CUDA)
    assert enough.wait(10)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "power"]
    meter.close()
    thread.join(10)
    assert not thread.is_alive()


def test_a_counter_that_began_anew_gives_no_reading(nvml: Any, clock: Clock) -> None:
    meter = Meter(CUDA)
    nvml.energy, clock.now = 5.0, 10.0
    assert meter.read() == {}
    nvml.energy, clock.now = 5.0 + 3.6e6, 20.0
    assert meter.read()["energy/gpu_wh"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "trouble",
    ["nvmlInit", "nvmlDeviceGetHandleByUUID", "uuid", "other", "sliced", "both", "no library", "broken library"],
)
def test_without_nvml_there_is_no_reading_and_no_error(
    nvml: Any, clock: Clock, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise NVMLError("driver") if trouble == "nvmlInit" else UnicodeDecodeError("utf-8", b"", 0, 1, "a driver's")

    if trouble in ("nvmlInit", "nvmlDeviceGetHandleByUUID"):
        setattr(nvml, trouble, fails)
    elif trouble == "uuid":  # a torch that has no such property
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace())
    elif trouble == "sliced":  # the whole GPU's energy is not this slice's
        nvml.sliced = 1
    elif trouble == "broken library":
        del nvml.nvmlDeviceGetTotalEnergyConsumption, nvml.nvmlDeviceGetPowerUsage
    elif trouble == "other":
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="9"))
    elif trouble == "both":
        nvml.energy = nvml.power = None
    else:
        monkeypatch.setitem(sys.modules, "pynvml", None)
    meter = Meter(CUDA)
    clock.now = 10.0
    assert meter.read() == {}
    meter.close()


def test_a_counter_that_fails_on_the_way_costs_its_reading_alone(nvml: Any, clock: Clock) -> None:
    meter = Meter(CUDA)
    nvml.energy, clock.now = None, 10.0
    assert meter.read() == {}


def test_a_cpu_is_not_asked() -> None:
    assert Meter(torch.device("cpu")).read() == {}


def test_compare_tells_the_sum(capsys: pytest.CaptureFixture[str]) -> None:
    epochs: tuple[dict[str, float], ...] = ({"energy/gpu_wh": 300.0}, {"energy/gpu_wh": 150.5}, {})
    run = RunRecord(Path("run"), "k", "trial", "l", {}, {"epochs": 3}, status="failed", cause="why", epochs=epochs)
    found = Comparison(("s",), "val/auroc_macro", (), [], [run, run], 0, {}, None)
    assert found.energy_wh == pytest.approx(901.0)
    show(found)
    assert "energy of the GPUs: 0.901 kWh, and what 2 epochs without a reading took" in capsys.readouterr().out
    told = as_json(found)
    assert [trial["gpu_wh"] for trial in told["trials"]] == [450.5, 450.5]
    assert (told["gpu_wh"], told["epochs_unread"]) == (901.0, 2)
