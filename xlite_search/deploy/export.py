"""Export: a model folder becomes a folder that answers without PyTorch, checked before its manifest is written.

Everything is written into a folder beside the one asked for, the graph is held against the PyTorch model on drawn
radiographs from their file bytes on, and the whole is renamed. What fails leaves nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from xlite_search import storage
from xlite_search.data.sources.phantom import Phantom
from xlite_search.deploy import latency
from xlite_search.deploy.folder import (
    ANSWERS,
    CONFIG,
    INT8,
    LOGITS,
    MANIFEST,
    ONNX,
    PREPROCESS,
    PROBABILITIES,
    PT2,
    README,
    THRESHOLDS,
    WEIGHTS,
    ExportManifest,
    expect_own,
    manifest_of,
)
from xlite_search.deploy.graph import Line, expect_packages, to_onnx, to_pt2
from xlite_search.deploy.int8 import Gate, in_8_bits
from xlite_search.deploy.parity import MOST_IMAGES, Parity, expect_parity, image_files, parity
from xlite_search.deploy.predict import Predictor, open_session
from xlite_search.deploy.weights import weight_files
from xlite_search.errors import BadInput
from xlite_search.evaluation.calibration import Calibration, read_calibration
from xlite_search.evaluation.thresholds import Thresholds, read_thresholds
from xlite_search.model import Model, load_model
from xlite_search.provenance import environment, version_of

if TYPE_CHECKING:
    import torch

#: drawn radiographs whose answers travel with the model, and their height and width
KNOWN, KNOWN_SIZE, KNOWN_SEED = 3, 256, 18
VERSIONS = ("xlite-search", "torch", "timm", "onnx", "onnxscript", "onnxruntime", "numpy", "opencv-python-headless")
#: a folder and what its manifest will say -> further files by their name in it, a model card for one
Writer = Callable[[Path, ExportManifest], Mapping[str, bytes]]


@dataclass(frozen=True)
class Exported:
    """An exported folder. `int8` says what the 8-bit model loses, if one was asked for; it is there if that passed."""

    folder: Path
    manifest: ExportManifest
    parity: Parity
    int8: Gate | None = None


@dataclass(frozen=True)
class _Delivered:
    """What a model folder holds: the model, its calibration and its thresholds."""

    folder: Path
    model: Model
    calibration: Calibration | None
    thresholds: Thresholds | None

    @classmethod
    def read(cls, folder: Path) -> _Delivered:
        model = load_model(folder)
        return cls(folder, model, read_calibration(folder), read_thresholds(folder))

    @property
    def line(self) -> Line:
        if self.calibration is None:
            return Line.none(len(self.model.classes))
        lines = [each.line for each in self.calibration.findings]
        slopes, offsets = np.array([[line.slope, line.offset] for line in lines]).T
        return Line(slopes, offsets, self.calibration.hash)

    def manifest(self) -> ExportManifest:
        """With no files yet."""
        about, found = self.model.manifest, self.thresholds
        values, rules = found.deciding(self.model.classes) if found else (np.zeros(0), ())
        chosen = zip(self.model.classes, values, strict=False)
        limits = {name: float(value) for name, value in chosen if np.isfinite(value)}
        return ExportManifest(
            model=about.model,
            name=self.folder.name,
            sha256=about.sha256,
            calibration=self.line.hash,
            classes=about.classes,
            thresholds=limits,
            threshold_rule=found.decides if found else "",
            threshold_rules={name: by for name, by in zip(self.model.classes, rules, strict=False) if by},
            thresholds_hash=found.hash if found else "",
            notice=about.notice,
            versions={name: version_of(name) for name in VERSIONS},
            files={},
        )


def export(
    folder: Path,
    output: Path,
    *,
    int8: bool = False,
    pt2: bool = False,
    device: torch.device | None = None,
    writers: Sequence[Writer] = (),
) -> Exported:
    """Exports the model of a folder to `output`, a new or empty folder, or one that an export made.

    `device` is where the validation part is judged for `int8`; `writers` add files, which the manifest names as well.

    Raises:
        BadInput: packages are missing, `output` has other files, this model cannot be exported, or its data are not
            there and `int8` needs them.
        RunFailed: the graph does not say what the model does.
    """
    expect_packages()
    expect_own(output)
    delivered = _Delivered.read(folder)
    model, line, about = delivered.model, delivered.line, delivered.manifest()
    preprocess = {**model.preprocess.describe(), "pixels": model.manifest.input.get("pixels", "uint8 gray")}
    with _beside(output) as home:
        storage.write_atomic(home / ONNX, to_onnx(model, line, _properties(about, preprocess)))
        weights, config = weight_files(model)
        storage.write_atomic(home / WEIGHTS, weights)
        storage.write_atomic(home / CONFIG, config)
        storage.write_atomic(home / PREPROCESS, _json(preprocess))
        if delivered.thresholds:
            shutil.copyfile(delivered.folder / THRESHOLDS, home / THRESHOLDS)
        if pt2:
            storage.write_atomic(home / PT2, to_pt2(model, line))
        predictor = Predictor(home, about, model.preprocess, open_session(home / ONNX, 1))
        found = _checked(home, delivered, predictor)
        lost = in_8_bits(home, folder, model.manifest, delivered.calibration, device) if int8 else None
        _write_answers(home, delivered, predictor)
        about = about.model_copy(
            update={
                "parity": asdict(found),
                "latency": _latency(home, predictor),
                "int8": asdict(lost) if lost and lost.passed else None,
            }
        )
        storage.write_atomic(home / README, _readme(about, output.name).encode())
        for writer in writers:
            for name, content in writer(home, about).items():
                storage.write_atomic(home / name, content)
        about = about.model_copy(update={"files": _hashes(home)})
        storage.write_manifest(home / MANIFEST, about.model_dump(mode="json"))
        about = manifest_of(home)
    return Exported(output, about, found, lost)


@contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """A folder that becomes `output` at the end; what was there goes, and what fails leaves nothing."""
    given, output = output, output.absolute()
    home = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    shutil.rmtree(home, ignore_errors=True)
    _make(home, given)
    try:
        yield home
        storage.replace_folder(home, output)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _make(home: Path, output: Path) -> None:
    """Makes the folder beside `output`, whose name any error has: nobody knows the other."""
    try:
        home.mkdir(parents=True)
    except OSError as error:
        if error.errno in storage.FULL:
            raise OSError(error.errno, error.strerror, str(output)) from None
        raise BadInput(f"-o {output}: no folder can be made there ({error.strerror}); give another") from None


def _properties(about: ExportManifest, preprocess: Mapping[str, Any]) -> dict[str, Any]:
    """The graph's metadata: what it takes to use it alone."""
    said = {
        "model": about.model,
        "classes": list(about.classes),
        "sha256": about.sha256,
        "calibration": about.calibration,
        "thresholds": about.thresholds,
        "threshold_rule": about.threshold_rule,
        "preprocess": dict(preprocess),
        "notice": about.notice,
    }
    return {f"xlite.{name}": value for name, value in said.items()}


