"""A built scene on disk, and opened again.

scene.json              how it was made: recording, check, model, sizes, times; written last, so a folder with it is whole
voxels.safetensors      embeddings float16 [r, E] in `vitlens embed`'s layout, so that an index opens it
voxels.npz              the voxels: points, colours, normals; which voxel and which size of window each row is of
frames.npz              names, files, cameras and poses of the frames, and the voxels that each one sees
frames.safetensors      embeddings of whole frames, in the same layout
mesh.ply, cloud.ply     the surface, and the voxels, in colour
crops/                  the crops' embeddings in a store: building with other voxels embeds none of them again
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.disk import atomic
from vitlens.errors import InputError
from vitlens.scene.camera import Camera
from vitlens.scene.surface import Mesh, Voxels
from vitlens.sources import decoding
from vitlens.space import EmbeddingSpace

FORMAT = 1
ACCEPTED = "a folder that `vitlens scene build` wrote"
CARD, VOXELS, EMBEDDINGS, FRAMES, MESH = "scene.json", "voxels.npz", "voxels.safetensors", "frames.npz", "mesh.ply"


@dataclass(frozen=True)
class Frames:
    """The frames a scene was made of: camera-to-world [f, 4, 4], and which voxels each one sees (in CSR form)."""

    names: Sequence[str]
    colour: Sequence[Path]
    camera: Camera
    """Of the colour pictures."""
    poses: np.ndarray
    starts: np.ndarray
    voxels: np.ndarray

    def seen(self, frame: int) -> np.ndarray:
        """The voxels that a frame sees, in order."""
        return self.voxels[self.starts[frame] : self.starts[frame + 1]]


@dataclass(frozen=True)
class Scene:
    """A built scene. Its arrays are read when they are asked for."""

    folder: Path
    card: dict[str, Any]

    @property
    def space(self) -> EmbeddingSpace:
        """The space its embeddings live in."""
        return EmbeddingSpace(**self.card["space"])

    @property
    def model(self) -> str:
        """The name of the model that made them."""
        return str(self.card["model"])

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return _load(self.folder / VOXELS)

    @cached_property
    def voxels(self) -> Voxels:
        """The voxels of its surface."""
        found = self._arrays
        return Voxels(float(found["size"]), found["points"], found["colours"], found["normals"])

    @property
    def row_voxels(self) -> np.ndarray:
        """Which voxel each row is of, int32 [r]."""
        return self._arrays["row_voxels"]

    @property
    def row_levels(self) -> np.ndarray:
        """Which size of window each row is of, int8 [r]."""
        return self._arrays["row_levels"]

    @cached_property
    def vectors(self) -> np.ndarray:
        """Embeddings of length 1, float16 [r, E]."""
        from safetensors import safe_open

        with decoding(self.folder / EMBEDDINGS, ACCEPTED), safe_open(str(self.folder / EMBEDDINGS), framework="numpy") as file:
            return np.asarray(file.get_tensor("image"))

    @cached_property
    def frames(self) -> Frames:
        """Its frames."""
        found = _load(self.folder / FRAMES)
        width, height, *numbers = found["camera"].tolist()
        camera = Camera(int(width), int(height), *numbers)
        colour = [Path(path) for path in found["colour"].tolist()]
        return Frames(found["names"].tolist(), colour, camera, found["poses"], found["starts"], found["voxels"])

    @cached_property
    def mesh(self) -> Mesh:
        """Its surface."""
        import trimesh

        with decoding(self.folder / MESH, ACCEPTED):
            found: Any = trimesh.load(self.folder / MESH, file_type="ply", process=False)
            return Mesh(np.asarray(found.vertices), np.asarray(found.visual.vertex_colors)[:, :3], np.asarray(found.faces))

    @cached_property
    def up(self) -> np.ndarray:
        """The direction [3] that is up."""
        return np.array(self.card["up"])


def _load(path: Path) -> dict[str, np.ndarray]:
    with decoding(path, ACCEPTED), np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def open_scene(folder: str | Path) -> Scene:
    """Open a built scene.

    Raises:
        InputError: no such folder, one that was not finished, or one that a later version wrote.
    """
    folder = Path(folder)
    card = folder / CARD
    if not folder.is_dir():
        raise InputError(str(folder), "no such folder", ACCEPTED)
    if not card.is_file():
        unfinished = (folder / "crops").is_dir()
        found = (
            "a scene that was not finished: give `vitlens scene build` again, it goes on" if unfinished else f"no {CARD} in it"
        )
        raise InputError(str(folder), found, ACCEPTED)
    with decoding(card, ACCEPTED):
        content = json.loads(card.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise InputError(str(card), f"format {content['format']}", f"format {FORMAT}: build it again, or update vitlens")
    return Scene(folder, content)


def write_arrays(path: Path, **arrays: Any) -> None:
    """Arrays as an .npz that appears whole or not at all."""
    with atomic(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def write_ply(
    path: Path, points: np.ndarray, colours: np.ndarray, *, triangles: np.ndarray | None = None, **values: np.ndarray
) -> None:
    """Points [n, 3] with colours uint8 [n, 3], and further float values [n] by name, as a binary PLY; with triangles a mesh."""
    columns = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    columns += [(name, "<f4") for name in values]
    table = np.empty(len(points), columns)
    for axis, name in enumerate("xyz"):
        table[name] = points[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        table[name] = colours[:, channel]
    for name, value in values.items():
        table[name] = value
    kinds = {"<f4": "float", "u1": "uchar"}
    head = ["ply", "format binary_little_endian 1.0", "comment written by vitlens", f"element vertex {len(points)}"]
    head += [f"property {kinds[kind]} {name}" for name, kind in columns]
    faces = np.empty(0 if triangles is None else len(triangles), [("count", "u1"), ("corners", "<i4", (3,))])
    if triangles is not None:
        faces["count"], faces["corners"] = 3, triangles
        head += [f"element face {len(triangles)}", "property list uchar int vertex_indices"]
    with atomic(path) as part, part.open("wb") as stream:
        stream.write(("\n".join([*head, "end_header"]) + "\n").encode())
        stream.write(table.tobytes() + faces.tobytes())
