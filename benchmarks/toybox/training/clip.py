"""The Toybox's own CLIP: a small ViT and text tower trained from nothing on what is seen and described.

Everything that a lens later shares - the frozen ViT and the text anchors - comes from here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.benchmarks.toybox.sensors.drawn import draw
from vitlens.benchmarks.toybox.training.picture_task import PictureTask, as_pixels, flip, pacing, pick
from vitlens.benchmarks.toybox.world.captions import captions, material_prompts, shape_prompts
from vitlens.benchmarks.toybox.world.materials import MATERIALS
from vitlens.benchmarks.toybox.world.objects import Split, World
from vitlens.benchmarks.toybox.world.shapes import SHAPES
from vitlens.checks import whole
from vitlens.encoder import EncoderSpec, LensEncoder
from vitlens.lens import IdentityLens
from vitlens.modality import Modality, get_modality
from vitlens.model import ViTLens
from vitlens.space import EmbeddingSpace
from vitlens.spec import ModelSpec
from vitlens.text_tower import from_open_clip_text
from vitlens.towers import build_open_clip, from_open_clip
from vitlens.train import Trainer
from vitlens.train.gradcache import Named
from vitlens.train.losses import LogitScale, chance_loss, clip_loss, gather_rows
from vitlens.vit import ViTSpec

PICTURE = 64
CONTEXT = 20
"""Token ids in a row: more than the longest caption has."""
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class ClipRecipe:
    """Numbers of the CLIP training; `objects` pictures are drawn once, and flipped and shifted while training.

    `captions` lines of every picture are read in each step: text is cheap beside pictures, and every line teaches.
    """

    objects: int = 24_000
    clip_only: int = 4_000
    epochs: int = 10
    batch: int = 128
    captions: int = 3
    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 200
    seed: int = 0
    width: int = 192
    layers: int = 6
    patch: int = 8
    embed_dim: int = 128
    text_width: int = 128
    text_layers: int = 2

    def __post_init__(self) -> None:
        for name in ("objects", "clip_only", "epochs", "batch", "captions"):
            whole(f"toybox: {name}", getattr(self, name), least=1)


def vocabulary() -> list[int]:
    """Ids of CLIP's tokens that any Toybox caption or prompt holds."""
    text = get_modality("text")
    words = {word for thing in World().objects("train", 3000) for line in captions(thing) for word in line.split()}
    words |= {word for shape in SHAPES for line in shape_prompts(shape) for word in line.split()}
    words |= {word for material in MATERIALS for line in material_prompts(material) for word in line.split()}
    ids = torch.cat([text.transform(text.load(word)) for word in sorted(words)])
    return sorted(set(ids.tolist()) - {0})


def clip_spec(recipe: ClipRecipe, tokens: list[int]) -> ModelSpec:
    """The model that holds the trained towers: image and text."""
    vision = {
        "image_size": PICTURE,
        "patch_size": recipe.patch,
        "width": recipe.width,
        "layers": recipe.layers,
        "head_width": 64,
    }
    text = {"context_length": CONTEXT, "vocab_size": len(tokens) + 2, "width": recipe.text_width, "heads": 4}
    config = {"embed_dim": recipe.embed_dim, "vision_cfg": vision, "text_cfg": {**text, "layers": recipe.text_layers}}
    vit = ViTSpec("vitlens-toybox", config=config)
    options = {"size": PICTURE, "mean": list(MEAN), "std": list(STD)}
    return ModelSpec(
        name="vitlens-toybox",
        space=EmbeddingSpace("vitlens-toybox", recipe.embed_dim),
        encoders=(EncoderSpec("image", vit, options=options),),
        text=vit,
        text_options={"context_length": CONTEXT, "vocabulary": tokens},
        licence="Apache-2.0",
    )


@dataclass(frozen=True)
class Pictures:
    """What the CLIP learns from: pictures uint8 [n, 64, 64, 3], and every object's captions as token ids [n, c, 20]."""

    pictures: Tensor
    tokens: Tensor


def load_pictures(folder: Path, world: World, recipe: ClipRecipe, text: Modality, *, workers: int = 2) -> Pictures:
    """Draw or load the training pictures of both splits that the CLIP sees, with all their captions."""
    counts: dict[Split, int] = {"train": recipe.objects, "clip_only": recipe.clip_only}
    drawn = [draw(folder, world, split, count, ["image"], workers=workers) for split, count in counts.items()]
    lines = [captions(thing) for part in drawn for thing in part.things]
    ids = {line: text.transform(text.load(line)) for line in {line for row in lines for line in row}}
    pictures = np.concatenate([array for part in drawn for array in part.arrays["image"]])
    return Pictures(torch.from_numpy(pictures), torch.stack([torch.stack([ids[line] for line in row]) for row in lines]))


