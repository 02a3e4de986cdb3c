from __future__ import annotations

import hashlib
import importlib.metadata
import os
import pickle
import platform
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xlite_search.data.distortions import ELASTIC_SIGMA, displacement
from xlite_search.data.sources import image_key
from xlite_search.data.sources.phantom import Phantom
from xlite_search.data.views import (
    Augment,
    Light,
    Medium,
    Strong,
    Views,
    _Numbers,
    contact_sheet,
    fingerprint,
    mixup,
    view_number,
)
from xlite_search.errors import BadInput
from xlite_search.spec import Spec, parse
from xlite_search.training.losses import BCE, Asymmetric, Focal, Loss, Mixed, WeightedBCE

Image = NDArray[np.uint8]

SIDE = 64
NAMES = ("00000001_000.png", "00000001_001.png", "00000002_000.png")
KEYS = [image_key(name) for name in NAMES]
SPECS: tuple[Augment, ...] = (Light(), Medium(), Strong(distort=1.0))
STRENGTHS = ("flip", "rotate", "shift", "zoom", "brightness", "contrast", "gamma", "elastic", "grid", "optical")


class Run(Spec):
    """As a run's config holds it."""

    augment: Augment | None = None


def only(**strengths: float) -> Views:
    """Views that do nothing but what is named."""
    return Views(Light(**(dict.fromkeys(STRENGTHS, 0.0) | {"distort": 1.0} | strengths)))


def pictures() -> list[Image]:
    phantom = Phantom(images=3, size=SIDE)
    return [phantom.pixels(row) for row in range(3)]


PICTURES = pictures()


def drawn(views: Views, image: int, view: int) -> bytes:
    return views(PICTURES[image], KEYS[image], view).tobytes()


def disk(x: int, y: int, side: int = 129, radius: int = 4) -> Image:
    image = np.zeros((side, side), np.uint8)
    cv2.circle(image, (x, y), radius, 255, -1)
    return image


def centre_of_mass(image: Image) -> complex:
    """From the middle of the image, x + iy with y upwards."""
    rows, columns = np.indices(image.shape)
    weight = image.astype(float) / image.sum()
    middle = (image.shape[0] - 1) / 2
    return complex((weight * columns).sum() - middle, middle - (weight * rows).sum())


def many(views: Views, image: Image, count: int = 400) -> Iterator[Image]:
    return (views(image, KEYS[0], view) for view in range(count))


# what can be set


def test_a_strength_is_named_in_short() -> None:
    assert parse(Run, {"augment": "medium"}) == parse(Run, {"augment": {"name": "medium"}}) == Run(augment=Medium())
    assert Run().with_settings({"augment": "strong", "augment.rotate": 5}).augment == Strong(rotate=5.0)
    assert parse(Run, {}).augment is None


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ("mediun", r"augment = 'mediun' is not known.*light, medium, strong.*did you mean 'medium'"),
        ({"name": "light", "rotat": 1}, r"augment.*rotat.*did you mean 'augment.rotate'"),
        ({"name": "light", "rotate": 46}, r"augment\.rotate = 46: .*less than or equal to 45"),
        ({"name": "light", "flip": -0.1}, r"augment\.flip = -0\.1: .*greater than or equal to 0"),
        ({"name": "light", "views": 0}, r"augment\.views = 0: .*greater than or equal to 1"),
        ({"name": "light", "gamma": float("nan")}, r"augment\.gamma = nan"),
    ],
)
def test_a_bad_setting_is_one_sentence(tree: object, says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        parse(Run, {"augment": tree})
    assert "\n" not in str(caught.value)


def test_each_strength_changes_more_than_the_one_before() -> None:
    def distance(spec: Augment) -> float:
        image = PICTURES[0].astype(float)
        return float(np.mean([abs(view - image).mean() for view in many(Views(spec), PICTURES[0], 60)]))

    light, medium, strong = distance(Light(flip=0)), distance(Medium(flip=0)), distance(Strong(flip=0))
    assert 1.3 * light < medium
    assert 1.1 * medium < strong


# the same pixels, whatever happens


def test_a_key_is_64_bits_of_blake2b_of_the_name() -> None:
    assert image_key("00000001_000.png") == 0x7E300FCD_AD569250  # b2sum -l 64, read from its end
    assert image_key("Lunge_ä.png") == int.from_bytes(
        hashlib.blake2b(b"Lunge_\xc3\xa4.png", digest_size=8).digest(), "little"
    )


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1))
@settings(deadline=None, max_examples=60)
def test_numbers_are_those_of_numpys_philox(one: int, other: int, view: int) -> None:
    numbers = _Numbers()
    numbers.begin((1, 2), 3)
    numbers.gauss(0, 1)
    numbers.getrandbits(7)
    np.random.Generator(numbers.philox).integers(0, 9, dtype=np.uint32)
    numbers.begin((one, other), view)
    key, counter = np.array([one, other], np.uint64), np.array([0, view, 0, 0], np.uint64)
    reference = np.random.Generator(np.random.Philox(key=key, counter=counter))
    assert [numbers.random() for _ in range(9)] == reference.random(9).tolist()
    assert np.array_equal(
        np.random.Generator(numbers.philox).standard_normal(9), reference.standard_normal(9)
    )  # both kinds of number come from one stream


