"""Point cloud files to arrays: tables (npy, npz, txt, xyz), PLY, PCD, LAS/LAZ, and meshes sampled on their surface.

Every reader returns `Points`, coordinates and colours as the file holds them, or raises one InputError. Formats whose header
counts the points are checked against it, so that a file cut short never passes for a smaller cloud.
"""

from __future__ import annotations

import logging
import re
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.errors import InputError, MissingDependencyError
from vitlens.modalities.point_sampling import compiled
from vitlens.sources import decoding, load_npy, name_of

MAX_POINTS = 50_000_000
MESHES = ("off", "obj", "stl", "glb", "gltf")
TABLES = ("npy", "npz", "txt", "xyz")
EXTENSIONS = ("ply", "pcd", "las", "laz", *MESHES, *TABLES)
COLUMNS = ("xyz", "xyzrgb", "xyznormal")
GREY = 0.4
"""The grey of a point without colour (OpenShape, arXiv 2305.10764)."""
_NUMBER = re.compile(r"[-+.\d]")


@dataclass
class Points:
    """Coordinates [n, 3] and colours [n, 3] (integers of 0..255, or floats) as found, with what the file says of them."""

    xyz: np.ndarray
    rgb: np.ndarray | None = None
    info: dict[str, Any] = field(default_factory=dict)
    full: float | None = None
    """The value of full colour where the format says so."""


def read_points(
    path: Path, source: Any, *, kind: str, accepted: str, columns: str | None, key: str | None, samples: int
) -> Points:
    """Read the file `path` of type `kind` ("ply"); meshes are sampled at `samples` points of their surface.

    Raises:
        InputError: the file (named by `source`) is damaged, cut short, of another type, or holds more than 50 million points.
    """
    with decoding(source, accepted):
        if kind in ("npy", "npz"):
            return split_columns(load_npy(path, source, accepted, key=key), source, accepted, columns)
        if kind in ("txt", "xyz"):
            return split_columns(_read_text(path, source, accepted), source, accepted, columns, text=True)
        if kind == "pcd":
            return _read_pcd(path, source, accepted)
        if kind in ("las", "laz"):
            return _read_las(path, source, accepted)
        if kind == "ply":
            return _read_ply(path, source, accepted, samples)
        return _read_mesh(path, source, accepted, kind, samples)


def split_columns(table: np.ndarray, source: Any, accepted: str, columns: str | None, *, text: bool = False) -> Points:
    """Columns of `table` [n, 3] or [n, 6] as coordinates and colours; "xyz" takes the first three of any number of columns.

    Raises:
        InputError: not a table, another number of columns, or too many rows.
    """
    name, shape = name_of(source), list(table.shape)
    check_count(shape[0] if shape else 0, source, accepted)
    wide = table.ndim == 2 and (shape[1] in (3, 6) if columns is None else shape[1] >= 3 if columns == "xyz" else shape[1] == 6)
    if not wide:
        hint = "; it looks transposed: pass its .T" if table.ndim == 2 and shape[0] in (3, 6) else ""
        named = f" as {columns!r}" if columns else ""
        raise InputError(
            name, f"an array of shape {shape}{named}{hint}", f"{accepted} ([n, 3] or [n, 6]; columns='xyz' keeps the first three)"
        )
    rgb = table[:, 3:6] if shape[1] == 6 and columns in (None, "xyzrgb") else None
    if text and rgb is not None and rgb.size and rgb.max() > 1 and np.array_equal(rgb, np.floor(rgb)):
        rgb = rgb.astype(np.int64)  # a text file does not say which of its columns are integers
    return Points(table[:, :3], rgb, {"dropped": "normals"} if columns == "xyznormal" else {})


def check_count(count: int, source: Any, accepted: str) -> None:
    """Raise InputError for a cloud of no points or more than `MAX_POINTS`."""
    if count < 1:
        raise InputError(name_of(source), "no points", accepted)
    if count > MAX_POINTS:
        raise InputError(name_of(source), f"{count:,} points", f"{accepted}; at most {MAX_POINTS:,} points: thin the cloud first")


