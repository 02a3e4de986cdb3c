"""What the data path costs, ours and a bare reference side by side, each in its turn, on the same images and cores.

    python benchmarks/data.py [--quick]

    read_speedup        a row of the packed set against decode + CLAHE + resize of a 1024 px PNG, one thread.
                        The reference is the lab's way before its cache (EXP-001): OpenCV anew in every epoch
    loader_efficiency   batches of medium views with two workers against two bare processes that only draw views from
                        the packed set. Also without workers, against a bare loop in one process
    view_us             a medium view, ours and as one would write it with albumentations; and what it adds to each
                        that the view is the same everywhere
    prepare_efficiency  `prepare` with two workers against two bare processes that decode, CLAHE and resize, and write
                        nothing
    prepare_mib_...     memory of all processes while preparing few and many images: it stays flat

Figures are medians over rounds. Processes import this file anew: torch is imported where it is needed, as the command
line does.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import psutil
import recording
from recording import Limit, interleaved

from xlite_search.data.packed import PackedSet
from xlite_search.data.prepare import prepare
from xlite_search.data.preprocess import Preprocess
from xlite_search.data.sources.folder import Folder
from xlite_search.data.sources.phantom import Phantom

RAW, SIZE, DRAWN, BATCH, CORES = 1024, 224, 48, 32, 2
FEW, MANY, CALLS, PASSES = 400, 1600, 60, 4
LIMITS = {
    "read_speedup": Limit(least=50),
    "loader_efficiency": Limit(least=0.88),
    "prepare_efficiency": Limit(least=0.95),
    "prepare_mib_1600": Limit(most=200),
}


@dataclass(frozen=True)
class Case:
    """Images of everything but memory, in whole batches; rounds, and those of `prepare`."""

    images: int
    rounds: int
    prepare_rounds: int


WHOLE, QUICK = Case(images=800, rounds=9, prepare_rounds=5), Case(images=96, rounds=1, prepare_rounds=1)


def measure(quick: bool) -> dict[str, float]:
    cv2.setNumThreads(1)
    case = QUICK if quick else WHOLE
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:  # Windows keeps a mapped file
        os.environ["XLITE_DATA"] = str(Path(home) / "data")
        raw = {count: _raw_images(Path(home) / f"raw{count}", count) for count in (FEW, case.images, MANY)}
        figures = preparing(raw[case.images], case.prepare_rounds)
        for count in (FEW, MANY):
            figures[f"prepare_mib_{count}"] = mib = _peak_mib(raw[count])
            print(f"preparing {count:5} images: {mib:.0f} MiB at most, all processes")
        packed = _prepared(raw[case.images])
        figures |= reading(packed, raw[case.images], case.rounds)
        figures |= views(packed, case.rounds * 3) | loading(packed, case.rounds)
    return figures | {"images": case.images, "processes": CORES}


def reading(packed: PackedSet, raw: Path, rounds: int) -> dict[str, float]:
    files, preprocess = [str(raw / name) for name in packed.table.names[:DRAWN]], Preprocess(SIZE)

    def decode() -> int:
        return sum(int(preprocess(np.asarray(cv2.imread(f, cv2.IMREAD_GRAYSCALE), np.uint8))[0, 0, 0]) for f in files)

    def gather() -> int:
        return sum(int(np.array(packed.pixels[row])[0, 0, 0]) for row in range(DRAWN))

    assert decode() == gather()
    times = interleaved({"decode": decode, "gather": gather}, rounds)
    slow, fast = (float(np.median(times[name])) * 1000 / DRAWN for name in ("decode", "gather"))
    print(
        f"decode + CLAHE + resize of a {RAW} px PNG {slow:.3f} ms; a row of the packed set at {SIZE} px {fast:.4f} ms"
    )
    return {"read_speedup": slow / fast, "decode_ms": slow, "read_ms": fast}


def views(packed: PackedSet, rounds: int) -> dict[str, float]:
    """Microseconds of a medium view, ours and as one would write it with albumentations, and what it adds to each that
    the view is the same everywhere."""
    import albumentations as A

    from xlite_search.data.transforms import Transforms
    from xlite_search.data.views import Medium, Views, _Numbers

    image, number, spec = np.array(packed.pixels[0, 0]), itertools.count(), Medium()
    ours, free, out = Views(spec), Transforms(spec, SIZE, SIZE, _Numbers()), np.empty_like(image)
    zoom, shift = (1 - spec.zoom, 1 + spec.zoom), (-spec.shift, spec.shift)
    pose = A.Affine(scale=zoom, translate_percent=shift, rotate=(-spec.rotate, spec.rotate), p=1)
    light = A.RandomBrightnessContrast(spec.brightness, spec.contrast, p=1)
    theirs = A.Compose([A.HorizontalFlip(), pose, light])

    def with_seed() -> None:
        theirs.set_random_seed(next(number))
        theirs(image=image)

    ways: dict[str, Callable[[], object]] = {
        "free": lambda: free(image, out),
        "ours": lambda: ours.draw(image, 7, next(number), out),
        "albumentations": lambda: theirs(image=image),
        "set_random_seed": with_seed,
    }
    times = interleaved({name: _repeated(way, CALLS) for name, way in ways.items()}, rounds)
    us = {name: np.array(values) / CALLS * 1e6 for name, values in times.items()}
    view, other = (float(np.median(us[name])) for name in ("ours", "albumentations"))
    added = float(np.median(us["ours"] - us["free"]))
    seed = float(np.median(us["set_random_seed"] - us["albumentations"]))
    print(
        f"a medium view {view:.0f} us, {added:.1f} of them that it is the same everywhere; albumentations' own ", end=""
    )
    print(f"{other:.0f} us, and {seed:.0f} more by set_random_seed")
    return {
        "view_us": view,
        "view_determinism_us": added,
        "albumentations_view_us": other,
        "albumentations_determinism_us": seed,
    }


def loading(packed: PackedSet, rounds: int) -> dict[str, float]:
    """Images a second, loader over bare loop, with the same number of processes at work."""
    import torch

    from xlite_search.data.dataset import Part
    from xlite_search.data.loaders import Loader
    from xlite_search.data.views import Medium

    torch.set_num_threads(1)
    part, spec = Part(packed, np.tile(np.arange(len(packed)), PASSES)), Medium()
    found: dict[str, float] = {}
    for workers in (0, CORES):
        loader = Loader(part, BATCH, seed=0, device=torch.device("cpu"), augment=spec, workers=workers)
        bare = _Bare(packed, max(workers, 1))
        epochs = itertools.count(1)

        def load(loader: Loader = loader, epochs: Iterator[int] = epochs) -> None:
            assert sum(len(batch.rows) for batch in loader.epoch(next(epochs))) == len(part)

        times = interleaved({"loader": load, "bare": bare}, rounds)
        loader.close()
        bare.close()
        ratio = np.array(times["bare"]) / np.array(times["loader"])
        rates = {name: len(part) / float(np.median(values)) for name, values in times.items()}
        alone = "" if workers else "_alone"
        found[f"loader_efficiency{alone}"] = float(np.median(ratio))
        found |= {f"{name}_images_s{alone}": rate for name, rate in rates.items()}
        print(f"medium views, {workers} workers: loader {rates['loader']:.0f}, bare {rates['bare']:.0f} images/s")
    return found


class _Bare:
    """Processes that draw views of every image in random order, an equal share each, and hand nothing to anybody."""

    def __init__(self, packed: PackedSet, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        for part in range(count):
            ours, theirs = context.Pipe()
            context.Process(target=_draw_views, args=(theirs, packed, part, count), daemon=True).start()
            self.pipes.append(ours)

    def __call__(self) -> None:
        for pipe in self.pipes:
            pipe.send(True)
        for pipe in self.pipes:
            pipe.recv()

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(False)


def _draw_views(pipe: Connection, packed: PackedSet, part: int, count: int) -> None:
    from xlite_search.data.sources import image_key
    from xlite_search.data.views import Medium, Views

    cv2.setNumThreads(1)
    made, keys, epoch = Views(Medium()), [image_key(name) for name in packed.table.names], 0
    while pipe.recv():
        for _ in range(PASSES):
            epoch += 1
            for row in np.random.default_rng(epoch).permutation(len(packed))[part::count].tolist():
                made(packed.pixels[row, 0], keys[row], epoch)
        pipe.send(None)


BARE = f"""
import sys, cv2
cv2.setNumThreads(1)
clahe = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8))
for path in sys.stdin.read().split("\\n"):
    image = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    cv2.resize(clahe.apply(image), ({SIZE}, {SIZE}), interpolation=cv2.INTER_AREA)
