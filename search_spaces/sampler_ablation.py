"""Does it help to draw rare findings more often, and by which rule?

    python -m xlite_search run search_spaces/sampler_ablation.py          # 5 samplers x 3 seeds = 15 trials
    python -m xlite_search run search_spaces/sampler_ablation.py --demo   # the same on phantoms: minutes on a CPU

What the log found: EXP-003 called the max rule broken (CV 0.91), EXP-004 adopted the mean rule (CV 0.42), and EXP-005
rejected it together with weighted BCE (0.7510 against 0.7734). No run ever changed the sampler alone. And the figures
are not of what was drawn: on the full table no sampler at all has CV 0.916 and the max rule 0.420, so that "broken" is
no re-sampling and "fixed" is the rule that was blamed. The mean rule as EXP-004 writes it gives an image without
finding 0.01 beside weights of at most 0.0044: 98.6 % of its draws are normal images. That is `unscaled` here, and
`plan` warns of it; `of_largest` puts the 0.01 in after the division, 23.2 % are normal then; `as_class` has no number
to choose.

Held equal: plain BCE, model, a stratified fifth of the training patients as in the log, views, batch, AdamW, schedule,
20 epochs for everyone (early_stopping = None), and as many draws an epoch as there are images.

Noise: the log ran plain BCE without sampler twice (EXP-005, EXP-006), and its 14 findings average 0.7708 and 0.7784.
Taken as two draws, a run has a standard deviation of 0.005, and a difference of two means of three seeds one of 0.0044:
believe no gap below 0.01 in the mean. A sampler may move rare findings only, and those are the noisiest: Hernia went
from 0.652 to 0.699 in these two equal runs, so that its +0.162 in EXP-005 stands out and +0.05 would not.

Cost: 7 GPU hours on the lab's card. EXP-007 took 85.8 min for 20 epochs of 78,484 + 16,818 images; a fifth with the
whole validation split is 34 % of these, 0.49 h, if judging an image costs as much as training on it. At the 70.8 min of
EXP-000, before CLAHE was cached, it would be 18 hours.
"""

from trainables.baseline import baseline
from trainables.lab import lab_fifth
from xlite_search.search.study import Study, grid_search

SEEDS = {"seed": grid_search([1, 2, 3])}
NO_FINDING = {"sampler.no_finding": grid_search(["as_class", "of_largest", "unscaled"])}

study = Study(
    question=__doc__,
    trainable=baseline,
    base=lab_fifth.with_settings({"model": "efficientnet_b0_mhsa"}),
    space=[
        {"sampler": "none"} | SEEDS,
        {"sampler": "max_rarity", "sampler.no_finding": "as_class"} | SEEDS,
        {"sampler": "mean_rarity"} | NO_FINDING | SEEDS,
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
    },
)
