"""Backbone weights from a file with timm's names, or from the hub. Identity is the file's sha256, never its path."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from xlite_search import storage
from xlite_search.errors import BadInput, Damaged
from xlite_search.spec import Spec

IMAGENET = "imagenet"


class Weights(Spec):
    """A safetensors file of backbone weights; `path="imagenet"` asks timm's hub for the backbone's own."""

    path: str
    sha256: str = ""

    def resolved(self, backbone: str) -> Weights:
        """With an absolute path and the file's sha256.

        Raises:
            BadInput: there is no such file, or the hub cannot be reached or has no weights for this backbone.
        """
        self.expect_file()
        path = _from_hub(backbone) if self.path == IMAGENET else Path(self.path).absolute()
        return Weights(path=str(path), sha256=storage.sha256_of(path))

    def expect_file(self) -> None:
        """Raises BadInput if a file is named that is not there; asks no network."""
        if self.path != IMAGENET and not Path(self.path).is_file():
            raise BadInput(f"weights = {self.path}: there is no such file; give a safetensors file with timm's names")


def load_backbone(backbone: nn.Module, weights: Weights, heads: tuple[str, ...]) -> None:
    """Loads a file into a backbone. Entries under `heads` (the old classifier and what we removed) are ignored.

    Raises:
        BadInput: the file is not safetensors, or lacks a tensor that the backbone has, or has one of another shape.
        Damaged: it is not the file that the config was resolved with.
    """
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
    wanted = backbone.state_dict()
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    if missing:
        raise BadInput(
            f"weights = {path}: no tensor '{missing[0]}' ({len(missing)} missing): is it this backbone's file?"
        )
    wrong = [name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape]
    if wrong:
        shapes = f"{tuple(tensors[wrong[0]].shape)}, expected {tuple(wanted[wrong[0]].shape)}"
        raise BadInput(f"weights = {path}: tensor '{wrong[0]}' has shape {shapes}: is it this backbone's file?")
    foreign = [name for name in tensors if name not in wanted and not name.startswith(heads)]
    if foreign:
        raise BadInput(f"weights = {path}: unexpected tensor '{foreign[0]}': is it this backbone's file?")
    backbone.load_state_dict(tensors | {k: v for k, v in wanted.items() if k not in tensors}, strict=False)


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
            f"safetensors file with --set weights=FILE, or --set weights=null to start from scratch"
        ) from None
