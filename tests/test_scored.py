"""Logits of a delivered model on a part of its data: computed once, of these weights and images, in their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_model_folder import weights_of

from xlite_search import places
from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.errors import BadInput, Damaged
from xlite_search.evaluation.named import find_model
from xlite_search.evaluation.scored import FOLDER, data_of, key_of, scored
from xlite_search.model import load_model
from xlite_search.model_folder import ModelManifest, input_of, read_model, write_model
from xlite_search.models.hybrid import build_model

CPU = torch.device("cpu")


def untrained(config: RunConfig, name: str, seed: int = 0, **about: Any) -> Path:
    """The folder of a model that nobody trained."""
    data, home = open_data(config.data), places.model_folder(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_model(config.model, classes=len(data.classes)).eval()
    told = {"config": config.model_dump(mode="json"), "classes": data.classes, "input": input_of(data)} | about
    write_model(home, weights_of(network), ModelManifest(**told))
    return home


@pytest.fixture
def folder(tiny: RunConfig) -> Path:
    return untrained(tiny, "m", pos_weight=(2.0,) * 14)


def test_logits_are_the_models_in_the_order_of_the_part(folder: Path) -> None:
    data = data_of(read_model(folder))
    found = scored(folder, data, "val", CPU)
    pixels = np.array(data.packed.pixels[data.val.rows])
    assert np.array_equal(found.logits, load_model(folder).logits(torch.from_numpy(pixels)).numpy())
    assert found.images == tuple(data.packed.table.names[row] for row in data.val.rows)
    assert np.array_equal(found.truth, data.val.labels > 0) and found.classes == data.classes
    assert len(set(found.groups.tolist())) == len({data.packed.table.groups[row] for row in data.val.rows})


def test_they_are_computed_once_and_are_of_these_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(read_model(folder))
    first = scored(folder, data, "test", CPU)
    monkeypatch.setattr("xlite_search.evaluation.scored._computed", None)
    again = scored(folder, data, "test", CPU)
    assert np.array_equal(first.logits, again.logits) and again.logits.dtype == np.float32
    with pytest.raises(TypeError):
        scored(folder, data, "train", CPU)
    path = folder / FOLDER / f"{key_of(first.of)}.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(Damaged, match="not what was written"):
        scored(folder, data, "test", CPU)


def test_a_model_is_found_by_its_name_or_its_path(folder: Path) -> None:
    assert find_model("m") == find_model(str(folder)) == folder
    with pytest.raises(BadInput, match=r"no model 'n' in .*; models are m"):
        find_model("n")


def test_images_that_are_not_the_models_are_refused(folder: Path, tiny: RunConfig) -> None:
    about = read_model(folder)
    other = about.model_copy(update={"input": about.input | {"size": 64}})
    with pytest.raises(BadInput, match=r"prepared with size = 32, and .* trained on images with size = 64"):
        data_of(other)
    with pytest.raises(BadInput, match="name a prepared data set, --on NAME"):
        data_of(about.model_copy(update={"config": {"model": tiny.model}}))
    no_test = open_data(tiny.with_settings({"data.split.ratios": [0.5, 0.5, 0]}).data)
    with pytest.raises(BadInput, match="the test part is empty"):
        scored(folder, no_test, "test", CPU)
