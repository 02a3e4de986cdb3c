"""Ray runtime on this machine, or a cluster's: started quietly, watched, and shut down with all its processes.

    with engine(machine) as shutdown:
        ...

One Ctrl+C finishes the epochs that are running (`Shutdown.requested`) and begins no other trial; the second, or a
termination signal, ends at once. A Ray that dies would leave its driver waiting for ever: a thread looks after its
processes and ends the wait.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil
import ray

from xlite_search import interrupts
from xlite_search.console import Wait, clock, say
from xlite_search.errors import GOES_ON, BadInput, EngineDied, Interrupted
from xlite_search.machine import Machine, visible_gpus
from xlite_search.search.ray_files import ray_folder, remove_orphans, remove_ours
from xlite_search.search.ray_patches import authenticate, read_settings_again
from xlite_search.storage import FULL

#: in the environment of all processes of an engine: the driver's process
OWNER = "XLITE_ENGINE"
CTRL_C, TERMINATED = 130, 143
#: how a thread wakes the main thread; of a higher number than SIGTERM, which Python therefore handles first
WAKE: signal.Signals = getattr(signal, "SIGURG", signal.SIGINT)
SIGNALS = tuple(dict.fromkeys((signal.SIGINT, signal.SIGTERM, WAKE)))
DEAD = "Ray died; nothing is lost: the same command goes on"
#: Ray's own processes; without them nothing moves
VITAL = ("raylet", "gcs_server")
LOOK_EVERY_S, GRACE_S = 0.5, 2.0


class Shutdown:
    """Whether somebody asked the search to end. The driver's signals land here."""

    def __init__(self) -> None:
        self.requested = False
        self.ending: Interrupted | EngineDied | None = None
        self.closing = False
        self.dead = False
        self.notice: Path | None = None

    @contextmanager
    def stop_after_epoch(self, notice: Path) -> Iterator[None]:
        """While trials run, the first Ctrl+C lets them finish their epoch; elsewhere it ends at once.

        Then there is a file `notice`: whoever is about to begin a trial, in any process, looks for it.

        Raises:
            Interrupted: it was asked for.
        """
        notice.unlink(missing_ok=True)  # of a search that was killed
        self.notice = notice
        try:
            yield
        finally:
            self.notice = None
            notice.unlink(missing_ok=True)
        if self.requested:
            self._end(Interrupted(CTRL_C))

    def catch_up(self) -> None:
        """Ends what a Ctrl+C was to end that came before anybody listened, and was lost."""
        if interrupts.lost():
            self._end(Interrupted(CTRL_C))

    def _end(self, how: Interrupted | EngineDied) -> None:
        """Raises it, or what it was ended by before: compiled code may lose an exception, and is asked again."""
        self.ending = self.ending or how
        if not self.closing:
            raise self.ending

    def on_signal(self, number: int, _: FrameType | None) -> None:
        if number == WAKE and self.dead:
            self._end(EngineDied(DEAD))
        elif number == WAKE != signal.SIGINT:
            return  # it says nothing else
        elif number == signal.SIGINT and self.notice and not self.requested:
            self.requested = True
            with contextlib.suppress(OSError):  # a disk that is full: the driver still hands out nothing more
                self.notice.touch()
            say("Ctrl+C: the running epochs are finished first; once more ends at once, and costs these epochs")
        else:
            self._end(Interrupted(CTRL_C if number == signal.SIGINT else TERMINATED))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes SIGINT, SIGTERM and WAKE, in the main thread; whoever had them before has them again after."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def engine(machine: Machine, address: str | None = None, last: Callable[[], None] = lambda: None) -> Iterator[Shutdown]:
    """Ray on this machine, loopback only; the cluster at `address`; or the one that runs in this process already.

    Where the process has to be ended because Ray does not return to it, `last` is called before.

    Raises:
        BadInput: nothing here can hold Ray's files, or the cluster wants a token that nobody gave.
        EngineDied: it does not start, or dies on the way.
        Interrupted: somebody asked it to end.
    """
    shutdown = Shutdown()
    if ray.is_initialized():
        with shutdown.listening():
            yield shutdown
        return
    end_orphans()
    with ray_folder() as folder:
        _start(machine, address, folder)
        with shutdown.listening():
            try:
                shutdown.catch_up()
                with _watched(shutdown, last):
                    yield shutdown
            except BaseException:
                if shutdown.ending is None:
                    raise
                raise shutdown.ending from None  # Ray turns what a handler raised in it into a SystemError
            finally:
                shutdown.closing = True
                if shutdown.ending:
                    end_children()
                else:
                    with Wait("Ray ends its processes"):
                        ray.shutdown()


