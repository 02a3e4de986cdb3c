from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from trainables.distill import distill
from xlite_search.config import RunConfig, fingerprints, run_key
from xlite_search.data.packed import PackedSet
from xlite_search.data.prepare import prepare
from xlite_search.data.sources.phantom import Phantom
from xlite_search.data.splits import ByPatient
from xlite_search.data.views import Medium
from xlite_search.distill.losses import KD
from xlite_search.errors import BadInput
from xlite_search.machine import Machine
from xlite_search.models.weights import Weights
from xlite_search.search.study import Study, grid_search
from xlite_search.spec import flatten, setting_names
from xlite_search.training.losses import BCE, WeightedBCE
from xlite_search.training.optim import Constant, Cosine, Plateau, Recorded


def changed(**settings: Any) -> RunConfig:
    """Settings by their dotted names, a dot written as two underscores."""
    return RunConfig().with_settings({name.replace("__", "."): value for name, value in settings.items()})


def refusal(settings: dict[str, Any]) -> str:
    with pytest.raises(BadInput) as caught:
        RunConfig().with_settings(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_dotted_names_reach_every_part() -> None:
    config = changed(model="resnet10t", optimizer__lr=0.01, data__split__seed=3, kd__tau=8)
    assert config.model == "resnet10t_none"
    assert config.optimizer.lr == 0.01
    assert config.optimizer.weight_decay == RunConfig().optimizer.weight_decay
    assert config.data.split == ByPatient(seed=3)
    assert config.kd == KD(tau=8)


def test_a_changed_copy_leaves_the_original_alone() -> None:
    base = RunConfig()
    before = base.model_dump_json()
    base.with_settings({"optimizer.lr": 0.5, "data.split.seed": 9})
    assert base.model_dump_json() == before


def test_every_name_of_a_config_is_a_setting() -> None:
    known = set(setting_names(RunConfig))
    configs = [RunConfig(), changed(kd__tau=2.0, loss="weighted_bce", schedule="cosine", weights="x")]
    assert {name for config in configs for name in flatten(config.model_dump())} <= known


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kd.tua": 4}, "unknown setting 'kd.tua'; did you mean 'kd.tau'?"),
        ({"optimiser.lr": 1e-3}, "unknown setting 'optimiser.lr'; did you mean 'optimizer.lr'?"),
        ({"lr": 1e-3}, "unknown setting 'lr'; did you mean 'optimizer.lr'?"),
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean 'epochs'?"),
        ({"qqqqqqqq": 3}, "unknown setting 'qqqqqqqq'"),
        (
            {"optimizer": {"weight_decai": 1.0}},
            "unknown setting 'optimizer.weight_decai'; did you mean 'optimizer.weight_decay'?",
        ),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(settings: dict[str, Any], sentence: str) -> None:
    assert refusal(settings) == sentence


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"schedule.warmup": 1}, "schedule.warmup"),
        ({"schedule": "cosine", "schedule.patience": 3}, "schedule.patience"),
        ({"loss": "bce", "loss.weighting": "ratio"}, "loss.weighting"),
    ],
)
def test_a_setting_of_another_choice_is_refused_and_not_suggested_again(settings: dict[str, Any], says: str) -> None:
    sentence = refusal(settings)
    assert says in sentence
    assert f"did you mean '{says}'" not in sentence


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"schedule": {"name": "cosine", "warmup": 9}, "epochs": 8}, "schedule.warmup is 9 epochs, and the run has 8"),
        ({"micro_batch": 64, "batch_size": 32}, "micro_batch is 64 images, and batch_size 32"),
        (
            {"micro_batch": 2, "batch_size": 5},
            "micro_batch is 2 images and batch_size 5: a piece would be a single image, of which batch norm has no "
            "variance; make batch_size even, or micro_batch 3",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, Any], sentence: str) -> None:
    assert refusal(settings) == sentence


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"schedule": "cosin"}, ["schedule = 'cosin' is not known", "did you mean 'cosine'?", "plateau", "constant"]),
        ({"loss": "focall"}, ["loss = 'focall' is not known", "bce", "weighted_bce"]),
        ({"schedule": {"patience": 2}}, ["schedule = ", "set schedule itself too, to one of constant, plateau"]),
        ({"schedule": 5}, ["schedule"]),
        ({"model": "efficientnet_b0_msha"}, ["model = ", "did you mean 'efficientnet_b0_mhsa'?"]),
        ({"optimizer.lr": 0}, ["optimizer.lr = 0", "greater than 0"]),
        ({"optimizer.lr": math.nan}, ["optimizer.lr = nan", "finite"]),
        ({"optimizer.lr": "fast"}, ["optimizer.lr = 'fast'"]),
        ({"epochs": 0}, ["epochs = 0", "greater than or equal to 1"]),
        ({"epochs": 2.5}, ["epochs = 2.5"]),
        ({"batch_size": 1}, ["batch_size = 1"]),
        ({"kd.alpha": 1.5}, ["kd.alpha = 1.5", "less than or equal to 1"]),
        ({"kd.tau": -1}, ["kd.tau = -1", "greater than 0"]),
        ({"kd.tau": 1e30}, ["kd.tau = 1e+30", "less than or equal to 100"]),
        ({"precision": "fp8"}, ["precision = 'fp8'", "'bf16'"]),
        ({"data.split.ratios": [0.7, 0.1, 0.1]}, ["data.split.ratios", "sum to 1"]),
        ({"monitor": "val/loss"}, ["monitor = 'val/loss': expected one of val/auroc_macro", "val/auroc/Edema"]),
        ({"data.fit": "all"}, ["data.fit = 'all'", "train+val"]),
        ({"threads": 0}, ["threads = 0"]),
        ({"seed": 2**64}, ["seed"]),
    ],
)
def test_a_bad_value_is_refused_with_name_value_and_range(settings: dict[str, Any], says: list[str]) -> None:
    sentence = refusal(settings)
    assert [part for part in says if part not in sentence] == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "cosine"}, Cosine()),
        ({"schedule": {"name": "cosine", "warmup": 2}}, Cosine(warmup=2)),
        ({"schedule": "cosine", "schedule.warmup": 2}, Cosine(warmup=2)),
        ({"schedule": Cosine(warmup=2)}, Cosine(warmup=2)),
        ({"schedule.patience": 2}, Plateau(patience=2)),
        ({"schedule": "constant"}, Constant()),
        ({"schedule": {"name": "recorded", "factors": [1.0, 0.5]}}, Recorded(factors=(1.0, 0.5))),
    ],
)
def test_a_choice_by_name_by_mapping_or_by_object(settings: dict[str, Any], expected: object) -> None:
    assert RunConfig().with_settings(settings).schedule == expected


