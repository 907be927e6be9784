"""The CLIP image encoder of a space: how long its embeddings are before they are normalised, and what it makes of nothing.

Decoders were trained on embeddings as the encoder gives them; lenses are trained on their direction alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vitlens.modalities.image import Image
from vitlens.modality import Modality
from vitlens.model import ViTLens

PICTURES = 8
"""Synthetic pictures on which the length is measured."""


class ClipReference:
    """`encoder` takes pixels [b, 3, size, size], preprocessed by `image`, and gives embeddings [b, E] (or an output that has them
    as `image_embeds`, as transformers' CLIPVisionModelWithProjection)."""

    def __init__(self, encoder: Any, image: Modality, device: Any, dtype: torch.dtype) -> None:
        self.encoder, self.image, self.device, self.dtype = encoder, image, device, dtype

    @classmethod
    def from_huggingface(cls, encoder: Any) -> ClipReference:
        """Of a CLIPVisionModelWithProjection."""
        # One that is offloaded layer by layer is nowhere: its hooks take pictures from the CPU and bring the result back there.
        device = "cpu" if encoder.device.type == "meta" else encoder.device
        return cls(encoder, Image(size=int(encoder.config.image_size)), device, encoder.dtype)

    @classmethod
    def from_model(cls, model: ViTLens) -> ClipReference:
        """Of a ViTLens with an image tower: the CLIP that its space is named after."""
        tower = model.tower("image")
        return cls(tower, model.modality("image"), model.device, next(tower.parameters()).dtype)

    def embed(self, pixels: Tensor) -> Tensor:
        """Embeddings [b, E] of pixels, not normalised, on the CPU."""
        with torch.no_grad():
            made = self.encoder(pixels.to(self.device, self.dtype))
        return getattr(made, "image_embeds", made).float().cpu()

    def blank(self) -> Tensor:
        """Embedding [1, E] of the picture of zeros (CLIP's mean colour)."""
        return self.embed(torch.zeros_like(self.image.transform(self.image.example())[None]))

    def norm(self, pictures: Sequence[Any] = ()) -> float:
        """Mean length of the embeddings of `pictures` (paths, PIL, arrays); of synthetic landscapes if there are none."""
        samples = [self.image.load(picture) for picture in pictures] or [self.image.example(seed) for seed in range(PICTURES)]
        rows = [self.embed(self.image.transform(sample)[None]) for sample in samples]
        return float(torch.cat(rows).norm(dim=-1).mean())
