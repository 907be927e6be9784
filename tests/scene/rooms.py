"""A small room with furniture, ray cast: frames of which all is known, written in any layout, with any fault."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitlens.libraries import load_open3d
from vitlens.scene.camera import CONVENTIONS, Camera

CAMERA = Camera(160, 120, 130.0, 130.0, 79.5, 59.5)
FRAMES = 16
THINGS = (
    (-1.2, 0.0, -0.9, 0.5, 0.8, 0.5),
    (0.7, 0.0, -1.1, 0.7, 0.4, 0.6),
    (1.2, 0.0, 0.6, 0.3, 1.1, 0.3),
    (-0.5, 0.0, 0.8, 0.6, 0.5, 0.4),
)
"""Boxes on the floor: x, y, z of the lower corner's middle, and width, height, depth in metres; y is up."""
RED = 3
"""The one that is of one colour; all else is chequered."""


@dataclass(frozen=True)
class Shot:
    """A frame: metres [h, w], RGB [h, w, 3], and camera-to-world in OpenCV's axes."""

    depth: np.ndarray
    colour: np.ndarray
    pose: np.ndarray


@cache
def mesh_scene() -> Any:
    open3d = load_open3d()
    scene = open3d.t.geometry.RaycastingScene(nthreads=1)
    make = open3d.t.geometry.TriangleMesh.create_box
    scene.add_triangles(make(4.0, 2.4, 3.6).translate([-2.0, 0.0, -1.8]))
    for x, y, z, width, height, depth in THINGS:
        scene.add_triangles(make(width, height, depth).translate([x - width / 2, y, z - depth / 2]))
    return scene


def look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Camera-to-world of a camera at `eye`, y up in the world."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


@cache
def shots(count: int = FRAMES, camera: Camera = CAMERA) -> tuple[Shot, ...]:
    """A walk along an arc through the room, looking at its middle."""
    found = []
    for share in np.linspace(0, 1, count):
        angle = 2.2 * share
        eye = np.array([1.3 * np.sin(angle) - 0.3, 1.35 + 0.15 * np.sin(4 * angle), 1.2 * np.cos(angle)])
        found.append(shot(look_at(eye, np.array([-0.9 * np.sin(angle), 0.5, -0.9 * np.cos(angle)])), camera))
    return tuple(found)


def shot(pose: np.ndarray, camera: Camera) -> Shot:
    open3d = load_open3d()
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    local = camera.points(columns.ravel(), rows.ravel(), np.ones(columns.size))
    rays = np.concatenate([np.broadcast_to(pose[:3, 3], local.shape), local @ pose[:3, :3].T], axis=1).astype(np.float32)
    depth = mesh_scene().cast_rays(open3d.core.Tensor(rays))["t_hit"].numpy().reshape(columns.shape).copy()
    places = pose[:3, 3] + depth.reshape(-1, 1) * rays[:, 3:]
    checks = (np.floor(places / 0.23).astype(int) * [3, 5, 7]).sum(axis=1)
    colour = np.stack([checks * 37 % 200 + 40, checks * 91 % 180 + 50, checks * 53 % 160 + 60], axis=1)
    x, y, z, width, height, deep = THINGS[RED]
    low, high = np.array([x - width / 2, y, z - deep / 2]) - 1e-3, np.array([x + width / 2, y + height, z + deep / 2]) + 1e-3
    colour[((places > low) & (places < high)).all(axis=1)] = (220, 30, 30)
    return Shot(depth, colour.astype(np.uint8).reshape(*columns.shape, 3), pose)


def stored_pose(
    pose: np.ndarray, *, convention: str = "opencv", direction: str = "camera-to-world", unit: float = 1.0
) -> np.ndarray:
    """A pose as a file in that convention holds it; `unit` metres are 1 there."""
    stored = pose @ CONVENTIONS[convention]
    stored[:3, 3] /= unit
    return np.linalg.inv(stored) if direction == "world-to-camera" else stored


