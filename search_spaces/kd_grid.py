"""How soft should the teacher speak (tau), and how loud (alpha)?

    python -m xlite_search run search_spaces/kd_grid.py          # 2 x 2 x 2 = 8 trials and one teacher
    python -m xlite_search run search_spaces/kd_grid.py --demo   # the same on phantoms: minutes on a CPU

The lab planned this grid over two students, on images that CLAHE has gone over once, with its medium augmentation,
AdamW 1e-4 and the plateau schedule of its best logged runs. All trials share data, split, seed, epochs, schedule and
views; they differ in model, tau and alpha alone. The teacher is trained first, once, and sees the very views that its
students see.

The teacher's logits of each view are computed once: 20 views of 78,484 images instead of eight trials' 160. The trial
that comes first to a view computes them, all others read them, and a second study with this teacher computes none.

What to expect: under sigmoid distillation tau 4 and 8 are nearly the same point (their gradients' cosine is 0.985 to
0.998); tau 1 against 4 would be a real difference. `plan --measure` says so for the teacher at hand, and `run
--drop-near-duplicates` leaves one of the two out. What tau does is re-balance rare findings: Hernia's share of the
teacher's gradient energy is 0.0 % at tau 1, 3.2 % at 4 and 5.6 % at 8.
"""

from trainables.distill import distill
from trainables.lab import lab
from xlite_search.search.asha import ASHA
from xlite_search.search.study import Study, grid_search

recipe = lab.with_settings({"early_stopping": 10})

study = Study(
    question=__doc__,
    trainable=distill,
    base=recipe,
    teacher=recipe.with_settings({"model": "convnext_tiny_mhsa"}),
    space={
        "model": grid_search(["efficientnet_b0_mhsa", "mobilenet_v3_small_mhsa"]),
        "kd.tau": grid_search([4.0, 8.0]),
        "kd.alpha": grid_search([0.5, 0.7]),
    },
    metric="val/auroc_macro",
    scheduler=ASHA(grace=3, reduction=2),
    demo={
        "model": ["test_efficientnet_mhsa", "mobilenetv3_small_050_mhsa"],
        "weights": None,
        "augment": None,
        "epochs": 8,
        "batch_size": 16,
        "optimizer.lr": 5e-3,
        "schedule": {"name": "cosine", "warmup": 1},
        "teacher.model": "resnet10t_none",
        "teacher.weights": None,
        "teacher.augment": None,
        "teacher.epochs": 6,
        "teacher.optimizer.lr": 3e-3,
        "teacher.schedule": {"name": "cosine", "warmup": 1},
        "teacher.threads": 2,
    },
)
