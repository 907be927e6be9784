"""What comes out of any-to-any generation - texts, pictures, sounds, videos, meshes - and how each is written to a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL.Image
from torch import Tensor

from vitlens.adapters.generate.decoder_cards import KINDS, Kind
from vitlens.disk import atomic
from vitlens.errors import OptionError
from vitlens.sources import suffix_of

SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "text": ("txt",),
    "image": ("png", "jpg", "jpeg", "webp"),
    "audio": ("wav", "flac"),
    "video": ("mp4", "gif"),
    "3d": ("ply", "glb"),
}


@dataclass(frozen=True)
class Audio:
    """A sound: `samples` float32 [n] or [n, channels] in -1..1, `rate` in hertz."""

    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """Its duration."""
        return len(self.samples) / self.rate


@dataclass(frozen=True)
class Video:
    """A video: RGB pictures of one size, `fps` of them a second."""

    frames: list[PIL.Image.Image]
    fps: float


@dataclass(frozen=True)
class Mesh:
    """A mesh: `vertices` float32 [n, 3], `faces` int64 [m, 3], `colors` uint8 [n, 3] or None."""

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None = None


@dataclass(frozen=True)
class Generated:
    """One output, and how it came about: `value` is a str, a PIL picture, an `Audio`, a `Video` or a `Mesh`."""

    kind: Kind
    value: Any
    bridge: str
    """From the inputs to the decoder: "embedding", "text" or "picture"."""
    decoder: str | None = None
    """Name of its card; None where nothing was decoded (texts)."""
    prompt: str | None = None
    embedding: Tensor | None = None
    """What the decoder was given [E], at the length that it expects."""
    retrieved: tuple[str, ...] = ()
    """Captions that were put before the prompt."""
    seed: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """The arguments of the pipeline's call that were set."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it, whole or not at all, in the format the suffix names; returns the path.

        Raises:
            OptionError: a suffix that does not fit, or a folder.
        """
        path = check_path(path, self.kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part:
            _WRITERS[self.kind](self.value, part, suffix_of(path))
        return path


def kind_of(path: str | os.PathLike[str]) -> Kind:
    """What a file of this name holds.

    Raises:
        OptionError: a suffix that no output is written to.
    """
    suffix = suffix_of(path)
    for kind, suffixes in SUFFIXES.items():
        if suffix in suffixes:
            return kind
    accepted = "; ".join(f"{kind}: {_listed(kind)}" for kind in KINDS)
    raise OptionError(f"output {os.fspath(path)}: no output has the suffix {Path(path).suffix or '(none)'}; known are {accepted}")


def check_path(path: str | os.PathLike[str], kind: Kind) -> Path:
    """`path` as a Path once an output of `kind` can be written there.

    Raises:
        OptionError: a suffix that does not fit, or a folder.
    """
    if suffix_of(path) not in SUFFIXES[kind]:
        found = Path(path).suffix or "none"
        raise OptionError(f"output {os.fspath(path)}: {kind} is written to {_listed(kind)}, found suffix {found}")
    if Path(path).is_dir():
        raise OptionError(f"output {os.fspath(path)}: a folder; give a file name")
    return Path(path)


def _listed(kind: Kind) -> str:
    return " ".join(f".{suffix}" for suffix in SUFFIXES[kind])


def _write_text(text: str, path: Path, suffix: str) -> None:
    path.write_text(f"{text}\n", encoding="utf-8")


def _write_image(image: PIL.Image.Image, path: Path, suffix: str) -> None:
    image.save(
        path, format="JPEG" if suffix in ("jpg", "jpeg") else suffix.upper(), **({} if suffix == "png" else {"quality": 95})
    )


def _write_audio(audio: Audio, path: Path, suffix: str) -> None:
    import soundfile

    soundfile.write(path, audio.samples.clip(-1, 1), audio.rate, format=suffix.upper(), subtype="PCM_16")


def _write_video(video: Video, path: Path, suffix: str) -> None:
    if suffix == "gif":
        first, *others = video.frames
        first.save(path, format="GIF", save_all=True, append_images=others, duration=1000 / video.fps, loop=0)
        return
    from fractions import Fraction

    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(video.fps).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = _even(video.frames[0]).shape[:2]
        for frame in video.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_even(frame), format="rgb24")))
        container.mux(stream.encode())


def _even(frame: PIL.Image.Image) -> np.ndarray:
    """RGB pixels with the last row or column repeated where there is an odd number: colour is stored at half the resolution."""
    pixels = np.asarray(frame.convert("RGB"))
    height, width = pixels.shape[:2]
    return np.ascontiguousarray(np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


def _write_mesh(mesh: Mesh, path: Path, suffix: str) -> None:
    import trimesh

    made = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=mesh.colors, process=False)
    path.write_bytes(cast(bytes, made.export(file_type=suffix)))


_WRITERS: dict[Kind, Callable[[Any, Path, str], None]] = {
    "text": _write_text,
    "image": _write_image,
    "audio": _write_audio,
    "video": _write_video,
    "3d": _write_mesh,
}