def write_open3d(
    folder: Path, frames: tuple[Shot, ...] | None = None, *, camera: Camera | None = CAMERA, scale: float = 1000.0, **pose: Any
) -> Path:
    """The Open3D layout; `camera` is what the intrinsics file claims (None: no file)."""
    frames = frames or shots()
    for name in ("color", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = []
    for place, one in enumerate(frames):
        Image.fromarray(one.colour).save(folder / "color" / f"{place:05}.png")
        write_depth(folder / "depth" / f"{place:05}.png", one.depth, scale)
        lines.append(f"{place} {place} {place + 1}")
        lines += [" ".join(f"{value:.9g}" for value in row) for row in stored_pose(one.pose, **pose)]
    (folder / "trajectory.log").write_text("\n".join(lines) + "\n")
    if camera is not None:
        matrix = camera.matrix.T.ravel().tolist()
        card = {"width": camera.width, "height": camera.height, "intrinsic_matrix": matrix}
        (folder / "intrinsic.json").write_text(json.dumps(card))
    return folder


def write_depth(path: Path, metres: np.ndarray, scale: float) -> None:
    Image.fromarray(np.rint(metres * scale).clip(0, 65535).astype(np.uint16)).save(path)


def noisy(frames: tuple[Shot, ...], seed: int = 0) -> tuple[Shot, ...]:
    """With a Kinect's noise and holes."""
    rng = np.random.default_rng(seed)
    found = []
    for one in frames:
        depth = one.depth + (0.0012 + 0.0019 * (one.depth - 0.4) ** 2) * rng.standard_normal(one.depth.shape)
        depth[rng.random(depth.shape) < 0.05] = 0
        found.append(replace(one, depth=depth.astype(np.float32)))
    return tuple(found)


# --- the other layouts ---


def quaternion(pose: np.ndarray) -> list[float]:
    from scipy.spatial.transform import Rotation

    return [float(value) for value in Rotation.from_matrix(pose[:3, :3]).as_quat()]


def write_tum(folder: Path, frames: tuple[Shot, ...], *, late: float = 0.004, start: float = 1305031102.0) -> Path:
    """Depth `late` seconds behind colour."""
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    rows: dict[str, list[str]] = {"rgb": ["# color images"], "depth": ["# depth maps"]}
    for place, one in enumerate(frames):
        for name, time in (("rgb", start + 0.1 * place), ("depth", start + 0.1 * place + late)):
            rows[name].append(f"{time:.6f} {name}/{time:.6f}.png")
        Image.fromarray(one.colour).save(folder / rows["rgb"][-1].split()[1])
        write_depth(folder / rows["depth"][-1].split()[1], one.depth, 5000)
    for name, lines in rows.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    lines = ["# ground truth trajectory", "# timestamp tx ty tz qx qy qz qw"]
    for place, one in enumerate(frames):
        numbers = " ".join(f"{value:.6f}" for value in [*one.pose[:3, 3], *quaternion(one.pose)])
        lines.append(f"{start + 0.1 * place:.6f} {numbers}")
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_scannet(folder: Path, frames: tuple[Shot, ...], *, lost: tuple[int, ...] = ()) -> Path:
    """Colour twice as large as depth, intrinsics for each, -inf for lost frames."""
    for name in ("color", "depth", "pose", "intrinsic"):
        (folder / name).mkdir(parents=True)
    for place, one in enumerate(frames):
        large = Image.fromarray(one.colour).resize((2 * CAMERA.width, 2 * CAMERA.height))
        large.save(folder / "color" / f"{place}.jpg", quality=95)
        write_depth(folder / "depth" / f"{place}.png", one.depth, 1000)
        pose = np.full((4, 4), -np.inf) if place in lost else one.pose
        np.savetxt(folder / "pose" / f"{place}.txt", pose, fmt="%.6f")
    for kind, camera in (("depth", CAMERA), ("color", CAMERA.of_size(2 * CAMERA.width, 2 * CAMERA.height))):
        matrix = np.eye(4)
        matrix[:3, :3] = camera.matrix
        np.savetxt(folder / "intrinsic" / f"intrinsic_{kind}.txt", matrix, fmt="%.6f")
    return folder


def write_replica(folder: Path, frames: tuple[Shot, ...]) -> Path:
    results = folder / "results"
    results.mkdir(parents=True)
    for place, one in enumerate(frames):
        Image.fromarray(one.colour).save(results / f"frame{place:06}.jpg", quality=95)
        write_depth(results / f"depth{place:06}.png", one.depth, 6553.5)
    np.savetxt(folder / "traj.txt", np.stack([one.pose.ravel() for one in frames]))
    camera = {"w": CAMERA.width, "h": CAMERA.height, "fx": CAMERA.fx, "fy": CAMERA.fy, "cx": CAMERA.cx, "cy": CAMERA.cy}
    (folder / "cam_params.json").write_text(json.dumps({"camera": {**camera, "scale": 6553.5}}))
    return folder


def write_record3d(folder: Path, frames: tuple[Shot, ...]) -> Path:
    """Colour twice as large as depth; compressed depth in metres; ARKit's axes."""
    import imagecodecs

    inside = folder / "rgbd"
    inside.mkdir(parents=True)
    poses = []
    for place, one in enumerate(frames):
        large = Image.fromarray(one.colour).resize((2 * CAMERA.width, 2 * CAMERA.height))
        large.save(inside / f"{place}.jpg", quality=95)
        metres = one.depth.astype(np.float32)
        metres[0, 0] = np.nan
        (inside / f"{place}.depth").write_bytes(imagecodecs.lzfse_encode(metres.tobytes()))
        (inside / f"{place}.conf").write_bytes(b"confidence")
        stored = stored_pose(one.pose, convention="opengl")
        poses.append([*quaternion(stored), *stored[:3, 3].tolist()])
    camera = CAMERA.of_size(2 * CAMERA.width, 2 * CAMERA.height)
    card = {"w": camera.width, "h": camera.height, "dw": CAMERA.width, "dh": CAMERA.height, "fps": 60, "poses": poses}
    (folder / "metadata.json").write_text(json.dumps({**card, "K": camera.matrix.T.ravel().tolist()}))
    return folder
