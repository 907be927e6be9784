"""Farthest point sampling, nearest neighbours and ball queries over point clouds [b, n, 3]: exact and deterministic.

On the CPU these are numba kernels without a Python loop over points, compiled on first use and cached on disk; on other devices
(and when a model is exported) torch loops over centres only. All give the textbook loop's indices, the lowest where points tie;
only which of several equally near points is the k-th neighbour may differ between devices.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from vitlens.modalities.kernels import compiled

_CHUNK = 1 << 25
"""Distances the torch version works on at once (128 MiB a copy, of which it holds about five)."""


def farthest_point_sample(xyz: Tensor, count: int, start: int = 0) -> Tensor:
    """Indices [b, count] of points of `xyz` [b, n, 3] (finite, read as float32), each the farthest from those chosen before.

    The first is `start`. Once every distinct point is chosen, index 0 repeats, as in the textbook loop (PointNet++,
    arXiv 1706.02413).

    Raises:
        ValueError: not [b, n, 3], no points, count below 1, or `start` outside the cloud.
    """
    _check(xyz)
    if count < 1 or not 0 <= start < xyz.shape[1]:
        raise ValueError(f"count must be 1 or more and start in 0..{xyz.shape[1] - 1}; found count={count}, start={start}")
    xyz = xyz.detach().float()
    # One operator on every device, also in a compiled or exported graph, where the loop would be count times as many nodes.
    traced = torch.jit.is_tracing()
    return _torch_fps(xyz, count, start) if traced else torch.ops.vitlens.farthest_point_sample(xyz, count, start)


def knn_groups(xyz: Tensor, centres: Tensor, k: int) -> Tensor:
    """Indices [b, g, k] of the `k` points of `xyz` [b, n, 3] nearest to each of `centres` [b, g, 3], nearest first.

    Raises:
        ValueError: not [b, n, 3], or k outside 1..n.
    """
    _check(xyz)
    if not 1 <= k <= xyz.shape[1]:
        raise ValueError(f"k must be in 1..{xyz.shape[1]} (the number of points); found {k}")
    xyz, centres = xyz.detach().float(), centres.detach().float()
    return _torch_knn(xyz, centres, k) if _in_torch(xyz) else torch.ops.vitlens.knn_groups(xyz, centres, k)


def ball_query(xyz: Tensor, centres: Tensor, radius: float, k: int) -> Tensor:
    """Indices [b, g, k] of the first `k` points, in index order, within `radius` of each of `centres` [b, g, 3].

    A ball with fewer points repeats its first one (PointNet++, arXiv 1706.02413); an empty ball takes the nearest point.

    Raises:
        ValueError: not [b, n, 3], k below 1, or a radius that is not positive.
    """
    _check(xyz)
    if k < 1 or not radius > 0:
        raise ValueError(f"k must be 1 or more and radius positive; found k={k}, radius={radius}")
    xyz, centres = xyz.detach().float(), centres.detach().float()
    return _torch_ball(xyz, centres, radius, k) if _in_torch(xyz) else torch.ops.vitlens.ball_query(xyz, centres, radius, k)


def gather_points(values: Tensor, index: Tensor) -> Tensor:
    """Rows of `values` [b, n, c] at `index` [b, ...]: [b, ..., c]."""
    clouds = torch.arange(values.shape[0], device=values.device).view(-1, *[1] * (index.ndim - 1))
    return values[clouds, index]


def _check(xyz: Tensor) -> None:
    if xyz.ndim != 3 or xyz.shape[2] != 3 or xyz.shape[1] < 1:
        raise ValueError(f"points must be [b, n, 3] with n of 1 or more; found {list(xyz.shape)}")


def _traced() -> bool:
    """Whether a model is being exported: a tracer would take a kernel's output for a constant."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def _in_torch(xyz: Tensor) -> bool:
    return xyz.device.type != "cpu" or _traced()


# --- torch: any device, exportable ---


def _torch_fps(xyz: Tensor, count: int, start: int) -> Tensor:
    x, y, z = xyz.unbind(-1)
    distance = torch.full_like(x, torch.inf)
    chosen = torch.full_like(x[:, :1], start, dtype=torch.long)
    indices = [chosen]
    for _ in range(count - 1):
        # separate operations: a fused multiply-add would round differently from the CPU kernel
        dx, dy, dz = (axis - axis.gather(1, chosen) for axis in (x, y, z))
        distance = torch.minimum(distance, dx * dx + dy * dy + dz * dz)
        chosen = distance.argmax(1, keepdim=True)
        indices.append(chosen)
    return torch.cat(indices, dim=1)


def _squared_distances(xyz: Tensor, centres: Tensor) -> Tensor:
    """[b, g, n], from differences: the expanded square loses the small distances that decide who is a neighbour."""
    dx, dy, dz = (centres[:, :, None, axis] - xyz[:, None, :, axis] for axis in range(3))
    return dx * dx + dy * dy + dz * dz


