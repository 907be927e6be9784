"""Asking a scene: how well every voxel fits a query, the boxes where it fits best, and the frames that show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vitlens.checks import number, whole
from vitlens.errors import SpaceError
from vitlens.scene.folder import Scene
from vitlens.space import EmbeddingSpace

CHUNK = 100_000
LEAST_VOXELS = 3
"""Voxels that a place must have to be worth a box of its own."""


@dataclass(frozen=True)
class View:
    """A frame that shows a place: how much of it, and where in the picture (left, top, right, bottom; pixels)."""

    frame: int
    name: str
    share: float
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Place:
    """Where a query is found: its best point [3] and box (lowest and highest corner [3]) in metres of the scene.

    `score` is the cosine at the best point. `contrast` is how far that lies above the scene's median, as a number of the
    interquartile ranges of all cosines: what little contrast finds is anywhere.
    """

    point: np.ndarray
    low: np.ndarray
    high: np.ndarray
    score: float
    contrast: float
    voxels: np.ndarray
    views: tuple[View, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The place as JSON types."""
        return {
            "point": _rounded(self.point),
            "box": {"low": _rounded(self.low), "high": _rounded(self.high)},
            "score": round(self.score, 4),
            "contrast": round(self.contrast, 2),
            "frames": [{"frame": v.name, "share": round(v.share, 3), "box": list(v.box)} for v in self.views],
        }


@dataclass(frozen=True)
class Answer:
    """Cosines of all voxels with the query, float32 [n] (NaN: not seen closely enough), and the places, best first."""

    heat: np.ndarray
    places: tuple[Place, ...]


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in values]


def heat_of(scene: Scene, query: np.ndarray, space: EmbeddingSpace) -> np.ndarray:
    """Cosines float32 [n] of all voxels with a query [E]: the best of the sizes of windows; NaN where no window looked.

    Raises:
        SpaceError: the query lives in another space.
    """
    if space != scene.space:
        raise SpaceError(
            f"the query is of space {space.name} ({space.dim}), the scene {scene.folder} of {scene.space.name} "
            f"({scene.space.dim}): ask it with its own model, {scene.model}"
        )
    direction = np.asarray(query, np.float32) / max(float(np.linalg.norm(query)), 1e-12)
    heat = np.full(len(scene.voxels), -np.inf, np.float32)
    for start in range(0, len(scene.row_voxels), CHUNK):
        cosines = scene.vectors[start : start + CHUNK].astype(np.float32) @ direction
        np.maximum.at(heat, scene.row_voxels[start : start + CHUNK], cosines)
    return np.where(np.isfinite(heat), heat, np.nan)


def find(scene: Scene, query: np.ndarray, space: EmbeddingSpace, *, most: int = 3, share: float = 0.5, views: int = 5) -> Answer:
    """Where in the scene a query is: at most `most` places, each with the frames that show it.

    A place is what hangs together around a best voxel and is warmer than `share` of the way from the scene's median to the
    best voxel of all.

    Raises:
        SpaceError: the query lives in another space.
    """
    whole("most", most, least=1)
    number("share", share, least=0, most=1)
    heat = smoothed(scene, heat_of(scene, query, space))
    known = np.isfinite(heat)
    median, top = float(np.median(heat[known])), float(heat[known].max())
    spread = max(float(np.subtract(*np.percentile(heat[known], (75, 25)))), 1e-6)
    warm = np.flatnonzero(known & (heat >= median + share * (top - median)))
    groups = _connected(scene, warm)
    ordered = sorted(groups, key=lambda group: -float(heat[group].max()))
    large = [group for group in ordered if len(group) >= LEAST_VOXELS] or ordered[:1]
    return Answer(heat, tuple(_place(scene, heat, group, median, spread, views) for group in large[:most]))


def smoothed(scene: Scene, heat: np.ndarray) -> np.ndarray:
    """Each voxel's heat with its neighbours' (within 1.8 voxels): one bright voxel alone is noise."""
    known = np.flatnonzero(np.isfinite(heat))
    pairs = scene.voxels.tree.query_pairs(1.8 * scene.voxels.size, output_type="ndarray")
    pairs = pairs[np.isfinite(heat[pairs]).all(axis=1)]
    total, count = np.zeros(len(heat)), np.zeros(len(heat))
    for a, b in (pairs.T, pairs.T[::-1]):
        total += np.bincount(a, heat[b], minlength=len(heat))
        count += np.bincount(a, minlength=len(heat))
    out = heat.copy()
    out[known] = (heat[known] + total[known]) / (1 + count[known])
    return out


def _connected(scene: Scene, voxels: np.ndarray) -> list[np.ndarray]:
    """The given voxels in groups that hang together, with gaps of at most a voxel."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    pairs = cKDTree(scene.voxels.points[voxels]).query_pairs(2.2 * scene.voxels.size, output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(voxels), len(voxels)))
    count, label = connected_components(graph, directed=False)
    return [voxels[label == group] for group in range(count)]


def _place(scene: Scene, heat: np.ndarray, group: np.ndarray, median: float, spread: float, views: int) -> Place:
    best = group[int(heat[group].argmax())]
    points, half = scene.voxels.points[group], scene.voxels.size / 2
    score = float(heat[best])
    shown = shown_in(scene, group, views)
    low, high = points.min(axis=0) - half, points.max(axis=0) + half
    return Place(scene.voxels.points[best], low, high, score, (score - median) / spread, group, shown)


def shown_in(scene: Scene, voxels: np.ndarray, most: int) -> tuple[View, ...]:
    """The frames that show most of these voxels, large and whole: best first."""
    found: list[tuple[float, View]] = []
    frames = scene.frames
    for frame, name in enumerate(frames.names):
        common = np.intersect1d(voxels, frames.seen(frame), assume_unique=True)
        if not len(common):
            continue
        inverse = np.linalg.inv(frames.poses[frame])
        columns, rows, inside = frames.camera.pixels(scene.voxels.points[common] @ inverse[:3, :3].T + inverse[:3, 3])
        if not inside.any():
            continue
        columns, rows = columns[inside], rows[inside]
        box = (int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max()))
        share = len(columns) / len(voxels)
        area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1) / (frames.camera.width * frames.camera.height)
        found.append((share * min(area, 0.25) ** 0.5, View(frame, name, share, box)))
    found.sort(key=lambda pair: -pair[0])
    return tuple(view for _, view in found[:most])
