"""Cost of a model: parameters, multiply-accumulates (MACs), and latency of one image on one CPU thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from xlite_search.errors import BadInput
from xlite_search.models.attention import MultiHeadSelfAttention, Performer
from xlite_search.models.hybrid import build_model, expect_size, full_name, parameters

CLASSES = 14
WARM_UP, REPEATS = 3, 15
STRIDE = 32  # pixels a side of one token of the last map
PERFORMER_WIDTH = 1280  # EfficientNet-B0's last map


@dataclass(frozen=True)
class Cost:
    """Of one image `[1, 1, size, size]`.

    `latency_ms` is the fastest of some passes on one CPU thread: what else the machine does disturbs that least.
    """

    name: str
    size: int
    parameters: int
    macs: int
    latency_ms: float


@dataclass(frozen=True)
class PerformerCost:
    """Performer beside exact attention over `tokens` places of `width` channels, as whole layers, with projections.

    `even_at`: the least number of tokens from which Performer takes fewer MACs. Mixing n tokens takes 2 n^2 C MACs
    exactly, and by m random features a head a multiple of n (4 n m C and the norm, n m for each head).
    """

    tokens: int
    width: int
    parameters: int
    mhsa_macs: int
    performer_macs: int
    mhsa_ms: float
    performer_ms: float
    even_at: int


@dataclass(frozen=True)
class CostTable:
    costs: tuple[Cost, ...]
    performer: PerformerCost


def cost_of(name: str, size: int = 224, *, classes: int = CLASSES) -> Cost:
    """Builds a hybrid with random weights and measures it; leaves torch's seed as it was.

    Raises:
        BadInput: the name is unknown, or the model takes no images of `size` pixels.
    """
    name = full_name(name)
    if size < STRIDE:
        raise BadInput(f"--size {size}: expected at least {STRIDE} pixels, one place of the last feature map")
    expect_size(name, size)
    with torch.random.fork_rng(devices=[]):
        model = build_model(name, classes=classes).eval()
    image = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    return Cost(name, size, parameters(model), macs(model, image), latency_ms(model, image))


def macs(model: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates of a forward pass: convolutions, linear layers and attention's products, nothing else.

    torch counts two flops for each. It does not count its fused attention on a CPU, hence the plain one here.
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(*inputs)
    return int(counter.get_total_flops()) // 2


def latency_ms(model: nn.Module, *inputs: Tensor) -> float:
    """Least time of some forward passes on one thread after a warm-up, in milliseconds."""
    with one_thread(), torch.inference_mode():
        for _ in range(WARM_UP):
            model(*inputs)
        return 1000 * min(_seconds(model, *inputs) for _ in range(REPEATS))


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seconds(model: nn.Module, *inputs: Tensor) -> float:
    started = time.perf_counter()
    model(*inputs)
    return time.perf_counter() - started


def performer_cost(tokens: int, width: int = PERFORMER_WIDTH) -> PerformerCost:
    """Performer beside exact attention, `tokens` places of `width` channels."""
    with torch.random.fork_rng(devices=[]):
        exact, performer = MultiHeadSelfAttention(width).eval(), Performer(width).eval()
        places = torch.randn(1, tokens, width)
    projections = 4 * tokens * width**2
    exact_macs, performer_macs = macs(exact, places), macs(performer, places)
    linear, quadratic = (performer_macs - projections) / tokens, (exact_macs - projections) / tokens**2
    return PerformerCost(
        tokens=tokens,
        width=width,
        parameters=parameters(performer),
        mhsa_macs=exact_macs,
        performer_macs=performer_macs,
        mhsa_ms=latency_ms(exact, places),
        performer_ms=latency_ms(performer, places),
        even_at=math.floor(linear / quadratic) + 1,
    )


def cost_table(
    names: Sequence[str], size: int = 224, progress: Callable[[int, int], None] = lambda done, total: None
) -> CostTable:
    """The costs of some hybrids, and Performer's at as many tokens as the last map of such images has."""
    names = [full_name(name) for name in names]
    costs: list[Cost] = []
    for name in names:
        progress(len(costs), len(names))
        costs.append(cost_of(name, size))
    progress(len(costs), len(names))
    return CostTable(tuple(costs), performer_cost(math.ceil(size / STRIDE) ** 2))


def as_json(table: CostTable) -> dict[str, Any]:
    return asdict(table)


def render(table: CostTable) -> str:
    """A plain table, what its columns mean, and a line on Performer."""
    wide = max(len("model"), *(len(cost.name) for cost in table.costs))
    lines = [f"{'model':{wide}}  {'parameters':>11}  {'MACs':>8}  {'latency':>9}"]
    lines += [
        f"{cost.name:{wide}}  {cost.parameters / 1e6:9.3f} M  {cost.macs / 1e9:6.3f} G  {cost.latency_ms:6.1f} ms"
        for cost in table.costs
    ]
    size = table.costs[0].size
    lines += [
        "",
        f"One image of {size} x {size} px, {CLASSES} findings. MACs of convolutions, linear layers and attention; "
        f"latency on one CPU thread, the fastest of {REPEATS} passes.",
        performer_line(table.performer),
    ]
    return "\n".join(lines)


def performer_line(cost: PerformerCost) -> str:
    exact, favor = cost.mhsa_macs / 1e6, cost.performer_macs / 1e6
    side = STRIDE * math.ceil(math.sqrt(cost.even_at))
    return (
        f"Performer at {cost.tokens:,} tokens of {cost.width:,} channels, as a layer: {favor:,.0f} M MACs against "
        f"{exact:,.0f} M of mhsa ({favor / exact - 1:+.0%}), {cost.performer_ms:.1f} ms against {cost.mhsa_ms:.1f} ms, "
        f"as many parameters; it saves MACs from {cost.even_at:,} tokens on (images of {side} px)."
    )
