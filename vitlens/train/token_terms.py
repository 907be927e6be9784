"""Terms for hosts that read the ViT's tokens: a lens's class state and patch tokens are to be what pictures' are.

The embedding says nothing of what the projection drops of the class token, and nothing of the patch tokens; a Q-Former or a LLaVA
reads just those. With z = (h - mean) / std, channel by channel, mean and std over pictures:

    class state   mean (z_class - z_class of the item's picture)^2
    per token     the same for every patch token, where lens and picture have the same grid
    readers       the contrastive loss, also taken through small frozen networks that learned to read pictures' patch tokens
    spread        sliced Wasserstein distance (squared) between the batch's patch tokens and as many of pictures

All but the last act item by item on outputs of the network, so that they are gathered, cut into micro-batches and averaged over
processes as the embedding is; the last gathers the projected tokens. Each view of an item (a clip of a sound) is a stream of its
own to a host, so each has to agree by itself; only what readers give is averaged over the views, as embeddings are.
See docs/tokens.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.encoder import LensEncoder
from vitlens.errors import OptionError
from vitlens.train.examples import seed_of
from vitlens.train.gradcache import Named
from vitlens.train.losses import AnchorLoss, gather_rows
from vitlens.train.recipe import TokenOptions
from vitlens.vit import FrozenViT

CLASS_STATE, PATCHES, READ = "class_state", "patches", "read"
"""Outputs of the network beside the embedding: [b, views, D], [b, views, m, D], and [b, readers, E]."""


@dataclass(frozen=True)
class TokenStatistics:
    """Of pictures, each [D] float32: the deviation of the class state, and mean and deviation of the patch tokens."""

    class_std: Tensor
    patch_mean: Tensor
    patch_std: Tensor


class TokenReader(nn.Module):
    """Patch tokens [b, m, D], standardised -> an embedding [b, E]: learned queries, one cross attention, two layers."""

    def __init__(self, width: int, dim: int, *, heads: int, queries: int = 4) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.LayerNorm(queries * width),
            nn.Linear(queries * width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, dim),
        )

    def forward(self, tokens: Tensor, hidden: Tensor | None = None) -> Tensor:
        """`hidden` [b, m]: tokens that are not looked at."""
        queries = self.queries.expand(len(tokens), -1, -1)
        return self.head(self.attention(queries, tokens, tokens, key_padding_mask=hidden, need_weights=False)[0])


class TokenReaders(nn.Module):
    """Several readers of the patch tokens that a ViT gives, and what they standardise them with."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, dim: int, *, heads: int, count: int) -> None:
        super().__init__()
        self.readers = nn.ModuleList([TokenReader(width, dim, heads=heads) for _ in range(count)])
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, patches: Tensor, hidden: Tensor | None = None) -> Tensor:
        """[b, m, D] -> [b, readers, E], not normalised."""
        tokens = (patches.float() - self.mean) / self.std
        return torch.stack([reader(tokens, hidden) for reader in self.readers], dim=1)


class TokenLook(nn.Module):
    """What the terms take of a ViT's hidden states; the same for lenses and pictures."""

    def __init__(self, options: TokenOptions, readers: TokenReaders | None = None) -> None:
        super().__init__()
        self.options = options
        self.readers = readers

    @property
    def layers(self) -> list[int]:
        """The blocks, counted from the end, that are looked behind."""
        options = self.options
        wanted = [options.class_state.block] if options.class_state.weight else []
        return wanted + ([options.patches.layer] if options.need_patches or self.readers is not None else [])

    def forward(self, vit: FrozenViT, hidden: Mapping[int, Tensor]) -> Named:
        """{layer: [b, views, prefix + m, D]} -> the outputs that terms need, float32."""
        options = self.options
        found: Named = {}
        if options.class_state.weight:
            found[CLASS_STATE] = class_state(vit, hidden[options.class_state.block], options.class_state.layer)
        if options.need_patches or self.readers is not None:
            patches = hidden[options.patches.layer][:, :, vit.prefix :]
            if options.need_patches:
                found[PATCHES] = patches.float()
            if self.readers is not None:
                read = self.readers(patches.flatten(0, 1)).float()
                found[READ] = F.normalize(read.unflatten(0, patches.shape[:2]).mean(dim=1), dim=-1)
        return found