def _read_text(path: Path, source: Any, accepted: str) -> np.ndarray:
    """Numbers separated by white space, commas or semicolons; lines before the first number are a header."""
    with path.open(encoding="latin-1") as lines:
        for skip, line in enumerate(lines):
            if _NUMBER.match(line.lstrip(" \t\ufeff")):
                break
            if skip >= 100:
                raise InputError(name_of(source), "no line of numbers among the first 100", accepted)
        else:
            raise InputError(name_of(source), "no line of numbers", accepted)
    delimiter = next((mark for mark in ",;" if mark in line), None)
    return np.loadtxt(path, delimiter=delimiter, skiprows=skip, ndmin=2, max_rows=MAX_POINTS + 1, encoding="latin-1")


# --- PLY ---

_PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_COLOUR_NAMES = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))


def _read_ply(path: Path, source: Any, accepted: str, samples: int) -> Points:
    with path.open("rb") as file:
        order, elements, comments = _ply_header(file, source, accepted)
        if elements.get("face", (0, []))[0] or elements.get("tristrips", (0, []))[0]:
            for count, _ in elements.values():
                check_count(max(1, count), source, accepted)
            if not order and sum(bool(line.strip()) for line in file) < sum(count for count, _ in elements.values()):
                raise InputError(name_of(source), "a file cut short", accepted)
            return _read_mesh(path, source, accepted, "ply", samples)
        if "vertex" not in elements:
            raise InputError(name_of(source), "a PLY file without vertices", accepted)
        for name, (count, properties) in elements.items():
            if any(kind is None for _, kind in properties):
                raise InputError(name_of(source), f"a PLY file with lists in its {name!r} element and no faces", accepted)
            check_count(count if name == "vertex" else max(1, count), source, accepted)
            table = _ply_table(file, order, count, [(p, f"{order}{kind}") for p, kind in properties], source, accepted)
            if name == "vertex":
                break
    up = next((c.split()[1] for c in comments if re.fullmatch(r"up_axis\s+[xyz]", c)), None)
    return _from_fields(table, source, accepted, {"up": up})


def _ply_header(
    file: Any, source: Any, accepted: str
) -> tuple[str, dict[str, tuple[int, list[tuple[str, str | None]]]], list[str]]:
    """Byte order ("<", ">", "" for text), elements {name: (count, [(property, type; None for a list)])}, and comments."""
    if file.readline(16).strip() != b"ply":
        raise InputError(name_of(source), "not a PLY file (it does not begin with 'ply')", accepted)
    order, elements, comments = None, {}, []
    properties: list[tuple[str, str | None]] = []
    for _ in range(1000):
        words = file.readline(4096).decode("latin-1").split()
        match words:
            case ["end_header"]:
                if order is None:
                    break
                return order, elements, comments
            case ["format", kind, _]:
                order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[kind]
            case ["element", name, count]:
                properties = []
                elements[name] = (int(count), properties)
            case ["property", "list", _, _, name]:
                properties.append((name, None))
            case ["property", kind, name]:
                properties.append((name, _PLY_TYPES[kind]))
            case ["comment" | "obj_info", *rest]:
                comments.append(" ".join(rest))
            case _:
                break
    raise InputError(name_of(source), "a PLY file with a damaged header", accepted)


def _ply_table(file: Any, order: str, count: int, fields: list[tuple[str, str]], source: Any, accepted: str) -> np.ndarray:
    if order:
        return _records(file.read(count * np.dtype(fields).itemsize), count, fields, source, accepted)
    rows = [line for _ in range(count) if (line := file.readline()).strip()]
    return _text_records(rows, count, fields, source, accepted)


def _records(content: bytes, count: int, fields: Any, source: Any, accepted: str) -> np.ndarray:
    dtype = np.dtype(fields)
    if len(content) < count * dtype.itemsize:
        raise InputError(name_of(source), f"a file cut short: {len(content) // dtype.itemsize:,} of {count:,} points", accepted)
    return np.frombuffer(content, dtype, count)


def _text_records(rows: list[bytes], count: int, fields: list[Any], source: Any, accepted: str) -> np.ndarray:
    if len(rows) < count:
        raise InputError(name_of(source), f"a file cut short: {len(rows):,} of {count:,} points", accepted)
    return np.loadtxt(rows[:count], np.dtype(fields), ndmin=1, encoding="latin-1")


