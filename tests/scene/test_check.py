"""Every fault put in on purpose is named, with the option that repairs it; what is right is left alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.scene.rooms import CAMERA, Shot, noisy, shots, write_depth, write_open3d
from vitlens.scene.check import Report, check
from vitlens.scene.layouts import open_recording
from vitlens.scene.recording import Overrides

FRAMES = noisy(shots())
TWICE = replace(CAMERA, fx=2 * CAMERA.fx, fy=2 * CAMERA.fy, cx=159.5, cy=119.5)
LONG = replace(CAMERA, fx=200.0, fy=200.0)


def checked(folder: Path, **said: Any) -> Report:
    return check(open_recording(folder, Overrides(**said)))


def test_a_right_recording_has_no_fault(tmp_path: Path) -> None:
    report = checked(write_open3d(tmp_path, FRAMES))
    assert report.faults == ()
    assert report.recording.lost == []
    assert report.now.error < 0.02


@pytest.mark.parametrize(
    ("fault", "repair", "says"),
    [
        (
            {"direction": "world-to-camera"},
            {"pose_direction": "world-to-camera"},
            r"poses look world-to-camera: .* inverted 0\.01 m",
        ),
        ({"convention": "opengl"}, {"pose_convention": "opengl"}, r"look like OpenGL's"),
        ({"scale": 5000.0}, {"depth_scale": 5000.0}, r"depth scale looks like 5000 stored units per metre, not 1000"),
        ({"unit": 0.001}, {"pose_scale": 0.001}, r"poses' unit looks like 0\.001 m, not 1 m"),
        ({"camera": TWICE}, {"intrinsics_size": (320, 240)}, r"intrinsics look like those of 320 x 240 pictures"),
        (
            {"direction": "world-to-camera", "convention": "opengl"},
            {"pose_direction": "world-to-camera", "pose_convention": "opengl"},
            r"with all repairs 0\.01 m",
        ),
        (
            {"direction": "world-to-camera", "convention": "opengl", "scale": 5000.0, "camera": TWICE},
            {
                "pose_direction": "world-to-camera",
                "pose_convention": "opengl",
                "depth_scale": 5000.0,
                "intrinsics_size": (320, 240),
            },
            r"with all repairs 0\.01 m",
        ),
    ],
    ids=["inverted", "opengl", "scale", "millimetres", "intrinsics", "inverted opengl", "all four"],
)
def test_a_fault_is_named_and_its_repair_repairs_it(
    fault: dict[str, Any], repair: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = write_open3d(tmp_path, FRAMES, **{"camera": CAMERA, **fault})
    report = checked(folder)
    assert report.repair == repair
    assert any(re.search(says, one.text) for one in report.faults), [one.text for one in report.faults]
    for one in report.faults:
        assert one.option.startswith("--")
    mended = checked(folder, **report.repair)
    assert mended.faults == ()
    assert mended.now.error == pytest.approx(report.best.error, rel=0.2)


def test_a_wrong_focal_length_is_measured(tmp_path: Path) -> None:
    report = checked(write_open3d(tmp_path, FRAMES, camera=LONG))
    assert list(report.repair) == ["intrinsics"]
    assert report.repair["intrinsics"][0] == pytest.approx(CAMERA.fx, rel=0.03)


def test_positions_of_a_unit_of_their_own_are_told_from_a_wrong_depth_scale(tmp_path: Path) -> None:
    report = checked(write_open3d(tmp_path, FRAMES, unit=0.73))
    assert report.repair == {"pose_scale": pytest.approx(0.73, rel=0.03)}
    assert "else depth has" in report.faults[0].text


def test_a_user_who_names_the_wrong_thing_is_told_the_right_one(tmp_path: Path) -> None:
    report = checked(write_open3d(tmp_path, FRAMES), pose_direction="world-to-camera", depth_scale=4000.0)
    assert report.repair == {"pose_direction": "camera-to-world", "depth_scale": 1000.0}


def test_a_frame_whose_pose_jumped_is_lost_and_named(tmp_path: Path) -> None:
    frames = list(FRAMES)
    moved = frames[6].pose.copy()
    moved[:3, 3] += (0.6, 0.0, 0.4)
    frames[6] = Shot(frames[6].depth, frames[6].colour, moved)
    report = checked(write_open3d(tmp_path, tuple(frames)))
    assert report.faults == ()
    assert [name for name, _ in report.recording.lost] == ["00006"]
    assert "does not fit its neighbours" in report.recording.lost[0][1]


def test_a_trajectory_that_breaks_is_noted_where(tmp_path: Path) -> None:
    frames = [replace(one) for one in FRAMES]
    for place in range(8, len(frames)):
        moved = frames[place].pose.copy()
        moved[:3, 3] += (0.5, 0.0, 0.5)
        frames[place] = replace(frames[place], pose=moved)
    report = checked(write_open3d(tmp_path, tuple(frames)))
    assert any("breaks between 00007 and 00008" in note for note in report.notes)
    assert report.recording.lost == []


def test_empty_and_broken_maps_are_lost_frames(tmp_path: Path) -> None:
    folder = write_open3d(tmp_path, FRAMES)
    write_depth(folder / "depth" / "00003.png", np.zeros_like(FRAMES[0].depth), 1000)
    (folder / "depth" / "00004.png").write_bytes(b"\x89PNG broken")
    report = checked(folder)
    why = dict(report.recording.lost)
    assert set(why) == {"00003", "00004"}
    assert "missing pixels" in why["00003"]


def test_poses_of_other_frames_are_hopeless_and_said_to_be(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(len(FRAMES))
    mixed = tuple(replace(one, pose=FRAMES[other].pose) for one, other in zip(FRAMES, order, strict=True))
    report = checked(write_open3d(tmp_path, mixed))
    assert report.faults
    assert report.repair == {}
    assert "--trajectory" in report.faults[0].text


def test_frames_that_see_nothing_in_common_are_not_judged(tmp_path: Path) -> None:
    apart = (FRAMES[0], FRAMES[-1])
    report = checked(write_open3d(tmp_path, apart))
    assert report.faults == ()
    assert "nothing can be held against each other" in report.notes[-1]


def test_a_camera_that_only_turns_says_what_cannot_be_told(tmp_path: Path) -> None:
    from tests.scene.rooms import look_at, shot

    eye = np.array([0.2, 1.3, 1.2])
    turning = tuple(shot(look_at(eye, np.array([x, 0.4, -1.0])), CAMERA) for x in np.linspace(-0.8, 0.8, 8))
    report = checked(write_open3d(tmp_path, turning))
    assert report.faults == ()
    assert any("hardly moves" in note for note in report.notes)
