"""The Toybox's SEED at work: what any sensor measured becomes codes, and codes become words, pictures, edits and compositions.

    adapter = seed_adapter(vitlens.load("vitlens-toybox"))
    adapter.edit({"point_cloud": "scan.ply"}, "make it of wood").pictures[0]

SEED-LLaMA's own adapter runs it. Tokenizer and LLaMA saw pictures and captions alone; the pictures that come out are the
painter's, and the Toybox's CLIP is their judge.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitlens.adapters.generate.decoders import Decoder
from vitlens.adapters.lenses import Lenses
from vitlens.adapters.seed.conversation import Reply
from vitlens.adapters.seed.llama import Message, SeedLlamaAdapter
from vitlens.benchmarks.toybox.demo.describe import WEIGHTS, Described, every_lens, naming_share
from vitlens.benchmarks.toybox.demo.lookup import Lookup
from vitlens.benchmarks.toybox.demo.paint import MIXTURES, mixed_with, paint, right_share
from vitlens.benchmarks.toybox.sensors.catalogue import as_items, observe
from vitlens.benchmarks.toybox.sensors.drawn import ASKED, LABELS, Drawn
from vitlens.benchmarks.toybox.training.host import QUESTIONS
from vitlens.benchmarks.toybox.training.seed_networks import TEMPLATE, load_quantizer
from vitlens.benchmarks.toybox.training.seed_tasks import COMPOSE, DRAW, TELL, Edit, edit_of
from vitlens.benchmarks.toybox.world.captions import TEMPLATES, describe, fill
from vitlens.benchmarks.toybox.world.materials import MATERIALS
from vitlens.benchmarks.toybox.world.objects import ToyObject, World
from vitlens.display.progress import track
from vitlens.model import ViTLens

SHIPPED = WEIGHTS / "seed"
SHAPED = ("image", "point_cloud", "depth")
"""Senses whose things are edited."""
COMPOSED = (("image", "image"), *MIXTURES)
"""The thing of the first sense is shown in the material of the second's."""
STORIES = (("image", "image", "image"), ("point_cloud", "audio", "tactile"), ("depth", "audio", "thermal"))
"""Three senses of three things, one after the other."""
OWN = "own picture"
"""In the place of a sense: the painter draws the wanted object from its own picture's embedding. No edit can do better."""


@dataclass(frozen=True)
class Composed:
    """Share of the pictures in which the Toybox's CLIP sees first what was asked for; and of a guess."""

    task: str
    """"codes": painted from codes; "words": a caption; "colour" and "material": edits; "composition"."""
    sensors: str
    """The sense it began with; two with "+" between them are a composition; `OWN`."""
    label: str
    items: int
    right: float
    chance: float
    neighbours: int = 0
    """How many of the nearest known things stood before the prompt."""


def seed_adapter(
    model: ViTLens,
    folder: str | os.PathLike[str] = SHIPPED,
    *,
    lenses: Lenses | None = None,
    pixels: Decoder | None = None,
    **sensing: Any,
) -> SeedLlamaAdapter:
    """The tiny SEED-LLaMA with all lenses of the Toybox model plugged in; `pixels` is the painter, where pictures are wanted.

    `lenses` come beside them, or in the place of those of their names; `sensing` are the adapter's other options.
    """
    return SeedLlamaAdapter.from_pretrained(
        os.fspath(folder),
        quantizer=load_quantizer(folder, model),
        lenses=every_lens(model, lenses),
        template=TEMPLATE,
        pixels=pixels,
        dtype=torch.float32,
        **sensing,
    )


def has_seed(folder: Path) -> bool:
    """Whether a folder holds a whole SEED."""
    return (folder / "config.json").is_file()


def sensed(adapter: SeedLlamaAdapter, drawn: Drawn, sensor: str, count: int | None = None) -> list[Tensor]:
    """The codes [q] of what a sensor measured of the first objects."""
    items = drawn.column(sensor)[:count]
    return [adapter.senses.codes({sensor: item})[0] for item in track(items, f"codes of {sensor}")]


