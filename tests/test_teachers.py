"""Who may teach: model folders, state dicts of plain PyTorch, ensembles; and what a student hears of them."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from trainables.baseline import baseline
from trainables.distill import distill
from xlite_search import places, provenance, storage
from xlite_search.config import RunConfig
from xlite_search.data.dataset import Data, open_data
from xlite_search.data.loaders import ordered_batches
from xlite_search.data.prepare import prepare
from xlite_search.data.sources.phantom import Phantom
from xlite_search.distill import platt
from xlite_search.distill import teacher_logits as hearing
from xlite_search.distill.losses import KD
from xlite_search.distill.pretrained import Pretrained, import_teacher
from xlite_search.distill.teacher import Teacher, load_teacher, write_ensemble
from xlite_search.distill.teacher_logits import Cached, Hint, Online, verify
from xlite_search.errors import BadInput, Damaged, RunFailed
from xlite_search.execution import follow
from xlite_search.machine import Machine
from xlite_search.model_folder import (
    MANIFEST,
    ModelManifest,
    TrainedOn,
    expect_loadable,
    publish,
    read_model,
    shared_patients,
    trained_on,
    write_model,
)
from xlite_search.models.hybrid import Hybrid, build_model
from xlite_search.records import RunRecord
from xlite_search.search import teaching as teaching_module
from xlite_search.search.plan import make_plan
from xlite_search.search.runner import begin
from xlite_search.search.study import Study, Trial, grid_search
from xlite_search.search.teach import teach
from xlite_search.search.teaching import logit_counts, teaching_of, views_of, warnings
from xlite_search.trainable import maker
from xlite_search.training.loop import train
from xlite_search.training.result import EpochResult

CPU = torch.device("cpu")
MODEL = "test_efficientnet_none"


@pytest.fixture
def data(tiny: RunConfig) -> Data:
    return open_data(tiny.data)


@pytest.fixture
def theirs(data: Data) -> Hybrid:
    """A model that somebody trained: here, one whose batch norms and weights are not those of a new one."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = build_model(MODEL, classes=len(data.classes)).train()
        for batch in ordered_batches(data.train, 64, CPU):
            model(batch.images)
    return model.eval()


@pytest.fixture
def images(data: Data) -> Tensor:
    return next(iter(ordered_batches(data.val, 16, CPU))).images.clone()


def saved(state: object, folder: Path, name: str = "theirs.pth") -> str:
    torch.save(state, folder / name)
    return str(folder / name)


def published(config: RunConfig, name: str) -> Path:
    """A teacher of one epoch among the final models."""
    config = config.with_settings({"epochs": 1}).resolved()
    home = places.model_folder(name)
    record = RunRecord(home, name, "teacher", "t", {}, config.model_dump(mode="json"))
    *_, record = follow(record, lambda begun: baseline(config, begun.resume_path()))
    publish(home, record, config.loss, open_data(config.data), {})
    return home


def study(tiny: RunConfig, teacher: Any, **more: Any) -> Study:
    return Study("?", distill, tiny, {"kd.alpha": 0.5}, teacher=teacher, **more)


# State dicts of plain PyTorch


@pytest.mark.parametrize("wrapping", [None, "state_dict", "model_state_dict", "model"])
def test_a_state_dict_teaches_what_its_model_would(
    wrapping: str | None, theirs: Hybrid, data: Data, images: Tensor, tmp_path: Path
) -> None:
    state = theirs.state_dict()
    path = saved({wrapping: state, "epoch": 3} if wrapping else state, tmp_path)
    teacher = load_teacher(import_teacher(Pretrained(path=path, model=MODEL), data), data.classes, CPU)
    with torch.no_grad():
        torch.testing.assert_close(teacher(images), theirs(images))


def test_names_are_mapped_by_how_they_begin(theirs: Hybrid, data: Data, images: Tensor, tmp_path: Path) -> None:
    state = {
        ("module.cnn." + name.removeprefix("backbone.") if name.startswith("backbone.") else "module." + name): tensor
        for name, tensor in theirs.state_dict().items()
    }
    given = Pretrained(path=saved(state, tmp_path), model=MODEL, keys={"module.": "", "module.cnn.": "backbone."})
    with torch.no_grad():
        torch.testing.assert_close(load_teacher(import_teacher(given, data), data.classes, CPU)(images), theirs(images))


