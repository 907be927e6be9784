"""Lenses: from a ModEmbed's tokens [b, n, d] to the tokens [b, m, D] that a frozen ViT expects after its patch embedding.

Structure and key names of the perceiver follow the released ViT-Lens weights (arXiv 2311.16081): every layer is one
cross attention from the latents to the tokens, its feed-forward, and a stack of latent self attentions with theirs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.embed import normal
from vitlens.errors import OptionError
from vitlens.lens_config import IdentityConfig, LensConfig, PerceiverConfig
from vitlens.vit import FrozenViT, ViT


class IdentityLens(nn.Module):
    """[b, n, D] -> [b, n, D], unchanged."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


class SelfAttentionLens(nn.Module):
    """[b, n, D] -> [b, n, D] through transformer blocks, each called with `arguments` beside the tokens."""

    def __init__(self, blocks: nn.ModuleList, arguments: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.blocks = blocks
        self.arguments = dict(arguments or {})

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            out = block(tokens, **self.arguments)
            tokens = out[0] if isinstance(out, tuple) else out
        return tokens


class PerceiverLens(nn.Module):
    """[b, n, d] -> [b, latents, D]: learned latents look at the tokens again and again."""

    def __init__(
        self,
        *,
        input_width: int,
        width: int,
        latents: int,
        depth: int,
        self_per_cross: int = 1,
        cross_heads: int = 1,
        heads: int = 16,
        head_width: int = 64,
        tied: bool = False,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(normal(latents, width))

        def new_layer() -> nn.ModuleList:
            cross = PreNorm(
                width, Attention(width, input_width, heads=cross_heads, head_width=head_width), context_width=input_width
            )
            stack = nn.ModuleList(
                nn.ModuleList(
                    [
                        PreNorm(width, Attention(width, width, heads=heads, head_width=head_width)),
                        PreNorm(width, FeedForward(width)),
                    ]
                )
                for _ in range(self_per_cross)
            )
            return nn.ModuleList([cross, PreNorm(width, FeedForward(width)), stack])

        layers = [new_layer() for _ in range(min(depth, 2) if tied else depth)]
        self.layers = nn.ModuleList(layers + [layers[1]] * (depth - 2) if tied and depth > 2 else layers)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.latents.expand(tokens.shape[0], -1, -1)
        for cross_attention, feed_forward, stack in cast(Any, self.layers):
            x = x + cross_attention(x, tokens)
            x = x + feed_forward(x)
            for self_attention, stack_feed_forward in stack:
                x = x + self_attention(x)
                x = x + stack_feed_forward(x)
        return x


class PreNorm(nn.Module):
    """Layer norm before `fn`, on its input and, where there is one, on its context."""

    def __init__(self, width: int, fn: nn.Module, context_width: int | None = None) -> None:
        super().__init__()
        self.fn = fn
        self.norm = nn.LayerNorm(width)
        if context_width is not None:
            self.norm_context = nn.LayerNorm(context_width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None:
            return self.fn(self.norm(x))
        return self.fn(self.norm(x), self.norm_context(context))


class Attention(nn.Module):
    """Multi-head attention of x [b, m, D] to context [b, n, d] (or to itself); only the output projection has a bias."""

    def __init__(self, width: int, context_width: int, *, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(context_width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        keys, values = self.to_kv(x if context is None else context).chunk(2, dim=-1)
        query, key, value = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.to_q(x), keys, values))
        out = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers around a gated GELU (GEGLU, arXiv 2002.05202): the second half gates the first."""

    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, 2 * ratio * width), GatedGELU(), nn.Linear(ratio * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class GatedGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x, gate = x.chunk(2, dim=-1)
        return x * F.gelu(gate)


def build_lens(config: LensConfig | None, *, input_width: int, vit: ViT) -> nn.Module:
    """Build the lens `config` describes between a ModEmbed of `input_width` and `vit` (whose blocks a pretrained lens copies).

    Raises:
        OptionError: a width or number of heads that does not fit.
    """
    config = config or IdentityConfig()
    if isinstance(config, PerceiverConfig):
        head_width = config.head_width or vit.head_width
        latents = vit.patches if config.latents is None else config.latents
        if vit.width % head_width:
            raise OptionError(f"perceiver lens: width {vit.width} is not divisible by head_width {head_width}")
        return PerceiverLens(
            input_width=input_width,
            width=vit.width,
            latents=latents,
            depth=config.depth,
            self_per_cross=config.self_per_cross,
            cross_heads=config.cross_heads,
            heads=vit.width // head_width,
            head_width=head_width,
            tied=config.tied,
        )
    if input_width != vit.width:
        raise OptionError(f"a {config.kind} lens keeps the token width: found {input_width}, the ViT takes {vit.width}")
    if isinstance(config, IdentityConfig):
        return IdentityLens()
    if config.pretrained:
        if not isinstance(vit, FrozenViT) or vit.rope is not None or config.depth > len(vit.blocks):
            rotary = isinstance(vit, FrozenViT) and vit.rope is not None
            found = "one with rotary positions" if rotary else f"{len(vit.blocks)} blocks"
            raise OptionError(f"self-attention lens: {config.depth} pretrained blocks of a ViT are needed, found {found}")
        blocks = copy.deepcopy(nn.ModuleList(vit.blocks[: config.depth])).requires_grad_(True)
        return SelfAttentionLens(blocks, vit.block_arguments)
    heads = config.heads or max(1, vit.width // 64)
    if vit.width % heads:
        raise OptionError(f"self-attention lens: width {vit.width} is not divisible by {heads} heads")
    return SelfAttentionLens(nn.ModuleList(_new_block(vit.width, heads) for _ in range(config.depth)))


def _new_block(width: int, heads: int) -> nn.Module:
    from timm.models.vision_transformer import Block

    return Block(width, heads, mlp_ratio=4.0, qkv_bias=True)
