"""The grid of `benchmarks/peer.py` as a study: two light students x tau x alpha on real radiographs."""

from trainables.distill import distill
from xlite_search.config import RunConfig
from xlite_search.data.dataset import DataSpec
from xlite_search.data.views import Light
from xlite_search.search.asha import ASHA
from xlite_search.search.study import Study, grid_search
from xlite_search.training.optim import AdamW, Constant

base = RunConfig(
    data=DataSpec(name="peer"),
    epochs=4,
    batch_size=32,
    augment=Light(),
    optimizer=AdamW(lr=1e-3),
    schedule=Constant(),
    early_stopping=None,
)

study = Study(
    question=__doc__,
    trainable=distill,
    base=base,
    teacher=base.with_settings({"model": "convnext_tiny_none", "threads": 2}),
    space={
        "model": grid_search(["efficientnet_b0_none", "mobilenetv3_small_100_none"]),
        "kd.tau": grid_search([1.0, 4.0]),
        "kd.alpha": grid_search([0.3, 0.7]),
    },
    metric="val/auroc_macro",
    scheduler=ASHA(grace=1, reduction=4),
)
