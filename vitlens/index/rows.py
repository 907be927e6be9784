"""The rows of an index: what is known of each embedding, and how a row is named, by modality and content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.errors import OptionError, SpaceError
from vitlens.index.storage import Storage
from vitlens.modality import modality_class
from vitlens.space import EmbeddingSpace
from vitlens.store.digests import DIGEST, text_digest
from vitlens.vectors import unit

FIXED = ("key", "modality", "source", "file", "options", "digest", "weights", "licence", "added")
"""The columns that every index has, besides those of its vectors and the users' own."""
SHOWN = ("modality", "source", "licence")


@dataclass(frozen=True)
class Added:
    """What became of rows that were added: how many are new, were there already, stand in for an older content of their file."""

    added: int = 0
    known: int = 0
    replaced: int = 0
    keys: tuple[str, ...] = ()
    """Of all rows that were given, in order, whether they were new or not."""

    def __add__(self, other: Added) -> Added:
        counts = (self.added + other.added, self.known + other.known, self.replaced + other.replaced)
        return Added(*counts, keys=self.keys + other.keys)


@dataclass(frozen=True)
class Rows:
    """Embeddings [n, E] of a space with what is known of them, to be added. Lists have n values; None where nothing is known."""

    space: EmbeddingSpace
    vectors: np.ndarray
    modalities: Sequence[str]
    sources: Sequence[str]
    """Names as the user wrote them; of a text, the text itself."""
    digests: Sequence[bytes] | None = None
    """Of the items' contents (`vitlens.store.digests`); without them a row is known by its name and its vector."""
    files: Sequence[str | None] | None = None
    """Absolute paths or addresses; a file's row is replaced when its content has changed."""
    options: Sequence[Mapping[str, Any]] | None = None
    """Read options of each item."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Modality -> hash of the weights that made its embeddings."""
    licences: Sequence[str | None] | str | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """The users' own."""

    def __len__(self) -> int:
        return len(self.vectors)

    def check(self, space: EmbeddingSpace, index: str) -> None:
        """Whether they can go into the index called `index`, of this space.

        Raises:
            SpaceError: they live in another space.
            ModalityError: an unknown modality.
            OptionError: lists of another length, vectors of another shape or that are not finite, a column of a reserved name.
        """
        same_space(self.space, space, "the embeddings", index)
        if self.vectors.ndim != 2 or self.vectors.shape[1] != space.dim:
            raise SpaceError(f"vectors of shape {list(self.vectors.shape)}: space {space.name} has [n, {space.dim}]")
        if not np.isfinite(self.vectors).all() or not (np.linalg.norm(self.vectors, axis=1) > 1e-12).all():
            raise OptionError("vectors with values that are not finite, or of length 0, cannot be searched")
        for name in {*self.modalities}:
            modality_class(name)
        lists: dict[str, Any] = {"modalities": self.modalities, "sources": self.sources, **self.columns}
        lists |= {"digests": self.digests, "files": self.files, "options": self.options}
        lists |= {} if isinstance(self.licences, str) else {"licences": self.licences}
        for name, values in lists.items():
            if values is not None and len(values) != len(self):
                raise OptionError(f"{name}: {len(values)} values for {len(self)} embeddings")
        check_columns(self.columns)

    def contents(self) -> list[bytes]:
        """A digest for every row: of its content, or of a text, or else of its name and vector."""
        vectors = np.ascontiguousarray(self.vectors, np.float32)
        found = []
        for place, (name, source) in enumerate(zip(self.modalities, self.sources, strict=True)):
            if self.digests is not None:
                found.append(bytes(self.digests[place]))
            elif modality_class(name).tower == "text":
                found.append(text_digest(source))
            else:
                found.append(_hash(b"row", source.encode("utf-8", "surrogateescape"), vectors[place].tobytes()))
        return found

    def keys(self, *, twins: bool = False) -> list[str]:
        """What the rows are called in the index."""
        others = map(shown, self.sources) if twins else [""] * len(self)
        return [key_of(*parts) for parts in zip(self.modalities, self.contents(), others, strict=True)]

    def to_arrow(self, schema: Any, storage: Storage, *, twins: bool) -> Any:
        """The rows as a table of `schema`."""
        import pyarrow as pa

        digests = self.contents()
        written = [written_options(options) for options in self.options or ()]
        files = [shown(file) if file else None for file in self.files or ()] or [None] * len(self)
        sources = [shown(source) for source in self.sources]
        licences = [self.licences] * len(self) if isinstance(self.licences, str) or self.licences is None else self.licences
        values: dict[str, Any] = {
            "key": self.keys(twins=twins),
            "modality": list(self.modalities),
            "source": sources,
            "file": files,
            "options": written or [""] * len(self),
            "digest": [digest.hex() for digest in digests],
            "weights": [self.weights.get(name) for name in self.modalities],
            "licence": list(licences),
            "added": [datetime.now(timezone.utc)] * len(self),
            **storage.encode(unit(self.vectors)),
        }
        for name in (one.name for one in schema if one.name not in values):
            values[name] = list(self.columns.get(name, [None] * len(self)))
        try:
            return pa.table(
                [pa.array(values[f.name], f.type) if isinstance(values[f.name], list) else values[f.name] for f in schema],
                schema=schema,
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise OptionError(f"a column with values of another type than the index has: {error}") from error


def check_columns(names: Mapping[str, Any] | Sequence[str]) -> None:
    """Raises OptionError for a column's name that is reserved or cannot be written in a filter."""
    for name in names:
        if name in (*FIXED, "vector", "bits", "full") or name.startswith("_"):
            raise OptionError(f"column {name!r}: the index has one of its own; choose another name")
        if not name.isidentifier():
            raise OptionError(f"column {name!r}: use letters, digits and underscores, so that a filter can name it")


def same_space(one: EmbeddingSpace, other: EmbeddingSpace, what: str, index: str) -> None:
    """Raises SpaceError, naming both, where two spaces are not one."""
    if one != other:
        raise SpaceError(
            f"{what} in space {one.name} ({one.dim} values), {index} in {other.name} ({other.dim} values): "
            f"they cannot be compared; use the model that made the index, or build another one"
        )


def key_of(modality: str, digest: bytes, source: str = "") -> str:
    """The name of a row: the same modality and content, the same row. `source` tells twins apart."""
    return _hash(modality.encode(), digest, source.encode()).hex()


def written_options(options: Mapping[str, Any] | None) -> str:
    """Read options as they stand in the index: the same text for the same options."""
    return json.dumps(dict(options), sort_keys=True, default=str) if options else ""


def shown(name: str) -> str:
    """A name as the database's UTF-8 can hold it; bytes that are none stand as \\udce9."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def local_file(path: str | Path) -> str:
    """How the index writes down where a file is."""
    return str(Path(path).absolute())


def arrow_type(name: str, values: Sequence[Any]) -> Any:
    """The Arrow type of a user's column.

    Raises:
        OptionError: values that are no one of texts, numbers and truth values.
    """
    import pyarrow as pa

    try:
        found = pa.array([value for value in values if value is not None]).type
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise OptionError(f"column {name!r}: {error}") from error
    if pa.types.is_null(found):
        return pa.string()
    good = (pa.types.is_integer, pa.types.is_floating, pa.types.is_string, pa.types.is_boolean)
    if not any(test(found) for test in good):
        raise OptionError(f"column {name!r}: texts, numbers or truth values are needed, found {found}")
    return found


def schema_of(storage: Storage, columns: Mapping[str, Any], facts: Mapping[str, Any]) -> Any:
    """The Arrow schema of an index; `facts` go into its metadata."""
    import pyarrow as pa

    times = pa.timestamp("us", "UTC")
    fields = [pa.field(name, times if name == "added" else pa.string()) for name in FIXED]
    fields += storage.fields() + [pa.field(name, kind) for name, kind in columns.items()]
    return pa.schema(fields, metadata={"vitlens": json.dumps(facts)})


def _hash(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
