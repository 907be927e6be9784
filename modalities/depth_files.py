"""Depth files: the numbers of a depth or disparity map as its file stores them, before any unit is given to them."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import PIL.Image

from vitlens.isolation import isolated
from vitlens.modalities.exr_files import read_exr
from vitlens.modalities.pixel_maps import MAX_PIXELS, check_size, open_picture
from vitlens.modalities.tiff_files import read_tiff, tiff_header
from vitlens.sources import Source, suffix_of

EXTENSIONS = ("png", "tif", "tiff", "pgm", "npy", "npz", "exr", "pfm")
DEEP = ("I;16", "I;16B", "I;16L", "I", "F")
"""Pillow's modes of single-channel pictures with more than 8 bits a pixel."""
_PGM = re.compile(rb"P5\s(?:\s*#[^\n]*\n)*\s*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)\s")


def load_map(path: Path, source: Source, key: str | None, kind: str | None = None) -> np.ndarray:
    """Read the array `[h, w]` (or with a channel axis) of a file of one of the `EXTENSIONS`; integers stay integers.

    `key` names an array of an .npz or a channel of an .exr file.

    Raises:
        InputError: cut off, a colour or 8-bit picture, several pages, several arrays or channels and no key.
        MissingDependencyError: an .exr file without the OpenEXR package.
    """
    kind = kind or suffix_of(path)
    if kind in ("npy", "npz"):
        return source.npy(path, key=key, check=lambda shape: _check_shape(shape, source))
    readers = {"pfm": _read_pfm, "pgm": _read_pgm, "tif": _read_tiff, "tiff": _read_tiff, "png": _read_png}
    with source.decoding():
        return isolated(read_exr, path, source, key) if kind == "exr" else readers[kind](path, source)


def _check_shape(shape: tuple[int, ...], source: Source) -> None:
    if math.prod(shape) > MAX_PIXELS:
        raise source.refuse(f"an array of shape {list(shape)}", f"at most {MAX_PIXELS / 1e6:.0f} million pixels")


def is_deep(path: Path) -> bool:
    """Whether a PNG, TIFF or PGM file has one channel of more than 8 bits; False where its header cannot be read."""
    kind = suffix_of(path)
    if kind in ("tif", "tiff"):
        header = tiff_header(path)
        return header is not None and len(header[0]) == 2 and header[1].itemsize > 1
    try:
        if kind == "pgm":
            with path.open("rb") as file:
                head = _PGM.match(file.read(1000))
            return head is not None and int(head[3]) > 255
        with PIL.Image.open(path, formats=["PNG"]) as image:
            return image.mode in DEEP
    except (OSError, ValueError, SyntaxError):
        return False


def _read_png(path: Path, source: Source) -> np.ndarray:
    with open_picture(path, ["PNG"], source) as image:
        check_size(image.height, image.width, source)
        if getattr(image, "n_frames", 1) > 1:
            raise source.refuse(f"{image.n_frames} pages", "one map a file")  # type: ignore[attr-defined]
        if image.mode in ("L", "P", "1"):
            raise source.refuse("an 8-bit picture, which cannot hold depth", "16 bits or floats")
        if image.mode not in DEEP:
            raise source.refuse(f"a colour picture ({image.mode}), not a depth map")
        array = np.array(image)
    return array.astype(array.dtype.newbyteorder("="))


def _read_tiff(path: Path, source: Source) -> np.ndarray:
    page = read_tiff(path, source)
    check_size(page.values.shape[0], page.values.shape[1], source)
    if page.pages > 1:
        raise source.refuse(f"{page.pages} pages", "one map a file")
    if not page.one_channel:
        raise source.refuse("a colour picture, not a depth map")
    if page.bits <= 8:
        raise source.refuse(f"a picture of {page.bits} bits, which cannot hold depth", "16 bits or floats")
    return page.values


def _read_pgm(path: Path, source: Source) -> np.ndarray:
    """Binary PGM as it stands: big-endian, and not stretched to 65535, as Pillow does."""
    content = path.read_bytes()
    head = _PGM.match(content[:1000])
    if head is None:
        raise source.refuse("no binary PGM (it does not begin with P5 and its size)")
    width, height, most = (int(number) for number in head.groups())
    check_size(height, width, source)
    if not 255 < most < 65536:
        raise source.refuse("an 8-bit picture, which cannot hold depth", "16 bits or floats")
    rows = content[head.end() : head.end() + 2 * width * height]
    _whole(len(rows), 2 * width * height, source)
    return np.frombuffer(rows, ">u2").reshape(height, width).astype(np.uint16)


def _read_pfm(path: Path, source: Source) -> np.ndarray:
    """Portable float map: "Pf", width and height, scale (negative: little-endian), then rows from the bottom up."""
    with path.open("rb") as file:
        kind = file.readline(16).strip()
        if kind == b"PF":
            raise source.refuse("a colour picture (PF), not a depth map")
        if kind != b"Pf":
            raise source.refuse("no portable float map (it does not begin with Pf)")
        size = file.readline(64).split()
        width, height = (int(n) for n in (size if len(size) == 2 else [*size, *file.readline(64).split()]))
        scale = float(file.readline(64))
        check_size(height, width, source)
        content = file.read(4 * MAX_PIXELS + 64)
    wanted = 4 * width * height
    if content[wanted:].strip():
        raise source.refuse(f"{len(content):,} bytes of pixels where its header says {wanted:,} ({width} x {height})")
    _whole(len(content), wanted, source)
    rows = np.frombuffer(content[:wanted], "<f4" if scale < 0 else ">f4").reshape(height, width)
    return rows[::-1].astype(np.float32)


def _whole(found: int, wanted: int, source: Source) -> None:
    if found < wanted:
        raise source.refuse(f"cut off: {found:,} of {wanted:,} bytes")
