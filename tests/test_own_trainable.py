"""A trainable with settings of its own: the page's very code, and one dotted name wherever a setting is named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from pydantic import Field

from trainables.baseline import baseline
from xlite_search import places
from xlite_search.cli.options import settings_of
from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.distill.teacher import load_teacher
from xlite_search.errors import BadInput
from xlite_search.execution import drive
from xlite_search.model_folder import publish
from xlite_search.models.hybrid import build_model
from xlite_search.records import RunRecord
from xlite_search.results.best import config_in, read_best, write_best
from xlite_search.results.final import final_config
from xlite_search.results.tables import factors
from xlite_search.search.plan import Plan, make_plan
from xlite_search.search.runner import begin
from xlite_search.search.study import Study, grid_search
from xlite_search.search.study_file import load_study
from xlite_search.search.verify import verify
from xlite_search.spec import Spec, setting_names, takes_list
from xlite_search.study_record import StudyRecord
from xlite_search.tracking.entities import unusual
from xlite_search.trainable import config_class, config_name, config_named, config_of, reference, trainable_at

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "own_trainable.md"
CPU = torch.device("cpu")


def code_of_page() -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return str(code)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The page's code where it says that it belongs, in a project of its own."""
    path = tmp_path / "project" / "search_spaces" / "with_projection.py"
    path.parent.mkdir(parents=True)
    path.write_text(code_of_page(), encoding="utf-8")
    return path


def small(tiny: RunConfig, epochs: int = 1) -> dict[str, Any]:
    """Settings that make the page's study one of seconds."""
    settings = {"model": tiny.model, "epochs": epochs, "batch_size": 16, "optimizer.lr": 3e-3, "early_stopping": None}
    return settings | {"data.name": tiny.data.name, "schedule": "cosine"}


@pytest.fixture
def plan(page: Path, tiny: RunConfig) -> Plan:
    study = load_study(str(page)).with_settings(small(tiny) | {"aux.weight": [0.0, 1.0]})
    return make_plan(study, "own")


def trained(plan: Plan) -> StudyRecord:
    """The study's trials, one after the other in this process, as a worker trains them."""
    study = begin(plan)
    for record in study.runs():
        trainable = trainable_at(study.trainable)
        config = config_class(trainable).model_validate(record.config)
        *_, after = drive(record, trainable, config)
        assert after.status == "finished", after.cause
    return study


def test_the_pages_trainable_is_as_short_as_it_says() -> None:
    lines = code_of_page().splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("def with_projection"))
    last = next(n for n, line in enumerate(lines) if line.startswith("study = "))
    assert len([line for line in lines[first:last] if line.strip()]) <= 25


def test_the_pages_code_trains_and_delivers_the_model_without_its_head(plan: Plan, tiny: RunConfig) -> None:
    study, data = trained(plan), open_data(tiny.data)
    for record in study.runs():
        state = safetensors.torch.load(record.weights())
        assert state.keys() == build_model(tiny.model, classes=len(data.classes)).state_dict().keys()
        kept = torch.load(record.folder / record.checkpoints[0].name, weights_only=True) if record.checkpoints else None
        assert kept is None or "projection.weight" in kept["model"]
    without, with_it = study.runs()
    assert with_it.epochs[0]["train/loss"] > without.epochs[0]["train/loss"]
    publish(places.teacher_folder("delivered"), with_it, tiny.loss, data, {})
    images = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    assert load_teacher("delivered", data.classes, CPU)(images).shape == (2, len(data.classes))


def test_the_heads_loss_reaches_the_features(plan: Plan) -> None:
    """A weight of 0 leaves the findings' loss as it is; another one changes what the hybrid becomes."""
    without, with_it = (safetensors.torch.load(run.weights()) for run in trained(plan).runs())
    assert any(not torch.equal(without[name], with_it[name]) for name in without if name.startswith("backbone."))


