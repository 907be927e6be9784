"""From a recording to a scene: its surface, the crops of its frames, their embeddings, and what every voxel gets of them.

All but the embedding takes seconds and is done again by a run that was stopped; embeddings are in a store in the scene's folder,
so that the same command goes on where the last one was, also after `kill -9`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlens.checks import number, whole
from vitlens.disk import lock_folder, output_folder, write_text
from vitlens.errors import InputError, OptionError
from vitlens.scene.crops import Crops, Rows, cut, fused
from vitlens.scene.folder import CARD, EMBEDDINGS, FORMAT, FRAMES, MESH, VOXELS, Scene, open_scene, write_arrays, write_ply
from vitlens.scene.recording import Recording
from vitlens.scene.surface import Mesh, Voxels, fuse_surface
from vitlens.scene.windows import Cutting
from vitlens.vectors import Packing

if TYPE_CHECKING:
    from vitlens.model import ViTLens

Progress = Callable[[str, int, int], None]
"""(what, done, total)."""


@dataclass(frozen=True)
class Settings:
    """How a scene is built: sides of voxels and depth that is believed in metres, how frames are cut, how crops are embedded."""

    voxel: float = 0.05
    most_depth: float = 6.0
    cutting: Cutting = field(default_factory=Cutting)
    batch_size: int = 32
    num_workers: int = 0
    dtype: str = "fp32"
    save_every: int = 256
    """Crops whose embeddings are put on disk at once: what a kill costs at most."""
    fusion_device: str = "CPU:0"
    """Open3D's name of the device that fuses depth."""

    def __post_init__(self) -> None:
        number("--voxel", self.voxel, least=0.005, most=1)
        number("--max-depth", self.most_depth, above=0)
        whole("--batch-size", self.batch_size, least=1)
        whole("--num-workers", self.num_workers, least=0)

    def to_dict(self) -> dict[str, Any]:
        """What changes the result, as JSON types."""
        cutting = self.cutting
        return {
            "voxel": self.voxel,
            "most_depth": self.most_depth,
            "windows": list(cutting.sizes),
            "step": cutting.step,
            "most_windows": cutting.most,
            "segmenter": cutting.segmenter_name or None,
            "dtype": self.dtype,
        }


