"""Pinhole cameras, poses, and what the world of a recording calls them.

Inside this room a pose is camera-to-world, a matrix [4, 4] in metres, of a camera in OpenCV's axes: x right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vitlens.errors import OptionError

CONVENTIONS = {"opencv": np.diag([1.0, 1.0, 1.0, 1.0]), "opengl": np.diag([1.0, -1.0, -1.0, 1.0])}
"""Axes of a camera, as a matrix from OpenCV's: "opengl" has y up and z backward (also ARKit, Blender, NeRF)."""
DIRECTIONS = ("camera-to-world", "world-to-camera")
SAME_SHAPE = 0.02
"""Two sizes whose aspect ratios differ by less than this share are of the same picture."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: focal lengths and principal point in pixels of a picture of `width` x `height`, pixel centres whole."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    @property
    def matrix(self) -> np.ndarray:
        """The intrinsic matrix [3, 3]."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])

    def of_size(self, width: int, height: int) -> Camera:
        """The same camera with its picture resized.

        Raises:
            OptionError: the picture would have another shape: it was cut, and where is not known.
        """
        if not same_shape(self.size, (width, height)):
            raise OptionError(
                f"intrinsics of {self.width} x {self.height} pictures do not fit pictures of {width} x {height}, which are of "
                f"another shape: give those pictures' own with --intrinsics FX,FY,CX,CY"
            )
        across, down = width / self.width, height / self.height
        return Camera(
            width,
            height,
            self.fx * across,
            self.fy * down,
            (self.cx + 0.5) * across - 0.5,
            (self.cy + 0.5) * down - 0.5,
        )

    def zoomed(self, factor: float) -> Camera:
        """With focal lengths times `factor`."""
        return replace(self, fx=self.fx * factor, fy=self.fy * factor)

    def magnified(self, factor: float) -> Camera:
        """With focal lengths and principal point times `factor`: intrinsics of a picture that much larger, on this one."""
        return replace(self.zoomed(factor), cx=(self.cx + 0.5) * factor - 0.5, cy=(self.cy + 0.5) * factor - 0.5)

    def points(self, columns: np.ndarray, rows: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Pixels [n] at depths [n] in metres -> points [n, 3] in the camera's axes."""
        return np.stack([(columns - self.cx) / self.fx * depth, (rows - self.cy) / self.fy * depth, depth], axis=-1)

    def pixels(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points [n, 3] in the camera's axes -> nearest columns and rows [n], int64, and whether they are in the picture."""
        depth = np.where(points[:, 2] > 1e-6, points[:, 2], np.nan)
        with np.errstate(invalid="ignore", over="ignore"):
            x, y = points[:, 0] / depth * self.fx + self.cx, points[:, 1] / depth * self.fy + self.cy
            inside = (x > -0.5) & (x < self.width - 0.5) & (y > -0.5) & (y < self.height - 0.5)
        columns = np.rint(np.where(inside, x, 0)).astype(np.int64)
        rows = np.rint(np.where(inside, y, 0)).astype(np.int64)
        return columns, rows, inside

    def to_dict(self) -> dict[str, float]:
        """The camera as JSON types."""
        return {name: getattr(self, name) for name in ("width", "height", "fx", "fy", "cx", "cy")}


@dataclass(frozen=True)
class Intrinsics:
    """What a file or user says of a camera; `size` (width, height) of the pictures it belongs to, None where that is not said."""

    fx: float
    fy: float
    cx: float
    cy: float
    size: tuple[int, int] | None = None

    @classmethod
    def of_matrix(cls, matrix: np.ndarray, size: tuple[int, int] | None = None) -> Intrinsics:
        """From an intrinsic matrix of at least 2 rows and 3 columns."""
        return cls(float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2]), size)

    def camera(self, width: int, height: int) -> Camera:
        """The camera of pictures of this size; see `Camera.of_size`."""
        own = self.size or (width, height)
        return Camera(*own, self.fx, self.fy, self.cx, self.cy).of_size(width, height)


def same_shape(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) have the same aspect ratio, but for rounding."""
    return abs(a[0] * b[1] / (a[1] * b[0]) - 1) < SAME_SHAPE


def camera_to_world(pose: np.ndarray, convention: str, direction: str, unit: float = 1.0) -> np.ndarray:
    """A stored pose [4, 4] as this room has it; `unit` is the metres of one unit of the stored position."""
    given = np.linalg.inv(pose) if direction == "world-to-camera" else np.array(pose, dtype=np.float64)
    given[:3, 3] *= unit
    return given @ CONVENTIONS[convention]


def pose_fault(pose: np.ndarray) -> str:
    """What is wrong with one stored pose by itself; empty for a rotation and a position."""
    if not np.isfinite(pose).all():
        return "its pose is not finite: tracking was lost"
    rotation = pose[:3, :3]
    if not np.allclose(pose[3], (0, 0, 0, 1), atol=1e-4):
        return f"the last row of its pose is {np.round(pose[3], 3).tolist()}, not 0 0 0 1"
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=2e-2):
        return "its pose holds no rotation (the columns are not at right angles, or not of length 1)"
    if np.linalg.det(rotation) < 0:
        return "its pose mirrors (determinant -1)"
    return ""


def from_quaternion(quaternion: np.ndarray, position: np.ndarray) -> np.ndarray:
    """A pose [4, 4] from a quaternion x, y, z, w of any length and a position [3]; NaN where the quaternion is none."""
    from scipy.spatial.transform import Rotation

    pose = np.full((4, 4), np.nan)
    pose[3] = 0, 0, 0, 1
    if np.isfinite(quaternion).all() and np.linalg.norm(quaternion) > 1e-6:
        pose[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
        pose[:3, 3] = position
    return pose
