"""Decoders: child processes that make images of strangers' bytes, with limits of memory and time.

What a file can do to a codec it does to a child, which is ended and replaced. Nothing is written to a disk. Limits of
memory and processor time are POSIX's; on Windows the wall clock alone ends a child.
"""

from __future__ import annotations

import atexit
import os
import queue
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from xlite_search.data import processes
from xlite_search.data.preprocess import Preprocess
from xlite_search.data.sources import Unreadable
from xlite_search.deploy.predict import raw_in
from xlite_search.deploy.serve.bodies import Kind, expect_allowed, kind_of
from xlite_search.errors import BadInput, XliteError

#: wall and processor seconds that an image may take, and bytes of memory beyond those of an idle child
SECONDS, MEMORY = 5.0, 1 << 30
#: seconds that a child may take to begin, and children beyond those at work, so that nobody waits for that
BEGINNING, SPARE = 60.0, 1
#: signals that no child receives: a terminal or an init system sends them to all, and what was taken is finished
ENDING = (signal.SIGINT, signal.SIGTERM)


class DecoderEndedError(XliteError):
    """The child that was at a file is gone; the file may be what ended it."""


class BusyError(XliteError):
    """Nobody could decode it now, which is not the file's fault: in a moment somebody may."""


class Decoded(NamedTuple):
    """A body as the model takes it, uint8 `[channel, size, size]`."""

    kind: Kind
    image: NDArray[np.uint8]


@dataclass
class _Child:
    started: processes.Processes
    ready: bool = False

    @property
    def pipe(self) -> Connection:
        return next(iter(self.started))

    @property
    def process(self) -> SpawnProcess:
        return self.started[self.pipe]

    def processor_s(self) -> float:
        """Seconds that it has computed; 0 if it is gone."""
        with suppress(psutil.NoSuchProcess):
            return float(sum(psutil.Process(self.process.pid).cpu_times()[:2]))
        return 0.0


@dataclass
class Decoders:
    """Children for so many callers at once. Threads may call it; who finds no child free waits."""

    preprocess: Preprocess
    count: int
    seconds: float = SECONDS
    memory: int = MEMORY
    closed: bool = False
    _free: queue.Queue[_Child] = field(default_factory=queue.Queue)
    _all: list[_Child] = field(default_factory=list)

    def __post_init__(self) -> None:
        atexit.register(self.close)  # else the interpreter would wait for children that never receive its SIGTERM
        for _ in range(self.count + SPARE):
            self._free.put(self._begun())

    def __call__(self, body: bytes) -> Decoded:
        """Raises Unreadable: it is of no use; TimeoutError: it takes too long; DecoderEndedError: its child is gone;
        BusyError: it may be decoded in a moment."""
        child = self._free.get()
        try:
            if not child.process.is_alive():
                child = self._instead_of(child)
            return self._answer(child, body)
        except (DecoderEndedError, TimeoutError, BusyError):
            child = self._instead_of(child)
            raise
        finally:
            self._free.put(child)

    def _instead_of(self, child: _Child) -> _Child:
        processes.stop(child.started)
        if self.closed:
            return child
        self._all.remove(child)
        return self._begun()

    def _answer(self, child: _Child, body: bytes) -> Decoded:
        self._expect_ready(child)
        before = child.processor_s()
        try:
            processes.request(child.started, child.pipe, body)
        except XliteError:
            raise BusyError("the process that was to decode it was ended") from None
        try:
            return Decoded(*_reply(child, self.seconds))
        except TimeoutError:
            if child.processor_s() - before < self.seconds / 2:
                raise BusyError(f"this machine had no time to decode it within {self.seconds:g} s") from None
            raise
        except (Unreadable, BadInput):
            raise
        except XliteError:
            raise DecoderEndedError("the process that decoded it was ended: the file may be what ended it") from None

    def _expect_ready(self, child: _Child) -> None:
        if child.ready:
            return
        try:
            _reply(child, BEGINNING)
        except (XliteError, TimeoutError):
            raise BusyError("no process that decodes could begin") from None
        child.ready = True

    def _begun(self) -> _Child:
        started = processes.start(1, _worker, self.preprocess.describe(), self.seconds, self.memory, held=ENDING)
        child = _Child(started)
        self._all.append(child)
        processes.request(started, child.pipe, None)
        return child

    def close(self) -> None:
        """Ends the children, whatever they are at."""
        self.closed = True
        atexit.unregister(self.close)
        for child in self._all:
            for process in child.started.values():
                process.kill()
                process.join()


def _reply(child: _Child, seconds: float) -> Any:
    if not child.pipe.poll(seconds):
        raise TimeoutError(f"it took longer than {seconds:g} s to decode")
    return processes.reply(child.started, child.pipe)


def _worker(about: Mapping[str, Any], seconds: float, memory: int) -> Callable[[bytes | None], object]:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # codecs complain there of every file, without end
    preprocess = Preprocess.described(about)
    limits = _Limits(seconds, memory)

    def work(body: bytes | None) -> object:
        if body is None:
            import pydicom.pixels  # noqa: F401  the first file shall not wait for it

            return None
        limits.renew()
        try:
            kind = kind_of(body)
            if kind == "DICOM":
                expect_allowed(body)
            return kind, preprocess(raw_in(body, preprocess.channels))
        except Unreadable as why:
            return why  # `reply` raises it
        except Exception:  # MemoryError, and what a codec makes of one
            return Unreadable(f"a file that cannot be decoded within {memory >> 20} MiB")

    return work


class _Limits:
    """Of this process. Processor time adds up over all files, so that its limit moves on with each."""

    def __init__(self, seconds: float, memory: int) -> None:
        self.seconds = seconds
        if sys.platform != "win32":
            import resource

            if sys.platform == "linux":  # macOS counts what nobody uses, and refuses
                most = psutil.Process().memory_info().vms + memory
                resource.setrlimit(resource.RLIMIT_AS, (most, most))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def renew(self) -> None:
        if sys.platform != "win32":
            import resource

            usage = resource.getrusage(resource.RUSAGE_SELF)
            until = int(usage.ru_utime + usage.ru_stime + self.seconds) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))
