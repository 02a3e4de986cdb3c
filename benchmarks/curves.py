"""Learning curves of real trainings, recorded once for benchmarks/pareto.py to replay: benchmarks/curves.json.

    python benchmarks/curves.py     # an hour of two cores; needs no Ray

Small hybrids on drawn radiographs, every model at every learning rate, trained to the end: the macro AUROC of
validation after each epoch, and what each model costs. Each arm is written as it ends, and a second start goes on where
the first stopped: what is kept has seed 0 of all, and seed 1 of the six that came next.
"""

from __future__ import annotations

import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from recording import HERE

from xlite_search import storage

FILE = HERE / "curves.json"
MODELS = (
    *("test_efficientnet_none", "test_efficientnet_se", "test_efficientnet_mhsa"),
    *("test_resnet_none", "test_resnet_mhsa", "mobilenetv3_small_050_none", "mobilenetv3_small_050_mhsa"),
)
RATES, SEEDS = (3e-4, 1e-3, 3e-3, 1e-2), (0, 1)
EPOCHS, IMAGES, SIZE, DATA, METRIC = 16, 1200, 32, "phantom-curves", "val/auroc_macro"


def trained(model: str, rate: float, seed: int) -> list[float]:
    """The metric by epoch."""
    from trainables.baseline import baseline
    from xlite_search.config import RunConfig
    from xlite_search.data.dataset import DataSpec
    from xlite_search.training.optim import AdamW, Cosine

    config = RunConfig(
        model=model,
        data=DataSpec(name=DATA),
        epochs=EPOCHS,
        batch_size=32,
        optimizer=AdamW(lr=rate),
        schedule=Cosine(warmup=1),
        early_stopping=None,
        seed=seed,
    )
    return [result.metrics[METRIC] for result in baseline(config)]


def costs() -> dict[str, dict[str, float]]:
    from xlite_search.models.cost import cost_of

    found = {model: cost_of(model, SIZE) for model in MODELS}
    return {
        name: {"model/latency_ms": c.latency_ms, "model/parameters": c.parameters, "model/macs": c.macs}
        for name, c in found.items()
    }


def main() -> None:
    from xlite_search.data.prepare import prepare
    from xlite_search.data.sources.phantom import Phantom

    kept: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {"arms": []}
    kept |= {"metric": METRIC, "epochs": EPOCHS, "images": IMAGES, "size": SIZE}
    kept["costs"] = kept.get("costs") or costs()
    done = {(arm["model"], arm["lr"], arm["seed"]) for arm in kept["arms"]}
    todo = [arm for s in SEEDS for m in MODELS for lr in RATES if (arm := (m, lr, s)) not in done]
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XLITE_DATA": folder}
        prepare(DATA, Phantom(images=IMAGES, size=64), SIZE)
        with ProcessPoolExecutor(2) as pool:
            running = {pool.submit(trained, *arm): arm for arm in todo}
            for ended in as_completed(running):
                model, rate, seed = running[ended]
                curve = [round(score, 6) for score in ended.result()]
                kept["arms"].append({"model": model, "lr": rate, "seed": seed, "curve": curve})
                kept["arms"].sort(key=lambda arm: (MODELS.index(arm["model"]), arm["lr"], arm["seed"]))
                storage.write_atomic(FILE, _text(kept).encode())
                print(f"{len(kept['arms'])}: {model} lr={rate:g} seed={seed}: {max(curve):.4f}", flush=True)


def _text(kept: dict[str, Any]) -> str:
    """JSON with an arm a line."""
    arms = ",\n".join(json.dumps(arm) for arm in kept["arms"])
    return json.dumps({**kept, "arms": []}, indent=1).replace('"arms": []', f'"arms": [\n{arms}\n]') + "\n"


if __name__ == "__main__":
    main()