def describe_codes(
    adapter: SeedLlamaAdapter, codes: dict[str, list[Tensor]], drawn: Drawn, split: str, *, lookup: Lookup | None = None
) -> list[Described]:
    """Ask about every sensor's codes of a split's objects; with `lookup` what is nearest stands before each question."""
    found, question = [], QUESTIONS["everything"][0][0]
    for sensor, own in codes.items():
        messages = _looked_up([[one, question] for one in own], adapter.quantizer.decode(torch.stack(own)), lookup)
        said = [reply.text for reply in converse(adapter, messages, max_images=0, max_new_tokens=16)]
        rows = [naming_share(said, drawn.things, label, sensor, "codes", split) for label in ASKED[sensor]]
        found += [replace(row, neighbours=_count(lookup)) for row in rows]
    return found


def tell_split(
    adapter: SeedLlamaAdapter, codes: dict[str, list[Tensor]], drawn: Drawn, split: str, *, lookup: Lookup | None = None
) -> list[Described]:
    """Ask for a story of three things that three senses measured, in `STORIES`: is each one named right in its place?"""
    found: list[Described] = []
    seconds = mixed_with(drawn.things)
    rows = [(first, second, seconds[second]) for first, second in enumerate(seconds)]
    for senses in [story for story in STORIES if set(story) <= set(codes)]:
        shown = [[codes[sensor][row] for sensor, row in zip(senses, own, strict=True)] for own in rows]
        about = torch.stack([F.normalize(adapter.quantizer.decode(torch.stack(own)), dim=-1).sum(dim=0) for own in shown])
        messages = _looked_up([[*own, TELL[0]] for own in shown], about, lookup)
        told = [reply.text.split(",") for reply in converse(adapter, messages, max_images=0, max_new_tokens=40)]
        for place, sensor in enumerate(senses):
            said = [clauses[place] if place < len(clauses) else "" for clauses in told]
            share = naming_share(
                said, [drawn.things[own[place]] for own in rows], LABELS[sensor], "+".join(senses), "story", split
            )
            found.append(replace(share, label=f"{place + 1}: {share.label}", neighbours=_count(lookup)))
    return found


def compose_split(
    adapter: SeedLlamaAdapter,
    decoder: Decoder,
    model: ViTLens,
    codes: dict[str, list[Tensor]],
    drawn: Drawn,
    world: World,
    *,
    lookup: Lookup | None = None,
) -> list[Composed]:
    """Paint from codes and from words, edit and compose with the objects that `codes` are of, and judge the pictures.

    With `lookup` what is nearest stands before each prompt; what needs no prompt is left out then.
    """
    count = min(map(len, codes.values()))
    things, studio = drawn.things[:count], _Studio(adapter, decoder, model, lookup)
    seen = {sensor: F.normalize(adapter.quantizer.decode(torch.stack(own[:count])), dim=-1) for sensor, own in codes.items()}
    found = []
    if lookup is None:
        for sensor, embeddings in seen.items():
            found += studio.judged("codes", sensor, embeddings, things, ASKED[sensor])
    lines = [describe(thing, TEMPLATES[0]) for thing in things]
    made = studio.drawn([[DRAW[0].format(line)] for line in lines], model.encode({"text": lines}, batch_size=256)["text"])
    found += studio.judged("words", "caption", made, things, ("shape", "material", "colour"))
    edits = [edit_of(thing, world) for thing in things]
    for kind, rows in _by_kind(things, edits).items():
        wanted = [edits[i].thing for i in rows]
        for sensor in [name for name in SHAPED if name in codes]:
            messages: list[Message] = [[codes[sensor][i], edits[i].asked[0]] for i in rows]
            made = studio.drawn(messages, seen[sensor][rows])
            found += studio.judged(kind, sensor, made, wanted, ("shape", kind))
        if lookup is None:
            found += studio.judged(kind, OWN, studio.own(wanted), wanted, ("shape", kind))
    others = mixed_with(things)
    wanted = [_remade(things[i], things[j]) for i, j in enumerate(others)]
    for first, second in [pair for pair in COMPOSED if set(pair) <= set(codes)]:
        messages = [[codes[first][i], codes[second][j], COMPOSE[0]] for i, j in enumerate(others)]
        made = studio.drawn(messages, seen[first] + seen[second][others])
        found += studio.judged("composition", f"{first}+{second}", made, wanted, ("shape", "material"))
    if lookup is None:
        found += studio.judged("composition", OWN, studio.own(wanted), wanted, ("shape", "material"))
    return found


