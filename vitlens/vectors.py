"""Vectors kept as less than they are: cut to their first values, as float16, as int8, as the bits of their signs.

Everybody who makes them smaller does it here: files of embeddings, the index, the service. What that costs is measured in
docs/speed.md, and for an index by `vitlens index build`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vitlens import checks
from vitlens.errors import OptionError
from vitlens.space import EmbeddingSpace

KINDS = ("float32", "float16", "int8", "binary")
LEAST_WIDTH = 8


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, w] of length 1; what has no length stays 0."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12), np.float32)


def cut(vectors: np.ndarray, width: int) -> np.ndarray:
    """The first `width` values of vectors [n, E], of length 1 again: as good as the whole only where a model was trained for it
    (Matryoshka, arXiv 2205.13147)."""
    return unit(vectors[:, :width].astype(np.float32))


def whole_numbers(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, w] as int8, each divided by its largest value, which leaves cosines as they are but for rounding."""
    return np.rint(127 * vectors / np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12)).astype(np.int8)


def signs(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, w] as bits uint8 [n, w / 8], 1 where a value is above 0, the first in the highest bit."""
    return np.packbits(vectors > 0, axis=1)


def from_signs(bits: np.ndarray) -> np.ndarray:
    """Bits uint8 [n, w / 8] as vectors [n, w] of 1 and -1."""
    return np.unpackbits(bits, axis=1).astype(np.float32) * 2 - 1


@dataclass(frozen=True)
class Packing:
    """How vectors are kept: as which kind, and how many of their values (None: all)."""

    kind: str = "float32"
    width: int | None = None

    def __post_init__(self) -> None:
        checks.one_of("--store", self.kind, KINDS)
        if self.width is not None:
            checks.whole("--width", self.width, least=LEAST_WIDTH)

    @property
    def whole(self) -> bool:
        """Whether nothing is lost."""
        return self == WHOLE

    def space(self, space: EmbeddingSpace) -> EmbeddingSpace:
        """The space of what is kept: one of fewer values is another one, whose vectors compare with each other only.

        Raises:
            OptionError: a width beyond the space's, or one that bits do not fill.
        """
        width = space.dim if self.width is None else self.width
        checks.whole("--width", width, least=min(LEAST_WIDTH, space.dim), most=space.dim)
        if self.kind == "binary" and width % 8:
            raise OptionError(f"--store binary: {width} values do not fill bytes, give a --width that 8 divides")
        return EmbeddingSpace(space.name, width)

    def cut(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors [n, E] of the width.

        Raises:
            OptionError: nothing is left of one.
        """
        if self.width is None or self.width == vectors.shape[1]:
            return vectors
        if len(vectors) and not (np.linalg.norm(vectors[:, : self.width], axis=1) > 1e-6).all():
            raise OptionError(f"--width {self.width}: the first {self.width} values of an embedding are zero; keep more")
        return cut(vectors, self.width)

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors [n, w] as they are written: float32, float16 or int8 [n, w], or bits uint8 [n, w / 8]."""
        if self.kind == "binary":
            return signs(vectors)
        return whole_numbers(vectors) if self.kind == "int8" else vectors.astype(f"<f{4 if self.kind == 'float32' else 2}")

    @property
    def written(self) -> tuple[np.dtype[Any], int]:
        """Type of what is written, and how many values of a vector one of it holds."""
        kinds = {"float32": ("<f4", 1), "float16": ("<f2", 1), "int8": ("i1", 1), "binary": ("u1", 8)}
        name, values = kinds[self.kind]
        return np.dtype(name), values


WHOLE = Packing()


def decoded(values: np.ndarray, kind: str) -> np.ndarray:
    """What `Packing.encode` wrote as float32 [n, w]; int8 and bits of length 1."""
    if kind == "binary":
        return unit(from_signs(values))
    return unit(values.astype(np.float32)) if kind == "int8" else values.astype(np.float32)
