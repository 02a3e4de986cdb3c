"""What a person sees while something runs: one quiet live table in a terminal, plain lines elsewhere. All on stderr."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from xlite_search.records import RunRecord

PLAIN_EVERY_S = 15.0


def plain(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console that prints what it is given: to it `[/data]` is no markup, and `a:b:c` no emoji."""
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


stderr = plain(stderr=True)


def say(text: str) -> None:
    """One line for a person."""
    stderr.print(text, soft_wrap=True)


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


class Board:
    """The runs of a study as they go: who runs, who leads, what is left."""

    def __init__(self, records: list[RunRecord], *, at_once: int, resources: str) -> None:
        self.records = {record.key: record for record in records}
        self.at_once, self.resources = at_once, resources
        self.live = Live(get_renderable=self.render, console=stderr, refresh_per_second=2, transient=True)
        self.spoken = 0.0

    def __enter__(self) -> Board:
        if stderr.is_terminal:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if stderr.is_terminal:
            self.live.stop()

    def update(self, record: RunRecord) -> None:
        """Shows the newest state of a run; says a line when it ends."""
        before, self.records[record.key] = self.records.get(record.key), record
        if record.over and not (before and before.over):
            say(f"  {self.done()} {record.label}: {score_of(record)} at epoch {best_epoch(record)}; {record.cause}")
        elif self.running() and not stderr.is_terminal and time.monotonic() - self.spoken > PLAIN_EVERY_S:
            self.spoken = time.monotonic()
            say(f"  {self.done()} running: {', '.join(self.running_words())}; {self.left()}")

    def done(self) -> str:
        return f"[{sum(r.over for r in self.records.values())}/{len(self.records)}]"

    def running(self) -> list[RunRecord]:
        return [record for record in self.records.values() if record.status == "running"]

    def running_words(self) -> list[str]:
        return [f"{r.label} {len(r.epochs)}/{r.config['epochs']}" for r in self.running()]

    def left(self) -> str:
        """Time to the end if nobody were stopped: epochs left, times the mean epoch, over the runs at once."""
        spent = sum(r.seconds for r in self.records.values())
        epochs = sum(len(r.epochs) for r in self.records.values())
        if not epochs:
            return "time left unknown"
        todo = sum(r.config["epochs"] - len(r.epochs) for r in self.records.values() if not r.over)
        return f"at most {clock(todo * spent / epochs / self.at_once)} left"

    def render(self) -> RenderableType:
        table = Table(box=None, pad_edge=False)
        for column in ("", "run", "epoch", "best", "at", "now", "s/epoch"):
            table.add_column(column, justify="left" if column in ("", "run") else "right")
        for record in self.running():
            table.add_row("running", record.label, *self.columns(record))
        scored = [r for r in self.records.values() if math.isfinite(r.best_score(r.config["monitor"]))]
        if scored:
            leader = max(scored, key=lambda r: r.best_score(r.config["monitor"]))
            table.add_row("best", leader.label, *self.columns(leader), style="bold")
        foot = f"{self.done()} done, {self.left()}; {self.resources}"
        return Group(table, Text(foot, style="dim"))

    def columns(self, record: RunRecord) -> list[str]:
        course = record.metric(record.config["monitor"])
        now = f"{course[-1]:.4f}" if course else "-"
        pace = f"{record.seconds / len(course):.1f}" if course else "-"
        return [f"{len(course)}/{record.config['epochs']}", score_of(record), best_epoch(record), now, pace]


def score_of(record: RunRecord) -> str:
    score = record.best_score(record.config["monitor"])
    return f"{score:.4f}" if math.isfinite(score) else "-"


def best_epoch(record: RunRecord) -> str:
    return str(record.best.epoch) if record.best else "-"
