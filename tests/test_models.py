from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlite_search.config import RunConfig
from xlite_search.errors import BadInput, Damaged
from xlite_search.models.attention import Performer, heads_for, orthogonal_features
from xlite_search.models.hybrid import build_model, full_name, parameters, timm_name
from xlite_search.models.weights import Weights

LAB = [
    f"{backbone}_{attention}"
    for backbone in ("efficientnet_b0", "convnext_tiny", "mobilenet_v3_large", "mobilenet_v3_small")
    for attention in ("none", "mhsa", "performer")
]
SMALL = "test_efficientnet"


def gray(batch: int, size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 1, size, size), dtype=torch.uint8, generator=generator)


def tensors_of(name: str = SMALL) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return dict(timm.create_model(name, num_classes=5).state_dict())


def stored(path: Path, tensors: dict[str, Tensor]) -> Weights:
    path.write_bytes(safetensors.torch.save(tensors))
    return Weights(path=str(path)).resolved(SMALL)


@pytest.mark.parametrize(("name", "count"), [("efficientnet_b0_mhsa", 11_395_082), ("convnext_tiny_mhsa", 30_483_182)])
def test_the_hybrids_have_the_size_of_the_log(name: str, count: int) -> None:
    assert parameters(build_model(name, classes=14)) == count


@pytest.mark.parametrize("name", LAB)
def test_every_parameter_of_the_labs_hybrids_learns(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, classes=14)
    if isinstance(model.attention, nn.Module):
        nn.init.normal_(model.get_parameter("attention.projection.weight"), std=0.02)
    F.binary_cross_entropy_with_logits(model(gray(2, 64)), torch.ones(2, 14)).backward()  # type: ignore[no-untyped-call]
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize("attention", ["mhsa", "performer"])
def test_a_fresh_hybrid_answers_as_its_plain_backbone(attention: str) -> None:
    hybrid = build_model(f"{SMALL}_{attention}", classes=14).eval()
    plain = build_model(f"{SMALL}_none", classes=14).eval()
    shared = {k: v for k, v in hybrid.state_dict().items() if not k.startswith("attention.")}
    plain.load_state_dict(shared, strict=True)
    images = gray(2, 64)
    assert torch.equal(hybrid(images), plain(images))


@pytest.mark.parametrize("attention", ["mhsa", "performer"])
def test_attention_mixes_tokens_once_its_projection_has_moved(attention: str) -> None:
    torch.manual_seed(0)
    model = build_model(f"{SMALL}_{attention}", classes=14)
    assert isinstance(model.attention, nn.Module)
    nn.init.normal_(model.get_parameter("attention.projection.weight"), std=0.1)
    tokens = torch.randn(1, 9, model.get_parameter("attention.projection.weight").shape[0])
    moved = tokens.clone()
    moved[0, 8] += 1
    assert not torch.allclose(model.attention(tokens)[0, 0], model.attention(moved)[0, 0], atol=1e-5)


@pytest.mark.parametrize("attention", ["mhsa", "performer"])
def test_attention_follows_a_permutation_of_tokens(attention: str) -> None:
    torch.manual_seed(0)
    layer = build_model(f"{SMALL}_{attention}", classes=14).attention
    assert isinstance(layer, nn.Module)
    nn.init.normal_(layer.get_parameter("projection.weight"), std=0.1)
    tokens, order = torch.randn(2, 9, layer.get_parameter("projection.weight").shape[0]), torch.randperm(9)
    assert torch.allclose(layer(tokens)[:, order], layer(tokens[:, order]), atol=1e-5)


def test_performer_tends_to_exact_attention_with_more_features() -> None:
    torch.manual_seed(0)
    performer = Performer(128)
    query, key, value = (0.5 * torch.randn(3, 4, 2, 49, 64)).unbind(0)
    exact = F.scaled_dot_product_attention(query, key, value)

    def error(count: int) -> float:
        performer.features = orthogonal_features(count, 64)
        return float((performer.attend(query, key, value) - exact).norm() / exact.norm())

    few, some, many = error(64), error(512), error(8192)
    assert many < some / 2 < few / 4
    assert many < 0.15


def test_performers_features_are_always_the_same() -> None:
    torch.manual_seed(1)
    one = Performer(128).features
    torch.manual_seed(2)
    assert torch.equal(one, Performer(128).features)


