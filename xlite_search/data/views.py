"""Augmentation: (image, view) -> the same pixels in every process, for ever.

A view is numbered. What it looks like is drawn from a counter-based generator (Philox; Salmon et al. 2011) whose key
is (settings, image) and whose counter is the view, so workers, order, trials and earlier calls cannot change it, and a
teacher's logits that were stored for view 3 belong to what the student sees as view 3.

"The same" is byte for byte on x86 CPUs with AVX2. Without it one pixel in 100,000 differs by a gray level or two.

What is done to the pixels is in `transforms.py`.
"""

from __future__ import annotations

import importlib.metadata
import random
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from xlite_search import storage
from xlite_search.data.sources import image_key
from xlite_search.data.transforms import Transforms
from xlite_search.spec import Spec, named

if TYPE_CHECKING:
    from torch import Tensor

#: Raise it when the same settings come to mean other pixels.
SCHEMA = 2
#: In the key of every draw, and fixed: a new SCHEMA moves only the pixels that it is about.
STREAM = {"schema": 1}
#: Last word of the generator's counter, so that MixUp shares no number with the order of (seed, epoch).
MIXUP_STREAM = 1

Share = Annotated[float, Field(ge=0, le=1)]
Degrees = Annotated[float, Field(ge=0, le=45)]
Bend = Annotated[float, Field(ge=0, le=0.3)]
Change = Annotated[float, Field(ge=0, le=0.5)]
Sway = Annotated[float, Field(ge=0, le=0.03)]


class _Strengths(Spec):
    """What a view changes. Every amount is drawn evenly between -x and +x; 0 switches it off.

    flip        share of views that are mirrored; a mirrored heart lies on the right
    rotate      degrees, about the image's centre
    shift       along x and along y, as a share of the side
    zoom        of the scale 1
    brightness  added, as a share of white
    contrast    of the gain 1; black stays black
    gamma       of the exponent 1
    distort     share of views with one of those of the three distortions that are not 0
    elastic     root mean square of the displacement along x and along y, as a share of the side, wherever a pixel lies
    grid        of the width 1 of the cells of a 5 x 5 grid
    optical     coefficient of a barrel or cushion distortion; 0.1 moves the corners by 5 % of the side
    views       V: how many views an image has, taken in turn; None for a new one in every epoch
    """

    flip: Share = 0.5
    rotate: Degrees
    shift: Bend
    zoom: Bend
    brightness: Change
    contrast: Change
    gamma: Change = 0.0
    distort: Share = 0.5
    elastic: Sway = 0.0
    grid: Bend = 0.0
    optical: Bend = 0.0
    views: int | None = Field(None, ge=1)


class Light(_Strengths):
    """Small differences between two exposures of the same patient."""

    name: Literal["light"] = "light"
    rotate: Degrees = 5.0
    shift: Bend = 0.02
    zoom: Bend = 0.05
    brightness: Change = 0.05
    contrast: Change = 0.05


class Medium(_Strengths):
    """The lab's default: mirrored half the time, 15 degrees, brightness and contrast."""

    name: Literal["medium"] = "medium"
    rotate: Degrees = 15.0
    shift: Bend = 0.04
    zoom: Bend = 0.1
    brightness: Change = 0.1
    contrast: Change = 0.1


class Strong(_Strengths):
    """Medium, and in half of the views the chest itself is bent."""

    name: Literal["strong"] = "strong"
    rotate: Degrees = 20.0
    shift: Bend = 0.05
    zoom: Bend = 0.12
    brightness: Change = 0.1
    contrast: Change = 0.15
    gamma: Change = 0.2
    elastic: Sway = 0.006
    grid: Bend = 0.2
    optical: Bend = 0.1


Augment = Annotated[
    Annotated[Light | Medium | Strong, Field(discriminator="name")],
    BeforeValidator(named),
]


def fingerprint(spec: Augment) -> str:
    """Changes if view k of an image may look otherwise: settings, this module's schema, albumentations, OpenCV.

    Neither the number of views nor the name of the strength is part of it: they do not change what view 3 looks like.
    """
    libraries = {"albumentations": _installed(importlib.metadata.version), "opencv": cv2.__version__}
    return storage.digest([_settings(spec) | {"schema": SCHEMA}, libraries])[:16]


@cache
def _installed(version: Callable[[str], str]) -> str:
    """albumentations' version, looked up once: that reads files, and a study asks for every trial."""
    return version("albumentations")


@overload
def view_number(epoch: int, draw: int, views: int | None) -> int: ...
@overload
def view_number(epoch: int, draw: NDArray[np.int64], views: int | None) -> NDArray[np.int64]: ...
def view_number(epoch: int, draw: int | NDArray[np.int64], views: int | None) -> int | NDArray[np.int64]:
    """Which view of an image an epoch takes; epochs count from 1.

    draw    how often this image was already drawn in this epoch, so that a sampler that draws it often sees others
    views   V: the views 0 to V - 1 are taken in turn; None: no view is taken twice (in a million epochs)
    """
    if views is None:
        return (epoch - 1) + (draw << 20)
    return (epoch - 1 + draw) % views


