"""BMP in runs (RLE4, RLE8): Pillow 12.3 loses its place behind a literal run of an odd number of bytes."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from vitlens.modalities.pixel_maps import check_size
from vitlens.sources import Source


def is_in_runs(path: Path) -> bool:
    """Whether a file is a BMP of 4 or 8 bits a pixel in runs."""
    with path.open("rb") as file:
        head = file.read(34)
    return head[:2] == b"BM" and head[14:15] >= b"\x28" and head[30:] in (b"\1\0\0\0", b"\2\0\0\0")


def read_runs(path: Path, source: Source) -> np.ndarray:
    """RGB uint8 [h, w, 3]. Pixels that the runs leap over have the first colour.

    Raises:
        InputError: cut short, or damaged.
    """
    content = path.read_bytes()
    start, size, width, height, _, bits, kind = struct.unpack_from("<IIiiHHI", content.ljust(54, b"\0"), 10)
    (colours,) = struct.unpack_from("<I", content.ljust(54, b"\0"), 46)
    check_size(height, width, source)
    source.needs(4 * height * width, f"a picture of {width} x {height} pixels")
    palette = np.frombuffer(content[14 + size : min(start, 14 + size + 4 * (colours or 1 << bits))], np.uint8)
    palette = palette[: len(palette) // 4 * 4].reshape(-1, 4)[:, 2::-1]
    if bits != (8 if kind == 1 else 4) or not len(palette):
        raise source.refuse("a BMP file with a damaged header")
    places = np.zeros((height, width), np.uint8)
    if not _expand(content, start, bits == 4, places):
        raise source.refuse("a BMP file cut short: its runs end before the picture does")
    if places.max() >= len(palette):
        raise source.refuse(f"a BMP file with colour {places.max()} of {len(palette)}: damaged")
    return palette[places[::-1]]


def _expand(content: bytes, at: int, halves: bool, places: np.ndarray) -> bool:
    """Write runs into `places` [h, w], from the bottom row up; whether they filled it, or said that this is the end.

    `halves`: two pixels a byte. A pair (n, value) is n pixels of it; (0, 0) ends a row, (0, 1) the picture, (0, 2) leaps by the
    next two bytes, and (0, n) is followed by n pixels, filled up to whole pairs of bytes.
    """
    height, width = places.shape
    x, y = 0, 0
    while at + 2 <= len(content):
        count, value = content[at], content[at + 1]
        at += 2
        if count:
            pixels = np.resize([value >> 4, value & 15] if halves else [value], count)
        elif value == 0:
            x, y = 0, y + 1
            continue
        elif value == 1:
            return True
        elif value == 2:
            x, y = x + content[at : at + 1][0], y + content[at + 1 : at + 2][0]
            at += 2
            continue
        else:
            taken = (value + 1) // 2 if halves else value
            stored = np.frombuffer(content[at : at + taken], np.uint8)
            if len(stored) < taken:
                return False
            pixels = (np.stack([stored >> 4, stored & 15], axis=1).ravel() if halves else stored)[:value]
            at += taken + taken % 2
        if y < height:
            row = places[y, x : x + len(pixels)]
            row[:] = pixels[: len(row)]
        x += len(pixels)
    return y >= height or (y == height - 1 and x >= width)
