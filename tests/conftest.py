"""What the tests share: folders of their own, the shared real data, and a tiny drawn data set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from xlite_search.config import RunConfig
from xlite_search.data.dataset import DataSpec
from xlite_search.data.packed import PackedSet
from xlite_search.data.prepare import prepare
from xlite_search.data.sources.phantom import Phantom
from xlite_search.machine import Machine
from xlite_search.training.optim import AdamW, Cosine

PHANTOM = "phantom-tiny"
IMAGES, SIZE = 240, 32


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has its own, empty XLITE_RUNS and XLITE_DATA; this is XLITE_RUNS."""
    monkeypatch.setenv("XLITE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("XLITE_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("XLITE_MACHINE", raising=False)
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights."""
    folder = Path(os.environ.get("XLITE_SHARED") or Path(__file__).parents[2] / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data in {folder}; set XLITE_SHARED")
    return folder


@pytest.fixture(scope="session")
def drawn_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data set, prepared once; `phantom` hands out copies."""
    folder = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLITE_DATA", str(folder))
        prepare(PHANTOM, Phantom(images=IMAGES, size=64), SIZE)
    return folder / PHANTOM


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """One Ray for all tests of this process; a study that finds it running uses it."""
    from xlite_search.search.engine import engine  # costs seconds, and most tests need none

    with engine(Machine(cpus=2)):
        yield


@pytest.fixture
def phantom(drawn_once: Path, runs: Path) -> PackedSet:
    """240 drawn images at 32 px, this test's own copy."""
    shutil.copytree(drawn_once, Path(os.environ["XLITE_DATA"]) / PHANTOM)
    return PackedSet.open(PHANTOM)


@pytest.fixture
def tiny(phantom: PackedSet) -> RunConfig:
    """A run of seconds on `phantom`."""
    return RunConfig(
        model="test_efficientnet_none",
        data=DataSpec(name=PHANTOM),
        epochs=3,
        batch_size=16,
        optimizer=AdamW(lr=3e-3),
        schedule=Cosine(),
        early_stopping=None,
    )
