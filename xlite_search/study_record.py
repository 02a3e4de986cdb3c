"""Manifest of a study: its definition, the keys of its trials, and what was accepted on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xlite_search.errors import BadInput, Damaged, did_you_mean
from xlite_search.records import RunRecord
from xlite_search.storage import read_manifest, write_manifest

#: in a definition: the trials that --drop-near-duplicates left out, by key
NEAR_DUPLICATES = "near_duplicates"
#: runs that a sentence names
SHOWN = 3


@dataclass(frozen=True)
class StudyRecord:
    """A study as it was begun: `study.json` in its folder, with the trials' own folders below `trials/`.

    definition  what must not change while it goes on, by dotted name (`search.plan.definition`)
    trials      keys of its trials, in order; those of a search grow by a round at a time
    minimize    further objectives, lower is better, by their names among facts and metrics
    teacher     key of its teacher, or empty
    teacher_sha256  of the teacher's weights, once they are there
    maker       the trainable and the code that its runs' keys hold: those that the study began with, whatever was
                accepted since; empty in a study of an earlier version of this program
    teacher_maker  the same of its teacher's key
    files       hashes of the files of its code, to say which ones changed
    accepted    changes that were accepted on the way: [{"time", "changes", "code"}]
    tracked     MLflow has all that the records have
    command     the words that began it, `run SPACE ...`, less its name; empty if no command line did
    exhausted   a search's last round came back short, and there is no other
    distributions  what a search suggests from, by name (`suggest.distributions`); empty in a grid, and in a search that
                   an earlier version of this program ran
    """

    folder: Path
    name: str
    question: str
    trainable: str
    metric: str
    definition: dict[str, Any]
    trials: tuple[str, ...]
    minimize: tuple[str, ...] = ()
    teacher: str = ""
    teacher_sha256: str = ""
    commit: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    maker: str = ""
    teacher_maker: str = ""
    files: dict[str, str] = field(default_factory=dict)
    accepted: tuple[dict[str, Any], ...] = ()
    tracked: bool = False
    exhausted: bool = False
    command: tuple[str, ...] = ()
    distributions: dict[str, str] = field(default_factory=dict)

    def save(self) -> StudyRecord:
        body = asdict(self)
        del body["folder"]
        write_manifest(self.folder / "study.json", body)
        return self

    @classmethod
    def load(cls, folder: Path) -> StudyRecord:
        """Raises FileNotFoundError or Damaged, as `read_manifest`."""
        body = read_manifest(folder / "study.json")
        return cls(
            folder=folder,
            **body | {n: tuple(body[n]) for n in ("trials", "minimize", "accepted", "command") if n in body},
        )

    def trial_folder(self, key: str) -> Path:
        return self.folder / "trials" / key

    def runs(self) -> list[RunRecord]:
        """The trials' records, in the study's order. Raises Damaged if one is gone."""
        try:
            return [RunRecord.load(self.trial_folder(key)) for key in self.trials]
        except FileNotFoundError as error:
            lost = Path(str(error.filename)).parent
            raise Damaged(
                f"{lost} of study '{self.name}' is gone: `run` the study again, and it is trained anew"
            ) from None

    def left_out(self) -> list[str]:
        """Why trials of the study's space are not among its runs, a sentence each."""
        return left_out(self.definition)

    def run(self, which: str) -> RunRecord:
        """The trial with this key, the beginning of one, or this label.

        Raises:
            BadInput: there is none, or there are several.
        """
        runs = self.runs()
        found = [run for run in runs if which in (run.key, run.label)] or [
            run for run in runs if which and run.key.startswith(which)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise BadInput(
                f"study '{self.name}': {len(found)} runs are called '{which}'; say one's key: {_keys(found)}"
            )
        hint = did_you_mean(which, [name for run in runs for name in (run.label, run.key)])
        raise BadInput(f"study '{self.name}' has no run '{which}'{hint or f'; its runs are {_keys(runs)}'}")


def _keys(runs: Sequence[RunRecord]) -> str:
    some = ", ".join(f"{run.key} ({run.label})" for run in runs[:SHOWN])
    return some + (f", ... {len(runs):,} in all" if len(runs) > SHOWN else "")


def left_out(definition: Mapping[str, Any]) -> list[str]:
    """Of a study's definition: why trials of its space are not among its runs, a sentence each."""
    left = definition.get(NEAR_DUPLICATES, {})
    return [f"'{about['label']}' is left out: {about['why']}" for about in left.values()]


def homes(runs: Iterable[RunRecord]) -> list[str]:
    """The study that each trial is of."""
    return [run.folder.parent.parent.name for run in runs]