def test_features_are_orthogonal_within_a_block() -> None:
    first, second = orthogonal_features(32, 16).view(2, 16, 16)
    for block in (first, second):
        gram = block @ block.T
        assert torch.allclose(gram - gram.diag().diag(), torch.zeros(16, 16), atol=1e-4)


@pytest.mark.parametrize(("width", "heads"), [(1280, 20), (768, 12), (576, 9), (960, 15), (64, 1), (40, 1), (258, 3)])
def test_heads_divide_the_width(width: int, heads: int) -> None:
    assert heads_for(width) == heads


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        ("efficientnet_b0_none", 64, (2, 4, 1280)),
        ("convnext_tiny_none", 64, (2, 4, 768)),
        ("mobilenet_v3_large_none", 64, (2, 4, 960)),
        ("mobilenet_v3_small_none", 96, (2, 9, 576)),
        ("test_vit_none", 160, (2, 100, 64)),  # its class token is no place in the image
        ("test_mambaout_none", 96, (2, 9, 64)),  # channels last inside
    ],
)
def test_tokens_are_the_places_of_the_last_map(name: str, size: int, shape: tuple[int, ...]) -> None:
    model = build_model(name, classes=3).eval()
    with torch.no_grad():
        assert model.tokens(model.normalised(gray(2, size))).shape == shape
        assert model(gray(2, size)).shape == (2, 3)


def test_images_are_normalised_as_the_backbone_was_trained() -> None:
    model = build_model("efficientnet_b0_none", classes=14)
    found = model.normalised(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8))[0, :, 0, 0]
    assert found.tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rel=1e-5)


def test_the_same_seed_builds_the_same_model() -> None:
    def built() -> dict[str, Any]:
        torch.manual_seed(3)
        return build_model(f"{SMALL}_performer", classes=14).state_dict()

    one, other = built(), built()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("efficientnet_b0", "efficientnet_b0_none"),
        ("efficientnet_b0_mhsa", "efficientnet_b0_mhsa"),
        ("mobilenet_v3_small_performer", "mobilenet_v3_small_performer"),
        ("resnet10t", "resnet10t_none"),
        ("convnext_tiny_none", "convnext_tiny_none"),
    ],
)
def test_a_name_is_backbone_and_attention(given: str, full: str) -> None:
    assert full_name(given) == full


def test_the_labs_names_are_timms_models() -> None:
    assert timm_name("mobilenet_v3_large_mhsa") == "mobilenetv3_large_100"
    assert timm_name("mobilenet_v3_small") == "mobilenetv3_small_100"
    assert timm_name("resnet10t_none") == "resnet10t"


@pytest.mark.parametrize("name", ["eficientnet_b0_mhsa", "efficientnet_b0_msha", "efficientnet_bo"])
def test_a_misspelt_model_is_answered_with_a_suggestion(name: str) -> None:
    with pytest.raises(BadInput, match=r"unknown backbone.*did you mean 'efficientnet_b0"):
        full_name(name)


@pytest.mark.parametrize("name", ["qqqqqqqqqqqqq", "mhsa", "", "_mhsa"])
def test_a_model_like_none_is_refused_in_a_readable_sentence(name: str) -> None:
    with pytest.raises(BadInput, match=r"unknown backbone '[^']*'(; did you mean '\w+'\?|[.;:]) "):
        full_name(name)


def test_real_weights_fill_the_backbone(shared: Path) -> None:
    path = shared / "weights" / "tf_efficientnet_lite0.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path}")
    weights = Weights(path=str(path)).resolved("tf_efficientnet_lite0")
    model = build_model("tf_efficientnet_lite0_mhsa", classes=14, weights=weights)
    there = safetensors.torch.load_file(path)
    own = model.backbone.state_dict()
    assert all(torch.equal(own[name], there[name]) for name in own if not name.endswith("num_batches_tracked"))
    with pytest.raises(BadInput, match="is it this backbone's file"):
        build_model("efficientnet_b0_none", classes=14, weights=weights)


def test_a_file_with_its_old_classifier_fills_the_backbone(tmp_path: Path) -> None:
    tensors = tensors_of()
    model = build_model(SMALL, classes=14, weights=stored(tmp_path / "w.safetensors", tensors))
    own = model.backbone.state_dict()
    assert len(own) == len(tensors) - 2
    assert all(torch.equal(value, tensors[name]) for name, value in own.items())


