"""The Toybox's generators, trained and measured: the host that talks about pictures and the painter that draws them.

    train_generators("runs/toybox", vitlens.load("vitlens-toybox"))

Both see pictures only. Then every other sensor's lens is plugged in as it is, and what comes out is judged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.adapters.chat.instructblip import Look
from vitlens.adapters.generate.decoders import Decoder
from vitlens.benchmarks.toybox.demo.describe import Described, describe_split, talking_host
from vitlens.benchmarks.toybox.demo.evaluate import HELD_OUT
from vitlens.benchmarks.toybox.demo.paint import Painted, paint_split, painting_decoder
from vitlens.benchmarks.toybox.sensors.catalogue import SENSORS
from vitlens.benchmarks.toybox.sensors.drawn import Drawn, draw
from vitlens.benchmarks.toybox.training.card import generators_card
from vitlens.benchmarks.toybox.training.host import HostRecipe, save_host, train_host
from vitlens.benchmarks.toybox.training.painter import PainterRecipe, save_painter, train_painter
from vitlens.benchmarks.toybox.world.objects import Split, World
from vitlens.disk import atomic
from vitlens.errors import OptionError
from vitlens.model import ViTLens

PAINTED: dict[Split, int] = {"test": 196, "unseen_pairs": 84, "unseen_shapes": 100}
"""Objects of each split that are painted: a picture takes a while."""
SHIPPED = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True)
class GeneratorsRecipe:
    """Numbers of both trainings; the pictures are those of the CLIP."""

    objects: int = 24_000
    clip_only: int = 4_000
    host: HostRecipe = field(default_factory=HostRecipe)
    painter: PainterRecipe = field(default_factory=PainterRecipe)
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.objects, self.clip_only) < 1:
            raise OptionError("toybox: objects and clip_only must be 1 or more")


@dataclass(frozen=True)
class Generated:
    """What was measured of both."""

    described: list[Described]
    painted: list[Painted]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Generated:
        """The inverse of `to_dict`."""
        return cls([Described(**row) for row in values["described"]], [Painted(**row) for row in values["painted"]])


def train_generators(
    folder: str | os.PathLike[str],
    model: ViTLens,
    recipe: GeneratorsRecipe | None = None,
    *,
    counts: Mapping[Split, int] | None = None,
    workers: int = 2,
) -> Generated:
    """Train host and painter in `folder`, or go on there; leaves `folder`/generators with both, and what was measured.

    Raises:
        OptionError: the folder holds a training with other numbers.
    """
    recipe, home = recipe or GeneratorsRecipe(), Path(folder)
    world, result = World(recipe.seed), home / "generators"
    splits: dict[Split, int] = {"train": recipe.objects, "clip_only": recipe.clip_only}
    drawn = [draw(home / "drawn", world, split, count, ["image"], workers=workers) for split, count in splits.items()]
    pictures, things = _pictures(drawn), [thing for part in drawn for thing in part.things]
    if not (result / "host" / "model.safetensors").is_file():
        save_host(result / "host", *train_host(home / "host", model, pictures, things, recipe.host))
    if not (result / "painter" / "config.json").is_file():
        save_painter(result / "painter", train_painter(home / "painter", model, pictures, recipe.painter))
    found = measure_generators(home / "drawn", model, result, world=world, counts=counts, workers=workers)
    with atomic(result / "generators.json") as part:
        part.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    with atomic(result / "generators.md") as part:
        part.write_text(generators_card(recipe, found), encoding="utf-8")
    return found


def measure_generators(
    folder: Path,
    model: ViTLens,
    weights: Path,
    *,
    world: World | None = None,
    counts: Mapping[Split, int] | None = None,
    workers: int = 2,
) -> Generated:
    """Judge what host and painter (in `weights`) make of every sensor's held-out objects, drawn into `folder`."""
    looks: tuple[Look, ...] = ("class_token", "all")
    hosts = {look: talking_host(model, weights / "host", look=look) for look in looks}
    decoder = painting_decoder(model, weights / "painter")
    sensors = [name for name in SENSORS if model.supports(name)]
    found = Generated([], [])
    for split, count in (counts or HELD_OUT).items():
        drawn = draw(folder, world or World(), split, count, sensors, workers=workers)
        for look, host in hosts.items():
            found.described.extend(describe_split(host, drawn, split, look=look))
        found.painted.extend(painted(decoder, model, drawn, split))
    return found


def painted(decoder: Decoder, model: ViTLens, drawn: Drawn, split: Split) -> list[Painted]:
    """The painter's part of a split, on its first objects."""
    things = drawn.things[: PAINTED[split]]
    sensors = [name for name in SENSORS if model.supports(name)]
    items = {name: drawn.column(name)[: len(things)] for name in sensors}
    return paint_split(decoder, model, model.encode(items, batch_size=128), things, split, mixtures=split == "test")


def _pictures(drawn: list[Drawn]) -> np.ndarray:
    return np.concatenate([array for part in drawn for array in part.arrays["image"]])
