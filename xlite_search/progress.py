"""How far within an epoch a run is: the training loop tells it, and whoever wants to know listens.

    with progress.heard(listener):
        for result in train(...):
            ...

Where nobody listens, a step costs the look at a variable; else it is told on at most twice a second. A worker keeps it
in a small file beside the run's record (`written`), which others read (`read`): no truth, and gone with the training.
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
PREPARING, TRAINING, VALIDATING, TEACHER = "preparing", "training", "validating", "asking teacher"


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


class _Ear:
    """Hears every step, and tells the listener at most so often."""

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


_ear: _Ear | None = None


def tell(what: str, step: int = 0, steps: int = 0, images: int = 0) -> None:
    """That this step of so many is done, with so many images; step 0 begins."""
    if _ear is not None:
        _ear(what, step, steps, images)


@contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """Until the block ends, the listener hears of what this process trains."""
    global _ear
    before, _ear = _ear, _Ear(listener)
    try:
        yield
    finally:
        _ear = before


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """Until the block ends, there is a file that `read` understands. A disk that does not take it loses that alone."""
    path, temporary = folder / FILE, folder / f"{FILE}.tmp"

    def write(found: Progress) -> None:
        with suppress(OSError):
            temporary.write_text(json.dumps(asdict(found)))
            os.replace(temporary, path)

    try:
        with heard(write):
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
