"""A thousand trials: what the search adds to them, what it holds in memory, and how long their table takes. Slow.

python -m pytest -m slow tests/test_scale.py -s
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from xlite_search.config import RunConfig
from xlite_search.places import study_folder
from xlite_search.study_record import StudyRecord

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(2400)]
ROOT = Path(__file__).parents[1]
TRIALS, SECOND, AT_ONCE = 1000, 1.0, 2

STUDY = '''\
"""A trial that waits for a second."""
import time

from xlite_search.config import RunConfig
from xlite_search.search.study import Study, grid_search


class Waited:
    epoch, improved, ended, predictions = 1, True, "waited", None

    def __init__(self, seed):
        self.metrics = {{"val/auroc_macro": 0.5 + seed / 4000, "train/loss": 0.1}}

    def checkpoint_bytes(self):
        return b"state"

    def weights_bytes(self):
        return b"weights"

    def predictions_bytes(self):
        return None


def waits(config, resume=None):
    time.sleep({second})
    yield Waited(config.seed)


study = Study(
    question=__doc__,
    trainable=waits,
    base=RunConfig.model_validate_json({base!r}).with_settings({{"epochs": 1}}),
    space={{"seed": grid_search(list(range({trials})))}},
)
'''


def memory_at(driver: subprocess.Popen[str], folder: Path, trials: int) -> int:
    """The driver's resident bytes when so many trials have written a state, or just before it ended."""
    process, used = psutil.Process(driver.pid), 0
    while driver.poll() is None and len(list(folder.glob("trials/*/checkpoints"))) < trials:
        used = process.memory_info().rss if driver.poll() is None else used
        time.sleep(0.5)
    return used


def test_a_thousand_trials_of_a_second(tmp_path: Path, tiny: RunConfig) -> None:
    file = tmp_path / "thousand.py"
    file.write_text(STUDY.format(base=tiny.model_dump_json(), trials=TRIALS, second=SECOND))
    command = [sys.executable, "-m", "xlite_search"]
    folder = study_folder("thousand")
    driver = subprocess.Popen(
        [*command, "run", str(file)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    early = memory_at(driver, folder, TRIALS // 10)
    late = memory_at(driver, folder, TRIALS - 5)
    said, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, said[-2000:]
    runs = StudyRecord.load(folder).runs()
    assert [run.status for run in runs] == ["finished"] * TRIALS
    took = max(run.ended for run in runs) - min(run.started for run in runs)
    overhead = took / (TRIALS * SECOND / AT_ONCE) - 1
    started = time.perf_counter()
    table = subprocess.run([*command, "compare", "thousand"], cwd=ROOT, capture_output=True, text=True, check=True)
    compared = time.perf_counter() - started
    verified = subprocess.run([*command, "verify", "thousand"], cwd=ROOT, capture_output=True, text=True, check=False)
    print(
        f"\n{took:.0f} s: {overhead:.1%} over; memory {early / 2**20:.0f} -> {late / 2**20:.0f} MiB; {compared:.1f} s"
    )
    assert re.search(r"seed=999", table.stdout)
    assert verified.returncode == 0, verified.stdout
    assert overhead <= 0.2
    assert late - early <= 50 * 2**20
    assert compared < 3
