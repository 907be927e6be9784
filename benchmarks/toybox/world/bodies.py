"""How the Toybox's plain bodies and vessels are built. Each function draws proportions of its own; units are free."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from vitlens.benchmarks.toybox.world.primitives import (
    Mesh,
    arc,
    around,
    ball,
    band,
    box,
    cylinder,
    dot,
    join,
    lathe,
    prism,
    torus,
    tube,
    unit,
)


def build_ball(rng: Generator) -> Mesh:
    return ball(1, rng.uniform(0.92, 1))


def build_cube(rng: Generator) -> Mesh:
    return box(*rng.uniform(0.88, 1, 3))


def build_cylinder(rng: Generator) -> Mesh:
    return cylinder(1, rng.uniform(1.9, 3.2))


def build_cone(rng: Generator) -> Mesh:
    return cylinder(1, rng.uniform(1.8, 2.8), top=0)


def build_ring(rng: Generator) -> Mesh:
    thickness = rng.uniform(0.2, 0.36)
    return torus(1, thickness).turn("x", 90 - rng.uniform(0, 25))


def build_pyramid(rng: Generator) -> Mesh:
    height = rng.uniform(1.1, 1.6)
    body = lathe([(0, 0), (np.sqrt(2), 0), (0, height)], segments=4).turn("y", 45)
    # Flat sides: every corner of a face takes the face's own normal.
    points = body.vertices[body.faces.reshape(-1)]
    a, b, c = points.reshape(-1, 3, 3).transpose(1, 0, 2)
    normals = unit(np.cross(b - a, c - a))
    normals *= np.sign(dot(normals, (a + b + c) / 3 - np.array([0, height / 4, 0])))[:, None]
    return Mesh(points, np.repeat(normals, 3, axis=0).astype(np.float32), np.arange(len(points), dtype=np.uint32).reshape(-1, 3))


def build_cross(rng: Generator) -> Mesh:
    arm, bar, at = rng.uniform(0.24, 0.34), rng.uniform(1.1, 1.4), rng.uniform(1.0, 1.15)
    return join([box(arm, 2, arm), box(bar, arm, arm * 0.99).move(y=at)])


def build_star(rng: Generator) -> Mesh:
    inner, depth = rng.uniform(0.4, 0.5), rng.uniform(0.3, 0.5)
    outer = arc(1, 90, 450, 6)[:-1]
    notch = arc(inner, 126, 486, 6)[:-1]
    return prism([point for pair in zip(outer, notch, strict=True) for point in pair], depth)


def build_arch(rng: Generator) -> Mesh:
    inner, depth, leg = rng.uniform(0.5, 0.62), rng.uniform(0.4, 0.6), rng.uniform(0.35, 0.7)
    outside, inside = ([(r, -leg), *arc(r, 0, 180, 25), (-r, -leg)] for r in (1.0, inner))
    return band(outside, inside, depth)


def build_staircase(rng: Generator) -> Mesh:
    steps, width, rise = int(rng.integers(4, 6)), rng.uniform(0.9, 1.3), rng.uniform(0.24, 0.32)
    return join([box(width, rise * (i + 1), 0.3).move(z=-0.3 * i) for i in range(steps)])


def build_wheel(rng: Generator) -> Mesh:
    spokes, rim, depth = int(rng.integers(5, 9)), rng.uniform(0.1, 0.15), rng.uniform(0.16, 0.26)
    hub = cylinder(rng.uniform(0.16, 0.22), 0.3).move(y=-0.15)
    rods = [tube([(0, 0, 0), (x, 0, z)], 0.05) for x, z in around(spokes, 0.95)]
    tyre = lathe([(1 - rim, -depth / 2), (1, -depth / 2), (1, depth / 2), (1 - rim, depth / 2), (1 - rim, -depth / 2)], 48)
    return join([tyre, hub, *rods]).turn("x", 90)


def build_mug(rng: Generator) -> Mesh:
    height, wall, taper = rng.uniform(1.0, 1.25), 0.06, rng.uniform(0.88, 1)
    profile = [(0, 0), (0.5 * taper, 0), (0.5, height), (0.5 - wall, height), (0.5 * taper - wall, wall), (0, wall)]
    reach, size = rng.uniform(0.28, 0.36), rng.uniform(0.26, 0.34) * height
    loop = [(0.46 + reach * np.cos(a), height * 0.52 + size * np.sin(a), 0) for a in np.linspace(-np.pi / 2, np.pi / 2, 15)]
    return join([lathe(profile), tube(loop, 0.065)])


def build_bottle(rng: Generator) -> Mesh:
    radius, body, neck = rng.uniform(0.2, 0.25), rng.uniform(0.5, 0.62), rng.uniform(0.06, 0.075)
    shoulder = body + rng.uniform(0.1, 0.2)
    curve = [
        (neck + (radius - neck) * (0.5 + 0.5 * np.cos(t)), body + (shoulder - body) * t / np.pi) for t in np.linspace(0, np.pi, 9)
    ]
    lip = [(neck, 0.9), (neck * 1.35, 0.9), (neck * 1.35, 0.96), (neck * 0.6, 0.96), (neck * 0.6, 0.85), (0, 0.85)]
    return lathe([(0, 0), (radius, 0), *curve, *lip])


def build_bowl(rng: Generator) -> Mesh:
    deep, wall, foot = rng.uniform(0.62, 0.8), 0.06, rng.uniform(0.3, 0.4)
    outside = [(r, deep + deep * y) for r, y in arc(1, -80, 0, 14)]
    inside = [(r, deep + deep * y) for r, y in arc(1 - wall, 0, -90, 14)]
    return join([lathe([*outside, *inside]), lathe([(foot, -0.08), (foot * 1.02, 0.1)])])


def build_vase(rng: Generator) -> Mesh:
    belly, neck, lip, at = rng.uniform((0.36, 0.13, 0.22, 0.34), (0.44, 0.17, 0.3, 0.44))
    heights, radii = [0, at, 0.78, 1.0], [0.2, belly, neck, lip]
    y = np.linspace(0, 1, 25)
    # Smooth between the four radii: half a cosine each.
    place = np.clip(np.searchsorted(heights, y, side="right") - 1, 0, 2)
    low, high = np.take(heights, place), np.take(heights, place + 1)
    blend = 0.5 - 0.5 * np.cos(np.pi * (y - low) / (high - low))
    radius = np.take(radii, place) * (1 - blend) + np.take(radii, place + 1) * blend
    outside = [(float(r), float(h)) for r, h in zip(radius, y, strict=True)]
    inside = [(r - 0.03, h) for r, h in outside[:4:-1]]
    return lathe([(0, 0), *outside, *inside, (0, 0.2)])


def build_goblet(rng: Generator) -> Mesh:
    cup, stem, foot = rng.uniform((0.26, 0.36, 0.2), (0.32, 0.48, 0.26))
    deep = 0.95 - stem
    outside = [(cup * r, stem + deep * (1 + y)) for r, y in arc(1, -85, 0, 12)]
    inside = [((cup - 0.02) * r, stem + 0.03 + deep * (1 + y)) for r, y in arc(1, 0, -90, 12)]
    return lathe([(0, 0), (foot, 0), (foot, 0.02), (0.04, 0.06), (0.03, 0.12), (0.03, stem - 0.02), *outside, *inside])
