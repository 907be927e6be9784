"""The parts of the SEED-2 tokenizer, as modules whose state-dict keys are the published ones.

An EVA ViT (q and v biased, k not), a Q-Former without its text branch, and plain pre-norm transformer blocks.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EvaViT(nn.Module):
    """EVA ViT without a final norm: pixels [b, 3, s, s] -> hidden states [b, 1 + n, D] (arXiv 2211.07636)."""

    def __init__(self, *, image_size: int, patch_size: int, width: int, depth: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (image_size // patch_size) ** 2, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch_size, stride=patch_size)})
        self.blocks = nn.ModuleList(Block(width, heads, mlp, key_bias=False) for _ in range(depth))

    @property
    def convolution(self) -> nn.Conv2d:
        """The patch convolution."""
        return cast(nn.Conv2d, self.patch_embed["proj"])

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.convolution(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x


class Block(nn.Module):
    """Pre-norm transformer block, [b, n, D] -> [b, n, D]; layer norms with eps 1e-6."""

    def __init__(self, width: int, heads: int, mlp: int, *, key_bias: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SeedAttention(width, heads, key_bias=key_bias)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, mlp), "fc2": nn.Linear(mlp, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class SeedAttention(nn.Module):
    """Self attention with one projection for query, key and value.

    Without `key_bias` the biases of query and value stand alone, as EVA keeps them.
    """

    def __init__(self, width: int, heads: int, *, key_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=key_bias)
        if not key_bias:
            self.q_bias = nn.Parameter(torch.zeros(width))
            self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.qkv.bias
        if bias is None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        query, key, value = F.linear(x, self.qkv.weight, bias).chunk(3, dim=-1)
        return self.proj(attend(query, key, value, self.heads))


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, *, causal: bool = False) -> Tensor:
    """Multi-head attention of [b, m, D] to [b, n, D]."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


class QFormer(nn.Module):
    """Queries [b, m, d] look at hidden states [b, n, D] -> [b, m, d] (BLIP-2, arXiv 2301.12597), the text branch left out.

    `causal`: a query sees itself and the queries before it, which gives SEED's codes their order (arXiv 2310.01218).
    Cross attention stands in every `cross_every`-th layer, from the first on.
    """

    def __init__(
        self,
        *,
        hidden: int,
        context: int,
        layers: int,
        heads: int,
        intermediate: int,
        cross_every: int,
        causal: bool,
        positions: int,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.bert = nn.ModuleDict(
            {
                "embeddings": _Embeddings(hidden, positions),
                "encoder": nn.ModuleDict(
                    {
                        "layer": nn.ModuleList(
                            _Layer(hidden, heads, intermediate, context if i % cross_every == 0 else None) for i in range(layers)
                        )
                    }
                ),
            }
        )

    def forward(self, queries: Tensor, states: Tensor) -> Tensor:
        x = self.bert["embeddings"](queries)
        for layer in cast(nn.ModuleList, cast(nn.ModuleDict, self.bert["encoder"])["layer"]):
            x = layer(x, states, causal=self.causal)
        return x


class _Embeddings(nn.Module):
    """The norm before the first layer; `position_ids` belongs to the text branch and is kept because files hold it."""

    position_ids: Tensor

    def __init__(self, hidden: int, positions: int) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)
        self.register_buffer("position_ids", torch.arange(positions).unsqueeze(0))

    def forward(self, queries: Tensor) -> Tensor:
        return self.LayerNorm(queries)


class _Layer(nn.Module):
    """A BERT layer: self attention, cross attention where `context` gives the width of what it looks at, feed-forward."""

    def __init__(self, hidden: int, heads: int, intermediate: int, context: int | None) -> None:
        super().__init__()
        self.attention = _BertAttention(hidden, hidden, heads)
        self.crossattention = None if context is None else _BertAttention(hidden, context, heads)
        self.intermediate_query = nn.ModuleDict({"dense": nn.Linear(hidden, intermediate)})
        self.output_query = _Output(intermediate, hidden)

    def forward(self, x: Tensor, states: Tensor, *, causal: bool) -> Tensor:
        x = self.attention(x, x, causal=causal)
        if self.crossattention is not None:
            x = self.crossattention(x, states)
        return self.output_query(F.gelu(self.intermediate_query["dense"](x)), x)


class _BertAttention(nn.Module):
    def __init__(self, hidden: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        widths = {"query": hidden, "key": context, "value": context}
        self.self = nn.ModuleDict({name: nn.Linear(width, hidden) for name, width in widths.items()})
        self.output = _Output(hidden, hidden)

    def forward(self, x: Tensor, states: Tensor, *, causal: bool = False) -> Tensor:
        query, key, value = self.self["query"](x), self.self["key"](states), self.self["value"](states)
        return self.output(attend(query, key, value, self.heads, causal=causal), x)


class _Output(nn.Module):
    """Projection, residual, norm after it."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + residual)
