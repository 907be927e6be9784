"""Every layout is told by its content and understood: cameras, scale, poses; what is lost or missing is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.scene.rooms import (
    CAMERA,
    shots,
    stored_pose,
    write_open3d,
    write_record3d,
    write_replica,
    write_scannet,
    write_tum,
)
from vitlens.errors import InputError, OptionError
from vitlens.scene.layouts import open_recording
from vitlens.scene.recording import Overrides

FEW = shots()[:5]


def opened(folder: Path, **said: Any) -> Any:
    return open_recording(folder, Overrides(**said))


WRITERS: dict[str, Callable[[Path, Any], Path]] = {
    "open3d": write_open3d,
    "tum": write_tum,
    "scannet": write_scannet,
    "replica": write_replica,
    "record3d": write_record3d,
}


@pytest.mark.parametrize("layout", WRITERS)
def test_a_layout_is_told_by_its_content_and_gives_depth_colour_and_poses(layout: str, tmp_path: Path) -> None:
    said = {"intrinsics": (CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy)} if layout == "tum" else {}
    recording = opened(WRITERS[layout](tmp_path / "room", FEW), **said)
    assert recording.layout == layout
    assert not recording.lost
    assert recording.depth_camera.size == CAMERA.size
    assert recording.depth_camera.fx == pytest.approx(CAMERA.fx)
    assert recording.depth_camera.cx == pytest.approx(CAMERA.cx)
    for place, one in enumerate(FEW):
        assert np.abs(recording.pose(place) - one.pose).max() < 1e-4
        depth = recording.depth(place)
        assert np.abs(depth[1:] - one.depth[1:]).max() < 1.1e-3
        wide = recording.colour(place)
        across, down = recording.colour_camera.size
        assert wide.shape == (down, across, 3)
        small = wide.reshape(CAMERA.height, down // CAMERA.height, CAMERA.width, across // CAMERA.width, 3).mean(axis=(1, 3))
        assert np.abs(small - one.colour).mean() < 25


def test_open3d_without_intrinsics_says_what_it_assumes(tmp_path: Path) -> None:
    square = tuple(type(one)(one.depth[:, :120], one.colour[:, :120], one.pose) for one in FEW)
    cut = write_open3d(tmp_path / "square", square, camera=None)
    with pytest.raises(OptionError, match=r"--intrinsics"):  # 640 x 480's camera cannot be that of pictures cut to a square
        opened(cut)
    recording = opened(write_open3d(tmp_path / "room", FEW, camera=None))
    assert recording.depth_camera.fx == pytest.approx(525 / 4)
    assert "PrimeSense" in recording.notes[0]


def test_realsense_recordings_are_told_by_the_device_and_need_poses(tmp_path: Path) -> None:
    folder = write_open3d(tmp_path / "room", FEW)
    card = json.loads((folder / "intrinsic.json").read_text())
    (folder / "intrinsic.json").write_text(json.dumps({**card, "device_name": "Intel RealSense D435", "depth_scale": 1000.0}))
    assert opened(folder).layout == "realsense"
    (folder / "trajectory.log").unlink()
    with pytest.raises(InputError, match=r"without poses.*--trajectory"):
        opened(folder)


def test_a_users_word_counts_for_more_than_the_files(tmp_path: Path) -> None:
    folder = write_open3d(tmp_path / "room", FEW)
    recording = opened(
        folder,
        depth_scale=500.0,
        pose_convention="opengl",
        pose_direction="world-to-camera",
        pose_scale=0.5,
        intrinsics=(260.0, 260.0, 159.5, 119.5),
        intrinsics_size=(320, 240),
        every=2,
    )
    assert len(recording.frames) == 3
    assert recording.depth_camera.fx == pytest.approx(130)
    assert recording.depth_camera.cx == pytest.approx(79.5)
    assert recording.depth(0) == pytest.approx(2 * FEW[0].depth, abs=3e-3)
    given = np.linalg.inv(FEW[0].pose)
    given[:3, 3] *= 0.5
    assert recording.pose(0)[:3, 3] == pytest.approx(given[:3, 3])


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({"layout": "kinect"}, "--layout"),
        ({"depth_scale": 0.0}, "--depth-scale"),
        ({"depth_scale": float("nan")}, "--depth-scale"),
        ({"pose_scale": -1.0}, "--pose-scale"),
        ({"pose_direction": "inverse"}, "--pose-direction"),
        ({"pose_convention": "blender"}, "--pose-convention"),
        ({"intrinsics": (0.0, 1.0, 1.0, 1.0)}, "--intrinsics"),
        ({"intrinsics": (500.0, 500.0)}, "--intrinsics"),
        ({"intrinsics_size": (0, 480)}, "--intrinsics-size"),
        ({"every": 0}, "--every"),
        ({"intrinsics_size": (1000, 100)}, "another shape"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(said: dict[str, Any], wrong: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=wrong):
        opened(write_open3d(tmp_path / "room", FEW), **said)


def test_lost_frames_of_scannet_are_named_and_left_out(tmp_path: Path) -> None:
    folder = write_scannet(tmp_path / "room", FEW, lost=(1, 3))
    (folder / "pose" / "4.txt").unlink()
    (folder / "color" / "0.jpg").unlink()
    recording = opened(folder)
    assert recording.usable == [2]
    why = dict(recording.lost)
    assert "tracking was lost" in why["1"]
    assert "tracking was lost" in why["3"]
    assert "no pose" in why["4"]
    assert "no colour picture" in why["0"]


@pytest.mark.parametrize(
    ("pose", "found"),
    [
        (np.diag([2.0, 2, 2, 1]), "no rotation"),
        (np.diag([1.0, 1, -1, 1]), "mirrors"),
        (np.zeros((4, 4)), "last row"),
        (np.full((4, 4), np.nan), "not finite"),
    ],
)
def test_poses_that_are_none_are_lost_frames(pose: np.ndarray, found: str, tmp_path: Path) -> None:
    folder = write_scannet(tmp_path / "room", FEW)
    np.savetxt(folder / "pose" / "2.txt", pose)
    assert found in dict(opened(folder).lost)["2"]


def test_matrices_stored_column_by_column_are_turned_back(tmp_path: Path) -> None:
    folder = write_replica(tmp_path / "room", FEW)
    np.savetxt(folder / "traj.txt", np.stack([one.pose.T.ravel() for one in FEW]))
    recording = opened(folder)
    assert np.abs(recording.pose(3) - FEW[3].pose).max() < 1e-5


def test_tum_associates_by_time_and_names_what_has_no_partner(tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "room", FEW)
    lines = (folder / "depth.txt").read_text().splitlines()
    del lines[2]
    (folder / "depth.txt").write_text("\n".join(lines) + "\n")
    poses = (folder / "groundtruth.txt").read_text().splitlines()
    del poses[-1]
    (folder / "groundtruth.txt").write_text("\n".join(poses) + "\n")
    recording = opened(folder)
    assert recording.usable == [0, 2, 3]
    assert ["no depth map within 0.02 s" in why for _, why in recording.lost] == [True, False]
    assert "no pose within 0.02 s" in recording.lost[1][1]


def test_clocks_that_do_not_agree_are_told_with_their_times(tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "room", FEW)
    rows = [line if line[0] == "#" else f"{float(line.split()[0]) - 1e9} " + line.split(" ", 1)[1]
            for line in (folder / "groundtruth.txt").read_text().splitlines()]  # fmt: skip
    (folder / "groundtruth.txt").write_text("\n".join(rows))
    with pytest.raises(InputError, match=r"1305031102\.00 .* poses 305031102\.00"):
        opened(folder)


def test_poses_between_two_times_are_interpolated(tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "room", FEW)
    rows = ["# timestamp tx ty tz qx qy qz qw"]
    rows += [
        f"{1305031102 + 0.1 * place + late:.3f} {place + late * 10:.3f} 0 0 0 0 0 1"
        for place in range(5)
        for late in (-0.01, 0.015)
    ]
    (folder / "groundtruth.txt").write_text("\n".join(rows))
    recording = opened(folder)
    assert recording.pose(2)[0, 3] == pytest.approx(2, abs=1e-3)


def test_names_without_common_numbers_are_paired_in_order_or_refused(tmp_path: Path) -> None:
    folder = write_open3d(tmp_path / "room", FEW)
    for place, path in enumerate(sorted((folder / "color").iterdir())):
        path.rename(path.with_name(f"{place + 100:05}.png"))
    assert len(opened(folder).usable) == 5
    (folder / "color" / "00104.png").unlink()
    with pytest.raises(InputError, match="4 colour pictures and 5 depth maps"):
        opened(folder)


def test_a_trajectory_of_another_length_is_refused(tmp_path: Path) -> None:
    folder = write_open3d(tmp_path / "room", FEW)
    rows = [f"{value} " + " ".join(["1 0 0 0 0 1 0 0 0 0 1 0"]) for value in range(3)]
    other = tmp_path / "kitti.txt"
    other.write_text("\n".join(row.split(" ", 1)[1] for row in rows))
    with pytest.raises(InputError, match="3 poses for 5 frames"):
        opened(folder, trajectory=other)


def test_poses_in_order_when_their_numbers_are_not_the_files(tmp_path: Path) -> None:
    folder = write_open3d(tmp_path / "room", FEW)
    for name in ("color", "depth"):
        for path in sorted((folder / name).iterdir(), reverse=True):
            path.rename(path.with_name(f"{int(path.stem) + 1:05}.png"))
    recording = opened(folder)
    assert np.abs(recording.pose(0) - FEW[0].pose).max() < 1e-5
    assert any("in order" in note for note in recording.notes)


def test_an_open3d_json_trajectory_is_world_to_camera(tmp_path: Path) -> None:
    folder = write_open3d(tmp_path / "room", FEW)
    (folder / "trajectory.log").unlink()
    listed = [{"extrinsic": stored_pose(one.pose, direction="world-to-camera").T.ravel().tolist()} for one in FEW]
    (folder / "camera_trajectory.json").write_text(json.dumps({"parameters": listed}))
    recording = opened(folder)
    assert recording.direction == "world-to-camera"
    assert np.abs(recording.pose(2) - FEW[2].pose).max() < 1e-6


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("trajectory.log", "0 0 1\n1 0 0 0\n", "no multiple of 5"),
        ("trajectory.log", "", "empty"),
        ("trajectory.log", "a b c\n" + "1 0 0 0\n" * 4, "cannot be decoded"),
        ("trajectory.log", "0 0 1\n" + "1 0 0\n" * 4, "cannot be decoded"),
        ("intrinsic.json", "{", "cannot be decoded"),
        ("intrinsic.json", '{"width": 160, "height": 120, "intrinsic_matrix": [0, 0, 0, 0, 0, 0, 0, 0, 1]}', "0 or less"),
    ],
)
def test_damaged_files_are_named(name: str, content: str, found: str, tmp_path: Path) -> None:
    folder = write_open3d(tmp_path / "room", FEW)
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=found) as caught:
        opened(folder)
    assert name in str(caught.value)


def test_what_is_no_recording_gets_a_sentence_that_helps(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        opened(tmp_path / "nowhere")
    packed = tmp_path / "scan.r3d"
    packed.write_bytes(b"PK")
    with pytest.raises(InputError, match="unzip"):
        opened(packed)
    write_open3d(tmp_path / "scans" / "kitchen", FEW)
    with pytest.raises(InputError, match="kitchen/ in it looks like one"):
        opened(tmp_path / "scans")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"there is nothing.*scannet"):
        opened(empty)


def test_a_folder_of_two_layouts_asks_which(tmp_path: Path) -> None:
    folder = write_scannet(tmp_path / "room", FEW)
    shutil.copy(write_open3d(tmp_path / "other", FEW) / "trajectory.log", folder)
    with pytest.raises(InputError, match=r"open3d or scannet.*--layout"):
        opened(folder)
    assert opened(folder, layout="scannet").layout == "scannet"


def test_record3d_with_a_damaged_depth_map_is_read_around_it(tmp_path: Path) -> None:
    folder = write_record3d(tmp_path / "room", FEW)
    (folder / "rgbd" / "0.depth").write_bytes(b"broken")
    recording = opened(folder)
    assert recording.depth(1).shape == (CAMERA.height, CAMERA.width)
    with pytest.raises(InputError, match=r"0\.depth"):
        recording.depth(0)
