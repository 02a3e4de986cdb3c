"""Is it the loss or the sampler that hurt in EXP-005, or the two together?

    python -m xlite_search run search_spaces/loss_x_sampler.py          # 3 losses x 3 samplers x 3 seeds = 27 trials
    python -m xlite_search run search_spaces/loss_x_sampler.py --demo   # one seed on phantoms: minutes on a CPU

What the log found: weighted BCE with the fixed sampler 0.7510, plain BCE without 0.7734 (EXP-005), "Hernia +0.162" and
13 findings down by 0.042 to 0.179. The two arms differ in two things, so the fall belongs to neither; the log then
dropped the sampler and kept the loss (EXP-007) without a run that says so. Nor do the figures agree: its 14 findings
average 0.6721 for the arm that is summed up as 0.7510. And its sampler may have drawn 98.6 % normal images
(`sampler_ablation` says why); `of_largest` is what it meant.

All nine combinations answer both questions from the same runs: a loss is judged over three samplers and a sampler over
three losses, and if the two correct the same imbalance twice, the corner "ratio with sampler" is worse than the sum of
its two sides. `plan` warns of these corners: they are meant to be here.

Held equal: model, a stratified fifth of the training patients as in the log, views, batch, AdamW, schedule, 20 epochs
for everyone (early_stopping = None).

Noise: the log ran plain BCE without sampler twice (EXP-005, EXP-006), and its 14 findings average 0.7708 and 0.7784.
Taken as two draws, a run has a standard deviation of 0.005. Two losses over all samplers and seeds are nine runs
against nine, 0.0026 of noise in their difference: believe gaps above 0.005; between two cells of three seeds, above
0.01.

Cost: 13 GPU hours on the lab's card. EXP-007 took 85.8 min for 20 epochs of 78,484 + 16,818 images; a fifth with the
whole validation split is 34 % of these, 0.49 h, if judging an image costs as much as training on it. At the 70.8 min of
EXP-000, before CLAHE was cached, it would be 32 hours.
"""

from trainables.baseline import baseline
from trainables.lab import lab_fifth
from xlite_search.search.study import Study, grid_search

study = Study(
    question=__doc__,
    trainable=baseline,
    base=lab_fifth.with_settings({"model": "efficientnet_b0_mhsa"}),
    space={
        "loss": grid_search(
            [
                "bce",
                {"name": "weighted_bce", "weighting": "ratio"},
                {"name": "weighted_bce", "weighting": "inverse_sqrt"},
            ]
        ),
        "sampler": grid_search(
            [
                "none",
                {"name": "max_rarity", "no_finding": "as_class"},
                {"name": "mean_rarity", "no_finding": "of_largest"},
            ]
        ),
        "seed": grid_search([1, 2, 3]),
    },
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
