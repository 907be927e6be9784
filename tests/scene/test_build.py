"""A scene from beginning to end with a model of random weights: built, stopped and gone on with, asked, shown, exported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vitlens
from tests.scene.rooms import CAMERA, RED, THINGS, shots, write_open3d
from vitlens.errors import InputError, OptionError, SpaceError
from vitlens.modality import get_modality
from vitlens.scene.build import Settings, build
from vitlens.scene.check import check
from vitlens.scene.export import export_openlex3d
from vitlens.scene.folder import Scene, open_scene
from vitlens.scene.layouts import open_recording
from vitlens.scene.page import Asked, write_page
from vitlens.scene.search import Answer, find
from vitlens.scene.view import Studio, draw, write_heat
from vitlens.scene.windows import Cutting, load_segmenter, windows
from vitlens.space import EmbeddingSpace
from vitlens.store.files import load_embeddings

SETTINGS = Settings(voxel=0.08, cutting=Cutting(sizes=(0.5, 1.0), most=40), batch_size=16, save_every=32)


@cache
def model() -> Any:
    return vitlens.load("vitlens-tiny-random", modalities=["image"], device="cpu")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_open3d(tmp_path_factory.mktemp("recorded"), shots()[::2])


@pytest.fixture(scope="module")
def scene(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    report = check(open_recording(recorded))
    return build(report.recording, tmp_path_factory.mktemp("built") / "scene", model, SETTINGS, check=report.to_dict())


@pytest.fixture(scope="module")
def answer(scene: Scene) -> Answer:
    return asked_for_the_red_box(scene)


def asked_for_the_red_box(scene: Scene) -> Answer:
    """Asked with a picture of it, cut out of a frame."""
    place, box = seen_thing(RED)
    left, top, right, bottom = box
    picture = shots()[::2][place].colour[top:bottom, left:right]
    vector = model().encode({"image": [picture]})["image"][0].numpy()
    return find(scene, vector, scene.space)


def corners_of(thing: int) -> tuple[np.ndarray, np.ndarray]:
    x, y, z, width, height, depth = THINGS[thing]
    return np.array([x - width / 2, y, z - depth / 2]), np.array([x + width / 2, y + height, z + depth / 2])


def seen_thing(thing: int) -> tuple[int, tuple[int, int, int, int]]:
    """A frame that shows all of a thing, and the square around it."""
    low, high = corners_of(thing)
    points = np.array([[(low, high)[i >> axis & 1][axis] for axis in range(3)] for i in range(8)])
    for place, one in enumerate(shots()[::2]):
        inverse = np.linalg.inv(one.pose)
        columns, rows, inside = CAMERA.pixels(points @ inverse[:3, :3].T + inverse[:3, 3])
        if inside.all():
            side = max(np.ptp(columns), np.ptp(rows)) + 4
            left, top = max(0, (columns.min() + columns.max() - side) // 2), max(0, (rows.min() + rows.max() - side) // 2)
            return place, (int(left), int(top), int(left + side), int(top + side))
    raise AssertionError("no frame shows it")


def test_the_surface_is_where_the_room_is(scene: Scene) -> None:
    points = scene.voxels.points
    assert len(points) > 1000
    walls = np.abs(np.abs(points) - np.array([2.0, 0, 1.8])) < 0.06
    on_shell = walls[:, 0] | walls[:, 2] | (np.abs(points[:, 1]) < 0.06) | (np.abs(points[:, 1] - 2.4) < 0.06)
    in_thing = np.zeros(len(points), bool)
    for thing in range(len(THINGS)):
        low, high = corners_of(thing)
        in_thing |= ((points > low - 0.06) & (points < high + 0.06)).all(axis=1)
    assert (on_shell | in_thing).mean() > 0.97
    assert scene.up == pytest.approx([0, 1, 0], abs=0.05)


def test_what_was_asked_with_a_picture_of_a_thing_lies_in_it(answer: Answer, scene: Scene) -> None:
    low, high = corners_of(RED)
    best = answer.places[0]
    away = np.maximum(np.maximum(low - best.point, best.point - high), 0)
    assert np.linalg.norm(away) < 0.25, best.point
    assert (best.low <= best.point).all()
    assert (best.point <= best.high).all()
    assert best.contrast > 1
    assert best.views
    assert sum(place.views[0].share > 0 for place in answer.places) == len(answer.places)


def test_embeddings_are_half_as_wide_and_a_file_that_an_index_reads(scene: Scene) -> None:
    assert scene.vectors.dtype == np.float16
    assert np.linalg.norm(scene.vectors.astype(np.float32), axis=1) == pytest.approx(1, abs=2e-3)
    stored = load_embeddings(scene.folder / "voxels.safetensors")
    assert stored.space == scene.space
    assert stored["image"].shape == scene.vectors.shape
    assert stored.rows["image"] == scene.row_voxels.tolist()
    frames = load_embeddings(scene.folder / "frames.safetensors")
    assert frames.names["image"] == list(scene.frames.names)


def test_the_card_says_what_it_cost(scene: Scene) -> None:
    card = json.loads((scene.folder / "scene.json").read_text())
    assert card["frames"] == 8
    assert card["seconds_per_frame"] > 0
    assert card["embeddings_mb"] == pytest.approx(scene.vectors.nbytes / 1e6, abs=0.1)
    assert card["check"]["faults"] == []
    assert {"surface", "embedding", "fusing"} <= set(card["seconds"])


def test_a_finished_scene_is_not_overwritten_unasked_and_another_voxel_size_embeds_nothing_again(
    recorded: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = open_recording(recorded)
    with pytest.raises(OptionError, match="finished scene"):
        build(recording, scene.folder, model, SETTINGS)
    before = scene.vectors.copy()
    monkeypatch.setattr(type(model()), "embed", None)  # any crop that is new would fail
    again = build(recording, scene.folder, model, SETTINGS, overwrite=True)
    assert np.array_equal(before, again.vectors)


def test_a_folder_with_other_things_is_left_alone(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OptionError, match=r"holds other things \(thesis.tex\)"):
        build(open_recording(recorded), tmp_path, model, SETTINGS)


KILLED = """
import os, signal, sys
from pathlib import Path
import tests.scene.test_build as own
from vitlens.scene.build import build
from vitlens.scene.layouts import open_recording
built, batches = own.model(), 0
embed = type(built).embed
def dying(self, *arguments):
    global batches
    batches += 1
    if batches == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return embed(self, *arguments)
