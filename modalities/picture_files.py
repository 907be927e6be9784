"""Picture files to RGB pixels, each by the letter of its format.

Pillow reads them, but for what it gets wrong: TIFF whose values are not of 8 bits (tifffile), BMP in runs, colours of 16 bits of
which one stands for transparent. TIFF is read in a process of its own. Rows are made RGB a few at a time, so that a large picture
takes its own size and what Pillow holds of it, not four times as much.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL.Image

from vitlens.isolation import isolated
from vitlens.modalities.bmp_files import is_in_runs, read_runs
from vitlens.modalities.pixel_maps import TURNS, check_size, open_picture, turned
from vitlens.modalities.tiff_files import RGB, TiffPage, first_page, is_tiff
from vitlens.sources import Source

FORMATS = {
    "jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF", "bmp": "BMP", "gif": "GIF", "tif": "TIFF",
    "tiff": "TIFF", "ppm": "PPM", "pgm": "PPM", "pbm": "PPM",
}  # fmt: skip
"""File types by extension and Pillow's name for them. Pillow knows more, among them some that start other programs (EPS)."""
STRIP = 1 << 20
"""Pixels that are made RGB at a time."""
ORIENTATION = 0x0112


def read_pixels(
    source: Source, *, format: str | None = None, exif: bool = True, white: float | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Read a picture into RGB uint8 `[h, w, 3]`, and what its file said of itself (`format`, `mode`).

    `source` is a path, binary file object or bytes of a type in `FORMATS`, a PIL image, or an array `[h, w]` or
    `[h, w, 1 | 3 | 4]` of uint8 or of floats in 0..1. Grey becomes RGB, other numbers of bits are scaled to 8, transparent
    pictures are laid on white. `exif` turns the picture as its EXIF (or TIFF) orientation says. `white` is the value of white
    where the numbers do not tell: of integers in 32 bits, of arrays.

    Raises:
        InputError: whatever is wrong with the picture.
    """
    if source.is_array:
        return pixels_of_array(source.array(), source, white), {}
    if isinstance(source.value, PIL.Image.Image):
        with source.decoding():
            return _pixels_of_image(source.value, source, exif, white), {"mode": source.value.mode}
    if format is not None and format.lower().lstrip(".") not in FORMATS:
        raise source.refuse(f"a file of type .{format.lstrip('.')}", accepted=f"{source.accepted} ({', '.join(FORMATS)})")
    known = [FORMATS[format.lower().lstrip(".")]] if format else sorted(set(FORMATS.values()))
    with source.local_file() as path, source.decoding():
        if "TIFF" in known and is_tiff(path):
            return isolated(_pixels_of_tiff, path, source, exif, white)
        if "BMP" in known and is_in_runs(path):
            return read_runs(path, source), {"format": "BMP", "mode": "P"}
        with _opened(path, source, known) as image:
            return _pixels_of_image(image, source, exif, white), {"format": image.format, "mode": image.mode}


def _opened(file: Path | BinaryIO, source: Source, known: list[str]) -> PIL.Image.Image:
    PIL.Image.init()
    try:
        return open_picture(file, [name for name in known if name in PIL.Image.OPEN], source)
    except PIL.UnidentifiedImageError as error:
        raise source.refuse(f"not a picture of a known type ({', '.join(known)})") from error


def _pixels_of_image(image: PIL.Image.Image, source: Source, exif: bool, white: float | None) -> np.ndarray:
    check_size(image.height, image.width, source)
    held = 1 if image.mode in ("1", "L", "P") else 4
    source.needs(image.height * image.width * (held + 6), f"a picture of {image.width} x {image.height} pixels")
    by_pillow = TURNS.get(image.getexif().get(ORIENTATION, 1)) if image.format == "TIFF" else None
    if image.mode[0] in "IF":
        pixels = _of_numbers(image, source, white)
    elif _rawmode(image) == "RGB;16B" and "transparency" in image.info:
        pixels = _deep_colours(image, image.info["transparency"])
    else:
        pixels = _rgb(image)
    if by_pillow is not None:  # it turns a TIFF whether one wants or not
        swap, mirror, flip = by_pillow
        return pixels if exif else turned(pixels, swap, *((flip, mirror) if swap else (mirror, flip)))
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1)) if exif else None
    return pixels if turn is None else turned(pixels, *turn)


def _rawmode(image: PIL.Image.Image) -> str:
    """How a file that is not decoded yet holds its pixels, in Pillow's words; '' where that is not known."""
    tiles: list[Any] = getattr(image, "tile", [])
    return tiles[0].args if tiles and isinstance(tiles[0].args, str) else ""


def _of_numbers(image: PIL.Image.Image, source: Source, white: float | None) -> np.ndarray:
    """Grey of 16 or 32 bits (of which files but TIFF use 16), or of floats; the value that a PNG calls transparent is white."""
    values = np.asarray(image)
    if white is None and image.mode != "F":
        white = 65535 if image.format or image.mode != "I" else _white_of(values, 32, source)
    pixels = pixels_of_array(values, source, white)
    if image.mode.startswith("I;16") and "transparency" in image.info:
        pixels[values == image.info["transparency"]] = 255
    return pixels


def _rgb(image: PIL.Image.Image) -> np.ndarray:
    scale = {"L;2": 85, "L;4": 17}.get(_rawmode(image), 1)
    if scale > 1 and isinstance(image.info.get("transparency"), int):  # which the file gives in its own 2 or 4 bits
        image.info["transparency"] *= scale
    image.load()
    # 32-bit bitmaps whose alpha is nothing but 0 are opaque: nobody filled it in
    opaque = image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    step = max(1, STRIP // image.width)
    for top in range(0, image.height, step):
        rows = image.crop((0, top, image.width, min(top + step, image.height)))
        if rows.has_transparency_data and not opaque:
            white = PIL.Image.new("RGBA", rows.size, "white")
            rows = PIL.Image.alpha_composite(white, rows.convert("RGBA"))
        pixels[top : top + step] = np.asarray(rows.convert("RGB"))
    return pixels


def _deep_colours(image: Any, key: tuple[int, ...]) -> np.ndarray:
    """A PNG of 16 bits a colour, of which the colour `key` is transparent: Pillow decodes the upper bytes, or the lower ones."""
    place = image.fp.tell()
    image.fp.seek(0)
    lower: Any = PIL.Image.open(image.fp, formats=["PNG"])
    lower.tile = [lower.tile[0]._replace(args="RGB;16L")]
    low = np.asarray(lower)
    image.fp.seek(place)
    high, wanted = np.asarray(image), np.array(key)
    pixels = np.rint((high * np.float32(256) + low) / np.float32(257)).astype(np.uint8)
    pixels[((high == wanted >> 8) & (low == (wanted & 255))).all(axis=-1)] = 255
    return pixels


# --- TIFF ---


def _pixels_of_tiff(path: Path, source: Source, exif: bool, white: float | None) -> tuple[np.ndarray, dict[str, Any]]:
    """A TIFF by Pillow where its values are of 8 bits or fewer, or packed as a photograph; otherwise by tifffile."""
    if not _is_deep(path, source):
        # as a file object: of a path, Pillow maps rows of a turned picture at its upright width
        with path.open("rb") as file, _opened(file, source, ["TIFF"]) as image:
            return _pixels_of_image(image, source, exif, white), {"format": "TIFF", "mode": image.mode}
    page = first_page(path, source)
    values, full = _visible(page, source, white)
    pixels, turn = pixels_of_array(values, source, full), TURNS.get(page.orientation) if exif else None
    kind = "float" if page.values.dtype.kind == "f" else "grey" if page.values.ndim == 2 else "colour"
    return pixels if turn is None else turned(pixels, *turn), {"format": "TIFF", "mode": f"{kind} of {page.bits} bits"}


def _is_deep(path: Path, source: Source) -> bool:
    """Whether a TIFF holds grey or RGB of floats or of more than 8 bits."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages.first
            deep = np.max(page.bitspersample) > 8 or np.max(page.sampleformat) == 3
            return bool(page.photometric in (0, 1, RGB) and deep)
    except tifffile.TiffFileError:
        return False  # Pillow says what is wrong


def _visible(page: TiffPage, source: Source, white: float | None) -> tuple[np.ndarray, float]:
    """The values of a page of which 0 is black, laid on white, and the value of its white."""
    values = source.numeric(page.values)
    if white is None:
        by_letter = 1.0 if values.dtype.kind == "f" else 2.0**page.bits - 1
        white = by_letter if values.dtype.kind == "f" or (page.bits <= 16 and values.dtype.kind == "u") else 0.0
        white = white or _white_of(values, page.bits, source)
    if page.photometric == 0:  # 0 is white
        values = (white - values.astype(np.float64)).astype(np.float32)
    if values.ndim == 3 and values.shape[-1] in (2, 4) and page.alpha != 2:  # 2: alpha as everywhere else
        values, alpha = values[..., :-1], values[..., -1:]
        if page.alpha == 1:  # colours are multiplied by it already
            values = np.minimum(values + (white - alpha.astype(np.float64)), white).astype(np.float32)
    return values, white


def _white_of(values: np.ndarray, bits: int, source: Source) -> float:
    """The value of white of integers in more than 16 bits: that of 16, unless the values are as likely of another range."""
    low, high = int(values.min()), int(values.max())
    if bits <= 16 or low < 0 or not 255 < high <= 65535:
        likely = 255 if high <= 255 else 4095 if high <= 4095 else 65535 if high <= 65535 else high
        found = f"integers from {low} to {high} in {bits} bits, of which the value of white is not known"
        raise source.refuse(found, f"8 or 16 bits a pixel, or with the value of white said, such as white={likely}")
    return 65535.0


# --- arrays ---


def pixels_of_array(array: np.ndarray, source: Source, white: float | None = None) -> np.ndarray:
    """`[h, w]` or `[h, w, 1 | 3 | 4]` of uint8, of floats in 0..1, or of numbers in 0..`white`, as RGB uint8 `[h, w, 3]`.

    Raises:
        InputError: another shape or dtype, numbers below 0 or above white, NaN.
    """
    pixels = source.numeric(array)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4):
        hint = "; channels come last" if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) else ""
        raise source.refuse(f"an array of shape {list(pixels.shape)}", f"arrays [h, w] or [h, w, 1|3|4]{hint}")
    check_size(pixels.shape[0], pixels.shape[1], source)
    if white is None and pixels.dtype.kind != "f" and pixels.dtype != np.uint8:
        raise source.refuse(f"values of type {pixels.dtype}", "uint8, or floats from 0 to 1")
    full = white if white is not None else 1.0 if pixels.dtype.kind == "f" else 255.0
    low, high = pixels.min(), pixels.max()
    if low < 0 or high > full:
        found = f"{'floats' if pixels.dtype.kind == 'f' else 'integers'} from {low:.4g} to {high:.4g}"
        known = "floats from 0 to 1, or uint8 from 0 to 255"
        raise source.refuse(found, known if white is None else f"values from 0 to {white:g}")
    out = np.empty((*pixels.shape[:2], 3), np.uint8)  # a copy: the caller keeps his own
    step = max(1, STRIP // pixels.shape[1])
    for top in range(0, len(pixels), step):
        out[top : top + step] = _eight_bits(pixels[top : top + step], full)
    return out


def _eight_bits(pixels: np.ndarray, full: float) -> np.ndarray:
    """Rows of pixels in 8 bits, laid on white."""
    if pixels.dtype != np.uint8 or full != 255:
        pixels = np.rint(pixels.astype(np.float32) * np.float32(255 / full)).astype(np.uint8)
    if pixels.shape[-1] < 4:
        return pixels
    alpha = pixels[..., 3:].astype(np.float32) / 255
    return np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
