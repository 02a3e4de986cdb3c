from __future__ import annotations

import io
import itertools
import json
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
from xlite_search.models import cost
from xlite_search.models.attention import MultiHeadSelfAttention, Performer, heads_for, orthogonal_features
from xlite_search.models.cost import Cost, cost_of, cost_table, latency_ms, macs, performer_cost
from xlite_search.models.hybrid import HYBRIDS, Hybrid, build_model, expect_weights, full_name, parameters, timm_name
from xlite_search.models.stages import Stage, anatomy
from xlite_search.models.weights import Weights

BACKBONES = ("efficientnet_b0", "convnext_tiny", "mobilenet_v3_large", "mobilenet_v3_small")
ATTENTIONS = ("none", "mhsa", "performer", "se", "cbam")
LAB = [f"{backbone}_{attention}" for backbone in BACKBONES for attention in ATTENTIONS]
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


def awakened(name: str) -> Hybrid:
    """A hybrid whose residual attention, if it has one, has begun to speak."""
    torch.manual_seed(0)
    model = build_model(name, classes=14)
    for parameter, value in model.named_parameters():
        if parameter == "attention.projection.weight":
            nn.init.normal_(value, std=0.1)
    return model


def test_the_labs_hybrids_are_four_backbones_by_five_attentions() -> None:
    assert list(HYBRIDS) == LAB


@pytest.mark.parametrize("name", [*LAB, *(f"{b}_mhsa_ms" for b in BACKBONES), f"{SMALL}_cbam_ms"])
def test_every_parameter_of_the_labs_hybrids_learns(name: str) -> None:
    model = awakened(name)
    F.binary_cross_entropy_with_logits(model(gray(2, 64)), torch.ones(2, 14)).backward()  # type: ignore[no-untyped-call]
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def without_attention(hybrid: Hybrid, name: str) -> Hybrid:
    """The plain model of the same name and weights."""
    plain = build_model(name, classes=14).eval()
    plain.load_state_dict({k: v for k, v in hybrid.state_dict().items() if not k.startswith("attention.")}, strict=True)
    return plain


@pytest.mark.parametrize("tail", ["", "_ms"])
@pytest.mark.parametrize("attention", ["mhsa", "performer"])
def test_a_fresh_hybrid_answers_as_its_plain_backbone(attention: str, tail: str) -> None:
    hybrid = build_model(f"{SMALL}_{attention}{tail}", classes=14).eval()
    plain = without_attention(hybrid, f"{SMALL}_none{tail}")
    images = gray(2, 64)
    assert torch.equal(hybrid(images), plain(images))


@pytest.mark.parametrize("tail", ["", "_ms"])
def test_every_attention_changes_what_a_model_says(tail: str) -> None:
    models = {attention: awakened(f"test_convnext_{attention}{tail}").eval() for attention in ATTENTIONS}
    plain = models["none"].state_dict()
    for model in models.values():
        model.load_state_dict(plain, strict=False)
    logits = [model(gray(2, 64)) for model in models.values()]
    for one, other in itertools.combinations(logits, 2):
        assert not torch.allclose(one, other, atol=1e-5)


