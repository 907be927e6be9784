"""A Toybox on disk: real files that the modalities read, the same bytes however it was made, and no harm from kill -9."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vitlens.benchmarks.toybox import SENSORS, Detail, World, make_toybox, observe
from vitlens.benchmarks.toybox.sensors.make import split_sizes
from vitlens.cli.inputs import gather
from vitlens.errors import OptionError
from vitlens.modality import modality_class
from vitlens.store.manifest import read_manifest


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def toybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toybox")
    make_toybox(folder, objects={"train": 3, "test": 2, "unseen_shapes": 2}, seed=4, progress=False)
    return folder


def test_there_is_a_manifest_for_each_split_with_a_column_for_each_modality(toybox: Path) -> None:
    assert sorted(path.name for path in toybox.glob("*.csv")) == ["test.csv", "train.csv", "unseen_shapes.csv"]
    rows = read_manifest(toybox / "train.csv")
    for index, row in enumerate(rows):
        thing = World(4).object("train", index)
        assert (row["id"], row["split"], row["shape"], row["material"]) == (thing.id, "train", thing.shape, thing.material)
        assert (int(row["shape_id"]), int(row["material_id"])) == (thing.shape_id, thing.material_id)
        assert row["text"] == row["caption"] == thing.caption
        assert float(row["metres"]) == pytest.approx(thing.size, abs=1e-3)
        assert all((toybox / row[name]).is_file() for name in SENSORS)


@pytest.mark.parametrize("name", SENSORS)
def test_every_file_is_read_by_its_modality_as_it_was_measured(toybox: Path, name: str) -> None:
    items = gather(manifest=toybox / "train.csv", modalities=[name]).items
    assert len(items) == 3
    modality = modality_class(name)()
    for index, item in enumerate(items):
        sample = modality.load(item.value)
        measured = observe(World(4).object("train", index), [name])[name]
        assert np.allclose(np.squeeze(sample.data), measured, atol=1e-6)
    if name == "depth":
        assert sample.info["focal_length"] == pytest.approx(87.92, abs=0.01) and sample.info["baseline"] == 0.05
    if name == "point_cloud":
        assert sample.info["up"] == "y"
    if name in ("audio", "eeg", "imu", "pressure"):
        assert sample.info["rate"] == {"audio": 16000, "eeg": 1000, "imu": 640, "pressure": 20}[name]


def test_the_whole_toybox_is_readable_by_a_manifest(toybox: Path) -> None:
    groups = gather(manifest=toybox / "test.csv").by_modality()
    assert set(groups) == {"text", *SENSORS} and {len(items) for items in groups.values()} == {2}


def test_the_same_call_gives_the_same_bytes_and_makes_nothing_twice(toybox: Path, tmp_path: Path) -> None:
    before = contents(toybox)
    times = {path: path.stat().st_mtime_ns for path in toybox.rglob("*.p*")}
    make_toybox(toybox, objects={"train": 3, "test": 2, "unseen_shapes": 2}, seed=4, progress=False)
    assert contents(toybox) == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    make_toybox(tmp_path / "again", objects={"train": 1}, seed=4, progress=False)
    again = contents(tmp_path / "again")
    assert all(again[name] == before[name] for name in again if name.startswith("train/"))


def test_what_is_missing_is_made_again(toybox: Path) -> None:
    before = contents(toybox)
    victims = [toybox / "train/depth/train-000001.png", toybox / "train/audio/train-000002.wav", toybox / "train.csv"]
    for victim in victims:
        victim.unlink()
    make_toybox(toybox, objects={"train": 3, "test": 2, "unseen_shapes": 2}, seed=4, progress=False)
    assert contents(toybox) == before


def test_a_toybox_grows_by_objects_and_sensors(tmp_path: Path) -> None:
    make_toybox(tmp_path, objects={"train": 4}, sensors=["audio"], progress=False)
    first = contents(tmp_path)
    assert list(read_manifest(tmp_path / "train.csv")[0])[-1] == "audio"
    make_toybox(tmp_path, objects={"train": 6}, sensors=["depth"], progress=False)
    rows = read_manifest(tmp_path / "train.csv")
    assert [bool(row["audio"]) for row in rows] == [True] * 4 + [False] * 2
    assert all(row["depth"] and row["depth.scale"] == "0.001" for row in rows)
    assert all(contents(tmp_path)[name] == found for name, found in first.items() if name.endswith(".wav"))
    assert len(gather(manifest=tmp_path / "train.csv", modalities=["audio"]).items) == 4


def test_another_world_or_detail_needs_another_folder(tmp_path: Path) -> None:
    make_toybox(tmp_path, objects={"train": 1}, sensors=["audio"], progress=False)
    for wrong in ({"seed": 1}, {"detail": Detail(picture=32)}, {"world": World(0, held_out=2)}):
        with pytest.raises(OptionError, match="another world or detail"):
            make_toybox(tmp_path, objects={"train": 1}, sensors=["audio"], progress=False, **wrong)
    assert json.loads((tmp_path / "toybox.json").read_text())["world"]["seed"] == 0


def test_wrong_sensors_splits_and_numbers_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for wrong in ({"sensors": ["smell"]}, {"objects": {"trian": 3}}, {"objects": {"train": -1}}, {"objects": {"train": 1.5}}):
        with pytest.raises(OptionError, match="toybox"):
            make_toybox(tmp_path / "new", progress=False, **wrong)
    assert not (tmp_path / "new").exists()


def test_one_number_is_shared_out_over_the_splits() -> None:
    world = World(0)
    sizes = split_sizes(1400, world)
    assert sizes["train"] == 1400 and sizes["clip_only"] == 250  # 50 of each shape
    assert {sizes[split] for split in ("validation", "test", "unseen_pairs", "unseen_shapes")} == {140}
    assert split_sizes({"test": 5, "train": 0}, world) == {"test": 5}


def test_processes_make_the_same_files(tmp_path: Path) -> None:
    for workers in (0, 2):
        make_toybox(tmp_path / str(workers), objects={"train": 40}, sensors=["audio"], workers=workers, progress=False)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


def test_after_a_kill_the_same_call_goes_on(tmp_path: Path) -> None:
    """Killed with -9 in the middle, then run again: equal to a run that was never disturbed."""
    command = (
        "from vitlens.benchmarks.toybox import make_toybox\n"
        f"make_toybox({str(tmp_path / 'killed')!r}, objects={{'train': 600}}, sensors=['audio'], progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", command])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("killed/train/audio/train*.wav"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    there = len(list(tmp_path.glob("killed/train/audio/train*.wav")))
    assert 5 <= there < 600 and not (tmp_path / "killed/train.csv").exists()
    (tmp_path / "killed/train/audio/.part-train-000599.wav").write_bytes(b"half")  # a kill may leave such a thing
    for name in ("killed", "whole"):
        make_toybox(tmp_path / name, objects={"train": 600}, sensors=["audio"], progress=False)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