def test_a_choice_forgets_the_settings_of_the_one_before() -> None:
    config = changed(schedule={"name": "cosine", "warmup": 3}).with_settings({"schedule": "plateau"})
    assert config.schedule == Plateau()
    assert changed(loss="weighted_bce").with_settings({"loss": "bce"}).loss == BCE()
    assert changed(loss="weighted_bce").loss == WeightedBCE()


def test_weights_may_be_given_by_path_alone_or_taken_away() -> None:
    assert changed(weights="imagenet").weights == Weights(path="imagenet")
    assert changed(weights="imagenet").with_settings({"weights": None}).weights is None


def test_the_order_of_settings_does_not_matter() -> None:
    settings = {"schedule.warmup": 2, "schedule": "cosine", "kd.tau": 2.0, "kd.alpha": 0.3, "kd": {"tau": 9.0}}
    found = {RunConfig().with_settings(dict(items)) for items in itertools.permutations(settings.items())}
    assert len({config.model_dump_json() for config in found}) == 1


def test_alpha_0_is_no_teacher_at_any_tau() -> None:
    silent = [RunConfig(kd=KD(alpha=0, tau=tau)).canonical() for tau in (4, 8)]
    assert silent == [RunConfig(), RunConfig()]
    assert changed(kd__alpha=0, kd__tau=4).resolved().kd is None
    assert changed(kd__alpha=0.1).canonical().kd is not None


def test_an_alpha_that_was_set_to_0_does_not_come_back_with_another_setting() -> None:
    study = Study(
        question="?",
        trainable=distill,
        base=RunConfig(),
        teacher=RunConfig(),
        space={"kd.tau": grid_search([4.0, 8.0]), "kd.alpha": grid_search([0.5, 0.7])},
    )
    configs = [config for _, config in study.with_settings({"kd.alpha": 0.0}).configs()]
    assert [config.kd for config in configs] == [None]


def test_a_config_is_the_same_after_json() -> None:
    for config in (RunConfig(), changed(kd__tau=2.0, loss="weighted_bce", weights="x", schedule="cosine")):
        assert RunConfig.model_validate_json(config.model_dump_json()) == config
        assert RunConfig.model_validate(config.model_dump(mode="json")) == config


