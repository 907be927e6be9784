"""Maps of pixels of any kind, before they are tensors: how large one may be, and how it is turned upright."""

from __future__ import annotations

import numpy as np

from vitlens.sources import Source

MAX_PIXELS = 178_956_970
MAX_ASPECT = 100
TURNS = {
    2: (False, True, False), 3: (False, True, True), 4: (False, False, True), 5: (True, False, False),
    6: (True, True, False), 7: (True, True, True), 8: (True, False, True),
}  # fmt: skip
"""EXIF's and TIFF's orientation, as arguments of `turned`."""


def check_size(height: int, width: int, source: Source) -> None:
    """Refuse maps that would not survive a resize of their short side.

    Raises:
        InputError: no pixels, more than `MAX_PIXELS`, or one side over `MAX_ASPECT` times the other.
    """
    size = f"{width} x {height} pixels"
    if height < 1 or width < 1:
        raise source.refuse(f"no pixels ({size})")
    if height * width > MAX_PIXELS:
        raise source.refuse(size, f"at most {MAX_PIXELS / 1e6:.0f} million pixels")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise source.refuse(size, f"at most {MAX_ASPECT} times as long as wide")


def turned(pixels: np.ndarray, swap: bool, mirror: bool, flip: bool) -> np.ndarray:
    """`pixels` [h, w, ...], rows and columns swapped first, then left and right, then top and bottom; contiguous."""
    pixels = pixels.swapaxes(0, 1) if swap else pixels
    return np.ascontiguousarray(pixels[:: -1 if flip else 1, :: -1 if mirror else 1])
