"""Files of embeddings to hand on: .npz, .parquet or .safetensors, written piece by piece and whole or not at all.

    npz          <modality> [n, E] float32, <modality>_items [n] str, <modality>_rows [n] int64, <modality>_digests [n, 16] uint8;
                 space, dim, model, weights (JSON)
    parquet      a row per item: row, item, modality, embedding, digest; vitlens.space, .dim, .model and .weights in the schema's
                 metadata
    safetensors  <modality> [n, E] float32, <modality>.rows [n] int64, <modality>.digests [n, 16] uint8; items (JSON),
                 space, dim, model, weights (JSON) in the metadata

Vectors kept as less (`vitlens.vectors`: float16, int8, bits) have that type and say so in `store`; `dim` is the number of their
values. They are read as float32.

`rows` are positions among the inputs, so that what was read from a manifest can be joined with it again. `digests` are of the
items' contents, `weights` the hash of the weights behind each modality: by them an index knows what it has; files may lack both.
A file name that is no UTF-8 keeps its bytes; parquet, whose texts must be UTF-8, has a column `item_bytes` for them where there
is such a name.
"""

from __future__ import annotations

import heapq
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from vitlens import checks
from vitlens.disk import atomic, output_file
from vitlens.errors import InputError, OptionError
from vitlens.sources import check_file, decoding, suffix_of
from vitlens.space import Embeddings, EmbeddingSpace
from vitlens.store.digests import DIGEST, stack_digests
from vitlens.store.places import Folder, is_uri
from vitlens.vectors import KINDS, WHOLE, Packing, decoded

FORMATS = ("npz", "parquet", "safetensors")
ACCEPTED = "an embedding file written by `vitlens embed`: .npz, .parquet or .safetensors, or a folder of its parts"
SUCCESS = "_SUCCESS"
"""What a folder of parts holds once all are there: how many embeddings, of what."""
JOB_CARD = "_vitlens.json"
"""What a folder of parts holds that a bulk job of `vitlens embed` writes: which job that is."""
HEADER_LIMIT = 100_000_000
"""Bytes of a safetensors header, by its definition; the names of the items stand there."""
_ROWS = 4096
"""Rows of a parquet row group."""
_SURROGATES = "[\ud800-\udfff]"
"""What stands for the bytes of a name that is no UTF-8."""


@dataclass(frozen=True)
class Column:
    """The embeddings of one modality: item names, rows, and their vectors in pieces [k, E] float32."""

    items: list[str]
    rows: list[int]
    pieces: Callable[[], Iterator[np.ndarray]]
    digests: Sequence[bytes] = ()
    """Of what the items hold; none where that is not known."""


@dataclass(frozen=True)
class Content:
    """What goes into a file."""

    space: EmbeddingSpace
    model: str
    columns: Mapping[str, Column] = field(default_factory=dict)
    packing: Packing = WHOLE
    """What vectors [k, E] of the columns are written as; `space` is that of all their values."""
    about: Mapping[str, str] = field(default_factory=dict)
    """More for the metadata of a parquet file."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Modality -> hash of the weights that made its embeddings."""

    @property
    def written_space(self) -> EmbeddingSpace:
        """The space of what is written."""
        return self.packing.space(self.space)

    @property
    def values(self) -> tuple[np.dtype[Any], int]:
        """Type of what is written, and how many of it a vector has."""
        dtype, packed = self.packing.written
        return dtype, self.written_space.dim // packed

    def pieces(self, column: Column) -> Iterator[np.ndarray]:
        """A column's vectors as they are written."""
        for piece in column.pieces():
            yield np.ascontiguousarray(self.packing.encode(self.packing.cut(np.asarray(piece, np.float32))))


class StoredEmbeddings(Embeddings):
    """`Embeddings` from a file, with what belongs to their rows - `names`, `rows`, `digests` per modality - and the model's name.

    `weights` is the hash of the weights behind each modality. A file may lack digests (then there are none) and weights. `kind`
    says what the vectors were kept as; as int8 and as bits they are near what they were.
    """

    def __init__(self, space: EmbeddingSpace, model: str, kind: str = "float32") -> None:
        super().__init__(space)
        self.model = model
        self.kind = checks.one_of("store", kind, KINDS)
        self.names: dict[str, list[str]] = {}
        self.rows: dict[str, list[int]] = {}
        self.digests: dict[str, list[bytes]] = {}
        self.weights: dict[str, str] = {}

    def add(
        self, modality: str, vectors: np.ndarray, names: Sequence[str], rows: Sequence[int], digests: Sequence[bytes] = ()
    ) -> None:
        """Put one modality's embeddings in, [n, E] as they are written."""
        import torch

        self.put(modality, torch.from_numpy(np.array(decoded(vectors, self.kind), dtype=np.float32)), names, rows, digests)

    def put(self, modality: str, vectors: Any, names: Sequence[str], rows: Sequence[int], digests: Sequence[bytes]) -> None:
        """Put one modality's embeddings in, a tensor float32 [n, E]."""
        self[modality] = vectors
        self.names[modality], self.rows[modality], self.digests[modality] = list(names), list(rows), list(digests)
        self.kept[modality], self.errors[modality] = list(range(len(names))), []


