"""TIFF by tifffile: any number of bits, byte order, compression and predictor, as the file stores them.

Not by Pillow for one channel: through libtiff 4.7 it swaps the bytes of compressed big-endian floats twice, scales 12 bits as if
they were 16, and takes 16-bit files whose 0 is white for negatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitlens.isolation import isolated
from vitlens.modalities.pixel_maps import check_size
from vitlens.sources import Source

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = 0, 1, 2, 3
"""Values of PhotometricInterpretation (TIFF 6.0, tag 262)."""


@dataclass(frozen=True)
class TiffPage:
    """One page: values [h, w] or [h, w, channels] in native byte order, bits a value, how to see it; and the number of pages."""

    values: np.ndarray
    bits: int
    photometric: int
    pages: int
    orientation: int = 1
    alpha: int = 2
    """What a channel more than grey or RGB is: 1 alpha that the colours are multiplied by, 2 plain alpha, 0 not said."""

    @property
    def one_channel(self) -> bool:
        """Whether its pixels are one value each, and no places in a palette."""
        return self.values.ndim == 2 and self.photometric != PALETTE


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFF or BigTIFF."""
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff(path: Path, source: Source) -> TiffPage:
    """`first_page`, in a process of its own: the decoders are native."""
    return isolated(first_page, path, source)


def first_page(path: Path, source: Source) -> TiffPage:
    """The first page.

    Raises:
        InputError: no TIFF, cut short, or more than the memory budget when expanded.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page, count = file.pages.first, len(file.pages)
            shape = [int(size) for size in page.shape]
            source.needs(int(np.prod(shape)) * page.dtype.itemsize if page.dtype else 0, f"a picture of {shape} values")
            check_size(page.imagelength, page.imagewidth, source)
            values = page.asarray()
            if page.planarconfig == 2 and values.ndim == 3:  # channels stored one after the other
                values = np.moveaxis(values, 0, -1)
            bits = int(np.max(page.bitspersample))
            values = values.astype(values.dtype.newbyteorder("="), copy=False)
            tag, extra = page.tags.get(274), page.extrasamples
            orientation, alpha = int(tag.value) if tag else 1, int(extra[0]) if extra else 2
            return TiffPage(values, bits, int(page.photometric), count, orientation, alpha)
    except tifffile.TiffFileError as error:
        raise source.refuse(f"a TIFF file that is damaged ({' '.join(str(error).split())[:120]})") from error


def tiff_header(path: Path) -> tuple[tuple[int, ...], np.dtype, int] | None:
    """Shape, dtype and PhotometricInterpretation of the first page, without its pixels; None for no TIFF."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            return None if page.dtype is None else (tuple(page.shape), np.dtype(page.dtype), int(page.photometric))
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, AttributeError):
        return None
