"""What is exported: a tower with the norm behind it, the input it is traced with, and which of its dimensions may vary."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.encoder import LensEncoder
from vitlens.errors import ModelError, OptionError
from vitlens.vit import FrozenViT

if TYPE_CHECKING:
    from vitlens.model import ViTLens

OUTPUT = "embedding"
OPSET = 18
TRACED_ITEMS, TRACED_VIEWS = 3, 2
"""Sizes of the input a graph is traced with; a size of 1 would be taken for a constant."""


class Normalised(nn.Module):
    """Preprocessed items [b, ...] -> embeddings [b, E] of length 1."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.tower(x), dim=-1)


@dataclass(frozen=True)
class Graph:
    """A tower ready to be exported."""

    modality: str
    module: Normalised
    example: Tensor
    """What it is traced with."""
    sizes: tuple[int | str, ...]
    """Of the input; names are those of sizes that may vary."""

    @property
    def views(self) -> bool:
        """Whether an item has several views, whose embeddings the graph averages."""
        return "views" in self.sizes

    @property
    def dtype(self) -> str:
        """Of the input."""
        return str(self.example.dtype).removeprefix("torch.")

    @property
    def operators(self) -> Mapping[Any, Callable[..., Any]]:
        """Translations of torch operators that ONNX has none for, from the sensor's ModEmbed."""
        return getattr(getattr(self.module.tower, "embed", None), "onnx_operators", dict)()


def graph_of(model: ViTLens, modality: str) -> Graph:
    """The graph of the tower that encodes `modality`; the model itself stays as it is.

    Raises:
        ModalityError: the model has no such modality.
        ModelError: a lens without its ViT, which gives tokens.
        OptionError: weights that are not float32.
    """
    reading, tower = model.modality(modality), model.tower(modality)
    if isinstance(tower, LensEncoder) and not isinstance(tower.vit, FrozenViT):
        raise ModelError(f"model {model.spec.name}: its {modality} lens gives tokens for another model's ViT, no embeddings")
    found = next(tower.parameters()).dtype
    if found != torch.float32:
        raise OptionError(
            f"model {model.spec.name}: its weights are {found}, a graph is made of float32 ones: load it without dtype"
        )
    item = reading.transform(reading.example())
    embed = getattr(tower, "embed", None)
    sizes: list[int | str] = ["batch", *item.shape]
    if item.ndim == getattr(embed, "input_ndim", None):  # a dimension more than one view has
        item = item[:1].expand(TRACED_VIEWS, *item.shape[1:])
        sizes[1] = "views"
    varies = getattr(embed, "any_length", None)
    if varies is not None:
        sizes[varies + ("views" in sizes)] = "length"
    module = Normalised(copy.deepcopy(tower).cpu()).eval().requires_grad_(False)
    return Graph(modality, module, torch.stack([item] * TRACED_ITEMS), tuple(sizes))


def to_onnx(graph: Graph) -> Any:
    """The graph as torch's ONNXProgram.

    Raises:
        MissingDependencyError: the extra `export` is not installed.
        ModelError: the tower does what ONNX cannot say, or depends on the size of the batch.
    """
    import onnxscript  # noqa: F401 - said here with its pip line; torch's own words are others

    varying = {place: torch.export.Dim.DYNAMIC for place, size in enumerate(graph.sizes) if isinstance(size, str)}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(graph.module, (graph.example,), dynamic_shapes=({**varying},), strict=False)
            made: Any = torch.onnx.export(
                program,
                (graph.example,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[graph.modality],
                output_names=[OUTPUT],
                custom_translation_table=dict(graph.operators),
            )
    except ImportError:
        raise
    except Exception as error:  # whatever a tracer stumbles over
        said = " ".join(str(error).split())[:300]
        raise ModelError(f"the {graph.modality} tower cannot be made a graph: {type(error).__name__}: {said}") from error
    for place, size in enumerate(graph.sizes):
        if isinstance(size, str):
            made.model.graph.inputs[0].shape[place] = size
    result = made.model.graph.outputs[0]
    result.shape[0] = "batch"
    for node in made.model.graph:  # a layer of that name (torch calls a table of words so) gives way
        for value in node.outputs:
            if value.name == OUTPUT and value is not result:
                value.name = f"{OUTPUT} within"
    return made