def test_findings_in_another_order_are_put_into_ours(
    theirs: Hybrid, data: Data, images: Tensor, tmp_path: Path
) -> None:
    order = np.random.default_rng(0).permutation(len(data.classes))
    given = Pretrained(
        path=saved(theirs.state_dict(), tmp_path),
        model=MODEL,
        classes=tuple(data.classes[place] for place in order),
        pos_weight=tuple(float(2 + place) for place in order),
    )
    teacher = load_teacher(import_teacher(given, data), data.classes, CPU)
    with torch.no_grad():
        expected = torch.empty(len(images), len(order))
        expected[:, order] = theirs(images)
        weights = torch.arange(2.0, 2 + len(order))
        torch.testing.assert_close(teacher(images), expected - torch.log(weights))


def test_a_file_is_taken_in_once_and_another_reading_of_it_is_another_teacher(
    theirs: Hybrid, data: Data, tmp_path: Path
) -> None:
    given = Pretrained(path=saved(theirs.state_dict(), tmp_path), model=MODEL)
    key = import_teacher(given, data)
    assert import_teacher(given, data) == key
    moved = given.model_copy(update={"path": saved(theirs.state_dict(), tmp_path, "same.pth")})
    other = given.model_copy(update={"pos_weight": tuple([2.0] * len(data.classes))})
    assert import_teacher(other, data) != key
    with open(given.path, "rb") as one, open(moved.path, "rb") as two:
        same = one.read() == two.read()
    assert (import_teacher(moved, data) == key) == same


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (os.environ["EVIL"],)


Spoil = Callable[[dict[str, Any], Data, Path], dict[str, Any]]


def spoilt(**changed: Any) -> Spoil:
    return lambda state, data, folder: changed


def with_state(change: Callable[[dict[str, Any]], object]) -> Spoil:
    return lambda state, data, folder: {"path": saved(change(dict(state)), folder, "spoilt.pth")}


def pickled(state: dict[str, Any], data: Data, folder: Path) -> dict[str, Any]:
    (folder / "evil.pth").write_bytes(pickle.dumps({"state_dict": Evil()}))
    return {"path": str(folder / "evil.pth")}


def text(state: dict[str, Any], data: Data, folder: Path) -> dict[str, Any]:
    (folder / "patients").write_bytes(b"\xff\xfe\x00\x80")
    return {"patients": str(folder / "patients")}


HEAD = "classifier.2.weight"
WRONG_FILES: dict[str, tuple[Spoil, str]] = {
    "no such file": (spoilt(path="nowhere.pth"), "nowhere.pth: there is no such file"),
    "a pickle that runs code": (pickled, "not a file of plain tensors"),
    "a whole model": (with_state(lambda s: build_model(MODEL, classes=14)), "save `model.state_dict\\(\\)`"),
    "no tensors": (with_state(lambda s: {"epoch": 3}), "holds no state dict"),
    "nothing": (with_state(lambda s: {}), "holds no state dict"),
    "other names": (
        with_state(lambda s: {"module." + n: t for n, t in s.items()}),
        r"all of its names begin with 'module\.': leave that out by keys=\{'module\.': ''\}",
    ),
    "a name too few": (with_state(lambda s: s.pop(HEAD) is None or s), f"lacks 1 names of '{MODEL}' \\({HEAD}\\)"),
    "a name too many": (with_state(lambda s: s | {"extra": torch.ones(1)}), "has 1 that it does not know \\(extra\\)"),
    "two of one name": (
        lambda s, d, f: {
            "path": saved(s | {"module." + HEAD: s[HEAD]}, f, "spoilt.pth"),
            "keys": {"module.": ""},
        },
        "gives two of its tensors the same name",
    ),
    "other findings in number": (with_state(lambda s: s | {HEAD: s[HEAD][:5]}), r"is \[5, .* wants \[14, "),
    "weights that are no numbers": (with_state(lambda s: s | {HEAD: s[HEAD] * torch.nan}), "not finite"),
    "other findings": (
        lambda s, d, f: {"classes": ("Gout", *d.classes[1:])},
        "not those of this data set \\(Atelectasis, Gout\\)",
    ),
    "too few pos_weights": (spoilt(pos_weight=(1.0, 2.0)), "2 pos_weights for 14 findings"),
    "patients that are no text": (text, "cannot be read as text"),
    "another model": (spoilt(model="resnet10t_none"), "lacks .* names of 'resnet10t_none'"),
    "no model": (spoilt(model="test_efficientnet_mha"), "did you mean|not known|unknown"),
}


