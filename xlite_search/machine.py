"""Machine settings (`machine.toml`): how fast a result comes, never which result; and checks of this machine.

`machine.toml` in the working folder (or the file that `XLITE_MACHINE` names) may say

    cpus = 8              # cores that the search may use; default: all that this process may use
    gpus = 1              # GPUs that the search may use; default: all that torch sees
    gpus_per_trial = 0.5  # a fraction shares a GPU between trials: two at a time, each with its share of the memory
    cpus_per_trial = 2    # default: the run's `threads`, and its loader's workers
    workers = 2           # processes of each trial that augment images; default: 2 beside a GPU, none without
    checkpoints_gb = 20   # what the checkpoints of one study may take: the losers' go first; default: any
    keep_states = true    # of finished runs too: their optimizers' states, which nobody goes on from; default: not
    micro_batch = 32      # images at once that fit here; a study that asks for more is refused, or goes on with
                          # --accept-changes, and its runs say so: batch norm sees other batches
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import socket
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from xlite_search import limits, places
from xlite_search.errors import BadInput
from xlite_search.spec import Spec, parse

if TYPE_CHECKING:
    import torch

#: Parts of a GPU that Ray counts in.
GPU_PARTS = 10_000


class Machine(Spec):
    """See the module's docstring."""

    cpus: int | None = Field(None, ge=1)
    gpus: int | None = Field(None, ge=0)
    gpus_per_trial: float = Field(1.0, gt=0, le=1)
    cpus_per_trial: int | None = Field(None, ge=1)
    workers: int | None = Field(None, ge=0, le=64)
    micro_batch: int | None = Field(None, ge=2)
    checkpoints_gb: float | None = Field(None, gt=0)
    keep_states: bool = False

    @property
    def cores(self) -> int:
        return self.cpus or limits.cores()

    def resources(self, threads: int, gpus: int, *, augments: bool) -> dict[str, float]:
        """What Ray reserves for one run that computes with `threads` threads, and with workers if it augments; never
        more than there is."""
        workers = self.loader_workers("cuda" if gpus else "cpu") if augments else 0
        cpus = float(min(self.cpus_per_trial or threads + workers, self.cores))
        return {"CPU": cpus, "GPU": self.gpus_per_trial} if gpus else {"CPU": cpus}

    def at_once(self, resources: Mapping[str, float], there: Mapping[str, float]) -> int:
        """How many runs that reserve such `resources` have their place `there` at a time, one at least.

        A share of a GPU is of one GPU: of runs that take 0.6 each has one to itself.
        """
        places = [int(there.get("CPU", 0) / resources["CPU"])]
        if share := round(resources.get("GPU", 0) * GPU_PARTS):
            places.append(int(there.get("GPU", 0)) * (GPU_PARTS // share))
        return max(1, min(places))

    def loader_workers(self, device: str) -> int:
        """Processes that augment for one trial on a device of this type."""
        return (2 if device == "cuda" else 0) if self.workers is None else self.workers

    def words(self, gpus: int) -> str:
        """`16 CPU cores, 1 GPU, 0.5 a trial`."""
        return f"{self.cores} CPU cores" + (f", {gpus} GPU, {self.gpus_per_trial:g} a trial" if gpus else "")


def this_machine() -> Machine:
    """The settings of this machine, or the defaults.

    Raises:
        BadInput: the file cannot be read, is not TOML, or has an unknown or impossible setting.
    """
    path = places.machine_file()
    if not places.variable("XLITE_MACHINE") and not path.is_file():
        return Machine()
    try:
        return parse(Machine, tomllib.loads(path.read_text(encoding="utf-8")), f"{path}: ")
    except OSError as error:
        raise BadInput(f"{path} (from XLITE_MACHINE) cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        at = f", line {line[1]}" if line else ""
        raise BadInput(f"{path}{at}: not valid TOML; expected lines such as `cpus = 8`") from None


def visible_gpus(machine: Machine) -> int:
    import torch

    seen = torch.cuda.device_count()
    return seen if machine.gpus is None else min(seen, machine.gpus)


def device(*, cpu: bool = False) -> torch.device:
    """Where this process computes, on the CPU if asked to. Ray shows a worker only the GPU that it reserved for it."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held so far: of the GPU if it computes there, else of the host."""
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    used = psutil.Process().memory_info()
    if os.name == "nt":
        return int(getattr(used, "peak_wset", used.rss))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else 1024 * peak)


@dataclass(frozen=True)
class Check:
    """One thing that `doctor` looked at; `advice` is empty where all is well."""

    what: str
    found: str
    advice: str = ""


def examine() -> list[Check]:
    """Versions, GPU, OpenCV installed twice, folders and their space."""
    from xlite_search import provenance

    findings = [Check(name, version) for name, version in provenance.environment().items()]
    both = {"opencv-python", "opencv-python-headless"} <= _installed()
    if both:
        advice = "two packages bring cv2: `pip uninstall opencv-python opencv-python-headless`, then install again"
        findings.append(Check("OpenCV", "installed twice", advice))
    findings.append(Check("may use", f"{limits.cores()} CPU cores, {limits.memory() / 1e9:.1f} GB of memory"))
    if gpu_without_support():
        findings.append(Check("NVIDIA GPU", "present, but torch is built for CPUs only", CPU_TORCH))
    for what, folder in (("runs", places.runs_root()), ("data", places.data_root())):
        there = places.nearest_folder(folder)
        free = shutil.disk_usage(there).free / 1e9
        findings.append(Check(what, f"{folder} ({free:.0f} GB free)", "less than 5 GB free" if free < 5 else ""))
    settings = this_machine().model_dump(exclude_unset=True)
    findings.append(
        Check("machine.toml", ", ".join(f"{k} = {v}" for k, v in settings.items()) or "not there: defaults")
    )
    return findings


CPU_TORCH = "install a CUDA build of torch, as pytorch.org's selector says; or run with --cpu"


def gpu_without_support() -> bool:
    """There is an NVIDIA driver, and a torch that cannot use it: PyPI's torch for Windows is such a one."""
    import torch

    return shutil.which("nvidia-smi") is not None and torch.version.cuda is None


def expect_gpu_support(cpu: bool) -> None:
    """Hides the GPUs if `--cpu` or `gpus = 0` asks for it.

    Raises:
        BadInput: there is a GPU, torch cannot use it, and nobody said --cpu.
    """
    if cpu or this_machine().gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif gpu_without_support():
        raise BadInput(f"this machine has an NVIDIA GPU, but torch is built for CPUs only: {CPU_TORCH}")


def expect_cluster(address: str) -> None:
    """Raises BadInput if nobody listens at `HOST:PORT`: Ray itself would go on asking for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "expected HOST:PORT"
        raise BadInput(
            f"--address {address}: no Ray cluster answers there ({why}); start one with `ray start --head`, "
            f"which says its address"
        ) from None


def _installed() -> set[str]:
    return {str(found.metadata["Name"]).lower() for found in importlib.metadata.distributions()}
