"""Cache of teacher logits on disk: each (image, view) computed once, read by every trial of every study.

    mlruns/teachers/<key>/logits/<store>/
        store.json        whose logits these are, of which views of which images (`identity`)
        00003-0007.f16    view 3, block 7: a sha256, the seconds that it took, float16 logits [image, class]
        val.f16           logits of the validation images as they are, for the teacher's AUROC
        locks/            held by whoever computes a block

A block's file appears whole, by a rename, or not at all: whoever needs a view computes the blocks that are missing, one
at a time under the block's lock, and leaves those to others that others are computing. So trials that start together
share the work, a killed one costs its block, and one that finds all there never loads the teacher. The sha256 is over
the names of store and file and all that follows: a block that was cut, flipped, moved or taken from elsewhere is
refused by name, and not computed again until somebody removes it. A view costs 28 bytes at 14 findings.
"""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from xlite_search import places, progress, provenance, storage
from xlite_search.closure import code_of
from xlite_search.data.dataset import Data, Part
from xlite_search.data.loaders import ordered_batches
from xlite_search.data.views import Augment
from xlite_search.data.views import fingerprint as views_fingerprint
from xlite_search.errors import BadInput, Damaged, RunFailed
from xlite_search.model_folder import ModelManifest
from xlite_search.models import hybrid
from xlite_search.models.hybrid import build_model
from xlite_search.training.metrics import validation_metrics

SCHEMA = 1
MANIFEST, VALIDATION, LOCKS = "store.json", "val.f16", "locks"
#: images that the teacher sees at once, and what blocks are multiples of
INFERENCE_BATCH = 64
BLOCKS, LARGEST_BLOCK = 16, 4096
BLOCK_FILES = f"{'[0-9]' * 5}-{'[0-9]' * 4}.f16"
DIGEST = hashlib.sha256().digest_size
SECONDS = struct.Struct("<d")
HEADER = DIGEST + SECONDS.size
#: memory for views that were read, in bytes; the oldest goes first
CACHE = 64 * 2**20
#: how far a logit may be from the one that is stored: by other kernels a part of what the label's logits spread
#: over, by float16 a part of itself
SPREAD, RELATIVE = 0.05, 1e-3
AUROC_TOLERANCE = 2e-3

#: uint8 images `[batch, 1, size, size]` -> logits float32 `[batch, class]`
Compute = Callable[[torch.Tensor], torch.Tensor]


def identity(teacher: ModelManifest, data: Data, augment: Augment | None, *, compiled: bool = False) -> dict[str, Any]:
    """What a store's logits depend on; `teacher` is its model folder's manifest, `compiled` has other last digits."""
    about = {
        "schema": SCHEMA,
        "teacher": teacher.sha256,
        "model": teacher.model,
        "computed_by": computed_by(),
        "input": data.packed.preprocess.identity,
        "views": views_fingerprint(augment) if augment else "the image itself",
        "classes": list(data.classes),
        "data": data.packed.fingerprint,
        "images": hashlib.sha256(data.train.rows.astype("<i8").tobytes()).hexdigest()[:16],
        "validation": hashlib.sha256(data.split.rows["val"].astype("<i8").tobytes()).hexdigest()[:16],
        "block": _block(len(data.train)),
    }
    return about | ({"compiled": True} if compiled else {})


def computed_by() -> dict[str, str]:
    """What makes logits of weights and images: the code of our models, and the libraries below it."""
    code = code_of(Path(hybrid.__file__), build_model.__name__, hybrid.__name__, provenance.PACKAGE.parent).version
    return {"code": code} | {name: provenance.version_of(name) for name in ("torch", "timm")}


