"""Distortions of a view: the chest itself is bent, by albumentations' grid and optical ones and an elastic of our own.

This is the only module that knows albumentations, which takes seconds to import.
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
    from xlite_search.data.views import _Numbers, _Strengths

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


class Distortion:
    """One of the spec's distortions, or none, drawn from `numbers`, for images of `side` pixels."""

    def __init__(self, spec: _Strengths, side: int, numbers: _Numbers) -> None:
        bends = [
            (spec.elastic, Elastic(spec.elastic * side, max(1.0, ELASTIC_SIGMA * side))),
            (spec.grid, A.GridDistortion(num_steps=5, distort_limit=spec.grid, fill=0)),
            (spec.optical, A.OpticalDistortion(distort_limit=spec.optical, fill=0)),
        ]
        self.one_of = A.OneOf([bend for amount, bend in bends if amount], p=spec.distort)
        self.one_of.set_random_state(np.random.Generator(numbers.philox), numbers)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        bent: NDArray[np.uint8] = self.one_of(image=image)["image"]
        return bent


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