def test_it_goes_on_with_both_heads(page: Path, tiny: RunConfig, tmp_path: Path) -> None:
    study = load_study(str(page)).with_settings(small(tiny, 2) | {"aux.weight": 1.0})
    whole = [(r.metrics["train/loss"], r.weights_bytes()) for r in study.trainable(study.base, None)]
    first = next(iter(study.trainable(study.base, None)))
    (tmp_path / "one.pt").write_bytes(first.checkpoint_bytes())
    assert [(r.metrics["train/loss"], r.weights_bytes()) for r in study.trainable(study.base, tmp_path / "one.pt")] == (
        whole[1:]
    )


def test_an_own_setting_is_one_name_in_space_label_key_table_and_parameters(plan: Plan) -> None:
    assert [trial.label for trial in plan.trials] == ["weight=0", "weight=1"]
    assert [trial.settings for trial in plan.trials] == [{"aux.weight": 0.0}, {"aux.weight": 1.0}]
    assert plan.factors() == {"aux.weight": [0.0, 1.0]}
    assert len({trial.key for trial in plan.trials}) == 2
    study = begin(plan)
    runs = study.runs()
    (column,) = factors(runs, [run.label for run in runs])
    assert (column.head, column.cells) == ("weight", ["0", "1"])
    for run, weight in zip(runs, (0.0, 1.0), strict=True):
        own = config_named(run.config_class)
        assert dict(unusual(run.config, own))["aux.weight"] == weight
        assert config_of(run).identity()["aux"] == {"weight": weight}
    usual = {**runs[0].config, "aux": {"weight": 0.1}}
    assert "aux.weight" not in dict(unusual(usual, own))
    assert verify(study) == []


def test_what_is_set_is_read_by_the_own_types(page: Path, tiny: RunConfig) -> None:
    study = load_study(str(page))
    with pytest.raises(BadInput, match=r"unknown setting 'aux\.wieght'; did you mean 'aux\.weight'\?"):
        study.with_settings({"aux.wieght": 1})
    with pytest.raises(BadInput, match=r"aux\.weight = -1: input should be greater than or equal to 0"):
        study.with_settings({"aux.weight": -1})
    assert study.with_settings({"aux.weight": 0.5}).base.model_dump()["aux"] == {"weight": 0.5}
    assert len(study.with_settings({"aux.weight": [1, 2, 3, 4]}).configs()) == 4
    assert study.as_demo().base.data.name == "phantom-demo"
    named = Study("?", asks_for_words, Words(), {"seed": 1})
    given = ["words.says=12", "words.several=[1, 2]"]
    changed = named.with_settings(settings_of(given, type(named.base)))
    assert isinstance(changed.base, Words)
    assert (changed.base.words.says, changed.base.words.several) == ("12", (1, 2))


def test_a_space_may_suggest_an_own_setting(page: Path) -> None:
    study = load_study(str(page))

    def space(trial: Any) -> None:
        trial.suggest_float("aux.weight", 0.01, 10, log=True)

    assert replace(study, space=space, samples=4).ranges == {"aux.weight": "0.01 .. 10, log"}


def test_the_best_config_comes_back_with_the_own_settings(plan: Plan, tmp_path: Path) -> None:
    study = trained(plan)
    path = tmp_path / "best.yaml"
    document = write_best("own", path)
    read = read_best(path)
    assert read["config"]["aux"] == document["config"]["aux"]
    own = config_in(read)
    config = final_config(read, "train", {"aux.weight": 0.25}, "best.yaml", own)
    assert type(config).__name__ == "ProjectionConfig" and config.model_dump()["aux"] == {"weight": 0.25}
    with pytest.raises(BadInput, match=r"unknown setting 'aux\.wait'; did you mean 'aux\.weight'\?"):
        final_config(read, "train", {"aux.wait": 1}, "best.yaml", own)
    path.write_text(path.read_text().replace("  aux:\n    weight:", "  aux:\n    height:"))
    with pytest.raises(BadInput, match=r"unknown setting 'config\.aux\.height'; did you mean 'config\.aux\.weight'\?"):
        read_best(path)
    assert verify(study) == []


class Vocabulary(Spec):
    says: str = "nothing"
    several: tuple[int, ...] = ()


class Words(RunConfig):
    words: Vocabulary = Vocabulary()


class Torn(RunConfig):
    """Its set has no order, and comes back from JSON as a list that is refused."""

    anything: object = Field(default_factory=object)


