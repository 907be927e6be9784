"""Point cloud files to arrays: the reader of each format, and points or sampled surface as one result.

Every reader returns coordinates and colours as the file holds them, or raises one InputError. Formats whose header counts the
points are checked against it, so that a file cut short never passes for a smaller cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.modalities.point_gltf import read_gltf
from vitlens.modalities.point_las import read_las
from vitlens.modalities.point_obj import read_obj
from vitlens.modalities.point_off import read_off
from vitlens.modalities.point_pcd import read_pcd
from vitlens.modalities.point_pieces import Piece, load_trimesh, sample_pieces
from vitlens.modalities.point_ply import read_ply
from vitlens.modalities.point_text import read_table
from vitlens.sources import Source

MAX_POINTS = 50_000_000
MESHES = ("off", "obj", "stl", "glb", "gltf")
TABLES = ("npy", "npz", "txt", "xyz")
EXTENSIONS = ("ply", "pcd", "las", "laz", *MESHES, *TABLES)
COLUMNS = ("xyz", "xyzrgb", "xyzrgba", "xyznormal")
_WIDTHS = {"xyzrgb": 6, "xyzrgba": 7, "xyznormal": 6}


@dataclass
class Points:
    """Coordinates [n, 3] and colours [n, 3] (integers of 0..255, or floats) as found, with what the file says of them."""

    xyz: np.ndarray
    rgb: np.ndarray | None = None
    info: dict[str, Any] = field(default_factory=dict)
    full: float | None = None
    """The value of full colour where the format says so."""


def read_points(path: Path, source: Source, *, kind: str, columns: str | None, key: str | None, samples: int) -> Points:
    """Read the file `path` of type `kind` ("ply"); meshes are sampled at `samples` points of their surface.

    Raises:
        InputError: the file is damaged, cut short, of another type, or holds more than 50 million points.
    """
    with source.decoding():
        if kind in ("npy", "npz"):
            table = source.npy(path, key=key, check=lambda shape: check_count(shape[0] if shape else 0, source))
            return split_columns(table, source, columns)
        if kind in ("txt", "xyz"):
            table, names = read_table(path, source)
            return _named_columns(table, names) if names and columns is None else split_columns(table, source, columns, text=True)
        if kind == "pcd":
            return _of_pcd(path, source)
        if kind in ("las", "laz"):
            xyz, rgb = read_las(path, source, MAX_POINTS)
            return Points(xyz, rgb, {"up": "z"}, 65535.0 if rgb is not None and rgb.max() > 255 else None)
        if kind == "ply":
            piece, up = read_ply(path, source, MAX_POINTS)
            if not len(piece.faces):
                return Points(piece.vertices, piece.vertex_rgb, {"up": up})
            return _of_surface([piece], source, samples, up)
        pieces = _surface(path, source, kind)
        return _of_surface(pieces, source, samples, "y" if kind in ("glb", "gltf") else None)  # y by definition


def split_columns(table: np.ndarray, source: Source, columns: str | None, *, text: bool = False) -> Points:
    """Columns of `table` [n, 3] or [n, 6] as coordinates and colours; "xyz" takes the first three of any number of columns.

    Seven columns of a text are x y z r g b and an opaque alpha of 255, as CloudCompare writes them, or have to be named.

    Raises:
        InputError: not a table, another number of columns, or too many rows.
    """
    shape = list(table.shape)
    check_count(shape[0] if shape else 0, source)
    if text and columns is None and table.shape[1] == 7 and _is_rgba(table[:, 3:]):
        columns = "xyzrgba"
    width = shape[1] if table.ndim == 2 else 0
    wide = width in (3, 6) if columns is None else width >= 3 if columns == "xyz" else width == _WIDTHS[columns]
    if not wide:
        hint = "; it looks transposed: pass its .T" if table.ndim == 2 and shape[0] in (3, 6) else ""
        named = f" as {columns!r}" if columns else ""
        table_is = "([n, 3] or [n, 6]; columns='xyz' keeps the first three, columns='xyzrgba' names seven)"
        raise source.refuse(f"an array of shape {shape}{named}{hint}", accepted=f"{source.accepted} {table_is}")
    rgb = table[:, 3:6] if width >= 6 and columns in (None, "xyzrgb", "xyzrgba") else None
    return Points(table[:, :3], _whole(rgb) if text else rgb, {"dropped": "normals"} if columns == "xyznormal" else {})


def _is_rgba(table: np.ndarray) -> bool:
    """Whether four columns are integers of 0..255, the last of them all 255."""
    return bool((table == np.floor(table)).all() and table.min() >= 0 and table.max() <= 255 and (table[:, 3] == 255).all())


def _named_columns(table: np.ndarray, names: Sequence[str]) -> Points:
    """The columns that the file's header calls x, y, z and r, g, b; the others (alpha, normals, intensity) are dropped."""
    xyz = table[:, [names.index(axis) for axis in "xyz"]]
    coloured = {"r", "g", "b"} <= set(names)
    dropped = [name for name in names if name not in (*"xyz", *"rgb"[: 3 * coloured])]
    rgb = _whole(table[:, [names.index(colour) for colour in "rgb"]]) if coloured else None
    return Points(xyz, rgb, {"dropped": ", ".join(dropped)} if dropped else {})


def _whole(rgb: np.ndarray | None) -> np.ndarray | None:
    """Colours as integers where a text, which does not say so, holds nothing else."""
    whole = rgb is not None and rgb.size and rgb.max() > 1 and np.array_equal(rgb, np.floor(rgb))
    return rgb.astype(np.int64) if whole and rgb is not None else rgb


def check_count(count: int, source: Source) -> None:
    """Raise InputError for a cloud of no points or more than `MAX_POINTS`."""
    if count < 1:
        raise source.refuse("no points")
    if count > MAX_POINTS:
        raise source.refuse(f"{count:,} points", f"at most {MAX_POINTS:,} points: thin the cloud first")


def _of_pcd(path: Path, source: Source) -> Points:
    """Of an organised cloud (a picture of points) only what the camera saw: it marks the other places with NaN."""
    xyz, rgb, organised = read_pcd(path, source, MAX_POINTS)
    there = np.isfinite(xyz).all(axis=1)
    if not organised or there.all() or not there.any():
        return Points(xyz, rgb)
    info = {"missing": f"{int((~there).sum()):,} of {len(xyz):,} places without a point"}
    return Points(xyz[there], None if rgb is None else rgb[there], info)


def _surface(path: Path, source: Source, kind: str) -> list[Piece]:
    if kind in ("glb", "gltf"):
        return read_gltf(path, source)
    if kind == "obj":
        return read_obj(path, source)
    if kind == "off":
        return [read_off(path, source)]
    scene = load_trimesh().load_scene(path, file_type=kind, process=False)
    return [Piece(np.asarray(piece.vertices), np.asarray(piece.faces)) for piece in scene.dump()]


def _of_surface(pieces: Sequence[Piece], source: Source, samples: int, up: str | None) -> Points:
    (xyz, rgb), faces = sample_pieces(pieces, samples), sum(len(piece.faces) for piece in pieces)
    check_count(len(xyz), source)
    return Points(xyz, rgb, {"faces": faces, "up": up} if faces else {"up": up})
