"""The report of a study: one page that needs nothing else, says nothing that its JSON has not, and always appears."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished import finished_study
from test_cli import call

from xlite_search.config import RunConfig
from xlite_search.console import clock
from xlite_search.data.audit import audit_of
from xlite_search.data.dataset import open_data
from xlite_search.data.packed import PackedSet
from xlite_search.errors import BadInput
from xlite_search.records import ARTIFACTS, RunRecord
from xlite_search.results.compare import summary
from xlite_search.results.report.build import report
from xlite_search.results.report.figures import figures
from xlite_search.results.report.page import page
from xlite_search.search.suggest import distributions
from xlite_search.storage import write_atomic
from xlite_search.study_record import StudyRecord

GRID = [{"kd.tau": tau, "kd.alpha": alpha} for tau in (1.0, 4.0) for alpha in (0.5, 0.7)]
STRENGTHS = (2.5, 2.4, 1.5, 0.2)
#: numbers of our own words: confidence, few positives, and colours
OURS = {"95", "10", "4"}
VOID = {"meta", "br", "img", "link"}
TOKEN = re.compile(r"(?<![\w.])[-+]?(?:\d+:\d\d(?::\d\d)?|\d[\d,]*(?:\.\d+)?)")


class Page(HTMLParser):
    """What a browser makes of a page: its texts outside figures, its elements with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if not {"svg", "style"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from (name, *leaves(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def unknown_numbers(text: str, known: Any) -> set[str]:
    """The numbers of a text that are none of those in a JSON document, rounded, or as parts of its strings."""
    everything = list(leaves(known))
    numbers = [float(one) for one in everything if isinstance(one, int | float) and not isinstance(one, bool)]
    written = set(OURS) | {token for one in everything if isinstance(one, str) for token in TOKEN.findall(one)}
    written |= {clock(number) for number in numbers if number >= 0}
    left = set()
    for token in set(TOKEN.findall(text)) - written:
        value, digits = float(token.replace(",", "")), len(token.partition(".")[2])
        scales = (1.0, 100.0, 1e-6)
        if not any(math.isclose(round(n * scale, digits), value, abs_tol=1e-9) for n in numbers for scale in scales):
            left.add(token)
    return left


def with_teacher(tiny: RunConfig) -> RunConfig:
    return tiny.with_settings({"kd.teacher": "0123", "kd.alpha": 0.5})


def changed(study: StudyRecord, number: int, **values: Any) -> RunRecord:
    return replace(study.runs()[number], **values).save()


def audited(study: StudyRecord, config: RunConfig) -> None:
    """What a run writes down when it begins."""
    data = open_data(config.data)
    drawn = audit_of(config.sampler, data.train.labels, data.classes).as_dict() | {"loss": {"name": "bce"}}
    counts = zip(data.classes, data.train.labels.sum(axis=0), data.val.labels.sum(axis=0), strict=True)
    findings = {name: {"train": int(train), "val": int(val)} for name, train, val in counts}
    about = {"images": {"train": len(data.train), "val": len(data.val)}, "findings": findings}
    for run in study.runs():
        write_atomic(run.folder / ARTIFACTS / "balance.json", json.dumps(drawn).encode())
        write_atomic(run.folder / ARTIFACTS / "environment.json", json.dumps({"run": about, "starts": []}).encode())


@pytest.fixture
def grid(tiny: RunConfig) -> StudyRecord:
    """Four runs of tau x alpha; one was stopped."""
    study = finished_study("grid", with_teacher(tiny), GRID, STRENGTHS)
    audited(study, tiny)
    changed(study, 3, status="stopped", cause="stopped at rung 1: 0.5 is behind the cut of 0.6 among 4 trials")
    environment = {"python": "3.11.7", "torch": "2.14.1", "cpu": "some", "gpu": "none"}
    definition = study.definition | {"scheduler": {"grace": 1, "reduction": 2.0, "asynchronous": False}}
    return replace(study, environment=environment, commit="0123abc", definition=definition).save()


def shown(name: str, **options: Any) -> tuple[Page, dict[str, Any]]:
    """A study's page as a browser has it, and its JSON, once through text."""
    found = report(name, **options)
    return Page(page(found)), json.loads(json.dumps(found.as_json(), allow_nan=False))


def test_the_page_has_every_part_and_no_number_that_its_json_has_not(grid: StudyRecord) -> None:
    looked, about = shown("grid")
    heads = ["What was run", "Which may be the best", "Learning curves and factors", "By finding"]
    heads += ["What the sampler draws", "Confounders", "Time and energy", "Environment", "Methods"]
    for head in heads:
        assert head in looked.texts
    figure_ids = {one["id"] for tag, one in looked.elements if tag == "figure"}
    names = ("forest", "behind", "learning", "heatmap", "effects", "findings", "roc", "precision", "sampler-1")
    assert figure_ids == {f"figure-{name}" for name in names}
    assert looked.text.count(about["said"]["sentence"]) == 1
    assert unknown_numbers(looked.text, about) == set()
    assert "stopped at rung 1: 0.5 is behind the cut of 0.6 among 4 trials" in looked.text
    assert unknown_numbers("0.12345 and 4,711", about) == {"0.12345", "4,711"}, "the test itself can fail"


def test_the_page_refers_to_nothing_elsewhere_and_runs_nothing(grid: StudyRecord) -> None:
    text = page(report("grid"))
    looked = Page(text)
    assert not {tag for tag, _ in looked.elements} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in looked.elements:
        for name in ("src", "href", "xlink:href", "data", "srcset", "poster", "action"):
            where = attributes.get(name, "#")
            assert where.startswith(("#", "data:image/png;base64,")), f"<{tag} {name}={where[:60]}>"
        assert not [name for name in attributes if name.startswith("on")]
    assert re.findall(r"url\((?!#)[^)]*\)|@import", text) == []


def test_numbers_are_those_of_the_records(grid: StudyRecord) -> None:
    _, about = shown("grid")
    best = max(run.best_score("val/auroc_macro") for run in grid.runs()[:3])
    assert about["runs"][0]["score"] == best == pytest.approx(about["said"]["claims"][0]["score"], abs=2e-3)
    assert about["counts"] == {
        "runs": 4,
        "ranked": 3,
        "stopped": 1,
        "failed": 0,
        "without_score": 0,
        "unfinished": 0,
    }
    assert about["said"]["claims"][0]["may_be_best"]
    assert [row["positives"] for row in about["gaps"]["findings"]] == sorted(
        row["positives"] for row in about["gaps"]["findings"]
    )
    curves = {row["finding"]: row for row in about["curves"]}
    metrics = grid.run(about["runs"][0]["label"]).epochs[0]
    for name, row in curves.items():
        assert row["auroc"] == pytest.approx(metrics[f"val/auroc/{name}"], abs=2e-3), "kept as float16"
        assert row["ap"] == pytest.approx(metrics[f"val/ap/{name}"], abs=2e-2)
        assert row["auroc_low"] is None or row["auroc_low"] < row["auroc"] <= row["auroc_high"]
        assert (row["roc"]["x"][0], row["roc"]["y"][0]) == (0, 0) and (row["roc"]["x"][-1], row["roc"]["y"][-1]) == (
            1,
            1,
        )


def test_the_heat_map_is_of_all_runs_where_all_were_and_of_factors_that_are_asked_for(grid: StudyRecord) -> None:
    cells = shown("grid")[1]["matrix"]
    assert (cells["rows"], cells["columns"], cells["epoch"]) == ("kd.tau", "kd.alpha", 2)
    scores = [run.epochs[1]["val/auroc_macro"] for run in grid.runs()]
    assert [*cells["values"][0], *cells["values"][1]] == pytest.approx(scores)
    assert cells["counts"] == [[1, 1], [1, 1]]
    assert shown("grid", factors=("kd.alpha", "kd.tau"))[1]["matrix"]["rows"] == "kd.alpha"
    with pytest.raises(BadInput, match=r"--factors: 'kd.alhpa' is no factor of the study; did you mean 'kd.alpha'\?"):
        report("grid", factors=("kd.alhpa", "kd.tau"))
    with pytest.raises(BadInput, match="expected two factors"):
        report("grid", factors=("kd.tau",))


def test_the_best_is_compared_with_a_control_or_whom_one_names(tiny: RunConfig) -> None:
    points: list[dict[str, Any]] = [
        {"kd": None},
        {"kd": {"teacher": "0", "tau": 4.0}},
        {"kd": {"teacher": "0", "tau": 1.0}},
    ]
    study = finished_study("helps", tiny, points, (1.0, 3.0, 2.0))
    control, best, other = (run.label for run in study.runs())
    gaps = shown("helps")[1]["gaps"]
    assert (gaps["one"], gaps["other"], gaps["why"]) == (best, control, "the best run without a teacher")
    assert shown("helps", against=other)[1]["gaps"]["other"] == other
    with pytest.raises(BadInput, match="that is the best run itself"):
        report("helps", against=best)
    with pytest.raises(BadInput, match="has no run 'nobody'"):
        report("helps", against="nobody")


def test_what_a_study_is_called_and_says_is_text_and_no_markup(tiny: RunConfig) -> None:
    odd = "<b>\"A & B\"</b> <script>alert(1)</script> 'x' {{ 7 * 7 }} $y$ <!-- "
    study = finished_study("odd", with_teacher(tiny), GRID, STRENGTHS)
    study = replace(study, question=f"{odd}\n\n    code {odd}\n\nand {odd}", environment={odd: odd}, commit=odd).save()
    for number in (0, 1):
        changed(study, number, label=f"{odd} {number}")
    changed(study, 2, label=odd, status="failed", cause=odd)
    found = report("odd")
    looked = Page(page(found))
    assert not {tag for tag, _ in looked.elements} & {"b", "script"}
    said = " ".join(odd.split())
    assert looked.text.count(said) >= 9
    assert [text for text in looked.texts if text.strip() == odd.strip()]
    assert f"{said} 0" in looked.text


def a_single_run(study: StudyRecord, _: RunConfig) -> str:
    replace(study, trials=study.trials[:1]).save()
    return "patients, tau=1 alpha=0.5 has val/auroc_macro"


def no_ranked_run(study: StudyRecord, _: RunConfig) -> str:
    for number in range(4):
        changed(study, number, status="stopped", cause="stopped at rung 1")
    return "No run was trained to its end"


def failures_alone(study: StudyRecord, _: RunConfig) -> str:
    nothing: dict[str, Any] = dict.fromkeys(("epochs", "bests", "predictions"), ())
    for number in range(4):
        changed(study, number, status="failed", cause="RunFailed: loss is nan", last=None, **nothing)
    return "RunFailed: loss is nan"


def nothing_begun(study: StudyRecord, _: RunConfig) -> str:
    nothing: dict[str, Any] = dict.fromkeys(("epochs", "bests", "predictions"), ())
    for number in range(4):
        changed(study, number, status="waiting", cause="", last=None, **nothing)
    return "not begun"


def no_predictions(study: StudyRecord, _: RunConfig) -> str:
    for run in study.runs():
        (run.folder / run.predictions[0].name).unlink()
    return "without intervals none may be called better"


def no_data(study: StudyRecord, config: RunConfig) -> str:
    (PackedSet.open(config.data.name).folder / "manifest.json").unlink()
    return "without intervals none may be called better"


def another_metric(study: StudyRecord, _: RunConfig) -> str:
    replace(study, metric="val/ap_macro").save()
    return "(val/ap_macro 0."


def two_objectives(study: StudyRecord, _: RunConfig) -> str:
    for number, parameters in enumerate((3e6, 2e6, 1e6, 4e6)):
        changed(study, number, facts={"model/parameters": parameters, "model/latency_ms": 10.0 + number})
    replace(study, minimize=("model/parameters", "model/latency_ms")).save()
    return "no run is better in one of score, parameters, latency, and as good in the others"


def equal_runs(study: StudyRecord, _: RunConfig) -> str:
    one = study.runs()[0]
    for number, run in enumerate(study.runs()):
        write_atomic(run.folder / one.predictions[0].name, (one.folder / one.predictions[0].name).read_bytes())
        write_atomic(
            run.folder / str(one.last and one.last.name), (one.folder / str(one.last and one.last.name)).read_bytes()
        )
        changed(study, number, epochs=one.epochs, predictions=one.predictions, last=one.last)
    return "none of the 4 runs can be told from the best"


def no_names(study: StudyRecord, _: RunConfig) -> str:
    replace(study, question="", trainable="", environment={}, definition={"data": "d", "split": "s"}).save()
    return "The study has not written down where it began"


CASES = [
    a_single_run,
    no_ranked_run,
    failures_alone,
    nothing_begun,
    no_predictions,
    no_data,
    another_metric,
    two_objectives,
    equal_runs,
    no_names,
]


@pytest.mark.parametrize("case", CASES)
def test_every_study_has_a_page(case: Any, tiny: RunConfig) -> None:
    study = finished_study("study", with_teacher(tiny), GRID, STRENGTHS)
    audited(study, tiny)
    says = case(study, tiny)
    looked, about = shown("study")
    assert says in looked.text
    assert unknown_numbers(looked.text, about) == set()


def test_sixty_runs_have_a_page_and_the_first_of_them_figures(tiny: RunConfig) -> None:
    points = [{"optimizer.lr": rate / 1e4} for rate in range(1, 61)]
    finished_study("many", tiny, points, [0.5 + place / 30 for place in range(60)])
    looked, about = shown("many")
    assert about["counts"]["ranked"] == 60 == len(about["said"]["claims"])
    assert len(about["against_best"]) == 30 and "(the first 30 runs)" in looked.text
    assert "The first 20 of 60." in looked.text
    assert unknown_numbers(looked.text, about) == set()
    assert about["effects"] is None, "sixty values of one factor are no levels"
    assert about["matrix"] is None and "No heat map: the study has no two factors with a few values each" in looked.text


def test_settings_with_several_seeds_are_what_is_compared(tiny: RunConfig) -> None:
    points = [{"optimizer.lr": rate, "seed": seed} for rate in (1e-3, 3e-3) for seed in (0, 1, 2)]
    finished_study("seeds", tiny, points, (2.0, 2.1, 2.2, 1.0, 1.1, 1.2))
    looked, about = shown("seeds")
    assert about["said"]["about"] == "recipe" and "Over the seeds" in looked.texts
    assert [one["seeds"] for one in about["said"]["claims"]] == [[0, 1, 2]] * 2
    assert "lr=0.001" in about["said"]["sentence"] and "Bouthillier" in " ".join(about["references"])
    assert about["gaps"]["other"].startswith("lr=0.003") and about["against_best"] == []
    assert unknown_numbers(looked.text, about) == set()


def test_a_run_with_a_confounder_has_no_part_in_the_claim(grid: StudyRecord) -> None:
    changed(grid, 1, micro_batch=4)
    looked, about = shown("grid")
    assert [one["label"] for one in about["said"]["claims"]] == ["tau=1 alpha=0.5", "tau=4 alpha=0.5"]
    assert "no claim about tau=1 alpha=0.7 against tau=1 alpha=0.5: not comparable" in " ".join(about["confounders"])
    assert looked.texts.count("no claim") == 1
    assert "beats" not in next(one for one in about["against_best"] if one["run"] == "tau=1 alpha=0.7")["sentence"]
    assert unknown_numbers(looked.text, about) == set()


def test_the_verb_writes_a_page_or_prints_its_numbers(
    grid: StudyRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = tmp_path / "page.html"
    before.write_text("old")
    code, out, _ = call(capsys, "report", "grid", "-o", "page.html")
    assert code == 0 and out.startswith("page.html: ") and report("grid").said.sentence in out
    assert before.read_text(encoding="utf-8") == page(report("grid"))
    assert [path.name for path in tmp_path.glob("*.html*")] == ["page.html"], "and nothing is left beside it"
    code, out, _ = call(capsys, "report", "grid", "--json")
    assert json.loads(out) == json.loads(json.dumps(report("grid").as_json()))
    assert [path.name for path in tmp_path.glob("*.html*")] == ["page.html"], "--json alone writes no page"
    assert call(capsys, "report", "grid")[0] == 0 and (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gird"], "no study 'gird'"),
        (["grid", "-o", "nowhere/report.html"], "-o nowhere/report.html: there is no folder"),
        (["grid", "-o", "."], "-o .: this is a folder; name a file"),
        (["grid", "--factors", "kd.tau"], "--factors kd.tau: expected two factors"),
        (["grid", "--against", "tau=9"], "study 'grid' has no run 'tau=9'"),
        (["grid", "--margin", "nan"], "--margin nan: expected a gap in AUROC"),
        (["grid", "--margin", "-1"], "--margin -1: expected a gap in AUROC"),
    ],
)
def test_bad_input_is_a_sentence(
    arguments: list[str],
    says: str,
    grid: StudyRecord,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "report", *arguments)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("error: ") and says in err
    assert list(tmp_path.glob("*.html")) == []


def test_the_figures_are_artifacts_of_the_study(grid: StudyRecord) -> None:
    files = summary("grid")
    drawn = figures(report("grid"))
    assert {f"figures/{name}.svg": one.svg for name, one in drawn.items()} == {
        name: content for name, content in files.items() if name.startswith("figures/")
    }
    assert len(drawn) == 9 and all(one.svg.startswith(b"<?xml") for one in drawn.values())


def test_a_study_ends_well_if_its_figures_cannot_be_drawn(
    grid: StudyRecord, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("size")

    monkeypatch.setattr("xlite_search.results.report.build.report_of", broken)
    assert set(summary("grid")) == {"comparison.json", "comparison.md"}
    assert "the figures of the study were not drawn: KeyError: 'size'" in capsys.readouterr().err


def of_a_trial(trial: Any) -> None:
    trial.suggest_float("optimizer.lr", 1e-4, 1e-2, log=True)
    trial.suggest_float("mixup", 0.0, 0.4)
    if trial.suggest_categorical("loss", ["bce", "focal"]) == "focal":
        trial.suggest_float("loss.gamma", 0.5, 3.0)


def test_a_search_has_the_importances_of_what_it_suggested(tiny: RunConfig) -> None:
    random = np.random.default_rng(0)
    points: list[dict[str, Any]] = [
        {"optimizer.lr": float(10 ** random.uniform(-4, -2)), "mixup": float(random.uniform(0, 0.4)), "loss": "bce"}
        for _ in range(40)
    ]
    points[3] |= {"loss": "focal", "loss.gamma": 1.5}
    study = finished_study("search", tiny, points, [3 - abs(math.log10(one["optimizer.lr"]) + 3) for one in points])
    replace(study, distributions=distributions(of_a_trial)).save()
    looked, about = shown("search")
    found = about["importances"]
    assert found["left_out"] == ["loss.gamma"] and (found["runs"], found["best"]) == (40, 4)
    assert max(found["shares"], key=found["shares"].__getitem__) == "optimizer.lr" and about["effects"] is None
    assert "figure-importances" in {one["id"] for tag, one in looked.elements if tag == "figure"}
    assert looked.text.count("not which of its values is better") == 2, "below the figure, and in the methods"
    assert any("Watanabe" in one for one in about["references"])
    assert unknown_numbers(looked.text, about) == set()


def test_a_search_of_few_runs_says_why_it_has_none(tiny: RunConfig) -> None:
    points = [{"optimizer.lr": rate / 1e4, "mixup": 0.1, "loss": "bce"} for rate in range(1, 6)]
    study = finished_study("few", tiny, points, [1.0] * 5)
    replace(study, distributions=distributions(of_a_trial)).save()
    looked, about = shown("few")
    assert about["importances"] is None and not any("Watanabe" in one for one in about["references"])
    assert "No importances of what was suggested: they take 20 runs" in looked.text
    assert unknown_numbers(looked.text, about) == set()
