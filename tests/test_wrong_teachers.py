"""What may be handed over that is not the teacher, nor its answers: each is refused with its own sentence.

The ways that concern a single store (bits that flipped, blocks that were cut, swapped or signed anew, each entry of its
manifest) are in `test_logit_store.py`; `.pth` files and patients are in `test_teachers.py`. Here is the rest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from trainables.distill import distill
from xlite_search import places
from xlite_search.config import RunConfig
from xlite_search.data.dataset import Data, open_data
from xlite_search.data.loaders import ordered_batches
from xlite_search.data.prepare import prepare
from xlite_search.data.sources.phantom import Phantom
from xlite_search.distill.logit_store import DIGEST, HEADER, MANIFEST, VALIDATION, LogitStore
from xlite_search.distill.losses import KD
from xlite_search.distill.pretrained import Pretrained, import_teacher
from xlite_search.distill.teacher import load_teacher, write_ensemble
from xlite_search.distill.teacher_logits import Cached, logits_for, verify
from xlite_search.errors import BadInput, Damaged, RunFailed, XliteError
from xlite_search.model_folder import WEIGHTS, ModelManifest, input_of, read_model, write_model
from xlite_search.models.hybrid import build_model
from xlite_search.search.study import Study
from xlite_search.search.teaching import teaching_of

CPU = torch.device("cpu")
MODEL = "test_efficientnet_none"


@pytest.fixture
def data(tiny: RunConfig) -> Data:
    return open_data(tiny.data)


#: by seed: every test draws the same images
WEIGHTS_OF: dict[int, bytes] = {}


def weights_of(data: Data, seed: int) -> bytes:
    """Of a model whose answers differ from image to image."""
    if seed not in WEIGHTS_OF:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = build_model(MODEL, classes=len(data.classes)).train()
            for batch in ordered_batches(data.train, 64, CPU):
                model(batch.images)
        WEIGHTS_OF[seed] = safetensors.torch.save({name: t.contiguous() for name, t in model.state_dict().items()})
    return WEIGHTS_OF[seed]


def made(data: Data, seed: int = 0) -> str:
    """A teacher and its key."""
    about = ModelManifest(config={"model": MODEL}, classes=data.classes, input=input_of(data))
    write_model(places.teacher_folder(f"kind{seed}"), weights_of(data, seed), about)
    return f"kind{seed}"


def rewritten(key: str, **changed: Any) -> None:
    """Another manifest over the same weights."""
    home = places.teacher_folder(key)
    about = ModelManifest(**(read_model(home).as_json() | changed))
    write_model(home, (home / WEIGHTS).read_bytes(), about)


@pytest.fixture
def taught(tiny: RunConfig, data: Data) -> RunConfig:
    """A student's config, and all of its teacher's answers to one view in the store."""
    config = tiny.model_copy(update={"kd": KD(teacher=made(data))})
    filled(config)
    return config


def filled(config: RunConfig) -> LogitStore:
    assert config.kd
    source = Cached(config, config.kd, open_data(config.data), CPU)
    source.validation()
    for view in (0, 1) if config.augment else (0,):
        source.store.view(view, source.compute, CPU)
    return source.store


def taught_by(config: RunConfig, key: str) -> RunConfig:
    return config.model_copy(update={"kd": KD(teacher=key)})


def begin(config: RunConfig) -> None:
    """What happens before the first trial of a night."""
    assert config.kd
    verify(config, config.kd, open_data(config.data), CPU)


def planned(config: RunConfig, teacher: Any, **more: Any) -> None:
    teaching_of(Study("?", distill, config.model_copy(update={"kd": None}), {"kd.alpha": 0.5}, teacher=teacher, **more))


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def another_view(config: RunConfig, data: Data) -> None:
    config = config.with_settings({"augment": "light"})
    folder = filled(config).folder
    shutil.copy(folder / "00001-0000.f16", folder / "00000-0000.f16")
    begin(config)


def another_block(config: RunConfig, data: Data) -> None:
    """Of the same size, in a place where there is none to be."""
    folder = filled(config).folder
    shutil.copy(folder / "00000-0000.f16", folder / "00000-0009.f16")
    begin(config)


def another_teachers_blocks(config: RunConfig, data: Data) -> None:
    other = filled(taught_by(config, made(data, 1))).folder
    shutil.copy(other / "00000-0000.f16", filled(config).folder / "00000-0000.f16")
    begin(config)


def another_teachers_store(config: RunConfig, data: Data) -> None:
    other, ours = filled(taught_by(config, made(data, 1))).folder, filled(config).folder
    shutil.rmtree(ours)
    shutil.copytree(other, ours)
    begin(config)


def another_data_sets_store(config: RunConfig, data: Data) -> None:
    prepare("others", Phantom(images=60, size=48, seed=1), 32)
    other, ours = filled(config.with_settings({"data.name": "others"})).folder, filled(config).folder
    shutil.rmtree(ours)
    shutil.copytree(other, ours)
    begin(config)


def another_augmentations_validation(config: RunConfig, data: Data) -> None:
    other = filled(config.with_settings({"augment": "light"})).folder
    shutil.copy(other / VALIDATION, filled(config).folder / VALIDATION)
    begin(config)


def flipped_validation(config: RunConfig, data: Data) -> None:
    flip(filled(config).folder / VALIDATION)
    begin(config)


def no_numbers_under_a_right_checksum(config: RunConfig, data: Data) -> None:
    store = filled(config)
    path = store.folder / "00000-0000.f16"
    raw = path.read_bytes()
    content = raw[DIGEST:HEADER] + np.full((len(raw) - HEADER) // 2, np.nan, "<f2").tobytes()
    path.write_bytes(store._signature(path, content) + content)
    begin(config)


def an_empty_block(config: RunConfig, data: Data) -> None:
    (filled(config).folder / "00000-0000.f16").write_bytes(b"")
    begin(config)


def a_flipped_manifest(config: RunConfig, data: Data) -> None:
    flip(filled(config).folder / MANIFEST)
    begin(config)


def a_cut_manifest(config: RunConfig, data: Data) -> None:
    path = filled(config).folder / MANIFEST
    path.write_bytes(path.read_bytes()[:100])
    begin(config)


def a_manifest_edited_by_hand(config: RunConfig, data: Data) -> None:
    path = filled(config).folder / MANIFEST
    document = json.loads(path.read_text())
    document["body"]["classes"].reverse()
    path.write_text(json.dumps(document))
    begin(config)


def no_such_teacher(config: RunConfig, data: Data) -> None:
    begin(taught_by(config, "gone"))


def other_weights(config: RunConfig, data: Data) -> None:
    shutil.copy(places.teacher_folder(made(data, 1)) / WEIGHTS, places.teacher_folder("kind0") / WEIGHTS)
    begin(config)


def another_models_weights(config: RunConfig, data: Data) -> None:
    rewritten("kind0", config={"model": "test_resnet_none"})
    begin(config)


def other_order_of_findings(config: RunConfig, data: Data) -> None:
    rewritten("kind0", classes=list(data.classes)[::-1])
    begin(config)


def no_number_in_the_weights(config: RunConfig, data: Data, number: float = torch.nan) -> None:
    """Its score was never recorded, and nothing of it is stored."""
    home = places.teacher_folder("kind0")
    about = read_model(home)
    state = safetensors.torch.load((home / WEIGHTS).read_bytes())
    state["classifier.2.bias"][3] = number
    write_model(home, safetensors.torch.save(state), about)
    begin(config)


def infinity_in_the_weights(config: RunConfig, data: Data) -> None:
    """As float16's largest number it would look like a very sure teacher."""
    no_number_in_the_weights(config, data, -torch.inf)


