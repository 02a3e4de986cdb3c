"""Was it the schedule or the ten more epochs that made EXP-000 better?

    python -m xlite_search run search_spaces/schedule_x_epochs.py          # 4 x 2, and 3 seeds = 24 trials
    python -m xlite_search run search_spaces/schedule_x_epochs.py --demo   # 5 against 10 epochs on phantoms

What the log found: 0.7935 (EfficientNet-B0, 0.8055 with ConvNeXt-Tiny) for 20 epochs with the plateau schedule in
EXP-000, 0.7734 for 10 without one in EXP-006. It put the gap down to both, and closed the matter: "More epoch count
experiments - clear pattern". The two runs differ in epochs, schedule, loss, sampler and, for 0.8055, the model; a
plateau of patience 5 can hardly act in 10 epochs; and the constant rate was still improving at its tenth, 0.773 after
0.749 at its fifth.

A constant rate and a plateau do not know how long a run is: their 10 epochs are the first half of their 20, so that the
longer run cannot have the lower best. Only by how much is open. The cosines are laid out for the length they get; the
restarts come every 5 epochs, so that 10 and 20 both end at the foot of one. The table puts "unequal epochs" below
itself: compare schedules within a length, lengths within a schedule.

Held equal: plain BCE, no sampler, model, a stratified fifth of the training patients as in the log, views, batch,
AdamW. No early stopping: it would make a third length.

Noise: the log ran plain BCE twice (EXP-005, EXP-006), and its 14 findings average 0.7708 and 0.7784. Taken as two
draws, a run has a standard deviation of 0.005, and a difference of two means of three seeds one of 0.0044: believe no
gap below 0.01 before the seeds here have given a better figure. The gap in question, 0.0201, is twice that.

Cost: 9 GPU hours on the lab's card, for 12 x 20 + 12 x 10 = 360 epochs. EXP-007 took 4.29 min an epoch of 78,484 +
16,818 images; a fifth with the whole validation split is 34 % of these, 1.46 min, if judging an image costs as much as
training on it. At the 70.8 min of EXP-000, before CLAHE was cached, it would be 21 hours.
"""

from trainables.baseline import baseline
from trainables.lab import lab_fifth
from xlite_search.search.study import Study, grid_search

LENGTHS_AND_SEEDS = {"epochs": grid_search([10, 20]), "seed": grid_search([1, 2, 3])}

study = Study(
    question=__doc__,
    trainable=baseline,
    base=lab_fifth.with_settings({"model": "efficientnet_b0_mhsa"}),
    space=[
        {"schedule": grid_search(["constant", "plateau"])} | LENGTHS_AND_SEEDS,
        {"schedule": "cosine", "schedule.warmup": 1.0} | LENGTHS_AND_SEEDS,
        {"schedule": "warm_restarts", "schedule.period": 5.0, "schedule.growth": 1.0} | LENGTHS_AND_SEEDS,
    ],
    metric="val/auroc_macro",
    demo={
        "model": "test_efficientnet_mhsa",
        "weights": None,
        "data.fraction": 1.0,
        "augment": None,
        "epochs": [5, 10],
        "optimizer.lr": 3e-3,
        "seed": [1],
    },
)