def _block(images: int) -> int:
    """Images of a block: some sixteen blocks a view, whole inference batches, 4,096 at most."""
    batches = -(-images // (BLOCKS * INFERENCE_BATCH))
    return min(batches * INFERENCE_BATCH, LARGEST_BLOCK)


@dataclass
class LogitStore:
    """The logits of one teacher for the views of one training part. `computed` and `seconds` count our own work."""

    folder: Path
    about: dict[str, Any]
    data: Data
    augment: Augment | None
    computed: int = 0
    seconds: float = 0.0
    _read: dict[int, NDArray[np.float16]] = field(default_factory=dict)

    @classmethod
    def open(
        cls, key: str, teacher: ModelManifest, data: Data, augment: Augment | None, *, compiled: bool = False
    ) -> LogitStore:
        """The store of teacher `key`, begun if there is none.

        Raises:
            BadInput: what is there belongs to another teacher, data set, augmentation or order of labels.
            Damaged: its manifest is.
        """
        about = identity(teacher, data, augment, compiled=compiled)
        name = storage.digest(about)[:16]
        folder = places.teacher_folder(key) / "logits" / name
        if not (folder / MANIFEST).exists():
            with storage.alone(folder / LOCKS, "the store", wait=True):
                if not (folder / MANIFEST).exists():
                    storage.write_manifest(folder / MANIFEST, about)
        found = storage.read_manifest(folder / MANIFEST)
        other = sorted(n for n in about.keys() | found.keys() if about.get(n) != found.get(n))
        if other:
            raise BadInput(
                f"{folder} holds logits of another {other[0]} ({found.get(other[0])}) than is wanted "
                f"({about.get(other[0])}): it was put there by hand. {REMOVE}"
            )
        return cls(folder, about, data, augment)

    @property
    def part(self) -> Part:
        return self.data.train

    @cached_property
    def val(self) -> Part:
        """The split's validation part, although a final training may fit on it too."""
        return Part(self.data.packed, self.data.split.rows["val"])

    @property
    def blocks(self) -> int:
        return -(-len(self.part) // int(self.about["block"]))

    def views(self) -> list[int]:
        """Numbers of the views that are there in full."""
        numbers = {int(path.name[:5]) for path in self.folder.glob(BLOCK_FILES)}
        return sorted(n for n in numbers if not self.missing(n))

    def missing(self, view: int) -> list[int]:
        return [block for block in range(self.blocks) if not self._path(view, block).exists()]

    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.folder.glob("*.f16"))

    def view(self, number: int, compute: Compute, device: torch.device) -> NDArray[np.float16]:
        """Logits of a view of every image of the part, `[image, class]`, in its order; what is missing is computed.

        Raises:
            Damaged: a block is not what was written.
            RunFailed: the teacher's logits are not finite.
        """
        if number not in self._read:
            while missing := self.missing(number):
                done = [block for block in missing if self._compute(number, block, compute, device, wait=False)]
                if not done:
                    self._compute(number, missing[0], compute, device, wait=True)
            self._remember(number, np.concatenate([self._block(number, block) for block in range(self.blocks)]))
        return self._read[number]

    def validation(self, compute: Compute, device: torch.device) -> NDArray[np.float32]:
        """Logits of the validation images as they are, `[image, class]`, computed if they are missing."""
        path = self.folder / VALIDATION
        if not path.exists():
            with storage.alone(self.folder / LOCKS / "val", "the store", wait=True):
                if not path.exists():
                    batches = ordered_batches(self.val, INFERENCE_BATCH, device)
                    self._write(path, lambda: _half(compute(batch.images) for batch in batches))
        return self._content(path, len(self.val)).astype(np.float32)

    def seconds_per_image(self) -> float:
        """What the logits of an image took, on average over the blocks that are there."""
        blocks = list(self.folder.glob(BLOCK_FILES))
        spent = [_seconds(path) for path in blocks]
        images = sum(len(self._positions(int(path.name[6:10]))) for path in blocks)
        return sum(spent) / images if images else 0.0

    def _remember(self, number: int, logits: NDArray[np.float16]) -> None:
        while self._read and (len(self._read) + 1) * logits.nbytes > CACHE:
            del self._read[next(iter(self._read))]
        self._read[number] = logits

    def _compute(self, view: int, block: int, compute: Compute, device: torch.device, *, wait: bool) -> bool:
        """Computes a block. False if somebody else is at it, and we do not wait."""
        path = self._path(view, block)
        lock = FileLock(self.folder / LOCKS / f"{block:04d}", timeout=-1 if wait else 0)
        try:
            lock.acquire()
        except Timeout:
            return False
        try:
            if not path.exists():
                for left in self.folder.glob(f"{path.name}.*.tmp"):  # by one that was killed
                    left.unlink(missing_ok=True)
                positions = self._positions(block)
                self.seconds += self._write(path, lambda: self._computed(positions, view, compute, device))
                self.computed += len(positions)
                done = self.blocks - len(self.missing(view))
                progress.report(progress.TEACHER, done, self.blocks, len(positions))
            return True
        finally:
            lock.release()

    def _computed(
        self, positions: NDArray[np.int64], view: int, compute: Compute, device: torch.device
    ) -> NDArray[np.float16]:
        batches = ordered_batches(
            self.part, INFERENCE_BATCH, device, augment=self.augment, view=view, positions=positions
        )
        return _half(compute(batch.images) for batch in batches)

    def _positions(self, block: int) -> NDArray[np.int64]:
        size = int(self.about["block"])
        return np.arange(block * size, min((block + 1) * size, len(self.part)))

    def _path(self, view: int, block: int) -> Path:
        return self.folder / f"{view:05d}-{block:04d}.f16"

    def _block(self, view: int, block: int) -> NDArray[np.float16]:
        return self._content(self._path(view, block), len(self._positions(block)))

    def _write(self, path: Path, made: Callable[[], NDArray[np.float16]]) -> float:
        """Writes the logits that are made; returns the seconds that this took."""
        started = time.perf_counter()
        logits = made().astype("<f2").tobytes()
        seconds = time.perf_counter() - started
        content = SECONDS.pack(seconds) + logits
        storage.write_atomic(path, self._signature(path, content) + content)
        return seconds

    def _signature(self, path: Path, content: bytes) -> bytes:
        return hashlib.sha256(f"{self.folder.name}/{path.name}\n".encode() + content).digest()

    def _content(self, path: Path, images: int) -> NDArray[np.float16]:
        raw = path.read_bytes()
        classes = len(self.data.classes)
        if len(raw) != HEADER + 2 * images * classes:
            raise Damaged(f"{path} is cut or of another size than the logits of {images} images. {REMOVE}")
        if raw[:DIGEST] != self._signature(path, raw[DIGEST:]):
            raise Damaged(f"{path} is not what was written: a bit flipped, or it comes from elsewhere. {REMOVE}")
        logits = np.frombuffer(raw, "<f2", offset=HEADER).reshape(images, classes).astype(np.float16)
        if not np.isfinite(logits).all():
            raise Damaged(f"{path} has logits that are not finite, which no teacher was allowed to give. {REMOVE}")
        return logits

    def verify(self, compute: Compute, device: torch.device, recorded: float | None, *, entries: int = 32) -> None:
        """Every file is what was written; `entries` logits drawn at random are computed again; the validation AUROC is
        the `recorded` one, if there is one.

        Raises:
            Damaged: what is not so, by name.
            RunFailed: the teacher's logits are not finite.
        """
        for path in sorted(self.folder.glob(BLOCK_FILES)):
            self._block(int(path.name[:5]), int(path.name[6:10]))
        self._expect_same_logits(compute, device, entries)
        if len(self.val):
            self._expect_score(self.validation(compute, device), recorded)

    def _expect_score(self, logits: NDArray[np.float32], recorded: float | None) -> None:
        if recorded is not None:
            found = validation_metrics(logits, self.val.labels, self.data.classes).get("val/auroc_macro")
            if found is None or not abs(found - recorded) <= AUROC_TOLERANCE:
                raise Damaged(
                    f"{self.folder}: the teacher's validation AUROC is {found} from its logits and {recorded} in its "
                    f"manifest: another preprocessing, order of labels or set of images? {REMOVE}"
                )

    def _expect_same_logits(self, compute: Compute, device: torch.device, entries: int) -> None:
        """Computes some of what is there again. Drawn anew each time, so that no entry is safe from it."""
        there = [path.name for path in self.folder.glob(BLOCK_FILES)]
        random = np.random.default_rng()
        for name in random.permutation(sorted(there))[:entries]:
            view, block = int(name[:5]), int(name[6:10])
            positions = self._positions(block)
            some = np.sort(random.choice(len(positions), min(len(positions), -(-entries // len(there))), replace=False))
            stored = self._block(view, block).astype(np.float32)
            now = self._computed(positions[some], view, compute, device).astype(np.float32)
            off = np.abs(now - stored[some]) > SPREAD * stored.std(axis=0) + RELATIVE * np.abs(now) + RELATIVE
            if off.any():
                row = int(self.part.rows[positions[some][off.any(axis=1).argmax()]])
                image = self.part.packed.table.names[row]
                raise Damaged(
                    f"{self.folder / name}: the teacher gives other logits now for {image}, view {view}: these are "
                    f"another teacher's, or of other views. {REMOVE}"
                )


REMOVE = "Remove it, and its logits are computed again"


def _seconds(path: Path) -> float:
    """What a block took, of its header: a study of NIH's size has 400 blocks of 115 kB, and each epoch asks."""
    with path.open("rb") as file:
        return float(SECONDS.unpack(file.read(HEADER)[DIGEST:])[0])


def rounded(logits: torch.Tensor) -> torch.Tensor:
    """As the store has them: float16, whose largest number stands for all beyond.

    Raises:
        RunFailed: a logit is infinite or not a number, which no sound teacher gives.
    """
    if not torch.isfinite(logits).all():
        raise RunFailed("the teacher's logits are not finite: its weights are broken, or its training has diverged")
    limit = torch.finfo(torch.float16).max
    return logits.float().clamp(-limit, limit).half()


def _half(batches: Iterator[torch.Tensor]) -> NDArray[np.float16]:
    """They leave the device all at once: a GPU is not waited for between batches.

    Raises RunFailed if a logit is not finite.
    """
    return np.asarray(rounded(torch.cat(list(batches))).cpu().numpy())
