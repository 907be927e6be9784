"""What approximations cost: recall against the nearest rows by the whole float32 vectors, found by looking at all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlens.index.query import Term
from vitlens.vectors import unit

if TYPE_CHECKING:
    from vitlens.index.index import Index

TOP = 10
QUERIES = 100
BATCH = 8192


@dataclass(frozen=True)
class Recall:
    """The share of the right ten that a search finds, and of the first: rows are asked for their neighbours, not for themselves.

    `against` says what is right: the nearest by "float32" vectors, or by the stored ones where those are all there is.
    """

    queries: int
    rows: int
    recall_at_10: float
    recall_at_1: float
    milliseconds: float
    against: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


class Nearest:
    """The nearest rows to queries [q, E], found while all rows pass by; the queries are among the first that do."""

    def __init__(
        self,
        count: int = QUERIES,
        queries: np.ndarray | None = None,
        modalities: Sequence[str] = (),
        own: Sequence[str] = (),
    ) -> None:
        self.count = count
        self.queries = np.empty((0, 0), np.float32) if queries is None else unit(queries)
        self.modalities, self.own = list(modalities), list(own)
        """Of the queries: their modalities, and their keys where they are rows themselves."""
        self.rows = 0
        self._scores = np.empty((len(self.queries), 0), np.float32)
        self._keys = np.empty((len(self.queries), 0), "U32")

    def see(self, keys: Sequence[str], vectors: np.ndarray, modalities: Sequence[str]) -> None:
        """Some rows: their keys, vectors [n, E] and modalities."""
        vectors = unit(vectors)
        if not len(self.queries):
            chosen = np.random.default_rng(0).choice(len(vectors), min(self.count, len(vectors)), replace=False)
            self.queries, self.modalities = vectors[chosen], [modalities[place] for place in chosen]
            self.own = [keys[place] for place in chosen]
            self._scores = np.empty((len(chosen), 0), np.float32)
            self._keys = np.empty((len(chosen), 0), "U32")
        fresh = self.queries @ vectors.T
        most = min(2 * TOP, len(vectors))
        best = np.argpartition(-fresh, most - 1, axis=1)[:, :most]
        scores = np.concatenate([self._scores, np.take_along_axis(fresh, best, 1)], axis=1)
        names = np.concatenate([self._keys, np.array(keys)[best]], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : 2 * TOP]
        self._scores, self._keys = np.take_along_axis(scores, best, 1), np.take_along_axis(names, best, 1)
        self.rows += len(vectors)

    def right(self) -> Iterator[list[str]]:
        """Keys of the ten nearest rows of each query, best first; a row that came twice counts once."""
        for keys, own in zip(self._keys, self.own or [""] * len(self.queries), strict=True):
            yield [key for key in dict.fromkeys(keys.tolist()) if key != own][:TOP]


def recall_of(index: Index, nearest: Nearest, against: str) -> Recall:
    """Ask the index for what `nearest` found."""
    tens, firsts, seconds = [], [], []
    own = nearest.own or [""] * len(nearest.queries)
    for query, modality, key, right in zip(nearest.queries, nearest.modalities, own, nearest.right(), strict=True):
        answer = index.search(Term(query, modality), index.space, k=TOP + bool(key), calibrate="none")
        found = [hit.key for hit in answer.hits if hit.key != key][:TOP]
        seconds.append(answer.seconds)
        tens.append(len({*found} & {*right}) / max(len(right), 1))
        firsts.append(bool(right) and bool(found) and right[0] == found[0])
    milliseconds = round(float(np.median(seconds)) * 1000, 1)
    counts = (len(tens), nearest.rows)
    return Recall(*counts, round(float(np.mean(tens)), 4), round(float(np.mean(firsts)), 4), milliseconds, against)


def check(index: Index, count: int = QUERIES) -> Recall | None:
    """Recall of an index as it stands; None for one without rows. All its vectors are read once."""
    storage = index.storage
    rows = len(index)
    if not rows:
        return None
    chosen = np.sort(np.random.default_rng(1).choice(rows, min(count, rows), replace=False)).tolist()
    sample = index.take(chosen, ["key", "modality", storage.scored])
    queries = storage.decode(sample[storage.scored])
    padded = np.zeros((len(queries), index.space.dim), np.float32)
    padded[:, : queries.shape[1]] = queries
    nearest = Nearest(queries=padded, modalities=sample["modality"].to_pylist(), own=sample["key"].to_pylist())
    nearest.queries = queries  # as wide as what is kept of the rows
    for batch in index.batches(["key", "modality", storage.scored], BATCH):
        nearest.see(batch["key"].to_pylist(), storage.decode(batch[storage.scored]), batch["modality"].to_pylist())
    nearest.queries = padded
    against = "float32" if storage.full or not storage.reduced else f"the {storage.kind} vectors of {storage.width} values"
    return recall_of(index, nearest, against)
