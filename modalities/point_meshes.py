"""Meshes to points: PLY, OFF, OBJ, STL and glTF files, read by trimesh and sampled on their surface.

What is wrong with a file is raised as whatever trimesh raises, or a ValueError; `point_files` turns it into an InputError.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np

GREY = 0.4
"""The grey of a point without colour (OpenShape, arXiv 2305.10764)."""
Cloud = tuple[np.ndarray, np.ndarray | None]
"""Coordinates [n, 3], and colours [n, 3] in 0..255 where there are any."""


def load_trimesh() -> Any:
    """Import trimesh. What it logs ends in an InputError; without a handler it would reach the terminal as well."""
    import trimesh

    logger = logging.getLogger("trimesh")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return trimesh


def sample_mesh(path: Path, kind: str, count: int) -> tuple[Cloud, int]:
    """`count` points on the surface of the mesh file `path` of type `kind` ("obj"), and the number of its faces.

    Spread evenly by area, and always the same ones. A file without faces, or with faces of no area, gives its vertices.

    Raises:
        ValueError: nothing in it, cut short, or vertices that are NaN or infinite.
    """
    if kind == "off":
        _check_off(path.read_text(encoding="latin-1"))
    scene = load_trimesh().load_scene(path, file_type=kind, process=False)
    pieces: list[Any] = [piece for piece in scene.dump() if len(getattr(piece, "vertices", ()))]
    if not pieces:
        raise ValueError("no geometry in it: empty, cut short or damaged")
    if not all(np.isfinite(piece.vertices).all() for piece in pieces):
        raise ValueError("vertices that are NaN or infinite")
    faces = [len(getattr(piece, "faces", ())) for piece in pieces]
    areas = np.array([piece.area if n else 0.0 for piece, n in zip(pieces, faces, strict=True)])
    if not 0 < areas.sum() < np.inf:  # points only, or faces without an area
        return _joined([_vertices(piece) for piece in pieces]), sum(faces)
    edges = np.round(np.cumsum(areas) / areas.sum() * count).astype(int)
    counts = np.diff(edges, prepend=0)
    return _joined([_on_surface(piece, n) for piece, n in zip(pieces, counts, strict=True) if n]), sum(faces)


def _check_off(text: str) -> None:
    """An OFF file with fewer lines than it says: trimesh would return a part of it."""
    lines = [line for line in re.sub(r"#[^\n]*", "", text).partition("OFF")[2].splitlines() if line.strip()]
    if not lines or len(lines) < 1 + sum(int(word) for word in lines[0].split()[:2]):
        raise ValueError("cut short or damaged")


def _vertices(piece: Any) -> Cloud:
    visual = getattr(piece, "visual", None)
    colours = visual.vertex_colors if visual is not None and visual.kind == "vertex" else None
    return np.asarray(piece.vertices), None if colours is None else np.asarray(colours)[:, :3]


def _on_surface(mesh: Any, count: int) -> Cloud:
    xyz, chosen, weights = load_trimesh().sample.sample_surface(mesh, count, return_barycentric=True, seed=0)
    return np.asarray(xyz), _surface_colours(mesh, chosen, weights)


def _surface_colours(mesh: Any, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
    """Colours from the mesh's vertices, faces, texture or material; None where it has none."""
    visual, corners = mesh.visual, np.asarray(mesh.faces)[chosen]
    if visual.kind == "vertex":
        return np.einsum("nk,nkc->nc", weights, visual.vertex_colors[corners][..., :3]).round().astype(np.uint8)
    if visual.kind == "face":
        return visual.face_colors[chosen][:, :3]
    if visual.kind != "texture":
        return None
    material = visual.material
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    factor = getattr(material, "baseColorFactor", None)
    if image is not None and visual.uv is not None:
        uv = np.einsum("nk,nkc->nc", weights, np.asarray(visual.uv)[corners])
        tint = 1.0 if factor is None else np.asarray(factor)[:3] / 255.0
        return (load_trimesh().visual.color.uv_to_interpolated_color(uv, image)[:, :3] * tint).round().astype(np.uint8)
    colour = factor if factor is not None else getattr(material, "diffuse", None)
    return None if colour is None else np.tile(np.asarray(colour)[:3].astype(np.uint8), (len(chosen), 1))


def _joined(pieces: list[Cloud]) -> Cloud:
    xyz = np.concatenate([piece for piece, _ in pieces])
    if all(rgb is None for _, rgb in pieces):
        return xyz, None
    grey = round(GREY * 255)
    return xyz, np.concatenate([np.full(piece.shape, grey, np.uint8) if rgb is None else rgb for piece, rgb in pieces])
