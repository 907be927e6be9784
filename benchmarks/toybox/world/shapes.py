"""The Toybox's shapes in one table: how each is built, how it rings, and from where it can be recognised.

The order is that of the class labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from numpy.random import Generator

from vitlens.benchmarks.toybox.world import bodies, things
from vitlens.benchmarks.toybox.world.primitives import Mesh

Body = Literal["solid", "bar", "plate", "shell"]
"""How a body rings: as a block, as bending bars, as bending plates, or as a curved shell."""


@dataclass(frozen=True)
class Shape:
    """One class of shapes; it is seen turned by at most `turn` degrees from its front, so that it can be recognised."""

    name: str
    form: Callable[[Generator], Mesh]
    body: Body
    turn: float = 180


SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("ball", bodies.build_ball, "solid"),
        Shape("cube", bodies.build_cube, "solid"),
        Shape("cylinder", bodies.build_cylinder, "solid"),
        Shape("cone", bodies.build_cone, "solid"),
        Shape("ring", bodies.build_ring, "solid", turn=55),
        Shape("pyramid", bodies.build_pyramid, "solid"),
        Shape("cross", bodies.build_cross, "solid", turn=55),
        Shape("star", bodies.build_star, "plate", turn=55),
        Shape("arch", bodies.build_arch, "solid", turn=55),
        Shape("staircase", bodies.build_staircase, "solid", turn=75),
        Shape("wheel", bodies.build_wheel, "plate", turn=55),
        Shape("chair", things.build_chair, "bar", turn=140),
        Shape("table", things.build_table, "plate"),
        Shape("stool", things.build_stool, "bar"),
        Shape("bench", things.build_bench, "plate", turn=75),
        Shape("bookshelf", things.build_bookshelf, "plate", turn=55),
        Shape("lamp", things.build_lamp, "shell"),
        Shape("ladder", things.build_ladder, "bar", turn=55),
        Shape("tower", things.build_tower, "solid"),
        Shape("mug", bodies.build_mug, "shell", turn=110),
        Shape("bottle", bodies.build_bottle, "shell"),
        Shape("bowl", bodies.build_bowl, "shell"),
        Shape("vase", bodies.build_vase, "shell"),
        Shape("goblet", bodies.build_goblet, "shell"),
        Shape("hammer", things.build_hammer, "bar", turn=55),
        Shape("dumbbell", things.build_dumbbell, "bar", turn=60),
        Shape("key", things.build_key, "bar", turn=55),
        Shape("mushroom", things.build_mushroom, "solid"),
        Shape("rocket", things.build_rocket, "shell"),
        Shape("umbrella", things.build_umbrella, "plate"),
        Shape("snowman", things.build_snowman, "solid"),
        Shape("airplane", things.build_airplane, "shell", turn=60),
        Shape("tree", things.build_tree, "solid"),
    )
}


def build(name: str, rng: Generator) -> Mesh:
    """A mesh of shape `name`: largest extent 1, lowest point at y = 0, its box centred on the y axis."""
    mesh = SHAPES[name].form(rng)
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    middle = (low + high) / 2
    scale = float(1 / (high - low).max())
    return mesh.move(-middle[0], -low[1], -middle[2]).stretch(scale, scale, scale)
