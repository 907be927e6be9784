"""The Toybox world: which objects there are, and which splits they belong to.

Object i of a split depends on (world seed, split, i) alone: any object can be made by itself, in any order, and is the same
however many are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

from vitlens import checks
from vitlens.benchmarks.toybox.world.captions import TEMPLATES, describe
from vitlens.benchmarks.toybox.world.materials import MATERIALS
from vitlens.benchmarks.toybox.world.shapes import SHAPES
from vitlens.errors import OptionError

Split = Literal["train", "clip_only", "validation", "test", "unseen_pairs", "unseen_shapes"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHAPE_NAMES = tuple(SHAPES)
MATERIAL_NAMES = tuple(MATERIALS)
SIZES = {"small": (0.20, 0.28), "medium": (0.40, 0.50), "large": (0.70, 0.85)}
"""Largest extent of an object in metres, by the word for it."""
_PURPOSES = (
    "object",
    "form",
    "look",
    "room",
    "text",
    "image",
    "point_cloud",
    "depth",
    "tactile",
    "audio",
    "eeg",
    "order",
    "pairs",
    "thermal",
    "imu",
    "pressure",
    "edit",
)
"""What a random stream is for. A new one is put at the end, so that the others stay as they are."""


@dataclass(frozen=True)
class ToyObject:
    """One object: what it is, and the seed of everything random about it."""

    id: str
    split: Split
    index: int
    shape: str
    material: str
    colour: str
    size_word: str
    size: float
    """Largest extent in metres."""
    yaw: float
    """Radians by which it is turned about the vertical."""
    world_seed: int

    @property
    def shape_id(self) -> int:
        """Class label of the shape, 0 to 31."""
        return SHAPE_NAMES.index(self.shape)

    @property
    def material_id(self) -> int:
        """Class label of the material, 0 to 7."""
        return MATERIAL_NAMES.index(self.material)

    @property
    def caption(self) -> str:
        """A sentence that names shape and material: of one of `TEMPLATES`, always the same one."""
        return describe(self, TEMPLATES[int(self.rng("text").integers(len(TEMPLATES)))])

    def rng(self, purpose: str, number: int = 0) -> Generator:
        """The random stream of one purpose (a sensor, a property); `number` counts repeated measurements."""
        return _rng(self.world_seed, SPLITS.index(self.split), self.index, _PURPOSES.index(purpose), number)


def _rng(*key: int) -> Generator:
    return Generator(PCG64(SeedSequence(key)))


@dataclass(frozen=True)
class World:
    """All objects of one seed.

    Splits: "train" is seen by the CLIP and by the lenses, "clip_only" (objects of the shapes of that name) by the CLIP alone;
    "validation" and "test" hold new objects of the pairs in "train"; "unseen_pairs" pairs of shape and material that are in no
    training split; "unseen_shapes" new objects of the `clip_only` shapes, which no lens has seen.
    """

    seed: int = 0
    clip_only: tuple[str, ...] = ("stool", "goblet", "snowman", "dumbbell", "tree")
    held_out: int = 1
    """Materials per shape that are kept for "unseen_pairs"."""

    def __post_init__(self) -> None:
        checks.whole("toybox: seed", self.seed, least=0)
        checks.known("toybox: unknown shapes", self.clip_only, SHAPE_NAMES)
        if len(set(self.clip_only)) == len(SHAPE_NAMES):
            raise OptionError("toybox: clip_only must leave some shapes for the lenses")
        checks.whole("toybox: held_out", self.held_out, least=1, most=len(MATERIAL_NAMES) - 1)

    @cached_property
    def _pairs(self) -> dict[str, dict[str, list[str]]]:
        """Split -> shape -> its materials, in the order in which the split goes through them."""
        table: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
        seen = [shape for shape in SHAPE_NAMES if shape not in self.clip_only]
        order = _rng(self.seed, 0, 0, _PURPOSES.index("pairs"), 0)
        kept = np.concatenate([order.permutation(8) for _ in range(len(seen) // 8 + 1)])
        for place, shape in enumerate(seen):
            out = {int(kept[place] + 3 * k) % 8 for k in range(self.held_out)}
            # Rotated and not shuffled: one round over all shapes holds all materials about equally often.
            rest = [m for m in np.roll(np.arange(8), -place) if m not in out]
            for split in ("train", "validation", "test"):
                table[split][shape] = [MATERIAL_NAMES[m] for m in rest]
            table["unseen_pairs"][shape] = [MATERIAL_NAMES[m] for m in sorted(out)]
        for place, shape in enumerate(self.clip_only):
            for split in ("clip_only", "unseen_shapes"):
                table[split][shape] = [MATERIAL_NAMES[m] for m in np.roll(np.arange(8), -place)]
        return table

    def shapes(self, split: Split) -> tuple[str, ...]:
        """The shapes of a split, in the order of their labels."""
        return tuple(shape for shape in SHAPE_NAMES if shape in self._pairs[_checked(split)])

    def pairs(self, split: Split) -> set[tuple[str, str]]:
        """The pairs of shape and material that occur in a split."""
        return {(shape, material) for shape, found in self._pairs[_checked(split)].items() for material in found}

    def object(self, split: Split, index: int) -> ToyObject:
        """Object number `index` of a split.

        Every round over the shapes of a split holds each shape once; every round over a shape's materials each of them once.

        Raises:
            OptionError: no such split, or a negative index.
        """
        if index < 0:
            raise OptionError(f"toybox: objects count from 0, found {index}")
        materials = self._pairs[_checked(split)]
        round_number, place = divmod(index, len(materials))
        order = _rng(self.seed, SPLITS.index(split), round_number, _PURPOSES.index("order"), 0).permutation(len(materials))
        shape = list(materials)[order[place]]
        material = materials[shape][round_number % len(materials[shape])]
        rng = _rng(self.seed, SPLITS.index(split), index, _PURPOSES.index("object"), 0)
        colours, words = list(MATERIALS[material].colours), list(SIZES)
        colour, word = colours[rng.integers(len(colours))], words[rng.integers(len(words))]
        turn = np.deg2rad(SHAPES[shape].turn)
        return ToyObject(
            id=f"{split}-{index:06d}",
            split=split,
            index=index,
            shape=shape,
            material=material,
            colour=colour,
            size_word=word,
            size=float(rng.uniform(*SIZES[word])),
            yaw=float(rng.uniform(-turn, turn)),
            world_seed=self.seed,
        )

    def objects(self, split: Split, count: int) -> list[ToyObject]:
        """The first `count` objects of a split."""
        return [self.object(split, index) for index in range(count)]


def _checked(split: str) -> str:
    checks.known("toybox: unknown split", [split], SPLITS)
    return split
