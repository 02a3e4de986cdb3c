"""What preparing once is worth: a row of the packed set against decode + CLAHE + resize of the same 1024 px PNG.

    python benchmarks/data.py

The reference is the lab's way before its cache (EXP-001): OpenCV's imread, CLAHE (2.0, 8 x 8), resize to 224 px, in
every epoch anew. Both sides read the same images, from the page cache, on one thread. The last line is JSON; the limit:
`read_speedup` of at least 50.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from xlite_search.data.prepare import enhance, prepare
from xlite_search.data.sources.chestxray14 import ChestXray14
from xlite_search.data.sources.phantom import Phantom

IMAGES, RAW, SIZE, ROUNDS = 32, 1024, 224, 7


def main() -> None:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:  # Windows keeps a mapped file
        os.environ["XLITE_DATA"] = home
        raw = _raw_images(Path(home) / "raw")
        packed = prepare("bench", ChestXray14(raw, raw / "labels.csv"), SIZE)
        files = [str(raw / name) for name in packed.table.names]

        def decode() -> int:
            return sum(
                int(enhance(np.asarray(cv2.imread(f, cv2.IMREAD_GRAYSCALE), np.uint8), SIZE)[0, 0]) for f in files
            )

        def gather() -> int:
            return sum(int(np.array(packed.pixels[row])[0, 0]) for row in range(IMAGES))

        assert decode() == gather()
        slow, fast = _median_ms(decode), _median_ms(gather)
    print(f"decode + CLAHE + resize of a {RAW} px PNG  {slow:8.3f} ms an image")
    print(f"a row of the packed set at {SIZE} px        {fast:8.3f} ms an image")
    print(json.dumps({"read_speedup": round(slow / fast, 1), "limit": 50, "images": IMAGES, "rounds": ROUNDS}))


def _raw_images(folder: Path) -> Path:
    """Phantoms as NIH ships radiographs: 1024 px PNG files and a label table."""
    folder.mkdir()
    phantom = Phantom(images=IMAGES, size=256)
    table = phantom.table()
    lines = ["Image Index,Finding Labels,Patient ID"]
    for row, (name, patient) in enumerate(zip(table.names, table.patients, strict=True)):
        cv2.imwrite(str(folder / name), cv2.resize(phantom.pixels(row), (RAW, RAW), interpolation=cv2.INTER_CUBIC))
        lines.append(f"{name},No Finding,{patient}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _median_ms(work: Callable[[], int]) -> float:
    """Milliseconds an image, the median of several rounds."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return float(np.median(times)) * 1000 / IMAGES


if __name__ == "__main__":
    main()