def test_se_multiplies_each_channel_by_what_all_channels_say_on_average() -> None:
    model = build_model("resnet10t_se", classes=14).eval()
    features, _ = model.features(model.normalised(gray(2, 64)))
    se = model.get_submodule("attention")
    squeezed = torch.relu(
        features.mean(dim=(2, 3)) @ se.get_parameter("fc1.weight").flatten(1).T + se.get_parameter("fc1.bias")
    )
    excited = torch.sigmoid(squeezed @ se.get_parameter("fc2.weight").flatten(1).T + se.get_parameter("fc2.bias"))
    assert squeezed.shape == (2, 512 // 16)
    pooled = features.mean(dim=(2, 3)) * excited
    assert torch.allclose(model(gray(2, 64)), model.classifier(pooled), atol=1e-5)


def test_cbam_multiplies_channels_then_places() -> None:
    torch.manual_seed(0)
    model = build_model("resnet10t_cbam", classes=14).eval()
    features, _ = model.features(model.normalised(gray(2, 96)))
    cbam = model.get_submodule("attention")
    first, second = (cbam.get_parameter(f"channel.fc{n}.weight").flatten(1).T for n in (1, 2))
    says = [torch.relu(pooled @ first) @ second for pooled in (features.mean(dim=(2, 3)), features.amax(dim=(2, 3)))]
    channels = features * torch.sigmoid(says[0] + says[1])[:, :, None, None]
    places = torch.stack([channels.mean(dim=1), channels.amax(dim=1)], dim=1)
    kernel = cbam.get_parameter("spatial.conv.conv.weight")
    assert kernel.shape == (1, 2, 7, 7)
    norm = cbam.get_submodule("spatial.conv.bn")
    gated = channels * torch.sigmoid(norm(F.conv2d(places, kernel, padding=3)))
    assert torch.allclose(model(gray(2, 96)), model.classifier(gated.mean(dim=(2, 3))), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("efficientnet_b0", (40, 112)),
        ("convnext_tiny", (192, 384)),
        ("mobilenet_v3_large", (40, 112)),
        ("mobilenet_v3_small", (24, 48)),
    ],
)
def test_multi_scale_pools_the_maps_of_an_eighth_and_a_sixteenth_too(name: str, widths: tuple[int, int]) -> None:
    model = build_model(f"{name}_none_ms", classes=14).eval()
    with torch.no_grad():
        last, finer = model.features(model.normalised(gray(1, 128)))
    assert [tuple(each.shape) for each in finer] == [(1, widths[0], 16, 16), (1, widths[1], 8, 8)]
    assert last.shape[2:] == (4, 4)
    width = last.shape[1]
    added = 2 * sum(widths) + sum(widths) * (width // 2)  # two LayerNorms, and their share of the first linear layer
    assert parameters(model) == parameters(build_model(name, classes=14)) + added


def test_multi_scale_concatenates_normed_means_finest_first() -> None:
    model = build_model("resnet10t_none_ms", classes=14).eval()
    seen: dict[str, Tensor] = {}
    for layer in ("layer2", "layer3", "layer4"):
        hook: Callable[..., None] = lambda _, __, out, layer=layer: seen.update({layer: out.mean(dim=(2, 3))})  # noqa: E731
        model.backbone.get_submodule(layer).register_forward_hook(hook)
    logits = model(gray(2, 64))
    fine, middle = (F.layer_norm(seen[layer], seen[layer].shape[1:]) for layer in ("layer2", "layer3"))
    expected = model.classifier(torch.cat([fine, middle, seen["layer4"]], dim=1))
    assert torch.allclose(logits, expected, atol=1e-6)


@pytest.mark.parametrize(
    "backbone",
    ["test_efficientnet", "test_convnext", "test_mambaout", "test_resnet", "mobilenet_v3_small", "levit_128s"],
)
def test_multi_scale_leaves_the_last_map_what_it_was(backbone: str) -> None:
    torch.manual_seed(0)
    model = build_model(f"{backbone}_none_ms", classes=14).eval()
    plain = build_model(backbone, classes=14).eval()
    plain.backbone.load_state_dict(model.backbone.state_dict())
    size = 224 if backbone == "levit_128s" else 64
    images = model.normalised(gray(1, size))
    with torch.no_grad():
        assert torch.equal(model.tokens(images), plain.tokens(images))
        assert model(gray(1, size)).shape == (1, 14)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("test_vit_ms", "'test_vit' has not three stages to pool; leave _ms off"),
        ("test_vit_mhsa_ms", "'test_vit' has not three stages"),
        ("volo_d1_224_none_ms", "has not three stages"),
        ("test_vit_se", "_se wants a feature map, 'test_vit' gives tokens; use _mhsa"),
        ("levit_128s_cbam", "_cbam wants a feature map"),
    ],
)
def test_what_a_backbone_cannot_give_is_refused_with_the_config(name: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as found:
        RunConfig().with_settings({"model": name})
    assert "\n" not in str(found.value)


def test_a_backbone_is_asked_without_touching_the_seed() -> None:
    anatomy.cache_clear()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert anatomy("resnet10t").finer == (Stage(2, 128), Stage(3, 256))
    assert torch.equal(torch.get_rng_state(), before)


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


@pytest.mark.parametrize("tail", ["performer", "se", "cbam_ms"])
def test_the_same_seed_builds_the_same_model(tail: str) -> None:
    def built() -> dict[str, Any]:
        torch.manual_seed(3)
        return build_model(f"{SMALL}_{tail}", classes=14).state_dict()

    anatomy.cache_clear()
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
        ("convnext_tiny_cbam", "convnext_tiny_cbam"),
        ("efficientnet_b0_ms", "efficientnet_b0_none_ms"),
        ("resnet10t_se_ms", "resnet10t_se_ms"),
        ("test_vit_mhsa", "test_vit_mhsa"),
    ],
)
def test_a_name_is_backbone_and_attention(given: str, full: str) -> None:
    assert full_name(given) == full


def test_the_labs_names_are_timms_models() -> None:
    assert timm_name("mobilenet_v3_large_mhsa") == "mobilenetv3_large_100"
    assert timm_name("mobilenet_v3_small") == "mobilenetv3_small_100"
    assert timm_name("resnet10t_none") == "resnet10t"