def a_folder_of_other_findings(config: RunConfig, data: Data) -> None:
    rewritten("kind0", classes=list(data.classes)[::-1])
    planned(config, str(places.teacher_folder("kind0")))


def a_folder_of_another_size(config: RunConfig, data: Data) -> None:
    rewritten("kind0", input={"size": 224, "clahe": data.packed.manifest["clahe"], "pixels": "uint8 gray"})
    planned(config, str(places.teacher_folder("kind0")))


def a_folder_of_another_contrast(config: RunConfig, data: Data) -> None:
    rewritten("kind0", input={"size": data.packed.size, "clahe": {"clip_limit": 9.0}, "pixels": "uint8 gray"})
    planned(config, str(places.teacher_folder("kind0")))


def a_folder_of_an_ensemble(config: RunConfig, data: Data) -> None:
    planned(config, str(places.teacher_folder(write_ensemble(["kind0", made(data, 1)]))))


def a_folder_that_is_empty(config: RunConfig, data: Data) -> None:
    planned(config, str(places.data_root()))


def a_file_without_its_model(config: RunConfig, data: Data) -> None:
    path = places.data_root() / "theirs.pth"
    torch.save({}, path)
    planned(config, str(path))


def a_number(config: RunConfig, data: Data) -> None:
    planned(config, 5)


def names_that_are_numbers(config: RunConfig, data: Data) -> None:
    path = places.data_root() / "theirs.pth"
    torch.save({0: torch.ones(2)}, path)
    planned(config, Pretrained(path=str(path), model=MODEL))


