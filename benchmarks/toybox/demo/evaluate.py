"""What a model makes of the Toybox's held-out objects: zero-shot classes, and finding one sensor's measurement by another's.

Three splits: "test" (new objects, pairs of shape and material that were in training), "unseen_pairs" (pairs that were not), and
"unseen_shapes" (shapes that no lens has seen, only the CLIP). Chance stands beside every number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlens.benchmarks.toybox.sensors.catalogue import SENSORS
from vitlens.benchmarks.toybox.sensors.drawn import ASKED, LABELS, Drawn, draw
from vitlens.benchmarks.toybox.world.captions import material_prompts, shape_prompts
from vitlens.benchmarks.toybox.world.materials import MATERIALS
from vitlens.benchmarks.toybox.world.objects import Split, ToyObject, World
from vitlens.benchmarks.toybox.world.shapes import SHAPES
from vitlens.errors import OptionError
from vitlens.model import ViTLens
from vitlens.space import Embeddings

HELD_OUT: dict[Split, int] = {"test": 560, "unseen_pairs": 280, "unseen_shapes": 200}
"""Objects of each split: whole rounds over its shapes."""
GALLERY = 196
"""Objects in a retrieval: the first 196 of "test" are every pair of a seen shape and material once."""


@dataclass(frozen=True)
class Accuracy:
    """Zero-shot classification of one sensor's held-out objects: shares of 1, and what chance gives."""

    sensor: str
    label: str
    """What is asked for: "shape" or "material"."""
    split: str
    classes: int
    """Class names to choose among: all of the world, or only the split's own."""
    items: int
    top1: float
    top5: float

    @property
    def right(self) -> int:
        """Items whose first answer is right."""
        return round(self.top1 * self.items)

    @property
    def chance1(self) -> float:
        """Top-1 of a guess."""
        return 1 / self.classes

    @property
    def chance5(self) -> float:
        """Top-5 of a guess."""
        return min(1.0, 5 / self.classes)


@dataclass(frozen=True)
class Retrieval:
    """Share of queries whose own object is the first, or among the first five, of the gallery of another modality."""

    query: str
    gallery: str
    items: int
    r1: float
    r5: float


@dataclass
class Results:
    """The whole table."""

    accuracies: list[Accuracy] = field(default_factory=list)
    retrievals: list[Retrieval] = field(default_factory=list)

    def accuracy(self, sensor: str, split: str, label: str | None = None, *, among: int | None = None) -> Accuracy:
        """The row of one sensor and split; `among` chooses the number of classes (default: all of the world)."""
        label = label or LABELS[sensor]
        found = [a for a in self.accuracies if (a.sensor, a.split, a.label) == (sensor, split, label)]
        chosen = [a for a in found if among is None or a.classes == among]
        if not chosen:
            raise KeyError((sensor, split, label, among))
        return max(chosen, key=lambda a: a.classes)

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Results:
        """The inverse of `to_dict`."""
        return cls([Accuracy(**row) for row in values["accuracies"]], [Retrieval(**row) for row in values["retrievals"]])


def class_embeddings(model: ViTLens, label: str) -> tuple[list[str], Tensor]:
    """Names of all shapes or materials, and their vectors [c, E]: the normalised mean of each one's own prompts."""
    names, prompts = (list(SHAPES), shape_prompts) if label == "shape" else (list(MATERIALS), material_prompts)
    lines = [prompts(name) for name in names]
    rows = model.encode({"text": [line for own in lines for line in own]}, batch_size=256)["text"]
    return names, F.normalize(rows.unflatten(0, (len(names), -1)).mean(dim=1), dim=-1)


def embed_drawn(model: ViTLens, drawn: Drawn, sensors: Sequence[str], *, progress: bool = False) -> Embeddings:
    """Embeddings of what was drawn, and of every object's caption, by modality."""
    inputs: dict[str, Sequence[Any]] = {name: drawn.column(name) for name in sensors}
    if model.supports("text"):
        inputs["text"] = [thing.caption for thing in drawn.things]
    return model.encode(inputs, batch_size=128, progress=progress)


def classify_split(
    model: ViTLens, embeddings: Mapping[str, Tensor], things: Sequence[ToyObject], split: Split, world: World
) -> list[Accuracy]:
    """Accuracies of every sensor on one split; never-seen shapes are also told apart from each other alone."""
    found = []
    vectors = {label: class_embeddings(model, label) for label in ("shape", "material")}
    for sensor in embeddings:
        if sensor == "text":
            continue
        for label in ASKED[sensor]:
            names, rows = vectors[label]
            scores = embeddings[sensor] @ rows.T
            targets = torch.tensor([names.index(getattr(thing, label)) for thing in things])
            found.append(_accuracy(scores, targets, sensor=sensor, label=label, split=split))
            if split == "unseen_shapes" and label == "shape":
                own = [names.index(shape) for shape in world.shapes(split)]
                targets = torch.tensor([own.index(t) for t in targets.tolist()])
                found.append(_accuracy(scores[:, own], targets, sensor=sensor, label=label, split=split))
    return found


def _accuracy(scores: Tensor, targets: Tensor, **what: str) -> Accuracy:
    top1, top5 = hit_rates(scores, targets)
    return Accuracy(**what, classes=scores.shape[1], items=len(targets), top1=top1, top5=top5)


def hit_rates(scores: Tensor, targets: Tensor) -> tuple[float, float]:
    """Shares of rows of scores [n, c] whose target is the highest, and among the five highest."""
    hits = scores.topk(min(5, scores.shape[1]), dim=-1).indices == targets[:, None]
    return float(hits[:, 0].float().mean()), float(hits.any(dim=-1).float().mean())


def retrieve(embeddings: Mapping[str, Tensor], count: int = GALLERY) -> list[Retrieval]:
    """R@1 and R@5 for every ordered pair of modalities, over the first `count` objects."""
    found = []
    for query, rows in embeddings.items():
        for gallery, others in embeddings.items():
            if query == gallery:
                continue
            n = min(count, len(rows))
            r1, r5 = hit_rates(rows[:n] @ others[:n].T, torch.arange(n))
            found.append(Retrieval(query, gallery, n, r1, r5))
    return found


def evaluate(
    model: ViTLens,
    folder: Path,
    *,
    world: World | None = None,
    counts: Mapping[Split, int] | None = None,
    workers: int = 2,
    progress: bool = False,
) -> Results:
    """Measure a model with the sensors it has; what is drawn for it is kept in `folder`.

    Raises:
        OptionError: the model has no text tower, or none of the Toybox's sensors.
    """
    world, results = world or World(), Results()
    sensors = [name for name in SENSORS if model.supports(name)]
    if not sensors or not model.supports("text"):
        raise OptionError(f"toybox: {model.spec.name} has {', '.join(model.modalities)}; text and one of {', '.join(SENSORS)}")
    for split, count in (counts or HELD_OUT).items():
        drawn = draw(folder, world, split, count, sensors, workers=workers)
        embeddings = embed_drawn(model, drawn, sensors, progress=progress)
        results.accuracies += classify_split(model, embeddings, drawn.things, split, world)
        if split == "test":
            results.retrievals = retrieve(embeddings)
    return results
