"""OFF meshes, with the colours that may stand behind each vertex (COFF) and behind each face (Geomview's manual, "OFF").

The first word names what stands in a vertex's line, in this order: ST (texture), C (colour), N (normal), 4 (a fourth coordinate),
n (any number of coordinates). Colours are three or four numbers, integers of 0..255 or floats of 0..1.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from vitlens.modalities.point_pieces import Piece
from vitlens.sources import Source

_HEAD = re.compile(r"(ST)?(C)?(N)?(4)?(n)?OFF(?![A-Za-z])")


def read_off(path: Path, source: Source) -> Piece:
    """The mesh; polygons become fans of triangles.

    Raises:
        InputError: binary, of another number of coordinates, cut short, or with faces that name vertices which are not there.
    """
    text = path.read_text(encoding="latin-1")
    lines = [line for line in re.sub(r"#[^\n]*", "", text.lstrip("ï»¿")).splitlines() if line.strip()]
    head = _HEAD.match(lines[0].strip()) if lines else None
    if head is None:
        raise source.refuse("not an OFF file (it does not begin with OFF)")
    texture, colour, normal, fourth, many = (bool(group) for group in head.groups())
    rest = lines[0].strip()[head.end() :].split()
    if fourth or many or "BINARY" in rest:
        what = "a binary OFF file" if "BINARY" in rest else "an OFF file of other than three coordinates"
        raise source.refuse(f"{what}, which is not read")
    counts, rows = (rest, lines[1:]) if rest else (lines[1].split() if len(lines) > 1 else [], lines[2:])
    if len(counts) < 2:
        raise source.refuse("an OFF file without its counts: cut short or damaged")
    vertices, faces = int(counts[0]), int(counts[1])
    if min(vertices, faces) < 0 or len(rows) < vertices + faces:
        raise source.refuse(f"an OFF file cut short: {len(rows)} of {vertices + faces} rows")
    table = _table(rows[:vertices], source)
    before = 3 + 3 * normal
    behind = table[:, before : table.shape[1] - 2 * texture]
    # many writers leave the C out of the first word, so three or four numbers more are colours as well
    rgb = _colours(behind, rows[:vertices]) if colour or behind.shape[1] in (3, 4) else None
    triangles, face_rgb = _faces(rows[vertices : vertices + faces], vertices, source)
    return Piece(table[:, :3], triangles, vertex_rgb=rgb, face_rgb=face_rgb)


def _table(rows: list[str], source: Source) -> np.ndarray:
    split = [row.split() for row in rows]
    if len({len(row) for row in split}) > 1 or (split and len(split[0]) < 3):
        raise source.refuse("an OFF file whose vertices have different numbers of values")
    return np.array(split, np.float64).reshape(len(split), -1)


def _colours(values: np.ndarray, rows: list[str]) -> np.ndarray | None:
    """Colours [n, 3] of three or four numbers each: integers where the file writes no fraction."""
    if values.shape[1] not in (3, 4):
        return None
    floats = any("." in word or "e" in word.lower() for row in rows for word in row.split()[-values.shape[1] :])
    return values[:, :3] if floats else values[:, :3].round().astype(np.int64)


def _faces(rows: list[str], vertices: int, source: Source) -> tuple[np.ndarray, np.ndarray | None]:
    """Triangles [f, 3], and their colours [f, 3] where every face has one of its own."""
    triangles: list[tuple[int, int, int]] = []
    owners: list[int] = []
    colours: list[list[str]] = []
    for number, row in enumerate(rows):
        words = row.split()
        count = int(words[0])
        corners = [int(word) for word in words[1 : 1 + count]]
        if len(corners) < count or count < 0:
            raise source.refuse("an OFF file with a face of too few corners: cut short or damaged")
        if any(not 0 <= corner < vertices for corner in corners):
            raise source.refuse(f"an OFF file whose face {number} refers to vertices that are not among its {vertices}")
        fan = [(corners[0], corners[at], corners[at + 1]) for at in range(1, count - 1)]
        triangles += fan
        owners += [number] * len(fan)
        colours.append(words[1 + count :])
    faces = np.array(triangles, np.int64).reshape(-1, 3)
    if not colours or not all(len(words) in (3, 4) for words in colours):
        return faces, None
    floats = any("." in word for words in colours for word in words)
    table = np.array([words[:3] for words in colours], np.float64)[owners].reshape(-1, 3)
    return faces, table if floats else table.astype(np.int64)
