"""The guard of fair comparisons: planted confounders are named, clean pairs are not accused, over all settings."""

from __future__ import annotations

import itertools
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from xlite_search.config import RunConfig
from xlite_search.errors import BadInput
from xlite_search.provenance import RESULT_LIBRARIES
from xlite_search.results.confounders import RunFacts, comparability
from xlite_search.results.missing import missing
from xlite_search.results.roles import PROVENANCE, REPLICATES, SETTINGS, role_of, short_name
from xlite_search.spec import flatten, setting_names, specs_in

#: values that a setting may be tried with, whatever it is
TRIED: tuple[Any, ...] = (
    *(2, 3, 7, 12, 0.5, 0.25, 0.05, 0.003, 1.5, 16.0, True, False, (0.6, 0.2, 0.2), [1.0, 0.5], "val/ap_macro"),
    *("efficientnet_b0_performer", "a_file", "0123abcd"),
)
#: what is known of a run that was trained to its end
KNOWN: dict[str, Any] = {
    **{"epochs_done": 20, "steps": 2000, "status": "finished", "code": "trainables.distill:distill 0123456789ab"},
    **{"fingerprint.data": "d" * 16, "fingerprint.split": "e" * 16, "teacher.sha256": "f" * 64, "device": "gpu"},
    **{"chosen_from": 8, "study": "s", "gpu": "a card", "cpu": "AVX2", "commit": "0123"},
    **{f"library.{name}": "1.0" for name in RESULT_LIBRARIES},
}


class Plant(NamedTuple):
    """A setting, what makes a config have it, and another value for it."""

    name: str
    active: dict[str, Any]
    value: Any

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


def leaves(spec: type[BaseModel], prefix: str = "", active: Mapping[str, Any] = types.MappingProxyType({})) -> Any:
    """Every setting by name, in every choice above it, with its annotation."""
    for name, field in spec.model_fields.items():
        choices = list(specs_in(field.annotation))
        yield prefix + name, active, field.annotation
        for choice in choices:
            called = {"name": choice.model_fields["name"].default} if len(choices) > 1 else {}
            own = {} if name == "data" else {prefix + name: called | dict(needed(choice))}
            yield from leaves(choice, f"{prefix}{name}.", {**active, **own})


