"""Does a teacher help at all, and how much of that is tau, alpha, or luck?

    python -m xlite_search run search_spaces/kd_wide.py          # 4 x 4 and the control, 3 seeds = 51 trials
    python -m xlite_search run search_spaces/kd_wide.py --demo   # 2 x 1 and the control, 2 seeds = 6 trials

The lab planned tau 4 and 8 with alpha 0.5 and 0.7, without a student that has no teacher: whatever came out on top, KD
would have won. Here alpha 0 is that control. It is the same run at every tau, so it is trained once a seed and not four
times. alpha 1 learns from the teacher alone. tau 1 and 2 are in, for 4 and 8 are nearly the same point under sigmoid
distillation (their gradients' cosine is 0.985 to 0.998), and 1 against 4 is a real difference (0.64 to 0.97): what tau
does is re-balance rare findings, Hernia's share of the teacher's gradient energy is 0.0 % at 1 and 3.2 % at 4.

Held equal: model, data, split, epochs, views, batch, AdamW, schedule; everyone is trained to the end. The teacher's
logits of each view are computed once for all 51.

What may be believed: a seed moves a run's mean AUROC by some 0.005 in the log, and a gain below 0.002 needs paired
comparisons of the same images and at least three seeds. `compare kd_wide` has the table; every run keeps its validation
logits.
"""

from trainables.distill import distill
from trainables.lab import lab
from xlite_search.search.study import Study, grid_search

study = Study(
    question=__doc__,
    trainable=distill,
    base=lab.with_settings({"model": "mobilenet_v3_small_mhsa"}),
    teacher=lab.with_settings({"model": "convnext_tiny_mhsa"}),
    space={
        "kd.tau": grid_search([1.0, 2.0, 4.0, 8.0]),
        "kd.alpha": grid_search([0.0, 0.3, 0.5, 0.7, 1.0]),
        "seed": grid_search([1, 2, 3]),
    },
    metric="val/auroc_macro",
    demo={
        "model": "test_efficientnet_mhsa",
        "weights": None,
        "augment": None,
        "epochs": 6,
        "batch_size": 16,
        "optimizer.lr": 5e-3,
        "schedule": {"name": "cosine", "warmup": 1},
        "kd.tau": [1.0, 4.0],
        "kd.alpha": [0.0, 0.5],
        "seed": [1, 2],
        "teacher.model": "resnet10t_none",
        "teacher.weights": None,
        "teacher.augment": None,
        "teacher.epochs": 6,
        "teacher.optimizer.lr": 3e-3,
        "teacher.schedule": {"name": "cosine", "warmup": 1},
        "teacher.threads": 2,
    },
)
