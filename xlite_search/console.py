"""Progress display: one quiet live table in a terminal, plain lines elsewhere. All on stderr."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from xlite_search import progress
from xlite_search.progress import Progress
from xlite_search.records import RunRecord

PLAIN_EVERY_S, PATIENCE_S = 15.0, 2.0
#: what a worker is at that has not said anything: it imports torch
STARTING = "starting"
SECONDARY = ("at", "now", "s/epoch")
COLUMNS = ("", "run", "epochs", "step", "img/s", "time", "best", *SECONDARY)
#: columns of a terminal that has room for what is secondary
WIDE = 100


def plain(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console that prints what it is given: to it `[/data]` is no markup, and `a:b:c` no emoji."""
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


stderr = plain(stderr=True)


def say(text: str) -> None:
    """One line for a person."""
    stderr.print(text, soft_wrap=True)


class Wait:
    """Says what is waited for, where that takes longer than a moment.

    with Wait("Ray ends its processes"):
        ...
    """

    def __init__(self, what: str) -> None:
        self.timer = threading.Timer(PATIENCE_S, say, [f"{what} ..."])
        self.timer.daemon = True

    def begin(self) -> None:
        """The first call counts."""
        if self.timer.ident is None and not self.timer.finished.is_set():
            self.timer.start()

    def close(self) -> None:
        self.timer.cancel()

    def __enter__(self) -> Wait:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def clock(seconds: float) -> str:
    """`1:05:00`, `4:10` or `12 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def duration(seconds: float) -> str:
    """`1 h 05 min`, `4 min 10 s` or `12 s`: where nothing beside it says that it is a time."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if whole >= 3600 else f"{whole // 60} min {whole % 60:02d} s"


class Counter:
    """`done of total` with rate and time left, at most a few times a second (a line every 15 s outside a terminal).

    The first call tells what was done before: it says nothing of the rate.
    """

    def __init__(self, what: str) -> None:
        self.what, self.started = what, time.monotonic()
        self.shown, self.before = self.started, -1

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self.before = done if self.before < 0 else self.before
        due = now - self.shown > (0.2 if stderr.is_terminal else PLAIN_EVERY_S) and done > self.before
        if not due and done < total:
            return
        self.shown = now
        rate = (done - self.before) / max(now - self.started, 1e-9)
        left = f", {clock((total - done) / rate)} left" if done < total else f" in {clock(now - self.started)}"
        line = f"{self.what} {done:,} of {total:,} ({rate:,.0f}/s{left})"
        stderr.print(line, end="\r" if stderr.is_terminal and done < total else "\n", soft_wrap=True)


class EpochLine:
    """One training's way through an epoch, on one line of a terminal, or a line every 15 s elsewhere."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.done, self.spoken = epochs, 0, time.monotonic()

    def __call__(self, found: Progress) -> None:
        if not stderr.is_terminal and time.monotonic() - self.spoken < PLAIN_EVERY_S:
            return
        self.spoken = time.monotonic()
        text = f"epoch {self.done + 1}/{self.epochs}: {within(found)}"
        stderr.print(f"{text:<78}", end="\r" if stderr.is_terminal else "\n", soft_wrap=True)

    def end(self, text: str) -> None:
        """What an epoch came to."""
        self.done += 1
        say(f"{text:<78}" if stderr.is_terminal else text)


class Board:
    """The runs of a study as they go: who runs and how far, who leads, what is left.

    It looks at the progress that workers keep beside their records, twice a second (every 15 s outside a terminal).
    """

    def __init__(self, records: list[RunRecord], *, at_once: int, resources: str) -> None:
        self.records = {record.key: record for record in records}
        self.at_once, self.resources = at_once, resources
        self.over = threading.Event()
        self.at_work: Callable[[], list[str]] = lambda: []
        self.since: dict[str, float] = {}
        self.live = Live(get_renderable=self.render, console=stderr, refresh_per_second=2, transient=True)

    def __enter__(self) -> Board:
        if stderr.is_terminal:
            self.live.start()
        else:
            threading.Thread(target=self._print_lines, name="board", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.over.set()
        if stderr.is_terminal:
            self.live.stop()

    def watch(self, at_work: Callable[[], list[str]]) -> None:
        """From now on: the keys of the runs that workers have, or are being started for."""
        self.at_work = at_work

    def update(self, record: RunRecord) -> None:
        """Shows the newest state of a run; says a line when it ends."""
        before, self.records[record.key] = self.records.get(record.key), record
        if record.over and not (before and before.over):
            say(f"  {self.done()} {record.label}: {score_of(record)} at epoch {best_epoch(record)}; {record.cause}")

    def _print_lines(self) -> None:
        while not self.over.wait(PLAIN_EVERY_S):
            if words := self.running_words():
                say(f"  {self.done()} {'; '.join(words)}; {self.left()}")

    def done(self) -> str:
        return f"[{sum(r.over for r in self.records.values())}/{len(self.records)}]"

    def running(self) -> list[tuple[RunRecord, Progress]]:
        """Who is at work, and at what; a worker that has not said anything yet is starting."""
        found = [self.records[key] for key in self.at_work()]
        now = time.monotonic()
        self.since = {r.key: self.since.get(r.key, now) for r in found}
        return [(record, progress.read(record.folder) or Progress(STARTING)) for record in found]

    def running_words(self) -> list[str]:
        return [f"{r.label} {len(r.epochs)}/{r.config['epochs']} {within(now)}" for r, now in self.running()]

    def left(self) -> str:
        """Time to the end if nobody were stopped: epochs left, times the mean epoch, over the runs at once."""
        spent = sum(r.seconds for r in self.records.values())
        epochs = sum(len(r.epochs) for r in self.records.values())
        if not epochs:
            return "time left unknown"
        todo = sum(r.config["epochs"] - len(r.epochs) for r in self.records.values() if not r.over)
        return f"at most {clock(todo * spent / epochs / self.at_once)} left"

    def render(self) -> RenderableType:
        """A row for each run at work, and one for the leader; secondary figures where there is room for them."""
        narrow = stderr.width < WIDE
        table = Table(box=None, pad_edge=False)
        for column in COLUMNS[: -len(SECONDARY)] if narrow else COLUMNS:
            table.add_column(column, justify="left" if column in ("", "run") else "right", no_wrap=column != "run")
        rows = [(found.what, record, self.moving(record, found), "") for record, found in self.running()]
        scored = [r for r in self.records.values() if math.isfinite(r.best_score(r.config["monitor"]))]
        if scored:
            leader = max(scored, key=lambda r: r.best_score(r.config["monitor"]))
            rows.append(("best", leader, ["", "", ""], "bold"))
        for what, record, moving, style in rows:
            cells = [f"{len(record.epochs)}/{record.config['epochs']}", *moving, *reached(record)]
            table.add_row(what, record.label, *cells[: len(table.columns) - 2], style=style)
        foot = f"{self.done()} done, {self.left()}; {self.resources}"
        return Group(table, Text(foot, style="dim"))

    def moving(self, record: RunRecord, found: Progress) -> list[str]:
        """Step, images a second, and for how long a worker has had it."""
        step = f"{found.step}/{found.steps}" if found.steps else ""
        return [step, f"{found.rate:,.0f}" if found.rate else "", clock(time.monotonic() - self.since[record.key])]


def within(found: Progress) -> str:
    """`training, step 34 of 120, 56 images/s`."""
    step = f", step {found.step:,} of {found.steps:,}" if found.steps else ""
    return f"{found.what}{step}{f', {found.rate:,.0f} images/s' if found.rate else ''}"


def reached(record: RunRecord) -> list[str]:
    """The best score and its epoch, the newest score, and what an epoch takes."""
    curve = record.metric(record.config["monitor"])
    now = f"{curve[-1]:.4f}" if curve else "-"
    pace = f"{record.seconds / len(curve):.1f}" if curve else "-"
    return [score_of(record), best_epoch(record), now, pace]


def score_of(record: RunRecord) -> str:
    score = record.best_score(record.config["monitor"])
    return f"{score:.4f}" if math.isfinite(score) else "-"


def best_epoch(record: RunRecord) -> str:
    return str(record.best.epoch) if record.best else "-"
