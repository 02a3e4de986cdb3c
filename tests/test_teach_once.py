"""A grid whose trials run two at a time asks its teacher about every view once, whoever is killed on the way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.distill import logit_store
from xlite_search.distill.teacher import Teacher
from xlite_search.places import teacher_folder
from xlite_search.results.compare import compare
from xlite_search.search.plan import Plan, make_plan
from xlite_search.search.runner import run
from xlite_search.search.study import Study
from xlite_search.search.study_file import load_study
from xlite_search.search.teaching import logit_counts
from xlite_search.study_record import StudyRecord

pytestmark = pytest.mark.ray

#: a teacher that writes down how many images it is shown, and by whom
STUDY = '''\
"""How often is the teacher asked?"""

import os
import time
from pathlib import Path

from trainables.distill import distill
from xlite_search.config import RunConfig
from xlite_search.distill import logit_store
from xlite_search.distill.teacher import Teacher
from xlite_search.search.study import Study, grid_search

logit_store.INFERENCE_BATCH = 16
answer = Teacher.__call__


def counted(self, images):
    time.sleep({slow})
    with open({log!r}, "a") as log:
        log.write(f"{{os.getpid()}} {{len(images)}}\\n")
    return answer(self, images)


Teacher.__call__ = counted


def trainable(config, resume=None):
    """The first two begin together."""
    home = Path({log!r} + ".workers")
    home.mkdir(exist_ok=True)
    (home / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(home.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    yield from distill(config, resume)


base = RunConfig.model_validate_json({base!r})
study = Study(
    question=__doc__,
    trainable=trainable,
    base=base.with_settings({{"augment": "light"}}),
    teacher=base.with_settings({{"epochs": 1, "seed": 7}}),
    space={{
        "kd.tau": grid_search([1.0, 4.0]),
        "kd.alpha": grid_search({alphas}),
        "optimizer.lr": grid_search([1e-3, 3e-3]),
    }},
)
'''


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the teacher wrote down. What the study's file changes in this process is undone."""
    monkeypatch.setattr(logit_store, "INFERENCE_BATCH", logit_store.INFERENCE_BATCH)
    monkeypatch.setattr(Teacher, "__call__", Teacher.__call__)
    return tmp_path / "asked.log"


def study_in(log: Path, tiny: RunConfig, name: str, alphas: list[float], slow: float = 0.0) -> Study:
    path = log.with_name(f"{name}.py")
    path.write_text(STUDY.format(log=str(log), base=tiny.model_dump_json(), alphas=alphas, slow=slow))
    return load_study(str(path))


def asked_by_trials(log: Path) -> Counter[int]:
    """Images by process; this one only looks at the teacher."""
    shown: Counter[int] = Counter()
    for line in log.read_text().splitlines() if log.exists() else ():
        process, images = map(int, line.split())
        if process != os.getpid():
            shown[process] += images
    return shown


def views(plan: Plan) -> int:
    return len(open_data(plan.study.base.data).train) * plan.study.base.epochs


@pytest.mark.usefixtures("ray_here")
def test_eight_trials_ask_about_every_view_once_and_a_second_study_about_none(tiny: RunConfig, log: Path) -> None:
    plan = make_plan(study_in(log, tiny, "first", [0.3, 0.7], slow=0.05), "first")  # no one answers all alone
    (line,) = logit_counts(plan.trials)
    assert f"{views(plan):,} views are computed once" in line
    assert f"online it would be {8 * views(plan):,}" in line
    study = run(plan)
    assert [record.status for record in study.runs()] == ["finished"] * 8
    shown = asked_by_trials(log)
    assert sum(shown.values()) == views(plan)
    assert len(shown) == 2, "the two that began together shared the work"
    teaching = compare(["first"]).teaching
    assert teaching is not None
    assert teaching.computed == views(plan)
    per_epoch = len(open_data(tiny.data).train) // tiny.batch_size * tiny.batch_size
    assert teaching.used == 8 * tiny.epochs * per_epoch
    stored = list(teacher_folder(plan.teacher).glob("logits/*/?????-????.f16"))
    assert len(stored) == tiny.epochs * -(-views(plan) // tiny.epochs // 16)

    again = run(make_plan(study_in(log, tiny, "second", [0.4, 0.6]), "second"))
    assert [record.status for record in again.runs()] == ["finished"] * 8
    assert asked_by_trials(log) == shown
    teaching = compare(["second"]).teaching
    assert teaching is not None
    assert (teaching.computed, teaching.saved) == (0, teaching.used)
    assert teaching.saved_seconds > 0


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
@pytest.mark.usefixtures("ray_here")
def test_a_kill_asks_again_about_at_most_a_block_for_each_that_was_killed(tiny: RunConfig, log: Path) -> None:
    plan = make_plan(study_in(log, tiny, "killed", [0.3, 0.7], slow=0.05), "killed")
    killed: list[tuple[list[int], int]] = []
    killer = threading.Thread(target=lambda: killed.extend(kills(log, [0.2 * views(plan), 0.6 * views(plan)])))
    killer.start()
    study = finished(plan)
    killer.join()
    assert len(killed) == 2
    assert all(0 < before < views(plan) for _, before in killed), "killed in the middle of the work"
    assert [record.status for record in study.runs()] == ["finished"] * 8
    total = sum(asked_by_trials(log).values())
    writers = sum(len(processes) for processes, _ in killed)
    print(f"{total} images shown for {views(plan)} views; killed: {killed}")
    assert views(plan) <= total <= views(plan) + 16 * writers


def finished(plan: Plan) -> StudyRecord:
    """The same command until nothing is left."""
    for _ in range(4):
        study = run(plan)
        if all(record.over for record in study.runs()):
            break
    return study


def kills(log: Path, marks: list[float]) -> Iterator[tuple[list[int], int]]:
    """Kills all that compute, each time that so many images were shown; who they were, and what had been shown."""
    deadline, dead = time.monotonic() + 60, set[int]()
    for mark in marks:
        while sum((shown := asked_by_trials(log)).values()) < mark or not shown.keys() - dead:
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
        asking_now = sorted(shown.keys() - dead)
        for process in asking_now:
            os.kill(process, signal.SIGKILL)
        dead.update(asking_now)
        yield asking_now, sum(shown.values())
