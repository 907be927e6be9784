"""Scanned and ranged: the point cloud of a Toybox object's surface, and its depth map with the camera that took it."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from vitlens.benchmarks.toybox.world.primitives import dot
from vitlens.benchmarks.toybox.world.stage import Stage
from vitlens.benchmarks.toybox.world.surfaces import texture

SCAN_NOISE = 0.004
"""Standard deviation of a scanned point, of the object's size."""
_AROUND = np.deg2rad([15, 87, 159, 231, 303])
_SIDES = np.array(
    [
        [0, 1, 0],
        *([np.sin(a) * 0.8, 0.6, np.cos(a) * 0.8] for a in _AROUND),
        *([np.sin(a), -0.25, np.cos(a)] for a in _AROUND + 0.6),
    ],
    np.float32,
)
"""Directions from which the scanner looks: from above, from around above, and from around below."""


def depth(stage: Stage, *, size: int = 64, take: int = 0, noise: bool = True) -> np.ndarray:
    """Metres along the camera's axis, float32 `[size, size]`, of the same take as `picture`; whole millimetres.

    The noise grows with distance as a Kinect's does: 1.2 mm + 1.9 mm (z - 0.4 m)^2 (Nguyen et al., 3DIMPVT 2012).
    """
    room = stage.room(take)
    directions = room.directions(size)
    distance, _ = room.meet(directions)
    hits = stage.cast(room.position, directions)
    distance[hits.rays] = np.minimum(distance[hits.rays], hits.distance)
    if noise:
        spread = 0.0012 + 0.0019 * (distance - 0.4) ** 2
        distance = distance + spread * stage.thing.rng("depth", take).standard_normal(len(distance), np.float32)
    millimetres = np.rint(1000 * distance).clip(1, 65535).astype(np.float32)
    return (millimetres * np.float32(0.001)).reshape(size, size)


def scan(stage: Stage, *, points: int = 2048, colour: bool = True, noise: bool = True, take: int = 0) -> np.ndarray:
    """Points spread evenly over the surface, float32 `[points, 6]` (metres of the room, y up; rgb in 0..1 in steps of 1/255), or
    `[points, 3]` without colour. What cannot be seen from outside is not scanned; `take` counts repeated scans.
    """
    rng = stage.thing.rng("point_cloud", take)
    candidates, normals = on_surface(stage, points * 5 // 2, rng)
    kept = np.flatnonzero(from_outside(stage, candidates, normals))
    if len(kept) < points:
        kept = np.concatenate([kept, rng.choice(kept, points - len(kept))])
    chosen = kept[:points]
    xyz = candidates[chosen]
    if noise:
        spread = np.float32(SCAN_NOISE * stage.thing.size)
        xyz = xyz + spread * rng.standard_normal(xyz.shape, np.float32)
    if not colour:
        return xyz
    own_points, own_normals = stage.own(candidates[chosen], normals[chosen])
    light = texture(stage.thing.material, stage.look, own_points, own_normals).colour
    rgb = np.rint(255 * light.clip(0, 1) ** np.float32(1 / 2.2)) / np.float32(255)
    return np.concatenate([xyz, rgb.astype(np.float32)], axis=1)


def on_surface(stage: Stage, count: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """`count` points `[n, 3]` of the mesh, spread by area in random order, and their normals."""
    mesh = stage.mesh
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    total = np.cumsum(np.sqrt(dot(cross, cross)), dtype=np.float64)
    faces = np.searchsorted(total, rng.random(count) * total[-1], side="right").clip(max=len(total) - 1)
    root, along = np.sqrt(rng.random(count, np.float32)), rng.random(count, np.float32)
    weights = np.stack([1 - root, root * (1 - along), root * along], axis=1)
    corners = mesh.faces[faces]
    points, normals = (np.einsum("nk,nkc->nc", weights, of[corners]) for of in (mesh.vertices, mesh.normals))
    return points, normals


def from_outside(stage: Stage, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Whether each point of the surface is seen from at least one side; parts of compositions lie inside one another."""
    seen = np.zeros(len(points), bool)
    for side in _SIDES:
        facing = dot(normals, side)
        rays = np.flatnonzero(~seen & (np.abs(facing) > 0.1))
        lifted = points[rays] + 0.003 * stage.thing.size * np.sign(facing[rays, None]) * normals[rays]
        seen[rays] = ~stage.hidden(lifted, np.broadcast_to(side, lifted.shape))
    return seen
