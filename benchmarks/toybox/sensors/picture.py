"""Seen: a picture of a Toybox object by ray casting, shaded with its material, lamp light, shadows and what it mirrors."""

from __future__ import annotations

import numpy as np

from vitlens.benchmarks.toybox.world.materials import MATERIALS
from vitlens.benchmarks.toybox.world.primitives import dot, unit
from vitlens.benchmarks.toybox.world.stage import Hits, Room, Stage
from vitlens.benchmarks.toybox.world.surfaces import floor, step, texture, wall

LAMP_RADIUS = 0.07
"""Half the angle of the lamp, in radians: what makes the edges of shadows soft."""
WARM = np.array([1.04, 1.0, 0.94], np.float32)
COOL = np.array([0.94, 0.98, 1.06], np.float32)


def picture(stage: Stage, *, size: int = 64, take: int = 0, oversample: int | None = None) -> np.ndarray:
    """RGB, uint8 `[size, size, 3]`: the mean of `oversample` squared rays a pixel (2 x 2 up to 128 pixels, 3 x 3 above).

    `take` counts pictures: each shows the object in another room, from another place.
    """
    oversample = oversample or (2 if size <= 128 else 3)
    room = stage.room(take)
    side = size * oversample
    directions = room.directions(side)
    lamps = lamp_directions(room, side, oversample)
    hits = stage.cast(room.position, directions)
    uncovered = np.ones(len(directions), bool)
    uncovered[hits.rays] = MATERIALS[stage.thing.material].finish.clear > 0
    light = np.empty_like(directions)
    light[uncovered] = _background(stage, room, directions[uncovered], lamps[uncovered])
    light[hits.rays] = shaded(stage, room, hits, directions[hits.rays], lamps[hits.rays], light, side)
    mean = np.einsum("yaxbc->yxc", light.reshape(size, oversample, size, oversample, 3)) / oversample**2
    return developed(mean)


def developed(light: np.ndarray) -> np.ndarray:
    """Linear light as sRGB bytes; bright light runs smoothly into white."""
    x = light * 1.05
    x = x * (1 + x / 6.0) / (1 + x * 0.28)
    return np.rint(255 * x.clip(0, 1) ** (1 / 2.2)).astype(np.uint8)


