"""Record of a run: its manifest, epochs, checkpoints and best weights; what everything is recovered from after a crash.

A *run* is one training: a trial of a study, a teacher, or a final training. Each has a folder of its own:

    run.json                  the run's manifest (RunRecord), rewritten after every epoch
    checkpoints/epoch-0003-0.7312.pt   the state to go on from, with epoch and score; the newest two, until it has ended
    checkpoints/best-0002-0.8310.safetensors  the weights of the best epoch; the newest two, to fall back with the state
    checkpoints/best-0002-0.8310.npz   the best epoch's logits of the validation images; kept with its weights
    checkpoints/last-0003-0.7312.npz   the newest epoch's, if another one was best: to choose the best epoch is a
                                       selection too, which a comparison of runs has to know of
    artifacts/                what else is worth looking at; MLflow shows it with the run

Files are written as `storage.py` does it, weights before the manifest that names them with their sha256: a manifest
never points at something that is not there. Ray's and MLflow's files can be made again from these; nothing is read from
them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from xlite_search.errors import Damaged
from xlite_search.storage import read_manifest, sha256_of, write_atomic, write_manifest

KEPT_CHECKPOINTS = 2
#: workers that a run may lose without an epoch in between
PATIENCE = 3
ARTIFACTS = "artifacts"
#: a study's ranking among its artifacts, as Markdown
TABLE = "comparison.md"

Status = Literal["waiting", "running", "paused", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class StoredFile:
    """A file beside the manifest, with what it must contain."""

    name: str
    sha256: str
    epoch: int

    def good(self, folder: Path) -> bool:
        path = folder / self.name
        return path.is_file() and sha256_of(path) == self.sha256


class EpochState(Protocol):
    """What a record needs to know of `training.result.EpochResult`."""

    @property
    def epoch(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def improved(self) -> bool: ...
    @property
    def ended(self) -> str | None: ...
    def checkpoint_bytes(self) -> bytes: ...
    def weights_bytes(self) -> bytes: ...
    def predictions_bytes(self) -> bytes | None: ...


@dataclass(frozen=True)
class RunRecord:
    """One run, as its manifest says it. Changed by writing a new one; `reload` sees what another process wrote.

    key         hash of the resolved config and of everything it reads; unique within a study
    kind        "trial", "teacher", "final"; "ensemble" and "taken" are no trainings, and not on disk (tracking/made.py)
    label       what differs, for people: `mobilenet_v3_small_mhsa tau=4 alpha=0.5`
    settings    the swept settings by dotted name
    config      the whole resolved config
    config_class  who reads it, `module:class`, where a trainable has settings of its own (`trainable.config_of`)
    facts       what was measured of it before it began: model/latency_ms
    status      waiting (for a worker), running, paused (at a rung, until its cohort is decided), finished (trained to
                its end), stopped (at a rung) or failed
    cause       why it ended, or was interrupted, a sentence
    epochs      metrics of epoch 1..n, in order, each exactly once
    bests       the weights of the best epoch, and of the best before it
    predictions those epochs' logits of the validation images; empty without any
    last        the newest epoch's; the best's own file if that was it. None without any, and in a run that began before
                they were kept
    started     when it first began, in seconds since 1970
    ended       when it was over; never before it can have been, whatever the clock says
    micro_batch images at once, if they had to be fewer than the config says: memory ran out, or the machine caps it
    halved      they are because memory ran out
    batchwise   settings that make its loss other than a mean over images: its batches cannot be cut
    lost        workers that were lost since its last epoch
    freed       files that it names and that were given back to the disk (`xlite_search/disk.py`)
    """

    folder: Path
    key: str
    kind: Literal["trial", "teacher", "final", "ensemble", "taken"]
    label: str
    settings: dict[str, Any]
    config: dict[str, Any]
    facts: dict[str, float] = field(default_factory=dict)
    status: Status = "waiting"
    cause: str = ""
    epochs: tuple[dict[str, float], ...] = ()
    checkpoints: tuple[StoredFile, ...] = ()
    bests: tuple[StoredFile, ...] = ()
    predictions: tuple[StoredFile, ...] = ()
    last: StoredFile | None = None
    started: float = 0.0
    ended: float = 0.0
    micro_batch: int | None = None
    halved: bool = False
    config_class: str = ""
    batchwise: tuple[str, ...] = ()
    lost: int = 0
    freed: tuple[str, ...] = ()

    @property
    def best(self) -> StoredFile | None:
        """The weights of the best epoch so far."""
        return self.bests[0] if self.bests else None

    @property
    def seconds(self) -> float:
        """Time spent in its epochs."""
        return sum(epoch.get("time/epoch_s", 0.0) for epoch in self.epochs)

    @property
    def over(self) -> bool:
        """Nothing more will be trained here."""
        return self.status in ("finished", "stopped", "failed")

    @property
    def length(self) -> int:
        """The epochs of a run that is neither stopped nor failed; early stopping may end it before."""
        epochs = int(self.config["epochs"])
        return min(epochs, self.config.get("stop_after") or epochs)

    @property
    def at_once(self) -> int:
        """Images that go through the model at once."""
        return int(self.micro_batch or self.config.get("micro_batch") or self.config["batch_size"])

    def metric(self, name: str) -> list[float]:
        """A metric by epoch; NaN where an epoch has no value."""
        return [epoch.get(name, float("nan")) for epoch in self.epochs]

    def objective(self, name: str) -> float:
        """A fact, or a metric at the best epoch; NaN if it has neither."""
        return self.facts.get(name, self.best_score(name))

    def best_score(self, monitor: str) -> float:
        """The monitored metric at the best epoch; NaN before the first."""
        return self.epochs[self.best.epoch - 1].get(monitor, float("nan")) if self.best else float("nan")

    def save(self) -> RunRecord:
        body = asdict(self)
        del body["folder"]
        write_manifest(self.folder / "run.json", body)
        return self

    @classmethod
    def load(cls, folder: Path) -> RunRecord:
        """Raises FileNotFoundError or Damaged, as `read_manifest`."""
        body = read_manifest(folder / "run.json")
        for name in ("checkpoints", "bests", "predictions"):
            body[name] = tuple(StoredFile(**stored) for stored in body.get(name, ()))
        body["last"] = StoredFile(**body["last"]) if body.get("last") else None
        body["epochs"] = tuple(body["epochs"])
        body |= {name: tuple(body.get(name, ())) for name in ("freed", "batchwise")}
        return cls(folder=folder, **body)

    def reload(self) -> RunRecord:
        return RunRecord.load(self.folder)

    def close(self, status: Status, cause: str) -> RunRecord:
        """Ends the run here; `cause` is a sentence."""
        return replace(self, status=status, cause=cause, ended=self._now()).save()

    def abandoned(self) -> RunRecord:
        """Its worker was lost: another one goes on with it, unless that makes `PATIENCE` without an epoch between."""
        lost, cause = self.lost + 1, "its worker was lost"
        if lost < PATIENCE:
            return replace(self, status="waiting", cause=cause, lost=lost).save()
        return replace(self, lost=lost).close("failed", f"{cause} {lost} times in epoch {len(self.epochs) + 1}")

    def interrupted(self) -> RunRecord:
        """Nobody trains it any more, and it is not over."""
        return replace(self, status="waiting", cause="interrupted").save()

    def _now(self) -> float:
        return max(time.time(), self.started + self.seconds)

    def starved(self, cause: str) -> RunRecord:
        """Memory ran out: it waits to be tried with half as many images at once, or has failed if it cannot be."""
        if smaller := self.smaller():
            told = f"{cause}; tried again with {smaller.at_once} images at once"
            return replace(smaller, status="waiting", cause=told).save()
        cause = f"{cause}, with {self.at_once} images at once"
        if self.batchwise:
            cause += f"; {' and '.join(self.batchwise)} compares all images of a batch, so that it cannot be cut"
        return self.close("failed", cause)

    def smaller(self) -> RunRecord | None:
        """This run with half as many images at once, to be tried once; None if it was tried, or cannot be.

        Two at once would leave a single image of an odd batch, of which batch norm has no variance.
        """
        half = (self.at_once + 1) // 2
        if self.halved or self.batchwise or not 2 <= half < self.at_once:
            return None
        if half == 2 and int(self.config["batch_size"]) % 2:
            return None
        return replace(self, micro_batch=half, halved=True)

    def rewound(self) -> RunRecord:
        """This record at its newest checkpoint that is good; at its very start if none is."""
        for stored in self.checkpoints:
            if stored.good(self.folder):
                kept = tuple(s for s in self.checkpoints if s.epoch <= stored.epoch)
                bests = tuple(s for s in self.bests if s.epoch <= stored.epoch)
                predictions = tuple(s for s in self.predictions if s.epoch <= stored.epoch)
                if bests and all(s.good(self.folder) for s in (bests[0], *predictions[:1])):
                    there = self.last is not None and self.last.epoch <= stored.epoch and self.last.good(self.folder)
                    at = replace(self, epochs=self.epochs[: stored.epoch], last=self.last if there else None)
                    return replace(at, checkpoints=kept, bests=bests, predictions=predictions)
        return replace(self, epochs=(), checkpoints=(), bests=(), predictions=(), last=None)

    def resume_path(self) -> Path | None:
        return self.folder / self.checkpoints[0].name if self.checkpoints else None

    def add(self, result: EpochState, until: int | None = None, *, keep_states: bool = True) -> RunRecord:
        """Files first, then the manifest that names them, then the files that nothing names any more go.

        After epoch `until` it is paused, unless it has ended. From a run that has ended nobody goes on: its states go,
        and its last is not even written, unless somebody wants to `keep_states`.
        """
        score = result.metrics.get(str(self.config.get("monitor")))
        named = f"{result.epoch:04d}" + (f"-{score:.4f}" if score is not None else "")
        checkpoints: tuple[StoredFile, ...] = ()
        if keep_states or not result.ended:
            stored = self._store(f"epoch-{named}.pt", result.checkpoint_bytes(), result.epoch)
            checkpoints = (stored, *self.checkpoints)[:KEPT_CHECKPOINTS]
        bests, predictions = self.bests, self.predictions
        is_best, answered = result.improved or not bests, result.predictions_bytes()
        last = None
        if answered is not None:
            last = self._store(f"{'best' if is_best else 'last'}-{named}.npz", answered, result.epoch)
        if is_best:
            best = self._store(f"best-{named}.safetensors", result.weights_bytes(), result.epoch)
            bests = (best, *bests)[:KEPT_CHECKPOINTS]
            predictions = (*([last] if last else []), *predictions)[:KEPT_CHECKPOINTS]
        added = replace(
            self,
            status="finished" if result.ended else "paused" if result.epoch == until else "running",
            cause=result.ended or "",
            epochs=(*self.epochs, dict(result.metrics)),
            checkpoints=checkpoints,
            bests=bests,
            predictions=predictions,
            last=last,
            lost=0,
        )
        added = replace(added, ended=added._now() if result.ended else 0.0).save()
        added.tidy()
        return added

    def _store(self, name: str, content: bytes, epoch: int) -> StoredFile:
        name = f"checkpoints/{name}"
        return StoredFile(name, write_atomic(self.folder / name, content), epoch)

    def files(self) -> tuple[StoredFile, ...]:
        """All that it names, each once: states, best weights, predictions."""
        last = (self.last,) if self.last else ()
        return tuple(dict.fromkeys((*self.checkpoints, *self.bests, *self.predictions, *last)))

    def tidy(self) -> None:
        """Removes checkpoint files that this record does not name, a dead process's temporary ones among them."""
        named = {stored.name for stored in self.files()} - set(self.freed)
        for path in (self.folder / "checkpoints").glob("*"):
            if f"checkpoints/{path.name}" not in named:
                path.unlink(missing_ok=True)

    def weights(self) -> bytes:
        """The best epoch's weights (safetensors), checked.

        Raises:
            Damaged: the file is missing or does not match its sha256.
        """
        if self.best is None or not self.best.good(self.folder):
            raise Damaged(f"the best weights of {self.label} in {self.folder} are missing or damaged")
        return (self.folder / self.best.name).read_bytes()

    def predictions_path(self) -> Path:
        """Where the best epoch's logits of the validation images are (`training.predictions`), checked.

        Raises:
            Damaged: there are none, or the file does not match its sha256.
        """
        of_best = (s for s in self.predictions if self.best is not None and s.epoch == self.best.epoch)
        return self._checked(next(of_best, None), "best")

    def last_predictions_path(self) -> Path | None:
        """Where the last epoch's are, checked; None in a run that began before they were kept.

        Raises:
            Damaged: the file is missing, or does not match its sha256.
        """
        of_last = (s for s in (self.last, *self.predictions) if s and s.epoch == len(self.epochs))
        stored = next(of_last, None)
        return self._checked(stored, "last") if stored else None

    def _checked(self, stored: StoredFile | None, which: str) -> Path:
        if stored is None or not stored.good(self.folder):
            raise Damaged(f"the {which} epoch's predictions of {self.label} in {self.folder} are missing or damaged")
        return self.folder / stored.name
