"""Which hybrid gives the most AUROC for its milliseconds and its megabytes?

    python -m xlite_search run search_spaces/pareto_search.py          # 32 trials, suggested by Optuna's TPE
    python -m xlite_search run search_spaces/pareto_search.py --demo   # 12 of them on phantoms: minutes on a CPU

What the log found: on a fifth of the data ConvNeXt-Tiny leads (0.8055, 30.5 M parameters) before EfficientNet-B0
(0.7935, 11.4 M) and MobileNetV3-Large (0.7835); on all of it EfficientNet-B0 is level (0.8306 against 0.8280, both with
MHSA, EXP-007). It named a best, a "fastest" and a "balanced pick" without a latency in any table, trained all six at
one learning rate, and has no figure for a backbone without attention, so that what attention costs and brings is open.

Three objectives: AUROC up, milliseconds an image on one CPU thread down, parameters down. Latency and size are known of
a model before it is trained; the rate is searched with it, for the best one differs between backbones and a light model
must not lose for that. There is no best trial, but a front: whom nobody beats in all three. ParetoStop ends a trial at
epoch 8, 12 or 18 that another one, of no more milliseconds and no more parameters, leads by more than it may catch up;
ASHA would stop trials by their AUROC alone. On 49 tokens Performer saves nothing (`python -m xlite_search models`):
expect it off the front.

Held equal: plain BCE, no sampler, a stratified fifth of the training patients as in the log, views, batch, schedule, 20
epochs for everyone who is not stopped, seed.

Noise: one seed. The log ran plain BCE twice (EXP-005, EXP-006), and its 14 findings average 0.7708 and 0.7784: two
models within 0.015 of each other are level, the cheaper one wins, and a front has members by luck. Latency is measured
once a model, and all its trials share it.

Cost: 16 GPU hours on the lab's card if all were EfficientNet-B0 with MHSA; ConvNeXt-Tiny takes 1.26 times as long
(108.3 against 85.8 min in EXP-007), MobileNetV3-Large 0.75 times (64.6 min). EXP-007 took 85.8 min for 20 epochs of
78,484 + 16,818 images; a fifth with the whole validation split is 34 % of these, 0.49 h, if judging an image costs as
much as training on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainables.baseline import baseline
from trainables.lab import lab_fifth
from xlite_search.search.pareto import ParetoStop
from xlite_search.search.study import TPE, Study

if TYPE_CHECKING:
    import optuna

BACKBONES = ["mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny"]
MODELS = [f"{backbone}_{attention}" for backbone in BACKBONES for attention in ("none", "se", "mhsa", "performer")]


def space(trial: optuna.Trial) -> None:
    trial.suggest_categorical("model", MODELS)
    trial.suggest_float("optimizer.lr", 3e-5, 1e-3, log=True)


study = Study(
    question=__doc__,
    trainable=baseline,
    base=lab_fifth,
    space=space,
    search=TPE(batch=8, startup=16),
    samples=32,
    metric="val/auroc_macro",
    minimize=("model/latency_ms", "model/parameters"),
    scheduler=ParetoStop(),
    demo={
        "model": [
            *("test_efficientnet_none", "test_efficientnet_mhsa", "test_resnet_none", "test_resnet_mhsa"),
            *("mobilenetv3_small_050_none", "mobilenetv3_small_050_mhsa", "mobilenetv3_small_050_performer"),
        ],
        "weights": None,
        "data.fraction": 1.0,
        "augment": None,
        "epochs": 6,
        "batch_size": 16,
        "optimizer.lr": [1e-3, 3e-3, 1e-2],
        "schedule": {"name": "cosine", "warmup": 1},
    },
    demo_samples=12,
)
