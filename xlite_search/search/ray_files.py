"""Ray's temporary files: in a folder of ours with a short name, which goes when its driver does.

Ray's sockets lie below it, and a socket's path has 107 bytes at most; a long `TMPDIR`, as a batch system gives it, or
one with other than ASCII letters, cannot hold them.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from xlite_search.errors import BadInput
from xlite_search.places import variable

#: how the folders' names begin; the driver's process follows
CACHE = "xlite-ray-"
#: the longest name that Ray gives a socket: of a session, with date, microseconds and process
LONGEST = "session_2026-11-27_18-10-00_123456_4194304/sockets/plasma_store.1"


@contextmanager
def ray_folder() -> Iterator[Path]:
    """A new, empty folder for Ray, removed afterwards.

    Raises:
        BadInput: no folder for temporary files takes a socket.
    """
    folder = _made()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_orphans() -> None:
    """Removes the folders of drivers that are dead."""
    for home in _homes():
        for folder in home.glob(f"{CACHE}*-*"):
            owner = folder.name.removeprefix(CACHE).partition("-")[0]
            if owner.isdigit() and not psutil.pid_exists(int(owner)):
                shutil.rmtree(folder, ignore_errors=True)


def remove_ours() -> None:
    """Removes those of this process, which is about to end without shutting Ray down."""
    for home in _homes():
        for folder in home.glob(f"{CACHE}{os.getpid()}-*"):
            shutil.rmtree(folder, ignore_errors=True)


def _made() -> Path:
    for home in _homes():
        with suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix=f"{CACHE}{os.getpid()}-", dir=home))
            if _takes_sockets(folder):
                return folder
            folder.rmdir()
    raise BadInput(
        f"Ray keeps sockets in a folder for temporary files, and none of {', '.join(map(str, _homes()))} takes them: "
        f"it must be writable, its name short and of ASCII letters; name one in RAY_TMPDIR"
    )


def _homes() -> list[Path]:
    """Folders for temporary files: what somebody asked for first, then those that a system has."""
    asked = [variable("RAY_TMPDIR"), tempfile.gettempdir()]
    systems = ["/tmp", "/var/tmp", "/dev/shm"] if os.name != "nt" else []
    found = dict.fromkeys(Path(home).absolute() for home in (*asked, *systems) if home)
    return [home for home in found if home.is_dir() and str(home).isascii()] or [Path(tempfile.gettempdir())]


def _takes_sockets(folder: Path) -> bool:
    """Whether one can be bound there, under a name as long as Ray's. Windows' Ray has none."""
    family = getattr(socket, "AF_UNIX", None)
    if os.name == "nt" or family is None:
        return True
    path = folder / LONGEST.replace("/", "-")
    with socket.socket(family) as probe:
        try:
            probe.bind(str(path))
        except OSError:
            return False
    path.unlink()
    return True
