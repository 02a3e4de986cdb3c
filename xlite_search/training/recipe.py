"""Recipe: how a model is trained, as one spec, and whether the data can give what it needs."""

from __future__ import annotations

import math
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from xlite_search.data.dataset import Data
from xlite_search.data.samplers import Sampler, Shuffled
from xlite_search.data.views import Augment
from xlite_search.errors import BadInput, did_you_mean
from xlite_search.spec import Spec
from xlite_search.training.losses import BCE, Loss
from xlite_search.training.metrics import SUPPORT, validation_metrics
from xlite_search.training.optim import AdamW, Plateau, Schedule

#: Metrics over all findings that runs can be ranked by; one finding's is `val/auroc/Edema`, and so for ap and f1.
METRICS = ("val/auroc_macro", "val/auroc_supported", "val/ap_macro", "val/f1_macro")


def is_metric(name: str) -> bool:
    """Whether runs can be ranked by it, if the data have the finding that it names."""
    return name in METRICS or any(name.startswith(of) and name != of for of in ("val/auroc/", "val/ap/", "val/f1/"))


def no_metric(name: str) -> str:
    """What is said of a name that is none."""
    return f"expected one of {', '.join(METRICS)}, or a finding's, val/auroc/Edema{did_you_mean(name, METRICS)}"


class Recipe(Spec):
    """See the module's docstring; every field can change the result.

    sampler         which images an epoch draws
    augment         how a training image is changed before it is shown; None: not at all
    mixup           alpha of MixUp's Beta distribution; 0: images are not mixed
    micro_batch     images that go through the model at once: the gradients of a batch's pieces are added up. It changes
                    what batch norm sees, and memory, nothing else, which is why it is refused where the loss is not a
                    mean over images (`batchwise`); None: the whole batch
    clip_norm       the most that a gradient's norm may be; None: anything
    ema             decay of a moving average of the weights, which is then what is judged and kept; it warms up as
                    1 - (1 + step)^(-2/3) (timm's ModelEmaV3); 0: no average
    compile         torch.compile: faster on a GPU, other last digits
    early_stopping  epochs without a better `monitor` after which training ends; None: never
    stop_after      ends after this epoch although the schedule is laid out for `epochs`; None: at `epochs`
    precision       of the forward pass on a GPU (autocast); a CPU always computes in fp32
    threads         torch's and OpenCV's: 1 and 2 already give different last digits
    monitor         the validation metric that chooses the best epoch; higher is better
    """

    epochs: int = Field(20, ge=1)
    stop_after: int | None = Field(None, ge=1)
    batch_size: int = Field(32, ge=2)
    micro_batch: int | None = Field(None, ge=2)
    sampler: Sampler = Shuffled()
    augment: Augment | None = None
    mixup: float = Field(0.0, ge=0, le=10)
    loss: Loss = BCE()
    optimizer: AdamW = AdamW()
    schedule: Schedule = Plateau()
    clip_norm: float | None = Field(None, gt=0)
    ema: float = Field(0.0, ge=0, lt=1)
    early_stopping: int | None = Field(10, ge=1)
    compile: bool = False
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    threads: int = Field(1, ge=1)
    seed: int = Field(42, ge=0, lt=2**32)
    monitor: str = "val/auroc_macro"

    @field_validator("monitor")
    @classmethod
    def _is_metric(cls, name: str) -> str:
        if not is_metric(name):
            raise ValueError(no_metric(name))
        return name

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        warmup = getattr(self.schedule, "warmup", 0.0)
        if warmup > self.epochs:
            raise ValueError(f"schedule.warmup is {warmup:g} epochs, and the run has {self.epochs}")
        if self.micro_batch and self.micro_batch > self.batch_size:
            raise ValueError(f"micro_batch is {self.micro_batch} images, and batch_size {self.batch_size}")
        if self.micro_batch and self.micro_batch < self.batch_size:
            self._expect_pieces(self.micro_batch)
        return self

    def _expect_pieces(self, size: int) -> None:
        """Raises ValueError if pieces of so many images are not this recipe's batches any more."""
        if self.batchwise:
            raise ValueError(
                f"micro_batch is {size} images, and {' and '.join(self.batchwise)} compares all images of a batch: in "
                f"pieces it would be another loss. Set micro_batch to null, and batch_size to what fits into memory"
            )
        if leaves_one_alone(self.batch_size, size):
            raise ValueError(
                f"micro_batch is {size} images and batch_size {self.batch_size}: a piece would be a single image, of "
                f"which batch norm has no variance; make batch_size even, or micro_batch 3"
            )

    @property
    def batchwise(self) -> tuple[str, ...]:
        """Settings, by dotted name, that make the loss other than a mean over images: a batch cannot be cut."""
        return tuple(f"loss.{name}" for name in self.loss.batchwise)

    def expect_fitting(self, data: Data) -> None:
        """That these data can give what the recipe asks for.

        Raises:
            BadInput: `monitor` has no value on the validation images, the loss has numbers for other findings, or a
                batch cannot be cut as `micro_batch` says.
        """
        self.loss.build(data.train.positives, len(data.train))
        images = min(len(data.train), self.batch_size)
        if self.micro_batch and leaves_one_alone(images, self.micro_batch):
            raise BadInput(
                f"micro_batch = {self.micro_batch}: there are {images} images to train on, and a piece would be a "
                f"single one, of which batch norm has no variance; set it to null"
            )
        if len(data.val):
            self._expect_score(data.val.labels, data.classes)

    def _expect_score(self, labels: NDArray[np.float32], classes: tuple[str, ...]) -> None:
        _, _, finding = self.monitor.removeprefix("val/").partition("/")
        if finding and finding not in classes:
            why = did_you_mean(finding, classes) or f"; it has {', '.join(classes)}"
            raise BadInput(f"{self.monitor}: this data set has no finding '{finding}'{why}")
        if self.monitor in validation_metrics(np.zeros_like(labels), labels, classes):
            return
        if finding:
            positives = int(labels[:, classes.index(finding)].sum())
            lacking = f"{positives:,} of the {len(labels):,} validation images have {finding}"
        elif self.monitor == "val/auroc_supported":
            lacking = f"no finding has {SUPPORT} positives and {SUPPORT} negatives in {len(labels):,} validation images"
        else:
            lacking = f"no finding has positives and negatives among the {len(labels):,} validation images"
        raise BadInput(
            f"{self.monitor}: it has no value, for {lacking}; rank by another metric, or split otherwise (data.split)"
        )


def leaves_one_alone(images: int, size: int) -> bool:
    """Whether a batch in pieces of at most `size` images, as even as can be (`Batch.parts`), has one of one image."""
    return images // math.ceil(images / size) < 2