def gpus() -> int:
    """GPUs of all machines that Ray has."""
    return int(ray.cluster_resources().get("GPU", 0))


def _start(machine: Machine, address: str | None, folder: Path) -> None:
    """A Ray of our own, whatever others run here and whatever `RAY_ADDRESS` says; or the cluster that was asked for."""
    started = time.monotonic()
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's failure is told by its record, in a sentence
    os.environ[OWNER] = str(os.getpid())
    ours: dict[str, Any] = {
        "address": "local",
        "num_cpus": machine.cores,
        "num_gpus": visible_gpus(machine),
        "include_dashboard": False,
        "_temp_dir": str(folder),
    }
    read_settings_again()
    authenticate(own=not address)
    try:
        ray.init(**({"address": address} if address else ours), log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        with contextlib.suppress(Exception):
            ray.shutdown()
        raise _not_started(error, address, folder) from None
    what = f"Joined the Ray cluster at {address}" if address else "Ray started"
    say(f"{what} in {clock(time.monotonic() - started)}")


def _not_started(error: Exception, address: str | None, folder: Path) -> BadInput | EngineDied:
    """Ray says by an exception of no particular kind that it was not up in time; any other comes again."""
    reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
    if isinstance(error, ray.exceptions.AuthenticationError):
        return BadInput(
            f"--address {address}: the cluster wants a token, or another one; give the one of its `ray start` in "
            f"RAY_AUTH_TOKEN, or the file that has it in RAY_AUTH_TOKEN_PATH"
        )
    if type(error) is Exception:
        return EngineDied(
            f"Ray did not start: {reason}. Nothing is lost; when the machine is free the same command goes on"
        )
    if isinstance(error, OSError) and error.errno in FULL:
        return EngineDied(f"Ray did not start: {error.filename or folder}: {error.strerror}; make room and run again")
    return EngineDied(
        f"Ray did not start ({type(error).__name__}: {reason}). Nothing is lost, but it will not start until that is "
        f"mended"
    )


@contextmanager
def _watched(shutdown: Shutdown, last: Callable[[], None]) -> Iterator[None]:
    """Ends the wait if one of Ray's processes ends, by an exception in the main thread. Whatever that ends by, Ray may
    still hold it in a call that never returns: then the process is ended, after `last`."""
    vital = [child for child in psutil.Process().children() if _name(child) in VITAL]
    over = threading.Event()

    def look() -> None:
        while not (over.wait(LOOK_EVERY_S) or shutdown.ending or shutdown.dead):
            if not all(_lives(process) for process in vital):
                shutdown.dead = True
                _wake_main_thread()
        if not over.wait(GRACE_S):
            end_children()
            last()
            remove_ours()
            end_process(shutdown.ending or EngineDied(DEAD))

    thread = threading.Thread(target=look, name="engine", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _wake_main_thread() -> None:
    """Has it run the handler of WAKE, out of a system call if need be."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, WAKE)
    else:
        signal.raise_signal(WAKE)


def end_process(why: Interrupted | EngineDied) -> NoReturn:
    """Says why, and ends this process without Ray's own shutdown, which waits for processes that are gone."""
    dead = isinstance(why, EngineDied)
    sys.stdout.flush()
    print(f"error: {why}" if dead else GOES_ON, file=sys.stderr)
    sys.stderr.flush()
    os._exit(why.exit_code)


def end_children() -> None:
    """Ends all processes below this one, at once: nothing that they hold is lost."""
    _kill(psutil.Process().children(recursive=True))


def end_orphans() -> None:
    """Ends processes of an engine whose driver is dead, which hold memory and GPUs, and removes its Ray files."""
    orphans = [process for process in psutil.process_iter() if (pid := _driver(process)) and not psutil.pid_exists(pid)]
    if orphans:
        say(f"{len(orphans)} processes of a search that was killed were still there, and are ended")
        _kill(orphans)
    remove_orphans()


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=3)


def _driver(process: psutil.Process) -> int:
    """The driver of the engine that it belongs to; 0 if it is of none, or not ours to ask."""
    try:
        return int(process.environ().get(OWNER, 0)) if process.pid != os.getpid() else 0
    except (psutil.Error, OSError, ValueError):
        return 0


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return process.name().removesuffix(".exe")
    except psutil.Error:
        return ""
