"""Manifests: tables with a row per thing and a column per modality, as .csv, .tsv, .jsonl or .parquet, local or remote.

Names of files that are no UTF-8 come out as Python has them (surrogateescape): raw bytes in .csv and .tsv, "\\udce9" in .jsonl.
A table is read from its beginning to its end, some rows at a time.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from vitlens.errors import InputError
from vitlens.sources import check_file, decoding, suffix_of
from vitlens.store.blobs import Cell, version_of
from vitlens.store.places import is_uri, opened

MANIFEST = "a manifest: .csv, .tsv, .jsonl or .parquet with a column per modality and paths relative to it"
MANIFEST_TYPES = ("csv", "tsv", "jsonl", "parquet")
_ROWS = 4096
_ROWS_WITH_BYTES = 64


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """The rows of a .csv, .tsv, .jsonl or .parquet file.

    Raises:
        InputError: no such file, another type, broken (with the line), empty, or rows that do not fit the header.
    """
    rows = list(manifest_rows(path))
    if not rows:
        raise InputError(os.fspath(path), "no rows", MANIFEST)
    return rows


def manifest_columns(path: str | Path) -> list[str]:
    """The columns of a table; of .jsonl, whose rows bring their own, in the order in which they first appear.

    Raises:
        InputError: as `read_manifest`.
    """
    if suffix_of(_checked(path)) == "jsonl":
        return list(dict.fromkeys(key for row in manifest_rows(path) for key in row))
    with decoding(path, MANIFEST), opened(path) as stream:
        if suffix_of(path) == "parquet":
            import pyarrow.parquet as pq

            return list(pq.read_schema(stream).names)
        with closing(_csv_lines(path, stream)) as lines:
            return next(lines, [])


def manifest_rows(path: str | Path, bytes_of: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows of a table one by one. Of the columns `bytes_of` those that hold the bytes of files come as `Cell`s.

    Raises:
        InputError: as `read_manifest`, when it comes to the line.
    """
    readers = {"csv": _csv_rows, "tsv": _csv_rows, "jsonl": _json_rows}
    kind = suffix_of(_checked(path))
    with decoding(path, MANIFEST), opened(path) as stream:
        if kind == "parquet":
            yield from _parquet_rows(path, stream, bytes_of)
        else:
            yield from readers[kind](path, stream)


def _checked(path: str | Path) -> str | Path:
    if not is_uri(path):
        return check_file(path, accepted=MANIFEST, extensions=MANIFEST_TYPES, max_bytes=1 << 46)
    if suffix_of(path) not in MANIFEST_TYPES:
        raise InputError(str(path), f"a file of type {suffix_of(path) or '(none)'}", MANIFEST)
    return path


def _csv_lines(path: str | Path, stream: IO[bytes]) -> Generator[list[str], None, None]:
    """The header, then lines with as many values."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, delimiter="\t" if suffix_of(path) == "tsv" else ",", strict=True)
    header: list[str] | None = None
    try:
        for values in reader:
            if header is None:
                header = values = _header(path, values)
            if len(values) == len(header):
                yield values
            elif values:
                found = f"{len(values)} values in line {reader.line_num}, {len(header)} columns in the header"
                raise InputError(os.fspath(path), found, MANIFEST)
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}", f"cannot be decoded ({error})", MANIFEST) from error
    finally:
        text.detach()  # whoever opened the stream closes it


def _csv_rows(path: str | Path, stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    with closing(_csv_lines(path, stream)) as lines:
        header = next(lines, [])
        for values in lines:
            yield dict(zip(header, values, strict=True))


def _header(path: str | Path, columns: list[str]) -> list[str]:
    try:
        ", ".join(columns).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}, line 1", "cannot be decoded (it is not UTF-8)", MANIFEST) from error
    if len(set(columns)) != len(columns):
        raise InputError(os.fspath(path), f"a column twice in the header {', '.join(columns)}", MANIFEST)
    return columns


def _json_rows(path: str | Path, stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(stream, start=1):
        name = f"{path}, line {number}"
        with decoding(name, MANIFEST):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            row = json.loads(text) if text.strip() else None
            if "\\ud" in text.lower():  # an escape may stand for a byte of a name, not for half of a character
                json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogateescape")
        if row is None and not text.strip():
            continue
        if not isinstance(row, dict):
            raise InputError(name, f"a {type(row).__name__}", "one JSON object per line")
        yield row


def _parquet_rows(path: str | Path, stream: IO[bytes], bytes_of: Collection[str]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(stream, pre_buffer=False)
    leaves = {name: leaf for name in bytes_of if (leaf := _leaf_of_bytes(file.schema_arrow, name))}
    version = version_of(path) if leaves else ""
    table = path if is_uri(path) else Path(path).absolute()
    for group in range(file.num_row_groups):
        full = [name for name, leaf in leaves.items() if _without_nulls(file.metadata.row_group(group), leaf)]
        names = [f"{name}.path" if name in full else name for name in file.schema_arrow.names]
        names = [name for name in names if name.removesuffix(".path") not in full or _named(file.schema_arrow, name)]
        place = 0
        size = _ROWS_WITH_BYTES if len(full) < len(leaves) else _ROWS
        for batch in file.iter_batches(size, row_groups=[group], columns=names, use_threads=False):
            for row in batch.to_pylist() if names else [{} for _ in range(len(batch))]:
                for name in leaves:
                    cell = row.get(name)
                    held, called = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
                    there = name in full or held
                    row[name] = Cell(table, version, group, place, name, called or "") if there else called
                yield row
                place += 1


def _leaf_of_bytes(schema: Any, name: str) -> str:
    """Where a column holds bytes: itself, or as the datasets library writes files, its field `bytes`. "" where it does not."""
    import pyarrow.types as kinds

    def of_bytes(kind: Any) -> bool:
        return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind))

    kind = schema.field(name).type if name in schema.names else None
    if kind is None or of_bytes(kind):
        return "" if kind is None else name
    inner = kinds.is_struct(kind) and kind.get_field_index("bytes") >= 0 and of_bytes(kind.field("bytes").type)
    return f"{name}.bytes" if inner else ""


def _named(schema: Any, leaf: str) -> bool:
    """Whether the column of a leaf `image.path` has such a field."""
    import pyarrow.types as kinds

    kind = schema.field(leaf.removesuffix(".path")).type
    return bool(kinds.is_struct(kind)) and kind.get_field_index("path") >= 0


def _without_nulls(group: Any, leaf: str) -> bool:
    """Whether a row group's own statistics say that a leaf has a value in each row."""
    for place in range(group.num_columns):
        column = group.column(place)
        if column.path_in_schema == leaf:
            said = column.statistics
            return said is not None and said.has_null_count and said.null_count == 0
    return False