def test_no_backbone_of_timm_is_taken_for_a_backbone_with_attention() -> None:
    assert [name for name in timm.list_models() if full_name(name) != f"{name}_none"] == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("eficientnet_b0_mhsa", "efficientnet_b0"),
        ("efficientnet_b0_msha", "efficientnet_b0_mhsa"),
        ("efficientnet_bo", "efficientnet_b0"),
        ("convnext_tiny_cbm", "convnext_tiny_cbam"),
        ("convnext_tiny_cbm_ms", "convnext_tiny_cbam_ms"),
        ("resnet10_mhsa", "resnet10t"),
    ],
)
def test_a_misspelt_model_is_answered_with_a_suggestion(name: str, meant: str) -> None:
    with pytest.raises(BadInput, match=rf"unknown backbone '\w+'; did you mean '{meant}'\?"):
        full_name(name)


@pytest.mark.parametrize("name", ["qqqqqqqqqqqqq", "mhsa", "", "_mhsa", "_ms", "ms"])
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


@pytest.mark.parametrize("tail", ["mhsa_ms", "performer", "se", "cbam"])
def test_a_hybrid_exported_to_onnx_answers_as_it_does(tail: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnx and onnxscript")
    runtime = pytest.importorskip("onnxruntime", reason="runs what was exported")
    model, images = awakened(f"test_resnet_{tail}"), gray(3, 64)
    with torch.no_grad():
        model(images)  # moves the batch norms off their start
        model.get_parameter("classifier.2.weight").mul_(20)
    program = torch.onnx.export(
        model.eval(), (images,), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    assert program is not None
    program.save(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for batch in (gray(1, 64, seed=1), gray(4, 64, seed=2)):
        with torch.no_grad():
            expected = model(batch)
        found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0])
        assert expected.abs().max() > 0.5
        assert torch.allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "shape", "count"),
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (1, 3, 10, 10), 5 * 5 * 8 * 3 * 9),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (2, 8, 10, 10), 2 * 10 * 10 * 8 * 9),
        (nn.Linear(7, 5), (1, 7), 35),
        (nn.Linear(7, 5), (2, 9, 7), 2 * 9 * 35),
        (MultiHeadSelfAttention(128), (1, 49, 128), 4 * 49 * 128**2 + 2 * 49**2 * 128),
        # 64 ln 64 = 267 features a head, for q and k, for the summary and its use; then the norm
        (Performer(128), (1, 49, 128), 4 * 49 * 128**2 + 4 * 49 * 267 * 128 + 49 * 267 * 2),
    ],
)
def test_multiply_accumulates_are_those_counted_by_hand(layer: nn.Module, shape: tuple[int, ...], count: int) -> None:
    assert macs(layer, torch.zeros(shape)) == count


@pytest.mark.parametrize(("backbone", "paper"), [("efficientnet_b0", 0.39e9), ("mobilenet_v3_small", 56e6)])
def test_backbones_cost_what_their_papers_say(backbone: str, paper: float) -> None:
    assert cost_of(backbone).macs == pytest.approx(paper, rel=0.03)


def test_a_hybrids_cost_is_its_backbones_and_its_attentions() -> None:
    plain, hybrid = cost_of("mobilenet_v3_small_none"), cost_of("mobilenet_v3_small_mhsa")
    width, tokens = 576, 49
    assert hybrid.macs - plain.macs == 4 * tokens * width**2 + 2 * tokens**2 * width
    assert hybrid.parameters - plain.parameters == 4 * width**2 + 4 * width
    assert (hybrid.name, hybrid.size) == ("mobilenet_v3_small_mhsa", 224)
    assert hybrid.latency_ms > 0


def test_performer_costs_at_49_tokens_and_saves_from_537_on() -> None:
    found = performer_cost(49)
    features = 267 * 1280 * 4 + 267 * 20  # a token, in 20 heads of 64 channels
    assert found.parameters == 4 * 1280**2 + 4 * 1280
    assert found.performer_macs - found.mhsa_macs == 49 * features - 2 * 49**2 * 1280 > 0
    assert found.even_at == 537
    assert 537 * features < 2 * 537**2 * 1280
    assert 536 * features > 2 * 536**2 * 1280
    line = cost.performer_line(found)
    assert "at 49 tokens of 1,280 channels" in line
    assert "388 M MACs against 327 M of mhsa (+19%)" in line
    assert "from 537 tokens on (images of 768 px)" in line


