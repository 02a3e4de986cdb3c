"""The lab's recipe, from which its studies start: ImageNet's weights, medium views, AdamW, a plateau schedule, bf16."""

from __future__ import annotations

from xlite_search.config import RunConfig
from xlite_search.data.views import Medium
from xlite_search.models.weights import Weights
from xlite_search.training.optim import AdamW, Plateau

lab = RunConfig(
    weights=Weights(path="imagenet"),
    epochs=20,
    batch_size=32,
    augment=Medium(),
    optimizer=AdamW(lr=1e-4, weight_decay=1e-5),
    schedule=Plateau(patience=5, factor=0.5),
    early_stopping=None,
    precision="bf16",
)

#: a fifth of the training patients: what the lab compares recipes on
lab_fifth = lab.with_settings({"data.fraction": 0.2})