def _by_cloud(search: Callable[[Tensor, Tensor], Tensor], xyz: Tensor, centres: Tensor) -> Tensor:
    """`search` over as many clouds at once as keep the distances within `_CHUNK`."""
    if _traced():
        return search(xyz, centres)
    step = max(1, _CHUNK // max(1, centres.shape[1] * xyz.shape[1]))
    if step >= len(xyz):
        return search(xyz, centres)
    return torch.cat([search(a, c) for a, c in zip(xyz.split(step), centres.split(step), strict=True)])


def _torch_knn(xyz: Tensor, centres: Tensor, k: int) -> Tensor:
    return _by_cloud(lambda a, c: _squared_distances(a, c).topk(k, largest=False, sorted=True).indices, xyz, centres)


def _torch_ball(xyz: Tensor, centres: Tensor, radius: float, k: int) -> Tensor:
    n = xyz.shape[1]

    def search(points: Tensor, middle: Tensor) -> Tensor:
        squared = _squared_distances(points, middle)
        index = torch.arange(n, device=points.device).expand_as(squared)
        inside = index.masked_fill(squared > radius**2, n)
        inside = inside.topk(min(k, n), largest=False, sorted=True).values
        first = torch.where(inside[..., :1] < n, inside[..., :1], squared.argmin(-1, keepdim=True))
        inside = torch.cat([inside, inside.new_full((*inside.shape[:2], k - inside.shape[2]), n)], dim=-1)
        return torch.where(inside < n, inside, first)

    return _by_cloud(search, xyz, centres)


# --- numba: CPU. One kernel call is one cloud; clouds of a batch go to threads, because numba's own parallel loops neither
# survive fork (data loader workers) nor calls from several threads (a server) ---


def _each(run: Callable[[int], None], clouds: int) -> None:
    threads = min(clouds, torch.get_num_threads())
    if threads <= 1:
        for i in range(clouds):
            run(i)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, range(clouds)))


