"""Cards: every number is one of the JSON beside them, what is missing is named with its verb, nothing is fetched."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PHANTOM
from markdown_it import MarkdownIt
from test_cli import call
from test_scored import untrained

from xlite_search import storage
from xlite_search.cli import explain as explaining
from xlite_search.cli import judge
from xlite_search.config import RunConfig
from xlite_search.data.dataset import DataSpec
from xlite_search.data.packed import PackedSet
from xlite_search.data.sources.chestxray14 import NOTICE
from xlite_search.deploy import cards
from xlite_search.deploy.card_limits import DRAWN, LABEL_NOISE, limits
from xlite_search.deploy.card_markdown import SHOWN, escaped, sentence
from xlite_search.deploy.card_results import calibration
from xlite_search.deploy.cards import data_card, model_card, model_markdown
from xlite_search.deploy.croissant import FIELDS, croissant
from xlite_search.deploy.folder import read_exported
from xlite_search.errors import Damaged
from xlite_search.evaluation.looks import Images, Judged, look, looks_of, read_images
from xlite_search.evaluation.subgroups import Subgroups
from xlite_search.model_folder import ModelManifest, read_model, write_ensemble, write_model
from xlite_search.tracking import registry
from xlite_search.tracking.store import connect

#: a number that stands alone, and a word with a digit in it
NUMBER = re.compile(r"(?<![\w.])[+-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?(?: %| M\b| MiB)?(?![\w])")
WORD = re.compile(r"[A-Za-z_]*\d\w*")
#: names of figures and types
EVALUATION = Path("artifacts") / "evaluation" / "test.json"
NAMES = {"F1", "f1", "uint8", "p50", "p95", "p99", "int8"}


def smaller(config: RunConfig) -> RunConfig:
    """As many images to judge by as can be had."""
    return config.with_settings({"data.split.ratios": [0.3, 0.3, 0.4]})


@pytest.fixture
def half(tiny: RunConfig) -> RunConfig:
    return smaller(tiny)


@pytest.fixture(scope="module")
def judged_once(drawn_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """XLITE_RUNS with model `m`, calibrated, judged and explained; `judged` hands out copies."""
    home = tmp_path_factory.mktemp("judged")
    shutil.copytree(drawn_once, home / "data" / PHANTOM)
    plain = Subgroups.as_json

    def apart(of: Subgroups) -> dict[str, Any]:
        """Without the name that figures by finding have, too."""
        return {name: each for name, each in plain(of).items() if name != "findings"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLITE_RUNS", str(home / "runs"))
        patch.setenv("XLITE_DATA", str(home / "data"))
        patch.setattr(Subgroups, "as_json", apart)
        config = smaller(RunConfig(model="test_efficientnet_none", data=DataSpec(name=PHANTOM), early_stopping=None))
        untrained(config, "m", pos_weight=(2.0,) * 14, notice="Cite | the <phantom>.")
        judge.calibrate("m", cpu=True)
        judge.evaluate("m", cpu=True)
        judge.evaluate("m", on="val", cpu=True)
        explaining.explain("m", images=2, cpu=True)
    return home / "runs"


@pytest.fixture
def judged(judged_once: Path, phantom: PackedSet, runs: Path) -> Path:
    """The folder of model `m`, this test's own copy."""
    shutil.copytree(judged_once, runs)
    return runs / "models" / "m"


