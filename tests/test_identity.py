"""A run is its config, its data and the code that makes it; a study is its runs by key, whatever their labels say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from trainables.baseline import baseline
from trainables.distill import distill
from xlite_search.config import RunConfig
from xlite_search.errors import BadInput
from xlite_search.factors import aliases
from xlite_search.records import RunRecord
from xlite_search.search.plan import Plan, changes, make_plan
from xlite_search.search.runner import begin
from xlite_search.search.study import Study, grid_search
from xlite_search.search.study_file import load_study
from xlite_search.search.verify import verify
from xlite_search.storage import read_manifest, write_manifest
from xlite_search.study_record import StudyRecord
from xlite_search.training.result import EpochResult


def another(config: RunConfig, resume: Path | None = None) -> Iterator[EpochResult]:
    yield from baseline(config, resume)


@pytest.fixture
def study(tiny: RunConfig) -> Study:
    return Study(question="?", trainable=baseline, base=tiny, space={"seed": grid_search([0, 1])})


def keys(plan: Plan) -> list[str]:
    return [trial.key for trial in plan.trials]


def test_another_trainable_is_another_key(study: Study) -> None:
    first, second, third = (keys(make_plan(replace(study, trainable=by), "s")) for by in (baseline, another, distill))
    assert len({*first, *second, *third}) == 6
    assert keys(make_plan(study, "another")) == first


FILE = """
    from xlite_search.config import RunConfig
    from xlite_search.search.study import Study, grid_search
    from trainables.baseline import baseline

    def mine(config, resume=None):
        print({said!r})
        yield from baseline(config, resume)

    base = RunConfig.model_validate_json({base!r})
    study = Study(question="?", trainable=mine, base=base, teacher={teacher}, space={{"seed": grid_search([0, 1])}})
