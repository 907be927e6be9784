"""Readers of the layouts: Open3D, RealSense through Open3D, TUM RGB-D, ScanNet's export, Replica of Nice-SLAM, Record3D."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitlens.errors import InputError
from vitlens.scene.camera import Intrinsics, from_quaternion
from vitlens.scene.layout import Found, Layout, by_numbers, file_of, files_in, folder_of, number_of, pairs, read_json, with_poses
from vitlens.scene.recording import Frame, Overrides
from vitlens.scene.trajectories import nearest_poses, read_matrix, read_trajectory, read_tum
from vitlens.sources import check_file, decoding

COLOUR_FOLDERS = ("color", "colour", "image", "images", "rgb")
COLOUR_TYPES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}
DEPTH_TYPES = {".png", ".tif", ".tiff", ".npy", ".npz", ".exr", ".pfm", ".depth"}
TRAJECTORIES = ("trajectory.log", "scene/trajectory.log", "camera_trajectory.json", "trajectory.json", "trajectory.txt")
INTRINSICS = ("intrinsic.json", "intrinsics.json", "camera_intrinsic.json", "camera_intrinsics.json", "camera_primesense.json")
PRIMESENSE = Intrinsics(525.0, 525.0, 319.5, 239.5, (640, 480))
"""What Open3D and TUM's tools take where nothing is said: PrimeSense's and the first Kinect's."""
REPLICA = Intrinsics(600.0, 600.0, 599.5, 339.5, (1200, 680))


# --- Open3D, and RealSense recordings that Open3D unpacked ---


def _open3d_intrinsics(path: Path) -> tuple[Intrinsics, float]:
    """A PinholeCameraIntrinsic (matrix column by column) or RealSense metadata, and stored depth units per metre."""
    accepted = "an intrinsics file that Open3D wrote: width, height, intrinsic_matrix"
    content = read_json(path, accepted)
    with decoding(path, accepted):
        matrix = np.array(content["intrinsic_matrix"], dtype=np.float64)
        matrix = matrix if matrix.shape == (3, 3) else matrix.reshape(3, 3).T
        size = (int(content["width"]), int(content["height"]))
        scale = float(content.get("depth_scale", 1000.0))
        camera = Intrinsics.of_matrix(matrix, size)
    if min(camera.fx, camera.fy, scale, *size) <= 0:
        raise InputError(str(path), "focal lengths, sizes or a depth scale of 0 or less", accepted)
    return camera, scale


def _read_open3d(folder: Path, given: Overrides) -> Found:
    colour, depth = folder_of(folder, COLOUR_FOLDERS), folder / "depth"
    if colour is None or not depth.is_dir():
        raise InputError(str(folder), "no folders color/ (or image/, rgb/) and depth/", OPEN3D)
    named = pairs(files_in(colour, COLOUR_TYPES), files_in(depth, DEPTH_TYPES), folder)
    source = given.trajectory or file_of(folder, TRAJECTORIES) or next(iter(sorted(folder.glob("*.log"))), None)
    if source is None:
        raise InputError(
            str(folder), "pictures without poses", f"{OPEN3D}; a SLAM system makes them; --trajectory FILE names them"
        )
    notes: list[str] = []
    trajectory = read_trajectory(source)
    frames = with_poses(named, trajectory, source, notes)
    card = file_of(folder, INTRINSICS)
    camera, scale = _open3d_intrinsics(card) if card else (PRIMESENSE, 1000.0)
    if card is None and given.intrinsics is None:
        notes.append("no intrinsics in the folder: PrimeSense's are assumed (525,525,319.5,239.5 of 640 x 480), as Open3D does")
    return Found(frames, camera, scale, direction=trajectory.direction, notes=notes)


def _is_realsense(folder: Path) -> bool:
    card = file_of(folder, INTRINSICS)
    if card is None or folder_of(folder, COLOUR_FOLDERS) is None or not (folder / "depth").is_dir():
        return False
    text = card.read_text(encoding="utf-8", errors="replace")[:100_000]
    return "device_name" in text or "stream_length_usec" in text


def _is_open3d(folder: Path) -> bool:
    poses = file_of(folder, TRAJECTORIES) or next(folder.glob("*.log"), None) or file_of(folder, INTRINSICS)
    both = folder_of(folder, COLOUR_FOLDERS) is not None and (folder / "depth").is_dir()
    return both and poses is not None and not (_is_realsense(folder) or _is_tum(folder) or _is_record3d(folder))


# --- TUM RGB-D ---


def _listing(path: Path) -> tuple[np.ndarray, list[Path]]:
    """Times in seconds and files of rgb.txt or depth.txt."""
    accepted = "a list with lines 'timestamp file'"
    check_file(path, accepted=accepted)
    with decoding(path, accepted):
        lines = [
            line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and line.strip()[0] != "#"
        ]
        times = np.array([float(words[0]) for words in lines])
        files = [path.parent / words[1] for words in lines]
    if not files:
        raise InputError(str(path), "an empty list", accepted)
    order = np.argsort(times, kind="stable")
    return times[order], [files[place] for place in order]


