"""What are ImageNet weights worth on a thousand real radiographs?

    python -m xlite_search prepare nih-1000 --images IMAGES --labels TABLE --size 112
    python -m xlite_search run search_spaces/real_radiographs.py --name real --set 'weights=[FILE, null]'   # 2 trials

Minutes on two CPU cores. IMAGES, TABLE and FILE are `images_224` and `Data_Entry_images_224.csv` of the shared real
data and the weights of `tf_efficientnet_lite0` beside them; without `--set`, timm's hub gives the weights. Both trials
share split (by patient, 600 images to learn from and 400 to be judged by), seed, views, epochs and learning rate.

The mean is over the seven findings that have at least 10 validation images; a model that has learnt nothing is at 0.5.
What it shows is that the pipeline learns from real radiographs, not how good a model is on NIH: in these images the
label Pneumonia is also the folder that an image comes from.

Found (25 November 2026, two cores, 154 s with the preparation): 0.801 with ImageNet weights, 0.761 from scratch, 0.525
before the head has learnt anything. One seed.
"""

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.data.dataset import DataSpec
from xlite_search.data.splits import ByPatient
from xlite_search.data.views import Light
from xlite_search.search.study import Study, grid_search
from xlite_search.training.optim import AdamW, Cosine

study = Study(
    question=__doc__,
    trainable=baseline,
    base=RunConfig(
        model="tf_efficientnet_lite0_none",
        data=DataSpec(name="nih-1000", split=ByPatient(ratios=(0.6, 0.4, 0.0))),
        epochs=8,
        batch_size=32,
        augment=Light(),
        optimizer=AdamW(lr=1e-3, weight_decay=1e-2),
        schedule=Cosine(warmup=1),
        early_stopping=None,
        precision="bf16",
    ),
    space={"weights": grid_search(["imagenet", None])},
    metric="val/auroc_supported",
    demo={"weights": None, "model": "test_efficientnet_none", "epochs": 4, "optimizer.lr": [1e-3, 3e-3]},
)
