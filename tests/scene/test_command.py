"""`vitlens scene` as a user meets it: what is wrong in one line, a repair, a build, a query, an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import command_line
from tests.scene.rooms import shots, write_open3d

MODEL = ["--model", "vitlens-tiny-random", "--device", "cpu"]
FRAMES = shots()[::3]


def run(*arguments: object, code: int = 0) -> Any:
    return command_line.run("scene", *arguments, code=code)


def refused(*arguments: object) -> str:
    return command_line.refused("scene", *arguments)


@pytest.fixture(scope="module")
def inverted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_open3d(tmp_path_factory.mktemp("inverted"), FRAMES, direction="world-to-camera")


@pytest.fixture(scope="module")
def built(inverted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the inverted recording, repaired."""
    folder = tmp_path_factory.mktemp("built") / "home.scene"
    result = run(
        "build", inverted, "-o", folder, *MODEL, "--repair", "--voxel", 0.1, "--windows", "0.6,1.2", "--most-windows", 20
    )
    assert "taking --pose-direction world-to-camera" in result.stderr
    assert "seconds" in result.stdout
    return folder


def test_check_names_the_fault_and_the_option_and_exits_1(inverted: Path) -> None:
    result = run("check", inverted, code=1)
    said = " ".join(result.output.split())
    assert "poses look world-to-camera: median depth error" in said
    assert "repaired by --pose-direction world-to-camera" in said
    assert "its frames fit each other" in run("check", inverted, "--pose-direction", "world-to-camera").output


def test_check_as_json(inverted: Path) -> None:
    said = json.loads(run("check", inverted, "--json", code=1).stdout)
    assert said["faults"][0]["option"] == "--pose-direction world-to-camera"
    assert said["median_depth_error"] > 5 * said["median_depth_error_repaired"]
    assert said["recording"]["layout"] == "open3d"


def test_build_does_not_start_on_a_recording_that_does_not_fit(inverted: Path, tmp_path: Path) -> None:
    said = refused("build", inverted, "-o", tmp_path / "s", *MODEL)
    assert "poses look world-to-camera" in said
    assert "--pose-direction world-to-camera repairs it (or --repair)" in said
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--windows", "big"], "--windows 'big': write it as 0.3,0.6,1.2"),
        (["--windows", "0"], "--windows"),
        (["--voxel", "0"], "--voxel must be a number from 0.005 to 1"),
        (["--intrinsics", "525"], "--intrinsics '525': write it as"),
        (["--intrinsics-size", "640"], "--intrinsics-size '640': write it as 640x480"),
        (["--layout", "kinect"], "--layout must be open3d, realsense"),
        (["--segmenter", "nowhere"], "--segmenter 'nowhere': write it as module:function"),
    ],
)
def test_wrong_options_are_named_before_anything_is_done(options: list[str], says: str, inverted: Path, tmp_path: Path) -> None:
    assert says in refused("build", inverted, "-o", tmp_path / "s", *MODEL, *options)


def test_query_writes_box_frames_picture_cloud_and_page(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    result = run("query", built, "--text", "a red box", "--text", "rain", "-w", "text=2", "-o", out, "--page", "--places", 2)
    assert "point, m" in result.output
    assert sorted(path.name for path in out.iterdir()) == ["answer.json", "heat.ply", "heat.png", "page.html"]
    said = json.loads((out / "answer.json").read_text())
    assert said["query"] == "2 of “a red box” + 2 of “rain”"
    place = said["places"][0]
    assert (np.array(place["box"]["low"]) < place["box"]["high"]).all()
    assert place["frames"]
    assert "a red box" in (out / "page.html").read_text()


def test_query_away_from_something_and_as_json(built: Path, tmp_path: Path) -> None:
    picture = next((built.parent.parent).glob("inverted*/color/00000.png"))
    said = json.loads(
        run("query", built, "--text", "a box", "--image", picture, "-w", "image=-0.5", "-o", tmp_path / "f", "--json").stdout
    )
    assert len(said["files"]) == 3
    assert said["places"]


def test_a_query_for_nothing_of_nothing_or_from_nowhere_is_refused(built: Path, inverted: Path, tmp_path: Path) -> None:
    assert "nothing to look for" in refused("query", built)
    assert "no such file" in refused("query", built, "--audio", "nowhere.wav")
    assert "no scene.json in it" in refused("query", inverted, "--text", "x")
    assert "--weight 'audio': write it as" in refused("query", built, "--text", "x", "-w", "audio")
    assert "no input 'audio'" in refused("query", built, "--text", "x", "-w", "audio=1")
    assert "cancel out" in refused("query", built, "--text", "x", "-w", "text=0", "-o", tmp_path / "f")


def test_export(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "openlex3d"
    assert len(run("export", built, "-o", out).stdout.splitlines()) == 3
    assert "--overwrite" in refused("export", built, "-o", out)
    run("export", built, "-o", out, "--overwrite")
