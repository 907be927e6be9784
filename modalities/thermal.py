"""Thermal: what a thermal camera saw, in kelvin, through a one-channel patch embedding.

A temperature is never guessed from colours: integers need their scale, 8-bit pictures the temperatures that their black and white
stand for, and floats are kelvin only where no other unit is as likely. FLIR's radiometric JPEGs hold all of that themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import PIL.Image

from vitlens import checks
from vitlens.errors import InputError, MissingDependencyError, OptionError
from vitlens.isolation import isolated
from vitlens.modalities.depth_files import is_deep, load_map
from vitlens.modalities.picture_files import read_pixels
from vitlens.modalities.pixel_maps import check_size
from vitlens.modalities.pixels import MOST_SIZE, Crop, centre_crop, check_patches, resize_map
from vitlens.modality import Modality, Sample, register_modality
from vitlens.sources import Source, suffix_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

    from vitlens.vit import ViT

UNITS = {"K": (1.0, 0.0), "C": (1.0, 273.15), "F": (5 / 9, 459.67 * 5 / 9)}
"""Kelvin = factor * value + offset."""
EVERYDAY = (220.0, 380.0)
"""Kelvin that the middle of a scene has where its unit is taken for granted; as Celsius or Fahrenheit these would be ovens."""
SEEN = (50.0, 5000.0)
"""Kelvin beyond which no thermal camera measures."""
GREY = 3
"""How far the channels of a grey picture may differ: what JPEG's rounding leaves."""
MARK = b"FLIR\0"