def _fps_on_cpu(xyz: Tensor, count: int, start: int) -> Tensor:
    clouds = xyz.contiguous().numpy()
    out = np.empty((len(clouds), count), np.int64)
    kernel = compiled(_fps_kernel)

    def run(i: int) -> None:
        order = _along_curve(clouds[i])
        bucket = max(64, min(256, len(order) // 1000))  # measured: 64 is best at 10,000 points, 256 at a million
        padded = np.pad(order, (0, -len(order) % bucket), mode="edge")
        axes = np.ascontiguousarray(clouds[i][padded].T)
        kernel(axes[0], axes[1], axes[2], padded, start, bucket, out[i])

    _each(run, len(clouds))
    return torch.from_numpy(out)


def _knn_on_cpu(xyz: Tensor, centres: Tensor, k: int) -> Tensor:
    clouds, middles = np.ascontiguousarray(xyz.mT.numpy()), centres.contiguous().numpy()
    out = np.empty((*middles.shape[:2], k), np.int64)
    kernel = compiled(_knn_kernel)
    _each(lambda i: kernel(clouds[i, 0], clouds[i, 1], clouds[i, 2], middles[i], out[i]), len(clouds))
    return torch.from_numpy(out)


def _ball_on_cpu(xyz: Tensor, centres: Tensor, radius: float, k: int) -> Tensor:
    clouds, middles = xyz.contiguous().numpy(), centres.contiguous().numpy()
    out = np.empty((*middles.shape[:2], k), np.int64)
    kernel = compiled(_ball_kernel)
    _each(lambda i: kernel(clouds[i], middles[i], np.float32(radius**2), out[i]), len(clouds))
    return torch.from_numpy(out)


def _along_curve(xyz: np.ndarray) -> np.ndarray:
    """The order of points [n, 3] along a Z-order curve, so that runs of points are small boxes in space."""
    low = xyz.min(0)
    extent = float((xyz.max(0) - low).max()) or 1.0
    cells = ((xyz - low) / extent * (2**21 - 1) if np.isfinite(extent) else np.zeros_like(xyz)).astype(np.uint64)
    code = np.zeros(len(xyz), np.uint64)
    for axis in range(3):
        bits = cells[:, axis]
        for shift, mask in (
            (32, 0x1F00000000FFFF),
            (16, 0x1F0000FF0000FF),
            (8, 0x100F00F00F00F00F),
            (4, 0x10C30C30C30C30C3),
            (2, 0x1249249249249249),
        ):
            bits = (bits | (bits << np.uint64(shift))) & np.uint64(mask)
        code |= bits << np.uint64(axis)
    return np.argsort(code)


def _fps_kernel(x, y, z, order, start, bucket, out):
    """FPS over points sorted into buckets; `order` [n] holds their original indices.

    A new centre can only shorten distances in a bucket whose box is nearer to it than the bucket's largest distance. The box
    distance is rounded by the same operations as the points' own, so skipping a bucket never changes a result.
    """
    zero = np.float32(0)
    buckets = len(x) // bucket
    box = np.empty((buckets, 6), np.float32)
    for b in range(buckets):
        piece = slice(b * bucket, (b + 1) * bucket)
        box[b, 0], box[b, 1] = x[piece].min(), x[piece].max()
        box[b, 2], box[b, 3] = y[piece].min(), y[piece].max()
        box[b, 4], box[b, 5] = z[piece].min(), z[piece].max()
    distance = np.full(len(x), np.float32(np.inf))
    largest = np.full(buckets, np.float32(np.inf))
    at = 0
    for j in range(len(x)):
        if order[j] == start:
            at = j
    for i in range(len(out)):
        out[i] = order[at]
        cx, cy, cz = x[at], y[at], z[at]
        farthest = zero
        for b in range(buckets):
            dx = max(zero, box[b, 0] - cx, cx - box[b, 1])
            dy = max(zero, box[b, 2] - cy, cy - box[b, 3])
            dz = max(zero, box[b, 4] - cz, cz - box[b, 5])
            if dx * dx + dy * dy + dz * dz < largest[b]:
                most = zero
                for j in range(b * bucket, (b + 1) * bucket):
                    dx, dy, dz = x[j] - cx, y[j] - cy, z[j] - cz
                    distance[j] = min(distance[j], dx * dx + dy * dy + dz * dz)
                    most = max(most, distance[j])
                largest[b] = most
            farthest = max(farthest, largest[b])
        lowest = np.int64(len(x))
        for b in range(buckets):
            if largest[b] == farthest:
                for j in range(b * bucket, (b + 1) * bucket):
                    if distance[j] == farthest and order[j] < lowest:
                        lowest, at = order[j], j


def _knn_kernel(x, y, z, centres, out):
    """The nearest len(out[0]) points to each centre, by insertion into a short sorted list."""
    k = out.shape[1]
    squared = np.empty(len(x), np.float32)
    best = np.empty(k, np.float32)
    for g in range(len(centres)):
        cx, cy, cz = centres[g, 0], centres[g, 1], centres[g, 2]
        for j in range(len(x)):
            dx, dy, dz = x[j] - cx, y[j] - cy, z[j] - cz
            squared[j] = dx * dx + dy * dy + dz * dz
        best[:] = np.inf
        out[g, :] = 0
        for j in range(len(x)):
            if squared[j] < best[k - 1]:
                at = k - 1
                while at > 0 and squared[j] < best[at - 1]:
                    best[at], out[g, at] = best[at - 1], out[g, at - 1]
                    at -= 1
                best[at], out[g, at] = squared[j], j


def _ball_kernel(xyz, centres, radius_squared, out):
    """The first len(out[0]) points within the ball of each centre, in index order."""
    k = out.shape[1]
    for g in range(len(centres)):
        found, nearest, least = 0, 0, np.float32(np.inf)
        for j in range(len(xyz)):
            dx, dy, dz = xyz[j, 0] - centres[g, 0], xyz[j, 1] - centres[g, 1], xyz[j, 2] - centres[g, 2]
            squared = dx * dx + dy * dy + dz * dz
            if squared < least:
                least, nearest = squared, j
            if squared <= radius_squared:
                out[g, found] = j
                found += 1
                if found == k:
                    break
        if found == 0:
            out[g, 0], found = nearest, 1
        for j in range(found, k):
            out[g, j] = out[g, 0]


# torch operators, so that torch.compile keeps the kernels as they are; `torch.library.custom_op` would do the same and import
# all of torch's compiler on the first call (5 s)
_library = torch.library.Library("vitlens", "FRAGMENT")
_library.define("farthest_point_sample(Tensor xyz, int count, int start) -> Tensor")
_library.define("knn_groups(Tensor xyz, Tensor centres, int k) -> Tensor")
_library.define("ball_query(Tensor xyz, Tensor centres, float radius, int k) -> Tensor")
_library.impl("farthest_point_sample", _fps_on_cpu, "CPU")
_library.impl("farthest_point_sample", _torch_fps, "CompositeExplicitAutograd")  # all other devices
_library.impl("knn_groups", _knn_on_cpu, "CPU")
_library.impl("ball_query", _ball_on_cpu, "CPU")


@torch.library.register_fake("vitlens::farthest_point_sample", lib=_library)
def _(xyz: Tensor, count: int, start: int) -> Tensor:
    return xyz.new_empty((xyz.shape[0], count), dtype=torch.long)


@torch.library.register_fake("vitlens::knn_groups", lib=_library)
def _(xyz: Tensor, centres: Tensor, k: int) -> Tensor:
    return xyz.new_empty((*centres.shape[:2], k), dtype=torch.long)


@torch.library.register_fake("vitlens::ball_query", lib=_library)
def _(xyz: Tensor, centres: Tensor, radius: float, k: int) -> Tensor:
    return xyz.new_empty((*centres.shape[:2], k), dtype=torch.long)