def _from_fields(table: np.ndarray, source: Any, accepted: str, info: dict[str, Any]) -> Points:
    names = {name.lower(): name for name in table.dtype.names or ()}
    if not {"x", "y", "z"} <= set(names):
        raise InputError(name_of(source), f"no x, y, z among its fields ({', '.join(names) or 'none'})", accepted)
    xyz = np.stack([table[names[axis]] for axis in "xyz"], axis=1)
    colours = next((c for c in _COLOUR_NAMES if set(c) <= set(names)), None)
    rgb = np.stack([table[names[c]] for c in colours], axis=1) if colours else None
    return Points(xyz, rgb, info)


# --- PCD ---


def _read_pcd(path: Path, source: Any, accepted: str) -> Points:
    """PCD 0.7 of the Point Cloud Library: ascii, binary and binary_compressed."""
    with path.open("rb") as file:
        header = _pcd_header(file, source, accepted)
        count = int(header["POINTS"][0])
        check_count(count, source, accepted)
        repeats = [int(c) for c in header.get("COUNT", ["1"] * len(header["FIELDS"]))]
        parts = zip(header["FIELDS"], header["SIZE"], header["TYPE"], repeats, strict=True)
        fields = [
            (f"{name}{i}" if name == "_" else name, f"<{kind.lower()}{size}", (times,) if times > 1 else ())
            for i, (name, size, kind, times) in enumerate(parts)
        ]
        data = header["DATA"][0].lower()
        if data == "ascii":
            table = _text_records([line for line in file if line.strip()], count, fields, source, accepted)
        elif data == "binary":
            table = _records(file.read(count * np.dtype(fields).itemsize), count, fields, source, accepted)
        elif data == "binary_compressed":
            table = _pcd_compressed(file, count, fields, source, accepted)
        else:
            raise InputError(name_of(source), f"PCD data of kind {data!r}", accepted)
    points = _from_fields(table, source, accepted, {})
    packed = next((name for name in ("rgb", "rgba") if name in (table.dtype.names or ())), None)
    if packed and table.dtype[packed].itemsize == 4:  # 0x00RRGGBB, often behind a float's bits
        bits = np.ascontiguousarray(table[packed]).view(np.uint32)
        points.rgb = np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=1).astype(np.uint8)
    return points


def _pcd_header(file: Any, source: Any, accepted: str) -> dict[str, list[str]]:
    header: dict[str, list[str]] = {}
    for _ in range(1000):
        line = file.readline(4096).decode("latin-1")
        words = line.split()
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
        if "DATA" in header or not line:
            break
    if not {"FIELDS", "SIZE", "TYPE", "POINTS", "DATA"} <= set(header):
        raise InputError(name_of(source), "not a PCD file (its header is missing or damaged)", accepted)
    return header


def _pcd_compressed(file: Any, count: int, fields: list[Any], source: Any, accepted: str) -> np.ndarray:
    """LZF-compressed, field after field: all x, then all y, ..."""
    sizes = np.frombuffer(file.read(8), "<u4")
    dtype = np.dtype(fields)
    content = np.frombuffer(file.read(int(sizes[0])), np.uint8)
    plain = np.empty(count * dtype.itemsize, np.uint8)
    if len(content) != sizes[0] or sizes[1] != len(plain) or compiled(_lzf_kernel)(content, plain) != len(plain):
        raise InputError(name_of(source), "compressed PCD data that is cut short or damaged", accepted)
    table, at = np.empty(count, dtype), 0
    for name in dtype.names or ():
        size = dtype[name].itemsize * count
        table[name] = plain[at : at + size].view(dtype[name].base).reshape(count, *dtype[name].shape)
        at += size
    return table


def _lzf_kernel(content, plain):
    """Decompress LZF: literal runs, and copies from up to 8 KiB back. Returns the bytes written, -1 for damaged data."""
    i, o = np.int64(0), np.int64(0)
    while i < len(content):
        control = np.int64(content[i])
        i += 1
        if control < 32:
            length = control + 1
            if i + length > len(content) or o + length > len(plain):
                return -1
            for j in range(length):
                plain[o + j] = content[i + j]
            i += length
        else:
            length = control >> 5
            if i + (2 if length == 7 else 1) > len(content):
                return -1
            if length == 7:
                length += np.int64(content[i])
                i += 1
            back = o - ((control & 31) << 8) - np.int64(content[i]) - 1
            i += 1
            length += 2
            if back < 0 or o + length > len(plain):
                return -1
            for j in range(length):  # byte by byte: a copy may overlap itself
                plain[o + j] = plain[back + j]
        o += length
    return o