@pytest.mark.parametrize("way", WRONG_FILES)
def test_a_wrong_file_is_refused_with_its_sentence(
    way: str, theirs: Hybrid, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVIL", str(tmp_path / "evil-was-here"))
    spoil, sentence = WRONG_FILES[way]
    state = theirs.state_dict()
    given: dict[str, Any] = {"path": saved(state, tmp_path), "model": MODEL}
    given |= spoil(state, data, tmp_path)
    with pytest.raises(BadInput, match=sentence) as refusal:
        import_teacher(Pretrained(**given), data)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "evil-was-here").exists()
    assert not list(places.teacher_folder("x").parent.glob("*/model.json")), "nothing is left of it"


# Patients whom a teacher has seen


def listed(patients: list[str], folder: Path) -> str:
    (folder / "patients.txt").write_text("\n".join(patients) + "\n", encoding="utf-8")
    return str(folder / "patients.txt")


def patients_of(data: Data, part: str) -> list[str]:
    return sorted({data.packed.table.groups[row] for row in data.split.rows[part]})


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_teacher_that_has_seen_whom_students_are_judged_by_is_refused_unless_accepted(
    part: str, tiny: RunConfig, theirs: Hybrid, data: Data, tmp_path: Path
) -> None:
    seen = [*patients_of(data, "train")[:3], *patients_of(data, part)[:2]]
    given = Pretrained(path=saved(theirs.state_dict(), tmp_path), model=MODEL, patients=listed(seen, tmp_path))
    with pytest.raises(BadInput, match=r"trained on 2 of the patients.*--split train.*accept_overlap=True"):
        teaching_of(study(tiny, given))
    accepted = study(tiny, given, accept_overlap=True)
    teaching = teaching_of(accepted)
    assert teaching
    (said,) = warnings(accepted, teaching, [])
    assert "was trained on 2 patients that its students are judged by: accepted" in said


def test_a_teacher_of_whom_nobody_knows_is_taken_with_a_warning_and_one_of_train_without(
    tiny: RunConfig, theirs: Hybrid, data: Data, tmp_path: Path
) -> None:
    path = saved(theirs.state_dict(), tmp_path)
    for patients, count in ((None, 1), (listed(patients_of(data, "train"), tmp_path), 0)):
        one = study(tiny, Pretrained(path=path, model=MODEL, patients=patients))
        teaching = teaching_of(one)
        assert teaching
        said = list(warnings(one, teaching, []))
        assert len(said) == count
        assert all("is not known; its students' scores may be too high" in sentence for sentence in said)


def test_a_model_of_the_same_split_may_teach_and_one_that_saw_validation_may_not(tiny: RunConfig) -> None:
    home = published(tiny, "final")
    about = read_model(home)
    data = open_data(tiny.data)
    assert teaching_of(study(tiny, str(home)))
    assert about.trained_on is not None
    seen = about.trained_on.model_copy(update={"patients": (*about.trained_on.patients, *patients_of(data, "val"))})
    write_model(home, (home / "model.safetensors").read_bytes(), about.model_copy(update={"trained_on": seen}))
    with pytest.raises(BadInput, match="patients that its students are judged by"):
        teaching_of(study(tiny, str(home)))


def test_patients_of_another_source_are_not_ours(data: Data) -> None:
    everybody = TrainedOn(source="elsewhere", patients=data.packed.table.groups)
    assert shared_patients(everybody, data) == []
    assert shared_patients(trained_on(data, data.packed.table.groups), data)


# Ensembles


def members(data: Data, count: int = 2) -> list[str]:
    """Teachers of other seeds and other pos_weights."""
    keys = []
    for seed in range(count):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = build_model(MODEL, classes=len(data.classes))
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        weight = (2.0 + seed,) * len(data.classes)
        about = ModelManifest(config={"model": MODEL}, classes=data.classes, pos_weight=weight)
        write_model(places.teacher_folder(f"member{seed}"), safetensors.torch.save(weights), about)
        keys.append(f"member{seed}")
    return keys


def test_an_ensemble_answers_in_the_mean_of_its_members_logits(data: Data, images: Tensor) -> None:
    keys = members(data)
    each = [load_teacher(key, data.classes, CPU)(images) for key in keys]
    together = load_teacher(write_ensemble(keys), data.classes, CPU)
    assert not torch.allclose(each[0], each[1])
    torch.testing.assert_close(together(images), (each[0] + each[1]) / 2)


def test_an_ensemble_is_its_members_in_whatever_order(data: Data) -> None:
    one, two, three = members(data, 3)
    assert write_ensemble([one, two]) == write_ensemble([two, one])
    assert write_ensemble([one, two]) != write_ensemble([one, three])


