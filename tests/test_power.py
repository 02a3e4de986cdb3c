"""NVML, played by a module of ours: no GPU is here."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from xlite_search import power
from xlite_search.power import Meter, _Sampler
from xlite_search.records import RunRecord
from xlite_search.results.compare import Comparison, as_json, show

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

    module.nvmlInit = lambda: None
    module.nvmlDeviceGetHandleByUUID = by_uuid
    module.nvmlDeviceGetTotalEnergyConsumption = lambda handle: of("energy", handle)
    module.nvmlDeviceGetPowerUsage = lambda handle: of("power", handle)
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


def test_a_run_is_charged_its_share(nvml: Any, clock: Clock) -> None:
    meter = Meter(CUDA, share=0.25)
    nvml.energy += 3.6e6
    clock.now = 36.0
    assert meter.read() == pytest.approx({"energy/gpu_wh": 0.25, "energy/gpu_w": 25.0})


def test_without_a_counter_power_is_added_up(nvml: Any, clock: Clock) -> None:
    nvml.energy = None
    meter = Meter(CUDA)
    assert meter._sampler is not None
    meter.close()
    for nvml.power, clock.now in ((100_000, 10.0), (200_000, 20.0), (None, 30.0), (300_000, 40.0)):
        meter._sampler.add()
    # 100 W x 10 s + 200 W x 10 s + nothing known for 10 s + 300 W x 10 s
    assert meter.read() == pytest.approx({"energy/gpu_wh": 6000 / 3600, "energy/gpu_w": 6000 / 40})


def test_the_thread_samples_until_it_is_closed(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    sampler = _Sampler(lambda: None)
    assert sampler.spent is None, "no power, no thread"
    sampler.spent = 0.0

    def add() -> None:
        waits.append(1.0)
        if len(waits) == 3:
            sampler.over.set()

    monkeypatch.setattr(sampler, "add", add)
    monkeypatch.setattr(power, "SAMPLE_S", 0.001)
    sampler._work()
    assert len(waits) == 3


def test_a_counter_that_began_anew_gives_no_reading(nvml: Any, clock: Clock) -> None:
    meter = Meter(CUDA)
    nvml.energy, clock.now = 5.0, 10.0
    assert meter.read() == {}
    nvml.energy, clock.now = 5.0 + 3.6e6, 20.0
    assert meter.read()["energy/gpu_wh"] == pytest.approx(1.0)


@pytest.mark.parametrize("trouble", ["nvmlInit", "nvmlDeviceGetHandleByUUID", "uuid", "other", "both", "no library"])
def test_without_nvml_there_is_no_reading_and_no_error(
    nvml: Any, clock: Clock, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise NVMLError("driver")

    if trouble in ("nvmlInit", "nvmlDeviceGetHandleByUUID"):
        setattr(nvml, trouble, fails)
    elif trouble == "uuid":  # a torch that has no such property
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace())
    elif trouble == "other":  # a slice of a GPU (MIG)
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
    found = Comparison(("s",), "val/auroc_macro", (), [], [run, run], 0, {}, None, [])
    assert found.energy_wh == pytest.approx(901.0)
    show(found)
    assert "energy of the GPUs: 0.901 kWh" in capsys.readouterr().out
    assert [trial["gpu_wh"] for trial in as_json(found)["trials"]] == [450.5, 450.5]
