"""An object set up in its room: the posed mesh, the rays that meet it, the camera, the lamp, floor and wall."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np

from vitlens.benchmarks.toybox.world.materials import MATERIALS, RGB
from vitlens.benchmarks.toybox.world.objects import ToyObject
from vitlens.benchmarks.toybox.world.primitives import Mesh, dot, rotation, unit
from vitlens.benchmarks.toybox.world.shapes import build
from vitlens.benchmarks.toybox.world.surfaces import Look

FIELD_OF_VIEW = 40.0
"""Degrees, of the whole picture; the depth camera is the same one."""
BASELINE = 0.05
"""Metres between the depth camera's two eyes (that of an Intel RealSense D435)."""
FILL = {"small": 0.62, "medium": 0.76, "large": 0.90}
"""Share of the picture that an object takes: the large ones are seen larger, though from farther away."""
_FLOORS: tuple[RGB, ...] = ((0.72, 0.70, 0.66), (0.62, 0.48, 0.35), (0.58, 0.60, 0.62), (0.50, 0.56, 0.50), (0.75, 0.66, 0.55))
_WALLS: tuple[RGB, ...] = (
    (0.88, 0.87, 0.83),
    (0.70, 0.77, 0.82),
    (0.82, 0.76, 0.70),
    (0.72, 0.80, 0.72),
    (0.80, 0.72, 0.76),
    (0.6, 0.63, 0.68),
)


def focal_length(size: int) -> float:
    """Pixels, of a picture of `size` pixels."""
    return size / 2 / float(np.tan(np.deg2rad(FIELD_OF_VIEW / 2)))


class Hits(NamedTuple):
    """Where rays meet the object: which rays `[n]`, how far along each, points and normals `[n, 3]` in metres of the room."""

    rays: np.ndarray
    distance: np.ndarray
    points: np.ndarray
    normals: np.ndarray


