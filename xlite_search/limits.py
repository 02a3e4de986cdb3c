"""CPU cores and memory of this process, as CPU affinity and control groups (cgroups) limit them.

A container, a batch system's job or `taskset` gives a process less than the machine has. Control groups nest, and the
tightest of a process's group and of those above it holds. Version 2 has one tree (`cpu.max`, `memory.max`), version 1
one for each kind (`cpu.cfs_quota_us`, `memory.limit_in_bytes`); kernel.org: Control Group v2; cgroup-v1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import psutil

#: where a process's groups are told, and where their files are
GROUPS, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores that this process may keep busy; of a quota of 2.5 it is 2, of less than one it is one."""
    quotas = [int(quota) for quota in _quotas()]
    return max(1, min([_affine(), *quotas]))


def memory() -> int:
    """Bytes that this process and its like may hold together."""
    limits = [*_numbers("memory", "memory.max"), *_numbers("memory", "memory.limit_in_bytes")]
    return min([psutil.virtual_memory().total, *limits])


def _affine() -> int:
    """Cores that the process may be placed on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    with suppress(AttributeError, psutil.Error):  # macOS has none
        return len(psutil.Process().cpu_affinity())
    return os.cpu_count() or 1


def _quotas() -> Iterator[float]:
    """Of each control group that has one: the cores that its quota is worth."""
    for folder in _folders("cpu"):
        for name in ("cpu.max", "cpu.cfs_quota_us"):
            words = _words(folder / name)
            period = words[1:] or _words(folder / "cpu.cfs_period_us")
            with suppress(ValueError, IndexError, ZeroDivisionError):
                if (quota := int(words[0])) > 0:  # `max` and -1 are none
                    yield quota / int(period[0])


def _numbers(kind: str, name: str) -> Iterator[int]:
    for folder in _folders(kind):
        with suppress(ValueError, IndexError):
            yield int(_words(folder / name)[0])


def _folders(kind: str) -> Iterator[Path]:
    """The folders of the process's group of this kind and of all above it; in a container the mount is the group."""
    for line in _lines(GROUPS):
        _, kinds, path = line.split(":", 2)
        if kinds and kind not in kinds.split(","):
            continue
        for mount in (MOUNT / kinds, MOUNT / kind) if kinds else (MOUNT, MOUNT / "unified"):
            for above in (PurePosixPath(path), *PurePosixPath(path).parents):
                if ".." not in above.parts:  # the host's, as a container may see it
                    yield mount / str(above).lstrip("/")


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    """Empty where there is no such file, or it is not ours to read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