def lamp_directions(room: Room, side: int, oversample: int) -> np.ndarray:
    """Direction to a point of the lamp for each ray `[side * side, 3]`: the rays of one pixel share out its disc."""
    count = oversample**2
    radius, angle = np.sqrt((np.arange(count) + 0.5) / count), np.arange(count) * 2.39996
    right = unit(np.cross([0, 1, 0], room.lamp))
    above = np.cross(room.lamp, right)
    points = room.lamp + LAMP_RADIUS * radius[:, None] * (np.cos(angle)[:, None] * right + np.sin(angle)[:, None] * above)
    tile = unit(points).astype(np.float32).reshape(oversample, oversample, 3)
    return np.tile(tile, (side // oversample, side // oversample, 1)).reshape(-1, 3)


def _background(stage: Stage, room: Room, directions: np.ndarray, lamps: np.ndarray) -> np.ndarray:
    """Linear light `[n, 3]` of floor and wall, with the object's shadow on them."""
    distance, is_wall = room.meet(directions)
    points = room.position + distance[:, None] * directions
    sunny = room.brightness * (1 - shadow_on(stage, points, lamps))
    x, y, z = np.ascontiguousarray(points.T)
    light = np.empty((3, len(points)), np.float32)  # colours first: long rows are much faster than rows of three
    if is_wall.any():
        along = room.wall_normal[2] * x[is_wall] - room.wall_normal[0] * z[is_wall]
        colour = wall(room.wall_kind, room.wall_look, along, y[is_wall])
        light[:, is_wall] = matt(room, colour, room.wall_normal, sunny[is_wall], 0.8 + 0.2 * step(y[is_wall], 0, 0.3))
    is_floor = ~is_wall
    if is_floor.any():
        x, z = x[is_floor], z[is_floor]
        reach = float(np.linalg.norm(stage.mesh.extent()[[0, 2]])) / 2
        open_sky = 1 - 0.55 * np.exp((x * x + z * z) / -((0.75 * reach) ** 2))  # under the object little light arrives
        colour = floor(room.floor_kind, room.floor_look, x, z)
        light[:, is_floor] = matt(room, colour, np.array([0, 1, 0]), sunny[is_floor], open_sky)
    return light.T


def matt(room: Room, colour: np.ndarray, normal: np.ndarray, sunny: np.ndarray, open_sky: np.ndarray) -> np.ndarray:
    """Linear light `[3, n]` of a matt plane of some `colour` `[3, n]`, under the lamp where it is `sunny` and the open sky."""
    direct, sky = sunny * np.float32(max(float(room.lamp @ normal), 0.12)), open_sky * np.float32(room.ambient * 1.3)
    return colour * (WARM[:, None] * direct + COOL[:, None] * sky)


def shadow_on(stage: Stage, points: np.ndarray, lamps: np.ndarray) -> np.ndarray:
    """1 where the object hides the lamp; asked only of points from which the lamp's ray passes near the object."""
    extent = stage.mesh.extent()
    away = points - np.array([0, extent[1] / 2, 0], np.float32)
    near = dot(away, away) - dot(away, lamps) ** 2 < dot(extent, extent) / 4
    shadow = np.zeros(len(points), np.float32)
    rays = np.flatnonzero(near)
    if len(rays):
        shadow[rays] = stage.hidden(points[rays], lamps[rays])
    return shadow


def shaded(
    stage: Stage, room: Room, hits: Hits, directions: np.ndarray, lamps: np.ndarray, behind: np.ndarray, side: int
) -> np.ndarray:
    """Linear light `[n, 3]` that the object sends along the rays that meet it."""
    finish = MATERIALS[stage.thing.material].finish
    own_points, own_normals = stage.own(hits.points, hits.normals)
    surface = texture(stage.thing.material, stage.look, own_points, own_normals)
    normals = hits.normals
    if surface.tilt is not None:
        normals = unit(normals + surface.tilt @ stage.turned.T)
    view = -unit(directions)
    facing = dot(normals, view).clip(0, 1)
    gloss = 1.0 if surface.gloss is None else surface.gloss
    sunny = 1 - stage.hidden(hits.points + hits.normals * (2e-3 * stage.thing.size), lamps).astype(np.float32)
    toward = dot(normals, lamps)
    direct = room.brightness * sunny * toward.clip(0)
    height = hits.points[:, 1] / stage.mesh.extent()[1]
    floor_light = room.floor_look.base * (room.brightness * 0.45)
    up = (0.5 + 0.5 * normals[:, 1])[:, None]
    sky = room.ambient * (0.75 + 0.25 * height[:, None])
    diffuse = surface.colour * (direct[:, None] * WARM + sky * (up * COOL * 1.35 + (1 - up) * floor_light * 1.2))
    schlick = (1 - facing) ** 5
    mirror = (finish.mirror + (1 - finish.mirror) * finish.rim * schlick) * gloss
    mirrored = _surroundings(room, 2 * facing[:, None] * normals - view, _apart(stage, hits.points))
    half = unit(lamps + view)
    highlight = finish.highlight * gloss * sunny * dot(normals, half).clip(0) ** finish.sharpness * (toward > 0)
    tint = surface.colour if finish.tinted else np.float32(1.0)
    through = diffuse
    if finish.clear:
        seen = _through(stage, room, hits, normals, directions, surface.colour, behind, side)
        through = seen * finish.clear + diffuse * (1 - finish.clear)
    light = through * (1 - mirror)[:, None] + mirror[:, None] * mirrored * tint
    light += (room.brightness * highlight)[:, None] * tint * WARM
    if finish.sheen:
        rim = finish.sheen * (1 - facing) ** 2 * (0.35 + 0.65 * direct)
        light += rim[:, None] * (0.5 * surface.colour + 0.08)
    return light


def _through(
    stage: Stage,
    room: Room,
    hits: Hits,
    normals: np.ndarray,
    directions: np.ndarray,
    colour: np.ndarray,
    behind: np.ndarray,
    side: int,
) -> np.ndarray:
    """What is seen through glass: the background, displaced as by a lens, darker the longer the way and mirrored at the back."""
    view = -unit(directions)
    facing = dot(normals, view).clip(0, 1)
    row, column = np.divmod(hits.rays, side)
    shift = -0.16 * side * (1 - facing)
    across, upward = normals @ room.axes[0].astype(np.float32), normals @ room.axes[1].astype(np.float32)
    column = (column + shift * across).astype(np.int64).clip(0, side - 1)
    row = (row - shift * upward).astype(np.int64).clip(0, side - 1)
    back = stage.cast(hits.points + directions * np.float32(0.004 * stage.thing.size), directions)
    way, glint = np.zeros(len(directions), np.float32), np.zeros((len(directions), 3), np.float32)
    way[back.rays] = back.distance * np.linalg.norm(directions[back.rays], axis=1) / stage.thing.size
    inner = dot(back.normals, view[back.rays]).clip(0, 1)
    mirrored = _surroundings(room, 2 * inner[:, None] * back.normals - view[back.rays], _apart(stage, back.points))
    glint[back.rays] = (0.05 + 0.6 * (1 - inner[:, None]) ** 4) * mirrored * colour[back.rays]
    clear = colour ** (0.5 + 1.6 * np.minimum(way, 0.8) + 0.8 * (1 - facing))[:, None]
    dark = 1 - 0.45 * step(1 - facing, 0.45, 0.95)
    return behind[row * side + column] * clear * dark[:, None] + glint


def _apart(stage: Stage, points: np.ndarray) -> np.ndarray:
    """Where points lie in the object, -1 to 1: a mirror as large as its room shows another part of it at every place."""
    extent = stage.mesh.extent()
    return (points - np.array([0, extent[1] / 2, 0], np.float32)) * np.float32(0.9 / extent.max())


def _surroundings(room: Room, directions: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Linear light `[n, 3]` that a mirror at a place `apart` from the middle sees: floor, ceiling, window, a lit strip."""
    directions = unit(directions + apart)
    up = directions[:, 1]
    horizon, ceiling = room.wall_look.base * 0.22, np.array([1.15, 1.18, 1.22], np.float32)
    light = horizon + (ceiling - horizon) * step(up, 0.05, 0.8)[:, None]
    below = room.floor_look.base * 0.55
    light = light + (below - light) * step(-up, -0.02, 0.1)[:, None] * (0.55 + 0.45 * step(-up, 0.1, 0.9))[:, None]
    side = unit(np.cross([0, 1, 0], room.lamp)).astype(np.float32)
    toward, beside = directions @ room.lamp, directions @ side
    window = step(toward, 0.55, 0.65) * step(np.abs(beside), 0.32, 0.26) * step(np.abs(up - room.lamp[1]), 0.30, 0.25)
    frame = step(np.abs(beside), 0.012, 0.03) * step(np.abs(up - room.lamp[1]), 0.012, 0.03)
    light += (room.brightness * 2.2 * window * frame)[:, None]
    # A long lamp on one side and a dark curtain on the other draw the bright and dark lines along polished bodies.
    level = step(up, -0.75, -0.55) * step(up, 0.85, 0.6)
    strip, curtain = (step(np.abs(beside - at), 0.2, 0.13) * level for at in (0.52, -0.42))
    return light * (1 - 0.65 * curtain)[:, None] + (0.95 * strip)[:, None]
