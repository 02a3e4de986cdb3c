"""Model folder: a delivered model on disk, its weights and typed manifest, read and written here alone.

    model.safetensors   the weights, of the model that the manifest's config names; nothing in it runs code
    model.json          `ModelManifest`, with a checksum of its own and the weights'

A study's teacher lies in `mlruns/teachers/<key>/`, a final training leaves one in `mlruns/models/<name>/`, and a state
dict of somebody else becomes one. An ensemble is a folder with a manifest that names its members, beside it.

Folders are found by path; `xlite_search.load_model(folder)` gives the model (`model.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from xlite_search import storage
from xlite_search.data.dataset import Data, DataSpec, open_data
from xlite_search.data.preprocess import Preprocess
from xlite_search.errors import BadInput, Damaged
from xlite_search.records import RunRecord
from xlite_search.spec import Spec, parse
from xlite_search.training.losses import Loss

if TYPE_CHECKING:
    from xlite_search.models.hybrid import Hybrid

WEIGHTS, MANIFEST = "model.safetensors", "model.json"

#: what a pixel is, by the number of channels
PIXELS = {1: "uint8 gray", 3: "uint8 RGB"}
#: how many of the weights that do not fit are named
NAMED = 3


class DataSeen(Spec):
    """The data set that a model was judged on: its name here, and its and its split's fingerprints."""

    name: str = ""
    fingerprint: str
    split: str


class TrainedOn(Spec):
    """Whom a model has seen. Patient 7 of one source of images is not patient 7 of another."""

    source: Any
    patients: tuple[str, ...]


class ModelManifest(Spec):
    """What a model folder says of its model. What an older folder, or another's model, does not know has its default.

    sha256      of the weights; of an ensemble, of its members' sha256
    config      the whole resolved config of its run; of a model from elsewhere `{"model": name}`
    run         key of the run that it is the best epoch of; empty if it is from elsewhere
    classes     the findings, in the order of the logits
    input       how its images were prepared: `Preprocess.describe` and what a pixel is. Empty: not known
    parameters  how many numbers its training changed
    pos_weight  what its loss gave positives, `[class]`: it moves a logit's optimum by its logarithm; None: nothing
    best_epoch, metrics  the epoch that was kept, and its metrics
    data, trained_on     what it was judged on, and whom it was fitted on; None: not known
    notice      what has to be said wherever the images' origin is: a licence's sentence
    provenance  code, libraries, study and trial that made it
    members     of an ensemble: folders beside this one. It has no weights of its own
    """

    sha256: str = ""
    config: dict[str, Any]
    run: str = ""
    classes: tuple[str, ...] = Field(min_length=1)
    input: dict[str, Any] = Field(default_factory=dict)
    parameters: int = Field(0, ge=0)
    pos_weight: tuple[float, ...] | None = None
    best_epoch: int = Field(0, ge=0)
    metrics: dict[str, float] = Field(default_factory=dict)
    data: DataSeen | None = None
    trained_on: TrainedOn | None = None
    notice: str = ""
    provenance: dict[str, Any] = Field(default_factory=dict)
    members: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The hybrid's name; of an ensemble the members', with plus signs."""
        return str(self.config.get("model", ""))

    @property
    def preprocess(self) -> Preprocess:
        """What makes an image of a raw one that this model may be shown.

        Raises:
            BadInput: the manifest does not say, or says what this version cannot do.
        """
        if "size" not in self.input or "clahe" not in self.input:
            raise BadInput(
                f"{MANIFEST} of '{self.model}' does not say how its images were prepared; give prepared ones"
            )
        try:
            return Preprocess.described(self.input)
        except (BadInput, TypeError, ValueError, IndexError):
            raise BadInput(
                f"{MANIFEST} of '{self.model}' says that its images were prepared as this version cannot: {self.input}"
            ) from None

    def as_json(self) -> dict[str, Any]:
        """What is written: all that was said of it, and no default that was not."""
        return self.model_dump(mode="json", exclude_unset=True)


def exists(folder: Path) -> bool:
    """Whether there is a model: its manifest is written last."""
    return (folder / MANIFEST).exists()


def read_model(folder: Path) -> ModelManifest:
    """A model folder's manifest, its weights checked against it; of an ensemble, its members' too.

    Raises:
        BadInput: this is no model folder, or one of another version of this program.
        Damaged: the manifest is damaged, or the weights are not its.
    """
    about = manifest_of(folder)
    for member in about.members:
        read_model(folder.parent / member)
    weights = folder / WEIGHTS
    if not about.members and not (weights.is_file() and storage.sha256_of(weights) == about.sha256):
        raise Damaged(f"{weights} is missing or is not the file that {MANIFEST} names")
    return about


def manifest_of(folder: Path) -> ModelManifest:
    """A model folder's manifest; its weights are not looked at. Raises as `read_model`."""
    return parse(ModelManifest, _body(folder), f"{folder / MANIFEST} is not of this version of xlite_search: ")