"""


def preparing(raw: Path, rounds: int) -> dict[str, float]:
    """Both sides from the start of their processes to their end."""
    files = sorted(str(path) for path in raw.glob("*.png"))

    def bare() -> None:
        command = [sys.executable, "-c", BARE]
        processes = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(CORES)]
        for part, process in enumerate(processes):
            assert process.stdin
            process.stdin.write("\n".join(files[part::CORES]))
            process.stdin.close()
        assert not any(process.wait() for process in processes)

    times = interleaved({"prepare": lambda: _prepared(raw), "bare": bare}, rounds)
    ratio = float(np.median(np.array(times["bare"]) / np.array(times["prepare"])))
    rates = {name: len(files) / float(np.median(values)) for name, values in times.items()}
    print("preparing: " + _listed(rates, "images/s"))
    return {"prepare_efficiency": ratio, "prepare_images_s": rates["prepare"], "prepare_bare_images_s": rates["bare"]}


def _prepared(raw: Path) -> PackedSet:
    shutil.rmtree(os.environ["XLITE_DATA"], ignore_errors=True)
    return prepare("bench", Folder(raw, raw / "labels.csv"), SIZE)


def _peak_mib(raw: Path) -> float:
    """Resident memory of this process and its children while preparing, above what this one had before."""
    me, seen, over = psutil.Process(), list[int](), threading.Event()
    before = me.memory_info().rss

    def resident(process: psutil.Process) -> int:
        try:
            return int(process.memory_info().rss)
        except psutil.Error:
            return 0

    def watch() -> None:
        while not over.wait(0.05):
            seen.append(sum(map(resident, [me, *me.children(recursive=True)])) - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _prepared(raw)
    over.set()
    watcher.join()
    return max(seen) / 2**20


def _raw_images(folder: Path, count: int) -> Path:
    """Phantoms as NIH ships radiographs: 1024 px PNG files and a label table. A few drawings, under many names."""
    folder.mkdir()
    phantom = Phantom(images=count, size=256)
    table, drawn = phantom.table(), []
    for row in range(DRAWN):
        image = cv2.resize(phantom.pixels(row), (RAW, RAW), interpolation=cv2.INTER_CUBIC)
        drawn.append(cv2.imencode(".png", image)[1].tobytes())
    lines = ["Image Index,Finding Labels,Patient ID"]
    for row, (name, patient) in enumerate(zip(table.names, table.groups, strict=True)):
        (folder / name).write_bytes(drawn[row % len(drawn)])
        lines.append(f"{name},{'Mass' if row % 2 else 'No Finding'},{patient}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _repeated(work: Callable[[], object], times: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(times):
            work()

    return repeated


def _listed(figures: Mapping[str, float], unit: str) -> str:
    return ", ".join(f"{name} {value:.1f} {unit}" for name, value in figures.items())


if __name__ == "__main__":
    recording.run("data", __doc__, measure, LIMITS)
