"""Solid textures: the colour and the fine relief of every material, and of floors and walls, at points in space.

Points are float32 `[n, 3]`; of objects they are in units of the object's size, so that the same number of rings,
threads and ribs is seen however large it is.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

CELLS = 64
"""Side of the periodic noise volumes."""


@cache
def _volume(power: float) -> np.ndarray:
    """Periodic noise `[64, 64, 64]` of mean 0 and deviation 1 whose amplitude falls with frequency to `power`."""
    frequency = np.fft.fftfreq(CELLS) * CELLS
    squared = (frequency**2)[:, None, None] + (frequency**2)[None, :, None] + (frequency[: CELLS // 2 + 1] ** 2)[None, None, :]
    spectrum = np.fft.rfftn(np.random.default_rng(64).standard_normal((CELLS,) * 3)) / np.maximum(squared, 1) ** (power / 2)
    spectrum[0, 0, 0] = 0
    noise = np.fft.irfftn(spectrum, (CELLS,) * 3, axes=(0, 1, 2))
    return (noise / noise.std()).astype(np.float32)


def noise(points: np.ndarray, repeat: float = 1.0, power: float = 2.2) -> np.ndarray:
    """Cloudy noise `[n]` of deviation 1 that repeats every `repeat` units; the larger `power`, the smoother."""
    from scipy.ndimage import map_coordinates

    places = (points.T * np.float32(CELLS / repeat)).astype(np.float32)
    return map_coordinates(_volume(power), places, order=1, mode="grid-wrap", output=np.float32)


def bumpy(points: np.ndarray, repeat: float, power: float = 1.2) -> np.ndarray:
    """Noise vectors `[n, 3]`, to tilt normals with."""
    shifts = np.array([[0, 0, 0], [0.37, 0.11, 0.71], [0.83, 0.59, 0.23]], np.float32) * repeat
    return np.stack([noise(points + shift, repeat, power) for shift in shifts], axis=1)


def step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    t = ((x - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def linear(colour: object) -> np.ndarray:
    """sRGB in 0..1 as linear light."""
    return np.asarray(colour, dtype=np.float32) ** np.float32(2.2)


class Look(NamedTuple):
    """What differs between two objects of one material and colour."""

    base: np.ndarray
    """Linear RGB."""
    shift: np.ndarray
    kind: float
    """0 to 1: which variant of a pattern."""

    @staticmethod
    def draw(colour: tuple[float, float, float], rng: Generator) -> Look:
        tinted = np.clip(np.asarray(colour) * rng.uniform(0.9, 1.08) * rng.uniform(0.95, 1.05, 3), 0.02, 1)
        return Look(linear(tinted), rng.uniform(0, 1, 3).astype(np.float32), float(rng.uniform()))


class Surface(NamedTuple):
    """Colour `[n, 3]` (linear RGB), tilt of the normals `[n, 3]`, and gloss `[n]` as a factor on all reflections."""

    colour: np.ndarray
    tilt: np.ndarray | None = None
    gloss: np.ndarray | None = None


def texture(material: str, look: Look, points: np.ndarray, normals: np.ndarray) -> Surface:
    """The surface of a material at points of an object, in the object's own axes (y up, in units of its size)."""
    return _TEXTURES[material](look, points, normals)


def _flat_axes(points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two coordinates along the surface: those across the normal's largest component."""
    axis = np.abs(normals).argmax(axis=1)
    rows = np.arange(len(points))
    return points[rows, (axis + 1) % 3], points[rows, (axis + 2) % 3]


def _wood(look: Look, points: np.ndarray, normals: np.ndarray) -> Surface:
    moved = points + look.shift
    warp = noise(moved, 3.0, 3.0) * 0.12
    stretched = moved * np.array([5, 0.35, 5], np.float32)
    radius = np.hypot(points[:, 0] + 0.55 + 0.3 * look.kind, points[:, 2] + 0.3 + 0.12 * np.sin(2 * points[:, 1] + 6 * look.kind))
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (9 * (radius + warp)))
    fibre = noise(stretched, 2.5, 1.2)
    shade = 1.12 - 0.5 * rings**2 + 0.09 * fibre
    shade *= 1 - 0.35 * step(noise(stretched * 2, 4.0, 1.0), 1.4, 2.2)
    colour = look.base * np.stack([shade, shade**1.25, shade**1.5], axis=1).clip(0.1)
    return Surface(colour.clip(0, 1), 0.05 * bumpy(stretched, 2.5), 1 - 0.5 * rings)


