"""The rows of a table as the training of a lens takes them: read, augmented from the seed, replaced where they cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from vitlens.errors import InputError
from vitlens.train.examples import Example, seed_of, seeded
from vitlens.train.records import Reader

TRIES = 16
"""Substitutes tried for an item that cannot be read, before the run stops."""


@dataclass
class TrainItems:
    """(epoch, row) -> Example. What cannot be read is replaced by another item, the same one whenever it is asked for again."""

    reader: Reader
    usable: np.ndarray
    seed: int
    augment: bool = True
    anchors: dict[str, Reader] = field(default_factory=dict)
    """Anchors that are read along, where there is no cache."""

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
        """The row that is wanted, then its substitutes: neighbours of a place that follows from seed, epoch and row."""
        yield wanted
        first = seed_of(self.seed, "substitute", epoch, wanted)
        for place in range(min(TRIES, len(self.usable))):
            row = int(self.usable[(first + place) % len(self.usable)])
            if row != wanted:
                yield row

    def _read(self, epoch: int, row: int, bad: list[tuple[str, str]]) -> Example:
        sample = self.reader.load(row)
        with seeded(seed_of(self.seed, "augment", epoch, row)):
            try:
                x = self.reader.modality.transform(sample, train=self.augment)
            except InputError as error:
                raise InputError(self.reader.name(row), error.found, error.accepted) from error
        anchors = {name: reader.modality.transform(reader.load(row)) for name, reader in self.anchors.items()}
        return Example(epoch, row, self.reader.name(row), {"x": x}, anchors, bad)
