"""Exported folder: what is in it, and its manifest, which names every file with its sha256 and is written last.

    model.onnx                            uint8 images in; logits and probabilities out
    model.int8.onnx                       the same in 8 bits, where that loses next to nothing
    model.safetensors, config.json        the weights, for PyTorch
    preprocess.json                       raw pixels to the images that the model takes
    domain.json                           what training images are like, if they were there
    thresholds.json                       from which probability on a finding is said to be there, if that was fitted
    known_answers/*.png, answers.json     drawn radiographs and what the model says of them
    export.json                           `ExportManifest`
    README.md                             how to use it

Nothing in it runs code when it is loaded, but for `model.pt2`, which is there only if it was asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from xlite_search import storage
from xlite_search.errors import BadInput, Damaged, did_you_mean
from xlite_search.spec import Spec, parse

MANIFEST, ONNX, INT8, PT2 = "export.json", "model.onnx", "model.int8.onnx", "model.pt2"
WEIGHTS, CONFIG, PREPROCESS = "model.safetensors", "config.json", "preprocess.json"
THRESHOLDS, README, ANSWERS = "thresholds.json", "README.md", "known_answers/answers.json"
#: names of the graph's input and outputs
IMAGES, LOGITS, PROBABILITIES = "images", "logits", "probabilities"
#: how such a folder comes to be
MAKES = "`python -m xlite_search export MODEL -o DIR` makes one"
#: of the folder's layout
FORMAT = 1
#: what installs the packages that write and run ONNX
INSTALL = "pip install 'xlite-search[export]'"


class ExportManifest(Spec):
    """What an exported folder says of itself.

    model        the hybrid's name, of an ensemble the members' with plus signs
    name         of the model folder that it was made of
    sha256       of that folder's weights
    calibration  hash of the calibration that the probabilities have; empty: they are the sigmoid of the logits
    classes      the findings, in the order of the logits
    thresholds   probability from which on a finding is said to be there, by finding; a finding without one is left out
    threshold_rule  which of the model's thresholds decide: sensitivity, youden, f1
    threshold_rules  by which each finding's is, if that one has none
    thresholds_hash  hash of the thresholds that these are of; empty: there are none
    parity       largest differences between the graph and the PyTorch model, `parity.Parity`
    latency      milliseconds of one image, `latency.measured`
    int8         what the 8-bit model loses, `int8.Gate`, and its known answers; None: there is none
    notice       what has to be said wherever the training images' origin is
    versions     of the packages that wrote it
    files        sha256 of every file by its path in the folder
    """

    format: int = FORMAT
    model: str
    name: str
    sha256: str
    calibration: str = ""
    classes: tuple[str, ...] = Field(min_length=1)
    thresholds: dict[str, float] = Field(default_factory=dict)
    threshold_rule: str = ""
    threshold_rules: dict[str, str] = Field(default_factory=dict)
    thresholds_hash: str = ""
    parity: dict[str, float] = Field(default_factory=dict)
    latency: dict[str, Any] = Field(default_factory=dict)
    int8: dict[str, Any] | None = None
    notice: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str]


def read_exported(folder: Path) -> ExportManifest:
    """An exported folder's manifest, every file checked against it: onnxruntime itself refuses no changed file.

    Raises:
        BadInput: this is no exported folder, or one of another version.
        Damaged: the manifest or a file is not what was written; the sentence names it.
    """
    about = manifest_of(folder)
    for name, sha256 in about.files.items():
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{path} is missing; export the model again, or copy the whole folder")
        if storage.sha256_of(path) != sha256:
            raise Damaged(f"{path} is not the file that {MANIFEST} names; export the model again")
    missing = sorted({ONNX, PREPROCESS, ANSWERS} - about.files.keys())
    if missing:
        raise Damaged(f"{folder / MANIFEST} names no {missing[0]}; export the model again")
    return about


def manifest_of(folder: Path) -> ExportManifest:
    """An exported folder's manifest; its files are not looked at. Raises as `read_exported`."""
    path = folder / MANIFEST
    if not folder.exists():
        raise BadInput(f"{folder}: there is no such folder{_near(folder)}")
    try:
        body = storage.read_manifest(path)
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{folder} is not an exported model (no {MANIFEST} in it); {MAKES}") from None
    except Damaged:
        raise Damaged(f"{path} is damaged: its content does not match its checksum; export the model again") from None
    if body.get("format") != FORMAT:
        raise BadInput(f"{path} is of format {body.get('format')!r}; this version of xlite_search reads {FORMAT}")
    return parse(ExportManifest, body, f"{path} is not of this version of xlite_search: ")


def _near(folder: Path) -> str:
    """Which exported folder beside it may be meant; else how one is made."""
    beside = sorted(path.parent.name for path in folder.parent.glob(f"*/{MANIFEST}"))
    near = did_you_mean(folder.name, beside)
    return near or f"; {MAKES}"


def expect_own(folder: Path) -> None:
    """Raises BadInput unless `folder` may be written: it is not there, is empty, or is an exported folder alone."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BadInput(f"-o {folder} is a file; give a folder")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if not there:
        return
    try:
        own = {MANIFEST, *manifest_of(folder).files}
    except (BadInput, Damaged):
        own = set()
    if other := sorted(there - own):
        raise BadInput(f"-o {folder} has files that are of no export ({other[0]}); give another folder")