# --- LAS ---

_LAS_COLOURS = {2: 20, 3: 28, 5: 28, 7: 30, 8: 30, 10: 30}
"""Where red, green, blue begin in a record of each point format that has them."""
_UNZIP = """
import sys, laspy
with laspy.open(sys.argv[1], laz_backend=laspy.LazBackend.Lazrs, read_evlrs=False) as reader:
    sys.stdout.buffer.write(reader.read().points.array.tobytes())
"""


def _read_las(path: Path, source: Any, accepted: str) -> Points:
    """LAS and LAZ: z is up; colours are 16 bit, though many writers store 8; all black stands for none."""
    with path.open("rb") as file:
        head = file.read(375).ljust(375, b"\0")
        begin, count = _unpack("<I", head, 96), _unpack("<Q" if head[25] >= 4 else "<I", head, 247 if head[25] >= 4 else 107)
        kind, size = head[104] & 63, _unpack("<H", head, 105)
        tables_fit = 54 * _unpack("<I", head, 100) <= begin <= path.stat().st_size
        colour = _LAS_COLOURS.get(kind)
        if head[:4] != b"LASF" or kind > 10 or size < (12 if colour is None else colour + 6) or not tables_fit:
            raise InputError(name_of(source), "not a LAS file, or one with a damaged header", accepted)
        check_count(count, source, accepted)
        file.seek(begin)
        content = _unzipped(path) if head[104] & 192 else file.read(count * size)
    fields: dict[str, Any] = {"names": ["xyz"], "formats": ["<3i4"], "offsets": [0], "itemsize": size}
    if colour is not None:
        fields = {**fields, "names": ["xyz", "rgb"], "formats": ["<3i4", "<3u2"], "offsets": [0, colour]}
    table = _records(content, count, fields, source, accepted)
    xyz = table["xyz"] * np.frombuffer(head, "<f8", 3, 131) + np.frombuffer(head, "<f8", 3, 155)
    rgb = table["rgb"] if colour is not None and table["rgb"].any() else None
    return Points(xyz, rgb, {"up": "z"}, 65535.0 if rgb is not None and rgb.max() > 255 else None)


def _unpack(kind: str, content: bytes, at: int) -> int:
    return int(struct.unpack_from(kind, content, at)[0])


def _unzipped(path: Path) -> bytes:
    """The point records of a LAZ file, from a process of its own: on damaged files the decompressor ends its process."""
    command = [sys.executable, "-I", "-c", _UNZIP, str(path)]
    seconds = 60 + path.stat().st_size / 1e6
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds, check=False)
    if done.returncode == 0:
        return done.stdout
    reason = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["damaged"]
    if "No module named" in reason[-1]:
        raise MissingDependencyError("reading .laz files needs laspy and lazrs: pip install 'laspy[lazrs]'")
    raise ValueError(f"LAZ decompression failed: {reason[-1]}")


# --- meshes ---


def _read_mesh(path: Path, source: Any, accepted: str, kind: str, samples: int) -> Points:
    import trimesh

    logger = logging.getLogger("trimesh")
    if not logger.handlers:  # what it warns of ends in our InputError; without a handler it would reach the terminal as well
        logger.addHandler(logging.NullHandler())
    if kind in ("off", "stl", "glb"):
        _check_complete(path, source, accepted, kind)
    if kind == "obj" and (rows := _obj_without_faces(path)):
        return split_columns(np.loadtxt(rows, ndmin=2), source, accepted, None)
    scene = trimesh.load_scene(path, file_type=kind, process=False)
    pieces: list[Any] = [piece for piece in scene.dump() if len(getattr(piece, "vertices", ()))]
    for piece in pieces:
        check_count(len(piece.vertices), source, accepted)
        if not np.isfinite(piece.vertices).all():
            raise InputError(name_of(source), "vertices that are NaN or infinite", accepted)
    info: dict[str, Any] = {"faces": sum(len(getattr(piece, "faces", ())) for piece in pieces)}
    if kind in ("glb", "gltf"):
        info["up"] = "y"  # by definition of the format
    areas = np.array([piece.area if len(getattr(piece, "faces", ())) else 0.0 for piece in pieces])
    if not pieces:
        raise InputError(name_of(source), "no geometry in it", accepted)
    if not 0 < areas.sum() < np.inf:  # points only, or faces without an area
        return _joined([_vertices(piece) for piece in pieces], info)
    edges = np.round(np.cumsum(areas) / areas.sum() * samples).astype(int)
    counts = np.diff(edges, prepend=0)
    return _joined([_on_surface(piece, count) for piece, count in zip(pieces, counts, strict=True) if count], info)


