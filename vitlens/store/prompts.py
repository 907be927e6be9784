"""The prompts of a classifier, kept on disk: whoever classifies by the same class names again does not wait for the text tower.

    model.class_vectors(labels, embed=stored_prompts(model))

They lie in a store of their own, beside the one of everything else, and those that were not used for longest make room.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vitlens.store.engine import Engine
from vitlens.store.store import EmbeddingStore, default_folder

if TYPE_CHECKING:
    from torch import Tensor

    from vitlens.model import ViTLens

MOST = 64 << 20
"""Bytes of prompts that are kept: some 20,000 of 768 values."""


def stored_prompts(
    model: ViTLens, folder: str | os.PathLike[str] | None = None, *, batch_size: int = 256
) -> Callable[[list[str]], Tensor]:
    """Texts [n] -> their embeddings [n, E] of length 1, from `prompts` in `folder` as far as they are there.

    Without `folder` it is the user's cache folder (VITLENS_CACHE). One that cannot be written costs a warning. What else lies in
    the folder, other embeddings among it, is never removed.
    """
    store = EmbeddingStore(Path(folder or default_folder().parent) / "prompts")

    def embed(prompts: list[str]) -> Tensor:
        import torch.nn.functional as F

        try:
            found = store.embed(Engine(model, batch_size), "text", prompts)
            found.parts.touch(found.rows)
            store.trim(MOST)
        except OSError as error:
            warnings.warn(f"prompts are not kept: {error}", stacklevel=2)
            return model.encode({"text": prompts}, batch_size=batch_size)["text"]
        return F.normalize(found.vectors, dim=-1)

    return embed