def key_of(folder: Path) -> str:
    """What a given model is called among the teachers: a hash of all that its manifest says, 12 hex digits."""
    return storage.digest(_body(folder))[:12]


def _body(folder: Path) -> dict[str, Any]:
    try:
        return storage.read_manifest(folder / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{folder} is not a model folder (no {MANIFEST} in it)") from None


def copy_model(folder: Path, home: Path) -> None:
    """The same model in another folder; its manifest says the same, to the letter."""
    storage.write_atomic(home / WEIGHTS, (folder / WEIGHTS).read_bytes())
    storage.write_manifest(home / MANIFEST, _body(folder))


def write_model(folder: Path, weights: bytes, about: ModelManifest) -> str:
    """Leaves a model folder; returns the weights' sha256. The manifest comes last: without it there is no model."""
    sha256 = storage.write_atomic(folder / WEIGHTS, weights)
    storage.write_manifest(folder / MANIFEST, about.model_copy(update={"sha256": sha256}).as_json())
    return sha256


def write_ensemble(folder: Path, members: Sequence[str], fitted: DataSpec | None = None) -> None:
    """Leaves the folder of an ensemble, whose members lie beside it. `fitted` are the data of members that were each
    fitted on a part of them; else they are those that all members have in common, if they have.

    Raises:
        BadInput: a member is not there, or they know other findings, or in another order.
    """
    abouts = [read_model(folder.parent / member) for member in members]
    if len({about.classes for about in abouts}) > 1:
        raise BadInput("teacher: the members of the ensemble know other findings, or in another order")
    first = abouts[0]
    config = {"model": " + ".join(about.model for about in abouts)}
    seen = first.data if all(about.data == first.data for about in abouts) else None
    own = first.config.get("data") if seen else None
    if fitted:
        seen, own = seen_of(open_data(fitted)), fitted.model_dump(mode="json")
    about = ModelManifest(
        members=tuple(members),
        sha256=storage.digest([about.sha256 for about in abouts]),
        config=config | ({"data": own} if own else {}),
        classes=first.classes,
        input=first.input,
        parameters=sum(about.parameters for about in abouts),
        pos_weight=None,
        metrics={},
        **({"data": seen, "trained_on": _seen_by_any(abouts), "notice": first.notice} if seen else {}),
    )
    storage.write_manifest(folder / MANIFEST, about.as_json())


def _seen_by_any(abouts: Sequence[ModelManifest]) -> TrainedOn | None:
    """Whom the members were trained on; None where one does not know, or they had several sources."""
    seen = [about.trained_on for about in abouts]
    known = [each for each in seen if each is not None and seen[0] is not None and each.source == seen[0].source]
    if len(known) < len(seen):
        return None
    return TrainedOn(source=known[0].source, patients=tuple(sorted({who for each in known for who in each.patients})))


def input_of(data: Data) -> dict[str, Any]:
    """What a data set's images are, every setting of it: a teacher of others would answer, and be wrong."""
    return {**data.packed.preprocess.describe(), "pixels": PIXELS.get(data.packed.channels, "uint8")}


def seen_of(data: Data) -> DataSeen:
    return DataSeen(name=data.packed.folder.name, fingerprint=data.packed.fingerprint, split=data.split.fingerprint)


def trained_on(data: Data, patients: Iterable[str]) -> TrainedOn:
    return TrainedOn(source=data.packed.manifest["source"], patients=tuple(patients))


def shared_patients(seen: TrainedOn | None, data: Data) -> list[str]:
    """Patients that a model was trained on and that another, a student perhaps, is judged by, in validation or test."""
    return seen_among(seen, data, [row for name in ("val", "test") for row in data.split.rows.get(name, ())])


def seen_among(seen: TrainedOn | None, data: Data, rows: Iterable[int]) -> list[str]:
    """Patients of some rows that a model was trained on; nobody where that is not known, or of another source."""
    if seen is None or source_of(seen.source) != source_of(data.packed.manifest["source"]):
        return []
    patients = data.packed.table.groups
    return sorted({patients[row] for row in rows} & set(seen.patients))


def source_of(about: Any) -> Any:
    """A source of images as today's describe themselves: how its values were stretched was part of it once."""
    return {name: value for name, value in about.items() if name != "tail"} if isinstance(about, dict) else about


def expect_loadable(record: RunRecord, classes: int) -> Hybrid:
    """The model that a run's config builds, on torch's meta device: its best weights are this model's.

    Raises:
        BadInput: they are not, because its trainable built another one; the sentence names the unknown tensors.
        Damaged: they are not what was written.
    """
    import safetensors.torch
    import torch

    from xlite_search.models.hybrid import build_model

    name = str(record.config["model"])
    with torch.device("meta"):
        model = build_model(name, classes=classes)
    wanted = {key: tensor.shape for key, tensor in model.state_dict().items()}
    given = {key: tensor.shape for key, tensor in safetensors.torch.load(record.weights()).items()}
    unknown, missing = sorted(given.keys() - wanted.keys()), sorted(wanted.keys() - given.keys())
    other = sorted(key for key in given.keys() & wanted.keys() if given[key] != wanted[key])
    found = [
        f"{len(keys)} that {what} ({', '.join(keys[:NAMED])}{', ...' if len(keys) > NAMED else ''})"
        for keys, what in ((unknown, "it does not have"), (missing, "are missing"), (other, "have another shape"))
        if keys
    ]
    if found:
        raise BadInput(
            f"{record.label}: its weights are not those of a '{name}' with {classes} findings: {', '.join(found)}. "
            f"Nobody could load them; let weights_bytes of the EpochResults that its trainable yields have the "
            f"model's own weights alone, under its names (`part` says where they are, docs/own_trainable.md)"
        )
    return model


def publish(folder: Path, record: RunRecord, loss: Loss, data: Data, provenance: dict[str, Any]) -> str:
    """Makes a finished run's best epoch a model folder; returns the weights' sha256.

    Raises as `expect_loadable`; no folder is begun then.
    """
    from xlite_search.models.hybrid import parameters

    model = expect_loadable(record, len(data.classes))
    weight = loss.pos_weight(data.train.positives, len(data.train))
    about = ModelManifest(
        config=record.config,
        run=record.key,
        classes=data.classes,
        input=input_of(data),
        parameters=parameters(model),
        pos_weight=tuple(weight.tolist()) if weight is not None else None,
        best_epoch=record.best.epoch if record.best else 0,
        metrics=record.epochs[record.best.epoch - 1] if record.best else {},
        data=seen_of(data),
        trained_on=trained_on(data, sorted({data.packed.table.groups[row] for row in data.train.rows})),
        notice=data.packed.manifest["notice"],
        provenance=provenance,
    )
    return write_model(folder, record.weights(), about)