def a_list_of_lists(config: RunConfig, data: Data) -> None:
    planned(config, [[str(places.teacher_folder("kind0"))]])


def a_weight_of_nothing(config: RunConfig, data: Data) -> None:
    """Its logarithm would be no number."""
    path = places.data_root() / "theirs.pth"
    torch.save(load_teacher("kind0", data.classes, CPU).models[0].state_dict(), path)
    tree = {"path": str(path), "model": MODEL, "pos_weight": [1.0, 0.0, *[2.0] * 12]}
    planned(config, Pretrained.model_validate(tree))


def nothing_to_calibrate_on(config: RunConfig, data: Data) -> None:
    split = {"data.fit": "train+val", "data.split.ratios": [0.9, 0.0, 0.1]}
    everything = taught_by(config, "kind0").with_settings({**split, "kd.platt": True})
    assert everything.kd
    rows = open_data(everything.data)
    logits_for(everything, everything.kd, rows, CPU)(next(ordered_batches(rows.train, 8, CPU)))


REMOVE = "Remove it, and its logits are computed again"
ELSEWHERE = rf"is not what was written: a bit flipped, or it comes from elsewhere\. {REMOVE}"
WAYS: dict[Callable[[RunConfig, Data], None], tuple[type[XliteError], str]] = {
    another_view: (Damaged, rf"00000-0000\.f16 {ELSEWHERE}"),
    another_block: (Damaged, rf"00000-0009\.f16 is cut or of another size than the logits of 0 images\. {REMOVE}"),
    another_teachers_blocks: (Damaged, rf"00000-0000\.f16 {ELSEWHERE}"),
    another_teachers_store: (BadInput, r"holds logits of another teacher \(\w+\) than is wanted"),
    another_data_sets_store: (BadInput, r"holds logits of another data \(\w+\) than is wanted"),
    another_augmentations_validation: (Damaged, rf"val\.f16 {ELSEWHERE}"),
    flipped_validation: (Damaged, rf"val\.f16 {ELSEWHERE}"),
    an_empty_block: (Damaged, rf"00000-0000\.f16 is cut or of another size than the logits of \d+ images\. {REMOVE}"),
    no_numbers_under_a_right_checksum: (Damaged, rf"00000-0000\.f16 has logits that are not finite.*\. {REMOVE}"),
    a_flipped_manifest: (Damaged, r"store\.json is damaged: its content does not match its checksum"),
    a_cut_manifest: (Damaged, r"store\.json is damaged: its content does not match its checksum"),
    a_manifest_edited_by_hand: (Damaged, r"store\.json is damaged: its content does not match its checksum"),
    no_such_teacher: (BadInput, r"gone is not a model folder \(no model\.json in it\)"),
    other_weights: (Damaged, r"model\.safetensors is missing or is not the file that model\.json names"),
    another_models_weights: (BadInput, r"kind0: its weights are not those of a 'test_resnet_none' with 14 findings"),
    other_order_of_findings: (BadInput, r"teacher kind0 knows other classes, or in another order \(Hernia, "),
    no_number_in_the_weights: (RunFailed, r"the teacher's logits are not finite"),
    infinity_in_the_weights: (RunFailed, r"the teacher's logits are not finite"),
    a_folder_of_other_findings: (BadInput, r"kind0: it knows other findings than this data set, or in another order"),
    a_folder_of_another_size: (BadInput, r"kind0: its images had size = 224, this data set's have 32"),
    a_folder_of_another_contrast: (BadInput, r"kind0: its images had clahe = \{'clip_limit': 9\.0\}, this data set's"),
    a_folder_of_an_ensemble: (BadInput, r"is an ensemble; name its members instead: .*kind0, .*kind1"),
    a_folder_that_is_empty: (BadInput, r"is not a model folder \(no model\.json in it\)"),
    a_file_without_its_model: (BadInput, r"theirs\.pth is a file; .* Pretrained\(path=\.\.\., model=\.\.\.\)"),
    a_number: (BadInput, r"teacher = 5: expected a RunConfig, the folder of a trained model, a Pretrained, or a list"),
    names_that_are_numbers: (BadInput, r"theirs\.pth: holds no state dict, which has a tensor for every name"),
    a_list_of_lists: (BadInput, r"teacher = \[.*\]: expected a RunConfig, the folder of a trained model"),
    a_weight_of_nothing: (BadInput, r"pos_weight"),
    nothing_to_calibrate_on: (BadInput, r"kd\.platt: the split has no validation images to calibrate on"),
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_is_not_the_teacher_or_its_answers_is_refused(
    way: Callable[[RunConfig, Data], None], taught: RunConfig, data: Data
) -> None:
    begin(taught)
    kind, sentence = WAYS[way]
    with pytest.raises(kind, match=sentence) as refused:
        way(taught, data)
    print(f"{way.__name__} | {refused.value}")
    assert "\n" not in str(refused.value)


# What is right and must not be taken for wrong


def stateful(data: Data, **state: Any) -> str:
    """A `.pth` file of kind0's weights, and what it has beside or instead."""
    path = places.data_root() / "theirs.pth"
    torch.save(load_teacher("kind0", data.classes, CPU).models[0].state_dict() | state, path)
    return str(path)


@pytest.mark.parametrize("where", ["split", "data set"])
def test_a_score_on_other_validation_images_says_nothing_of_the_answers(
    where: str, taught: RunConfig, data: Data
) -> None:
    about = {"name": "phantom-tiny", "fingerprint": data.packed.fingerprint, "split": data.split.fingerprint}
    rewritten("kind0", metrics={"val/auroc_macro": 0.123}, data=about)
    with pytest.raises(Damaged, match=r"validation AUROC is 0\.\d+ from its logits and 0\.123 in its manifest"):
        begin(taught)
    other = {"split": {"split": "another"}, "data set": {"fingerprint": "another"}}[where]
    rewritten("kind0", metrics={"val/auroc_macro": 0.123}, data=about | other)
    begin(taught)


def test_an_ensemble_is_the_same_teacher_in_whatever_order_its_members_are_named(taught: RunConfig, data: Data) -> None:
    """A study that names them otherwise must not change the sha256 that another study has pinned."""
    keys = ["kind0", made(data, 1)]
    found = [read_model(places.teacher_folder(write_ensemble(order))) for order in (keys, keys[::-1])]
    assert found[0] == found[1]
    folders = [str(places.teacher_folder(key)) for key in keys]
    base = taught.model_copy(update={"kd": None})
    studies = [Study("?", distill, base, {"kd.alpha": 0.5}, teacher=order) for order in (folders, folders[::-1])]
    one, other = (teaching_of(study) for study in studies)
    assert one and other
    assert (one.key, list(one.members)) == (other.key, list(other.members))


def test_a_file_is_another_teacher_on_images_of_another_source_or_size(taught: RunConfig, data: Data) -> None:
    """Its patients are those of the source that it is taken in beside, and its input is that data set's."""
    given = Pretrained(path=stateful(data), model=MODEL)
    others = ({"source": {"name": "elsewhere"}}, {"size": 40}, {"clahe": {"clip_limit": 9.0}})
    keys = [import_teacher(given, data)]
    for other in others:
        packed = replace(data.packed, manifest=data.packed.manifest | other)
        keys.append(import_teacher(given, replace(data, packed=packed)))
    assert len(set(keys)) == 4
    assert [read_model(places.teacher_folder(key)).input["size"] for key in keys] == [32, 32, 40, 32]


def test_tensors_that_are_one_are_taken_in(taught: RunConfig, data: Data) -> None:
    own = load_teacher("kind0", data.classes, CPU).models[0].state_dict()["backbone.bn2.bias"]
    one = torch.arange(float(len(own)))
    tied = stateful(data, **{"backbone.bn2.bias": one, "backbone.bn2.running_mean": one})
    state = (
        load_teacher(import_teacher(Pretrained(path=tied, model=MODEL), data), data.classes, CPU).models[0].state_dict()
    )
    assert torch.equal(state["backbone.bn2.bias"], one)
    assert torch.equal(state["backbone.bn2.running_mean"], one)


def test_a_folder_may_be_named_by_a_path(taught: RunConfig) -> None:
    base = taught.model_copy(update={"kd": None})
    teacher: Any = places.teacher_folder("kind0")
    assert Study("?", distill, base, {"kd.alpha": 0.5}, teacher=teacher).teacher == str(teacher)


def test_what_else_lies_in_a_store_is_not_read(taught: RunConfig) -> None:
    store = filled(taught)
    (store.folder / "notes-2024.f16").write_text("not an answer")
    begin(taught)
    assert store.views() == [0]
    assert store.seconds_per_image() > 0


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("settings", [{"mixup": 0.2}, {"mixup": 0.2, "kd.platt": True}, {"kd.platt": True}], ids=str)
def test_a_teacher_that_answers_with_no_number_is_refused_wherever_it_is_asked(
    taught: RunConfig, data: Data, settings: dict[str, Any], number: float
) -> None:
    """Online, for its calibration, and for the store, by the run itself."""
    begin(taught)
    with pytest.raises(RunFailed, match="logits are not finite"):
        no_number_in_the_weights(taught, data, number)
    with pytest.raises(RunFailed, match="the teacher's logits are not finite"):
        next(distill(taught.with_settings(settings)))
