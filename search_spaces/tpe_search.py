"""What does a search over everything at once find, that the lab's one-factor runs could not?

    python -m xlite_search run search_spaces/tpe_search.py          # 40 trials, suggested by Optuna's TPE
    python -m xlite_search run search_spaces/tpe_search.py --demo   # 12 of them on phantoms: minutes on a CPU

The log changed loss, sampler, schedule and length several at a time, and all at a learning rate of 1e-4 and a weight
decay of 1e-5, chosen for plain BCE. A loss, a sampler or a schedule that wants another rate had lost before it began;
its best figure on a fifth of the data, 0.8055 (EXP-000), is the best of six models in one such recipe. Here the rate is
searched together with them. A setting exists only beside the choice it belongs to: gamma with focal loss, what an image
without finding weighs with a sampler, a warm-up with a cosine.

Held equal: a stratified fifth of the training patients as in the log, batch of 32, 20 epochs, seed. ASHA stops weak
trials at epochs 3, 6 and 12; that favours what learns quickly, plateau over cosine and a high rate over a low one.

What may be believed: that a region is good, not that a trial is the best. The best of 40 is chosen by the very
validation images that it is reported on, and with one seed: two equal runs of the log (BCE in EXP-005 and EXP-006) are
0.0076 apart. Run the winner's neighbours as a grid with seeds, and look at the test split once, with the final model.

Cost: 7 to 20 GPU hours on the lab's card for EfficientNet-B0 with MHSA, for 280 epochs if each rung halves and 800 if
nobody is stopped; ConvNeXt-Tiny takes 1.26 times as long (108.3 against 85.8 min in EXP-007), MobileNetV3-Large 0.75
times (64.6 min). EXP-007 took 4.29 min an epoch of 78,484 + 16,818 images; a fifth with the whole validation split is
34 % of these, 1.46 min, if judging an image costs as much as training on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.data.dataset import DataSpec
from xlite_search.models.weights import Weights
from xlite_search.search.asha import ASHA
from xlite_search.search.study import TPE, Study

if TYPE_CHECKING:
    import optuna

MODELS = ["efficientnet_b0_mhsa", "efficientnet_b0_performer", "convnext_tiny_mhsa", "mobilenet_v3_large_mhsa"]


def space(trial: optuna.Trial) -> None:
    trial.suggest_categorical("model", MODELS)
    trial.suggest_float("optimizer.lr", 1e-5, 1e-3, log=True)
    trial.suggest_float("optimizer.weight_decay", 1e-6, 1e-1, log=True)
    loss = trial.suggest_categorical("loss", ["bce", "weighted_bce", "focal", "asymmetric"])
    if loss == "weighted_bce":
        trial.suggest_categorical("loss.weighting", ["ratio", "inverse_sqrt", "effective_number"])
    elif loss == "focal":
        trial.suggest_float("loss.alpha", 0.25, 0.95)
        trial.suggest_float("loss.gamma", 0.0, 3.0)
    if trial.suggest_categorical("sampler", ["none", "mean_rarity"]) == "mean_rarity":
        trial.suggest_categorical("sampler.no_finding", ["as_class", "of_largest"])
    trial.suggest_categorical("augment", ["light", "medium", "strong"])
    trial.suggest_categorical("mixup", [0.0, 0.2, 0.4])
    if trial.suggest_categorical("schedule", ["plateau", "cosine"]) == "cosine":
        trial.suggest_float("schedule.warmup", 0.0, 2.0, step=0.5)
    trial.suggest_categorical("ema", [0.0, 0.999])


study = Study(
    question=__doc__,
    trainable=baseline,
    base=RunConfig(
        weights=Weights(path="imagenet"),
        data=DataSpec(fraction=0.2),
        epochs=20,
        batch_size=32,
        early_stopping=10,
        precision="bf16",
    ),
    space=space,
    search=TPE(batch=8, startup=10),
    samples=40,
    metric="val/auroc_macro",
    scheduler=ASHA(grace=3, reduction=2),
    demo={
        "model": ["test_efficientnet_mhsa", "test_resnet_mhsa", "mobilenetv3_small_050_mhsa"],
        "weights": None,
        "data.fraction": 1.0,
        "augment": None,
        "epochs": 8,
        "optimizer.lr": [1e-3, 3e-3, 1e-2],
    },
    demo_samples=12,
)
