"""Pieces of surface, whatever file they came from, to points: sampled evenly by area, coloured as the piece says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

GREY = 0.4
"""The grey of a point without colour (OpenShape, arXiv 2305.10764)."""
Cloud = tuple[np.ndarray, np.ndarray | None]
"""Coordinates [n, 3], and colours [n, 3] where there are any: integers of 0..255 or 0..65535, or floats, as the file has them."""


@dataclass
class Piece:
    """Vertices [n, 3], triangles [f, 3], and what colours them; a piece without triangles is its vertices.

    Colours are as the file has them. An image is seen through `uv` [n, 2] (v grows upwards), and `tint` [3] in 0..1 multiplies
    whatever else there is, or is the colour itself.
    """

    vertices: np.ndarray
    faces: np.ndarray
    vertex_rgb: np.ndarray | None = None
    face_rgb: np.ndarray | None = None
    uv: np.ndarray | None = None
    image: Any = None
    tint: np.ndarray | None = None


def load_trimesh() -> Any:
    """Import trimesh. What it logs ends in an InputError; without a handler it would reach the terminal as well."""
    import trimesh

    logger = logging.getLogger("trimesh")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return trimesh


def sample_pieces(pieces: Sequence[Piece], count: int) -> Cloud:
    """`count` points on the surface of all pieces together, spread evenly by area and always the same ones.

    Pieces that have no faces at all, or faces of no area, give their vertices.

    Raises:
        ValueError: nothing in them, or vertices that are NaN or infinite.
    """
    pieces = [piece for piece in pieces if len(piece.vertices)]
    if not pieces:
        raise ValueError("no geometry in it: empty, cut short or damaged")
    if not all(np.isfinite(piece.vertices).all() for piece in pieces):
        raise ValueError("vertices that are NaN or infinite")
    meshes = [load_trimesh().Trimesh(piece.vertices, piece.faces, process=False) for piece in pieces]
    areas = np.array([mesh.area if len(piece.faces) else 0.0 for mesh, piece in zip(meshes, pieces, strict=True)])
    if not 0 < areas.sum() < np.inf:
        return _joined([(piece.vertices, _vertex_colours(piece)) for piece in pieces])
    edges = np.round(np.cumsum(areas) / areas.sum() * count).astype(int)
    counts = np.diff(edges, prepend=0)
    return _joined([_on_surface(piece, mesh, n) for piece, mesh, n in zip(pieces, meshes, counts, strict=True) if n])


def _on_surface(piece: Piece, mesh: Any, count: int) -> Cloud:
    xyz, chosen, weights = load_trimesh().sample.sample_surface(mesh, count, return_barycentric=True, seed=0)
    return np.asarray(xyz), _surface_colours(piece, chosen, weights)


def _surface_colours(piece: Piece, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
    """Colours of points at `weights` [n, 3] within the triangles `chosen` [n]; None where the piece has none."""
    corners = piece.faces[chosen]
    if piece.face_rgb is not None:
        return _tinted(piece.face_rgb[chosen], piece.tint)
    if piece.image is not None and piece.uv is not None:
        uv = np.einsum("nk,nkc->nc", weights, piece.uv[corners])
        seen = load_trimesh().visual.color.uv_to_interpolated_color(uv, piece.image)[:, :3]
        return _tinted(seen, piece.tint)
    if piece.vertex_rgb is not None:
        mixed = np.einsum("nk,nkc->nc", weights, piece.vertex_rgb[corners].astype(np.float64))
        whole = piece.vertex_rgb.dtype.kind in "iu"
        return _tinted(mixed.round().astype(piece.vertex_rgb.dtype) if whole else mixed, piece.tint)
    return None if piece.tint is None else np.tile(_eight_bit(piece.tint), (len(chosen), 1))


def _vertex_colours(piece: Piece) -> np.ndarray | None:
    if piece.vertex_rgb is not None:
        return _tinted(piece.vertex_rgb, piece.tint)
    return None if piece.tint is None else np.tile(_eight_bit(piece.tint), (len(piece.vertices), 1))


def _tinted(rgb: np.ndarray, tint: np.ndarray | None) -> np.ndarray:
    if tint is None or (tint == 1).all():
        return rgb
    mixed = rgb * tint
    return mixed.round().astype(rgb.dtype) if rgb.dtype.kind in "iu" else mixed


def _eight_bit(tint: np.ndarray) -> np.ndarray:
    return (tint * 255).round().astype(np.uint8)


def _joined(clouds: Sequence[Cloud]) -> Cloud:
    """All clouds as one; colours of several types become 8 bits, and where only some have any the others are grey."""
    xyz = np.concatenate([piece for piece, _ in clouds])
    kinds = {rgb.dtype for _, rgb in clouds if rgb is not None}
    if not kinds:
        return xyz, None
    if len(kinds) == 1 and all(rgb is not None for _, rgb in clouds):
        return xyz, np.concatenate([rgb for _, rgb in clouds if rgb is not None])
    grey = round(GREY * 255)
    return xyz, np.concatenate([np.full(piece.shape, grey, np.uint8) if rgb is None else _as_bytes(rgb) for piece, rgb in clouds])


def _as_bytes(rgb: np.ndarray) -> np.ndarray:
    """Floats of 0..1 or integers of 0..255 as 8 bits; what is outside that range is left as it is, to be refused by its range."""
    if rgb.max() > (1 if rgb.dtype.kind == "f" else 255):
        return rgb
    return (rgb * 255).round().astype(np.uint8) if rgb.dtype.kind == "f" else rgb.astype(np.uint8)
