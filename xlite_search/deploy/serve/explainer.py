"""Explainer: occlusion maps of the served model, in a child process of its own, one at a time."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xlite_search.data import processes
from xlite_search.deploy.predict import Predictor
from xlite_search.deploy.serve.decoders import ENDING
from xlite_search.evaluation.occlusion import occlusion_map

#: seconds that a map may take
SECONDS = 60.0

Asked = tuple[NDArray[np.uint8], int]


class Explainer:
    """Begun when it is first asked; a child that is gone or takes too long is replaced."""

    def __init__(self, folder: Path, *, int8: bool = False) -> None:
        self._of, self._started = (folder, int8), processes.Processes()
        self._alone = threading.Lock()
        atexit.register(self.close)

    def __call__(self, image: NDArray[np.uint8], finding: int) -> NDArray[np.float32]:
        """The map of a prepared image, float32 `[size, size]`. Raises XliteError or TimeoutError if there is none."""
        with self._alone:
            if not self._started:
                self._started = processes.start(1, _worker, *self._of, held=ENDING)
            pipe = next(iter(self._started))
            try:
                processes.request(self._started, pipe, (image, finding))
                if not pipe.poll(SECONDS):
                    raise TimeoutError(f"it took longer than {SECONDS:g} s to explain")
                return np.asarray(processes.reply(self._started, pipe), np.float32)
            except BaseException:
                processes.stop(self._started)
                self._started = {}
                raise

    def close(self) -> None:
        """Ends the child, whatever it is at."""
        atexit.unregister(self.close)
        for process in list(self._started.values()):
            process.kill()
            process.join()


def _worker(folder: Path, int8: bool) -> Callable[[Asked], NDArray[np.float32]]:
    predictor = Predictor.open(folder, int8=int8)
    return lambda asked: occlusion_map(lambda images: predictor(images)[0], *asked)
