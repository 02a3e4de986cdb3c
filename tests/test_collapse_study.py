"""A planted collapse (focal alpha 0.01; learning rate 10; NaN pixels) ends with its right name within one epoch in each
case, and the study goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlite_search.config import RunConfig
from xlite_search.results.compare import compare
from xlite_search.search.plan import make_plan
from xlite_search.search.runner import run
from xlite_search.search.study_file import load_study

pytestmark = pytest.mark.ray

#: pixels are bytes, which cannot be NaN: those of seed 13 are spoilt on their way from the loader to the model
STUDY = '''\
"""Which of four runs is sound?"""

from unittest import mock

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.data.loaders import Loader
from xlite_search.search.study import Study

whole = Loader.epoch


def spoilt(self, epoch):
    for batch in whole(self, epoch):
        images = batch.images.float()
        images[0, 0, 3, 3] = float("nan")
        yield batch._replace(images=images)


def trainable(config, resume=None):
    if config.seed != 13:
        yield from baseline(config, resume)
        return
    with mock.patch.object(Loader, "epoch", spoilt):
        yield from baseline(config, resume)


study = Study(
    question=__doc__,
    trainable=trainable,
    base=RunConfig.model_validate_json({base!r}),
    space=[
        {{"loss": "focal", "loss.alpha": 0.01}},
        {{"optimizer.lr": 10.0}},
        {{"seed": 13}},
        {{"seed": 42}},
    ],
)
'''
NAMES = ["all_negative", "diverged", "nan_pixels"]


@pytest.mark.usefixtures("ray_here")
def test_planted_collapses_end_by_their_names_and_the_study_goes_on(tiny: RunConfig, tmp_path: Path) -> None:
    path = tmp_path / "collapses.py"
    path.write_text(STUDY.format(base=tiny.model_dump_json()))
    study = run(make_plan(load_study(str(path)), "collapses"))

    *collapsed, sound = study.runs()
    causes = [record.cause for record in collapsed]
    assert [record.status for record in collapsed] == ["failed"] * 3, causes
    assert [cause.partition(":")[0] for cause in causes] == NAMES
    assert [len(record.epochs) for record in collapsed] == [0, 0, 0], "noticed within the first epoch"
    remedies = ["raise loss.alpha", "lower optimizer.lr", "prepare the data anew"]
    assert all(remedy in cause for remedy, cause in zip(remedies, causes, strict=True))
    assert (sound.status, len(sound.epochs)) == ("finished", tiny.epochs)

    comparison = compare(["collapses"])
    assert [record.key for record in comparison.ranked] == [sound.key]
    assert [record.cause for record in comparison.others] == causes
