"""A figure of the Toybox's SEED-LLaMA at work: what was scanned and struck, described, painted, edited and composed."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vitlens.adapters.generate.decoders import Decoder
from vitlens.adapters.seed.llama import Message, SeedLlamaAdapter
from vitlens.benchmarks.toybox.demo.compose import converse, imagined, seed_adapter
from vitlens.benchmarks.toybox.demo.figures import INK, PALE, bearing, tile
from vitlens.benchmarks.toybox.demo.paint import mixed_with, paint, painting_decoder
from vitlens.benchmarks.toybox.demo.tables import words
from vitlens.benchmarks.toybox.sensors.drawn import Drawn, draw
from vitlens.benchmarks.toybox.training.host import QUESTIONS
from vitlens.benchmarks.toybox.training.seed_tasks import COMPOSE, edit_of
from vitlens.benchmarks.toybox.world.objects import World
from vitlens.model import ViTLens

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHAPED = ("point_cloud", "depth")
"""What the things are measured by, in turns."""
STRUCK = "audio"
"""What tells the material of a composition."""
SENSORS = ("image", *SHAPED, STRUCK)
"""What is drawn of every object."""


@dataclass(frozen=True)
class Panel:
    """A picture [h, w, 3] or [h, w, 4] with a line above and what was said below."""

    picture: np.ndarray
    head: str
    said: str = ""


def shipped_figure(model: ViTLens, folder: Path, world: World, *, objects: int = 5, workers: int = 2) -> Figure:
    """What the shipped SEED-LLaMA and painter make of the first held-out objects, drawn into `folder`."""
    drawn = draw(folder, world, "test", objects, SENSORS, workers=workers)
    return edits_figure(edited(seed_adapter(model), painting_decoder(model), drawn, world))


def edited(adapter: SeedLlamaAdapter, decoder: Decoder, drawn: Drawn, world: World) -> list[list[Panel]]:
    """A row of panels for each object: measured, painted from its codes, edited, composed with another one's sound."""
    others, items = mixed_with(drawn.things), {name: drawn.column(name) for name in (*SHAPED, STRUCK)}
    senses = [SHAPED[number % len(SHAPED)] for number in range(len(drawn))]
    codes = [adapter.senses.codes({sense: items[sense][number]})[0] for number, sense in enumerate(senses)]
    sounds = [adapter.senses.codes({STRUCK: items[STRUCK][other]})[0] for other in others]
    edits = [edit_of(thing, world).asked[0] for thing in drawn.things]
    said = converse(adapter, [[one, QUESTIONS["everything"][0][0]] for one in codes], max_images=0, max_new_tokens=16)
    asked: list[Message] = [[one, line] for one, line in zip(codes, edits, strict=True)]
    mixed: list[Message] = [[one, sound, COMPOSE[0]] for one, sound in zip(codes, sounds, strict=True)]
    made = imagined(adapter, [*asked, *mixed])
    pictures = paint(decoder, torch.cat([adapter.quantizer.decode(torch.stack(codes)), made]))
    plain, after, both = np.split(pictures, 3)
    rows = []
    for number, (thing, sense) in enumerate(zip(drawn.things, senses, strict=True)):
        measured = _pixels(tile(sense, drawn[number][sense], bearing(thing)))
        heard = _pixels(tile(STRUCK, drawn[others[number]][STRUCK], 0.0))
        rows.append(
            [
                Panel(measured, words(sense), said[number].text),
                Panel(plain[number], "painted from its codes"),
                Panel(after[number], edits[number]),
                Panel(heard, f"sound of something {drawn.things[others[number]].material}"),
                Panel(both[number], COMPOSE[0]),
                Panel(np.asarray(drawn[number]["image"]), "its own picture, not shown"),
            ]
        )
    return rows


def edits_figure(rows: list[list[Panel]]) -> Figure:
    """The panels of `edited`, a row for each object."""
    from matplotlib.figure import Figure

    across = len(rows[0])
    figure = Figure(figsize=(1.75 * across, 2.3 * len(rows)), layout="constrained", dpi=130)
    for line, panels in zip(figure.subplots(len(rows), across, squeeze=False), rows, strict=True):
        for axes, panel in zip(line, panels, strict=True):
            axes.imshow(panel.picture, interpolation="nearest")
            axes.set_title(textwrap.fill(panel.head, 24), fontsize=8, color=INK)
            axes.set_xlabel(textwrap.fill(panel.said, 26), fontsize=8, color=PALE)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    return figure


def _pixels(png: bytes) -> np.ndarray:
    import PIL.Image

    return np.asarray(PIL.Image.open(io.BytesIO(png)).convert("RGB"))
