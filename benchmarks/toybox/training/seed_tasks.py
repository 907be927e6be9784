"""What the Toybox's SEED is told and asked: words about pictures, pictures of words, edits, compositions, stories.

An edit changes an object's colour or what it is made of; shape, form, pose and room stay. The changed object is drawn as any
other: `EditedWorld` is the same world after one edit of every object.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from vitlens.benchmarks.toybox.world.captions import TEMPLATES as CAPTIONS
from vitlens.benchmarks.toybox.world.materials import MATERIALS
from vitlens.benchmarks.toybox.world.objects import Split, ToyObject, World

DRAW = ("draw {}", "show me {}", "a picture of {}")
"""Ways to ask for a picture of what a caption says."""
RECOLOUR = ("make it {colour}", "change its colour to {colour}")
REMAKE = ("make it of {material}", "change it to {material}", "make it of {colour} {material}")
COMPOSE = ("the first made of the second", "show the first in the material of the second")
"""Of two pictures: the first thing, made of what the second is made of."""
TELL = ("tell a story of these things", "what came after what?")
"""Of three pictures."""
STORY = ("first {}", "then {}", "at last {}")
"""What is replied: one thing after the other, with a comma between."""
_ADJECTIVES = tuple(material.adjective for material in MATERIALS.values())
_LINES = (*DRAW, *RECOLOUR, *REMAKE, *COMPOSE, *TELL, *STORY, *CAPTIONS, *_ADJECTIVES, "user: assistant: an ,")
WORDS = tuple(re.sub(r"{\w*}", " ", line) for line in _LINES)
"""Lines that hold all words of instructions, beside what an object may be called."""


@dataclass(frozen=True)
class Edit:
    """An instruction and the object that comes of it."""

    asked: tuple[str, ...]
    """Ways to say it."""
    thing: ToyObject


def edit_of(thing: ToyObject, world: World) -> Edit:
    """The one edit of an object that follows from its seed: in half of the cases of its colour, else of its material.

    What comes of it is a pair of shape and material that the CLIP was trained on.
    """
    chance = thing.rng("edit")
    colours = [colour for colour in MATERIALS[thing.material].colours if colour != thing.colour]
    if chance.integers(2):
        changed = replace(thing, colour=colours[chance.integers(len(colours))])
        return Edit(tuple(line.format(colour=changed.colour) for line in RECOLOUR), changed)
    others = [name for name in _materials(world, thing.shape) if name != thing.material]
    material = others[chance.integers(len(others))]
    colours = list(MATERIALS[material].colours)
    changed = replace(thing, material=material, colour=colours[chance.integers(len(colours))])
    return Edit(tuple(line.format(colour=changed.colour, material=material) for line in REMAKE), changed)


@cache
def _materials(world: World, shape: str) -> list[str]:
    """The materials in which the CLIP has seen a shape."""
    seen = world.pairs("train") | world.pairs("clip_only")
    return [name for name in MATERIALS if (shape, name) in seen]


class EditedWorld(World):
    """The objects of a world, each after its edit."""

    def object(self, split: Split, index: int) -> ToyObject:
        return edit_of(super().object(split, index), self).thing


def donors(things: Sequence[ToyObject]) -> dict[tuple[str, str], list[int]]:
    """(material, colour) -> numbers of the things that have them: what another thing may take its material from."""
    found: dict[tuple[str, str], list[int]] = {}
    for number, thing in enumerate(things):
        found.setdefault((thing.material, thing.colour), []).append(number)
    return found