def needed(choice: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, field in choice.model_fields.items():
        if field.is_required():
            yield name, "a_place" if field.annotation is str else [1.0, 0.5]


def alternatives(annotation: object) -> Iterator[Any]:
    """Values of a type: what a Literal names, the choices of a union, and whatever may fit."""
    for each in specs_in(annotation):
        if "name" in each.model_fields:
            yield {"name": each.model_fields["name"].default, **dict(needed(each))}
    for kind in parts(annotation):
        yield from get_args(kind) if get_origin(kind) is Literal else ()
    yield from TRIED


def parts(annotation: object) -> Iterator[object]:
    yield annotation
    if get_origin(annotation) in (Union, types.UnionType) or hasattr(annotation, "__metadata__"):
        for each in get_args(annotation):
            yield from parts(each)


def plants() -> Iterator[Plant]:
    """For every setting one config that has it, and another that differs in it."""
    seen: set[str] = set()
    for name, active, annotation in leaves(RunConfig):
        if name in seen or short_name(name) in seen:
            continue
        found = next((value for value in alternatives(annotation) if differs(name, dict(active), value)), None)
        if found is not None:
            seen.add(name)
            yield Plant(name, dict(active), found)


def config(settings: Mapping[str, Any]) -> dict[str, Any]:
    return flatten(RunConfig().with_settings(settings).model_dump(mode="json"))


def differs(name: str, active: dict[str, Any], value: Any) -> bool:
    try:
        before, after = config(active), config(active | {name: value})
    except BadInput:
        return False
    return before != after and (name in before or f"{name}.name" in before or before.get(name, 0) is None)


LOSSES = ("bce", "weighted_bce", "focal", "asymmetric")
PLANTS = list(plants())
PLANTED = [plant for plant in PLANTS if role_of(short_name(plant.name)) == "factor"]


def run(name: str, settings: Mapping[str, Any], **known: Any) -> RunFacts:
    return RunFacts(name, config(settings), {**KNOWN, **{n.replace("__", "."): v for n, v in known.items()}})


def names(found: Any) -> list[str]:
    return [each.name for each in found]


def test_every_setting_has_a_role() -> None:
    missing = [name for name in setting_names(RunConfig) if short_name(name) not in SETTINGS]
    assert missing == []
    known = {short_name(name) for name in setting_names(RunConfig)}
    assert sorted(SETTINGS.keys() - known) == [], "a role of a setting that there is not"


def test_the_generator_reaches_every_setting() -> None:
    containers = {"data", "optimizer.name", "weights", "kd"}  # no value of their own
    reached = {short_name(plant.name) for plant in PLANTS} | {short_name(name) for name in containers}
    single = {"optimizer"}  # there is but one
    assert {short_name(name) for name in setting_names(RunConfig)} - reached - single == set()
    assert len(PLANTED) >= 30


@pytest.mark.parametrize("plant", PLANTED, ids=str)
def test_a_planted_confounder_is_named(plant: Plant) -> None:
    factor = ("clip_norm", 1.0) if plant.name != "clip_norm" else ("mixup", 0.2)
    a, b = run("a", plant.active), run("b", plant.active | {plant.name: plant.value, factor[0]: factor[1]})
    found = comparability(a, b, [factor[0]])
    assert names(found.named) == [factor[0]]
    assert names(found.confounders) == [short_name(plant.name)]
    for says in ("better", "tied", "worse"):
        sentence = found.claim(says)
        assert sentence.startswith(f"not comparable: also differ in {short_name(plant.name)} (")
        assert "beats" not in sentence
    assert names(comparability(a, b).confounders) != [], "whoever names no factor is told both"


@pytest.mark.parametrize("plant", PLANTED, ids=str)
def test_a_clean_pair_is_not_accused(plant: Plant) -> None:
    """One factor, named or not, and another seed; what follows from it differs too."""
    changed = plant.active | {plant.name: plant.value, "seed": 7, "threads": 2}
    follows: dict[str, Any] = {}
    if plant.name in ("epochs", "stop_after", "early_stopping"):
        follows = {"epochs_done": 9, "steps": 900}
    if plant.name in ("batch_size", "data.fraction", "data.fit"):
        follows = {"steps": 123}
    if plant.name.startswith("data.") and plant.name not in ("data.fraction", "data.fit"):
        follows |= {"fingerprint__split": "0" * 16}
    if plant.name == "data.name":
        follows |= {"fingerprint__data": "0" * 16}
    if plant.name.startswith("kd"):
        follows |= {"teacher__sha256": "0" * 64}
    if plant.name in ("kd.tau", "kd.alpha", "kd.form", "kd.intra", "kd.hint", "kd.platt"):
        follows = {}
    a, b = run("a", plant.active), run("b", changed, **follows)
    unnamed = [] if plant.name in REPLICATES else [None]  # of another fold's images, unless that is what is asked
    for factors in ([plant.name], *unnamed):
        found = comparability(a, b, factors)
        assert names(found.confounders) == []
        assert names(found.named) == [short_name(plant.name)]
        assert set(names(found.nuisances)) >= {"seed"}
        assert found.claim("better", "by 0.01").startswith("a beats b by 0.01: ")
        assert missing(a, b, found) is None


@pytest.mark.parametrize("plant", [plant for plant in PLANTS if plant not in PLANTED], ids=str)
def test_chance_and_places_are_no_factors(plant: Plant) -> None:
    a, b = run("a", plant.active), run("b", plant.active | {plant.name: plant.value, "clip_norm": 1.0})
    found = comparability(a, b)
    assert names(found.named) == ["clip_norm"]
    assert found.confounders == ()
    assert (plant.name in names(found.nuisances)) == (role_of(plant.name) == "nuisance")


@pytest.mark.parametrize("name", [name for name, role in PROVENANCE.items() if role == "factor"])
def test_what_was_done_otherwise_is_a_confounder(name: str) -> None:
    other = {"chosen_from": 2, "epochs_done": 3, "steps": 3}.get(name, "another")
    more = {"study": "t", "status": "stopped"}
    a = RunFacts("a", config({}), KNOWN | more)
    b = RunFacts("b", config({"clip_norm": 1.0}), KNOWN | more | {"study": "u", name: other})
    for factors in (["clip_norm"], None):
        found = comparability(a, b, factors)
        assert names(found.named) == ["clip_norm"]
        assert names(found.confounders) == ["epochs" if name == "epochs_done" else name]


@pytest.mark.parametrize(("name", "role"), [("gpu", "nuisances"), ("cpu", "nuisances"), ("commit", "unknown")])
def test_another_card_is_chance_and_another_commit_a_doubt(name: str, role: str) -> None:
    a, b = run("a", {}), run("b", {"clip_norm": 1.0}, **{name: "another"})
    found = comparability(a, b)
    assert found.fair and names(getattr(found, role)) == [name]


def test_the_sentence_is_that_of_the_log() -> None:
    a = run("a", {"epochs": 20, "schedule": "plateau", "loss": "bce"})
    b = run("b", {"epochs": 10, "schedule": "constant", "loss": "focal"}, epochs_done=10, steps=1000)
    found = comparability(a, b, ["loss"])
    assert found.claim("better") == "not comparable: also differ in epochs (20, 10), schedule (plateau, constant)"
    assert {each.name: each.cause for each in found.consequences}.items() >= {
        ("loss.gamma", "loss"),
        ("schedule.patience", "schedule"),
        ("epochs_done", "epochs"),
        ("steps", "epochs"),
    }


def test_the_same_setting_of_two_choices_is_held_against_them() -> None:
    """Label smoothing is no consequence of pos_weight: both losses have it."""
    a, b = run("a", {"loss": "bce"}), run("b", {"loss": "weighted_bce", "loss.smoothing": 0.1})
    found = comparability(a, b)
    assert names(found.named) == [] and names(found.confounders) == ["loss", "loss.smoothing"]
    assert names(comparability(a, b, ["loss"]).named) == ["loss", "loss.smoothing"], "all below what is named is"


def test_a_teacher_or_none_is_one_factor() -> None:
    a, b = run("a", {}), run("b", {"kd.alpha": 0.5, "kd.tau": 2.0, "kd.teacher": "0123"})
    for factors in (None, ["kd"], ["kd.alpha"]):
        found = comparability(a, b, factors)
        assert found.fair and "kd" in names(found.named)
    assert "kd.tau" in names(comparability(a, b, ["kd.alpha"]).consequences)
    both = run("c", {"kd.alpha": 0.7, "kd.tau": 4.0, "kd.teacher": "0123"})
    assert names(comparability(b, both, ["kd.alpha"]).confounders) == ["kd.tau"]


def test_early_stopping_by_one_rule_is_no_confounder_and_a_rung_is_one() -> None:
    a, early = run("a", {}), run("b", {"clip_norm": 1.0}, epochs_done=14, steps=1400)
    assert comparability(a, early).fair
    stopped = run("b", {"clip_norm": 1.0}, epochs_done=3, status="stopped")
    found = comparability(a, stopped, ["clip_norm"])
    assert [each.words() for each in found.confounders] == ["epochs (20, 3 of 20)", "status (finished, stopped)"]
    at_the_rung = run("a", {}, epochs_done=3, status="stopped")
    assert comparability(at_the_rung, stopped).fair, "those who reached a rung compare there"


def test_weights_of_another_backbone_follow_from_the_model_and_other_weights_of_one_do_not() -> None:
    weights = {"weights.path": "w", "weights.sha256": "0" * 64}
    other = weights | {"weights.sha256": "1" * 64}
    a = run("a", weights)
    assert comparability(a, run("b", other | {"model": "convnext_tiny_mhsa"})).fair
    same = comparability(a, run("b", other | {"model": "efficientnet_b0_performer"}), ["model"])
    assert names(same.confounders) == ["weights.sha256"]


def test_trials_that_one_study_chose_from_are_the_same() -> None:
    a, b = run("a", {}, chosen_from=8), run("b", {"clip_norm": 1.0}, chosen_from=1)
    assert comparability(a, b).fair
    other = run("c", {"clip_norm": 1.0}, chosen_from=1, study="t")
    assert [each.words() for each in comparability(a, other).confounders] == ["chosen_from (8, 1)"]


def test_two_factors_that_were_named_are_told_together() -> None:
    found = comparability(run("a", {}), run("b", {"clip_norm": 1.0, "ema": 0.9}), ["clip_norm", "ema", "seed"])
    assert found.claim("worse") == (
        "b beats a: clip_norm (none, 1), ema (0, 0.9); changed together, so that which of them did it cannot be told"
    )


def test_what_nobody_wrote_down_is_not_excluded() -> None:
    a = RunFacts("a", {"loss": "bce", "lr": 0.1}, complete=False)
    b = RunFacts("b", {"loss": "focal"}, complete=False)
    found = comparability(a, b)
    assert found.claim("better") == "a beats b: loss (bce, focal); not excluded: lr"
    assert found.as_json()["unknown"] == {"lr": [0.1, "unknown"]}


def test_a_seed_that_is_all_that_is_asked_about_is_named() -> None:
    a, b = run("a", {}), run("b", {"seed": 1})
    assert names(comparability(a, b, ["seed"]).named) == ["seed"]
    assert names(comparability(a, b, ["loss", "seed"]).nuisances) == ["seed"]
    assert comparability(a, b).claim("tied") == "a and b are tied: the same settings but for seed (42, 1)"


def test_the_missing_run_is_the_first_with_the_others_factor() -> None:
    command = ("run", "search_spaces/loss_ablation.py", "--set", "loss=bce", "--set", "epochs=20", "--name", "old")
    a = RunFacts("a", config({"loss": "bce"}), KNOWN, swept=("loss", "seed"), command=command)
    b = run("b", {"loss": "focal", "loss.gamma": 3.0, "epochs": 10}, epochs_done=10, steps=1000)
    found = missing(a, b, comparability(a, b, ["loss"]))
    assert found is not None and found.beside == ()
    assert found.command == (
        "python -m xlite_search run search_spaces/loss_ablation.py --set seed=42 --set epochs=20 --set loss=focal "
        "--set loss.gamma=3.0 --name s-loss-focal"
    )
    assert RunConfig().with_settings(found.settings).loss.name == "focal"


def test_without_a_recorded_command_the_study_is_named() -> None:
    a, b = run("a", {"loss": "bce"}), run("b", {"loss": "focal", "epochs": 10}, epochs_done=10, code="x 1")
    found = missing(a, b, comparability(a, b, ["loss"]))
    assert found is not None and " run SPACE --set epochs=20 --set loss=focal " in found.command
    assert found.beside[0] == "SPACE is the file of study 's'"
    assert found.beside[1].endswith("is no setting: train a again beside it")


def test_the_missing_run_holds_what_confounded_with_its_settings() -> None:
    a = run("a", {"schedule": "plateau", "schedule.patience": 3})
    b = run("b", {"schedule": "constant", "ema": 0.9})
    found = missing(a, b, comparability(a, b, ["ema"]))
    assert found is not None
    assert " run SPACE --set schedule=plateau --set schedule.patience=3 --set ema=0.9 --name s-ema-0-9" in found.command


def test_the_one_that_was_trained_to_the_end_gives_the_conditions() -> None:
    a, b = run("a", {"ema": 0.9}, status="stopped", epochs_done=3), run("b", {})
    found = missing(a, b, comparability(a, b, ["ema"]))
    assert found is not None and found.like == "b" and found.settings == {"ema": 0.9}


def test_nothing_is_missing_where_no_factor_is_named() -> None:
    a, b = run("a", {}), run("b", {"ema": 0.9, "mixup": 0.2})
    found = comparability(a, b)
    assert names(found.confounders) == ["mixup", "ema"] and missing(a, b, found) is None
    assert found.claim("better") == "not comparable: differ in mixup (0, 0.2), ema (0, 0.9)"


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(LOSSES, 2)))
def test_two_losses_with_their_defaults_differ_in_the_loss_alone(one: str, other: str) -> None:
    assert names(comparability(run("a", {"loss": one}), run("b", {"loss": other})).named) == ["loss"]