def _metal(look: Look, points: np.ndarray, normals: np.ndarray) -> Surface:
    brushed = noise((points + look.shift) * np.array([0.5, 14, 0.5], np.float32), 3.0, 0.8)
    wear = noise(points + look.shift, 1.6, 2.4)
    tilt = 0.018 * brushed[:, None] * np.array([0.3, 1, 0.3], np.float32)
    return Surface(look.base * (1 + 0.03 * brushed)[:, None], tilt, 1 - 0.1 * step(wear, 0.6, 1.6))


def _glass(look: Look, points: np.ndarray, normals: np.ndarray) -> Surface:
    return Surface(np.broadcast_to(look.base, points.shape), 0.015 * bumpy(points + look.shift, 2.0, 3.0))


def _rubber(look: Look, points: np.ndarray, normals: np.ndarray) -> Surface:
    across, along = _flat_axes(points, normals)
    ribs = np.sin(2 * np.pi * 11 * (across + along)) * np.sin(2 * np.pi * 11 * (across - along))
    groove = step(np.abs(ribs), 0.08, 0.4)
    dust = noise(points + look.shift, 1.5, 2.0)
    shade = (0.45 + 0.55 * groove) * (1 + 0.08 * dust)
    return Surface(
        look.base * shade[:, None] + 0.012 * step(dust, 0.5, 2)[:, None], 0.04 * bumpy(points, 0.8), 0.4 + 0.6 * groove
    )


def _stone(look: Look, points: np.ndarray, normals: np.ndarray) -> Surface:
    moved = points + look.shift
    clouds, grains, fine = noise(moved, 2.2, 2.0), noise(moved, 1.7, 0.6), noise(moved * 2.3, 1.7, 0.3)
    shade = 0.88 + 0.12 * clouds + 0.10 * grains + 0.06 * fine
    colour = look.base * shade[:, None].clip(0.2)
    dark, bright = step(grains, 1.0, 1.7)[:, None], step(fine - grains, 1.7, 2.6)[:, None]
    colour = colour * (1 - 0.6 * dark) + 0.35 * bright * (1 - colour)
    vein = step(np.abs(noise(moved, 4.0, 3.0)), 0.0, 0.06)[:, None] if look.kind > 0.6 else 1.0
    return Surface((colour * (0.55 + 0.45 * vein)).clip(0, 1), 0.28 * bumpy(moved, 1.7, 0.9))


def _fabric(look: Look, points: np.ndarray, normals: np.ndarray) -> Surface:
    across, along = _flat_axes(points + 0.5 * look.shift, normals)
    threads = 30.0
    warp, weft = np.sin(2 * np.pi * threads * across), np.sin(2 * np.pi * threads * along)
    weave = 0.5 + 0.5 * warp * weft
    a, b = ((x * 4.5) % 1 < 0.5 for x in (across, along))
    plaid = (a.astype(np.float32) + b) / 2 if look.kind < 0.6 else a.astype(np.float32)
    second = 0.35 * look.base + 0.6 if look.kind < 0.3 or look.kind > 0.8 else 0.25 * look.base
    colour = look.base + (second - look.base) * (0.75 * plaid)[:, None]
    shade = (0.72 + 0.4 * weave) * (1 + 0.07 * noise(points, 0.7, 0.8))
    tilt = np.zeros_like(points)
    tilt[:, 0], tilt[:, 1] = 0.2 * np.cos(2 * np.pi * threads * across), 0.2 * np.cos(2 * np.pi * threads * along)
    return Surface((colour * shade[:, None]).clip(0, 1), tilt)


def _plastic(look: Look, points: np.ndarray, normals: np.ndarray) -> Surface:
    return Surface(np.broadcast_to(look.base, points.shape), 0.008 * bumpy(points, 0.5))


