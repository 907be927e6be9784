"""glTF 2.0 (.gltf and .glb) to pieces of surface: what the format says of accessors, nodes and textures, all of it.

Accessors may be strided, sparse, and integers that stand for 0..1 or -1..1; nodes place a mesh any number of times; texture
coordinates may come from a second set and be transformed (KHR_texture_transform). An extension that a file requires and that is
not known here (Draco, meshopt, Basis ...) is refused by its name: without it, the numbers mean something else.
Numbers of sections are those of the glTF 2.0 specification (Khronos, registry.khronos.org/glTF).
"""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from vitlens.modalities.pixel_maps import texture_picture
from vitlens.modalities.point_pieces import Piece
from vitlens.sources import Source

# Without influence on where the surface is and what colour it has by itself.
HARMLESS = {
    "KHR_mesh_quantization",
    "KHR_texture_transform",
    "KHR_lights_punctual",
    "KHR_materials_anisotropy",
    "KHR_materials_clearcoat",
    "KHR_materials_dispersion",
    "KHR_materials_emissive_strength",
    "KHR_materials_ior",
    "KHR_materials_iridescence",
    "KHR_materials_sheen",
    "KHR_materials_specular",
    "KHR_materials_transmission",
    "KHR_materials_unlit",
    "KHR_materials_variants",
    "KHR_materials_volume",
    "KHR_xmp_json_ld",
    "EXT_texture_webp",
}
PACKED = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")
"""Extensions whose data stands elsewhere than in the accessors."""
COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
MOST_NODES = 1_000_000


def read_gltf(path: Path, source: Source) -> list[Piece]:
    """The pieces of the file's scene, in the scene's coordinates (y is up, by definition).

    Raises:
        InputError: another version, an unknown required extension, data that is missing, out of bounds or outside the folder.
    """
    content = path.read_bytes()
    document, chunk = _open(content, source)
    version = str(document.get("asset", {}).get("version", ""))
    if not version.startswith("2."):
        raise source.refuse(f"a glTF file of version {version or 'unknown'}; version 2 is read")
    strange = sorted(set(document.get("extensionsRequired", ())) - HARMLESS)
    if strange:
        raise source.refuse(f"a glTF file that requires {', '.join(strange)}, which is not read; export it without")
    return list(_Document(document, chunk, path.parent, source).pieces())


def _open(content: bytes, source: Source) -> tuple[dict[str, Any], bytes | None]:
    """The JSON document, and a .glb's binary chunk."""
    chunk: bytes | None = None
    chunks: dict[bytes, bytes] = {}
    if content[:4] == b"glTF":
        length, at = struct.unpack_from("<I", content, 8)[0] if len(content) >= 12 else 0, 12
        if len(content) < length or length < 20:
            raise source.refuse(f"a glTF file cut short: {len(content):,} of {length:,} bytes")
        while at + 8 <= length:
            size, kind = struct.unpack_from("<I4s", content, at)
            chunks.setdefault(kind, content[at + 8 : at + 8 + size])
            at += 8 + size
        content, chunk = chunks.get(b"JSON", b""), chunks.get(b"BIN\0")
    document = json.loads(content.decode("utf-8-sig"))
    if not isinstance(document, dict):
        raise source.refuse("a JSON file that is no glTF")
    return document, chunk


