"""A colleague's checkpoint taken in: a model folder that every verb takes, what is unknown of it, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from conftest import PHANTOM
from test_cli import call
from test_scored import untrained

from xlite_search import places, storage
from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.deploy.cards import model_card
from xlite_search.distill.pretrained import Pretrained, import_teacher
from xlite_search.model_folder import read_model
from xlite_search.models.hybrid import build_model
from xlite_search.places import FINAL
from xlite_search.tracking import store


@pytest.fixture
def half(tiny: RunConfig) -> RunConfig:
    return tiny.with_settings({"data.split.ratios": [0.3, 0.3, 0.4]})


def theirs(tiny: RunConfig, folder: Path, name: str = "theirs.pth", before: str = "") -> Path:
    """A state dict of plain PyTorch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_model(tiny.model, classes=14)
    torch.save({"state_dict": {before + key: each for key, each in network.state_dict().items()}}, folder / name)
    return folder / name


def take(path: Path, tiny: RunConfig, *more: str) -> list[str]:
    return ["take", str(path), "--model", tiny.model, "--data", PHANTOM, *more]


def test_every_verb_takes_it(tiny: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = theirs(tiny, tmp_path)
    code, out, err = call(capsys, *take(path, tiny))
    assert (
        code == 0 and "not in MLflow" not in err and out.splitlines()[0] == f"model: {places.model_folder('theirs')}"
    ), err
    assert out.splitlines()[-1] == "next: python -m xlite_search calibrate theirs"
    about, data = read_model(places.model_folder("theirs")), open_data(tiny.data)
    assert about.trained_on is None and about.run == "" and about.classes == data.classes
    assert about.data and about.data.fingerprint == data.packed.fingerprint
    for verb in (["calibrate"], ["evaluate", "--on", "test"], ["explain", "--images", "2"], ["card"]):
        code, _, err = call(capsys, verb[0], "theirs", *verb[1:], *([] if verb[0] == "card" else ["--cpu"]))
        assert code == 0, err
    client, run = store.connect(), str(store.find_run(FINAL, f"theirs-{about.sha256[:12]}"))
    found = client.get_run(run)
    assert found.data.tags["xlite.kind"] == "taken" and found.info.run_name == f"{tiny.model} from theirs.pth"
    assert found.data.params["file"] == "theirs.pth" and found.data.params["file_sha256"] == storage.sha256_of(path)
    assert found.data.metrics == {"model/parameters": about.parameters}
    assert {each.path for each in client.list_artifacts(run)} >= {"calibration.json", "evaluation", "explain", "card"}
    assert call(capsys, "verify", "theirs")[0] == 0
    text, facts = model_card(places.model_folder("theirs"))
    assert "On which data it was trained is not known" in text and "Trained on:" not in text
    assert "Images trained on by" not in text and f"Judged on data set `{PHANTOM}`" in text
    assert facts["reproduce"]["commands"][0] == f"take theirs.pth --model {tiny.model} --data {PHANTOM} --name theirs"
    assert call(capsys, *take(path, tiny))[0] == 0, "the same again is the same"


def test_names_findings_and_patients_can_be_told(
    tiny: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = open_data(tiny.data)
    (tmp_path / "seen.txt").write_text("\n".join(sorted({data.packed.table.groups[row] for row in data.train.rows})))
    path = theirs(tiny, tmp_path, before="module.")
    order = list(reversed(data.classes))
    options = ("--keys", "module.=", "--classes", ",".join(order), "--patients", str(tmp_path / "seen.txt"))
    code, _, err = call(capsys, *take(path, tiny, "--name", "named", *options))
    assert code == 0, err
    about = read_model(places.model_folder("named"))
    assert about.trained_on and len(about.trained_on.patients) > 50
    key = import_teacher(Pretrained(path=str(path), model=tiny.model, keys={"module.": ""}, classes=tuple(order)), data)
    assert about.sha256 == read_model(places.teacher_folder(key)).sha256, "the very weights of the teacher"
    command = model_card(places.model_folder("named"))[1]["reproduce"]["commands"][0]
    assert f"--keys module.= --classes {','.join(order)} --patients FILE --name named" in command


WRONG: list[tuple[tuple[str, ...], str]] = [
    (("--keys", "module."), "--keys module.: expected OLD=NEW"),
    (("--keys", "x=", "--classes", "A,B"), "its findings are not those of this data set"),
    (("--name", "a/b"), "the model name is 'a/b'"),
    (("--name", "mine"), "mine holds another model; give this one a --name of its own"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_what_is_wrong_is_a_sentence(
    options: tuple[str, ...], said: str, tiny: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untrained(tiny, "mine", seed=7)
    code, _, err = call(capsys, *take(theirs(tiny, tmp_path), tiny, *options))
    assert (code, err.count("\n")) == (2, 1) and said in err, err


def test_a_file_that_does_not_fit_is_a_sentence(
    tiny: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = theirs(tiny, tmp_path, before="module.")
    code, _, err = call(capsys, *take(path, tiny))
    assert code == 2 and err.startswith(f"error: {path}: lacks ")
    assert "; all of its names begin with 'module.': leave that out by --keys module.=\n" in err
    code, _, err = call(capsys, *take(tmp_path / "none.pth", tiny))
    assert (code, err) == (2, f"error: {tmp_path / 'none.pth'}: there is no such file\n")
    code, _, err = call(capsys, "take", str(path), "--model", "resnet10t_non", "--data", PHANTOM)
    assert code == 2 and err.count("\n") == 1
    assert not (places.runs_root() / "models").exists(), "nothing is begun"


def test_a_beginning_that_no_name_has_is_named(
    tiny: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = theirs(tiny, tmp_path, before="net.module.")
    code, _, err = call(capsys, *take(path, tiny, "--keys", "net.modul=", "--keys", "cnn.=backbone."))
    assert code == 2 and "; no name in it begins with 'cnn.'; all of its names begin with 'net.module.': " in err
    code, _, err = call(capsys, *take(path, tiny, "--keys", "modul.="))
    assert code == 2 and "no name in it begins with 'modul.'; all of its names begin with 'net.module.': " in err
    assert err.endswith("leave that out by --keys net.module.=\n")


def test_another_attention_is_no_matter_of_names(
    tiny: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = theirs(tiny.model_copy(update={"model": "resnet10t_se"}), tmp_path)
    code, _, err = call(capsys, "take", str(path), "--model", "resnet10t_mhsa", "--data", PHANTOM)
    assert code == 2 and "the file may be of a hybrid with another: did you mean 'resnet10t_se'?" in err
    assert "--keys" not in err


@pytest.mark.parametrize("verb", [["calibrate"], ["evaluate"], ["explain"], ["export", "-o", "x"], ["card"]])
def test_a_file_as_model_says_how_it_is_taken_in(
    verb: list[str], tiny: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = theirs(tiny, tmp_path)
    code, _, err = call(capsys, verb[0], str(path), *verb[1:])
    assert (code, err.count("\n")) == (2, 1)
    assert f"{path} is a file; `python -m xlite_search take {path} --model HYBRID --data DATASET` makes a model" in err


@pytest.mark.parametrize("verb", [["calibrate"], ["evaluate"], ["explain"], ["export", "-o", "x"], ["card"]])
def test_an_unknown_model_names_the_teachers_too(
    verb: list[str], tiny: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = untrained(tiny, "mine")
    shutil.copytree(folder, places.teacher_folder("0123456789ab"))
    code, _, err = call(capsys, verb[0], "zzzzzz", *verb[1:])
    assert (code, err.count("\n")) == (2, 1)
    assert "models are mine" in err and "teachers 0123456789ab (test_efficientnet_none)" in err
    code, _, err = call(capsys, verb[0], "0123456789a", *verb[1:])
    assert code == 2 and "did you mean '0123456789ab'?" in err


def test_there_is_none_yet(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "calibrate", "m")
    assert code == 2 and "no model 'm'" in err and "`train best.yaml` makes one" in err