def check_output(path: Path, names: Sequence[str], *, inputs: Iterable[Path] = (), overwrite: bool) -> None:
    """Say before hours of work whether `path` can be written.

    Raises:
        OptionError: another type of file, a folder, one of the `inputs`, a file that exists (without `overwrite`), too many
            items for the type.
    """
    output_file("output", path, FORMATS, inputs=inputs, overwrite=overwrite)
    if suffix_of(path) == "safetensors" and sum(len(json.dumps(name)) + 4 for name in names) > HEADER_LIMIT // 2:
        raise OptionError(f"output {path}: {len(names)} item names are too much for a safetensors header; write .parquet or .npz")


def write_embeddings(path: Path, content: Content) -> None:
    """Write `content` to `path`, in the format its extension says; the file appears whole or not at all."""
    writer = {"npz": _write_npz, "parquet": write_parquet, "safetensors": _write_safetensors}[suffix_of(path)]
    with atomic(path) as part, part.open("wb") as stream:
        writer(stream, content)


def _write_npz(stream: IO[bytes], content: Content) -> None:
    with zipfile.ZipFile(stream, "w") as archive:
        for modality, column in content.columns.items():
            with archive.open(_member(f"{modality}.npy"), "w", force_zip64=True) as member:
                dtype, width = content.values
                described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
                np.lib.format.write_array_header_1_0(member, {**described, "shape": (len(column.items), width)})
                for piece in content.pieces(column):
                    member.write(piece.tobytes())
            _add_array(archive, f"{modality}_items", np.array(column.items, dtype=np.str_))
            _add_array(archive, f"{modality}_rows", np.array(column.rows, dtype=np.int64))
            if column.digests:
                _add_array(archive, f"{modality}_digests", stack_digests(column.digests))
        for key, value in _metadata(content).items():
            _add_array(archive, key, np.array(int(value) if key == "dim" else value))


def _metadata(content: Content) -> dict[str, str]:
    """What every format says of its embeddings."""
    space = content.written_space
    told = {"space": space.name, "dim": str(space.dim), "model": content.model}
    told["weights"] = json.dumps(dict(content.weights), sort_keys=True)
    return told if content.packing.kind == "float32" else {**told, "store": content.packing.kind}


def _member(name: str) -> zipfile.ZipInfo:
    """An archive member without the time of day: the same embeddings give the same file."""
    return zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))


def _add_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    member = _member(f"{name}.npy")
    member.compress_type = zipfile.ZIP_DEFLATED  # numpy's strings have four bytes a character, and room for the longest
    with archive.open(member, "w", force_zip64=True) as stream:
        np.lib.format.write_array(stream, array, allow_pickle=False)