def test_latency_is_the_fastest_of_timed_passes_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    before, threads = torch.get_num_threads(), set()

    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            threads.add(torch.get_num_threads())
            now[0] += next(takes)
            return x

    now, takes = [0.0], iter([100.0] * cost.WARM_UP + [50.0] * 7 + [0.002] + [50.0] * 7)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    torch.set_num_threads(2)
    try:
        assert latency_ms(Layer(), torch.zeros(1)) == pytest.approx(2.0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == {1}
    assert next(takes, None) is None


def test_measuring_leaves_the_seed_as_it_was() -> None:
    before = torch.get_rng_state()
    cost_of(f"{SMALL}_performer_ms", 64)
    performer_cost(4, 64)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        (SMALL, 16, "--size 16: expected at least 32 pixels"),
        (SMALL, -1, "--size -1: expected at least 32 pixels"),
        ("vit_tiny_patch16_224", 96, "model 'vit_tiny_patch16_224_none' cannot be trained on images of 96 pixels"),
        ("convnext_tin_mhsa", 64, "did you mean 'convnext_tiny'"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(name: str, size: int, says: str) -> None:
    with pytest.raises(BadInput, match=says) as found:
        cost_of(name, size)
    assert "\n" not in str(found.value)


def test_a_table_has_a_row_for_each_model_and_a_line_on_performer() -> None:
    steps: list[tuple[int, int]] = []
    table = cost_table([SMALL, f"{SMALL}_cbam_ms"], 64, lambda done, total: steps.append((done, total)))
    assert [each.name for each in table.costs] == [f"{SMALL}_none", f"{SMALL}_cbam_ms"]
    assert steps == [(0, 2), (1, 2), (2, 2)]
    assert table.performer.tokens == 4
    assert json.loads(json.dumps(cost.as_json(table)))["costs"][1]["macs"] == table.costs[1].macs


def test_a_table_is_plain_text_with_aligned_columns() -> None:
    costs = (
        Cost("convnext_tiny_mhsa", 224, 30_483_182, 4_573_900_000, 121.94),
        Cost("a_none", 224, 9_000, 10**9, 0.04),
    )
    header, *rows = cost.render(cost.CostTable(costs, performer_cost(1, 64))).splitlines()
    assert rows[0].split() == ["convnext_tiny_mhsa", "30.483", "M", "4.574", "G", "121.9", "ms"]
    assert rows[1].split() == ["a_none", "0.009", "M", "1.000", "G", "0.0", "ms"]
    assert len({len(line) for line in (header, *rows[:2])}) == 1
    assert "One image of 224 x 224 px" in rows[3]
    assert rows[4].startswith("Performer at 1 tokens of 64 channels")


def folder_of(path: Path, *backbones: str) -> Weights:
    path.mkdir()
    for backbone in backbones:
        safetensors.torch.save_file(tensors_of(backbone), path / f"{backbone}.safetensors")
    return Weights(path=str(path))


def test_a_folder_has_a_file_for_each_backbone(tmp_path: Path) -> None:
    weights = folder_of(tmp_path / "timm", SMALL, "test_resnet")
    for name in (SMALL, "test_resnet"):
        expect_weights(f"{name}_mhsa", weights)
        found = weights.resolved(name)
        assert found == Weights(path=str(tmp_path / "timm" / f"{name}.safetensors")).resolved(name)
        build_model(f"{name}_mhsa", classes=1, weights=found)


def test_a_backbone_that_a_folder_lacks_is_named_with_the_setting(tmp_path: Path) -> None:
    weights = folder_of(tmp_path / "timm", SMALL)
    says = (
        f"^teacher.weights = .*timm: the folder has no test_resnet.safetensors for backbone 'test_resnet'; .* {SMALL}"
    )
    with pytest.raises(BadInput, match=says):
        expect_weights("test_resnet_mhsa", weights, "teacher.weights")


def test_another_backbones_file_is_told_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(tensors_of(SMALL), path)
    with pytest.raises(BadInput, match=r"^teacher.weights = .*: for model 'test_resnet_none': no tensor 'conv1"):
        expect_weights("test_resnet_none", Weights(path=str(path)), "teacher.weights")
    path.write_bytes(b"GIF89a" * 10)
    with pytest.raises(BadInput, match="not a safetensors file"):
        expect_weights("test_resnet_none", Weights(path=str(path)))


@pytest.mark.parametrize("model", ["resnet10t_none", "test_efficientnet_mhsa_ms", "mobileone_s0_none"])
def test_a_model_is_saved_whole_as_torch_saves_it(model: str) -> None:
    """In torch.save's own protocol, which some objects of torch itself do not know."""
    torch.save(build_model(model, classes=3), io.BytesIO())