class Views:
    """The views of images under a spec. Picklable; it may be called by several threads at once.

    >>> Views(Medium())(image, image_key("00000001_000.png"), 3)
    """

    def __init__(self, spec: Augment) -> None:
        self.spec = spec
        self._settings_key = int(storage.digest(_settings(spec) | STREAM)[:16], 16)
        self._of_thread = _OfThread()

    def __call__(self, image: NDArray[np.uint8], key: int, view: int) -> NDArray[np.uint8]:
        """View number `view` (from 0) of the image with this key (`image_key`), uint8: `[h, w]` to a new `[h, w]`.

        Of `[channel, h, w]` every channel is changed as a gray image would be, by the same draws: the pose is the same
        in all, and so is the change of light, which keeps hues nearly as they are.
        """
        out = np.empty(image.shape, np.uint8)
        self.draw(image, key, view, out)
        return out

    def draw(self, image: NDArray[np.uint8], key: int, view: int, out: NDArray[np.uint8]) -> None:
        """The view, into an array of the image's shape that is contiguous and not the image."""
        if image.ndim == 3:
            for channel, its_out in zip(image, out, strict=True):
                self.draw(channel, key, view, its_out)
            return
        transforms = self._transforms(image.shape)
        transforms.numbers.begin((self._settings_key, key), view)
        transforms(np.ascontiguousarray(image), out)

    def _transforms(self, shape: tuple[int, ...]) -> Transforms:
        built = self._of_thread.transforms
        if shape not in built:
            height, width = shape
            built[shape] = Transforms(self.spec, height, width, _Numbers())
        return built[shape]

    def __reduce__(self) -> tuple[type[Views], tuple[Augment]]:
        return Views, (self.spec,)


class _OfThread(threading.local):
    """What each thread builds for itself: transforms, by the shape of images, and the numbers that they draw."""

    def __init__(self) -> None:
        self.transforms: dict[tuple[int, ...], Transforms] = {}


class _Numbers(random.Random):
    """Python's generator and, of the same Philox, numpy's: albumentations wants both.

    To begin a view, the Philox's state is set in place: a microsecond, where new seeds cost fifty.
    """

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=0)
        super().__init__()

    def begin(self, key: tuple[int, int], view: int) -> None:
        """From here on the numbers are those of `Philox(key=key, counter=[0, view, 0, 0])`."""
        self.gauss_next = None
        state: Any = {
            "bit_generator": "Philox",
            "state": {"counter": (0, view, 0, 0), "key": key},
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        self.philox.state = state

    def random(self) -> float:
        return float(self.philox.random_raw() >> 11) * 2.0**-53

    def getrandbits(self, k: int, /) -> int:
        words = -(-k // 64)
        drawn = sum(int(self.philox.random_raw()) << 64 * word for word in range(words))
        return drawn >> (64 * words - k)

    def seed(self, *ignored: object) -> None:
        self.gauss_next = None


def _settings(spec: Augment) -> dict[str, Any]:
    return spec.model_dump(exclude={"name", "views"})


def mixup(
    images: Tensor, labels: Tensor, weights: Tensor | None, alpha: float, seed: int, epoch: int, step: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Each image and its labels, mixed with those of another of the batch (MixUp; Zhang et al. 2018).

    images   `[batch, channel, height, width]`, 0 to 255 -> float32 on the same scale
    labels   float `[batch, class]` in 0 to 1 -> the same
    weights  float `[batch]`, of each image in the loss, or None -> the same
    alpha    > 0; the share of the partner is drawn per image from Beta(alpha, alpha)

    The larger share is the image's own (the pair's order means nothing to Beta), so row i stays mostly image i, and
    with a small alpha all is nearly as it was. Every image is a partner once, and no image its own. The draw depends on
    (seed, epoch, step) alone.

    With weights, w = s w_i + (1 - s) w_j for a share s, and labels are mixed by s w_i / w: for a loss L that is linear
    in its target, w L(mixed labels) = s w_i L(labels_i) + (1 - s) w_j L(labels_j).
    """
    import torch

    philox = np.random.Philox(key=[seed, epoch], counter=[0, step, 0, MIXUP_STREAM])
    draws = np.random.Generator(philox)
    ring = draws.permutation(len(images))
    following = np.empty_like(ring)
    following[ring] = np.roll(ring, -1)
    partner = torch.from_numpy(following).to(images.device)
    share = draws.beta(alpha, alpha, len(images))
    own = torch.from_numpy(np.maximum(share, 1 - share)).to(images.device, torch.float32)
    pixels = images.float()
    mixed = torch.lerp(pixels[partner], pixels, own[:, None, None, None])
    if weights is not None:
        both = torch.lerp(weights[partner], weights, own)
        own, weights = own * weights / both, both
    return mixed, torch.lerp(labels[partner], labels, own[:, None].to(labels.dtype)), weights


def contact_sheet(
    images: Sequence[NDArray[np.uint8]], names: Sequence[str], spec: Augment, columns: int = 3
) -> NDArray[np.uint8]:
    """For a pair of eyes: each prepared image, its first `columns` views beside it, its name below.

    images  gray `[h, w]`, or `[channel, h, w]`, all alike -> gray `[h, w]`, or RGB `[h, w, 3]`
    """
    views = Views(spec)
    rows = []
    for image, name in zip(images, names, strict=True):
        shown = [image, *(views(image, image_key(name), view) for view in range(columns))]
        tiles = [
            cv2.copyMakeBorder(_for_eyes(each), 0, 0, 0, 2, cv2.BORDER_CONSTANT, value=[255] * 3) for each in shown
        ]
        row = np.hstack(tiles)
        caption = np.zeros((20, *row.shape[1:]), np.uint8)
        text = f"{name} | {spec.name}"
        cv2.putText(caption, text, (5, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, [255] * 3, 1, cv2.LINE_AA)
        rows += [row, caption]
    return np.asarray(np.vstack(rows), np.uint8)


def _for_eyes(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Three channels as RGB, `[h, w, 3]`; of any other number the first, `[h, w]`."""
    if image.ndim == 2:
        return image
    return np.ascontiguousarray(np.moveaxis(image, 0, 2)) if len(image) == 3 else image[0]
