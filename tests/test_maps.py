"""Class maps: what Grad-CAM, HiResCAM and occlusion are by definition, and as another package has them."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_model_folder import weights_of
from torch import Tensor, nn

from xlite_search.errors import BadInput
from xlite_search.evaluation import map_notes
from xlite_search.evaluation.cells import Cells, Grid, cells_of, grids_of
from xlite_search.evaluation.correlations import summary
from xlite_search.evaluation.maps import METHODS, as_grid, class_maps, occlusion_maps, signed_maps
from xlite_search.evaluation.occlusion import occlusion_map
from xlite_search.evaluation.sanity import DEPTHS, rank_correlation, reinitialised
from xlite_search.model import Model, load_model
from xlite_search.model_folder import ModelManifest, write_ensemble, write_model
from xlite_search.models.hybrid import Hybrid, build_model

CLASSES = ("Mass", "Hernia", "Edema")
SIZE = 64


def network(name: str, seed: int = 0) -> Hybrid:
    """A hybrid that nobody trained, with an attention that does something and statistics of some images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(name, classes=len(CLASSES)).train()
        projection = getattr(model.attention, "projection", None)
        if projection is not None:
            nn.init.normal_(projection.weight, std=0.2)
        for _ in range(3):
            model(torch.randint(0, 256, (16, 1, SIZE, SIZE), dtype=torch.uint8))
        for parameter in model.classifier[-1].parameters():
            parameter.data *= 1000  # the grad-cam package adds 1e-7 to what it divides by
    return model.eval().requires_grad_(False)


def of(*members: Hybrid) -> Model:
    return Model(ModelManifest(config={}, classes=CLASSES), members, (None,) * len(members))


