"""How fast an exported model answers, beside the same model in PyTorch.

    python benchmarks/latency.py

exports two untrained hybrids at 224 px and asks them for one image: onnxruntime and eager torch take turns in an order
drawn anew each round, on one thread; on all cores one is asked after the other, for the threads of one wait busily for
its next image and keep the other's out. That ratio has no limit: what else the machine does decides it. Decoding a PNG
of 1,024 px with CLAHE and resizing counts apart from the model, and so does the first answer of a new session.
`predict` is timed as a command.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cv2
import recording
import safetensors.torch
import torch
from recording import Limit

from xlite_search import limits
from xlite_search.data.preprocess import Preprocess
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.phantom import Phantom
from xlite_search.deploy.export import export
from xlite_search.deploy.folder import ONNX
from xlite_search.deploy.latency import WARM_UP, cold_start_ms, timed
from xlite_search.deploy.predict import Predictor
from xlite_search.model import Model, load_model
from xlite_search.model_folder import ModelManifest, write_model
from xlite_search.models.hybrid import build_model

Case = Callable[[], object]
MODELS = {"small": "mobilenet_v3_small_mhsa", "b0": "efficientnet_b0_mhsa"}
SIZE, RAW, ROUNDS, STARTS = 224, 1024, 200, 5

LIMITS = {
    "small_one_thread_ratio": Limit(most=1.5),
    "b0_one_thread_ratio": Limit(most=1.5),
    "b0_answer_ms": Limit(most=500),
    "predict_start_s": Limit(most=2),
}


def measure(quick: bool) -> Mapping[str, float]:
    rounds = 5 if quick else ROUNDS
    figures: dict[str, float] = {"rounds": rounds, "cores": limits.cores()}
    with tempfile.TemporaryDirectory() as home:
        image = Path(home) / "raw.png"
        cv2.imwrite(str(image), Phantom(1, seed=0, size=RAW).pixels(0))
        for short, name in MODELS.items():
            folder = Path(home) / short
            model = load_model(untrained(folder, name))
            export(folder, folder / "out")
            figures |= {
                f"{short}_{each}": value for each, value in of_model(model, folder / "out", image, rounds).items()
            }
        figures["predict_start_s"] = start_s(Path(home) / "small" / "out", image, 1 if quick else STARTS)
    return figures


def untrained(folder: Path, name: str) -> Path:
    """A model folder with random weights."""
    torch.manual_seed(0)
    network = build_model(name, classes=len(CHEST_FINDINGS)).eval()
    weights = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    about = ModelManifest(config={"model": name}, classes=CHEST_FINDINGS, input=Preprocess(SIZE).describe())
    write_model(folder, bytes(safetensors.torch.save(weights)), about)
    return folder


def of_model(model: Model, folder: Path, image: Path, rounds: int) -> dict[str, float]:
    """Milliseconds of one image, by p50, p95 and p99, and onnxruntime's p50 by eager torch's."""
    one, every = (Predictor.open(folder, threads=threads) for threads in (1, None))
    pixels = one.prepared(image)[None]
    tensor, cores = torch.from_numpy(pixels), limits.cores()

    def eager() -> None:
        with torch.inference_mode():
            model.logits(tensor)

    single: dict[str, Case] = {
        "one_thread": lambda: one(pixels),
        "eager_one_thread": eager,
        "preparing": lambda: one.prepared(image),
    }
    found: dict[str, dict[str, float]] = {}
    alone: list[dict[str, Case]] = [{"all_cores": lambda: every(pixels)}, {"eager_all_cores": eager}]
    for threads, cases in ((1, single), *((cores, each) for each in alone)):
        with opencv_and_torch(threads):
            found |= timed(cases, rounds, min(WARM_UP, rounds))
    figures = {
        f"{case}_{name}": value for case, each in found.items() for name, value in each.items() if name != "runs"
    }
    for case in ("one_thread", "all_cores"):
        figures[f"{case}_ratio"] = figures[f"{case}_p50_ms"] / figures[f"eager_{case}_p50_ms"]
    figures["answer_ms"] = figures["preparing_p95_ms"] + figures["one_thread_p95_ms"]
    figures["cold_start_ms"] = cold_start_ms(folder / ONNX, pixels, cores)
    return figures


@contextmanager
def opencv_and_torch(threads: int) -> Iterator[None]:
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(threads)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def start_s(folder: Path, image: Path, times: int) -> float:
    """Least seconds of `predict` with one image, as a command."""
    command = [sys.executable, "-m", "xlite_search", "predict", str(folder), str(image)]
    found = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        found.append(time.perf_counter() - started)
    return min(found)


if __name__ == "__main__":
    recording.run("latency", __doc__, measure, LIMITS)
