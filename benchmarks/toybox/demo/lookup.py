"""Training pictures of the Toybox as an index, in which its SEED-LLaMA looks things up before it replies.

    known = draw(folder, World(), "train", SeedRecipe().known, ["image"])
    lookup = Lookup(model, known, sensed(adapter, known, "image"))
    adapter.chat([*lookup.before(embedding), codes, "describe this object"])

What is found stands before a prompt as it did in the training: a caption and the codes of each picture, the nearest first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from vitlens.adapters.seed.conversation import Part
from vitlens.benchmarks.toybox.sensors.drawn import Drawn
from vitlens.benchmarks.toybox.training.seed_networks import SeedRecipe
from vitlens.benchmarks.toybox.world.captions import TEMPLATES, describe
from vitlens.index import Index, Term
from vitlens.model import ViTLens

NEIGHBOURS = SeedRecipe().neighbours


class Lookup:
    """An index of pictures of known things, with their captions and codes; it is kept as long as this object."""

    def __init__(
        self, model: ViTLens, known: Drawn, codes: Sequence[Tensor], *, neighbours: int = SeedRecipe().neighbours
    ) -> None:
        self.codes, self.neighbours = codes, neighbours
        items = known.column("image")
        self._folder = tempfile.TemporaryDirectory(prefix="vitlens-lookup-")
        self.index = Index.create(f"{self._folder.name}/known.index", model.space)
        self.index.add(
            model.encode({"image": items}, batch_size=128)["image"],
            model.space,
            modality="image",
            sources=[str(number) for number in range(len(items))],
            columns={"caption": [describe(thing, TEMPLATES[0]) for thing in known.things]},
        )

    def before(self, about: Tensor) -> list[Part]:
        """What is nearest to an embedding [E]: caption and codes of each picture, as parts of a message."""
        asked = Term(np.asarray(F.normalize(about.float(), dim=-1).cpu()), "image")
        hits = self.index.search(asked, self.index.space, k=self.neighbours, calibrate="none").hits
        return [part for hit in hits for part in (str(hit.columns["caption"]), self.codes[int(hit.source)])]
