"""How the Toybox's furniture, tools and toys are built. Each function draws proportions of its own; units are free."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from vitlens.benchmarks.toybox.world.primitives import (
    Mesh,
    arc,
    around,
    ball,
    box,
    corners,
    cylinder,
    join,
    lathe,
    prism,
    torus,
    tube,
)


def build_chair(rng: Generator) -> Mesh:
    width, depth, seat, back = rng.uniform((0.42, 0.4, 0.42, 0.42), (0.52, 0.5, 0.5, 0.6))
    leg, thick, slats = rng.uniform(0.035, 0.055), rng.uniform(0.04, 0.07), int(rng.integers(0, 4))
    inset = (width - leg, depth - leg)
    parts = [box(width, thick, depth).move(y=seat)]
    parts += [box(leg, seat, leg).move(x, 0, z) for x, z in corners(*inset)]
    rear = -depth / 2 + leg / 2
    if slats == 0:
        parts += [box(width, back, leg).move(y=seat, z=rear)]
    else:
        parts += [box(leg, back, leg).move(side * inset[0] / 2, seat, rear) for side in (-1, 1)]
        parts += [box(width, 0.075, leg * 0.8).move(y=seat + back * (i + 1) / slats - 0.08, z=rear) for i in range(slats)]
    return join(parts)


def build_table(rng: Generator) -> Mesh:
    width, depth, height = rng.uniform((1.1, 0.65, 0.6), (1.4, 0.9, 0.75))
    leg, thick = rng.uniform(0.06, 0.09), rng.uniform(0.05, 0.08)
    legs = [box(leg, height, leg).move(x, 0, z) for x, z in corners(width - 2 * leg, depth - 2 * leg)]
    return join([box(width, thick, depth).move(y=height), *legs])


def build_stool(rng: Generator) -> Mesh:
    seat, height, splay = rng.uniform(0.19, 0.24), rng.uniform(0.5, 0.65), rng.uniform(1.0, 1.3)
    count, thick = int(rng.integers(3, 5)), rng.uniform(0.05, 0.08)
    feet, tops = around(count, seat * splay, 20), around(count, seat * 0.7, 20)
    legs = [tube([(x, 0, z), (u, height, w)], 0.025) for (x, z), (u, w) in zip(feet, tops, strict=True)]
    rung = torus(seat * (0.65 * splay + 0.25), 0.014).move(y=height * 0.35)
    return join([cylinder(seat, thick).move(y=height), rung, *legs])


def build_bench(rng: Generator) -> Mesh:
    width, depth, seat, back = rng.uniform((1.3, 0.38, 0.38, 0.34), (1.6, 0.46, 0.45, 0.44))
    planks = [box(width, 0.04, depth * 0.28).move(y=seat, z=depth * (i - 1) * 0.34) for i in range(3)]
    rail = [box(width, back * 0.36, 0.04).move(y=seat + back * y, z=-depth / 2) for y in (0.2, 0.68)]
    sides = [box(0.07, seat, depth).move(x=side * width * 0.42) for side in (-1, 1)]
    posts = [box(0.07, seat + back, 0.05).move(side * width * 0.42, 0, -depth / 2 - 0.03) for side in (-1, 1)]
    return join([*planks, *rail, *sides, *posts])


def build_bookshelf(rng: Generator) -> Mesh:
    width, depth, height, count = rng.uniform(0.6, 0.85), rng.uniform(0.28, 0.36), 1.3, int(rng.integers(3, 6))
    boards = [box(width, 0.045, depth).move(y=y) for y in np.linspace(0, height - 0.045, count + 1)]
    sides = [box(0.045, height, depth).move(x=side * width / 2) for side in (-1, 1)]
    return join([*boards, *sides, box(width, height, 0.02).move(z=-depth / 2 + 0.01)])


def build_lamp(rng: Generator) -> Mesh:
    shade, top, tall = rng.uniform(0.26, 0.34), rng.uniform(0.12, 0.2), rng.uniform(0.28, 0.36)
    stem = rng.uniform(0.5, 0.65)
    cover = lathe([(shade, stem), (top, stem + tall), (top - 0.015, stem + tall), (shade - 0.015, stem), (shade, stem)])
    foot = lathe([(0, 0), (0.2, 0), (0.2, 0.03), (0.05, 0.07), (0.03, 0.12)])
    return join([foot, tube([(0, 0.1, 0), (0, stem + tall * 0.9, 0)], 0.028), cover])


def build_ladder(rng: Generator) -> Mesh:
    width, rungs, rod = rng.uniform(0.36, 0.46), int(rng.integers(4, 7)), rng.uniform(0.026, 0.036)
    rails = [box(0.06, 1.2, 0.07).move(x=side * width / 2) for side in (-1, 1)]
    steps = [tube([(-width / 2, y, 0), (width / 2, y, 0)], rod) for y in np.linspace(0.14, 1.06, rungs)]
    return join([*rails, *steps]).turn("x", -rng.uniform(4, 16))


def build_tower(rng: Generator) -> Mesh:
    radius, height, teeth = rng.uniform(0.27, 0.34), rng.uniform(0.9, 1.2), int(rng.integers(6, 9))
    crown = radius * 1.25
    wall = lathe([(0, 0), (radius * 1.15, 0), (radius, 0.12), (radius, height), (crown, height + 0.08), (crown, height + 0.2)])
    floor = cylinder(crown, 0.02).move(y=height + 0.16)
    tooth = 2 * crown * np.sin(np.pi / teeth) * 0.62
    crest = [
        box(0.09, 0.16, tooth).move(x=crown - 0.045, y=height + 0.17).turn("y", angle)
        for angle in np.arange(teeth) * (360 / teeth)
    ]
    return join([wall, floor, *crest])


def build_hammer(rng: Generator) -> Mesh:
    head, thick, grip = rng.uniform(0.46, 0.6), rng.uniform(0.08, 0.1), rng.uniform(0.042, 0.055)
    handle = lathe([(0, 0), (grip * 1.3, 0), (grip * 1.1, 0.3), (grip * 0.85, 0.6), (grip * 0.85, 0.95), (0, 0.95)], 20)
    face = cylinder(thick * 1.25, 0.1).turn("z", 90).move(x=head / 2, y=0.86)
    bar = tube([(-head * 0.1, 0.86, 0), (head / 2 - 0.08, 0.86, 0)], thick * 0.8)
    peen = prism([(-head / 2, 0.84), (0, 0.86 - thick), (0, 0.86 + thick), (-head / 2, 0.88)], thick * 1.6)
    return join([handle, face, bar, peen])


def build_dumbbell(rng: Generator) -> Mesh:
    plate, thick, grip = rng.uniform(0.28, 0.36), rng.uniform(0.16, 0.24), rng.uniform(0.055, 0.08)
    outer = plate * rng.uniform(0.68, 0.85)
    weight = join([cylinder(plate, thick), cylinder(outer, thick * 0.6).move(y=thick)])
    ends = [weight.move(y=0.25), weight.move(y=0.25).turn("x", 180)]
    return join([*ends, cylinder(grip, 0.6).move(y=-0.3)]).turn("z", 90)


def build_key(rng: Generator) -> Mesh:
    bow, shaft = rng.uniform(0.2, 0.26), rng.uniform(0.045, 0.06)
    ring = torus(bow, 0.065).turn("x", 90).move(y=1.0)
    bits = [box(rng.uniform(0.18, 0.3), 0.085, 0.07).move(x=0.13, y=y) for y in (0.03, 0.2)]
    return join([tube([(0, 0, 0), (0, 1.0 - bow, 0)], shaft), ring, *bits])


def build_mushroom(rng: Generator) -> Mesh:
    cap, deep, stem, height = rng.uniform((0.44, 0.34, 0.13, 0.52), (0.54, 0.48, 0.18, 0.7))
    dome = [(cap * r, height + deep * y) for r, y in arc(1, 0, 90, 12)]
    return lathe([(0, 0), (stem * 1.25, 0), (stem, height * 0.4), (stem, height), (cap * 0.9, height - 0.05), *dome])


def build_rocket(rng: Generator) -> Mesh:
    radius, body, nose, fin = rng.uniform((0.12, 0.55, 0.3, 0.14), (0.15, 0.7, 0.42, 0.2))
    tip = [(radius * float(np.cos(t)) ** 0.8, 0.1 + body + nose * float(np.sin(t))) for t in np.linspace(0, np.pi / 2, 12)]
    hull = lathe([(0, 0.02), (radius * 0.75, 0.02), (radius * 0.7, 0.08), (radius, 0.2), *tip])
    outline = [(radius * 0.8, 0.1), (radius + fin, 0), (radius + fin, 0.16), (radius * 0.9, 0.42)]
    count = int(rng.integers(3, 5))
    return join([hull, *(prism(outline, 0.035).turn("y", 30 + angle) for angle in np.arange(count) * (360 / count))])


def build_umbrella(rng: Generator) -> Mesh:
    radius, deep, ribs = rng.uniform(0.55, 0.65), rng.uniform(0.26, 0.36), int(rng.integers(7, 10))
    canopy = [(radius * r, 0.75 + deep * y) for r, y in arc(1, 0, 90, 10)]
    under = [(radius * r, 0.735 + deep * y) for r, y in arc(1, 90, 0, 10)]
    spokes = [
        tube([(radius * r * x, 0.755 + deep * y, radius * r * z) for r, y in arc(1, 0, 90, 8)], 0.01, sides=5)
        for x, z in around(ribs, 1)
    ]
    hook = [(0.09 - 0.09 * np.cos(t), 0.09 - 0.09 * np.sin(t), 0) for t in np.linspace(0, np.pi, 11)]
    return join([lathe([*canopy, *under]), *spokes, tube([(0, 1.12, 0), *hook], 0.022)])


def build_snowman(rng: Generator) -> Mesh:
    middle, head = rng.uniform(0.27, 0.31), rng.uniform(0.18, 0.22)
    at = 0.68 + middle * 0.8
    top = at + (middle + head) * 0.8
    nose = cylinder(0.05, 0.22, top=0).turn("x", 90).move(y=top, z=head * 0.9)
    arms = [tube([(s * middle * 0.9, at, 0), (s * (middle + 0.22), at + 0.16, 0.05)], 0.026) for s in (-1, 1)]
    balls = [ball(0.4), ball(middle).move(y=at - middle), ball(head).move(y=top - head)]
    return join([*balls, nose, *arms])


def build_airplane(rng: Generator) -> Mesh:
    radius, span, sweep, chord = rng.uniform((0.075, 0.55, 0.1, 0.2), (0.1, 0.72, 0.26, 0.27))
    hull = lathe([(0, 0), (radius * 0.35, 0.02), (radius, 0.3), (radius, 0.82), (radius * 0.75, 0.93), (0, 1)]).turn("x", 90)

    def wing(reach: float, begin: float, root: float) -> Mesh:
        half = [
            (0.0, begin),
            (reach, begin - sweep * reach - root * 0.25),
            (reach, begin - sweep * reach - root * 0.75),
            (0.0, begin - root),
        ]
        flat = prism(half, 0.025).turn("x", 90)
        return join([flat, flat.stretch(x=-1)])

    tail = prism([(0.02, 0), (0.24, 0), (0.09, 0.24), (0.0, 0.24)], 0.025).turn("y", -90).move(y=radius * 0.6)
    plane = join([hull, wing(span, 0.66, chord), wing(0.24, 0.18, 0.14), tail])
    stand = join([tube([(0, -0.3, 0.5), (0, 0, 0.5)], 0.02), cylinder(0.14, 0.02).move(0, -0.31, 0.5)])
    return join([plane, stand]).turn("y", float(rng.choice([-90, 90])))


def build_tree(rng: Generator) -> Mesh:
    tiers, wide, trunk = int(rng.integers(3, 5)), rng.uniform(0.36, 0.44), rng.uniform(0.06, 0.09)
    height = 0.85 / tiers
    cones = [cylinder(wide * (1 - 0.72 * i / tiers), height * 1.7, top=0).move(y=0.2 + height * i) for i in range(tiers)]
    return join([cylinder(trunk, 0.25), *cones])