def test_members_of_other_findings_are_refused(data: Data) -> None:
    keys = members(data)
    home = places.teacher_folder(keys[1])
    about = read_model(home)
    turned = about.model_copy(update={"classes": about.classes[::-1]})
    write_model(home, (home / "model.safetensors").read_bytes(), turned)
    with pytest.raises(BadInput, match="members of the ensemble know other findings"):
        write_ensemble(keys)


def test_a_damaged_member_is_found_through_the_ensemble(data: Data) -> None:
    keys = members(data)
    key = write_ensemble(keys)
    weights = places.teacher_folder(keys[1]) / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(Damaged, match="is not the file that"):
        read_model(places.teacher_folder(key))


def test_an_empty_ensemble_is_refused(tiny: RunConfig) -> None:
    with pytest.raises(BadInput, match="list of an ensemble's members is empty"):
        study(tiny, [])


# What a student hears


@pytest.fixture
def taught(tiny: RunConfig, data: Data) -> RunConfig:
    members(data, 1)
    return tiny.model_copy(update={"kd": KD(teacher="member0")})


def kd_of(config: RunConfig) -> KD:
    assert config.kd
    return config.kd


@pytest.mark.parametrize("kind", [Cached, Online])
def test_a_students_pos_weight_is_added_and_the_teachers_taken_away(
    kind: type[Cached] | type[Online], taught: RunConfig, data: Data
) -> None:
    batch = next(iter(ordered_batches(data.train, 16, CPU)))
    plain = kind(taught, kd_of(taught), data, CPU)(batch)
    with torch.no_grad():
        logits = load_teacher("member0", data.classes, CPU).models[0](batch.images)
    torch.testing.assert_close(plain, logits - np.log(2.0), rtol=1e-3, atol=1e-3)
    weighed = taught.with_settings({"loss": "weighted_bce"})
    weight = weighed.loss.pos_weight(data.train.positives, len(data.train))
    assert weight is not None
    torch.testing.assert_close(kind(weighed, kd_of(weighed), data, CPU)(batch), plain + torch.log(weight))


@pytest.mark.parametrize("kind", [Cached, Online])
def test_a_calibrated_teacher_is_heard_through_its_line(
    kind: type[Cached] | type[Online], taught: RunConfig, data: Data
) -> None:
    batch = next(iter(ordered_batches(data.train, 16, CPU)))
    plain = kind(taught, kd_of(taught), data, CPU)(batch)
    kd = kd_of(taught).model_copy(update={"platt": True})
    teacher = load_teacher("member0", data.classes, CPU)
    answers = torch.cat([teacher(b.images) for b in ordered_batches(data.val, 64, CPU)]).numpy()
    answers = answers.astype(np.float16).astype(np.float32)
    slope, offset = platt.fit(answers, data.val.labels)
    assert (slope != 1).any()
    expected = torch.from_numpy(slope).float() * plain + torch.from_numpy(offset).float()
    torch.testing.assert_close(kind(taught, kd, data, CPU)(batch), expected, rtol=1e-2, atol=1e-2)


