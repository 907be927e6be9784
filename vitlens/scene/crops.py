"""The crops of all frames as one list of pictures, cut when they are asked for; and which voxels each one's embedding is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vitlens.errors import InputError
from vitlens.scene.recording import Recording
from vitlens.scene.surface import Voxels, seen_voxels
from vitlens.scene.windows import Cutting, regions, weights

LEAST = 1e-7
"""Sum of weights below which windows say nothing of a voxel."""


@dataclass
class Crops(Sequence[np.ndarray]):
    """Crops in order of their frames: RGB uint8 [h, w, 3] each.

    `frames` [c]: position of each one's frame; `boxes` [c, 4]: left, top, right, bottom; `levels` [c]: which size of window, -1
    for a whole frame.
    """

    recording: Recording
    frames: np.ndarray
    boxes: np.ndarray
    levels: np.ndarray
    _last: tuple[int, np.ndarray] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: Any) -> Any:
        place = int(self.frames[index])
        if self._last is None or self._last[0] != place:
            self._last = (place, self.recording.colour(place))
        left, top, right, bottom = self.boxes[index]
        return np.ascontiguousarray(self._last[1][top:bottom, left:right])


@dataclass(frozen=True)
class Share:
    """Whom embeddings are for: crop `crops[k]` counts `values[k]` in voxel `voxels[k]`."""

    crops: np.ndarray
    voxels: np.ndarray
    values: np.ndarray


def cut(
    recording: Recording,
    voxels: Voxels,
    cutting: Cutting,
    *,
    most_depth: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Crops, Share, dict[int, np.ndarray]]:
    """The crops of all usable frames, whom they are for, and the voxels that each frame sees."""
    frames, boxes, levels = list[int](), list[tuple[int, int, int, int]](), list[int]()
    shares: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    seen: dict[int, np.ndarray] = {}
    usable = recording.usable
    for done, place in enumerate(usable):
        progress(done, len(usable))
        try:
            depth, pixels = recording.depth(place), recording.colour(place)
        except InputError:  # it was named while the surface was made
            continue
        seen[place], points = seen_voxels(voxels, recording, place, depth, most_depth)
        found = regions(cutting, recording.colour_camera, points, pixels, depth)
        for crop, (near, values) in enumerate(weights(found, recording.colour_camera, points), start=len(frames)):
            shares.append((np.full(len(near), crop, np.int32), seen[place][near].astype(np.int32), values.astype(np.float32)))
        frames += [place] * len(found)
        boxes += [region.box for region in found]
        levels += [region.level for region in found]
    progress(len(usable), len(usable))
    share = Share(*(np.concatenate(part) for part in zip(*shares, strict=True)))
    return Crops(recording, np.array(frames), np.array(boxes), np.array(levels)), share, seen


@dataclass(frozen=True)
class Rows:
    """Embeddings of voxels: row r is what windows of size number `levels[r]` saw of voxel `voxels[r]`."""

    voxels: np.ndarray
    levels: np.ndarray
    vectors: np.ndarray
    """Float16 [r, E], of length 1."""


def fused(share: Share, crops: Crops, vectors: np.ndarray, kept: np.ndarray, voxels: int, *, chunk: int = 20_000) -> Rows:
    """The weighted mean of the crops' embeddings in every voxel, for each size of windows by itself.

    `vectors` [k, E], of length 1, are those of the crops at the positions `kept` [k]. Voxels that no window of a size was for
    have no row of that size. Beside the result, `chunk` rows are held in float32.
    """
    from scipy.sparse import csr_matrix

    column = np.full(len(crops), -1, np.int64)
    column[kept] = np.arange(len(kept))
    found: list[tuple[np.ndarray, int, np.ndarray]] = []
    for level in sorted(set(crops.levels.tolist()) - {-1}):
        good = (column[share.crops] >= 0) & (crops.levels[share.crops] == level)
        cells = (share.values[good], (share.voxels[good], column[share.crops[good]]))
        matrix = csr_matrix(cells, shape=(voxels, len(kept)), dtype=np.float32)
        reached = np.flatnonzero(np.asarray(matrix.sum(axis=1)).ravel() >= LEAST)
        for start in range(0, len(reached), chunk):
            part = reached[start : start + chunk]
            mean = matrix[part] @ vectors
            found.append((part, level, (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float16)))
    return Rows(
        np.concatenate([part for part, _, _ in found]).astype(np.int32),
        np.concatenate([np.full(len(part), level, np.int8) for part, level, _ in found]),
        np.concatenate([mean for _, _, mean in found]),
    )