@given(st.integers(0, 200), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_bits_are_as_many_as_asked_for(bits: int, view: int) -> None:
    numbers = _Numbers()
    numbers.begin((1, 2), view)
    drawn = [numbers.getrandbits(bits) for _ in range(50)]
    assert min(drawn) >= 0 and max(drawn).bit_length() <= bits <= max(drawn).bit_length() + 20
    numbers.begin((1, 2), view)
    first = [numbers.gauss(0, 1) for _ in range(3)]
    numbers.begin((1, 2), view)
    assert [numbers.gauss(0, 1) for _ in range(3)] == first


def test_whole_numbers_are_even() -> None:
    numbers = _Numbers()
    numbers.begin((1, 2), 3)
    counts = np.bincount([numbers.randrange(3) for _ in range(3000)])
    assert len(counts) == 3 and np.abs(counts - 1000).max() < 4 * np.sqrt(3000 * 2 / 9)


calls = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=12)


@cache
def expected() -> dict[tuple[int, int, int], bytes]:
    """(spec, image, view) -> the view as an object of its own makes it first."""
    return {
        (number, image, view): drawn(Views(spec), image, view)
        for number, spec in enumerate(SPECS)
        for image in range(3)
        for view in range(5)
    }


@given(calls)
@settings(deadline=None, max_examples=50)
def test_a_view_is_the_same_in_any_order(calls: list[tuple[int, int, int]]) -> None:
    shared = [Views(spec) for spec in SPECS]
    for image, view, number in calls:
        random.seed(view)
        np.random.seed(view)
        cv2.setRNGSeed(view)
        assert drawn(shared[number], image, view) == expected()[number, image, view]
        shared[number] = pickle.loads(pickle.dumps(shared[number]))


def everything(views: list[Views]) -> dict[tuple[int, int, int], bytes]:
    return {key: drawn(views[key[0]], key[1], key[2]) for key in expected()}


def test_threads_within_a_view_change_nothing() -> None:
    before = cv2.getNumThreads(), torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            cv2.setNumThreads(threads)
            torch.set_num_threads(threads)
            assert everything([Views(spec) for spec in SPECS]) == expected()
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def test_one_object_serves_many_threads() -> None:
    shared = [Views(spec) for spec in SPECS]
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: everything(shared), range(16)):
            assert found == expected()


def test_images_of_several_sizes_may_take_turns() -> None:
    views, big = Views(Strong(distort=1)), cv2.resize(PICTURES[0], (96, 96))
    alone = Views(Strong(distort=1))(np.asarray(big, np.uint8), 5, 1)
    for _ in range(2):
        assert drawn(views, 0, 1) == expected()[2, 0, 1]
        assert np.array_equal(views(np.asarray(big, np.uint8), 5, 1), alone)


PROCESS = """
import hashlib, os, sys
import xlite_search.data.views as v
views = [v.Views(s) for s in (v.Light(), v.Medium(), v.Strong(distort=1.0))]
import cv2, random, numpy as np, torch
cv2.setNumThreads(int(sys.argv[1])); torch.set_num_threads(int(sys.argv[1]))
random.seed(int(sys.argv[1])); np.random.seed(int(sys.argv[1]))
pictures = np.load(sys.argv[2])
sha = hashlib.sha256()
for view in range(5):
    for image in range(3):
        for each in views:
            sha.update(each(pictures[image], v.image_key(sys.argv[3 + image]), view).tobytes())
assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
print(sha.hexdigest())
"""


