"""A data set in colour from its files to a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_cli import call

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.data.dataset import Batch, DataSpec, open_data
from xlite_search.data.loaders import Loader, ordered_batches
from xlite_search.data.packed import PackedSet
from xlite_search.data.preprocess import Clahe, Preprocess
from xlite_search.data.sources import image_key
from xlite_search.data.sources.images import read_image
from xlite_search.data.views import Medium, Strong, Views
from xlite_search.errors import BadInput
from xlite_search.model_folder import input_of
from xlite_search.models.hybrid import build_model, expect_channels
from xlite_search.training.optim import AdamW

CPU = torch.device("cpu")
IMAGES, SIZE = 96, 32
#: as bright as each other, to a gray level: what tells them apart is colour alone
RED, GREEN = (170, 70, 60), (60, 116, 92)


def patch(red: bool, number: int) -> NDArray[np.uint8]:
    """A lesion on skin, 48 x 40 px, RGB."""
    rng = np.random.default_rng(number)
    image = np.full((40, 48, 3), 128, np.uint8)
    centre = int(rng.integers(18, 30)), int(rng.integers(16, 24))
    cv2.circle(image, centre, int(rng.integers(8, 14)), RED if red else GREEN, -1)
    return np.asarray(np.clip(image + rng.normal(0, 6, image.shape), 0, 255), np.uint8)


def lesions(folder: Path, suffix: str = ".png") -> list[str]:
    """The folder and its table, as `prepare` takes them: two images a lesion, every other lesion red."""
    (folder / "skin").mkdir()
    lines = ["image_id,lesion_id,malignant"]
    for number in range(IMAGES):
        red = number // 2 % 2 == 0
        image = patch(red, number)
        cv2.imwrite(str(folder / "skin" / f"{number:04d}{suffix}"), image[..., ::-1])
        lines.append(f"{number:04d},L{number // 2},{int(red)}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    about = ["--images", str(folder / "skin"), "--labels", str(folder / "table.csv"), "--classes", "malignant"]
    return [*about, "--patient-column", "lesion_id", "--size", str(SIZE)]


@pytest.fixture
def skin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> PackedSet:
    code, _, err = call(capsys, "prepare", "skin", *lesions(tmp_path), "--channels", "3")
    assert code == 0, err
    return PackedSet.open("skin")


@pytest.fixture
def config(skin: PackedSet) -> RunConfig:
    return RunConfig(
        model="test_efficientnet_none",
        data=DataSpec(name="skin"),
        epochs=1,
        batch_size=16,
        optimizer=AdamW(lr=3e-3),
        early_stopping=None,
    )


def test_colour_is_kept_and_prepared_by_the_same_function(skin: PackedSet, tmp_path: Path) -> None:
    assert (skin.channels, skin.pixels.shape) == (3, (IMAGES, 3, SIZE, SIZE))
    assert skin.preprocess == Preprocess(SIZE, Clahe(), channels=3)
    for row in (0, 2, 95):
        raw = read_image(tmp_path / "skin" / f"{row:04d}.png", channels=3)
        assert np.array_equal(raw.pixels, patch(row // 2 % 2 == 0, row))
        assert np.array_equal(skin.pixels[row], Preprocess(SIZE, channels=3)(raw))
    skin.verify()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_without_the_option_it_is_gray_and_another_set(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = lesions(tmp_path, suffix)
    assert call(capsys, "prepare", "gray", *arguments)[0] == 0
    gray = PackedSet.open("gray")
    file = str(tmp_path / "skin" / f"0007{suffix}")
    luminance: Any = cv2.imread(file, cv2.IMREAD_GRAYSCALE)  # of a JPEG, what it holds; of a PNG, as OpenCV computes it
    raw: NDArray[Any] = (
        luminance if suffix == ".jpg" else cv2.cvtColor(np.asarray(cv2.imread(file)), cv2.COLOR_BGR2GRAY)
    )
    assert np.array_equal(gray.pixels[7], Preprocess(SIZE)(raw))
    code, _, err = call(capsys, "prepare", "gray", *arguments, "--channels", "3")
    assert (code, err.count("\n"), "differs in channels" in err) == (2, 1, True)
    code, _, err = call(capsys, "prepare", "other", *arguments, "--channels", "2")
    assert (code, err.count("\n"), "--channels 2: expected 1 for gray, or 3" in err) == (2, 1, True)
    assert input_of(open_data(DataSpec(name="gray")))["pixels"] == "uint8 gray"


def test_every_channel_of_a_view_is_the_view_of_that_channel(config: RunConfig, skin: PackedSet) -> None:
    data, views = open_data(config.data), Views(Strong())
    made = Loader(data.train, 16, seed=0, device=CPU, augment=Strong())
    batch = next(made.epoch(2))
    assert batch.images.shape == (16, 3, SIZE, SIZE)
    for image, row, view in zip(batch.images.numpy(), batch.rows.tolist(), batch.views.tolist(), strict=True):
        key = image_key(skin.table.names[row])
        for channel in range(3):
            assert np.array_equal(image[channel], views(skin.pixels[row, channel], key, view))
    plain = next(ordered_batches(data.val, 16, CPU))
    assert np.array_equal(plain.images.numpy(), skin.pixels[plain.rows])


def test_workers_change_no_byte_of_it(config: RunConfig) -> None:
    part = open_data(config.data).train

    def made(workers: int) -> list[bytes]:
        drawn = Loader(part, 16, seed=0, device=CPU, augment=Medium(), workers=workers)
        try:
            return [batch.images.numpy().tobytes() for batch in drawn.epoch(1)]
        finally:
            drawn.close()

    assert made(0) == made(2)


def test_a_model_sees_gray_three_times_and_colour_as_it_is() -> None:
    torch.manual_seed(0)
    model = build_model("test_efficientnet_none", classes=1).eval()
    gray = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    colour = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    by_hand = (colour[:, 1] / 255 - model.mean[0, 1]) / model.std[0, 1]
    assert torch.equal(model.normalised(colour)[:, 1], by_hand)
    with torch.inference_mode():
        assert torch.equal(model(gray), model(gray.expand(-1, 3, -1, -1)))
        assert not torch.equal(model(colour), model(colour.flip(1)))
    with pytest.raises(BadInput, match="'ct' has images of 40 channels; models here take 1"):
        expect_channels(40, "ct")


def test_a_training_learns_what_colour_alone_tells(config: RunConfig) -> None:
    (epoch,) = baseline(config.resolved())
    assert {"train/loss", "val/auroc_macro"} <= epoch.metrics.keys()
    settings = {"epochs": 6, "augment": "light", "mixup": 0.2}
    *_, last = baseline(config.with_settings(settings).resolved())
    assert last.metrics["val/auroc_macro"] > 0.95


def test_a_batch_of_colour_is_cut_as_one_of_gray_is(config: RunConfig) -> None:
    batch: Batch = next(ordered_batches(open_data(config.data).train, 16, CPU))
    parts = list(batch.parts(6))
    assert [len(part.rows) for part in parts] == [5, 5, 6]
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
