"""Pretrained backbone weights, from a file with timm's names or from the hub; identity is the file's sha256."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from xlite_search import storage
from xlite_search.errors import BadInput, Damaged
from xlite_search.spec import Spec

if TYPE_CHECKING:
    from torch import nn

IMAGENET = "imagenet"


class Weights(Spec):
    """A safetensors file of backbone weights with timm's names, or a folder with a `<timm name>.safetensors` for each
    backbone; `path="imagenet"` asks timm's hub for the backbone's own."""

    path: str
    sha256: str = ""

    def resolved(self, backbone: str) -> Weights:
        """With the absolute path of this backbone's file and its sha256.

        Raises:
            BadInput: there is no such file, or the hub cannot be reached or has no weights for this backbone.
        """
        path = self.local_file(backbone) or _from_hub(backbone)
        return Weights(path=str(path), sha256=storage.sha256_of(path))

    def local_file(self, backbone: str, setting: str = "weights") -> Path | None:
        """The file that a backbone's weights are in; None if the hub has to be asked. Asks no network.

        Raises:
            BadInput: it is not there; the sentence begins with the setting that names it.
        """
        if self.path == IMAGENET:
            return None
        path = Path(self.path).absolute()
        if path.is_file():
            return path
        if not path.is_dir():
            raise BadInput(
                f"{setting} = {self.path}: there is no such file; give a safetensors file with timm's names, or a "
                "folder with <timm name>.safetensors for each backbone"
            )
        wanted = path / f"{backbone}.safetensors"
        if not wanted.is_file():
            there = sorted(file.name for file in path.glob("*.safetensors"))
            has = f"it has {', '.join(there[:8]) or 'no safetensors files'}"
            raise BadInput(f"{setting} = {self.path}: the folder has no {wanted.name} for backbone '{backbone}'; {has}")
        return wanted


def expect_fit(backbone: nn.Module, path: Path, heads: tuple[str, ...], where: str) -> None:
    """Reads a file's header alone. Raises BadInput, beginning with `where`, as `load_backbone` would."""
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise BadInput(f"{where}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise BadInput(f"{where}: not a safetensors file ({error})") from None
    _expect_shapes(backbone, shapes, heads, where)


def load_backbone(backbone: nn.Module, weights: Weights, heads: tuple[str, ...]) -> None:
    """Loads a file into a backbone. Entries under `heads` (the old classifier and what we removed) are ignored.

    Raises:
        BadInput: the file is not safetensors, or lacks a tensor that the backbone has, or has one of another shape.
        Damaged: it is not the file that the config was resolved with.
    """
    import safetensors.torch

    path = Path(weights.path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"weights = {path}: {error.strerror}") from None
    if weights.sha256 and hashlib.sha256(data).hexdigest() != weights.sha256:
        raise Damaged(f"{path} is not the file that this config names (its sha256 has changed)")
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise BadInput(f"weights = {path}: not a safetensors file ({error})") from None
    _expect_shapes(backbone, {name: tuple(t.shape) for name, t in tensors.items()}, heads, f"weights = {path}")
    wanted = backbone.state_dict()
    backbone.load_state_dict(tensors | {k: v for k, v in wanted.items() if k not in tensors}, strict=False)


def _expect_shapes(
    backbone: nn.Module, found: Mapping[str, tuple[int, ...]], heads: tuple[str, ...], where: str
) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in backbone.state_dict().items()}
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    if missing:
        raise BadInput(f"{where}: no tensor '{missing[0]}' ({len(missing)} missing): is it this backbone's file?")
    wrong = [name for name in wanted if name in found and found[name] != wanted[name]]
    if wrong:
        shapes = f"{found[wrong[0]]}, expected {wanted[wrong[0]]}"
        raise BadInput(f"{where}: tensor '{wrong[0]}' has shape {shapes}: is it this backbone's file?")
    foreign = [name for name in found if name not in wanted and not name.startswith(heads)]
    if foreign:
        raise BadInput(f"{where}: unexpected tensor '{foreign[0]}': is it this backbone's file?")


def _from_hub(backbone: str) -> Path:
    import timm
    from huggingface_hub import hf_hub_download

    config: Any = timm.get_pretrained_cfg(backbone)
    if config is None or not config.hf_hub_id:
        raise BadInput(
            f"weights = imagenet: timm's hub has none for '{backbone}'; give a file, or null to start from scratch"
        )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return Path(hf_hub_download(config.hf_hub_id, "model.safetensors"))
    except Exception as error:  # the hub's client raises a dozen kinds, offline or refused
        raise BadInput(
            f"weights = imagenet: the weights of '{backbone}' could not be fetched ({type(error).__name__}); give a "
            f"safetensors file with --set weights=FILE, a folder of <timm name>.safetensors in its place, or "
            f"--set weights=null to start from scratch"
        ) from None
