"""Farthest point sampling: vitlens against the textbook numpy loop and Open3D's, in one run on this machine.

python -m vitlens.benchmarks.speed.point_sampling
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from vitlens.display.table import Table
from vitlens.display.terminal import console
from vitlens.libraries import load_open3d
from vitlens.modalities.point_sampling import farthest_point_sample

CASES = ((1, 10_000, 8192), (8, 8192, 512))
"""Clouds, points of each, points chosen: a scan down to the model's input; a batch down to the centres of its groups."""


def shells(clouds: int, points: int) -> np.ndarray:
    """Points [clouds, points, 3] on wobbly shells: surfaces, as scans of objects are."""
    random = np.random.default_rng(0)
    xyz = random.normal(size=(clouds, points, 3))
    xyz /= np.linalg.norm(xyz, axis=-1, keepdims=True)
    return (xyz * (1 + 0.3 * np.sin(5 * xyz[..., :1]))).astype(np.float32)


def numpy_loop(cloud: np.ndarray, count: int) -> np.ndarray:
    """The textbook loop over centres [n, 3] -> [count]."""
    distance = np.full(len(cloud), np.inf, np.float32)
    chosen = np.zeros(count, np.int64)
    for i in range(1, count):
        distance = np.minimum(distance, ((cloud - cloud[chosen[i - 1]]) ** 2).sum(axis=1))
        chosen[i] = distance.argmax()
    return chosen


def open3d_clouds(clouds: np.ndarray) -> list[Any]:
    """The same clouds as Open3D's legacy geometry (its tensor version takes seconds)."""
    open3d = load_open3d()
    return [open3d.geometry.PointCloud(open3d.utility.Vector3dVector(cloud.astype(np.float64))) for cloud in clouds]


def milliseconds(run: Callable[[], object], repeats: int) -> float:
    """The shortest of `repeats` runs after one that warms up."""
    run()
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return 1000 * min(taken)


def measure(clouds: int, points: int, count: int, repeats: int) -> list[tuple[str, float, str]]:
    """(name, milliseconds, whether the indices are the textbook loop's) of each implementation."""
    xyz = shells(clouds, points)
    tensor, legacy = torch.from_numpy(xyz), open3d_clouds(xyz)
    same = np.array_equal(farthest_point_sample(tensor, count).numpy(), np.stack([numpy_loop(cloud, count) for cloud in xyz]))
    return [
        ("vitlens", milliseconds(lambda: farthest_point_sample(tensor, count), repeats), "yes" if same else "NO"),
        ("open3d", milliseconds(lambda: [c.farthest_point_down_sample(count) for c in legacy], repeats), "not told"),
        ("numpy loop", milliseconds(lambda: [numpy_loop(cloud, count) for cloud in xyz], max(1, repeats // 5)), "yes"),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, of which the shortest counts (default: 5)")
    repeats = max(1, parser.parse_args().repeats)
    head = ("clouds", "points", "chosen", "by", "ms", "ratio", "textbook indices")
    rows = []
    for clouds, points, count in CASES:
        found = measure(clouds, points, count, repeats)
        for name, taken, same in found:
            ratio = f"{taken / found[0][1]:.1f}"
            rows.append((str(clouds), f"{points:,}", f"{count:,}", name, f"{taken:.1f}", ratio, same))
    console().print(f"Farthest point sampling on {torch.get_num_threads()} threads")
    console().print(Table(head, rows, numbers=[name for name in head if name != "by"]).to_rich())


if __name__ == "__main__":
    main()
