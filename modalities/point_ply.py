"""PLY files to points or pieces, by trimesh's parser; what PLY leaves open (names of colours, an axis) is settled here.

Not by open3d 0.20: of a damaged PLY both of its readers return uninitialised memory as if it were points, they misread or drop
colours that are not 8-bit, and its PLY library writes to the process's stderr.
"""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.modalities.point_pieces import Piece, load_trimesh
from vitlens.sources import Source

# Other names of the colours, which trimesh does not know.
_NAMES = {alias: name for name in (b"red", b"green", b"blue") for alias in (name[:1], b"diffuse_" + name)}
_NAMES |= {b"a": b"alpha", b"diffuse_alpha": b"alpha"}
_PROPERTY = re.compile(rb"^(property\s+\S+\s+)(\S+)[ \t]*(\r?)$", re.M)


def read_ply(path: Path, source: Source, limit: int) -> tuple[Piece, str | None]:
    """The file's one piece (without faces: a cloud), and its up axis where a comment names it.

    Raises:
        InputError: no PLY, no vertices, more than `limit`, or less data than the header says.
    """
    content = path.read_bytes()
    end = content.find(b"end_header") + 1
    head, body = content[:end], content[end:]
    counts = {element: int(count) for element, count in re.findall(rb"^element\s+(\S+)\s+(\d+)\s*$", head, re.M)}
    if not content.startswith(b"ply"):
        raise source.refuse("not a PLY file (it does not begin with 'ply')")
    if b"vertex" not in counts:
        raise source.refuse("a PLY file without vertices or with a damaged header")
    if not counts[b"vertex"]:
        raise source.refuse("no points")
    if max(counts.values()) > limit:
        raise source.refuse(f"{max(counts.values()):,} points or faces", f"at most {limit:,}: thin the cloud first")
    if b"format ascii" in head:
        rows = sum(1 for line in body.splitlines()[1:] if line.strip())
        if rows < sum(counts.values()):
            raise source.refuse("a file cut short")
    textured = b"comment TextureFile" in head
    renamed = _PROPERTY.sub(lambda match: match[1] + _name(match[2]) + match[3], head)
    parse = load_trimesh().exchange.ply.load_ply
    resolver = load_trimesh().resolvers.FilePathResolver(str(path)) if textured else None
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "string or file could not be read")  # numpy below 2.3 ends a row at what is no number
        loaded = parse(io.BytesIO(renamed + body), resolver=resolver, fix_texture=textured, skip_materials=not textured)
    up = re.search(rb"^comment up_axis ([xyz])\s*$", head, re.M)
    return _piece(loaded, counts, source), up[1].decode() if up else None


def _name(name: bytes) -> bytes:
    lower = name.lower()
    return _NAMES.get(lower, lower if lower in (b"x", b"y", b"z", b"red", b"green", b"blue", b"alpha") else name)


def _piece(loaded: dict[str, Any], counts: dict[bytes, int], source: Source) -> Piece:
    xyz = loaded.get("vertices")
    visual = loaded.get("visual")
    image = getattr(getattr(visual, "material", None), "image", None)
    if xyz is None or xyz.dtype == object or (image is None and len(xyz) != counts[b"vertex"]):
        raise source.refuse("a file cut short, or with rows of unequal length")
    faces, owners = _triangles(loaded, source)
    if counts.get(b"face") and not len(faces):
        raise source.refuse("a file whose faces cannot be read: cut short or damaged")
    if faces.size and not 0 <= faces.min() <= faces.max() < len(xyz):
        raise source.refuse(f"a PLY file with a face that refers to vertex {faces.max()} of {len(xyz)}")
    if image is not None:
        return Piece(xyz, faces, uv=np.asarray(loaded["visual"].uv), image=image)
    vertex = _colours(loaded.get("vertex_colors"), len(xyz), source)
    face = _colours(loaded.get("face_colors"), counts.get(b"face", 0), source) if vertex is None and len(faces) else None
    return Piece(xyz, faces, vertex_rgb=vertex, face_rgb=None if face is None else face[owners])


def _colours(rgb: Any, count: int, source: Source) -> np.ndarray | None:
    if rgb is None:
        return None
    if rgb.dtype == object or len(rgb) != count:
        raise source.refuse("a file cut short, or with rows of unequal length")
    return np.asarray(rgb)[:, :3]


def _triangles(loaded: dict[str, Any], source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Faces as triangles [f, 3], and which face [f] each is of; polygons become fans, strips what they stand for."""
    raw, faces = loaded["metadata"]["_ply_raw"], loaded.get("faces")
    if faces is None:
        strips = (raw.get("tristrips") or {}).get("data")
        triangles = np.empty((0, 3), np.int64) if strips is None else _strips(strips)
        return triangles, np.zeros(len(triangles), np.int64)
    data = (raw.get("face") or {}).get("data")
    ragged = next((data[name] for name in ("vertex_index", "vertex_indices") if isinstance(data, dict) and name in data), None)
    if ragged is not None and "visual" not in loaded:
        fans = [(row, p[0], p[at], p[at + 1]) for row, p in enumerate(ragged) for at in range(1, len(p) - 1)]
        table = np.array(fans, np.int64).reshape(-1, 4)
        return table[:, 1:], table[:, 0]
    faces = np.asarray(faces)
    if faces.ndim != 2 or faces.dtype == object or faces.shape[1] < 3:
        raise source.refuse("a file whose faces cannot be read: cut short or damaged")
    each = faces.shape[1] - 2
    corners = np.stack([faces[:, [0, at, at + 1]] for at in range(1, each + 1)], axis=1).reshape(-1, 3)
    return corners.astype(np.int64), np.repeat(np.arange(len(faces)), each)


def _strips(data: Any) -> np.ndarray:
    """Triangles of strips of vertices that -1 ends; every other one is turned round."""
    flat = np.concatenate([np.ravel(strip) for strip in (data.values() if isinstance(data, dict) else data)])
    triangles = [
        strip[at : at + 3]
        for strip in np.split(flat, np.flatnonzero(flat < 0))
        for strip in [strip[strip >= 0]]
        for at in range(len(strip) - 2)
    ]
    return np.array(triangles, np.int64).reshape(-1, 3)


def write_ply(path: Path, xyz: np.ndarray, rgb: np.ndarray | None, up: str | None) -> None:
    """Write a binary PLY of float32 `xyz` [n, 3] and 8-bit `rgb` [n, 3], with a comment that says which axis is `up`."""
    content = load_trimesh().PointCloud(xyz, colors=rgb).export(file_type="ply")
    comment = f"comment up_axis {up}\n".encode() if up else b""
    path.write_bytes(content.replace(b"element vertex", comment + b"element vertex", 1))
