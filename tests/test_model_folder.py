"""A delivered model's folder: one typed manifest, weights that run no code, loaded from wherever it lies."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

import xlite_search
from xlite_search import storage
from xlite_search.config import RunConfig
from xlite_search.data.dataset import Data, open_data
from xlite_search.data.preprocess import Preprocess, Raw
from xlite_search.errors import BadInput, Damaged
from xlite_search.model_folder import (
    MANIFEST,
    WEIGHTS,
    ModelManifest,
    copy_model,
    exists,
    input_of,
    key_of,
    read_model,
    write_ensemble,
    write_model,
)
from xlite_search.models.hybrid import Hybrid, build_model

MODEL, CLASSES = "test_efficientnet_none", ("Mass", "Hernia", "Edema")
WEIGHT = (1.0, 8.0, 0.5)
#: as the version before the manifest had a type wrote it
OLD: dict[str, Any] = {
    "config": {"model": MODEL, "epochs": 3, "kd": None},
    "run": "0123456789ab",
    "classes": list(CLASSES),
    "input": {"size": 32, "clahe": {"clip_limit": 2.0, "tiles": 8}, "pixels": "uint8 gray"},
    "parameters": 123,
    "pos_weight": list(WEIGHT),
    "best_epoch": 2,
    "metrics": {"val/auroc_macro": 0.75, "model/parameters": 123.0},
    "data": {"name": "phantom", "fingerprint": "f", "split": "s"},
    "trained_on": {"source": {"name": "phantom", "seed": 0}, "patients": ["1", "2"]},
    "notice": "",
    "provenance": {"study": "s", "score": 0.75, "libraries": {"torch": "2"}},
}


def network(seed: int = 0) -> Hybrid:
    """A model whose logits differ from image to image."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(MODEL, classes=len(CLASSES)).train()
        for _ in range(3):
            model(torch.randint(0, 256, (16, 1, 32, 32), dtype=torch.uint8))
        for name, parameter in model.named_parameters():
            parameter.data *= 100 if name == "classifier.2.weight" else 1
    return model.eval()


def weights_of(model: Hybrid) -> bytes:
    return bytes(safetensors.torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))


def folder_of(home: Path, body: dict[str, Any], weights: bytes) -> Path:
    """A model folder as any version leaves it: written past our own writer."""
    sha256 = storage.write_atomic(home / WEIGHTS, weights)
    storage.write_manifest(home / MANIFEST, body | {"sha256": sha256})
    return home


@pytest.fixture(scope="module")
def theirs() -> Hybrid:
    return network()


@pytest.fixture
def folder(theirs: Hybrid, tmp_path: Path) -> Path:
    return folder_of(tmp_path / "elsewhere" / "model", OLD, weights_of(theirs))


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (70, 32, 32), np.uint8)


def test_a_loaded_model_gives_the_sigmoid_of_its_logits_without_pos_weight(
    folder: Path, theirs: Hybrid, images: NDArray[np.uint8]
) -> None:
    model = xlite_search.load_model(folder)
    with torch.no_grad():
        logits = theirs(torch.from_numpy(images)[:, None]).double().numpy()
    expected = 1 / (1 + np.exp(-logits) * np.array(WEIGHT))  # odds by odds: e^(z - log w)
    found = model.probabilities(images)
    assert model.classes == CLASSES
    assert found.dtype == np.float32 and found.shape == (70, 3)
    assert np.allclose(found, expected, atol=1e-5)
    assert np.array_equal(model.probabilities(images[:, None]), found)
    assert found.std(axis=0).min() > 1e-3, "else this shows nothing"
    assert not any(p.requires_grad for each in model.models for p in each.parameters())
    assert model.probabilities(images[:0]).shape == (0, 3)


def test_raw_images_of_any_size_are_prepared_as_it_was_trained(folder: Path) -> None:
    rng, model = np.random.default_rng(1), xlite_search.load_model(str(folder))
    raw: list[Any] = [rng.integers(0, 256, shape, np.uint8) for shape in ((64, 64), (50, 80), (20, 16))]
    raw += [rng.integers(0, 4096, (40, 40), np.uint16), Raw(raw[1], inverted=True)]
    assert model.preprocess == Preprocess(32)
    prepared = model.prepared(raw)
    assert prepared.shape == (5, 1, 32, 32) and prepared.dtype == np.uint8
    assert all(np.array_equal(one, Preprocess(32)(image)) for one, image in zip(prepared, raw, strict=True))
    assert np.array_equal(model.probabilities(raw, raw=True), model.probabilities(prepared))
    assert model.probabilities([], raw=True).shape == (0, 3)