type(built).embed = dying
build(open_recording(sys.argv[1]), Path(sys.argv[2]), own.model, own.SETTINGS)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is POSIX's")
def test_kill_9_costs_only_what_was_in_flight(recorded: Path, scene: Scene, tmp_path: Path) -> None:
    target = tmp_path / "scene"
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(recorded), str(target)], env=environment, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    with pytest.raises(InputError, match="was not finished"):
        open_scene(target)
    asked: list[int] = []
    built = model()
    embed = type(built).embed

    def counting(self: Any, modality: str, batch: list[Any], *rest: Any) -> Any:
        asked.append(len(batch))
        return embed(self, modality, batch, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(built), "embed", counting)
        again = build(open_recording(recorded), target, model, SETTINGS)
    assert 0 < sum(asked) <= again.card["crops"] - 6 * SETTINGS.batch_size
    assert np.array_equal(again.vectors, scene.vectors)


def test_a_query_of_another_space_is_refused_by_name(scene: Scene) -> None:
    with pytest.raises(SpaceError, match=r"of space other \(32\).*ask it with its own model"):
        find(scene, np.ones(32), EmbeddingSpace("other", 32))


def test_the_picture_shows_the_heat_and_the_frame(answer: Answer, scene: Scene, tmp_path: Path) -> None:
    path = draw(scene, answer, tmp_path / "heat.png", title="audio flush.wav")
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(float)
    half = pixels.shape[1] // 2
    for part in (pixels[:, :half], pixels[:, half:]):
        assert part.std() > 20
    warm = (pixels[..., 0] - pixels[..., 2])[:, :half]
    assert (warm > 80).mean() > 0.0005


def test_walls_seen_from_behind_do_not_hide_the_room(scene: Scene) -> None:
    from vitlens.scene.view import camera_of

    studio = Studio(scene)
    for azimuth in (0.0, 90.0, 180.0, 270.0):
        seen = studio.look(studio.pose(azimuth, 40.0), camera_of(80, 60))
        toward = (seen.normal * -studio.pose(azimuth, 40.0)[:3, 2]).sum(axis=-1)
        assert (seen.triangle >= 0).mean() > 0.1
        assert (toward[seen.triangle >= 0] > -0.3).mean() > 0.95


