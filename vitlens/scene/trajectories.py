"""Files of poses: Open3D's .log and .json, TUM's time-stamped quaternions, rows of 12 or 16 numbers, one matrix a file.

Poses come out as they are stored; what they mean (direction, axes, unit) is the recording's to say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitlens.errors import InputError
from vitlens.scene.camera import from_quaternion
from vitlens.sources import check_file, decoding

LOG = "an Open3D trajectory: a line 'i i i+1', then four lines of a 4x4 matrix, for every frame"
TUM = "a trajectory in TUM's format: lines 'timestamp tx ty tz qx qy qz qw'"
ROWS = "a line of 16 (or 12) numbers for every frame, a matrix row by row"
MATRIX = "a text file with a 4x4 (or 3x4) matrix"
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Trajectory:
    """Poses [n, 4, 4] as stored, with the numbers or times [n] that say whose they are; neither: in the order of the frames."""

    poses: np.ndarray
    numbers: tuple[int, ...] | None = None
    times: np.ndarray | None = None
    direction: str = "camera-to-world"
    """How files of this kind store poses."""


def read_trajectory(path: Path) -> Trajectory:
    """A file of poses in any of the formats above, told by its ending and its first line.

    Raises:
        InputError: no such file, or none of the formats.
    """
    accepted = f"{LOG}; {TUM}; or {ROWS}"
    check_file(path, accepted=accepted, max_bytes=MAX_BYTES)
    if path.suffix.lower() == ".json":
        return _read_json(path)
    with decoding(path, accepted):
        words = next((line.split() for line in _lines(path)), [])
    if len(words) == 8:
        return read_tum(path)
    if len(words) in (12, 16):
        return read_rows(path)
    if len(words) == 3:
        return read_log(path)
    raise InputError(str(path), f"a first line of {len(words)} words", accepted)


def read_log(path: Path) -> Trajectory:
    """Open3D's format; the first number of a pose's line counts its frame.

    Raises:
        InputError: cut off, or not the format.
    """
    check_file(path, accepted=LOG, max_bytes=MAX_BYTES)
    with decoding(path, LOG):
        lines = list(_lines(path))
        if len(lines) % 5:
            raise InputError(str(path), f"{len(lines)} lines, which is no multiple of 5: cut off or damaged", LOG)
        numbers = tuple(int(float(lines[at].split()[0])) for at in range(0, len(lines), 5))
        values = [_numbers(line, 4) for at in range(0, len(lines), 5) for line in lines[at + 1 : at + 5]]
    if not numbers:
        raise InputError(str(path), "no poses", LOG)
    return Trajectory(np.array(values).reshape(-1, 4, 4), numbers)


def read_tum(path: Path) -> Trajectory:
    """TUM's format (also ORB-SLAM's): seconds, position in metres, quaternion with its real part last.

    Raises:
        InputError: a line of another number of words, or times that do not rise.
    """
    check_file(path, accepted=TUM, max_bytes=MAX_BYTES)
    with decoding(path, TUM):
        values = np.array([_numbers(line, 8) for line in _lines(path)])
    if not len(values):
        raise InputError(str(path), "no poses", TUM)
    values = values[np.argsort(values[:, 0], kind="stable")]
    poses = np.stack([from_quaternion(row[4:], row[1:4]) for row in values])
    return Trajectory(poses, times=values[:, 0])


def read_rows(path: Path) -> Trajectory:
    """A pose a line, in the order of the frames.

    Raises:
        InputError: lines of another number of numbers.
    """
    check_file(path, accepted=ROWS, max_bytes=MAX_BYTES)
    with decoding(path, ROWS):
        lines = [line.split() for line in _lines(path)]
        width = len(lines[0]) if lines else 0
        if width not in (12, 16):
            raise InputError(str(path), f"lines of {width} numbers", ROWS)
        values = np.array([_numbers(" ".join(words), width) for words in lines])
    return Trajectory(np.stack([_squared(row.reshape(-1, 4)) for row in values]))


def read_matrix(path: Path) -> np.ndarray:
    """The matrix [4, 4] of a text file.

    Raises:
        InputError: no 4x4 or 3x4 numbers.
    """
    check_file(path, accepted=MATRIX, max_bytes=MAX_BYTES)
    with decoding(path, MATRIX):
        values = np.array([float(word) for line in _lines(path) for word in line.replace(",", " ").split()])
    if values.size not in (12, 16):
        raise InputError(str(path), f"{values.size} numbers", MATRIX)
    return _squared(values.reshape(-1, 4))


def nearest_poses(trajectory: Trajectory, times: np.ndarray, most: float) -> list[np.ndarray | None]:
    """The pose at each time [n] in seconds: between its two neighbours where both are near, else that within `most` seconds."""
    known = np.asarray(trajectory.times)
    found: list[np.ndarray | None] = []
    for time in times:
        after = int(np.searchsorted(known, time))
        sides = [place for place in (after - 1, after) if 0 <= place < len(known)]
        gaps = [abs(known[place] - time) for place in sides]
        if not sides or min(gaps) > most:
            found.append(None)
        elif len(sides) == 2 and max(gaps) <= 5 * most and known[sides[1]] > known[sides[0]]:
            share = (time - known[sides[0]]) / (known[sides[1]] - known[sides[0]])
            found.append(_between(trajectory.poses[sides[0]], trajectory.poses[sides[1]], share))
        else:
            found.append(trajectory.poses[sides[int(np.argmin(gaps))]])
    return found


def _between(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """The pose `share` of the way from one to another; the nearer one where either is lost."""
    from scipy.spatial.transform import Rotation, Slerp

    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return a if share < 0.5 else b
    pose = np.eye(4)
    pose[:3, :3] = Slerp([0, 1], Rotation.from_matrix([a[:3, :3], b[:3, :3]]))(share).as_matrix()
    pose[:3, 3] = a[:3, 3] + share * (b[:3, 3] - a[:3, 3])
    return pose


def _read_json(path: Path) -> Trajectory:
    """Open3D's PinholeCameraTrajectory: world-to-camera matrices, column by column."""
    accepted = "a PinholeCameraTrajectory that Open3D wrote"
    with decoding(path, accepted):
        content = json.loads(path.read_text(encoding="utf-8"))
        listed = [one["extrinsic"] for one in content["parameters"]]
        poses = np.array(listed, dtype=np.float64).reshape(-1, 4, 4).transpose(0, 2, 1)
    if not len(poses):
        raise InputError(str(path), "no poses", accepted)
    return Trajectory(poses, direction="world-to-camera")


def _lines(path: Path) -> list[str]:
    """Lines with something on them, without comments."""
    lines = path.read_text(encoding="utf-8", errors="replace").replace(",", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _numbers(line: str, count: int) -> list[float]:
    words = line.split()
    if len(words) != count:
        raise ValueError(f"{len(words)} numbers in a line instead of {count}: {line.strip()[:60]!r}")
    return [float(word) for word in words]


def _squared(matrix: np.ndarray) -> np.ndarray:
    """A matrix [3, 4] with the last row of a pose, or [4, 4] as it is; one stored column by column is turned back."""
    if len(matrix) == 3:
        return np.concatenate([matrix, [[0, 0, 0, 1]]])
    columns_first = np.array_equal(matrix[:, 3], (0, 0, 0, 1)) and not np.array_equal(matrix[3], (0, 0, 0, 1))
    return matrix.T if columns_first else matrix
