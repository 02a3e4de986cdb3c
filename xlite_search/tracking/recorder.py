"""Recorder: a background thread that writes records into MLflow while training goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path

from xlite_search.console import Wait
from xlite_search.errors import BadInput, EngineDied, RunFailed, cause_of
from xlite_search.records import RunRecord
from xlite_search.tracking.mirror import Mirror

#: between attempts; how long the end waits for MLflow; how long if somebody asked us to end
RETRY_S, PATIENCE_S, HASTE_S = 2.0, 60.0, 3.0
#: what a study may end by and still wait for MLflow: not for a signal, nor on a disk that is full
PATIENT = (BadInput, RunFailed, EngineDied)


class Recorder:
    """Mirrors records into one experiment. Use as a context; deadline it waits until all is written, or gives up.

    `failed` is the last trouble with MLflow, or None; what could not be written is written by the next run.
    """

    def __init__(self, experiment: str, parent: Mapping[str, str] | None = None, artifacts: Path | None = None) -> None:
        """`parent` are the tags of the parent run, if the experiment has one; `artifacts` what it is left with."""
        self.failed: str | None = None
        self._experiment, self._parent_tags, self._artifacts = experiment, parent, artifacts
        self._pending: dict[str, RunRecord] = {}
        self._parent_status = "RUNNING"
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(done=kind is None, in_haste=kind is not None and not issubclass(kind, PATIENT))

    def close(self, *, done: bool, in_haste: bool) -> None:
        """Waits until all is written, or gives up; soon, if the process is being ended."""
        with self._changed:
            self._parent_status = "FINISHED" if done else "KILLED"
            self._deadline = time.monotonic() + (HASTE_S if in_haste else PATIENCE_S)
            self._changed.notify()
        with Wait("MLflow is being written"):
            self._thread.join(self._deadline - time.monotonic() + RETRY_S if in_haste else None)

    def sync(self, record: RunRecord) -> None:
        """Has MLflow say what the record says, soon. A later record of the same run replaces one that waits."""
        with self._changed:
            self._pending[record.key] = record
            self._changed.notify()

    def _work(self) -> None:
        mirror: Mirror | None = None
        uncertain, seen = False, set[str]()
        while True:
            with self._changed:
                while not self._pending and self._deadline is None and mirror is not None:
                    self._changed.wait()
                deadline, batch, self._pending = self._deadline, self._pending, {}
            try:
                mirror = mirror or Mirror(self._experiment, self._parent_tags)
                if uncertain:
                    mirror.look()
                    uncertain = False
                while batch:
                    key = next(iter(batch))
                    mirror.sync(batch[key])
                    seen.add(key)
                    del batch[key]
                if deadline is not None:
                    mirror.end(self._parent_status, self._artifacts, seen)
                    self.failed = None
                    return
                self.failed = None
            except Exception as error:  # whatever MLflow's trouble is, training goes on
                self.failed = cause_of(error)
                uncertain = mirror is not None
                with self._changed:
                    self._pending = batch | self._pending
                    if deadline is not None and time.monotonic() > deadline:
                        return
                    self._changed.wait(RETRY_S)