def test_every_process_sees_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "pictures.npy", np.stack(PICTURES))
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROCESS, str(number), str(tmp_path / "pictures.npy"), *NAMES],
            env=environment | {"PYTHONHASHSEED": str(number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (1, 2)
    ]
    found = [process.communicate()[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    sha = hashlib.sha256()
    for view in range(5):
        for image in range(3):
            for number in range(3):
                sha.update(expected()[number, image, view])
    assert found == [sha.hexdigest()] * 2


def test_nobody_elses_random_numbers_are_touched() -> None:
    def state() -> tuple[Any, ...]:
        cv2.setRNGSeed(3)
        everything([Views(spec) for spec in SPECS])
        return random.getstate(), str(np.random.get_state()), cv2.randu(np.zeros(4, np.uint8), 0, 255).tolist()

    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), str(np.random.get_state())
    cv2.setRNGSeed(3)
    untouched = cv2.randu(np.zeros(4, np.uint8), 0, 255).tolist()
    assert state() == (*before, untouched)


def test_views_and_images_and_settings_differ() -> None:
    assert len(set(expected().values())) == len(expected())
    views = Views(Medium())
    assert len({views(PICTURES[0], key, view).tobytes() for key in KEYS for view in range(50)}) == 150
    assert len({Views(Medium(shift=0.01 * n))(PICTURES[0], 1, 1).tobytes() for n in range(10)}) == 10


def test_two_settings_share_no_draw() -> None:
    one, other = only(flip=0.5), only(flip=0.5, distort=0.3)
    pairs = zip(many(one, PICTURES[0]), many(other, PICTURES[0]), strict=True)
    assert 160 <= sum(np.array_equal(first, second) for first, second in pairs) <= 240


def test_the_number_of_views_changes_no_view() -> None:
    assert drawn(Views(Medium(views=5)), 0, 3) == drawn(Views(Medium()), 0, 3)
    assert fingerprint(Medium(views=5)) == fingerprint(Medium())
    same = Light(**Medium().model_dump(exclude={"name"}))
    assert fingerprint(same) == fingerprint(Medium())
    assert drawn(Views(same), 0, 3) == drawn(Views(Medium()), 0, 3)


def test_a_fingerprint_changes_with_settings_and_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    settings_of_medium = Medium().model_dump(exclude={"name", "views"})
    found = {fingerprint(Medium(**{name: value / 2 + 0.01})) for name, value in settings_of_medium.items()}
    found |= {fingerprint(spec) for spec in (Light(), Medium(), Strong())}
    assert len(found) == len(settings_of_medium) + 3
    before = fingerprint(Medium())
    monkeypatch.setattr(cv2, "__version__", "0.0")
    other_cv2 = fingerprint(Medium())
    monkeypatch.undo()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0")
    assert len({before, other_cv2, fingerprint(Medium())}) == 3


GOLDEN = {
    "albumentations": "2.0.8",
    "opencv": "5.0.0",
    "views": {"light": "c19db1afc631d2a1", "medium": "f78fe8f3c9d55eb7", "strong": "08c52aef2acba073"},
}


def test_views_are_those_that_were_recorded() -> None:
    there = {"albumentations": importlib.metadata.version("albumentations"), "opencv": cv2.__version__}
    same_cpu = platform.machine() in ("x86_64", "AMD64") and "AVX2" in cv2.getCPUFeaturesLine()
    if there != {library: GOLDEN[library] for library in there} or not same_cpu:
        pytest.skip(f"recorded with other libraries or on another kind of CPU; here are {there}")
    ramp = np.add.outer(np.arange(SIDE), 2 * np.arange(SIDE)).astype(np.uint8)
    found = {}
    for spec in SPECS:
        sha = hashlib.sha256()
        for view in range(20):
            sha.update(Views(spec)(ramp, KEYS[0], view).tobytes())
        found[spec.name] = sha.hexdigest()[:16]
    assert found == GOLDEN["views"]


# what each setting does


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("shape", [(64, 64), (33, 33), (48, 64)])
def test_shape_and_type_are_kept(spec: Augment, shape: tuple[int, int]) -> None:
    for value in (0, 77, 255):
        image = np.full(shape, value, np.uint8)
        for view in range(4):
            found = Views(spec)(image, 1, view)
            assert found.shape == shape and found.dtype == np.uint8 and type(found) is np.ndarray
            assert found.flags.c_contiguous and found.flags.writeable and not np.shares_memory(found, image)
        assert (image == value).all()


def test_nothing_switched_on_is_the_image_itself(tmp_path: Path) -> None:
    PICTURES[0].tofile(tmp_path / "pixels")
    mapped = np.memmap(tmp_path / "pixels", np.uint8, "r", shape=(SIDE, SIDE))
    found = only()(mapped, 1, 1)
    found[0, 0] ^= 1
    assert (found != mapped).sum() == 1
    assert np.array_equal(only(distort=0.0, elastic=0.02, grid=0.2)(mapped, 1, 1), mapped)
    across = np.asarray(PICTURES[0].T)
    assert np.array_equal(only(flip=1.0)(across, 1, 1), across[:, ::-1])


def test_flip_only_mirrors_left_and_right() -> None:
    assert all(np.array_equal(view, PICTURES[0][:, ::-1]) for view in many(only(flip=1.0), PICTURES[0], 5))


def test_half_of_the_views_are_mirrored() -> None:
    mirrored = [np.array_equal(view, PICTURES[0][:, ::-1]) for view in many(only(flip=0.5), PICTURES[0])]
    straight = [np.array_equal(view, PICTURES[0]) for view in many(only(flip=0.5), PICTURES[0])]
    assert sum(mirrored) + sum(straight) == 400
    assert 160 <= sum(mirrored) <= 240  # four standard deviations


def test_rotation_is_about_the_centre_and_within_its_degrees() -> None:
    place = 40 + 0j
    turned = [centre_of_mass(view) for view in many(only(rotate=15.0), disk(104, 64), 200)]
    assert max(abs(abs(z) - abs(place)) for z in turned) < 0.2
    degrees = np.degrees(np.angle(turned))
    assert -15.3 < degrees.min() < -13.5 and 13.5 < degrees.max() < 15.3
    assert abs(degrees.mean()) < 4 * 15 / np.sqrt(3 * 200)
    for view in many(only(rotate=15.0, flip=1.0), disk(104, 64), 20):
        assert centre_of_mass(view).real == pytest.approx(-40, abs=40 * (1 - np.cos(np.radians(15))) + 0.2)


def test_what_is_in_the_centre_stays_there() -> None:
    for views in (only(rotate=45.0), only(zoom=0.2), only(flip=0.5)):
        assert max(abs(centre_of_mass(view)) for view in many(views, disk(64, 64), 50)) < 0.05


def test_shift_is_a_share_of_the_side_in_both_directions() -> None:
    moved = np.array([centre_of_mass(view) for view in many(only(shift=0.1), disk(64, 64), 200)])
    for part in (moved.real, moved.imag):
        assert -12.95 < part.min() < -11 and 11 < part.max() < 12.95
    assert abs(np.corrcoef(moved.real, moved.imag)[0, 1]) < 4 / np.sqrt(200)


def test_zoom_is_about_the_centre_and_keeps_the_proportions() -> None:
    image = np.maximum(disk(104, 64), disk(64, 24))
    for size in (radii := [zoomed(view) for view in many(only(zoom=0.2), image, 200)]):
        assert size[0] == pytest.approx(size[1], abs=0.3)
    scale = np.array(radii)[:, 0] / 40
    assert 0.79 < scale.min() < 0.83 and 1.17 < scale.max() < 1.21


def zoomed(view: Image) -> tuple[float, float]:
    """How far right the right disk is, and how far up the upper one."""
    right, upper = view.copy(), view.copy()
    right[:44], upper[44:] = 0, 0
    return centre_of_mass(right).real, centre_of_mass(upper).imag


def test_outside_of_the_image_is_black() -> None:
    white = np.full((SIDE, SIDE), 255, np.uint8)
    for views in (only(rotate=20.0), only(shift=0.1), only(zoom=0.2), only(rotate=20.0, elastic=0.02)):
        black = [(view == 0).mean() for view in many(views, white, 60)]
        assert max(black) > 0.03
    for spec in (Medium(brightness=0), Strong(brightness=0)):
        assert max((view == 0).mean() for view in many(Views(spec), white, 60)) > 0.03
    framed = np.pad(np.full((SIDE - 24, SIDE - 24), 200, np.uint8), 12)
    for view in many(Views(Medium(flip=0)), framed, 60):  # padding and outside stay one colour
        assert len({int(view[0, 0]), int(view[0, -1]), int(view[-1, 0]), int(view[-1, -1])}) == 1


def test_brightness_adds_a_share_of_white() -> None:
    gray = np.full((8, 8), 128, np.uint8)
    added = np.array([int(view[3, 3]) for view in many(only(brightness=0.2), gray)]) - 128
    assert -51 <= added.min() < -47 and 47 < added.max() <= 51
    assert abs(added.mean()) < 4 * 51 / np.sqrt(3 * 400)
    assert added.std() == pytest.approx(51 / np.sqrt(3), rel=0.12)  # even, and in every view


def test_contrast_multiplies_and_keeps_black() -> None:
    steps = np.repeat(np.array([[0, 50, 100]], np.uint8), 3, axis=0)
    seen = np.array([view[0] for view in many(only(contrast=0.5), steps)]).astype(int)
    assert (seen[:, 0] == 0).all()
    assert np.abs(seen[:, 2] - 2 * seen[:, 1]).max() <= 2
    assert 50 <= seen[:, 2].min() < 54 and 146 < seen[:, 2].max() <= 150


@given(gamma=st.floats(0, 0.5), contrast=st.floats(0.01, 0.5), brightness=st.floats(0, 0.5), view=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_light_is_albumentations_own(gamma: float, contrast: float, brightness: float, view: int) -> None:
    """To the pixel, from the same draws."""
    ours = only(gamma=gamma, contrast=contrast, brightness=brightness)
    steps = [A.RandomGamma((100 * (1 - gamma), 100 * (1 + gamma)), p=1)] if gamma else []
    numbers, theirs = _Numbers(), A.Compose([*steps, A.RandomBrightnessContrast(brightness, contrast, p=1)])
    theirs.set_random_state(np.random.Generator(numbers.philox), numbers)
    numbers.begin((ours._settings_key, KEYS[0]), view)
    assert np.array_equal(ours(PICTURES[0], KEYS[0], view), theirs(image=PICTURES[0])["image"])


def test_gamma_moves_what_is_between_black_and_white() -> None:
    steps = np.repeat(np.array([[0, 100, 255]], np.uint8), 3, axis=0)
    seen = np.array([view[0] for view in many(only(gamma=0.2), steps)]).astype(int)
    assert (seen[:, 0] == 0).all() and (seen[:, 2] >= 254).all()
    lowest, highest = 255 * (100 / 255) ** 1.2, 255 * (100 / 255) ** 0.8
    assert lowest - 1.01 <= seen[:, 1].min() < lowest + 2 and highest - 3 < seen[:, 1].max() <= highest


def ramps(side: int) -> Iterator[tuple[str, Image]]:
    """Gray is twice the place, so that a pixel tells from where it came."""
    across = np.tile(2 * np.arange(side), (side, 1)).astype(np.uint8)
    yield "x", across
    yield "y", np.ascontiguousarray(across.T)


@pytest.mark.parametrize("share", [0.005, 0.01])
def test_elastic_displaces_by_its_root_mean_square(share: float) -> None:
    for _, ramp in ramps(128):
        inner = (slice(20, -20), slice(20, -20))
        moved = [(view.astype(float) - ramp)[inner] / 2 for view in many(only(elastic=share), ramp, 60)]
        assert np.sqrt(np.mean(np.square(moved))) == pytest.approx(share * 128, rel=0.08)


@pytest.mark.parametrize(
    ("shape", "sigma", "fields"), [((32, 32), 1.28, 400), ((9, 30), 1.0, 800), ((80, 60), 3.2, 400)]
)
def test_an_elastic_field_is_as_strong_at_the_border_as_within(
    shape: tuple[int, int], sigma: float, fields: int
) -> None:
    draws = np.random.default_rng(0)
    moved = np.stack([displacement(draws, shape, 2.5, sigma) for _ in range(fields)])
    assert moved.shape == (fields, *shape, 2) and moved.dtype == np.float32
    everywhere = np.sqrt((moved.astype(float) ** 2).mean(axis=(0, 1, 2)))
    assert everywhere == pytest.approx([2.5, 2.5], rel=0.02)
    near = 4.5 * 2.5 / np.sqrt(2 * fields)  # 4.5 standard errors of a root mean square
    for place in ((0, 0), (0, -1), (-1, 0), (-1, -1), (0, shape[1] // 2), (shape[0] // 2, -1), (4, 4)):
        here = np.sqrt((moved[(slice(None), *place)].astype(float) ** 2).mean(axis=0))
        assert here == pytest.approx([2.5, 2.5], abs=near), place
    assert abs(np.corrcoef(moved[:, 4, 4, 0], moved[:, 4, 4, 1])[0, 1]) < 4.5 / np.sqrt(fields)


@pytest.mark.parametrize("side", [112, 224, 512])
def test_an_elastic_view_is_as_strong_as_said_at_every_size(side: int) -> None:
    """The field that a view of this size draws, of six views: a share of the side, and as smooth."""
    rms, sigma = 0.006 * side, ELASTIC_SIGMA * side
    fields = np.stack([displacement(np.random.default_rng(k), (side, side), rms, sigma) for k in range(6)])
    assert np.sqrt((fields.astype(float) ** 2).mean()) == pytest.approx(rms, rel=0.06)
    far = round(2 * sigma)  # the correlation of blurred noise at a distance d is exp(-d^2 / (4 sigma^2)): 1/e
    products = fields[:, :, :-far].astype(float) * fields[:, :, far:]
    assert products.mean() / rms**2 == pytest.approx(np.exp(-1), abs=0.12)


def test_grid_bends_each_axis_alone_and_folds_nothing() -> None:
    inner = (slice(0, -2), slice(0, -2))  # albumentations' grid ends a pixel outside of the image
    for axis, ramp in ramps(120):
        seen = [view.astype(int)[inner] for view in many(only(grid=0.3), ramp, 40)]
        if axis == "y":
            seen, ramp = [view.T for view in seen], ramp.T
        assert all((np.diff(view, axis=1) >= 0).all() for view in seen)
        assert all((view == view[0]).all() for view in seen)
        assert 3 < max(np.abs(view - ramp[inner]).max() / 2 for view in seen) < 0.3 * 120 / 2


def test_optical_moves_what_is_far_from_the_centre() -> None:
    """At a third of the side from the centre in x and y, r^2 is 2/9: 120 / 3 * k * (r^2 + r^4) is 1.09 for k = 0.1.

    Half a pixel is added everywhere: albumentations takes size / 2 for the middle pixel.
    """
    for _, ramp in ramps(120):
        seen = [(view.astype(float) - ramp) / 2 for view in many(only(optical=0.1), ramp, 100)]
        assert max(np.abs(shift[59:62, 59:62] - 0.5).max() for shift in seen) <= 0.5
        moved = np.array([shift[100, 100] for shift in seen]) - 0.5
        assert -1.4 < moved.min() < -0.7 and 0.7 < moved.max() < 1.4


def test_distort_is_the_share_of_views_that_are_bent() -> None:
    for share in (0.25, 1.0):
        views = only(distort=share, grid=0.3, optical=0.3)
        bent = sum(not np.array_equal(view, PICTURES[0]) for view in many(views, PICTURES[0], 200))
        assert abs(bent - 200 * share) <= 4 * np.sqrt(200 * share * (1 - share)) + 1


def test_a_real_chest_stays_in_sight(shared: Path) -> None:
    """Medium loses at most a tenth of the central two thirds to black or white, in every view but a few."""
    files = sorted((shared / "data" / "chestxray14" / "images_224").glob("*.png"))[::100]
    lost, means = [], []
    for file in files:
        image = np.asarray(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), np.uint8)
        inner = image[37:-37, 37:-37]
        before = np.isin(inner, (0, 255)).mean()
        for view in range(10):
            found = Views(Medium())(image, image_key(file.name), view)[37:-37, 37:-37]
            lost.append(np.isin(found, (0, 255)).mean() - before)
            means.append(found.mean() / inner.mean())
    assert np.quantile(lost, 0.9) < 0.1
    assert min(means) > 0.6 and max(means) < 1.5


# which view


def test_view_numbers_by_hand() -> None:
    assert [view_number(epoch, 0, None) for epoch in (1, 2, 20)] == [0, 1, 19]
    assert view_number(3, 2, None) == 2 + 2 * 2**20
    assert [view_number(epoch, 0, 4) for epoch in range(1, 7)] == [0, 1, 2, 3, 0, 1]
    assert [view_number(4, draw, 4) for draw in range(5)] == [3, 0, 1, 2, 3]


@given(st.integers(1, 2**20), st.lists(st.integers(0, 2**40), min_size=1), st.none() | st.integers(1, 100))
@settings(deadline=None)
def test_view_numbers_of_many_draws_at_once(epoch: int, draws: list[int], views: int | None) -> None:
    found = view_number(epoch, np.array(draws), views)
    assert found.tolist() == [view_number(epoch, draw, views) for draw in draws]
    assert views is None or ((found >= 0).all() and (found < views).all())


def test_no_view_is_taken_twice_unless_there_are_no_more() -> None:
    assert len({view_number(epoch, draw, None) for epoch in range(1, 101) for draw in range(100)}) == 10_000
    assert {view_number(epoch, 0, 8) for epoch in range(1, 9)} == set(range(8))
    assert {view_number(5, draw, 8) for draw in range(8)} == set(range(8))


# MixUp


def batch_of(size: int, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, 1, 6, 6), dtype=torch.uint8, generator=generator)
    return images, (torch.rand(size, classes, generator=generator) < 0.3).float()


def test_mixup_mixes_images_and_labels_alike() -> None:
    """Image i is all 10 * i and label i is the i-th unit vector: the labels say what the image must be."""
    images = (10 * torch.arange(8)).to(torch.uint8).reshape(8, 1, 1, 1).expand(8, 1, 3, 3)
    mixed, labels, _ = mixup(images, torch.eye(8), None, alpha=1.0, seed=0, epoch=1, step=0)
    assert mixed.shape == (8, 1, 3, 3) and mixed.dtype == labels.dtype == torch.float32
    assert torch.allclose(labels.sum(dim=1), torch.ones(8))
    assert ((labels > 0).sum(dim=1) == 2).all()
    assert (labels.diagonal() >= 0.5).all()
    expected = labels @ (10.0 * torch.arange(8))
    assert torch.allclose(mixed, expected.reshape(8, 1, 1, 1).expand_as(mixed), atol=1e-4)
    assert ((labels - torch.diag(labels.diagonal())).gt(0).sum(dim=0) == 1).all()  # a permutation: a partner once


@given(st.integers(2, 9), st.integers(0, 2**31), st.integers(1, 10**6), st.integers(0, 10**6))
@settings(deadline=None)
def test_mixup_mixes_no_image_with_itself(size: int, seed: int, epoch: int, step: int) -> None:
    """At this alpha shares are a half, so that no partner is too small to be seen."""
    _, labels, _ = mixup(torch.zeros(size, 1, 1, 1), torch.eye(size), None, 1e4, seed, epoch, step)
    assert ((labels > 0.4).sum(dim=1) == 2).all()
    assert ((labels > 0.4).sum(dim=0) == 2).all()


def test_mixup_pairs_every_image_with_every_other_alike() -> None:
    drawn = [mixup(torch.zeros(5, 1, 1, 1), torch.eye(5), None, 1e4, 0, 1, step)[1] for step in range(2000)]
    pairs = torch.stack(drawn).gt(0.4).float().mean(dim=0).fill_diagonal_(0.25)
    assert (pairs - 0.25).abs().max() < 4.5 * (0.25 * 0.75 / 2000) ** 0.5


@pytest.mark.parametrize("spec", [BCE(), BCE(smoothing=0.1), WeightedBCE(), Focal(), Mixed(), Asymmetric()], ids=str)
def test_mixup_costs_what_its_two_images_cost_by_share_and_weight(spec: Loss) -> None:
    """w L(mixed) = s w_i L(y_i) + (1 - s) w_j L(y_j), whatever the losses weigh an image."""
    loss, logits = spec.build(torch.arange(1.0, 6.0), 20), torch.linspace(-3, 3, 5, dtype=torch.float64)
    labels = (torch.rand(8, 5, generator=torch.Generator().manual_seed(1)) < 0.4).double()
    weights = torch.linspace(0.05, 3.0, 8)
    _, mixed, found = mixup(torch.zeros(8, 1, 1, 1), labels, weights, 1.0, 0, 1, 0)
    _, shares, _ = mixup(torch.zeros(8, 1, 1, 1), torch.eye(8).double(), None, 1.0, 0, 1, 0)
    assert found is not None
    assert torch.allclose(found.double(), shares @ weights.double())
    alone = torch.stack([loss(logits[None], y[None]) for y in labels])
    costs = torch.stack([loss(logits[None], y[None], w[None]) for y, w in zip(mixed, found, strict=True)])
    assert torch.allclose(costs.double(), shares @ (weights.double() * alone), rtol=1e-5)


@given(st.integers(1, 9), st.floats(1e-3, 50), st.integers(0, 2**31), st.integers(1, 10**6), st.integers(0, 10**6))
@settings(deadline=None)
def test_mixup_stays_between_what_it_mixes(size: int, alpha: float, seed: int, epoch: int, step: int) -> None:
    images, labels = batch_of(size)
    mixed, found, _ = mixup(images, labels, None, alpha, seed, epoch, step)
    assert torch.isfinite(mixed).all() and torch.isfinite(found).all()
    assert (found >= 0).all() and (found <= 1).all()
    lowest, highest = images.float().amin(dim=0), images.float().amax(dim=0)
    assert (mixed >= lowest - 1e-3).all() and (mixed <= highest + 1e-3).all()
    again = mixup(images.float(), labels, None, alpha, seed, epoch, step)
    assert torch.equal(again[0], mixed) and torch.equal(again[1], found)


def test_mixup_of_one_image_and_with_a_tiny_alpha_is_the_original() -> None:
    images, labels = batch_of(1)
    mixed, found, _ = mixup(images, labels, None, 1.0, 0, 1, 0)
    assert torch.equal(mixed, images.float()) and torch.equal(found, labels)
    images, labels = batch_of(500)
    mixed, found, _ = mixup(images, labels, None, 1e-3, 0, 1, 0)
    unchanged = (found - labels).abs().amax(dim=1) < 1e-3
    assert unchanged.float().mean() > 0.98
    assert (mixed - images.float())[unchanged].abs().max() < 0.5


def test_mixup_keeps_each_labels_total_on_average() -> None:
    images, labels = batch_of(32)
    totals = torch.stack([mixup(images, labels, None, 0.4, 0, 1, step)[1].sum(dim=0) for step in range(600)])
    error = totals.std(dim=0) / 600**0.5
    assert ((totals.mean(dim=0) - labels.sum(dim=0)).abs() < 4.5 * error).all()


def test_mixup_draws_shares_from_beta_per_image() -> None:
    _, labels, _ = mixup(torch.zeros(4000, 1, 1, 1), torch.eye(4000), None, 1.0, 0, 1, 0)
    own = labels.diagonal().double().numpy()
    own = own[own < 1]
    assert len(own) > 3990
    assert own.mean() == pytest.approx(0.75, abs=4 * 0.25 / np.sqrt(3 * 4000))  # even on 0.5 to 1
    _, labels, _ = mixup(torch.zeros(4000, 1, 1, 1), torch.eye(4000), None, 0.2, 0, 1, 0)
    reference = np.random.default_rng(0).beta(0.2, 0.2, 200_000)
    assert labels.diagonal().mean() == pytest.approx(np.maximum(reference, 1 - reference).mean(), abs=0.01)


def test_mixup_depends_on_seed_epoch_and_step_alone() -> None:
    images, labels = batch_of(16)
    first = mixup(images, labels, None, 1.0, 1, 2, 3)[1]
    torch.manual_seed(5)
    np.random.seed(5)
    assert torch.equal(mixup(images, labels, None, 1.0, 1, 2, 3)[1], first)
    others = [(2, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3), (3, 2, 1)]
    assert not any(torch.equal(mixup(images, labels, None, 1.0, *other)[1], first) for other in others)


def test_mixup_is_not_the_order_of_the_epoch() -> None:
    """The batches of (seed, epoch) are shuffled by Philox with the same key; the partner must be another draw."""
    order = np.random.Generator(np.random.Philox(key=[1, 2])).permutation(64)
    _, labels, _ = mixup(torch.zeros(64, 1, 1, 1), torch.eye(64), None, 1.0, 1, 2, 0)
    partners = (labels - torch.diag(labels.diagonal())).argmax(dim=1).numpy()
    assert (partners == order).mean() < 0.2


# for a pair of eyes


def test_a_contact_sheet_shows_the_image_and_its_views() -> None:
    sheet = contact_sheet(PICTURES, NAMES, Medium())
    assert sheet.shape == (3 * (SIDE + 20), 4 * (SIDE + 2)) and sheet.dtype == np.uint8
    for number in range(3):
        row = sheet[number * (SIDE + 20) :]
        assert np.array_equal(row[:SIDE, :SIDE], PICTURES[number])
        for view in range(3):
            left = (view + 1) * (SIDE + 2)
            assert row[:SIDE, left : left + SIDE].tobytes() == expected()[1, number, view]
        assert row[SIDE : SIDE + 20].max() > 200


def test_a_contact_sheet_wants_a_name_for_each_image() -> None:
    with pytest.raises(ValueError, match="zip"):
        contact_sheet(PICTURES, NAMES[:2], Medium())
