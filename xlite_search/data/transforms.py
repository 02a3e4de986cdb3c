"""Image transforms of a view: an albumentations pipeline, three of whose steps are our own.

Every draw comes from the generators that `views.py` hands to the pipeline. This is the only module that knows
albumentations, which takes seconds to import.
"""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from xlite_search.data.views import _Strengths

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# its part for tensors loads torch, and is left out where that cannot be had: nobody needs torch to draw views
sys.modules.setdefault("albumentations.pytorch", None)  # type: ignore[arg-type]
import albumentations as A

if sys.modules["albumentations.pytorch"] is None:
    del sys.modules["albumentations.pytorch"]

#: Smoothness of the elastic distortion: sigma of its blur, as a share of the image's side (9 px of 224).
ELASTIC_SIGMA = 0.04
#: How far its blur reaches, in sigmas.
REACH = 4


def compose(spec: _Strengths, side: int) -> Any:
    """The albumentations pipeline of a spec for images of `side` pixels: pose, distortion, light.

    Light comes last, so that what lies outside of the image looks like the black that images are padded with.
    """
    pose = spec.flip, spec.rotate, spec.shift, spec.zoom
    steps = [Pose(*pose)] if any(pose) else []
    bends = [
        (spec.elastic, Elastic(spec.elastic * side, max(1.0, ELASTIC_SIGMA * side))),
        (spec.grid, A.GridDistortion(num_steps=5, distort_limit=spec.grid, fill=0)),
        (spec.optical, A.OpticalDistortion(distort_limit=spec.optical, fill=0)),
    ]
    wanted = [bend for amount, bend in bends if amount]
    if wanted:
        steps.append(A.OneOf(wanted, p=spec.distort))
    if spec.gamma:
        steps.append(A.RandomGamma((100 * (1 - spec.gamma), 100 * (1 + spec.gamma)), p=1))
    if spec.brightness or spec.contrast:
        steps.append(A.RandomBrightnessContrast(spec.brightness, spec.contrast, p=1))
    return A.Compose(steps, is_check_shapes=False)


class Pose(A.ImageOnlyTransform):  # type: ignore[misc]
    """Mirror, rotation, shift and zoom as one transform, so that pixels are interpolated once.

    albumentations' HorizontalFlip and Affine do the same one after the other, which takes longer.
    """

    def __init__(self, flip: float, rotate: float, shift: float, zoom: float) -> None:
        super().__init__(p=1)
        self.flip, self.rotate, self.shift, self.zoom = flip, rotate, shift, zoom

    def get_params(self) -> dict[str, Any]:
        draw = self.py_random
        return {
            "mirrored": draw.random() < self.flip,
            "degrees": draw.uniform(-self.rotate, self.rotate),
            "scale": draw.uniform(1 - self.zoom, 1 + self.zoom),
            "shift": (draw.uniform(-self.shift, self.shift), draw.uniform(-self.shift, self.shift)),
        }

    def apply(
        self, img: Any, mirrored: bool, degrees: float, scale: float, shift: tuple[float, float], **_: Any
    ) -> Any:
        height, width = img.shape
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
        matrix[:, 2] += shift[0] * width, shift[1] * height
        if mirrored:  # x -> width - 1 - x, before all else
            matrix[:, 2] += matrix[:, 0] * (width - 1)
            matrix[:, 0] *= -1
        return cv2.warpAffine(img, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=0)


class Elastic(A.ImageOnlyTransform):  # type: ignore[misc]
    """Every pixel comes from a smoothly varying place near by (Simard et al. 2003): `displacement`, in pixels.

    albumentations' ElasticTransform repeats the border before it blurs, which trebles the displacement there.
    """

    def __init__(self, rms: float, sigma: float) -> None:
        super().__init__(p=0.5)
        self.rms, self.sigma = rms, sigma

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return {"moved": displacement(self.random_generator, params["shape"][:2], self.rms, self.sigma)}

    def apply(self, img: Any, moved: NDArray[np.float32], **_: Any) -> Any:
        rows, columns = np.indices(img.shape, np.float32)
        places = np.stack([columns, rows], axis=-1) + moved
        return cv2.remap(img, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def displacement(draws: np.random.Generator, shape: tuple[int, int], rms: float, sigma: float) -> NDArray[np.float32]:
    """Where each pixel comes from, `[h, w, 2]`, along x and along y: even noise under a Gaussian blur.

    rms    root mean square along each axis, at every pixel: noise is drawn beyond the border too, and a blur with
           weights k leaves sum(k^2) / sqrt(3) of noise that is even in [-1, 1]
    sigma  of the blur
    """
    reach = math.ceil(REACH * sigma)
    weights = cv2.getGaussianKernel(2 * reach + 1, sigma, cv2.CV_32F)
    height, width = shape
    noise = 2 * draws.random((height + 2 * reach, width + 2 * reach, 2), dtype=np.float32) - 1
    smooth = cv2.sepFilter2D(noise, -1, weights, weights)[reach : reach + height, reach : reach + width]
    return np.asarray(smooth * np.float32(rms * math.sqrt(3) / float((weights**2).sum())), np.float32)
