"""Arms that are one point: told by their gradients before anything is trained, and left out for good."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from test_cli import bare_study, call
from torch import Tensor

from trainables.baseline import baseline
from trainables.distill import distill
from xlite_search import places
from xlite_search.config import RunConfig
from xlite_search.data.dataset import Data, open_data
from xlite_search.data.prepare import prepare
from xlite_search.data.sources.folder import Folder
from xlite_search.distill.gradients import LossOfLogits, directions
from xlite_search.errors import BadInput
from xlite_search.execution import follow
from xlite_search.model_folder import ModelManifest, publish, write_model
from xlite_search.models.hybrid import build_model
from xlite_search.records import RunRecord
from xlite_search.search import near_duplicates as near
from xlite_search.search.near_duplicates import near_duplicates, without_near_duplicates
from xlite_search.search.plan import Plan, changes, make_plan
from xlite_search.search.runner import begin
from xlite_search.search.study import Study, grid_search
from xlite_search.study_record import StudyRecord

TAUS = {"kd.tau": grid_search([1.0, 4.0, 8.0])}
SENTENCE = "kd.tau=8 is one point with kd.tau=4: the cosine of their losses' gradients is 0.99"


def study_of(tiny: RunConfig, space: Mapping[str, Any], **more: Any) -> Study:
    """A student that learns from its teacher alone, unless the space says otherwise."""
    teacher = more.pop("teacher", tiny)
    base = tiny.with_settings({"kd.alpha": 1.0}) if teacher else tiny
    return Study("?", more.pop("trainable", distill), base, space, teacher=teacher, **more)


def plan_of(tiny: RunConfig, space: Mapping[str, Any], name: str = "near", **more: Any) -> Plan:
    return make_plan(study_of(tiny, space, **more), name)


def drawn(key: str, data: Data, positions: NDArray[np.int64]) -> Tensor:
    """Logits of a teacher that knows something: the log odds, the labels, and noise."""
    labels = torch.from_numpy(data.train.labels[positions])
    odds = torch.logit((data.train.positives + 0.5) / (len(data.train) + 1))
    return (
        odds
        + 3 * (labels - labels.mean(dim=0))
        + torch.from_numpy(np.random.default_rng(0).normal(size=labels.shape)).float()
    )


def there(plan: Plan) -> None:
    """The folders of its teacher, or of an ensemble's members, whose weights nobody trained."""
    assert plan.teaching is not None
    data = open_data(plan.study.base.data)
    model = build_model(plan.study.base.model, classes=len(data.classes))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    about = ModelManifest(config={"model": plan.study.base.model}, classes=data.classes)
    for key in plan.teaching.members:
        write_model(places.teacher_folder(key), safetensors.torch.save(weights), about)


def trained(plan: Plan) -> None:
    """The plan's own teacher, in this process."""
    assert plan.teaching is not None
    config = plan.teaching.members[plan.teacher]
    assert config is not None
    home = places.teacher_folder(plan.teacher)
    record = RunRecord(home, plan.teacher, "teacher", "t", {}, config.model_dump(mode="json"))
    *_, record = follow(record, lambda begun: baseline(config, begun.resume_path()))
    publish(home, record, config.loss, open_data(config.data), {})


