"""Warmed: what a thermal camera sees of an object that a lamp has shone on, or that a hand has held.

The surface of a half-space under a steady flux, with the air cooling it, tells how warm each place becomes; heat spreads over
the length that diffusivity and time allow; and the camera, which takes everything for a grey body, sees the surroundings in what
emits little. So effusivity, diffusivity and emissivity show, beside the form.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from vitlens.benchmarks.toybox.sensors.picture import shadow_on
from vitlens.benchmarks.toybox.world.materials import MATERIALS, Material
from vitlens.benchmarks.toybox.world.primitives import dot, unit
from vitlens.benchmarks.toybox.world.stage import FIELD_OF_VIEW, Hits, Room, Stage

STEP = 0.01
"""Kelvin of one step of the camera's 16 bits."""
NOISE = 0.05
"""Kelvin: a microbolometer's noise-equivalent temperature difference."""
FLUX = 700.0
"""Watts per square metre that a lamp sends at its mean brightness."""
COOLING = 12.0
"""W / (m² K) that air and radiation take away."""
HAND, HAND_EFFUSIVITY, PALM = 306.5, 1200.0, 0.045
"""Kelvin of skin, its J / (m² K s^½), and metres from the middle of a palm to where it ends."""


class Warming(NamedTuple):
    """What happened before the picture of one take."""

    air: float
    """Kelvin, of the room and of what has stood there."""
    apart: float
    """Kelvin by which the object was warmer or colder than the room when it came there."""
    by_hand: bool
    seconds: float
    """For how long it was lit or held."""
    since: float
    """Seconds since the hand let go; a lamp still shines."""
    place: float
    """0 to 1: which of the visible places the hand held."""

    @staticmethod
    def draw(rng: Generator) -> Warming:
        by_hand = bool(rng.uniform() < 0.4)
        seconds = rng.uniform(10, 40) if by_hand else rng.uniform(120, 600)
        return Warming(
            air=float(rng.uniform(290, 297)),
            apart=float(rng.uniform(1.5, 4) * rng.choice([-1, 1])),
            by_hand=by_hand,
            seconds=float(seconds),
            since=float(rng.uniform(1, 6)),
            place=float(rng.uniform()),
        )


def warmed(stage: Stage, *, size: int = 64, take: int = 0, noise: bool = True) -> np.ndarray:
    """Kelvin as a camera set to an emissivity of 0.95 shows them, float32 `[size, size]`, in the room of `picture`."""
    from scipy.ndimage import gaussian_filter

    rng, room = stage.thing.rng("thermal", take), stage.room(take)
    before = Warming.draw(rng)
    directions = room.directions(size)
    hits = stage.cast(room.position, directions)
    kelvin = _background(stage, room, directions, before)
    kelvin[hits.rays] = _seen(stage, room, hits, directions[hits.rays], before, size)
    map_ = gaussian_filter(kelvin.reshape(size, size), 0.5, mode="nearest")
    if noise:
        map_ = map_ + NOISE * rng.standard_normal(map_.shape)
    return (np.rint(map_ / STEP) * STEP).astype(np.float32)


def warming(material: Material, seconds: float, cooling: float = COOLING) -> float:
    """Kelvin by which a surface has warmed per W/m² that it takes in: the half-space with a cooled surface (Carslaw and Jaeger,
    Conduction of Heat in Solids, 2.8)."""
    from scipy.special import erfcx

    return float(1 - erfcx(cooling * seconds**0.5 / material.effusivity)) / cooling


def _background(stage: Stage, room: Room, directions: np.ndarray, before: Warming) -> np.ndarray:
    """Kelvin of floor and wall, as of plaster and wood: the lamp warms them, but not where the object shades them."""
    distance, is_wall = room.meet(directions)
    points = room.position + distance[:, None] * directions
    kelvin = before.air + 0.5 * points[:, 1].clip(0, 3) - 0.4 * ~is_wall
    if not before.by_hand:
        toward = np.where(is_wall, max(float(room.lamp @ room.wall_normal), 0.0), room.lamp[1])
        lit = 1 - shadow_on(stage, points, np.broadcast_to(room.lamp, points.shape))
        kelvin = kelvin + 0.5 * FLUX * room.brightness * warming(MATERIALS["wood"], before.seconds) * toward * lit
    return kelvin


