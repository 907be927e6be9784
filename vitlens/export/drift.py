"""How far a graph's embeddings are from torch's, on real items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitlens.batches import same_shape
from vitlens.errors import ModelError

if TYPE_CHECKING:
    from vitlens.export.formats import Run
    from vitlens.model import ViTLens

LEAST = 0.9999
"""The cosine below which an export is refused."""
EXAMPLES = 8
"""Of the modality's own, where no items are given."""
AT_ONCE = 4


@dataclass(frozen=True)
class Drift:
    """Of embeddings of length 1: the least cosine, and the largest difference of a value."""

    items: int
    cosine: float
    difference: float

    def check(self, what: str) -> Drift:
        """Itself, once it is small enough.

        Raises:
            ModelError: it is not.
        """
        if not self.cosine >= LEAST:  # also where it is NaN
            found = f"cosine {self.cosine:.6f} to torch's embeddings on the worst of {self.items} items"
            raise ModelError(f"{what}: {found}, at least {LEAST} is needed; nothing was written")
        return self


def preprocessed(model: ViTLens, modality: str, items: Sequence[Any], options: Mapping[str, Any] | None = None) -> list[Tensor]:
    """The items as the tower takes them; without items the modality's own examples.

    Raises:
        InputError: an item that cannot be read.
    """
    reading = model.modality(modality)
    given = items or [reading.example(seed) for seed in range(EXAMPLES)]
    return [reading.transform(reading.load(item, **(options or {}))) for item in given]


def drift_of(model: ViTLens, modality: str, run: Run, items: Sequence[Tensor]) -> Drift:
    """The drift of `run` on preprocessed items, some at once, the first of each shape also alone."""
    ours = F.normalize(model.embed(modality, items), dim=-1).numpy()
    cosines, differences = [], []
    for places in same_shape(items):
        for batch in [places[:1], *(places[at : at + AT_ONCE] for at in range(0, len(places), AT_ONCE))]:
            theirs = run(torch.stack([items[place] for place in batch]).numpy())
            cosines.append(F.cosine_similarity(torch.from_numpy(theirs).double(), torch.from_numpy(ours[batch]).double()).numpy())
            differences.append(np.abs(theirs - ours[batch]).max())
    return Drift(len(items), float(np.concatenate(cosines).min()), float(np.max(differences)))
