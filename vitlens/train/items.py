"""The rows of a table as the training of a lens takes them: read, augmented from the seed, replaced where they cannot be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from vitlens.errors import InputError
from vitlens.train.examples import Example, seed_of, seeded
from vitlens.train.records import Reader

LEAST_TRIES = 16
UNLIKELY = 1e-12


def tries_for(share: float) -> int | None:
    """Substitutes to try for an item that cannot be read, before the run stops: so many that all are bad less than once in 1e12
    items while no more than this share of all is; None for every item there is.
    """
    if share >= 1:
        return None
    return max(LEAST_TRIES, math.ceil(math.log(UNLIKELY) / math.log(share))) if share > 0 else LEAST_TRIES


@dataclass
class TrainItems:
    """(epoch, row) -> Example. What cannot be read is replaced by another item, the same one whenever it is asked for again."""

    reader: Reader
    usable: np.ndarray
    seed: int
    augment: bool = True
    anchors: dict[str, Reader] = field(default_factory=dict)
    """Anchors that are read along, where there is no cache."""
    tries: int | None = LEAST_TRIES
    """Substitutes tried, see `tries_for`."""

    def __getitem__(self, key: tuple[int, int]) -> Example | InputError:
        epoch, wanted = key
        bad: list[tuple[str, str]] = []
        for row in self._candidates(epoch, wanted):
            try:
                return self._read(epoch, row, bad)
            except InputError as error:
                bad.append((self.reader.name(row), error.reason))
        return InputError(bad[0][0], f"it and {len(bad) - 1} substitutes cannot be read; this one: {bad[0][1]}", "readable items")

    def _candidates(self, epoch: int, wanted: int) -> Iterator[int]:
        """The row that is wanted, then its substitutes: drawn from all, as seed, epoch and row have it."""
        yield wanted
        chance = np.random.Generator(np.random.PCG64(seed_of(self.seed, "substitute", epoch, wanted)))
        count = len(self.usable)
        few = self.tries is None or count <= self.tries
        drawn = chance.permutation(count) if few else chance.integers(count, size=self.tries)
        yield from (row for row in dict.fromkeys(self.usable[drawn].tolist()) if row != wanted)

    def _read(self, epoch: int, row: int, bad: list[tuple[str, str]]) -> Example:
        sample = self.reader.load(row)
        with seeded(seed_of(self.seed, "augment", epoch, row)):
            try:
                x = self.reader.modality.transform(sample, train=self.augment)
            except InputError as error:
                raise InputError(self.reader.name(row), error.found, error.accepted) from error
        anchors = {name: reader.modality.transform(reader.load(row)) for name, reader in self.anchors.items()}
        return Example(epoch, row, self.reader.name(row), {"x": x}, anchors, bad)
