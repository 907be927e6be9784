"""A ViT-Lens model as an encoder of the Massive Text Embedding Benchmark, for its text, image, audio and video tasks.

import mteb
mteb.evaluate(MTEBEncoder("vitlens-l"), mteb.get_tasks(["CIFAR10ZeroShot", "ESC50"]))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

import vitlens
from vitlens.adapters.standard.items import as_source
from vitlens.errors import InputError, MissingDependencyError
from vitlens.model import ViTLens

try:
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta, ScoringFunction
except ImportError as error:
    raise MissingDependencyError("pip install 'vitlens[mteb]'") from error

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

COLUMNS = ("text", "image", "audio", "video")
"""Columns of MTEB's batches, which are our modalities."""


class MTEBEncoder(AbsEncoder):
    """Batches of texts, pictures, sounds or videos -> float32 [n, E], L2-normalised; several columns of a row are added.

    `model` is a ViTLens, or a name or folder for `vitlens.load`; `revision` goes into the results.
    """

    def __init__(self, model: ViTLens | str, revision: str | None = None, *, device: str | None = None, **_: Any) -> None:
        self.model = vitlens.load(model, device=device) if isinstance(model, str) else model
        self.mteb_model_meta = model_meta(self.model, revision)

    def encode(self, inputs: DataLoader[Any], **options: Any) -> np.ndarray:
        """Embed all batches of MTEB's loader, in order.

        Raises:
            InputError: a batch without a column that the model understands, or an item that cannot be read.
        """
        size = int(options.get("batch_size") or 32)
        found = [self._batch(batch, size) for batch in inputs]
        return np.concatenate(found) if found else np.empty((0, self.model.space.dim), np.float32)

    def _batch(self, batch: Mapping[str, Any], size: int) -> np.ndarray:
        names = [name for name in COLUMNS if name in batch and self.model.supports(name)]
        if not names:
            has = ", ".join(name for name in COLUMNS if self.model.supports(name))
            raise InputError("a batch of MTEB", f"columns {', '.join(map(str, batch))}", f"one of {has}")
        given = {name: [self._item(name, item) for item in batch[name]] for name in names}
        rows = self.model.encode(given, batch_size=size)
        return F.normalize(torch.stack([rows[name] for name in names]).sum(dim=0), dim=-1).numpy()

    def _item(self, name: str, item: Any) -> Any:
        if name == "image" and hasattr(item, "convert"):
            return item.convert("RGB")
        return as_source(self.model, name, item)


def model_meta(model: ViTLens, revision: str | None = None) -> ModelMeta:
    """What MTEB's results say of a model."""
    names: list[Any] = [name for name in COLUMNS if model.supports(name)]
    parameters = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    return ModelMeta(
        loader=None,
        name=f"vitlens/{model.spec.name.replace('/', '_')}",
        revision=revision or "unversioned",
        release_date=None,
        languages=["eng-Latn"],
        n_parameters=parameters,
        memory_usage_mb=round(4 * parameters / 2**20),
        max_tokens=None,
        embed_dim=model.space.dim,
        license=None,
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=False,
        training_datasets=None,
        modalities=names,
    )