def _seen(stage: Stage, room: Room, hits: Hits, directions: np.ndarray, before: Warming, size: int) -> np.ndarray:
    """Kelvin that the camera takes the object's places for."""
    material = MATERIALS[stage.thing.material]
    rise = _held(stage, material, hits, before) if before.by_hand else _lit(stage, room, material, hits, before)
    rise = _spread(rise, hits.rays, material, before, size, _pixel(room, size))
    kelvin = before.air + before.apart + rise
    view = -unit(directions)
    facing = dot(hits.normals, view).clip(0, 1)
    emitted = material.emissivity * (1 - (1 - facing) ** 5)  # less and less towards the rim, as Fresnel and Schlick have it
    mirrored = 2 * facing[:, None] * hits.normals - view
    around = before.air - 4 + 3 * mirrored[:, 1] ** 2
    if not before.by_hand:
        around = around + 60 * dot(mirrored, room.lamp).clip(0) ** 30  # the lamp itself is hot
    power = emitted * kelvin**4 + (1 - emitted) * around**4
    assumed = (power - (1 - 0.95) * before.air**4) / 0.95
    return assumed**0.25


def _lit(stage: Stage, room: Room, material: Material, hits: Hits, before: Warming) -> np.ndarray:
    """Kelvin by which the lamp has warmed each place: by its slope, its shade, and how dark the object is."""
    lamps = np.broadcast_to(room.lamp, hits.points.shape)
    lit = 1 - stage.hidden(hits.points + hits.normals * np.float32(2e-3 * stage.thing.size), lamps).astype(np.float64)
    takes_in = 1 - 0.7 * float(np.mean(stage.look.base)) ** 0.5
    takes_in *= 0.5 if material.finish.tinted else 1 - 0.6 * material.finish.clear
    return takes_in * FLUX * room.brightness * warming(material, before.seconds) * lit * dot(hits.normals, room.lamp).clip(0)


def _held(stage: Stage, material: Material, hits: Hits, before: Warming) -> np.ndarray:
    """Kelvin by which a hand has warmed the places near one: two bodies in contact meet between their temperatures."""
    own = before.air + before.apart
    middle = hits.points[int(before.place * len(hits.points))] if len(hits.points) else np.zeros(3)
    near = np.exp(-((np.linalg.norm(hits.points - middle, axis=1) / PALM) ** 4))
    contact = (HAND - own) * HAND_EFFUSIVITY / (HAND_EFFUSIVITY + material.effusivity)
    fading = (1 + before.since / before.seconds) ** 0.5 - (before.since / before.seconds) ** 0.5
    return contact * fading * near


def _pixel(room: Room, size: int) -> float:
    """Metres of a pixel where the object stands."""
    away = float(np.linalg.norm(room.position))
    return 2 * away * float(np.tan(np.deg2rad(FIELD_OF_VIEW / 2))) / size


def _spread(rise: np.ndarray, rays: np.ndarray, material: Material, before: Warming, size: int, pixel: float) -> np.ndarray:
    """Warmth that has spread over the object: the mean over a length of sqrt(diffusivity * time), inside its outline only."""
    from scipy.ndimage import gaussian_filter

    length = (2 * material.diffusivity * (before.seconds + before.since)) ** 0.5 / pixel
    inside, warmth = np.zeros(size * size), np.zeros(size * size)
    inside[rays], warmth[rays] = 1, rise
    sums = [gaussian_filter(map_.reshape(size, size), min(length, 2.0 * size), mode="constant") for map_ in (warmth, inside)]
    return (sums[0] / np.maximum(sums[1], 1e-6)).ravel()[rays]
