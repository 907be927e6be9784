"""PCD files (Point Cloud Library) by numpy: text, binary and compressed, with fields of any width and order.

Not by open3d 0.20: it takes coordinates of eight bytes for four, makes up the points of rows that are cut short, and crashes on
damaged headers and on padding fields (Open3D issue 6437).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.modalities.kernels import compiled
from vitlens.sources import Source

_TYPES = {"F4": "<f4", "F8": "<f8", "F2": "<f2"} | {
    kind + str(size): f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)
}
_LETTERS = {"F": "F", "D": "F", "I": "I", "U": "U"}
MOST_EXPANSION = 300
"""LZF makes at most 264 bytes of three, so a header that promises more is damaged."""


@dataclass(frozen=True)
class _Header:
    fields: list[str]
    dtype: np.dtype
    count: int
    organised: bool
    form: str


def read_pcd(path: Path, source: Source, most: int) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Coordinates [n, 3] as the file has them (NaN: no point there), colours [n, 3], and whether it is organised as a picture.

    Raises:
        InputError: a header that is missing or damaged, no x, y, z, or less data than the header says.
    """
    with path.open("rb") as file:
        header = _header(file, source)
        rows = _rows(file, header, source, most)
    xyz = np.stack([rows[axis].reshape(header.count) for axis in "xyz"], axis=1)
    return xyz, _colours(rows, header), header.organised


def _header(file: Any, source: Source) -> _Header:
    found: dict[str, list[str]] = {}
    while "DATA" not in found and len(found) < 20 and (line := file.readline(4000)):
        key, *words = line.decode("latin-1").split() or ["#"]
        found[key.upper()] = words
    try:
        fields, (form,) = found.get("FIELDS") or found["COLUMNS"], found["DATA"]
        width, height = int(found["WIDTH"][0]), int(found.get("HEIGHT", ["1"])[0])
        count = int(found["POINTS"][0]) if "POINTS" in found else width * height
        repeats = [int(times) for times in found.get("COUNT", ["1"] * len(fields))]
        kinds = [_TYPES[_LETTERS[kind.upper()] + size] for kind, size in zip(found["TYPE"], found["SIZE"], strict=True)]
        if len(fields) != len(kinds) or len(repeats) != len(kinds) or min(repeats) < 1 or count != width * height:
            raise ValueError("fields")
    except (LookupError, ValueError) as error:
        raise source.refuse("not a PCD file (its header is missing or damaged)") from error
    names = [name.lower() if name.lower() in ("x", "y", "z", "rgb", "rgba", "r", "g", "b") else name for name in fields]
    if not {"x", "y", "z"} <= set(names):
        raise source.refuse(f"no x, y, z among its fields ({', '.join(fields)})")
    if form.lower() not in ("ascii", "binary", "binary_compressed"):
        raise source.refuse(f"PCD data of an unknown form, {form!r}")
    unique = [name if names.index(name) == place else f"{name} {place}" for place, name in enumerate(names)]  # paddings share "_"
    dtype = np.dtype([(name, kind, (times,)) for name, kind, times in zip(unique, kinds, repeats, strict=True)])
    return _Header(names, dtype, count, height > 1, form.lower())


def _rows(file: Any, header: _Header, source: Source, most: int) -> np.ndarray:
    """The points as a structured array [n], every field [n, times]."""
    dtype, count = header.dtype, header.count
    if not 1 <= count <= most:
        raise source.refuse(f"{count:,} points" if count else "no points", f"1 to {most:,} points")
    size = count * dtype.itemsize
    source.needs(size, f"{count:,} points of {dtype.itemsize} bytes")
    if header.form == "ascii":
        return _text_rows(file, header, source)
    if header.form == "binary":
        content = file.read(size)
        if len(content) < size:
            raise source.refuse(f"PCD data cut short: {len(content):,} of {size:,} bytes")
        return np.frombuffer(content, dtype)
    packed, plain = np.frombuffer(file.read(8).ljust(8, b"\0"), "<u4").tolist()
    content = file.read(packed)
    if len(content) < packed or plain != size or plain > MOST_EXPANSION * packed:
        raise source.refuse("PCD data that is cut short or damaged")
    unpacked = np.empty(plain, np.uint8)
    if compiled(_expand_lzf)(np.frombuffer(content, np.uint8), unpacked) != plain:
        raise source.refuse("compressed PCD data that is damaged")
    rows, at = np.empty(count, dtype), 0
    for name in dtype.names or ():  # field after field, not point after point
        part = dtype[name]
        end = at + part.itemsize * count
        rows[name] = unpacked[at:end].view(part.base).reshape(count, -1)
        at = end
    return rows


def _text_rows(file: Any, header: _Header, source: Source) -> np.ndarray:
    widths = [dtype.shape[0] for dtype in (header.dtype[name] for name in header.dtype.names or ())]
    table = [line.split() for _, line in zip(range(header.count), (line for line in file if line.strip()), strict=False)]
    if len(table) != header.count or any(len(row) != sum(widths) for row in table):
        raise source.refuse("PCD data that is cut short or damaged")
    rows, at = np.empty(header.count, header.dtype), 0
    for name, width in zip(header.dtype.names or (), widths, strict=True):
        words = np.array([row[at : at + width] for row in table])
        kind = header.dtype[name].base
        # "nan" stands for no number in any field; packed colours are written as integers or as the float of the same bits
        rows[name] = words.astype(np.float64).astype(kind) if kind.kind == "f" else words.astype(np.int64).astype(kind)
        at += width
    return rows


def _colours(rows: np.ndarray, header: _Header) -> np.ndarray | None:
    """Colours [n, 3]: of fields r, g, b, or packed as 0x00RRGGBB in four bytes called rgb or rgba, whatever their type."""
    names = header.fields
    if {"r", "g", "b"} <= set(names):
        return np.stack([rows[name].reshape(header.count) for name in "rgb"], axis=1)
    packed = next((name for name in ("rgb", "rgba") if name in names), None)
    if packed is None:
        return None
    values = rows[packed].reshape(header.count)
    if values.dtype.itemsize != 4:
        values = values.astype(np.uint32)
    bits = np.ascontiguousarray(values).view(np.uint32)
    return np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=1).astype(np.uint8)


def _expand_lzf(packed: np.ndarray, out: np.ndarray) -> int:
    """LZF (LibLZF): literal runs of up to 32 bytes, and copies of up to 264 bytes already written; bytes made, or -1."""
    at, made = 0, 0
    while at < len(packed):
        control = int(packed[at])
        at += 1
        if control < 32:
            run = control + 1
            if at + run > len(packed) or made + run > len(out):
                return -1
            out[made : made + run] = packed[at : at + run]
            at += run
            made += run
            continue
        length = control >> 5
        if length == 7:
            if at >= len(packed):
                return -1
            length += int(packed[at])
            at += 1
        if at >= len(packed):
            return -1
        start = made - ((control & 31) << 8) - int(packed[at]) - 1
        at += 1
        length += 2
        if start < 0 or made + length > len(out):
            return -1
        for step in range(length):  # byte by byte: a copy may overlap what it writes
            out[made + step] = out[start + step]
        made += length
    return made
