"""Progress of a run within an epoch: the training loop reports it, a listener receives it.

    with progress.listening(listener):
        for result in train(...):
            ...

Where nobody listens, a step costs the look at a variable; else it is passed on at most twice a second. A worker keeps
it in a small file beside the run's record (`written`), which others `read`: no truth, and gone with the training.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

EVERY_S = 0.5
FILE = "progress.json"
PREPARING, TRAINING, VALIDATING, TEACHER = "preparing", "training", "validating", "teacher logits"


@dataclass(frozen=True)
class Progress:
    """What is done now, and how far that is.

    what   one of the words above
    step   of `steps`; both 0 where nobody counts
    rate   images a second since it began, 0 before anything is known
    """

    what: str
    step: int = 0
    steps: int = 0
    rate: float = 0.0


Listener = Callable[[Progress], None]


class _Throttle:
    """Takes every step, and calls the listener at most every `EVERY_S`."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.what, self.images, self.began, self.due = "", 0, 0.0, 0.0

    def __call__(self, what: str, step: int, steps: int, images: int) -> None:
        now = time.monotonic()
        if what != self.what or not step:
            self.what, self.images, self.began = what, 0, now
        self.images += images
        if now >= self.due or not step:
            self.due = now + EVERY_S
            spent = now - self.began
            self.listener(Progress(what, step, steps, self.images / spent if spent > 0 else 0.0))


_current: _Throttle | None = None


def report(what: str, step: int = 0, steps: int = 0, images: int = 0) -> None:
    """That this step of so many is done, with so many images; step 0 begins."""
    if _current is not None:
        _current(what, step, steps, images)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Until the block ends, the listener is called with the progress of what this process trains."""
    global _current
    before, _current = _current, _Throttle(listener)
    try:
        yield
    finally:
        _current = before


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """Until the block ends, there is a file that `read` understands. A disk that does not take it loses that alone."""
    path, temporary = folder / FILE, folder / f"{FILE}.tmp"

    def write(found: Progress) -> None:
        with suppress(OSError):
            temporary.write_text(json.dumps(asdict(found)))
            os.replace(temporary, path)

    try:
        with listening(write):
            yield
    finally:
        forget(folder)


def read(folder: Path) -> Progress | None:
    """What a worker wrote last; None where none is at it, or it has not begun."""
    try:
        return Progress(**json.loads((folder / FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def forget(folder: Path) -> None:
    """Removes what a worker that was killed wrote last."""
    for name in (FILE, f"{FILE}.tmp"):
        with suppress(OSError):
            (folder / name).unlink()