def class_state(vit: FrozenViT, hidden: Tensor, layer: int | None) -> Tensor:
    """Hidden states [..., prefix + m, D] -> the class token's [..., D], float32; of no `layer` behind the final norm."""
    state = hidden[..., 0, :]
    return (vit.norm_post(state) if layer is None else state).float()


class PictureTower(nn.Module):
    """Pictures [b, 3, h, w] -> one output of `look` of the frozen picture tower, of their one view."""

    def __init__(self, encoder: LensEncoder, look: TokenLook, output: str) -> None:
        super().__init__()
        self.encoder, self.look, self.output = encoder, look, output

    def forward(self, x: Tensor) -> Tensor:
        _, hidden = self.encoder.look_through(x, self.look.layers)
        return self.look(self.encoder.vit, hidden)[self.output][:, 0]


class TokenLoss(nn.Module):
    """The loss of the embedding, and on top of it the terms that the recipe gives a weight."""

    class_std: Tensor
    patch_mean: Tensor
    patch_std: Tensor
    pool: Tensor
    steps: Tensor

    def __init__(
        self, embedding: AnchorLoss, options: TokenOptions, statistics: TokenStatistics, *, pool: Tensor, seed: int
    ) -> None:
        super().__init__()
        self.embedding, self.options, self.seed = embedding, options, seed
        self.scale = embedding.scale
        for name, value in {**vars(statistics), "pool": pool}.items():
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # kept with the run: directions follow from it
        self.values = dict.fromkeys(self._weights(), float("nan"))
        """Every term's last value, not weighted, over all processes."""

    def _weights(self) -> dict[str, float]:
        options = self.options
        weights = {"class_state": options.class_state.weight, options.patches.kind: options.patches_weight}
        return {name: weight for name, weight in {**weights, "spread": options.spread.weight}.items() if weight}

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Outputs of the network and targets of this process' items -> the loss; anchors are all targets but pictures' tokens."""
        anchors = {name: rows for name, rows in targets.items() if name not in (CLASS_STATE, PATCHES)}
        loss = self.embedding(outputs, anchors)
        for name, weight in self._weights().items():
            term = getattr(self, f"_{name}")(outputs, targets, anchors)
            self.values[name] = float(gather_rows(term.detach().view(1, 1)).mean())
            loss = loss + weight * term
        self.steps.add_(1)
        return loss

    def _class_state(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], _: object) -> Tensor:
        return (((outputs[CLASS_STATE] - targets[CLASS_STATE][:, None]) / self.class_std) ** 2).mean()

    def _per_token(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], _: object) -> Tensor:
        mine, theirs = outputs[PATCHES], targets[PATCHES][:, None]
        if mine.shape[2:] != theirs.shape[2:]:
            raise OptionError(
                f"tokens.patches.kind=per_token: the lens gives {mine.shape[2]} patch tokens, a picture {theirs.shape[2]}: they "
                "cannot be compared one by one; choose tokens.patches.kind=readers"
            )
        return (((mine - theirs) / self.patch_std) ** 2).mean()

    def _readers(self, outputs: Mapping[str, Tensor], _: object, anchors: Mapping[str, Tensor]) -> Tensor:
        scale = self.scale().detach()  # the temperature is the embedding's
        return torch.stack([self.embedding.between(read, anchors, scale) for read in outputs[READ].unbind(dim=1)]).mean()

    def _spread(self, outputs: Mapping[str, Tensor], *_: object) -> Tensor:
        """Of the tokens of all processes; which directions and which of the pool follows from the seed and the step."""
        chance = torch.Generator().manual_seed(seed_of(self.seed, "spread", int(self.steps)))
        width, device = self.patch_mean.shape[0], self.patch_mean.device
        random = torch.randn(width, self.options.spread.directions, generator=chance)
        directions = torch.linalg.qr(random).Q.to(device) / self.patch_std[:, None]
        mine = gather_rows(((outputs[PATCHES] - self.patch_mean) @ directions).flatten(0, -2))
        chosen = torch.randint(len(self.pool), (len(mine),), generator=chance).to(device)
        theirs = (self.pool[chosen].float() - self.patch_mean) @ directions
        return ((mine.sort(dim=0).values - theirs.sort(dim=0).values) ** 2).mean()
