"""Point cloud: the surface of one object as xyz points, with colours where there are any.

Preprocessing and two ModEmbeds follow ViT-Lens-2 (arXiv 2311.16081): Point-BERT's groups of neighbours for ViT-L, and
OpenShape's PointNet++ set abstraction for ViT-bigG. A third draws the cloud as a picture for the ViT's own patches.
"""

from __future__ import annotations

import math
import re
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from vitlens import checks
from vitlens.errors import InputError, OptionError
from vitlens.lens_config import LensConfig, PerceiverConfig
from vitlens.modalities.companions import companions
from vitlens.modalities.pixels import CLIP_MEAN, CLIP_STD, MOST_SIZE, check_colours, check_patches
from vitlens.modalities.point_drawing import chair, draw_points, points_to_turn
from vitlens.modalities.point_files import COLUMNS, EXTENSIONS, Points, read_points, split_columns
from vitlens.modalities.point_pieces import GREY
from vitlens.modalities.point_ply import write_ply
from vitlens.modality import Modality, Sample, register_modality
from vitlens.sources import Source, npy_header, suffix_of, to_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

    from vitlens.vit import ViT

AXES = ("x", "y", "z")


@register_modality
@dataclass(frozen=True, kw_only=True)
class PointCloud(Modality):
    """Points on an object's surface: `points` of them by farthest point sampling, centred, in the unit sphere.

    `up` is the axis that points up where the model was trained. `mirror` is the axis that is flipped after that turn, for models
    trained on mirror images: up="z" with mirror="y" swaps the y and z of y-up data, as OpenShape did (arXiv 2305.10764).
    `tokenizer`: "pointbert" (arXiv 2111.14819) takes `groups` groups of the `group_size` nearest neighbours; "pnsa" (arXiv
    2305.10764) balls of `radius` with up to `group_size` points; "projection" the patches of a picture of `size` pixels.
    """

    name: ClassVar[str] = "point_cloud"
    unit: ClassVar[str] = "xyz in the file's own length unit (+ rgb in 0..1), float32 [n, 3 or 6]"
    accepts: ClassVar[str] = (
        "a point cloud (ply, pcd, las, laz, npy, npz, txt, xyz), a mesh (ply, off, obj, stl, glb, gltf), "
        "or an array [n, 3] or [n, 6]"
    )
    extensions: ClassVar[tuple[str, ...]] = EXTENSIONS
    default_lens: ClassVar[LensConfig | None] = PerceiverConfig(depth=4)
    token_width: ClassVar[int | None] = 384

    points: int = 8192
    color: bool = False
    """Tokens see xyz and rgb; a cloud without colours is grey (0.4)."""
    up: Literal["x", "y", "z"] = "y"
    mirror: Literal["x", "y", "z"] | None = None
    upsample: bool = True
    """Repeat the points of a smaller cloud so that the shape is fixed; False keeps as many as there are."""
    tokenizer: Literal["pointbert", "pnsa", "projection"] = "pointbert"
    groups: int = 512
    group_size: int = 32
    encoder_width: int = 256
    radius: float = 0.2
    size: int = 224
    """Side of the picture that "projection" draws, pixels; `mean` and `std` are those of the picture encoder."""
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def __post_init__(self) -> None:
        checks.one_of("point_cloud: up", self.up, AXES)
        checks.one_of("point_cloud: mirror", self.mirror, (*AXES, None))
        checks.one_of("point_cloud: tokenizer", self.tokenizer, ("pointbert", "pnsa", "projection"))
        for name in ("points", "groups", "group_size", "encoder_width"):
            checks.whole(f"point_cloud: {name}", getattr(self, name), least=1, most=1 << 20)
        for name in ("color", "upsample"):
            checks.flag(f"point_cloud: {name}", getattr(self, name))
        checks.number("point_cloud: radius", self.radius, above=0)
        checks.whole("point_cloud: size", self.size, least=1, most=MOST_SIZE)
        check_colours(self)
        if self.tokenizer == "projection":  # patches as the ViT has them need no lens of their own
            for name in ("default_lens", "token_width"):
                object.__setattr__(self, name, None)
        elif self.points < max(self.groups, self.group_size):
            raise OptionError(f"point_cloud: {self.points} points cannot make {self.groups} groups of {self.group_size}")

    def read(
        self,
        source: Any,
        *,
        up: Literal["x", "y", "z"] | None = None,
        rgb_max: float | None = None,
        columns: Literal["xyz", "xyzrgb", "xyzrgba", "xyznormal"] | None = None,
        invalid: Literal["error", "drop"] = "error",
        key: str | None = None,
        format: str | None = None,
    ) -> Sample:
        """Read a file, a binary file object (with `format`) or an array into float32 `[n, 3]` or, with colours 0..1, `[n, 6]`.

        `up`: the axis that points up in the file, where it matters (glTF says y, LAS z). `rgb_max`: the value of full colour, by
        default 255 for integers and 1 for floats. `columns`: what the columns of a table are; "xyznormal" drops the normals,
        "xyz" all that follows. `invalid`: "drop" leaves out points that are NaN or infinite; an organised PCD's always are.
        `key`: which array of an .npz. Meshes are sampled on their surface, evenly by area and always alike, at `points` * 5/4
        points. Coordinates far from the origin are shifted before they are rounded to float32: `info["origin"]` was subtracted.

        Raises:
            InputError: missing, empty, cut short or damaged; no points, or more than 50 million; NaN or infinite values; another
                number of columns; colours out of range; all points in one place.
            OptionError: an option with a value that is not allowed.
        """
        for name, value, allowed in (("up", up, AXES), ("columns", columns, COLUMNS), ("format", format, EXTENSIONS)):
            if value is not None:
                checks.one_of(f"point_cloud: {name}", value, allowed)
        checks.one_of("point_cloud: invalid", invalid, ("error", "drop"))
        if rgb_max is not None:
            checks.number("point_cloud: rgb_max", rgb_max, above=0)
        given = Source(source, self.accepts)
        if given.is_array:
            points = split_columns(given.array(), given, columns)
            kind = "array"
        else:
            wanted = () if format and given.is_path else EXTENSIONS
            with given.local_file(wanted, format) as path:
                kind = format or suffix_of(path)
                points = read_points(path, given, kind=kind, columns=columns, key=key, samples=self.points * 5 // 4)
        return self._sample(_valid(points) if invalid == "drop" else points, given, kind, up, rgb_max)

    def _sample(self, points: Points, source: Source, kind: str, up: str | None, rgb_max: float | None) -> Sample:
        xyz = source.numeric(points.xyz, "invalid='drop' leaves such points out")
        low, high = xyz.min(axis=0).astype(np.float64), xyz.max(axis=0).astype(np.float64)
        extent = float((high - low).max())
        if not np.abs([low, high]).max() < 1e30:
            raise source.refuse(f"coordinates up to {np.abs([low, high]).max():g}", "below 1e30")
        info = {**points.info, "format": kind, "up": up or points.info.get("up")}
        if (
            xyz.dtype != np.float32 and np.abs(low + high).max() / 2 > 100 * extent > 0
        ):  # such as UTM metres: float32 would round them
            origin = (low + high) / 2
            xyz, info["origin"] = xyz - origin, origin.tolist()
        xyz = xyz.astype(np.float32)
        if not (xyz != xyz[0]).any():
            raise source.refuse(f"all {len(xyz):,} points in one place", "of some extent")
        if points.rgb is not None:
            xyz = np.concatenate([xyz, unit_colours(points.rgb, rgb_max or points.full, source)], axis=1)
        return Sample(np.ascontiguousarray(xyz), source.name, info)

    def transform(self, sample: Sample, *, train: bool = False) -> Tensor:
        """Float32 `[points, 3 or 6]` (fewer points with `upsample=False`): sampled, centred on the mean, radius 1; rgb unchanged.

        `train` starts the sampling anywhere, turns about `up`, scales, jitters and, half of the time, takes the colours away.

        Raises:
            InputError: not `[n, 3]` or `[n, 6]`, all points in one place, or too few for one group with `upsample=False`.
        """
        import torch

        from vitlens.modalities.point_sampling import farthest_point_sample

        cloud = self._cloud(sample)
        cloud = self._thin(cloud, train)
        xyz = unit_sphere(cloud[:, :3])
        rgb = cloud[:, 3:]
        if train:
            xyz = augment(xyz, AXES.index(self.up))
            rgb = torch.full_like(rgb, GREY) if torch.rand(()) < 0.5 else rgb
        cloud = torch.cat([xyz.float(), rgb], dim=1)
        missing = self.points - len(cloud)
        if not self.upsample or missing <= 0:
            return cloud
        spread = farthest_point_sample(cloud[None, :, :3], min(missing, len(cloud)))[0]
        return torch.cat([cloud, cloud[spread.repeat(-(-missing // len(spread)))[:missing]]])

    def _cloud(self, sample: Sample) -> Tensor:
        """The sample as `[n, 3 or 6]`, turned and mirrored as the model wants it, colours as the model wants them."""
        import torch

        data = torch.from_numpy(np.array(to_array(sample.data), dtype=np.float32))
        least = 1 if self.upsample or self.tokenizer != "pointbert" else self.group_size
        if data.ndim != 2 or data.shape[1] not in (3, 6) or len(data) < least:
            raise InputError(sample.source, f"a cloud of shape {list(data.shape)}", f"[n, 3] or [n, 6] with n of {least} or more")
        if not data.isfinite().all():
            raise InputError(sample.source, "values that are NaN or infinite", self.accepts)
        if not (data[:, :3] != data[:1, :3]).any():
            raise InputError(sample.source, f"all {len(data):,} points in one place", self.accepts)
        xyz = turn(data[:, :3], sample.info.get("up") or self.up, self.up)
        if self.mirror:
            xyz = xyz * torch.tensor([-1.0 if axis == self.mirror else 1.0 for axis in AXES])
        if not self.color:
            return xyz
        rgb = data[:, 3:] if data.shape[1] == 6 else torch.full_like(xyz, GREY)
        return torch.cat([xyz, rgb], dim=1)

    def _thin(self, cloud: Tensor, train: bool) -> Tensor:
        import torch

        from vitlens.modalities.point_sampling import farthest_point_sample

        n = len(cloud)
        if n <= self.points:
            return cloud[torch.randperm(n)] if train else cloud
        start = int(torch.randint(n, ())) if train else 0
        # by a power of two, which is exact: the squares of very large or small units would leave float32
        scaled = torch.ldexp(cloud[:, :3], -torch.frexp(cloud[:, :3].abs().max()).exponent.clamp(-100, 100))
        return cloud[farthest_point_sample(scaled[None], self.points, start)[0]]

    def build_embed(self, width: int, vit: ViT) -> nn.Module:
        """The ModEmbed of `tokenizer`: `[b, n, 3 or 6]` -> `[b, groups, width]`, or `[b, patches, width]` of "projection".

        Raises:
            OptionError: `size` is not a multiple of the ViT's patch size.
        """
        from vitlens.modalities.point_embeds import PointBertEmbed, PointNetEmbed

        if self.tokenizer == "projection":
            from vitlens.modalities.point_projection import ProjectionEmbed

            check_patches(self.name, self.size, vit)
            return ProjectionEmbed(
                width=width,
                size=self.size,
                patch=vit.patch_size,
                points=self.points,
                mean=self.mean,
                std=self.std,
                up=AXES.index(self.up),
            )
        channels = 6 if self.color else 3
        options = {"groups": self.groups, "group_size": self.group_size, "encoder_width": self.encoder_width}
        if self.tokenizer == "pnsa":
            return PointNetEmbed(width=width, channels=channels, radius=self.radius, **options)
        return PointBertEmbed(width=width, channels=channels, **options)

    def example(self, seed: int = 0) -> Sample:
        """A wooden chair with a coloured seat, 4096 points, y up."""
        return Sample(chair(seed), f"<{self.name} example {seed}>", {"format": "example", "up": "y"})

    def write(self, sample: Sample, folder: Path, stem: str) -> Path:
        """Write a binary PLY: float32 xyz and, where present, 8-bit colours."""
        data = np.asarray(sample.data, np.float32)
        rgb = np.rint(data[:, 3:] * 255).astype(np.uint8) if data.shape[1] == 6 else None
        path = Path(folder) / f"{stem}.ply"
        write_ply(path, data[:, :3], rgb, sample.info.get("up"))
        return path

    def describe(self, sample: Sample) -> dict[str, str]:
        data, info = np.asarray(sample.data), sample.info
        extents = " x ".join(f"{e:.4g}" for e in np.ptp(data[:, :3], axis=0))
        colour = "none"
        if data.shape[1] == 6:
            colour = "mean red {:.2f}, green {:.2f}, blue {:.2f}".format(*data[:, 3:].mean(axis=0))
        known = {"points": f"{len(data):,}", "colour": colour, "extent": f"{extents} (x, y, z; the file's own unit)"}
        known |= {"up": str(info.get("up") or "not known"), "format": str(info.get("format", "not known"))}
        if info.get("faces"):
            known["mesh"] = f"{info['faces']:,} faces, sampled on the surface"
        if info.get("origin"):
            known["origin"] = ", ".join(f"{o:g}" for o in info["origin"]) + " was subtracted"
        return known

    def steps(self) -> list[str]:
        more = (
            f"fewer than {self.points:,} points: repeat them, the farthest apart first"
            if self.upsample
            else f"fewer than {self.points:,} points: keep them as they are"
        )
        mirrored = [f"mirror it: {self.mirror} is flipped, as in the model's training"] if self.mirror else []
        colour = f"colours 0..1, grey {GREY:g} where there are none" if self.color else "drop the colours"
        return [
            f"turn the file's up axis, where it is known, to {self.up}",
            *mirrored,
            f"more than {self.points:,} points: farthest point sampling from the first point",
            "centre on the mean, divide by the largest radius",
            more,
            colour,
        ]

    def draw(self, sample: Sample, axes: Axes) -> None:
        """A shaded orthographic view from the front, above and to the right; coloured by rgb, or by height."""
        draw_points(np.asarray(sample.data, np.float32), sample.info.get("up") or self.up, axes)

    def explore(self, sample: Sample) -> dict[str, Any]:
        """Some of the points, to turn."""
        points, colours = points_to_turn(np.asarray(sample.data, np.float32), sample.info.get("up") or self.up)
        return {"points": points, "colours": colours}

    def companions(self, path: Path) -> list[Path]:
        """Materials, pictures and buffers of a mesh."""
        return companions(path)

    def claims(self, path: Path) -> float:
        """2 for a table whose header says `[n, 3]` or `[n, 6]` with n of 64 or more; 1 for 3-D file types."""
        suffix = suffix_of(path)
        if suffix not in ("npy", "npz", "txt", "xyz"):
            return super().claims(path)
        return 2.0 if looks_like_points(path) else float(suffix == "xyz")


# --- reading ---


def _valid(points: Points) -> Points:
    """Without the points that are NaN or infinite."""
    there = np.isfinite(points.xyz).all(axis=1)
    return replace(points, xyz=points.xyz[there], rgb=None if points.rgb is None else points.rgb[there])


def unit_colours(rgb: np.ndarray, rgb_max: float | None, source: Source) -> np.ndarray:
    """Colours `[n, 3]` as float32 in 0..1; integers are 0..255 and floats 0..1 unless `rgb_max` says otherwise.

    Raises:
        InputError: values below 0 (most likely normals) or above full colour.
    """
    rgb = source.numeric(rgb)
    full = rgb_max or (1.0 if rgb.dtype.kind == "f" else 255.0)
    low, high = float(rgb.min()), float(rgb.max())
    if low < 0:
        found = f"negative values (down to {low:.3g}) in columns 4 to 6, which are probably normals, not colours"
        raise source.refuse(found, "columns='xyznormal' drops normals")
    if high > full * (1 + 1e-6):
        hint = 255 if high <= 255 else 65535
        raise source.refuse(
            f"colours up to {high:g} where {full:g} is full colour",
            f"say rgb_max={hint} if that is full colour, columns='xyz' drops colours",
        )
    return (rgb / full).clip(max=1).astype(np.float32)


def looks_like_points(path: Path) -> bool:
    """Whether the header (or the first lines) of a table says `[n, 3]` or `[n, 6]` with n of 64 or more."""
    try:
        if suffix_of(path) == "npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return _is_points(array.shape, array.dtype)
        if suffix_of(path) == "npz":
            with zipfile.ZipFile(path) as archive:
                headers = [npy_header(archive.open(name)) for name in archive.namelist()]
            return len(headers) == 1 and _is_points(*headers[0])
        with Path(path).open(encoding="latin-1") as lines:
            rows = [re.split(r"[\s,;]+", line.strip()) for _, line in zip(range(70), lines, strict=False)]
        table = np.array(rows[-64:], dtype=float)  # a header may come first
        return _is_points(table.shape, table.dtype)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False


def _is_points(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    return len(shape) == 2 and shape[0] >= 64 and shape[1] in (3, 6) and dtype.kind in "iuf"


# --- preprocessing ---


def turn(xyz: Tensor, old: str, new: str) -> Tensor:
    """Rotate points [n, 3] a quarter turn so that the axis `old` becomes `new`; a rotation, never a mirror image."""
    if old == new:
        return xyz
    turned = xyz.clone()
    a, b = AXES.index(old), AXES.index(new)
    turned[:, b], turned[:, a] = xyz[:, a], -xyz[:, b]
    return turned


def unit_sphere(xyz: Tensor) -> Tensor:
    """Float64 [n, 3]: centred on the mean, the largest radius 1."""
    centred = xyz.double() - xyz.double().mean(dim=0)
    return centred / centred.norm(dim=1).max()


def augment(xyz: Tensor, up: int) -> Tensor:
    """Any turn about the axis `up`, a scale of 0.8 to 1.25, and a jitter of 0.01 within 0.05 (PointNet++, arXiv 1706.02413)."""
    import torch

    angle, scale = torch.rand(()) * 2 * math.pi, 0.8 + 0.45 * torch.rand(())
    a, b = (up + 1) % 3, (up + 2) % 3
    turned = xyz.clone()
    turned[:, a] = xyz[:, a] * angle.cos() - xyz[:, b] * angle.sin()
    turned[:, b] = xyz[:, a] * angle.sin() + xyz[:, b] * angle.cos()
    return turned * scale + (0.01 * torch.randn(xyz.shape)).clamp(-0.05, 0.05)
