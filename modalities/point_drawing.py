"""Pictures of point clouds: a synthetic chair to look at, and a shaded orthographic view on ordinary 2-D axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN, _TURNED = 8192, 6000


def chair(seed: int = 0, points: int = 4096) -> np.ndarray:
    """A synthetic chair, float32 [points, 6], y up; seat colour and proportions vary with the seed."""
    random = np.random.default_rng(seed)
    width, depth, height, back, leg = random.uniform((0.4, 0.4, 0.4, 0.4, 0.02), (0.55, 0.55, 0.5, 0.6, 0.03))
    wood, cloth = np.array([0.55, 0.36, 0.2]) * random.uniform(0.8, 1.2), random.dirichlet([1, 1, 1]) * 0.8 + 0.15
    w, d = width / 2, depth / 2
    boxes = [((-w, height, -d), (w, height + 0.05, d), cloth)]
    boxes += [((x - leg, 0, z - leg), (x + leg, height, z + leg), wood) for x in (leg - w, w - leg) for z in (leg - d, d - leg)]
    boxes += [((x - leg, height, -d), (x + leg, height + back, 2 * leg - d), wood) for x in (leg - w, w - leg)]
    boxes += [((-w, height + back * at, -d), (w, height + back * (at + 0.18), 1.5 * leg - d), wood) for at in (0.35, 0.82)]
    low, high, colour = (np.array(column) for column in zip(*boxes, strict=True))
    size = high - low
    faces = np.stack([size[:, 1] * size[:, 2], size[:, 0] * size[:, 2], size[:, 0] * size[:, 1]], axis=1).repeat(2, axis=1)
    chosen = random.choice(faces.size, points, p=faces.ravel() / faces.sum())
    box, axis, side = chosen // 6, chosen % 6 // 2, chosen % 2
    at = random.random((points, 3))
    at[np.arange(points), axis] = side
    rgb = (colour[box] + random.normal(0, 0.03, (points, 1))).clip(0, 1)
    return np.concatenate([low[box] + at * size[box], np.rint(rgb * 255) / 255], axis=1).astype(np.float32)


def draw_points(data: np.ndarray, up: str, axes: Axes) -> None:
    """Draw points [n, 3 or 6] from the front, above and to the right: lit from above, near points over far ones.

    Colours are the points' own or, without any, their height. Of more than 8192 points the farthest apart are shown.
    """
    import torch

    from vitlens.modalities.point_sampling import farthest_point_sample

    points = torch.from_numpy(data[:: max(1, len(data) // 200_000)])
    if len(points) > _SHOWN:
        points = points[farthest_point_sample(points[None, :, :3], _SHOWN)[0]]
    xyz, colours = _upright(points.numpy(), up)
    view = _view(azimuth=35, elevation=20)
    across, upward, near = view @ xyz.T
    depth = (near - near.min()) / max(np.ptp(near), 1e-9)
    light = _lit(xyz, view[2]) * (0.8 + 0.2 * depth)
    order = np.argsort(near)
    box = axes.get_window_extent()
    dot = 1.7 * min(box.width, box.height) / axes.figure.dpi * 72 / np.sqrt(len(xyz))
    axes.scatter(across[order], upward[order], s=dot**2, c=(colours * light[:, None])[order].clip(0, 1), linewidths=0)
    axes.set_aspect("equal")
    axes.margins(0.06)
    axes.axis("off")


def points_to_turn(data: np.ndarray, up: str) -> tuple[np.ndarray, np.ndarray]:
    """At most 6000 of the points [n, 3 or 6], evenly taken: float32 [k, 3], z up, within -1..1, and lit colours, uint8 [k, 3]."""
    xyz, colours = _upright(data[np.unique(np.linspace(0, len(data) - 1, min(_TURNED, len(data))).astype(int))], up)
    lit = colours * _lit(xyz, _view(azimuth=35, elevation=20)[2])[:, None]
    return (2 * xyz).astype(np.float32), np.rint(255 * lit.clip(0, 1)).astype(np.uint8)


def _upright(points: np.ndarray, up: str) -> tuple[np.ndarray, np.ndarray]:
    """Points [n, 3 or 6] with z up, around the origin, in a box of diagonal 1; and their colours in 0..1, own or by height."""
    xyz = np.roll(points[:, :3].astype(float), 2 - "xyz".index(up), axis=1)  # a cyclic change of axes mirrors nothing
    xyz = (xyz - (xyz.min(axis=0) + xyz.max(axis=0)) / 2) / max(float(np.linalg.norm(np.ptp(xyz, axis=0))), 1e-9)
    if points.shape[1] == 6:
        return xyz, points[:, 3:].clip(0, 1)
    from matplotlib import colormaps

    height = (xyz[:, 2] - xyz[:, 2].min()) / max(np.ptp(xyz[:, 2]), 1e-9)
    return xyz, colormaps["viridis"](0.1 + 0.8 * height)[:, :3]


def _view(*, azimuth: float, elevation: float) -> np.ndarray:
    """Rows: right, up and towards the viewer, for a camera that far (degrees) to the right of and above the -y direction."""
    a, e = np.radians([azimuth, elevation])
    near = np.array([np.sin(a) * np.cos(e), -np.cos(a) * np.cos(e), np.sin(e)])
    right = np.array([np.cos(a), np.sin(a), 0.0])
    return np.stack([right, np.cross(near, right), near])


def _lit(xyz: np.ndarray, towards_viewer: np.ndarray) -> np.ndarray:
    """Brightness 0.35..1 of each point, from the plane through its 16 nearest neighbours and a light above the viewer."""
    import torch

    from vitlens.modalities.point_sampling import gather_points, knn_groups

    cloud = torch.from_numpy(xyz).float()[None]
    around = gather_points(cloud, knn_groups(cloud, cloud, min(16, len(xyz))))[0].double()
    around = around - around.mean(dim=1, keepdim=True)
    normals = torch.linalg.eigh(around.mT @ around).eigenvectors[..., 0].numpy()
    normals = normals * np.where(normals @ towards_viewer < 0, -1, 1)[:, None]
    light = towards_viewer + np.array([-0.3, 0.2, 0.9])
    return 0.35 + 0.65 * (normals @ (light / np.linalg.norm(light))).clip(0, 1)
