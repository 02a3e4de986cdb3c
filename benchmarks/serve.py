"""How much of a model's speed its service keeps, and how long whoever asks waits.

    python benchmarks/serve.py

exports an untrained hybrid at 224 px, serves it by `python -m xlite_search serve`, and asks it over HTTP from one
process with as many connections as there are clients, for PNG files of 224 px. Beside it onnxruntime's `session.run`
computes prepared images on the same cores, nothing else: single images on one thread each, or batches of 16 on all,
whichever is faster. The two take turns. Requests for the latencies arrive at 80 % of the rate that was reached, evenly
(`p95_ratio`), and at random times (Poisson, from a seed).

`processor_ratio` is the same in seconds that the processor computes, of the service with its decoders, for an image;
what else the machine does hardly moves it.

Random arrivals wait for each other even where nothing is lost: beside our p95 stands that of an ideal queue which gets
the same requests at the same times, with a server for each core, each of which takes its cores' share of the rate that
was reached for a request, and nothing else.
"""

from __future__ import annotations

import heapq
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import recording
from clients import apart, asked
from recording import Limit

from xlite_search import limits

MODEL, SIZE, CLIENTS, BATCH = "efficientnet_b0_mhsa", 224, 16, 16
#: turns of service and reference, requests of a turn, mixed requests, requests with a latency each
ROUNDS, TURN, MIXED, TIMED = 9, 240, 2000, 500
LOAD, SEED = 0.8, 0

LIMITS = {
    "throughput_ratio": Limit(least=0.8),
    "processor_ratio": Limit(least=0.8),
    "p95_ratio": Limit(most=3),
    "p95_to_ideal": Limit(most=1.5),
    "answers_wrong": Limit(most=0),
    "answers_lost": Limit(most=0),
}


@contextmanager
def served(folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """The port and the process of a service over an exported folder."""
    command = [sys.executable, "-m", "xlite_search", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        said = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert said, "the service did not begin"
        yield int(said[1]), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def processor_s(process: psutil.Process) -> float:
    """Seconds that a process and its children have computed."""
    return float(sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True))))


