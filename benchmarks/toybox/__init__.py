"""The Toybox: a procedural world of 33 shapes in 8 materials that every sensor can measure, made from a seed.

world = World(seed=0)
arrays = observe(world.object("train", 7))              # in memory, by modality
manifests = make_toybox("toybox", objects=2000, workers=2)  # as files that the modalities read
"""

from __future__ import annotations

from vitlens.benchmarks.toybox.sensors.catalogue import SENSORS, Detail, as_items, observe
from vitlens.benchmarks.toybox.sensors.make import make_toybox
from vitlens.benchmarks.toybox.world.materials import MATERIALS
from vitlens.benchmarks.toybox.world.objects import SPLITS, ToyObject, World
from vitlens.benchmarks.toybox.world.shapes import SHAPES
from vitlens.benchmarks.toybox.world.stage import Stage

__all__ = [
    "MATERIALS",
    "SENSORS",
    "SHAPES",
    "SPLITS",
    "Detail",
    "Stage",
    "ToyObject",
    "World",
    "as_items",
    "make_toybox",
    "observe",
]
