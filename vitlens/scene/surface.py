"""The surface of a recording, by open3d's voxel grid: a mesh, and the voxels that carry embeddings.

Depth and colour are fused into a truncated signed distance field (open3d's VoxelBlockGrid); embeddings stay out of it, in an
array of their own with a row for each voxel of the surface.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vitlens.errors import InputError
from vitlens.libraries import load_open3d
from vitlens.scene.recording import Recording

TRUNCATION = 4.0
"""Fine voxels before and behind the surface that a depth value changes."""


@dataclass(frozen=True)
class Mesh:
    """Vertices [v, 3] in metres, colours [v, 3] uint8, triangles [t, 3]."""

    vertices: np.ndarray
    colours: np.ndarray
    triangles: np.ndarray


@dataclass(frozen=True)
class Voxels:
    """Cubes of the surface with sides of `size` metres: middles of the surface in them [n, 3], colours and normals [n, 3]."""

    size: float
    points: np.ndarray
    colours: np.ndarray
    normals: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    @cached_property
    def tree(self) -> Any:
        """A k-d tree of the points."""
        from scipy.spatial import cKDTree

        return cKDTree(self.points)


def fuse_surface(
    recording: Recording,
    *,
    voxel: float,
    most_depth: float,
    device: str = "CPU:0",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Mesh, Voxels, list[tuple[int, str]]]:
    """The mesh, in voxels half as large, the surface's voxels, and frames that could not be read, each with the reason.

    `most_depth`: metres beyond which depth is not believed. `device`: open3d's ("CUDA:0").

    Raises:
        InputError: no surface comes of it.
    """
    open3d = load_open3d()
    core, fine = open3d.core, voxel / 2
    grid = open3d.t.geometry.VoxelBlockGrid(
        ("tsdf", "weight", "color"), (core.float32,) * 3, ((1), (1), (3)), fine, 8, 20_000, core.Device(device)
    )
    depth_matrix, colour_matrix = (core.Tensor(c.matrix) for c in (recording.depth_camera, recording.colour_camera))
    bad: list[tuple[int, str]] = []
    usable = recording.usable
    for done, place in enumerate(usable):
        progress(done, len(usable))
        try:
            metres, pixels = recording.depth(place), recording.colour(place)
        except InputError as error:
            bad.append((place, error.found))
            continue
        extrinsic = core.Tensor(np.linalg.inv(recording.pose(place)))
        depth = open3d.t.geometry.Image(core.Tensor(np.where(metres < most_depth, metres, 0)[..., None])).to(core.Device(device))
        colour = open3d.t.geometry.Image(core.Tensor(pixels.astype(np.float32) / 255)).to(core.Device(device))
        where = (depth_matrix, extrinsic, 1.0, float(most_depth), TRUNCATION)
        blocks = grid.compute_unique_block_coordinates(depth, *where)
        if len(blocks):
            grid.integrate(blocks, depth, colour, depth_matrix, colour_matrix, *where[1:])
    progress(len(usable), len(usable))
    return *_surface_of(grid, recording, voxel), bad


def _surface_of(grid: Any, recording: Recording, voxel: float) -> tuple[Mesh, Voxels]:
    least = 1.0 + (len(recording.usable) >= 40) + (len(recording.usable) >= 200)  # what one frame alone saw may be noise
    cpu = load_open3d().core.Device("CPU:0")
    cloud, mesh = grid.extract_point_cloud(weight_threshold=least).to(cpu), grid.extract_triangle_mesh(least).to(cpu)
    if "positions" not in cloud.point or len(cloud.point["positions"]) < 100:
        raise InputError(
            str(recording.folder),
            "no surface comes of its frames (fewer than 100 points)",
            "frames that fit together: `vitlens scene check` says; or a larger --max-depth or --voxel",
        )
    points, normals = cloud.point["positions"].numpy(), cloud.point["normals"].numpy()
    colours = _bytes(cloud.point["colors"].numpy())
    vertices, triangles = (values.numpy().copy() for values in (mesh.vertex["positions"], mesh.triangle["indices"]))
    made = Mesh(vertices, _bytes(mesh.vertex["colors"].numpy()), triangles)
    return made, _voxels(points, colours, normals, voxel)


def _bytes(colours: np.ndarray) -> np.ndarray:
    """Colours as uint8; open3d has them in 0..1."""
    return np.rint(colours * 255).clip(0, 255).astype(np.uint8)


def _voxels(points: np.ndarray, colours: np.ndarray, normals: np.ndarray, voxel: float) -> Voxels:
    _, cube, count = np.unique(np.floor(points / voxel).astype(np.int64), axis=0, return_inverse=True, return_counts=True)
    cube = cube.ravel()

    def mean(values: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(cube, values[:, axis]) for axis in range(3)], axis=1) / count[:, None]

    upright = mean(normals)
    upright /= np.maximum(np.linalg.norm(upright, axis=1, keepdims=True), 1e-9)
    return Voxels(voxel, mean(points).astype(np.float32), np.rint(mean(colours)).astype(np.uint8), upright.astype(np.float32))


def seen_voxels(
    voxels: Voxels, recording: Recording, place: int, depth: np.ndarray, most_depth: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which voxels a frame sees, [k] in order, and their middles in the camera's axes [k, 3]; by its depth map [h, w]."""
    camera, pose = recording.depth_camera, recording.pose(place)
    far = float(np.percentile(depth[depth > 0], 90)) if (depth > 0).any() else 1.0
    stride = max(1, int(0.5 * voxels.size * camera.fx / min(far, most_depth)))  # so that far voxels are met as well
    rows, columns = (axis.ravel() for axis in np.mgrid[0 : camera.height : stride, 0 : camera.width : stride])
    metres = depth[rows, columns]
    good = (metres > 0) & (metres < most_depth)
    local = camera.points(columns[good], rows[good], metres[good].astype(np.float64))
    found = voxels.tree.query(local @ pose[:3, :3].T + pose[:3, 3], distance_upper_bound=voxels.size)[1]
    seen = np.unique(found[found < len(voxels)])
    world_to_camera = np.linalg.inv(pose)
    return seen, voxels.points[seen] @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
