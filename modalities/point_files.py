"""Point cloud files to arrays: PLY and meshes by trimesh, PCD by open3d, LAS/LAZ by laspy, tables and text by numpy.

Every reader returns `Points`, coordinates and colours as the file holds them, or raises one InputError. Formats whose header
counts the points are checked against it, so that a file cut short never passes for a smaller cloud.
"""

from __future__ import annotations

import ctypes
import io
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.errors import InputError, MissingDependencyError
from vitlens.modalities.point_meshes import load_trimesh, sample_mesh
from vitlens.sources import decoding, load_npy, name_of

MAX_POINTS = 50_000_000
MESHES = ("off", "obj", "stl", "glb", "gltf")
TABLES = ("npy", "npz", "txt", "xyz")
EXTENSIONS = ("ply", "pcd", "las", "laz", *MESHES, *TABLES)
COLUMNS = ("xyz", "xyzrgb", "xyznormal")
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


def _read_mesh(path: Path, source: Any, accepted: str, kind: str, samples: int) -> Points:
    (xyz, rgb), faces = sample_mesh(path, kind, samples)
    check_count(len(xyz), source, accepted)
    return Points(xyz, rgb, {"faces": faces, "up": "y"} if kind in ("glb", "gltf") else {"faces": faces})  # y by definition


# --- PLY ---

# other names of the colours, which trimesh does not know
_PLY_NAMES = {alias: name for name in (b"red", b"green", b"blue") for alias in (name[:1], b"diffuse_" + name)}


def _read_ply(path: Path, source: Any, accepted: str, samples: int) -> Points:
    """By trimesh, not open3d: of a damaged PLY both readers of open3d 0.20 return uninitialised memory as if it were points.

    (They also misread or drop colours that are not 8-bit, and their PLY library writes to the process's stderr.)
    """
    name, content = name_of(source), path.read_bytes()
    head = content[: content.find(b"end_header") + 1]
    counts = {element: int(count) for element, count in re.findall(rb"^element\s+(\S+)\s+(\d+)\s*$", head, re.M)}
    if not content.startswith(b"ply"):
        raise InputError(name, "not a PLY file (it does not begin with 'ply')", accepted)
    if b"vertex" not in counts:
        raise InputError(name, "a PLY file without vertices or with a damaged header", accepted)
    for count in (counts[b"vertex"], max(counts.values())):
        check_count(count, source, accepted)
    if counts.get(b"face") or counts.get(b"tristrips"):
        lines = content[len(head) :].splitlines()[1:] if b"format ascii" in head else None
        if lines is not None and sum(1 for line in lines if line.strip()) < sum(counts.values()):
            raise InputError(name, "a file cut short", accepted)
        return _read_mesh(path, source, accepted, "ply", samples)
    known = re.sub(rb"(property \w+ )(\w+)", lambda m: m[1] + _PLY_NAMES.get(m[2].lower(), m[2].lower()), head)
    loaded = load_trimesh().exchange.ply.load_ply(io.BytesIO(known + content[len(head) :]), skip_materials=True)
    xyz, rgb = loaded["vertices"], loaded.get("vertex_colors")
    if len(xyz) != counts[b"vertex"] or object in (xyz.dtype, rgb is not None and rgb.dtype):
        raise InputError(name, "a file cut short, or with rows of unequal length", accepted)
    up = re.search(rb"^comment up_axis ([xyz])\s*$", head, re.M)
    return Points(xyz, None if rgb is None else rgb[:, :3], {"up": up[1].decode() if up else None})


def write_ply(path: Path, xyz: np.ndarray, rgb: np.ndarray | None, up: str | None) -> None:
    """Write a binary PLY of float32 `xyz` [n, 3] and 8-bit `rgb` [n, 3], with a comment that says which axis is `up`."""
    content = load_trimesh().PointCloud(xyz, colors=rgb).export(file_type="ply")
    comment = f"comment up_axis {up}\n".encode() if up else b""
    path.write_bytes(content.replace(b"element vertex", comment + b"element vertex", 1))


# --- PCD ---

_PCD_TYPES = {"F4", "F8", "I1", "I2", "I4", "I8", "U1", "U2", "U4", "U8"}
# Numbers, in fewer bytes than open3d's buffer for a line: longer rows come back as uninitialised memory, and words as 0.
_PCD_ROW = re.compile(rb"[-+.\w \t\r\n]{1,1000}")


def load_open3d() -> Any:
    """Import open3d, which takes seconds. On Linux it needs libusb: without the system's, the `libusb-package` wheel's is used.

    Raises:
        MissingDependencyError: open3d, or on Linux libusb-package, is not installed.
    """
    try:
        if sys.platform == "linux":
            try:
                ctypes.CDLL("libusb-1.0.so.0")
            except OSError:
                import libusb_package

                ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
        import open3d
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"{error}: pip install open3d libusb-package") from error
    return open3d


