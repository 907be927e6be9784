"""The training of the Toybox's SEED tokenizer: pictures -> codes -> the image embedding of the CLIP, and near their captions.

As SEED's (arXiv 2310.01218): queries look at the frozen ViT's states, what they bring is rounded to a codebook, and a decoder
gives the embedding back from the codes. Captions keep in the codes what words say of a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.benchmarks.toybox.training.picture_task import PictureTask, as_pixels, flip, look
from vitlens.benchmarks.toybox.training.seed_networks import ClipQuantizer, SeedRecipe, build_quantizer, seed_vit
from vitlens.benchmarks.toybox.world.captions import TEMPLATES, describe
from vitlens.benchmarks.toybox.world.objects import ToyObject
from vitlens.modalities.image import Image
from vitlens.model import ViTLens
from vitlens.train.gradcache import Named
from vitlens.train.losses import clip_loss, gather_rows
from vitlens.train.task import Report

PATIENCE = 50
"""Batches after which codes that no picture took begin anew where pictures are."""
COMMITMENT = 0.25
"""Weight of what keeps the queries near their codes (arXiv 1711.00937)."""


class Quantizing(nn.Module):
    """The ViT's states [b, 65, D] -> "embedding" [b, E] by way of the codes, and "apart" [b]: how far queries and codes are."""

    taken: Tensor
    lately: Tensor

    def __init__(self, quantizer: ClipQuantizer) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.register_buffer("taken", torch.zeros(quantizer.codes))
        self.register_buffer("lately", torch.zeros_like(self.table))

    @property
    def table(self) -> Tensor:
        """The codebook [codes, c]."""
        return cast(nn.Embedding, self.quantizer.quantize["embedding"]).weight

    def forward(self, seen: Tensor) -> Named:
        vectors = self.quantizer.vectors(seen)
        codes = self.quantizer.nearest(vectors)
        chosen = F.embedding(codes, self.table)
        apart = (chosen - vectors.detach()).square() + COMMITMENT * (chosen.detach() - vectors).square()
        embedding = self.quantizer.embedding(vectors + (chosen - vectors).detach())
        if self.training:
            self._count(codes, vectors)
        return {"embedding": embedding, "apart": apart.mean(dim=(1, 2))}

    @torch.no_grad()
    def _count(self, codes: Tensor, vectors: Tensor) -> None:
        self.taken += torch.bincount(codes.flatten(), minlength=len(self.taken))
        rows = vectors.flatten(0, 1)
        rows = rows[torch.randperm(len(rows), device=rows.device)]
        self.lately.copy_(torch.cat([rows, self.lately])[: len(self.lately)])

    @torch.no_grad()
    def revive(self) -> None:
        """Put codes that were not taken of late where queries have been."""
        dead = (self.taken == 0).nonzero()[:, 0]
        self.table[dead] = self.lately[: len(dead)]
        self.taken.zero_()


class ReconstructionLoss(nn.Module):
    """How far embeddings are from the pictures', how well they find their captions, how far codes and queries are apart."""

    def __init__(self, captions: float, scale: float) -> None:
        super().__init__()
        self.captions, self.scale = captions, scale

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Targets: "embedding" and "text" [b, E], and "line" [b], the number of the caption."""
        found, wanted, lines = outputs["embedding"].float(), targets["embedding"], targets["line"]
        far = ((found - wanted).square().sum(dim=-1) / wanted.square().sum(dim=-1)).mean()
        same = lines[:, None] == gather_rows(lines)[None]
        scale = torch.tensor(self.scale, device=found.device)
        told = clip_loss(F.normalize(found, dim=-1), targets["text"], scale, same=same)
        return far + self.captions * told + outputs["apart"].float().mean()


class QuantizerTask(PictureTask[ClipQuantizer]):
    """A SEED tokenizer around the ViT of `model` that learns from pictures, uint8 [n, 64, 64, 3], of things."""

    network: Quantizing

    def __init__(self, folder: Path, model: ViTLens, pictures: Tensor, things: Sequence[ToyObject], recipe: SeedRecipe) -> None:
        super().__init__(recipe.quantizer, folder, recipe, len(things))
        self.model, self.pictures, self.things = model, pictures, things
        self.quantizer = build_quantizer(recipe, model)
        for parameter in self.quantizer.learned():
            parameter.requires_grad_(True)
        self.network, self.loss = Quantizing(self.quantizer), ReconstructionLoss(recipe.captions, model.logit_scale)

    @torch.no_grad()
    def prepare(self, device: torch.device, report: Report) -> None:
        """The frozen ViT looks at every picture and its mirror image once; the text tower reads every caption once."""
        lines = [describe(thing, TEMPLATES[0]) for thing in self.things]
        known = {line: number for number, line in enumerate(dict.fromkeys(lines))}
        self.lines = torch.tensor([known[line] for line in lines])
        self.texts = self.model.encode({"text": list(known)}, batch_size=256)["text"].float().cpu()
        self.network.to(device)
        self.seen = torch.stack([hidden_states(self.quantizer, x) for x in (self.pictures, self.pictures.flip(2))])
        finish, place = seed_vit(self.model).finish, self.model.device
        both = [[finish(part.float().to(place)).cpu() for part in x.split(1000)] for x in self.seen]
        self.embeddings = torch.stack([torch.cat(parts) for parts in both])
        self._first_codes(device)

    def _first_codes(self, device: torch.device) -> None:
        """The codebook begins as what the untrained queries bring of some pictures."""
        chance = torch.Generator().manual_seed(self.recipe.seed)
        rows = torch.randperm(len(self.things), generator=chance)[: self.quantizer.codes]
        vectors = self.quantizer.vectors(self.seen[0, rows].float().to(device)).flatten(0, 1)
        picked = torch.randint(len(vectors), (self.quantizer.codes,), generator=chance)
        self.network.table.copy_(vectors[picked.to(device)])

    def draw(self, row: int, chance: torch.Generator) -> tuple[Named, Named]:
        """A picture or its mirror image, and its caption."""
        mirrored, line = int(flip(chance)), self.lines[row]
        targets = {"embedding": self.embeddings[mirrored, row], "text": self.texts[line], "line": line}
        return {"seen": self.seen[mirrored, row].float()}, targets

    def after_step(self) -> None:
        """Now and then, codes that are of no use begin anew."""
        if self.network.taken.sum() >= PATIENCE * self.options.batch_size * self.quantizer.queries:
            self.network.revive()

    def result(self) -> ClipQuantizer:
        """The tokenizer, frozen."""
        return self.quantizer.eval().requires_grad_(False)


def hidden_states(quantizer: ClipQuantizer, pictures: Tensor) -> Tensor:
    """The ViT's states of pictures, float16 [n, 65, D], made where the tokenizer is and kept on the CPU."""
    image = Image()
    return look(pictures, lambda part: image.normalise(as_pixels(part)), quantizer.visual_encoder, quantizer.device)
