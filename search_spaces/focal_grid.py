"""Can focal loss be made to work here, and at which alpha and gamma?

    python -m xlite_search run search_spaces/focal_grid.py          # 4 alphas x 3 gammas = 12 trials
    python -m xlite_search run search_spaces/focal_grid.py --demo   # the same on phantoms: minutes on a CPU

What the log found: at alpha 0.25 and gamma 2, 0.7486 against 0.7734 for BCE, F1 0.0015 against 0.0860, and 13 of 14
findings with F1 0.000 (EXP-006). It called that a collapse and listed what it had not tried: alpha 0.75, gamma 1, alpha
by finding. The F1 says little: it is taken at a chance of 0.5, which this loss reaches only where the true chance is 1
- alpha = 75 %, and BCE at 50 % had 0.000 for 5 findings too. In AUROC it was behind from the first epoch on (0.584
against 0.650) and still climbing at the tenth (0.687 at the fifth, 0.749): a slower start, at a learning rate and a
length that were BCE's. Hence 20 epochs here, with a schedule.

BCE is in the grid: gamma 0 with alpha 0.5 is half of it, which AdamW hardly notices. `inverse_frequency` gives each
finding its own alpha, (N - n) / (N + 1), and with gamma 0 balances as weighted BCE (ratio) does.

Held equal: no sampler, model, a stratified fifth of the training patients as in the log, views, batch, AdamW, schedule,
seed. This is a search, so ASHA stops weak trials at epochs 3, 6 and 12: a setting that starts slowly may be cut before
it shows. Take what is left into `loss_ablation`, which has seeds and no scheduler.

Noise: one seed. The log ran plain BCE twice (EXP-005, EXP-006), and its 14 findings average 0.7708 and 0.7784; the
log's gap between the losses, 0.0248, is three of these. Believe no order among trials within 0.015, twice the deviation
of a difference of two runs.

Cost: 2 to 6 GPU hours on the lab's card, for 84 epochs if each rung halves and 240 if nobody is stopped. EXP-007 took
4.29 min an epoch of 78,484 + 16,818 images; a fifth with the whole validation split is 34 % of these, 1.46 min, if
judging an image costs as much as training on it. At the 3.54 min of EXP-000, before CLAHE was cached, 5 to 14 hours.
"""

from trainables.baseline import baseline
from trainables.lab import lab_fifth
from xlite_search.search.asha import ASHA
from xlite_search.search.study import Study, grid_search

study = Study(
    question=__doc__,
    trainable=baseline,
    base=lab_fifth.with_settings({"model": "efficientnet_b0_mhsa", "loss": "focal"}),
    space={
        "loss.alpha": grid_search([0.25, 0.5, 0.75, "inverse_frequency"]),
        "loss.gamma": grid_search([0.0, 1.0, 2.0]),
    },
    metric="val/auroc_macro",
    scheduler=ASHA(grace=3, reduction=2),
    demo={
        "model": "test_efficientnet_mhsa",
        "weights": None,
        "data.fraction": 1.0,
        "augment": None,
        "epochs": 8,
        "optimizer.lr": 3e-3,
        "schedule": {"name": "cosine", "warmup": 1},
    },
)
