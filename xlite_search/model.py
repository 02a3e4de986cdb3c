"""`load_model`: a delivered model with its findings, preprocessing and probabilities.

model = xlite_search.load_model("mlruns/models/NAME")
model.probabilities(images, raw=True)       # [height, width] each, of any size -> float32 [image, class]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from xlite_search.data.preprocess import Preprocess, Raw
from xlite_search.errors import BadInput
from xlite_search.model_folder import WEIGHTS, ModelManifest, manifest_of, read_model
from xlite_search.models.hybrid import Hybrid, build_model, full_name

#: images that go through it at once
BATCH = 64
#: what an image's axes are
NAMES = ("channel", "height", "width")


@dataclass(frozen=True)
class Model:
    """A delivered model, frozen and in eval mode; of an ensemble all its members.

    manifest     what its folder says of it
    models       the networks, on one device
    pos_weights  what each one's own loss gave positives, `[class]`, or None
    """

    manifest: ModelManifest
    models: tuple[Hybrid, ...]
    pos_weights: tuple[Tensor | None, ...]

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        """As `load_model`."""
        about = read_model(folder)
        models, pos_weights = [], []
        for home in [folder.parent / member for member in about.members] or [folder]:
            member = manifest_of(home)
            if member.classes != about.classes:
                raise BadInput(f"{home}: the ensemble {folder.name} has other findings, or in another order, than this")
            models.append(_network(home, member).to(device).eval().requires_grad_(False))
            weight = member.pos_weight
            pos_weights.append(torch.tensor(weight, device=device) if weight is not None else None)
        return cls(about, tuple(models), tuple(pos_weights))

    @property
    def classes(self) -> tuple[str, ...]:
        """The findings, in the order of the probabilities."""
        return self.manifest.classes

    @property
    def preprocess(self) -> Preprocess:
        """Raw pixels to prepared ones. Raises BadInput where the folder does not say how."""
        return self.manifest.preprocess

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """uint8 `[batch, channel, size, size]` -> float32 `[batch, class]`, in float32 inside autocast.

        As they would be had it learned with no pos_weight w, which moves a logit's optimum by log w: members that were
        weighed otherwise, and a student that is, would pull apart. Of an ensemble the mean of its members'.
        """
        with torch.autocast(images.device.type, enabled=False):
            members = zip(self.models, self.pos_weights, strict=True)
            logits = [model(images).float() - (0 if w is None else torch.log(w)) for model, w in members]
        return torch.stack(logits).mean(dim=0)

    def prepared(self, images: Iterable[Raw | NDArray[Any]]) -> NDArray[np.uint8]:
        """Raw images as this model was trained on them, `[image, channel, size, size]`.

        Each is `[height, width]` or `[height, width, channel]`, of whatever size; uint8 is shown as it is, any other
        type has more bits. `Raw` says of one what else is to be known: padding, bright air, pixels that are not square.

        Raises:
            BadInput: one is no image, or the folder does not say how they are prepared.
        """
        preprocess = self.preprocess
        found = [preprocess(_expect_image(image, number)) for number, image in enumerate(images, start=1)]
        return (
            np.stack(found) if found else np.empty((0, preprocess.channels, preprocess.size, preprocess.size), np.uint8)
        )

    def probabilities(
        self, images: NDArray[np.uint8] | Sequence[Raw | NDArray[Any]], *, raw: bool = False
    ) -> NDArray[np.float32]:
        """The chance of each finding in each image, `[image, class]`: the sigmoid of `logits`, not calibrated.

        `images` are prepared, uint8 `[image, channel, size, size]`, gray ones `[image, size, size]` too; or `raw`, as
        `prepared` takes them.

        Raises:
            BadInput: they are of another type or shape, or the folder does not say how raw ones are prepared.
        """
        given = self.prepared(images) if raw else self._expect_prepared(images)
        device = next(self.models[0].parameters()).device
        found = [np.empty((0, len(self.classes)), np.float32)]
        for start in range(0, len(given), BATCH):
            batch = torch.from_numpy(np.array(given[start : start + BATCH])).to(device)
            found.append(self.logits(batch).sigmoid().cpu().numpy())
        return np.concatenate(found)

    def _expect_prepared(self, images: object) -> NDArray[np.uint8]:
        """uint8 `[image, channel, size, size]`; of what size is not asked where the folder does not say."""
        size, channels = self.manifest.input.get("size"), self.manifest.input.get("channels", 1)
        known = (channels, size, size) if size else None
        wanted = f"uint8 [image, {', '.join(map(str, known or NAMES))}], or raw ones with raw=True"
        try:
            given = np.asarray(images)
        except ValueError:
            raise BadInput(f"these images differ in size; expected {wanted}") from None
        whole = given[:, None] if given.ndim == 3 else given
        is_batch = whole.dtype == np.uint8 and whole.ndim == 4 and whole.shape[1] in (1, 3)
        if not is_batch or (known and known != whole.shape[1:]):
            raise BadInput(f"these images are {given.dtype} {list(given.shape)}; expected {wanted}")
        return whole


def load_model(folder: Path | str, device: torch.device | str = "cpu") -> Model:
    """The model of a folder, wherever it lies. It leaves torch's seed as it was.

    Raises:
        BadInput: this is no model folder, it is of another version, or its weights are not those of its config.
        Damaged: its manifest is damaged, or its weights are not those that the manifest names.
    """
    return Model.load(Path(folder).absolute(), torch.device(device))


def _expect_image(image: Raw | NDArray[Any], number: int) -> Raw:
    found = image if isinstance(image, Raw) else Raw(np.asarray(image))
    pixels = found.pixels
    if pixels.dtype.kind not in "uif" or pixels.ndim not in (2, 3) or not pixels.size:
        raise BadInput(
            f"raw image {number} is {pixels.dtype} {list(pixels.shape)}; expected numbers, [height, width] or [height, "
            f"width, channel]"
        )
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise BadInput(f"raw image {number} has pixels that are no number, or infinite")
    return found


def _network(folder: Path, about: ModelManifest) -> Hybrid:
    """The hybrid that a manifest names, with its folder's weights."""
    try:
        name = full_name(about.model)
    except BadInput as error:
        raise BadInput(f"model folder {folder.name}: {error}") from None
    with torch.random.fork_rng(devices=[]):
        network = build_model(name, classes=len(about.classes))
    try:
        network.load_state_dict(safetensors.torch.load((folder / WEIGHTS).read_bytes()))
    except (RuntimeError, safetensors.SafetensorError):
        raise BadInput(
            f"model folder {folder.name}: its weights are not those of a '{about.model}' with {len(about.classes)} "
            f"findings, which its manifest says it is"
        ) from None
    return network
