"""The demo's pictures: tiles of what every sensor measured, how alike the senses are, and the one space in the plane."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlens.benchmarks.toybox.demo.tables import words
from vitlens.benchmarks.toybox.sensors.catalogue import SENSORS, observe
from vitlens.benchmarks.toybox.sensors.drawn import ASKED, LABELS
from vitlens.benchmarks.toybox.sensors.picture import picture
from vitlens.benchmarks.toybox.world.stage import Stage
from vitlens.display.page import address

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from vitlens.benchmarks.toybox.world.objects import ToyObject

MARKERS = "os^DXvP*<hp"
INK, PALE = "#1d2733", "#66727f"
TRACES = "#c0392b"
SENSES = {
    "image": "seen",
    "point_cloud": "scanned",
    "depth": "ranged",
    "tactile": "touched",
    "audio": "struck",
    "eeg": "watched by a brain",
    "thermal": "warmed",
    "imu": "moved",
    "pressure": "set down",
}
Tile = Callable[[int, str], str]
"""(object, sense) -> a picture of what was measured, as a data address."""


def tiles(things: Sequence[ToyObject]) -> Tile:
    """Tiles that are drawn when they are first asked for."""

    @cache
    def drawn(i: int, name: str) -> str:
        thing = things[i]
        if name == "image":
            return webp(picture(Stage(thing), size=256))
        return address(tile(name, observe(thing, [name])[name], bearing(thing)))

    return drawn


def bearing(thing: ToyObject) -> float:
    """Degrees from which the camera of the object's picture looks, about the vertical."""
    x, _, z = Stage(thing).room(0).position
    return float(np.rad2deg(np.arctan2(-z, x)))


def tile(name: str, array: np.ndarray, bearing: float) -> bytes:
    """A small square picture of a measurement, as PNG; a scan is seen from `bearing`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2, 2.2), dpi=100)
    if name == "point_cloud":
        axes: Any = figure.add_axes((-0.12, -0.12, 1.24, 1.24), projection="3d")
        x, y, z = array[:, :3].T
        axes.scatter(x, -z, y, c=array[:, 3:].clip(0, 1), s=3.2, linewidths=0)
        axes.set_box_aspect(np.maximum(np.ptp(array[:, [0, 2, 1]], axis=0), 1e-6))
        axes.view_init(elev=18, azim=bearing)
        axes.axis("off")
        return _png(figure)
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
    elif name == "thermal":
        axes.imshow(array, cmap="inferno", interpolation="nearest")
    elif name == "imu":
        for rows, place in ((array[:3], 1.0), (array[3:], -1.0)):  # acceleration above, turning below
            traces = np.arcsinh(rows / (9.8 if place > 0 else 1.0))
            axes.plot(traces.T / np.abs(traces).max() + place, color=TRACES, linewidth=0.5, alpha=0.8)
        axes.margins(0.02)
    elif name == "pressure":
        axes.imshow(np.log1p(array.max(axis=0)), cmap="magma", interpolation="nearest")
    else:
        axes.imshow(array, interpolation="nearest")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="white")
    return stream.getvalue()


def webp(pixels: np.ndarray) -> str:
    """Pixels uint8 [h, w, 3] as a data address."""
    import PIL.Image

    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, format="webp", quality=88)
    return address(stream.getvalue(), "image/webp")


def heatmaps(things: Sequence[ToyObject], embeddings: Mapping[str, Tensor]) -> str:
    """Cosines of every object's picture with every object's other measurements, sense by sense."""
    from matplotlib.figure import Figure

    others = [name for name in [*SENSORS, "text"] if name != "image" and name in embeddings]
    figure = Figure(figsize=(13.5, 0.85 + 11.4 / len(others)), dpi=130, layout="constrained")
    for axes, name in zip(np.asarray(figure.subplots(1, len(others))).flat, others, strict=True):
        label = LABELS.get(name, "shape")
        order = sorted(range(len(things)), key=lambda i: (getattr(things[i], f"{label}_id"), i))
        cosines = (embeddings["image"][order] @ embeddings[name][order].T).numpy()
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
    return address(_png(figure))


def projection(things: Sequence[ToyObject], embeddings: Mapping[str, Tensor]) -> str:
    """All embeddings [n, E] in the plane of the first principal components of pictures' and words' class centres."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(13.5, 6.4), dpi=130, layout="constrained")
    for axes, label in zip(np.asarray(figure.subplots(1, 2)).flat, ("shape", "material"), strict=True):
        senses = [name for name in [*SENSORS, "text"] if name in embeddings and (name == "text" or label in ASKED[name])]
        centred = {name: _centred(embeddings[name]) for name in senses}
        labels = [getattr(thing, label) for thing in things]
        kinds = sorted(set(labels), key=lambda kind: (-labels.count(kind), kind))[:14]
        rows = [i for i, found in enumerate(labels) if found in kinds]
        anchors = (centred["image"] + centred["text"]) / 2
        centres = np.stack([anchors[[i for i in rows if labels[i] == kind]].mean(axis=0) for kind in kinds])
        _, _, axes_of_space = np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)
        colours = colormaps["tab20"](np.arange(len(kinds)) / 20)
        for name, marker in zip(senses, MARKERS, strict=False):
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
            for n, m in zip(senses, MARKERS, strict=False)
        ]
        axes.legend(handles=marks, frameon=False, fontsize=9, loc="best")
        axes.set_title(f"by {label}", color=INK, fontsize=12)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color("#d5dbe1")
    return address(_png(figure))


def _centred(embeddings: Tensor) -> np.ndarray:
    """Embeddings [n, E] about their mean."""
    return (embeddings - embeddings.mean(dim=0)).numpy()
