"""Triangle meshes from a few primitives: boxes, surfaces of revolution, tubes and extruded outlines.

Lengths are metres, y is up. A primitive stands on the ground (y = 0), centred on the y axis, unless its docstring says otherwise;
compositions are plain concatenations. Vertices carry normals and are doubled at hard edges, so that round parts shade smoothly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Point = tuple[float, float, float]
CREASE = np.cos(np.deg2rad(40))
"""Neighbouring pieces of a profile that bend less than 40 degrees are shaded as one smooth surface."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """Vertices `[v, 3]` in metres and unit normals `[v, 3]`, both float32; faces `[f, 3]`, uint32."""

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray

    def move(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mesh:
        """Shifted by metres."""
        return Mesh(self.vertices + np.array([x, y, z], np.float32), self.normals, self.faces)

    def turn(self, axis: str, degrees: float) -> Mesh:
        """Turned about the x, y or z axis through the origin, by the right-hand rule."""
        return self.rotate(rotation(axis, np.deg2rad(degrees)))

    def rotate(self, matrix: np.ndarray) -> Mesh:
        """Multiplied by a rotation matrix `[3, 3]`."""
        turned = matrix.T.astype(np.float32)
        return Mesh(self.vertices @ turned, self.normals @ turned, self.faces)

    def stretch(self, x: float = 1.0, y: float = 1.0, z: float = 1.0) -> Mesh:
        """Scaled along the axes."""
        factors = np.array([x, y, z], np.float32)
        return Mesh(self.vertices * factors, unit(self.normals / factors), self.faces)

    def extent(self) -> np.ndarray:
        """Width, height and depth in metres."""
        return np.ptp(self.vertices, axis=0)


def join(parts: Iterable[Mesh]) -> Mesh:
    """One mesh of several."""
    parts = list(parts)
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    faces = [part.faces + np.uint32(start) for part, start in zip(parts, starts, strict=True)]
    return Mesh(np.concatenate([p.vertices for p in parts]), np.concatenate([p.normals for p in parts]), np.concatenate(faces))


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scalar products of vectors `[..., 3]`."""
    return np.einsum("...i,...i->...", a, b)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors `[..., 3]` of length 1; zero stays zero."""
    return vectors / np.maximum(np.sqrt(dot(vectors, vectors)), 1e-12)[..., None]


def rotation(axis: str, angle: float) -> np.ndarray:
    """The matrix `[3, 3]` that turns by `angle` radians about the x, y or z axis."""
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cos
    matrix[first, second], matrix[second, first] = -sin, sin
    return matrix


def box(width: float, height: float, depth: float) -> Mesh:
    """A cuboid."""
    return prism([(-width / 2, 0), (width / 2, 0), (width / 2, height), (-width / 2, height)], depth)


def lathe(profile: Sequence[tuple[float, float]], segments: int = 40) -> Mesh:
    """The surface of revolution about y of a polyline of (radius, height)."""
    line = np.asarray(profile, dtype=np.float64)
    line = line[np.append(True, np.abs(np.diff(line, axis=0)).max(axis=1) > 1e-9)]
    step = np.diff(line, axis=0)
    across = np.stack([step[:, 1], -step[:, 0]], axis=1)  # outwards for a profile that goes up its outside
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
    begin, end = across.copy(), across.copy()
    smooth = (across[1:] * across[:-1]).sum(1) > CREASE
    mean = across[1:] + across[:-1]
    begin[1:][smooth], end[:-1][smooth] = mean[smooth], mean[smooth]
    rings = np.stack([line[:-1], line[1:]], axis=1).reshape(-1, 2)
    slopes = np.stack([begin, end], axis=1).reshape(-1, 2)
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    mesh = _grid(_revolve(rings, circle), unit(_revolve(slopes, circle)), pairs=True)
    on_axis = np.repeat(rings[:, 0] < 1e-9, segments + 1)[mesh.faces].sum(axis=1) > 1  # a triangle of which nothing is left
    return Mesh(mesh.vertices, mesh.normals, mesh.faces[~on_axis])


def _revolve(line: np.ndarray, circle: np.ndarray) -> np.ndarray:
    """(radius, height) `[k, 2]` around a circle `[2, n]` as `[k, n, 3]`."""
    height = np.broadcast_to(line[:, 1:2], (len(line), circle.shape[1]))
    return np.stack([line[:, :1] * circle[0], height, line[:, :1] * circle[1]], axis=-1)


def _grid(vertices: np.ndarray, normals: np.ndarray, *, pairs: bool = False) -> Mesh:
    """Rows of vertices `[k, n, 3]` as strips of triangles; with `pairs` only between rows 0 and 1, 2 and 3, ..."""
    rows, columns = vertices.shape[:2]
    first = np.arange(0, rows - 1, 2 if pairs else 1)[:, None] * columns + np.arange(columns - 1)
    corners = np.stack([first, first + columns, first + 1, first + 1, first + columns, first + columns + 1], axis=-1)
    faces = corners.reshape(-1, 3).astype(np.uint32)
    return Mesh(vertices.reshape(-1, 3).astype(np.float32), normals.reshape(-1, 3).astype(np.float32), faces)


def arc(
    radius: float, start: float, stop: float, steps: int, centre: tuple[float, float] = (0.0, 0.0)
) -> list[tuple[float, float]]:
    """Points on a circle from `start` to `stop` degrees, counted from the first axis towards the second."""
    angle = np.deg2rad(np.linspace(start, stop, steps))
    return [(centre[0] + radius * float(np.cos(a)), centre[1] + radius * float(np.sin(a))) for a in angle]


def ball(radius: float, squash: float = 1.0) -> Mesh:
    """A ball, or with `squash` an ellipsoid of another height."""
    line = [(max(r, 0.0), radius + y) for r, y in arc(radius, -90, 90, 21)]
    return lathe(line).stretch(y=squash)


def cylinder(radius: float, height: float, top: float | None = None, segments: int = 40) -> Mesh:
    """A closed cylinder, or with `top` (a radius) a frustum or cone."""
    top = radius if top is None else top
    return lathe([(0, 0), (radius, 0), (top, height), (0, height)], segments)


def torus(radius: float, thickness: float) -> Mesh:
    """A ring lying on the ground: `radius` of its middle line, `thickness` the radius of the tube."""
    return lathe([(radius + r, thickness + y) for r, y in arc(thickness, -180, 180, 21)], segments=48)


def tube(path: Sequence[Point], radius: float, sides: int = 12) -> Mesh:
    """A round rod along a polyline, with flat ends; where it stands is where the path says."""
    line = np.asarray(path, dtype=np.float64)
    along = unit(np.gradient(line, axis=0))
    side = unit(np.cross(along[0], np.eye(3)[np.abs(along[0]).argmin()]))
    sides_of = []
    for direction in along:  # carry the same side along, so that the rod does not twist
        side = unit(side - direction * (side @ direction))
        sides_of.append(side)
    first = np.array(sides_of)
    second = np.cross(along, first)
    angle = np.linspace(0, 2 * np.pi, sides + 1)[:, None]
    out = np.cos(angle) * first[:, None] + np.sin(angle) * second[:, None]
    rings = line[:, None] + radius * out
    ends = [_cap(rings[0], -along[0]), _cap(rings[-1], along[-1])]
    return join([_grid(rings, out), *ends])


def band(outer: Sequence[tuple[float, float]], inner: Sequence[tuple[float, float]], depth: float) -> Mesh:
    """What lies between two polylines of equal length in the x-y plane, extruded along z, such as an arch; y is left as it is."""
    lines = [np.asarray(line, dtype=np.float64) for line in (outer, inner)]
    front, back = (
        [np.concatenate([line, np.full((len(line), 1), z)], axis=1) for line in lines] for z in (depth / 2, -depth / 2)
    )
    out = unit(front[0] - front[1])
    flat = np.broadcast_to(np.array([0.0, 0.0, 1.0]), (2, *front[0].shape))
    sheets = [
        (front, flat),
        (back, -flat),
        ((front[0], back[0]), np.stack([out, out])),
        ((front[1], back[1]), np.stack([-out, -out])),
    ]
    lids = []
    for end in (0, -1):
        ring = np.array([front[0][end], front[1][end], back[1][end], back[0][end], front[0][end]])
        lids.append(_cap(ring, unit(np.cross(ring[1] - ring[0], ring[2] - ring[1]))))
    return join([*(_grid(np.stack(pair), normals) for pair, normals in sheets), *lids])


def _cap(ring: np.ndarray, normal: np.ndarray) -> Mesh:
    """A flat lid on a closed outline `[n, 3]` that is star-shaped seen from its mean."""
    count = len(ring)
    vertices = np.concatenate([ring, ring[:-1].mean(axis=0, keepdims=True)]).astype(np.float32)
    edge = np.arange(count - 1)
    faces = np.stack([edge, edge + 1, np.full(count - 1, count)], axis=1).astype(np.uint32)
    return Mesh(vertices, np.broadcast_to(normal, vertices.shape).astype(np.float32), faces)


def prism(outline: Sequence[tuple[float, float]], depth: float) -> Mesh:
    """An outline in the x-y plane, star-shaped seen from its mean, extruded along z; y is left where it is."""
    flat = np.asarray([*outline, outline[0]], dtype=np.float64)
    front = np.concatenate([flat, np.full((len(flat), 1), depth / 2)], axis=1)
    back = front * [1, 1, -1]
    step = np.diff(flat, axis=0)
    out = unit(np.stack([step[:, 1], -step[:, 0], np.zeros(len(step))], axis=1))
    walls = np.stack([back[:-1], front[:-1], back[1:], front[1:]], axis=1).reshape(-1, 3)
    start = np.arange(len(step))[:, None] * 4
    faces = np.concatenate([start + np.array([0, 1, 2]), start + np.array([2, 1, 3])]).astype(np.uint32)
    sides = Mesh(walls.astype(np.float32), np.repeat(out, 4, axis=0).astype(np.float32), faces)
    axis = np.array([0.0, 0.0, 1.0])
    return join([sides, _cap(front, axis), _cap(back, -axis)])


def around(count: int, radius: float, first: float = 0.0) -> list[tuple[float, float]]:
    """(x, z) of `count` places on a circle."""
    return arc(radius, first, first + 360, count + 1)[:-1]


def corners(width: float, depth: float) -> list[tuple[float, float]]:
    """(x, z) of the corners of a rectangle."""
    return [(x * width / 2, z * depth / 2) for x in (-1, 1) for z in (-1, 1)]
