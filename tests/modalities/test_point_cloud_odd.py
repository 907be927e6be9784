"""Clouds and meshes as they are met: what formats allow and few readers know, each with its right points and colours."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from vitlens.errors import InputError
from vitlens.modalities.point_cloud import PointCloud

cloud = PointCloud(points=1024, groups=64, group_size=16, color=True)
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
UV = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
POINTS = np.random.default_rng(0).normal(size=(80, 3))
RGB = (51, 102, 204)


def box(data: np.ndarray) -> np.ndarray:
    return np.stack([data[:, :3].min(0), data[:, :3].max(0)]).round(1)


# --- glTF ---


class Gltf:
    """A glTF document written by hand: accessors one after the other in one buffer."""

    def __init__(self) -> None:
        self.blob = bytearray()
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}]}
        self.json |= {"meshes": [{"primitives": [{"attributes": {}}]}], "accessors": [], "bufferViews": []}

    @property
    def primitive(self) -> dict[str, Any]:
        return self.json["meshes"][0]["primitives"][0]

    def add(self, array: np.ndarray, *, normalized: bool = False, stride: int = 0) -> int:
        rows = np.ascontiguousarray(array.reshape(len(array), -1))
        size = rows.itemsize * rows.shape[1]
        step = stride or size
        content = b"".join(row.tobytes().ljust(step, b"\0") for row in rows)
        view = {"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(content)} | ({"byteStride": step} if stride else {})
        self.blob += content + bytes(-len(content) % 4)
        self.json["bufferViews"].append(view)
        kind = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}[rows.dtype.str[1:]]
        accessor = {"bufferView": len(self.json["bufferViews"]) - 1, "componentType": kind, "count": len(rows)}
        accessor |= {"type": ("SCALAR", "VEC2", "VEC3", "VEC4")[rows.shape[1] - 1]} | ({"normalized": True} if normalized else {})
        self.json["accessors"].append(accessor)
        return len(self.json["accessors"]) - 1

    def square(self, **attributes: int) -> Gltf:
        self.primitive["attributes"] = {"POSITION": self.add(SQUARE), **attributes}
        self.primitive["indices"] = self.add(np.array([0, 1, 2, 0, 2, 3], np.uint16))
        return self

    def texture(self, **info: Any) -> Gltf:
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[:32], pixels[32:] = (255, 0, 0), (0, 0, 255)
        file = io.BytesIO()
        PIL.Image.fromarray(pixels).save(file, "PNG")
        self.primitive["material"] = 0
        self.json["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0, **info}}}]
        self.json["textures"] = [{"source": 0}]
        self.json["images"] = [{"uri": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()}]
        return self

    def write(self, path: Path) -> Path:
        if path.suffix == ".glb":
            self.json["buffers"] = [{"byteLength": len(self.blob)}]
            text = json.dumps(self.json).encode()
            text += b" " * (-len(text) % 4)
            blob = bytes(self.blob) + bytes(-len(self.blob) % 4)
            body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(blob), b"BIN\0") + blob
            path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
        else:
            uri = "data:application/octet-stream;base64," + base64.b64encode(self.blob).decode()
            self.json["buffers"] = [{"byteLength": len(self.blob), "uri": uri}]
            path.write_text(json.dumps(self.json))
        return path


@pytest.mark.parametrize("suffix", ["gltf", "glb"])
@pytest.mark.parametrize("dtype", ["i1", "i2", "u1", "u2"])
@pytest.mark.parametrize("stride", [0, 16])
def test_quantised_positions_at_several_places(suffix: str, dtype: str, stride: int, tmp_path: Path) -> None:
    made = Gltf()
    positions = (SQUARE * np.iinfo(dtype).max).astype(dtype)
    made.primitive["attributes"] = {"POSITION": made.add(positions, normalized=True, stride=stride)}
    made.primitive["indices"] = made.add(np.array([0, 1, 2, 0, 2, 3], np.uint8))
    made.json["nodes"] = [{"children": [1, 2]}, {"mesh": 0, "scale": [2, 1, 1]}, {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0,
        0, 0, 1, 0, 5, 0, 0, 1]}]  # fmt: skip
    made.json |= {"extensionsUsed": ["KHR_mesh_quantization"], "extensionsRequired": ["KHR_mesh_quantization"]}
    data = cloud.read(made.write(tmp_path / f"a.{suffix}")).data
    first = data[:, 0] < 3
    assert first.mean() == pytest.approx(2 / 3, abs=0.01)
    np.testing.assert_array_equal(box(data[first]), [[0, 0, 0], [2, 1, 0]])
    np.testing.assert_array_equal(box(data[~first]), [[5, 0, 0], [6, 1, 0]])


def test_a_node_turned_by_a_quaternion_below_a_moved_one(tmp_path: Path) -> None:
    made = Gltf().square()
    half = np.sqrt(0.5)
    made.json["nodes"] = [{"children": [1], "translation": [0, 0, 3]}, {"mesh": 0, "rotation": [half, 0, 0, half]}]  # y to z
    np.testing.assert_array_equal(box(cloud.read(made.write(tmp_path / "a.gltf")).data), [[0, 0, 3], [1, 0, 4]])


@pytest.mark.parametrize("base", [True, False])
def test_sparse_accessors(base: bool, tmp_path: Path) -> None:
    made = Gltf().square()
    places, values = made.add(np.array([1, 2, 3], np.uint16)), made.add(np.array([[1, 0, 0], [1, 1, 0], [0, 5, 0]], np.float32))
    accessor = made.json["accessors"][0]
    accessor["sparse"] = {
        "count": 3,
        "indices": {"bufferView": made.json["accessors"][places]["bufferView"], "componentType": 5123},
        "values": {"bufferView": made.json["accessors"][values]["bufferView"]},
    }
    if not base:
        del accessor["bufferView"]  # then the others are zeros
    y = cloud.read(made.write(tmp_path / "a.gltf")).data[:, 1]
    assert 4.4 < y.max() < 5.001
    assert y.mean() == pytest.approx(1.722, abs=0.1)


RED, BLUE = [1, 0, 0], [0, 0, 1]


@pytest.mark.parametrize(
    ("transform", "below", "above"),
    [
        ({}, BLUE, RED),
        ({"scale": [1, 0.45]}, RED, RED),
        ({"offset": [0, 0.5], "scale": [1, 0.45]}, BLUE, BLUE),
        ({"rotation": np.pi, "offset": [1, 1]}, RED, BLUE),
    ],
)
def test_texture_transforms(transform: dict[str, Any], below: list[float], above: list[float], tmp_path: Path) -> None:
    made = Gltf()
    made.square(TEXCOORD_0=made.add(UV)).texture(extensions={"KHR_texture_transform": transform})
    data = cloud.read(made.write(tmp_path / "a.gltf")).data
    np.testing.assert_allclose(data[data[:, 1] < 0.4, 3:].mean(0), below, atol=0.04)
    np.testing.assert_allclose(data[data[:, 1] > 0.6, 3:].mean(0), above, atol=0.04)


@pytest.mark.parametrize("by_transform", [False, True])
def test_a_second_set_of_normalised_texture_coordinates(by_transform: bool, tmp_path: Path) -> None:
    made = Gltf()
    first, second = made.add(np.zeros((4, 2), np.float32)), made.add((UV * 65535).astype(np.uint16), normalized=True)
    made.square(TEXCOORD_0=first, TEXCOORD_1=second)
    made.texture(**({"extensions": {"KHR_texture_transform": {"texCoord": 1}}} if by_transform else {"texCoord": 1}))
    data = cloud.read(made.write(tmp_path / "a.glb")).data
    np.testing.assert_allclose(data[data[:, 1] > 0.6, 3:].mean(0), RED, atol=0.04)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("width", [3, 4])
def test_vertex_colours_of_every_type(dtype: str, width: int, tmp_path: Path) -> None:
    made = Gltf()
    colours = np.tile([0.2, 0.4, 0.8, 1.0], (4, 1))[:, :width]
    stored = colours.astype("f4") if dtype == "f4" else np.round(colours * np.iinfo(dtype).max).astype(dtype)
    made.square(COLOR_0=made.add(stored, normalized=dtype != "f4"))
    np.testing.assert_allclose(cloud.read(made.write(tmp_path / "a.gltf")).data[:, 3:], colours[:, :3].repeat(320, 0), atol=0.01)


@pytest.mark.parametrize("mode", [0, 5, 6])
def test_points_strips_and_fans(mode: int, tmp_path: Path) -> None:
    made = Gltf()
    order = {0: SQUARE, 5: SQUARE[[0, 1, 3, 2]], 6: SQUARE}[mode]
    made.json["meshes"][0]["primitives"][0] = {"attributes": {"POSITION": made.add(order)}, "mode": mode}
    data = cloud.read(made.write(tmp_path / "a.gltf")).data
    assert len(data) == (4 if mode == 0 else 1280)
    np.testing.assert_array_equal(box(data), [[0, 0, 0], [1, 1, 0]])


@pytest.mark.parametrize(
    "name", ["KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_texture_basisu", "EXT_mesh_gpu_instancing", "ACME_x"]
)
def test_an_unknown_required_extension_is_refused_by_name(name: str, tmp_path: Path) -> None:
    made = Gltf().square()
    made.json |= {"extensionsUsed": [name], "extensionsRequired": [name]}
    with pytest.raises(InputError, match=f"requires {name}"):
        cloud.read(made.write(tmp_path / "a.gltf"))


def test_a_packed_mesh_without_plain_data_is_refused_by_name(tmp_path: Path) -> None:
    made = Gltf().square()
    made.primitive["extensions"] = {"KHR_draco_mesh_compression": {}}
    del made.json["accessors"][0]["bufferView"]
    with pytest.raises(InputError, match="packed with KHR_draco_mesh_compression"):
        cloud.read(made.write(tmp_path / "a.gltf"))


def _outside(made: Gltf) -> None:
    made.json["images"][0] = {"uri": "../secret.png"}


def _beyond(made: Gltf) -> None:
    made.json["accessors"][0]["count"] = 4000


def _circle(made: Gltf) -> None:
    made.json["nodes"] = [{"mesh": 0, "children": [0]}]


def _version(made: Gltf) -> None:
    made.json["asset"]["version"] = "1.0"


@pytest.mark.parametrize(
    ("change", "found"),
    [(_outside, "outside its folder"), (_beyond, "beyond its buffer"), (_circle, "form a circle"), (_version, "of version 1.0")],
)
def test_damaged_or_hostile_gltf_is_refused(change: Callable[[Gltf], None], found: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    made = Gltf()
    made.square(TEXCOORD_0=made.add(UV)).texture()
    change(made)
    with pytest.raises(InputError, match=found):
        cloud.read(made.write(tmp_path / "in" / "a.gltf"))


# --- OBJ ---


def test_obj_faces_that_count_back_from_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf -4 -3 -2 -1\nv 0 0 5\nv 1 0 5\nv 1 1 5\nf -3 -2 \\\n-1\n")
    z = cloud.read(path).data[:, 2]
    assert np.isclose(z, 0).mean() == pytest.approx(2 / 3, abs=0.04)
    assert np.isclose(z, 5).mean() == pytest.approx(1 / 3, abs=0.04)


def test_obj_textures_with_indices_from_the_end(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32], pixels[32:] = (255, 0, 0), (0, 0, 255)
    PIL.Image.fromarray(pixels).save(tmp_path / "red above.png")
    (tmp_path / "a.mtl").write_text("newmtl skin\nKd 1 1 1\nmap_Kd -clamp on red above.png\nnewmtl plain\nKd 0.2 0.4 0.8\n")
    path = tmp_path / "a.obj"
    uv = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    square = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
    path.write_text(
        f"mtllib a.mtl\n{square}{uv}usemtl skin\nf -4/-4 -3/-3 -2/-2 -1/-1\nusemtl plain\nv 5 0 0\nv 6 0 0\nv 6 1 0\nf 5 6 7\n"
    )
    data = cloud.read(path).data
    first, far = data[data[:, 0] < 2], data[data[:, 0] > 4]
    np.testing.assert_allclose(first[first[:, 1] > 0.6, 3:].mean(0), RED, atol=0.04)
    np.testing.assert_allclose(first[first[:, 1] < 0.4, 3:].mean(0), BLUE, atol=0.04)
    np.testing.assert_allclose(far[:, 3:].mean(0), [0.2, 0.4, 0.8], atol=0.01)


def test_obj_of_points_alone_and_obj_without_a_material(tmp_path: Path) -> None:
    path = tmp_path / "points.obj"
    path.write_text("\ufeff" + "".join(f"v {x:.7f} {y:.7f} {z:.7f}\n" for x, y, z in POINTS))
    np.testing.assert_allclose(cloud.read(path).data, POINTS, atol=1e-6)
    path.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nf 1/1 2/2 3/3\n")
    assert cloud.read(path).data.shape == (1280, 3)


@pytest.mark.parametrize("colour", ["51 102 204", "0.2 0.4 0.8"])
def test_obj_vertex_colours(colour: str, tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    path.write_text("".join(f"v {x} {y} 0 {colour}\n" for x, y, _ in SQUARE) + "f 1 2 3 4\n")
    np.testing.assert_allclose(cloud.read(path).data[:, 3:], np.tile([0.2, 0.4, 0.8], (1280, 1)), atol=0.01)


# --- PLY and OFF ---


def ply(kind: str, names: str, colour: str, *, face_colours: bool = False) -> bytes:
    colours = "".join(f"property {kind} {name}\n" for name in names.split())
    vertex = f"element vertex 4\nproperty float x\nproperty float y\nproperty float z\n{'' if face_colours else colours}"
    face = f"element face 1\nproperty list uchar int vertex_indices\n{colours if face_colours else ''}end_header\n"
    rows = "".join(f"{x:g} {y:g} {z:g} {'' if face_colours else colour}\n" for x, y, z in SQUARE)
    return f"ply\nformat ascii 1.0\n{vertex}{face}{rows}4 0 1 2 3 {colour if face_colours else ''}\n".encode()


@pytest.mark.parametrize("face_colours", [False, True])
@pytest.mark.parametrize("names", ["red green blue", "diffuse_red diffuse_green diffuse_blue", "r g b", "Red Green Blue alpha"])
def test_mesh_colours_by_all_their_names(names: str, face_colours: bool) -> None:
    colour = "51 102 204 255" if "alpha" in names else "51 102 204"
    data = cloud.read(ply("uchar", names, colour, face_colours=face_colours), format="ply").data
    np.testing.assert_allclose(data[:, 3:], np.tile(np.array(RGB) / 255, (1280, 1)), atol=0.01)


def test_mesh_colours_as_floats() -> None:
    with pytest.raises(InputError, match="rgb_max=255"):
        cloud.read(ply("float", "red green blue", "51.0 102.0 204.0"), format="ply")
    for colour, most in (("51.0 102.0 204.0", 255), ("0.2 0.4 0.8", None)):
        data = cloud.read(ply("float", "red green blue", colour), format="ply", rgb_max=most).data
        np.testing.assert_allclose(data[:, 3:], np.tile(np.array(RGB) / 255, (1280, 1)), atol=0.01)


@pytest.mark.parametrize(
    ("head", "vertex", "face"),
    [
        ("COFF", " 51 102 204 255", ""),
        ("COFF", " 0.2 0.4 0.8 1.0", ""),
        ("OFF", " 51 102 204", ""),
        ("CNOFF", " 0 0 1 51 102 204 255", ""),
        ("NOFF", " 0 0 1", " 51 102 204"),
        ("OFF", "", " 51 102 204 255"),
        ("OFF", "", " 0.2 0.4 0.8"),
    ],
)
def test_off_colours_of_vertices_and_faces(head: str, vertex: str, face: str) -> None:
    head = {"CNOFF": "CNOFF"}.get(head, head)
    rows = "".join(f"{x:g} {y:g} {z:g}{vertex}\n" for x, y, z in SQUARE)
    text = f"{head} # a square\n4 1 0\n{rows}4 0 1 2 3{face}\n"
    data = cloud.read(text.encode(), format="off").data
    np.testing.assert_allclose(data[:, 3:], np.tile(np.array(RGB) / 255, (1280, 1)), atol=0.01)
    np.testing.assert_array_equal(box(data), [[0, 0, 0], [1, 1, 0]])


# --- PCD and text ---


def pcd(rows: np.ndarray, width: int = 80, kinds: str = "F F F") -> bytes:
    names = rows.dtype.names or ()
    sizes = " ".join(str(rows.dtype[name].itemsize) for name in names)
    head = f"VERSION 0.7\nFIELDS {' '.join(names)}\nSIZE {sizes}\nTYPE {kinds}\nCOUNT {' '.join('1' * len(names))}\n"
    return f"{head}WIDTH {width}\nHEIGHT {80 // width}\nPOINTS 80\nDATA binary\n".encode() + rows.tobytes()


def rows_of(types: list[tuple[str, str]]) -> np.ndarray:
    rows = np.zeros(80, types)
    for axis, values in zip("xyz", POINTS.T, strict=True):
        rows[axis] = values
    return rows


def test_pcd_fields_of_any_width_and_order() -> None:
    for types, kinds in (
        ([("x", "<f8"), ("y", "<f8"), ("z", "<f8")], "F F F"),
        ([("x", "<f4"), ("y", "<f8"), ("z", "<f4")], "f f f"),
        ([("ring", "<u2"), ("z", "<f4"), ("t", "<f8"), ("y", "<f4"), ("x", "<f4")], "U F F F F"),
    ):
        np.testing.assert_allclose(cloud.read(pcd(rows_of(types), kinds=kinds), format="pcd").data, POINTS, atol=1e-6)


def test_pcd_organised_clouds_drop_what_the_camera_did_not_see_and_others_ask() -> None:
    rows = rows_of([("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
    rows["z"][::4] = np.nan
    there = np.arange(80) % 4 > 0
    sample = cloud.read(pcd(rows, width=8), format="pcd")
    np.testing.assert_allclose(sample.data, POINTS[there], atol=1e-6)
    assert sample.info["missing"].startswith("20 of 80")
    with pytest.raises(InputError, match=r"NaN.*invalid='drop'"):
        cloud.read(pcd(rows), format="pcd")
    np.testing.assert_allclose(cloud.read(pcd(rows), format="pcd", invalid="drop").data, POINTS[there], atol=1e-6)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
@pytest.mark.parametrize("head", ["", "80\n", "80\na molecule, or not\n", "# x y z\n", "//X Y Z\n"])
def test_text_with_marks_counts_and_headers(encoding: str, head: str, tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    path.write_text(head + "".join(f"{x:.7f} {y:.7f} {z:.7f}\n" for x, y, z in POINTS), encoding=encoding)
    np.testing.assert_allclose(cloud.read(path).data, POINTS, atol=1e-6)


def test_text_whose_count_is_another_is_refused() -> None:
    for count in (79, 81, 5000):
        with pytest.raises(InputError, match=rf"rows where the first line says {count:,}"):
            cloud.read((f"{count}\n" + "0 1 2\n" * 80).encode(), format="xyz")


@pytest.mark.parametrize(
    ("head", "extra"),
    [
        ("//X Y Z R G B A\n", "51 102 204 255"),
        ("X,Y,Z,R,G,B,A\n", "51,102,204,128"),
        ("", "51 102 204 255"),
        ("x y z nx ny nz red green blue\n", "0 0 1 51 102 204"),
        ("x;y;z;intensity;r;g;b\n", "77;51;102;204"),
        ("//X Y Z Rf Gf Bf Nx Ny Nz\n", "0.2 0.4 0.8 0 0 1"),
    ],
)
def test_text_columns_by_their_names(head: str, extra: str) -> None:
    mark = next((m for m in ",;" if m in extra), " ")
    rows = "".join(mark.join([f"{x:.7f}", f"{y:.7f}", f"{z:.7f}", extra]) + "\n" for x, y, z in POINTS)
    data = cloud.read((head + rows).encode(), format="xyz").data
    np.testing.assert_allclose(data, np.c_[POINTS, np.tile(np.array(RGB) / 255, (80, 1))], atol=1e-6)


def test_seven_columns_that_say_nothing_are_asked_about() -> None:
    rows = "".join(f"{x:.5f} {y:.5f} {z:.5f} 120 51 102 204\n" for x, y, z in POINTS).encode()
    with pytest.raises(InputError, match="columns='xyz'"):
        cloud.read(rows, format="xyz")
    np.testing.assert_allclose(cloud.read(rows, format="xyz", columns="xyz").data, POINTS, atol=1e-4)
