"""What the Toybox's painter makes of embeddings of any sensor: pictures of what was scanned, touched, struck, watched by a brain.

The painter learned from pictures' embeddings only. Its pictures are judged by the Toybox's CLIP: does it see the right shape, the
right material in them? Mixtures are CoDi's weighted sums (arXiv 2305.11846): the shape of one thing with the material of another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitlens.adapters.generate.decoder_cards import DecoderCard
from vitlens.adapters.generate.decoders import Decoder
from vitlens.benchmarks.toybox.demo.evaluate import class_embeddings
from vitlens.benchmarks.toybox.sensors.drawn import ASKED
from vitlens.benchmarks.toybox.training.painter import PROMPT_WIDTH, load_painter
from vitlens.benchmarks.toybox.world.objects import ToyObject
from vitlens.display.progress import track
from vitlens.model import ViTLens

SHIPPED = Path(__file__).parents[1] / "weights" / "painter"
PAINTING: dict[str, Any] = {"num_inference_steps": 20, "guidance_scale": 2.0, "noise_level": 0}
MIXTURES = (("point_cloud", "audio"), ("depth", "tactile"))
"""A sense that knows shapes and one that knows materials, of two different things."""


@dataclass(frozen=True)
class Painted:
    """Share of the painted pictures in which the Toybox's CLIP sees the right shape, or material, first; and of a guess."""

    sensors: str
    """The sense painted from; two with "+" between them are a mixture."""
    label: str
    split: str
    items: int
    right: float
    chance: float


def painting_decoder(model: ViTLens, folder: str | os.PathLike[str] = SHIPPED) -> Decoder:
    """The painter as a decoder of `vitlens.adapters.generate.any_to_any`."""
    card = DecoderCard(
        name=model.spec.name,
        output="image",
        pipeline="StableUnCLIPImg2ImgPipeline",
        space=model.space,
        embedding="unclip",
        text="beside",
        defaults=PAINTING,
        licence=model.spec.licence,
        licence_source="made by `vitlens toybox train`",
        memory="15 MB of weights in float32",
        notes=("64 x 64 pictures of the Toybox world, and of nothing else.",),
    )
    return Decoder(card, load_painter(folder, model))


@torch.inference_mode()
def paint(decoder: Decoder, embeddings: Tensor, *, seed: int = 0, batch: int = 32, progress: bool = False) -> np.ndarray:
    """Pictures uint8 [n, 64, 64, 3] of embeddings [n, E] of any length; each has its own noise, whatever the others are."""
    pipe = decoder.pipeline
    scaled = torch.nn.functional.normalize(embeddings.float(), dim=-1) * decoder.norm
    found = []
    for start in track(range(0, len(scaled), batch), "painting", show=progress):
        part = scaled[start : start + batch]
        empty = torch.zeros(len(part), 1, PROMPT_WIDTH)
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        size = pipe.unet.config.sample_size
        latents = torch.stack([torch.randn(pipe.unet.config.in_channels, size, size, generator=g) for g in generators])
        made = pipe(
            image_embeds=part,
            prompt_embeds=empty,
            negative_prompt_embeds=empty,
            latents=latents,
            generator=generators,
            output_type="np",
            **decoder.card.defaults,
        )
        found.append((made.images * 255).round().astype(np.uint8))
    return np.concatenate(found)


def paint_split(
    decoder: Decoder, model: ViTLens, embeddings: Mapping[str, Tensor], things: list[ToyObject], split: str, *, mixtures: bool
) -> list[Painted]:
    """Paint every sense's embeddings [n, E] of a split's things, and judge; with `mixtures` also the senses in `MIXTURES`."""
    found = []
    for sensor in [name for name in embeddings if name in ASKED]:
        pictures = paint(decoder, embeddings[sensor], progress=True)
        for label in ASKED[sensor]:
            found.append(_judged(model, pictures, things, label, sensors=sensor, split=split))
    for shaped, made_of in MIXTURES if mixtures else ():
        others = mixed_with(things)
        halves = [model.compose([embeddings[shaped][i], embeddings[made_of][j]]) for i, j in enumerate(others)]
        pictures = paint(decoder, torch.stack(halves), progress=True)
        names = f"{shaped}+{made_of}"
        found.append(_judged(model, pictures, things, "shape", sensors=names, split=split))
        found.append(_judged(model, pictures, [things[j] for j in others], "material", sensors=names, split=split))
    return found


def mixed_with(things: list[ToyObject]) -> list[int]:
    """For every thing another one, of another shape and another material: the next such."""
    count = len(things)
    found = []
    for i, thing in enumerate(things):
        later = ((i + step) % count for step in range(1, count))
        other = (j for j in later if things[j].shape != thing.shape and things[j].material != thing.material)
        found.append(next(other, i))
    return found


def _judged(model: ViTLens, pictures: np.ndarray, things: list[ToyObject], label: str, **what: str) -> Painted:
    right, chance = right_share(model, pictures, things, label)
    return Painted(label=label, items=len(things), right=right, chance=chance, **what)


def right_share(model: ViTLens, pictures: np.ndarray, things: Sequence[ToyObject], label: str) -> tuple[float, float]:
    """Share of pictures, uint8 [n, 64, 64, 3], in which the CLIP sees the thing's shape or material first; and of a guess."""
    names, vectors = class_embeddings(model, label)
    seen = model.encode({"image": list(pictures)}, batch_size=128)["image"]
    first = (seen @ vectors.T).argmax(dim=-1).tolist()
    right = float(np.mean([names[i] == getattr(thing, label) for i, thing in zip(first, things, strict=True)]))
    return right, 1 / len(names)
