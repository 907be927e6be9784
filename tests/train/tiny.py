"""A tiny frozen model and a tiny world for the trainer's tests, without open_clip: depth maps with pictures of the same shape."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitlens.embed import PatchEmbed
from vitlens.encoder import EncoderSpec, LensEncoder
from vitlens.lens import IdentityLens
from vitlens.model import ViTLens
from vitlens.space import EmbeddingSpace
from vitlens.spec import ModelSpec
from vitlens.text_tower import TextTower
from vitlens.train.recipe import Recipe
from vitlens.train.recipe_files import load_recipe
from vitlens.vit import FrozenViT, ViTSpec

WIDTH, SIZE, PATCH, DIM = 32, 32, 8, 16
CLIP = {
    "embed_dim": DIM,
    "vision_cfg": {"image_size": SIZE, "patch_size": PATCH, "width": WIDTH, "layers": 2, "head_width": 16, "pool_type": "avg"},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
VIT = ViTSpec("tiny", config=CLIP)
TOKENS = (
    "tokens.class_state.weight=1",
    "tokens.patches={kind: readers, weight: 0.5, readers: 2, reader_steps: 3}",
    "tokens.spread={weight: 4, directions: 16}",
)
"""Changes that put terms on tokens into a recipe."""
SHAPES = ("disc", "square", "bar", "cross")


class Block(nn.Module):
    """open_clip's transformer block, by names and shapes, in a few lines."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        layers = {"c_fc": nn.Linear(width, 4 * width), "gelu": nn.GELU(), "c_proj": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=attn_mask)[0]
        return x + self.mlp(self.ln_2(x))


def tiny_clip(*, text: bool = True) -> ViTLens:
    """Image and text towers with fixed random weights."""
    torch.manual_seed(7)
    patch = PatchEmbed(channels=3, width=WIDTH, patch=PATCH)
    with torch.no_grad():
        patch.conv1.weight.mul_(4)  # pictures must differ by more than a random network usually tells
    vit = FrozenViT(
        blocks=[Block(WIDTH, 2) for _ in range(2)],
        width=WIDTH,
        head_width=16,
        patch_size=PATCH,
        image_size=SIZE,
        class_token=torch.randn(WIDTH),
        positions=torch.randn(17, WIDTH),
        norm_pre=nn.LayerNorm(WIDTH),
        norm_post=nn.LayerNorm(WIDTH),
        pool="average",
        proj=torch.randn(WIDTH, DIM) / WIDTH**0.5,
        patch=patch,
    )
    image = EncoderSpec("image", VIT, options={"size": SIZE})
    encoder = LensEncoder(embed=vit.patch_embedding(), lens=IdentityLens(), vit=vit.freeze())
    words = Block(16, 2)
    with torch.no_grad():
        words.attn.out_proj.weight.mul_(10)  # the end token must hear what the words before it are
    tower = TextTower(
        token_embedding=nn.Embedding(49408, 16),
        positions=0.1 * torch.randn(77, 16),
        blocks=nn.ModuleList([words]),
        norm_final=nn.LayerNorm(16),
        projection=torch.randn(16, DIM) / 4,
    )
    spec = ModelSpec("tiny", EmbeddingSpace("tiny", DIM), (image,), text=VIT if text else None, logit_scale=14.0)
    return ViTLens(spec=spec, encoders={"image": encoder}, text=tower if text else None).eval()


def item(index: int) -> dict[str, Any]:
    """One thing: its depth map in metres, its picture, a caption and its label; the same for the same index."""
    chance = np.random.default_rng(index)
    label = SHAPES[index % len(SHAPES)]
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2 - chance.uniform(-4, 4, (2, 1, 1))
    size = chance.uniform(6, 10)
    inside = {
        "disc": x**2 + y**2 < size**2,
        "square": np.maximum(abs(x), abs(y)) < size,
        "bar": (abs(x) < size / 3) & (abs(y) < 14),
        "cross": (np.minimum(abs(x), abs(y)) < 3) & (np.maximum(abs(x), abs(y)) < 12),
    }[label]
    metres = np.where(inside, 3.0, 9.0) + 0.04 * chance.standard_normal((SIZE, SIZE))
    picture = np.where(inside[..., None], chance.integers(150, 250, 3), chance.integers(0, 80, 3)).astype(np.uint8)
    return {"depth": metres.astype(np.float32), "image": picture, "text": f"a {label}", "label": label}


def world(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Several things."""
    return [item(index) for index in range(first, first + count)]


def tiny_recipe(folder: Path, *changes: str) -> Recipe:
    """A short run that trains a depth lens to image anchors."""
    base = {
        "name": "tiny-depth",
        "model": {"modality": "depth", "options": {"size": SIZE}, "lens": {"kind": "identity"}},
        "anchors": {"modalities": ["image"], "cache_folder": str(folder / "cache")},
        "optimizer": {"lr": 3e-3, "weight_decay": 0.01},
        "schedule": {"warmup_steps": 2, "epochs": 2},
        "logs": {"tensorboard": False, "plot": False},
        "batch_size": 8,
        "device": "cpu",
        "output": str(folder / "run"),
    }
    return load_recipe(base, set=changes)
