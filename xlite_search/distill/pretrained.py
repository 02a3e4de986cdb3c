"""Pretrained teachers from elsewhere: a state dict in a `.pth` file becomes one of our model folders."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import safetensors.torch
import torch
from pydantic import Field
from torch import Tensor

from xlite_search import model_folder, places, storage
from xlite_search.data.dataset import Data, DataSpec, open_data
from xlite_search.errors import BadInput
from xlite_search.model_folder import DataSeen, ModelManifest, input_of, read_model, trained_on, write_model
from xlite_search.models.hybrid import ATTENTIONS, MULTI_SCALE, build_model, full_name, parameters, split_name
from xlite_search.spec import Spec

#: where training scripts put the model's state beside the optimizer's
WRAPPINGS = ("state_dict", "model_state_dict", "model")
#: the layer that has one row a finding
HEAD = "classifier.2."
#: how the names of a hybrid's attention begin
ATTENTION = "attention."
NAMED = 3


class Pretrained(Spec):
    """A `.pth` or `.pt` file of plain PyTorch; it is read so that it cannot run code.

    path        the file: a state dict, alone or as `state_dict`, `model_state_dict` or `model` of a checkpoint
    model       the hybrid that it fits
    keys        how its names begin and how the hybrid's do, the longest first: {"module.": "", "cnn.": "backbone."}
    classes     the findings in the order of its last layer; None: in this data set's
    pos_weight  what its own loss gave positives, in that order; None: nothing
    patients    a text file of the patients that it was trained on, one a line; None: nobody knows
    """

    path: str
    model: str
    keys: dict[str, str] = Field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    pos_weight: tuple[float, ...] | None = None
    patients: str | None = None

    #: how a sentence names the file, and how names are mapped
    role: ClassVar[str] = "teacher "
    mapping: ClassVar[str] = "keys={'old beginning': 'new beginning'}"

    def mapped(self, beginning: str) -> str:
        """How a sentence asks for a beginning to be left out."""
        return f"keys={{'{beginning}': ''}}"

    @property
    def what(self) -> str:
        return f"{self.role}{self.path}"


class Checkpoint(Pretrained):
    """As the verb `take` is given it."""

    role: ClassVar[str] = ""
    mapping: ClassVar[str] = "--keys 'old beginning=new beginning'"

    def mapped(self, beginning: str) -> str:
        return f"--keys {beginning}="


def import_teacher(given: Pretrained, data: Data) -> str:
    """Makes the file a model folder among the teachers; returns its key, which everything that is given decides.

    Raises:
        BadInput: the file is not there, is no state dict, does not fit the model, or knows other findings.
    """
    sha256 = _sha256(given)
    patients, images = _patients(given), input_of(data)
    said, source = given.model_dump(mode="json", exclude={"path", "patients"}), data.packed.manifest["source"]
    seen = data.packed.preprocess.identity | {"pixels": images["pixels"]}
    key = storage.digest([sha256, said, patients, source, seen, list(data.classes)])[:12]
    home = places.teacher_folder(key)
    if not model_folder.exists(home):
        write_model(home, *_as_model(given, data))
    return key


def take_in(given: Pretrained, spec: DataSpec, home: Path) -> ModelManifest:
    """Makes the file a model folder, which is judged on this data set, split as it says; returns its manifest.

    Raises as `import_teacher`; BadInput if the folder holds another model.
    """
    sha256, data = _sha256(given), open_data(spec)
    weights, about = _as_model(given, data)
    judged = DataSeen(name=spec.name, fingerprint=data.packed.fingerprint, split=data.split.fingerprint)
    config = about.config | {"data": spec.model_dump(mode="json")}
    made = about.provenance | {"file_sha256": sha256}
    told = {"config": config, "data": judged, "provenance": made, "sha256": hashlib.sha256(weights).hexdigest()}
    about = about.model_copy(update=told)
    if not model_folder.exists(home):
        write_model(home, weights, about)
    elif read_model(home).as_json() != about.as_json():
        raise BadInput(f"{home} holds another model; give this one a --name of its own")
    return about


def _sha256(given: Pretrained) -> str:
    if not Path(given.path).is_file():
        raise BadInput(f"{given.what}: there is no such file")
    return storage.sha256_of(Path(given.path))


def _as_model(given: Pretrained, data: Data) -> tuple[bytes, ModelManifest]:
    """The file's weights under the hybrid's names, in the order of these findings, and what is known of them."""
    patients, order = _patients(given), _order(given, data.classes)
    model = build_model(full_name(given.model), classes=len(data.classes))
    state = _fitting(_state(given), given, model.state_dict())
    for name in (f"{HEAD}weight", f"{HEAD}bias"):
        state[name] = state[name][order]
    weights = bytes(safetensors.torch.save({name: tensor.contiguous().clone() for name, tensor in state.items()}))
    about = ModelManifest(
        config={"model": full_name(given.model)},
        run="",
        classes=data.classes,
        input=input_of(data),
        parameters=parameters(model),
        pos_weight=tuple(given.pos_weight[place] for place in order) if given.pos_weight else None,
        best_epoch=0,
        metrics={},
        trained_on=trained_on(data, patients) if patients is not None else None,
        provenance={
            "file": Path(given.path).name,
            **given.model_dump(mode="json", exclude={"path", "patients"}),
        },
    )
    return weights, about


def _state(given: Pretrained) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content: Any = torch.load(given.path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BadInput(
            f"{given.what}: not a file of plain tensors ({type(error).__name__}); save `model.state_dict()` with "
            f"torch.save, not the model itself"
        ) from None
    for wrapping in WRAPPINGS:
        if isinstance(content, dict) and isinstance(content.get(wrapping), dict):
            content = content[wrapping]
    if not isinstance(content, dict) or not content or not all(map(_named_tensor, content.items())):
        raise BadInput(f"{given.what}: holds no state dict, which has a tensor for every name")
    return content


def _named_tensor(entry: tuple[object, object]) -> bool:
    return isinstance(entry[0], str) and isinstance(entry[1], Tensor)


def _fitting(state: dict[str, Tensor], given: Pretrained, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state under the model's names, each of its shape."""
    renamed = {_renamed(name, given.keys): tensor for name, tensor in state.items()}
    if len(renamed) < len(state):
        raise BadInput(f"{given.what}: keys = {given.keys} gives two of its tensors the same name")
    missing, extra = sorted(wanted.keys() - renamed.keys()), sorted(renamed.keys() - wanted.keys())
    if missing or extra:
        lacks = [f"lacks {len(missing)} names of '{given.model}' ({', '.join(missing[:NAMED])})"] if missing else []
        has = [f"has {len(extra)} that it does not know ({', '.join(extra[:NAMED])})"] if extra else []
        said = " and ".join(lacks + has)
        raise BadInput(f"{given.what}: {said}; {_advice(state, given, wanted, [*missing, *extra])}")
    for name, tensor in renamed.items():
        if tensor.shape != wanted[name].shape:
            raise BadInput(
                f"{given.what}: {name} is {list(tensor.shape)}, '{given.model}' with this data set's findings "
                f"wants {list(wanted[name].shape)}"
            )
    if not all(torch.isfinite(tensor).all() for tensor in renamed.values()):
        raise BadInput(f"{given.what}: some of its weights are not finite")
    return renamed