def test_the_ply_has_colours_and_the_cosine(answer: Answer, scene: Scene, tmp_path: Path) -> None:
    import trimesh

    path = write_heat(scene, answer, tmp_path / "heat.ply")
    loaded = trimesh.load(path)
    assert np.abs(np.asarray(loaded.vertices) - scene.voxels.points).max() < 1e-5
    raw = loaded.metadata["_ply_raw"]["vertex"]["data"]
    assert raw["cosine"] == pytest.approx(np.nan_to_num(answer.heat, nan=-1), abs=1e-6)


def test_the_page_is_whole_and_asks_nobody(answer: Answer, scene: Scene, tmp_path: Path) -> None:
    label = 'text </script><img src="https://elsewhere/x.png">'
    path = write_page(scene, [Asked(label, answer), Asked("audio flush.wav", answer)], tmp_path / "page.html")
    text = path.read_text()
    assert "https://elsewhere/x.png" in text  # as words
    assert '<img src="https' not in text
    assert text.count("<script") == text.count("</script>") == 3
    for address in ("http://", "https://"):
        assert f'src="{address}' not in text
        assert f"url({address}" not in text
    assert text.count("data-query=") == 2
    assert "prefers-color-scheme" in text


def test_openlex3d_gets_a_point_and_an_embedding_for_every_voxel(scene: Scene, tmp_path: Path) -> None:
    paths = export_openlex3d(scene, tmp_path / "out")
    assert [path.name for path in paths] == ["embeddings.npy", "index.npy", "point_cloud.pcd"]
    embeddings, index = np.load(paths[0]), np.load(paths[1])
    sample = get_modality("point_cloud").load(paths[2])
    assert embeddings.shape == (len(index), scene.space.dim)
    assert index.max() < len(embeddings)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-4)
    assert sample.data.shape == (len(index), 6)
    assert np.abs(sample.data[:, 3:] * 255 - scene.voxels.colours[np.unique(scene.row_voxels)]).max() < 1.01
    with pytest.raises(OptionError, match="--overwrite"):
        export_openlex3d(scene, tmp_path / "out")


def test_a_segmenter_of_the_users_own_cuts_out_what_it_finds(recorded: Path, tmp_path: Path) -> None:
    segmenter = load_segmenter("tests.scene.test_build:near_things")
    settings = Settings(voxel=0.08, cutting=Cutting(segmenter=segmenter, segmenter_name="near_things"))
    built = build(open_recording(recorded), tmp_path / "scene", model, settings)
    assert built.card["crops"] == 8 + sum(len(near_things(one.colour, one.depth)) for one in shots()[::2])
    assert 0 < len(built.row_voxels) < len(built.voxels)


def near_things(pixels: np.ndarray, metres: np.ndarray) -> np.ndarray:
    """What is nearer than the frame's median."""
    return np.stack([metres < np.median(metres)])


def wrong_masks(pixels: np.ndarray, metres: np.ndarray) -> np.ndarray:
    return np.ones((2, 3, 4), bool)


@pytest.mark.parametrize(
    "name", ["nowhere:f", "tests.scene.test_build", "tests.scene.test_build:nothing", "tests.scene.rooms:FRAMES"]
)
def test_a_segmenter_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match="--segmenter"):
        load_segmenter(name)


def test_masks_of_another_size_are_refused(recorded: Path, tmp_path: Path) -> None:
    settings = Settings(voxel=0.08, cutting=Cutting(segmenter=wrong_masks, segmenter_name="wrong_masks"))
    with pytest.raises(OptionError, match=r"wrong_masks' gave an array of shape \[2, 3, 4\]"):
        build(open_recording(recorded), tmp_path / "scene", model, settings)


def test_windows_are_as_large_in_the_room_wherever_they_look() -> None:
    near, far = np.array([[0.0, 0, 1.0]]), np.array([[0.0, 0, 2.0]])
    sides = [windows(Cutting(sizes=(0.5,)), CAMERA, points)[0].box for points in (near, far)]
    assert sides[0][2] - sides[0][0] == pytest.approx(2 * (sides[1][2] - sides[1][0]), abs=1)
    crowd = np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 3), (5000, 3))
    assert len(windows(Cutting(sizes=(0.3, 0.6), most=50), CAMERA, crowd)) <= 50
