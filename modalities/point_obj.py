"""Wavefront OBJ to pieces: one a material, with its picture or colour, or the colours that stand behind the vertices.

By our own reading: what refers back from where it stands (negative indices), a file of points alone, and colours of 0..255 are
misread in silence by trimesh 5.2.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.modalities.pixel_maps import texture_picture
from vitlens.modalities.point_pieces import Piece
from vitlens.sources import Source

# How many words follow an option of a texture line; all others take one.
_MAP_OPTIONS = {"-s": 3, "-o": 3, "-t": 3, "-mm": 2}
_PICTURES = ["PNG", "JPEG", "BMP", "TGA", "TIFF", "WEBP"]


def read_obj(path: Path, source: Source) -> list[Piece]:
    """The faces of each material as triangles; a file without faces is its vertices.

    Raises:
        InputError: no vertices, rows of other than 3, 4, 6 or 7 numbers, faces that name vertices which are not there.
    """
    rows: list[list[str]] = []
    coordinates: list[list[str]] = []
    faces: dict[str, list[list[tuple[int, int]]]] = defaultdict(list)
    libraries: list[str] = []
    material = ""
    for words in _lines(path):
        key = words[0]
        if key == "v":
            rows.append(words[1:])
        elif key == "vt":
            coordinates.append(words[1:3])
        elif key == "f":
            faces[material].append([_corner(word, len(rows), len(coordinates), source) for word in words[1:]])
        elif key == "usemtl":
            material = " ".join(words[1:])
        elif key == "mtllib":
            libraries.append(" ".join(words[1:]))
    xyz, rgb = _vertices(rows, source)
    if not faces:
        return [Piece(xyz, np.empty((0, 3), np.int64), vertex_rgb=rgb)]
    uv = np.array([[*row, "0"][:2] for row in coordinates], np.float64).reshape(-1, 2)
    materials = _materials(path.parent, libraries, source)
    return [_piece(xyz, rgb, uv, polygons, materials.get(name), source) for name, polygons in faces.items()]


def _lines(path: Path) -> Iterator[list[str]]:
    """The words of every statement; a backslash joins it with the next line."""
    joined = ""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for line in file:
            text = joined + line.partition("#")[0].rstrip()
            joined = text[:-1] + " " if text.endswith("\\") else ""
            words = text.split()
            if words and not joined:
                yield words


def _vertices(rows: list[list[str]], source: Source) -> tuple[np.ndarray, np.ndarray | None]:
    """Coordinates [n, 3], and the colours [n, 3] behind them; a fourth coordinate (of rational curves) is no colour."""
    widths = {len(row) for row in rows}
    if not rows or not widths <= {3, 4, 6, 7} or len(widths) > 1:
        found = f"rows of {', '.join(map(str, sorted(widths)))} numbers" if rows else "no vertices"
        raise source.refuse(f"an OBJ file with {found}: cut short or damaged")
    table = np.array(rows, np.float64)
    if table.shape[1] < 6:
        return table[:, :3], None
    rgb = table[:, -3:]
    whole = rgb.max() > 1 and (rgb == np.floor(rgb)).all()
    return table[:, :3], rgb.astype(np.int64) if whole else rgb


def _corner(word: str, vertices: int, coordinates: int, source: Source) -> tuple[int, int]:
    """(vertex, texture coordinate or -1), from 0; negative numbers count back from what was read last."""
    parts = word.split("/")
    vertex, uv = int(parts[0]), int(parts[1]) if len(parts) > 1 and parts[1] else 0
    vertex = vertex - 1 if vertex > 0 else vertices + vertex
    if vertex < 0 or parts[0] == "0":
        raise source.refuse(f"an OBJ file with a face that refers to vertex {parts[0]} of {vertices}")
    return vertex, uv - 1 if uv > 0 else coordinates + uv if uv < 0 else -1


def _piece(
    xyz: np.ndarray, rgb: np.ndarray | None, uv: np.ndarray, polygons: list[list[tuple[int, int]]], paint: Any, source: Source
) -> Piece:
    """Polygons as fans of triangles; with a picture, vertices are doubled where they have several texture coordinates."""
    fans = [(p[0], p[at], p[at + 1]) for p in polygons for at in range(1, len(p) - 1)]
    corners = np.array(fans, np.int64).reshape(-1, 3, 2)
    if corners.size and corners[..., 0].max() >= len(xyz):
        raise source.refuse(f"an OBJ file with a face that refers to vertex {corners[..., 0].max() + 1} of {len(xyz)}")
    image, tint = paint or (None, None)
    if image is not None and corners.size and corners[..., 1].min() >= 0 and corners[..., 1].max() < len(uv):
        pairs, which = np.unique(corners.reshape(-1, 2), axis=0, return_inverse=True)
        return Piece(xyz[pairs[:, 0]], which.reshape(-1, 3), uv=uv[pairs[:, 1]], image=image)
    used, which = np.unique(corners[..., 0], return_inverse=True)
    colours = None if rgb is None else rgb[used]
    return Piece(xyz[used], which.reshape(-1, 3), vertex_rgb=colours, tint=tint if colours is None else None)


# --- materials ---


def _materials(folder: Path, libraries: list[str], source: Source) -> dict[str, tuple[Any, np.ndarray | None]]:
    """Name -> (picture, colour [3] in 0..1) of the material files beside this one; what is not there gives no colour."""
    found: dict[str, tuple[Any, np.ndarray | None]] = {}
    for library in libraries:
        content = _beside(folder, library)
        name = ""
        for line in (content or b"").decode("utf-8", "replace").splitlines():
            key, *words = line.partition("#")[0].split() or [""]
            image, tint = found.get(name, (None, None))
            if key == "newmtl":
                name = " ".join(words)
            elif key == "Kd" and len(words) >= 3:
                found[name] = image, np.array(words[:3], np.float64)
            elif key == "map_Kd":
                found[name] = _picture(folder, words, source), tint
    return found


def _picture(folder: Path, words: list[str], source: Source) -> Any:
    while len(words) > 1 and words[0].startswith("-"):
        words = words[1 + _MAP_OPTIONS.get(words[0], 1) :]
    content = _beside(folder, " ".join(words))
    return None if content is None else texture_picture(io.BytesIO(content), _PICTURES, source)


def _beside(folder: Path, name: str) -> bytes | None:
    """What a file in the folder of this one or below holds; None where it is not there, or elsewhere: nothing outside is read."""
    path = (folder / name.replace("\\", "/")).resolve()
    return path.read_bytes() if name and path.is_relative_to(folder.resolve()) and path.is_file() else None