def _ceramic(look: Look, points: np.ndarray, normals: np.ndarray) -> Surface:
    wavy = 0.02 * noise(points + look.shift, 1.5, 2.5)
    height = points[:, 1] + wavy
    glazed = step(height, 0.07, 0.085)
    painted = step(np.abs(height - 0.2 - 0.3 * look.kind), 0.045, 0.035) if look.kind < 0.65 else np.zeros_like(height)
    specks = step(noise(points + look.shift, 1.3, 0.4), 2.3, 2.7) if look.kind > 0.4 else np.zeros_like(height)
    paint = np.array([0.05, 0.10, 0.35], np.float32) if look.base.mean() > 0.3 else np.array([0.85, 0.83, 0.75], np.float32)
    clay = np.array([0.50, 0.26, 0.15], np.float32) * (1 + 0.06 * noise(points, 0.8, 0.8))[:, None]
    colour = look.base + (paint - look.base) * (0.85 * painted)[:, None]
    colour = colour * (1 - 0.6 * specks)[:, None]
    colour = clay + (colour - clay) * glazed[:, None]
    return Surface(colour.clip(0, 1), 0.008 * bumpy(points + look.shift, 1.5, 2.0), 0.06 + 0.94 * glazed)


_TEXTURES = {
    "wood": _wood,
    "metal": _metal,
    "glass": _glass,
    "rubber": _rubber,
    "stone": _stone,
    "fabric": _fabric,
    "plastic": _plastic,
    "ceramic": _ceramic,
}


@cache
def _tile(power: float) -> np.ndarray:
    """Periodic noise `[512, 512]` of mean 0 and deviation 1."""
    frequency = np.fft.fftfreq(512) * 512
    squared = (frequency**2)[:, None] + (frequency[:257] ** 2)[None, :]
    spectrum = np.fft.rfft2(np.random.default_rng(512).standard_normal((512, 512))) / np.maximum(squared, 1) ** (power / 2)
    spectrum[0, 0] = 0
    tile = np.fft.irfft2(spectrum, (512, 512))
    return (tile / tile.std()).astype(np.float32)


def flat_noise(u: np.ndarray, v: np.ndarray, repeat: float, power: float) -> np.ndarray:
    """Noise `[n]` in the plane that repeats every `repeat` metres, for what fills much of a picture: cheap, without blending."""
    scale = np.float32(512 / repeat)
    return _tile(power)[(u * scale).astype(np.int32) & 511, (v * scale).astype(np.int32) & 511]


def floor(kind: int, look: Look, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Linear RGB `[3, n]` of a floor at places in metres: tiles of 20 cm, planks of 12 cm, concrete or a carpet."""
    u, v = x + look.shift[0], z + look.shift[1]
    if kind == 0:
        shade = 0.8 + 0.3 * ((np.floor(u / 0.2) + np.floor(v / 0.2)) % 2) + 0.03 * flat_noise(u, v, 0.9, 1.2)
    elif kind == 1:
        row = np.floor(v / 0.12)
        gap = step(np.abs((v / 0.12) % 1 - 0.5), 0.5, 0.46)
        fibre = flat_noise(0.25 * u + 0.37 * row, 4 * v, 1.5, 1.1)
        shade = (0.85 + 0.22 * np.sin(row * 12.9898 + 4 * look.kind) ** 2 + 0.05 * fibre) * (0.6 + 0.4 * gap)
    elif kind == 2:
        shade = 0.95 + 0.05 * flat_noise(u, v, 1.3, 1.5) + 0.03 * flat_noise(u, v, 0.7, 0.4)
    else:
        knots = np.sin(2 * np.pi * u / 0.02) * np.sin(2 * np.pi * v / 0.02)
        shade = 0.92 + 0.06 * knots + 0.04 * flat_noise(u, v, 0.6, 0.9)
    return look.base[:, None] * shade


def wall(kind: int, look: Look, along: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Linear RGB `[3, n]` of a wall at places in metres: plaster, stripes, or bricks."""
    u, v = along + look.shift[0], height
    shade = 0.97 + 0.03 * flat_noise(u, v, 1.7, 1.6)
    if kind == 1:
        shade = shade * (0.93 + 0.1 * (np.floor(u / 0.15) % 2))
    elif kind == 2:
        row = np.floor(v / 0.08)
        brick_row = u / 0.22 + 0.5 * (row % 2)
        joint = np.minimum(0.5 - np.abs(brick_row % 1 - 0.5), (0.5 - np.abs((v / 0.08) % 1 - 0.5)) * 0.36)
        brick = 0.9 + 0.16 * np.sin(row * 78.2 + np.floor(brick_row) * 12.99) ** 2
        shade = shade * (1.08 + (brick - 1.08) * step(joint, 0.015, 0.04))
    return look.base[:, None] * shade
