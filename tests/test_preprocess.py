"""What is done to an image, whoever does it, and where a box lies then."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xlite_search.data.boxes import Box, Placement
from xlite_search.data.preprocess import Clahe, Preprocess, Raw
from xlite_search.errors import BadInput

PLAIN = Preprocess(32, clahe=None)
SPECS = [
    PLAIN,
    Preprocess(224),
    Preprocess(64, Clahe(3.0, 4), 0.0, (-160.0, 240.0), "crop", 3),
    Preprocess(96, None, 2.5, None, "pad", 5),
]


def noise(*shape: int, dtype: Any = np.uint8, high: int = 256) -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, high, shape).astype(dtype)


# The settings


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_is_read_back_from_its_description_in_any_manifest(spec: Preprocess) -> None:
    manifest = json.loads(json.dumps({"format": 4, **spec.describe(), "images": 7}))
    assert Preprocess.described(manifest) == spec
    assert len({json.dumps(each.identity) for each in SPECS}) == len(SPECS)


def test_what_an_earlier_version_did_is_read_from_what_it_wrote() -> None:
    assert Preprocess.described({"size": 64, "clahe": {"clip_limit": 2.0, "tiles": 8}}) == Preprocess(64)
    assert Preprocess.described({"size": 64, "clahe": None}) == Preprocess(64, None)
    assert Preprocess(64).identity == {"size": 64, "clahe": {"clip_limit": 2.0, "tiles": 8}}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 16}, "--size 16: expected 32 to 1024 pixels"),
        ({"stretch": -1}, "--stretch -1: expected 0 to 10 percent"),
        ({"channels": 0}, "--channels 0: expected 1 for gray, or 3"),
        ({"window": (5.0, 5.0)}, r"window \[5.0, 5.0\]: expected two values, the smaller one first"),
    ],
)
def test_a_setting_out_of_range_is_a_sentence(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Preprocess(**({"size": 32} | wrong))


def test_it_needs_numpy_and_cv2_alone() -> None:
    code = (
        "import sys, xlite_search.data.preprocess\n"
        "files = {name: getattr(module, '__file__', None) or '' for name, module in sys.modules.items()}\n"
        "named = {name.partition('.')[0] for name, file in files.items() if 'site-packages' in file}\n"
        "print(sorted(name for name in named if not name.startswith('_')))"
    )
    root = Path(__file__).parents[1]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert {"cv2", "numpy"} <= set(eval(found.stdout)) <= {"cv2", "numpy", "xlite_search"}


# More than eight bits


def test_a_window_shows_the_same_gray_for_the_same_value_in_every_image() -> None:
    spec = Preprocess(32, window=(-100.0, 155.0))
    values = np.array([[-1000, -100, -99, 0, 154, 155, 3000] * 8] * 40, np.int16)
    assert spec.shown(Raw(values))[0, :7].tolist() == [0, 0, 1, 100, 254, 255, 255]
    assert spec.shown(Raw(values.astype(np.float32)))[0, :7].tolist() == [0, 0, 1, 100, 254, 255, 255]
    assert np.array_equal(spec.shown(Raw(noise(40, 40))), noise(40, 40)), "eight bits are as they are"


def test_the_stretch_of_a_colour_image_is_one_for_all_channels() -> None:
    image = np.zeros((40, 40, 3), np.uint16)
    image[...] = 1000, 1500, 2000
    image[0, 0], image[0, 1] = 0, 4080
    shown = Preprocess(32, stretch=0, channels=3).shown(Raw(image))
    assert shown[5, 5].tolist() == [62, 94, 125]  # 1000 / 4080 * 255 = 62.5, half to even; 93.75; 125
    assert (shown[0, 0].tolist(), shown[0, 1].tolist()) == ([0, 0, 0], [255, 255, 255])


def test_padding_is_black_and_does_not_count_and_inversion_comes_before_it() -> None:
    values = np.full((40, 40), 9000, np.uint16)
    values[:, :30] = np.linspace(100, 355, 30).astype(np.uint16)
    shown = Preprocess(32, stretch=0).shown(Raw(values, values == 9000, inverted=True))
    assert (shown[0, 0], shown[0, 29], shown[0, 35]) == (255, 0, 0)


@pytest.mark.parametrize("aspect", [1.0, 1.004, 0.5, 1.25])
def test_pixels_become_square_and_none_is_lost(aspect: float) -> None:
    raw = Raw(noise(40, 64), aspect=aspect)
    expected = {1.0: (40, 64), 1.004: (40, 64), 0.5: (40, 128), 1.25: (50, 64)}[aspect]
    assert raw.size == Preprocess(32).shown(raw).shape == expected


@pytest.mark.parametrize(
    ("raw", "blank"),
    [
        (Raw(np.full((40, 40), 7, np.uint8)), True),
        (Raw(np.full((40, 40, 3), (7, 8, 9), np.uint8)), True),
        (Raw(noise(40, 40)), False),
        (Raw(np.full((40, 40), 7, np.uint16), np.eye(40) > 0), True),
        (Raw(np.full((40, 40), 7, np.uint16), np.eye(40) > 0, inverted=True), False),
        (Raw(np.full((40, 40), 7, np.uint8), np.eye(40) > 0), False),
        (Raw(np.full((40, 40), 255, np.uint8), np.eye(40) > 0, inverted=True), True),
        (Raw(np.full((40, 40), 7, np.int16), np.ones((40, 40), np.bool_)), True),
    ],
)
def test_an_image_is_blank_if_nothing_of_it_can_be_seen(raw: Raw, blank: bool) -> None:
    assert raw.is_blank == blank
    channels = 1 if raw.pixels.ndim == 2 else 3
    shown = Preprocess(32, stretch=0, channels=channels).shown(raw)
    assert bool((np.ptp(shown, axis=(0, 1)) == 0).all()) == blank


# Colour


def test_colour_is_red_green_blue_and_each_channel_is_resized_as_gray_is() -> None:
    image = noise(50, 70, 3)
    found = Preprocess(32, clahe=None, channels=3)(image)
    assert found.shape == (3, 32, 32)
    for channel in range(3):
        assert np.array_equal(found[channel], PLAIN(image[..., channel])[0])


def test_clahe_of_colour_is_of_its_lightness() -> None:
    image = cv2.GaussianBlur(noise(64, 64, 3), (0, 0), 5)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    light = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    expected = cv2.cvtColor(np.dstack([light, lab[..., 1], lab[..., 2]]), cv2.COLOR_LAB2RGB)
    found = Preprocess(64, channels=3)(image)
    assert np.array_equal(np.moveaxis(found, 0, 2), expected)
    assert not np.array_equal(found, Preprocess(64, None, channels=3)(image))


def test_gray_is_repeated_for_colour_and_colour_is_its_luminance_for_gray() -> None:
    gray, colour = noise(40, 40), noise(40, 40, 3)
    repeated = Preprocess(32, None, channels=3)(gray)
    assert all(np.array_equal(channel, PLAIN(gray)[0]) for channel in repeated)
    assert np.array_equal(PLAIN(colour)[0], PLAIN(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY))[0])
    assert np.array_equal(PLAIN(gray[..., None]), PLAIN(gray))
    with pytest.raises(BadInput, match="an image of 5 channels, where 3 are prepared"):
        Preprocess(32, channels=3)(noise(40, 40, 5))


def test_more_channels_are_prepared_each_as_gray() -> None:
    image = noise(48, 40, 5)
    found = Preprocess(32, channels=5)(image)
    assert found.shape == (5, 32, 32)
    assert all(np.array_equal(found[c], Preprocess(32)(image[..., c])[0]) for c in range(5))


# Boxes


def test_where_a_box_lies_by_hand() -> None:
    wide = Placement.of(height=100, width=200, size=50)  # 50 black rows above and below, then a quarter
    assert wide.onto(Box("Mass", 20, 10, 40, 60)) == Box("Mass", 5, 15, 10, 15)
    assert wide.back(Box("Mass", 5, 15, 10, 15)) == Box("Mass", 20, 10, 40, 60)
    middle = Placement.of(height=100, width=200, size=50, crop=True)  # without 50 columns at either side, then half
    assert middle.onto(Box("Mass", 60, 10, 40, 60)) == Box("Mass", 5, 5, 20, 30)


LENGTH = st.integers(32, 128)


@given(LENGTH, LENGTH, st.sampled_from([32, 50, 64, 97, 200]), st.sampled_from(["pad", "crop"]), st.data())
@settings(deadline=None, max_examples=200)
def test_a_box_lies_where_its_pixels_do_to_a_pixel(height: int, width: int, size: int, how: Any, data: Any) -> None:
    spec = Preprocess(size, clahe=None, resize=how)
    at, side = spec.placement(height, width), max(height, width) if how == "pad" else min(height, width)
    top, left = (0, 0) if how == "pad" else (-((side - height) // 2), -((side - width) // 2))
    high, wide = (height, width) if how == "pad" else (side, side)
    x, y = (data.draw(st.integers(start, start + room - 9)) for start, room in ((left, wide), (top, high)))
    w, h = data.draw(st.integers(8, left + wide - x)), data.draw(st.integers(8, top + high - y))
    raw = np.zeros((height, width), np.uint8)
    raw[y : y + h, x : x + w] = 255
    box = Box("Mass", x, y, w, h)
    found_x, found_y, found_w, found_h = cv2.boundingRect((spec(raw)[0] >= 128).astype(np.uint8))
    onto = at.onto(box)
    edges = np.array([onto.x, onto.y, onto.x + onto.width, onto.y + onto.height])
    assert np.abs(edges - [found_x, found_y, found_x + found_w, found_y + found_h]).max() <= 1
    again = at.back(onto)
    assert again.label == "Mass" and again[1:] == pytest.approx(box[1:], abs=1e-9)
