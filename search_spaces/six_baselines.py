"""Which of the lab's six hybrids learns most without a teacher?

    python -m xlite_search run search_spaces/six_baselines.py          # 3 x 2 = 6 trials
    python -m xlite_search run search_spaces/six_baselines.py --demo   # small relatives on phantoms

The log answered twice and neither answer stands: EXP-000 drew batches with a sampler nobody had looked into, EXP-007
halved the batch for the power supply's sake, and its ablations ran 10 epochs without a schedule against 20 with one.
Here all six get the same data, split, seed, views, 20 epochs, batch of 32 and schedule, every image is drawn once an
epoch, and every one is trained to its end: a scheduler that stops trials would compare unequal epochs.
"""

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.data.views import Medium
from xlite_search.models.weights import Weights
from xlite_search.search.study import Study, grid_search
from xlite_search.training.losses import WeightedBCE
from xlite_search.training.optim import AdamW, Plateau

study = Study(
    question=__doc__,
    trainable=baseline,
    base=RunConfig(
        weights=Weights(path="imagenet"),
        epochs=20,
        batch_size=32,
        augment=Medium(),
        loss=WeightedBCE(weighting="inverse_sqrt"),
        optimizer=AdamW(lr=1e-4, weight_decay=1e-5),
        schedule=Plateau(patience=5, factor=0.5),
        early_stopping=10,
        precision="bf16",
    ),
    space={
        "model": grid_search(
            [
                "efficientnet_b0_mhsa",
                "efficientnet_b0_performer",
                "convnext_tiny_mhsa",
                "convnext_tiny_performer",
                "mobilenet_v3_large_mhsa",
                "mobilenet_v3_large_performer",
            ]
        ),
    },
    metric="val/auroc_macro",
    demo={
        "model": [
            "test_efficientnet_mhsa",
            "test_efficientnet_performer",
            "test_resnet_mhsa",
            "test_resnet_performer",
            "mobilenetv3_small_050_mhsa",
            "mobilenetv3_small_050_performer",
        ],
        "weights": None,
        "loss": "bce",
        "augment": None,
        "epochs": 6,
        "optimizer.lr": 3e-3,
        "schedule": {"name": "cosine", "warmup": 1},
    },
)
