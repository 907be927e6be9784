"""CLIP text anchors: the frozen text tower that the sensors' embeddings are compared with. (The image anchor is the encoder
of the modality "image".)"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from vitlens.errors import OptionError
from vitlens.vit_blocks import with_our_attention


class TextTower(nn.Module):
    """Token ids [b, 77] in, embedding [b, E] out (not normalised): a causal transformer read at the end token.

    The end token has the largest id, so that its place is the argmax over a row (Radford et al., arXiv 2103.00020).
    """

    def __init__(
        self,
        *,
        token_embedding: nn.Embedding,
        positions: Tensor,
        blocks: nn.ModuleList,
        norm_final: nn.Module,
        projection: Tensor,
    ) -> None:
        super().__init__()
        self.token_embedding = token_embedding
        self.positions = nn.Parameter(positions.detach())
        self.blocks = blocks
        self.norm_final = norm_final
        self.projection = nn.Parameter(projection.detach())
        self.requires_grad_(False)

    @property
    def context_length(self) -> int:
        """Number of token ids in a row."""
        return self.positions.shape[0]

    @property
    def embed_dim(self) -> int:
        """Width E of the embedding."""
        return self.projection.shape[1]

    def prepare(self, ids: Tensor) -> Tensor:
        """[b, n] -> [b, n, D]: embedded ids, positions added."""
        return self.token_embedding(ids) + self.positions

    def run_blocks(self, x: Tensor) -> Tensor:
        """[b, n, D] through the transformer; a token sees itself and those before it."""
        length = x.shape[1]
        mask = torch.full((length, length), float("-inf"), device=x.device, dtype=self.positions.dtype).triu(1)
        for block in self.blocks:
            x = block(x, attn_mask=mask)
        return x

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm_final(self.run_blocks(self.prepare(ids)))
        ends = x[torch.arange(x.shape[0], device=x.device), ids.argmax(dim=-1)]
        return ends @ self.projection.to(ends.dtype)


def from_open_clip_text(model: Any) -> TextTower:
    """View the text tower of an open_clip CLIP model; parameters are shared.

    Raises:
        OptionError: a text tower without plain token embedding, end-token pooling or matrix projection.
    """
    text = cast(Any, getattr(model, "text", model))
    plain = isinstance(getattr(text, "token_embedding", None), nn.Embedding) and isinstance(text.text_projection, nn.Parameter)
    pooling = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
    if not plain or pooling != "argmax":
        raise OptionError(f"open_clip text tower {type(text).__name__} with pooling {pooling!r} is not supported")
    return TextTower(
        token_embedding=text.token_embedding,
        positions=text.positional_embedding,
        blocks=nn.ModuleList(with_our_attention(block) for block in text.transformer.resblocks),
        norm_final=text.ln_final,
        projection=text.text_projection,
    )
