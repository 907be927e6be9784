"""The JSON beside a graph: what its input is, how a file becomes that, what its output means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vitlens.export.drift import LEAST, Drift
from vitlens.export.graph import OPSET, OUTPUT, Graph

if TYPE_CHECKING:
    from vitlens.model import ViTLens

FORMAT = 1
VIEWS = (
    "An item has one or more views (clips of a sound, frames of a video), the same number for all items of a batch. "
    "The graph averages their embeddings before it normalises. Equal views may be given as one."
)
LENGTH = "The size named length may vary (points of a cloud), the same for all items of a batch."
PYTHON = "reading = vitlens.get_modality({!r}, **options); reading.transform(reading.load(file))"
COSINE = "Embeddings have length 1: the cosine of two, also of other sensors of this space, is their dot product."
CHOICE = (
    "softmax(logit_scale * embedding @ vectors.T) are probabilities of the labels; vectors has one embedding of length 1 "
    "for each label"
)


def description_of(
    model: ViTLens, graph: Graph, *, weights: str, files: Sequence[str], made_with: dict[str, str]
) -> dict[str, Any]:
    """All that is known before the graph was run, as JSON types; `weights` is the hash of the tower's weights."""
    reading = model.modality(graph.modality)
    rules = [rule for rule, there in ((VIEWS, graph.views), (LENGTH, "length" in graph.sizes)) if there]
    return {
        "format": FORMAT,
        "model": model.spec.name,
        "licence": model.spec.licence,
        "weights": weights,
        "space": asdict(model.space),
        "files": list(files),
        "modality": reading.name,
        "reads": {"accepts": reading.accepts, "unit": reading.unit},
        "preprocessing": {"steps": reading.steps(), "options": reading.options(), "python": PYTHON.format(reading.name)},
        "input": {"name": graph.modality, "dtype": graph.dtype, "shape": list(graph.sizes), "rules": rules},
        "output": {"name": OUTPUT, "dtype": "float32", "shape": ["batch", model.space.dim], "meaning": COSINE},
        "labels": {"logit_scale": model.logit_scale, "meaning": CHOICE},
        "made_with": {**made_with, "opset": str(OPSET)},
    }


def labelled(description: dict[str, Any], labels: Sequence[str], templates: Sequence[str], file: str) -> dict[str, Any]:
    """The description with labels whose vectors lie in `file` (.npy, float32 [labels, E])."""
    known = {"file": file, "names": list(labels), "templates": list(templates)}
    return {**description, "labels": {**description["labels"], **known}}


def measured(description: dict[str, Any], drift: Drift, items: str) -> dict[str, Any]:
    """The description with the drift, and what `items` it was measured on."""
    return {**description, "drift": {**asdict(drift), "on": items, "least_cosine_allowed": LEAST, "against": "torch, float32"}}
