"""A delivered model judged once: the look before the figures, figures of what is kept, criteria, strangers alone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from test_cli import call
from test_scored import untrained

from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.data.packed import PackedSet
from xlite_search.data.prepare import prepare
from xlite_search.data.sources.phantom import Phantom
from xlite_search.errors import BadInput
from xlite_search.evaluation import evaluate as module
from xlite_search.evaluation.evaluate import evaluate
from xlite_search.evaluation.looks import ledger_path, looks_of
from xlite_search.evaluation.named import find_model
from xlite_search.evaluation.scored import data_of, scored
from xlite_search.evaluation.success import success
from xlite_search.model_folder import read_model, trained_on
from xlite_search.results.columns import show

CPU = torch.device("cpu")


@pytest.fixture
def half(tiny: RunConfig) -> RunConfig:
    """Half of the images to judge by."""
    return tiny.with_settings({"data.split.ratios": [0.3, 0.2, 0.5]})


def of_test(config: RunConfig) -> dict[str, str]:
    data = open_data(config.data)
    return {"data": data.packed.fingerprint, "split": data.split.fingerprint, "part": "test"}


def test_figures_are_scikit_learns(half: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    folder = untrained(half, "m", parameters=1000)
    found = evaluate(folder, "test", CPU, baseline="resnet10t_none")
    kept = scored(folder, data_of(read_model(folder)), "test", CPU)
    areas = []
    for row in found.findings:
        place = kept.classes.index(row.finding)
        truth, logits = kept.truth[:, place], kept.logits[:, place]
        assert row.positives == truth.sum()
        assert row.auroc.value == pytest.approx(roc_auc_score(truth, logits))
        assert row.ap.value == pytest.approx(average_precision_score(truth, logits))
        areas.append(row.auroc.value)
    assert found.auroc.value == pytest.approx(np.mean(areas))
    assert found.figures["brier"].value == pytest.approx(((1 / (1 + np.exp(-kept.logits)) - kept.truth) ** 2).mean())
    assert [row.positives for row in found.findings] == sorted(row.positives for row in found.findings)
    assert {each.criterion.split()[0]: each.verdict for each in found.success} == {
        "AUROC": "not met",
        "under": "met",
    }, "it knows nothing, and is small and fast"
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert [row["auroc"]["value"] for row in told["findings"]] == [row.auroc.value for row in found.findings]
    assert told["look"]["number"] == 1 and told["macro"]["auroc"]["value"] == found.auroc.value
    show(found.tables(), width=80)
    out = capsys.readouterr().out
    assert "1st model judged on these images" in out and "not calibrated" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_same_model_is_looked_at_once_and_another_needs_a_reason(half: RunConfig) -> None:
    one, other = untrained(half, "one"), untrained(half, "other", seed=1)
    first = evaluate(one, "test", CPU)
    assert evaluate(one, "test", CPU).look == first.look and len(looks_of(of_test(half))) == 1
    with pytest.raises(BadInput, match="one model was judged on these images already, one"):
        evaluate(other, "test", CPU)
    again = evaluate(other, "test", CPU, reason="another seed")
    assert again.look is not None and again.look.number == 2
    assert "corrected for 2 models" in again.success[0].found
    (said,) = (each for each in evaluate(one, "test", CPU).tables() if "1st model" in str(each))
    assert said == "1st model judged on these images, of 2 by now"
    assert evaluate(other, "val", CPU).look is None and len(looks_of(of_test(half))) == 2


def test_no_new_look_is_said(half: RunConfig) -> None:
    folder = untrained(half, "m")
    assert not any("no new look" in each for each in evaluate(folder, "test", CPU).notes)
    again = evaluate(folder, "test", CPU)
    assert again.notes[-1] == "no new look: the logits that were kept at its first are read"
    assert "--reason is not needed" in evaluate(folder, "test", CPU, reason="why").notes[-1]


def test_as_is_is_for_a_model_that_is_not_calibrated(half: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    untrained(half, "m")
    assert call(capsys, "calibrate", "m")[0] == 0
    code, _, err = call(capsys, "evaluate", "m", "--as-is")
    assert (code, err.count("\n")) == (2, 1) and "leave --as-is out" in err and not looks_of(of_test(half))


def test_a_baseline_that_is_not_there_is_told_before_the_look(half: RunConfig) -> None:
    folder = untrained(half, "m", parameters=1000)
    with pytest.raises(BadInput, match="--baseline resnet10t_non: it is no model folder, and as a hybrid: "):
        evaluate(folder, "test", CPU, baseline="resnet10t_non")
    assert not looks_of(of_test(half))
    assert "100.0% of m's" in evaluate(folder, "test", CPU, baseline="m").success[2].found


def test_no_figure_without_its_look(half: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails after the ledger's line, the look is counted; whatever fails before it, nothing is computed."""
    folder = untrained(half, "m")

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "look", dies)
        with pytest.raises(KeyboardInterrupt):
            evaluate(folder, "test", CPU)
    assert not (folder / "scores").exists() and not looks_of(of_test(half))
    with monkeypatch.context() as patch:
        patch.setattr(module, "scored", dies)
        with pytest.raises(KeyboardInterrupt):
            evaluate(folder, "test", CPU)
    assert len(looks_of(of_test(half))) == 1
    assert evaluate(folder, "test", CPU).look == looks_of(of_test(half))[0]


