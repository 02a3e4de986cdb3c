"""Ctrl+C that Python loses while it imports, remembered for whatever is about to take long.

While modules are imported it may come into a weak reference's callback, whose exception is printed and forgotten.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """Ctrl+C raises KeyboardInterrupt as ever, and is known to `lost` besides. Where it is ignored, as in a shell's
    background jobs, it stays so."""
    _asked.clear()
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _asked.clear()
    else:
        yield


def lost() -> bool:
    """Whether somebody asked the process to end, and it goes on."""
    return _asked.is_set()


def _on_signal(number: int, frame: FrameType | None) -> None:
    _asked.set()
    signal.default_int_handler(number, frame)
