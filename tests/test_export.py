"""Export: a graph that says what the model does, from file bytes on, and a folder that is whole or not there."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from conftest import PHANTOM
from test_cli import call
from test_model_folder import weights_of
from untrained import awake, calibrated, delivered, drawn

from xlite_search import places
from xlite_search.data.packed import PackedSet
from xlite_search.data.sources.images import read_image
from xlite_search.deploy import card_results, int8, latency
from xlite_search.deploy import export as exporting
from xlite_search.deploy import folder as names
from xlite_search.deploy.export import Exported, export
from xlite_search.deploy.folder import ExportManifest, manifest_of, read_exported
from xlite_search.deploy.int8 import Gate, gate
from xlite_search.deploy.parity import image_files
from xlite_search.deploy.predict import Predictor, open_session, self_test
from xlite_search.errors import BadInput, RunFailed
from xlite_search.evaluation import calibration, thresholds
from xlite_search.model import load_model
from xlite_search.model_folder import read_model, write_ensemble, write_model

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="pip install 'xlite-search[export]'")

PLAIN, HYBRID = "test_efficientnet_none", "test_efficientnet_mhsa"


@pytest.fixture(scope="module")
def whole(drawn_once: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    """A calibrated model of the tiny data set, exported with all there is; what 8 bits may lose is not limited."""
    home = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        shutil.copytree(drawn_once, home / "data" / PHANTOM)  # others copy it too, and want no splits in it
        patch.setenv("XLITE_DATA", str(home / "data"))
        model = delivered(home / "m", PLAIN, PackedSet.open(PHANTOM).classes, drawn(32), weight=3.0)
        calibrated(model)
        for limit in ("MACRO", "FINDING", "SIZE"):
            patch.setattr(int8, limit, np.inf)
        found = export(model, home / "out", int8=True, pt2=True, writers=[card])
    return model, found


def card(folder: Path, about: ExportManifest) -> dict[str, bytes]:
    """A writer of a further file."""
    assert (folder / names.ONNX).is_file() and about.latency["one_thread"]["runs"] == 50
    return {"model_card.md": about.model.encode()}


@pytest.fixture
def cheap(whole: tuple[Path, Exported], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model's folder; exporting it again takes the graph that there is, and times nothing."""
    graph = (whole[1].folder / names.ONNX).read_bytes()
    monkeypatch.setattr(exporting, "to_onnx", lambda *_: graph)
    monkeypatch.setattr(latency, "measured", lambda *_: dict(whole[1].manifest.latency))
    return whole[0]


def phantoms(folder: Path) -> list[Path]:
    return image_files((folder / names.ANSWERS).parent, 3)


def test_graph_and_model_agree_from_file_bytes_on(whole: tuple[Path, Exported]) -> None:
    model, found = load_model(whole[0]), whole[1]
    assert found.parity.images == 32 and found.parity.logits <= 1e-4 and found.parity.from_bytes <= 1e-5
    files = phantoms(found.folder)
    logits = model.logits(torch.from_numpy(model.prepared([read_image(file) for file in files]))).numpy()
    line = calibration.read_calibration(whole[0])
    assert line is not None and np.ptp(logits, axis=0).max() > 0.1
    predictor = Predictor.open(found.folder)
    for file, expected, chances in zip(files, logits, line.probabilities(logits), strict=True):
        answer = predictor.of_file(file)
        assert np.allclose(answer.logits, expected, rtol=0, atol=1e-4)
        assert np.allclose(answer.probabilities, chances, rtol=0, atol=1e-5)
    assert self_test(predictor).passed and self_test(predictor).images == 3


def test_the_folder_says_what_is_in_it(whole: tuple[Path, Exported]) -> None:
    folder, about = whole[1].folder, read_exported(whole[1].folder)
    assert about == whole[1].manifest
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == about.files.keys() | {names.MANIFEST}
    assert there == {
        *("model.onnx", "model.int8.onnx", "model.pt2", "model.safetensors", "config.json", "preprocess.json"),
        *("thresholds.json", "export.json", "README.md", "model_card.md", "known_answers/answers.json"),
        *(f"known_answers/phantom_{number}.png" for number in (1, 2, 3)),
    }
    line = calibration.read_calibration(whole[0])
    assert line is not None and about.calibration == line.hash and about.sha256 == read_model(whole[0]).sha256
    assert list(about.thresholds) == list(about.classes[:-1]) and about.threshold_rule == "sensitivity"
    assert about.latency.keys() == {"one_thread", "all_cores", "preparing", "cold_start_ms", "cores", "cpu"}
    readme = (folder / names.README).read_text()
    assert "Cite the phantom." in readme and readme.count("    p") == 3
    assert not list(folder.parent.glob(".*"))


def test_the_graphs_metadata_are_enough_to_use_it_alone_and_name_no_place(whole: tuple[Path, Exported]) -> None:
    folder, about = whole[1].folder, whole[1].manifest
    session = open_session(folder / names.ONNX)
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["xlite.classes"]) == list(about.classes)
    assert json.loads(said["xlite.thresholds"]) == about.thresholds
    assert json.loads(said["xlite.preprocess"]) == json.loads((folder / names.PREPROCESS).read_bytes())
    assert (said["xlite.sha256"], said["xlite.calibration"]) == (about.sha256, about.calibration)
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 1, 32, 32])
    assert [each.name for each in session.get_outputs()] == ["logits", "probabilities"]
    assert b"xlite_search/" not in (folder / names.ONNX).read_bytes()


