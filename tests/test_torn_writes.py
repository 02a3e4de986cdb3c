"""Every file that is kept, through power cuts at every step, cuts of any length and flipped bits: what is believed
afterwards is the old state or the new one, never a mixture, and what is neither is refused.

(`test_prepare.py` cuts the making of a data set at every step; `test_journal.py` has every byte of a journal.)
"""

from __future__ import annotations

import os
import pickle
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from power import cut_at, steps_of
from test_records import CONFIG, Epoch
from torch import Tensor

from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.data.packed import PackedSet
from xlite_search.distill.logit_store import LogitStore
from xlite_search.errors import XliteError
from xlite_search.model_folder import WEIGHTS, ModelManifest, read_model, write_model
from xlite_search.records import RunRecord
from xlite_search.search.asha import Decision
from xlite_search.search.journal import Journal
from xlite_search.study_record import StudyRecord

LENGTHS, PLACES = (0.0, 0.1, 0.5, 0.9, 0.999), 14


class Kept(Protocol):
    """Something that is kept in a folder: begun, gone on with, and read as it is believed."""

    def begin(self, folder: Path) -> None: ...
    def go_on(self, folder: Path) -> None: ...
    def read(self, folder: Path) -> Any: ...


class Run:
    def begin(self, folder: Path) -> None:
        RunRecord(folder, "0123456789ab", "trial", "a", {}, CONFIG).save().add(Epoch(1)).add(Epoch(2))

    def go_on(self, folder: Path) -> None:
        record = RunRecord.load(folder).rewound()
        for epoch in range(len(record.epochs) + 1, 4):
            record = record.add(Epoch(epoch))

    def read(self, folder: Path) -> Any:
        record = RunRecord.load(folder).rewound()
        state = record.checkpoints[0] if record.checkpoints else None
        best = (record.weights(), record.predictions_path().read_bytes()) if record.bests else None
        return record.epochs, state, best


class Study:
    def begin(self, folder: Path) -> None:
        StudyRecord(folder, "s", "?", "a:b", "val/auroc_macro", {"trials": {"a": 1}}, ("k",)).save()

    def go_on(self, folder: Path) -> None:
        replace(StudyRecord.load(folder), accepted=({"time": 1.0, "changes": ["more"]},), trials=("k", "l")).save()

    def read(self, folder: Path) -> Any:
        found = StudyRecord.load(folder)
        return found.definition, found.trials, found.accepted


class Decisions:
    taken = (Decision(1, {"a": 0.5, "b": 0.7}, 2, ("b", "a"), 0.5), Decision(2, {"b": 0.7, "a": 0.6}, 2, ("b",), 0.7))

    def begin(self, folder: Path) -> None:
        Journal(folder).append(self.taken[0])

    def go_on(self, folder: Path) -> None:
        journal = Journal(folder)
        for decision in self.taken[len(journal.decisions) :]:
            journal.append(decision)

    def read(self, folder: Path) -> Any:
        return Journal(folder).decisions


class Model:
    """Published once, under its key: before there is none."""

    def begin(self, folder: Path) -> None: ...

    def go_on(self, folder: Path) -> None:
        write_model(folder, b"weights" * 100, ModelManifest(classes=("a",), config={"epochs": 3}))

    def read(self, folder: Path) -> Any:
        if not (folder / "model.json").exists():
            return None
        return read_model(folder), (folder / WEIGHTS).read_bytes()


class Answers:
    """The store of a teacher that answers with the image's mean; it asks for what is missing, and for nothing else."""

    def __init__(self, config: RunConfig) -> None:
        self.data = open_data(config.data)
        self.about = {"teacher": "t", "block": 40}

    def begin(self, folder: Path) -> None:
        self.store(folder).validation(self.ask, torch.device("cpu"))

    def go_on(self, folder: Path) -> None:
        self.read(folder)

    def read(self, folder: Path) -> Any:
        store = self.store(folder)
        view = store.view(0, self.ask, torch.device("cpu"))
        return view.tobytes(), store.validation(self.ask, torch.device("cpu")).tobytes()

    def store(self, folder: Path) -> LogitStore:
        return LogitStore(folder / "store", self.about, self.data, None)

    def ask(self, images: Tensor) -> Tensor:
        return images.float().mean(dim=(1, 2, 3))[:, None].repeat(1, len(self.data.classes))


def outcome(kept: Kept, folder: Path) -> Any:
    """What is believed; the error, if it is refused."""
    try:
        return kept.read(folder)
    except XliteError as error:
        return error


