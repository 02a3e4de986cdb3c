"""`predict --watch`: a folder's files, answered as they come."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from xlite_search.deploy.folder import INT8, ONNX

if TYPE_CHECKING:
    from xlite_search.deploy.predict import Predictor
    from xlite_search.deploy.watch import Line


def watch(folder: Path, predictor: Predictor, into: Path, *, int8: bool) -> NoReturn:
    """Until Ctrl+C; never returns. Raises as `watching`."""
    from xlite_search.deploy.watch import watching

    decides = bool(predictor.manifest.thresholds)
    with watching(folder, predictor, into, INT8 if int8 else ONNX) as seen:
        done = len(seen.table.answered)
        print(f"watching {seen.folder}; {done} answered before; answers go into {seen.table.path}; Ctrl+C ends it")
        said: set[str] = set()
        while True:
            started = time.perf_counter()
            for line in seen.look():
                say(line, decides=decides)
            for trouble in sorted({*seen.troubles.values()} - said):
                print(trouble, file=sys.stderr, flush=True)
            said = {*seen.troubles.values()}
            seen.rest(time.perf_counter() - started)


def say(line: Line, *, decides: bool) -> None:
    """One line of output; a file without answer on stderr."""
    if line.error:
        print(f"error: {line.seen.file}: {line.error}", file=sys.stderr, flush=True)
        return
    found = line.found or "nothing reaches its threshold"
    flags = f" (look at it: {line.flags})" if line.flags else ""
    print(f"{line.seen.file}: {found if decides else 'answered'}{flags}", flush=True)