def test_a_run_that_finds_all_stored_never_loads_the_teacher(
    taught: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [result.metrics["train/loss"] for result in distill(taught)]

    def refused(*_: Any) -> Teacher:
        raise AssertionError("loaded")

    monkeypatch.setattr(hearing, "load_teacher", refused)
    assert [result.metrics["train/loss"] for result in distill(taught)] == first
    with pytest.raises(AssertionError, match="loaded"):
        list(distill(taught.with_settings({"augment": "light"})))


def test_a_teacher_in_another_order_of_findings_is_refused(taught: RunConfig, data: Data) -> None:
    with pytest.raises(BadInput, match="knows other classes, or in another order"):
        load_teacher("member0", data.classes[::-1], CPU)


def test_a_teacher_whose_weights_are_no_numbers_is_refused_before_a_night_is_built_on_it(
    taught: RunConfig, data: Data
) -> None:
    home = places.teacher_folder("member0")
    about = read_model(home).model_copy(update={"metrics": {"val/auroc_macro": 0.7}})
    state = safetensors.torch.load((home / "model.safetensors").read_bytes())
    state[HEAD][0] = torch.nan
    write_model(home, safetensors.torch.save(state), about)
    with pytest.raises(RunFailed, match="logits are not finite"):
        verify(taught, kd_of(taught), data, CPU)


def test_a_hint_draws_the_students_attention_to_the_teachers(taught: RunConfig) -> None:
    hinted = taught.model_copy(update={"kd": kd_of(taught).model_copy(update={"hint": 5.0})})
    with pytest.raises(BadInput, match="a feature map is a single cell"):
        list(distill(hinted))
    prepare("phantom-64", Phantom(images=80, size=64), 64)
    taught, hinted = (config.with_settings({"data.name": "phantom-64"}) for config in (taught, hinted))
    plain = [result.metrics["train/loss"] for result in distill(taught)]
    course = list(distill(hinted))
    assert course[0].metrics["train/loss"] > plain[0]
    assert course[0].metrics["kd/computed"] == course[0].metrics["kd/used"] > 0


def test_an_ensemble_has_no_feature_map(taught: RunConfig, data: Data) -> None:
    teacher = load_teacher(write_ensemble(members(data)), data.classes, CPU)
    with pytest.raises(BadInput, match="an ensemble has no feature map"):
        Hint(build_model(MODEL, classes=14), teacher)


# What is said before


def trial(config: RunConfig, **changed: Any) -> Trial:
    return Trial("k", "l", {}, config.with_settings(changed) if changed else config)


def test_a_teacher_whom_no_trial_hears_is_not_trained(tiny: RunConfig) -> None:
    teacher = tiny.with_settings({"epochs": 1})
    deaf = make_plan(Study("?", distill, tiny, {"seed": grid_search([1, 2])}, teacher=teacher), "deaf")
    silent = make_plan(Study("?", distill, tiny, {"kd.alpha": 0.0}, teacher=teacher), "silent")
    used = make_plan(Study("?", distill, tiny, {"kd.alpha": 0.5}, teacher=teacher), "used")
    for plan in (deaf, silent):
        assert "no trial uses the teacher: kd is null or kd.alpha 0 in all; it is not trained" in plan.warnings()
        assert teach(plan, begin(plan), Machine()).teacher_sha256 == ""
    assert used.uses_teacher and not any("uses the teacher" in warning for warning in used.warnings())


def test_plan_says_what_is_asked_once_and_what_it_would_be(taught: RunConfig, data: Data) -> None:
    trials = [trial(taught, augment="light", epochs=4), trial(taught, augment="light", epochs=3, **{"kd.tau": 2.0})]
    images = len(data.train)
    (said,) = logit_counts(trials)
    assert f"{4 * images:,} views are computed once ({images:,} images, 4 views each" in said
    assert said.endswith(f"online it would be {7 * images:,}")
    one, two = logit_counts([*trials, trial(taught)])
    assert one == said
    assert "1 view each" in two


def test_what_is_asked_online_is_said_with_why(
    tiny: RunConfig, taught: RunConfig, theirs: Hybrid, tmp_path: Path
) -> None:
    given = study(tiny, Pretrained(path=saved(theirs.state_dict(), tmp_path), model=MODEL))
    teaching = teaching_of(given)
    assert teaching
    trials = [trial(taught, mixup=0.2), trial(taught, **{"kd.hint": 1.0}), trial(taught, mixup=0.3), trial(taught)]
    said = [sentence for sentence in warnings(given, teaching, trials) if "online" in sentence]
    assert [sentence.partition(" trials")[0] for sentence in said] == ["in 2", "in 1"]
    assert "MixUp" in said[0]
    assert "features" in said[1]


def test_views_that_come_in_turn_are_fewer(taught: RunConfig) -> None:
    assert views_of(taught) == 1
    assert views_of(taught.with_settings({"augment": "light", "epochs": 9})) == 9
    assert views_of(taught.with_settings({"augment": "light", "augment.views": 4, "epochs": 9})) == 4


class WithOwnHead(torch.nn.Module):
    """A hybrid with another head, which only its training wants."""

    def __init__(self, hybrid: Hybrid) -> None:
        super().__init__()
        self.hybrid, self.own = hybrid, torch.nn.Linear(1, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.hybrid(images)
        added: Tensor = 0 * self.own(logits[:, :1])
        return logits + added


class Apart(EpochResult):
    """An epoch of such a model that delivers the hybrid alone."""

    def weights_bytes(self) -> bytes:
        own = {n.removeprefix("hybrid."): t for n, t in self.checkpoint.judged.items() if n.startswith("hybrid.")}
        return bytes(safetensors.torch.save({name: tensor.contiguous() for name, tensor in own.items()}))


def with_own_head(config: RunConfig, kind: type[EpochResult]) -> RunRecord:
    """A run of a trainable that builds more than its config says."""
    data = open_data(config.data)
    model = WithOwnHead(build_model(config.model, classes=len(data.classes)))
    hard = config.loss.build(data.train.positives, len(data.train))

    def epochs(_: RunRecord) -> Iterator[EpochResult]:
        results = train(config, model, data, lambda logits, batch: hard(logits, batch.labels, batch.weights))
        yield from (kind(**vars(result)) for result in results)

    home = places.teacher_folder("own")
    record = RunRecord(home, "own", "teacher", "with a head of its own", {}, config.model_dump(mode="json"))
    return list(follow(record, epochs))[-1]


def planned(tiny: RunConfig, teacher: Any) -> tuple[str, list[str]]:
    """What `plan` says of a teacher: who it is, and what there is to warn of."""
    about = study(tiny, teacher)
    teaching = teaching_of(about)
    assert teaching is not None
    return teaching.models(), list(warnings(about, teaching, about.trials(teaching.key)))


def trained_here(config: RunConfig) -> Path:
    """A study's own teacher of one epoch, where a study looks for it."""
    config = config.with_settings({"epochs": 1})
    teaching = teaching_of(study(config, config))
    assert teaching is not None
    home = places.teacher_folder(teaching.key)
    resolved = config.resolved()
    record = RunRecord(home, teaching.key, "teacher", "t", {}, resolved.model_dump(mode="json"))
    *_, record = follow(record, lambda begun: baseline(resolved, begun.resume_path()))
    publish(home, record, resolved.loss, open_data(resolved.data), provenance.of_training(maker(baseline)))
    return home


def test_what_made_a_teacher_is_in_its_manifest_and_compared_when_it_teaches(tiny: RunConfig) -> None:
    first = tiny.with_settings({"epochs": 1})
    assert planned(first, first)[0] == f"trained first: {tiny.model}"
    home = trained_here(first)
    assert planned(first, first) == (f"trained already: {tiny.model}", [])
    about = read_model(home).as_json()
    made = about["provenance"]
    assert made["trained_by"] == maker(baseline) and made["libraries"]["torch"] == torch.__version__.partition("+")[0]
    for changed, says in (
        ({"libraries": made["libraries"] | {"timm": "0.1"}}, "was trained with timm 0.1, and here is "),
        ({"trained_by": "trainables.baseline:baseline 0123"}, "was trained by other code of trainables.baseline:base"),
    ):
        storage.write_manifest(home / MANIFEST, about | {"provenance": made | changed})
        for teacher in (first, str(shutil.copytree(home, home.with_name("given"), dirs_exist_ok=True))):
            (warning,) = planned(first, teacher)[1]
            assert says in warning
    storage.write_manifest(home / MANIFEST, about | {"provenance": {"trained_by": "elsewhere:own 0123"}})
    assert planned(first, first)[1] == []


def test_a_teacher_of_other_code_is_another_teacher(tiny: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny.with_settings({"epochs": 1})
    trained_here(first)
    monkeypatch.setattr(teaching_module, "maker", lambda trainable: f"{maker(trainable)} and more")
    assert planned(first, first)[0] == f"trained first: {tiny.model}"


def test_a_model_with_parts_of_its_own_is_refused_by_their_names(tiny: RunConfig, data: Data) -> None:
    record = with_own_head(tiny.with_settings({"epochs": 1}), EpochResult)
    with pytest.raises(BadInput, match=r"that it does not have \(hybrid\.") as told:
        publish(record.folder, record, tiny.loss, data, {})
    assert "are missing (backbone." in str(told.value) and "weights_bytes" in str(told.value)
    assert not (record.folder / "model.json").exists()


def test_parts_that_are_kept_apart_do_not_hinder(tiny: RunConfig, data: Data, images: Tensor) -> None:
    record = with_own_head(tiny.with_settings({"epochs": 1}), Apart)
    publish(record.folder, record, tiny.loss, data, {})
    assert load_teacher("own", data.classes, CPU)(images).shape == (len(images), len(data.classes))


def test_weights_of_another_number_of_findings_are_refused(tiny: RunConfig, data: Data) -> None:
    home = published(tiny.with_settings({"epochs": 1}), "full")
    with pytest.raises(BadInput, match=r"2 that have another shape \(classifier\.2\.bias, classifier\.2\.weight\)"):
        expect_loadable(RunRecord.load(home), len(data.classes) - 1)
