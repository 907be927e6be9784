"""Embeddings of a benchmark's items, each computed once: kept on disk by weights and content, shared out among processes.

They are kept as the tower gives them, before normalising, so that any metric of any protocol can be computed from them later.
A run that was stopped goes on where the last batch reached the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from vitlens.errors import InputError
from vitlens.modality import modality_class
from vitlens.model import ViTLens
from vitlens.processes import barrier, from_all, local_world, world
from vitlens.sources import name_of
from vitlens.store.cache import AnchorCache, Contents, model_hash, stack_digests, text_digest

FLUSH_ITEMS = 1024
FLUSH_SECONDS = 30.0
"""Embeddings go to disk when there are so many, or after so long."""

OnError = Literal["raise", "skip"]
Progress = Callable[[str, int, int], None]
"""(what, done, total)."""


@dataclass(frozen=True)
class Embedded:
    """Embeddings [n, E] float32, not normalised; `kept[i]` is the item of row i, `errors` what was wrong with the others."""

    vectors: Tensor
    kept: list[int]
    errors: dict[int, InputError]


def is_text(modality: str) -> bool:
    """Whether a modality's items are words."""
    return modality_class(modality).tower == "text"


def source_name(item: Any) -> str:
    """The file (or what else) an item is."""
    return name_of(item["source"] if isinstance(item, Mapping) and "source" in item else item)


@dataclass
class Embedder:
    """Embeds with one model, from the cache in `folder` as far as it holds the items."""

    model: ViTLens
    folder: Path
    batch_size: int = 32
    num_workers: int = 0
    dtype: torch.dtype | None = None
    progress: Progress | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    """Weights hash of every tower that was used, by the name of its modality."""
    computed: int = 0
    """Embeddings that this process did not find on disk."""

    def embed(self, modality: str, items: Sequence[Any], *, on_error: OnError = "raise") -> Embedded:
        """Embeddings of items, in order.

        Raises:
            InputError: an item that cannot be read, unless `on_error` is "skip"; what was embedded until then stays on disk.
            ModalityError: a modality the model does not have.
        """
        cache = self._cache(modality)
        digests, errors = self._digests(modality, items)
        errors = self._agreed(errors, on_error)
        here = np.array([index not in errors for index in range(len(items))], bool)
        for among in (world(), local_world(), (0, 1)):  # again, for machines and processes that do not share the cache's folder
            todo = self._share(here & (cache.rows(digests) < 0), digests, among)
            errors = self._agreed(errors | self._compute(modality, cache, digests, items, todo, on_error), on_error)
            errors |= self._twins(digests, errors)
            cache.reload()
            here[list(errors)] = False
        rows = cache.rows(digests)
        kept = [index for index in range(len(items)) if index not in errors]
        vectors = torch.from_numpy(cache.vectors(rows[kept]) if kept else np.empty((0, self.model.space.dim), np.float32))
        return Embedded(vectors, kept, errors)

    @staticmethod
    def _agreed(errors: Mapping[int, InputError], on_error: OnError) -> dict[int, InputError]:
        """The errors of all processes by item; all of them stop at the same one."""
        barrier()
        together = dict(sorted((pair for part in from_all([dict(errors)]) for pair in part.items()), key=lambda pair: pair[0]))
        if together and on_error == "raise":
            raise next(iter(together.values()))
        return together

    def _cache(self, modality: str) -> AnchorCache:
        reading = self.model.modality(modality)
        shared = modality_class(modality).shares
        tower = shared if shared and modality not in self.model.encoders else modality
        if tower not in self.hashes:
            self.hashes[tower] = model_hash(self.model.tower(modality))
        about = {
            "model": self.hashes[tower],
            "space": self.model.space.name,
            "modality": modality,
            "options": reading.options(),
            "steps": reading.steps(),
            "precision": str(self.dtype or torch.float32).removeprefix("torch."),
            "normalized": False,
        }
        return AnchorCache(self.folder, about, self.model.space.dim)

    def _digests(self, modality: str, items: Sequence[Any]) -> tuple[np.ndarray, dict[int, InputError]]:
        """What identifies the items' content; files that cannot be opened are errors already."""
        if is_text(modality) and all(isinstance(item, str) for item in items):
            return stack_digests(text_digest(item) for item in items), {}
        contents, digests, errors = Contents(self.folder), [], {}
        for index, item in enumerate(items):
            options = {key: value for key, value in item.items() if key != "source"} if isinstance(item, Mapping) else {}
            try:
                digests.append(contents.digest(item.get("source") if isinstance(item, Mapping) else item, options))
            except InputError as error:
                errors[index] = error
                digests.append(bytes(16))
        contents.close()
        return stack_digests(digests), errors

    def _share(self, missing: np.ndarray, digests: np.ndarray, among: tuple[int, int]) -> list[int]:
        """Of the missing items those that this process embeds: equal ones once, in whole batches as one process would form."""
        places = np.flatnonzero(missing)
        _, first = np.unique(digests[places], axis=0, return_index=True)
        todo = places[np.sort(first)].tolist()
        rank, count = among
        batches = [todo[at : at + self.batch_size] for at in range(0, len(todo), self.batch_size)]
        return [index for batch in batches[rank::count] for index in batch]

    def _compute(
        self,
        modality: str,
        cache: AnchorCache,
        digests: np.ndarray,
        items: Sequence[Any],
        todo: list[int],
        on_error: OnError,
    ) -> dict[int, InputError]:
        """Embed and keep; with `on_error="raise"` the first error ends it, and what came before is kept."""
        errors: dict[int, InputError] = {}
        rows: list[tuple[int, np.ndarray]] = []
        whole = 0  # rows of whole batches; only these go to disk, so that a later run forms the same batches
        last = time.monotonic()
        try:
            for encoded in self._stream(modality, [items[index] for index in todo]) if todo else ():
                done = encoded.index + 1
                if encoded.embedding is not None:
                    rows.append((todo[encoded.index], encoded.embedding.numpy()))
                else:
                    errors[todo[encoded.index]] = cast(InputError, encoded.error)
                    if on_error == "raise":
                        break
                if done % self.batch_size and done < len(todo):
                    continue
                whole = len(rows)
                if self.progress:
                    self.progress(modality, done, len(todo))
                if whole >= FLUSH_ITEMS or time.monotonic() - last > FLUSH_SECONDS:
                    self._keep(cache, digests, rows)
                    rows, whole, last = [], 0, time.monotonic()
        finally:
            self._keep(cache, digests, rows[:whole])
        return errors

    def _stream(self, modality: str, items: Sequence[Any]) -> Iterable[Any]:
        settings = {"batch_size": self.batch_size, "num_workers": self.num_workers, "dtype": self.dtype}
        return self.model.stream(modality, items, normalize=False, **settings)  # type: ignore[arg-type]

    def _keep(self, cache: AnchorCache, digests: np.ndarray, rows: list[tuple[int, np.ndarray]]) -> None:
        if rows:
            cache.add(digests[[index for index, _ in rows]], np.stack([vector for _, vector in rows]))
            self.computed += len(rows)

    @staticmethod
    def _twins(digests: np.ndarray, errors: Mapping[int, InputError]) -> dict[int, InputError]:
        """Items with the very content of one that cannot be read, which was tried once for all of them."""
        bad = {digests[index].tobytes(): error for index, error in errors.items() if digests[index].any()}
        if not bad:
            return {}
        keys = [digest.tobytes() for digest in digests]
        return {index: bad[key] for index, key in enumerate(keys) if key in bad and index not in errors}
