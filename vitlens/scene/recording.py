"""A recording: posed RGB-D frames on disk, with one camera for depth and one for colour, whatever layout they came in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.checks import number, numbers, one_of, whole
from vitlens.errors import InputError, OptionError
from vitlens.modality import get_modality
from vitlens.scene.camera import CONVENTIONS, DIRECTIONS, Camera, camera_to_world, pose_fault
from vitlens.sources import decoding

RAW = 1e-6
"""Stored depth is read in millionths: the depth modality refuses kilometres, and here the scale is what is in question."""
PAIRED = "a colour picture and a depth map with the same number"


@dataclass(frozen=True)
class Overrides:
    """What a user says of a recording; None leaves it to the layout.

    `intrinsics` are FX, FY, CX, CY in pixels, of pictures of `intrinsics_size` (width, height; default: the depth maps' own).
    `depth_scale` is stored units per metre, `pose_scale` metres per unit of the stored positions.
    """

    layout: str | None = None
    intrinsics: tuple[float, ...] | None = None
    intrinsics_size: tuple[int, ...] | None = None
    depth_scale: float | None = None
    pose_convention: str | None = None
    pose_direction: str | None = None
    pose_scale: float | None = None
    trajectory: Path | None = None
    every: int = 1
    """Take one frame of so many."""
    time_difference: float = 0.02
    """Seconds by which a picture, its depth and its pose may lie apart."""

    def __post_init__(self) -> None:
        if self.intrinsics is not None:
            fx, fy, *_ = numbers("--intrinsics", list(self.intrinsics), 4)
            if fx <= 0 or fy <= 0:
                raise OptionError(f"--intrinsics must be FX,FY,CX,CY with focal lengths above 0, found {self.intrinsics}")
        if self.intrinsics_size is not None:
            for value in numbers("--intrinsics-size", list(self.intrinsics_size), 2):
                whole("--intrinsics-size", int(value), least=1)
        for name in ("depth_scale", "pose_scale", "time_difference"):
            value = getattr(self, name)
            if value is not None:
                number(f"--{name.replace('_', '-')}", value, above=0)
        if self.pose_convention is not None:
            one_of("--pose-convention", self.pose_convention, CONVENTIONS)
        if self.pose_direction is not None:
            one_of("--pose-direction", self.pose_direction, DIRECTIONS)
        whole("--every", self.every, least=1)


@dataclass(frozen=True)
class Frame:
    """One moment: its files, and the pose as stored. `lost` says why it cannot be used; empty for a good one."""

    name: str
    colour: Path | None
    depth: Path | None
    pose: np.ndarray | None
    lost: str = ""


@dataclass(frozen=True)
class Recording:
    """Frames in order, what is known of how they were taken, and what was assumed (`notes`)."""

    folder: Path
    layout: str
    frames: tuple[Frame, ...]
    depth_camera: Camera
    colour_camera: Camera
    depth_scale: float
    convention: str = "opencv"
    direction: str = "camera-to-world"
    pose_scale: float = 1.0
    intrinsics_size: tuple[int, int] = (0, 0)
    """Width and height of the pictures that the intrinsics were said to belong to."""
    notes: tuple[str, ...] = ()

    @property
    def usable(self) -> list[int]:
        """Positions of the frames that are not lost."""
        return [place for place, frame in enumerate(self.frames) if not frame.lost]

    @property
    def lost(self) -> list[tuple[str, str]]:
        """Names of lost frames, each with the reason."""
        return [(frame.name, frame.lost) for frame in self.frames if frame.lost]

    def pose(self, place: int) -> np.ndarray:
        """Camera-to-world [4, 4], metres, OpenCV's axes, of a usable frame."""
        stored = self.frames[place].pose
        assert stored is not None, self.frames[place].name
        return camera_to_world(stored, self.convention, self.direction, self.pose_scale)

    def depth(self, place: int) -> np.ndarray:
        """Metres along the camera's axis, float32 [h, w]; 0 where nothing was measured.

        Raises:
            InputError: the file cannot be read, or is of another size than the recording's.
        """
        path = self.frames[place].depth
        assert path is not None, self.frames[place].name
        stored = read_stored_depth(path, self.depth_camera.size)
        _check_shape(stored, self.depth_camera, path, "depth map")
        return (stored / self.depth_scale).astype(np.float32)

    def colour(self, place: int) -> np.ndarray:
        """RGB, uint8 [h, w, 3].

        Raises:
            InputError: as `depth`.
        """
        path = self.frames[place].colour
        assert path is not None, self.frames[place].name
        pixels = read_colour(path)
        _check_shape(pixels, self.colour_camera, path, "colour picture")
        return pixels

    def without(self, lost: Sequence[tuple[int, str]]) -> Recording:
        """The same with more frames lost, each for its reason."""
        why = dict(lost)
        frames = [replace(f, lost=f.lost or why.get(place, "")) for place, f in enumerate(self.frames)]
        return replace(self, frames=tuple(frames))

    def about(self) -> dict[str, Any]:
        """How the recording was understood, as JSON types."""
        return {
            "folder": str(self.folder),
            "layout": self.layout,
            "frames": len(self.frames),
            "usable": len(self.usable),
            "depth_camera": self.depth_camera.to_dict(),
            "colour_camera": self.colour_camera.to_dict(),
            "depth_scale": self.depth_scale,
            "pose_convention": self.convention,
            "pose_direction": self.direction,
            "pose_scale": self.pose_scale,
            "notes": list(self.notes),
        }


def marked(frame: Frame) -> Frame:
    """The frame, lost where a file or a good pose is missing."""
    if frame.lost:
        return frame
    missing = [name for name, path in (("colour picture", frame.colour), ("depth map", frame.depth)) if path is None]
    if missing:
        return replace(frame, lost=f"no {' and no '.join(missing)}")
    for path in (frame.colour, frame.depth):
        if path is not None and not path.is_file():
            return replace(frame, lost=f"no file {path.name}")
    if frame.pose is None:
        return replace(frame, lost="no pose")
    return replace(frame, lost=pose_fault(frame.pose))


def read_colour(path: Path) -> np.ndarray:
    """A picture as stored (a turned one would not lie on its depth map any more): RGB, uint8 [h, w, 3]."""
    pixels: np.ndarray = get_modality("image").load({"source": path, "exif": False}).data
    return pixels


def read_stored_depth(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """The values of a depth map as they are stored, float64 [h, w]; 0 and what is not finite are missing.

    `size` (width, height) is needed of files that do not say theirs.

    Raises:
        InputError: it cannot be read, or holds nothing but missing pixels.
    """
    if path.suffix == ".depth":
        return _read_lzfse(path, size)
    sample = get_modality("depth").load({"source": path, "scale": RAW, "invalid": "zero"})
    return np.asarray(sample.data, np.float64) / RAW


def _read_lzfse(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    """Record3D's depth: float32 metres, compressed, without a word about their shape."""
    import imagecodecs

    accepted = "a depth map of Record3D"
    with decoding(path, accepted):
        values = np.frombuffer(imagecodecs.lzfse_decode(path.read_bytes()), np.float32)
    if size is None or values.size != size[0] * size[1]:
        wanted = f"{size[0]} x {size[1]}" if size else "as many as metadata.json says (dw, dh)"
        raise InputError(str(path), f"{values.size} depth values", f"{accepted}: {wanted}")
    metres = np.where(np.isfinite(values), values, 0).astype(np.float64).reshape(size[1], size[0])
    if not metres.any():
        raise InputError(str(path), "nothing but missing pixels (0)", accepted)
    return metres


def _check_shape(array: np.ndarray, camera: Camera, path: Path, what: str) -> None:
    if array.shape[:2] != (camera.height, camera.width):
        found = f"a {what} of {array.shape[1]} x {array.shape[0]} pixels"
        raise InputError(str(path), found, f"{camera.width} x {camera.height}, as the first one")
