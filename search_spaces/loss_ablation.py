"""Which loss ranks the findings best when no sampler helps it?

    python -m xlite_search run search_spaces/loss_ablation.py          # 9 losses x 3 seeds = 27 trials
    python -m xlite_search run search_spaces/loss_ablation.py --demo   # one seed on phantoms: minutes on a CPU

What the log found: plain BCE 0.7734 and focal loss (alpha 0.25, gamma 2) 0.7486 in EXP-006, weighted BCE 0.7510 in
EXP-005, and 0.7935 for weighted BCE in EXP-000. None of the weighted figures is about the loss: EXP-005 changed the
sampler with it, EXP-000 had a sampler, a schedule and 20 epochs against 10. Its F1 cannot compare losses either, for it
is taken at a chance of 0.5, where BCE says "yes" above 50 %, focal loss with alpha 0.25 only above 75 %, and weighted
BCE (ratio) above about the prevalence. Read AUROC and AP.

Held equal: model, a stratified fifth of the training patients as in the log, views, batch, AdamW, schedule, 20 epochs
for everyone (early_stopping = None), and every image is drawn once an epoch. A seed changes the new layers, the order
and the views, never the split or the fifth.

Noise: the log ran plain BCE twice (EXP-005, EXP-006), and its 14 findings average 0.7708 and 0.7784. Taken as two
draws, a run has a standard deviation of 0.005, and a difference of two means of three seeds one of 0.0044: believe no
gap below 0.01 before the seeds here have given a better figure. Hernia alone moved from 0.652 to 0.699.

Cost: 13 GPU hours on the lab's card. EXP-007 took 85.8 min for 20 epochs of 78,484 + 16,818 images; a fifth with the
whole validation split is 34 % of these, 0.49 h, if judging an image costs as much as training on it. At the 70.8 min of
EXP-000, before CLAHE was cached, it would be 32 hours.
"""

from trainables.baseline import baseline
from trainables.lab import lab_fifth
from xlite_search.search.study import Study, grid_search

SEEDS = {"seed": grid_search([1, 2, 3])}

study = Study(
    question=__doc__,
    trainable=baseline,
    base=lab_fifth.with_settings({"model": "efficientnet_b0_mhsa"}),
    space=[
        {"loss": "bce", "loss.smoothing": grid_search([0.0, 0.1])} | SEEDS,
        {"loss": "weighted_bce", "loss.weighting": grid_search(["ratio", "inverse_sqrt", "effective_number"])} | SEEDS,
        {"loss": "focal", "loss.alpha": grid_search([0.25, "inverse_frequency"]), "loss.gamma": 2.0} | SEEDS,
        {"loss": grid_search(["bce_focal", "asymmetric"])} | SEEDS,
    ],
    metric="val/auroc_macro",
    demo={
        "model": "test_efficientnet_mhsa",
        "weights": None,
        "data.fraction": 1.0,
        "augment": None,
        "epochs": 6,
        "optimizer.lr": 3e-3,
        "schedule": {"name": "cosine", "warmup": 1},
        "seed": [1],
    },
)
