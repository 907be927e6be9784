"""Maps of pixels of any kind, before they are tensors: how large one may be, and how it is turned upright."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image

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


def open_picture(file: Path | BinaryIO, formats: list[str], source: Source) -> PIL.Image.Image:
    """A picture by Pillow, its pixels not decoded yet; Pillow's own words about large ones are ours.

    Raises:
        InputError: more than `MAX_PIXELS`, which is Pillow's limit too.
        PIL.UnidentifiedImageError: it is of none of the `formats`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        try:
            return PIL.Image.open(file, formats=formats)
        except PIL.Image.DecompressionBombError as error:
            count = re.search(r"\d+", str(error))
            found = f"a picture of {int(count[0]):,} pixels" if count else "a picture of too many pixels"
            raise source.refuse(found, f"at most {MAX_PIXELS / 1e6:.0f} million pixels") from error


def texture_picture(content: BinaryIO, formats: list[str], source: Source) -> PIL.Image.Image:
    """A picture that colours a mesh, within the memory that one input may take."""
    image = open_picture(content, formats, source)
    source.needs(8 * image.width * image.height, f"a texture of {image.width} x {image.height} pixels")
    return image


def turned(pixels: np.ndarray, swap: bool, mirror: bool, flip: bool) -> np.ndarray:
    """`pixels` [h, w, ...], rows and columns swapped first, then left and right, then top and bottom; contiguous."""
    pixels = pixels.swapaxes(0, 1) if swap else pixels
    return np.ascontiguousarray(pixels[:: -1 if flip else 1, :: -1 if mirror else 1])
