"""The anchors of a table: every row's frozen image and text embeddings, computed once and looked up while training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vitlens.errors import InputError
from vitlens.modality import modality_class
from vitlens.model import ViTLens
from vitlens.processes import barrier, from_all, local_world, world
from vitlens.store.cache import AnchorCache, Contents, default_folder, model_hash, stack_digests, text_digest
from vitlens.train.records import Captions, Reader, Table

FLUSH_ITEMS = 4096
FLUSH_SECONDS = 60.0
"""Embeddings go to disk when there are so many, or after so long."""

Progress = Callable[[str, int, int], None]
"""(what, done, total)."""


class CaptionList:
    """The different texts of a table and which of them belong to each row, in flat arrays."""

    def __init__(self, table: Table, captions: Captions) -> None:
        self.texts: list[str] = []
        self.unusable: dict[int, str] = {}
        known: dict[str, int] = {}
        flat: list[int] = []
        starts = [0]
        for row in range(len(table)):
            try:
                for text in captions.of(row):
                    if text not in known:
                        known[text] = len(self.texts)
                        self.texts.append(text)
                    flat.append(known[text])
            except InputError as error:
                self.unusable[row] = str(error)
            starts.append(len(flat))
        self._flat = np.array(flat, np.int64)
        self._starts = np.array(starts, np.int64)

    def choose(self, rows: np.ndarray, chance: np.ndarray) -> np.ndarray:
        """Rows [n] and numbers [n] -> for each row the number of one of its texts."""
        counts = self._starts[rows + 1] - self._starts[rows]
        return self._flat[self._starts[rows] + chance % counts]


class AnchorTable:
    """Anchors of the rows of one table, for each of `modalities`. `unusable` says which rows have none, and why."""

    def __init__(
        self,
        model: ViTLens,
        table: Table,
        modalities: Sequence[str],
        *,
        readers: dict[str, Reader],
        captions: Captions | None,
        batch_size: int = 64,
        dtype: torch.dtype | None = None,
        num_workers: int = 0,
    ) -> None:
        self.model = model
        self.table = table
        self.modalities = list(modalities)
        self.readers = readers
        self.captions = CaptionList(table, captions) if captions else None
        self.unusable = dict(self.captions.unusable) if self.captions else {}
        self.batch_size = batch_size
        self.dtype = dtype
        self.num_workers = num_workers
        self.hashes: dict[str, str] = {}
        """Of the towers, by the name of their modality."""
        self._caches: dict[str, AnchorCache] = {}
        self._places: dict[str, np.ndarray] = {}

    def fill(self, folder: str | Path | None = None, progress: Progress | None = None) -> int:
        """Compute what the cache on disk does not hold yet, shared out among the processes; returns how many that were here."""
        place = Path(folder) if folder else default_folder()
        contents = Contents(place)
        computed = 0
        for name in self.modalities:
            cache = self._caches[name] = AnchorCache.open(
                place,
                model=self._hash(name),
                space=self.model.space.name,
                dim=self.model.space.dim,
                modality=self.model.modality(name),
                precision=str(self.dtype or torch.float32).removeprefix("torch."),
            )
            digests, items = self._text_items() if _is_text(name) else self._sensor_items(name, contents)
            contents.save()
            here = np.array([item is not None for item in items], bool)
            for again, among in enumerate((world(), local_world())):  # again, for machines that do not share the cache's folder
                missing, bad = here & (cache.rows(digests) < 0), cache.known_bad(digests)
                for group in [missing & ~bad, *([] if again else [missing & bad])]:
                    computed += self._compute(name, cache, digests, items, self._share(group, digests, among), progress)
                barrier()
                cache.reload()
            self._places[name] = cache.rows(digests)
        contents.close()
        self._agree()
        return computed

    def _hash(self, name: str) -> str:
        tower = modality_class(name).shares or name
        if tower not in self.hashes:
            self.hashes[tower] = model_hash(self.model.tower(name))
        return self.hashes[tower]

    def _share(self, wanted: np.ndarray, digests: np.ndarray, among: tuple[int, int]) -> np.ndarray:
        """Of the `wanted` items those that this process computes: equal ones once, in whole batches."""
        missing = np.flatnonzero(wanted)
        _, first = np.unique(digests[missing], axis=0, return_index=True)
        todo = missing[np.sort(first)]
        rank, count = among
        batches = [todo[i : i + self.batch_size] for i in range(0, len(todo), self.batch_size)]
        return np.concatenate([todo[:0], *batches[rank::count]])

    def _agree(self) -> None:
        """All processes know the same unusable rows."""
        for name in self.modalities:
            if not _is_text(name):
                for row in np.flatnonzero(self._places[name] < 0):
                    self.unusable.setdefault(int(row), f"its {name} cannot be read")
        for other in from_all([self.unusable]):
            self.unusable |= {row: why for row, why in other.items() if not why.startswith("its ")}

    def _text_items(self) -> tuple[np.ndarray, list[Any]]:
        texts = self.captions.texts if self.captions else []
        return stack_digests(text_digest(text) for text in texts), list(texts)

    def _sensor_items(self, name: str, contents: Contents) -> tuple[np.ndarray, list[Any]]:
        """Digests and items of all rows; None for a row without one."""
        reader = self.readers[name]
        digests: list[bytes] = []
        items: list[int | None] = []
        for row in range(len(self.table)):
            try:
                value, options = reader.source(row)
                digests.append(contents.digest(value, options))
                items.append(row)
            except InputError as error:
                self.unusable.setdefault(row, f"{error.found}. Accepted: {error.accepted}")
                digests.append(bytes(16))
                items.append(None)
        return stack_digests(digests), items

    def _compute(
        self, name: str, cache: AnchorCache, digests: np.ndarray, items: list[Any], todo: np.ndarray, progress: Progress | None
    ) -> int:
        """Embed items and put them on disk in whole batches, so that a later run meets the same batches."""
        from time import monotonic

        if not len(todo):
            return 0
        source = _Lazy([items[i] for i in todo], None if _is_text(name) else self.readers[name])
        rows: list[np.ndarray] = []
        places: list[int] = []
        bad: list[int] = []
        written = 0
        last = monotonic()
        stream = self.model.stream(name, source, batch_size=self.batch_size, num_workers=self.num_workers, dtype=self.dtype)
        for encoded in stream:
            where = int(todo[encoded.index])
            if encoded.embedding is not None:
                rows.append(encoded.embedding.numpy())
                places.append(where)
            elif _is_text(name):
                raise cast(InputError, encoded.error)
            else:
                bad.append(where)
                self.unusable[items[where]] = str(encoded.error)
            done, end = encoded.index + 1, encoded.index + 1 == len(todo)
            if not end and done % self.batch_size:
                continue
            if progress:
                progress(f"{name} anchors", done, len(todo))
            if end or len(rows) >= FLUSH_ITEMS or monotonic() - last > FLUSH_SECONDS:
                if bad:
                    cache.add_bad(digests[bad])
                if rows:
                    cache.add(digests[places], np.stack(rows))
                written += len(rows)
                rows, places, bad, last = [], [], [], monotonic()
        return written

    def usable(self) -> np.ndarray:
        """Row numbers that have all their anchors."""
        return np.setdiff1d(np.arange(len(self.table), dtype=np.int64), np.array(sorted(self.unusable), np.int64))

    def lookup(self, rows: np.ndarray, chance: np.ndarray) -> dict[str, Tensor]:
        """Cached anchors {modality: [n, E]} of rows [n], normalised; `chance` [n] chooses among captions."""
        found = {}
        for name in self.modalities:
            places = self._places[name]
            chosen = self.captions.choose(rows, chance) if _is_text(name) and self.captions else rows
            found[name] = torch.from_numpy(self._caches[name].vectors(places[chosen]))
        return found

    def text_inputs(self, rows: np.ndarray, chance: np.ndarray) -> dict[str, Tensor]:
        """The captions chosen for rows [n], preprocessed: {modality: [n, ...]}; empty without a text anchor."""
        found = {}
        for name in filter(_is_text, self.modalities):
            text, captions = self.model.modality(name), cast(CaptionList, self.captions)
            chosen = [captions.texts[i] for i in captions.choose(rows, chance)]
            found[name] = torch.stack([text.transform(text.load(words)) for words in chosen])
        return found


class _Lazy(Sequence[Any]):
    """Items as `ViTLens.stream` takes them, opened when they are asked for."""

    def __init__(self, items: list[Any], reader: Reader | None) -> None:
        self.items = items
        self.reader = reader

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.items[index] if self.reader is None else self.reader.item(self.items[index])

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))


def _is_text(name: str) -> bool:
    return modality_class(name).tower == "text"