class Teaches(RunConfig):
    teacher: float = 1.0


def asks_for_words(config: Words, resume: Path | None = None) -> Any:
    yield from ()


def asks_for_torn(config: Torn, resume: Path | None = None) -> Any:
    yield from ()


def asks_for_teaches(config: Teaches, resume: Path | None = None) -> Any:
    yield from ()


def says_nothing(config, resume=None):  # type: ignore[no-untyped-def]
    yield from ()


def test_the_class_is_what_the_trainable_is_annotated_with() -> None:
    assert (config_class(baseline), config_class(asks_for_words)) == (RunConfig, Words)
    assert config_class(says_nothing) is RunConfig
    assert (config_name(RunConfig), config_named("")) == ("", RunConfig)
    assert config_named(config_name(Words)) is Words
    assert config_name(Words) == f"{__name__}:Words" == reference(Words)
    with pytest.raises(BadInput, match=r"config class 'nowhere:Own' is not there"):
        config_named("nowhere:Own")
    with pytest.raises(BadInput, match=r"config class '.*:asks_for_words' is not there"):
        config_named(reference(asks_for_words))


@pytest.mark.parametrize(
    ("trainable", "base", "sentence"),
    [
        (
            asks_for_words,
            RunConfig(),
            r"base: it is a RunConfig, and asks_for_words asks for a Words; write base=Wo",
        ),
        (
            baseline,
            Words(),
            r"base: it is a Words, and baseline asks for a RunConfig; .* def baseline\(config: Words",
        ),
        (says_nothing, Words(), r"base: it is a Words, and says_nothing asks for a RunConfig"),
        (asks_for_torn, Torn(), r"base: Torn is another one once it was JSON"),
        (asks_for_teaches, Teaches(), r"base: Teaches has a setting 'teacher', which --set takes for the study's"),
    ],
)
def test_a_base_that_a_worker_could_not_make_again_is_refused(trainable: Any, base: RunConfig, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        Study("?", trainable, base, {"seed": grid_search([1, 2])})


def test_a_teacher_with_own_settings_is_refused() -> None:
    with pytest.raises(BadInput, match=r"teacher: it is a Words, and a teacher is trained by trainables\.baseline"):
        Study("?", asks_for_words, Words(), {"kd.alpha": 0.5}, teacher=Words())


def test_only_a_setting_that_is_nothing_but_a_list_takes_one_as_its_value() -> None:
    lists = {name for name in setting_names(RunConfig) if takes_list(RunConfig, name)}
    assert {"data.split.ratios", "schedule.factors"} <= lists
    assert not lists & {"loss.alpha", "kd.tau", "model", "weights", "loss"}
    assert takes_list(Words, "words.several") and not takes_list(Words, "words.says")


def ran(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "xlite_search", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_run_to_train_with_an_own_setting(page: Path, tiny: RunConfig, tmp_path: Path) -> None:
    """Through Ray's workers, MLflow and the final training, as a person would."""
    sets = {**small(tiny), "schedule": "cosine", "early_stopping": "null", "aux.weight": "[0, 1]"}
    given = [part for name, value in sets.items() for part in ("--set", f"{name}={value}")]
    ran("run", str(page), *given, "--name", "own", "--cpu", cwd=ROOT)
    assert "nothing is lost" in ran("verify", "own", cwd=ROOT)
    compared = json.loads(ran("compare", "own", "--json", cwd=ROOT))
    assert sorted(run["settings"]["aux.weight"] for run in compared["trials"]) == [0, 1]
    best = tmp_path / "best.yaml"
    ran("best", "own", "-o", str(best), cwd=ROOT)
    out = ran("train", str(best), "--split", "train", "--cpu", cwd=ROOT)
    folder = Path(out.partition("model: ")[2].splitlines()[0])
    record = RunRecord.load(folder)
    assert config_of(record).model_dump()["aux"] == read_best(best)["config"]["aux"]
    state = safetensors.torch.load((folder / "model.safetensors").read_bytes())
    build_model(tiny.model, classes=14).load_state_dict(state)
    score, was = re.findall(r": ([0-9.]+) at epoch 1", out)
    assert score == was, "the same run again, to the last digit"
