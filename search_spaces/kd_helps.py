"""Does a teacher help where labels are wrong?

    python -m xlite_search prepare phantom-noisy --count 3000 --size 64 --label-noise 0.1
    python -m xlite_search run search_spaces/kd_helps.py          # 2 settings x 3 seeds = 6 trials

The teacher is larger than its students and learns from the same wrong labels: a tenth of them are turned round. Both
arms share model, data, split, views, batch, AdamW, clipping, schedule and epochs, and are paired by seed; alpha 0 is
the control. They are judged by labels that are as wrong, which lowers every score and favours nobody.

2026-11-26, on a CPU, 450 validation images. Best macro AUROC, the mean and the standard deviation of three seeds, and
what lies behind the best setting on the same images (`compare kd_helps`):

    setting           seeds    mean      sd      gap         95 % interval           of each seed
    alpha=0.5 tau=2       3  0.6675  0.0082
    alpha=0               3  0.6580  0.0035  -0.0095  -0.0345 to +0.0156  -0.0016 -0.0065 -0.0203

A tie: every seed is better with the teacher, but three seeds and 450 images cannot tell that from chance. A claim
would want more of both. An earlier form (4,000 images, 20 epochs, AdamW 5e-3 without clipping) showed nothing either:
-0.0118, -0.0856 to +0.0619. Two of its students with a teacher had a jump of the loss that they never made good, which
is why the rate is lower now and gradients are clipped.
"""

from trainables.distill import distill
from xlite_search.config import RunConfig
from xlite_search.data.dataset import DataSpec
from xlite_search.data.views import Light
from xlite_search.search.study import Study, grid_search
from xlite_search.training.optim import AdamW, Cosine

phantoms = RunConfig(
    model="test_efficientnet_mhsa",
    data=DataSpec(name="phantom-noisy"),
    epochs=15,
    batch_size=32,
    augment=Light(),
    optimizer=AdamW(lr=2e-3),
    clip_norm=1.0,
    schedule=Cosine(warmup=1),
    early_stopping=None,
)

study = Study(
    question=__doc__,
    trainable=distill,
    base=phantoms,
    teacher=phantoms.with_settings({"model": "resnet10t_none", "threads": 2}),
    space={"kd.alpha": grid_search([0.0, 0.5]), "kd.tau": 2.0, "seed": grid_search([1, 2, 3])},
    metric="val/auroc_macro",
    demo={"epochs": 6, "augment": None, "teacher.epochs": 6, "teacher.augment": None},
)