@pytest.fixture
def known(tiny: RunConfig, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A base whose teacher is there, and gives logits that are worth something."""
    there(plan_of(tiny, TAUS))
    monkeypatch.setattr(near, "_teacher_logits", drawn)
    return tiny


def labels(plan: Plan) -> list[str]:
    return [trial.label for trial in plan.trials]


def found(plan: Plan) -> list[tuple[str, str]]:
    return [(pair.trial.label, pair.kept.label) for pair in near_duplicates(plan).pairs]


def test_tau_4_and_8_are_one_point_and_1_and_4_are_two(known: RunConfig) -> None:
    plan = plan_of(known, TAUS)
    assert found(plan) == [("tau=8", "tau=4")]
    said, offer = near_duplicates(plan).words()
    assert said.startswith(SENTENCE)
    assert offer == "--drop-near-duplicates leaves 1 of these trials out"


def test_each_loss_is_differentiated_once_however_many_trials_have_it(
    known: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = list[int]()

    def counting(loss: LossOfLogits, logits: Sequence[Tensor]) -> Tensor:
        counted.append(1)
        return directions(loss, logits)

    monkeypatch.setattr(near, "directions", counting)
    plan = plan_of(known, TAUS | {"seed": grid_search(list(range(20))), "optimizer.lr": grid_search([1e-3, 3e-3])})
    assert len(found(plan)) == 40
    assert len(counted) == 3
    said, _ = near_duplicates(plan).words()
    assert said.startswith(SENTENCE) and said.endswith(", in 40 pairs of trials")


def test_trials_that_differ_in_more_than_their_loss_are_not_compared(known: RunConfig) -> None:
    space = [{"kd.tau": 4.0, "seed": 1}, {"kd.tau": 8.0, "seed": 2}]
    plan = plan_of(known, space)  # type: ignore[arg-type]
    assert list(near_duplicates(plan).words()) == ["near-duplicates: no two trials differ in their loss alone"]


def test_who_is_left_out_is_near_to_one_that_stays(known: RunConfig) -> None:
    """Of a chain every second one may stay: nearness is not transitive."""
    taus = [1.0, 1.3, 1.7, 2.2, 2.8, 3.6, 4.7, 6.1, 8.0]
    plan = plan_of(known, {"kd.tau": grid_search(taus)})
    pairs = near_duplicates(plan).pairs
    gone = {pair.trial.key for pair in pairs}
    assert 0 < len(gone) < len(taus) - 1
    assert all(pair.cosine >= near.NEAR and pair.kept.key not in gone for pair in pairs)


def test_losses_without_a_teachers_share_are_compared_too(known: RunConfig) -> None:
    space = {"kd.alpha": grid_search([0.0, 0.001, 0.9])}
    assert found(plan_of(known, space)) == [("alpha=0.001", "alpha=0")]
    smooth = {"loss.smoothing": grid_search([0.0, 1e-4])}
    assert found(plan_of(known, smooth)) == [("smoothing=0.0001", "smoothing=0")]


def test_a_term_that_compares_a_batch_is_of_the_runs_own_batches(known: RunConfig) -> None:
    space = {"kd.intra": grid_search([0.0, 1e-6, 1.0])}
    assert found(plan_of(known, space)) == [("intra=1e-06", "intra=0")]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"kd.hint": 1.0}, "near-duplicates: trials with kd.hint are not compared, for it is no function of"),
        ({"kd.platt": True}, "near-duplicates: trials with kd.platt are not compared"),
    ],
)
def test_what_cannot_be_compared_is_said_and_stays(known: RunConfig, more: dict[str, Any], sentence: str) -> None:
    plan = plan_of(known, TAUS | more)
    assert near_duplicates(plan).pairs == ()
    (said,) = near_duplicates(plan).words()
    assert said.startswith(sentence)


def test_a_teacher_that_is_not_trained_is_said_and_how_to_get_it(tiny: RunConfig) -> None:
    plan = plan_of(tiny, TAUS)
    assert list(near_duplicates(plan).words()) == [
        "near-duplicates are not measured: the teacher, test_efficientnet_none, is not trained yet; `run` trains it "
        "first, and with --drop-near-duplicates measures then and leaves them out"
    ]
    assert not near.is_decided(plan)


def suggested(trial: Any) -> None:
    trial.suggest_float("kd.tau", 1, 8)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"space": suggested}, "the trials of a search are not known before it suggests them"),
        ({"trainable": baseline, "teacher": None, "space": {"loss": grid_search(["bce", "focal"])}}, "no trial has a"),
        ({"space": {"kd.alpha": 0.0, "seed": grid_search([1, 2])}}, "no trial has a teacher"),
    ],
)
def test_a_study_whose_near_duplicates_cannot_be_told_is_refused(
    tiny: RunConfig, more: dict[str, Any], sentence: str
) -> None:
    plan = plan_of(tiny, more.pop("space"), **more)
    with pytest.raises(BadInput, match=f"^--drop-near-duplicates: near-duplicates are not compared: .*{sentence}"):
        without_near_duplicates(plan)
    assert sentence in next(near_duplicates(plan).words())


def test_what_is_left_out_is_in_the_definition_and_stays_out(known: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    space = TAUS | {"seed": grid_search([1, 2])}
    plan, _ = without_near_duplicates(plan_of(known, space))
    assert labels(plan) == ["tau=1 seed=1", "tau=1 seed=2", "tau=4 seed=1", "tau=4 seed=2"]
    assert [line.split(":")[0] for line in plan.left_out()] == [
        "'tau=8 seed=1' is left out",
        "'tau=8 seed=2' is left out",
    ]
    begun = begin(plan)
    assert begun.left_out() == plan.left_out() == StudyRecord.load(plan.folder).left_out()
    assert list(begun.trials) == [trial.key for trial in plan.trials]
    monkeypatch.setattr(near, "_teacher_logits", lambda *given: pytest.fail("what was decided is not measured again"))
    again, _ = without_near_duplicates(plan_of(known, space))
    assert changes(begun, again) == [] and again.definition == plan.definition
    assert begin(again).accepted == ()


def test_the_same_study_without_the_option_is_refused_with_what_was_left_out(known: RunConfig) -> None:
    begin(without_near_duplicates(plan_of(known, TAUS))[0])
    with pytest.raises(BadInput, match="--drop-near-duplicates left out 'tau=8', and is not given now"):
        begin(plan_of(known, TAUS))


def test_a_study_that_began_with_all_trials_keeps_them(known: RunConfig) -> None:
    begin(plan_of(known, TAUS))
    with pytest.raises(BadInput, match=r"^--drop-near-duplicates: study 'near' has begun with all its trials"):
        without_near_duplicates(plan_of(known, TAUS))


def test_a_trial_that_has_begun_stays_when_the_grid_grows(known: RunConfig) -> None:
    begin(without_near_duplicates(plan_of(known, TAUS | {"kd.tau": grid_search([1.0, 8.0])}))[0])
    plan, _ = without_near_duplicates(plan_of(known, TAUS))
    assert labels(plan) == ["tau=1", "tau=8"]
    assert plan.left_out()[0].startswith("'tau=4' is left out: kd.tau=4 is one point with kd.tau=8")


def test_a_study_that_grew_waits_for_its_teacher_before_it_decides_again(known: RunConfig) -> None:
    begin(without_near_duplicates(plan_of(known, TAUS))[0])
    other = known.with_settings({"seed": 9})
    grown = plan_of(known, {"kd.tau": grid_search([1.0, 4.0, 8.0, 9.0])}, teacher=other)
    assert not near.is_decided(grown)
    assert near.is_decided(plan_of(known, TAUS))


def test_an_ensemble_is_written_before_it_is_asked(known: RunConfig) -> None:
    plan = plan_of(known, TAUS, teacher=[known, known.with_settings({"seed": 9})])
    assert not near.is_decided(plan)
    there(plan)
    assert found(plan) == [("tau=8", "tau=4")]
    assert (places.teacher_folder(plan.teacher) / "model.json").exists()


@pytest.fixture
def file(known: RunConfig, tmp_path: Path) -> str:
    body = (
        "from trainables.distill import distill\n"
        f"base = RunConfig.model_validate_json({known.model_dump_json()!r})\n"
        "student = base.with_settings({'kd.alpha': 1.0})\n"
        "study = Study('?', distill, student, {'kd.tau': grid_search([1.0, 4.0, 8.0])}, teacher=base)\n"
    )
    return bare_study(tmp_path, body)


def test_plan_names_them_and_drops_them(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xlite_search.search.forecast._timing", lambda *given: None)
    code, out, _ = call(capsys, "plan", file)
    assert code == 0 and "one point" not in out
    code, out, _ = call(capsys, "plan", file, "--measure")
    assert code == 0 and f"  {SENTENCE}" in out and "mine: 3 trials" in out
    assert "  --drop-near-duplicates leaves 1 of these trials out" in out
    code, out, _ = call(capsys, "plan", file, "--drop-near-duplicates")
    assert code == 0 and f"  'tau=8' is left out: {SENTENCE}" in out and "mine: 2 trials" in out
    _, out, _ = call(capsys, "plan", file, "--measure", "--json")
    told = json.loads(out)["near_duplicates"]
    ((trial, same_as, cosine),) = [tuple(pair.values()) for pair in told["pairs"]]
    keys = {each["label"]: each["trial"] for each in json.loads(out)["trials"]}
    assert (trial, same_as) == (keys["tau=8"], keys["tau=4"]) and 0.98 <= cosine < 1
    assert (told["threshold"], told["left_out"], told["not_compared"]) == (0.98, [], [])
    _, out, _ = call(capsys, "plan", file, "--drop-near-duplicates", "--json")
    assert len(json.loads(out)["trials"]) == 2 and len(json.loads(out)["near_duplicates"]["left_out"]) == 1


def test_run_refuses_what_it_cannot_tell(tiny: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = (
        f"base = RunConfig.model_validate_json({tiny.model_dump_json()!r})\nstudy = Study('?', baseline, base, {{}})\n"
    )
    code, _, err = call(capsys, "run", bare_study(tmp_path, body), "--drop-near-duplicates")
    assert code == 2
    assert err == (
        "error: --drop-near-duplicates: near-duplicates are not compared: that takes a teacher's logits, and no trial "
        "has a teacher\n"
    )


def test_on_phantoms_with_a_teacher_that_was_trained(tiny: RunConfig) -> None:
    plan = plan_of(tiny, TAUS | {"kd.alpha": grid_search([0.7, 1.0])})
    trained(plan)
    assert found(plan) == [("tau=8 alpha=0.7", "tau=4 alpha=0.7"), ("tau=8 alpha=1", "tau=4 alpha=1")]
    first, second = near_duplicates(plan), near_duplicates(plan)
    assert [pair.cosine for pair in first.pairs] == [pair.cosine for pair in second.pairs]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_here")
def test_run_trains_the_teacher_first_then_drops_and_goes_on_with_the_same(
    tiny: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = (
        "from trainables.distill import distill\n"
        f"base = RunConfig.model_validate_json({tiny.with_settings({'epochs': 1}).model_dump_json()!r})\n"
        "student = base.with_settings({'kd.alpha': 1.0})\n"
        "study = Study('?', distill, student, {'kd.tau': grid_search([4.0, 4.1])}, teacher=base)\n"
    )
    command = ["run", bare_study(tmp_path, body), "--drop-near-duplicates"]
    code, _, err = call(capsys, *command)
    assert code == 0, err
    assert "Teacher test_efficientnet_none, trained once" in err
    assert "'tau=4.1' is left out: kd.tau=4.1 is one point with kd.tau=4: the cosine of their losses' gradients" in err
    study = StudyRecord.load(places.study_folder("mine"))
    assert [(run.settings, run.status) for run in study.runs()] == [({"kd.tau": 4.0}, "finished")]
    assert "--drop-near-duplicates" not in study.command, "it is begun on to ask for runs that are missing"
    _, out, _ = call(capsys, "compare", "mine", "--json")
    assert json.loads(out)["left_out"] == study.left_out()
    code, out, err = call(capsys, *command)
    assert "'tau=4.1' is left out" in " ".join(out.split())
    assert code == 0 and "is left out" in err and "Study 'mine' is complete: nothing is left to train" in err
    code, _, err = call(capsys, *command[:2])
    assert code == 2 and "--drop-near-duplicates left out 'tau=4.1'" in err and "is not given now" in err


@pytest.mark.slow
def test_on_real_radiographs(shared: Path) -> None:
    """With a teacher by the lab's learning rate, whose logits are as far apart as its data tell it."""
    folder, weights = shared / "data" / "chestxray14", shared / "weights" / "tf_efficientnet_lite0.safetensors"
    prepare("nih", Folder(folder / "images_224", folder / "Data_Entry_images_224.csv", "nih"), 96)
    given = {"weights": str(weights), "data.name": "nih", "epochs": 3, "optimizer.lr": 1e-4, "early_stopping": None}
    plan = plan_of(RunConfig(model="tf_efficientnet_lite0_none").with_settings(given), TAUS)
    trained(plan)
    assert found(plan) == [("tau=8", "tau=4")]
    print(near_duplicates(plan).as_json())