class _Document:
    """One opened file; its lists are indexed as the format's references do."""

    def __init__(self, document: dict[str, Any], chunk: bytes | None, folder: Path, source: Source) -> None:
        self.document, self.chunk, self.folder, self.source = document, chunk, folder, source
        self._buffers: dict[int, bytes] = {}
        self._images: dict[int, Any] = {}

    def _entry(self, kind: str, index: Any) -> dict[str, Any]:
        entries = self.document.get(kind, [])
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(entries):
            raise self.source.refuse(f"a glTF file that refers to {kind} {index!r} of {len(entries)}")
        return entries[index]

    # --- nodes (3.5) ---

    def pieces(self) -> Iterator[Piece]:
        """Every mesh, as often as the scene's nodes place it."""
        placed = list(self._placed())
        for node, matrix in placed:
            if "mesh" in node:
                mesh = self._entry("meshes", node["mesh"])
                weights = node.get("weights", mesh.get("weights", ()))
                joints = self._joints(node, dict(placed_by_id(placed)))
                for primitive in mesh.get("primitives", ()):
                    piece = self._primitive(primitive, weights, matrix, joints)
                    if piece is not None:
                        yield piece

    def _placed(self) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """(node, its matrix in the scene), from the scene's roots down."""
        nodes = self.document.get("nodes", [])
        children = {child for node in nodes for child in node.get("children", ())}
        roots = [index for index in range(len(nodes)) if index not in children]
        if self.document.get("scenes"):
            roots = self._entry("scenes", self.document.get("scene", 0)).get("nodes", [])
        waiting = [(index, np.eye(4)) for index in reversed(roots)]
        seen = 0
        while waiting:
            index, above = waiting.pop()
            node = self._entry("nodes", index)
            seen += 1
            if seen > min(MOST_NODES, len(nodes)):
                raise self.source.refuse("a glTF file whose nodes form a circle, or have two parents")
            matrix = above @ _matrix(node)
            yield node, matrix
            waiting += [(child, matrix) for child in reversed(node.get("children", ()))]

    def _joints(self, node: dict[str, Any], matrices: dict[int, np.ndarray]) -> np.ndarray | None:
        """Of a node with a skin, the matrices [joints, 4, 4] that its vertices follow instead of the node's own (3.7.3)."""
        if "skin" not in node:
            return None
        skin = self._entry("skins", node["skin"])
        joints = [matrices.get(id(self._entry("nodes", joint)), np.eye(4)) for joint in skin["joints"]]
        if "inverseBindMatrices" not in skin:
            return np.stack(joints)
        back = self._accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
        return np.stack(joints) @ back[: len(joints)]

    # --- meshes (3.7) ---

    def _primitive(self, primitive: dict[str, Any], weights: Any, matrix: np.ndarray, joints: np.ndarray | None) -> Piece | None:
        attributes = primitive.get("attributes", {})
        if "POSITION" not in attributes:
            return None
        packed = [name for name in PACKED if name in primitive.get("extensions", {})]
        if packed and "bufferView" not in self._entry("accessors", attributes["POSITION"]):
            raise self.source.refuse(f"a mesh packed with {packed[0]}, which is not read; export it without")
        xyz = self._accessor(attributes["POSITION"]).astype(np.float64)
        for weight, target in zip(weights, primitive.get("targets", ()), strict=False):
            if weight and "POSITION" in target:
                xyz = xyz + weight * self._accessor(target["POSITION"])
        if joints is not None and {"JOINTS_0", "WEIGHTS_0"} <= attributes.keys():
            xyz = self._skinned(xyz, attributes, joints)
        else:
            xyz = xyz @ matrix[:3, :3].T + matrix[:3, 3]
        count = len(xyz)
        order = self._accessor(primitive["indices"])[:, 0].astype(np.int64) if "indices" in primitive else np.arange(count)
        if order.size and order.max() >= count:
            raise self.source.refuse(f"a glTF mesh that refers to vertex {order.max()} of {count}")
        faces = _triangles(order, primitive.get("mode", 4))
        rgb = self._accessor(attributes["COLOR_0"])[:, :3] if "COLOR_0" in attributes else None
        return self._painted(Piece(xyz, faces, vertex_rgb=rgb), primitive)

    def _skinned(self, xyz: np.ndarray, attributes: dict[str, int], joints: np.ndarray) -> np.ndarray:
        which = self._accessor(attributes["JOINTS_0"]).astype(int).clip(max=len(joints) - 1)
        weights = self._accessor(attributes["WEIGHTS_0"])
        whole = np.concatenate([xyz, np.ones((len(xyz), 1))], axis=1)
        return np.einsum("nj,njab,nb->na", weights, joints[which], whole)[:, :3]

    def _painted(self, piece: Piece, primitive: dict[str, Any]) -> Piece:
        """With the base colour of the primitive's material: a factor, and a texture under its transformed coordinates."""
        if "material" not in primitive:
            return piece
        base = self._entry("materials", primitive["material"]).get("pbrMetallicRoughness", {})
        factor = base.get("baseColorFactor")
        texture = base.get("baseColorTexture")
        if factor is not None:
            piece.tint = np.asarray(factor, np.float64)[:3]
        if texture is None:
            return piece
        transform = texture.get("extensions", {}).get("KHR_texture_transform", {})
        name = f"TEXCOORD_{transform.get('texCoord', texture.get('texCoord', 0))}"
        if name not in primitive["attributes"]:
            raise self.source.refuse(f"a glTF mesh with a texture and without its coordinates ({name})")
        uv = _transformed(self._accessor(primitive["attributes"][name]), transform)
        piece.uv = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)  # v grows downwards in glTF (3.7.2.1)
        piece.image = self._image(texture["index"])
        return piece

    def _image(self, texture: Any) -> Any:
        """The picture of a texture, by Pillow; the WebP one where the extension names it."""
        entry = self._entry("textures", texture)
        index = entry.get("source", entry.get("extensions", {}).get("EXT_texture_webp", {}).get("source"))
        if index is None:
            named = ", ".join(entry.get("extensions", {})) or "no source"
            raise self.source.refuse(f"a texture with {named}, which is not read")
        if index not in self._images:
            image = self._entry("images", index)
            content = self._view(image["bufferView"]) if "bufferView" in image else self._load(image.get("uri", ""))
            self._images[index] = texture_picture(io.BytesIO(content), ["PNG", "JPEG", "WEBP"], self.source)
        return self._images[index]

    # --- accessors and buffers (3.6) ---

    def _accessor(self, index: Any) -> np.ndarray:
        """An accessor's elements [count, width], float64 where its integers are normalised, else of their own type."""
        accessor = self._entry("accessors", index)
        if accessor.get("componentType") not in COMPONENTS or accessor.get("type") not in WIDTHS:
            raise self.source.refuse("a glTF accessor of an unknown type")
        dtype, width, count = np.dtype(COMPONENTS[accessor["componentType"]]), WIDTHS[accessor["type"]], int(accessor["count"])
        self.source.needs(count * width * 8, f"an accessor of {count:,} elements")
        if "bufferView" in accessor:
            rows = self._rows(accessor["bufferView"], accessor.get("byteOffset", 0), dtype, width, count)
        else:
            rows = np.zeros((count, width), dtype)
        if "sparse" in accessor:
            rows = self._sparse(rows, accessor["sparse"])
        if not accessor.get("normalized"):
            return rows
        return np.maximum(rows / np.iinfo(dtype).max, -1.0)  # 3.11, as quantised attributes

    def _rows(self, view: int, offset: int, dtype: np.dtype, width: int, count: int) -> np.ndarray:
        """`count` elements of a buffer view, `byteStride` apart; columns of small matrices start at multiples of four bytes."""
        content, stride = self._view(view), self._entry("bufferViews", view).get("byteStride")
        size = dtype.itemsize * width
        stride = stride or size
        if count < 1 or offset < 0 or offset + (count - 1) * stride + size > len(content):
            raise self.source.refuse("a glTF accessor that reaches beyond its buffer: cut short or damaged")
        return np.ndarray((count, width), dtype, content, offset, (stride, dtype.itemsize)).copy()

    def _sparse(self, rows: np.ndarray, sparse: dict[str, Any]) -> np.ndarray:
        count, places, values = int(sparse["count"]), sparse["indices"], sparse["values"]
        kind = np.dtype(COMPONENTS[places["componentType"]])
        at = self._rows(places["bufferView"], places.get("byteOffset", 0), kind, 1, count)[:, 0]
        if at.max() >= len(rows):
            raise self.source.refuse(f"a sparse glTF accessor that refers to element {at.max()} of {len(rows)}")
        rows[at] = self._rows(values["bufferView"], values.get("byteOffset", 0), rows.dtype, rows.shape[1], count)
        return rows

    def _view(self, index: Any) -> bytes:
        view = self._entry("bufferViews", index)
        packed = [name for name in PACKED if name in view.get("extensions", {})]
        buffer = self._entry("buffers", view["buffer"])
        if packed and "uri" not in buffer and (self.chunk is None or view["buffer"] != 0):
            raise self.source.refuse(f"a buffer packed with {packed[0]}, which is not read; export it without")
        content, offset, length = self._buffer(view["buffer"]), view.get("byteOffset", 0), view["byteLength"]
        if offset < 0 or length < 0 or offset + length > len(content):
            raise self.source.refuse("a glTF buffer view that reaches beyond its buffer: cut short or damaged")
        return content[offset : offset + length]

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            buffer = self._entry("buffers", index)
            if "uri" in buffer:
                self._buffers[index] = self._load(buffer["uri"])
            elif index == 0 and self.chunk is not None:
                self._buffers[index] = self.chunk
            else:
                raise self.source.refuse(f"a glTF file whose buffer {index} is nowhere")
        return self._buffers[index]

    def _load(self, uri: str) -> bytes:
        """What a URI holds: itself, or a file in the folder of this one or below; nothing is fetched."""
        if uri.startswith("data:"):
            head, _, body = uri.partition(",")
            return base64.b64decode(body) if head.endswith(";base64") else unquote(body).encode("latin-1")
        path = (self.folder / unquote(uri)).resolve()
        if not uri or ":" in uri.split("/")[0] or not path.is_relative_to(self.folder.resolve()):
            raise self.source.refuse(f"a glTF file that refers to {uri[:80]!r}, outside its folder")
        if not path.is_file():
            raise self.source.refuse(f"a glTF file that refers to {uri[:80]!r}, which is not beside it")
        return path.read_bytes()


