"""Tactile: pictures of a GelSight-style sensor (an elastic gel, lit from its sides), through the ViT's own patches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import PIL.Image

from vitlens import checks
from vitlens.errors import OptionError
from vitlens.modalities.picture_files import FORMATS, pixels_of_array, read_pixels
from vitlens.modalities.pixels import MOST_SIZE, Crop, RGBModality, centre_crop, in_words, resize_map
from vitlens.modalities.video_files import stack
from vitlens.modality import Sample, register_modality
from vitlens.sources import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

MAX_FRAMES = 256
RELIEF, SHARE = 6.0, 0.0015
"""Grey levels by which a touched place differs from the gel around, and the share of such places below which a touch is empty."""


@register_modality
@dataclass(frozen=True, kw_only=True)
class Tactile(RGBModality):
    """Touch pictures, resized as tensors to a short side of `resize`, then cut to `size` (ViT-Lens, arXiv 2311.16081).

    `antialias` smooths while shrinking: the released weights were trained without.
    """

    resize: int = 256
    antialias: bool = False

    name: ClassVar[str] = "tactile"
    unit: ClassVar[str] = "GelSight-style RGB, uint8 [h, w, 3] or [frames, h, w, 3]"
    accepts: ClassVar[str] = "a picture of a touch sensor (png, jpg, ...), a PIL image, an RGB array [h, w, 3], or frames of them"
    extensions: ClassVar[tuple[str, ...]] = tuple(FORMATS)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("tactile: resize", self.resize, least=1, most=MOST_SIZE)
        if self.resize < self.size:
            raise OptionError(f"tactile: resize ({self.resize}) must not be below size ({self.size})")
        checks.flag("tactile: antialias", self.antialias)

    def read(self, source: Any, *, background: Any = None, format: str | None = None) -> Sample:
        """Read a touch picture into RGB uint8 `[h, w, 3]`, or an array `[frames, h, w, 3]` or list of pictures into frames.

        `background` is a picture of the same sensor's untouched gel (a path or array): what is read is the difference to it, on
        the gel's mean colour, without lamps, markers and dust. A touch in which nothing touches is a remark in `info`.

        Raises:
            InputError: no picture, no frames or too many, frames of different sizes, arrays of another type or range, or a
                background of another size.
        """
        given = Source(source, self.accepts)
        pixels, info = self._pixels(source, given, format)
        bare = None if background is None else read_pixels(Source(background, self.accepts))[0]
        if bare is not None:
            if bare.shape != pixels.shape[-3:]:
                sizes = " and ".join(f"{w} x {h}" for h, w in (pixels.shape[-3:-1], bare.shape[:2]))
                raise given.refuse(f"a touch and a background of {sizes} pixels", "pictures of one sensor")
            ground = np.rint(bare.mean(axis=(0, 1)))
            pixels = (pixels.astype(np.int16) - bare + ground.astype(np.int16)).clip(0, 255).astype(np.uint8)
            info = {**info, "background": Source(background, self.accepts).name}
        if touched(pixels, even=bare is not None) < SHARE:
            info = {**info, "remarks": [*info.get("remarks", ()), EMPTY if bare is not None else f"{EMPTY} {UNSURE}"]}
        return Sample(pixels, given.name, info)

    def _pixels(self, source: Any, given: Source, format: str | None) -> tuple[np.ndarray, dict[str, Any]]:
        """One picture [h, w, 3], or frames of it, and what is known of it."""
        if isinstance(source, list | tuple):
            frames: Any = source
        elif given.is_array and source.ndim == 4:
            frames = given.array()
        else:
            pixels, info = read_pixels(given, format=format)
            return pixels, dict(info)
        if not 1 <= len(frames) <= MAX_FRAMES:
            raise given.refuse(f"{len(frames)} frames", f"1 to {MAX_FRAMES} frames")
        if isinstance(frames, np.ndarray):
            pictures = [pixels_of_array(frame, given) for frame in frames]
        else:
            pictures = [read_pixels(Source(frame, self.accepts))[0] for frame in frames]
        return stack(pictures, given), {}

    def transform(self, sample: Sample, *, train: bool = False) -> Tensor:
        """Float32 `[3, size, size]`, frames before it; with `train` a random part, mirrored half of the time."""
        import torch

        x = torch.tensor(sample.data).movedim(-1, -3).float() / 255
        if train:
            x = resize_map(Crop.draw(x.shape[-2], x.shape[-1]).of(x), (self.size, self.size), self.antialias)
        else:
            x = centre_crop(resize_map(x, self.resize, self.antialias), self.size)
        return self.normalise(x)

    def example(self, seed: int = 0) -> Sample:
        """A small thing pressed into the gel, 240 x 320 pixels."""
        return Sample(imprint(seed), f"<{self.name} example {seed}>")

    def write(self, sample: Sample, folder: Path, stem: str) -> Path:
        """Write a PNG; of several frames the first."""
        path = Path(folder) / f"{stem}.png"
        PIL.Image.fromarray(sample.data if sample.data.ndim == 3 else sample.data[0]).save(path)
        return path

    def describe(self, sample: Sample) -> dict[str, str]:
        height, width = sample.data.shape[-3:-1]
        frames = sample.data.reshape(-1, height, width, 3)
        contact = np.abs(frames - np.median(frames, axis=(1, 2), keepdims=True)).max(axis=-1) > 25
        text = {"size": f"{width} x {height} pixels", "unlike the bare gel": f"{100 * contact.mean():.0f} % of the picture"}
        text |= {"background": sample.info["background"]} if "background" in sample.info else {}
        text |= {"frames": str(len(frames))} if sample.data.ndim == 4 else {}
        return text | ({"remarks": "; ".join(sample.info["remarks"])} if sample.info.get("remarks") else {})

    def steps(self) -> list[str]:
        return [
            f"resize the short side to {self.resize} (bicubic, {'with' if self.antialias else 'without'} antialiasing)",
            f"cut out the central {self.size} x {self.size} pixels",
            f"subtract the mean {in_words(self.mean)}, divide by the standard deviation {in_words(self.std)}",
        ]

    def draw(self, sample: Sample, axes: Axes) -> None:
        """The picture; of several frames, the first above the last."""
        pixels = sample.data
        axes.imshow(pixels if pixels.ndim == 3 else np.concatenate([pixels[0], pixels[-1]]))
        axes.axis("off")

    def claims(self, path: Path) -> float:
        """Half: the same file types as pictures, and nothing in a file that says it is touch."""
        return 0.5 * super().claims(path)


EMPTY = "nothing seems to touch the gel: all empty touches look alike"
UNSURE = "(or something smooth fills it evenly; background= tells)"


def touched(pixels: np.ndarray, *, even: bool) -> float:
    """Share of the picture (of the fullest of frames) where the gel is not as around: off a smooth surface by `RELIEF`.

    `even` says that lamps and vignette are taken away already; otherwise a surface of third degree stands for them.
    """
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    plain = np.ones_like(x)
    terms = np.stack([plain] if even else [x**i * y**j for i in range(4) for j in range(4 - i)]).reshape(-1, 64 * 64).T
    most = 0.0
    for frame in pixels.reshape(-1, *pixels.shape[-3:]):
        small = np.asarray(PIL.Image.fromarray(frame).resize((64, 64), PIL.Image.Resampling.BOX), np.float64).reshape(-1, 3)
        smooth = terms @ np.linalg.lstsq(terms, small, rcond=None)[0]
        most = max(most, float((np.abs(small - smooth).max(axis=1) > RELIEF).mean()))
    return most


def imprint(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """A gel under red, green and blue side light with something pressed into it; RGB uint8 `[height, width, 3]`.

    The gel's height is made first; each colour then shades its slope towards that colour's lamp.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] * (240 / height)
    x, y = x - x.mean() + rng.uniform(-30, 30), y - y.mean() + rng.uniform(-20, 20)
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    distance = np.hypot(x, y)
    things = (
        14 * np.clip(1 - np.abs(distance - 48) / 16, 0, 1) ** 0.5,  # a ring
        16 * np.clip(1 - (distance / 62) ** 2, 0, 1) ** 0.5,  # a ball
        12 * np.clip(1 - (across / 24) ** 2, 0, 1) ** 0.5 * (1 + 0.18 * np.sin(along / 3.2)) * (np.abs(along) < 105),  # a screw
        5 * (np.sin(along / 5) * np.sin(across / 5)) * np.exp(-((distance / 95) ** 4)),  # a weave
    )
    gel = _blurred(things[seed % len(things)], 3) + _blurred(rng.normal(0, 0.8, (height, width)), 2)
    slope_y, slope_x = np.gradient(gel)
    lamps = {0: (-1.0, 0.15), 1: (0.55, -0.85), 2: (0.55, 0.85)}  # red from the left, green and blue from the right
    picture = np.empty((height, width, 3))
    for channel, (lamp_x, lamp_y) in lamps.items():
        reach = 1 + 0.22 * (lamp_x * x / 160 + lamp_y * y / 120)
        picture[..., channel] = (112 + 62 * np.tanh(-1.1 * (slope_x * lamp_x + slope_y * lamp_y))) * reach
    picture *= (1 - 0.28 * (x / 200) ** 2 - 0.25 * (y / 160) ** 2)[..., None]
    return np.rint((picture + rng.normal(0, 1.5, picture.shape)).clip(0, 255)).astype(np.uint8)


def _blurred(x: np.ndarray, radius: int) -> np.ndarray:
    """Three box averages of 2 * radius + 1 pixels each way, about a Gaussian."""
    box = np.ones(2 * radius + 1) / (2 * radius + 1)
    for axis in (0, 1) * 3:
        padded = np.pad(x, [(radius, radius) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        x = np.apply_along_axis(np.convolve, axis, padded, box, mode="valid")
    return x
