"""Texts from embeddings: the nearest captions of an index, and banks of texts that stand in for a description."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlens.checks import whole
from vitlens.errors import OptionError, SpaceError
from vitlens.model import ViTLens
from vitlens.space import EmbeddingSpace
from vitlens.store.files import load_embeddings
from vitlens.zeroshot import DEFAULT_TEMPLATES


@dataclass(frozen=True)
class Match:
    """A row of an index: its caption, its cosine with the query, its position."""

    caption: str
    cosine: float
    row: int


class EmbeddingIndex:
    """Embeddings [n, E] of any modalities with a caption each, searched exactly by cosine; the vectors are normalised here.

    Raises:
        OptionError: no rows, another number of captions, or values that are not finite or a row of zeros.
        SpaceError: vectors of another width than the space's, or known to be of another space.
    """

    def __init__(self, vectors: Tensor, captions: Sequence[str], space: EmbeddingSpace) -> None:
        vectors = torch.as_tensor(vectors)
        if getattr(vectors, "space", space) != space or vectors.ndim != 2 or vectors.shape[1] != space.dim:
            own = getattr(vectors, "space", None)
            found = f"of space {own.name} ({own.dim})" if own else f"of shape {list(vectors.shape)}"
            raise SpaceError(f"index: vectors {found}, the space is {space.name} ({space.dim} values)")
        if isinstance(captions, str) or not len(captions) or len(captions) != len(vectors):
            raise OptionError(f"index: {len(vectors)} vectors need as many captions, found {len(captions)}")
        if not bool((vectors.float().norm(dim=-1) > 0).all() and torch.isfinite(vectors).all()):
            raise OptionError("index: a vector is zero or holds values that are not finite")
        self.vectors = F.normalize(vectors.float().cpu(), dim=-1)
        self.captions = list(captions)
        self.space = space

    def __len__(self) -> int:
        return len(self.captions)

    @classmethod
    def from_items(
        cls, model: ViTLens, items: Mapping[str, Sequence[Any]], captions: Sequence[str], **options: Any
    ) -> EmbeddingIndex:
        """Embed {modality: items} with `model`; `captions` belong to them in that order. `options` go to `model.encode`."""
        encoded = model.encode(items, **options)
        return cls(torch.cat([encoded[name].clone() for name in items]), captions, model.space)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], captions: Mapping[str, str] | None = None) -> EmbeddingIndex:
        """What `vitlens embed` wrote. `captions` maps item names to captions; without it the names are the captions.

        Raises:
            InputError: not such a file.
            OptionError: items without a caption.
        """
        stored = load_embeddings(path)
        names = [name for modality in stored for name in stored.names[modality]]
        missing = [name for name in names if captions is not None and name not in captions]
        if missing:
            raise OptionError(f"{os.fspath(path)}: no caption for {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}")
        texts = names if captions is None else [captions[name] for name in names]
        return cls(torch.cat([rows.clone() for rows in stored.values()]), texts, stored.space)

    def nearest(self, queries: Tensor, k: int = 1) -> list[list[Match]]:
        """The `k` nearest rows of every query [m, E] (or [E]), best first; of equal ones the first.

        Raises:
            OptionError: k below 1.
            SpaceError: queries of another width.
        """
        whole("k", k, least=1)
        rows = torch.atleast_2d(torch.as_tensor(queries)).float().cpu()
        if rows.shape[1] != self.space.dim:
            raise SpaceError(f"queries of {rows.shape[1]} values, the index is in {self.space.name} ({self.space.dim})")
        cosines = F.normalize(rows, dim=-1) @ self.vectors.T
        order = cosines.argsort(dim=-1, descending=True, stable=True)[:, :k].tolist()
        return [[Match(self.captions[i], float(row[i]), i) for i in best] for row, best in zip(cosines, order, strict=True)]


class TextBank(EmbeddingIndex):
    """Texts that describe what is near them: a bank of class names or captions, each embedded in the given prompt templates.

    `top` texts are joined into a description.

    Raises:
        OptionError: no texts, an empty or repeated one, a template without its braces, top below 1.
        ModalityError: a model without text tower.
    """

    def __init__(
        self,
        model: ViTLens,
        texts: Sequence[str],
        *,
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        top: int = 1,
        batch_size: int = 256,
    ) -> None:
        whole("top", top, least=1)
        model.modality("text")
        vectors = model.class_vectors(texts, templates=templates, batch_size=batch_size)
        super().__init__(vectors, list(texts), model.space)
        self.top = top

    def describe(self, queries: Tensor) -> list[str]:
        """A description of every query [m, E]: its `top` nearest texts, best first."""
        return [", ".join(match.caption for match in found) for found in self.nearest(queries, self.top)]