def _check_complete(path: Path, source: Any, accepted: str, kind: str) -> None:
    """Refuse a mesh file that says how long it is and is shorter: the loader would return a part of it."""
    cut = False
    if kind == "glb":
        with path.open("rb") as file:
            head = file.read(12)
        cut = len(head) < 12 or int.from_bytes(head[8:12], "little") > path.stat().st_size
    elif kind == "stl":
        with path.open("rb") as file:
            begin = file.read(6)
            file.seek(max(0, path.stat().st_size - 1024))
            cut = begin.lower() == b"solid " and b"\0" not in (tail := file.read()) and b"endsolid" not in tail
    else:
        text = re.sub(r"#[^\n]*", "", path.read_text(encoding="latin-1")).partition("OFF")[2]
        lines = [line for line in text.splitlines() if line.strip()]
        counts = [int(word) for word in lines[0].split()[:2]] if lines else [1, 1]
        check_count(max(counts), source, accepted)
        cut = len(lines) < 1 + sum(counts)
    if cut:
        raise InputError(name_of(source), "a file cut short or damaged", accepted)


def _obj_without_faces(path: Path) -> list[str]:
    """The vertex lines of an OBJ file that holds a bare point cloud; none if it has faces."""
    with path.open(encoding="latin-1") as lines:
        rows = []
        for line in lines:
            if line.startswith("f "):
                return []
            if line.startswith("v "):
                rows.append(line[2:])
    return rows


def _vertices(piece: Any) -> Points:
    colours = piece.visual.vertex_colors if getattr(piece.visual, "kind", None) == "vertex" else None
    return Points(np.asarray(piece.vertices), None if colours is None else np.asarray(colours)[:, :3])


def _on_surface(mesh: Any, count: int) -> Points:
    """`count` points spread over the faces by area, always the same ones."""
    random = np.random.default_rng(0)
    faces, vertices = np.asarray(mesh.faces), np.asarray(mesh.vertices)
    total = np.cumsum(mesh.area_faces)
    chosen = np.searchsorted(total, random.random(count) * total[-1], side="right").clip(max=len(faces) - 1)
    root, along = np.sqrt(random.random(count)), random.random(count)
    weights = np.stack([1 - root, root * (1 - along), root * along], axis=1)
    xyz = np.einsum("nk,nkc->nc", weights, vertices[faces[chosen]])
    return Points(xyz, _surface_colours(mesh, chosen, weights))


def _surface_colours(mesh: Any, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
    """Colours 0..255 from the mesh's vertices, faces, texture or material; None where it has none."""
    from trimesh.visual.color import uv_to_interpolated_color

    visual, corners = mesh.visual, np.asarray(mesh.faces)[chosen]
    if visual.kind == "vertex":
        return np.einsum("nk,nkc->nc", weights, visual.vertex_colors[corners][..., :3]).round().astype(np.uint8)
    if visual.kind == "face":
        return visual.face_colors[chosen][:, :3]
    if visual.kind != "texture":
        return None
    material = visual.material
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    factor = getattr(material, "baseColorFactor", None)
    if image is not None and visual.uv is not None:
        uv = np.einsum("nk,nkc->nc", weights, np.asarray(visual.uv)[corners])
        tint = 1.0 if factor is None else np.asarray(factor)[:3] / 255.0
        return (uv_to_interpolated_color(uv, image)[:, :3] * tint).round().astype(np.uint8)
    colour = factor if factor is not None else getattr(material, "diffuse", None)
    return None if colour is None else np.tile(np.asarray(colour)[:3].astype(np.uint8), (len(chosen), 1))


def _joined(pieces: list[Points], info: dict[str, Any]) -> Points:
    xyz = np.concatenate([piece.xyz for piece in pieces])
    if all(piece.rgb is None for piece in pieces):
        return Points(xyz, None, info)
    grey = round(GREY * 255)
    rgb = [np.full(piece.xyz.shape, grey, np.uint8) if piece.rgb is None else piece.rgb for piece in pieces]
    return Points(xyz, np.concatenate(rgb), info)