def test_a_model_of_rgb_images_takes_rgb(theirs: Hybrid, tmp_path: Path) -> None:
    spec = Preprocess(32, clahe=None, channels=3, resize="crop")
    body = OLD | {"input": spec.describe() | {"pixels": "uint8 RGB"}}
    model = xlite_search.load_model(folder_of(tmp_path / "rgb", body, weights_of(theirs)))
    raw = [np.random.default_rng(2).integers(0, 256, (40, 50, 3), np.uint8)]
    assert model.preprocess == spec
    assert model.prepared(raw).shape == (1, 3, 32, 32)
    assert np.array_equal(model.probabilities(raw, raw=True), model.probabilities(spec(raw[0])[None]))
    with pytest.raises(BadInput, match=r"are uint8 \[1, 32, 32\]; expected uint8 \[image, 3, 32, 32\]"):
        model.probabilities(np.zeros((1, 32, 32), np.uint8))


@pytest.mark.parametrize("clahe", [{"clip": 1.0}, "some"])
def test_a_preparation_that_this_version_does_not_know_is_one_sentence(
    clahe: Any, theirs: Hybrid, tmp_path: Path
) -> None:
    body = OLD | {"input": {"size": 32, "clahe": clahe}}
    model = xlite_search.load_model(folder_of(tmp_path / "m", body, weights_of(theirs)))
    with pytest.raises(BadInput, match="says that its images were prepared as this version cannot"):
        model.prepared([])


@pytest.mark.parametrize(
    ("given", "raw", "sentence"),
    [
        (
            np.zeros((2, 32, 32)),
            False,
            r"are float64 \[2, 32, 32\]; expected uint8 \[image, 1, 32, 32\], or raw ones",
        ),
        (np.zeros((2, 64, 64), np.uint8), False, r"are uint8 \[2, 64, 64\]; expected uint8 \[image, 1, 32, 32\]"),
        (np.zeros((2, 3, 32, 32), np.uint8), False, r"are uint8 \[2, 3, 32, 32\]"),
        (np.zeros((32, 32), np.uint8), False, r"are uint8 \[32, 32\]"),
        ([np.zeros((4, 4), np.uint8), np.zeros((5, 5), np.uint8)], False, r"differ in size; .* raw ones with raw=True"),
        ([np.zeros((4, 4), np.uint8), np.zeros((5, 5, 2), np.uint8)], True, r"an image of 2 channels, where 1 are pre"),
        ([np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.bool_)], True, r"raw image 2 is bool \[4, 4\]; expected num"),
        ([np.zeros((0, 4), np.uint8)], True, r"raw image 1 is uint8 \[0, 4\]"),
    ],
)
def test_what_is_no_such_image_is_refused_with_its_shape(given: Any, raw: bool, sentence: str, folder: Path) -> None:
    with pytest.raises(BadInput, match=sentence):
        xlite_search.load_model(folder).probabilities(given, raw=raw)


