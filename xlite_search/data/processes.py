"""Worker processes, each at the end of a pipe: started fresh, ignoring Ctrl+C, leaving nothing behind.

A pipe ends with its process: a worker whose main process was killed leaves, and a worker that was killed is noticed.
Queues or a pool would leave orphans, and complaints about their semaphores, after a kill.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import cv2

from xlite_search.errors import XliteError

#: Windows waits for at most 63 handles at once.
MOST = 60
#: Ctrl+C goes to the whole terminal
HELD = (signal.SIGINT,)

Processes = dict[Connection, SpawnProcess]


def start(
    count: int, make: Callable[..., Callable[[Any], object]], *what: object, held: Sequence[int] = HELD
) -> Processes:
    """Processes that each answer what comes down their pipe by `make(*what)`, one answer a message.

    `held` are signals that they never receive. Who holds SIGTERM back has to `stop` them before the interpreter ends,
    which sends it and waits.
    """
    context = multiprocessing.get_context("spawn")
    processes: Processes = {}
    try:
        with _signals_held(held):
            for _ in range(min(count, MOST)):
                ours, theirs = context.Pipe()
                processes[ours] = context.Process(target=_serve, args=(theirs, make, what), daemon=True)
                processes[ours].start()
                theirs.close()
    except BaseException:
        stop(processes)
        raise
    return processes


def stop(processes: Processes) -> None:
    """Ends them, whatever they are at."""
    for pipe, process in processes.items():
        pipe.close()
        if process.pid is not None:
            process.kill()  # one that is stopped would not hear to end
            process.join()


def request(processes: Processes, pipe: Connection, message: object) -> None:
    """Raises XliteError if the process was killed."""
    try:
        pipe.send(message)
    except OSError:
        raise _killed(processes[pipe]) from None


def reply(processes: Processes, pipe: Connection) -> Any:
    """The reply to the oldest message. Raises what the process raised, or XliteError if it was killed."""
    try:
        found = pipe.recv()
    except (EOFError, OSError):
        raise _killed(processes[pipe]) from None
    if isinstance(found, Exception):
        raise found
    return found


def _serve(pipe: Connection, make: Callable[..., Callable[[Any], object]], what: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    with suppress(EOFError, OSError):
        work = make(*what)
        while True:
            message = pipe.recv()
            try:
                found: object = work(message)
            except XliteError as error:
                found = error
            except Exception:
                found = RuntimeError(traceback.format_exc())
            pipe.send(found)


@contextmanager
def _signals_held(signals: Sequence[int]) -> Iterator[None]:
    """Processes started meanwhile never receive them; ours are only put off.

    They inherit the mask of signals. Windows has none: there a worker ignores Ctrl+C from a moment after its start on.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # later, its start would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(signals))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _killed(process: SpawnProcess) -> XliteError:
    process.join()
    return XliteError(
        f"a process that makes images was ended from outside (exit code {process.exitcode}), perhaps because memory "
        "ran out; what is done is kept: close other programs and start the same command again"
    )
