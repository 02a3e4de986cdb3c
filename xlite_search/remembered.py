"""LRU cache of what was opened in this process, by all that must be unchanged for it to hold."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """An LRU cache that makes each value once, whichever thread asks first. What raises is not remembered."""

    def __init__(self, most: int) -> None:
        self._most, self._known = most, OrderedDict[Hashable, Value]()
        self._lock = threading.RLock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of this key, made if it is not known; the longest unasked one goes when there are too many."""
        with self._lock:
            if key not in self._known:
                self._known[key] = make()
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
            return self._known[key]


def state_of(path: Path) -> tuple[str, int, int, int]:
    """Changes when a file does, as far as can be told without reading it; one that is not there has a state too."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return str(path), -1, 0, 0
    return str(path), about.st_size, about.st_mtime_ns, about.st_ino
