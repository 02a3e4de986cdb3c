"""The command of the run that is missing gives that very run, of every study of ours."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from xlite_search.cli.options import settings_of
from xlite_search.results.confounders import Comparability, RunFacts, comparability
from xlite_search.results.missing import missing
from xlite_search.results.roles import role_of
from xlite_search.search.study import Study
from xlite_search.search.study_file import load_study
from xlite_search.spec import flatten

ROOT = Path(__file__).parents[1]
SPACES = [path for path in sorted((ROOT / "search_spaces").glob("*.py")) if path.name != "__init__.py"]


def facts(study: Study, space: str) -> list[RunFacts]:
    """The runs that a study would have, as if all were finished."""
    swept = tuple(dict.fromkeys(name for settings, _ in study.configs() for name in settings))
    return [
        RunFacts(
            str(number), flatten(config.model_dump(mode="json")), {"study": "s"}, swept=swept, command=("run", space)
        )
        for number, (_, config) in enumerate(study.configs())
    ]


def confounded(runs: list[RunFacts]) -> Iterator[tuple[RunFacts, RunFacts, str, Comparability]]:
    """Pairs that differ in a factor and in something else."""
    for (a, b), factor in itertools.product(itertools.combinations(runs, 2), runs[0].swept):
        found = comparability(a, b, [factor])
        if role_of(factor) == "factor" and found.named and not found.fair:
            yield a, b, factor, found


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_the_command_gives_a_run_that_compares(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    space = str(path.relative_to(ROOT))
    study = load_study(space)
    if study.suggester:
        pytest.skip("a search has no grid of runs")
    for a, b, factor, found in list(confounded(facts(study, space)))[:40]:
        lacking = missing(a, b, found)
        assert lacking is not None and lacking.beside == ()
        words = shlex.split(lacking.command)
        assert words[:5] == ["python", "-m", "xlite_search", "run", space] and words[-2] == "--name"
        given = [word for flag, word in itertools.pairwise(words) if flag == "--set"]
        trained = facts(study.with_settings(settings_of(given, type(study.base))), space)
        like = a if lacking.like == a.name else b
        assert len(trained) == 1, lacking.command
        partner = comparability(like, trained[0], [factor])
        assert partner.fair, f"{lacking.command}: {partner.claim('tied')}"
        assert [each.name for each in partner.named] == [each.name for each in found.named]
