"""The Toybox's own CLIP: a small ViT and text tower trained from nothing on what is seen and described.

Everything that a lens later shares - the frozen ViT and the text anchors - comes from here. Training is resumable at any
moment: the state is written atomically, and the same call goes on.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitlens.benchmarks.toybox.sensors.drawn import draw
from vitlens.benchmarks.toybox.training.steps import Pace, Steps
from vitlens.benchmarks.toybox.world.captions import captions, material_prompts, shape_prompts
from vitlens.benchmarks.toybox.world.materials import MATERIALS
from vitlens.benchmarks.toybox.world.objects import Split, World
from vitlens.benchmarks.toybox.world.shapes import SHAPES
from vitlens.devices import chosen_device
from vitlens.encoder import EncoderSpec
from vitlens.errors import OptionError
from vitlens.modality import Modality, get_modality
from vitlens.model import ViTLens
from vitlens.space import EmbeddingSpace
from vitlens.spec import ModelSpec
from vitlens.text_tower import from_open_clip_text
from vitlens.towers import build_open_clip, from_open_clip
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
        if min(self.objects, self.clip_only, self.epochs, self.batch, self.captions) < 1:
            raise OptionError("toybox: objects, clip_only, epochs, batch and captions must be 1 or more")


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

    pictures: np.ndarray
    tokens: Tensor


def load_pictures(folder: Path, world: World, recipe: ClipRecipe, text: Modality, *, workers: int = 2) -> Pictures:
    """Draw or load the training pictures of both splits that the CLIP sees, with all their captions."""
    counts: dict[Split, int] = {"train": recipe.objects, "clip_only": recipe.clip_only}
    drawn = [draw(folder, world, split, count, ["image"], workers=workers) for split, count in counts.items()]
    lines = [captions(thing) for part in drawn for thing in part.things]
    ids = {line: text.transform(text.load(line)) for line in {line for row in lines for line in row}}
    pictures = np.concatenate([array for part in drawn for array in part.arrays["image"]])
    return Pictures(pictures, torch.stack([torch.stack([ids[line] for line in row]) for row in lines]))


def augmented(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 [b, 64, 64, 3] -> normalised [b, 3, 64, 64]; mirrored half the time, shifted up to four pixels, brightness varied.

    Whatever computes, the CPU draws: the same seed means the same pictures everywhere.
    """
    x = pictures.permute(0, 3, 1, 2).float() / 255
    mirrored = torch.rand(len(x), generator=generator) < 0.5
    x[mirrored] = x[mirrored].flip(-1)
    dy, dx = (int(v) for v in torch.randint(0, 9, (2,), generator=generator))
    x = F.pad(x, (4, 4, 4, 4), mode="replicate")[..., dy : dy + PICTURE, dx : dx + PICTURE]
    x = x * (0.8 + 0.4 * torch.rand(len(x), 1, 1, 1, generator=generator))
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def normalised(pictures: Tensor) -> Tensor:
    """uint8 [b, 64, 64, 3] -> what the towers take, float32 [b, 3, 64, 64]."""
    x = pictures.permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """CLIP's loss where every equal caption in the batch counts as right: `same` [b, b] says which are equal."""
    logits = scale * F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
    target = same.float() / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train_clip(
    folder: str | os.PathLike[str], recipe: ClipRecipe | None = None, *, workers: int = 2, save_seconds: float = 60
) -> ViTLens:
    """Train the Toybox CLIP in `folder` (pictures, state, log) and return it; an interrupted training goes on where it was."""
    recipe = recipe or ClipRecipe()
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    tokens = vocabulary()
    spec = clip_spec(recipe, tokens)
    text = get_modality("text", **spec.text_options)
    data = load_pictures(home / "drawn", World(recipe.seed), recipe, text, workers=workers)
    torch.manual_seed(recipe.seed)
    assert spec.text is not None
    clip = build_open_clip(spec.text).to(chosen_device())
    pictures = torch.from_numpy(data.pictures)
    pace = Pace(recipe.epochs, recipe.batch, lr=recipe.lr, weight_decay=recipe.weight_decay, warmup=recipe.warmup)
    steps = Steps(
        home / "clip.state",
        clip,
        pace,
        rows=len(pictures),
        settings=asdict(recipe),
        seed=recipe.seed,
        save_seconds=save_seconds,
    )

    def loss_of(rows: Tensor, generator: torch.Generator) -> Tensor:
        return clip_loss(clip, pictures[rows], data.tokens[rows], recipe.captions, generator)

    def clamp() -> None:
        with torch.no_grad():
            clip.logit_scale.clamp_(0, math.log(100))

    steps.run(loss_of, title="CLIP", after=clamp)
    return as_model(spec, clip.cpu())


def clip_loss(clip: Any, pictures: Tensor, tokens: Tensor, captions: int, generator: torch.Generator) -> Tensor:
    """The loss of pictures, uint8 [b, 64, 64, 3], augmented, against so many captions each, drawn from `tokens` [b, c, 20]."""
    device = next(clip.parameters()).device
    lines = torch.rand(tokens.shape[:2], generator=generator).argsort(dim=1)[:, :captions]
    ids = tokens[torch.arange(len(tokens))[:, None], lines].transpose(0, 1).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        image = clip.encode_image(augmented(pictures, generator).to(device))
        text = clip.encode_text(ids.flatten(0, 1)).unflatten(0, ids.shape[:2])
    scale = clip.logit_scale.exp()
    losses = [contrastive_loss(image, t, scale, (i[:, None] == i[None]).all(dim=-1)) for i, t in zip(ids, text, strict=True)]
    return torch.stack(losses).mean()


def as_model(spec: ModelSpec, clip: Any) -> ViTLens:
    """The trained towers as a ViTLens."""
    from vitlens.encoder import LensEncoder
    from vitlens.lens import IdentityLens

    vit = from_open_clip(clip.visual)
    image = LensEncoder(embed=vit.patch_embedding(), lens=IdentityLens(), vit=vit)
    model = ViTLens(spec=spec, encoders={"image": image}, text=from_open_clip_text(clip)).eval()
    model.logit_scale = float(clip.logit_scale.detach().exp())
    return model.requires_grad_(False)
