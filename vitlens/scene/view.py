"""A scene as a picture: from which side it is best looked at, its surface ray cast from there, warm where a query is found.

Walls that are seen from behind are left out, as in a doll's house.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlens.libraries import load_open3d
from vitlens.scene.camera import Camera
from vitlens.scene.folder import Scene, write_ply
from vitlens.scene.recording import read_colour
from vitlens.scene.search import Answer, Place

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LAYERS = 6
"""Surfaces seen from behind that a ray may pass."""
AZIMUTHS, HEIGHTS = 16, (25.0, 40.0, 60.0)
"""Viewpoints that are tried: around, and degrees above the horizon."""
FIELD_OF_VIEW = 40.0
NEAR = 0.8
"""Distance of a viewpoint, as a share of that from which the ball around the scene fills the picture."""
COLD, COLOURS = 0.35, "inferno"
BOX_COLOUR = "#18c5d9"
_EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1]


@dataclass(frozen=True)
class Seen:
    """What rays meet: triangle [h, w] (-1: nothing), point [h, w, 3] and normal [h, w, 3]."""

    triangle: np.ndarray
    point: np.ndarray
    normal: np.ndarray


class Studio:
    """A scene's mesh, ready to be looked at."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.mesh = scene, scene.mesh
        open3d = load_open3d()
        self._tensor = open3d.core.Tensor
        self._caster = open3d.t.geometry.RaycastingScene()
        self._caster.add_triangles(
            self._tensor(self.mesh.vertices.astype(np.float32)), self._tensor(self.mesh.triangles.astype(np.uint32))
        )
        low, high = np.percentile(scene.voxels.points, (1, 99), axis=0)
        self.middle, self.reach = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
        self.nearest = scene.voxels.tree.query(self.mesh.vertices)[1]

    def look(self, pose: np.ndarray, camera: Camera) -> Seen:
        """What a camera [4, 4] (camera-to-world, OpenCV's axes) sees."""
        columns, rows = (axis.ravel() for axis in np.meshgrid(np.arange(camera.width), np.arange(camera.height)))
        directions = camera.points(columns, rows, np.ones(columns.size)) @ pose[:3, :3].T
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        origins = np.tile(pose[:3, 3], (len(directions), 1))
        triangle, normal, open_ = np.full(len(directions), -1), np.zeros_like(directions), np.arange(len(directions))
        for _ in range(LAYERS):
            rays = np.concatenate([origins[open_], directions[open_]], axis=1).astype(np.float32)
            found = self._caster.cast_rays(self._tensor(rays))
            far, normals = found["t_hit"].numpy(), found["primitive_normals"].numpy()
            met = np.isfinite(far)
            front = met & ((normals * directions[open_]).sum(axis=1) < 0)
            origins[open_[met]] += (far[met] + np.where(front[met], 0, 1e-3))[:, None] * directions[open_[met]]
            triangle[open_[front]] = found["primitive_ids"].numpy()[front]
            normal[open_[front]] = normals[front]
            open_ = open_[met & ~front]
            if not len(open_):
                break
        shape = (camera.height, camera.width)
        return Seen(triangle.reshape(shape), origins.reshape(*shape, 3), normal.reshape(*shape, 3))

    def voxel_of(self, seen: Seen) -> np.ndarray:
        """The voxel at each pixel [h, w], -1 where nothing is seen."""
        corner = self.mesh.triangles[np.maximum(seen.triangle, 0), 0]
        return np.where(seen.triangle >= 0, self.nearest[corner], -1)

    @cached_property
    def axes(self) -> np.ndarray:
        """Rows: a side, up, and what lies ahead of that side; azimuths count from the first to the last."""
        up = self.scene.up
        side = np.cross(up, [1.0, 0, 0] if abs(up[0]) < 0.9 else [0, 0, 1.0])
        side /= np.linalg.norm(side)
        return np.stack([side, up, np.cross(side, up)])

    def pose(self, azimuth: float, height: float) -> np.ndarray:
        """Camera-to-world of a viewpoint around the scene, in degrees."""
        around, above = np.deg2rad(azimuth), np.deg2rad(height)
        away = np.array([np.cos(above) * np.cos(around), np.sin(above), np.cos(above) * np.sin(around)]) @ self.axes
        right = np.cross(-away, self.axes[1])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(-away, right), -away], axis=1)
        pose[:3, 3] = self.middle + away * self.reach / np.sin(np.deg2rad(FIELD_OF_VIEW / 2)) * NEAR
        return pose

    def best_side(self, wanted: np.ndarray) -> tuple[float, float]:
        """Azimuth and height of the viewpoint that shows most of the `wanted` voxels, and much of all."""
        camera, hot = camera_of(72, 54), np.zeros(len(self.scene.voxels) + 1, bool)
        hot[wanted] = True
        best, score = (30.0, 40.0), -1.0
        for height in HEIGHTS:
            for azimuth in np.arange(AZIMUTHS) * 360.0 / AZIMUTHS:
                voxel = self.voxel_of(self.look(self.pose(azimuth, height), camera))
                shown = len(np.unique(voxel[hot[voxel]])) / max(min(len(wanted), 400), 1)
                worth = shown + 0.25 * float((voxel >= 0).mean())
                if worth > score:
                    best, score = (float(azimuth), height), worth
        return best

    def shaded(self, seen: Seen, pose: np.ndarray, heat: np.ndarray | None) -> np.ndarray:
        """RGB uint8 [h, w, 3]; with `heat` [n] in 0..1 of the voxels the colours are dim, and warm where it is high."""
        corner = self.mesh.triangles[np.maximum(seen.triangle, 0), 0]
        colour = self.mesh.colours[corner].astype(np.float64) / 255
        toward = -pose[:3, 2]
        light = 0.55 + 0.45 * np.abs((seen.normal * toward).sum(axis=-1, keepdims=True))
        if heat is not None:
            colour = tinted(colour.reshape(-1, 3), heat[self.nearest[corner]].ravel()).reshape(colour.shape)
        lit = np.where((seen.triangle >= 0)[..., None], colour * light, 1.0)
        return np.rint(255 * lit.clip(0, 1)).astype(np.uint8)


