"""Mass of a mesh: its volume, where its middle is, and how it resists turning, for a density of 1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vitlens.benchmarks.toybox.world.primitives import Mesh, dot

SHEET = 0.012
"""Metres of thickness of a part whose surface is not closed: a canopy, a wing."""


class Bulk(NamedTuple):
    """What a mesh holds of a material of 1 kg/m³."""

    volume: float
    """Cubic metres."""
    middle: np.ndarray
    """Centre of mass `[3]`."""
    inertia: np.ndarray
    """Moments about it `[3, 3]`, kg m²."""


def bulk(mesh: Mesh) -> Bulk:
    """The solid a mesh bounds: the sum of its parts, of each the tetrahedra from its middle to its faces."""
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    parts = _parts(mesh)
    volume, first, second = 0.0, np.zeros(3), np.zeros((3, 3))
    for part in range(parts.max() + 1):
        own = _part(corners[parts == part], mesh.normals[mesh.faces[parts == part]].sum(axis=1))
        volume, first, second = volume + own[0], first + own[1], second + own[2]
    middle = first / volume
    second = second - volume * np.outer(middle, middle)
    return Bulk(volume, middle, np.trace(second) * np.eye(3) - second)


def _parts(mesh: Mesh) -> np.ndarray:
    """Which connected part every face belongs to; corners at one place are one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, same = np.unique(np.round(mesh.vertices, 5), axis=0, return_inverse=True)
    faces = same.ravel()[mesh.faces]
    count = int(faces.max()) + 1
    rows, columns = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    labels = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), shape=(count, count)), directed=False)[1]
    return np.unique(labels[faces[:, 0]], return_inverse=True)[1].ravel()


def _part(corners: np.ndarray, normals: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Volume, first and second moments about the origin of one part, of faces `[f, 3, 3]`."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    across = np.cross(b - a, c - a)
    edge = corners.reshape(-1, 3).mean(axis=0)
    sign = np.sign(dot(across, normals))
    shares = sign * dot(a - edge, np.cross(b - edge, c - edge)) / 6
    volume = float(shares.sum())
    if volume < 0:
        shares, volume = -shares, -volume
    area = 0.5 * np.sqrt(dot(across, across))
    closed = np.abs(0.5 * (sign[:, None] * across).sum(axis=0)).max() < 0.1 * area.sum()
    points = np.concatenate([corners, np.broadcast_to(edge, (len(corners), 1, 3))], axis=1)
    if not closed or volume < 0.1 * SHEET * area.sum() / 2:
        shares, points = SHEET * area / 2, corners  # a thin sheet, drawn from both sides
    count = points.shape[1]
    total = points.sum(axis=1)
    first = np.einsum("f,fi->i", shares, total) / count
    spread = np.einsum("f,fi,fj->ij", shares, total, total) + np.einsum("f,fki,fkj->ij", shares, points, points)
    return float(shares.sum()), first, spread / (count * (count + 1))
