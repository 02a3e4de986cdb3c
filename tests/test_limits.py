"""What a process may use: trees of control groups as kernels show them, drawn into a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from xlite_search import limits
from xlite_search.machine import Machine

GIB = 1 << 30
HOST = psutil.virtual_memory().total


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """16 cores and no control groups yet."""
    monkeypatch.setattr(limits, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "MOUNT", tmp_path / "fs")
    monkeypatch.setattr(limits, "_affine", lambda: 16)
    return tmp_path


def draw(kernel: Path, groups: str, **files: str) -> None:
    """`groups` is what /proc/self/cgroup says; files by path, `/` written as `__`."""
    (kernel / "cgroup").write_text(groups)
    for name, content in files.items():
        path = kernel / "fs" / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")


@pytest.mark.parametrize(
    ("quota", "found"),
    [
        ("400000 100000", 4),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("25000 50000", 1),
        ("max 100000", 16),
        ("3200000 100000", 16),
        ("", 16),
        ("nonsense", 16),
        ("100000 0", 16),
    ],
)
def test_a_quota_of_version_2(kernel: Path, quota: str, found: int) -> None:
    draw(kernel, "0::/job\n", job__cpuDOTmax=quota)
    assert limits.cores() == found


def test_the_tightest_of_a_group_and_those_above_it(kernel: Path) -> None:
    draw(
        kernel, "0::/slurm/job/step\n",
        slurm__cpuDOTmax="800000 100000", slurm__job__cpuDOTmax="300000 100000",
        slurm__job__step__cpuDOTmax="max 100000",
        slurm__memoryDOTmax=str(GIB), slurm__job__memoryDOTmax=str(GIB // 2), slurm__job__step__memoryDOTmax="max",
    )  # fmt: skip
    assert (limits.cores(), limits.memory()) == (3, GIB // 2)


def test_a_container_sees_its_group_as_the_root(kernel: Path) -> None:
    """The path may be the host's, and not be there."""
    draw(kernel, "0::/../../docker/4711\n", cpuDOTmax="200000 100000", memoryDOTmax=str(GIB))
    assert (limits.cores(), limits.memory()) == (2, GIB)


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_version_1(kernel: Path, mount: str) -> None:
    draw(kernel, "4:memory:/job\n3:cpu,cpuacct:/job\n2:cpuset:/job\n1:name=systemd:/x\n")
    group = kernel / "fs" / mount / "job"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("350000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    memory = kernel / "fs/memory/job"
    memory.mkdir(parents=True)
    (memory / "memory.limit_in_bytes").write_text(f"{GIB}\n")
    assert (limits.cores(), limits.memory()) == (3, GIB)
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    (memory / "memory.limit_in_bytes").write_text(f"{(1 << 63) - 4096}\n")  # how version 1 says: none
    assert (limits.cores(), limits.memory()) == (16, HOST)


def test_without_control_groups(kernel: Path) -> None:
    assert (limits.cores(), limits.memory()) == (16, HOST)


def test_trials_are_placed_by_it(kernel: Path) -> None:
    draw(kernel, "0::/\n", cpuDOTmax="300000 100000")
    assert Machine().cores == 3
    assert Machine().words(0) == "3 CPU cores"
    assert Machine().resources(8, 0, augments=False) == {"CPU": 3.0}
    assert Machine(cpus=5).cores == 5, "who says so knows better"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity to set so")
def test_affinity() -> None:
    pinned = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code = f"{pinned}; from xlite_search.machine import Machine; print(Machine().cores)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