def test_loading_leaves_the_seed_as_it_was(folder: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    xlite_search.load_model(folder)
    assert torch.equal(torch.rand(3), expected)


def test_an_ensemble_is_the_mean_of_its_members_logits_wherever_it_lies(
    tmp_path: Path, theirs: Hybrid, images: NDArray[np.uint8]
) -> None:
    for name, model in (("a", theirs), ("b", network(1))):
        folder_of(tmp_path / name, OLD, weights_of(model))
    write_ensemble(tmp_path / "both", ["a", "b"])
    moved = shutil.move(tmp_path, tmp_path.with_name(f"{tmp_path.name}-moved"))
    one, two, both = (xlite_search.load_model(Path(moved) / name) for name in ("a", "b", "both"))
    odds = [np.log(p / (1 - p)) for p in (one.probabilities(images), two.probabilities(images))]
    assert np.allclose(both.probabilities(images), 1 / (1 + np.exp(-(odds[0] + odds[1]) / 2)), atol=1e-4)
    assert both.preprocess == one.preprocess


# The manifest


def test_an_older_folder_is_read_and_written_again_to_the_letter(folder: Path, tmp_path: Path) -> None:
    """A study that was begun with it knows it by a hash of all that it says."""
    body = storage.read_manifest(folder / MANIFEST)
    about = read_model(folder)
    assert about.as_json() == body
    assert key_of(folder) == storage.digest(body)[:12]
    assert (about.model, about.best_epoch, about.pos_weight) == (MODEL, 2, WEIGHT)
    assert about.data is not None and about.data.fingerprint == "f"
    assert about.trained_on is not None and about.trained_on.patients == ("1", "2")
    write_model(tmp_path / "again", (folder / WEIGHTS).read_bytes(), about)
    assert storage.read_manifest(tmp_path / "again" / MANIFEST) == body
    copy_model(folder, tmp_path / "copy")
    assert (key_of(tmp_path / "copy"), exists(tmp_path / "copy")) == (key_of(folder), True)


def test_a_number_that_another_program_wrote_without_its_point_leaves_the_key_as_it_is(
    theirs: Hybrid, tmp_path: Path
) -> None:
    body = OLD | {"metrics": {"val/auroc_macro": 1}}
    folder = folder_of(tmp_path / "one", body, weights_of(theirs))
    copy_model(folder, tmp_path / "copy")
    assert read_model(folder).metrics == {"val/auroc_macro": 1.0}
    assert key_of(tmp_path / "copy") == key_of(folder) == storage.digest(storage.read_manifest(folder / MANIFEST))[:12]


def test_what_a_folder_does_not_say_is_not_known(theirs: Hybrid, tmp_path: Path, images: NDArray[np.uint8]) -> None:
    body = {"config": {"model": MODEL}, "classes": list(CLASSES), "input": {}, "pos_weight": None, "metrics": {}}
    model = xlite_search.load_model(folder_of(tmp_path / "m", body, weights_of(theirs)))
    assert (model.manifest.data, model.manifest.trained_on, model.manifest.provenance) == (None, None, {})
    assert model.probabilities(images).shape == (70, 3)
    assert model.probabilities(images[:, :24]).shape == (70, 3)
    with pytest.raises(BadInput, match=r"expected uint8 \[image, channel, height, width\]"):
        model.probabilities(images.astype(float))
    with pytest.raises(BadInput, match="does not say how its images were prepared"):
        model.probabilities(list(images), raw=True)


def test_a_manifest_is_frozen(folder: Path) -> None:
    about = read_model(folder)
    with pytest.raises(Exception, match="frozen"):
        about.run = "another"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"layers": 3}, r"model\.json is not of this version of xlite_search: unknown setting 'layers'"),
        (
            {"classes": []},
            r"is not of this version of xlite_search: classes = \[\]: input should be a list of at le",
        ),
        (
            {"pos_weight": "a lot"},
            r"is not of this version of xlite_search: pos_weight = 'a lot': input should be a li",
        ),
        ({"config": {"model": "no_such_net_none"}}, r"model folder m: unknown backbone 'no_such_net'"),
        ({"config": {}}, r"model folder m: unknown backbone ''"),
        ({"classes": ["Mass"]}, rf"model folder m: its weights are not those of a '{MODEL}' with 1 findings"),
        ({"config": {"model": "test_resnet_none"}}, r"its weights are not those of a 'test_resnet_none' with 3 findin"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_one_sentence(
    changed: dict[str, Any], sentence: str, theirs: Hybrid, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "m", OLD | changed, weights_of(theirs))
    with pytest.raises(BadInput, match=sentence):
        xlite_search.load_model(folder)


@pytest.mark.parametrize("place", [".", "nowhere", "a_file"])
def test_what_is_no_model_folder_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("no folder")
    with pytest.raises(BadInput, match=r"is not a model folder \(no model\.json in it\)"):
        xlite_search.load_model(tmp_path / place)


def test_other_weights_than_the_manifests_are_damage(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(Damaged, match=r"model\.safetensors is missing or is not the file that model\.json names"):
        xlite_search.load_model(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(Damaged, match=r"model\.safetensors is missing"):
        xlite_search.load_model(folder)


class Trap:
    """Unpickled, it leaves a folder behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_code_in_the_place_of_weights_never_runs(tmp_path: Path) -> None:
    """Even where the manifest vouches for it: whoever made the folder made both."""
    file = io.BytesIO()
    torch.save({"backbone": Trap(tmp_path / "mark")}, file)
    folder = folder_of(tmp_path / "m", OLD, file.getvalue())
    with pytest.raises(BadInput, match="its weights are not those of"):
        xlite_search.load_model(folder)
    assert not (tmp_path / "mark").exists()


def test_what_a_data_set_is_prepared_by_comes_back_from_its_models_folder(tiny: RunConfig, tmp_path: Path) -> None:
    data: Data = open_data(tiny.data)
    about = ModelManifest(config={"model": MODEL}, classes=data.classes, input=input_of(data))
    with torch.random.fork_rng():
        weights = weights_of(build_model(MODEL, classes=len(data.classes)))
    write_model(tmp_path / "m", weights, about)
    model = xlite_search.load_model(tmp_path / "m")
    assert model.preprocess.describe().items() <= input_of(data).items()
    assert model.probabilities(np.asarray(data.packed.pixels[:3])).shape == (3, len(data.classes))
