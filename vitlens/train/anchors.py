"""The anchors of a table: every row's frozen image and text embeddings, from the store, looked up while training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitlens.errors import InputError
from vitlens.modality import modality_class
from vitlens.store.engine import Engine, Progress
from vitlens.store.store import Embedded, EmbeddingStore, default_folder
from vitlens.train.records import Captions, Reader, Records


class CaptionList:
    """The different texts of a table and which of them belong to each row, in flat arrays."""

    def __init__(self, table: Records, captions: Captions) -> None:
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
        engine: Engine,
        table: Records,
        modalities: Sequence[str],
        *,
        readers: dict[str, Reader],
        captions: Captions | None,
    ) -> None:
        self.engine = engine
        self.table = table
        self.modalities = list(modalities)
        self.readers = readers
        self.captions = CaptionList(table, captions) if captions else None
        self.unusable = dict(self.captions.unusable) if self.captions else {}
        self._found: dict[str, Embedded] = {}

    def fill(self, folder: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> int:
        """Compute what the store does not hold yet, shared out among the processes; returns how many that were here."""
        store = EmbeddingStore(folder or default_folder())
        for name in self.modalities:
            report = partial(_report, progress) if progress else None
            if _is_text(name):
                texts = self.captions.texts if self.captions else []
                self._found[name] = store.embed(self.engine, name, texts, progress=report)
                continue
            reader = self.readers[name]
            found = store.embed(self.engine, name, reader, source=reader.source, on_error="skip", progress=report)
            self._found[name] = found
            for row, error in found.errors.items():
                self.unusable.setdefault(row, error.reason)
        return store.computed

    @property
    def text(self) -> str:
        """The anchor that reads captions."""
        return next(filter(_is_text, self.modalities))

    def usable(self) -> np.ndarray:
        """Row numbers that have all their anchors."""
        return np.setdiff1d(np.arange(len(self.table), dtype=np.int64), np.array(sorted(self.unusable), np.int64))

    def lookup(self, rows: np.ndarray, chance: np.ndarray) -> dict[str, Tensor]:
        """Anchors {modality: [n, E]} of rows [n] from the store, normalised; `chance` [n] chooses among captions."""
        anchors = {}
        for name in self._found:
            chosen = self.captions.choose(rows, chance) if _is_text(name) and self.captions else rows
            anchors[name] = F.normalize(self.kept(name, chosen), dim=-1)
        return anchors

    def kept(self, name: str, rows: np.ndarray) -> Tensor:
        """What the store holds of rows [n] (of captions, by number), as the tower gave it: [n, E]."""
        found = self._found[name]
        return torch.from_numpy(found.parts.vectors(found.rows[rows]))

    def text_inputs(self, rows: np.ndarray, chance: np.ndarray) -> dict[str, Tensor]:
        """The captions chosen for rows [n], preprocessed: {modality: [n, ...]}; empty without a text anchor."""
        found = {}
        for name in filter(_is_text, self.modalities):
            text, captions = self.engine.model.modality(name), cast(CaptionList, self.captions)
            chosen = [captions.texts[i] for i in captions.choose(rows, chance)]
            found[name] = torch.stack([text.transform(text.load(words)) for words in chosen])
        return found


def _report(progress: Progress, name: str, done: int, total: int) -> None:
    progress(f"{name} anchors", done, total)


def _is_text(name: str) -> bool:
    return modality_class(name).tower == "text"
