"""Tables of an inertial sensor's values: CSV, Parquet and NumPy, as columns of numbers with their names."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitlens.isolation import isolated
from vitlens.modalities.imu_columns import CHANNELS, column
from vitlens.sources import Source, decoded_text, npy_header, suffix_of

HEADER = 100
"""Lines in which a text table must have begun."""
_EMPTY = ["", "NaN", "nan", "NAN", "NA", "N/A", "null", "None", "-"]
_PROBE = 1 << 16
"""Bytes that are looked at to tell what a text file is."""


class Table(NamedTuple):
    """Columns of equal length: float64, NaN where empty; datetime64 for clocks. Without names, rows of a plain array."""

    names: list[str] | None
    columns: list[np.ndarray]


def read_table(path: Path, source: Source, key: str | None) -> Table:
    """The table in a .csv, .tsv, .txt, .parquet, .npy or .npz.

    Raises:
        InputError: no table of numbers, cut short, or too large.
    """
    kind = suffix_of(path)
    if kind in ("npy", "npz"):
        return of_array(source.npy(path, key=key), source)
    if kind == "parquet":
        return isolated(_read_parquet, path, source)
    return _read_text(path, source)


def of_array(array: np.ndarray, source: Source) -> Table:
    """An array with named columns (a structured one), [channels, samples] or [samples, channels]."""
    if array.dtype.names:
        if array.ndim != 1:
            raise source.refuse(f"a structured array of {array.ndim} dimensions")
        return Table(list(array.dtype.names), [_numbers(array[name]) for name in array.dtype.names])
    if array.ndim != 2:
        raise source.refuse(f"an array of shape {list(array.shape)}", "one recording, [channels, samples]")
    source.numeric(array)
    source.needs(16 * array.size, f"an array of {array.size:,} values")
    rows, columns = array.shape
    if rows > columns:  # a recording has more samples than channels
        array = array.T
    return Table(None, list(array.astype(np.float64)))


def looks_like_motion(path: Path) -> bool:
    """Whether a file's column names are those of an inertial sensor."""
    kind = suffix_of(path)
    try:
        if kind == "parquet":
            from pyarrow.parquet import read_schema

            return _channels(read_schema(path).names) >= 3
        with path.open("rb") as file:
            if kind == "npy":
                shape, dtype = npy_header(file)
                return _channels(dtype.names or ()) >= 3 or (len(shape) == 2 and shape[0] == 6 < shape[1])
            lines = decoded_text(file.read(_PROBE)).splitlines()[:HEADER]
        return any(_channels(_fields(line, _delimiter(line))) >= 3 for line in lines)
    except Exception:  # whatever is wrong with it, its reader says
        return False


def _channels(names: Sequence[str]) -> int:
    """How many of the six channels the names hold."""
    found = {one.channel for name in names if (one := column(name)) is not None}
    return len(found & set(CHANNELS))


# --- text ---


def _read_text(path: Path, source: Source) -> Table:
    source.needs(20 * path.stat().st_size, "a table of text", "cut it into parts")
    with source.decoding():
        lines = [line for line in decoded_text(path.read_bytes()).splitlines() if line.strip()]
    names, first, delimiter = _head(lines, source)
    return _parsed(lines[first:], delimiter, names, source)


def _head(lines: Sequence[str], source: Source) -> tuple[list[str] | None, int, str | None]:
    """The columns' names, the line where the numbers begin, and what stands between the fields (None: white space)."""
    for at, line in enumerate(lines[:HEADER]):
        delimiter = _delimiter(line)
        fields = _fields(line, delimiter)
        if len(fields) >= len(CHANNELS) and all(map(_is_number, fields)):
            return None, at, delimiter
        if _channels(fields) >= 3:
            first = at + 1
            while first < len(lines) and first < at + 4 and not _begins(_fields(lines[first], delimiter)):
                more = _fields(lines[first], delimiter)  # units in lines of their own
                if len(more) != len(fields):
                    break
                fields = [f"{name} {text}" for name, text in zip(fields, more, strict=True)]
                first += 1
            return fields, first, delimiter
    raise source.refuse("no line that names the channels, and none of six numbers", "a header such as time (s),ax (m/s2),...")


def _delimiter(line: str) -> str | None:
    return max("\t;,", key=line.count) if re.search(r"[\t;,]", line) else None


def _fields(line: str, delimiter: str | None) -> list[str]:
    return [field.strip().strip("\"'") for field in line.lstrip("#/ \t").rstrip("\r\n").split(delimiter)]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?|[nN]a[nN]|", text) is not None


def _begins(fields: Sequence[str]) -> bool:
    """Whether a line is one of numbers; a clock's date may stand among them."""
    return sum(map(_is_number, fields)) >= len(fields) - 2 and any(fields)


def _parsed(lines: Sequence[str], delimiter: str | None, names: list[str] | None, source: Source) -> Table:
    from pyarrow import csv

    if not lines:
        raise source.refuse("a header without values")
    if delimiter is None:
        lines, delimiter = [",".join(line.split()) for line in lines], ","
    fields = _fields(lines[0], delimiter)
    shown = [field for line in lines[:20] for field in _fields(line, delimiter)]
    comma = delimiter != "," and any(re.fullmatch(r"[-+]?\d*,\d+([eE][-+]?\d+)?", field) for field in shown)
    if names is not None and len(fields) == len(names) + 1 and fields[-1] == "":  # a mark at the end of every line
        names = [*names, ""]
    options = {
        "read_options": csv.ReadOptions(autogenerate_column_names=True, use_threads=False),
        "parse_options": csv.ParseOptions(delimiter=delimiter),
        "convert_options": csv.ConvertOptions(null_values=_EMPTY, strings_can_be_null=True, decimal_point="," if comma else "."),
    }
    with source.decoding():
        table = csv.read_csv(io.BytesIO("\n".join(lines).encode()), **options)
    if names is not None and table.num_columns != len(names):
        raise source.refuse(f"rows of {table.num_columns} fields below {len(names)} names")
    return Table(names, _of_arrow(table))


# --- Parquet ---


def _read_parquet(path: Path, source: Source) -> Table:
    from pyarrow import parquet

    with source.decoding():
        about = parquet.read_metadata(path)
        source.needs(8 * about.num_rows * about.num_columns, f"a table of {about.num_rows:,} rows", "cut it into parts")
        names = [name for name in parquet.read_schema(path).names if column(name) is not None]
        names = names or list(parquet.read_schema(path).names)
        return Table(names, _of_arrow(parquet.read_table(path, columns=names, use_threads=False)))


def _of_arrow(table: Any) -> list[np.ndarray]:
    return [_numbers(one.to_numpy(zero_copy_only=False)) for one in (chunked.combine_chunks() for chunked in table.columns)]


def _numbers(values: np.ndarray) -> np.ndarray:
    """A column as float64 or datetime64; of what is neither, NaN."""
    if values.dtype.kind in "iufb":
        return values.astype(np.float64)
    return values if values.dtype.kind == "M" else np.full(len(values), np.nan)