@register_modality
@dataclass(frozen=True, kw_only=True)
class Thermal(Modality):
    """Thermal maps as ImageBind's tensors: `low` kelvin is 0, `high` kelvin is 1, and what lies beyond is cut.

    The default spans -10 to 50 degrees Celsius: people, animals, houses, streets. `antialias` smooths while shrinking; `patch`
    is the side of a token's part in pixels, None the ViT's own. The ModEmbed takes (x - mean) / std of these tensors: scenes are
    of few kelvin, and fill a small part of 0..1.
    """

    size: int = 224
    low: float = 263.15
    high: float = 323.15
    antialias: bool = True
    patch: int | None = None
    mean: float = 0.5
    std: float = 0.15

    name: ClassVar[str] = "thermal"
    unit: ClassVar[str] = "kelvin, float32 [h, w]"
    accepts: ClassVar[str] = (
        "a thermal map: tiff or png of 16 bits with scale= and offset=, float tiff, FLIR radiometric jpg, npy, npz, an array "
        "[h, w], or a grey 8-bit picture with range=[low, high]"
    )
    extensions: ClassVar[tuple[str, ...]] = ("tiff", "tif", "png", "jpg", "jpeg", "npy", "npz", "bmp", "pgm")

    def __post_init__(self) -> None:
        checks.whole("thermal: size", self.size, least=1, most=MOST_SIZE)
        checks.flag("thermal: antialias", self.antialias)
        for option in ("low", "high"):
            object.__setattr__(self, option, checks.number(f"thermal: {option}", getattr(self, option), least=0))
        object.__setattr__(self, "mean", checks.number("thermal: mean", self.mean))
        object.__setattr__(self, "std", checks.number("thermal: std", self.std, above=0))
        if self.patch is not None and self.size % checks.whole("thermal: patch", self.patch, least=1, most=self.size):
            raise OptionError(f"thermal: size {self.size} is not a multiple of patch {self.patch}")
        if self.low >= self.high:
            raise OptionError(f"thermal: low ({self.low:g}) must be below high ({self.high:g})")

    def read(
        self,
        source: Any,
        *,
        unit: str | None = None,
        scale: float | None = None,
        offset: float | None = None,
        range: Sequence[float] | None = None,
        key: str | None = None,
        format: str | None = None,
    ) -> Sample:
        """Read a thermal map into kelvin, float32 `[h, w]`.

        Args:
            source: a path, binary file object or array `[h, w]`, `[h, w, 1]` or `[1, h, w]`.
            unit: "K", "C" or "F": of floats, of what `scale` and `offset` give, and of `range`; None is kelvin, where nothing
                speaks against it.
            scale, offset: value = scale * stored + offset. Integers need them: 0.01 for hundredths of a kelvin.
            range: the temperatures of black and white of a grey 8-bit picture or array.
            key: which array of an .npz.
            format: type of a file object whose name does not say it.

        Raises:
            InputError: no thermal map, false colours, a unit or range that is not known, temperatures that cannot be.
            OptionError: an option with a value that is not allowed.
            MissingDependencyError: a FLIR JPEG without the package that reads it.
        """
        _check_read_options(unit, scale, offset, range)
        given = Source(source, self.accepts)
        said = [
            name for name, value in (("scale", scale), ("offset", offset), ("range", range), ("unit", unit)) if value is not None
        ]
        if given.is_array:
            stored = given.array()
        else:
            with given.local_file(self.extensions, format) as path:
                if is_flir(path):
                    if said:
                        raise given.refuse(
                            f"a FLIR JPEG, which states its own temperatures, and {' and '.join(said)}=", "leave it out"
                        )
                    return Sample(_checked(isolated(flir_kelvin, path, given), given, True), given.name, {"from": "FLIR"})
                stored = _load(path, given, key)
        values = _values(_one_map(stored, given), given, scale, offset, range)
        factor, shift = UNITS[unit or "K"]
        return Sample(_checked(factor * values + shift, given, bool(said)), given.name)

    def transform(self, sample: Sample, *, train: bool = False) -> Tensor:
        """Float32 `[1, size, size]` in 0..1; with `train` a random part of the map, mirrored half of the time.

        Raises:
            InputError: different temperatures that all lie outside `low`..`high`: the map would be one constant.
        """
        import torch

        kelvin = torch.from_numpy(np.ascontiguousarray(sample.data, np.float32))
        x = ((kelvin - self.low) / (self.high - self.low)).clamp(0, 1)[None]
        coldest, hottest = float(kelvin.min()), float(kelvin.max())
        if coldest < hottest and (coldest >= self.high or hottest <= self.low):
            found = f"temperatures from {coldest:.1f} to {hottest:.1f} K"
            raise InputError(sample.source, found, f"what this model tells apart: {self.low:g} to {self.high:g} K (see unit=)")
        if train:
            x = resize_map(Crop.draw(x.shape[1], x.shape[2]).of(x), (self.size, self.size), self.antialias)
        else:
            x = centre_crop(resize_map(x, self.size, self.antialias), self.size)
        return x.clamp(0, 1)  # bicubic resizing overshoots at edges

    def build_embed(self, width: int, vit: ViT) -> nn.Module:
        """`[b, 1, size, size]` -> `[b, n, width]`: patches as large as the ViT's or `patch`, with learned positions.

        Raises:
            OptionError: `size` is not a multiple of the ViT's patch size.
        """
        from vitlens.modalities.thermal_embed import ThermalEmbed

        if self.patch is None:
            check_patches(self.name, self.size, vit)
        patch = self.patch or vit.patch_size
        return ThermalEmbed(mean=self.mean, std=self.std, width=width, patch=patch, positions=(self.size // patch) ** 2)

    def example(self, seed: int = 0) -> Sample:
        """A hand and its warm print on a cool wall with a window, 240 x 320 pixels."""
        return Sample(hand_and_print(seed), f"<{self.name} example {seed}>")

    def write(self, sample: Sample, folder: Path, stem: str) -> Path:
        """Write a TIFF of float32 kelvin, which `read` takes without options where they are those of daily life."""
        path = Path(folder) / f"{stem}.tiff"
        PIL.Image.fromarray(np.asarray(sample.data, np.float32)).save(path)
        return path

    def describe(self, sample: Sample) -> dict[str, str]:
        kelvin = np.asarray(sample.data)
        beyond = ((kelvin < self.low) | (kelvin > self.high)).mean()
        text = {"size": f"{kelvin.shape[1]} x {kelvin.shape[0]} pixels"}
        for label, value in (("coldest", kelvin.min()), ("median", np.median(kelvin)), ("hottest", kelvin.max())):
            text[label] = f"{value:.1f} K ({value - 273.15:.1f} °C)"
        text["beyond the model's range"] = f"{100 * beyond:.1f} % of the pixels"
        return {**text, "temperatures": f"by {sample.info['from']}'s own calibration"} if "from" in sample.info else text

    def steps(self) -> list[str]:
        return [
            f"{self.low:g} K is 0 and {self.high:g} K is 1; what lies beyond is cut",
            f"resize the short side to {self.size} (bicubic, {'with' if self.antialias else 'without'} antialiasing)",
            f"cut out the central {self.size} x {self.size}",
            f"in the ModEmbed: subtract the mean {self.mean:g}, divide by the standard deviation {self.std:g}",
        ]

    def draw(self, sample: Sample, axes: Axes) -> None:
        shown = axes.imshow(np.asarray(sample.data) - 273.15, cmap="inferno")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.figure.colorbar(shown, ax=axes, label="degrees Celsius", fraction=0.04, pad=0.02)

    def claims(self, path: Path) -> float:
        """2 for a FLIR radiometric JPEG; a quarter for the other types, which say nothing of temperatures."""
        if suffix_of(path) in ("jpg", "jpeg") and is_flir(path):
            return 2.0
        return 0.25 * super().claims(path)


def is_flir(path: Path) -> bool:
    """Whether a file is a JPEG with FLIR's own segments, where the raw measurement and its calibration lie."""
    with path.open("rb") as file:
        if file.read(2) != b"\xff\xd8":
            return False
        # segments: 0xFF, the kind, the size with its own two bytes; pixels begin with 0xDA
        while len(head := file.read(4)) == 4 and head[0] == 0xFF and head[1] != 0xDA:
            begin = file.tell()
            if head[1] == 0xE1 and file.read(len(MARK)) == MARK:
                return True
            file.seek(begin + int.from_bytes(head[2:], "big") - 2)
    return False


def flir_kelvin(path: Path, source: Source) -> np.ndarray:
    """Kelvin `[h, w]` of a FLIR radiometric JPEG, by the camera's own calibration, emissivity and surroundings.

    Raises:
        InputError: a record is missing or damaged.
        MissingDependencyError: flyr is not installed.
    """
    try:
        import flyr
    except ImportError as error:
        raise MissingDependencyError("reading a FLIR radiometric JPEG needs flyr: pip install 'vitlens[flir]'") from error
    with source.decoding(), np.errstate(all="ignore"):
        return np.asarray(flyr.unpack(str(path)).kelvin)


def _load(path: Path, source: Source, key: str | None) -> np.ndarray:
    """The numbers of any other file: an array, 16 bits or floats as they are stored, or 8 bits of grey."""
    if suffix_of(path) in ("npy", "npz") or is_deep(path):
        return load_map(path, source, key)
    pixels, _ = read_pixels(Source(path, source.accepted, source.name), format=suffix_of(path))
    if int(np.ptp(pixels.astype(np.int16), axis=-1).max()) > GREY:
        raise source.refuse("a picture in colours, which are no temperatures", "the camera's radiometric file")
    return pixels[..., 1]


def _one_map(stored: np.ndarray, source: Source) -> np.ndarray:
    stored = source.numeric(stored)
    if stored.ndim == 3 and 1 in (stored.shape[0], stored.shape[-1]):
        stored = stored[0] if stored.shape[0] == 1 else stored[..., 0]
    if stored.ndim != 2:
        raise source.refuse(f"an array of shape {list(stored.shape)}", "one map [h, w]")
    check_size(stored.shape[0], stored.shape[1], source)
    return stored


def _values(
    stored: np.ndarray, source: Source, scale: float | None, offset: float | None, range: Sequence[float] | None
) -> np.ndarray:
    """Stored numbers as temperatures of the unit that is asked for, float64."""
    integers = stored.dtype.kind in "iu"
    if range is not None:
        if stored.dtype != np.uint8:
            raise source.refuse(f"range= and values of type {stored.dtype}", "scale= and offset= for what has more than 8 bits")
        low, high = (float(value) for value in range)
        return low + (high - low) / 255 * stored.astype(np.float64)
    if integers and scale is None:
        if stored.dtype == np.uint8:
            raise source.refuse("8-bit values, whose temperatures are not known", 'range=[10, 40] and unit="C", for example')
        hint = "scale=0.01 for hundredths of a kelvin, 0.1 for tenths, 0.04 for FLIR's low resolution; offset= where there is one"
        raise source.refuse(f"integers from {stored.min()} to {stored.max()} of unknown unit", hint)
    return stored.astype(np.float64) * (1.0 if scale is None else scale) + (offset or 0.0)


def _checked(kelvin: np.ndarray, source: Source, stated: bool) -> np.ndarray:
    """Kelvin as float32, once a camera may have measured them; with nothing `stated` once no other unit is as likely."""
    kelvin = np.asarray(kelvin, np.float64)
    span = f"{kelvin.min():.5g} to {kelvin.max():.5g}"
    if not np.isfinite(kelvin).all() or kelvin.min() < 0:
        raise source.refuse(
            f"{span} kelvin, which cannot be" if np.isfinite(kelvin).all() else "temperatures that are no numbers"
        )
    middle = float(np.median(kelvin))
    if not stated and not (EVERYDAY[0] <= middle <= EVERYDAY[1] and kelvin.min() >= EVERYDAY[0] - 100):
        raise source.refuse(f"floats of unknown unit ({span}, median {middle:.5g})", 'unit="K", "C" or "F"')
    if not SEEN[0] <= middle <= SEEN[1]:
        raise source.refuse(f"a median of {middle:.5g} kelvin, which no thermal camera sees", "another unit= or scale=")
    return kelvin.astype(np.float32)


def _check_read_options(unit: Any, scale: Any, offset: Any, range: Any) -> None:
    if unit is not None:
        checks.one_of("thermal: unit", unit, UNITS)
    if scale is not None:
        checks.number("thermal: scale", scale, above=0)
    if offset is not None:
        checks.number("thermal: offset", offset)
    if range is not None:
        if scale is not None or offset is not None:
            raise OptionError("thermal: range= says what scale= and offset= say; give one of them")
        low, high = checks.numbers("thermal: range", range, 2)
        if low == high:
            raise OptionError(f"thermal: range must be two different temperatures, found {range!r}")


def hand_and_print(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """Kelvin of a wall by night, a cold window in it, a hand, and the fading print that it left; float32 `[height, width]`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] * (240 / height)
    kelvin = 293 + 1.5 * (120 - y) / 120 + 0.4 * np.sin(x / rng.uniform(25, 40) + rng.uniform(0, 6))
    left, top = rng.uniform(8, 40), rng.uniform(10, 40)
    kelvin[(x > left) & (x < left + 80) & (y > top) & (y < top + 95)] = rng.uniform(279, 286)
    for place_x, warm in ((rng.uniform(205, 235), 306.5), (rng.uniform(115, 140), 297.5)):
        place_y, lean = rng.uniform(140, 165), rng.uniform(-0.2, 0.2)
        across, up = x - place_x - lean * (place_y - y), place_y - y
        shape = (across / 26) ** 2 + (up / 30) ** 2 < 1
        for finger, reach in zip((-20.0, -7.0, 6.0, 19.0), (58, 70, 68, 52), strict=True):
            shape |= (np.abs(across - finger * (1 + up / 260)) < 5.5) & (up > 0) & (up < reach)
        shape |= (np.abs(up - 0.9 * (across + 26)) < 8) & (across < -18) & (across > -46) & (up < 5)
        kelvin[shape] = warm + 0.02 * up[shape] + rng.uniform(-0.5, 0.5)
    for axis in (0, 1):  # the optics
        kelvin = (np.roll(kelvin, 1, axis) + 2 * kelvin + np.roll(kelvin, -1, axis)) / 4
    return (kelvin + 0.05 * rng.standard_normal(kelvin.shape)).astype(np.float32)
