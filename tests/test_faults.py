"""Nights that go wrong, on the real command line: kills, signals, full disks, a database that is away. All are slow.

    python -m pytest -m slow tests/test_faults.py -s        # prints its seeds and what it counted

A `Night` is a study in a process of its own, whose trainable writes down every epoch that it trains. So what was
repeated is counted, and not taken from the records that are on trial here.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from xlite_search.config import RunConfig
from xlite_search.data.packed import PackedSet
from xlite_search.errors import BadInput
from xlite_search.records import PATIENCE, RunRecord
from xlite_search.search.journal import Journal
from xlite_search.search.verify import verify
from xlite_search.study_record import StudyRecord
from xlite_search.tracking import store

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3000)]
ROOT = Path(__file__).parents[1]
KILLS = 20

STUDY = '''\
"""Which seed?"""
import os
import time
from pathlib import Path

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.search.asha import ASHA
from xlite_search.search.study import Study, grid_search

LOG = Path({log!r})


def counted(config, resume=None):
    for result in baseline(config, resume):
        with open(LOG, "a") as log:
            log.write(f"{{config.seed}} {{result.epoch}} {{os.getpid()}} {{time.time()}}\\n")
        {after}
        yield result


study = Study(
    question=__doc__,
    trainable=counted,
    base=RunConfig.model_validate_json({base!r}),
    space={{"seed": grid_search({seeds})}},
    scheduler={scheduler},
)
'''


class Night:
    """A study on the command line. `epochs()` is what was really trained: (seed, epoch, process)."""

    def __init__(
        self,
        folder: Path,
        base: RunConfig,
        *,
        seeds: int = 6,
        epochs: int = 8,
        scheduler: str = "ASHA(grace=1, reduction=2)",
        after: str = "pass",
        name: str = "night",
    ) -> None:
        self.log, self.name, self.file = folder / f"{name}.log", name, folder / f"{name}.py"
        config = base.with_settings({"epochs": epochs}).model_dump_json()
        text = STUDY.format(log=str(self.log), base=config, seeds=list(range(seeds)), scheduler=scheduler, after=after)
        self.file.write_text(text)

    @property
    def folder(self) -> Path:
        return Path(os.environ["XLITE_RUNS"]) / "studies" / self.name

    @property
    def study(self) -> StudyRecord:
        return StudyRecord.load(self.folder)

    def command(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "xlite_search", "run", str(self.file), *more]

    def start(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*more), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def finish(self, *more: str, code: int = 0) -> str:
        ended = subprocess.run(
            self.command(*more), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert ended.returncode == code, ended.stdout
        return ended.stdout

    def begun(self) -> int:
        """Trials that were ever begun."""
        there = (self.folder / "study.json").exists()
        return sum(run.started > 0 for run in self.study.runs()) if there else 0

    def epochs(self) -> list[tuple[int, int, int]]:
        return [(int(seed), int(epoch), int(pid)) for seed, epoch, pid, _ in self._lines()]

    def speed(self, begin: float, end: float) -> float:
        """Epochs a second between the first and the last that ended in this span, in seconds since 1970."""
        ended = sorted(float(when) for *_, when in self._lines() if begin <= float(when) <= end)
        return (len(ended) - 1) / (ended[-1] - ended[0])

    def _lines(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def repeated(self) -> int:
        """Epochs that were trained more than once."""
        return sum(times - 1 for times in Counter((seed, epoch) for seed, epoch, _ in self.epochs()).values())

    def curves(self) -> dict[str, list[dict[str, float]]]:
        """All metrics of all runs but what no two runs share: times, and energy."""
        return {
            run.label: [
                {n: v for n, v in epoch.items() if not n.startswith(("time/", "energy/"))} for epoch in run.epochs
            ]
            for run in self.study.runs()
        }

    def decisions(self) -> set[tuple[int, tuple[str, ...], tuple[str, ...], float]]:
        """By the runs' labels: two nights' files are other code, and their runs have other keys."""
        label = {run.key: run.label for run in self.study.runs()}

        def labels(keys: Iterable[str]) -> tuple[str, ...]:
            return tuple(sorted(label[key] for key in keys))

        return {(d.rung, labels(d.scores), labels(d.kept), d.cut) for d in Journal(self.folder).decisions}


def wait_until(true: Callable[[], bool], driver: subprocess.Popen[str], limit_s: float = 240) -> bool:
    """Whether it came true before the driver ended."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if true():
            return True
        if driver.poll() is not None:
            return False
        time.sleep(0.01)
    raise AssertionError("it took too long")