def test_kd_needs_a_teacher() -> None:
    with pytest.raises(BadInput, match="there is no teacher"):
        changed(kd__tau=4.0).resolved()
    resolved = changed(kd__tau=4.0).resolved("abc")
    assert resolved.kd is not None
    assert resolved.kd.teacher == "abc"
    assert RunConfig().resolved("abc") == RunConfig()


def weights_file(path: Path, value: float) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(safetensors.torch.save({"a": torch.full((3,), value)}))
    return str(path)


def test_identity_is_what_the_weights_are_and_not_where_they_lie(tmp_path: Path) -> None:
    one = changed(weights=weights_file(tmp_path / "a" / "w.safetensors", 1.0)).resolved()
    moved = changed(weights=weights_file(tmp_path / "b" / "other.safetensors", 1.0)).resolved()
    other = changed(weights=weights_file(tmp_path / "a" / "v.safetensors", 2.0)).resolved()
    assert one.identity() == moved.identity()
    assert one.identity() != other.identity()
    assert one.weights is not None
    assert one.weights.sha256 in str(one.identity())
    assert str(tmp_path) not in str(one.identity())


OTHERWISE: list[dict[str, Any]] = [
    {"model": "test_resnet_none"},
    {"epochs": 4},
    {"stop_after": 2},
    {"batch_size": 8},
    {"micro_batch": 4},
    {"clip_norm": 1.0},
    {"ema": 0.99},
    {"compile": True},
    {"loss": "weighted_bce"},
    {"loss": "weighted_bce", "loss.weighting": "effective_number"},
    {"loss": "weighted_bce", "loss.weighting": "effective_number", "loss.weighting.beta": 0.99},
    {"loss": "weighted_bce", "loss.clip": 10.0},
    {"loss.smoothing": 0.1},
    {"loss": "focal"},
    {"loss": "focal", "loss.alpha": "inverse_frequency"},
    {"loss": "focal", "loss.gamma": 1.0},
    {"loss": "bce_focal"},
    {"loss": "bce_focal", "loss.share": 0.5},
    {"loss": "asymmetric"},
    {"loss": "asymmetric", "loss.gamma_pos": 0.0},
    {"loss": "asymmetric", "loss.gamma_neg": 2.0},
    {"optimizer.lr": 1e-3},
    {"optimizer.weight_decay": 0.1},
    {"schedule": "plateau"},
    {"schedule": "plateau", "schedule.threshold": 0.0},
    {"schedule": "warm_restarts"},
    {"schedule": "warm_restarts", "schedule.period": 3},
    {"schedule": "warm_restarts", "schedule.growth": 3},
    {"schedule.warmup": 1},
    {"early_stopping": 3},
    {"precision": "bf16"},
    {"threads": 2},
    {"seed": 7},
    {"monitor": "val/ap_macro"},
    {"data.split.seed": 1},
    {"data.split.ratios": [0.6, 0.2, 0.2]},
    {"data.split": {"name": "crossfit", "of": {"name": "patient", "ratios": [0.6, 0.2, 0.2]}}},
    {"data.split": {"name": "crossfit", "of": {"name": "folds", "test": 0.1}}},
    {"data.split": {"name": "folds"}},
    {"data.split": {"name": "folds", "folds": 4}},
    {"data.split": {"name": "folds", "fold": 1}},
    {"data.split": {"name": "folds", "test": 0.2}},
    {"data.fit": "train+val"},
    {"data.fraction": 0.5},
    {"mixup": 0.2},
    {"sampler": "max_rarity"},
    {"sampler": "mean_rarity"},
    {"sampler": "mean_rarity", "sampler.apply": "loss"},
    {"sampler": "mean_rarity", "sampler.no_finding": "of_largest"},
    {"sampler": "mean_rarity", "sampler.no_finding": "of_largest", "sampler.no_finding.share": 0.02},
    {"sampler": "mean_rarity", "sampler.no_finding": "unscaled"},
    {"sampler": "mean_rarity", "sampler.no_finding": "unscaled", "sampler.no_finding.weight": 0.02},
    {"augment": "light"},
    {"augment": "medium"},
    {"augment": "strong"},
    {"augment": "medium", "augment.views": 4},
    *({"augment": "medium", f"augment.{name}": 0.01} for name in set(Medium.model_fields) - {"name", "views"}),
    {"kd.tau": 4.0, "kd.teacher": "a"},
    {"kd.tau": 8.0, "kd.teacher": "a"},
    {"kd.tau": 4.0, "kd.alpha": 0.7, "kd.teacher": "a"},
    {"kd.tau": 4.0, "kd.teacher": "b"},
    {"kd.form": "mse", "kd.teacher": "a"},
    {"kd.intra": 1.0, "kd.teacher": "a"},
    {"kd.hint": 1.0, "kd.teacher": "a"},
    {"kd.platt": True, "kd.teacher": "a"},
]