def _advice(state: Mapping[str, Tensor], given: Pretrained, wanted: Container[str], unmatched: Sequence[str]) -> str:
    """What may be wrong with names that do not match, and what to do."""
    if all(name.startswith(ATTENTION) for name in unmatched):
        return _other_attention(state, given)
    idle = [old for old in given.keys if not any(name.startswith(old) for name in state)]
    told = "".join(f"no name in it begins with '{old}'; " for old in idle)
    common = _common_beginning(list(state), wanted)
    if common:
        return f"{told}all of its names begin with '{common}': leave that out by {given.mapped(common)}"
    return f"{told}map them with {given.mapping}"


def _common_beginning(names: Sequence[str], wanted: Container[str]) -> str:
    """How all names begin, in whole words, without which some are the hybrid's; empty if that is not so."""
    words = names[0].split(".")
    for many in range(1, len(words)):
        common = ".".join(words[:many]) + "."
        if not all(name.startswith(common) for name in names):
            return ""
        if any(name.removeprefix(common) in wanted for name in names):
            return common
    return ""


def _other_attention(state: Mapping[str, Tensor], given: Pretrained) -> str:
    """Where all but the attention's names match: the hybrids of this backbone that have the file's."""
    names, fitting = {_renamed(name, given.keys) for name in state}, []
    backbone, own, multi_scale = split_name(full_name(given.model))
    for attention in ATTENTIONS:
        hybrid = f"{backbone}_{attention}{MULTI_SCALE if multi_scale else ''}"
        try:
            with torch.device("meta"):
                found = build_model(full_name(hybrid), classes=1).state_dict().keys()
        except BadInput:
            continue
        if attention != own and found == names:
            fitting.append(f"'{hybrid}'")
    meant = (
        f"did you mean {' or '.join(fitting)}?" if fitting else f"give the one of {', '.join(ATTENTIONS)} that it has"
    )
    return f"all of them are the attention's, and the file may be of a hybrid with another: {meant}"


def _renamed(name: str, keys: dict[str, str]) -> str:
    for old in sorted(keys, key=len, reverse=True):
        if name.startswith(old):
            return keys[old] + name.removeprefix(old)
    return name


def _order(given: Pretrained, classes: tuple[str, ...]) -> list[int]:
    """Which row of its last layer is each of our findings."""
    named = given.classes or classes
    if sorted(named) != sorted(classes):
        other = sorted(set(named) ^ set(classes))
        raise BadInput(f"{given.what}: its findings are not those of this data set ({', '.join(other)})")
    if given.pos_weight is not None and len(given.pos_weight) != len(classes):
        raise BadInput(f"{given.what}: {len(given.pos_weight)} pos_weights for {len(classes)} findings")
    if given.pos_weight and min(given.pos_weight) <= 0:
        raise BadInput(f"{given.what}: pos_weight = {min(given.pos_weight):g}: positives count for more than 0")
    return [named.index(name) for name in classes]


def _patients(given: Pretrained) -> list[str] | None:
    if given.patients is None:
        return None
    try:
        lines = Path(given.patients).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise BadInput(f"{given.what}: patients = {given.patients} cannot be read as text") from None
    return sorted({line.strip() for line in lines if line.strip()})
