"""Touched: what a GelSight-style sensor sees when an object is pressed into its gel.

The material gives the relief of fractions of a millimetre, the shape the curvature and the edges of what is touched. Three
coloured lamps at the sides shade the gel's slopes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vitlens.benchmarks.toybox.sensors.views import from_outside, on_surface
from vitlens.benchmarks.toybox.world.primitives import unit
from vitlens.benchmarks.toybox.world.stage import Stage
from vitlens.benchmarks.toybox.world.surfaces import flat_noise, step

PATCH = 16.0
"""Millimetres along a side of the gel."""
_LAMPS = np.deg2rad([90, 210, 330])
_RISE = np.deg2rad(28)


def touch(stage: Stage, *, size: int = 64, take: int = 0) -> np.ndarray:
    """RGB of the gel, uint8 `[size, size, 3]`; `take` counts touches, each at another place of the object."""
    rng = stage.thing.rng("tactile", take)
    line = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    across, down = np.meshgrid(line * PATCH, line * PATCH)
    contact, slope_x, slope_y = _pressed(stage, across, down, rng)
    turn, pixel = rng.uniform(0, 2 * np.pi), PATCH / size
    u, v = across * np.cos(turn) - down * np.sin(turn), across * np.sin(turn) + down * np.cos(turn)
    shift, kind = rng.uniform(0, 100, 2), float(rng.uniform())
    relief = _RELIEF[stage.thing.material](u + np.float32(shift[0]), v + np.float32(shift[1]), kind)
    gel = _soft(relief, 0.12 / pixel)  # the skin of the gel bridges what is finer
    relief_y, relief_x = np.gradient(gel, pixel)
    edge_y, edge_x = np.gradient(_soft(contact, 0.35 / pixel), pixel)
    slope_x = contact * (slope_x + relief_x) + 0.5 * edge_x
    slope_y = contact * (slope_y + relief_y) + 0.5 * edge_y
    light = _lit(slope_x, slope_y, across, down)
    light += rng.normal(0, 0.006, light.shape)
    return np.rint(255 * light.clip(0, 1)).astype(np.uint8)


def _pressed(
    stage: Stage, across: np.ndarray, down: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a place of the object touches the gel (0 to 1), and how steep the object's own form is there `[s, s]`.

    Whoever wants to feel something looks for a place that fills the gel: the first of a few that fills a third of it, else the
    best.
    """
    candidates, normals = on_surface(stage, 16, rng)
    outside = np.flatnonzero(from_outside(stage, candidates, normals))
    depth = rng.uniform(0.9, 1.8)
    best = None
    for place in outside[:5] if len(outside) else (0,):
        found = _imprint(stage, candidates[place], unit(normals[place]), depth, across, down)
        if best is None or found[0].mean() > best[0].mean():
            best = found
        if best[0].mean() > 1 / 3:
            break
    assert best is not None
    return best


