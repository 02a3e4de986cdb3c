"""The same grid as one would write it with Ray Tune, timm, albumentations, scikit-learn and MLflow's callback.

    python benchmarks/peer_plain.py GIVEN.json FOLDER

GIVEN has how many epochs, the folder of images, and names and labels of the parts that the other side used. The last
line says how many epochs all trials trained, and the best score.
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import ray
import timm
import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

SIZE, BATCH, LR, SEED, TEACHER = 96, 32, 1e-3, 42, "convnext_tiny"
GRID = {
    "model": tune.grid_search(["efficientnet_b0", "mobilenetv3_small_100"]),
    "tau": tune.grid_search([1.0, 4.0]),
    "alpha": tune.grid_search([0.3, 0.7]),
}


class Radiographs(Dataset[Any]):
    def __init__(self, given: dict[str, Any], part: str, *, augment: bool) -> None:
        self.folder, self.names = Path(given["images"]), given[part]["names"]
        self.labels = torch.tensor(given[part]["labels"], dtype=torch.float32)
        light = [A.Affine(rotate=(-5, 5), translate_percent=(-0.02, 0.02), scale=(0.95, 1.05), p=1)]
        light.append(A.RandomBrightnessContrast(0.05, 0.05, p=1))
        clear = [A.CLAHE(clip_limit=(2, 2), p=1), A.Resize(SIZE, SIZE, interpolation=cv2.INTER_AREA)]
        self.transform = A.Compose(clear + (light if augment else []))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = cv2.imread(str(self.folder / self.names[place]), cv2.IMREAD_GRAYSCALE)
        pixels = self.transform(image=image)["image"]
        return torch.from_numpy(pixels).float().div(255).sub(0.5).div(0.25).expand(3, -1, -1), self.labels[place]


def build(name: str) -> torch.nn.Module:
    model: torch.nn.Module = timm.create_model(name, num_classes=14)
    return model.to(memory_format=torch.channels_last)


def score(model: torch.nn.Module, val: Radiographs) -> float:
    """Macro AUROC over the findings that have both."""
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(images) for images, _ in DataLoader(val, batch_size=BATCH)])
    truth, said = val.labels.numpy(), logits.numpy()
    both = [each for each in range(truth.shape[1]) if 0 < truth[:, each].sum() < len(truth)]
    return float(np.mean([roc_auc_score(truth[:, each], said[:, each]) for each in both]))


def epoch(model: Any, optimizer: Any, batches: Any, teacher: Any = None, tau: float = 1.0, alpha: float = 0.0) -> None:
    model.train()
    for images, labels in batches:
        logits = model(images)
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        if teacher is not None:
            with torch.no_grad():
                soft = torch.sigmoid(teacher(images) / tau)
            told = F.binary_cross_entropy_with_logits(logits / tau, soft) * tau**2
            loss = alpha * told + (1 - alpha) * loss
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


def taught(given: dict[str, Any], path: str) -> None:
    """The teacher, on both cores, before the grid."""
    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    model = build(TEACHER)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    batches = DataLoader(Radiographs(given, "train", augment=True), BATCH, shuffle=True, drop_last=True)
    for _ in range(given["epochs"]):
        epoch(model, optimizer, batches)
    torch.save(model.state_dict(), path)


def trial(config: dict[str, Any], given: dict[str, Any], teacher_path: str) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(SEED)
    teacher = build(TEACHER).eval().requires_grad_(False)
    teacher.load_state_dict(torch.load(teacher_path))
    model = build(config["model"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    batches = DataLoader(Radiographs(given, "train", augment=True), BATCH, shuffle=True, drop_last=True)
    val = Radiographs(given, "val", augment=False)
    for _ in range(given["epochs"]):
        epoch(model, optimizer, batches, teacher, config["tau"], config["alpha"])
        with tempfile.TemporaryDirectory() as folder:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, f"{folder}/checkpoint.pt")
            tune.report({"auroc": score(model, val)}, checkpoint=tune.Checkpoint.from_directory(folder))


def main() -> None:
    given, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]).absolute()
    teacher = str(folder / "teacher.pt")
    taught(given, teacher)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    follow = MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="peer")
    tuner = tune.Tuner(
        tune.with_resources(partial(trial, given=given, teacher_path=teacher), {"CPU": 1}),
        param_space=GRID,
        tune_config=tune.TuneConfig(
            metric="auroc",
            mode="max",
            scheduler=ASHAScheduler(max_t=given["epochs"], grace_period=1),
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "ray"), verbose=0, callbacks=[follow]),
    )
    done = tuner.fit()
    assert not done.errors
    table = done.get_dataframe()
    columns = ["config/model", "config/tau", "config/alpha", "training_iteration", "auroc"]
    print(table.sort_values("auroc", ascending=False)[columns].to_string(index=False))
    best = done.get_dataframe(filter_metric="auroc", filter_mode="max")["auroc"].max()
    print(json.dumps({"epochs": int(table["training_iteration"].sum()), "best": float(best)}))


if __name__ == "__main__":
    main()
