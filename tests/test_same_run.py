"""Settings that training never meets: points that differ in them are one run, bit for bit, and trained once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import bare_study, call

from trainables.baseline import baseline
from trainables.distill import distill
from xlite_search.config import RunConfig
from xlite_search.search.same_run import SHORT_SIGHTED, as_trained
from xlite_search.search.study import Study, grid_search
from xlite_search.training.optim import Cosine


def study_of(tiny: RunConfig, space: dict[str, Any], **more: Any) -> Study:
    return Study("?", more.pop("trainable", baseline), tiny, space, **more)


PLATEAU = {"schedule": "plateau"}
SAME: list[tuple[dict[str, Any], dict[str, Any], int, list[str]]] = [
    # of 3 epochs: the second can end a run, if the first was the best; the third ends it anyway
    ({}, {"early_stopping": grid_search([None, 1, 2, 3])}, 2, ["early_stopping 2 cannot", "early_stopping 3 cannot"]),
    (
        {},
        {"stop_after": grid_search([None, 2, 3, 9])},
        2,
        ["stop_after 3 is beyond", "stop_after 9 is beyond the 3 ep"],
    ),
    (
        PLATEAU | {"stop_after": 2},
        {"epochs": grid_search([2, 3, 9])},
        1,
        ["stop_after 2 is bey", "epochs 3 a", "epochs 9 a"],
    ),
    ({"stop_after": 2}, {"epochs": grid_search([3, 9])}, 2, []),  # a cosine is laid out for all epochs
    (PLATEAU, {"epochs": grid_search([2, 3])}, 2, []),
    ({"augment": "light"}, {"augment.views": grid_search([None, 2, 3, 4])}, 2, ["augment.views 3", "augment.views 4"]),
    ({"augment": "light", "sampler": "max_rarity"}, {"augment.views": grid_search([None, 3, 4])}, 3, []),
    ({"kd.form": "mse"}, {"kd.tau": grid_search([1.0, 4.0, 8.0])}, 1, ["kd.form mse does not use kd.tau 1", "kd.form"]),
    ({"kd.form": "mse", "kd.intra": 0.1}, {"kd.tau": grid_search([1.0, 4.0])}, 2, []),
    ({}, {"kd.tau": grid_search([1.0, 8.0]), "kd.alpha": 0.0}, 1, []),
]


@pytest.mark.parametrize(("base", "space", "trials", "why"), SAME)
def test_points_that_are_one_run_are_one_trial(
    tiny: RunConfig, base: dict[str, Any], space: dict[str, Any], trials: int, why: list[str]
) -> None:
    study = study_of(tiny.with_settings(base), space, trainable=distill, teacher=tiny)
    assert len(study.configs()) == trials
    said = study.idle_settings()
    assert len(said) == len(why) and all(map(str.startswith, said, why))


def test_the_point_that_comes_first_stays_as_it_is(tiny: RunConfig) -> None:
    ((settings, config),) = study_of(tiny, {"early_stopping": grid_search([7, None])}).configs()
    assert (settings, config.early_stopping) == ({"early_stopping": 7}, 7)


def test_a_trainable_of_ones_own_may_do_otherwise(tiny: RunConfig, tmp_path: Path) -> None:
    study = study_of(tiny, {"early_stopping": grid_search([7, None])}, trainable=mine)
    assert len(study.configs()) == 2 and study.idle_settings() == []


def mine(config: RunConfig, resume: Path | None = None) -> Any:
    yield from baseline(config, resume)


@pytest.mark.parametrize("schedule", SHORT_SIGHTED)
def test_schedules_that_do_not_look_ahead(schedule: Any) -> None:
    spec = schedule(factors=(1.0, 0.5)) if "factors" in schedule.model_fields else schedule()
    assert rates(spec, 4) == rates(spec, 40)
    assert rates(Cosine(), 4) != rates(Cosine(), 40)


def rates(schedule: Any, epochs: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    found, stepping = [], schedule.build(optimizer, epochs, 3)
    for _ in range(12):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        stepping.after_step()
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"early_stopping": 2}, {"early_stopping": None}),
        ({"augment": {"name": "light", "views": 5}}, {"augment": {"name": "light"}}),
        ({"schedule": "plateau", "epochs": 9, "stop_after": 2}, {"schedule": "plateau", "epochs": 2}),
    ],
)
def test_they_are_one_run_to_the_last_bit(tiny: RunConfig, one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = (tiny.with_settings(settings) for settings in (one, other))
    assert as_trained(first)[0] == as_trained(second)[0]
    for a, b in zip(baseline(first), baseline(second), strict=True):
        assert a.predictions is not None and b.predictions is not None
        assert {n: v for n, v in a.metrics.items() if "time/" not in n} == {
            n: v for n, v in b.metrics.items() if "time/" not in n
        }


def test_plan_says_which_and_why(tiny: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = (
        f"base = RunConfig.model_validate_json({tiny.model_dump_json()!r})\n"
        "study = Study('?', baseline, base, {'early_stopping': grid_search([None, 7])})\n"
    )
    path = bare_study(tmp_path, body)
    code, out, _ = call(capsys, "plan", path)
    assert code == 0 and "mine: 1 trial," in out
    assert "  1 more points are the same run as one of these, and are not trained twice\n" in out
    assert "  early_stopping 7 cannot act in 3 epochs\n" in out
    _, out, _ = call(capsys, "plan", path, "--json")
    assert json.loads(out)["same_run"] == ["early_stopping 7 cannot act in 3 epochs"]
