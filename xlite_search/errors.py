"""Errors, as a tree: each is one sentence for the person at the keyboard, and an exit code.

XliteError
├── BadInput       2   a file, line or setting is wrong; the sentence says what to do
├── Damaged        3   a file of ours is not what its checksum says, or cannot be written
├── RunFailed      1   a run ended without a result, for a named cause
│   └── OutOfMemory    it did not fit, on the GPU or on the host
└── EngineDied     4   Ray did not start, or died; the same command goes on

Interrupted    130, 143   somebody asked it to end: no error, and no `except Exception` keeps it
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: said of what was interrupted and is not lost
GOES_ON = "interrupted: the same command goes on where it stopped"
#: names that a suggestion has at most
AT_MOST = 3


class XliteError(Exception):
    """Base of all errors that this package raises on purpose."""

    exit_code = 1


def cause_of(error: BaseException) -> str:
    """What an exception says, in one line: ours its sentence, any other with its type."""
    said = " ".join(str(error).split())
    return said if isinstance(error, XliteError) else f"{type(error).__name__}: {said}".rstrip(": ")


class BadInput(XliteError):
    """Something that the user gave cannot be used."""

    exit_code = 2


class Damaged(XliteError):
    """A file of this package fails its checksum, and is never used silently; or the disk does not take one."""

    exit_code = 3


class RunFailed(XliteError):
    """A run cannot go on: its loss is not finite, for example."""

    exit_code = 1


class OutOfMemory(RunFailed):
    """A step did not fit into the memory of the GPU or of the host; half as many images at once may."""


class EngineDied(XliteError):
    """What runs the trials is not there. Nothing is lost: the same command goes on."""

    exit_code = 4


class Interrupted(BaseException):
    """Ctrl+C (130) or a termination signal (143). Nothing is lost: the same command goes on."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or those that end so, `optimizer.lr` for `lr`; else nothing."""
    names = list(dict.fromkeys(known))
    close = [each for each in names if each.rpartition(".")[2] == name] if name else []
    close = close[:AT_MOST] or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    quoted = " or ".join(f"'{each}'" for each in close)
    return f"; did you mean {quoted}?" if close else ""