def test_mobilenets_weights_load_without_their_unused_head(tmp_path: Path) -> None:
    name = "mobilenetv3_small_050"
    weights = stored(tmp_path / "w.safetensors", tensors_of(name))
    model = build_model(f"{name}_mhsa", classes=14, weights=weights)
    assert "backbone.conv_head.weight" not in model.state_dict()


def test_a_file_without_batch_counters_loads(tmp_path: Path) -> None:
    tensors = {k: v for k, v in tensors_of().items() if not k.endswith("num_batches_tracked")}
    build_model(SMALL, classes=14, weights=stored(tmp_path / "w.safetensors", tensors))


def without_a_tensor(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in tensors.items() if k != "conv_stem.weight"}


def another_shape(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"conv_stem.weight": torch.zeros(2, 3, 3, 3)}


def one_too_many(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"extra.weight": torch.zeros(1)}


@pytest.mark.parametrize(
    ("change", "says"),
    [(without_a_tensor, "no tensor"), (another_shape, "has shape"), (one_too_many, "unexpected tensor 'extra.weight'")],
)
def test_another_backbones_file_is_refused_with_the_tensor_that_tells(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], says: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=f"{says}.*is it this backbone's file"):
        build_model(SMALL, classes=14, weights=stored(tmp_path / "w.safetensors", change(tensors_of())))


class Trap:
    """Unpickled, it leaves a folder behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("content", ["truncated", "text", "empty", "pickle", "torch"])
def test_what_is_not_safetensors_is_refused_and_never_run(content: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "w.safetensors", tmp_path / "mark"
    match content:
        case "truncated":
            path.write_bytes(safetensors.torch.save(tensors_of())[:-100])
        case "text":
            path.write_text("<html>please log in to download this file</html>")
        case "empty":
            path.touch()
        case "pickle":
            path.write_bytes(pickle.dumps(Trap(mark)))
        case "torch":
            torch.save({"model": Trap(mark)}, path)
    with pytest.raises(BadInput, match="not a safetensors file"):
        build_model(SMALL, classes=14, weights=Weights(path=str(path)).resolved(SMALL))
    assert not mark.exists()


@pytest.mark.parametrize("place", [-1, 1000])
def test_weights_that_changed_since_the_config_was_resolved_are_damaged(place: int, tmp_path: Path) -> None:
    weights = stored(tmp_path / "w.safetensors", tensors_of())
    data = bytearray(Path(weights.path).read_bytes())
    data[place] ^= 1
    Path(weights.path).write_bytes(data)
    with pytest.raises(Damaged, match="sha256"):
        build_model(SMALL, classes=14, weights=weights)


def test_weights_cut_short_since_the_config_was_resolved_are_damaged(tmp_path: Path) -> None:
    weights = stored(tmp_path / "w.safetensors", tensors_of())
    Path(weights.path).write_bytes(Path(weights.path).read_bytes()[:-100])
    with pytest.raises(Damaged, match="sha256"):
        build_model(SMALL, classes=14, weights=weights)


def test_a_missing_file_is_refused_when_the_config_is_resolved(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no such file"):
        RunConfig(model=SMALL, weights=Weights(path=str(tmp_path / "none.safetensors"))).resolved()


def test_imagenet_comes_from_timms_place_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, asked = stored(tmp_path / "w.safetensors", tensors_of()), []

    def fetch(repository: str, file: str) -> str:
        asked.append((repository, file))
        return there.path

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    config = RunConfig(model="mobilenet_v3_small_mhsa", weights=Weights(path="imagenet")).resolved()
    assert config.weights == there
    assert asked == [("timm/mobilenetv3_small_100.lamb_in1k", "model.safetensors")]


def test_imagenet_without_the_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(BadInput, match=r"could not be fetched.*--set weights=FILE.*--set weights=null"):
        RunConfig(model=SMALL, weights=Weights(path="imagenet")).resolved()


def test_imagenet_for_a_model_that_never_had_any_is_refused() -> None:
    with pytest.raises(BadInput, match="hub has none for 'darknet17'"):
        RunConfig(model="darknet17_mhsa", weights=Weights(path="imagenet")).resolved()
