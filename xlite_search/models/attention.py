"""Attention over the tokens of a feature map: exact (MHSA) or by positive random features (Performer).

Both take and give `[batch, token, channel]`, with one qkv and one output projection, both with biases: 4 C^2 + 4 C
parameters. The output projection starts at zero, so that a hybrid begins as its plain backbone and the pretrained
features are not shaken by a random residual.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_WIDTH = 64
FEATURE_SEED = 20_201_009


def heads_for(width: int) -> int:
    """Heads of about 64 channels, the nearest number that divides the width."""
    heads = max(1, width // HEAD_WIDTH)
    while width % heads:
        heads -= 1
    return heads


class MultiHeadSelfAttention(nn.Module):
    """softmax(q k' / sqrt(d)) v (Vaswani et al. 2017), written so that it exports to ONNX."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = heads_for(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = self.attend(query, key, value)
        out: Tensor = self.projection(mixed.transpose(1, 2).reshape(batch, length, width))
        return out

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`[batch, head, token, d]` each, and the result."""
        return F.scaled_dot_product_attention(query, key, value)


class Performer(MultiHeadSelfAttention):
    """FAVOR+ (Choromanski et al. 2021): softmax attention estimated in time linear in the tokens.

    The orthogonal random features are fixed (drawn once from a seed of their own), so the model is a deterministic
    function. With the 7 x 7 = 49 tokens of a 224 px image it saves nothing: it takes fewer MACs from some 540 tokens
    on, and, beside torch's fused attention on one CPU thread, less time from some thousands only (see `cost.py`).
    """

    features: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width)
        d = width // self.heads
        count = max(d, math.ceil(d * math.log(d))) if d > 1 else 1
        self.register_buffer("features", orthogonal_features(count, d), persistent=False)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        exact = torch.autocast(query.device.type, enabled=False) if not query.is_meta else nullcontext()
        with exact:
            q, k = self._positive(query.float(), per_token=True), self._positive(key.float(), per_token=False)
            summary = torch.einsum("bhnm,bhnd->bhmd", k, value.float())
            norm = torch.einsum("bhnm,bhm->bhn", q, k.sum(dim=2))
            mixed = torch.einsum("bhnm,bhmd->bhnd", q, summary) / norm.unsqueeze(-1)
        return mixed.to(value.dtype)

    def _positive(self, x: Tensor, *, per_token: bool) -> Tensor:
        """exp(w x - |x|^2 / 2), `[batch, head, token, feature]`, scaled against overflow by a factor that cancels."""
        x = x * x.shape[-1] ** -0.25
        projected = x @ self.features.T
        largest = projected.amax(dim=-1, keepdim=True) if per_token else projected.amax(dim=(-1, -2), keepdim=True)
        return torch.exp(projected - x.square().sum(dim=-1, keepdim=True) / 2 - largest.detach()) + 1e-6


def orthogonal_features(count: int, d: int) -> Tensor:
    """Gaussian vectors, orthogonal within blocks of `d`, `[count, d]`."""
    generator = torch.Generator().manual_seed(FEATURE_SEED)
    blocks = []
    for _ in range(math.ceil(count / d)):
        directions, _ = torch.linalg.qr(torch.randn(d, d, generator=generator))
        lengths = torch.randn(d, d, generator=generator).norm(dim=1, keepdim=True)
        blocks.append(directions * lengths)
    return torch.cat(blocks)[:count]
