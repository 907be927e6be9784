"""What comes out of any-to-any generation - texts, pictures, sounds, videos, meshes - and how each is written to a file."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from vitlens.adapters.generate.decoder_cards import Kind
from vitlens.disk import atomic, output_file
from vitlens.errors import OptionError
from vitlens.sources import suffix_of


@dataclass(frozen=True)
class Waveform:
    """A sound: `samples` float32 [n] or [n, channels] in -1..1, `rate` in hertz."""

    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """Its duration."""
        return len(self.samples) / self.rate


@dataclass(frozen=True)
class VideoClip:
    """A video: RGB pictures of one size, `fps` of them a second."""

    frames: list[PIL.Image.Image]
    fps: float


@dataclass(frozen=True)
class TriangleMesh:
    """A mesh: `vertices` float32 [n, 3], `faces` int64 [m, 3], `colors` uint8 [n, 3] or None."""

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None = None


class Medium(ABC):
    """One kind of output: what a pipeline is asked for, what comes of it, and how that is written."""

    suffixes: ClassVar[tuple[str, ...]]
    output_type: ClassVar[str] = ""
    """Argument of the pipeline's call; empty where no pipeline makes it."""

    @property
    def listed(self) -> str:
        """Its suffixes, in messages."""
        return " ".join(f".{suffix}" for suffix in self.suffixes)

    def lacking(self, *, rate: int | None, fps: float | None) -> str:
        """What must be known of a decoder and is not, in words; empty if nothing."""
        return ""

    def of(self, made: Any, *, rate: int, fps: float) -> Any:
        """The value in what a pipeline returned; `rate` in hertz, `fps` in frames a second."""
        return made.images[0]

    @abstractmethod
    def write(self, value: Any, path: Path, suffix: str) -> None:
        """Write a value to `path` in the format of `suffix`."""


class TextMedium(Medium):
    """Texts, which nothing decodes."""

    suffixes = ("txt",)

    def write(self, value: str, path: Path, suffix: str) -> None:
        """UTF-8, with a newline at the end."""
        path.write_text(f"{value}\n", encoding="utf-8")


class ImageMedium(Medium):
    """PIL pictures."""

    suffixes = ("png", "jpg", "jpeg", "webp")
    output_type = "pil"

    def write(self, value: PIL.Image.Image, path: Path, suffix: str) -> None:
        """PNG without loss, the others at quality 95."""
        kind = "JPEG" if suffix in ("jpg", "jpeg") else suffix.upper()
        value.save(path, format=kind, **({} if suffix == "png" else {"quality": 95}))


class AudioMedium(Medium):
    """Sounds."""

    suffixes = ("wav", "flac")
    output_type = "np"

    def lacking(self, *, rate: int | None, fps: float | None) -> str:
        """The sampling rate."""
        return "" if rate else "no sampling rate, of the pipeline or on the card; set rate= on the card"

    def of(self, made: Any, *, rate: int, fps: float) -> Waveform:
        """The first sound; pipelines put channels first."""
        samples = np.asarray(made.audios[0], dtype=np.float32)
        return Waveform(samples.T if samples.ndim == 2 else samples, rate)

    def write(self, value: Waveform, path: Path, suffix: str) -> None:
        """16 bit; what is too loud is clipped."""
        import soundfile

        soundfile.write(path, value.samples.clip(-1, 1), value.rate, format=suffix.upper(), subtype="PCM_16")


class VideoMedium(Medium):
    """Videos."""

    suffixes = ("mp4", "gif")
    output_type = "pil"

    def lacking(self, *, rate: int | None, fps: float | None) -> str:
        """The frames a second."""
        return "" if fps else "its card does not say the frames a second; set fps= on it"

    def of(self, made: Any, *, rate: int, fps: float) -> VideoClip:
        """The first video."""
        return VideoClip(list(made.frames[0]), float(fps))

    def write(self, value: VideoClip, path: Path, suffix: str) -> None:
        """H.264, or an animated GIF that goes on for ever."""
        if suffix == "gif":
            first, *others = value.frames
            first.save(path, format="GIF", save_all=True, append_images=others, duration=1000 / value.fps, loop=0)
            return
        from fractions import Fraction

        import av

        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(value.fps).limit_denominator(1000))
            stream.pix_fmt = "yuv420p"
            stream.height, stream.width = _even(value.frames[0]).shape[:2]
            for frame in value.frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(_even(frame), format="rgb24")))
            container.mux(stream.encode())


class MeshMedium(Medium):
    """Meshes."""

    suffixes = ("ply", "glb")
    output_type = "mesh"

    def of(self, made: Any, *, rate: int, fps: float) -> TriangleMesh:
        """The first mesh, with colours where it has any."""
        mesh = made.images[0]
        channels = [mesh.vertex_channels[name].detach().float().cpu() for name in "RGB"] if mesh.vertex_channels else []
        colors = (torch.stack(channels, dim=-1).clamp(0, 1) * 255).round().byte().numpy() if channels else None
        return TriangleMesh(mesh.verts.detach().float().cpu().numpy(), mesh.faces.detach().cpu().numpy(), colors)

    def write(self, value: TriangleMesh, path: Path, suffix: str) -> None:
        """As trimesh writes it."""
        import trimesh

        made = trimesh.Trimesh(value.vertices, value.faces, vertex_colors=value.colors, process=False)
        path.write_bytes(cast(bytes, made.export(file_type=suffix)))


MEDIA: dict[Kind, Medium] = {
    "text": TextMedium(),
    "image": ImageMedium(),
    "audio": AudioMedium(),
    "video": VideoMedium(),
    "3d": MeshMedium(),
}


@dataclass(frozen=True)
class Generated:
    """One output, and how it came about: `value` is a str, a PIL picture, a `Waveform`, a `VideoClip` or a `TriangleMesh`."""

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
            MEDIA[self.kind].write(self.value, part, suffix_of(path))
        return path


def kind_of(path: str | os.PathLike[str]) -> Kind:
    """What a file of this name holds.

    Raises:
        OptionError: a suffix that no output is written to.
    """
    suffix = suffix_of(path)
    for kind, medium in MEDIA.items():
        if suffix in medium.suffixes:
            return kind
    accepted = "; ".join(f"{kind}: {medium.listed}" for kind, medium in MEDIA.items())
    raise OptionError(f"output {os.fspath(path)}: no output has the suffix {Path(path).suffix or '(none)'}; known are {accepted}")


def check_path(path: str | os.PathLike[str], kind: Kind) -> Path:
    """`path` as a Path once an output of `kind` can be written there.

    Raises:
        OptionError: a suffix that does not fit, or a folder.
    """
    return output_file(f"output {kind}", Path(path), MEDIA[kind].suffixes)


def _even(frame: PIL.Image.Image) -> np.ndarray:
    """RGB pixels with the last row or column repeated where there is an odd number: colour is stored at half the resolution."""
    pixels = np.asarray(frame.convert("RGB"))
    height, width = pixels.shape[:2]
    return np.ascontiguousarray(np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