def test_whichever_write_it_dies_at_no_figure_is_without_its_look(
    half: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each fsync of a file or folder is in turn where the process ends; the same command goes on with the same look."""
    folder = untrained(half, "m")
    figures = folder / "artifacts" / "evaluation" / "test.json"
    really, seen = os.fsync, [0]
    for fatal in range(1, 40):
        for path in (folder / "scores", figures.parent, ledger_path().parent):
            shutil.rmtree(path, ignore_errors=True)
        seen[0] = 0

        def synced(file: int, fatal: int = fatal) -> None:
            seen[0] += 1
            if seen[0] == fatal:
                raise KeyboardInterrupt
            really(file)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", synced)
            patch.setattr("xlite_search.cli.judge.track", lambda *_: None)
            with contextlib.suppress(KeyboardInterrupt):
                call(capsys, "evaluate", "m", "--as-is")
        assert not figures.exists() or len(looks_of(of_test(half))) == 1
        if seen[0] < fatal:
            break
        evaluate(folder, "test", CPU)
        assert len(looks_of(of_test(half))) == 1
    assert 4 < fatal < 39, "every write of a whole evaluation was tried"


def test_who_was_trained_on_is_no_stranger(half: RunConfig) -> None:
    data = open_data(half.data)
    judged = sorted({data.packed.table.groups[row] for row in data.split.rows["test"]})
    folder = untrained(half, "m", trained_on=trained_on(data, judged[:2]))
    with pytest.raises(BadInput, match=r"trained on 2 of these patients"):
        evaluate(folder, "test", CPU)
    assert not looks_of(of_test(half))
    with pytest.raises(BadInput, match="say --on test, or --on val"):
        evaluate(folder, half.data.name, CPU)


def test_where_nothing_can_be_judged_no_look_is_taken(half: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = untrained(half, "m")
    monkeypatch.setattr("xlite_search.data.dataset.Part.labels", property(lambda part: np.zeros((len(part), 14))))
    with pytest.raises(BadInput, match="there is nothing to judge"):
        evaluate(folder, "test", CPU)
    assert not looks_of(of_test(half))


def test_a_data_set_from_elsewhere_is_judged_whole(half: RunConfig, phantom: PackedSet) -> None:
    """Findings are matched by name; what it says nothing of is named, and a look at it counts too. One that has images
    of the model's training, under whatever name, is refused."""
    shutil.copytree(phantom.folder, phantom.folder.parent / "again")
    prepare("elsewhere", Phantom(images=len(phantom), size=64, seed=9), phantom.size)
    folder = untrained(half, "m")
    with pytest.raises(BadInput, match=r"of its images are, pixel for pixel, ones that the model was trained on"):
        evaluate(folder, "again", CPU)
    found = evaluate(folder, "elsewhere", CPU)
    assert found.images == len(phantom) and found.look is not None and found.look.of["part"] == "all"
    about = read_model(folder)
    renamed = ("Fracture", *about.classes[1:])
    strange = untrained(half, "strange", classes=renamed)
    other = evaluate(strange, "elsewhere", CPU, reason="another model")
    assert other.unjudged == ("Fracture",) and about.classes[0] not in {row.finding for row in other.findings}


def test_the_verb_tells_and_keeps_every_figure(half: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    folder = untrained(half, "m")
    assert call(capsys, "calibrate", "m")[0] == 0
    code, out, err = call(capsys, "evaluate", "m", "--on", "test")
    assert code == 0, err
    assert "sens." in out and "1st model judged" in out and "not calibrated" not in out
    assert out.splitlines()[-1] == "next: python -m xlite_search explain m"
    kept = json.loads((folder / "artifacts" / "evaluation" / "test.json").read_text())
    code, out, _ = call(capsys, "evaluate", "m", "--json")
    told = json.loads(out)
    assert code == 0 and told["look"] == kept["look"] and told["findings"] == kept["findings"]
    assert kept["look"]["judged"]["calibration"] and kept["delivered"]["thresholds"]
    untrained(half, "n", seed=1)
    for arguments, said in (
        (("evaluate", "n"), "'n' is not calibrated, and a look is taken once"),
        (("evaluate", "n", "--as-is"), "one model was judged on these images already, m"),
        (("evaluate", "o"), "no model 'o'"),
        (("evaluate", "n", "--on", "tset"), "expected test, val or a prepared data set; did you mean 'test'?"),
    ):
        code, _, err = call(capsys, *arguments)
        assert (code, err.count("\n")) == (2, 1) and said in err, err


def test_verify_holds_figures_against_looks(half: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    folder = untrained(half, "m")
    for verb in ("calibrate", "evaluate"):
        assert call(capsys, verb, "m")[0] == 0
    assert call(capsys, "verify", "m")[:2] == (0, "m: its files and the ledger of looks agree\n")
    figures = folder / "artifacts" / "evaluation" / "test.json"
    whole = figures.read_text()
    figures.write_text(whole.replace('"number": 1', '"number": 2'))
    code, out, _ = call(capsys, "verify", "m")
    assert code == 3 and "is damaged" in out, "an edited figure"
    figures.write_text(whole)
    ledger = ledger_path()
    ledger.rename(ledger.with_suffix(".away"))
    code, out, _ = call(capsys, "verify", "m")
    assert code == 3 and "a look that is not in the ledger" in out
    ledger.with_suffix(".away").rename(ledger)
    ledger.write_bytes(ledger.read_bytes().replace(b'"model": "m"', b'"model": "n"'))
    code, out, _ = call(capsys, "verify", "m")
    assert code == 3 and "line 1 is damaged" in out
    untrained(half, "m", seed=3)  # other weights under the calibration of the former ones
    code, out, _ = call(capsys, "verify", "m", "--json")
    assert code == 3 and len(json.loads(out)["broken"]) >= 2


def test_maps_of_the_test_part_are_a_look(half: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    untrained(half, "m")
    arguments = ("explain", "m", "--part", "test", "--images", "1", "--as-is", "--findings", "Effusion")
    code, _, err = call(capsys, *[each for each in arguments if each != "--as-is"])
    assert code == 2 and "not calibrated, and a look is taken once" in err and not looks_of(of_test(half))
    code, _, err = call(capsys, *arguments)
    assert code == 0 and "1st model judged on these images" in err, err
    assert (
        len(looks_of(of_test(half))) == 1 and evaluate(find_model("m"), "test", CPU).look == looks_of(of_test(half))[0]
    )
    untrained(half, "n", seed=1)
    code, _, err = call(capsys, "explain", "n", *arguments[2:])
    assert code == 2 and "--reason TEXT" in err


def test_criteria_say_what_they_do_not_know(half: RunConfig) -> None:
    folder = untrained(half, "m")
    found = evaluate(folder, "test", CPU)
    assert [each.verdict for each in found.success] == ["not met", "met", "unknown"]
    assert "--baseline MODEL" in found.success[2].found


@pytest.mark.parametrize(("area", "verdict"), [(0.95, "met"), (0.6, "not met"), (0.80, "cannot tell")])
def test_an_auroc_is_above_the_criterion_beyond_chance(half: RunConfig, area: float, verdict: str) -> None:
    from scipy.stats import norm

    from xlite_search.results.influence import influence

    random = np.random.default_rng(0)
    truth = random.random((600, 1)) < 0.3
    scores = random.normal(size=truth.shape) + np.sqrt(2) * norm.ppf(area) * truth
    about: Any = read_model(untrained(half, "m"))
    found = list(success(about, influence(scores, truth, np.arange(600)), 1, ("", 0)))
    assert found[0].verdict == verdict


def test_prevalence_that_moved_is_told(half: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from xlite_search.results.intervals import Interval

    folder = untrained(half, "m")
    fitted = {"Effusion": Interval(0.9, 0.88, 0.92, 0.01)}
    monkeypatch.setattr(module, "_fitted_prevalence", lambda *_: fitted)
    found = evaluate(folder, "test", CPU)
    (moved,) = found.moved
    kept = scored(folder, data_of(read_model(folder)), "test", CPU)
    place = kept.classes.index("Effusion")
    here = kept.truth[:, place].mean()
    logits = kept.logits[:, place] + np.log(here / (1 - here)) - np.log(0.9 / 0.1)
    assert moved.corrected == pytest.approx((1 / (1 + np.exp(-logits))).mean(), rel=1e-5)
    assert [moved.fitted, moved.here] == pytest.approx([0.9, here])