def test_everything_that_matters_changes_the_key(tiny: RunConfig) -> None:
    keys = [run_key(tiny), *(run_key(tiny.with_settings(settings)) for settings in OTHERWISE)]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 12 and set(key) <= set("0123456789abcdef") for key in keys)


def test_the_weights_change_the_key(tiny: RunConfig) -> None:
    keys = {run_key(tiny.model_copy(update={"weights": Weights(path="p", sha256=sha)})) for sha in ("a", "b")}
    assert len(keys | {run_key(tiny)}) == 3


def test_the_data_change_the_key(tiny: RunConfig, phantom: PackedSet) -> None:
    before = run_key(tiny)
    assert run_key(tiny) == before
    shutil.rmtree(phantom.folder)
    prepare(tiny.data.name, Phantom(images=60, size=48, seed=1), 32)
    assert run_key(tiny) != before


def test_a_setting_of_a_choice_that_is_not_made_says_which_there_are() -> None:
    with pytest.raises(BadInput, match=r"augment = .*set augment itself too, to one of light, medium, strong"):
        RunConfig().with_settings({"augment.rotate": 5})


def test_fingerprints_are_of_data_and_split(tiny: RunConfig) -> None:
    one, other = fingerprints(tiny), fingerprints(tiny.with_settings({"data.split.seed": 1}))
    assert one["data"] == other["data"]
    assert one["split"] != other["split"]


def test_every_setting_is_in_the_list_of_what_matters() -> None:
    """A new setting must be shown to change the key, or be left out here for a reason."""
    shown = {name for settings in OTHERWISE for name in settings}
    chosen = {"loss.name", "loss.weighting.name", "optimizer.name", "schedule.name", "schedule.factors"}
    chosen |= {"schedule.patience", "schedule.factor", "data.split.name"}  # within a choice that changes the key
    chosen |= {"sampler.name", "sampler.no_finding.name", "augment.name"}
    chosen |= {f"data.split.{of}{name}" for name in ("folds", "fold", "test", "val") for of in ("", "of.")}
    chosen |= {f"data.split.of{name}" for name in ("", ".name", ".ratios", ".seed")}
    elsewhere = {"weights.path", "weights.sha256", "data.name", "kd.alpha"}
    elsewhere |= {f"data.split.{of}{name}" for name in ("path", "sha256", "incomplete") for of in ("", "of.")}  # lists
    parts = {"optimizer", "data", "kd", "weights"}
    assert set(setting_names(RunConfig)) - shown - chosen - elsewhere - parts == set()


def test_cores_of_loader_workers_are_reserved_only_where_images_are_augmented() -> None:
    machine = Machine(cpus=16)
    assert machine.resources(1, 1, augments=True)["CPU"] == 3
    assert machine.resources(1, 1, augments=False)["CPU"] == 1
    assert machine.resources(1, 0, augments=True) == {"CPU": 1.0}
    assert Machine(cpus=2, workers=4).resources(1, 0, augments=True) == {"CPU": 2.0}


@pytest.mark.parametrize(
    ("gpus", "share", "fit"),
    [(1, 0.5, 2), (2, 0.6, 2), (3, 0.3, 9), (2, 0.4, 4), (1, 1 / 3, 3), (2, 1.0, 2), (0, 1.0, 16), (1, 1e-5, 16)],
)
def test_a_share_of_a_gpu_is_of_one_gpu(gpus: int, share: float, fit: int) -> None:
    """As Ray places them: two GPUs hold two runs of 0.6, not three."""
    machine = Machine(cpus=16, gpus_per_trial=share)
    resources = machine.resources(1, gpus, augments=False)
    assert machine.at_once(resources, {"CPU": 16.0, "GPU": float(gpus)}) == fit
    assert machine.at_once(resources, {"CPU": 1.0, "GPU": float(gpus)}) == 1