def test_timm_reads_a_plain_backbone(whole: tuple[Path, Exported]) -> None:
    model = load_model(whole[0]).models[0]
    theirs: Any = timm.create_model(f"local-dir:{whole[1].folder}", pretrained=True).eval()
    images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        normalised = model.normalised(images)
        theirs_map, ours = theirs.forward_features(normalised), model.features(normalised)[0]
    assert ours.std() > 0.01 and torch.allclose(theirs_map, ours, rtol=1e-4, atol=1e-4 * float(ours.std()))
    assert all(torch.equal(tensor, model.backbone.state_dict()[name]) for name, tensor in theirs.state_dict().items())
    tensors = safetensors.torch.load_file(whole[1].folder / names.WEIGHTS)
    assert torch.equal(tensors["xlite.classifier.2.bias"], model.state_dict()["classifier.2.bias"])


def test_eight_bits_have_answers_and_a_line_of_their_own(
    whole: tuple[Path, Exported], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, about = whole[1].folder, whole[1].manifest
    eight, single = Predictor.open(folder, int8=True), Predictor.open(folder)
    assert self_test(eight, int8=True).logits == 0.0
    assert about.int8 is not None and about.int8["images"] > 20
    images = np.concatenate([eight.prepared(file)[None] for file in phantoms(folder)])
    (z, chance), (expected, _) = eight(images), single(images)
    spread = float(expected.std())
    assert 0 < np.abs(z - expected).max() < spread
    own = np.log(chance / (1 - chance))
    slope = np.ptp(own, axis=0) / np.ptp(z, axis=0)
    shipped = calibration.read_calibration(whole[0])
    assert shipped is not None
    assert (np.abs(slope - [each.line.slope for each in shipped.findings]) > 1e-3).any()
    assert call(capsys, "predict", str(folder), "--int8", "--selftest")[0] == 0


def test_eight_bits_that_lose_too_much_are_not_offered(cheap: Path, phantom: PackedSet, tmp_path: Path) -> None:
    found = export(cheap, tmp_path / "out", int8=True)
    assert found.int8 is not None and not found.int8.passed
    assert found.manifest.int8 is None and names.INT8 not in found.manifest.files
    assert not (tmp_path / "out" / names.INT8).exists()


def test_eight_bits_of_a_model_that_knows_the_validation_part_keep_the_line_and_say_so(
    cheap: Path, phantom: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("MACRO", "FINDING", "SIZE"):
        monkeypatch.setattr(int8, limit, np.inf)
    home = tmp_path / "m"
    shutil.copytree(cheap, home)
    about = read_model(home)
    config = about.config | {"data": about.config["data"] | {"fit": "train+val"}}
    write_model(home, (home / names.WEIGHTS).read_bytes(), about.model_copy(update={"config": config}))
    found = export(home, tmp_path / "out", int8=True)
    assert found.int8 is not None and found.int8.seen > 5 and "trained on" in str(found.int8)
    assert found.manifest.int8 is not None and found.manifest.int8["seen"] == found.int8.seen
    eight, line = Predictor.open(tmp_path / "out", int8=True), calibration.read_calibration(home)
    images = np.stack([eight.prepared(file) for file in phantoms(tmp_path / "out")])
    logits, probabilities = eight(images)
    assert line is not None and np.allclose(probabilities, line.probabilities(logits), atol=1e-6)


def test_the_gate_is_of_upper_bounds_by_patient() -> None:
    draw = np.random.default_rng(0)
    truth, groups = draw.random((4000, 3)) < 0.3, np.arange(4000) // 2
    logits = draw.normal(size=truth.shape) + 1.5 * truth
    near = logits + 1e-3 * draw.normal(size=truth.shape)
    far = logits + np.array([0, 0, 1.0]) * draw.normal(size=truth.shape)
    classes = ("a", "b", "c")
    same = gate(logits, logits, truth, groups, classes, 0.26)
    assert (same.loss, same.upper, same.worst) == (0, 0, 0) and same.passed
    assert gate(logits, near, truth, groups, classes, 0.26).passed
    lost = gate(logits, far, truth, groups, classes, 0.26)
    assert lost.finding == "c" and lost.worst > 0.05 and not lost.passed
    assert lost.upper > lost.loss == pytest.approx(lost.worst / 3)
    assert not replace(same, size=0.31).passed and not replace(same, upper=0.0021).passed
    nothing = gate(logits, logits, np.zeros_like(truth), groups, classes, 0.26)
    assert not nothing.passed and "an unknown part, with so few patients, of macro AUROC" in str(nothing)


def test_the_gate_names_each_criterion_that_failed_and_no_other() -> None:
    fine = Gate(loss=0.0004, upper=0.001, finding="Mass", worst=0.002, size=0.27, images=100)
    assert str(fine).startswith("offered: it loses 0.0004 of macro AUROC, at most 0.0010 (limit 0.002)")
    large = replace(fine, size=0.3412)
    assert str(large) == "not offered: it has 34.12% of the float graph's size (limit 30%)"
    assert str(replace(large, upper=0.00204)) == (
        "not offered: it may lose up to 0.00204 of macro AUROC (limit 0.002); "
        "it has 34.12% of the float graph's size (limit 30%)"
    )
    assert str(replace(fine, worst=0.0143)) == "not offered: it loses 0.0143 of the AUROC of Mass (limit 0.01)"
    assert not replace(fine, worst=float("nan")).passed
    known = "It was judged on images of 1,200 patients whom the model was trained on, and may lose more on others"
    assert all(str(replace(each, seen=1200)).endswith(known) for each in (fine, large))
    facts = {"cost": {"files": {}, "training": None, "int8": asdict(replace(fine, seen=1200))}, "missing": {}}
    assert "It was judged on images of 1,200 patients whom the model was trained on." in list(card_results.cost(facts))


def test_pt2_is_written_only_where_asked_for(whole: tuple[Path, Exported], cheap: Path, tmp_path: Path) -> None:
    program = torch.export.load(whole[1].folder / names.PT2).module()
    images = torch.randint(0, 256, (5, 1, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.allclose(program(images)[0], load_model(cheap).logits(images), atol=1e-4)
    assert names.PT2 not in export(cheap, tmp_path / "out").manifest.files


def test_a_graph_that_says_something_else_leaves_nothing(
    cheap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "models" / "m"
    shutil.copytree(cheap, home)
    content = weights_of(awake(PLAIN, 14, drawn(32), seed=1))
    for name in (calibration.FILE, thresholds.FILE):
        (home / name).unlink()
    write_model(home, content, read_model(cheap))
    output = tmp_path / "somewhere" / "out"
    with pytest.raises(
        RunFailed, match=r"the exported graph is not the model: logits differ by .* nothing was written"
    ):
        export(home, output)
    assert list(output.parent.iterdir()) == []


def test_an_export_is_replaced_as_a_whole(cheap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out"
    first = export(cheap, output, writers=[lambda *_: {"model_card.md": b"x"}])
    assert "model_card.md" in first.manifest.files
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "_readme", None)
        with pytest.raises(TypeError):
            export(cheap, output)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]
    assert read_exported(output) == first.manifest
    export(cheap, output)
    assert read_exported(output) == manifest_of(output) and not (output / "model_card.md").exists()
    (output / "mine.txt").write_text("x")
    with pytest.raises(BadInput, match="of no export"):
        export(cheap, output)


def test_an_ensemble_is_one_graph_of_the_mean(tmp_path: Path) -> None:
    classes = ("Mass", "Hernia", "Edema")
    delivered(tmp_path / "a", PLAIN, classes, drawn(32), seed=1, weight=4.0)
    delivered(tmp_path / "b", HYBRID, classes, drawn(64), seed=2)
    manifest = read_model(tmp_path / "a")
    about = read_model(tmp_path / "b").model_copy(update={"input": manifest.input})
    write_model(tmp_path / "b", (tmp_path / "b" / names.WEIGHTS).read_bytes(), about)
    write_ensemble(tmp_path / "both", ["a", "b"])
    found = export(tmp_path / "both", tmp_path / "out")
    assert found.manifest.model == f"{PLAIN} + {HYBRID}" and found.manifest.classes == classes
    config = json.loads((tmp_path / "out" / names.CONFIG).read_bytes())
    assert config["models"] == [PLAIN, HYBRID] and config["pos_weight"] == [[4.0] * 3, None]
    tensors = safetensors.torch.load_file(tmp_path / "out" / names.WEIGHTS)
    assert tensors["members.1.attention.qkv.weight"].shape == (768, 256)
    single = [load_model(tmp_path / name) for name in ("a", "b")]
    images = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8)
    mean = sum(each.logits(images) for each in single) / 2
    assert np.allclose(Predictor.open(tmp_path / "out")(images.numpy())[0], mean, atol=1e-4)


def test_what_is_missing_is_said_in_a_sentence(
    cheap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "export", "none", "-o", str(tmp_path / "out"))
    assert code == 2 and "no model 'none'" in err
    for nowhere in ("/dev/null/x", f"{tmp_path}/{'x' * 250}"):
        with pytest.raises(BadInput, match=rf"^-o {nowhere}: no folder can be made there \(.*\); give another$"):
            export(cheap, Path(nowhere))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"export needs onnx, onnxruntime, onnxscript, .*xlite-search\[export\]"):
        export(cheap, tmp_path / "out")


def test_the_verb_says_what_comes_next(
    cheap: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(cheap, places.model_folder("m"))
    output = tmp_path / "out"
    code, out, err = call(capsys, "export", "m", "-o", str(output), "--pt2", "--cpu")
    assert code == 0, err
    assert out.splitlines()[-1] == f"next: python -m xlite_search predict {output} FILES..."
    assert "runs pickle" in err and "not calibrated" not in out
    assert "not decided, without a threshold: Hernia\n" in out