def leaves(tree: Any) -> Iterator[Any]:
    """All values and keys of a JSON document."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key
            yield from leaves(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from leaves(value)
    else:
        yield tree


def strays(text: str, facts: dict[str, Any]) -> list[str]:
    """Numbers of a card that are none of its JSON, however a card writes them, nor in a sentence of it."""
    plain = re.sub(r"\\(.)", r"\1", text).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    every = list(leaves(json.loads(json.dumps(facts))))
    numbers = [each for each in every if isinstance(each, (int, float)) and not isinstance(each, bool)]
    words = " ".join(each for each in every if isinstance(each, str))
    known = {show(each) for each in numbers for show in SHOWN} | set(NUMBER.findall(words)) | {"1.0.0"}
    spoken = {*WORD.findall(words), *NAMES}
    alone = [each for each in NUMBER.findall(plain) if each not in known]
    return alone + [each for each in WORD.findall(NUMBER.sub(" ", plain)) if each not in spoken]


def empty_sections(text: str) -> list[str]:
    """Headings with nothing below them before the next one of their level."""
    return re.findall(r"^(## .*)\n+(?=## )", text, re.MULTILINE)


def html(text: str) -> str:
    return str(MarkdownIt("commonmark").enable("table").render(re.sub(r"(?s)\A---.*?---\n", "", text)))


def test_every_number_of_a_model_card_is_in_its_json(judged: Path) -> None:
    text, facts = model_card(judged)
    assert strays(text, facts) == []
    assert strays(f"{text} 0.1234567", facts) == ["0.1234567"] and strays(f"{text} v99x", facts) == ["v99x"]
    assert len(NUMBER.findall(text)) > 400, "tables are there"
    json.dumps(facts, allow_nan=False)


def test_the_text_is_made_of_the_json_alone(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "card", "m")
    assert code == 0, err
    home = judged / "artifacts" / "card"
    assert out.splitlines()[0] == f"card: {home / 'model_card.md'}"
    facts = json.loads((home / "model_card.json").read_text())
    assert (home / "model_card.md").read_text() == model_markdown(facts)
    assert "nan" not in json.dumps(facts).lower().replace("balanc", "")
    patients = {*PackedSet.open(PHANTOM).table.groups}
    assert not patients & set(leaves(facts)), "no patient is named"


def test_a_model_card_says_what_a_reader_asks(judged: Path) -> None:
    text, facts = model_card(judged)
    for said in (
        "not a medical device",
        "**1st model judged on these images**",
        "not assessable",
        "constant box",
        "not the choice of a study",
        "takes 29 positive patients",
        DRAWN[:30],
    ):
        assert said in text, said
    test = next(each for each in facts["evaluations"] if each["on"] == "test")
    kept = json.loads((judged / "artifacts" / "evaluation" / "test.json").read_text())
    assert test["findings"] == kept["findings"] and test["macro"] == kept["macro"]
    assert f"value: {test['macro']['auroc']['value']:.4f}".rstrip("0") in text, "in Hugging Face's head"
    assert empty_sections(text) == [] and "None" not in text


def test_figures_say_what_they_are_of(judged: Path) -> None:
    text, facts = model_card(judged)
    test = facts["evaluations"][0]
    many = [len(names) for names in json.loads((judged / EVALUATION).read_text())["subgroup_findings"].values()]
    assert {row["findings"] for row in test["subgroups"]} == set(many)
    row = test["subgroups"][0]
    assert f"| {row['images']} | {row['patients']} | {row['findings']} |" in text and "| mean AUROC of these |" in text
    assert f"| calibration error | {test['macro']['ece']['value']:.4f} | - |" in text
    assert "The calibration error has no interval" in text
    assert f"Its time is of PyTorch: the network alone, one image, one thread of {test['processor']}." in text


def test_a_calibration_that_made_nothing_better_is_told(judged: Path) -> None:
    facts = model_card(judged)[1]
    figures = {name: {"value": 0.25, "low": None, "high": None} for name in ("ece", "brier", "skill", "slope")}
    after = figures | {"intercept": figures["slope"], "brier": {"value": 0.375, "low": None, "high": None}}
    found = facts["calibration"]
    found["findings"][0] |= {"before": figures, "after": after}
    found["not_better"] = {"brier": [found["findings"][0]["finding"]], "ece": []}
    text = "\n".join(calibration(facts))
    assert "| ECE before | ECE | Brier before | Brier |" in text and "| 0.2500 | 0.2500 | 0.2500 | 0.3750 |" in text
    assert f"**Brier score is no better than before** for {found['findings'][0]['finding']}." in text
    assert any("made the Brier score no better" in each for each in limits(facts))


def test_nothing_is_fetched_and_no_text_is_markup(judged: Path) -> None:
    files = cards.model_files(judged)
    page = html(files["model_card.md"].decode())
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links and all(link in files for link in links), links
    assert "<table>" in page and "Cite | the &lt;phantom&gt;." in page
    for name in links:
        assert b"http" not in files[name].replace(b"http://www.w3.org", b"").replace(b"http://purl.org", b"").replace(
            b"http://creativecommons.org", b""
        ).replace(b"https://matplotlib.org", b""), "no figure fetches anything"
    shown = html(sentence("a <script> | [x](y) *b* `python -m x` _c_"))
    assert "<script>" not in shown and "<a " not in shown and "<code>python -m x</code>" in shown
    assert "\n" not in escaped("two\nlines")


def test_what_is_missing_is_named_with_its_verb(half: RunConfig) -> None:
    text, facts = model_card(untrained(half, "m"))
    verbs = {
        "calibration": "`python -m xlite_search calibrate m`",
        "thresholds": "`python -m xlite_search calibrate m`",
        "test": "`python -m xlite_search evaluate m --on test`",
        "localisation": "`python -m xlite_search explain m`",
        "latency": "`python -m xlite_search export m -o DIR`",
    }
    for name, verb in verbs.items():
        assert verb in facts["missing"][name] and f"> {facts['missing'][name]}" in text
    assert "Not judged on a test part." in text and empty_sections(text) == [] and strays(text, facts) == []


def test_a_model_from_elsewhere_claims_nothing(half: RunConfig, runs: Path) -> None:
    weights, folder = (untrained(half, "m") / "model.safetensors").read_bytes(), runs / "models" / "other"
    write_model(folder, weights, ModelManifest(config={"model": half.model}, classes=tuple(f"F{n}" for n in range(14))))
    text, facts = model_card(folder)
    assert "On which data it was trained is not known" in text and "no patient in two parts" not in text
    assert facts["reproduce"]["commands"] == ["export other -o DIR", "predict DIR --selftest"]
    assert "size not told" in text
    assert strays(text, facts) == [] and empty_sections(text) == []
    write_ensemble(runs / "models" / "both", ["m", "m"])
    text, facts = model_card(runs / "models" / "both")
    assert "the mean of the logits of `m`, `m`" in text and strays(text, facts) == []


def test_a_card_without_its_data_says_so(judged: Path) -> None:
    shutil.rmtree(PackedSet.open(PHANTOM).folder)
    text, facts = model_card(judged)
    assert "its data are not here" in facts["missing"]["data"] and "prepare" in text
    assert strays(text, facts) == [] and facts["evaluations"]


def test_figures_of_another_state_of_the_model_are_left_out(
    judged: Path, half: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "calibrate", "m", "--sensitivity", "0.5")[0] == 0
    text, facts = model_card(judged)
    assert facts["evaluations"] == [] and "another calibration, other thresholds" in text
    assert "Not judged on a test part as it is now." in text and facts["looks"][0]["this"] is False
    untrained(half, "m", seed=1)
    (judged / "calibration.json").unlink()
    (judged / "thresholds.json").unlink()
    text, facts = model_card(judged)
    assert facts["localisation"] is None and "maps are of other weights" in text


def test_looks_are_counted_anew(judged: Path) -> None:
    of = model_card(judged)[1]["evaluations"][0]["look"]["of"]
    images = Images(of, read_images(looks_of(of)[0].images))
    look(images, "other", Judged(sha256="0"), "because")
    text, facts = model_card(judged)
    assert "**1st model judged on these images**, of 2 by now" in text
    assert [(each["number"], each["model"], each["this"]) for each in facts["looks"]] == [
        (1, "m", True),
        (2, "other", False),
    ]
    assert strays(text, facts) == []
    assert any("2 models were judged" in each for each in facts["limits"])


def test_figures_that_are_damaged_are_a_sentence(judged: Path) -> None:
    (judged / "artifacts" / "evaluation" / "test.json").write_text("{")
    with pytest.raises(Damaged, match=r"test\.json is not what was written"):
        model_card(judged)


def test_limits_are_written_from_what_is_known(judged: Path) -> None:
    facts = model_card(judged)[1]
    facts["data"] |= {"source": "chestxray14", "fit": "train+val", "fraction": 0.5, "patients_trained_on": 7}
    facts["model"] |= {"from_elsewhere": False, "seeds": [3]}
    test = facts["evaluations"][0]
    test["findings"][0]["positives"] = 2
    test["moved"] = [{"finding": "Mass"}]
    test["gaps"] = [{"attribute": "sex", "one": "F", "other": "M", "gap": -0.1, "verdict": "worse"}]
    told = " ".join(limits(facts))
    for said in (
        LABEL_NOISE,
        "trained on the validation part too",
        "data.fraction = 0.5",
        "of seed 3",
        f"{test['findings'][0]['finding']} (2)",
        "Prevalence on test",
        "better in sex M than F",
        "no images from elsewhere",
        "240 of the 112,120 images",
    ):
        assert said in told, said
    assert DRAWN not in told


def test_every_number_of_a_data_card_is_in_its_json(phantom: PackedSet, capsys: pytest.CaptureFixture[str]) -> None:
    text, facts = data_card(PHANTOM)
    assert strays(text, facts) == [] and empty_sections(text) == [] and "None" not in text
    mass = next(row for row in facts["findings"] if row["finding"] == "Mass")
    labels = phantom.labels[:, phantom.classes.index("Mass")]
    assert (mass["images"], mass["prevalence"]) == (int(labels.sum()), labels.mean())
    assert sum(facts["split"]["parts"][part]["images"] for part in ("train", "val", "test")) == len(phantom)
    code, out, err = call(capsys, "card", PHANTOM)
    assert code == 0 and out.splitlines()[0] == f"card: {phantom.folder / 'data_card.md'}", err
    PackedSet.open(PHANTOM).verify()  # the data set is as it was


def test_croissant_names_the_files_and_columns_that_there_are(phantom: PackedSet) -> None:
    facts = data_card(PHANTOM)[1]
    found = croissant(facts)
    assert found["conformsTo"].endswith("croissant/1.0") and found["@context"]["cr"]
    for each in found["distribution"]:
        path = phantom.folder / each["contentUrl"]
        assert each["sha256"] == storage.sha256_of(path) and each["contentSize"] == f"{path.stat().st_size} B"
    with open(phantom.folder / "index.csv", newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == list(FIELDS)
    (records,) = found["recordSet"]
    assert [each["name"] for each in records["field"]] == list(FIELDS)
    assert records["key"]["@id"] in {each["@id"] for each in records["field"]}
    noted = croissant(facts | {"notice": NOTICE})
    assert noted["citeAs"] == NOTICE and "citeAs" not in found


def test_a_name_that_is_both_or_neither_is_a_sentence(
    half: RunConfig, phantom: PackedSet, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    untrained(half, PHANTOM)
    untrained(half, "one")
    code, _, err = call(capsys, "card", PHANTOM)
    assert (code, err.count("\n")) == (2, 1) and "is a model and a data set too" in err
    assert call(capsys, "card", str(phantom.folder), "-o", str(tmp_path / "card"))[0] == 0
    assert (tmp_path / "card" / "croissant.json").is_file()
    for given, said in (("onn", "did you mean 'one'?"), ("zzzzzz", "models are one, phantom-tiny")):
        code, _, err = call(capsys, "card", given)
        assert (code, err.count("\n")) == (2, 1) and said in err, err
    (tmp_path / "file").write_text("")
    code, _, err = call(capsys, "card", "one", "-o", str(tmp_path / "file"))
    assert (code, err.count("\n")) == (2, 1) and "give a folder" in err


def test_an_export_has_its_card_and_trouble_of_the_registry_is_a_line(
    judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript", reason="pip install 'xlite-search[export]'")

    def down() -> None:
        raise OSError("the database is away")

    monkeypatch.setattr(registry, "connect", down)
    out = tmp_path / "out"
    code, said, err = call(capsys, "export", "m", "-o", str(out), "--register", "chest")
    assert code == 0 and "next: python -m xlite_search predict" in said, err
    assert [line for line in err.splitlines() if "registry" in line and "..." not in line] == [
        "not in MLflow's model registry: OSError: the database is away"
    ]
    about = read_exported(out)
    assert {"model_card.md", "model_card.json", "figures/reliability.svg"} <= about.files.keys()
    text, facts = (out / "model_card.md").read_text(), json.loads((out / "model_card.json").read_text())
    assert strays(text, facts) == [] and "latency" not in facts["missing"] and "Cold start" in text
    assert "library_name: timm" in text and "graph, onnxruntime, one thread" in text
    assert facts["cost"]["files"]["model.onnx"] == (out / "model.onnx").stat().st_size
    (out / "model_card.md").write_text(text + "And it is perfect.")
    with pytest.raises(Damaged, match=r"model_card\.md is not the file"):
        read_exported(out)


def test_a_registered_model_is_files_alone(half: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, out = untrained(half, "m"), tmp_path / "out"
    (out / "known").mkdir(parents=True)
    (out / "model.onnx").write_bytes(b"graph")
    (out / "known" / "answers.json").write_text("{}")
    about: dict[str, Any] = {"model": "m", "classes": ["Mass"], "sha256": read_model(folder).sha256}
    about |= {"files": {"a": "1"}}
    assert registry.register("chest", out, folder, about) == ("1", "")
    assert registry.register("chest", out, folder, about) == ("1", ""), "the same again is the same version"
    assert registry.register("chest", out, folder, about | {"files": {"a": "2"}}) == ("2", "")
    found = connect().get_model_version_by_alias("chest", registry.CHAMPION)
    home = Path(found.source.removeprefix("file://"))
    assert str(found.version) == "2"
    assert not (tmp_path / "mlflow.db").exists(), "MLflow's own default is not asked"
    assert sorted(each.relative_to(home).as_posix() for each in home.rglob("*") if each.is_file()) == [
        "known/answers.json",
        "model.onnx",
    ]
