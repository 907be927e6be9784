"""A scene for OpenLex3D's evaluation: embeddings.npy, index.npy and point_cloud.pcd (arXiv 2503.19764)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitlens.disk import atomic, output_folder
from vitlens.errors import OptionError
from vitlens.scene.folder import Scene

NAMES = ("embeddings.npy", "index.npy", "point_cloud.pcd")


def export_openlex3d(scene: Scene, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the three files: a point a voxel that windows looked at, its embedding (the mean over the sizes of windows), float32.

    Raises:
        OptionError: one of them exists (without `overwrite`), or `folder` is a file.
    """
    output_folder("the export", folder)
    paths = [folder / name for name in NAMES]
    there = [path.name for path in paths if path.exists()]
    if there and not overwrite:
        raise OptionError(f"{folder} holds {', '.join(there)} already: choose another folder, or --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    voxels, mean = mean_embeddings(scene)
    for path, array in ((paths[0], mean), (paths[1], np.arange(len(voxels)))):
        with atomic(path) as part, part.open("wb") as stream:
            np.save(stream, array)
    write_pcd(paths[2], scene.voxels.points[voxels], scene.voxels.colours[voxels])
    return paths


def mean_embeddings(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The voxels [k] that have embeddings, and the mean of each one's rows, of length 1, float32 [k, E]."""
    voxels, where = np.unique(scene.row_voxels, return_inverse=True)
    total = np.zeros((len(voxels), scene.space.dim), np.float32)
    np.add.at(total, where.ravel(), scene.vectors.astype(np.float32))
    return voxels, total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def write_pcd(path: Path, points: np.ndarray, colours: np.ndarray) -> None:
    """Points [n, 3] and colours uint8 [n, 3] as a binary PCD; PCL packs a colour into the bits of a float."""
    table = np.empty(len(points), [("xyz", "<f4", (3,)), ("rgb", "<u4")])
    table["xyz"] = points
    red, green, blue = colours.astype(np.uint32).T
    table["rgb"] = red << 16 | green << 8 | blue
    head = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n"
        f"WIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA binary\n"
    )
    with atomic(path) as part, part.open("wb") as stream:
        stream.write(head.encode() + table.tobytes())
