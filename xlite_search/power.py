"""GPU energy of a run by NVML: energy in Wh, mean power in W.

Where there is no NVIDIA GPU, no NVML or no such counter, or where the GPU is cut into slices (MIG), there is no
reading, and never an error: nothing that is learnt depends on it. A GPU that trials share is read as a whole, and each
is charged its share of it (`charge`), whatever its neighbours do.
"""

from __future__ import annotations

import importlib
import math
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch

SAMPLE_S = 0.5
WH_PER_MJ = 1 / 3.6e6

#: queries NVML for a number by the name of its function; None if it does not say
Query: TypeAlias = Callable[[str], float | None]
_share = 1.0


def charge(share: float) -> None:
    """This process's part of what its GPU draws, for meters made from now on; 1 unless somebody says so."""
    global _share
    _share = share


class Meter:
    """Reads the GPU of this process; `read` gives what was drawn since it was last called, or since the beginning."""

    def __init__(self, device: torch.device) -> None:
        self.share, self._since = _share, time.monotonic()
        self._source = _source(device)

    def read(self) -> dict[str, float]:
        """`energy/gpu_wh` and `energy/gpu_w`; empty without a reading."""
        since, self._since = self._since, time.monotonic()
        drawn, seconds = self._source.since_last() if self._source else None, self._since - since
        if drawn is None or seconds <= 0:
            return {}
        energy = self.share * drawn * WH_PER_MJ
        return {"energy/gpu_wh": energy, "energy/gpu_w": energy * 3600 / seconds}

    def close(self) -> None:
        if self._source:
            self._source.close()


class _Source(Protocol):
    def since_last(self) -> float | None:
        """mJ since the last call; None if that is not known."""

    def close(self) -> None: ...


class _Counter:
    """The GPU's own, mJ since the driver was loaded; Volta and later have one."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self.now = self._count()

    def _count(self) -> float | None:
        return self._query("nvmlDeviceGetTotalEnergyConsumption")

    def since_last(self) -> float | None:
        """None as well if the driver was loaded anew."""
        before, self.now = self.now, self._count()
        return None if before is None or self.now is None or self.now < before else self.now - before

    def close(self) -> None:
        pass


class _Sampler:
    """Adds up power over time, for GPUs without a counter; in a thread of its own. A sample that fails makes the sum
    that it belongs to NaN."""

    def __init__(self, query: Query) -> None:
        self.over = threading.Event()
        self._query, self._last, self._sum = query, time.monotonic(), 0.0
        self._one_at_a_time = threading.Lock()
        threading.Thread(target=self._work, name="power", daemon=True).start()

    def _work(self) -> None:
        while not self.over.wait(SAMPLE_S):
            self.add()

    def add(self) -> None:
        """One sample, held since the last one: mW times seconds are mJ."""
        with self._one_at_a_time:
            now, power = time.monotonic(), self._query("nvmlDeviceGetPowerUsage")
            self._sum += (math.nan if power is None else power) * (now - self._last)
            self._last = now

    def since_last(self) -> float | None:
        self.add()
        with self._one_at_a_time:
            drawn, self._sum = self._sum, 0.0
        return None if math.isnan(drawn) else drawn

    def close(self) -> None:
        self.over.set()


def _source(device: torch.device) -> _Source | None:
    query = _nvml(device) if device.type == "cuda" else None
    if query is None:
        return None
    counter = _Counter(query)
    if counter.now is not None:
        return counter
    return _Sampler(query) if query("nvmlDeviceGetPowerUsage") is not None else None


def _nvml(device: torch.device) -> Query | None:
    """The GPU is found by UUID: numbers differ where CUDA_VISIBLE_DEVICES hides some. Whatever a driver or a library
    that is not ours raises, a search does not end for it."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        gpu = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except Exception:
        return None

    def query(name: str) -> float | None:
        try:
            return float(getattr(nvml, name)(gpu))
        except Exception:
            return None

    try:
        sliced = nvml.nvmlDeviceGetMigMode(gpu)[0] != 0
    except Exception:  # it cannot be sliced
        sliced = False
    return None if sliced else query
