"""Commands of a model's card: they make the model again as it is, with every option that is not its default."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import Any

import pytest
from finished import finished_study
from test_cli import call
from test_scored import untrained

from xlite_search import places
from xlite_search.cli import judge
from xlite_search.cli.options import settings_of
from xlite_search.config import RunConfig
from xlite_search.data.splits import CrossFit
from xlite_search.deploy.card_facts import facts
from xlite_search.deploy.cards import model_card
from xlite_search.deploy.delivered import Delivered
from xlite_search.deploy.weights import reads_with
from xlite_search.model_folder import read_model, write_ensemble, write_model
from xlite_search.results.best import best
from xlite_search.results.final import final_config


def commands(folder: Path) -> list[str]:
    found: list[str] = facts(Delivered.read(folder))["reproduce"]["commands"]
    return found


def test_a_verb_without_a_result_and_an_option_that_is_its_default_are_left_out(tiny: RunConfig) -> None:
    folder = untrained(tiny, "m")
    assert commands(folder) == ["export m -o DIR", "predict DIR --selftest"]
    judge.calibrate("m", cpu=True)
    assert commands(folder)[0] == "calibrate m"


def test_calibrates_options_are_there(tiny: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    folder = untrained(tiny, "m")
    given = "calibrate m --method temperature --sensitivity 0.85 --rule youden"
    assert call(capsys, *given.split(), "--cpu")[0] == 0
    assert commands(folder)[0] == given


def test_another_data_set_is_named(tiny: RunConfig) -> None:
    weights, folder = (untrained(tiny, "m") / "model.safetensors").read_bytes(), places.model_folder("m")
    about = read_model(folder)
    write_model(folder, weights, about.model_copy(update={"config": {"model": tiny.model}}))
    judge.calibrate("m", on=tiny.data.name, cpu=True)
    assert commands(folder)[0] == f"calibrate m --on {tiny.data.name}"


def chosen(tiny: RunConfig, split: str, settings: dict[str, Any], name: str = "m", seed: int = 0) -> Path:
    """A model of the best trial of study `s`, changed so."""
    document = best("s")
    config = final_config(document, split, settings, "best.yaml")
    made = {"study": "s", "trial": document["trial"]}
    return untrained(config, name, seed=seed, run="r", provenance=made)


@pytest.mark.parametrize(
    ("split", "settings", "told"),
    [
        ("train", {}, ""),
        ("train+val", {}, "--split train+val "),
        ("train", {"loss": "focal", "optimizer.lr": 2e-5}, None),
        ("train+val", {"epochs": 1, "batch_size": 8, "augment": "light"}, None),
        ("train", {"sampler": {"name": "max_rarity", "no_finding": "unscaled"}, "data.fraction": 0.5}, None),
    ],
)
def test_the_training_is_told_with_what_was_set(
    tiny: RunConfig, split: str, settings: dict[str, Any], told: str | None
) -> None:
    finished_study("s", tiny, [{"seed": 0}, {"seed": 1}], [1.0, 2.0])
    folder = chosen(tiny, split, settings)
    first, train = commands(folder)[:2]
    assert first == "best s -o best.yaml"
    if told is not None:
        assert train == f"train best.yaml {told}--name m"
    words = shlex.split(train)
    given = [value for word, value in itertools.pairwise(words) if word == "--set"]
    part = words[words.index("--split") + 1] if "--split" in words else "train"
    again = final_config(best("s"), part, settings_of(given), "best.yaml")
    assert again == final_config(best("s"), split, settings, "best.yaml"), "the line gives the very config"


def test_seeds_of_an_ensemble_are_counted(tiny: RunConfig) -> None:
    finished_study("s", tiny, [{"optimizer.lr": 1e-3}], [1.0])
    seed = best("s")["config"]["seed"]
    names = [chosen(tiny, "train", {"seed": seed + each, "epochs": 1}, f"e-{each}", each).name for each in range(3)]
    folder = places.model_folder("e")
    write_ensemble(folder, names)
    assert commands(folder)[1] == "train best.yaml --seeds 3 --set epochs=1 --name e"


def test_a_cross_fit_is_told_by_its_folds(tiny: RunConfig) -> None:
    finished_study("s", tiny, [{"optimizer.lr": 1e-3}], [1.0])
    document = best("s")
    config, made = (
        final_config(document, "train", {"epochs": 1}, "best.yaml"),
        {"study": "s", "trial": document["trial"]},
    )
    splits = [CrossFit(of=config.data.split, folds=2, fold=fold) for fold in range(2)]
    parts = [config.model_copy(update={"data": config.data.model_copy(update={"split": split})}) for split in splits]
    names = [untrained(part, f"c-{at}", at, run="r", provenance=made).name for at, part in enumerate(parts)]
    folder = places.model_folder("c")
    write_ensemble(folder, names, config.data.model_copy(update={"fit": "train+val"}))
    text, facts = model_card(folder)
    assert facts["reproduce"]["commands"][1] == "train best.yaml --folds 2 --set epochs=1 --name c"
    assert facts["data"]["folds"] == 2 and "each of 2 members without the fold that judges it" in text
    assert not any("no image was left" in each for each in facts["limits"])


def test_what_cannot_be_told_is_said(tiny: RunConfig) -> None:
    finished_study("s", tiny, [{"seed": 0}], [1.0])
    known, text = facts(Delivered.read(chosen(tiny, "train", {}))), "is not known here and has to be given again"
    assert known["reproduce"]["settings_known"] and text not in model_card(chosen(tiny, "train", {}))[0]
    gone = untrained(tiny, "g", run="r", provenance={"study": "gone", "trial": "0"})
    assert commands(gone)[1] == "train best.yaml --name g" and text in model_card(gone)[0]


def test_the_library_of_the_head_is_one_that_loads_it(tiny: RunConfig) -> None:
    assert "library_name: xlite_search" in model_card(untrained(tiny, "m"))[0]
    assert reads_with("efficientnet_b0_none", 1) == "timm"
    assert {reads_with("efficientnet_b0_mhsa", 1), reads_with("resnet10t_none_ms", 1)} == {"onnx"}
    assert reads_with("resnet10t_none + resnet10t_none", 2) == "onnx"
