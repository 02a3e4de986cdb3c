"""Every family of timm's backbones: its smallest member trains a step, or is refused by name before anything starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from xlite_search.errors import BadInput
from xlite_search.models.hybrid import build_model, expect_size, full_name, parameters

ROOT = Path(__file__).parents[1]
SIZE = 64

#: one training step of each model that is named, a line when it begins and one when it is over
STEPS = """
import sys, torch
from xlite_search.models.hybrid import build_model
torch.set_num_threads(1)
size = int(sys.argv[1])
for name in sys.argv[2:]:
    print("begins", name, flush=True)
    model = build_model(name, classes=14).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    loss = model(torch.randint(0, 255, (4, 1, size, size), dtype=torch.uint8)).square().mean()
    loss.backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    optimizer.step()
    print("ends", name, bool(torch.isfinite(loss)) and not idle, flush=True)
"""


def outcomes(names: list[str], size: int) -> dict[str, str]:
    """What became of a step of each, in child processes: a broken heap ends the one that it is in."""
    found: dict[str, str] = {}
    while left := [name for name in names if name not in found]:
        command = [sys.executable, "-W", "ignore", "-c", STEPS, str(size), *left]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        lines = [line.split() for line in done.stdout.splitlines()]
        found |= {words[1]: words[2] for words in lines if words[0] == "ends"}
        begun = [words[1] for words in lines if words[0] == "begins"]
        if done.returncode:
            assert begun, done.stderr
            found[begun[-1]] = f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
    return found


@pytest.mark.parametrize(
    "name", ["efficientvit_b0", "repghostnet_050", "hgnetv2_b0", "ghostnet_050", "mobilenetv3_small_050", "resnet10t"]
)
def test_only_what_gets_a_gradient_is_kept_and_counted(name: str) -> None:
    model = build_model(full_name(name), classes=14).train()
    model(torch.randint(0, 255, (2, 1, 64, 64), dtype=torch.uint8)).sum().backward()
    learns = {name: p.numel() for name, p in model.named_parameters() if p.grad is not None}
    assert learns.keys() == {name for name, _ in model.named_parameters()}
    assert parameters(model) == sum(learns.values())


def test_what_cannot_be_taken_out_is_frozen_and_not_counted() -> None:
    """A parameter of a layer that is used, whose own value is not: a distilled transformer's second token's head."""
    model = build_model("vit_tiny_patch16_224_none", classes=14).train()
    model(torch.randint(0, 255, (2, 1, 224, 224), dtype=torch.uint8)).sum().backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None}
    assert idle == {name for name, p in model.named_parameters() if not p.requires_grad}
    assert parameters(model) == sum(p.numel() for name, p in model.named_parameters() if name not in idle)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "levit_128s"])
def test_a_model_that_takes_other_images_only_is_refused_with_what_it_takes(name: str) -> None:
    with pytest.raises(
        BadInput, match=r"images of 64 pixels: it is made for 224 x 224. Prepare the data with --size 224"
    ):
        expect_size(f"{name}_none", 64)
    expect_size(f"{name}_none", 224)


def test_a_model_without_a_feature_map_is_refused() -> None:
    with pytest.raises(
        BadInput, match="'crossvit_9_240_none' cannot be trained here: its backbone gives no feature map"
    ):
        expect_size("crossvit_9_240_none", 240)


def test_asking_leaves_the_seed_where_it_was() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    expect_size("regnetx_002_none", 64)
    assert torch.equal(before, torch.get_rng_state())


def test_a_strided_stem_of_few_channels_is_not_trained_channels_last() -> None:
    """At 224 px its backward pass ends the process otherwise (oneDNN, torch 2.14): hence the child."""
    assert outcomes(["mobileone_s0_none"], 224) == {"mobileone_s0_none": "True"}


def families() -> list[str]:
    """The member with the fewest parameters of each of timm's modules."""
    least: dict[str, tuple[int, str]] = {}
    for name in timm.list_models():
        with torch.device("meta"):
            model: nn.Module = timm.create_model(name, num_classes=0)
        size = sum(p.numel() for p in model.parameters())
        family = timm.models.model_entrypoint(name).__module__
        least[family] = min(least.get(family, (size, name)), (size, name))
    return [name for _, name in least.values()]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_family_trains_a_step_or_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    trained, refused = list[str](), dict[str, str]()
    for name in families():
        try:
            full = full_name(name)
            expect_size(full, SIZE)
        except BadInput as error:
            refused[name] = str(error)
        else:
            trained.append(full)
    assert all(name in sentence for name, sentence in refused.items())
    found = outcomes(trained, SIZE)
    with capsys.disabled():
        print(f"\n{len(trained)} families trained a step at {SIZE} px, {len(refused)} refused:")
        print("\n".join(refused.values()))
    assert {name: outcome for name, outcome in found.items() if outcome != "True"} == {}