def images(count: int = 3, size: int = SIZE, seed: int = 1) -> Tensor:
    """Smooth ones, so that a map has something to follow."""
    coarse = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return (nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def stretched(maps: Tensor) -> NDArray[np.float32]:
    """As the package lays cells on an image."""
    return np.asarray(Cells.stretched(SIZE, maps.shape[-1]).enlarged(maps, SIZE).numpy(), np.float32)


def as_package(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Maps on the scale of the grad-cam package, each from 0 to 1."""
    image: Any = import_module("pytorch_grad_cam.utils.image")
    return np.stack([image.scale_cam_image(each) for each in maps])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["test_efficientnet_mhsa", "resnet10t_performer", "mobilenetv3_small_050_cbam"])
def test_maps_are_those_of_the_grad_cam_package(name: str) -> None:
    cam: Any = pytest.importorskip("pytorch_grad_cam")
    targets: Any = import_module("pytorch_grad_cam.utils.model_targets")
    model, batch = network(name), images()
    signed = {method: signed_maps(model, batch, (0, 1, 2), method) for method in METHODS}
    ours = {method: stretched(each.clamp(min=0)) for method, each in signed.items()}
    model.requires_grad_(True)
    seen = 0
    for method, kind in zip(METHODS, (cam.GradCAM, cam.HiResCAM), strict=True):
        with kind(model=model, target_layers=[model.last]) as theirs:
            for finding in range(3):
                said = theirs(input_tensor=batch, targets=[targets.ClassifierOutputTarget(finding)] * len(batch))
                seen += int((said.max(axis=(1, 2)) > 0.9).sum())
                assert np.abs(as_package(ours[method][:, [finding]])[:, 0] - said).max() < 1e-5
                kept = theirs.activations_and_grads
                act, grads = kept.activations[0].detach().numpy(), kept.gradients[0].numpy()
                cells = theirs.get_cam_image(batch, model.last, None, act, grads, False)
                assert np.abs(signed[method][:, finding].numpy() - cells).max() < 1e-5 * np.abs(cells).max()
    assert seen >= 4, "maps that are empty show nothing"


class Plain(nn.Module):
    """Two channels of 2 x 2 cells and a linear head on their means: every map can be written down."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.last = nn.Identity(), nn.Identity()
        self.head = nn.Linear(2, 2)
        self.head.weight.data = torch.tensor([[1.0, 0.0], [-1.0, 2.0]])

    def forward(self, images: Tensor) -> Tensor:
        cells = nn.functional.avg_pool2d(images.float(), images.shape[-1] // 2)
        logits: Tensor = self.head(self.last(torch.cat([cells, 10 - cells], dim=1)).mean(dim=(2, 3)))
        return logits


def test_maps_of_a_network_that_can_be_written_down() -> None:
    plain: Any = Plain()
    cells = torch.tensor([[8.0, 2.0], [0.0, 6.0]])
    batch = cells.repeat_interleave(4, 0).repeat_interleave(4, 1)[None, None].to(torch.uint8)
    # the logit is a mean over 4 cells: the slope at each is weight / 4, and so is its mean
    for method in METHODS:
        signed = signed_maps(plain, batch, (0, 1), method)
        assert torch.allclose(signed[0, 0], cells / 4)
        assert torch.allclose(signed[0, 1], (-cells + 2 * (10 - cells)) / 4)
    # a linear head: the sum of a map is the logit less its constant
    logit = plain(batch)[0] - plain.head.bias
    assert torch.allclose(signed.sum(dim=(2, 3))[0], logit)
    shown = class_maps(of(plain), batch, (0, 1))
    assert shown.shape == (1, 2, 8, 8) and shown.dtype == np.float32
    assert shown[0, 1].min() == 0, "what speaks against a finding is cut"
    assert shown[0, 0, 0, 0] == pytest.approx(2), "raw, not scaled to 1"


def test_a_stretched_map_is_enlarged_as_torch_does_it() -> None:
    maps = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    theirs = nn.functional.interpolate(maps, (64, 64), mode="bilinear", align_corners=False)
    assert torch.allclose(Cells.stretched(64, 5).enlarged(maps, 64), theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "first", "step"),
    [
        ("test_efficientnet_mhsa", 96, 0.5, 32),  # 3 x 3 kernels, stride 2, padding 1: the first place is pixel 0
        ("mobilenetv3_small_050_none", 96, 0.5, 32),
        ("test_convnext_mhsa", 96, 16, 32),  # patches
        ("test_vit_mhsa", 160, 8, 16),
        ("test_resnet_none", 96, 7.5, 32),  # kernels on pixel 0, and shortcuts that are pooled by 2: between the two
    ],
)
def test_cells_lie_where_the_strides_put_them(name: str, size: int, first: float, step: float) -> None:
    assert cells_of(build_model(name, classes=1).eval(), size) == Cells(first, step)


@pytest.mark.parametrize(
    "name",
    ["test_efficientnet_none", "mobilenetv3_small_050_none", "test_convnext_none", "tf_efficientnet_lite0_none"],
)
def test_cells_lie_in_the_middle_of_the_pixels_that_move_them(name: str) -> None:
    """Measured: the pixels that have a gradient to a cell in the middle of a large image."""
    size = 1280 if "lite0" in name else 768
    model = build_model(name, classes=1).eval().requires_grad_(False)
    for module in model.backbone.modules():
        if type(module).__name__ in ("SEModule", "EffectiveSEModule", "EcaModule", "SqueezeExcite"):
            module.forward = lambda x: x  # a gate sees the whole image
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    last = model.features(pixels)[0]
    at = last.shape[-1] // 2
    (slope,) = torch.autograd.grad(last[0, :, at, at].square().sum(), pixels)
    rows = slope.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert rows[0] > 0 and rows[-1] < size - 1, "all of the pixels that it sees are in the image"
    cells = cells_of(model, size)
    assert abs((rows[0] + rows[-1] + 1).item() / 2 - (cells.first + at * cells.step)) <= 1


@pytest.mark.parametrize("name", ["test_vit_mhsa", "test_efficientnet_none_ms", "test_convnext_mhsa"])
def test_families_have_maps_of_the_images_size(name: str) -> None:
    size = 160 if "vit" in name else SIZE
    model = build_model(name, classes=3).eval()
    found = class_maps(of(model), images(2, size), (0, 1, 2))
    assert found.shape == (2, 3, size, size) and np.isfinite(found).all() and (found >= 0).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_tokens_that_are_no_square_are_refused() -> None:
    with pytest.raises(BadInput, match="12 tokens, which are no square grid"):
        as_grid(torch.zeros(1, 12, 4))


def test_a_map_does_not_depend_on_the_batch_or_on_what_else_is_asked() -> None:
    model, batch = of(network("resnet10t_mhsa")), images(4)
    whole = class_maps(model, batch, (0, 1, 2))
    alone = np.concatenate([class_maps(model, image[None], (2,)) for image in batch])
    assert np.abs(alone[:, 0] - whole[:, 2]).max() < 1e-5 * whole.max()
    with torch.no_grad():
        assert np.array_equal(class_maps(model, batch, (0, 1, 2)), whole)


def test_an_ensembles_map_is_the_mean_of_its_members_each_up_to_1(tmp_path: Path) -> None:
    members = network("test_efficientnet_none", 0), network("resnet10t_mhsa", 1)
    about = [ModelManifest(config={"model": name}, classes=CLASSES) for name in ("test_efficientnet", "resnet10t_mhsa")]
    for name, member, manifest in zip("ab", members, about, strict=True):
        write_model(tmp_path / name, weights_of(member), manifest)
    write_ensemble(tmp_path / "both", ["a", "b"])
    one, other = (class_maps(of(member), images(), (1,)) for member in members)
    both = class_maps(load_model(tmp_path / "both"), images(), (1,))
    scaled = [each / np.maximum(each.max(axis=(2, 3), keepdims=True), 1e-30) for each in (one, other)]
    assert np.allclose(both, sum(scaled) / 2, atol=1e-5) and both.max() <= 1


@pytest.mark.parametrize("name", ["test_efficientnet_mhsa", "mobilenetv3_small_050_cbam"])
def test_maps_are_flip_equivariant_where_the_network_is(name: str) -> None:
    """Kernels that are their own mirror image, and an odd side, so that a stride begins at both borders: then nothing
    in a network tells left from right, and the map of the mirrored image is the mirrored map."""
    model, batch = network(name), images(3, 65)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = (module.weight + module.weight.flip(-1)) / 2
    shown, mirrored = (class_maps(of(model), each, (0, 1, 2)) for each in (batch, batch.flip(-1)))
    assert shown.max() > 0
    assert np.abs(mirrored[..., ::-1] - shown).max() < 1e-4 * shown.max()


def test_maps_that_can_be_written_down_are_flip_equivariant() -> None:
    plain: Any = Plain()
    batch = images(4)
    shown, mirrored = class_maps(of(plain), batch, (0, 1)), class_maps(of(plain), batch.flip(-1), (0, 1))
    assert np.allclose(shown, mirrored[..., ::-1], atol=1e-5)


def test_occlusion_finds_the_only_place_that_counts() -> None:
    class Corner(Plain):
        def forward(self, images: Tensor) -> Tensor:
            return images[:, :, 20:30, 40:50].float().mean(dim=(1, 2, 3))[:, None] * torch.tensor([[1.0, -1.0]])

    corner: Any = Corner()
    batch = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)
    batch[..., 20:30, 40:50] = 200
    found = occlusion_maps(of(corner), batch, (0, 1))
    row, column = np.unravel_index(found[0, 0].argmax(), (SIZE, SIZE))
    assert 20 <= row < 30 and 40 <= column < 50
    assert found[0, 0, :8].max() == found[0, 0, :, :20].max() == 0
    assert found[0, 1].max() == 0, "a logit that rises where it is covered has no map"
    assert np.array_equal(found, occlusion_maps(of(corner), batch, (0, 1), batch=7))

    def logits(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(corner(torch.from_numpy(images)).numpy(), np.float32)

    without = occlusion_map(logits, batch[0].numpy(), 0)
    assert np.allclose(without, found[0, 0], atol=1e-4), "the same without PyTorch"


def test_weights_drawn_anew_give_other_maps_and_leave_the_model_and_the_seed() -> None:
    model, batch = of(network("test_efficientnet_mhsa")), images(12)
    before, state = class_maps(model, batch, (0, 1, 2)), torch.get_rng_state()
    for depth in DEPTHS:
        other = reinitialised(model, depth)
        theirs = class_maps(other, batch, (0, 1, 2))
        first, second = (each.models[0].backbone.state_dict().values() for each in (model, other))
        same = all(map(torch.equal, first, second))
        assert same == (depth != "all")
        pairs = zip(before.reshape(-1, SIZE, SIZE), theirs.reshape(-1, SIZE, SIZE), strict=True)
        ranks = np.array([rank_correlation(a, b) for a, b in pairs])
        assert ranks[np.isfinite(ranks)].mean() < 0.7
    assert np.array_equal(class_maps(model, batch, (0, 1, 2)), before)
    assert torch.equal(torch.get_rng_state(), state)
    fresh = (reinitialised(model, "head", seed) for seed in (0, 0, 1))
    weights = [each.models[0].classifier.state_dict()["0.weight"] for each in fresh]
    assert [torch.equal(a, b) for a, b in pairwise(weights)] == [True, False]


def test_rank_correlation_is_spearmans() -> None:
    from scipy.stats import spearmanr

    one, other = np.random.default_rng(0).integers(0, 4, (2, 6, 6)).astype(float)
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)
    assert rank_correlation(one, one**3) == pytest.approx(1)
    assert np.isnan(rank_correlation(one, np.zeros((6, 6))))


def test_a_mean_of_rank_correlations_has_an_interval_by_groups() -> None:
    found = summary([0.2, 0.4, 0.6, 0.8, np.nan], ["a", "a", "b", "b", "b"])
    assert (found["pairs"], found["without"]) == (4, 1)
    # means of the groups 0.3 and 0.7: standard error 0.2, Student's 12.706 with one degree of freedom
    assert [found[name] for name in ("rank_correlation", "low", "high")] == pytest.approx([0.5, -1, 1])
    many = summary([0.4, 0.5, 0.6], [1, 2, 3])
    assert many["high"] == pytest.approx(0.5 + 4.30265 * 0.1 / 3**0.5)
    assert summary([0.5, 0.6], [1, 1])["low"] is None and summary([np.nan], [1])["rank_correlation"] is None


def test_notes_on_rank_correlations_have_the_number_of_pairs_and_what_signs_mean() -> None:
    found = summary([-0.1, -0.2, -0.3], [1, 2, 3])
    (told,) = map_notes.of_other_weights(dict.fromkeys(DEPTHS, found))
    assert "below 0 high where the other is low: head -0.20 (-0.45 to 0.05, 3 pairs), attention -0.20" in told
    (told,) = map_notes.of_occlusion(summary([0.3], [1]) | {"boxed": 0})
    assert "rank correlation with these maps 0.30 (1 pair)" in told and "0 unrelated" in told


def test_grids_are_each_told_once_the_finest_first() -> None:
    members = [network("resnet10t_none"), network("resnet10t_none", 1)]
    assert grids_of(members, SIZE) == [Grid(2, 32)] and Grid(2, 32.0).words == "2 x 2 cells of 32 px"
