"""A ViT-Lens model as the first module of a sentence-transformers model: text, pictures, sound, video, and every other sensor.

    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer(modules=[ViTLensModule("vitlens-l")])
    model.encode(["a dog", "dog.jpg", {"point_cloud": "dog.ply"}])

Strings are texts unless they name a picture, a sound or a video, as everywhere in that library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import vitlens
from vitlens.adapters.standard.items import as_source
from vitlens.errors import InputError, MissingDependencyError, OptionError
from vitlens.model import ViTLens
from vitlens.sources import name_of

try:
    from sentence_transformers.base.modality import infer_modality
    from sentence_transformers.base.modules.input_module import InputModule
except ImportError as error:
    raise MissingDependencyError("pip install 'vitlens[sentence-transformers]'") from error

KNOWN = ("text", "image", "audio", "video")
"""What sentence-transformers has names for."""
FOLDER = "vitlens"


class ViTLensModule(InputModule):
    """Inputs of any modality -> "sentence_embedding" [n, E], L2-normalised.

    An input is what sentence-transformers takes (a text, a path, a PIL picture, {"array": ..., "sampling_rate": ...}, a decoder
    of torchcodec), or {MODALITY: item} with an item as `ViTLens.encode` takes it, for any modality of the model; with several
    modalities in one mapping the embeddings are added. `model` is a ViTLens, a zoo name or a native folder.

    Raises:
        ModelError: no such model.
    """

    save_in_root = False

    def __init__(self, model: ViTLens | str) -> None:
        super().__init__()
        self.model = vitlens.load(model, device="cpu") if isinstance(model, str) else model

    @property
    def modalities(self) -> list[Any]:
        """Those of the model that sentence-transformers has a name for; "message" stands for batches of several ones."""
        return [*(name for name in KNOWN if self.model.supports(name)), "message"]

    def get_embedding_dimension(self) -> int:
        """Width of the embeddings."""
        return self.model.space.dim

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """Read and preprocess: {"modality": ..., "size": n, and for each modality its tensor and the rows [m] it belongs to}.

        Raises:
            InputError: an input that cannot be read, or of a modality that the model does not have.
        """
        tensors: dict[str, list[Tensor]] = {}
        rows: dict[str, list[int]] = {}
        for row, given in enumerate(inputs):
            for name, item in self._parts(given).items():
                modality = self.model.modality(name)
                item = f"{prompt}{item}" if prompt and name == "text" else item
                tensors.setdefault(name, []).append(modality.transform(modality.load(item)))
                rows.setdefault(name, []).append(row)
        features: dict[str, Any] = {"size": len(inputs), "modality": next(iter(rows)) if len(rows) == 1 else tuple(rows)}
        for name, found in tensors.items():
            features[f"{name}_input"] = torch.stack(found)
            features[f"{name}_rows"] = torch.tensor(rows[name])
        return features

    def _parts(self, given: Any) -> dict[str, Any]:
        """Modality -> item of one input."""
        if isinstance(given, Mapping) and given and all(isinstance(key, str) and self.model.supports(key) for key in given):
            return {name: as_source(self.model, name, item) for name, item in given.items()}
        name: Any
        try:
            name = infer_modality(given, self.modalities)
        except (ValueError, TypeError):
            name = "unknown"
        if not isinstance(name, str) or not self.model.supports(name):
            accepted = f"{', '.join(self.modalities[:-1])}, or {{MODALITY: item}} with one of {', '.join(self.model.modalities)}"
            raise InputError(name_of(given), f"an input of modality {name}", accepted)
        return {name: as_source(self.model, name, given)}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add "sentence_embedding"."""
        device = next(self.model.parameters()).device
        total = torch.zeros(features["size"], self.model.space.dim, device=device)
        for key in [key for key in features if key.endswith("_input")]:
            name = key.removesuffix("_input")
            embedded = F.normalize(self.model.tower(name)(features[key].to(device)).float(), dim=-1)
            total = total.index_add(0, features[f"{name}_rows"].to(device), embedded)
        return {**features, "sentence_embedding": F.normalize(total, dim=-1)}

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write the model as a native folder below `output_path`."""
        self.model.save_pretrained(Path(output_path) / FOLDER)
        (Path(output_path) / self.config_file_name).write_text(json.dumps({"model": FOLDER}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", *_: Any, **__: Any) -> ViTLensModule:
        """Read what `save` wrote.

        Raises:
            OptionError: no such folder; downloads go through `vitlens.load`.
        """
        folder = Path(model_name_or_path) / subfolder / FOLDER
        if not folder.is_dir():
            raise OptionError(f"{folder}: no saved ViT-Lens model; give a folder, or build ViTLensModule(vitlens.load(...))")
        return cls(str(folder))
