"""How an index keeps vectors: whole or cut to a width, as float32, float16, int8 or bits; and how they are read again.

    float32, float16    vector [w]
    int8                vector [w], each divided by its largest value; bits [w / 8], by which candidates are found
    binary              bits [w / 8]
    with keep_full      full float32 [E] besides: candidates are scored by it, and losses are measured against it

A cut vector is the first w of E values, normalised again, which only models trained for it (Matryoshka) or luck make good:
`vitlens index info --check` says what it costs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vitlens import checks
from vitlens.vectors import KINDS, cut, from_signs, signs, unit, whole_numbers


@dataclass(frozen=True)
class Storage:
    """`width` of `dim` values are kept as `kind`; with `full` the whole float32 vector besides."""

    dim: int
    width: int
    kind: str = "float32"
    full: bool = False

    @classmethod
    def of(cls, dim: int, *, kind: str = "float32", width: int | None = None, keep_full: bool = False) -> Storage:
        """The storage for a space of `dim` values.

        Raises:
            OptionError: an unknown kind, a width beyond the space's, or one that bits do not fill.
        """
        checks.one_of("store", kind, KINDS)
        checks.whole("width", dim if width is None else width, least=8, most=dim)
        made = cls(dim, dim if width is None else width, kind, keep_full)
        if made.coarse:
            checks.one_of("width: the rest of its division by 8, for bits,", made.width % 8, [0])
        return cls(made.dim, made.width, made.kind, keep_full and made.reduced)

    @property
    def coarse(self) -> bool:
        """Whether candidates are found by bits."""
        return self.kind in ("int8", "binary")

    @property
    def reduced(self) -> bool:
        """Whether less than the float32 vector is kept."""
        return self.kind != "float32" or self.width < self.dim

    @property
    def searched(self) -> str:
        """The column that the database searches."""
        return "bits" if self.coarse else "vector"

    @property
    def metric(self) -> str:
        """The database's distance for that column."""
        return "hamming" if self.coarse else "cosine"

    @property
    def scored(self) -> str:
        """The column that candidates are scored by."""
        return "full" if self.full else "bits" if self.kind == "binary" else "vector"

    @property
    def scored_width(self) -> int:
        """How many values a decoded vector has."""
        return self.dim if self.full else self.width

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that hold vectors."""
        kept = {"int8": ("vector", "bits"), "binary": ("bits",)}.get(self.kind, ("vector",))
        return (*kept, "full") if self.full else kept

    def fields(self) -> list[Any]:
        """The columns as Arrow fields."""
        import pyarrow as pa

        types = {"vector": getattr(pa, {"binary": "int8"}.get(self.kind, self.kind))(), "bits": pa.uint8(), "full": pa.float32()}
        widths = {"vector": self.width, "bits": self.width // 8, "full": self.dim}
        return [pa.field(name, pa.list_(types[name], widths[name])) for name in self.columns]

    def encode(self, vectors: np.ndarray) -> dict[str, Any]:
        """Unit vectors float32 [n, E] as the columns of the table."""
        kept = self.cut(vectors)
        made: dict[str, np.ndarray] = {"full": vectors.astype(np.float32)}
        if self.coarse:
            made["bits"] = signs(kept)
        if self.kind == "int8":
            made["vector"] = whole_numbers(kept)
        elif self.kind != "binary":
            made["vector"] = kept.astype(self.kind)
        return {field.name: _lists(made[field.name], field.type) for field in self.fields()}

    def decode(self, column: Any) -> np.ndarray:
        """The scored column (Arrow) as unit vectors float32 [n, w]."""
        values = _values(column)
        if self.scored == "bits":
            values = from_signs(values)
        return unit(values.astype(np.float32))

    def cut(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors [n, E] cut to the width and normalised."""
        return cut(vectors, self.width)

    def to_scored(self, vectors: np.ndarray) -> np.ndarray:
        """Query vectors [n, E] in the values that `decode` gives."""
        return unit(vectors.astype(np.float32)) if self.full else self.cut(vectors)

    def probe(self, query: np.ndarray) -> np.ndarray:
        """What the database is asked for a query [w] (or [E] where the full vectors are kept)."""
        asked = self.cut(query[None])
        return signs(asked)[0] if self.coarse else asked[0]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def _lists(values: np.ndarray, kind: Any) -> Any:
    import pyarrow as pa

    flat = np.ascontiguousarray(values).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, kind.value_type), values.shape[1])


def _values(column: Any) -> np.ndarray:
    """A column of fixed-size lists as [n, w]."""
    width = column.type.list_size
    chunks = [column] if not hasattr(column, "chunks") else column.chunks
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width) for chunk in chunks]
    return np.concatenate(parts) if parts else np.empty((0, width), np.float32)