def _read_tum(folder: Path, given: Overrides) -> Found:
    times, colour = _listing(folder / "rgb.txt")
    depth_times, depth = _listing(folder / "depth.txt")
    source = given.trajectory or folder / "groundtruth.txt"
    trajectory = read_tum(source)
    partners = associate(times, depth_times, given.time_difference)
    poses = nearest_poses(trajectory, times, given.time_difference)
    frames = []
    for path, time, partner, pose in zip(colour, times, partners, poses, strict=True):
        lost = "" if pose is not None else f"no pose within {given.time_difference:g} s of {time:.4f} s (--time-difference)"
        lost = (
            lost
            if partner is not None
            else f"no depth map within {given.time_difference:g} s of {time:.4f} s (--time-difference)"
        )
        frames.append(Frame(path.stem, path, None if partner is None else depth[partner], pose, lost))
    if all(frame.lost for frame in frames):
        known = trajectory.times
        assert known is not None
        found = f"pictures from {times[0]:.2f} to {times[-1]:.2f} s, depth {depth_times[0]:.2f} to {depth_times[-1]:.2f}, poses "
        found += f"{known[0]:.2f} to {known[-1]:.2f}: no three within {given.time_difference:g} s"
        raise InputError(str(folder), found, "clocks that agree; --time-difference SECONDS allows more")
    notes = [] if given.intrinsics else ["TUM's default camera is taken, as its authors recommend: 525,525,319.5,239.5"]
    return Found(frames, PRIMESENSE, 5000.0, notes=notes)


def associate(times: np.ndarray, others: np.ndarray, most: float) -> list[int | None]:
    """For each time [n] the place of the nearest other within `most` seconds; each other is given to its nearest time only."""
    nearest = np.abs(others[None] - times[:, None]).argmin(axis=1) if len(others) else np.zeros(len(times), int)
    found: list[int | None] = [None] * len(times)
    for other in np.unique(nearest):
        asking = np.flatnonzero(nearest == other)
        gaps = np.abs(times[asking] - others[other])
        if gaps.min() <= most:
            found[int(asking[gaps.argmin()])] = int(other)
    return found


def _is_tum(folder: Path) -> bool:
    return (folder / "rgb.txt").is_file() and (folder / "depth.txt").is_file()


# --- ScanNet, as its own reader exports it ---


def _read_scannet(folder: Path, given: Overrides) -> Found:
    colour = folder_of(folder, COLOUR_FOLDERS)
    missing = [f"{name}/" for name in ("depth", "pose") if not (folder / name).is_dir()]
    if colour is None or missing:
        raise InputError(str(folder), f"no folder {', '.join(missing) or 'color/'}", SCANNET)
    named = pairs(files_in(colour, COLOUR_TYPES), files_in(folder / "depth", DEPTH_TYPES), folder)
    poses = by_numbers(files_in(folder / "pose", {".txt"}), folder / "pose")
    frames = []
    for name, picture, depth in named:
        number = number_of(picture or depth or Path(name))
        source = poses.get(number) if number is not None else None
        frames.append(Frame(name, picture, depth, read_matrix(source) if source else None))
    intrinsics = {kind: _matrix_intrinsics(folder, kind) for kind in ("depth", "color")}
    camera = intrinsics["depth"]
    notes = []
    if camera is None and intrinsics["color"] is not None:
        camera = intrinsics["color"]
        notes.append("no intrinsic_depth.txt: intrinsic_color.txt is taken for the depth maps, too")
    return Found(frames, camera, 1000.0, colour=intrinsics["color"], notes=notes)


def _matrix_intrinsics(folder: Path, kind: str) -> Intrinsics | None:
    places = [folder / part / f"intrinsic{s}_{kind}.txt" for part in ("intrinsic", "intrinsics", ".") for s in ("", "s")]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return None
    accepted = "intrinsics as a 3x3 or 4x4 matrix"
    with decoding(path, accepted):
        matrix = np.loadtxt(path, ndmin=2)
    if matrix.shape not in ((3, 3), (4, 4), (3, 4)) or not np.isfinite(matrix).all() or min(matrix[0, 0], matrix[1, 1]) <= 0:
        raise InputError(str(path), f"an array of shape {list(matrix.shape)}, or focal lengths of 0 or less", accepted)
    return Intrinsics.of_matrix(matrix)


def _is_scannet(folder: Path) -> bool:
    return folder_of(folder, COLOUR_FOLDERS) is not None and (folder / "depth").is_dir() and (folder / "pose").is_dir()


# --- Replica, as Nice-SLAM renders it ---