def _read_pcd(path: Path, source: Any, accepted: str) -> Points:
    """By open3d's older reader: its newer one crashes on the padding fields that PCL writes (Open3D issue 6437)."""
    count, single = _check_pcd(path, source, accepted)
    open3d = load_open3d()
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        cloud = open3d.io.read_point_cloud(str(path), format="pcd")
    if len(cloud.points) != count:
        raise InputError(name_of(source), "PCD data that is cut short or damaged", accepted)
    xyz = np.asarray(cloud.points)  # always float64; its colours are always 0..1
    return Points(xyz.astype(np.float32) if single else xyz, np.asarray(cloud.colors) if cloud.has_colors() else None)


def _check_pcd(path: Path, source: Any, accepted: str) -> tuple[int, bool]:
    """The number of points, and whether they are float32, of a PCD file that holds as much data as its header says.

    open3d does not check: it crashes on damaged headers, and makes up the points of rows that are missing or cannot be read.
    """
    name, header = name_of(source), dict[str, list[str]]()
    with path.open("rb") as file:
        while "DATA" not in header and len(header) < 20 and (line := file.readline(1000)):
            key, *words = line.decode("latin-1").split() or ["#"]
            header[key] = words
        try:
            fields, count, (form,) = header["FIELDS"], int(header["POINTS"][0]), header["DATA"]
            repeats = [int(times) for times in header.get("COUNT", "1" * len(fields))]
            types = [kind.upper() + size for kind, size in zip(header["TYPE"], header["SIZE"], strict=True)]
            type_of = dict(zip(fields, types, strict=True))
            normals = len({"normal_x", "normal_y", "normal_z"} & set(fields))
            if not _PCD_TYPES.issuperset(types) or len(repeats) != len(types) or min(repeats) < 1 or normals in (1, 2):
                raise ValueError("fields")
        except (LookupError, ValueError) as error:
            raise InputError(name, "not a PCD file (its header is missing or damaged)", accepted) from error
        if not {"x", "y", "z"} <= set(fields):
            raise InputError(name, f"no x, y, z among its fields ({', '.join(fields)})", accepted)
        check_count(count, source, accepted)
        left = path.stat().st_size - file.tell()
        size = count * sum(int(kind[1]) * times for kind, times in zip(types, repeats, strict=True))
        if form == "binary_compressed":
            packed, plain = np.frombuffer(file.read(8).ljust(8, b"\0"), "<u4").tolist()
            whole = left >= 8 + packed and plain == size
        elif form == "ascii":
            rows = (row if _PCD_ROW.fullmatch(row) else b"?" for row in file)
            whole = left > 0 and np.loadtxt(rows, ndmin=2, max_rows=count).shape == (count, sum(repeats))
        else:
            whole = form == "binary" and left >= size
    if not whole:
        raise InputError(name, "PCD data that is cut short or damaged", accepted)
    return count, {type_of[axis] for axis in "xyz"} == {"F4"}


# --- LAS ---

LAS_SECONDS = 30
"""After so many seconds, and one more per megabyte, a file counts as damaged."""
_LAS_READER = """
import sys
source, target, most, *sys.path = sys.argv[1:]
import laspy, numpy
with laspy.open(source, laz_backend=laspy.LazBackend.Lazrs, read_evlrs=False) as reader:
    count = reader.header.point_count
    if not 0 < count <= int(most):
        sys.exit(f"{count:,} points")
    las = reader.read()
if len(las) < count:
    sys.exit(f"{len(las):,} of {count:,} points")
colours = {"red", "green", "blue"} <= set(las.point_format.dimension_names)
numpy.savez(target, xyz=las.xyz, rgb=numpy.stack([las.red, las.green, las.blue], axis=1) if colours else numpy.zeros(0))
"""


def _read_las(path: Path, source: Any, accepted: str) -> Points:
    """LAS and LAZ by laspy: z is up; colours are 16 bit, though many writers store 8; all black stands for none.

    In a process of its own and with a time limit: a damaged LAZ file may end the process that reads it, and a damaged header keep
    it busy for a minute.
    """
    name, seconds = name_of(source), LAS_SECONDS + path.stat().st_size / 1e6
    with path.open("rb") as file, tempfile.TemporaryDirectory(prefix="vitlens-") as folder:
        if file.read(4) != b"LASF":
            raise InputError(name, "not a LAS file (it does not begin with 'LASF')", accepted)
        target = Path(folder) / "points.npz"
        command = [sys.executable, "-I", "-c", _LAS_READER, str(path), str(target), str(MAX_POINTS), *sys.path]
        try:
            done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise InputError(name, f"a LAS file that takes more than {seconds:.0f} s to read: damaged", accepted) from None
        if done.returncode:
            reason = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"])[-1]
            if "No module named" in reason:
                raise MissingDependencyError("reading .las and .laz files needs laspy and lazrs: pip install 'laspy[lazrs]'")
            raise InputError(name, f"a LAS file cut short or with a damaged header ({reason[:200]})", accepted)
        with np.load(target) as points:
            xyz, rgb = points["xyz"], points["rgb"]
    if not rgb.any():
        return Points(xyz, None, {"up": "z"})
    return Points(xyz, rgb, {"up": "z"}, 65535.0 if rgb.max() > 255 else None)
