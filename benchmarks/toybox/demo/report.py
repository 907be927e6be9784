"""The demo's report: one self-contained HTML page of what every sensor measured, what the model made of it, and the one space."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vitlens.benchmarks.toybox.demo.evaluate import class_embeddings
from vitlens.benchmarks.toybox.demo.tables import Table, percent, sensor_tables, words
from vitlens.benchmarks.toybox.sensors.catalogue import SENSORS, observe
from vitlens.benchmarks.toybox.sensors.drawn import LABELS
from vitlens.benchmarks.toybox.sensors.picture import picture
from vitlens.benchmarks.toybox.world.stage import Stage
from vitlens.disk import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vitlens.benchmarks.toybox.demo.run import Demo
    from vitlens.benchmarks.toybox.world.objects import ToyObject
    from vitlens.model import ViTLens

STYLE = Path(__file__).with_name("report.css")
SHOWN = 8
"""Objects with a row of their own."""
SPLIT_NAMES = {
    "test": "seen shape",
    "unseen_pairs": "unseen pair of shape and material",
    "unseen_shapes": "shape that no lens has seen",
}
SENSES = {
    "image": "seen",
    "point_cloud": "scanned",
    "depth": "ranged",
    "tactile": "touched",
    "audio": "struck",
    "eeg": "watched by a brain",
}
INK, PALE = "#1d2733", "#66727f"
TRACES = "#c0392b"


def write_report(demo: Demo, model: ViTLens, *, commands: Sequence[str]) -> Path:
    """Write the page to `demo.report`, whole or not at all; every picture is inside it."""
    tile = _tiles(demo.things)
    sections = [
        _section("What the sensors measured, and what the model says", _gallery(demo, model, tile), GALLERY_NOTE),
        _section("Find it by another sense", _searches(demo, tile), SEARCH_NOTE),
        *(_section(*part) for part in _plugged(demo, tile)),
        _section("How alike the senses see things", _image(_heatmaps(demo)), HEATMAP_NOTE),
        _section("One space", _image(_projection(demo)), PROJECTION_NOTE),
        *(_section(table.title, _table(table), table.note) for table in sensor_tables(demo.results)),
        _section("Go on", "<pre>" + "\n".join(html.escape(line) for line in commands) + "</pre>", ""),
    ]
    page = (
        PAGE.replace("%STYLE%", STYLE.read_text(encoding="utf-8"))
        .replace("%HEAD%", _head(demo))
        .replace("%BODY%", "\n".join(sections))
    )
    with atomic(demo.report) as part:
        part.write_text(page, encoding="utf-8")
    return demo.report


def _plugged(demo: Demo, tile: Tile) -> list[tuple[str, str, str]]:
    from vitlens.benchmarks.toybox.demo.plugged import sections

    return [] if demo.plugged is None else sections(demo.plugged, demo.things, tile, _webp, SENSES)


def shown(things: Sequence[ToyObject]) -> list[int]:
    """Objects for the galleries: of every split, each another shape and as many materials as can be."""
    wanted = {"test": SHOWN - 4, "unseen_pairs": 2, "unseen_shapes": 2}
    chosen: list[int] = []
    for split, count in wanted.items():
        own = [i for i, thing in enumerate(things) if thing.split == split]
        for _ in range(count):
            materials, shapes = {things[i].material for i in chosen}, {things[i].shape for i in chosen}
            rest = [i for i in own if i not in chosen]
            if rest:
                chosen.append(min(rest, key=lambda i: (things[i].material in materials, things[i].shape in shapes, i)))
    return chosen


# --- pictures of measurements ------------------------------------------------------------------------------------------------

Tile = Callable[[int, str], str]
"""(object, sense) -> a picture of what was measured, as a data address."""


def _tiles(things: Sequence[ToyObject]) -> Tile:
    """Tiles that are drawn when they are first asked for."""

    @cache
    def tile(i: int, name: str) -> str:
        thing = things[i]
        if name == "image":
            return _webp(picture(Stage(thing), size=256))
        return _tile(name, observe(thing, [name])[name], _bearing(thing))

    return tile


def _bearing(thing: ToyObject) -> float:
    """Degrees from which the camera of the object's picture looks, about the vertical."""
    x, _, z = Stage(thing).room(0).position
    return float(np.rad2deg(np.arctan2(-z, x)))