def placed_by_id(placed: list[tuple[dict[str, Any], np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """(identity of a node, its matrix)."""
    return ((id(node), matrix) for node, matrix in placed)


def _matrix(node: dict[str, Any]) -> np.ndarray:
    """A node's own transform [4, 4]: its matrix (by columns), or scale, then rotation (quaternion x y z w), then translation."""
    if "matrix" in node:
        return np.asarray(node["matrix"], np.float64).reshape(4, 4).T
    matrix = np.eye(4)
    x, y, z, w = np.asarray(node.get("rotation", (0, 0, 0, 1)), np.float64)
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix[:3, :3] = turn * np.asarray(node.get("scale", (1, 1, 1)), np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _transformed(uv: np.ndarray, transform: dict[str, Any]) -> np.ndarray:
    """Texture coordinates [n, 2], scaled, turned and moved as KHR_texture_transform says."""
    turn = float(transform.get("rotation", 0.0))
    scaled = uv * np.asarray(transform.get("scale", (1, 1)), np.float64)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return scaled @ rotation.T + np.asarray(transform.get("offset", (0, 0)), np.float64)


def _triangles(order: np.ndarray, mode: int) -> np.ndarray:
    """Faces [f, 3] of vertices in drawing order (3.7.2.1); points and lines have none."""
    if mode == 4:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    if mode not in (5, 6) or len(order) < 3:
        return np.empty((0, 3), np.int64)
    first = order[:-2] if mode == 5 else np.full(len(order) - 2, order[0])
    return np.stack([first, order[1:-1], order[2:]], axis=1)