def of_engine(driver: int) -> list[psutil.Process]:
    """Processes that belong to the engine of a driver."""

    def owner(process: psutil.Process) -> str:
        try:
            return str(process.environ().get("XLITE_ENGINE", ""))
        except psutil.Error:
            return ""

    return [process for process in psutil.process_iter() if owner(process) == str(driver)]


def workers(driver: int) -> list[psutil.Process]:
    return [process for process in of_engine(driver) if process.name().startswith("ray::")]


def assert_no_orphans(driver: int) -> None:
    deadline = time.monotonic() + 20
    while left := [process for process in of_engine(driver) if process.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, left


def nothing_is_running() -> bool:
    connection = sqlite3.connect(store.database())
    (count,) = connection.execute("select count(*) from runs where status = 'RUNNING'").fetchone()
    connection.close()
    return bool(count == 0)


def fill(path: Path) -> None:
    """Takes all that is left on a disk."""
    with open(path, "wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(1 << 16))
            except OSError:
                return


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


class Clean(NamedTuple):
    """What an uninterrupted night came to, and how long it took."""

    curves: dict[str, list[dict[str, float]]]
    decisions: set[tuple[int, tuple[str, ...], tuple[str, ...], float]]
    seconds: float


@pytest.fixture
def clean(folder: Path, tiny: RunConfig) -> Clean:
    """In folders of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLITE_RUNS", str(folder / "clean"))
        (folder / "clean-night").mkdir()
        night = Night(folder / "clean-night", tiny)
        started = time.monotonic()
        night.finish()
        return Clean(night.curves(), night.decisions(), time.monotonic() - started)


def kill_workers(night: Night, chance: random.Random, most: int) -> int:
    """Runs a night to its end and kills up to so many workers on the way; how many it were."""
    driver, killed = night.start(), 0
    while killed < most:
        known = len(night.epochs())
        wanted = known + chance.randint(1, 2)
        if not wait_until(lambda: len(night.epochs()) >= wanted, driver):  # noqa: B023
            break
        time.sleep(chance.uniform(0, 0.3))
        # who is lost three times within an epoch has failed, rightly, and a worker's next trial may be another
        if any(run.lost >= PATIENCE - 1 for run in night.study.runs() if not run.over):
            continue
        at_work = {pid for _, _, pid in night.epochs()[known:]}
        if found := [process for process in workers(driver.pid) if process.pid in at_work]:
            chance.choice(found).kill()
            killed += 1
    said, _ = driver.communicate()
    assert driver.returncode == 0, said
    return killed


def test_kill_9_of_workers_at_random_moments(clean: Clean, folder: Path, tiny: RunConfig) -> None:
    """As many nights as it takes to kill 20."""
    seed = random.SystemRandom().randrange(1000)
    chance, kills = random.Random(seed), list[int]()
    while sum(kills) < KILLS:
        night = Night(folder, tiny, name=f"night{len(kills)}")
        kills.append(kill_workers(night, chance, KILLS - sum(kills)))
        print(f"\nseed {seed}: {kills[-1]} workers killed, {night.repeated()} epochs repeated")
        assert night.repeated() <= kills[-1]
        assert night.curves() == clean.curves
        assert night.decisions() == clean.decisions
        assert verify(night.study) == []


def test_kill_9_of_the_driver_at_random_moments(clean: Clean, folder: Path, tiny: RunConfig) -> None:
    seed = random.SystemRandom().randrange(1000)
    chance, night = random.Random(seed), Night(folder, tiny)
    started, drivers, finished = time.monotonic(), list[int](), dict[str, RunRecord]()
    while len(drivers) < KILLS:
        driver = night.start()
        known, before = len(night.epochs()), time.monotonic()
        wanted, patience = known + chance.randint(0, 2), chance.uniform(8, 30)
        reached = wait_until(
            lambda: len(night.epochs()) >= wanted or time.monotonic() - before > patience,  # noqa: B023
            driver,
        )
        time.sleep(chance.uniform(0, 0.4))
        driver.kill()
        driver.communicate()
        if not reached or driver.returncode != -signal.SIGKILL:
            break  # it was done before the fault landed
        drivers.append(driver.pid)
        if (night.folder / "study.json").exists():
            for run in night.study.runs():
                assert finished.get(run.key, run) == run, "a finished run was touched"
                if run.over:
                    finished[run.key] = run
    night.finish()
    seconds, repeated, kills = time.monotonic() - started, night.repeated(), len(drivers)
    for pid in drivers:
        assert_no_orphans(pid)
    print(
        f"\nseed {seed}: {kills} kills, {repeated} epochs repeated, {seconds:.0f} s against {clean.seconds:.0f} s clean"
    )
    assert kills >= KILLS // 2
    assert seconds <= 1.5 * clean.seconds + 20 * kills
    assert repeated <= 2 * kills
    assert night.curves() == clean.curves
    assert night.decisions() == clean.decisions
    assert verify(night.study) == []


def test_kill_9_of_the_raylet(folder: Path, tiny: RunConfig) -> None:
    night = Night(folder, tiny)
    driver = night.start()
    assert wait_until(lambda: len(night.epochs()) >= 3, driver)
    (raylet,) = [p for p in psutil.Process(driver.pid).children() if p.name() == "raylet"]
    raylet.kill()
    killed = time.monotonic()
    said, _ = driver.communicate(timeout=120)
    took = time.monotonic() - killed
    print(f"\nthe driver ended {took:.1f} s after the raylet")
    assert driver.returncode == 4, said
    assert took < 60
    assert "error: Ray died; nothing is lost: the same command goes on" in said
    assert "Traceback" not in said
    assert_no_orphans(driver.pid)
    night.finish()
    assert verify(night.study) == []


@pytest.mark.parametrize(
    ("signals", "code", "limit_s"),
    [((signal.SIGINT,), 130, 10), ((signal.SIGINT, signal.SIGINT), 130, 5), ((signal.SIGTERM,), 143, 10)],
    ids=["ctrl-c", "ctrl-c twice", "sigterm"],
)
def test_signals(folder: Path, tiny: RunConfig, signals: tuple[int, ...], code: int, limit_s: float) -> None:
    night = Night(folder, tiny, after="time.sleep(0.5)")
    driver = night.start()
    assert wait_until(lambda: len(night.epochs()) >= 3, driver)
    for number in signals:
        os.killpg(driver.pid, number)  # a terminal's Ctrl+C reaches the whole group
        time.sleep(0.2)
    sent = time.monotonic()
    said, _ = driver.communicate(timeout=60)
    took = time.monotonic() - sent
    epoch_s = 2.0
    print(f"\n{signals}: ended after {took:.1f} s")
    assert driver.returncode == code, said
    assert took < limit_s + (epoch_s if len(signals) == 1 and code == 130 else 0)
    assert "interrupted: the same command goes on where it stopped" in said
    assert "Traceback" not in said
    assert_no_orphans(driver.pid)
    assert {run.status for run in night.study.runs()} <= {"waiting", "paused", "stopped", "finished"}
    assert nothing_is_running()
    before = len(night.epochs())
    night.finish()
    print(f"{night.repeated()} epochs repeated after {before}")
    assert night.repeated() <= (0 if signals == (signal.SIGINT,) else 2)
    assert verify(night.study) == []


def test_nothing_begins_after_ctrl_c(folder: Path, tiny: RunConfig) -> None:
    """Ten tries, at random moments, two at a time and six that wait, every other while the first workers are still
    being started; a second Ctrl+C ends every third try at once."""
    seed = random.SystemRandom().randrange(1000)
    chance = random.Random(seed)
    print(f"\nseed {seed}")
    for number in range(10):
        night = Night(folder, tiny, seeds=8, epochs=4, scheduler="None", after="time.sleep(0.3)", name=f"night{number}")
        driver = night.start("--cpu")
        early = number % 2 == 1
        wanted, more = (0, chance.uniform(0, 15)) if early else (chance.randint(1, 20), chance.uniform(0, 2))
        there = (night.folder / "study.json").exists
        assert wait_until(lambda: there() and len(night.epochs()) >= wanted, driver)  # noqa: B023
        time.sleep(more)
        os.killpg(driver.pid, signal.SIGINT)
        sent, before = time.time(), night.begun()
        if number % 3 == 2:
            time.sleep(0.1)
            os.killpg(driver.pid, signal.SIGINT)
        said, _ = driver.communicate(timeout=120)
        took = time.time() - sent
        began = [run.started for run in night.study.runs() if run.started]
        late = [round(when - sent, 3) for when in began if when > sent]
        print(f"signal at {wanted} epochs + {more:.1f} s, {before} begun: {late} after it, over in {took:.1f} s")
        assert driver.returncode == 130, said
        assert late == []
        assert "Last result" not in said, "these are Ray's words"
        assert_no_orphans(driver.pid)


def test_two_drivers(folder: Path, tiny: RunConfig) -> None:
    night = Night(folder, tiny)
    driver = night.start()
    assert wait_until(lambda: len(night.epochs()) >= 1, driver)
    said = night.finish(code=2)
    assert re.search(rf"error: study 'night' is being run by process {driver.pid} on \S+ since \d\d:\d\d", said), said
    driver.communicate()
    assert driver.returncode == 0


@pytest.mark.parametrize("seconds", [5, 25, 120])
def test_a_database_that_is_locked(folder: Path, tiny: RunConfig, seconds: int) -> None:
    """Training goes on at its pace, and every point arrives exactly once."""
    free = max(seconds // 3, 20)
    epochs = 10 + 8 * (2 * free + seconds) // 5
    night = Night(folder, tiny, seeds=2, epochs=epochs, scheduler="None", after="time.sleep(0.5)")
    driver = night.start()
    assert wait_until(lambda: len(night.epochs()) >= 6, driver)
    began = time.time()
    assert wait_until(lambda: time.time() - began > free, driver)
    connection = sqlite3.connect(store.database(), timeout=60, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    locked = time.time()
    assert wait_until(lambda: time.time() - locked > seconds, driver), "it ended too soon to tell"
    connection.execute("ROLLBACK")
    connection.close()
    said, _ = driver.communicate()
    assert driver.returncode == 0, said
    before, during = night.speed(began, locked), night.speed(locked, locked + seconds)
    after = night.speed(locked + seconds, locked + seconds + free)
    print(f"\nlocked {seconds} s: {during:.2f} epochs a second, {before:.2f} before, {after:.2f} after")
    # (a record grows by an epoch each time that it is written: speed falls a little over hundreds of them)
    assert during >= 0.95 * (before + after) / 2 or seconds < 25, "a few epochs say little"
    assert verify(night.study) == []


def test_a_disk_that_is_full(folder: Path, tiny: RunConfig, phantom: PackedSet) -> None:
    """On a small tmpfs: exit 3, at most an epoch lost; once there is room the same command goes on."""
    disk = folder / "small"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", disk]).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        os.environ["XLITE_RUNS"] = str(disk / "runs")
        night = Night(folder, tiny, seeds=4, epochs=8)
        driver = night.start()
        assert wait_until(lambda: len(night.epochs()) >= 3, driver)
        filler = disk / "filler"
        fill(filler)
        full = time.monotonic()
        said, _ = driver.communicate(timeout=120)
        took = time.monotonic() - full
        assert driver.returncode == 3, said
        assert "Traceback" not in said
        assert "No space left on device" in said
        filler.unlink()
        night.finish()
        print(f"\nended after {took:.0f} s; {night.repeated()} epochs repeated")
        assert night.repeated() <= 2
        assert verify(night.study) == []
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


def test_a_study_that_only_fails(folder: Path, tiny: RunConfig) -> None:
    night = Night(folder, tiny.with_settings({"optimizer.lr": 1e30}), seeds=4)
    said = night.finish(code=1)
    assert re.search(r"No trial was trained to its end: 4 failed, the first because \w+: ", said), said
    assert "Traceback" not in said
    assert verify(night.study) == []
    assert "complete: nothing is left to train" in night.finish(code=1)


@pytest.mark.parametrize("error", ["torch.OutOfMemoryError('CUDA out of memory')", "MemoryError()"])
def test_out_of_memory_is_tried_again_with_half_the_micro_batch(folder: Path, tiny: RunConfig, error: str) -> None:
    after = f"import torch\n        if (config.micro_batch or 16) > 8 and config.seed == 1: raise {error}"
    night = Night(folder, tiny, seeds=2, epochs=3, scheduler="None", after=after)
    night.finish()
    one, two = night.study.runs()
    assert (one.micro_batch, two.micro_batch) == (None, 8)
    assert two.status == "finished"
    experiment = store.connect().get_experiment_by_name("night")
    assert experiment is not None
    runs = store.connect().search_runs([experiment.experiment_id], "tags.`xlite.micro_batch` = '8'")
    assert [run.data.tags["mlflow.runName"] for run in runs] == [f"{two.label} in night"]
    compared = subprocess.run(
        [sys.executable, "-m", "xlite_search", "compare", "night"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"batch norm saw others: {two.label} (8)" in compared.stdout.replace("\n", " ")


@pytest.mark.skipif(sys.platform == "win32", reason="Ray guards the host's memory on Linux only")
def test_a_worker_that_takes_the_hosts_memory_is_tried_again_with_half_the_micro_batch(
    folder: Path, tiny: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray ends the worker before the system would; the limit is set so that six GiB are too much."""
    memory = psutil.virtual_memory()
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(memory.used + (9 << 29)) / memory.total:.3f}")
    after = "if (config.micro_batch or 16) > 8 and config.seed == 1: hog = b'1' * (6 << 30); time.sleep(60)"
    night = Night(folder, tiny, seeds=2, epochs=3, scheduler="None", after=after)
    night.finish()
    one, two = night.study.runs()
    assert (one.micro_batch, two.micro_batch) == (None, 8)
    assert {one.status, two.status} == {"finished"}


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_was_set_between_stop_and_restart(folder: Path, tiny: RunConfig, hours: int) -> None:
    night = Night(folder, tiny, seeds=2, epochs=6, scheduler="None")
    driver = night.start()
    assert wait_until(lambda: len(night.epochs()) >= 3, driver)
    driver.kill()
    driver.communicate()
    for run in night.study.runs():  # the same as if the clock had been otherwise when they began
        replace(run, started=run.started - hours * 3600 if run.started else 0.0).save()
    known = {run.key: run.epochs for run in night.study.runs()}
    night.finish()
    for run in night.study.runs():
        assert run.epochs[: len(known[run.key])] == known[run.key]
        assert run.ended >= run.started + run.seconds
    client = store.connect()
    experiment = client.get_experiment_by_name("night")
    assert experiment is not None
    for found in client.search_runs([experiment.experiment_id]):
        assert found.info.end_time >= found.info.start_time
    assert verify(night.study) == []


def test_what_changed_is_refused_with_a_list(folder: Path, tiny: RunConfig) -> None:
    night = Night(folder, tiny, seeds=2, epochs=3, scheduler="None")
    night.finish()
    Night(folder, tiny, seeds=3, epochs=4, scheduler="None")
    said = night.finish(code=2)
    assert "study 'night' began with another definition: " in said
    assert "epochs was 3, is 4" in said
    assert "trial 'seed=2' is new" in said
    night.finish("--accept-changes")
    assert "epochs was 3, is 4" in night.study.accepted[0]["changes"]
    with pytest.raises(BadInput):
        PackedSet.open("gone")
