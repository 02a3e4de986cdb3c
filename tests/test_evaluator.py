"""Who judges an epoch: the multi-label evaluator, and one that is handed in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.data.dataset import Batch, open_data
from xlite_search.errors import BadInput, RunFailed
from xlite_search.models.hybrid import build_model
from xlite_search.training.collapse import Collapse
from xlite_search.training.evaluator import Evaluation, Evaluator, MultiLabel
from xlite_search.training.loop import configure_process, train
from xlite_search.training.losses import Focal, bce
from xlite_search.training.predictions import Predictions
from xlite_search.training.result import EpochResult

CLASSES, IMAGES = ("Mass", "Hernia"), ("a", "b", "c", "d")
LABELS = np.array([[1, 0], [0, 1], [1, 0], [0, 0]], np.float32)
LOGITS = np.array([[2, -1], [-1, 0], [1, -2], [-2, 1]], np.float32)


def test_metrics_loss_and_what_is_kept_of_a_multi_label_pass() -> None:
    found = MultiLabel(CLASSES, IMAGES)(LOGITS, LABELS)
    assert found.collapse is None
    # Mass: both positives above both negatives; Hernia: its positive is above two of three negatives
    assert found.metrics["val/auroc/Mass"] == 1
    assert found.metrics["val/auroc/Hernia"] == pytest.approx(2 / 3)
    signed = np.where(LABELS > 0, -LOGITS, LOGITS)
    assert found.metrics["val/loss"] == pytest.approx(np.log1p(np.exp(signed)).mean(), rel=1e-6)
    assert found.predictions is not None
    assert (found.predictions.images, found.predictions.classes) == (IMAGES, CLASSES)
    assert found.predictions.logits.tolist() == LOGITS.tolist()


@pytest.mark.parametrize(
    ("logits", "name"), [(LOGITS * np.nan, "not_finite"), (LOGITS * 2000, "diverged"), (LOGITS * 0 + 3, "constant_log")]
)
def test_a_collapse_is_told_and_nothing_is_measured(logits: NDArray[np.float32], name: str) -> None:
    found = MultiLabel(CLASSES, IMAGES)(logits, LABELS)
    assert found.collapse is not None and found.collapse.name.startswith(name)
    assert found.metrics == {}


def test_only_who_knows_the_loss_takes_a_model_that_never_says_yes_for_a_collapsed_one() -> None:
    logits = LOGITS - 9
    demanding = np.array([0.99, 0.99])
    collapse = MultiLabel(CLASSES, IMAGES, demanding)(logits, LABELS).collapse
    assert collapse is not None and collapse.name == "all_negative"
    for decision in (None, np.array([0.5, 0.5])):
        assert MultiLabel(CLASSES, IMAGES, decision)(logits, LABELS).collapse is None


def test_the_decision_is_the_losss(tiny: RunConfig) -> None:
    data = open_data(tiny.data)
    loss = Focal(alpha=0.25).build(data.train.positives, len(data.train))
    found = MultiLabel.of(data, loss)
    assert found.decision is not None and found.decision == pytest.approx(np.full(len(data.classes), 0.75))
    assert found.images == tuple(data.packed.table.names[row] for row in data.val.rows)
    assert MultiLabel.of(data).decision is None


class Only:
    """An evaluator of its own: one figure, one collapse, and what it was shown."""

    def __init__(self, metric: str, ends_at: int = 99) -> None:
        self.metric, self.ends_at, self.shown = metric, ends_at, list[tuple[int, ...]]()

    def __call__(self, logits: NDArray[np.float32], labels: NDArray[np.float32]) -> Evaluation:
        self.shown.append((*logits.shape, *labels.shape))
        if len(self.shown) == self.ends_at:
            return Evaluation(collapse=Collapse("bored", "it has seen enough; look elsewhere"))
        kept = Predictions.of(logits, tuple(map(str, range(len(logits)))), ("x",) * logits.shape[1])
        return Evaluation({self.metric: -float(len(self.shown))}, predictions=kept)


def epochs(config: RunConfig, evaluate: Evaluator | None, resume: Path | None = None) -> Iterator[EpochResult]:
    configure_process(config)
    data = open_data(config.data)
    model = build_model(config.model, classes=len(data.classes))

    def objective(logits: Tensor, batch: Batch) -> Tensor:
        return bce(logits, batch.labels, batch.weights)

    return train(config, model, data, objective, resume, evaluate=evaluate)


def test_the_one_that_is_handed_in_judges_every_epoch(tiny: RunConfig) -> None:
    """It falls from -1 to -3: the first epoch stays the best. Of ours there is no figure."""
    judge, data = Only(tiny.monitor), open_data(tiny.data)
    results = list(epochs(tiny, judge))
    assert judge.shown == [(len(data.val), 14, len(data.val), 14)] * 3
    assert [(r.metrics[tiny.monitor], r.improved) for r in results] == [(-1, True), (-2, False), (-3, False)]
    assert {name for name in results[0].metrics if name.startswith("val/")} == {tiny.monitor}
    assert results[0].predictions is not None and results[0].predictions.images[:2] == ("0", "1")


def test_its_collapse_ends_the_run(tiny: RunConfig) -> None:
    with pytest.raises(RunFailed, match=r"^bored: it has seen enough; look elsewhere$"):
        list(epochs(tiny, Only(tiny.monitor, ends_at=2)))


def test_one_that_does_not_give_what_the_recipe_monitors_is_refused_by_name(tiny: RunConfig) -> None:
    with pytest.raises(
        BadInput, match=r"monitor = val/auroc_macro: .* no such metric; did you mean 'val/auroc_makro'\?"
    ):
        next(epochs(tiny, Only("val/auroc_makro")))
    with pytest.raises(BadInput, match=r"no such metric; it gives kappa$"):
        next(epochs(tiny, Only("kappa")))


def test_without_one_it_is_the_baselines(tiny: RunConfig) -> None:
    config = tiny.with_settings({"epochs": 1})
    (ours,), (theirs,) = epochs(config, None), baseline(config)
    assert {k: v for k, v in ours.metrics.items() if not k.startswith("time/")} == {
        k: v for k, v in theirs.metrics.items() if not k.startswith("time/")
    }
    assert torch.equal(*(next(iter(result.checkpoint.model.values())) for result in (ours, theirs)))
