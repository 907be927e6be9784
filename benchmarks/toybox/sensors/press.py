"""Set down: what a pressure mat feels of an object that is put onto it, rests, and is then pressed down by a hand.

The mat is a foam that stiffens as it is pressed; a soft skin yields besides. The deeper the object sinks, the more of its
underside bears: its footprint tells the shape, and weight, give and the way it comes to rest tell the material.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from vitlens.benchmarks.toybox.world.materials import MATERIALS, Material
from vitlens.benchmarks.toybox.world.primitives import Mesh, dot
from vitlens.benchmarks.toybox.world.stage import Stage

CELLS = 48
SIDE = 0.96
"""Metres of a square mat of 48 x 48 cells."""
RATE, FRAMES = 20.0, 24
"""Hertz, and frames of a recording."""
FOAM, YIELD = 4.0, 0.008
"""Kilopascal and metres: the foam's pressure at a depth d is FOAM (exp(d / YIELD) - 1)."""
SOLID = 0.3
"""Share of an object's volume that is solid: most things are hollow."""
PUSH, PUSHED = 300.0, (0.6, 0.9)
"""Newtons of the hand, and the seconds between which it comes to push."""
NOISE, STEP = 0.02, 0.01
"""Kilopascal: noise of every cell and frame, and the step of its converter."""
GRAVITY = 9.81
_RAYS = 2
"""Rays along a cell's side."""
_DEPTHS = np.linspace(0, 0.09, 400)
"""Metres that the foam can be pressed in."""


def set_down(stage: Stage, *, take: int = 0, noise: bool = True) -> np.ndarray:
    """Kilopascal, float32 `[24, 48, 48]` at 20 Hz; every `take` sets it down elsewhere on the mat, harder or softer."""
    from scipy.ndimage import gaussian_filter

    rng, material = stage.thing.rng("pressure", take), MATERIALS[stage.thing.material]
    height = underside(stage, rng.uniform(-0.04, 0.04, 2))
    load, hand = weight(stage) * rng.uniform(0.95, 1.05), PUSH * rng.uniform(0.85, 1.15)
    begin, speed = rng.uniform(0.08, 0.16), rng.uniform(0.6, 1.4)
    near = height[height < _DEPTHS[-1]]
    sunk = _DEPTHS[::8]
    newtons = 1000 * (SIDE / len(height)) ** 2 * np.array([borne(material, depth - near).sum() for depth in sunk])
    film = np.zeros((FRAMES, CELLS, CELLS))
    for frame in range(FRAMES):
        seconds = frame / RATE
        force = load * resting(material, load, seconds - begin, speed) + hand * np.interp(seconds, PUSHED, (0, 1))
        if force > 0:
            fine = borne(material, np.interp(force, newtons, sunk) - height)
            film[frame] = fine.reshape(CELLS, _RAYS, CELLS, _RAYS).mean(axis=(1, 3))
    film = gaussian_filter(film, (0, 0.6, 0.6), mode="constant")  # what a cell hears of its neighbours
    if noise:
        film = film + NOISE * rng.standard_normal(film.shape)
    return (np.rint(film.clip(0) / STEP) * STEP).astype(np.float32)


def underside(stage: Stage, place: np.ndarray) -> np.ndarray:
    """Metres from the mat up to the object `[96, 96]`, rows from its back to its front; infinite where nothing is above."""
    count = CELLS * _RAYS
    line = ((np.arange(count) + 0.5) / count - 0.5) * SIDE
    x, z = np.meshgrid(line - place[0], line - place[1])
    origins = np.stack([x.ravel(), np.full(x.size, -0.1), z.ravel()], axis=1).astype(np.float32)
    hits = stage.cast(origins, np.broadcast_to(np.array([0, 1, 0], np.float32), origins.shape))
    height = np.full(x.size, np.inf)
    height[hits.rays] = hits.distance - 0.1
    return (height - height.min()).reshape(count, count) if len(hits.rays) else height.reshape(count, count)


def weight(stage: Stage) -> float:
    """Newtons."""
    return MATERIALS[stage.thing.material].density * SOLID * volume(stage.mesh) * GRAVITY


def volume(mesh: Mesh) -> float:
    """Cubic metres inside a closed mesh; where parts overlap, twice. Its normals point outwards; its faces turn either way."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    across = np.cross(b - a, c - a)
    outward = np.sign(dot(across, mesh.normals[mesh.faces].sum(axis=1)))
    return float((outward * dot(a, across)).sum() / 6)


def borne(material: Material, depth: np.ndarray) -> np.ndarray:
    """Kilopascal where foam and skin together are pressed in by `depth` metres; 0 where nothing touches."""
    return np.interp(depth, _DEPTHS, _pressures(material.give))


@cache
def _pressures(give: float) -> np.ndarray:
    """Kilopascal at each of `_DEPTHS`: a pressure p presses the foam in by YIELD log(1 + p / FOAM), the skin by give p / 10."""
    pressure = FOAM * np.expm1(np.linspace(0, _DEPTHS[-1] / YIELD, 4000))
    return np.interp(_DEPTHS, YIELD * np.log1p(pressure / FOAM) + give / 1000 * pressure / 10, pressure)


def resting(material: Material, load: float, seconds: float, speed: float) -> float:
    """The share of its weight that the mat bears, `seconds` after the object touched it: a bounce that the foam and the material
    damp, then a slow settling where the material creeps."""
    if seconds <= 0:
        return 0.0
    frequency = 2 * np.pi * 7.0 * (60 / (load + 20)) ** 0.25
    bounce = speed * np.exp(-(4 + 30 * material.loss) * seconds) * np.cos(frequency * seconds)
    settled = 1 - 0.25 * material.loss * np.exp(-seconds / 0.15)
    softly = 1 - np.exp(-seconds / (0.01 + 4 * material.contact))
    return max(0.0, float(softly * settled * (1 + bounce)))