class _Studio:
    """Messages to pictures, and the pictures to their judge."""

    def __init__(self, adapter: SeedLlamaAdapter, decoder: Decoder, model: ViTLens, lookup: Lookup | None) -> None:
        self.adapter, self.decoder, self.model, self.lookup = adapter, decoder, model, lookup

    def drawn(self, messages: Sequence[Message], about: Tensor) -> Tensor:
        """The embedding [n, E] of the one image that each message, which is about an embedding [n, E], is answered with."""
        return imagined(self.adapter, _looked_up(messages, about, self.lookup))

    def own(self, things: Sequence[ToyObject]) -> Tensor:
        """The embeddings [n, E] of the things' own pictures."""
        items = [as_items(observe(thing, ["image"]))["image"] for thing in track(things, "drawing what is wanted")]
        return self.model.encode({"image": items}, batch_size=128)["image"]

    def judged(
        self, task: str, sensors: str, embeddings: Tensor, things: Sequence[ToyObject], labels: Sequence[str]
    ) -> list[Composed]:
        """Paint embeddings [n, E]; is what the Toybox's CLIP sees what the things are?"""
        pictures = paint(self.decoder, embeddings, progress=True)
        found = []
        for label in labels:
            judge = colour_share if label == "colour" else partial(right_share, label=label)
            right, chance = judge(self.model, pictures, things)
            found.append(Composed(task, sensors, label, len(things), right, chance, _count(self.lookup)))
        return found


def _looked_up(messages: Sequence[Message], about: Tensor, lookup: Lookup | None) -> list[Message]:
    """The messages, with what is nearest to their embeddings [n, E] before them."""
    if lookup is None:
        return list(messages)
    return [[*lookup.before(one), *message] for one, message in zip(about, messages, strict=True)]


def _count(lookup: Lookup | None) -> int:
    return 0 if lookup is None else lookup.neighbours


def imagined(adapter: SeedLlamaAdapter, messages: Sequence[Message]) -> Tensor:
    """The embedding [n, E] of the one image that each message is answered with."""
    length = adapter.vocabulary.length
    replies = converse(adapter, messages, force_image=True, max_images=1, max_new_tokens=length + 1, draw=False)
    return torch.stack([reply.embeddings[0] for reply in replies])


def converse(adapter: SeedLlamaAdapter, messages: Sequence[Message], *, batch: int = 70, **options: Any) -> list[Reply]:
    """The likeliest reply to each message."""
    starts = track(range(0, len(messages), batch), "asking the SEED-LLaMA")
    return [one for start in starts for one in adapter.chat_batch(messages[start : start + batch], temperature=0, **options)]


def colour_share(model: ViTLens, pictures: np.ndarray, things: Sequence[ToyObject]) -> tuple[float, float]:
    """Share of pictures in which the CLIP sees the right one of the colours that the thing's material has; and of a guess."""
    kinds = [(thing.shape, thing.material) for thing in things]
    lines = {kind: _colour_lines(*kind) for kind in dict.fromkeys(kinds)}
    rows = model.encode({"text": [line for own in lines.values() for line in own]}, batch_size=256)["text"]
    vectors = dict(zip(lines, rows.split([len(own) for own in lines.values()]), strict=True))
    seen = model.encode({"image": list(pictures)}, batch_size=128)["image"]
    right, guessed = [], []
    for one, kind, thing in zip(seen, kinds, things, strict=True):
        colours = list(MATERIALS[thing.material].colours)
        right.append(colours[int((vectors[kind] @ one).argmax())] == thing.colour)
        guessed.append(1 / len(colours))
    return float(np.mean(right)), float(np.mean(guessed))


def _colour_lines(shape: str, material: str) -> list[str]:
    words = MATERIALS[material]
    return [fill("a {colour} {adjective} {shape}", colour=c, adjective=words.adjective, shape=shape) for c in words.colours]


def _by_kind(things: Sequence[ToyObject], edits: Sequence[Edit]) -> dict[str, list[int]]:
    """ "material" and "colour" -> numbers of the things whose edit changes it."""
    found: dict[str, list[int]] = {}
    for number, (thing, edit) in enumerate(zip(things, edits, strict=True)):
        found.setdefault("colour" if edit.thing.material == thing.material else "material", []).append(number)
    return found


def _remade(thing: ToyObject, other: ToyObject) -> ToyObject:
    """The thing, made of what the other is made of."""
    return replace(thing, material=other.material, colour=other.colour)