class Room(NamedTuple):
    """What surrounds the object in one take. The wall stands `wall` metres behind it, turned by a few degrees."""

    position: np.ndarray
    axes: np.ndarray
    """Rows: the camera's right, up and forward."""
    lamp: np.ndarray
    """Direction to the lamp."""
    brightness: float
    ambient: float
    wall: float
    wall_normal: np.ndarray
    floor_kind: int
    floor_look: Look
    wall_kind: int
    wall_look: Look

    def directions(self, size: int) -> np.ndarray:
        """Rays through the pixels of a square picture, `[size * size, 3]`; along the camera's axis each is 1 long."""
        line = ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1) * np.float32(np.tan(np.deg2rad(FIELD_OF_VIEW / 2)))
        across, down = np.meshgrid(line, line)
        local = np.stack([across, -down, np.ones_like(across)], axis=-1).reshape(-1, 3)
        return local @ self.axes.astype(np.float32)

    def meet(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far along each ray floor or wall are met, and whether it is the wall."""
        with np.errstate(divide="ignore"):
            to_floor = -self.position[1] / directions[:, 1]
            to_wall = (-self.wall - self.position @ self.wall_normal) / (directions @ self.wall_normal)
        to_floor[to_floor <= 0] = np.inf
        to_wall[to_wall <= 0] = np.inf
        return np.minimum(to_floor, to_wall).astype(np.float32), to_wall < to_floor


@dataclass(frozen=True)
class Stage:
    """An object that can be looked at. Made once, it serves all sensors."""

    thing: ToyObject

    @cached_property
    def form(self) -> Mesh:
        """The mesh in its own axes: largest extent 1, standing on y = 0."""
        return build(self.thing.shape, self.thing.rng("form"))

    @cached_property
    def turned(self) -> np.ndarray:
        """The rotation `[3, 3]` from the object's axes to the room's."""
        return rotation("y", self.thing.yaw).astype(np.float32)

    @cached_property
    def mesh(self) -> Mesh:
        """The mesh in the room, metres."""
        size = self.thing.size
        return self.form.rotate(self.turned).stretch(size, size, size)

    @cached_property
    def look(self) -> Look:
        """Colour and pattern of this very object."""
        return Look.draw(MATERIALS[self.thing.material].colours[self.thing.colour], self.thing.rng("look"))

    @cached_property
    def _scene(self) -> Any:
        """Open3D's ray caster; one thread, for many stages are made side by side."""
        open3d = _open3d()
        scene = open3d.t.geometry.RaycastingScene(nthreads=1)
        scene.add_triangles(open3d.core.Tensor(self.mesh.vertices), open3d.core.Tensor(self.mesh.faces))
        return scene

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """Where rays meet the object first; one origin `[3]` or one for each ray. Normals face the ray's origin."""
        open3d = _open3d()
        found = self._scene.cast_rays(open3d.core.Tensor(_rays(origins, directions)), nthreads=1)
        distance = found["t_hit"].numpy()
        rays = np.flatnonzero(np.isfinite(distance))
        corners = self.mesh.faces[found["primitive_ids"].numpy()[rays]]
        second, third = found["primitive_uvs"].numpy()[rays].T[:, :, None]
        a, b, c = (self.mesh.normals[corners[:, k]] for k in range(3))
        normals = unit(a + second * (b - a) + third * (c - a))
        along = directions[rays]
        normals = np.where(dot(normals, along)[:, None] > 0, -normals, normals)
        origin = origins if origins.ndim == 1 else origins[rays]
        points = origin.astype(np.float32) + distance[rays, None] * along
        return Hits(rays, distance[rays], points, normals)

    def hidden(self, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Whether the object stands between points `[n, 3]` and what lies in `directions` of them."""
        open3d = _open3d()
        rays = open3d.core.Tensor(_rays(points, directions))
        return self._scene.test_occlusions(rays, tnear=2e-3 * self.thing.size, nthreads=1).numpy()

    def own(self, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points in metres of the room, and normals, in the object's own axes and units of its size."""
        return points @ self.turned / np.float32(self.thing.size), normals @ self.turned

    def room(self, take: int = 0) -> Room:
        """The room, its light and the camera of one take; each take has another room."""
        rng = self.thing.rng("room", take)
        height, around = np.deg2rad(rng.uniform(12, 36)), np.deg2rad(rng.uniform(-12, 12))
        back = np.array([np.sin(around) * np.cos(height), np.sin(height), np.cos(around) * np.cos(height)])
        right = unit(np.cross([0, 1, 0], back))
        axes = np.stack([right, np.cross(back, right), -back])
        seen = self.mesh.vertices @ axes.T.astype(np.float32)
        low, high = seen.min(axis=0), seen.max(axis=0)
        share = FILL[self.thing.size_word] * rng.uniform(0.94, 1.06)
        distance = (high - low)[:2].max() / 2 / np.tan(np.deg2rad(FIELD_OF_VIEW / 2)) / share - low[2] + (low + high)[2] / 2
        middle = (low + high) / 2 @ axes + rng.uniform(-0.04, 0.04, 3) * self.thing.size
        reach = float(np.linalg.norm(self.mesh.extent())) / 2
        light, rise = np.deg2rad(rng.uniform(-75, 75)), np.deg2rad(rng.uniform(35, 65))
        lamp = np.array([np.sin(light) * np.cos(rise), np.sin(rise), np.cos(light) * np.cos(rise)])
        turned = np.deg2rad(rng.uniform(-25, 25))
        return Room(
            position=(middle + back * distance).astype(np.float32),
            axes=axes,
            lamp=lamp.astype(np.float32),
            brightness=float(rng.uniform(0.9, 1.25)),
            ambient=float(rng.uniform(0.28, 0.42)),
            wall=float(reach + rng.uniform(0.3, 1.2)),
            wall_normal=np.array([np.sin(turned), 0, np.cos(turned)], np.float32),
            floor_kind=int(rng.integers(4)),
            floor_look=Look.draw(_FLOORS[rng.integers(len(_FLOORS))], rng),
            wall_kind=int(rng.integers(3)),
            wall_look=Look.draw(_WALLS[rng.integers(len(_WALLS))], rng),
        )


@cache
def _open3d() -> Any:
    from vitlens.libraries import load_open3d

    return load_open3d()


def _rays(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    rays = np.empty((len(directions), 6), np.float32)
    rays[:, :3], rays[:, 3:] = origins, directions
    return rays
