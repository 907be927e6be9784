"""Depth files: the numbers of a depth or disparity map as its file stores them, before any unit is given to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from vitlens.errors import InputError, MissingDependencyError
from vitlens.modalities.pixels import MAX_PIXELS, check_size
from vitlens.sources import decoding, load_npy, name_of, suffix_of

EXTENSIONS = ("png", "tif", "tiff", "npy", "npz", "exr", "pfm")
ONE_CHANNEL = {"I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}
"""Pillow's modes of single-channel pictures with more than 8 bits a pixel."""


def load_map(path: Path, source: Any, accepted: str, key: str | None) -> np.ndarray:
    """Read the array `[h, w]` (or with a channel axis) in one of the `EXTENSIONS`; integers stay integers.

    `key` names an array of an .npz or a channel of an .exr file.

    Raises:
        InputError: cut off, a colour or 8-bit picture, several pages, or several arrays and no key.
        MissingDependencyError: an .exr file without the OpenEXR package.
    """
    kind = suffix_of(path)
    if kind in ("npy", "npz"):
        return load_npy(path, source, accepted, key=key)
    with decoding(source, accepted):
        if kind == "pfm":
            return _read_pfm(path, source, accepted)
        return _read_exr(path, source, accepted, key) if kind == "exr" else _read_picture(path, source, accepted)


def _read_picture(path: Path, source: Any, accepted: str) -> np.ndarray:
    name = name_of(source)
    with PIL.Image.open(path, formats=["PNG", "TIFF"]) as image:
        check_size(image.height, image.width, source, accepted)
        if getattr(image, "n_frames", 1) > 1:
            raise InputError(name, f"{image.n_frames} pages", f"{accepted}; one map a file")  # type: ignore[attr-defined]
        if image.mode in ("L", "P", "1"):
            raise InputError(name, "an 8-bit picture, which cannot hold depth", f"{accepted}; 16 bits or floats")
        if image.mode not in ONE_CHANNEL:
            raise InputError(name, f"a colour picture ({image.mode}), not a depth map", accepted)
        array = np.array(image)
    return array.astype(array.dtype.newbyteorder("="))


def _read_pfm(path: Path, source: Any, accepted: str) -> np.ndarray:
    """Portable float map: "Pf", width and height, scale (negative: little-endian), then rows from the bottom up."""
    name = name_of(source)
    with path.open("rb") as file:
        kind = file.readline(16).strip()
        if kind == b"PF":
            raise InputError(name, "a colour picture (PF), not a depth map", accepted)
        if kind != b"Pf":
            raise InputError(name, "no portable float map (it does not begin with Pf)", accepted)
        width, height = (int(n) for n in file.readline(64).split())
        scale = float(file.readline(64))
        check_size(height, width, source, accepted)
        content = file.read(4 * MAX_PIXELS + 1)
    if len(content) != 4 * width * height:
        raise InputError(name, f"cut off: {len(content)} of {4 * width * height} bytes", accepted)
    rows = np.frombuffer(content, "<f4" if scale < 0 else ">f4").reshape(height, width)
    return rows[::-1].astype(np.float32)


def _read_exr(path: Path, source: Any, accepted: str, key: str | None) -> np.ndarray:
    """One channel of an OpenEXR file: the named one, the only one, or the one that renderers call Z."""
    try:
        import OpenEXR
    except ImportError as error:
        raise MissingDependencyError("reading .exr needs OpenEXR: pip install OpenEXR") from error
    name = name_of(source)
    with OpenEXR.File(str(path), separate_channels=True, header_only=True) as file:
        low, high = file.header()["dataWindow"]
        check_size(int(high[1]) - int(low[1]) + 1, int(high[0]) - int(low[0]) + 1, source, accepted)
    with OpenEXR.File(str(path), separate_channels=True) as file:
        if not file.parts:
            raise InputError(name, "damaged or cut off", accepted)
        channels = {channel: np.array(content.pixels) for channel, content in file.channels().items()}
    chosen = key or next((c for c in channels if len(channels) == 1 or c.rpartition(".")[2].lower() in ("z", "depth")), None)
    if chosen not in channels:
        found = f"no channel {key!r}" if key else f"{len(channels)} channels and none called Z"
        raise InputError(name, f"{found} (it holds {', '.join(channels)})", f"{accepted}; say which channel with key=")
    return channels[chosen]