def _checked(home: Path, delivered: _Delivered, predictor: Predictor) -> Parity:
    """Draws the images that are asked, leaves the first three in the folder, and holds graph and model together."""
    drawn, scratch = Phantom(MOST_IMAGES, seed=KNOWN_SEED, size=KNOWN_SIZE), home / "parity"
    scratch.mkdir()
    for row in range(MOST_IMAGES):
        path = scratch / f"{row:02d}.png"
        path.write_bytes(cv2.imencode(".png", drawn.pixels(row))[1].tobytes())
    found = parity(delivered.model, delivered.line, predictor, image_files(scratch, MOST_IMAGES))
    expect_parity(found)
    known = (home / ANSWERS).parent
    known.mkdir()
    for number, path in enumerate(image_files(scratch, KNOWN), start=1):
        storage.write_atomic(known / f"phantom_{number}.png", path.read_bytes())
    shutil.rmtree(scratch)
    return found


def _latency(home: Path, predictor: Predictor) -> dict[str, Any]:
    found = latency.measured(predictor, home / ONNX, _known_files(home)[0], latency.QUICK)
    return found | {"cpu": environment()["cpu"]}


def _known_files(home: Path) -> list[Path]:
    return image_files((home / ANSWERS).parent, KNOWN)


def _write_answers(home: Path, delivered: _Delivered, predictor: Predictor) -> None:
    """The PyTorch model's answers to the folder's own images; of the 8-bit graph its own."""
    import torch

    files = _known_files(home)
    images = np.stack([predictor.prepared(file) for file in files])
    logits = delivered.model.logits(torch.from_numpy(images)).numpy()
    answers = {"float": _answers(files, logits, delivered.line.probabilities(logits))}
    if (home / INT8).is_file():
        eight = replace(predictor, session=open_session(home / INT8, 1))
        both = [eight(image[None]) for image in images]
        answers["int8"] = _answers(files, np.concatenate([a for a, _ in both]), np.concatenate([b for _, b in both]))
    storage.write_atomic(home / ANSWERS, _json(answers))


def _answers(files: Sequence[Path], logits: Any, probabilities: Any) -> list[dict[str, Any]]:
    columns = (files, logits.tolist(), probabilities.tolist())
    return [{"file": file.name, LOGITS: z, PROBABILITIES: p} for file, z, p in zip(*columns, strict=True)]


def _hashes(home: Path) -> dict[str, str]:
    files = sorted(path for path in home.rglob("*") if path.is_file())
    return {path.relative_to(home).as_posix(): storage.sha256_of(path) for path in files}


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def _readme(about: ExportManifest, name: str) -> str:
    calibrated = "calibrated" if about.calibration else "not calibrated: the sigmoid of the logits"
    notice = f"\n{about.notice}\n" if about.notice else ""
    return f"""# {about.name}

`{about.model}`, exported by xlite_search. Findings: {", ".join(about.classes)}. Its probabilities are {calibrated}.
It is for research, and no medical device.

    pip install 'xlite-search[export]'                      # onnxruntime, OpenCV, numpy
    python -m xlite_search predict {name} IMAGE.png          # PNG, JPEG or DICOM; --csv, --json
    python -m xlite_search predict {name} --selftest         # asks the known answers again

`model.onnx` takes uint8 `images` `[batch, channel, height, width]`, prepared as `preprocess.json` says, and gives
`logits` and `probabilities` `[batch, finding]`; its metadata name the findings. `export.json` has the sha256 of every
file: onnxruntime itself refuses no changed one.
{notice}"""