def references(folder: Path, images: Any) -> dict[str, Callable[[int], float]]:
    """Images a second of `session.run` alone, by so many images."""
    from xlite_search.deploy.predict import Predictor

    cores = limits.cores()
    one, every = (Predictor.open(folder, threads=threads) for threads in (1, None))
    pool = ThreadPoolExecutor(cores)

    def singles(count: int) -> float:
        began = time.perf_counter()
        list(pool.map(lambda number: one(images[number % len(images)][None]), range(count)))
        return count / (time.perf_counter() - began)

    def batches(count: int) -> float:
        began, batch = time.perf_counter(), images[:BATCH]
        for _ in range(count // BATCH):
            every(batch)
        return count // BATCH * BATCH / (time.perf_counter() - began)

    return {"singles": singles, "batches": batches}


def ideal_p95_ms(servers: int, rate: float, due: Sequence[float]) -> float:
    """p95 of the time in a queue before so many servers, which can do `rate` requests a second, of these arrivals."""
    free, found = [0.0] * servers, []
    for now in due:
        end = max(now, heapq.heappop(free)) + servers / rate
        heapq.heappush(free, end)
        found.append(end - now)
    return statistics.quantiles(found, n=20)[-1] * 1e3


def measure(quick: bool) -> Mapping[str, float]:
    rounds, turn, mixed, timed = (1, 32, 40, 40) if quick else (ROUNDS, TURN, MIXED, TIMED)
    with tempfile.TemporaryDirectory() as home:
        folder, files = exported(Path(home)), drawn(Path(home))
        with served(folder) as (port, process):
            bodies = [file.read_bytes() for file in files]
            expected = [asked(port, body) for body in bodies]
            figures = speeds(folder, port, process, files[:BATCH], expected[:BATCH], rounds, turn)
            waits = latencies(port, bodies[:BATCH], expected[:BATCH], figures["served_per_s"], timed)
            each = apart(port, bodies, expected, [0.0] * mixed, CLIENTS)
        bad = wrong(folder, files, expected) + sum(found.pop("wrong") for found in (figures, waits)) + each.wrong
        lost = sum(found.pop("lost") for found in (figures, waits)) + each.lost
    return {**figures, **waits, "answers_wrong": bad, "answers_lost": lost, "clients": CLIENTS, "cores": limits.cores()}


def speeds(
    folder: Path,
    port: int,
    process: psutil.Process,
    files: Sequence[Path],
    expected: Sequence[bytes],
    rounds: int,
    turn: int,
) -> dict[str, float]:
    import numpy as np

    from xlite_search.deploy.predict import Predictor

    of = Predictor.open(folder)
    cases = references(folder, np.stack([of.prepared(file) for file in files]))
    bodies, found = [file.read_bytes() for file in files], []
    shares = []
    for number in range(rounds + 1):  # the first warms up
        begun = time.process_time()
        each = {"singles": cases["singles"](turn)}
        alone_s = time.process_time() - begun
        each["batches"], begun = cases["batches"](turn), processor_s(process)
        answers = apart(port, bodies, expected, [0.0] * turn, CLIENTS)
        if number:
            found.append((each, answers))
            shares.append(alone_s / (processor_s(process) - begun))
    best = max(cases, key=lambda name: statistics.median(each[name] for each, _ in found))
    ratios = [answers.rate / max(each.values()) for each, answers in found]
    served = statistics.median(answers.rate for _, answers in found)
    alone = statistics.median(max(each.values()) for each, _ in found)
    print(f"images/s: service {served:.1f}, session.run alone ({best}) {alone:.1f}")
    return {
        **{f"{name}_per_s": statistics.median(each[name] for each, _ in found) for name in cases},
        "served_per_s": served,
        "throughput_ratio": statistics.median(ratios),
        "processor_ratio": statistics.median(shares),
        "wrong": sum(answers.wrong for _, answers in found),
        "lost": sum(answers.lost for _, answers in found),
    }


def latencies(port: int, bodies: Sequence[bytes], expected: Sequence[bytes], rate: float, count: int) -> dict[str, Any]:
    """p95 of one request at a time, and of requests that arrive at 80 % of that rate, evenly and at random."""
    rng, now, due = random.Random(SEED), 0.0, []
    for _ in range(count):
        now += rng.expovariate(LOAD * rate)
        due.append(now)
    spread = 2 / rate * limits.cores()
    idle = apart(port, bodies, expected, [spread * number for number in range(count // 4)], CLIENTS)
    even = apart(port, bodies, expected, [number / (LOAD * rate) for number in range(count)], 4 * CLIENTS)
    chance = apart(port, bodies, expected, due, 4 * CLIENTS)
    ratio, ideal = chance.p95_ms() / idle.p95_ms(), ideal_p95_ms(limits.cores(), rate, due)
    print(
        f"p95: {idle.p95_ms():.1f} ms idle; at 80 % load {even.p95_ms():.1f} ms where requests come evenly, "
        f"{chance.p95_ms():.1f} ms where by chance ({ratio:.2f} times idle; an ideal queue {ideal:.1f} ms)"
    )
    return {
        "idle_p95_ms": idle.p95_ms(),
        "even_p95_ms": even.p95_ms(),
        "p95_ratio": even.p95_ms() / idle.p95_ms(),
        "random_p95_ms": chance.p95_ms(),
        "random_p95_ratio": ratio,
        "ideal_p95_ms": ideal,
        "p95_to_ideal": chance.p95_ms() / ideal,
        "wrong": idle.wrong + even.wrong + chance.wrong,
        "lost": idle.lost + even.lost + chance.lost,
    }


def exported(home: Path) -> Path:
    """An untrained model, with what phantoms are like, so that each image is held against that."""
    import numpy as np
    from latency import untrained

    from xlite_search.data.preprocess import Preprocess
    from xlite_search.data.sources.phantom import Phantom
    from xlite_search.deploy.domain import FEWEST, files_of, fit_domain
    from xlite_search.deploy.export import export

    count, prepare = 2 * FEWEST, Preprocess(SIZE)
    source = Phantom(count, seed=SEED + 1, size=SIZE)
    images = np.stack([prepare(source.pixels(row)) for row in range(count)])
    domain = fit_domain(images, [str(row) for row in range(count)])
    export(untrained(home / "model", MODEL), home / "out", writers=[lambda *_: files_of(domain)])
    return home / "out"


def drawn(home: Path) -> list[Path]:
    """PNG files of 224 px, then as many JPEG files, then files that are no use."""
    import cv2

    from xlite_search.data.sources.phantom import Phantom

    source = Phantom(BATCH, seed=SEED, size=SIZE)
    files = [home / f"{row}.{kind}" for kind in ("png", "jpg") for row in range(BATCH)]
    for file in files:
        cv2.imwrite(str(file), source.pixels(int(file.stem)))
    for number, file in enumerate(files[:4]):
        bad = home / f"bad{number}.png"
        bad.write_bytes(file.read_bytes()[: 100 * (number + 1)])
        files.append(bad)
    return files


def wrong(folder: Path, files: Sequence[Path], answers: Sequence[bytes]) -> int:
    """Answers that are not to the bit what `predict` says of the file."""
    import numpy as np

    from xlite_search.deploy.predict import Predictor

    found = 0
    for said, answer in zip(Predictor.open(folder).of_files(files), answers, strict=True):
        reply = json.loads(answer[3:])
        rows = [[np.float32(each[name]) for name in ("logit", "probability")] for each in reply.get("findings", [])]
        expected = np.stack([said.logits, said.probabilities], axis=1)
        same = np.array_equal(np.array(rows, np.float32).reshape(-1, 2), expected)
        found += not same or answer[:3] != (b"422" if said.error else b"200")
    return found


if __name__ == "__main__":
    recording.run("serve", __doc__, measure, LIMITS)
