"""The demo's report: one self-contained HTML page of what every sensor measured, what the model made of it, and the one space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vitlens.benchmarks.toybox.demo.evaluate import class_embeddings
from vitlens.benchmarks.toybox.demo.figures import SENSES, Tile, heatmaps, projection, tiles, webp
from vitlens.benchmarks.toybox.demo.tables import percent, sensor_tables
from vitlens.benchmarks.toybox.sensors.catalogue import SENSORS
from vitlens.benchmarks.toybox.sensors.drawn import LABELS
from vitlens.disk import atomic
from vitlens.display.page import render

if TYPE_CHECKING:
    from torch import Tensor

    from vitlens.benchmarks.toybox.demo.evaluate import Results
    from vitlens.benchmarks.toybox.demo.plugged import Plugged
    from vitlens.benchmarks.toybox.world.objects import ToyObject
    from vitlens.model import ViTLens

PAGE = Path(__file__).with_name("report.html.j2")
SHOWN = 4
"""Objects with a row of their own."""
SPLIT_NAMES = {
    "test": "seen shape",
    "unseen_pairs": "unseen pair of shape and material",
    "unseen_shapes": "shape that no lens has seen",
}
SEARCHES = (
    ("audio", "image"),
    ("tactile", "image"),
    ("point_cloud", "image"),
    ("eeg", "image"),
    ("thermal", "image"),
    ("imu", "image"),
    ("pressure", "image"),
    ("text", "point_cloud"),
    ("image", "depth"),
)


@dataclass
class Demo:
    """What the demo made and found: `files[i][modality]` and the embeddings' rows [n, E] belong to `things[i]`."""

    folder: Path
    things: list[ToyObject]
    files: list[dict[str, Path]]
    manifest: Path
    embeddings: dict[str, Tensor]
    results: Results
    report: Path
    plugged: Plugged | None = None
    """What a language model said and a painter painted, where their libraries are installed."""

    @property
    def senses(self) -> list[str]:
        """The modalities that measured, in the order of the sensors' table."""
        return [name for name in SENSORS if name in self.embeddings]


def write_report(demo: Demo, model: ViTLens, *, commands: Sequence[str]) -> Path:
    """Write the page to `demo.report`, whole or not at all; every picture is inside it."""
    tile = tiles(demo.things)
    searches = [pair for pair in SEARCHES if set(pair) <= {*demo.senses, "text"}]
    page = render(
        PAGE,
        title="One frozen ViT, any sensor",
        objects_count=len(demo.things),
        scan=demo.results.accuracy("point_cloud", "unseen_shapes"),
        depth=demo.results.accuracy("depth", "test"),
        percent=percent,
        senses=[SENSES[name] for name in demo.senses],
        by_material=[SENSES[name] for name in demo.senses if LABELS[name] == "material"],
        measured=_measured(demo, model, tile),
        searches=[_search(demo, tile, *pair, (3 + 5 * n) % len(demo.things)) for n, pair in enumerate(searches)],
        plugged=demo.plugged and _plugged(demo.plugged, demo.things, tile),
        heatmaps=heatmaps(demo.things, demo.embeddings),
        projection=projection(demo.things, demo.embeddings),
        tables=sensor_tables(demo.results),
        commands=commands,
    )
    with atomic(demo.report) as part:
        part.write_text(page, encoding="utf-8")
    return demo.report


def shown(things: Sequence[ToyObject]) -> list[int]:
    """Objects for the galleries: of every split, each another shape and as many materials as can be."""
    wanted = {"test": SHOWN - 2, "unseen_pairs": 1, "unseen_shapes": 1}
    chosen: list[int] = []
    for split, count in wanted.items():
        own = [i for i, thing in enumerate(things) if thing.split == split]
        for _ in range(count):
            materials, shapes = {things[i].material for i in chosen}, {things[i].shape for i in chosen}
            rest = [i for i in own if i not in chosen]
            if rest:
                chosen.append(min(rest, key=lambda i: (things[i].material in materials, things[i].shape in shapes, i)))
    return chosen


Answer = tuple[str, float, bool]
"""A label, its share, and whether it is right."""


@dataclass(frozen=True)
class Cell:
    """One sense's picture in an object's row."""

    sense: str
    src: str
    answers: Sequence[Answer] = ()
    words: Sequence[tuple[str, bool]] = ()
    """Words of a sentence, and whether they name what is right."""


@dataclass(frozen=True)
class Row:
    """An object of a gallery."""

    thing: ToyObject
    cells: Sequence[Cell]
    below: str = ""


def _measured(demo: Demo, model: ViTLens, tile: Tile) -> list[Row]:
    """What every sensor measured of the shown objects, with the model's answers."""
    named = namer(demo, model)
    return [
        Row(
            demo.things[i],
            [Cell(SENSES[name], tile(i, name), named(i, name)) for name in demo.senses],
            SPLIT_NAMES[demo.things[i].split],
        )
        for i in shown(demo.things)
    ]


def namer(demo: Demo, model: ViTLens) -> Callable[[int, str], list[Answer]]:
    """(object, sense) -> the three labels the model thinks likeliest, of all shapes or all materials."""
    classes = {label: class_embeddings(model, label) for label in ("shape", "material")}

    def named(i: int, sense: str) -> list[Answer]:
        (labels, vectors), right = classes[LABELS[sense]], getattr(demo.things[i], LABELS[sense])
        best = torch.softmax(model.logit_scale * demo.embeddings[sense][i] @ vectors.T, dim=-1).topk(3)
        return [(labels[k], share, labels[k] == right) for share, k in zip(*(own.tolist() for own in best), strict=True)]

    return named


def _search(demo: Demo, tile: Tile, query: str, gallery: str, asked: int) -> dict[str, Any]:
    """The nearest five of a gallery to what one sense measured of the object `asked`; each is exact, the same kind, or a miss."""
    about, thing = LABELS.get(query, "shape"), demo.things[asked]
    scores = demo.embeddings[gallery] @ demo.embeddings[query][asked]
    hits = []
    for i in scores.argsort(descending=True)[:5].tolist():
        same = getattr(demo.things[i], about) == getattr(thing, about)
        hits.append({"kind": "exact" if i == asked else "same" if same else "miss", "src": tile(i, gallery)})
    src = None if query == "text" else tile(asked, query)
    return {"from": SENSES.get(query, "described"), "to": SENSES[gallery], "thing": thing, "hits": hits, "src": src}


def _plugged(found: Plugged, things: Sequence[ToyObject], tile: Tile) -> dict[str, Any]:
    """What the language model said (its right words marked), what the painter painted, and the mixtures."""
    said, painted = [], []
    for place, i in enumerate(found.shown):
        right = {things[i].shape, things[i].material}
        words = {name: [(word, word in right) for word in lines[place].split()] for name, lines in found.said.items()}
        said.append(Row(things[i], [Cell(SENSES[name], tile(i, name), words=own) for name, own in words.items()]))
        others = {name: pictures[place] for name, pictures in found.painted.items() if name != "image"}
        made = [Cell(f"from what was {SENSES[name]}", webp(picture)) for name, picture in others.items()]
        painted.append(Row(things[i], [Cell("the true picture", tile(i, "image")), *made]))
    mixtures = [
        {"ranged": things[i], "touched": things[j], "parts": [tile(i, "depth"), tile(j, "tactile")], "made": webp(picture)}
        for i, j, picture in found.mixtures
    ]
    return {"said": said, "painted": painted, "mixtures": mixtures}