def augmented(picture: Tensor, chance: torch.Generator) -> Tensor:
    """uint8 [64, 64, 3] -> normalised [3, 64, 64]; mirrored half the time, shifted up to four pixels, brightness varied."""
    x = as_pixels(picture)
    if flip(chance):
        x = x.flip(-1)
    dy, dx = pick(9, chance), pick(9, chance)
    x = F.pad(x[None], (4, 4, 4, 4), mode="replicate")[0, :, dy : dy + PICTURE, dx : dx + PICTURE]
    return standardised(x * (0.8 + 0.4 * torch.rand((), generator=chance)))


def normalised(pictures: Tensor) -> Tensor:
    """uint8 [b, 64, 64, 3] -> what the towers take, float32 [b, 3, 64, 64]."""
    return standardised(as_pixels(pictures))


def standardised(x: Tensor) -> Tensor:
    """Pixels [..., 3, h, w] in 0 ... 1 -> of mean 0 and deviation 1, as far as the towers know."""
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class ClipTowers(nn.Module):
    """Pictures [b, 3, 64, 64] and captions of each, token ids [b, c, 20] -> image [b, E] and text [b, c, E], normalised."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, picture: Tensor, captions: Tensor) -> Named:
        text = self.clip.encode_text(captions.flatten(0, 1)).unflatten(0, captions.shape[:2])
        return {
            "image": F.normalize(self.clip.encode_image(picture).float(), dim=-1),
            "text": F.normalize(text.float(), dim=-1),
        }


class CaptionLoss(nn.Module):
    """The mean over the captions of CLIP's loss, where every equal caption in the batch counts as right."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = LogitScale(1 / 0.07)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Image [b, E] and text [b, c, E] of this process' items, and the captions [b, c, 20] -> the loss."""
        lines = targets["captions"]
        same = (lines[:, None] == gather_rows(lines)[None]).all(dim=-1)
        texts, equal = outputs["text"].unbind(dim=1), same.unbind(dim=2)
        return torch.stack(
            [clip_loss(outputs["image"], text, self.scale(), same=s) for text, s in zip(texts, equal, strict=True)]
        ).mean()


class ClipTask(PictureTask[ViTLens]):
    """The Toybox's CLIP from random weights; the result is an ordinary model of image and text."""

    loss: CaptionLoss
    output = "embedding"

    def __init__(self, home: Path, recipe: ClipRecipe, *, workers: int = 2) -> None:
        self.spec = clip_spec(recipe, vocabulary())
        text = get_modality("text", **self.spec.text_options)
        self.data = load_pictures(home / "drawn", World(recipe.seed), recipe, text, workers=workers)
        run = pacing(recipe.epochs, recipe.batch, lr=recipe.lr, weight_decay=recipe.weight_decay, warmup=recipe.warmup)
        super().__init__(run, home / "clip", recipe, len(self.data.pictures))
        torch.manual_seed(recipe.seed)
        assert self.spec.text is not None
        self.clip: Any = build_open_clip(self.spec.text)
        self.clip.logit_scale.requires_grad_(False)  # the loss has a temperature of its own
        self.network, self.loss = ClipTowers(self.clip), CaptionLoss()
        self.chance = chance_loss(recipe.batch)

    def draw(self, row: int, chance: torch.Generator) -> tuple[Named, Named]:
        """A picture, augmented, and some of its captions."""
        known = self.data.tokens[row]
        captions = known[torch.rand(len(known), generator=chance).argsort()[: self.recipe.captions]]
        return {"picture": augmented(self.data.pictures[row], chance), "captions": captions}, {"captions": captions}

    def after_step(self) -> None:
        """Keep the temperature within its bounds."""
        self.loss.scale.clamp_()

    def logged(self) -> dict[str, float]:
        """The temperature."""
        return {"logit_scale": self.loss.scale.value}

    def result(self) -> ViTLens:
        """Both towers as a ViTLens."""
        vit = from_open_clip(self.clip.visual)
        image = LensEncoder(embed=vit.patch_embedding(), lens=IdentityLens(), vit=vit)
        model = ViTLens(spec=self.spec, encoders={"image": image}, text=from_open_clip_text(self.clip)).eval()
        model.logit_scale = float(self.loss.scale().detach())
        return model.requires_grad_(False)

    def save(self, model: ViTLens, folder: Path) -> None:
        """`model`, for `vitlens.load`."""
        model.save_pretrained(folder / "model")


def train_clip(folder: str | os.PathLike[str], recipe: ClipRecipe | None = None, *, workers: int = 2) -> ViTLens:
    """Train the Toybox's CLIP in `folder`/clip and return it; an interrupted training goes on where it was."""
    return Trainer(ClipTask(Path(folder), recipe or ClipRecipe(), workers=workers)).run().model
