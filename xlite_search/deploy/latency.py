"""Latency of an exported model: milliseconds of one image, on one thread and on all cores; preparing it apart.

After a warm-up the cases take turns in an order that is drawn anew each round, so that what else the machine does falls
on all of them. The first answer of a new session, which loads and optimises the graph, is counted apart (cold start).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xlite_search import limits
from xlite_search.deploy.folder import IMAGES
from xlite_search.deploy.predict import Predictor, open_session

WARM_UP, ROUNDS, QUICK = 20, 200, 50
PERCENTILES = (50, 95, 99)


def timed(
    cases: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, warm_up: int = WARM_UP
) -> dict[str, dict[str, float]]:
    """`p50_ms`, `p95_ms`, `p99_ms` and `runs` of each case."""
    draw, names = np.random.default_rng(0), list(cases)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warm_up + rounds):
        for place in draw.permutation(len(names)):
            started = time.perf_counter()
            cases[names[place]]()
            if turn >= warm_up:
                times[names[place]].append(1000 * (time.perf_counter() - started))
    return {name: percentiles(found) for name, found in times.items()}


def percentiles(milliseconds: list[float]) -> dict[str, float]:
    found = np.percentile(milliseconds, PERCENTILES)
    return {f"p{share}_ms": round(float(at), 4) for share, at in zip(PERCENTILES, found, strict=True)} | {
        "runs": len(milliseconds)
    }


def cold_start_ms(graph: Path, images: Any, threads: int) -> float:
    """From a file to the first answer; onnxruntime itself is imported before."""
    started = time.perf_counter()
    open_session(graph, threads).run(None, {IMAGES: images})
    return 1000 * (time.perf_counter() - started)


def measured(predictor: Predictor, graph: Path, file: Path, rounds: int = ROUNDS) -> dict[str, Any]:
    """Of an exported folder and one image file, as JSON: `one_thread`, `all_cores`, `preparing`, `cold_start_ms`.

    `preparing` is reading, decoding, CLAHE and resizing, on one thread of OpenCV.
    """
    image, cores = predictor.prepared(file)[None], limits.cores()
    cold = cold_start_ms(graph, image, cores)
    one, every = open_session(graph, 1), open_session(graph, cores)
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        found = timed(
            {
                "one_thread": lambda: one.run(None, {IMAGES: image}),
                "all_cores": lambda: every.run(None, {IMAGES: image}),
                "preparing": lambda: predictor.prepared(file),
            },
            rounds,
        )
    finally:
        cv2.setNumThreads(before)
    return {**found, "cold_start_ms": round(cold, 2), "cores": cores}