def _read_replica(folder: Path, given: Overrides) -> Found:
    results = folder / "results"
    if not results.is_dir():
        raise InputError(str(folder), "no folder results/", REPLICA_NEEDS)
    colour, depth = files_in(results, COLOUR_TYPES, "frame"), files_in(results, DEPTH_TYPES, "depth")
    named = pairs(colour, depth, results)
    source = given.trajectory or folder / "traj.txt"
    notes: list[str] = []
    frames = with_poses(named, read_trajectory(source), source, notes)
    card = next((path for path in (folder / "cam_params.json", folder.parent / "cam_params.json") if path.is_file()), None)
    if card is None:
        if given.intrinsics is None:
            notes.append(
                "no cam_params.json: Nice-SLAM's camera is assumed (600,600,599.5,339.5 of 1200 x 680, depth scale 6553.5)"
            )
        return Found(frames, REPLICA, 6553.5, notes=notes)
    accepted = "Nice-SLAM's cam_params.json: camera with w, h, fx, fy, cx, cy, scale"
    content = read_json(card, accepted)
    with decoding(card, accepted):
        own = content["camera"]
        camera = Intrinsics(
            float(own["fx"]), float(own["fy"]), float(own["cx"]), float(own["cy"]), (int(own["w"]), int(own["h"]))
        )
        return Found(frames, camera, float(own["scale"]), notes=notes)


def _is_replica(folder: Path) -> bool:
    return (folder / "results").is_dir() and (folder / "traj.txt").is_file()


# --- Record3D ---


def _read_record3d(folder: Path, given: Overrides) -> Found:
    """Poses of ARKit (OpenGL's axes); depth is smaller than colour, and of the same camera."""
    card = file_of(folder, ("metadata.json", "metadata"))
    if card is None:
        raise InputError(str(folder), "no metadata.json", RECORD3D)
    content = read_json(card, RECORD3D)
    with decoding(card, RECORD3D):
        width, height = int(content["w"]), int(content["h"])
        matrix = np.array(content["K"], dtype=np.float64).reshape(3, 3).T
        depth_size = (int(content["dw"]), int(content["dh"])) if "dw" in content else None
        poses = [from_quaternion(np.array(pose[:4]), np.array(pose[4:7])) for pose in content["poses"]]
    both = folder_of(folder, ("rgbd",))
    colour = both or folder_of(folder, COLOUR_FOLDERS)
    depth = both or folder / "depth"
    if colour is None or not depth.is_dir():
        raise InputError(str(folder), "no folder rgbd/, nor rgb/ and depth/", RECORD3D)
    maps = [path for path in files_in(depth, DEPTH_TYPES) if both is None or path.suffix != ".png"]
    named = pairs(files_in(colour, {".jpg", ".jpeg"} if both else COLOUR_TYPES), maps, folder)
    numbers = [number_of(picture or around or Path(name)) for name, picture, around in named]
    if None in numbers or max(n or 0 for n in numbers) >= len(poses):
        found = f"{len(poses)} poses, and pictures up to number {max(n or 0 for n in numbers)}"
        raise InputError(str(card), found, "a pose for every picture")
    frames = [Frame(name, c, d, poses[n or 0]) for (name, c, d), n in zip(named, numbers, strict=True)]
    camera = Intrinsics.of_matrix(matrix, (width, height))
    scale = 1000.0 if maps and maps[0].suffix in (".png", ".tif", ".tiff") else 1.0
    return Found(frames, camera, scale, depth_size=depth_size, convention="opengl")


def _is_record3d(folder: Path) -> bool:
    card = file_of(folder, ("metadata.json", "metadata"))
    if card is None or card.stat().st_size > 1 << 30:
        return False
    return '"poses"' in card.read_text(encoding="utf-8", errors="replace")


OPEN3D = "color/ or image/, depth/, and poses in trajectory.log"
REALSENSE = "a recording that Open3D unpacked: color/, depth/, intrinsic.json with the device's name, and poses in trajectory.log"
TUM_NEEDS = "rgb.txt, depth.txt and groundtruth.txt"
SCANNET = "color/, depth/, pose/ with a matrix a frame, and intrinsic/"
REPLICA_NEEDS = "results/frame*.jpg, results/depth*.png and traj.txt"
RECORD3D = "metadata.json with w, h, K and poses, and rgbd/ (or rgb/ and depth/)"

LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("open3d", OPEN3D, _is_open3d, _read_open3d),
        Layout("realsense", REALSENSE, _is_realsense, _read_open3d),
        Layout("tum", TUM_NEEDS, _is_tum, _read_tum),
        Layout("scannet", SCANNET, lambda folder: _is_scannet(folder) and not _is_tum(folder), _read_scannet),
        Layout("replica", REPLICA_NEEDS, _is_replica, _read_replica),
        Layout("record3d", RECORD3D, _is_record3d, _read_record3d),
    )
}