def _tile(name: str, array: np.ndarray, bearing: float) -> str:
    """A small square picture of a measurement, as a data address; a scan is seen from `bearing`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2, 2.2), dpi=100)
    if name == "point_cloud":
        axes: Any = figure.add_axes((-0.12, -0.12, 1.24, 1.24), projection="3d")
        x, y, z = array[:, :3].T
        axes.scatter(x, -z, y, c=array[:, 3:].clip(0, 1), s=3.2, linewidths=0)
        axes.set_box_aspect(np.maximum(np.ptp(array[:, [0, 2, 1]], axis=0), 1e-6))
        axes.view_init(elev=18, azim=bearing)
        axes.axis("off")
        return _figure(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    if name == "depth":
        axes.imshow(array, cmap="magma_r", interpolation="nearest", vmin=array.min(), vmax=np.percentile(array, 97))
    elif name == "audio":
        axes.set_axis_on()
        _, _, _, drawn = axes.specgram(array[:8000], NFFT=256, noverlap=224, pad_to=1024, Fs=16000, cmap="inferno")
        loudest = float(drawn.get_array().max())
        drawn.set_clim(loudest - 60, loudest)
        axes.set_ylim(0, 6000)
        axes.set_xticks([])
        axes.set_yticks([])
    elif name == "eeg":
        scaled = array[::8, 20:460] * 1e6
        step = 2.2 * float(np.percentile(np.abs(scaled), 90))
        for row, trace in enumerate(scaled):
            axes.plot(trace - trace.mean() - row * step, color=TRACES, linewidth=0.6, alpha=0.9)
        axes.margins(0.02)
    else:
        axes.imshow(array, interpolation="nearest")
    return _figure(figure)


def _figure(figure: Figure, **options: Any) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", **options)
    return _address(stream.getvalue())


def _webp(pixels: np.ndarray) -> str:
    import PIL.Image

    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, format="webp", quality=88)
    return _address(stream.getvalue(), "webp")


def _address(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


# --- sections ----------------------------------------------------------------------------------------------------------------

GALLERY_NOTE = (
    "Each row is one object that no training saw. Under every measurement stand the model's first answers among all 33 shapes, "
    "or for touch and sound among all 8 materials, with the share of certainty; green is right."
)
SEARCH_NOTE = (
    "Left what is asked with, right the nearest objects of the other sense among all of the demo's. A green frame is the very "
    "object, a grey one has the same shape or material that the question is about."
)
HEATMAP_NOTE = (
    "Cosine of every object's picture (rows) with every object's other measurement (columns), in the order of shapes, for touch "
    "and sound in the order of materials. A bright diagonal of blocks says that both senses sort the world alike."
)
PROJECTION_NOTE = (
    "All embeddings of all senses, projected from the model's space to the plane (principal components of the pictures' and "
    "words' class centres; each sense is centred, as contrastive spaces keep senses a little apart). Colour is the shape; touch "
    "and sound, which know the material only, are on the right with the material's colour."
)


def _head(demo: Demo) -> str:
    scan, depth = demo.results.accuracy("point_cloud", "unseen_shapes"), demo.results.accuracy("depth", "test")
    return (
        f"<p>{len(demo.things)} held-out objects of a procedural world, each measured by {len(SENSORS)} sensors and read from "
        "its files. A small CLIP learned pictures and words; then a lens for each sensor learned to speak to its frozen ViT. "
        f"Depth maps of new objects: <b>{percent(depth.top1)} %</b> named right among {depth.classes} shapes. "
        f"Scans of shapes that no lens has ever seen: <b>{percent(scan.top1)} %</b> (chance {percent(scan.chance1)} %).</p>"
    )


def _gallery(demo: Demo, model: ViTLens, tile: Tile) -> str:
    answers = {label: class_embeddings(model, label) for label in ("shape", "material")}
    rows = []
    for i in shown(demo.things):
        thing = demo.things[i]
        cells = []
        for name in SENSORS:
            labels, vectors = answers[LABELS[name]]
            shares = torch.softmax(model.logit_scale * demo.embeddings[name][i] @ vectors.T, dim=-1)
            values, places = shares.topk(3)
            lines = "".join(
                _answer(labels[int(place)], float(value), labels[int(place)] == getattr(thing, LABELS[name]))
                for value, place in zip(values, places, strict=True)
            )
            cells.append(f'<div class="sense"><img src="{tile(i, name)}" alt="{SENSES[name]}">{lines}</div>')
        title = f"<h3>{html.escape(thing.shape)}, {html.escape(thing.material)}</h3><p>{SPLIT_NAMES[thing.split]}</p>"
        rows.append(f'<div class="object"><div class="what">{title}</div>{"".join(cells)}</div>')
    heads = "".join(f"<div>{SENSES[name]}</div>" for name in SENSORS)
    return f'<div class="gallery"><div class="object heads"><div></div>{heads}</div>{"".join(rows)}</div>'


def _answer(label: str, share: float, right: bool) -> str:
    kind = "right" if right else "other"
    return (
        f'<div class="answer {kind}"><i style="width:{max(2, round(100 * share))}%"></i>'
        f"<span>{html.escape(label)}</span><b>{100 * share:.0f}</b></div>"
    )


SEARCHES = (
    ("audio", "image"),
    ("tactile", "image"),
    ("point_cloud", "image"),
    ("eeg", "image"),
    ("text", "point_cloud"),
    ("image", "depth"),
)


def _searches(demo: Demo, tile: Tile) -> str:
    rows = []
    for number, (query, gallery) in enumerate(SEARCHES):
        asked = (3 + 5 * number) % len(demo.things)
        scores = demo.embeddings[gallery] @ demo.embeddings[query][asked]
        found = scores.argsort(descending=True)[:5].tolist()
        about = LABELS.get(query, "shape")
        kinds = []
        for i in found:
            same = getattr(demo.things[i], about) == getattr(demo.things[asked], about)
            kinds.append("exact" if i == asked else "same" if same else "miss")
        thing = demo.things[asked]
        words_ = f'<div class="words">{html.escape(thing.caption)}</div>'
        ask = words_ if query == "text" else f'<img src="{tile(asked, query)}" alt="">'
        hits = "".join(f'<img class="{kind}" src="{tile(i, gallery)}" alt="">' for i, kind in zip(found, kinds, strict=True))
        what = f"{SENSES.get(query, 'described')} &rarr; {SENSES[gallery]}"
        name = f"{html.escape(thing.material)} {html.escape(thing.shape)}"
        rows.append(
            f'<div class="search"><div class="what"><h3>{what}</h3><p>{name}</p></div>'
            f'<div class="ask">{ask}</div><div class="arrow">&rarr;</div>{hits}</div>'
        )
    return "".join(rows)


def _heatmaps(demo: Demo) -> Figure:
    from matplotlib.figure import Figure

    others = [name for name in [*SENSORS, "text"] if name != "image"]
    figure = Figure(figsize=(13.5, 2.75), dpi=130, layout="constrained")
    for axes, name in zip(np.asarray(figure.subplots(1, len(others))).flat, others, strict=True):
        label = LABELS.get(name, "shape")
        order = sorted(range(len(demo.things)), key=lambda i: (getattr(demo.things[i], f"{label}_id"), i))
        cosines = (demo.embeddings["image"][order] @ demo.embeddings[name][order].T).numpy()
        axes.imshow(
            cosines, cmap="viridis", interpolation="nearest", vmin=np.percentile(cosines, 5), vmax=np.percentile(cosines, 99)
        )
        axes.set_title(words(name), color=INK, fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(f"by {label}", color=PALE, fontsize=9)
        for spine in axes.spines.values():
            spine.set_visible(False)
    figure.supylabel("image", color=INK, fontsize=11)
    return figure


def _projection(demo: Demo) -> Figure:
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(13.5, 6.4), dpi=130, layout="constrained")
    for axes, label in zip(np.asarray(figure.subplots(1, 2)).flat, ("shape", "material"), strict=True):
        senses = [name for name in [*SENSORS, "text"] if name in ("image", "text") or LABELS[name] == label]
        centred = {name: _centred(demo.embeddings[name]) for name in senses}
        labels = [getattr(thing, label) for thing in demo.things]
        kinds = sorted(set(labels), key=lambda kind: (-labels.count(kind), kind))[:14]
        rows = [i for i, found in enumerate(labels) if found in kinds]
        anchors = (centred["image"] + centred["text"]) / 2
        centres = np.stack([anchors[[i for i in rows if labels[i] == kind]].mean(axis=0) for kind in kinds])
        _, _, axes_of_space = np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)
        colours = colormaps["tab20"](np.arange(len(kinds)) / 20)
        for name, marker in zip(senses, "os^DXvP*", strict=False):
            places = centred[name][rows] @ axes_of_space[:2].T
            own = [colours[kinds.index(labels[i])] for i in rows]
            axes.scatter(*places.T, c=own, marker=marker, s=44, alpha=0.85, linewidths=0.4, edgecolors="white")
        for kind, centre in zip(kinds, centres @ axes_of_space[:2].T, strict=True):
            axes.annotate(
                kind,
                centre,
                fontsize=9,
                color=INK,
                ha="center",
                va="center",
                bbox={"fc": "white", "ec": "none", "alpha": 0.7, "pad": 1},
            )
        marks = [
            Line2D([], [], marker=m, ls="", color=PALE, label=SENSES.get(n, "described"))
            for n, m in zip(senses, "os^DXvP*", strict=False)
        ]
        axes.legend(handles=marks, frameon=False, fontsize=9, loc="best")
        axes.set_title(f"by {label}", color=INK, fontsize=12)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color("#d5dbe1")
    return figure


def _centred(embeddings: torch.Tensor) -> np.ndarray:
    """Embeddings [n, E] about their mean."""
    return (embeddings - embeddings.mean(dim=0)).numpy()


def _image(figure: Figure) -> str:
    return f'<img class="wide" src="{_figure(figure, facecolor="white")}" alt="">'


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.head)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _section(title: str, content: str, note: str) -> str:
    below = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return f"<section><h2>{html.escape(title)}</h2>{below}{content}</section>"


PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>vitlens: one frozen ViT, any sensor</title><style>%STYLE%</style></head>
<body><main><h1>One frozen ViT, any sensor</h1>%HEAD%
%BODY%
</main></body></html>
"""
