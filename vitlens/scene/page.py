"""A page on which a scene turns, warm where a query is found; it holds all it needs itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw

from vitlens.disk import write_text
from vitlens.display.page import address, render
from vitlens.errors import InputError
from vitlens.scene.folder import Scene
from vitlens.scene.recording import read_colour
from vitlens.scene.search import Answer, Place, View
from vitlens.scene.view import BOX_COLOUR, COLOURS, FIELD_OF_VIEW, NEAR, Studio, corners, warmth

MOST_POINTS = 60_000
THUMBNAIL = 360
"""Pixels across."""
VIEWS = 3
"""Frames shown of a place."""


@dataclass(frozen=True)
class Asked:
    """A query in words ("audio: flush.wav"), and where it was found; `picture` shows what was asked (PNG), where that can be."""

    label: str
    answer: Answer
    picture: bytes | None = None
    note: str = ""


def write_page(scene: Scene, asked: Sequence[Asked], path: Path, *, title: str = "", studio: Studio | None = None) -> Path:
    """Write the page of one or several queries."""
    studio = studio or Studio(scene)
    shown = _chosen(scene, asked)
    values = {
        "title": title or f"Where is it in {scene.folder.name}?",
        "cloud": _cloud(scene, studio, shown),
        "viewer": [_turning(studio, one, shown) for one in asked],
        "queries": [_words(scene, one) for one in asked],
        "facts": _facts(scene, len(shown)),
    }
    write_text(path, render(Path(__file__).with_name("scene.html.j2"), **values))
    return path


def _chosen(scene: Scene, asked: Sequence[Asked]) -> np.ndarray:
    """The voxels that are shown: all, or of a large scene every so manieth, and those of all places."""
    count = len(scene.voxels)
    if count <= MOST_POINTS:
        return np.arange(count)
    places = [place.voxels for one in asked for place in one.answer.places]
    even = np.random.default_rng(0).permutation(count)[: MOST_POINTS - sum(map(len, places))]
    return np.unique(np.concatenate([even, *places]))


def _cloud(scene: Scene, studio: Studio, shown: np.ndarray) -> dict[str, Any]:
    """Points in the viewpoints' axes as uint16 of the box around them, colours uint8, normals int8."""
    points = (scene.voxels.points[shown] - studio.middle) @ studio.axes.T
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = np.rint((points - low) / np.maximum(high - low, 1e-9) * 65535).astype("<u2")
    normals = np.rint(scene.voxels.normals[shown] @ studio.axes.T * 127).astype(np.int8)
    return {
        "count": len(shown),
        "low": low.tolist(),
        "high": high.tolist(),
        "points": _text(scaled),
        "colours": _text(scene.voxels.colours[shown]),
        "normals": _text(normals),
        "ramp": _text(_ramp()),
        "voxel": scene.voxels.size,
        "distance": studio.reach / np.sin(np.deg2rad(FIELD_OF_VIEW / 2)) * NEAR,
        "field": FIELD_OF_VIEW,
    }


def _turning(studio: Studio, one: Asked, shown: np.ndarray) -> dict[str, Any]:
    """What the canvas needs of a query: heat as uint8, where to look from, the corners of the boxes."""
    azimuth, height = studio.best_side(one.answer.places[0].voxels)
    return {
        "heat": _text(np.rint(255 * warmth(one.answer.heat)[shown]).astype(np.uint8)),
        "azimuth": azimuth,
        "height": height,
        "boxes": [((corners(place) - studio.middle) @ studio.axes.T).round(4).tolist() for place in one.answer.places],
    }


def _words(scene: Scene, one: Asked) -> dict[str, Any]:
    picture = address(one.picture) if one.picture else ""
    return {"label": one.label, "note": one.note, "picture": picture, "places": [_place(scene, p) for p in one.answer.places]}


def _place(scene: Scene, place: Place) -> dict[str, Any]:
    return {
        "score": f"{place.score:.3f}",
        "contrast": f"{place.contrast:.1f}",
        "size": " x ".join(f"{side:.2f}" for side in place.high - place.low) + " m",
        "point": ", ".join(f"{value:.2f}" for value in place.point),
        "frames": [picture for view in place.views[:VIEWS] if (picture := _thumbnail(scene, view))],
    }


def _thumbnail(scene: Scene, view: View) -> dict[str, str] | None:
    """A frame with the place's box in it; None where the file is gone."""
    try:
        pixels = read_colour(scene.frames.colour[view.frame])
    except InputError:
        return None
    picture = PIL.Image.fromarray(pixels)
    width = max(2, round(picture.width / 160))
    PIL.ImageDraw.Draw(picture).rectangle(view.box, outline=BOX_COLOUR, width=width)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80)
    return {"name": view.name, "share": f"{100 * view.share:.0f} %", "picture": address(stream.getvalue(), "image/jpeg")}


def _facts(scene: Scene, shown: int) -> list[tuple[str, str]]:
    card = scene.card
    size = np.subtract(*card["extent"][::-1])
    windows = ", ".join(f"{value:g}" for value in card["settings"]["windows"])
    part = f", {shown} shown" if shown < card["voxels"] else ""
    return [
        ("model", f"{card['model']} ({card['licence']})"),
        ("frames", f"{card['frames']} of {card['recording']['frames']}"),
        ("size", " x ".join(f"{side:.1f}" for side in size) + " m"),
        ("voxels", f"{card['voxels']} of {card['settings']['voxel']:g} m{part}"),
        ("embeddings", f"{card['rows']} (float16, {card['embeddings_mb']:g} MB) from {card['crops']} crops"),
        ("windows", card["settings"]["segmenter"] or f"{windows} m"),
        ("built in", f"{card['seconds_per_frame']:g} s a frame, {card['peak_memory_mb'] or 0:.0f} MB of memory"),
    ]


def _ramp() -> np.ndarray:
    """The colours of heat, uint8 [256, 3]."""
    from matplotlib import colormaps

    return np.rint(255 * colormaps[COLOURS](np.linspace(0.25, 0.95, 256))[:, :3]).astype(np.uint8)


def _text(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
