"""Depth: a map in metres and its camera, as disparity in pixels, through a one-channel patch embedding.

Depth becomes disparity in one place (`to_disparity`): disparity = baseline * focal length / depth. The pixel values that
ViT-Lens's released weights know are disparities of a Kinect (arXiv 2311.16081), normalised with SUN RGB-D's statistics.

About the factor of 8: SUN RGB-D stores millimetres rotated left by three bits. The released conversion seems not to have
undone that: its statistics fit depths eight times too large. This is inferred from the numbers (and reported by a user of the
reference), not proven. `metres_factor=8.0`, which the cards of the released weights set, brings true metres to what those
weights saw; for weights of your own leave it at 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import PIL.Image

from vitlens import checks
from vitlens.errors import InputError, OptionError
from vitlens.modalities.depth_files import EXTENSIONS, is_deep, load_map
from vitlens.modalities.pixel_maps import check_size
from vitlens.modalities.pixels import MOST_SIZE, Crop, centre_crop, check_patches, resize_map
from vitlens.modality import Modality, Sample, register_modality
from vitlens.sources import Source, suffix_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

    from vitlens.vit import ViT

KINECT_FOCAL_LENGTH = 518.857901
KINECT_BASELINE = 0.075
"""Kinect v1 at 640 x 480: pixels; metres between projector and camera (NYU Depth v2's calibration)."""

BACKGROUND = 1e9
HALF_MAX = 65504.0
"""What renderers write where a ray meets nothing: 1e10, the largest float32 or infinity; and the largest half-precision float."""
FAR = 10.0
"""Metres beyond which a map of a room has few pixels; a street's may, and has to say so: it looks like a room in decimetres."""

Kind = Literal["depth", "disparity"]


def to_disparity(
    metres: Tensor, *, focal_length: float, baseline: float, factor: float = 1.0, near: float = 0.01, far: float = 50.0
) -> Tensor:
    """Depth in metres -> disparity in pixels: baseline * focal length / depth, the depth times `factor` and within near..far.

    Missing pixels (0) end at `near`, that is at the largest disparity, as in the released training data.
    """
    return baseline * focal_length / (metres * factor).clamp(near, far)


@register_modality
@dataclass(frozen=True, kw_only=True)
class Depth(Modality):
    """Depth maps as normalised disparity; see the head of this file for `metres_factor`.

    `focal_length` (pixels, at the size of the map) and `baseline` (metres) are used for samples without a camera of their own.
    `near`, `far` bound depth in metres, `min_disparity`, `max_disparity` disparity in pixels; `mean` and `std` are those of
    disparity / max_disparity. `antialias` smooths while shrinking: the weights were trained without.
    """

    size: int = 224
    focal_length: float = KINECT_FOCAL_LENGTH
    baseline: float = KINECT_BASELINE
    metres_factor: float = 1.0
    near: float = 0.01
    far: float = 50.0
    max_disparity: float = 75.0
    min_disparity: float = 0.01
    mean: float = 0.0418
    std: float = 0.0295
    antialias: bool = False

    name: ClassVar[str] = "depth"
    unit: ClassVar[str] = "metres, float32 [h, w], with focal length in pixels and baseline in metres"
    accepts: ClassVar[str] = (
        "a depth map: npy, npz, 16-bit or float png/tiff, pgm, exr, pfm, or an array [h, w]; integers with scale="
    )
    extensions: ClassVar[tuple[str, ...]] = EXTENSIONS

    def __post_init__(self) -> None:
        checks.whole("depth: size", self.size, least=1, most=MOST_SIZE)
        checks.flag("depth: antialias", self.antialias)
        for option in ("focal_length", "baseline", "metres_factor", "near", "far", "max_disparity", "min_disparity", "std"):
            object.__setattr__(self, option, checks.number(f"depth: {option}", getattr(self, option), above=0))
        object.__setattr__(self, "mean", checks.number("depth: mean", self.mean))
        for low, high in (("near", "far"), ("min_disparity", "max_disparity")):
            if getattr(self, low) >= getattr(self, high):
                raise OptionError(f"depth: {low} ({getattr(self, low)}) must be below {high} ({getattr(self, high)})")

    def read(
        self,
        source: Any,
        *,
        scale: float | None = None,
        focal_length: float | None = None,
        baseline: float | None = None,
        encoding: str = "plain",
        kind: str = "depth",
        invalid: str = "error",
        key: str | None = None,
        format: str | None = None,
    ) -> Sample:
        """Read a depth map into metres, float32 `[h, w]`; zeros are missing pixels, and so is a render's empty background.

        Args:
            source: a path, binary file object or array `[h, w]`, `[h, w, 1]` or `[1, h, w]`.
            scale: metres per stored unit (0.001 for millimetres); needed for integers, and for floats that are whole numbers or
                mostly farther than 10 m, which no sensor of rooms measures; else 1 for floats.
            focal_length: of the camera, in pixels at the size of this map; None takes the modality's.
            baseline: of the stereo pair or projector, in metres; None takes the modality's.
            encoding: "sunrgbd" undoes the three-bit rotation of SUN RGB-D's 16-bit files; the unit is millimetres then.
            kind: "disparity" for maps that hold disparity in pixels already (`scale`: pixels per stored unit).
            invalid: "zero" takes NaN and infinite pixels as missing; "error" refuses them.
            key: which array of an .npz or channel of an .exr.
            format: type of a file object whose name does not say it.

        Raises:
            InputError: no depth map, a unit that is not known, negative or absurd values, nothing but missing pixels.
            OptionError: an option with a value that is not allowed.
        """
        self._check_read_options(scale, focal_length, baseline, encoding, kind, invalid)
        given = Source(source, self.accepts)
        if given.is_array:
            stored = given.array()
        else:
            with given.local_file(EXTENSIONS, format) as path:
                stored = load_map(path, given, key)
        stored, background = self._without_background(self._one_map(stored, given), kind)
        stored = self._finite(stored, given, invalid)
        if encoding == "sunrgbd":
            stored, scale = self._unrotated(stored, given), 0.001 if scale is None else scale
        if scale is None:
            self._check_unit(stored, given, kind)
        with np.errstate(over="ignore"):
            data = (stored.astype(np.float64) * (1.0 if scale is None else float(scale))).astype(np.float32)
        self._check_values(data, given, kind)
        info = {
            "kind": kind,
            "focal_length": float(focal_length or self.focal_length),
            "baseline": float(baseline or self.baseline),
            "camera_given": focal_length is not None,
            "background": background,
            "multiples_of_8": encoding == "plain" and stored.dtype == np.uint16 and not (stored & 7).any(),
        }
        return Sample(data, given.name, info)

    def _check_read_options(self, scale: Any, focal_length: Any, baseline: Any, encoding: str, kind: str, invalid: str) -> None:
        for option, value in (("scale", scale), ("focal_length", focal_length), ("baseline", baseline)):
            if value is not None:
                checks.number(f"depth: {option}", value, above=0)
        choices = {"encoding": ("plain", "sunrgbd"), "kind": ("depth", "disparity"), "invalid": ("error", "zero")}
        for option, value in (("encoding", encoding), ("kind", kind), ("invalid", invalid)):
            checks.one_of(f"depth: {option}", value, choices[option])
        if encoding == "sunrgbd" and kind == "disparity":
            raise OptionError("depth: encoding 'sunrgbd' holds depth, not disparity")

    def _one_map(self, stored: np.ndarray, source: Source) -> np.ndarray:
        """`stored` as `[h, w]`."""
        if stored.ndim == 3 and 1 in (stored.shape[0], stored.shape[-1]):
            stored = stored[..., 0] if stored.shape[-1] == 1 else stored[0]
        elif stored.ndim == 3 and {3, 4} & {stored.shape[0], stored.shape[-1]}:
            raise source.refuse(f"a colour picture {list(stored.shape)}, not a depth map")
        if stored.ndim != 2:
            raise source.refuse(f"an array of shape {list(stored.shape)}")
        check_size(stored.shape[0], stored.shape[1], source)
        return stored

    def _without_background(self, stored: np.ndarray, kind: str) -> tuple[np.ndarray, int]:
        """A map whose empty background - where a renderer met nothing - is missing (0), and how many pixels that were."""
        if stored.dtype.kind != "f" or kind != "depth":
            return stored, 0
        with np.errstate(all="ignore"):  # of half precision, which does not reach so far, too
            empty = (stored >= BACKGROUND) | (stored == HALF_MAX)
        return (np.where(empty, 0, stored), int(empty.sum())) if empty.any() else (stored, 0)

    def _finite(self, stored: np.ndarray, source: Source, invalid: str) -> np.ndarray:
        """Numbers, those that are NaN or infinite set to 0 where `invalid` allows."""
        if invalid == "zero" and stored.dtype.kind == "f":
            stored = np.where(np.isfinite(stored), stored, 0)
        return source.numeric(stored, "" if invalid == "zero" else "invalid='zero' takes NaN and infinite pixels as missing")

    def _check_unit(self, stored: np.ndarray, source: Source, kind: str) -> None:
        """Refuse numbers that need not be metres: integers, floats that hold nothing else, and most of them beyond `FAR`."""
        if stored.dtype.kind != "f":
            unit = "metres" if kind == "depth" else "pixels of disparity"
            raise source.refuse(f"integers ({stored.dtype}) of unknown unit", accepted=f"scale= {unit} per unit, e.g. 0.001")
        valid = stored[stored > 0]
        if kind != "depth" or not valid.size:
            return
        span = f"{valid.min():.4g} to {valid.max():.4g}, {np.median(valid):.4g} in the middle"
        far = (valid > FAR).mean() > 0.5
        whole = valid.max() >= 10 and len(np.unique(valid[:1000])) > 1 and np.array_equal(valid, np.floor(valid))
        if far or whole:
            why = f"as metres most of it is beyond {FAR:g} m" if far else "whole numbers, as units smaller than a metre give"
            asked = "scale=0.001 for millimetres, 0.01 for centimetres, 0.1 for decimetres, 1 if it is metres"
            raise source.refuse(f"depth of unknown unit ({span}: {why})", accepted=asked)

    def _unrotated(self, stored: np.ndarray, source: Source) -> np.ndarray:
        if stored.dtype.kind not in "iu" or stored.min() < 0 or stored.max() > 65535:
            raise source.refuse(f"values of type {stored.dtype}", accepted="16-bit integers for encoding='sunrgbd'")
        raw = stored.astype(np.uint16)
        return (raw >> 3) | (raw << 13)

    def _check_values(self, data: np.ndarray, source: Source, kind: str) -> None:
        if not np.isfinite(data).all():
            raise source.refuse("values beyond what float32 holds")
        if negative := int((data < 0).sum()):
            raise source.refuse(f"{negative} of {data.size} values are negative", "missing pixels are 0")
        if not data.any():
            raise source.refuse("nothing but missing pixels (0)")
        if kind == "depth" and (median := float(np.median(data[data > 0]))) > 1000:
            raise source.refuse(f"a median depth of {median:.0f} metres", accepted="metres; for millimetres say scale=0.001")

    def disparity(self, sample: Sample) -> Tensor:
        """The sample's disparity in pixels, float32 `[h, w]`, not yet clamped."""
        import torch

        data = torch.from_numpy(np.ascontiguousarray(sample.data, np.float32))
        if sample.info.get("kind") == "disparity":
            return data
        return to_disparity(
            data,
            focal_length=sample.info.get("focal_length", self.focal_length),
            baseline=sample.info.get("baseline", self.baseline),
            factor=self.metres_factor,
            near=self.near,
            far=self.far,
        )

    def transform(self, sample: Sample, *, train: bool = False) -> Tensor:
        """Float32 `[1, size, size]`; with `train` a random part of the map, mirrored half of the time.

        Raises:
            InputError: different depths that all lie outside what the model distinguishes: the map would be one constant.
        """
        disparity = self.disparity(sample)
        kept = disparity.clamp(self.min_disparity, self.max_disparity)
        if bool((kept == kept.flatten()[0]).all()) and np.ptp(np.asarray(sample.data)[np.asarray(sample.data) > 0]) > 0:
            found = f"{sample.data[sample.data > 0].min():.4g} to {sample.data.max():.4g}, all outside what the model tells apart"
            raise InputError(
                sample.source, found, f"metres within {self.near:g}..{self.far:g} (see scale=), or disparity in pixels"
            )
        x = kept[None] / self.max_disparity
        if train:
            x = resize_map(Crop.draw(x.shape[1], x.shape[2]).of(x), (self.size, self.size), self.antialias)
        else:
            x = centre_crop(resize_map(x, self.size, self.antialias), self.size)
        return (x - self.mean) / self.std

    def build_embed(self, width: int, vit: ViT) -> nn.Module:
        """`[b, 1, size, size]` -> `[b, n, width]`: patches as large as the ViT's, with learned positions.

        Raises:
            OptionError: `size` is not a multiple of the ViT's patch size.
        """
        from vitlens.embed import PatchEmbed

        check_patches(self.name, self.size, vit)
        return PatchEmbed(channels=1, width=width, patch=vit.patch_size, positions=(self.size // vit.patch_size) ** 2)

    def example(self, seed: int = 0) -> Sample:
        """A room with boxes and balls on its floor, seen by a Kinect: 480 x 640 pixels."""
        camera = {"kind": "depth", "focal_length": self.focal_length, "baseline": self.baseline, "camera_given": False}
        return Sample(room(seed), f"<{self.name} example {seed}>", camera)

    def write(self, sample: Sample, folder: Path, stem: str) -> Path:
        """Write a TIFF of float32 metres, which `read` takes without options (a camera of its own is not stored)."""
        path = Path(folder) / f"{stem}.tiff"
        PIL.Image.fromarray(np.asarray(sample.data, np.float32)).save(path)
        return path

    def describe(self, sample: Sample) -> dict[str, str]:
        height, width = sample.data.shape
        valid = sample.data[sample.data > 0]
        metres = sample.info.get("kind", "depth") == "depth"
        unit = "m" if metres else "pixels of disparity"
        text = {
            "size": f"{width} x {height} pixels",
            "from": f"{valid.min():.2f} {unit}" if valid.size else "-",
            "median": f"{np.median(valid):.2f} {unit}" if valid.size else "-",
            "to": f"{valid.max():.2f} {unit}" if valid.size else "-",
            "missing": f"{100 * (1 - valid.size / sample.data.size):.1f} %",
        }
        if sample.info.get("background"):
            text["background"] = f"{sample.info['background']:,} pixels where nothing was met, taken as missing"
        if metres:
            focal_length, baseline = (sample.info.get(k, getattr(self, k)) for k in ("focal_length", "baseline"))
            assumed = "" if sample.info.get("camera_given") else " (assumed: a Kinect's)"
            text["camera"] = f"focal length {focal_length:.1f} pixels, baseline {baseline:.3f} m{assumed}"
        if sample.info.get("multiples_of_8"):
            text["note"] = "every stored value is a multiple of 8, as in SUN RGB-D's files: encoding='sunrgbd' gives true metres"
        return text

    def steps(self) -> list[str]:
        depth = "depth" if self.metres_factor == 1 else f"depth * {self.metres_factor:g}"
        return [
            f"disparity = baseline * focal length / ({depth} within {self.near:g}..{self.far:g} m), in pixels",
            f"keep disparity within {self.min_disparity:g}..{self.max_disparity:g}, divide by {self.max_disparity:g}",
            f"resize the short side to {self.size} (bicubic, {'with' if self.antialias else 'without'} antialiasing)",
            f"cut out the central {self.size} x {self.size}",
            f"subtract the mean {self.mean:g}, divide by the standard deviation {self.std:g}",
        ]

    def draw(self, sample: Sample, axes: Axes) -> None:
        metres = sample.info.get("kind", "depth") == "depth"
        shown = axes.imshow(np.ma.masked_equal(sample.data, 0), cmap="viridis_r" if metres else "viridis")
        axes.set_facecolor("0.6")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.figure.colorbar(shown, ax=axes, label="metres" if metres else "disparity, pixels", fraction=0.04, pad=0.02)

    def claims(self, path: Path) -> float:
        """2 for a PNG, TIFF or PGM with one channel of 16 bits or floats, 1 by extension for the others."""
        if suffix_of(path) in ("png", "tif", "tiff", "pgm"):
            return 2.0 if is_deep(path) else 0.0
        return super().claims(path)


def room(seed: int, height: int = 480, width: int = 640) -> np.ndarray:
    """Metres to the nearest surface of a synthetic room along the camera's axis, float32 `[height, width]`."""
    rng = np.random.default_rng(seed)
    focal = KINECT_FOCAL_LENGTH * width / 640
    x, y = np.meshgrid((np.arange(width) - width / 2) / focal, (np.arange(height) - height / 2) / focal)
    tilt = np.deg2rad(rng.uniform(8, 14))  # the camera looks down a little; below, rays are turned into the room's axes
    rays = np.stack([x, y * np.cos(tilt) + np.sin(tilt), np.cos(tilt) - y * np.sin(tilt)], axis=-1)
    walls = np.array([[-rng.uniform(1.6, 2.4), -1.2, -1.0], [rng.uniform(1.6, 2.4), 1.4, rng.uniform(3.6, 4.8)]])
    rays = np.where(np.abs(rays) < 1e-6, 1e-6, rays).astype(np.float32)
    depth = np.where(rays > 0, walls[1] / rays, walls[0] / rays).min(axis=-1)
    for _ in range(4):
        size = rng.uniform((0.25, 0.3, 0.25), (0.6, 0.9, 0.6))
        foot = np.array([rng.uniform(-1.3, 1.3), walls[1, 1], rng.uniform(1.9, 3.4)])
        depth = np.minimum(depth, _box(rays, foot - size * (0.5, 1, 0.5), foot + size * (0.5, 0, 0.5)))
    for _ in range(2):
        radius = rng.uniform(0.12, 0.25)
        centre = np.array([rng.uniform(-1, 1), walls[1, 1] - radius, rng.uniform(1.6, 2.6)])
        depth = np.minimum(depth, _ball(rays, centre, radius))
    return depth.astype(np.float32)


def _box(rays: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where rays from the origin enter a box; infinity where they miss."""
    enter = np.minimum(low / rays, high / rays).max(axis=-1)
    leave = np.maximum(low / rays, high / rays).min(axis=-1)
    return np.where((enter < leave) & (enter > 0), enter, np.inf)


def _ball(rays: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """Where rays from the origin meet a ball; infinity where they miss."""
    a, b, c = (rays**2).sum(-1), rays @ centre, centre @ centre - radius**2
    root = b**2 - a * c
    return np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