def cut_everywhere(kept: Kept, home: Path) -> int:
    """A power cut at every step of going on; the same again then comes to the same end. How many there were."""
    (home / "old").mkdir()
    kept.begin(home / "old")
    shutil.copytree(home / "old", home / "new")
    steps = steps_of(lambda: kept.go_on(home / "new"))
    end = kept.read(home / "new")
    for step in range(1, steps + 1):
        folder = home / f"cut{step}"
        shutil.copytree(home / "old", folder)
        believed = [outcome(kept, home / "old") if not isinstance(kept, Answers) else end, end]
        cut_at(step, lambda folder=folder: kept.go_on(folder))  # type: ignore[misc]
        found = outcome(kept, folder)
        assert found in believed, f"step {step}: {found}"
        kept.go_on(folder)
        assert kept.read(folder) == end, f"step {step}"
    return steps


def damages(path: Path) -> Iterator[bytes]:
    """The file cut to some lengths, and with a bit flipped in some places."""
    raw = path.read_bytes()
    yield from (raw[: int(share * len(raw))] for share in LENGTHS if int(share * len(raw)) < len(raw))
    for place in np.unique(np.linspace(0, len(raw) - 1, PLACES).astype(int)):
        flipped = bytearray(raw)
        flipped[place] ^= 1 << int(place % 8)
        yield bytes(flipped)


def damage_everything(kept: Kept, home: Path, states: list[Any]) -> tuple[int, int]:
    """Every file of a state, damaged in every way: what is believed is one of the states, the first of which is whole.

    How many, and how many of them were noticed: refused, or an earlier state taken. The rest are spare files.
    """
    cases = noticed = 0
    for path in sorted(p for p in home.rglob("*") if p.is_file() and "lock" not in str(p.relative_to(home))):
        raw = path.read_bytes()
        for damaged in damages(path) if raw else ():
            assert damaged != raw
            path.write_bytes(damaged)
            found = outcome(kept, home)
            cases += 1
            noticed += isinstance(found, XliteError) or found != states[0]
            assert isinstance(found, XliteError) or found in states, f"{path.name}: {found}"
            assert not isinstance(found, XliteError) or path.name in str(found) or home.name in str(found)
            path.write_bytes(raw)
    return cases, noticed


class Trap:
    """Unpickled, it leaves a folder behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def earlier(kept: Kept, home: Path) -> list[Any]:
    """What may be fallen back to: nothing at all, and what was there before."""
    if isinstance(kept, Run):
        record = RunRecord(home / "one", "0123456789ab", "trial", "a", {}, CONFIG).save()
        found = [kept.read(record.folder)]
        for epoch in (1, 2):
            record = record.add(Epoch(epoch))
            found.append(kept.read(record.folder))
        return found
    return [[], list(Decisions.taken[:1])] if isinstance(kept, Decisions) else []


def test_old_or_new_and_never_silently_something_else(tiny: RunConfig, tmp_path: Path) -> None:
    started, cases = time.perf_counter(), 0
    for kept in (Run(), Study(), Decisions(), Model(), Answers(tiny)):
        home = tmp_path / type(kept).__name__
        home.mkdir()
        cuts = cut_everywhere(kept, home)
        states = [kept.read(home / "new"), *earlier(kept, home)]
        damaged, noticed = damage_everything(kept, home / "new", states)
        print(f"{type(kept).__name__}: {cuts} power cuts, {damaged} damages, {noticed} of them noticed")
        assert noticed > 0.5 * damaged
        cases += cuts + damaged
    print(f"{cases} cases in {time.perf_counter() - started:.1f} s")
    assert cases >= 300


def test_a_data_set_that_was_damaged_is_refused(tiny: RunConfig) -> None:
    folder = open_data(tiny.data).packed.folder
    cases = 0
    for name in ("manifest.json", "index.csv", "index.safetensors", "pixels.u8"):
        path = folder / name
        raw = path.read_bytes()
        for damaged in damages(path):
            path.write_bytes(damaged)
            with pytest.raises(
                XliteError, match=r"manifest\.json|index\.csv|index\.safetensors|pixels\.u8|phantom-tiny"
            ):
                PackedSet.open(tiny.data.name).verify()
            path.write_bytes(raw)
            cases += 1
    PackedSet.open(tiny.data.name).verify()
    assert cases >= 50


def test_a_pickle_in_the_place_of_any_kept_file_never_runs(tiny: RunConfig, tmp_path: Path) -> None:
    """Where they are opened, and not only hashed: `test_loop.py`, `test_models.py`, `test_teachers.py`."""
    mark, traps = tmp_path / "mark", 0
    archive = tmp_path / "trap.pt"
    torch.save({"epoch": 1, "model": Trap(mark)}, archive)
    for kept in (Run(), Study(), Decisions(), Model(), Answers(tiny)):
        home = tmp_path / type(kept).__name__
        home.mkdir()
        kept.begin(home)
        kept.go_on(home)
        for path in sorted(p for p in home.rglob("*") if p.is_file() and p.stat().st_size):
            raw = path.read_bytes()
            for trap in (pickle.dumps(Trap(mark)), archive.read_bytes()):
                path.write_bytes(trap)
                outcome(kept, home)
                assert not mark.exists(), path
                traps += 1
            path.write_bytes(raw)
    assert traps >= 20
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists(), "the trap works"
