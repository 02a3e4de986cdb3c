"""Queue of runs: which goes on next, and how far; the study as Ray Tune sees it.

To Ray a trial is one *activation* of a run: from where the run stands to its next rung, or to its end; or to an epoch
before, from which another worker goes on, where that ends the stage earlier. The queue hands activations out; when one
ends it asks the scheduler what can be decided, writes that into the journal, stops the losers and hands out the rest of
those who stay. So promotion, a retry after a lost worker, and going on after a kill are one and the same thing, nothing
is ever paused inside Ray, and nothing can wait for a place that a waiting one holds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from xlite_search import progress
from xlite_search.console import Wait
from xlite_search.errors import Damaged, XliteError
from xlite_search.records import RunRecord
from xlite_search.search import asha, scheduling
from xlite_search.search.engine import Shutdown
from xlite_search.search.journal import Journal
from xlite_search.search.makespan import Todo, cuts
from xlite_search.search.ray_files import ray_folder
from xlite_search.search.ray_patches import workers_may_starve, workers_wait
from xlite_search.search.scheduling import Scheduler
from xlite_search.search.worker import Activation, job_for
from xlite_search.study_record import StudyRecord

#: told of every run that has news
Listener = Callable[[RunRecord], None]


class Queue(Searcher):  # type: ignore[misc]
    """See the module's docstring. `listen` is called with a run whenever its record has something new.

    `workers` train at a time, each with cores or a GPU of its own; then runs are cut where that ends a stage earlier
    (`makespan.py`). 0: they share a GPU, on which who is left alone is faster.

    Whoever sees that an activation was ended because the host's memory ran out adds it to `starved` before it is over.
    """

    def __init__(
        self,
        study: StudyRecord,
        scheduler: Scheduler | None,
        root: Path,
        listen: Listener,
        shutdown: Shutdown | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.workers, self.first = workers, dict[str, int]()
        self.study, self.scheduler, self.root, self.listen = study, scheduler, root, listen
        self.shutdown = shutdown or Shutdown()
        self.runs = {run.key: run for run in study.runs()}
        self.journal = Journal(study.folder)
        self.active: dict[str, str] = {}
        self.starved: set[str] = set()
        self.trouble: Exception | None = None
        self.ending = Wait("Ray ends its workers")
        self._decide()

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its searcher to restore it; ours is made anew from the records."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next activation, those with the most epochs first; None if all that are left wait for others."""
        waiting = self.waiting()
        if self.shutdown.requested or self.trouble or not (waiting or self.active):
            return str(Searcher.FINISHED)
        if not waiting:
            return None
        if not self.active:
            self.first = self._cuts(waiting)
        key = next((key for key in self.first if key in waiting), next(iter(waiting)))
        until = self.first.pop(key, waiting[key])
        self.active[trial_id] = key
        progress.forget(self.runs[key].folder)
        return {"job": job_for(self.runs[key], self.study.trainable, self.root, until, self.shutdown.notice)}

    def at_work(self, at_once: int) -> list[str]:
        """Keys of the runs that workers have, or are being started for: what was handed out first."""
        return list(self.active.values())[:at_once]

    def waiting(self) -> dict[str, int | None]:
        """The runs that could go on now, and how far. Those of a higher rung come first, that their memory is freed; of
        one rung who has the most to do."""
        found = asha.targets(self.scheduler, self.runs.values(), self.journal.decisions)
        busy = set(self.active.values())

        def order(key: str) -> tuple[float, float]:
            return -(found[key] or math.inf), -self._todo(key, found[key]).seconds

        return {key: found[key] for key in sorted((key for key in found if key not in busy), key=order)}

    def _todo(self, key: str, until: int | None) -> Todo:
        """What is left of a run until then, or its end; each epoch as long as its shortest was, 0 if it has none."""
        run = self.runs[key]
        shortest = min((epoch.get("time/epoch_s", 0.0) for epoch in run.epochs), default=0.0)
        return Todo((until or run.length) - len(run.epochs), shortest)

    def _cuts(self, waiting: Mapping[str, int | None]) -> dict[str, int]:
        """Of runs that a worker each begins with: the epoch after which it lets go of it."""
        keys = list(waiting)
        found = cuts([self._todo(*item) for item in waiting.items()], self.workers) if self.workers else {}
        return {keys[place]: len(self.runs[keys[place]].epochs) + epochs for place, epochs in found.items()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        with self._ending_on_trouble():
            self._update(RunRecord.load(self.runs[self.active[trial_id]].folder))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """An activation has ended, one way or the other; its record says how, or `result` that it could not be kept."""
        if result and "trouble" in result:
            self.trouble = self.trouble or Damaged(result["trouble"])
        with self._ending_on_trouble():
            run = RunRecord.load(self.runs[self.active.pop(trial_id)].folder)
            if run.status == "running" and (self.shutdown.requested or self.trouble):
                run = run.interrupted()
            elif trial_id in self.starved and not run.over:
                run = run.starved("out of memory on the host")
            elif run.status == "running" or (error and not run.over):
                run = run.abandoned()
            self._update(run)
            self._decide()
        if not self.active and (self.shutdown.requested or self.trouble or not self.waiting()):
            self.ending.begin()

    @contextmanager
    def _ending_on_trouble(self) -> Iterator[None]:
        """A disk that is full or a damaged file ends the search; Ray would bury the sentence in one of its own."""
        try:
            yield
        except (XliteError, OSError) as error:
            self.trouble = self.trouble or error

    def _update(self, run: RunRecord) -> None:
        self.runs[run.key] = run
        self.listen(run)

    def _decide(self) -> None:
        """Journals what can be decided, then has the losers' records say so; what a kill left undone as well.

        A loser whose record was lost is trained to its rung again, and no further.
        """
        if self.scheduler is None:
            return
        about = self.study.metric, self.study.minimize, list(self.runs.values())
        for decision in scheduling.decisions(self.scheduler, *about, self.journal.decisions):
            self.journal.append(decision)
        for decision in self.journal.decisions:
            for key in decision.scores.keys() - set(decision.kept):
                run = self.runs.get(key)
                if run is not None and not run.over and len(run.epochs) >= decision.rung:
                    self._update(run.close("stopped", decision.sentence(key, self.study.metric)))


def drain(queue: Queue, resources: Mapping[str, float], at_once: int) -> None:
    """Has Ray Tune run what the queue hands out, until it hands out nothing more. Ray's own files are thrown away."""
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(at_once)  # else it starts one worker after the other
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1e9"  # nobody reads its state, which holds every trial twice
    with ray_folder() as cache, workers_may_starve(), workers_wait(at_once), closing(queue.ending):
        tune.Tuner(
            tune.with_resources(Activation, dict(resources)),
            tune_config=tune.TuneConfig(
                search_alg=queue,
                scheduler=_Scheduler(queue),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(cache),
                verbose=0,
                callbacks=[_Silent()],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the record has it
            ),
        ).fit()
    if queue.trouble:
        raise queue.trouble


class _Silent(TrialProgressCallback):  # type: ignore[misc]
    """Takes the place of Ray's own, which tells whatever the verbosity of each trial that is stopped before its end."""

    def _print(self, msg: str) -> None:
        pass


class _Scheduler(FIFOScheduler):  # type: ignore[misc]
    """First come, first served; once somebody asked the search to end, whoever has finished an epoch leaves, and
    whoever waits for a place does not get one.

    It also sees why a worker is lost, which Ray does not tell the queue.
    """

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self.queue = queue

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Asked before any place is given away."""
        if not self.queue.shutdown.requested:
            return super().choose_trial_to_run(tune_controller)
        for trial in tune_controller.get_trials():
            if trial.status == Trial.PENDING:
                tune_controller.stop_trial(trial)
        return None

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return str(TrialScheduler.STOP if self.queue.shutdown.requested else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        trial.run_metadata.metric_n_steps.clear()  # moving averages of its clocks, which nobody reads

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        if "low on memory" in Path(trial.error_file).read_text():
            self.queue.starved.add(trial.trial_id)

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its scheduler to restore it; ours holds a thread's signal."""
        return {}


def _name(trial: Any) -> str:
    return f"{trial.config['job']['key']}-{trial.trial_id}"