def camera_of(width: int, height: int) -> Camera:
    """The camera of pictures of scenes."""
    focal = min(width, height) / 2 / float(np.tan(np.deg2rad(FIELD_OF_VIEW / 2)))
    return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def warmth(heat: np.ndarray) -> np.ndarray:
    """Cosines [n] as 0..1: the median is 0, the best 1; what no window saw is 0."""
    known = heat[np.isfinite(heat)]
    low, high = float(np.median(known)), float(known.max())
    return np.nan_to_num((heat - low) / max(high - low, 1e-9)).clip(0, 1)


def tinted(colours: np.ndarray, warm: np.ndarray) -> np.ndarray:
    """Colours [n, 3] in 0..1, grey and pale where cold, in the colours of heat where `warm` [n] is high."""
    from matplotlib import colormaps

    grey = 0.25 + 0.6 * colours.mean(axis=1, keepdims=True) + 0.15 * (colours - colours.mean(axis=1, keepdims=True))
    share = ((warm - COLD) / (1 - COLD)).clip(0, 1)[:, None]
    return np.asarray(grey * (1 - share**0.5) + colormaps[COLOURS](0.25 + 0.7 * share[:, 0])[:, :3] * share**0.5)


def write_heat(scene: Scene, answer: Answer, path: Path) -> Path:
    """The voxels as a PLY, coloured by heat, with the cosine as a further value."""
    colours = tinted(scene.voxels.colours / 255, warmth(answer.heat))
    write_ply(path, scene.voxels.points, np.rint(255 * colours).astype(np.uint8), cosine=np.nan_to_num(answer.heat, nan=-1))
    return path


def draw(scene: Scene, answer: Answer, path: Path, *, title: str = "", studio: Studio | None = None) -> Path:
    """A picture: the heat over the scene from its best side, and the frame that shows the best place."""
    from matplotlib.figure import Figure

    from vitlens.display.pictures import INK, save

    figure = Figure(figsize=(13, 5.6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    studio = studio or Studio(scene)
    best = answer.places[0]
    pose, camera = studio.pose(*studio.best_side(best.voxels)), camera_of(960, 720)
    left.imshow(studio.shaded(studio.look(pose, camera), pose, warmth(answer.heat)))
    for number, place in enumerate(answer.places):
        draw_box(left, place, pose, camera, faint=number > 0)
    left.set_title(f"cosine {best.score:.3f}, contrast {best.contrast:.1f}", fontsize=10, color=INK)
    _draw_frame(scene, best, right)
    for axes in (left, right):
        axes.axis("off")
    if title:
        figure.suptitle(title, fontsize=12, color=INK).set_parse_math(False)
    return save(figure, path)


def corners(place: Place) -> np.ndarray:
    """The corners [8, 3] of a place's box."""
    both = (place.low, place.high)
    return np.array([[both[index >> axis & 1][axis] for axis in range(3)] for index in range(8)])


def draw_box(axes: Axes, place: Place, pose: np.ndarray, camera: Camera, *, faint: bool) -> None:
    """The edges of a place's box."""
    inverse = np.linalg.inv(pose)
    local = corners(place) @ inverse[:3, :3].T + inverse[:3, 3]
    x = camera.fx * local[:, 0] / local[:, 2] + camera.cx
    y = camera.fy * local[:, 1] / local[:, 2] + camera.cy
    for a, b in _EDGES:
        axes.plot([x[a], x[b]], [y[a], y[b]], color=BOX_COLOUR, linewidth=0.8 if faint else 2.0, alpha=0.7 if faint else 1.0)


def _draw_frame(scene: Scene, place: Place, axes: Any) -> None:
    from matplotlib.patches import Rectangle

    from vitlens.display.pictures import INK
    from vitlens.errors import InputError

    if not place.views:
        axes.set_title("no frame shows it", fontsize=10, color=INK)
        return
    view = place.views[0]
    try:
        axes.imshow(read_colour(scene.frames.colour[view.frame]))
    except InputError:
        axes.set_title(f"frame {view.name} is not there any more", fontsize=10, color=INK).set_parse_math(False)
        return
    left, top, right, bottom = view.box
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=BOX_COLOUR, linewidth=2.5))
    axes.set_title(f"frame {view.name}", fontsize=10, color=INK).set_parse_math(False)
