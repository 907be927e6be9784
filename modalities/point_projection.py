"""Points drawn as a picture, and its patches: the ModEmbed by which a scan is looked at as a photograph is.

PointCLIP (arXiv 2112.02413) drew depth maps; here the surface is lit, because light and shadow are what a ViT that was trained on
pictures knows shapes by. Such a ViT names scans before anything is trained (`model.patches: image`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from vitlens.embed import PatchEmbed
from vitlens.modalities.point_embeds import PointEmbed
from vitlens.modalities.point_pieces import GREY

EXTENT = 1.3
"""Half the side of what the picture shows; clouds have radius 1."""
ELEVATION = math.radians(20)
LIGHT = (0.41, 0.70, 0.59)
"""To the light: right, up, toward the camera."""
AMBIENT, DIFFUSE, BACKGROUND = 0.35, 0.75, 0.7


class ProjectionEmbed(PointEmbed, PatchEmbed):
    """Clouds `[b, n, 3 or 6]` (xyz within the unit sphere, rgb) -> tokens `[b, (size / patch)^2, width]`, rows first.

    Seen in parallel projection from the front (+z where y is up), 20 degrees above. A point covers a square as large as the gaps
    between `points` of them, the nearest is seen, and a lamp lights the surface. `mean` and `std` are the picture encoder's.
    """

    pictures: ClassVar[bool] = True

    def __init__(
        self, *, width: int, size: int, patch: int, points: int, mean: Sequence[float], std: Sequence[float], up: int = 1
    ) -> None:
        super().__init__(channels=3, width=width, patch=patch, positions=(size // patch) ** 2)
        self.size, self.up, self.mean, self.std = size, up, tuple(mean), tuple(std)
        self.splat = max(1, round(size / EXTENT / math.sqrt(points)))
        """Pixels that a point covers to each side of its own: half of the points, on half of the disc, leave no gaps."""

    def split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        picture = self.picture(x)
        mean, std = (picture.new_tensor(value)[:, None, None] for value in (self.mean, self.std))
        return super().split((picture - mean) / std)

    @torch.no_grad()
    def picture(self, x: Tensor) -> Tensor:
        """Clouds `[b, n, 3 or 6]` -> pictures `[b, 3, size, size]` in 0..1."""
        x = x.float()
        toward, right, up = (x[..., (self.up + k) % 3] for k in (1, 2, 0))
        sine, cosine = math.sin(ELEVATION), math.cos(ELEVATION)
        pixels = self._pixels(right, sine * toward - cosine * up)
        colours = x[..., 3:] if x.shape[-1] == 6 else torch.full_like(x, GREY)
        depth, albedo, hit = self._nearest(pixels, cosine * toward + sine * up, colours)
        shade = AMBIENT + DIFFUSE * self._light(depth, hit)
        return torch.where(hit > 0, albedo * shade, BACKGROUND).clamp(0, 1)

    def _pixels(self, right: Tensor, down: Tensor) -> Tensor:
        """Numbers of the pixels that each point covers, `[b, n, k]`; size^2 for those beside the picture."""
        column, row = (((along + EXTENT) * (self.size / (2 * EXTENT))).floor().long() for along in (right, down))
        steps = torch.arange(-self.splat, self.splat + 1, device=right.device)
        columns, rows = column[..., None, None] + steps, row[..., None, None] + steps[:, None]
        inside = (columns >= 0) & (columns < self.size) & (rows >= 0) & (rows < self.size)
        return torch.where(inside, rows * self.size + columns, self.size**2).flatten(2)

    def _nearest(self, pixels: Tensor, near: Tensor, colours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Depth `[b, 1, s, s]`, colour `[b, 3, s, s]` of the point seen in each pixel; 1 where there is one, else 0."""
        covered = pixels.shape[2]
        pixels, near = pixels.flatten(1), near.repeat_interleave(covered, dim=1)
        none = near.new_zeros(len(near), self.size**2 + 1)
        nearest = (none - 9).scatter_reduce(1, pixels, near, "amax")
        first = (near >= nearest.gather(1, pixels)).float()
        count = none.scatter_add(1, pixels, first)
        sums = [none.scatter_add(1, pixels, first * c.repeat_interleave(covered, dim=1)) for c in colours.unbind(dim=-1)]
        maps = torch.stack([nearest, *(total / count.clamp(min=1) for total in sums), (count == 0).float()], dim=1)
        depth, colour, empty = maps[..., :-1].unflatten(2, (self.size, self.size)).split([1, 3, 1], dim=1)
        return depth, colour, 1 - F.max_pool2d(empty, self._side, stride=1, padding=self.splat)  # points had widened the outline

    def _light(self, depth: Tensor, hit: Tensor) -> Tensor:
        """How much of the lamp's light each pixel `[b, 1, s, s]` takes, 0 ... 1, by the slope of the smoothed depth."""
        window = depth.new_ones(1, 1, self._side, self._side)
        counted = F.conv2d(hit, window, padding=self.splat).clamp(min=1)
        smooth = F.conv2d(depth * hit, window, padding=self.splat) / counted
        pixel = 2 * EXTENT / self.size
        rise_x = _slope(smooth, hit, -1) / pixel
        rise_y = _slope(smooth, hit, -2) / pixel
        light = -LIGHT[0] * rise_x + LIGHT[1] * rise_y + LIGHT[2]
        return (light * (1 + rise_x**2 + rise_y**2).rsqrt()).clamp(min=0)

    @property
    def _side(self) -> int:
        return 2 * self.splat + 1


def _slope(values: Tensor, there: Tensor, dim: int) -> Tensor:
    """Half the difference of the neighbours along a dimension, 0 where one of them is not there."""
    ahead, behind = (values.roll(step, dim) for step in (-1, 1))
    both = there.roll(-1, dim) * there.roll(1, dim)
    return 0.5 * (ahead - behind) * both
