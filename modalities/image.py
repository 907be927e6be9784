"""Image: pictures as RGB pixels through the ViT's own patch embedding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import PIL.Image

from vitlens.modalities.picture_files import FORMATS, read_pixels
from vitlens.modalities.pixels import Crop, PillowModality
from vitlens.modality import Sample, register_modality
from vitlens.sources import Source, suffix_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor


@register_modality
@dataclass(frozen=True, kw_only=True)
class Image(PillowModality):
    """Pictures as CLIP sees them: short side to `size`, centre crop, normalised (arXiv 2103.00020)."""

    name: ClassVar[str] = "image"
    unit: ClassVar[str] = "RGB, uint8 [h, w, 3]"
    accepts: ClassVar[str] = "a picture (jpg, png, webp, avif, bmp, gif, tiff, ppm), a PIL image, or an RGB array [h, w, 3]"
    extensions: ClassVar[tuple[str, ...]] = tuple(FORMATS)

    def read(self, source: Any, *, format: str | None = None, exif: bool = True, white: float | None = None) -> Sample:
        """Read a picture (of an animation: its first) into RGB uint8 `[h, w, 3]`; see `read_pixels` for what is taken.

        `format` names the file type of a source whose content is to be trusted less than you; `exif=False` leaves the picture
        as stored, as the ViT-Lens reference does. `white` is the value of white where numbers do not tell it
        (integers of 32 bits, uint16 arrays).

        Raises:
            InputError: no such file, no picture, cut off, too large, or an array of another shape, type or range.
        """
        given = Source(source, self.accepts)
        pixels, info = read_pixels(given, format=format, exif=exif, white=white)
        return Sample(pixels, given.name, info)

    def transform(self, sample: Sample, *, train: bool = False) -> Tensor:
        """Float32 `[3, size, size]`; with `train` a random part of the picture, mirrored half of the time."""
        return self.to_tensor(sample.data, Crop.draw(*sample.data.shape[:2]) if train else None)

    def example(self, seed: int = 0) -> Sample:
        """A landscape under a sun, 240 x 320 pixels."""
        return Sample(landscape(seed), f"<{self.name} example {seed}>")

    def write(self, sample: Sample, folder: Path, stem: str) -> Path:
        """Write a PNG."""
        path = Path(folder) / f"{stem}.png"
        PIL.Image.fromarray(sample.data).save(path)
        return path

    def describe(self, sample: Sample) -> dict[str, str]:
        height, width = sample.data.shape[:2]
        known = {label: str(sample.info[label]) for label in ("format", "mode") if label in sample.info}
        return {"size": f"{width} x {height} pixels", "mean colour": rgb_text(sample.data), **known}

    def draw(self, sample: Sample, axes: Axes) -> None:
        axes.imshow(sample.data)
        axes.axis("off")

    def claims(self, path: Path) -> float:
        """1 for a picture by its extension; half of that for an animation, which video reads whole."""
        return 0.5 if is_animation(path) else super().claims(path)


def rgb_text(pixels: np.ndarray) -> str:
    """The mean colour of pixels `[..., 3]`, in words."""
    red, green, blue = pixels.reshape(-1, 3).mean(axis=0)
    return f"red {red:.0f}, green {green:.0f}, blue {blue:.0f} of 255"


def is_animation(path: Path) -> bool:
    """Whether a file is a GIF of several frames."""
    if suffix_of(path) != "gif":
        return False
    try:
        with PIL.Image.open(path, formats=["GIF"]) as image:
            return bool(getattr(image, "is_animated", False))
    except (OSError, ValueError, SyntaxError):
        return False


def landscape(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """A synthetic landscape: sky, sun and three rows of hills; RGB uint8 `[height, width, 3]`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : width / height : width * 1j]
    blue, glow = np.array([95, 150, 215]), np.array([250, 215, 170])
    picture = blue + (glow - blue) * (y[..., None] / 0.8).clip(0, 1)
    sun = np.hypot(x - rng.uniform(0.2, 1.1), y - rng.uniform(0.15, 0.35))
    picture += np.array([90, 70, 0]) * np.exp(-((sun / 0.16) ** 2))[..., None]
    picture[sun < 0.07] = (255, 240, 180)
    for row, green in enumerate(((125, 150, 150), (85, 125, 85), (45, 90, 45))):
        waves = 0.05 * np.sin(x * rng.uniform(2, 5) + rng.uniform(0, 6)) + 0.015 * np.sin(x * rng.uniform(9, 15))
        edge = 0.52 + 0.14 * row + waves
        shade = np.array(green) * (1.05 - 0.35 * (y - edge))[..., None] + rng.normal(0, 3, (height, width, 1))
        picture = np.where((y > edge)[..., None], shade, picture)
    return np.rint(picture.clip(0, 255)).astype(np.uint8)
