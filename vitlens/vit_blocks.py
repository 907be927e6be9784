"""The transformer block of CLIP's ViTs and text towers, and the one way its attention is computed.

Names of parameters are open_clip's, and so those of the released files: `ln_1`, `attn.in_proj_weight`, `attn.out_proj`, `ln_2`,
`mlp.c_fc`, `mlp.c_proj`, and `ls_1.gamma`, `ls_2.gamma` where there is layer scale.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.MultiheadAttention):
    """torch's multi-head attention with other arithmetic: one linear for queries, keys and values,
    `scaled_dot_product_attention`, one linear, all on tokens [b, n, D] as they come.

    torch itself hands a transposed view to the first linear. Where its weight is frozen, but a gradient goes to the tokens or
    autocast is on, that becomes one small product for each token: many times slower in bfloat16, and slower in float32.
    It stays a `nn.MultiheadAttention`, so that whoever knows that class (peft) knows this one.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, batch_first=True)

    @classmethod
    def of(cls, other: nn.MultiheadAttention) -> Attention:
        """The same attention computed our way; the parameters are shared."""
        with torch.device("meta"):
            made = cls(other.embed_dim, other.num_heads)
        made.in_proj_weight, made.in_proj_bias, made.out_proj = other.in_proj_weight, other.in_proj_bias, other.out_proj
        return made.train(other.training)

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """[b, n, D] -> ([b, n, D], None); without `key` and `value` tokens look at each other; `attn_mask` [n, m] is added."""
        if need_weights:
            raise ValueError("attention weights are never made here: need_weights=False")
        key = query if key is None else key
        value = key if value is None else value
        if key is query and value is query:
            q, k, v = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
            q, k, v = (F.linear(*given) for given in zip((query, key, value), self.in_proj_weight.chunk(3), biases, strict=True))
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=None if attn_mask is None else attn_mask.to(q.dtype))
        # Not self.out_proj(...): while peft trains, its weight is the updated one already.
        return F.linear(out.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias), None


class LayerNorm(nn.LayerNorm):
    """torch's, in the dtype of its input: under autocast the tokens keep their own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(x.dtype)


class QuickGELU(nn.Module):
    """OpenAI's approximation of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class LayerScale(nn.Module):
    """A learned factor for each channel (arXiv 2103.17239)."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(start * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """[b, n, D] -> [b, n, D]: attention and an MLP, each behind a norm and added to what came in."""

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        mlp_width: int,
        eps: float = 1e-5,
        quick_gelu: bool = False,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.ls_1 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.ln_2 = LayerNorm(width, eps=eps)
        layers = {"c_fc": nn.Linear(width, mlp_width), "gelu": QuickGELU() if quick_gelu else nn.GELU()}
        self.mlp = nn.Sequential(OrderedDict(layers, c_proj=nn.Linear(mlp_width, width)))
        self.ls_2 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        x = x + self.ls_1(self.attn(self.ln_1(x), attn_mask=attn_mask)[0])
        return x + self.ls_2(self.mlp(self.ln_2(x)))


def with_our_attention(module: nn.Module) -> nn.Module:
    """A view of a foreign block (or any module) in which torch's attention is computed our way; parameters are shared.

    What is no plain attention over one width with the batch first stays as it is.
    """
    if isinstance(module, nn.MultiheadAttention):
        plain = type(module) is nn.MultiheadAttention and module.batch_first and module._qkv_same_embed_dim
        extras = module.bias_k is not None or module.add_zero_attn or module.dropout
        return Attention.of(module) if plain and not extras else module
    if not any(isinstance(inner, nn.MultiheadAttention) for inner in module.modules()):
        return module
    view = copy.copy(module)  # the owner's module keeps its own attention
    view._modules = {name: None if child is None else with_our_attention(child) for name, child in module._modules.items()}
    return view
