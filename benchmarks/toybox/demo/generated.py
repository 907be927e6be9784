"""What hosts and painter make of every sensor's held-out objects, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitlens.adapters.chat.host import ChatHost
from vitlens.adapters.generate.decoders import Decoder
from vitlens.adapters.seed.llama import SeedLlamaAdapter
from vitlens.benchmarks.toybox.demo.compose import SHIPPED as SEED
from vitlens.benchmarks.toybox.demo.compose import (
    Composed,
    compose_split,
    describe_codes,
    has_seed,
    seed_adapter,
    sensed,
    tell_split,
)
from vitlens.benchmarks.toybox.demo.describe import Described, Reads, describe_split, shipped_hosts, talking_host, talking_llava
from vitlens.benchmarks.toybox.demo.evaluate import HELD_OUT
from vitlens.benchmarks.toybox.demo.lookup import Lookup
from vitlens.benchmarks.toybox.demo.paint import SHIPPED as PAINTER
from vitlens.benchmarks.toybox.demo.paint import Painted, paint_split, painting_decoder
from vitlens.benchmarks.toybox.sensors.catalogue import SENSORS
from vitlens.benchmarks.toybox.sensors.drawn import Drawn, draw
from vitlens.benchmarks.toybox.training.host import HostKind
from vitlens.benchmarks.toybox.training.seed_networks import SeedRecipe
from vitlens.benchmarks.toybox.world.objects import Split, World
from vitlens.model import ViTLens

PAINTED: dict[Split, int] = {"test": 196, "unseen_pairs": 84, "unseen_shapes": 100}
"""Objects of each split that are painted: a picture takes a while."""
COMPOSED = 98
"""Objects that pictures are made of by a SEED-LLaMA, in each of its tasks."""
KNOWN = SeedRecipe().known
"""Training pictures that a SEED-LLaMA looks things up in."""


@dataclass(frozen=True)
class Generated:
    """What was measured of them."""

    described: list[Described]
    painted: list[Painted]
    composed: list[Composed]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Generated:
        """The inverse of `to_dict`."""
        return cls(
            [Described(**row) for row in values["described"]],
            [Painted(**row) for row in values["painted"]],
            [Composed(**row) for row in values.get("composed", ())],
        )


def measure_generators(
    folder: Path,
    model: ViTLens,
    *,
    hosts: Mapping[HostKind, Path] | None = None,
    seed: Path = SEED,
    painter: Path = PAINTER,
    world: World | None = None,
    counts: Mapping[Split, int] | None = None,
    workers: int = 2,
) -> Generated:
    """Judge what hosts and painter make of every sensor's held-out objects, drawn into `folder`.

    `hosts` in their folders take the place of the shipped ones; a kind of host that is nowhere is left out, as is a SEED.
    """
    world = world or World()
    places = {**shipped_hosts(), **(hosts or {})}
    talking: dict[Reads, ChatHost] = {}
    if "instructblip" in places:
        talking |= {look: talking_host(model, places["instructblip"], look=look) for look in ("class_token", "all")}
    if "llava" in places:
        talking["patches"] = talking_llava(model, places["llava"])
    decoder = painting_decoder(model, painter)
    adapter = seed_adapter(model, seed) if has_seed(seed) else None
    sensors = [name for name in SENSORS if model.supports(name)]
    lookups = (None, _lookup(folder, adapter, model, world, workers)) if adapter is not None else ()
    found = Generated([], [], [])
    for split, count in (counts or HELD_OUT).items():
        drawn = draw(folder, world, split, count, sensors, workers=workers)
        for reads, host in talking.items():
            found.described.extend(describe_split(host, drawn, split, look=reads))
        found.painted.extend(painted(decoder, model, drawn, split))
        if adapter is not None:
            codes = {name: sensed(adapter, drawn, name) for name in sensors}
            first = {name: own[:COMPOSED] for name, own in codes.items()}
            for lookup in lookups:
                found.described.extend(describe_codes(adapter, codes, drawn, split, lookup=lookup))
                found.described.extend(tell_split(adapter, codes, drawn, split, lookup=lookup))
                if split == "test":
                    found.composed.extend(compose_split(adapter, decoder, model, first, drawn, world, lookup=lookup))
    return found


def painted(decoder: Decoder, model: ViTLens, drawn: Drawn, split: Split) -> list[Painted]:
    """The painter's part of a split, on its first objects."""
    things = drawn.things[: PAINTED[split]]
    sensors = [name for name in SENSORS if model.supports(name)]
    items = {name: drawn.column(name)[: len(things)] for name in sensors}
    return paint_split(decoder, model, model.encode(items, batch_size=128), things, split, mixtures=split == "test")


def _lookup(folder: Path, adapter: SeedLlamaAdapter, model: ViTLens, world: World, workers: int) -> Lookup:
    """The pictures that a SEED-LLaMA looks things up in."""
    known = draw(folder, world, "train", KNOWN, ["image"], workers=workers)
    return Lookup(model, known, sensed(adapter, known, "image"))