"""


class Edited:
    """A study file with a trainable of its own, and what a person does to it."""

    def __init__(self, folder: Path, base: RunConfig) -> None:
        self.path, self.base, self.written = folder / "night.py", base, 0

    def plan(self, said: str, teacher: str = "None") -> Plan:
        text = FILE.format(said=said, base=self.base.model_dump_json(), teacher=teacher)
        self.path.write_text("\n".join(line[4:] for line in text.splitlines()))
        self.written += 1
        os.utime(self.path, (self.written, self.written))
        return make_plan(load_study(str(self.path)), "night")


def test_changed_code_is_refused_by_file_and_accepted_it_goes_on_under_the_same_keys(
    tmp_path: Path, tiny: RunConfig
) -> None:
    file = Edited(tmp_path, tiny)
    plan = file.plan("one")
    record = begin(plan)
    begun = RunRecord.load(record.trial_folder(record.trials[0])).close("finished", "")
    changed = file.plan("two")
    with pytest.raises(BadInput, match=r"the code was [0-9a-f]+, is [0-9a-f]+: other in night\.py\."):
        begin(changed)
    accepted = begin(changed, accept_changes=True)
    assert accepted.trials == record.trials and accepted.maker == record.maker
    assert accepted.accepted[0]["changes"][0].startswith("the code was ")
    assert accepted.accepted[0]["code"] == changed.definition["code"] != plan.definition["code"]
    assert RunRecord.load(accepted.trial_folder(begun.key)) == begun
    again = file.plan("two")
    assert changes(accepted, again) == [] and keys(again) == list(record.trials)
    assert not [broken for broken in verify(accepted) if "key" in broken]


def test_a_study_knows_the_command_that_began_it_and_an_older_record_none(tmp_path: Path, tiny: RunConfig) -> None:
    file = Edited(tmp_path, tiny)
    file.plan("one")
    study, words = load_study(str(file.path)), ("run", str(file.path), "--set", "seed=[1,2]")
    record = begin(make_plan(study, "night", words))
    assert StudyRecord.load(record.folder).command == record.command == words
    about = read_manifest(record.folder / "study.json")
    del about["command"]
    write_manifest(record.folder / "study.json", about)
    assert StudyRecord.load(record.folder).command == ()


def test_a_teacher_keeps_the_key_that_the_study_began_with(
    tmp_path: Path, tiny: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Edited(tmp_path, tiny)
    plan = file.plan("one", "base")
    begin(plan)
    monkeypatch.setattr("xlite_search.search.teaching.TRAINABLE", f"{__name__}:another")
    later = file.plan("one", "base")
    assert later.teacher == plan.teacher and keys(later) == keys(plan)
    assert any(
        change.startswith("the code that trains the teacher was ") for change in changes(begin_again(later), later)
    )
    assert make_plan(load_study(str(file.path)), "another").teacher != plan.teacher


def begin_again(plan: Plan) -> StudyRecord:
    return StudyRecord.load(plan.folder)


@pytest.fixture
def weights(tmp_path: Path) -> list[Path]:
    """Two files of one name."""
    paths = [tmp_path / name / "model.safetensors" for name in ("a", "b")]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        fill(path, number)
    return paths


def fill(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    model = timm.create_model("test_efficientnet", pretrained=False)
    safetensors.torch.save_file(model.state_dict(), path)


def test_a_file_that_changed_behind_a_label_that_is_not_alone_is_noticed(study: Study, weights: list[Path]) -> None:
    swept = replace(study, space={"weights": grid_search([str(path) for path in weights])})
    begun = begin(make_plan(swept, "s"))
    assert len(begun.definition["trials"]) == 2
    for number, path in enumerate(weights):
        fill(path, 10)
        plan = make_plan(swept, "s")
        assert [key == now for key, now in zip(begun.trials, keys(plan), strict=True)] == [number != 0, number != 1]
        assert any("weights.sha256 was " in change for change in changes(begun, plan))
        fill(path, number)
    assert changes(begun, make_plan(swept, "s")) == []


def test_two_files_of_one_content_are_one_run(study: Study, weights: list[Path]) -> None:
    fill(weights[1], 0)
    swept = replace(study, space={"weights": grid_search([str(path) for path in weights])})
    assert len(make_plan(swept, "s").trials) == 1


def test_what_changed_is_said_in_words(study: Study) -> None:
    begun = begin(make_plan(study, "s"))
    other = replace(study, base=study.base.with_settings({"epochs": 4}), space={"seed": grid_search([1, 2])})
    found = changes(begun, make_plan(other, "s"))
    assert sorted(found) == ["epochs was 3, is 4", "trial 'seed=0' is gone", "trial 'seed=2' is new"]


def test_other_labels_of_the_same_runs_are_no_change(study: Study) -> None:
    plan = make_plan(study, "s")
    renamed = [replace(trial, label=f"number {number}") for number, trial in enumerate(plan.trials)]
    trials = {t.key: {"label": t.label, "config": t.config.identity()} for t in renamed}
    other = replace(plan, trials=renamed, definition=plan.definition | {"trials": trials})
    assert changes(begin(plan), other) == []


def test_a_study_of_an_earlier_version_is_refused_with_a_sentence(study: Study) -> None:
    plan = make_plan(study, "s")
    labelled = {trial.label: trial.config.identity() for trial in plan.trials}
    replace(begin(plan), maker="", files={}, definition=plan.definition | {"trials": labelled}).save()
    with pytest.raises(BadInput, match=r"begun by an earlier version of xlite_search.* --name of its own"):
        make_plan(study, "s")


def test_factors_know_values_by_what_they_are(study: Study) -> None:
    """0.9999 and 0.99999 are two, and so are 1 and "1"."""
    axes = {"ema": grid_search([0.9999, 0.99999]), "seed": grid_search([1, 2])}
    assert list(aliases([trial.settings for trial in replace(study, space=axes).trials("")])) == []
    paired = [{"ema": 0.9999, "seed": 1}, {"ema": 0.99999, "seed": 2}]
    assert len(list(aliases([trial.settings for trial in replace(study, space=paired).trials("")]))) == 1
    assert len(list(aliases([{"seed": 1, "data.fraction": 0.5}, {"seed": "1", "data.fraction": 0.25}]))) == 1