def write_parquet(stream: IO[bytes], content: Content) -> None:
    """A row per item, in input order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    dtype, width = content.values
    kind = pa.from_numpy_dtype(dtype)
    fields = [("row", pa.int64()), ("item", pa.string()), ("modality", pa.string()), ("embedding", pa.list_(kind))]
    digested = any(column.digests for column in content.columns.values())
    fields += [("digest", pa.binary())] if digested else []
    odd = any(_is_odd(item) for column in content.columns.values() for item in column.items)
    fields += [("item_bytes", pa.binary())] if odd else []
    metadata = {f"vitlens.{key}": value for key, value in _metadata(content).items()}
    schema = pa.schema(fields, metadata={**metadata, **content.about})
    with pq.ParquetWriter(stream, schema) as writer:
        for rows, items, modalities, vectors, digests in _in_input_order(content):
            offsets = np.arange(len(rows) + 1, dtype=np.int32) * width
            lists = pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(vectors), kind))
            more = [digests] * digested + [[exact_name(item) for item in items]] * odd
            writer.write_table(pa.table([rows, [*map(shown_name, items)], modalities, lists, *more], schema=schema))


def shown_name(item: str) -> str:
    """A name as a text of sound Unicode."""
    return item.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def exact_name(item: str) -> bytes | None:
    """The bytes of a name that `shown_name` does not say exactly."""
    return item.encode("utf-8", "surrogateescape") if _is_odd(item) else None


def _is_odd(name: str) -> bool:
    """Whether a name is no sound Unicode."""
    return not name.isascii() and bool(re.search(_SURROGATES, name))


def _in_input_order(content: Content) -> Iterator[tuple[list[Any], ...]]:
    """Rows, items, modalities, vectors, digests of all modalities merged by their position among the inputs, some at a time."""

    def entries(place: int, modality: str, column: Column) -> Iterator[tuple[int, int, str, str, np.ndarray, bytes | None]]:
        vectors = (vector for piece in content.pieces(column) for vector in piece)
        digests: Sequence[bytes | None] = column.digests or [None] * len(column.rows)
        for row, item, vector, digest in zip(column.rows, column.items, vectors, digests, strict=True):
            yield row, place, item, modality, vector, digest

    streams = [entries(place, modality, column) for place, (modality, column) in enumerate(content.columns.items())]
    merged = heapq.merge(*streams, key=lambda entry: entry[:2])
    while batch := list(islice(merged, _ROWS)):
        rows, _, *others = (list(values) for values in zip(*batch, strict=True))
        yield rows, *others


def _write_safetensors(stream: IO[bytes], content: Content) -> None:
    """The format is a length, a JSON header and the values one after the other; written here because the library's writer
    wants everything in memory at once."""
    names = json.dumps({modality: column.items for modality, column in content.columns.items()}, ensure_ascii=False)
    names = re.sub(_SURROGATES, lambda found: f"\\u{ord(found[0]):04x}", names)
    header: dict[str, Any] = {"__metadata__": {**_metadata(content), "items": names}}
    dtype, width = content.values
    values = {"<f4": "F32", "<f2": "F16", "|i1": "I8", "|u1": "U8"}[dtype.str]
    at = 0
    for modality, column in content.columns.items():
        n = len(column.items)
        members = [(modality, [n, width], (values, dtype.itemsize)), (f"{modality}.rows", [n], ("I64", 8))]
        members += [(f"{modality}.digests", [n, DIGEST], ("U8", 1))] * bool(column.digests)
        for key, shape, (kind, size) in members:
            end = at + size * math.prod(shape)
            header[key] = {"dtype": kind, "shape": shape, "data_offsets": [at, end]}
            at = end
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)
    for column in content.columns.values():
        for piece in content.pieces(column):
            stream.write(piece.tobytes())
        stream.write(np.array(column.rows, dtype="<i8").tobytes())
        stream.write(b"".join(column.digests))


def holds_embeddings(path: str | os.PathLike[str]) -> bool:
    """Whether a file, or a folder of parts, is one that `vitlens embed` wrote (an .npz may also be a sensor's)."""
    if is_uri(path) or os.path.isdir(path):
        return Folder(path).read(JOB_CARD) is not None
    if suffix_of(path) not in FORMATS or not os.path.isfile(path):
        return False
    try:
        with decoding(path, ACCEPTED):
            return _is_ours(Path(path))
    except InputError:
        return False


def _is_ours(path: Path) -> bool:
    if suffix_of(path) == "npz":
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {"space", "model", "dim"} <= set(archive.files)
    if suffix_of(path) == "parquet":
        import pyarrow.parquet as pq

        with path.open("rb") as stream:
            return b"vitlens.space" in (pq.read_schema(stream).metadata or {})
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return {"space", "items", "model"} <= set(file.metadata() or {})


def load_embeddings(path: str | os.PathLike[str]) -> StoredEmbeddings:
    """Read what `vitlens embed` wrote, a file or a folder of parts: embeddings [n, E] per modality, with names, rows and model.

    Raises:
        InputError: no such file, or not one of ours; a folder whose parts are not all there.
    """
    import torch

    parts = list(stored_parts(path))
    whole = parts[0]
    for modality in dict.fromkeys(modality for part in parts[1:] for modality in part):
        those = [part for part in parts if modality in part]
        names = [name for part in those for name in part.names[modality]]
        rows = [row for part in those for row in part.rows[modality]]
        digests = (
            [digest for part in those for digest in part.digests[modality]] if all(p.digests[modality] for p in those) else []
        )
        whole.put(modality, torch.cat([part[modality] for part in those]), names, rows, digests)
    whole.weights = {modality: weights for part in parts for modality, weights in part.weights.items()}
    return whole


def stored_parts(path: str | os.PathLike[str]) -> Iterator[StoredEmbeddings]:
    """The embeddings of a file, or of a folder of parts one part after the other, of which no more is in memory.

    Raises:
        InputError: as `load_embeddings`.
    """
    if is_uri(path) or os.path.isdir(path):
        yield from _folder_parts(Folder(path))
        return
    check_file(path, accepted=ACCEPTED, extensions=FORMATS, max_bytes=1 << 46)
    reader = {"npz": _read_npz, "parquet": _read_parquet, "safetensors": _read_safetensors}[suffix_of(path)]
    with decoding(path, ACCEPTED):
        if not _is_ours(Path(path)):
            raise InputError(os.fspath(path), "no embeddings of ours in it (its space is not named)", ACCEPTED)
        yield reader(Path(path))


def _folder_parts(folder: Folder) -> Iterator[StoredEmbeddings]:
    if folder.read(JOB_CARD) is None:
        raise InputError(folder.name, "a folder without embeddings of ours", ACCEPTED)
    if folder.read(SUCCESS) is None:
        advice = "a folder with all its parts: the command that began it makes those that are missing"
        raise InputError(folder.name, f"a folder whose parts are not all there (no {SUCCESS})", advice)
    names = [name for name in folder.sizes() if re.fullmatch(r"part-\d+\.parquet", name)]
    if not names:
        raise InputError(folder.name, "a folder without embeddings: nothing could be embedded", ACCEPTED)
    for name in sorted(names, key=lambda name: (len(name), name)):
        with decoding(f"{folder}/{name}", ACCEPTED):
            yield _read_parquet(io.BytesIO(folder.read(name) or b""))


def _read_npz(path: Path) -> StoredEmbeddings:
    with np.load(path, allow_pickle=False) as archive:
        kind = str(archive["store"]) if "store" in archive.files else "float32"
        stored = StoredEmbeddings(EmbeddingSpace(str(archive["space"]), int(archive["dim"])), str(archive["model"]), kind)
        for key in archive.files:
            if f"{key}_items" in archive.files:
                known = archive[f"{key}_digests"] if f"{key}_digests" in archive.files else []
                digests = [digest.tobytes() for digest in known]
                stored.add(key, archive[key], archive[f"{key}_items"].tolist(), archive[f"{key}_rows"].tolist(), digests)
        stored.weights = json.loads(str(archive["weights"])) if "weights" in archive.files else {}
    return stored


def read_table(stream: IO[bytes]) -> Any:
    """A Parquet file as a pyarrow table. In this thread: one of pyarrow's own may let go of a Python object too late, at exit."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(stream, pre_buffer=False).read(use_threads=False)


def _read_parquet(source: Path | IO[bytes]) -> StoredEmbeddings:
    import pyarrow.compute as pc

    with source.open("rb") if isinstance(source, Path) else source as stream:
        table = read_table(stream)
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    kind, dim = metadata.get("vitlens.store", "float32"), int(metadata["vitlens.dim"])
    stored = StoredEmbeddings(EmbeddingSpace(metadata["vitlens.space"], dim), metadata["vitlens.model"], kind)
    for modality in table["modality"].unique().to_pylist():
        part = table.filter(pc.equal(table["modality"], modality))
        pieces = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in part["embedding"].chunks]
        names: list[Any] = part["item"].to_pylist()
        if "item_bytes" in part.column_names:
            exact = part["item_bytes"].to_pylist()
            names = [n if b is None else b.decode("utf-8", "surrogateescape") for n, b in zip(names, exact, strict=True)]
        known = part["digest"].to_pylist() if "digest" in part.column_names else []
        digests = [] if None in known else known
        stored.add(modality, np.concatenate(pieces).reshape(len(names), -1), names, part["row"].to_pylist(), digests)
    stored.weights = json.loads(metadata.get("vitlens.weights", "{}"))
    return stored


def _read_safetensors(path: Path) -> StoredEmbeddings:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        space = EmbeddingSpace(metadata["space"], int(metadata["dim"]))
        stored = StoredEmbeddings(space, metadata["model"], metadata.get("store", "float32"))
        for modality, names in json.loads(metadata["items"]).items():
            key = f"{modality}.digests"
            digests = [digest.tobytes() for digest in file.get_tensor(key)] if key in file.keys() else []  # noqa: SIM118
            stored.add(modality, file.get_tensor(modality), names, file.get_tensor(f"{modality}.rows").tolist(), digests)
        stored.weights = json.loads(metadata.get("weights", "{}"))
    return stored
