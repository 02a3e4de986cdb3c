"""Studies side by side: one question, or what lies between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from xlite_search.config import RunConfig
from xlite_search.results.between import between
from xlite_search.results.confounders import RunFacts
from xlite_search.spec import flatten


def study(
    name: str, swept: Sequence[dict[str, Any]], base: dict[str, Any] | None = None, known: dict[str, Any] | None = None
) -> list[RunFacts]:
    names = tuple(dict.fromkeys(setting for point in swept for setting in point))
    runs = []
    for point in swept:
        config = flatten(RunConfig().with_settings((base or {}) | point).model_dump(mode="json"))
        about = {"study": name, "chosen_from": 1} | (known or {})
        runs.append(RunFacts(f"{name} {point}", config, about, swept=names))
    return runs


LOSSES = [{"loss": "bce", "seed": seed} for seed in (1, 2)]


def test_other_values_of_one_factor_are_one_question() -> None:
    other = [{"loss": loss, "seed": 1} for loss in ("focal", "weighted_bce")]
    assert between([study("a", LOSSES), study("b", other, known={"chosen_from": 2})]).one_question
    assert between([study("a", LOSSES)]).one_question and between([[], study("a", LOSSES)]).one_question


def test_what_lies_between_them_is_named_in_their_order() -> None:
    found = between([study("a", LOSSES, {"epochs": 2}), study("b", LOSSES, {"epochs": 3, "mixup": 0.2})])
    assert not found.one_question
    assert found.sentence() == "the studies differ in: epochs 2 | 3; mixup 0 | 0.2"


def test_a_factor_of_one_study_that_the_other_has_fixed_is_no_difference_between_them() -> None:
    crossed = [{"sampler": sampler, "loss": "bce"} for sampler in ("none", "mean_rarity")]
    assert between([study("a", LOSSES), study("b", crossed)]).one_question


def test_two_factors_that_only_change_together_are_told() -> None:
    """Each study sweeps the seed, and loss and sampler were set to other values in the second."""
    a = study("a", [{"loss": "bce", "sampler": "none", "seed": seed} for seed in (1, 2)])
    b = study("b", [{"loss": "focal", "sampler": "mean_rarity", "seed": seed} for seed in (1, 2)])
    found = between([a, b])
    assert found.differ == () and not found.one_question
    assert found.sentence() == (
        "loss bce only ever with sampler none, loss focal only ever with sampler mean_rarity: "
        "what one does cannot be told from what the other does"
    )


@pytest.mark.parametrize("name", ["code", "fingerprint.data", "library.torch"])
def test_other_code_data_or_libraries_are_between_them(name: str) -> None:
    found = between([study("a", LOSSES, known={name: "x"}), study("b", LOSSES, known={name: "y"})])
    assert found.sentence() == f"the studies differ in: {name} x | y"
