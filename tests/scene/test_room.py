"""The room of Toybox objects: its frames are one room, its queries ask for what stands in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitlens.benchmarks.scene.proof import SENSES, Query, inside, queries, scored, summed, table
from vitlens.benchmarks.scene.room import ToyRoom, write_room
from vitlens.scene.check import check
from vitlens.scene.layouts import open_recording
from vitlens.scene.recording import Overrides

ROOM = ToyRoom(0, side=96)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room")
    assert list(write_room(ROOM, folder, 12)) == list(range(1, 13))
    return folder


def test_its_frames_fit_each_other_and_show_things(recorded: Path) -> None:
    report = check(open_recording(recorded))
    assert report.faults == ()
    assert report.recording.lost == []
    assert report.now.error < 0.05  # a Kinect at four metres
    wrong = check(open_recording(recorded, Overrides(pose_direction="world-to-camera")))
    assert wrong.repair == {"pose_direction": "camera-to-world"}
    shown = np.concatenate([report.recording.colour(place).reshape(-1, 3) for place in range(12)])
    assert shown.std(axis=0).min() > 15


def test_a_stopped_drawing_keeps_its_frames(recorded: Path) -> None:
    first = (recorded / "color" / "00000.png").stat().st_mtime_ns
    assert list(write_room(ROOM, recorded, 12))[-1] == 12
    assert (recorded / "color" / "00000.png").stat().st_mtime_ns == first


def test_depth_lies_on_the_objects(recorded: Path) -> None:
    recording = open_recording(recorded)
    found = np.zeros(12, bool)
    for place in range(12):
        depth, camera, pose = recording.depth(place), recording.depth_camera, recording.pose(place)
        rows, columns = (axis.ravel() for axis in np.mgrid[: camera.height, : camera.width])
        points = camera.points(columns, rows, depth.ravel()) @ pose[:3, :3].T + pose[:3, 3]
        found |= [inside(points, one, 0.02).sum() > 5 for one in ROOM.placed]
        assert np.percentile(points[:, 1], 1) > -0.1
        assert np.percentile(np.abs(points[:, [0, 2]]), 99) < 4.4
    assert found.all()


def test_no_two_objects_have_one_shape_or_stand_in_each_other() -> None:
    assert len({one.thing.shape for one in ROOM.placed}) == 12
    boxes = [one.box() for one in ROOM.placed]
    for a in range(12):
        for b in range(a):
            assert not ((boxes[a][0] < boxes[b][1]) & (boxes[b][0] < boxes[a][1])).all()


def test_every_object_is_asked_for_by_every_sense() -> None:
    asked = list(queries(ROOM, takes=1))
    assert {query.sense for query in asked} == set(SENSES)
    assert sum(query.sense == "audio" for query in asked) == 12
    assert sum(query.sense == "name" for query in asked) == 48
    assert next(query for query in asked if query.sense == "name").item.split()[-1] == ROOM.placed[0].thing.shape


def test_touch_and_sound_are_right_at_any_object_of_the_material() -> None:
    from types import SimpleNamespace

    materials = [one.thing.material for one in ROOM.placed]
    first = next(i for i, material in enumerate(materials) if materials.count(material) > 1)
    second = next(i for i in range(12) if i != first and materials[i] == materials[first])
    middle = sum(ROOM.placed[second].box()) / 2
    points = np.concatenate([[middle], np.random.default_rng(0).uniform((-4, 0, -4), (4, 1, 4), (20_000, 3))])
    scene = SimpleNamespace(voxels=SimpleNamespace(points=points, size=0.05))
    answer = SimpleNamespace(places=[SimpleNamespace(point=middle)])
    rows = scored(scene, ROOM, [Query("audio", first, None), Query("image", first, None)], [answer, answer])  # type: ignore[arg-type, list-item]
    assert [row["right"] for row in rows] == [True, False]
    assert rows[0]["any_object"]
    assert rows[1]["any_object"]
    assert 0 < rows[1]["chance"] + rows[1]["chance_near"] < 1
    assert rows[0]["chance"] > rows[1]["chance"]
    text = table([summed("audio", rows[:1]), summed("image", rows[1:])]).to_markdown()
    assert "| the sound of it struck | material | 1 | 100.0 |" in text
