"""What a GPU draws while a run trains on it, by NVML: energy in Wh, mean power in W.

Where there is no NVIDIA GPU, no NVML or no such counter, there is no reading, and never an error: nothing that is
learnt depends on it. A GPU that trials share is read as a whole, and a run is charged its share of it
(`gpus_per_trial`), whatever its neighbours do.
"""

from __future__ import annotations

import importlib
import threading
import time
from types import ModuleType
from typing import Any

import torch

SAMPLE_S = 0.5
WH_PER_MJ = 1 / 3.6e6


class Meter:
    """Reads the GPU of this process; `read` gives what was drawn since it was last called, or since the beginning."""

    def __init__(self, device: torch.device, share: float = 1.0) -> None:
        self.share = share
        self._nvml, self._gpu = _handle(device)
        self._sampler = None if self._counter() is not None or self._gpu is None else _Sampler(self._power)
        self._before = self._now()

    def read(self) -> dict[str, float]:
        """`energy/gpu_wh` and `energy/gpu_w`; empty without a reading, or if the driver was loaded anew."""
        before, self._before = self._before, self._now()
        if before is None or self._before is None:
            return {}
        spent, seconds = self._before[0] - before[0], self._before[1] - before[1]
        if spent < 0 or seconds <= 0:
            return {}
        energy = self.share * spent * WH_PER_MJ
        return {"energy/gpu_wh": energy, "energy/gpu_w": energy * 3600 / seconds}

    def close(self) -> None:
        if self._sampler:
            self._sampler.over.set()

    def _now(self) -> tuple[float, float] | None:
        """Millijoules so far, and when."""
        spent = self._sampler.spent if self._sampler else self._counter()
        return None if spent is None else (spent, time.monotonic())

    def _counter(self) -> float | None:
        """The GPU's own counter, mJ since the driver was loaded; Volta and later have one."""
        return self._ask("nvmlDeviceGetTotalEnergyConsumption")

    def _power(self) -> float | None:
        """Milliwatts now."""
        return self._ask("nvmlDeviceGetPowerUsage")

    def _ask(self, name: str) -> float | None:
        if self._nvml is None or self._gpu is None:
            return None
        try:
            return float(getattr(self._nvml, name)(self._gpu))
        except self._nvml.NVMLError:
            return None


class _Sampler:
    """Adds up power over time, for GPUs without a counter; in a thread of its own."""

    def __init__(self, power: Any) -> None:
        self.spent: float | None = 0.0 if power() is not None else None
        self.over = threading.Event()
        self._power, self._last = power, time.monotonic()
        if self.spent is not None:
            threading.Thread(target=self._work, name="power", daemon=True).start()

    def _work(self) -> None:
        while not self.over.wait(SAMPLE_S):
            self.add()

    def add(self) -> None:
        """One sample, held since the last one: mW times seconds are mJ."""
        now, power = time.monotonic(), self._power()
        if power is not None and self.spent is not None:
            self.spent += power * (now - self._last)
        self._last = now


def _handle(device: torch.device) -> tuple[ModuleType | None, Any]:
    """NVML and its name for this device, found by UUID: numbers differ where CUDA_VISIBLE_DEVICES hides some."""
    if device.type != "cuda":
        return None, None
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None, None
    try:
        nvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        return nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except (nvml.NVMLError, AttributeError, RuntimeError, OSError):
        return nvml, None
