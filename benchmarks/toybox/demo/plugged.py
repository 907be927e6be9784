"""The demo's last part: a language model and a painter that know only pictures, given what other sensors measured; its sections.

The lenses are plugged in as they are. What is said and painted stands beside the object's true picture.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from vitlens.benchmarks.toybox.world.objects import ToyObject
    from vitlens.model import ViTLens

NEEDED = ("transformers", "diffusers")
MIXED = 4
"""Mixtures shown."""
SAID_NOTE = (
    "A tiny InstructBLIP learned to talk about pictures, once. It was never shown anything else: each lens stands in the place "
    "of its patch embedding, and it describes what was scanned, ranged, touched, struck, or watched by a brain. Green words "
    "name the true shape or material. Depth and EEG know only the shape, touch and sound only the material: the rest is a guess."
)
PAINTED_NOTE = (
    "A tiny unCLIP learned to paint pictures from their embeddings. Here it paints from the embeddings of the other senses: of "
    "the same object, which it never saw, and cannot know the colour of where the sense has none."
)
MIXED_NOTE = (
    "The mean of two embeddings, as CoDi composes its inputs: the shape of what was ranged, in the material of what was touched. "
    "Over many such mixtures the shape is right in about seven of ten, the material in about half (chance: one of eight)."
)


@dataclass(frozen=True)
class Plugged:
    """What came out for the shown objects, in their order; of a mixture the ranged and the touched object, and the picture."""

    shown: list[int]
    said: dict[str, list[str]]
    painted: dict[str, np.ndarray]
    mixtures: list[tuple[int, int, np.ndarray]]


def can_plug() -> bool:
    """Whether the libraries of host and painter are installed."""
    return all(find_spec(name) for name in NEEDED)


def plug(
    model: ViTLens,
    things: Sequence[ToyObject],
    items: Mapping[str, Sequence[Any]],
    embeddings: Mapping[str, Tensor],
    shown: Sequence[int],
) -> Plugged:
    """Let the shipped host describe, and the shipped painter paint, the shown ones of `things` by every sense's file."""
    from vitlens.benchmarks.toybox.demo.describe import ask, talking_host
    from vitlens.benchmarks.toybox.demo.paint import mixed_with, paint, painting_decoder
    from vitlens.benchmarks.toybox.training.host import QUESTIONS

    host, decoder = talking_host(model), painting_decoder(model)
    question = QUESTIONS["everything"][0][0]
    said = {name: ask(host, question, {name: [items[name][i] for i in shown]}) for name in host.streams if name in items}
    rows = torch.tensor(list(shown))
    others = mixed_with(list(things))
    pairs = [(i, others[i]) for i in list(shown)[:MIXED]]
    halves = [model.compose([embeddings["depth"][i], embeddings["tactile"][j]]) for i, j in pairs]
    made = paint(decoder, torch.cat([*(embeddings[name][rows] for name in said), torch.stack(halves)]))
    count = len(rows)
    painted = {name: made[place * count : (place + 1) * count] for place, name in enumerate(said)}
    return Plugged(list(shown), said, painted, [(*pair, one) for pair, one in zip(pairs, made[len(said) * count :], strict=True)])


def sections(
    found: Plugged,
    things: Sequence[ToyObject],
    tile: Callable[[int, str], str],
    address: Callable[[np.ndarray], str],
    senses: Mapping[str, str],
) -> list[tuple[str, str, str]]:
    """Title, content and note of each section; `tile(i, sense)` and `address(pixels)` give pictures as data addresses."""
    return [
        ("What a language model says that knows only pictures", _said(found, things, tile, senses), SAID_NOTE),
        ("What a painter paints that knows only pictures", _painted(found, things, tile, address, senses), PAINTED_NOTE),
        ("Two senses in one picture", _mixtures(found, things, tile, address), MIXED_NOTE),
    ]


def _said(found: Plugged, things: Sequence[ToyObject], tile: Callable[[int, str], str], senses: Mapping[str, str]) -> str:
    rows = []
    for place, i in enumerate(found.shown):
        cells = [
            f'<div class="sense"><img src="{tile(i, name)}" alt="{senses[name]}"><p>{_marked(lines[place], things[i])}</p></div>'
            for name, lines in found.said.items()
        ]
        rows.append(_row(things[i], cells))
    return _grid(rows, [senses[name] for name in found.said])


def _marked(text: str, thing: ToyObject) -> str:
    """The sentence with its right words marked."""
    right = {thing.shape, thing.material}
    words = [f"<b>{html.escape(word)}</b>" if word in right else html.escape(word) for word in text.split()]
    return " ".join(words)


def _painted(
    found: Plugged,
    things: Sequence[ToyObject],
    tile: Callable[[int, str], str],
    address: Callable[[np.ndarray], str],
    senses: Mapping[str, str],
) -> str:
    rows = []
    for place, i in enumerate(found.shown):
        cells = [f'<div class="sense"><img src="{tile(i, "image")}" alt="true picture"></div>']
        cells += [
            f'<div class="sense"><img src="{address(pictures[place])}" alt="painted from {name}"></div>'
            for name, pictures in found.painted.items()
            if name != "image"
        ]
        rows.append(_row(things[i], cells))
    heads = ["the true picture", *(f"from what was {senses[name]}" for name in found.painted if name != "image")]
    return _grid(rows, heads)


def _mixtures(
    found: Plugged, things: Sequence[ToyObject], tile: Callable[[int, str], str], address: Callable[[np.ndarray], str]
) -> str:
    rows = []
    for i, j, picture in found.mixtures:
        title = f"the depth map of a {things[i].shape}, the touch of {things[j].material}"
        rows.append(
            f'<div class="search mixture"><div class="what"><h3>{html.escape(title)}</h3></div>'
            f'<img src="{tile(i, "depth")}" alt=""><div class="arrow">+</div><img src="{tile(j, "tactile")}" alt="">'
            f'<div class="arrow">&rarr;</div><img src="{address(picture)}" alt=""></div>'
        )
    return "".join(rows)


def _row(thing: ToyObject, cells: Sequence[str]) -> str:
    title = html.escape(f"{thing.shape}, {thing.material}")
    return f'<div class="object"><div class="what"><h3>{title}</h3></div>{"".join(cells)}</div>'


def _grid(rows: Sequence[str], heads: Sequence[str]) -> str:
    line = "".join(f"<div>{html.escape(head)}</div>" for head in heads)
    return f'<div class="gallery"><div class="object heads"><div></div>{line}</div>{"".join(rows)}</div>'