def build(
    recording: Recording,
    folder: Path,
    load: Callable[[], ViTLens],
    settings: Settings | None = None,
    *,
    check: dict[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Scene:
    """Build the scene of a (checked) recording in `folder`.

    `load` gives the model; it is called after everything that may fail without it. `check` is kept with the scene.

    Raises:
        OptionError: the folder holds a finished scene (without `overwrite`) or something else, or another process builds it.
        InputError: no surface comes of the recording, or none of its crops can be embedded.
    """
    settings = settings or Settings()
    check_folder(folder, overwrite=overwrite)
    with lock_folder(folder, holder="another process builds this scene now"):
        clock = _Clock()
        mesh, voxels, bad = fuse_surface(
            recording,
            voxel=settings.voxel,
            most_depth=settings.most_depth,
            device=settings.fusion_device,
            progress=lambda done, total: progress("surface", done, total),
        )
        recording = recording.without(bad)
        clock.lap("surface")
        crops, share, seen = cut(
            recording,
            voxels,
            settings.cutting,
            most_depth=settings.most_depth,
            progress=lambda done, total: progress("windows", done, total),
        )
        clock.lap("windows")
        model = load()
        clock.lap("loading the model")
        vectors, kept, weights = embed_crops(model, crops, folder / "crops", settings, progress)
        clock.lap("embedding")
        rows = fused(share, crops, vectors, kept, len(voxels))
        clock.lap("fusing")
        (folder / CARD).unlink(missing_ok=True)
        _write(folder, recording, mesh, voxels, rows, seen, crops, (vectors, kept), model)
        clock.lap("writing")
        card = _card(recording, settings, voxels, rows, crops, model, weights, check, clock)
        write_text(folder / CARD, json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    return open_scene(folder)


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Say before any work whether a scene may be built there.

    Raises:
        OptionError: it may not.
    """
    output_folder("the scene", folder)
    if (folder / CARD).exists() and not overwrite:
        raise OptionError(f"{folder} holds a finished scene: choose another folder, or --overwrite it (its crops are used again)")
    ours = {"crops", "lock", CARD, VOXELS, EMBEDDINGS, FRAMES, MESH, "cloud.ply", "frames.safetensors"}
    strange = sorted({path.name for path in folder.iterdir()} - ours) if folder.is_dir() else []
    strange = [name for name in strange if not name.endswith(".part")]
    if strange and not (folder / "crops").is_dir():
        raise OptionError(f"{folder} holds other things ({', '.join(strange[:3])}): name a folder of its own for the scene")


def embed_crops(
    model: ViTLens, crops: Crops, store: Path, settings: Settings, progress: Progress
) -> tuple[np.ndarray, np.ndarray, str]:
    """Embeddings float32 [k, E], of length 1, of the crops at the positions `kept` [k]; and the hash of the weights.

    Raises:
        InputError: none of them can be embedded.
    """
    from vitlens.store.engine import Engine
    from vitlens.store.store import EmbeddingStore

    engine = Engine(model, settings.batch_size, settings.num_workers, settings.dtype, settings.save_every)
    found = EmbeddingStore(store).embed(engine, "image", crops, on_error="skip", progress=progress)
    if not found.kept:
        raise next(iter(found.errors.values()), InputError(str(store), "no crops", "frames with depth"))
    vectors = found.vectors.numpy()
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors, np.array(found.kept), str(engine.about("image")["weights"])


def upward(recording: Recording, voxels: Voxels) -> np.ndarray:
    """The direction [3] that is up: as the cameras were held, turned to the nearest large plane (floor, tables)."""
    held = -np.mean([recording.pose(place)[:3, 1] for place in recording.usable], axis=0)
    if np.linalg.norm(held) < 0.2:
        return np.array([0.0, 1.0, 0.0])
    up = held / np.linalg.norm(held)
    for degrees in (35, 15, 8):
        near = voxels.normals[voxels.normals @ up > np.cos(np.deg2rad(degrees))]
        if len(near) >= 0.02 * len(voxels):
            mean = near.mean(axis=0)
            up = mean / np.linalg.norm(mean)
    return up


def _write(
    folder: Path,
    recording: Recording,
    mesh: Mesh,
    voxels: Voxels,
    rows: Rows,
    seen: dict[int, np.ndarray],
    crops: Crops,
    embedded: tuple[np.ndarray, np.ndarray],
    model: ViTLens,
) -> None:
    """Everything but the card."""
    write_ply(folder / MESH, mesh.vertices, mesh.colours, triangles=mesh.triangles)
    write_ply(folder / "cloud.ply", voxels.points, voxels.colours)
    write_arrays(
        folder / VOXELS,
        size=np.array(voxels.size),
        points=voxels.points,
        colours=voxels.colours,
        normals=voxels.normals,
        row_voxels=rows.voxels,
        row_levels=rows.levels,
    )
    places = list(seen)
    camera = recording.colour_camera
    write_arrays(
        folder / FRAMES,
        names=np.array([recording.frames[place].name for place in places]),
        colour=np.array([str(Path(recording.frames[place].colour or "").resolve()) for place in places]),
        camera=np.array([camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy]),
        poses=np.stack([recording.pose(place) for place in places]),
        starts=np.cumsum([0, *(len(seen[place]) for place in places)]),
        voxels=np.concatenate([seen[place] for place in places]).astype(np.int32),
    )
    points = voxels.points[rows.voxels]
    names = ["{:.2f} {:.2f} {:.2f}".format(*point) for point in points.tolist()]
    _write_embeddings(folder / EMBEDDINGS, rows.vectors, names, rows.voxels, model)
    vectors, kept = embedded
    whole_frames = crops.levels[kept] == -1
    named = [recording.frames[int(place)].name for place in crops.frames[kept[whole_frames]]]
    half = vectors[whole_frames].astype(np.float16)
    _write_embeddings(folder / "frames.safetensors", half, named, np.arange(len(named)), model)


def _write_embeddings(path: Path, vectors: np.ndarray, names: list[str], rows: np.ndarray, model: ViTLens) -> None:
    from vitlens.store.files import Column, Content, write_embeddings

    column = Column(names, rows.tolist(), lambda: iter([vectors]))
    write_embeddings(path, Content(model.space, model.spec.name, {"image": column}, Packing("float16")))


class _Clock:
    """Seconds of each part of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, what: str) -> None:
        now = time.monotonic()
        self.seconds[what], self._last = round(now - self._last, 2), now


def _card(
    recording: Recording,
    settings: Settings,
    voxels: Voxels,
    rows: Rows,
    crops: Crops,
    model: ViTLens,
    weights: str,
    check: dict[str, Any] | None,
    clock: _Clock,
) -> dict[str, Any]:
    frames = len(recording.usable)
    low, high = voxels.points.min(axis=0), voxels.points.max(axis=0)
    return {
        "format": FORMAT,
        "vitlens": version("vitlens"),
        "model": model.spec.name,
        "weights": weights,
        "licence": model.spec.licence,
        "space": asdict(model.space),
        "settings": settings.to_dict(),
        "recording": recording.about(),
        "lost": [{"frame": name, "why": why} for name, why in recording.lost],
        "check": check,
        "up": [round(float(value), 4) for value in upward(recording, voxels)],
        "extent": [[round(float(value), 3) for value in corner] for corner in (low, high)],
        "frames": frames,
        "crops": len(crops),
        "voxels": len(voxels),
        "rows": len(rows.voxels),
        "seconds": clock.seconds,
        "seconds_per_frame": round(sum(clock.seconds.values()) / max(frames, 1), 3),
        "peak_memory_mb": peak_memory(),
        "embeddings_mb": round(rows.vectors.nbytes / 1e6, 1),
    }


def peak_memory() -> float | None:
    """Megabytes that this process had at most; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (1e6 if sys.platform == "darwin" else 1e3), 1)