def _imprint(
    stage: Stage, point: np.ndarray, normal: np.ndarray, pressed: float, across: np.ndarray, down: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contact and slopes `[s, s]` where the gel comes from above `point` until it is `pressed` millimetres deep."""
    first = unit(np.cross(normal, np.eye(3)[np.abs(normal).argmin()]))
    second = np.cross(normal, first)
    origins = point + 0.03 * normal + 1e-3 * (across.reshape(-1, 1) * first + down.reshape(-1, 1) * second)
    hits = stage.cast(origins.astype(np.float32), np.broadcast_to(-normal.astype(np.float32), origins.shape))
    depth = np.full(across.size, np.inf, np.float32)
    depth[hits.rays] = 1000 * hits.distance
    contact = step(pressed - (depth - depth.min()), 0.0, 0.25) if len(hits.rays) else np.zeros_like(depth)
    slopes = np.zeros((2, across.size), np.float32)
    upright = np.maximum(hits.normals @ normal, 0.35)
    slopes[:, hits.rays] = [-(hits.normals @ axis) / upright for axis in (first, second)]
    return contact.reshape(across.shape), slopes[0].reshape(across.shape), slopes[1].reshape(across.shape)


def _soft(x: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(x, sigma, mode="nearest")


def _lit(slope_x: np.ndarray, slope_y: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """A red, a green and a blue lamp at the gel's sides; each fades with distance."""
    steep = np.sqrt(1 + slope_x**2 + slope_y**2)
    light = np.empty((*slope_x.shape, 3))
    for channel, angle in enumerate(_LAMPS):
        x, y = np.cos(angle), -np.sin(angle)
        toward = (-slope_x * x - slope_y * y) * np.cos(_RISE) + np.sin(_RISE)
        near = 1 + 0.2 * (across * x + down * y) / (PATCH / 2)
        light[..., channel] = (0.12 + 0.95 * (toward / steep).clip(0)) * near
    vignette = 1 - 0.22 * (across**2 + down**2) / (PATCH / 2) ** 2
    return light * vignette[..., None]


# --- the relief of each material: millimetres of height at (u, v) in millimetres; u runs along the grain ---


def _wood(u: np.ndarray, v: np.ndarray, kind: float) -> np.ndarray:
    grain = flat_noise(0.06 * u, v, 14, 1.1)
    pores = step(flat_noise(0.12 * u + 5, 1.4 * v, 12, 0.7), 1.2, 2.2)
    rings = np.sin(2 * np.pi * (v / (1.8 + 1.6 * kind) + 0.25 * flat_noise(0.3 * u, v, 40, 2.0)))
    return 0.035 * grain - 0.11 * pores + 0.05 * rings


def _metal(u: np.ndarray, v: np.ndarray, kind: float) -> np.ndarray:
    brushed = flat_noise(0.015 * u, v, 9, 0.4)
    scratch = step(np.abs(flat_noise(0.3 * u + 0.2 * v, 0.25 * v, 60, 2.4)), 0.03, 0.0)
    return (0.018 + 0.020 * kind) * brushed - 0.06 * scratch


def _glass(u: np.ndarray, v: np.ndarray, kind: float) -> np.ndarray:
    dust = step(flat_noise(u, v, 90, 0.9), 3.1, 3.6)
    return 0.012 * flat_noise(u, v, 90, 3.0) + 0.05 * dust


def _rubber(u: np.ndarray, v: np.ndarray, kind: float) -> np.ndarray:
    pitch = 1.9 + 1.2 * (kind * 7 % 1)
    a, b = np.sin(2 * np.pi * u / pitch), np.sin(2 * np.pi * v / pitch)
    knobs = step(a * b, -0.15, 0.5) if kind < 0.5 else step(a, -0.3, 0.4)
    return 0.3 * knobs + 0.012 * flat_noise(u, v, 14, 0.8)


def _stone(u: np.ndarray, v: np.ndarray, kind: float) -> np.ndarray:
    rough = flat_noise(u, v, 16, 1.5)
    pits = step(flat_noise(u + 7, v, 20, 1.1), 0.9, 2.0)
    return (0.10 + 0.06 * kind) * rough - 0.22 * pits


def _fabric(u: np.ndarray, v: np.ndarray, kind: float) -> np.ndarray:
    pitch = 1.3 + 0.7 * kind
    wobble = 0.08 * flat_noise(u, v, 30, 2.0)
    x, y = u / pitch + wobble, v / pitch - wobble
    warp = np.sqrt(np.abs(np.sin(np.pi * x))) * (0.5 + 0.5 * np.cos(np.pi * (y - np.floor(x))))
    weft = np.sqrt(np.abs(np.sin(np.pi * y))) * (0.5 - 0.5 * np.cos(np.pi * (x - np.floor(y))))
    return 0.26 * np.maximum(warp, weft) + 0.02 * flat_noise(u, v, 12, 0.6)


def _plastic(u: np.ndarray, v: np.ndarray, kind: float) -> np.ndarray:
    return (0.06 + 0.05 * kind) * np.abs(flat_noise(u, v, 26, 1.3)) + 0.006 * flat_noise(u, v, 60, 2.5)


def _ceramic(u: np.ndarray, v: np.ndarray, kind: float) -> np.ndarray:
    peel = flat_noise(u, v, 36, 2.2)
    pinholes = step(flat_noise(u, v + 9, 60, 1.2), 2.3, 3.0)
    cracks = step(np.abs(flat_noise(u + 3, v, 44, 2.2)), 0.05, 0.0) if kind > 0.35 else np.zeros_like(u)
    return 0.14 * peel - 0.3 * pinholes - 0.07 * cracks


_RELIEF: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "wood": _wood,
    "metal": _metal,
    "glass": _glass,
    "rubber": _rubber,
    "stone": _stone,
    "fabric": _fabric,
    "plastic": _plastic,
    "ceramic": _ceramic,
}
