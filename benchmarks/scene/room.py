"""A room with Toybox objects on its floor, ray cast from a walk in front of them: posed RGB-D of which everything is known.

The objects are held-out ones, each of another shape, so that a name means one of them. They face the walk as they face the
Toybox's own camera: the models know no shape from behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL.Image

from vitlens.benchmarks.toybox.sensors.picture import developed, lamp_directions, matt, shaded, shadow_on
from vitlens.benchmarks.toybox.world.objects import ToyObject, World
from vitlens.benchmarks.toybox.world.primitives import unit
from vitlens.benchmarks.toybox.world.stage import Room, Stage
from vitlens.benchmarks.toybox.world.surfaces import Look, floor, wall
from vitlens.disk import atomic
from vitlens.scene.camera import Camera

FIELD_OF_VIEW = 50.0
FRAMES = 60
COLUMNS, ROWS = 4, 3
SPACING = (1.35, 1.25)
"""Metres between neighbouring objects, across and in depth."""
HALF, HEIGHT = 4.2, 2.6
"""Metres from the room's middle to its walls, and to its ceiling."""
_FLOOR, _WALL = (0.62, 0.60, 0.57), (0.80, 0.80, 0.77)


@dataclass(frozen=True)
class Placed:
    """An object and where it stands: x and z in metres."""

    stage: Stage
    place: np.ndarray

    @property
    def thing(self) -> ToyObject:
        """What it is."""
        return self.stage.thing

    @property
    def shift(self) -> np.ndarray:
        """From the object's own origin to the room's [3], metres."""
        return np.array([self.place[0], 0.0, self.place[1]], np.float32)

    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner [3], metres of the room."""
        vertices = self.stage.mesh.vertices + self.shift
        return vertices.min(axis=0), vertices.max(axis=0)


@dataclass(frozen=True)
class ToyRoom:
    """The room of one seed."""

    seed: int = 0
    side: int = 512
    """Pixels of a frame, across and down."""

    @cached_property
    def placed(self) -> list[Placed]:
        """Twelve objects of different shapes, small ones in front."""
        rng, world, chosen = np.random.default_rng([16, self.seed]), World(), dict[str, ToyObject]()
        first = 400 + 60 * self.seed
        for index in range(first, first + 200):
            thing = world.object("test", index)
            if len(chosen) < COLUMNS * ROWS:
                chosen.setdefault(thing.shape, replace(thing, yaw=0.35 * thing.yaw))
        ordered = sorted(chosen.values(), key=lambda thing: thing.size)
        found = []
        for at, thing in enumerate(ordered):
            row, column = divmod(at, COLUMNS)
            middle = np.array([(column - (COLUMNS - 1) / 2) * SPACING[0], ((ROWS - 1) / 2 - row) * SPACING[1]])
            found.append(Placed(Stage(thing), middle + rng.uniform(-0.1, 0.1, 2)))
        return found

    @property
    def camera(self) -> Camera:
        """The camera of all frames."""
        focal, middle = self.side / 2 / np.tan(np.deg2rad(FIELD_OF_VIEW / 2)), (self.side - 1) / 2
        return Camera(self.side, self.side, focal, focal, middle, middle)

    def poses(self, count: int = FRAMES) -> list[np.ndarray]:
        """Camera-to-world [4, 4]: to and fro in front of the objects, near and far, high and low."""
        found = []
        for share in np.linspace(0, 1, count):
            sideways = np.sin(2 * np.pi * 2.5 * share)
            eye = np.array([2.2 * sideways, 0.95 + 0.2 * np.sin(2 * np.pi * 1.5 * share), 3.1 + 0.6 * np.cos(2 * np.pi * share)])
            target = np.array([1.3 * np.sin(2 * np.pi * 5 * share + 1), 0.15, 0.2 + 0.8 * np.cos(2 * np.pi * 3 * share)])
            found.append(looking(eye, target))
        return found

    def frame(self, pose: np.ndarray, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """RGB uint8 [s, s, 3], and metres along the camera's axis float32 [s, s] with a Kinect's noise."""
        side = self.side
        light, depth = self._cast(pose, 2 * side)
        mean = light.reshape(side, 2, side, 2, 3).mean(axis=(1, 3))
        metres = depth.reshape(side, 2, side, 2).min(axis=(1, 3))
        noise = np.random.default_rng([17, self.seed, number]).standard_normal(metres.shape)
        metres = metres + (0.0012 + 0.0019 * (metres - 0.4) ** 2) * noise
        return developed(mean), metres.astype(np.float32)

    def _cast(self, pose: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Linear light [side^2, 3] and depth [side^2]."""
        axes = np.stack([pose[:3, 0], -pose[:3, 1], pose[:3, 2]])
        line = ((np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1) * np.float32(np.tan(np.deg2rad(FIELD_OF_VIEW / 2)))
        across, down = np.meshgrid(line, line)
        local = np.stack([across, -down, np.ones_like(across)], axis=-1).reshape(-1, 3)
        directions = local @ axes.astype(np.float32)
        eye = pose[:3, 3].astype(np.float32)
        around = self._around(axes, eye)
        lamps = lamp_directions(around, side, 2)
        light, depth = self._shell(around, directions, lamps)
        for one in sorted(self.placed, key=lambda one: -float(np.linalg.norm(one.shift - eye))):
            rays = _near(one, eye, directions)
            hits = one.stage.cast(eye - one.shift, directions[rays])
            nearer = hits.distance < depth[rays[hits.rays]]
            hits = type(hits)(*(part[nearer] for part in hits))
            hits = hits._replace(rays=rays[hits.rays])
            own = around._replace(position=eye - one.shift)
            light[hits.rays] = shaded(one.stage, own, hits, directions[hits.rays], lamps[hits.rays], light, side)
            depth[hits.rays] = hits.distance
        return light, depth

    def _around(self, axes: np.ndarray, eye: np.ndarray) -> Room:
        """The Toybox's idea of a room, for its shading: lamp, brightness, looks."""
        rng = np.random.default_rng([18, self.seed])
        turn, rise = np.deg2rad(rng.uniform(-40, 40)), np.deg2rad(rng.uniform(45, 60))
        lamp = np.array([np.sin(turn) * np.cos(rise), np.sin(rise), np.cos(turn) * np.cos(rise)], np.float32)
        looks = Look.draw(_FLOOR, rng), Look.draw(_WALL, rng)
        kinds = int(rng.integers(4)), int(rng.integers(3))
        return Room(eye, axes, lamp, 1.05, 0.36, HALF, np.array([0, 0, 1], np.float32), kinds[0], looks[0], kinds[1], looks[1])

    def _shell(self, around: Room, directions: np.ndarray, lamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Floor, ceiling and walls: linear light [n, 3], with the objects' shadows on the floor, and depth [n]."""
        low, high = np.array([-HALF, 0, -HALF], np.float32), np.array([HALF, HEIGHT, HALF], np.float32)
        steep = np.where(np.abs(directions) < 1e-6, np.float32(1e-6), directions)
        ways = np.where(steep > 0, (high - around.position) / steep, (low - around.position) / steep)
        axis, depth = ways.argmin(axis=1), ways.min(axis=1)
        points = around.position + depth[:, None] * directions
        light = np.empty((3, len(points)), np.float32)
        is_floor, is_ceiling = (axis == 1) & (directions[:, 1] < 0), (axis == 1) & (directions[:, 1] > 0)
        below = points[is_floor]
        sunny = np.full(len(below), around.brightness, np.float32)
        for one in self.placed:
            sunny *= 1 - shadow_on(one.stage, below - one.shift, lamps[is_floor])
        colour = floor(around.floor_kind, around.floor_look, below[:, 0], below[:, 2])
        light[:, is_floor] = matt(around, colour, np.array([0, 1, 0]), sunny, np.ones(len(below), np.float32))
        light[:, is_ceiling] = around.wall_look.base[:, None] * 0.7
        for side, other in ((0, 2), (2, 0)):
            chosen = axis == side
            there = points[chosen]
            colour = wall(around.wall_kind, around.wall_look, there[:, other], there[:, 1])
            normal = np.zeros(3, np.float32)
            normal[side] = 1
            lit = np.full(len(there), 0.6 * around.brightness, np.float32)
            light[:, chosen] = matt(around, colour, normal, lit, np.full(len(there), 0.9, np.float32))
        return np.ascontiguousarray(light.T), depth.astype(np.float32)


def _near(one: Placed, eye: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Rays that pass the ball around an object."""
    low, high = one.box()
    middle, reach = (low + high) / 2 - eye, float(np.linalg.norm(high - low)) / 2
    along = unit(directions)
    ahead = along @ middle
    return np.flatnonzero((ahead > 0) & (middle @ middle - ahead**2 < reach**2))


def looking(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Camera-to-world [4, 4] in OpenCV's axes of a camera at `eye`, with y up in the world."""
    forward = unit(target - eye)
    right = unit(np.cross(forward, [0, 1, 0]))
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


def write_room(room: ToyRoom, folder: Path, count: int = FRAMES) -> Iterator[int]:
    """Write the room in Open3D's layout, frame by frame; yields how many are there. What is there already is kept."""
    for name in ("color", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = []
    for number, pose in enumerate(room.poses(count)):
        colour, depth = (folder / name / f"{number:05}.png" for name in ("color", "depth"))
        if not (colour.is_file() and depth.is_file()):
            pixels, metres = room.frame(pose, number)
            for path, content in ((colour, pixels), (depth, np.rint(1000 * metres).clip(0, 65535).astype(np.uint16))):
                with atomic(path) as part:
                    PIL.Image.fromarray(content).save(part, format="PNG")
        lines += [f"{number} {number} {number + 1}", *(" ".join(f"{value:.9f}" for value in row) for row in pose)]
        yield number + 1
    (folder / "trajectory.log").write_text("\n".join(lines) + "\n", encoding="utf-8")
    camera = room.camera
    card = {"width": room.side, "height": room.side, "intrinsic_matrix": camera.matrix.T.ravel().tolist(), "depth_scale": 1000.0}
    (folder / "intrinsic.json").write_text(json.dumps(card), encoding="utf-8")
